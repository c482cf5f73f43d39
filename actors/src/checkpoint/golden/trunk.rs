//! The health of a trunk's proxies.

use std::net::SocketAddr;
use std::time::Duration;

use tandem_protocol::trunk_health::{Input, Seen, State, TrunkHealth};

use super::*;

fn proxies() -> [SocketAddr; 3] {
    [1, 2, 3].map(|place| ([192, 0, 2, place], 5060).into())
}

/// One that answers, one that is silent, and one that wants no calls for a while.
fn sample() -> TrunkHealth {
    let [well, silent, busy] = proxies();
    let interval = Some(Duration::from_secs(30));
    let mut health = TrunkHealth::new(&proxies(), interval, 7, at(0).mono);
    let seen = [
        (well, Seen::Answered),
        (silent, Seen::Unreachable),
        (silent, Seen::Unreachable),
        (silent, Seen::Unreachable),
        (busy, Seen::Busy(Duration::from_secs(90))),
    ];
    for (proxy, seen) in seen {
        TrunkHealth::handle(&mut health, &Input::Seen(proxy, seen), at(10).mono, &mut Vec::new());
    }
    TrunkHealth::handle(&mut health, &Input::Timeout, at(40).mono, &mut Vec::new());
    health
}

fn holds(health: TrunkHealth) {
    assert_eq!(proxies().map(|proxy| health.state(proxy)), [State::Up, State::Down, State::Degraded]);
    assert!(health.asked(1).is_some(), "OPTIONS are under way");
    assert!(TrunkHealth::deadline(&health).is_some());
}

#[test]
fn a_trunks_health_is_restored_from_every_golden_checkpoint() {
    Golden::of_machine("trunk", holds).check(&sample());
}
