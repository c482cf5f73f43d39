//! Somebody takes a leg's place (RFC 3891).

use super::*;
use crate::dialog::Command;
use crate::sdp::negotiate::CodecList;

const NEW: &str =
    "v=0\r\no=- 5 5 IN IP4 10.0.0.5\r\ns=-\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\n";
const VIDEO: &str = "v=0\r\no=- 5 5 IN IP4 10.0.0.5\r\ns=-\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\nm=video 6002 RTP/AVP 96\r\n";
const HELD: &str = "v=0\r\no=- 2 3 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\na=sendonly\r\n";

fn anchored() -> MediaPlan {
    let local = |port| LocalMedia::from(("127.0.0.1".parse().unwrap(), port));
    MediaPlan::Anchored { caller: local(20_000), callee: local(20_002), other: None }
}

fn up(media: MediaPlan) -> Rig {
    let contacts = Fork::parallel(vec![target(5070)]);
    let mut rig = Rig::new(Destination::Station { contacts, ring_timeout: Duration::from_secs(20) }, media);
    rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
    rig.leg(CALLER, LegEvent::AnswerReady);
    rig.feed(Input::Committed(true));
    assert!(rig.call.is_up());
    rig
}

impl Rig {
    /// Somebody wants the place of this leg; who it is.
    fn seeks_with(&mut self, replaced: LegId, early: bool, offer: &'static str) -> LegId {
        let leg = self.call.next_leg().unwrap();
        let at = "10.0.0.5".parse().unwrap();
        let (offer, codecs) = (sdp(offer), CodecList::ANY);
        let newcomer = Newcomer { leg, replaced, early, offer, codecs, at, session_id: 99 };
        self.feed(Input::Replace(Box::new(newcomer)));
        leg
    }

    fn seeks(&mut self, replaced: LegId) -> LegId {
        self.seeks_with(replaced, false, NEW)
    }

    /// What became of newcomers.
    fn became(&self) -> Vec<(LegId, Succession)> {
        let became = |output: &Output| match output {
            Output::Succession(leg, became) => Some((*leg, *became)),
            _ => None,
        };
        self.out.iter().filter_map(became).collect()
    }

    fn views(&self) -> Vec<(Side, Option<u16>)> {
        let view = |output: &Output| match output {
            Output::Media { side, view, .. } => Some((*side, view.as_ref().map(|view| view.rtp.port()))),
            _ => None,
        };
        self.out.iter().filter_map(view).collect()
    }
}

#[test]
fn a_newcomer_has_the_place_once_the_remaining_side_has_agreed_and_the_checkpoint_says_so() {
    let mut rig = up(anchored());
    let new = rig.seeks(CALLER);
    let [Command::Succeed { sdp: offer }] = &rig.told(A)[..] else { panic!("{:?}", rig.out) };
    assert!(String::from_utf8_lossy(offer).contains("m=audio 20002 RTP/AVP 0\r\n"), "{offer:?}");
    assert!(rig.told(CALLER).is_empty() && rig.told(new).is_empty());
    rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
    let [Command::PrepareAnswer { sdp: answer }] = &rig.told(new)[..] else { panic!("{:?}", rig.out) };
    assert!(String::from_utf8_lossy(answer).contains("m=audio 20000 RTP/AVP 0\r\n"), "{answer:?}");
    assert!(rig.views().is_empty() && rig.call.caller() == CALLER, "nothing has changed yet");
    rig.leg(new, LegEvent::AnswerReady);
    assert_eq!(rig.views(), [(Side::Caller, Some(6000)), (Side::Callee, Some(5000))]);
    assert!(rig.has(|o| matches!(o, Output::Commit)));
    assert_eq!((rig.call.caller(), rig.call.callee()), (new, Some(A)));
    assert!(rig.told_to_end(CALLER).is_none(), "until the store has it");
    rig.feed(Input::Committed(true));
    assert_eq!(rig.told(new), [Command::SendAnswer]);
    assert!(rig.told_to_end(CALLER).is_some());
    assert_eq!(rig.became(), [(new, Succession::Done { protected: true })]);
    // What the replaced leg still says concerns nobody.
    rig.leg(CALLER, LegEvent::Reoffer { sdp: sdp(OFFER) });
    assert_eq!(rig.told(CALLER), [Command::RefuseReoffer { status: 491 }]);
    rig.ended(CALLER, EndedBy::Us);
    assert!(rig.call.is_up() && rig.out.is_empty());
    // The new pair is one.
    rig.leg(A, LegEvent::Reoffer { sdp: sdp(HELD) });
    assert!(matches!(rig.told(new)[..], [Command::Reoffer { .. }]), "{:?}", rig.out);
    rig.leg(new, LegEvent::ReofferAnswered { sdp: sdp(NEW) });
    assert_eq!(rig.views(), [(Side::Callee, Some(5000)), (Side::Caller, Some(6000))]);
    rig.ended(new, EndedBy::Peer);
    assert!(rig.told_to_end(A).is_some());
    rig.ended(A, EndedBy::Us);
    assert_eq!(
        rig.over().map(|over| (over.cause, over.by, over.status)),
        Some((Cause::Normal, Side::Caller, 200))
    );
}

#[test]
fn a_commit_that_fails_or_takes_long_costs_no_place() {
    for slow in [false, true] {
        let mut rig = up(MediaPlan::Bypass);
        let new = rig.seeks(A);
        rig.leg(CALLER, LegEvent::ReofferAnswered { sdp: sdp(OFFER) });
        rig.leg(new, LegEvent::AnswerReady);
        if slow {
            assert_eq!(rig.call.deadline(), Some(Instant(100_000)));
            rig.now = 100;
            rig.feed(Input::Timeout);
        } else {
            rig.feed(Input::Committed(false));
        }
        assert_eq!(rig.became(), [(new, Succession::Done { protected: false })]);
        assert!(rig.told_to_end(A).is_some());
        rig.feed(Input::Committed(true));
        assert!(rig.out.is_empty() && rig.call.deadline().is_none());
    }
}

#[test]
fn a_refusal_of_the_remaining_side_leaves_the_call_as_it_was() {
    for (status, told) in [(488, 488), (486, 486), (401, 403), (415, 488), (481, 480), (408, 480)] {
        let mut rig = up(anchored());
        let new = rig.seeks(CALLER);
        rig.leg(A, LegEvent::ReofferRefused { status });
        assert_eq!((rig.told_to_end(new), rig.told(A)), (Some(told), vec![]), "{status}");
        assert_eq!(rig.became(), [(new, Succession::Refused(told))]);
        rig.ended(new, EndedBy::Us);
        // The caller is told of the callee's session as before, in the same row of versions.
        rig.leg(A, LegEvent::Reoffer { sdp: sdp(HELD) });
        let [Command::Reoffer { sdp }] = &rig.told(CALLER)[..] else { panic!("{:?}", rig.out) };
        assert!(String::from_utf8_lossy(sdp).contains("o=- 7 2 IN IP4 127.0.0.1"), "{sdp:?}");
    }
}

#[test]
fn what_the_remaining_side_has_agreed_to_in_vain_is_taken_back() {
    for answered in [false, true] {
        let mut rig = up(anchored());
        let new = rig.seeks(CALLER);
        if answered {
            rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
        }
        rig.leg(new, LegEvent::Cancelled);
        assert_eq!(rig.told(A), [Command::CancelReoffer { reason: None }]);
        assert_eq!(rig.became(), [(new, Succession::Cancelled)]);
        rig.feed(Input::LegGone(new));
        assert!(rig.out.is_empty() && rig.call.is_up() && rig.call.caller() == CALLER);
        // It is as before also for who comes next.
        let next = rig.seeks(CALLER);
        assert_ne!(next, new);
        assert!(matches!(rig.told(A)[..], [Command::Succeed { .. }]));
    }
    // An answer that cannot be used is undone, too.
    let mut rig = up(anchored());
    let new = rig.seeks(CALLER);
    rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp("v=1\r\n") });
    assert_eq!(
        (rig.told_to_end(new), rig.told(A)),
        (Some(400), vec![Command::CancelReoffer { reason: None }])
    );
}

#[test]
fn an_offer_of_the_remaining_side_that_crosses_ours_is_given_time_and_then_waited_for() {
    let mut rig = up(anchored());
    let new = rig.seeks(CALLER);
    rig.leg(A, LegEvent::ReofferRefused { status: 491 });
    rig.leg(A, LegEvent::Reoffer { sdp: sdp(HELD) });
    assert!(matches!(rig.told(CALLER)[..], [Command::Reoffer { .. }]), "its own goes first: {:?}", rig.out);
    rig.now = 600;
    rig.feed(Input::Timeout);
    assert!(rig.told(A).is_empty() && rig.told(new).is_empty(), "{:?}", rig.out);
    rig.leg(CALLER, LegEvent::ReofferAnswered { sdp: sdp(OFFER) });
    assert!(
        matches!(rig.told(A)[..], [Command::AnswerReoffer { .. }, Command::Succeed { .. }]),
        "{:?}",
        rig.out
    );
    // But not for ever.
    rig.leg(A, LegEvent::ReofferRefused { status: 491 });
    rig.now = 1_200;
    rig.feed(Input::Timeout);
    assert!(matches!(rig.told(A)[..], [Command::Succeed { .. }]));
    rig.leg(A, LegEvent::ReofferRefused { status: 491 });
    assert_eq!(rig.told_to_end(new), Some(491));
}

#[test]
fn one_newcomer_at_a_time() {
    let mut rig = up(anchored());
    let first = rig.seeks(CALLER);
    let second = rig.seeks(A);
    assert_eq!((rig.told_to_end(second), rig.told(first)), (Some(491), vec![]));
    rig.ended(second, EndedBy::Us);
    assert!(rig.call.is_up());
    rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
    assert!(matches!(rig.told(first)[..], [Command::PrepareAnswer { .. }]));
    // While the place changes hands nobody's offer crosses.
    for leg in [CALLER, A] {
        rig.leg(leg, LegEvent::Update { sdp: sdp(OFFER) });
        assert_eq!(rig.told(leg), [Command::RefuseReoffer { status: 491 }]);
        rig.leg(leg, LegEvent::OfferWanted);
        assert_eq!(rig.told(leg), [Command::RefuseReoffer { status: 491 }]);
    }
}

#[test]
fn a_side_that_leaves_meanwhile_is_succeeded_or_ends_the_call() {
    for comes in [true, false] {
        let mut rig = up(anchored());
        let new = rig.seeks(CALLER);
        rig.ended(CALLER, EndedBy::Peer);
        assert!(rig.out.is_empty(), "{:?}", rig.out);
        if comes {
            rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
            rig.leg(new, LegEvent::AnswerReady);
            rig.feed(Input::Committed(true));
            assert!(rig.told(CALLER).is_empty() && rig.call.is_up());
        } else {
            rig.leg(A, LegEvent::ReofferRefused { status: 488 });
            assert_eq!((rig.told_to_end(new), rig.told_to_end(A)), (Some(488), Some(480)));
            rig.ended(new, EndedBy::Us);
            rig.ended(A, EndedBy::Us);
            assert_eq!(rig.over().map(|over| (over.cause, over.by)), Some((Cause::Normal, Side::Caller)));
        }
    }
}

#[test]
fn whoever_waits_for_a_place_in_a_call_that_ends_is_declined_whatever_ends_it() {
    type End = fn(&mut Rig);
    let ends: [End; 4] = [
        |rig| rig.ended(A, EndedBy::Peer),
        |rig| {
            rig.feed(Input::HangUp);
        },
        |rig| {
            rig.feed(Input::Silent(Side::Callee));
        },
        |rig| {
            rig.feed(Input::MediaLost);
        },
    ];
    for stage in 0..3 {
        for end in ends {
            let mut rig = up(anchored());
            let new = rig.seeks(CALLER);
            if stage > 0 {
                rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
            }
            if stage > 1 {
                rig.leg(new, LegEvent::AnswerReady);
            }
            end(&mut rig);
            assert_eq!((rig.told_to_end(new), rig.became()), (Some(603), vec![(new, Succession::CallEnded)]));
            assert!(rig.told_to_end(CALLER).is_some());
            for leg in [CALLER, A, new] {
                rig.feed(Input::LegGone(leg));
            }
            assert_eq!(rig.call.state(), "over");
        }
    }
}

#[test]
fn a_newcomer_that_gives_up_when_it_has_the_place_ends_the_call() {
    let mut rig = up(anchored());
    let new = rig.seeks(CALLER);
    rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
    rig.leg(new, LegEvent::AnswerReady);
    rig.leg(new, LegEvent::Cancelled);
    assert!(rig.told_to_end(CALLER).is_some() && rig.told_to_end(A).is_some() && rig.told(new).is_empty());
    rig.ended(CALLER, EndedBy::Us);
    rig.ended(A, EndedBy::Us);
    assert_eq!(
        rig.over().map(|over| (over.cause, over.by, over.status)),
        Some((Cause::Normal, Side::Caller, 200))
    );
}

#[test]
fn an_early_call_is_answered_by_both_offers_and_all_that_ring_stop() {
    for media in [MediaPlan::Bypass, anchored()] {
        let contacts = Fork::parallel(vec![target(5070), target(5071)]);
        let mut rig =
            Rig::new(Destination::Station { contacts, ring_timeout: Duration::from_secs(20) }, media.clone());
        rig.leg(A, LegEvent::Progress { status: 180, sdp: None });
        let new = rig.seeks_with(A, true, NEW);
        assert_eq!((rig.told_to_end(A), rig.told_to_end(B)), (Some(487), Some(487)));
        assert!(matches!(rig.told(CALLER)[..], [Command::PrepareAnswer { .. }]), "{:?}", rig.out);
        assert!(matches!(rig.told(new)[..], [Command::PrepareAnswer { .. }]), "{:?}", rig.out);
        assert_eq!(rig.views().len(), if media == MediaPlan::Bypass { 0 } else { 2 });
        rig.leg(new, LegEvent::AnswerReady);
        assert!(rig.out.is_empty(), "one commit for both");
        rig.leg(CALLER, LegEvent::AnswerReady);
        assert!(rig.has(|o| matches!(o, Output::Commit)));
        // The phone's own 200 comes too late.
        rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
        assert!(rig.told_to_end(A).is_some());
        rig.feed(Input::Committed(true));
        assert_eq!((rig.told(CALLER), rig.told(new)), (vec![Command::SendAnswer], vec![Command::SendAnswer]));
        assert!(rig.has(|o| matches!(o, Output::Answered { protected: true })));
        assert_eq!(rig.became(), [(new, Succession::Done { protected: true })]);
        rig.ended(new, EndedBy::Peer);
        assert!(rig.told_to_end(CALLER).is_some());
    }
}

#[test]
fn an_early_call_is_left_as_it_is_where_the_newcomer_cannot_answer_it() {
    // Without an offer, with one that nothing is left of, and in another address family than our ports.
    for offer in [
        "",
        "v=0\r\n",
        "v=0\r\no=- 5 5 IN IP4 10.0.0.5\r\ns=-\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\nm=audio 6000 RTP/AVP 9\r\n",
    ] {
        let mut rig = up_to_ringing(anchored());
        let new = rig.seeks_with(A, true, offer);
        assert!(matches!(rig.told_to_end(new), Some(400 | 488)), "{:?}", rig.out);
        assert!(rig.told(A).is_empty() && rig.told(CALLER).is_empty());
        rig.ended(new, EndedBy::Us);
        rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
        assert_eq!(rig.call.callee(), Some(A));
    }
    let mut rig = up_to_ringing(anchored());
    let leg = rig.call.next_leg().unwrap();
    let (at, codecs) = ("::1".parse().unwrap(), CodecList::ANY);
    let newcomer = Newcomer { leg, replaced: A, early: true, offer: sdp(NEW), codecs, at, session_id: 9 };
    rig.feed(Input::Replace(Box::new(newcomer)));
    assert_eq!(rig.told_to_end(leg), Some(488));
}

fn up_to_ringing(media: MediaPlan) -> Rig {
    let contacts = Fork::parallel(vec![target(5070)]);
    let mut rig = Rig::new(Destination::Station { contacts, ring_timeout: Duration::from_secs(20) }, media);
    rig.leg(A, LegEvent::Progress { status: 180, sdp: None });
    rig
}

#[test]
fn the_caller_that_gives_up_before_an_early_newcomers_200_has_left_ends_both() {
    let mut rig = up_to_ringing(MediaPlan::Bypass);
    let new = rig.seeks_with(A, true, NEW);
    rig.leg(CALLER, LegEvent::Cancelled);
    assert_eq!((rig.told_to_end(new), rig.became()), (Some(603), vec![(new, Succession::CallEnded)]));
    // The newcomer the same: the caller has no answer yet, and hears that nobody is there.
    let mut rig = up_to_ringing(MediaPlan::Bypass);
    let new = rig.seeks_with(A, true, NEW);
    rig.leg(new, LegEvent::Cancelled);
    assert_eq!(rig.told_to_end(CALLER), Some(480));
}

#[test]
fn a_restart_finds_the_new_pair_or_the_old_one() {
    let mut rig = up(anchored());
    let new = rig.seeks(CALLER);
    rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
    let before = Call::restore(rig.call.clone());
    assert_eq!((before.caller(), before.callee()), (CALLER, Some(A)));
    rig.leg(new, LegEvent::AnswerReady);
    let after = Call::restore(rig.call.clone());
    assert_eq!((after.caller(), after.callee()), (new, Some(A)));
    for (call, caller) in [(before, CALLER), (after, new)] {
        let mut rig = Rig { call, now: 1, out: Vec::new() };
        rig.leg(A, LegEvent::Reoffer { sdp: sdp(HELD) });
        assert!(matches!(rig.told(caller)[..], [Command::Reoffer { .. }]), "{:?}", rig.out);
        assert_eq!(rig.call.next_leg(), Some(LegId(caller.0.max(A.0) + 1)));
    }
}

#[test]
fn a_bypassed_newcomer_gets_an_answer_for_each_of_its_streams() {
    let mut rig = up(MediaPlan::Bypass);
    let new = rig.seeks_with(CALLER, false, VIDEO);
    assert!(matches!(rig.told(A)[..], [Command::Succeed { .. }]));
    rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
    let [Command::PrepareAnswer { sdp }] = &rig.told(new)[..] else { panic!("{:?}", rig.out) };
    assert!(String::from_utf8_lossy(sdp).ends_with("m=video 0 RTP/AVP 96\r\n"), "{sdp:?}");
}

#[test]
fn nobody_takes_a_place_in_a_call_that_is_not_up_or_to_a_service() {
    let mut rig = up_to_ringing(MediaPlan::Bypass);
    rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
    let new = rig.seeks(A);
    assert_eq!(rig.told_to_end(new), Some(491), "in a moment it can be");
    let mut rig = up(MediaPlan::Bypass);
    rig.feed(Input::HangUp);
    let new = rig.seeks(A);
    assert_eq!(rig.told_to_end(new), Some(603));
    let service = MediaPlan::Service { caller: LocalMedia::from(("127.0.0.1".parse().unwrap(), 20_000)) };
    let mut rig = Rig::new(Destination::Service, service);
    rig.leg(CALLER, LegEvent::AnswerReady);
    rig.feed(Input::Committed(true));
    let new = rig.seeks(CALLER);
    assert_eq!(rig.told_to_end(new), Some(488));
    assert!(rig.call.is_up());
}
