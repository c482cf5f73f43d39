//! Calls over a trunk, after one proxy has failed: while the answer is committed, and up.

use std::net::SocketAddr;

use tandem_protocol::b2bua::{
    CALLER, Call, Destination, Input, LegId, MediaPlan, Output, Sdp, TrunkChoice, TrunkHunt,
};
use tandem_protocol::dialog::{Command, LegEvent};
use tandem_protocol::flow::{ListenerId, Transport};
use tandem_protocol::proxy_list::{ProxyHealth, ProxyWalk, RetryableCodes, Selection};
use tandem_protocol::sdp::negotiate::LocalMedia;

use super::*;

const OFFER: &str =
    "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\n";
const ANSWER: &str =
    "v=0\r\no=- 2 2 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\n";
const FIRST: LegId = LegId(1);
const SECOND: LegId = LegId(2);

fn proxy(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

fn feed(call: &mut Call, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    call.handle(&input, at(1), &mut out);
    out
}

/// The first proxy has failed, the second has answered, and the checkpoint of that is under way.
fn committing() -> Call {
    let proxies = [5070, 5071].map(|port| ProxyHealth::up(proxy(port)));
    let choice = TrunkChoice {
        trunk: "out".into(),
        listener: ListenerId::new(Transport::Udp, ([10, 0, 0, 9], 5060).into()),
        user: "5550100".into(),
        sips: false,
        walk: ProxyWalk::new(&proxies, Selection::Priority, RetryableCodes::default()),
        hosts: Vec::new(),
    };
    let hunt = TrunkHunt::new(vec![choice]);
    let destination = Destination::Trunk { hunt, ring_timeout: std::time::Duration::from_secs(300) };
    let ours = |port: u16| LocalMedia::from(([10, 0, 0, 9].into(), port));
    let media = MediaPlan::Anchored { caller: ours(20_000), callee: ours(20_002), other: None };
    let sdp = Sdp::new(Bytes::from_static(OFFER.as_bytes()), &media, 7).unwrap();
    let mut call = Call::new(destination, media, sdp).caller_takes_reliable(true);
    feed(&mut call, Input::Begin);
    let failed = LegEvent::Failed { status: 503, reason: "no".into(), retry_after: None, unanswered: None };
    feed(&mut call, Input::Leg(FIRST, failed));
    feed(&mut call, Input::Leg(SECOND, LegEvent::Progress { status: 180, sdp: None }));
    let sdp = Bytes::from_static(ANSWER.as_bytes());
    feed(&mut call, Input::Leg(SECOND, LegEvent::Answered { sdp }));
    feed(&mut call, Input::Leg(CALLER, LegEvent::AnswerReady));
    call
}

/// The same once it is committed.
fn up() -> Call {
    let mut call = committing();
    feed(&mut call, Input::Committed(true));
    call
}

/// The same while an offer of the caller's waits for the callee.
fn reoffering() -> Call {
    let mut call = up();
    feed(&mut call, held());
    call
}

fn held() -> Input {
    let sdp = format!("{}a=sendonly\r\n", OFFER.replace("- 1 1", "- 1 2")).into();
    Input::Leg(CALLER, LegEvent::Reoffer { sdp })
}

fn holds(call: Call) {
    assert_eq!(call.callee(), Some(SECOND));
    let tried: Vec<_> = call.attempts().iter().map(|attempt| attempt.trunk.as_str()).collect();
    assert_eq!(tried, ["out", "out"]);
    let mut call = Call::restore(call);
    // The session goes on where it stood: our port, and the next version of our description.
    let out = feed(&mut call, held());
    let offer = out.into_iter().find_map(|output| match output {
        Output::Tell(SECOND, Command::Reoffer { sdp } | Command::Update { sdp }) => Some(sdp),
        _ => None,
    });
    let offer = String::from_utf8(offer.expect("an offer").to_vec()).unwrap();
    for line in ["o=- 6 2 IN IP4 10.0.0.9\r\n", "m=audio 20002 RTP/AVP 0 8\r\n", "a=sendonly\r\n"] {
        assert!(offer.contains(line), "{line} {offer}");
    }
}

#[test]
fn a_call_whose_answer_is_being_committed_is_restored_from_every_golden_checkpoint() {
    Golden::of_machine("call_committing", holds).check(&committing());
}

#[test]
fn a_call_that_is_up_is_restored_from_every_golden_checkpoint() {
    let holds = |call: Call| {
        assert!(call.is_up());
        assert_eq!(call.answered_at(), Some(at(1).wall));
        holds(call);
    };
    Golden::of_machine("call_up", holds).check(&up());
}

#[test]
fn a_call_whose_session_is_being_changed_is_restored_from_every_golden_checkpoint() {
    let holds = |call: Call| assert_eq!((call.callee(), call.is_up()), (Some(SECOND), true));
    Golden::of_machine("call_reoffering", holds).check(&reoffering());
}
