//! What becomes of a packet.

use tandem_media::rtp::RtpPacket;
use tandem_media::session::{Direction, Mode};
use tandem_media::tone::TonePreset;

use super::super::order::MediaOrder;
use super::super::packets::{PER_SOCKET, PER_STEP};
use super::fixture::rtp;
use super::rig::{Sent, addr, config, run, session};

const CALLER: &str = "10.1.0.1:4000";
const CALLEE: &str = "10.2.0.1:5000";

/// An empty receiver report.
const RTCP: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 9];

#[test]
fn rtp_and_rtcp_are_relayed_both_ways_untouched() {
    run((20000, 20009), &[], async |rig| {
        let (a, b) = rig.call().await;
        assert_eq!((a.rtp, b.rtp), (addr("10.0.0.1:20000"), addr("10.0.0.1:20002")));
        rig.receive(CALLER, 20000, rtp(1, 9)).await;
        rig.receive(CALLEE, 20002, rtp(7, 8)).await;
        rig.receive("10.1.0.1:4001", 20001, RTCP.to_vec()).await;
        let expected = [
            Sent { from: 20002, to: addr(CALLEE), bytes: rtp(1, 9) },
            Sent { from: 20000, to: addr(CALLER), bytes: rtp(7, 8) },
            Sent { from: 20003, to: addr("10.2.0.1:5001"), bytes: RTCP.to_vec() },
        ];
        assert_eq!(rig.sent(), expected);
        assert_eq!(rig.figures.counter("tandem_rtp_packets_total{direction=in}"), 2);
        assert_eq!(rig.figures.counter("tandem_rtp_packets_total{direction=out}"), 2);
        assert_eq!(rig.figures.gauge("tandem_media_sessions_active{worker=0}"), 2.0);
        let report = rig.close(0).await;
        assert_eq!((report.rx, report.tx, report.rtcp.received), (1, 1, 1));
    });
}

#[test]
fn rtcp_of_a_peer_that_shares_its_port_goes_to_that_port() {
    run((20000, 20009), &[], async |rig| {
        rig.call().await;
        let mut shared = config(CALLEE);
        shared.remote_rtcp = shared.remote_rtp;
        rig.order(MediaOrder::Configure { session: session(1), config: Box::new(shared) }).await;
        rig.receive("10.1.0.1:4001", 20001, RTCP.to_vec()).await;
        rig.receive(CALLEE, 20002, RTCP.to_vec()).await;
        let expected = [
            Sent { from: 20002, to: addr(CALLEE), bytes: RTCP.to_vec() },
            Sent { from: 20001, to: addr("10.1.0.1:4001"), bytes: RTCP.to_vec() },
        ];
        assert_eq!(rig.sent(), expected);
    });
}

#[test]
fn another_port_of_a_silent_peer_is_learned_and_a_foreign_source_refused_and_counted() {
    run((20000, 20009), &[], async |rig| {
        rig.call().await;
        rig.pass(600).await;
        rig.receive("6.6.6.6:666", 20000, rtp(1, 9)).await;
        assert_eq!(rig.sent(), []);
        rig.receive("10.1.0.1:4444", 20000, rtp(1, 9)).await;
        rig.receive(CALLEE, 20002, rtp(1, 8)).await;
        let to: Vec<_> = rig.sent().into_iter().map(|sent| sent.to).collect();
        assert_eq!(to, [addr(CALLEE), addr("10.1.0.1:4444")]);
        assert_eq!(rig.figures.counter("tandem_rtp_refused_total{}"), 1);
        let report = rig.close(0).await;
        assert_eq!((report.refused.foreign_source, report.learned), (1, Some(addr("10.1.0.1:4444"))));
    });
}

#[test]
fn what_is_no_rtp_is_dropped_and_counted_by_kind() {
    run((20000, 20009), &[], async |rig| {
        rig.call().await;
        for first in [0, 22, 17, 64, 200] {
            rig.arrive(CALLER, 20000, vec![first; 20]);
        }
        rig.arrive("10.1.0.1:4001", 20001, rtp(1, 9));
        rig.arrive(CALLER, 20000, Vec::new());
        rig.step().await;
        let count = |kind: &str| rig.figures.counter(&format!("tandem_media_dropped_total{{kind={kind}}}"));
        let kinds = ["stun", "dtls", "zrtp", "turn_channel", "unknown", "stray"];
        assert_eq!(kinds.map(count), [1, 1, 1, 1, 3, 0]);
        assert_eq!(rig.sent(), []);
    });
}

#[test]
fn a_packet_for_a_peer_on_hold_is_taken_and_counted_as_unsent() {
    run((20000, 20009), &[], async |rig| {
        rig.call().await;
        let held = tandem_media::session::SessionConfig { direction: Direction::RecvOnly, ..config(CALLEE) };
        rig.order(MediaOrder::Configure { session: session(1), config: Box::new(held) }).await;
        rig.receive(CALLER, 20000, rtp(1, 9)).await;
        assert_eq!(rig.sent(), []);
        assert_eq!(rig.figures.counter("tandem_rtp_unsent_total{}"), 1);
        assert_eq!(rig.close(0).await.rx, 1);
    });
}

#[test]
fn an_echo_comes_back_with_another_ssrc() {
    run((20000, 20009), &[], async |rig| {
        let lease = rig.grow(1).await[0];
        let echo = tandem_media::session::SessionConfig { mode: Mode::Echo, ..config(CALLER) };
        rig.open_alone(0, lease, echo, None).await;
        rig.receive(CALLER, 20000, rtp(5, 9)).await;
        let sent = rig.sent();
        let packet = RtpPacket::parse(&sent[0].bytes).unwrap();
        assert_eq!((sent[0].to, packet.sequence, packet.payload.len()), (addr(CALLER), 5, 160));
        assert_ne!(packet.ssrc, 9);
        let report = rig.close(0).await;
        assert_eq!((report.rx, report.tx), (1, 1));
    });
}

#[test]
fn a_tone_is_sent_each_20_ms_without_any_packet_coming() {
    run((20000, 20009), &[], async |rig| {
        let lease = rig.grow(1).await[0];
        let tone =
            tandem_media::session::SessionConfig { mode: Mode::Tone(TonePreset::Dial), ..config(CALLER) };
        rig.open_alone(0, lease, tone, None).await;
        rig.pass(1000).await;
        let sent = rig.sent();
        assert!((50..=51).contains(&sent.len()), "{}", sent.len());
        let sequence = |at: usize| RtpPacket::parse(&sent[at].bytes).unwrap().sequence;
        assert_eq!(sequence(49), sequence(0).wrapping_add(49));
        assert_eq!(rig.close(0).await.tx, sent.len() as u64);
        rig.pass(1000).await;
        assert_eq!(rig.sent(), []);
    });
}

#[test]
fn a_flood_on_one_port_is_bounded_a_step_and_does_not_keep_others_waiting() {
    run((20000, 20009), &[], async |rig| {
        rig.call().await;
        for n in 0..100 {
            rig.arrive(CALLER, 20000, rtp(n, 9));
        }
        rig.arrive(CALLEE, 20002, rtp(1, 8));
        rig.step().await;
        assert_eq!(rig.sent().len(), PER_SOCKET + 1);
        assert_eq!(rig.figures.counter("tandem_media_bound_hits_total{}"), 1);
        assert!(rig.world.wants.get().at_once);
        while rig.world.wants.get().at_once {
            rig.step().await;
        }
        assert_eq!(rig.sent().len(), 100 - PER_SOCKET);
        const { assert!(PER_SOCKET < PER_STEP) };
    });
}
