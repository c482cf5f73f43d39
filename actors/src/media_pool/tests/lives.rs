//! Ports and sessions from their beginning to their end.

use std::time::Duration;

use tandem_media::session::SessionConfig;

use super::super::io::Wants;
use super::super::order::{Lease, MediaEvent, MediaOrder};
use super::fixture::rtp;
use super::rig::IP;
use super::rig::{SHARD, addr, config, run, session};
use crate::metrics::ActorKind;

const CALLER: &str = "10.1.0.1:4000";

#[test]
fn ports_in_use_and_reserved_ports_are_not_granted_and_a_dry_range_grants_none() {
    run((20000, 20011), &[20004], async |rig| {
        rig.world.foreign.borrow_mut().extend([20002, 20007]);
        let ports: Vec<u16> = rig.grow(64).await.iter().map(|lease| lease.rtp.port()).collect();
        assert_eq!(ports, [20000, 20008, 20010]);
        assert!(rig.figures.counter("tandem_media_ports_skipped_total{}") >= 2);
        assert_eq!(rig.grow(64).await, []);
        // What others give back can be had.
        rig.world.foreign.borrow_mut().clear();
        let mut ports: Vec<u16> = rig.grow(64).await.iter().map(|lease| lease.rtp.port()).collect();
        ports.sort_unstable();
        assert_eq!(ports, [20002, 20006]);
    });
}

#[test]
fn a_restored_call_opens_on_its_own_port_which_nobody_else_got() {
    run((20000, 20005), &[20002], async |rig| {
        let lease = Lease { worker: 3, rtp: addr("10.0.0.1:20002") };
        rig.open_alone(0, lease, config(CALLER), None).await;
        assert_eq!(rig.events().len(), 0);
        rig.receive(CALLER, 20002, rtp(1, 9)).await;
        assert_eq!(rig.close(0).await.rx, 1);
        rig.pass(2000).await;
        // It is this worker's from now on, whatever its number was in the process before.
        let here = Lease { worker: 0, ..lease };
        assert!(matches!(rig.events().as_slice(), [MediaEvent::Returned(back)] if *back == [here]));
    });
}

#[test]
fn a_session_whose_port_somebody_else_has_is_refused() {
    run((20000, 20005), &[20002], async |rig| {
        rig.world.foreign.borrow_mut().insert(20003);
        let lease = Lease { worker: 0, rtp: addr("10.0.0.1:20002") };
        rig.open_alone(0, lease, config(CALLER), None).await;
        let events = rig.events();
        let [MediaEvent::Refused { session: refused, why }] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(*refused, session(0));
        assert!(why.contains("10.0.0.1:20002"), "{why}");
        assert_eq!(rig.world.wants.get(), Wants::default());
    });
}

#[test]
fn a_lease_comes_back_after_two_seconds_and_drained() {
    run((20000, 20003), &[], async |rig| {
        let (a, b) = rig.call().await;
        rig.close(0).await;
        rig.close(1).await;
        assert_eq!(rig.shared.census.alive(ActorKind::MediaSession), 0);
        assert_eq!(rig.figures.gauge("tandem_media_sessions_active{worker=0}"), 0.0);
        assert!(!rig.world.wants.get().packets);
        rig.pass(1900).await;
        // It still talks to the call that is gone.
        rig.arrive(CALLER, 20000, rtp(1, 9));
        assert_eq!(rig.events().len(), 0);
        rig.pass(200).await;
        assert!(matches!(rig.events().as_slice(), [MediaEvent::Returned(back)] if *back == [a, b]));
        assert_eq!(rig.figures.counter("tandem_media_dropped_total{kind=stray}"), 1);
        assert_eq!(rig.world.wants.get(), Wants::default());
        rig.open_alone(0, a, config(CALLER), None).await;
        rig.step().await;
        assert_eq!(rig.close(0).await.rx, 0);
    });
}

#[test]
fn packets_between_the_end_of_a_session_and_its_rest_reach_nobody() {
    run((20000, 20003), &[], async |rig| {
        rig.call().await;
        rig.close(1).await;
        rig.receive("10.2.0.1:5000", 20002, rtp(1, 8)).await;
        rig.receive(CALLER, 20000, rtp(1, 9)).await;
        assert_eq!(rig.sent(), []);
        assert_eq!(rig.figures.counter("tandem_media_dropped_total{kind=stray}"), 1);
        assert_eq!(rig.figures.counter("tandem_rtp_unsent_total{}"), 1);
    });
}

#[test]
fn silence_is_told_once_and_not_while_packets_come() {
    run((20000, 20003), &[], async |rig| {
        let lease = rig.grow(1).await[0];
        let timeout = Some(Duration::from_secs(2));
        let config = SessionConfig { rtp_timeout: timeout, ..config(CALLER) };
        rig.open_alone(0, lease, config, None).await;
        for n in 0..5 {
            rig.pass(1000).await;
            rig.receive(CALLER, 20000, rtp(n, 9)).await;
        }
        assert_eq!(rig.events().len(), 0);
        rig.pass(1800).await;
        assert_eq!(rig.events().len(), 0);
        rig.pass(10_000).await;
        let events = rig.events();
        assert!(
            matches!(events.as_slice(), [MediaEvent::Silent(silent)] if *silent == session(0)),
            "{events:?}"
        );
    });
}

#[test]
fn opening_a_session_that_is_open_changes_its_rules_and_keeps_its_counts() {
    run((20000, 20003), &[], async |rig| {
        let (a, _) = rig.call().await;
        rig.receive(CALLER, 20000, rtp(1, 9)).await;
        rig.open(0, a, config("10.1.0.9:4900")).await;
        assert_eq!(rig.events().len(), 0);
        rig.receive("10.1.0.9:4900", 20000, rtp(2, 9)).await;
        assert_eq!(rig.sent().len(), 2);
        assert_eq!(rig.shared.census.alive(ActorKind::MediaSession), 2);
        assert_eq!(rig.close(0).await.rx, 2);
    });
}

#[test]
fn a_lease_of_another_session_is_refused() {
    run((20000, 20003), &[], async |rig| {
        let lease = rig.grow(1).await[0];
        rig.open_alone(0, lease, config(CALLER), None).await;
        rig.open_alone(1, lease, config(CALLER), None).await;
        assert!(matches!(rig.events().as_slice(), [MediaEvent::Refused { .. }]));
        assert_eq!(rig.shared.census.alive(ActorKind::MediaSession), 1);
    });
}

#[test]
fn orders_for_unknown_sessions_change_nothing() {
    run((20000, 20003), &[], async |rig| {
        rig.order(MediaOrder::Close { session: session(0) }).await;
        rig.order(MediaOrder::Configure { session: session(0), config: Box::new(config(CALLER)) }).await;
        assert_eq!(rig.events().len(), 0);
        assert_eq!(rig.world.wants.get(), Wants::default());
        rig.order(MediaOrder::Grow { shard: SHARD, address: IP.into(), pairs: 1 }).await;
        assert_eq!(rig.events().len(), 1);
    });
}

#[test]
fn the_shard_that_follows_a_fenced_one_has_its_calls_go_on_and_everything_else_is_free() {
    run((20000, 20007), &[], async |rig| {
        let leases = rig.grow(3).await;
        for (side, lease) in (0..).zip(&leases[..2]) {
            rig.open_alone(side, *lease, config(CALLER), None).await;
        }
        rig.receive(CALLER, leases[0].rtp.port(), rtp(1, 0)).await;
        rig.order(MediaOrder::Reclaim { shard: SHARD }).await;
        assert!(matches!(rig.events().as_slice(), [MediaEvent::Reclaimed { worker: 0 }]));
        // What was the shard's is not given to anybody before it is known which calls go on.
        assert_eq!(rig.grow(4).await.len(), 1);
        // The call counts its sides anew: the second is another one now.
        rig.open_alone(0, leases[0], config(CALLER), None).await;
        rig.open_alone(7, leases[1], config(CALLER), None).await;
        let calls = [session(0).call].into();
        rig.order(MediaOrder::Keep { shard: SHARD, calls, ports: [].into() }).await;
        assert!(rig.events().is_empty());
        assert_eq!(rig.close(0).await.rx, 1, "it has counted on");
        assert_eq!(rig.grow(4).await.as_slice(), &leases[2..], "each is one call's alone");
    });
}

#[test]
fn sessions_of_calls_that_do_not_go_on_end_with_the_shard_that_was_fenced() {
    run((20000, 20003), &[], async |rig| {
        let lease = rig.grow(1).await[0];
        rig.open_alone(0, lease, config(CALLER), None).await;
        rig.order(MediaOrder::Reclaim { shard: SHARD }).await;
        rig.order(MediaOrder::Keep { shard: SHARD, calls: [].into(), ports: [].into() }).await;
        assert!(matches!(rig.events().as_slice(), [MediaEvent::Reclaimed { .. }, MediaEvent::Closed { .. }]));
        rig.pass(2_100).await;
        assert!(matches!(rig.events().as_slice(), [MediaEvent::Returned(back)] if *back == [lease]));
    });
}
