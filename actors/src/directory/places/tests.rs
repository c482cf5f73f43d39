use std::time::Duration;

use tandem_protocol::dns::{Family, Server, Target};
use tandem_protocol::flow::Transport;
use tandem_protocol::proxy_list::{Next, Outcome, ProxyWalk, RetryableCodes, Selection};
use tandem_protocol::sdp::negotiate::CodecList;
use tandem_protocol::time::Instant;
use tandem_protocol::transaction::Timers;

use super::*;
use crate::config::{MediaPath, NamedProxy, Redirect, Trunk, TrunkRules};
use crate::directory::{TrunkEntry, TrunkSide};
use crate::metrics::{Metrics, Registry};

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 5060))
}

/// A trunk with these addresses, and a name after so many of them each.
fn trunk(proxies: &[u8], named: &[(usize, &str)]) -> Trunk {
    let target = |host| Target::new(host, None, Transport::Udp, Family::V4);
    Trunk {
        name: "t".into(),
        listener: 0,
        proxies: proxies.iter().map(|last| Proxy::new(address(*last))).collect(),
        named: named
            .iter()
            .map(|(after, host)| NamedProxy { after: *after, target: target(host), weight: 1 })
            .collect(),
        accept_from: Vec::new(),
        calling_search_space: None,
        selection: Selection::Priority,
        timers: Timers::new(Duration::from_millis(500), Duration::from_secs(4)),
        retryable: RetryableCodes::default(),
        progress_timeout: Duration::from_secs(10),
        qualify_interval: None,
        max_calls: 0,
        emergency_channels: 0,
        max_new_calls_per_s: 0,
        media: MediaPath::Anchored,
        media_delayed: false,
        codecs: CodecList::ANY,
        record: false,
        trusted: false,
        redirect: Redirect::default(),
        redirect_to: Vec::new(),
        calling_party_mask: None,
        rules: TrunkRules::default(),
        credentials: None,
        certificate_names: Vec::new(),
    }
}

/// Servers in the order of their priorities, each with its weight and address.
fn located(servers: &[(u16, u16, u8)]) -> Arc<Located> {
    let server = |(priority, weight, last): &(u16, u16, u8)| Server {
        name: format!("s{last}").into(),
        priority: *priority,
        weight: *weight,
        transport: Transport::Udp,
        addresses: vec![address(*last)],
    };
    let servers = servers.iter().map(server).collect();
    Arc::new(Located { servers, because: None, until: Instant(0) })
}

fn addresses(proxies: &[Proxy]) -> Vec<SocketAddr> {
    proxies.iter().map(|proxy| proxy.address).collect()
}

/// The order of one call, with these addresses down.
fn ordered(places: &Places, turn: Option<usize>, down: &[u8]) -> Vec<u8> {
    let state = |proxy: &Proxy| match down.iter().any(|last| address(*last) == proxy.address) {
        true => State::Down,
        false => State::Up,
    };
    let health: Vec<ProxyHealth> =
        places.list().iter().map(|proxy| ProxyHealth { proxy: *proxy, state: state(proxy) }).collect();
    let order = places.order(&health, turn, &mut || 0);
    let mut walk = ProxyWalk::new(&order, Selection::Priority, RetryableCodes::default());
    let mut lasts = Vec::new();
    let mut next = walk.next(Instant(0));
    while let Next::Try(SocketAddr::V4(proxy)) = next {
        lasts.push(proxy.ip().octets()[3]);
        next = walk.on_outcome(Instant(0), Outcome::Timeout);
    }
    lasts
}

#[test]
fn what_is_found_stands_where_the_name_stands() {
    let config = trunk(&[1, 2], &[(1, "a"), (1, "b"), (2, "c")]);
    let places = Places::new(&config.proxies, &config.named);
    assert_eq!(addresses(&places.list()), [address(1), address(2)]);
    let places = places.with(2, located(&[(1, 0, 30)]), &config.named);
    let places = places.with(1, located(&[(1, 0, 20), (2, 0, 1)]), &config.named);
    let places = places.with(0, located(&[(1, 0, 10)]), &config.named);
    assert_eq!(addresses(&places.list()), [1, 10, 20, 2, 30].map(address), "each address once");
    assert_eq!(ordered(&places, None, &[]), [1, 10, 20, 2, 30]);
    assert_eq!(ordered(&places, None, &[1, 20]), [10, 2, 30, 1, 20], "what is down comes last");
    let hosts: Vec<String> = places.hosts().into_iter().map(|(_, host)| host).collect();
    assert_eq!(hosts, ["a", "b", "b", "c"]);
    let beyond = places.with(9, located(&[(1, 0, 99)]), &config.named);
    assert_eq!(beyond.list(), places.list(), "a place that the settings do not have");
}

#[test]
fn priorities_of_a_name_do_not_reach_beyond_it() {
    let config = trunk(&[1, 2], &[(1, "a")]);
    let places = Places::new(&config.proxies, &config.named).with(
        0,
        located(&[(50, 0, 11), (10, 0, 10)]),
        &config.named,
    );
    assert_eq!(ordered(&places, None, &[]), [1, 10, 11, 2]);
}

#[test]
fn places_take_turns_whatever_stands_at_them_and_one_that_is_down_has_none() {
    let config = trunk(&[1, 2], &[(1, "a")]);
    let places = Places::new(&config.proxies, &config.named).with(
        0,
        located(&[(1, 0, 10), (2, 0, 11)]),
        &config.named,
    );
    let turns: Vec<_> = (0..4).map(|turn| ordered(&places, Some(turn), &[])).collect();
    assert_eq!(turns, [[1, 10, 11, 2], [10, 11, 2, 1], [2, 1, 10, 11], [1, 10, 11, 2]]);
    let turns: Vec<_> = (0..3).map(|turn| ordered(&places, Some(turn), &[1])).collect();
    assert_eq!(turns, [[10, 11, 2, 1], [2, 10, 11, 1], [10, 11, 2, 1]]);
}

#[test]
fn a_domain_that_changes_its_addresses_for_ever_makes_a_bounded_number_of_gauges() {
    let config = trunk(&[], &[(0, "a")]);
    let metrics = Metrics::new(Registry::new(Arc::new(metrics::NoopRecorder)));
    let entry = TrunkEntry::new(&config, TrunkSide::default(), &metrics);
    for last in 0..200 {
        let proxies = entry.locate(0, located(&[(1, 0, last)]));
        assert!(!entry.has_exactly(&proxies));
        entry.set_proxies(&proxies, &metrics);
        assert!(entry.has_exactly(&proxies));
    }
    assert_eq!(entry.first_proxy(), Some(address(199)));
    assert_eq!(entry.gauged(), 64);
}
