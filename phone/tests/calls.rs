//! Two phones back to back on a quiet network.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{Net, QUICK, addr};
use tandem_phone::{AutoAnswer, Command, Direction, Event};

fn ended(net: &Net, phone: usize) -> Option<(bool, Option<u16>)> {
    net.events[phone].iter().find_map(|event| match event {
        Event::Ended { by_us, status, .. } => Some((*by_us, *status)),
        _ => None,
    })
}

fn directions(net: &Net, phone: usize) -> Vec<Direction> {
    let changed = net.events[phone].iter().filter_map(|event| match event {
        Event::MediaChanged { direction, .. } => Some(*direction),
        _ => None,
    });
    changed.collect()
}

#[test]
fn a_call_is_answered_and_the_caller_hangs_up() {
    let mut net = Net::pair(1, QUICK);
    let call = net.dial();
    net.secs(5);
    let media = |index: u16| std::net::SocketAddr::from(([127, 0, 0, 1], 40_000 + 2 * index));
    assert_eq!(
        net.events[0],
        [Event::Ringing { call }, Event::Answered { call, remote_media: media(1), codec: 0 },]
    );
    let theirs = net.incoming();
    assert_eq!(
        net.events[1],
        [
            Event::Incoming { call: theirs, from: "1000".into(), number: "1001".into() },
            Event::Answered { call: theirs, remote_media: media(0), codec: 0 },
        ]
    );
    net.command(0, Command::Hangup(call));
    net.settle();
    assert_eq!(ended(&net, 0), Some((true, Some(200))));
    assert_eq!(ended(&net, 1), Some((false, None)));
    assert_eq!(net.sent.iter().filter(|line| line.contains("ACK")).count(), 1);
    net.assert_clean();
}

#[test]
fn the_called_phone_hangs_up() {
    let mut net = Net::pair(2, QUICK);
    net.dial();
    net.secs(5);
    net.command(1, Command::Hangup(net.incoming()));
    net.settle();
    assert_eq!((ended(&net, 0), ended(&net, 1)), (Some((false, None)), Some((true, Some(200)))));
    net.assert_clean();
}

#[test]
fn both_hang_up_at_once() {
    let mut net = Net::pair(2, QUICK);
    let call = net.dial();
    net.secs(5);
    net.command(1, Command::Hangup(net.incoming()));
    net.command(0, Command::Hangup(call));
    net.settle();
    for phone in [0, 1] {
        assert_eq!(net.count(phone, |e| matches!(e, Event::Ended { by_us: true, .. })), 1);
    }
    net.assert_clean();
}

#[test]
fn a_caller_that_gives_up_cancels() {
    let mut net = Net::pair(3, AutoAnswer::Manual);
    let call = net.dial();
    net.secs(2);
    net.command(0, Command::Hangup(call));
    net.settle();
    assert_eq!(ended(&net, 0), Some((true, Some(487))));
    assert_eq!(ended(&net, 1), Some((false, Some(487))));
    assert!(net.sent.iter().any(|line| line.starts_with("0 CANCEL ")));
    net.assert_clean();
}

#[test]
fn a_cancel_waits_for_the_first_provisional_response() {
    let mut net = Net::pair(3, AutoAnswer::Manual);
    let call = net.dial();
    net.command(0, Command::Hangup(call));
    assert_eq!(net.sent.len(), 1, "{:?}", net.sent);
    net.settle();
    assert_eq!(ended(&net, 0), Some((true, Some(487))));
    net.assert_clean();
}

#[test]
fn a_cancel_that_crosses_a_200_is_ended_with_bye() {
    let mut net = Net::pair(4, AutoAnswer::Manual);
    let call = net.dial();
    net.secs(2);
    net.command(1, Command::Answer(net.incoming()));
    net.command(0, Command::Hangup(call));
    net.settle();
    assert_eq!(ended(&net, 0), Some((true, Some(200))));
    assert_eq!(ended(&net, 1), Some((false, None)));
    for method in ["CANCEL", "ACK", "BYE"] {
        assert!(net.sent.iter().any(|line| line.starts_with(&format!("0 {method} "))), "{method}");
    }
    assert_eq!(net.count(0, |e| matches!(e, Event::Answered { .. })), 0);
    net.assert_clean();
}

#[test]
fn a_refusal_reaches_the_caller_with_its_status() {
    let mut net = Net::pair(5, AutoAnswer::Reject(486));
    let call = net.dial();
    net.settle();
    assert_eq!(net.events[0], [Event::Failed { call, status: 486 }]);
    assert_eq!(ended(&net, 1), Some((true, Some(486))));
    assert!(net.sent.iter().any(|line| line == "1 SIP/2.0 486 Busy Here"), "{:?}", net.sent);
    net.assert_clean();
}

#[test]
fn a_phone_that_ignores_invites_makes_the_caller_time_out() {
    let mut net = Net::pair(6, AutoAnswer::Ignore);
    let call = net.dial();
    net.settle();
    let timeout = Event::Timeout { call: Some(call), method: "INVITE".into() };
    assert_eq!(net.events[0], [timeout, Event::Failed { call, status: 408 }]);
    // Timer A doubles from T1 within 64*T1: 7 copies (RFC 3261 section 17.1.1.2).
    assert_eq!(net.sent.len(), 7);
    assert!(net.events[1].is_empty());
}

#[test]
fn nobody_rings_for_ever() {
    let mut net = Net::pair(6, AutoAnswer::Manual);
    net.dial();
    net.settle();
    assert_eq!(ended(&net, 0), Some((true, Some(487))));
    net.assert_clean();
}

#[test]
fn a_call_whose_caller_is_gone_stops_ringing() {
    let mut net = Net::pair(6, AutoAnswer::Manual);
    net.drop = |line| line.starts_with("SIP/2.0");
    net.dial();
    net.settle();
    assert_eq!(net.count(0, |e| matches!(e, Event::Failed { status: 408, .. })), 1);
    assert_eq!(ended(&net, 1), Some((true, Some(480))));
}

#[test]
fn a_hold_is_sendonly_and_answered_recvonly_and_ends_with_sendrecv() {
    let mut net = Net::pair(7, QUICK);
    let call = net.dial();
    net.secs(5);
    net.command(0, Command::Hold(call));
    net.secs(1);
    net.command(0, Command::ReInvite(call));
    net.secs(1);
    net.command(0, Command::Retrieve(call));
    net.secs(1);
    use Direction::{RecvOnly, SendOnly, SendRecv};
    assert_eq!(directions(&net, 0), [SendOnly, SendOnly, SendRecv]);
    assert_eq!(directions(&net, 1), [RecvOnly, RecvOnly, SendRecv]);
    net.command(0, Command::Hangup(call));
    net.settle();
    net.assert_clean();
}

#[test]
fn a_phone_that_holds_keeps_holding_when_the_other_reinvites() {
    let mut net = Net::pair(7, QUICK);
    let call = net.dial();
    net.secs(5);
    net.command(0, Command::Hold(call));
    net.secs(1);
    net.command(1, Command::ReInvite(net.incoming()));
    net.secs(1);
    net.command(1, Command::Hold(net.incoming()));
    net.secs(1);
    assert_eq!(directions(&net, 0).last(), Some(&Direction::Inactive));
    assert_eq!(directions(&net, 0)[1], Direction::SendOnly);
    net.command(1, Command::Hangup(net.incoming()));
    net.settle();
    net.assert_clean();
}

#[test]
fn glare_is_refused_with_491_and_both_reinvites_succeed_later() {
    let mut net = Net::pair(8, QUICK);
    let call = net.dial();
    net.secs(5);
    net.command(0, Command::Hold(call));
    net.command(1, Command::ReInvite(net.incoming()));
    net.secs(10);
    assert_eq!(net.sent.iter().filter(|line| line.ends_with("491 Request Pending")).count(), 2);
    assert_eq!(directions(&net, 0), [Direction::SendOnly, Direction::SendOnly]);
    assert_eq!(directions(&net, 1), [Direction::RecvOnly, Direction::RecvOnly]);
    net.command(0, Command::Hangup(call));
    net.settle();
    net.assert_clean();
}

#[test]
fn a_reinvite_asked_for_before_the_ack_waits_for_it() {
    let mut net = Net::pair(8, AutoAnswer::Manual);
    net.dial();
    net.secs(1);
    net.command(1, Command::Answer(net.incoming()));
    net.command(1, Command::Hold(net.incoming()));
    assert!(!net.sent.iter().any(|line| line.starts_with("1 INVITE")));
    net.secs(2);
    assert_eq!(directions(&net, 0), [Direction::RecvOnly]);
    net.command(1, Command::Hangup(net.incoming()));
    net.settle();
    net.assert_clean();
}

#[test]
fn a_hang_up_before_the_ack_waits_for_it() {
    let mut net = Net::pair(8, AutoAnswer::Manual);
    net.dial();
    net.secs(1);
    net.command(1, Command::Answer(net.incoming()));
    net.command(1, Command::Hangup(net.incoming()));
    assert!(!net.sent.iter().any(|line| line.starts_with("1 BYE")));
    net.settle();
    assert_eq!(ended(&net, 1), Some((true, Some(200))));
    net.assert_clean();
}

#[test]
fn a_200_that_is_never_acknowledged_is_repeated_and_then_ended_with_bye() {
    let mut net = Net::pair(9, QUICK);
    net.drop = |line| line.starts_with("ACK");
    net.dial();
    net.settle();
    let ok = net.sent.iter().filter(|line| *line == "1 SIP/2.0 200 OK").count();
    assert!(ok > 8, "{ok}: {:#?}", net.sent);
    let acks = net.sent.iter().filter(|line| line.starts_with("0 ACK")).count();
    assert_eq!(acks, ok, "one ACK for each 200");
    assert_eq!(ended(&net, 1), Some((true, Some(200))));
    assert_eq!(ended(&net, 0), Some((false, None)));
    assert_eq!(
        net.count(1, |e| matches!(e, Event::Protocol { what, .. } if what.contains("ACK missing"))),
        1
    );
}

#[test]
fn retransmitted_requests_are_answered_with_the_same_response() {
    let mut net = Net::pair(10, QUICK);
    net.drop = |line| line.starts_with("SIP/2.0 180");
    net.dial();
    net.secs(3);
    assert_eq!(net.count(1, |e| matches!(e, Event::Incoming { .. })), 1);
    assert!(net.sent.iter().filter(|line| line.starts_with("1 SIP/2.0 180")).count() >= 2);
    net.command(1, Command::Hangup(net.incoming()));
    net.settle();
}

#[test]
fn an_options_request_is_answered() {
    let mut net = Net::pair(11, QUICK);
    net.command(0, Command::Options);
    net.settle();
    assert_eq!(net.events[0], [Event::OptionsAnswered { status: 200 }]);
}

#[test]
fn a_phone_is_no_registrar() {
    let mut net = Net::pair(12, QUICK);
    net.command(0, Command::Register);
    net.settle();
    assert_eq!(net.events[0], [Event::RegistrationFailed { status: 405 }]);
}

#[test]
fn a_silent_registrar_is_asked_again() {
    let mut net = Net::pair(12, QUICK);
    net.drop = |line| line.starts_with("REGISTER");
    net.command(0, Command::Register);
    net.run(Duration::from_secs(100));
    assert!(net.count(0, |e| matches!(e, Event::RegistrationFailed { status: 408 })) >= 1);
    net.drop = |_| false;
    net.secs(60);
    assert_eq!(net.events[0].last(), Some(&Event::RegistrationFailed { status: 405 }));
}

#[test]
fn keep_alives_and_garbage_do_no_harm() {
    let mut net = Net::pair(13, QUICK);
    let now = net.now;
    for datagram in [&b"\r\n\r\n"[..], b"\r\n", b"\0", b""] {
        net.phones[0].receive(now, addr(1), datagram);
    }
    assert_eq!(net.phones[0].poll_event(), None);
    net.phones[0].receive(now, addr(1), b"INVITE\r\n\r\n");
    assert!(matches!(net.phones[0].poll_event(), Some(Event::Protocol { .. })));
    assert!(net.phones[0].is_idle());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut net = Net::pair(14, QUICK);
        net.faults.loss = 20;
        let call = net.dial();
        net.secs(20);
        net.command(0, Command::Hangup(call));
        net.settle();
        (net.sent, net.events)
    };
    assert_eq!(run(), run());
}
