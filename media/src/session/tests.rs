use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::codec::Codec;
use crate::rtcp::{CompoundBuilder, ReportBlock, SenderInfo};
use crate::tone::TonePreset;

const MS: Duration = Duration::from_millis(1);
const START: Duration = Duration::from_secs(100);
const SDP_IP: u8 = 1;
const SIGNALLING_IP: u8 = 2;
const FOREIGN: Verdict = Verdict::Refuse(Refused::ForeignSource);

fn ip(host: u8) -> IpAddr {
    IpAddr::from(Ipv4Addr::new(192, 0, 2, host))
}

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(ip(host), port)
}

fn named() -> SocketAddr {
    address(SDP_IP, 4000)
}

fn config() -> SessionConfig {
    SessionConfig {
        remote_rtp: Some(named()),
        codec: Some(Codec::Pcmu),
        payload_types: vec![0],
        telephone_event: Some(101),
        rtp_timeout: Some(Duration::from_secs(60)),
        ..SessionConfig::new(ip(SIGNALLING_IP))
    }
}

fn rtp(payload_type: u8, sequence: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let timestamp = u32::from(sequence) * 160;
    let payload = &[0xff; 160];
    RtpPacket { marker: false, payload_type, sequence, timestamp, ssrc: 77, payload }.write(&mut bytes);
    bytes
}

fn audio(session: &mut Session, at_ms: u32, from: SocketAddr) -> Verdict {
    session.receive_rtp(START + MS * at_ms, from, &rtp(0, (at_ms / 20) as u16))
}

#[test]
fn the_named_source_is_taken_at_once_and_others_are_refused_and_counted() {
    let mut session = Session::new(config(), START);
    assert_eq!(session.send_to(), Some(named()));
    assert_eq!(audio(&mut session, 0, named()), Verdict::Deliver);
    for from in [address(SDP_IP, 4002), address(SIGNALLING_IP, 4000), address(9, 4000)] {
        assert_eq!(audio(&mut session, 20, from), FOREIGN);
    }
    let report = session.report();
    assert_eq!((report.rx, report.refused.foreign_source, report.learned), (1, 3, None));
    assert_eq!(session.send_to(), Some(named()));
}

#[test]
fn another_port_of_the_sdp_ip_or_the_signalling_ip_is_learned_when_the_named_one_is_silent() {
    for other in [address(SDP_IP, 4002), address(SIGNALLING_IP, 9)] {
        let mut session = Session::new(config(), START);
        assert_eq!(audio(&mut session, 480, other), FOREIGN);
        assert_eq!(audio(&mut session, 500, address(9, 4000)), FOREIGN);
        assert_eq!(audio(&mut session, 500, other), Verdict::Deliver);
        assert_eq!((session.send_to(), session.report().learned), (Some(other), Some(other)));
    }
}

#[test]
fn the_named_source_takes_its_leg_back() {
    let mut session = Session::new(config(), START);
    let other = address(SDP_IP, 4002);
    assert_eq!(audio(&mut session, 500, other), Verdict::Deliver);
    assert_eq!(audio(&mut session, 520, named()), Verdict::Deliver);
    assert_eq!(session.send_to(), Some(named()));
    assert_eq!(audio(&mut session, 540, other), FOREIGN);
    assert_eq!(audio(&mut session, 1020, other), Verdict::Deliver);
}

#[test]
fn a_learned_source_gives_way_to_a_third_only_when_it_is_silent() {
    let mut session = Session::new(config(), START);
    let (second, third) = (address(SDP_IP, 4002), address(SDP_IP, 4004));
    audio(&mut session, 500, second);
    assert_eq!(audio(&mut session, 900, third), FOREIGN);
    assert_eq!(audio(&mut session, 920, second), Verdict::Deliver);
    assert_eq!(audio(&mut session, 1400, third), FOREIGN);
    assert_eq!(audio(&mut session, 1420, third), Verdict::Deliver);
    assert_eq!(session.send_to(), Some(third));
    assert_eq!(audio(&mut session, 1440, second), FOREIGN);
}

#[test]
fn only_a_valid_packet_of_an_accepted_type_is_learned_from() {
    let mut session = Session::new(config(), START);
    let other = address(SDP_IP, 4002);
    let at = START + MS * 1000;
    let refused = |reason| Verdict::Refuse(reason);
    assert_eq!(session.receive_rtp(at, other, &[0x80; 5]), refused(Refused::NotRtp));
    assert_eq!(session.receive_rtp(at, other, &[0x80, 200, 0, 1, 0, 0, 0, 1]), refused(Refused::NotRtp));
    assert_eq!(session.receive_rtp(at, other, &[0, 1, 0, 0, 0, 0, 0, 0]), refused(Refused::NotRtp));
    assert_eq!(session.receive_rtp(at, other, &rtp(8, 1)), refused(Refused::WrongPayloadType));
    assert_eq!(session.send_to(), Some(named()));
    assert_eq!(session.receive_rtp(at, other, &rtp(101, 1)), Verdict::Deliver);
    let counts = session.report().refused;
    assert_eq!((counts.not_rtp, counts.wrong_payload_type, counts.total()), (3, 1, 4));
}

#[test]
fn learning_can_be_off_or_open_to_any() {
    let mut session = Session::new(SessionConfig { learn: Learn::Off, ..config() }, START);
    assert_eq!(audio(&mut session, 5000, address(SDP_IP, 4002)), FOREIGN);
    let mut session = Session::new(SessionConfig { learn: Learn::Any, ..config() }, START);
    assert_eq!(audio(&mut session, 480, address(9, 1)), FOREIGN);
    assert_eq!(audio(&mut session, 500, address(9, 1)), Verdict::Deliver);
    assert_eq!(session.send_to(), Some(address(9, 1)));
}

#[test]
fn before_an_sdp_the_signalling_ip_is_learned_at_once_and_kept_until_the_named_one_speaks() {
    let mut session = Session::new(SessionConfig { remote_rtp: None, ..config() }, START);
    assert_eq!(session.send_to(), None);
    assert_eq!(audio(&mut session, 0, address(SDP_IP, 4000)), FOREIGN);
    let early = address(SIGNALLING_IP, 7000);
    assert_eq!(audio(&mut session, 0, early), Verdict::Deliver);
    session.reconfigure(config(), START + MS * 100);
    assert_eq!(session.send_to(), Some(early));
    assert_eq!(audio(&mut session, 120, named()), Verdict::Deliver);
    assert_eq!(session.send_to(), Some(named()));
    let mut confirmed = Session::new(SessionConfig { remote_rtp: None, ..config() }, START);
    audio(&mut confirmed, 0, early);
    confirmed.reconfigure(SessionConfig { remote_rtp: Some(early), ..config() }, START);
    assert_eq!((confirmed.send_to(), confirmed.report().learned), (Some(early), None));
}

#[test]
fn a_dual_stack_socket_sees_the_same_source() {
    let mut session = Session::new(config(), START);
    let mapped = |host| IpAddr::from(Ipv4Addr::new(192, 0, 2, host).to_ipv6_mapped());
    assert_eq!(audio(&mut session, 0, SocketAddr::new(mapped(SDP_IP), 4000)), Verdict::Deliver);
    let other = SocketAddr::new(mapped(SIGNALLING_IP), 4002);
    assert_eq!(audio(&mut session, 600, other), Verdict::Deliver);
    assert_eq!(session.send_to(), Some(other));
    assert_eq!(audio(&mut session, 1200, SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 4000)), FOREIGN);
}

#[test]
fn a_refresh_keeps_what_was_learned_and_a_new_address_drops_it() {
    let mut session = Session::new(config(), START);
    let other = address(SDP_IP, 4002);
    audio(&mut session, 500, other);
    session.reconfigure(config(), START + MS * 520);
    assert_eq!(session.send_to(), Some(other));
    assert_eq!(audio(&mut session, 540, other), Verdict::Deliver);
    session.reconfigure(SessionConfig { learn: Learn::Off, ..config() }, START + MS * 550);
    assert_eq!(session.send_to(), Some(named()));
    session.reconfigure(config(), START + MS * 560);
    audio(&mut session, 1100, other);
    let moved = address(SDP_IP, 5000);
    session.reconfigure(SessionConfig { remote_rtp: Some(moved), ..config() }, START + MS * 1200);
    assert_eq!(session.send_to(), Some(moved));
    assert_eq!(audio(&mut session, 1220, other), FOREIGN);
    assert_eq!(session.report().rx, 3, "figures go on");
}

#[test]
fn a_held_leg_is_neither_heard_nor_timed_out() {
    let mut session = Session::new(config(), START);
    audio(&mut session, 0, named());
    assert!(!session.timed_out(START + MS * 59_999));
    assert!(session.timed_out(START + MS * 60_000));
    let held = SessionConfig { direction: Direction::SendOnly, ..config() };
    session.reconfigure(held, START + MS * 1000);
    assert_eq!(audio(&mut session, 1020, named()), Verdict::Refuse(Refused::Direction));
    assert!(!session.timed_out(START + MS * 999_000));
    session.reconfigure(config(), START + MS * 999_000);
    assert!(!session.timed_out(START + MS * 1_058_000));
    assert!(session.timed_out(START + MS * 1_059_000));
    audio(&mut session, 999_020, named());
    let report = session.report();
    assert_eq!((report.refused.direction, report.max_gap_ms), (1, 0));
}

#[test]
fn silence_counts_from_when_it_is_watched() {
    let ringing = SessionConfig { rtp_timeout: None, ..config() };
    let mut session = Session::new(ringing.clone(), START);
    session.reconfigure(config(), START + MS * 59_000);
    assert_eq!(session.timeout_at(), Some(START + MS * 119_000), "after a long ringing");
    session.reconfigure(ringing, START + MS * 100_000);
    session.reconfigure(config(), START + MS * 500_000);
    assert_eq!(session.timeout_at(), Some(START + MS * 560_000), "after the other end held it");
}

#[test]
fn a_refresh_does_not_put_off_the_timeout() {
    let mut session = Session::new(config(), START);
    session.reconfigure(config(), START + MS * 30_000);
    assert_eq!(session.timeout_at(), Some(START + MS * 60_000));
    assert_eq!(Session::new(SessionConfig { rtp_timeout: None, ..config() }, START).timeout_at(), None);
}

#[test]
fn nothing_is_sent_against_the_direction_or_to_the_hold_of_rfc_2543() {
    for direction in [Direction::RecvOnly, Direction::Inactive] {
        let mut session = Session::new(SessionConfig { direction, ..config() }, START);
        audio(&mut session, 0, named());
        assert_eq!(session.send_to(), None);
    }
    let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 4000);
    for forbidden in [unspecified, address(SDP_IP, 0)] {
        let mut session = Session::new(SessionConfig { remote_rtp: Some(forbidden), ..config() }, START);
        audio(&mut session, 600, address(SIGNALLING_IP, 4000));
        assert_eq!(session.send_to(), None);
    }
}

#[test]
fn a_telephone_event_does_not_shake_the_jitter() {
    let mut session = Session::new(config(), START);
    for n in 0..50u16 {
        let mut packet = rtp(if n < 25 { 0 } else { 101 }, n);
        if n >= 25 {
            packet[4..8].copy_from_slice(&(25u32 * 160).to_be_bytes());
        }
        session.receive_rtp(START + MS * 20 * u32::from(n), named(), &packet);
    }
    let report = session.report();
    assert_eq!((report.rx, report.lost, report.jitter_ms), (50, 0, 0.0));
    assert!(report.mos > Some(4.3));
}

#[test]
fn rtcp_is_taken_from_the_next_port_and_counted() {
    let mut session = Session::new(config(), START);
    let block = ReportBlock { ssrc: 5, cumulative_lost: 12, jitter: 34, ..ReportBlock::default() };
    let mut bytes = Vec::new();
    CompoundBuilder::sender_report(&mut bytes, 77, &SenderInfo::default(), &[block]).cname("a").bye("");
    let from = address(SDP_IP, 4001);
    assert_eq!(session.rtcp_to(), Some(from));
    assert_eq!(session.receive_rtcp(START, from, &bytes), Verdict::Deliver);
    assert_eq!(session.receive_rtcp(START, from, &bytes[..20]), Verdict::Refuse(Refused::NotRtp));
    let other = address(SDP_IP, 4003);
    assert_eq!(session.receive_rtcp(START + MS * 9_999, other, &bytes), FOREIGN);
    assert_eq!(session.receive_rtcp(START + MS * 10_000, other, &bytes), Verdict::Deliver);
    assert_eq!(session.rtcp_to(), Some(other));
    let counters = session.report().rtcp;
    assert_eq!((counters.received, counters.sender_reports, counters.byes), (2, 2, 2));
    assert_eq!((counters.remote_lost, counters.remote_jitter), (12, 34));
    assert_eq!((counters.refused.foreign_source, counters.refused.not_rtp), (1, 1));
    assert_eq!(session.report().refused.total(), 0);
}

#[test]
fn rtcp_on_the_port_of_rtp_follows_its_source_and_teaches_none() {
    let mut session = Session::new(SessionConfig { remote_rtcp: Some(named()), ..config() }, START);
    let mut bytes = Vec::new();
    CompoundBuilder::receiver_report(&mut bytes, 77, &[]).cname("a");
    let other = address(SDP_IP, 4002);
    assert_eq!(session.receive_rtcp(START, named(), &bytes), Verdict::Deliver);
    assert_eq!(session.receive_rtcp(START + MS * 600, other, &bytes), FOREIGN);
    audio(&mut session, 600, other);
    assert_eq!(session.receive_rtcp(START + MS * 620, other, &bytes), Verdict::Deliver);
    assert_eq!(session.rtcp_to(), Some(other));
}

fn tone() -> SessionConfig {
    SessionConfig { mode: Mode::Tone(TonePreset::Milliwatt), ..config() }
}

#[test]
fn a_tone_is_one_packet_each_20_ms_to_the_leg() {
    let mut session = Session::new(tone(), START);
    let mut out = vec![1, 2, 3];
    let mut samples = Vec::new();
    for n in 0..50u16 {
        let due = START + MS * 20 * u32::from(n);
        assert_eq!(session.next_tick(), Some(due));
        assert_eq!(session.tick(due - MS, &mut out), None);
        assert_eq!(session.tick(due, &mut out), Some(named()));
        assert_eq!(out.len(), HEADER_LEN + 160);
        session.sent(out.len());
        let packet = RtpPacket::parse(&out).unwrap();
        assert_eq!((packet.marker, packet.payload_type, packet.ssrc), (n == 0, 0, session.own_ssrc()));
        Codec::Pcmu.decode(packet.payload, &mut samples);
        assert_eq!(session.tick(due, &mut out), None);
    }
    assert!(crate::tone::goertzel(&samples, 1004.0, 8000).abs() < 0.1);
    assert_eq!((session.report().tx, session.report().tx_bytes), (50, 50 * 172));
}

#[test]
fn a_late_worker_catches_up_a_little_and_skips_the_rest() {
    let mut session = Session::new(tone(), START);
    let mut out = Vec::new();
    let mut burst = |at| {
        let mut stamps = Vec::new();
        while session.tick(START + MS * at, &mut out).is_some() {
            let packet = RtpPacket::parse(&out).unwrap();
            stamps.push((packet.marker, packet.sequence, packet.timestamp));
        }
        stamps
    };
    let first = burst(0)[0];
    assert_eq!(burst(100).len(), 5);
    let late = burst(1000);
    let expected = (true, first.1 + 6, first.2.wrapping_add(50 * 160));
    assert_eq!(late, [expected]);
}

#[test]
fn a_tone_waits_for_an_address_in_silence_and_goes_on_after_a_change() {
    let mut session = Session::new(SessionConfig { remote_rtp: None, ..tone() }, START);
    let mut out = Vec::new();
    for n in 0..10 {
        assert_eq!(session.tick(START + MS * 20 * n, &mut out), None);
    }
    session.reconfigure(tone(), START + MS * 190);
    assert_eq!(session.tick(START + MS * 190, &mut out), None);
    assert_eq!(session.tick(START + MS * 200, &mut out), Some(named()));
    let before =
        RtpPacket::parse(&out).map(|packet| (packet.ssrc, packet.sequence, packet.timestamp)).unwrap();
    let busy = SessionConfig { mode: Mode::Tone(TonePreset::Busy), ..config() };
    session.reconfigure(busy, START + MS * 210);
    assert_eq!(session.tick(START + MS * 220, &mut out), Some(named()));
    let packet = RtpPacket::parse(&out).unwrap();
    assert!(packet.marker);
    let after = (packet.ssrc, packet.sequence, packet.timestamp);
    assert_eq!(after, (before.0, before.1 + 1, before.2.wrapping_add(160)));
    session.reconfigure(config(), START + MS * 230);
    assert_eq!((session.tick(START + MS * 240, &mut out), session.next_tick()), (None, None));
}

#[test]
fn an_echo_carries_our_own_ssrc() {
    let mut session = Session::new(SessionConfig { mode: Mode::Echo, ..config() }, START);
    session.seed(0xdead_beef_0000_0000);
    let mut packet = rtp(0, 1);
    session.stamp_echo(&mut packet);
    assert_eq!(RtpPacket::parse(&packet).unwrap().ssrc, 0xdead_beef);
    let mut runt = [1, 2, 3];
    session.stamp_echo(&mut runt);
    assert_eq!(runt, [1, 2, 3]);
}

#[test]
fn a_checkpoint_goes_on_in_a_younger_clock() {
    let mut session = Session::new(tone(), START);
    let other = address(SDP_IP, 4002);
    audio(&mut session, 600, other);
    let bytes = postcard::to_stdvec(&session).unwrap();
    let mut restored: Session = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(restored, session);
    assert!(serde_json::to_value(&session).is_ok(), "no number is wider than 64 bits");
    restored.resume(MS);
    assert_eq!(restored.send_to(), Some(other));
    assert!(!restored.timed_out(MS * 2));
    assert!(restored.tick(MS, &mut Vec::new()).is_some());
    assert_eq!(restored.receive_rtp(MS * 20, other, &rtp(0, 31)), Verdict::Deliver);
    assert_eq!(restored.receive_rtp(MS * 40, named(), &rtp(0, 32)), Verdict::Deliver);
    assert_eq!((restored.report().rx, restored.send_to()), (3, Some(named())));
}

#[test]
fn a_report_is_readable_json() {
    let mut session = Session::new(config(), START);
    audio(&mut session, 0, named());
    let report = session.report();
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!((&value["codec"], &value["rx"]), (&"PCMU".into(), &1.into()));
    assert_eq!(value["refused"]["foreign_source"], 0);
    assert_eq!(serde_json::from_value::<Report>(value).unwrap(), report);
}

proptest! {
    /// Whatever comes from wherever: a source off the permitted IPs is never delivered and never sent to, and
    /// while the named source speaks nothing else is delivered.
    #[test]
    fn a_foreign_source_is_never_forwarded(
        packets in prop::collection::vec((0u8..5, 0u16..3, 0u32..700, 0u8..4, any::<bool>()), 1..200),
    ) {
        let mut session = Session::new(config(), START);
        let mut now = START;
        let mut named_spoke = START;
        for (host, port, wait, kind, rtcp) in packets {
            now += MS * wait;
            let from = address(host, 4000 + port);
            let packet = match kind { 0 => rtp(0, 1), 1 => rtp(101, 2), 2 => rtp(9, 3), _ => vec![0x80, 201, 0, 1, 0, 0, 0, 1] };
            let verdict = if rtcp { session.receive_rtcp(now, from, &packet) } else { session.receive_rtp(now, from, &packet) };
            let permitted = [SDP_IP, SIGNALLING_IP].contains(&host);
            prop_assert!(permitted || verdict == FOREIGN);
            if !rtcp && verdict == Verdict::Deliver && from != named() {
                prop_assert!(now - named_spoke >= PATIENCE);
            }
            if !rtcp && from == named() && kind < 3 {
                named_spoke = now;
                prop_assert_eq!(session.send_to(), Some(named()));
            }
            for to in [session.send_to(), session.rtcp_to()].into_iter().flatten() {
                prop_assert!(to.ip() == ip(SDP_IP) || to.ip() == ip(SIGNALLING_IP));
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..100), at in 0u64..u64::MAX) {
        let mut session = Session::new(SessionConfig { payload_types: vec![], ..tone() }, START);
        let now = Duration::from_millis(at);
        session.receive_rtp(now, named(), &bytes);
        session.receive_rtcp(now, address(SDP_IP, 4001), &bytes);
        session.tick(now, &mut Vec::new());
        session.report();
        prop_assert!(session.report().rx <= 1);
    }
}
