//! Offers and answers between the two sides of a call.

use super::*;
use crate::sdp::SessionDescription;

const EARLY: &str =
    "v=0\r\no=- 3 3 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 5000 RTP/AVP 8 0\r\n";

/// The same description in another one's name.
fn named(text: &'static str, origin: &str) -> Bytes {
    let rest = text.split_once("s=-").unwrap().1;
    Bytes::from(format!("v=0\r\no={origin}\r\ns=-{rest}"))
}

fn anchored() -> MediaPlan {
    let local = |port| LocalMedia::from(("127.0.0.1".parse().unwrap(), port));
    MediaPlan::Anchored { caller: local(20_000), callee: local(20_002), other: None }
}

/// A call to one contact of a station.
fn call(offer: &'static str, media: MediaPlan, change: impl FnOnce(Call) -> Call) -> Rig {
    let destination = Destination::Station {
        contacts: Fork::parallel(vec![target(5070)]),
        ring_timeout: Duration::from_secs(20),
    };
    begin(destination, offer, media, change)
}

fn trunk(offer: &'static str, proxies: u16, change: impl FnOnce(Call) -> Call) -> Rig {
    let destination = Destination::Trunk { hunt: hunt(proxies), ring_timeout: LONGEST_RING };
    begin(destination, offer, MediaPlan::Bypass, change)
}

fn begin(
    destination: Destination,
    offer: &'static str,
    media: MediaPlan,
    change: impl FnOnce(Call) -> Call,
) -> Rig {
    let sdp = Sdp::new(sdp(offer), &media, 7).unwrap();
    let mut rig = Rig { call: change(Call::new(destination, media, sdp)), now: 0, out: Vec::new() };
    rig.feed(Input::Begin);
    rig
}

impl Rig {
    /// The offer of the INVITE that the last input sent, and whether it may be answered reliably.
    fn offered(&self) -> (String, bool) {
        let invite = self.out.iter().find_map(|output| match output {
            Output::Invite { sdp, reliable, .. } => {
                Some((String::from_utf8_lossy(sdp).into_owned(), *reliable))
            }
            _ => None,
        });
        invite.unwrap()
    }

    fn goes_up(&mut self) {
        self.leg(CALLER, LegEvent::AnswerReady);
        self.feed(Input::Committed(true));
        assert!(self.call.is_up());
    }

    /// The description in the command that the last input gave this leg.
    fn told_sdp(&self, leg: LegId) -> String {
        let text = self.told(leg).into_iter().find_map(|command| match command {
            Command::PrepareAnswer { sdp }
            | Command::Acknowledge { sdp }
            | Command::AnswerReoffer { sdp }
            | Command::Reoffer { sdp }
            | Command::Update { sdp }
            | Command::EarlySession { sdp, .. } => Some(String::from_utf8_lossy(&sdp).into_owned()),
            _ => None,
        });
        text.unwrap_or_else(|| panic!("{leg:?} was told {:?}", self.told(leg)))
    }
}

#[test]
fn without_an_offer_the_callee_is_asked_for_it_and_the_callers_ack_brings_him_the_answer() {
    let mut rig = call("", MediaPlan::Bypass, |call| call);
    assert_eq!(rig.offered(), (String::new(), false));
    rig.leg(A, LegEvent::AnsweredWithOffer { sdp: sdp(OFFER) });
    assert_eq!(rig.told_sdp(CALLER), OFFER);
    rig.goes_up();
    let restored = Rig { call: Call::restore(rig.call.clone()), now: 0, out: Vec::new() };
    for mut rig in [rig, restored] {
        rig.leg(A, LegEvent::Reoffer { sdp: sdp(OFFER) });
        assert_eq!(rig.told(A), [Command::RefuseReoffer { status: 491 }], "one exchange at a time");
        rig.leg(CALLER, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
        assert_eq!(rig.told(A), [Command::Acknowledge { sdp: sdp(ANSWER) }]);
        rig.leg(A, LegEvent::Reoffer { sdp: sdp(OFFER) });
        assert_eq!(rig.told(CALLER), [Command::Reoffer { sdp: sdp(OFFER) }]);
    }
}

#[test]
fn without_an_offer_anchored_media_has_ours_and_the_caller_is_offered_what_the_callee_chose() {
    let mut rig = call("", anchored(), |call| call);
    let (offer, reliable) = rig.offered();
    assert!(offer.contains("m=audio 20002 RTP/AVP 0 8 9 18 101") && reliable, "{offer}");
    rig.leg(A, LegEvent::Answered { sdp: sdp(EARLY) });
    assert!(rig.told_sdp(CALLER).contains("m=audio 20000 RTP/AVP 8\r\n"));
    rig.goes_up();
    rig.leg(CALLER, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
    assert!(rig.has(|o| matches!(o, Output::Media { side: Side::Caller, view: Some(_), .. })));
    assert!(rig.told(A).is_empty(), "the callee has his answer");
    let mut rig = call("", anchored(), |call| call);
    rig.leg(A, LegEvent::Answered { sdp: sdp(EARLY) });
    rig.goes_up();
    let refused: &str =
        "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 0 RTP/AVP 8\r\n";
    rig.leg(CALLER, LegEvent::ReofferAnswered { sdp: sdp(refused) });
    assert_eq!((rig.told_to_end(CALLER), rig.told_to_end(A)), (Some(488), Some(488)));
}

#[test]
fn a_callee_may_offer_early_only_if_the_caller_can_answer_early() {
    assert!(!call("", MediaPlan::Bypass, |call| call).offered().1);
    assert!(
        !begin(two_contacts(), "", MediaPlan::Bypass, |call| call.caller_takes_reliable(true)).offered().1
    );
    assert!(call(OFFER, MediaPlan::Bypass, |call| call).offered().1);
    let mut rig = call("", MediaPlan::Bypass, |call| call.caller_takes_reliable(true));
    assert!(rig.offered().1);
    rig.leg(A, LegEvent::EarlySession { status: 183, sdp: sdp(EARLY) });
    assert_eq!(rig.told(CALLER), [Command::EarlySession { status: 183, sdp: sdp(EARLY) }]);
    rig.leg(CALLER, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
    assert_eq!(rig.told(A), [Command::Acknowledge { sdp: sdp(ANSWER) }]);
    rig.leg(A, LegEvent::Answered { sdp: sdp(EARLY) });
    assert_eq!(rig.told_sdp(CALLER), EARLY, "what the caller knows");
    rig.goes_up();
    rig.leg(CALLER, LegEvent::Reoffer { sdp: sdp(OFFER) });
    let offer = named(OFFER, "- 2 3 IN IP4 10.0.0.2");
    assert_eq!(rig.told(A), [Command::Reoffer { sdp: offer }], "nothing is open any more");
}

fn two_contacts() -> Destination {
    Destination::Station {
        contacts: Fork::parallel(vec![target(5070), target(5071)]),
        ring_timeout: Duration::from_secs(20),
    }
}

#[test]
fn what_one_of_several_callees_describes_is_not_shown_to_the_caller_before_the_answer() {
    let mut rig = begin(two_contacts(), OFFER, MediaPlan::Bypass, |call| call);
    rig.leg(A, LegEvent::EarlySession { status: 183, sdp: sdp(EARLY) });
    assert_eq!(rig.told(CALLER), [Command::Progress { status: 183, sdp: None }]);
    rig.leg(B, LegEvent::Progress { status: 183, sdp: Some(sdp(ANSWER)) });
    assert_eq!(rig.told(CALLER), [Command::Progress { status: 183, sdp: None }]);
    rig.leg(A, LegEvent::Answered { sdp: sdp(EARLY) });
    assert_eq!(rig.told_sdp(CALLER), named(EARLY, "- 3 5 IN IP4 10.0.0.2"));
}

#[test]
fn a_proxy_whose_offer_was_answered_cannot_be_replaced_by_another() {
    for (offer, next) in [("", None), (OFFER, Some((B, addr(5071))))] {
        let mut rig = trunk(offer, 2, |call| call.caller_takes_reliable(true));
        rig.leg(A, LegEvent::EarlySession { status: 183, sdp: sdp(EARLY) });
        rig.leg(CALLER, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
        rig.failed(A, 503, None);
        assert_eq!(rig.invited(), next);
        assert_eq!(rig.told_to_end(CALLER).is_some(), next.is_none());
    }
}

#[test]
fn delayed_media_lets_the_callee_offer_and_gives_each_side_its_answer() {
    for media in [MediaPlan::Bypass, anchored()] {
        let ours = media != MediaPlan::Bypass;
        let mut rig = call(OFFER, media, |call| call.media_delayed(true));
        assert_eq!(rig.offered(), (String::new(), true));
        rig.leg(A, LegEvent::AnsweredWithOffer { sdp: sdp(EARLY) });
        let (callee, caller) = (rig.told_sdp(A), rig.told_sdp(CALLER));
        assert!(callee.contains(if ours {
            "m=audio 20002 RTP/AVP 8\r\n"
        } else {
            "m=audio 4000 RTP/AVP 8\r\n"
        }));
        assert!(caller.contains(if ours {
            "m=audio 20000 RTP/AVP 8\r\n"
        } else {
            "m=audio 5000 RTP/AVP 8\r\n"
        }));
        assert_eq!(rig.has(|o| matches!(o, Output::Media { side: Side::Callee, view: Some(_), .. })), ours);
        rig.goes_up();
    }
}

#[test]
fn delayed_media_agreed_early_is_not_changed_by_the_answer() {
    let mut rig = call(OFFER, anchored(), |call| call.media_delayed(true));
    rig.leg(A, LegEvent::EarlySession { status: 183, sdp: sdp(EARLY) });
    let early = rig.told_sdp(CALLER);
    assert!(rig.told_sdp(A).contains("m=audio 20002 RTP/AVP 8\r\n"));
    rig.leg(A, LegEvent::Answered { sdp: sdp(EARLY) });
    assert_eq!(rig.told_sdp(CALLER), early);
}

#[test]
fn delayed_media_without_a_common_codec_ends_the_call_with_488() {
    let mut rig = call(ANSWER, anchored(), |call| call.media_delayed(true));
    let g729: &str =
        "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 18\r\n";
    rig.leg(A, LegEvent::AnsweredWithOffer { sdp: sdp(g729) });
    assert_eq!((rig.told_to_end(CALLER), rig.told_to_end(A)), (Some(488), Some(488)));
}

#[test]
fn an_offer_that_is_wanted_is_fetched_from_the_other_side_and_answered_in_the_ack() {
    for (asker, asked) in [(CALLER, A), (A, CALLER)] {
        let mut rig = Rig::up();
        rig.leg(asker, LegEvent::OfferWanted);
        assert_eq!(rig.told(asked), [Command::Solicit]);
        rig.leg(asked, LegEvent::Offered { sdp: sdp(OFFER) });
        // Whoever made it, to each side it is the session that it knows.
        let (offer, answer) = match asker == CALLER {
            true => (named(OFFER, "- 2 3 IN IP4 10.0.0.2"), named(ANSWER, "- 1 2 IN IP4 10.0.0.1")),
            false => (sdp(OFFER), sdp(ANSWER)),
        };
        assert_eq!(rig.told(asker), [Command::AnswerReoffer { sdp: offer }]);
        rig.leg(asker, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
        assert_eq!(rig.told(asked), [Command::Acknowledge { sdp: answer }]);
        assert!(rig.has(|o| matches!(o, Output::Refresh)));
        rig.leg(asker, LegEvent::OfferWanted);
        rig.leg(asked, LegEvent::ReofferRefused { status: 488 });
        assert_eq!(rig.told(asker), [Command::RefuseReoffer { status: 488 }]);
    }
}

/// A call whose two sides have an early session.
fn early() -> Rig {
    let mut rig = call(OFFER, MediaPlan::Bypass, |call| call.caller_takes_reliable(true));
    rig.leg(A, LegEvent::EarlySession { status: 183, sdp: sdp(EARLY) });
    rig
}

#[test]
fn an_early_session_is_changed_from_either_side() {
    for (from, to) in [(CALLER, A), (A, CALLER)] {
        let mut rig = early();
        rig.leg(from, LegEvent::Update { sdp: sdp(OFFER) });
        let (offer, answer) = match from == CALLER {
            true => (sdp(OFFER), named(ANSWER, "- 3 4 IN IP4 10.0.0.2")),
            false => (named(OFFER, "- 3 4 IN IP4 10.0.0.2"), named(ANSWER, "- 1 2 IN IP4 10.0.0.1")),
        };
        assert_eq!(rig.told(to), [Command::Update { sdp: offer }]);
        rig.leg(to, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
        assert_eq!(rig.told(from), [Command::AnswerReoffer { sdp: answer }]);
        rig.leg(from, LegEvent::Update { sdp: sdp(OFFER) });
        rig.leg(to, LegEvent::ReofferRefused { status: 504 });
        assert_eq!(rig.told(from), [Command::RefuseReoffer { status: 504 }]);
    }
}

#[test]
fn an_update_without_an_early_session_is_504_and_one_beside_another_491() {
    let mut rig = call(OFFER, MediaPlan::Bypass, |call| call);
    rig.leg(A, LegEvent::Update { sdp: sdp(OFFER) });
    assert_eq!(rig.told(A), [Command::RefuseReoffer { status: 504 }]);
    let mut rig = early();
    rig.leg(A, LegEvent::Update { sdp: sdp(OFFER) });
    rig.leg(CALLER, LegEvent::Update { sdp: sdp(OFFER) });
    assert_eq!(rig.told(CALLER), [Command::RefuseReoffer { status: 491 }]);
}

#[test]
fn an_offer_in_a_prack_that_the_callee_cannot_take_gets_the_session_as_it_is() {
    for media in [MediaPlan::Bypass, anchored()] {
        let ours = media != MediaPlan::Bypass;
        let mut rig = call(OFFER, media, |call| call.caller_takes_reliable(true));
        rig.leg(A, LegEvent::EarlySession { status: 183, sdp: sdp(EARLY) });
        rig.leg(CALLER, LegEvent::Prack { sdp: sdp(OFFER) });
        rig.leg(A, LegEvent::ReofferRefused { status: 504 });
        let line = if ours { "m=audio 20000 RTP/AVP 8 0" } else { "m=audio 5000 RTP/AVP 8 0" };
        assert!(rig.told_sdp(CALLER).contains(line), "{:?}", rig.told(CALLER));
    }
}

#[test]
fn an_update_that_waits_for_a_callee_which_fails_is_refused_and_the_next_has_a_clean_slate() {
    let mut rig = trunk(OFFER, 2, |call| call.caller_takes_reliable(true));
    rig.leg(A, LegEvent::EarlySession { status: 183, sdp: sdp(EARLY) });
    rig.leg(CALLER, LegEvent::Update { sdp: sdp(OFFER) });
    rig.failed(A, 503, None);
    assert_eq!(rig.told(CALLER), [Command::RefuseReoffer { status: 504 }]);
    rig.leg(B, LegEvent::Answered { sdp: sdp(ANSWER) });
    rig.goes_up();
    rig.leg(CALLER, LegEvent::Reoffer { sdp: sdp(OFFER) });
    assert_eq!(rig.told(B), [Command::Reoffer { sdp: sdp(OFFER) }]);
}

#[test]
fn a_stream_that_was_put_away_is_no_silence() {
    let mut rig = call(OFFER, anchored(), |call| call);
    rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
    rig.goes_up();
    let gone: &str =
        "v=0\r\no=- 1 2 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n";
    rig.leg(CALLER, LegEvent::Reoffer { sdp: sdp(gone) });
    assert!(rig.told_sdp(A).contains("m=audio 0 RTP/AVP 0"));
    rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp(gone) });
    for side in [Side::Caller, Side::Callee] {
        let is_off =
            |o: &Output| matches!(o, Output::Media { side: s, view: None, held: true } if *s == side);
        assert!(rig.out.iter().any(is_off), "{side:?}");
    }
}

#[test]
fn the_media_session_follows_a_peer_that_moves_when_its_session_is_refreshed() {
    const MOVED: &str =
        "v=0\r\no=- 9 9 IN IP4 10.0.0.9\r\ns=-\r\nc=IN IP4 10.0.0.9\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\n";
    let moves = |rig: &mut Rig, leg: LegId| {
        rig.leg(leg, LegEvent::Refreshed { sdp: sdp(MOVED) });
        rig.out.iter().find_map(|output| match output {
            Output::Media { side, view: Some(view), .. } => Some((*side, view.rtp)),
            _ => None,
        })
    };
    let there = "10.0.0.9:6000".parse().unwrap();
    let mut rig = call(OFFER, anchored(), |call| call);
    rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
    assert_eq!(moves(&mut rig, CALLER), None, "before the answer there is no session to refresh");
    rig.goes_up();
    assert_eq!(moves(&mut rig, A), Some((Side::Callee, there)));
    assert_eq!(moves(&mut rig, CALLER), Some((Side::Caller, there)));
    assert!(rig.has(|output| matches!(output, Output::Refresh)));
    rig.leg(A, LegEvent::Refreshed { sdp: sdp("nonsense") });
    assert!(rig.out.is_empty() && rig.call.is_up());
    assert_eq!(moves(&mut Rig::up(), A), None, "bypassed media is none of ours");
}

#[test]
fn an_answered_call_keeps_nothing_of_the_first_offer() {
    const MARKED: &str = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n\
        m=audio 4000 RTP/AVP 0\r\na=xyzzy\r\n";
    let keeps = |call: &Call| {
        let stored = serde_json::to_string(call).unwrap();
        // As text, and as the numbers that bytes are written as.
        stored.contains("xyzzy") || stored.contains("120,121,122,122,121")
    };
    let service = MediaPlan::Service { caller: LocalMedia::from(("127.0.0.1".parse().unwrap(), 20_000)) };
    for plan in [MediaPlan::Bypass, anchored()] {
        let mut rig = call(MARKED, plan, |call| call);
        assert!(keeps(&rig.call));
        rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
        assert!(!keeps(&rig.call), "{:?}", rig.call.media);
        rig.goes_up();
    }
    let mut rig = begin(Destination::Service, MARKED, service, |call| call);
    rig.goes_up();
    assert!(!keeps(&rig.call));
    rig.leg(CALLER, LegEvent::Reoffer { sdp: sdp(MARKED) });
    assert!(rig.told_sdp(CALLER).contains("m=audio 20000 RTP/AVP 0"), "a service still answers");
    assert!(!keeps(&rig.call));
}

#[test]
fn a_session_that_could_not_be_agreed_is_the_cause_of_the_end() {
    let mut rig = Rig::up();
    rig.ended(CALLER, EndedBy::NoSession);
    assert!(rig.told_to_end(A).is_some());
    rig.ended(A, EndedBy::Us);
    assert_eq!(rig.over().map(|e| (e.cause, e.by)), Some((Cause::Media, Side::Engine)));
}

const CHANGED: &str = "v=0\r\no=- 1 2 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\na=sendonly\r\n";

#[test]
fn an_offer_that_is_taken_back_is_taken_back_on_the_other_side_and_nothing_has_changed() {
    for (plan, wish) in [
        (MediaPlan::Bypass, LegEvent::Reoffer { sdp: sdp(CHANGED) }),
        (anchored(), LegEvent::Reoffer { sdp: sdp(CHANGED) }),
        (anchored(), LegEvent::OfferWanted),
    ] {
        let mut rig = call(OFFER, plan, |call| call);
        rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
        rig.goes_up();
        rig.leg(CALLER, wish);
        let reason = Some("SIP;cause=200".to_owned());
        rig.leg(CALLER, LegEvent::ReofferCancelled { reason: reason.clone() });
        assert_eq!(rig.told(A), [Command::CancelReoffer { reason }]);
        assert_eq!(rig.out.len(), 1, "{:?}", rig.out);
        // What crosses it changes nothing either.
        for late in [
            LegEvent::ReofferAnswered { sdp: sdp(ANSWER) },
            LegEvent::Offered { sdp: sdp(ANSWER) },
            LegEvent::ReofferRefused { status: 487 },
            LegEvent::ReofferCancelled { reason: None },
        ] {
            assert!(rig.leg(A, late).is_empty(), "{:?}", rig.out);
        }
        rig.leg(A, LegEvent::Reoffer { sdp: sdp(CHANGED) });
        assert!(
            matches!(rig.told(CALLER)[..], [Command::Reoffer { .. }]),
            "the next exchange is free to begin"
        );
    }
}

#[test]
fn an_answer_that_comes_too_late_for_one_side_is_undone_on_the_other() {
    for plan in [MediaPlan::Bypass, anchored()] {
        let anchored = plan != MediaPlan::Bypass;
        let mut rig = call(OFFER, plan, |call| call);
        rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
        rig.goes_up();
        rig.leg(CALLER, LegEvent::Reoffer { sdp: sdp(CHANGED) });
        rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
        assert!(matches!(rig.told(CALLER)[..], [Command::AnswerReoffer { .. }]));
        rig.leg(CALLER, LegEvent::AnsweredTooLate { heard: sdp(OFFER) });
        assert_eq!(rig.told(A), [Command::CancelReoffer { reason: None }]);
        let media = rig.out.iter().find_map(|output| match output {
            Output::Media { side: Side::Caller, held, .. } => Some(*held),
            _ => None,
        });
        assert_eq!(media, anchored.then_some(false), "the caller does not hold");
        // Asked for an offer, the other side waits for its ACK.
        rig.leg(CALLER, LegEvent::OfferWanted);
        rig.leg(A, LegEvent::Offered { sdp: sdp(ANSWER) });
        rig.leg(CALLER, LegEvent::AnsweredTooLate { heard: sdp(OFFER) });
        assert_eq!(rig.told(A), [Command::CancelReoffer { reason: None }]);
        rig.leg(A, LegEvent::Reoffer { sdp: sdp(ANSWER) });
        assert!(matches!(rig.told(CALLER)[..], [Command::Reoffer { .. }]));
    }
}

#[test]
fn a_peer_that_accepted_what_was_taken_back_is_offered_what_it_had() {
    for plan in [MediaPlan::Bypass, anchored()] {
        let mut rig = call(OFFER, plan, |call| call);
        let told = match &rig.out[..] {
            [.., Output::Invite { sdp, .. }] => sdp.clone(),
            other => panic!("{other:?}"),
        };
        rig.leg(A, LegEvent::Answered { sdp: sdp(ANSWER) });
        rig.goes_up();
        rig.leg(CALLER, LegEvent::Reoffer { sdp: sdp(CHANGED) });
        let Some(Command::Reoffer { sdp: offered }) = rig.told(A).pop() else { panic!("{:?}", rig.out) };
        rig.leg(CALLER, LegEvent::ReofferCancelled { reason: None });
        rig.leg(A, LegEvent::Unwanted { told: told.clone(), offered: offered.clone() });
        let Some(Command::Reoffer { sdp: again }) = rig.told(A).pop() else { panic!("{:?}", rig.out) };
        let [told, offered, again] =
            [told, offered, again].map(|sdp| SessionDescription::parse(&sdp).unwrap());
        assert_eq!((&again.media, again.origin.version), (&told.media, offered.origin.version + 1));
        rig.leg(A, LegEvent::ReofferAnswered { sdp: sdp(ANSWER) });
        assert!(rig.told(CALLER).is_empty() && rig.call.is_up());
        // A newer offer, that is on its way, does it too.
        rig.leg(CALLER, LegEvent::Reoffer { sdp: sdp(CHANGED) });
        assert!(rig.leg(A, LegEvent::Unwanted { told: sdp(OFFER), offered: sdp(CHANGED) }).is_empty());
    }
}
