//! Offers that cross (RFC 6337 §3, RFC 3311 §5.2, RFC 3261 §14).

use super::*;

/// How far a dialog's offers and answers have come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// His INVITE with an offer rings; nothing was answered.
    Ringing,
    /// ... and was answered in a reliable response.
    RingingAgreed,
    /// His INVITE without an offer rings.
    RingingAsked,
    /// Our INVITE with an offer rings.
    Calling,
    /// ... and was answered in a reliable response.
    CallingAgreed,
    /// A call, nothing open.
    Idle,
    /// Our re-INVITE with an offer is open.
    OurInvite,
    /// Our re-INVITE without one.
    OurWish,
    /// Our UPDATE.
    OurUpdate,
    /// His re-INVITE with an offer.
    TheirInvite,
    /// His re-INVITE without one.
    TheirWish,
    /// His UPDATE.
    TheirUpdate,
    /// Our 2xx with an offer has no ACK yet.
    OurOfferIn2xx,
    /// His 2xx with an offer has no ACK of ours yet.
    TheirOfferIn2xx,
}

use State::*;

const UPDATES: &str = "Allow: INVITE, UPDATE\r\nContact: <sip:peer@10.0.0.3:5062>\r\n";
const RELIABLE: &str = "Require: 100rel\r\nRSeq: 1\r\nContact: <sip:peer@10.0.0.3:5062>\r\nAllow: UPDATE\r\n";

fn body() -> Bytes {
    Bytes::from_static(SDP)
}

/// A dialog in that state, and the CSeq of the peer's next request.
fn rig(state: State) -> (Rig, u32) {
    let mut next = 1;
    let mut rig = match state {
        Ringing | RingingAgreed => Rig::incoming("Supported: 100rel\r\nAllow: UPDATE\r\n"),
        RingingAsked | OurOfferIn2xx => Rig::asked(UPDATES),
        Calling | CallingAgreed => Rig::calling(),
        Idle | OurInvite | OurWish | OurUpdate | TheirInvite | TheirWish | TheirUpdate | TheirOfferIn2xx => {
            Rig::answered(UPDATES)
        }
    };
    match state {
        Ringing | RingingAsked | Idle => {}
        RingingAgreed => {
            rig.command(Command::EarlySession { status: 183, sdp: body() });
            rig.prack(2);
            next = 2;
        }
        Calling => rig.respond(183, "INVITE", 1, "Allow: UPDATE\r\n", "v=0\r\n"),
        CallingAgreed => {
            rig.respond(183, "INVITE", 1, RELIABLE, "v=0\r\n");
            rig.respond(200, "PRACK", 2, "", "");
        }
        OurInvite => rig.command(Command::Reoffer { sdp: body() }),
        OurWish => rig.command(Command::Solicit),
        OurUpdate => rig.command(Command::Update { sdp: body() }),
        TheirInvite => rig.request("INVITE", 20, "", "v=0\r\n"),
        TheirWish => rig.request("INVITE", 20, "", ""),
        TheirUpdate => rig.request("UPDATE", 20, "", "v=0\r\n"),
        OurOfferIn2xx => {
            rig.command(Command::PrepareAnswer { sdp: body() });
            rig.command(Command::SendAnswer);
        }
        TheirOfferIn2xx => {
            rig.command(Command::Solicit);
            rig.respond(200, "INVITE", 2, "", "v=0\r\n");
        }
    }
    next += 30;
    (rig, next)
}

/// What a request of the peer's comes to: its status, or 0 if the call is asked.
fn outcome(state: State, method: &str, body: &str) -> u16 {
    let (mut rig, next) = rig(state);
    rig.request(method, next, "", body);
    match (&rig.statuses()[..], &rig.events()[..]) {
        ([status], []) => *status,
        ([], [_]) => 0,
        other => panic!("{state:?} {method}: {other:?}"),
    }
}

#[test]
fn the_peers_offers_find_their_status_in_every_state() {
    // State, UPDATE with an offer, re-INVITE with one, re-INVITE without.
    let table = [
        (Ringing, 500, 500, 500),
        (RingingAgreed, 0, 500, 500),
        (RingingAsked, 491, 500, 500),
        (Calling, 491, 500, 500),
        (CallingAgreed, 0, 500, 500),
        (Idle, 0, 0, 0),
        (OurInvite, 491, 491, 491),
        (OurWish, 491, 491, 491),
        (OurUpdate, 491, 491, 491),
        (TheirInvite, 500, 500, 500),
        (TheirWish, 500, 500, 500),
        (TheirUpdate, 500, 500, 500),
        (OurOfferIn2xx, 491, 491, 491),
        (TheirOfferIn2xx, 500, 500, 500),
    ];
    for (state, update, invite, wish) in table {
        let found =
            [("UPDATE", "v=0\r\n"), ("INVITE", "v=0\r\n"), ("INVITE", "")].map(|(m, b)| outcome(state, m, b));
        assert_eq!(found, [update, invite, wish], "{state:?}");
        assert_eq!(outcome(state, "UPDATE", ""), 200, "{state:?}: it offers nothing");
    }
}

#[test]
fn an_offer_of_ours_is_sent_or_refused_in_every_state() {
    // State, and what becomes of a re-INVITE, an UPDATE and a wish: the method sent, or the refusal.
    let table = [
        (Ringing, [Err(504), Err(504), Err(504)]),
        (RingingAgreed, [Err(504), Ok(Method::Update), Err(504)]),
        (RingingAsked, [Err(504), Err(504), Err(504)]),
        (Calling, [Err(504), Err(504), Err(504)]),
        (CallingAgreed, [Err(504), Ok(Method::Update), Err(504)]),
        (Idle, [Ok(Method::Invite), Ok(Method::Update), Ok(Method::Invite)]),
        (OurInvite, [Err(491); 3]),
        (OurWish, [Err(491); 3]),
        (OurUpdate, [Err(491); 3]),
        (TheirInvite, [Err(491); 3]),
        (TheirWish, [Err(491); 3]),
        (TheirUpdate, [Err(491); 3]),
        (OurOfferIn2xx, [Err(491); 3]),
        (TheirOfferIn2xx, [Err(491); 3]),
    ];
    for (state, expected) in table {
        let commands = [Command::Reoffer { sdp: body() }, Command::Update { sdp: body() }, Command::Solicit];
        let found = commands.map(|command| {
            let (mut rig, _) = rig(state);
            rig.command(command);
            let sent = rig.out.iter().find_map(|output| match output {
                Output::Request { method, .. } => Some(*method),
                _ => None,
            });
            match (sent, &rig.events()[..]) {
                (Some(method), []) => Ok(method),
                (None, [LegEvent::ReofferRefused { status }]) => Err(*status),
                other => panic!("{state:?}: {other:?}"),
            }
        });
        assert_eq!(found, expected, "{state:?}");
    }
}

#[test]
fn the_offer_in_a_2xx_is_answered_in_the_ack_and_in_every_ack_that_follows() {
    let (mut rig, _) = rig(TheirOfferIn2xx);
    assert_eq!(rig.events(), [LegEvent::Offered { sdp: body() }]);
    rig.respond(200, "INVITE", 2, "", "v=0\r\n");
    assert!(rig.out.is_empty(), "there is no answer yet");
    rig.command(Command::Acknowledge { sdp: Bytes::from_static(b"v=1\r\n") });
    for _ in 0..2 {
        assert_eq!(rig.sent(Method::Ack).unwrap().0.body(), b"v=1\r\n");
        rig.respond(200, "INVITE", 2, "", "v=0\r\n");
    }
}

#[test]
fn a_callee_that_offers_is_acknowledged_when_the_call_knows_the_answer() {
    let mut rig = Rig::asking();
    assert_eq!(rig.sent(Method::Invite).unwrap().0.body(), b"");
    rig.respond(200, "INVITE", 1, UPDATES, "v=0\r\n");
    assert_eq!(rig.events(), [LegEvent::AnsweredWithOffer { sdp: body() }]);
    assert!(rig.sent(Method::Ack).is_none());
    let restored =
        Rig { dialog: Dialog::restore(rig.dialog.clone(), at(0)), now: 0, out: vec![], transactions: 0 };
    for mut rig in [rig, restored] {
        rig.command(Command::Acknowledge { sdp: body() });
        let (ack, _) = rig.sent(Method::Ack).unwrap();
        assert_eq!((ack.cseq(), ack.body()), (1, SDP));
    }
}

#[test]
fn a_callee_whose_offer_nobody_answers_is_acknowledged_with_every_stream_refused_and_ended() {
    let offer =
        "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let mut rig = Rig::asking();
    rig.respond(200, "INVITE", 1, UPDATES, offer);
    rig.hang_up();
    let (ack, _) = rig.sent(Method::Ack).unwrap();
    assert!(String::from_utf8_lossy(ack.body()).contains("m=audio 0 RTP/AVP 0"));
    assert!(rig.sent(Method::Bye).is_some());
}

#[test]
fn an_offer_that_comes_too_late_is_refused_in_its_ack() {
    let offer =
        "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let refused = |rig: &Rig| {
        let (ack, _) = rig.sent(Method::Ack).unwrap();
        String::from_utf8_lossy(ack.body()).contains("m=audio 0 RTP/AVP 0")
    };
    // It crosses our CANCEL.
    let mut rig = Rig::asking();
    rig.respond(180, "INVITE", 1, "", "");
    rig.hang_up();
    rig.respond(200, "INVITE", 1, UPDATES, offer);
    assert!(refused(&rig) && rig.sent(Method::Bye).is_some());
    // Another branch has answered before.
    let mut rig = Rig::asking();
    rig.respond(200, "INVITE", 1, UPDATES, offer);
    rig.command(Command::Acknowledge { sdp: body() });
    let contact = "Contact: <sip:fork@10.0.0.9:5070>\r\n";
    for _ in 0..2 {
        rig.feed(Input::Response(response(200, "INVITE", 1, "other", contact, offer)));
        assert!(refused(&rig));
    }
}

#[test]
fn a_refused_offer_keeps_the_origin_that_the_peer_knows() {
    let told =
        "v=0\r\no=us 7 3 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4002 RTP/AVP 0\r\n";
    let offer =
        "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let mut rig = Rig::asking();
    rig.respond(200, "INVITE", 1, UPDATES, offer);
    rig.command(Command::Acknowledge { sdp: Bytes::from_static(told.as_bytes()) });
    rig.command(Command::Solicit);
    rig.respond(200, "INVITE", 2, UPDATES, &offer.replace("1 1 IN", "1 2 IN"));
    rig.hang_up();
    let (ack, _) = rig.sent(Method::Ack).unwrap();
    let body = String::from_utf8_lossy(ack.body()).into_owned();
    assert!(body.contains("o=us 7 4 IN IP4 10.0.0.1") && body.contains("m=audio 0 "), "{body}");
}

#[test]
fn an_ack_without_the_answer_it_must_bring_ends_the_dialog() {
    let (mut with, _) = rig(OurOfferIn2xx);
    with.feed(Input::Request {
        transaction: None,
        request: request("ACK", 1, "", "v=0\r\n"),
        source: flow(),
    });
    assert_eq!(with.events(), [LegEvent::ReofferAnswered { sdp: body() }]);
    let (mut without, _) = rig(OurOfferIn2xx);
    without.ack(1);
    assert_eq!(without.ended(), Some(EndedBy::NoSession));
    let (bye, _) = without.sent(Method::Bye).unwrap();
    assert_eq!(bye.header(Header::Reason), Some("SIP;cause=488;text=\"no answer in ACK\""));
}

#[test]
fn an_offer_that_ends_in_an_empty_line_is_an_offer() {
    let offer = Bytes::from_static(b"v=0\r\n\r\n");
    for restored in [false, true] {
        let mut rig = Rig::asked("");
        rig.command(Command::PrepareAnswer { sdp: offer.clone() });
        if restored {
            rig = Rig { dialog: Dialog::restore(rig.dialog, at(0)), ..rig };
        } else {
            rig.command(Command::SendAnswer);
        }
        let ack = request("ACK", 1, "", "v=0\r\n");
        rig.feed(Input::Request { transaction: None, request: ack, source: flow() });
        assert_eq!(rig.events(), [LegEvent::ReofferAnswered { sdp: body() }], "restored: {restored}");
    }
}

#[test]
fn the_back_off_of_a_491_is_the_longer_for_whoever_owns_the_call_id() {
    for random in [0, 1, 190, 191, 200, 201, 12_345, u64::MAX] {
        let (owner, other) = (glare_back_off(true, random), glare_back_off(false, random));
        assert!((2_100..=4_000).contains(&owner.as_millis()) && other.as_millis() <= 2_000);
        assert!(owner.as_millis() % 10 == 0 && other.as_millis() % 10 == 0);
    }
    assert_eq!(glare_back_off(true, 190).as_millis(), 4_000);
    assert_eq!(glare_back_off(false, 200).as_millis(), 2_000);
}

#[test]
fn an_offer_that_met_a_491_is_tried_once_more_after_its_back_off() {
    for (command, method) in [
        (Command::Reoffer { sdp: body() }, Method::Invite),
        (Command::Update { sdp: body() }, Method::Update),
        (Command::Solicit, Method::Invite),
    ] {
        let (mut rig, _) = rig(Idle);
        rig.command(command);
        rig.respond(491, method.as_str(), 2, "", "");
        assert!(rig.events().is_empty());
        let due = rig.dialog.deadline().unwrap();
        assert!((2_100_000..=4_000_000).contains(&due.0), "we own the Call-ID: {due:?}");
        rig.timeout(due.0 / 1000);
        assert_eq!(rig.sent(method).unwrap().0.cseq(), 3);
        rig.respond(491, method.as_str(), 3, "", "");
        assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 491 }]);
        assert!(
            rig.dialog.deadline().is_none_or(|at| at >= Instant(900_000_000)),
            "only the peer is to be asked"
        );
    }
}

#[test]
fn an_offer_that_waits_gives_way_to_the_peers() {
    for (method, event) in
        [("INVITE", LegEvent::Reoffer { sdp: body() }), ("UPDATE", LegEvent::Update { sdp: body() })]
    {
        let (mut rig, next) = rig(OurInvite);
        rig.respond(491, "INVITE", 2, "", "");
        rig.request(method, next, "", "v=0\r\n");
        assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 491 }, event]);
        rig.command(Command::AnswerReoffer { sdp: body() });
        assert_eq!(rig.statuses(), [200]);
    }
}

#[test]
fn an_offer_waits_for_the_ack_of_our_200() {
    let mut rig = Rig::incoming("");
    rig.command(Command::PrepareAnswer { sdp: body() });
    rig.command(Command::SendAnswer);
    rig.command(Command::Reoffer { sdp: body() });
    assert!(rig.out.is_empty());
    rig.ack(1);
    assert!(rig.sent(Method::Invite).is_some());
}

#[test]
fn an_update_that_is_not_taken_after_all_becomes_a_re_invite() {
    for status in [405, 501] {
        let (mut rig, _) = rig(OurUpdate);
        rig.respond(status, "UPDATE", 2, "", "");
        assert_eq!(rig.sent(Method::Invite).unwrap().0.cseq(), 3);
        rig.respond(200, "INVITE", 3, "", "v=0\r\n");
        assert_eq!(rig.events(), [LegEvent::ReofferAnswered { sdp: body() }]);
    }
    let mut rig = Rig::answered("Allow: INVITE, ACK, BYE\r\n");
    rig.command(Command::Update { sdp: body() });
    assert!(rig.sent(Method::Invite).is_some(), "it said so");
}

#[test]
fn an_update_that_is_refused_leaves_the_session_and_one_that_is_lost_ends_it() {
    let (mut refused, _) = rig(OurUpdate);
    refused.respond(488, "UPDATE", 2, "", "");
    assert_eq!(refused.events(), [LegEvent::ReofferRefused { status: 488 }]);
    assert!(refused.dialog.is_established());
    let (mut lost, _) = rig(OurUpdate);
    lost.respond(481, "UPDATE", 2, "", "");
    assert_eq!(lost.ended(), Some(EndedBy::Lost));
    let (mut silent, _) = rig(OurUpdate);
    silent.feed(Input::Unanswered { method: Method::Update, cseq: 2, why: NoAnswer::Timeout });
    assert_eq!(silent.ended(), Some(EndedBy::Lost));
    assert!(silent.sent(Method::Bye).is_some());
}

#[test]
fn an_update_to_a_branch_that_loses_leaves_the_one_that_answers_alone() {
    for status in [Some(481), None] {
        let (mut rig, _) = rig(CallingAgreed);
        rig.command(Command::Update { sdp: body() });
        let cseq = rig.sent(Method::Update).unwrap().0.cseq();
        rig.feed(Input::Response(response(200, "INVITE", 1, "winner", UPDATES, "v=2\r\n")));
        let answered = LegEvent::Answered { sdp: Bytes::from_static(b"v=2\r\n") };
        assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 491 }, answered]);
        match status {
            Some(status) => rig.respond(status, "UPDATE", cseq, "", ""),
            None => rig.feed(Input::Unanswered { method: Method::Update, cseq, why: NoAnswer::Timeout }),
        }
        assert!(rig.out.is_empty() && rig.dialog.is_established(), "{status:?}");
    }
    let (mut kept, _) = rig(CallingAgreed);
    kept.command(Command::Update { sdp: body() });
    let cseq = kept.sent(Method::Update).unwrap().0.cseq();
    kept.respond(200, "INVITE", 1, UPDATES, "");
    assert_eq!(kept.events(), [LegEvent::Answered { sdp: body() }]);
    kept.respond(200, "UPDATE", cseq, "", "v=0\r\n");
    assert_eq!(kept.events(), [LegEvent::ReofferAnswered { sdp: body() }], "its own branch goes on");
}

#[test]
fn an_update_nobody_answers_in_time_is_504() {
    let (mut rig, _) = rig(TheirUpdate);
    assert_eq!(rig.dialog.deadline(), Some(Instant(16_000_000)));
    rig.timeout(16_000);
    assert_eq!(rig.statuses(), [504]);
    rig.command(Command::AnswerReoffer { sdp: body() });
    assert!(rig.statuses().is_empty());
}

#[test]
fn what_is_open_when_the_dialog_ends_is_answered_487() {
    for state in [TheirInvite, TheirWish, TheirUpdate] {
        let (mut rig, next) = rig(state);
        rig.request("BYE", next, "", "");
        assert_eq!(rig.statuses(), [487, 200], "{state:?}");
        let (mut rig, _) = super::offers::rig(state);
        rig.hang_up();
        assert_eq!(rig.statuses(), [487], "{state:?}");
    }
}

#[test]
fn a_request_that_requires_what_we_have_not_is_420() {
    let (mut rig, next) = rig(Idle);
    rig.request("UPDATE", next, "Require: 100rel, magic\r\n", "v=0\r\n");
    assert_eq!((rig.statuses(), rig.events()), (vec![420], vec![]));
}

#[test]
fn an_offer_that_we_asked_for_before_our_bye_is_refused_in_its_ack() {
    let mut rig = Rig::answered("");
    let offer =
        "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    rig.command(Command::Solicit);
    rig.command(Command::End { status: 0, reason: None });
    rig.respond(200, "INVITE", 2, "Content-Type: application/sdp\r\n", offer);
    let (ack, _) = rig.sent(Method::Ack).unwrap();
    assert!(String::from_utf8_lossy(ack.body()).contains("m=audio 0 "), "{ack:?}");
}

const OTHER: &str = "Content-Type: text/plain\r\n";

/// The message with a body of another type than its own.
fn retyped(message: &Message, kind: &str) -> Message {
    let text = String::from_utf8_lossy(message.raw()).replace("Content-Type: application/sdp\r\n", kind);
    parse(&text)
}

#[test]
fn only_a_session_description_is_an_offer_or_an_answer() {
    let zipped = "Content-Type: application/sdp\r\nContent-Encoding: gzip\r\n";
    for (kind, accept, header) in
        [(OTHER, crate::message::ACCEPT, Header::Accept), (zipped, "identity", Header::AcceptEncoding)]
    {
        for (state, method) in
            [(Idle, "INVITE"), (Idle, "UPDATE"), (Ringing, "PRACK"), (CallingAgreed, "UPDATE")]
        {
            let (mut rig, next) = rig(state);
            let request = retyped(&request(method, next, "", "v=0\r\n"), kind);
            let transaction = Some(ServerTransactionId(9));
            rig.feed(Input::Request { transaction, request, source: flow() });
            assert_eq!((rig.statuses(), rig.events()), (vec![415], vec![]), "{state:?} {method}");
            assert_eq!(rig.responded().header(header), Some(accept));
        }
        let mut rig = Rig::calling();
        let early = response(183, "INVITE", 1, THEIRS, RELIABLE, "v=0\r\n");
        rig.feed(Input::Response(retyped(&early, kind)));
        assert_eq!(rig.events(), [LegEvent::Progress { status: 183, sdp: None }]);
        assert!(rig.sent(Method::Prack).is_some());
        let answer = response(200, "INVITE", 1, THEIRS, UPDATES, "v=0\r\n");
        rig.feed(Input::Response(retyped(&answer, kind)));
        assert!(matches!(rig.events()[..], [LegEvent::Failed { status: 502, .. }]), "it is no answer");
    }
    let mut rig = Rig::calling();
    let kind = "c: Application/SDP ; charset=utf-8\r\nContent-Encoding: identity\r\n";
    rig.feed(Input::Response(retyped(&response(200, "INVITE", 1, THEIRS, UPDATES, "v=0\r\n"), kind)));
    assert_eq!(rig.events(), [LegEvent::Answered { sdp: body() }]);
}
