mod codecs;
mod offers;
mod redirect;
mod replaces;

use std::net::SocketAddr;

use bytes::Bytes;

use super::*;
use crate::dialog::{Command, NoAnswer};
use crate::flow::ListenerId;
use crate::proxy_list::{Outcome, ProxyHealth, ProxyWalk, RetryableCodes, Selection};
use crate::sdp::negotiate::LocalMedia;

const OFFER: &str =
    "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\n";
const ANSWER: &str =
    "v=0\r\no=- 2 2 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\n";
const A: LegId = LegId(1);
const B: LegId = LegId(2);

fn sdp(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn at(ms: u64) -> Now {
    Now { mono: Instant(ms * 1000), wall: UnixMillis(1_000_000 + ms) }
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn target(port: u16) -> Target {
    Target {
        request_uri: format!("sip:x@{}", addr(port)),
        flow: Flow::to(ListenerId::default(), addr(port)),
        route: Vec::new(),
        routing: Routing::Flow,
        trunk: None,
    }
}

/// A hunt over the proxies of one trunk.
fn hunt(proxies: u16) -> TrunkHunt {
    let proxies: Vec<_> = (0..proxies).map(|n| ProxyHealth::up(addr(5070 + n))).collect();
    let walk = ProxyWalk::new(&proxies, Selection::Priority, RetryableCodes::default());
    let choice = TrunkChoice {
        trunk: "out".into(),
        listener: ListenerId::default(),
        user: "123".into(),
        sips: false,
        walk,
        hosts: Vec::new(),
    };
    TrunkHunt::new(vec![choice])
}

/// A call and the outputs of its last input.
struct Rig {
    call: Call,
    now: u64,
    out: Vec<Output>,
}

impl Rig {
    fn new(destination: Destination, media: MediaPlan) -> Rig {
        let sdp = Sdp::new(sdp(OFFER), &media, 7).unwrap();
        let mut rig = Rig { call: Call::new(destination, media, sdp), now: 0, out: Vec::new() };
        rig.feed(Input::Begin);
        rig
    }

    fn station(contacts: u16) -> Rig {
        let contacts = Fork::parallel((0..contacts).map(|n| target(5070 + n)).collect());
        Rig::new(Destination::Station { contacts, ring_timeout: Duration::from_secs(20) }, MediaPlan::Bypass)
    }

    fn trunk(proxies: u16) -> Rig {
        let hunt = hunt(proxies);
        Rig::new(Destination::Trunk { hunt, ring_timeout: LONGEST_RING }, MediaPlan::Bypass)
    }

    /// A station's call that both sides have.
    fn up() -> Rig {
        let mut rig = Rig::station(1);
        rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
        rig.leg(CALLER, LegEvent::AnswerReady);
        rig.feed(Input::Committed(true));
        assert!(rig.call.is_up());
        rig
    }

    fn feed(&mut self, input: Input) -> &[Output] {
        self.out.clear();
        self.call.handle(&input, at(self.now), &mut self.out);
        &self.out
    }

    fn leg(&mut self, leg: LegId, event: LegEvent) -> &[Output] {
        self.feed(Input::Leg(leg, event))
    }

    fn failed(&mut self, leg: LegId, status: u16, unanswered: Option<NoAnswer>) {
        let reason = String::new();
        self.leg(leg, LegEvent::Failed { status, reason, retry_after: None, unanswered });
    }

    fn ended(&mut self, leg: LegId, by: EndedBy) {
        self.leg(leg, LegEvent::Ended { by });
    }

    /// What the last input told a leg.
    fn told(&self, leg: LegId) -> Vec<Command> {
        let to_leg = |output: &Output| match output {
            Output::Tell(to, command) if *to == leg => Some(command.clone()),
            _ => None,
        };
        self.out.iter().filter_map(to_leg).collect()
    }

    fn told_to_end(&self, leg: LegId) -> Option<u16> {
        self.told(leg).into_iter().find_map(|command| match command {
            Command::End { status, .. } => Some(status),
            _ => None,
        })
    }

    fn over(&self) -> Option<Ended> {
        self.out.iter().find_map(|output| match output {
            Output::Over(ended) => Some(*ended),
            _ => None,
        })
    }

    fn has(&self, wanted: fn(&Output) -> bool) -> bool {
        self.out.iter().any(wanted)
    }

    /// Where the last input sent an INVITE.
    fn invited(&self) -> Option<(LegId, SocketAddr)> {
        self.out.iter().find_map(|output| match output {
            Output::Invite { leg, target, .. } => Some((*leg, target.flow.remote)),
            _ => None,
        })
    }
}

#[test]
fn the_200_leaves_only_after_its_checkpoint_is_committed() {
    let mut rig = Rig::station(1);
    rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
    assert_eq!(rig.told(CALLER), [Command::PrepareAnswer { sdp: sdp(ANSWER) }]);
    rig.leg(CALLER, LegEvent::AnswerReady);
    assert!(rig.has(|o| matches!(o, Output::Commit)));
    assert!(rig.told(CALLER).is_empty());
    rig.feed(Input::Committed(true));
    assert_eq!(rig.told(CALLER), [Command::SendAnswer]);
    assert!(rig.has(|o| matches!(o, Output::Answered { protected: true })));
}

#[test]
fn a_failed_or_slow_commit_lets_the_answer_go_unprotected() {
    for slow in [false, true] {
        let mut rig = Rig::station(1);
        rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
        rig.leg(CALLER, LegEvent::AnswerReady);
        if slow {
            assert_eq!(rig.call.deadline(), Some(Instant(100_000)));
            rig.now = 100;
            rig.feed(Input::Timeout);
        } else {
            rig.feed(Input::Committed(false));
        }
        assert_eq!(rig.told(CALLER), [Command::SendAnswer]);
        assert!(rig.has(|o| matches!(o, Output::Answered { protected: false })));
        rig.feed(Input::Committed(true));
        assert!(rig.out.is_empty(), "the commit came too late and changes nothing");
    }
}

#[test]
fn an_answer_that_leaves_before_its_checkpoint_could_be_made_gets_that_all_the_same() {
    let mut rig = Rig::station(1);
    rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
    rig.now = 100;
    rig.feed(Input::Timeout);
    assert!(rig.has(|o| matches!(o, Output::Answered { protected: false })));
    rig.leg(CALLER, LegEvent::AnswerReady);
    assert!(rig.has(|o| matches!(o, Output::Commit)), "a restart would lose it for good");
}

#[test]
fn the_first_of_two_contacts_that_answers_has_the_call_and_the_other_is_ended() {
    let mut rig = Rig::station(2);
    rig.leg(B, LegEvent::Answered { sdp: sdp(ANSWER) });
    assert_eq!(rig.call.callee(), Some(B));
    assert_eq!(rig.told_to_end(A), Some(487));
    // Its 200 has crossed our CANCEL.
    rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
    assert_eq!(rig.told_to_end(A), Some(487));
    rig.ended(A, EndedBy::Us);
    assert!(rig.over().is_none() && rig.told(CALLER).is_empty(), "the loser's end is no end of the call");
    rig.leg(CALLER, LegEvent::AnswerReady);
    rig.feed(Input::Committed(true));
    assert!(rig.call.is_up());
}

#[test]
fn the_caller_hears_the_best_refusal_once_every_contact_has_refused() {
    let mut rig = Rig::station(2);
    rig.failed(A, 486, None);
    assert!(rig.told(CALLER).is_empty(), "the other still rings");
    rig.failed(B, 408, Some(NoAnswer::Timeout));
    assert_eq!(rig.told_to_end(CALLER), Some(486));
    rig.ended(CALLER, EndedBy::Us);
    assert_eq!(rig.over().map(|e| (e.cause, e.by, e.status)), Some((Cause::Busy, Side::Callee, 486)));
}

#[test]
fn a_contact_whose_flow_is_dead_is_passed_over_and_with_none_left_the_caller_gets_480() {
    let mut rig = Rig::station(2);
    rig.failed(A, 503, Some(NoAnswer::Transport));
    assert!(rig.told(CALLER).is_empty(), "the other still rings");
    rig.failed(B, 503, Some(NoAnswer::Transport));
    assert_eq!(rig.told_to_end(CALLER), Some(480));
    rig.ended(CALLER, EndedBy::Us);
    assert_eq!(rig.over().map(|e| (e.cause, e.status)), Some((Cause::NoAnswer, 480)));

    let mut rig = Rig::station(2);
    rig.failed(A, 503, Some(NoAnswer::Transport));
    rig.failed(B, 486, None);
    assert_eq!(rig.told_to_end(CALLER), Some(486), "what a living contact says counts");
}

#[test]
fn a_6xx_ends_the_ringing_of_every_contact() {
    let mut rig = Rig::station(2);
    rig.failed(A, 603, None);
    assert_eq!(rig.told_to_end(CALLER), Some(603));
    assert_eq!(rig.told_to_end(B), Some(603));
}

#[test]
fn a_phone_that_only_rings_is_given_up_after_the_ring_timeout() {
    let mut rig = Rig::station(1);
    rig.leg(A, LegEvent::Progress { status: 180, sdp: None });
    assert!(rig.has(|o| matches!(o, Output::Ringing)));
    assert_eq!(rig.told(CALLER), [Command::Progress { status: 180, sdp: None }]);
    assert_eq!(rig.call.deadline(), Some(Instant(20_000_000)));
    rig.now = 20_000;
    rig.feed(Input::Timeout);
    assert_eq!((rig.told_to_end(CALLER), rig.told_to_end(A)), (Some(480), Some(480)));
    rig.ended(CALLER, EndedBy::Us);
    assert!(rig.over().is_none(), "the callee has not ended yet");
    rig.failed(A, 487, None);
    assert_eq!(rig.over().map(|e| (e.cause, e.status)), Some((Cause::NoAnswer, 480)));
}

#[test]
fn a_caller_that_cancels_while_the_answer_waits_for_its_commit_ends_the_callee() {
    let mut rig = Rig::station(1);
    rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
    rig.leg(CALLER, LegEvent::AnswerReady);
    rig.leg(CALLER, LegEvent::Cancelled);
    assert_eq!(rig.told_to_end(A), Some(487));
    rig.feed(Input::Committed(true));
    assert!(rig.out.is_empty(), "nothing is answered any more");
    rig.ended(A, EndedBy::Us);
    let over = rig.over().unwrap();
    assert_eq!((over.cause, over.by, over.status), (Cause::Abandoned, Side::Caller, 487));
    assert_eq!(rig.call.answered_at(), None);
}

#[test]
fn an_answer_that_nobody_acknowledges_ends_both_legs() {
    let mut rig = Rig::up();
    rig.ended(CALLER, EndedBy::NoAck);
    assert!(rig.told_to_end(A).is_some());
    rig.ended(A, EndedBy::Us);
    assert_eq!(rig.over().map(|e| (e.cause, e.by)), Some((Cause::NoAck, Side::Engine)));
}

#[test]
fn a_bye_of_either_side_ends_the_other_and_byes_that_cross_end_the_call_once() {
    let mut rig = Rig::up();
    rig.ended(A, EndedBy::Peer);
    assert_eq!(rig.told_to_end(CALLER), Some(480));
    rig.ended(CALLER, EndedBy::Peer);
    let over = rig.over().unwrap();
    assert_eq!((over.cause, over.by, over.status), (Cause::Normal, Side::Callee, 200));
    rig.feed(Input::LegGone(A));
    rig.feed(Input::LegGone(CALLER));
    assert!(rig.over().is_none());
}

#[test]
fn a_re_invite_crosses_the_bridge_and_its_answer_comes_back() {
    let mut rig = Rig::up();
    rig.leg(CALLER, LegEvent::Reoffer { sdp: sdp(OFFER) });
    assert_eq!(rig.told(A), [Command::Reoffer { sdp: sdp(OFFER) }]);
    rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
    assert_eq!(rig.told(CALLER), [Command::AnswerReoffer { sdp: sdp(ANSWER) }]);
    assert!(rig.has(|o| matches!(o, Output::Refresh)));
}

#[test]
fn a_refused_re_invite_is_refused_and_the_call_goes_on() {
    let mut rig = Rig::up();
    rig.leg(A, LegEvent::Reoffer { sdp: sdp(OFFER) });
    rig.leg(CALLER, LegEvent::ReofferRefused { status: 488 });
    assert_eq!(rig.told(A), [Command::RefuseReoffer { status: 488 }]);
    assert!(rig.call.is_up());
}

#[test]
fn re_invites_of_both_sides_at_once_are_both_answered_491() {
    let mut rig = Rig::up();
    rig.leg(CALLER, LegEvent::Reoffer { sdp: sdp(OFFER) });
    rig.leg(A, LegEvent::Reoffer { sdp: sdp(OFFER) });
    assert_eq!(rig.told(A), [Command::RefuseReoffer { status: 491 }]);
    // The callee's dialog had its own when ours came.
    rig.leg(A, LegEvent::ReofferRefused { status: 491 });
    assert_eq!(rig.told(CALLER), [Command::RefuseReoffer { status: 491 }]);
}

#[test]
fn a_proxy_that_fails_is_followed_by_the_next_and_every_attempt_is_told() {
    let mut rig = Rig::trunk(4);
    assert_eq!(rig.invited(), Some((A, addr(5070))));
    rig.now = 30;
    rig.failed(A, 503, None);
    assert_eq!(rig.invited(), Some((B, addr(5071))));
    rig.failed(B, 408, Some(NoAnswer::Timeout));
    assert_eq!(rig.invited(), Some((LegId(3), addr(5072))));
    rig.failed(LegId(3), 503, Some(NoAnswer::Transport));
    assert_eq!(rig.invited(), Some((LegId(4), addr(5073))));
    let causes: Vec<Outcome> = rig.call.attempts().iter().filter_map(|a| a.tried.map(|t| t.cause)).collect();
    assert_eq!(causes, [Outcome::Status(503), Outcome::Timeout, Outcome::TransportError]);
    rig.failed(LegId(4), 486, None);
    assert_eq!(rig.told_to_end(CALLER), Some(486), "busy is busy");
}

#[test]
fn a_leg_that_failed_and_then_ends_does_not_fail_the_next_proxys_attempt() {
    let mut rig = Rig::trunk(2);
    rig.failed(A, 502, None);
    assert_eq!(rig.invited(), Some((B, addr(5071))));
    rig.ended(A, EndedBy::Us);
    rig.feed(Input::LegGone(A));
    assert!(rig.out.is_empty(), "{:?}", rig.out);
}

#[test]
fn a_trunk_without_an_answering_proxy_fails_the_call() {
    let mut rig = Rig::trunk(1);
    rig.failed(A, 408, Some(NoAnswer::Timeout));
    assert_eq!(rig.told_to_end(CALLER), Some(504));
    rig.ended(CALLER, EndedBy::Us);
    assert_eq!(rig.over().map(|e| e.cause), Some(Cause::Failed));
}

#[test]
fn silence_and_an_operator_end_a_call_that_is_up() {
    let mut rig = Rig::up();
    rig.feed(Input::Silent(Side::Callee));
    assert!(rig.told_to_end(CALLER).is_some() && rig.told_to_end(A).is_some());
    let mut rig = Rig::up();
    rig.feed(Input::HangUp);
    rig.ended(CALLER, EndedBy::Us);
    rig.ended(A, EndedBy::Us);
    assert_eq!(rig.over().map(|e| (e.cause, e.by)), Some((Cause::Operator, Side::Operator)));
}

#[test]
fn media_that_is_lost_ends_a_call_as_a_fault_of_ours_whether_it_is_up_or_rings() {
    for (mut rig, status) in [(Rig::up(), 200), (Rig::station(1), 500)] {
        rig.feed(Input::MediaLost);
        rig.ended(CALLER, EndedBy::Us);
        rig.ended(A, EndedBy::Us);
        let ended = rig.over().map(|e| (e.cause, e.by, e.status));
        assert_eq!(ended, Some((Cause::Fault, Side::Engine, status)));
    }
}

#[test]
fn legs_that_never_say_that_they_have_ended_are_given_up() {
    let mut rig = Rig::up();
    rig.ended(A, EndedBy::Peer);
    rig.now = 70_000;
    rig.feed(Input::Timeout);
    assert!(rig.over().is_some());
}

#[test]
fn a_call_is_kept_from_its_answer_on_and_restored_as_connected() {
    let mut rig = Rig::station(2);
    assert!(!rig.call.is_kept());
    rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
    assert!(rig.call.is_kept() && rig.call.is_answered());
    let stored = rig.call.clone();
    rig.leg(CALLER, LegEvent::Cancelled);
    assert!(rig.call.is_kept() && !rig.call.is_answered(), "a call that ends is rebuilt, not restored");
    let mut rig = Rig { call: Call::restore(stored), now: 0, out: Vec::new() };
    assert!(rig.call.is_up() && rig.call.deadline().is_none());
    rig.ended(CALLER, EndedBy::Peer);
    rig.ended(A, EndedBy::Us);
    assert!(rig.over().is_some(), "the leg that lost is not waited for");
}

#[test]
fn a_call_whose_set_up_is_lost_ends_every_leg_and_the_caller_with_500() {
    let mut out = Vec::new();
    let call = Call::after_fault(&[CALLER, A], &[], at(0), &mut out);
    let mut rig = Rig { call, now: 0, out };
    assert_eq!((rig.told_to_end(CALLER), rig.told_to_end(A)), (Some(500), Some(500)));
    rig.ended(CALLER, EndedBy::Us);
    rig.failed(A, 487, None);
    assert_eq!(rig.over().map(|e| (e.cause, e.status)), Some((Cause::Fault, 500)));
}

#[test]
fn a_service_answers_at_once_and_a_refused_number_never_rings() {
    let local = LocalMedia::from(("127.0.0.1".parse().unwrap(), 20_000));
    let rig = Rig::new(Destination::Service, MediaPlan::Service { caller: local });
    assert!(matches!(rig.told(CALLER)[..], [Command::PrepareAnswer { .. }]));
    let mut rig = Rig::new(Destination::Refused { status: 404, cause: Cause::NotFound }, MediaPlan::Bypass);
    assert_eq!(rig.told_to_end(CALLER), Some(404));
    rig.ended(CALLER, EndedBy::Us);
    assert_eq!(rig.over().map(|e| (e.cause, e.status)), Some((Cause::NotFound, 404)));
}

#[test]
fn a_hold_of_anchored_media_tells_the_sessions_that_silence_is_no_fault() {
    let local = |port| LocalMedia::from(("127.0.0.1".parse().unwrap(), port));
    let media = MediaPlan::Anchored { caller: local(20_000), callee: local(20_002), other: None };
    let contacts = Fork::parallel(vec![target(5070)]);
    let mut rig = Rig::new(Destination::Station { contacts, ring_timeout: Duration::from_secs(20) }, media);
    rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
    rig.leg(CALLER, LegEvent::AnswerReady);
    rig.feed(Input::Committed(true));
    let held = format!("{OFFER}a=sendonly\r\n").replace("1 1 IN", "1 2 IN");
    rig.leg(CALLER, LegEvent::Reoffer { sdp: Bytes::from(held) });
    let relayed = match &rig.told(A)[..] {
        [Command::Reoffer { sdp }] => String::from_utf8(sdp.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(relayed.contains("m=audio 20002") && relayed.contains("a=sendonly"), "{relayed}");
    let answer = format!("{ANSWER}a=recvonly\r\n").replace("2 2 IN", "2 3 IN");
    rig.leg(A, LegEvent::ReofferAnswered { sdp: Bytes::from(answer) });
    assert!(rig.has(|o| matches!(o, Output::Media { side: Side::Caller, held: true, .. })));
}
