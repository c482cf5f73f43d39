//! What each side may use of the other's codecs.

use super::*;
use crate::sdp::negotiate::CodecList;

const BOTH: &str =
    "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 9\r\n";

fn list(names: &str) -> CodecList {
    CodecList::new(names.split_whitespace().map(str::to_owned))
}

fn choice(trunk: &str, port: u16) -> TrunkChoice {
    let walk = ProxyWalk::new(&[ProxyHealth::up(addr(port))], Selection::Priority, RetryableCodes::default());
    TrunkChoice {
        trunk: trunk.into(),
        listener: ListenerId::default(),
        user: "1".into(),
        sips: false,
        walk,
        hosts: Vec::new(),
    }
}

/// A call over trunks, each with its codecs, whose caller has his own.
fn over(caller: &str, trunks: &[(&str, &str)]) -> Rig {
    let hunt = (5070..).zip(trunks).map(|(port, (name, _))| choice(name, port)).collect();
    let destination = Destination::Trunk { hunt: TrunkHunt::new(hunt), ring_timeout: LONGEST_RING };
    let callees = trunks.iter().map(|(name, names)| (Some((*name).to_owned()), list(names))).collect();
    let described = Sdp::new(sdp(BOTH), &MediaPlan::Bypass, 7).unwrap();
    let call = Call::new(destination, MediaPlan::Bypass, described).with_codecs(list(caller), callees);
    let mut rig = Rig { call, now: 0, out: Vec::new() };
    rig.feed(Input::Begin);
    rig
}

/// The trunk that is asked, and the formats that it is offered.
fn asked(rig: &Rig) -> Option<(String, String)> {
    rig.out.iter().find_map(|output| match output {
        Output::Invite { target, sdp, .. } => Some((target.trunk.clone()?, formats(sdp))),
        _ => None,
    })
}

fn formats(sdp: &Bytes) -> String {
    let text = String::from_utf8_lossy(sdp);
    let line = text.lines().find(|line| line.starts_with("m=audio")).unwrap_or_default();
    line.split(" RTP/AVP ").nth(1).unwrap_or_default().to_owned()
}

fn passed_over(rig: &Rig) -> Vec<String> {
    let passed = |output: &Output| match output {
        Output::NoCodec { trunk } => Some(trunk.clone()),
        _ => None,
    };
    rig.out.iter().filter_map(passed).collect()
}

fn said(formats: &str) -> Bytes {
    Bytes::from(ANSWER.replace("RTP/AVP 0", &format!("RTP/AVP {formats}")))
}

fn up(mut rig: Rig, answer: &str) -> Rig {
    rig.leg(A, LegEvent::Answered { sdp: said(answer) });
    rig.leg(CALLER, LegEvent::AnswerReady);
    rig.feed(Input::Committed(true));
    assert!(rig.call.is_up());
    rig
}

#[test]
fn each_trunk_of_a_hunt_is_offered_its_own_codecs_and_one_that_takes_none_is_passed_over() {
    let mut rig = over("", &[("a", "G729"), ("b", "G722 PCMU"), ("c", "opus"), ("d", "PCMA")]);
    assert_eq!((passed_over(&rig), asked(&rig)), (vec!["a".to_owned()], Some(("b".into(), "9 0".into()))));
    rig.failed(A, 503, None);
    assert_eq!((passed_over(&rig), asked(&rig)), (vec!["c".to_owned()], Some(("d".into(), "8".into()))));
    rig.leg(B, LegEvent::Answered { sdp: said("8 0") });
    let told = rig.told(CALLER).into_iter().find_map(|command| match command {
        Command::PrepareAnswer { sdp } => Some(formats(&sdp)),
        _ => None,
    });
    assert_eq!(told.as_deref(), Some("8"), "nor is anything else taken");

    let rig = over("", &[("a", "G729"), ("b", "opus")]);
    assert_eq!(passed_over(&rig), ["a", "b"]);
    assert_eq!(rig.told_to_end(CALLER), Some(488));
    // One that was asked has said more.
    let mut rig = over("", &[("a", "PCMU"), ("b", "opus")]);
    rig.failed(A, 503, None);
    assert_eq!(rig.told_to_end(CALLER), Some(503));
}

#[test]
fn an_offer_with_no_codec_of_both_sides_is_refused_and_the_session_stays() {
    let mut rig = up(over("PCMU PCMA", &[("a", "PCMU")]), "0");
    for (leg, offer) in [(A, "8 9"), (CALLER, "9"), (CALLER, "8")] {
        rig.leg(leg, LegEvent::Reoffer { sdp: said(offer) });
        assert_eq!(rig.told(leg), [Command::RefuseReoffer { status: 488 }], "{offer}");
        assert!(rig.call.is_up());
    }
    rig.leg(A, LegEvent::Reoffer { sdp: said("8 0") });
    let [Command::Reoffer { sdp }] = &rig.told(CALLER)[..] else { panic!("{:?}", rig.out) };
    assert_eq!(formats(sdp), "0");
    // What cannot be read cannot be looked through.
    let mut rig = up(over("PCMU", &[("a", "")]), "0");
    rig.leg(A, LegEvent::Reoffer { sdp: Bytes::from_static(b"hello") });
    assert_eq!(rig.told(A), [Command::RefuseReoffer { status: 400 }]);
}

#[test]
fn a_solicited_offer_with_no_common_codec_is_answered_as_things_are() {
    let mut rig = up(over("PCMU", &[("a", "")]), "0");
    rig.leg(CALLER, LegEvent::OfferWanted);
    assert_eq!(rig.told(A), [Command::Solicit]);
    rig.leg(A, LegEvent::Offered { sdp: said("8") });
    assert_eq!(rig.told(CALLER), [Command::RefuseReoffer { status: 488 }]);
    assert_eq!(rig.told(A), [Command::CancelReoffer { reason: None }], "its ACK has the session as it is");
    assert!(rig.call.is_up());
}

#[test]
fn a_refresh_that_says_what_is_not_used_changes_nothing() {
    let mut rig = up(over("PCMU", &[("a", "")]), "0");
    rig.leg(A, LegEvent::Refreshed { sdp: said("8") });
    assert!(rig.out.is_empty() && rig.call.is_up());
}
