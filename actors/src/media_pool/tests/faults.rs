//! Panics of sessions and of the worker.

use super::super::order::{MediaEvent, MediaOrder};
use super::fixture::rtp;
use super::rig::IP;
use super::rig::{Rig, addr, config, run, session};
use crate::metrics::ActorKind;
use crate::shell::Injection;

const CALLER: &str = "10.1.0.1:4000";
const CALLEE: &str = "10.2.0.1:5000";

fn restarts(rig: &Rig, actor: &str) -> u64 {
    rig.figures.counter(&format!("tandem_actor_restarts_total{{actor={actor}}}"))
}

#[test]
fn after_a_sessions_panic_the_next_packet_flows_and_what_was_learned_and_counted_stays() {
    run((20000, 20003), &[], async |rig| {
        rig.call().await;
        rig.pass(600).await;
        for n in 0..10 {
            rig.receive("10.1.0.1:4444", 20000, rtp(n, 9)).await;
        }
        rig.order(MediaOrder::InjectSession(session(0), Injection::Once)).await;
        let events = rig.events();
        assert!(matches!(events.as_slice(), [MediaEvent::Restarted { session: s, .. }] if *s == session(0)));
        assert_eq!(restarts(&rig, "media_session"), 1);
        assert_eq!(rig.shared.census.restarts(ActorKind::MediaSession), 1);
        rig.sent();
        rig.receive("10.1.0.1:4444", 20000, rtp(10, 9)).await;
        rig.receive(CALLEE, 20002, rtp(1, 8)).await;
        let to: Vec<_> = rig.sent().into_iter().map(|sent| sent.to).collect();
        assert_eq!(to, [addr(CALLEE), addr("10.1.0.1:4444")]);
        let report = rig.close(0).await;
        assert_eq!((report.rx, report.lost), (11, 0));
    });
}

#[test]
fn a_panic_at_a_packet_costs_that_packet_and_no_other_session_notices() {
    run((20000, 20003), &[], async |rig| {
        rig.call().await;
        rig.world.panics.borrow_mut().insert(ActorKind::MediaSession, 1);
        rig.arrive(CALLER, 20000, rtp(1, 9));
        rig.arrive(CALLER, 20000, rtp(2, 9));
        rig.arrive(CALLEE, 20002, rtp(1, 8));
        rig.step().await;
        assert_eq!(rig.sent().len(), 2);
        assert_eq!(rig.events().len(), 1);
        assert_eq!(restarts(&rig, "media_worker"), 0);
    });
}

#[test]
fn a_session_that_always_panics_ends_with_its_report_and_its_peer_goes_on() {
    run((20000, 20003), &[], async |rig| {
        rig.call().await;
        rig.receive(CALLER, 20000, rtp(1, 9)).await;
        rig.order(MediaOrder::InjectSession(session(0), Injection::Always)).await;
        for n in 2..12 {
            rig.receive(CALLER, 20000, rtp(n, 9)).await;
        }
        let events = rig.events();
        let told = |what: fn(&MediaEvent) -> bool| events.iter().filter(|event| what(event)).count();
        assert_eq!(told(|event| matches!(event, MediaEvent::Refused { .. })), 1);
        assert_eq!(told(|event| matches!(event, MediaEvent::Closed { report, .. } if report.rx == 1)), 1);
        assert_eq!(rig.shared.census.alive(ActorKind::MediaSession), 1);
        rig.receive(CALLEE, 20002, rtp(1, 8)).await;
        assert_eq!(rig.close(1).await.rx, 1);
        rig.pass(3000).await;
        let back: usize = rig
            .events()
            .into_iter()
            .map(|event| if let MediaEvent::Returned(leases) = event { leases.len() } else { 0 })
            .sum();
        assert_eq!(back, 2);
    });
}

#[test]
fn a_workers_panic_loses_no_socket_and_no_session() {
    run((20000, 20007), &[], async |rig| {
        let (a, b) = rig.call().await;
        rig.receive(CALLER, 20000, rtp(1, 9)).await;
        rig.order(MediaOrder::InjectWorker).await;
        assert_eq!(restarts(&rig, "media_worker"), 1);
        assert_eq!(rig.shared.census.restarts(ActorKind::MediaWorker), 1);
        assert_eq!(rig.shared.census.alive(ActorKind::MediaSession), 2);
        rig.receive(CALLER, 20000, rtp(2, 9)).await;
        rig.receive(CALLEE, 20002, rtp(1, 8)).await;
        assert_eq!(rig.sent().len(), 3);
        assert_eq!(rig.close(0).await.rx, 2);
        rig.close(1).await;
        rig.order(MediaOrder::InjectWorker).await;
        rig.pass(2000).await;
        assert!(matches!(rig.events().as_slice(), [MediaEvent::Returned(back)] if *back == [a, b]));
        assert_eq!(rig.grow(2).await.len(), 2);
    });
}

#[test]
fn an_order_that_panics_is_given_again_and_refused_the_second_time() {
    run((20000, 20007), &[], async |rig| {
        let leases = rig.grow(2).await;
        rig.world.panics.borrow_mut().insert(ActorKind::MediaWorker, 1);
        rig.open(0, leases[0], config(CALLER)).await;
        assert_eq!(rig.events().len(), 0);
        rig.receive(CALLER, 20000, rtp(1, 9)).await;
        assert_eq!(rig.close(0).await.rx, 1);
        rig.world.panics.borrow_mut().insert(ActorKind::MediaWorker, 2);
        rig.order(MediaOrder::Grow { shard: crate::ids::ShardId(0), address: IP.into(), pairs: 4 }).await;
        // What was granted before each panic stays granted, and nothing twice; the last word ends the shard's wait.
        let granted: Vec<usize> = rig
            .events()
            .into_iter()
            .map(|event| match event {
                MediaEvent::Granted { pairs, .. } => pairs.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(granted, [2, 0, 0]);
    });
}

#[test]
fn a_worker_that_panics_six_times_in_ten_seconds_asks_for_the_end_of_the_process() {
    run((20000, 20007), &[], async |rig| {
        for _ in 0..5 {
            rig.order(MediaOrder::InjectWorker).await;
        }
        assert!(!rig.world.escalated.get());
        rig.order(MediaOrder::InjectWorker).await;
        assert!(rig.world.escalated.get());
    });
}
