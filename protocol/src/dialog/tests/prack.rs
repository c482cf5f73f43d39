//! Reliable provisional responses (RFC 3262), ours and the peer's.

use super::*;

const CONTACT: &str = "Contact: <sip:peer@10.0.0.3:5062>\r\n";

fn body() -> Bytes {
    Bytes::from_static(SDP)
}

fn ringing() -> Command {
    Command::Progress { status: 180, sdp: None }
}

fn session() -> Command {
    Command::EarlySession { status: 183, sdp: body() }
}

impl Rig {
    /// The response that the last input sent.
    pub(super) fn responded(&self) -> Message {
        let message = self.out.iter().find_map(|output| match output {
            Output::Respond { message, .. } => Some(message.clone()),
            _ => None,
        });
        Message::parse(message.unwrap(), &Limits::default()).unwrap()
    }

    fn reliable(&mut self, tag: &str, rseq: u32, body: &str) {
        let extra = format!("Require: 100rel\r\nRSeq: {rseq}\r\n{CONTACT}");
        self.feed(Input::Response(response(183, "INVITE", 1, tag, &extra, body)));
    }

    fn racks(&self) -> Vec<String> {
        let rack = |output: &Output| match output {
            Output::Request { message, method: Method::Prack, .. } => {
                let prack = Message::parse(message.clone(), &Limits::default()).unwrap();
                prack.header(Header::RAck).map(str::to_owned)
            }
            _ => None,
        };
        self.out.iter().filter_map(rack).collect()
    }
}

#[test]
fn only_who_can_gets_reliable_responses_and_who_requires_them_gets_no_others() {
    for (extra, plain, with_session) in [
        ("", false, false),
        ("Supported: timer, 100rel\r\n", false, true),
        ("Require: 100rel\r\n", true, true),
    ] {
        let mut rig = Rig::incoming(extra);
        rig.command(ringing());
        assert_eq!(rig.responded().header(Header::RSeq).is_some(), plain, "{extra}");
        let mut rig = Rig::incoming(extra);
        rig.command(session());
        let progress = rig.responded();
        assert_eq!(progress.header(Header::RSeq).is_some(), with_session, "{extra}");
        assert_eq!(progress.has_token(Header::Require, "100rel"), with_session);
        assert_eq!(progress.body(), SDP);
    }
}

#[test]
fn a_reliable_response_is_repeated_at_t1_doubled_each_time_and_the_invite_refused_after_64_t1() {
    let mut rig = Rig::incoming("Supported: 100rel\r\n");
    rig.command(session());
    let first = rig.responded();
    let mut at = vec![];
    while let Some(due) = rig.dialog.deadline().filter(|due| due.0 < 32_000_000) {
        at.push(due.0 / 1000);
        rig.timeout(due.0 / 1000);
        assert_eq!(rig.responded(), first);
    }
    assert_eq!(at, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    rig.timeout(32_000);
    assert_eq!((rig.statuses(), rig.ended(), rig.finished()), (vec![504], Some(EndedBy::NoAck), true));
}

#[test]
fn a_prack_must_name_the_response_that_is_open() {
    let mut rig = Rig::incoming("Require: 100rel\r\n");
    rig.command(ringing());
    let rseq: u32 = rig.responded().header(Header::RSeq).unwrap().parse().unwrap();
    let cases = [
        (String::new(), 400),
        ("RAck: x 1 INVITE\r\n".to_owned(), 400),
        (format!("RAck: {rseq} 1 BYE\r\n"), 400),
        (format!("RAck: {rseq} 1 INVITE 2\r\n"), 400),
        (format!("RAck: {} 1 INVITE\r\n", rseq + 1), 481),
        (format!("RAck: {rseq} 2 INVITE\r\n"), 481),
        (format!("RAck: {rseq} 1 INVITE\r\n"), 200),
        (format!("RAck: {rseq} 1 INVITE\r\n"), 481),
    ];
    for (n, (rack, status)) in cases.into_iter().enumerate() {
        rig.request("PRACK", 2 + n as u32, &rack, "");
        assert_eq!(rig.statuses(), [status], "{rack}");
    }
    assert_eq!(rig.dialog.deadline(), None);
}

#[test]
fn a_second_reliable_response_waits_for_the_prack_of_the_first() {
    let mut rig = Rig::incoming("Require: 100rel\r\n");
    rig.command(ringing());
    let first: u32 = rig.responded().header(Header::RSeq).unwrap().parse().unwrap();
    rig.command(session());
    rig.command(ringing());
    assert!(rig.out.is_empty());
    rig.prack(2);
    assert_eq!(rig.statuses(), [200, 183]);
    rig.prack(3);
    assert_eq!(rig.statuses(), [200, 180]);
    rig.prack(4);
    assert_eq!(rig.statuses(), [200]);
    assert_eq!(rig.dialog.session.reliable.last(), first + 2);
}

#[test]
fn the_200_waits_for_the_prack_of_a_description_and_for_no_other() {
    let mut rig = Rig::incoming("Require: 100rel\r\n");
    rig.command(session());
    rig.command(Command::PrepareAnswer { sdp: body() });
    rig.command(Command::SendAnswer);
    assert!(rig.out.is_empty());
    assert_eq!(rig.dialog.deadline(), Some(Instant(500_000)), "the 183 is still repeated");
    rig.prack(2);
    assert_eq!(rig.statuses(), [200, 200]);
    rig.ack(1);
    assert!(rig.dialog.is_established());

    let mut rig = Rig::incoming("Require: 100rel\r\n");
    rig.command(ringing());
    rig.command(Command::PrepareAnswer { sdp: body() });
    rig.command(Command::SendAnswer);
    assert_eq!(rig.statuses(), [200]);
    rig.prack(2);
    assert_eq!(rig.statuses(), [200], "it is taken after the final response too");
}

#[test]
fn a_description_that_waits_for_the_prack_of_another_response_is_said_by_the_200() {
    let mut rig = Rig::incoming("Require: 100rel\r\nAllow: UPDATE\r\n");
    rig.command(ringing());
    rig.command(session());
    assert!(rig.dialog.their_offer_is_open(), "nothing has been answered");
    rig.command(Command::Update { sdp: body() });
    assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 504 }]);
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(b"v=2\r\n") });
    rig.command(Command::SendAnswer);
    assert_eq!((rig.responded().status(), rig.responded().body()), (200, &b"v=2\r\n"[..]));
    rig.prack(2);
    assert_eq!(rig.statuses(), [200], "nothing follows the 200 but the answer to the PRACK");
    rig.ack(1);
    assert!(rig.dialog.is_established() && rig.out.is_empty(), "nothing has been overtaken");
}

#[test]
fn a_cancel_while_the_200_is_held_for_a_prack_is_not_too_late() {
    let mut rig = Rig::incoming("Supported: 100rel\r\n");
    rig.command(session());
    rig.command(Command::PrepareAnswer { sdp: body() });
    rig.command(Command::SendAnswer);
    rig.feed(Input::Cancelled { transaction: ServerTransactionId(1), reason: None });
    assert_eq!((rig.statuses(), rig.finished()), (vec![487], true));
}

#[test]
fn an_answer_that_went_reliably_is_not_said_again_and_one_that_differs_is_offered_after_the_ack() {
    for (later, offered) in [(SDP, false), (&b"v=1\r\n"[..], true)] {
        let mut rig = Rig::incoming("Supported: 100rel\r\n");
        rig.command(session());
        rig.prack(2);
        rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(later) });
        rig.command(Command::SendAnswer);
        assert_eq!(rig.responded().body(), b"");
        rig.ack(1);
        let offer = rig.sent(Method::Invite).map(|(invite, _)| invite.body().to_vec());
        assert_eq!(offer, offered.then(|| later.to_vec()));
        if offered {
            let mut other = Rig { dialog: rig.dialog.clone(), now: 0, out: vec![], transactions: 9 };
            rig.respond(200, "INVITE", 1, "", "v=0\r\n");
            assert!(rig.sent(Method::Ack).is_some() && rig.events().is_empty(), "nobody has asked for it");
            other.respond(200, "INVITE", 1, "", "v=4\r\n");
            assert_eq!(other.events(), [LegEvent::Refreshed { sdp: Bytes::from_static(b"v=4\r\n") }]);
        }
    }
}

#[test]
fn what_differs_from_an_early_answer_is_not_offered_once_the_caller_has_heard_something_newer() {
    let mut rig = Rig::incoming("Supported: 100rel\r\n");
    rig.command(session());
    rig.prack(2);
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(b"v=1\r\n") });
    rig.command(Command::SendAnswer);
    // Its ACK is lost, and the caller's own offer is quicker than the next one.
    rig.request("INVITE", 3, "", "v=0\r\ns=hold\r\n");
    rig.command(Command::AnswerReoffer { sdp: Bytes::from_static(b"v=2\r\n") });
    assert_eq!(rig.responded().body(), b"v=2\r\n");
    rig.ack(3);
    assert!(rig.out.is_empty(), "an older description");
}

#[test]
fn an_invite_without_an_offer_gets_it_in_the_first_reliable_response_or_in_the_200() {
    let mut rig = Rig::asked("Require: 100rel\r\n");
    rig.command(ringing());
    assert!(rig.out.is_empty(), "a reliable response would have to bring the offer");
    rig.command(session());
    assert_eq!(rig.responded().body(), SDP);
    let rseq = rig.dialog.session.reliable.last();
    rig.request("PRACK", 2, &format!("RAck: {rseq} 1 INVITE\r\n"), "v=0\r\n");
    assert_eq!((rig.statuses(), rig.events()), (vec![200], vec![LegEvent::ReofferAnswered { sdp: body() }]));

    let mut rig = Rig::asked("");
    rig.command(Command::Progress { status: 183, sdp: Some(body()) });
    assert_eq!((rig.responded().status(), rig.responded().body()), (183, &b""[..]));
    rig.command(Command::PrepareAnswer { sdp: body() });
    rig.command(Command::SendAnswer);
    assert_eq!(rig.responded().body(), SDP);
}

#[test]
fn an_early_offer_that_no_longer_holds_is_followed_by_another_whose_answer_is_told() {
    let mut rig = Rig::asked("Require: 100rel\r\nAllow: UPDATE\r\n");
    rig.command(session());
    let rseq = rig.dialog.session.reliable.last();
    rig.request("PRACK", 2, &format!("RAck: {rseq} 1 INVITE\r\n"), "v=0\r\n");
    // Another callee has answered, with an offer of his own.
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(b"v=1\r\n") });
    rig.command(Command::SendAnswer);
    rig.ack(1);
    let (update, _) = rig.sent(Method::Update).unwrap();
    assert_eq!(update.body(), b"v=1\r\n");
    rig.respond(200, "UPDATE", update.cseq(), "", "v=0\r\n");
    assert_eq!(rig.events(), [LegEvent::ReofferAnswered { sdp: body() }], "though it is as before");
}

#[test]
fn a_prack_without_the_answer_it_must_bring_ends_the_invite() {
    let mut rig = Rig::asked("Supported: 100rel\r\n");
    rig.command(session());
    rig.prack(2);
    assert_eq!((rig.statuses(), rig.ended()), (vec![400, 488], Some(EndedBy::NoSession)));
}

#[test]
fn a_prack_may_bring_a_new_offer() {
    let mut rig = Rig::incoming("Supported: 100rel\r\n");
    rig.command(session());
    let rseq = rig.dialog.session.reliable.last();
    rig.request("PRACK", 2, &format!("RAck: {rseq} 1 INVITE\r\n"), "v=0\r\n");
    assert_eq!((rig.statuses(), rig.events()), (vec![], vec![LegEvent::Prack { sdp: body() }]));
    rig.command(Command::AnswerReoffer { sdp: body() });
    assert_eq!((rig.responded().status(), rig.responded().body()), (200, SDP));
}

#[test]
fn the_peers_reliable_responses_are_acknowledged_in_order_and_once() {
    let mut rig = Rig::calling();
    let expected: [(u32, &[&str]); 5] =
        [(5, &["5 1 INVITE"]), (5, &[]), (7, &[]), (6, &["6 1 INVITE"]), (7, &["7 1 INVITE"])];
    for (rseq, racks) in expected {
        rig.reliable(THEIRS, rseq, "");
        assert_eq!(
            (rig.racks(), rig.events().len()),
            (racks.iter().map(|r| (*r).to_owned()).collect(), racks.len())
        );
    }
}

#[test]
fn a_callee_is_acknowledged_so_often_and_no_more() {
    let mut rig = Rig::calling();
    for _ in 0..2 {
        rig.reliable(THEIRS, 0, "");
        assert!(rig.out.is_empty(), "0 is no RSeq");
    }
    let taken = |rig: &mut Rig, tag: &str| {
        (1..100)
            .filter(|rseq| {
                rig.reliable(tag, *rseq, "");
                !rig.out.is_empty()
            })
            .count()
    };
    assert_eq!(taken(&mut rig, THEIRS), 32);
    assert_eq!(taken(&mut rig, "another"), 32, "each early dialog has its own count");
    rig.respond(200, "INVITE", 1, CONTACT, "v=0\r\n");
    assert!(rig.dialog.is_established());
}

#[test]
fn a_response_that_only_rings_leaves_its_tag_and_a_reliable_one_the_way_back() {
    let mut rig = Rig::calling();
    let stored = |rig: &Rig| serde_json::to_string(&rig.dialog.session.early).unwrap();
    rig.respond(180, "INVITE", 1, &format!("Allow: UPDATE\r\n{CONTACT}"), "");
    assert!(stored(&rig).contains(THEIRS) && !stored(&rig).contains("10.0.0.3"));
    rig.request("UPDATE", 1, "", "v=0\r\n");
    assert_eq!(rig.statuses(), [491], "a 481 would end the dialog");
    rig.reliable(THEIRS, 1, "");
    assert_eq!(rig.sent(Method::Prack).unwrap().1.remote, ([10, 0, 0, 3], 5062).into());
    assert!(stored(&rig).contains("10.0.0.3"));
}

#[test]
fn every_fork_has_its_own_order_and_its_own_session() {
    let mut rig = Rig::calling();
    rig.reliable("one", 5, "v=0\r\n");
    assert_eq!(rig.events(), [LegEvent::EarlySession { status: 183, sdp: body() }]);
    rig.reliable("two", 90, "");
    assert_eq!((rig.racks(), rig.events().len()), (vec!["90 1 INVITE".to_owned()], 1));
    let (prack, to) = rig.sent(Method::Prack).unwrap();
    assert_eq!((prack.to_tag(), prack.request_uri()), (Some("two"), "sip:peer@10.0.0.3:5062"));
    assert_eq!(to.remote, ([10, 0, 0, 3], 5062).into());
    // The one without a session answers: its 200 brings the answer.
    rig.feed(Input::Response(response(200, "INVITE", 1, "two", CONTACT, "v=2\r\n")));
    assert_eq!(rig.events(), [LegEvent::Answered { sdp: Bytes::from_static(b"v=2\r\n") }]);
    rig.hang_up();
    assert!(rig.sent(Method::Bye).unwrap().0.cseq() > prack.cseq());
}

#[test]
fn what_follows_an_early_answer_is_no_news() {
    for later in ["", "v=9\r\n"] {
        let mut rig = Rig::calling();
        rig.reliable(THEIRS, 1, "v=0\r\n");
        rig.respond(200, "INVITE", 1, CONTACT, later);
        assert_eq!(rig.events(), [LegEvent::Answered { sdp: body() }]);
        assert_eq!(rig.sent(Method::Ack).unwrap().0.cseq(), 1);
    }
}

#[test]
fn an_early_offer_is_answered_in_its_prack() {
    let mut rig = Rig::asking();
    rig.reliable(THEIRS, 3, "v=0\r\n");
    assert_eq!((rig.racks().len(), rig.events().len()), (0, 1));
    rig.reliable(THEIRS, 3, "v=0\r\n");
    rig.reliable("second", 1, "v=0\r\n");
    assert!(rig.out.is_empty(), "repeated, or of a fork that cannot be answered too");
    rig.command(Command::Acknowledge { sdp: Bytes::from_static(b"v=1\r\n") });
    assert_eq!(rig.sent(Method::Prack).unwrap().0.body(), b"v=1\r\n");
    rig.respond(200, "INVITE", 1, CONTACT, "");
    assert_eq!(rig.events(), [LegEvent::Answered { sdp: body() }]);
}

#[test]
fn a_cancel_names_the_invite_whatever_was_sent_since() {
    let mut rig = Rig::calling();
    rig.reliable(THEIRS, 1, "");
    rig.hang_up();
    assert_eq!(rig.sent(Method::Cancel).unwrap().0.cseq(), 1);
    rig.respond(487, "INVITE", 1, "", "");
    assert!(rig.finished());
}

#[test]
fn an_update_reaches_the_early_dialog_that_has_a_session() {
    let mut rig = Rig::calling();
    let extra = format!("Require: 100rel\r\nRSeq: 1\r\nAllow: UPDATE\r\n{CONTACT}");
    rig.respond(183, "INVITE", 1, &extra, "v=0\r\n");
    rig.command(Command::Update { sdp: body() });
    assert!(rig.sent(Method::Update).is_none(), "it would overtake the PRACK");
    rig.respond(200, "PRACK", 2, "", "");
    let (update, _) = rig.sent(Method::Update).unwrap();
    assert_eq!((update.to_tag(), update.cseq()), (Some(THEIRS), 3));
    rig.respond(200, "UPDATE", 3, "", "v=5\r\n");
    assert_eq!(rig.events(), [LegEvent::ReofferAnswered { sdp: Bytes::from_static(b"v=5\r\n") }]);
    rig.respond(200, "INVITE", 1, CONTACT, "");
    assert_eq!(rig.events(), [LegEvent::Answered { sdp: Bytes::from_static(b"v=5\r\n") }]);
}

#[test]
fn an_update_of_the_callee_before_its_200_changes_the_early_session_and_where_requests_go() {
    let mut rig = Rig::calling();
    rig.reliable(THEIRS, 1, "v=0\r\n");
    rig.respond(200, "PRACK", 2, "", "");
    rig.request("UPDATE", 1, "Allow: UPDATE\r\nContact: <sip:moved@10.0.0.8:5070>\r\n", "v=6\r\n");
    assert_eq!(rig.events(), [LegEvent::Update { sdp: Bytes::from_static(b"v=6\r\n") }]);
    rig.command(Command::AnswerReoffer { sdp: body() });
    assert_eq!(rig.statuses(), [200]);
    rig.command(Command::Update { sdp: body() });
    let (update, to) = rig.sent(Method::Update).unwrap();
    assert_eq!(update.request_uri(), "sip:moved@10.0.0.8:5070");
    assert_eq!(to.remote, ([10, 0, 0, 8], 5070).into());
    rig.respond(488, "UPDATE", update.cseq(), "", "");
    rig.respond(200, "INVITE", 1, CONTACT, "v=0\r\n");
    assert_eq!(rig.events(), [LegEvent::Answered { sdp: Bytes::from_static(b"v=6\r\n") }]);

    let mut refused = Rig::calling();
    refused.reliable(THEIRS, 1, "v=0\r\n");
    refused.request("UPDATE", 1, "", "v=6\r\n");
    refused.command(Command::RefuseReoffer { status: 488 });
    refused.respond(200, "INVITE", 1, CONTACT, "");
    assert_eq!(refused.events(), [LegEvent::Answered { sdp: body() }], "a refused offer changes nothing");
}

#[test]
fn an_established_dialog_holds_each_description_once_and_no_message() {
    let said = b"v=5\r\n";
    let mut rig = Rig::incoming("Require: 100rel\r\nAllow: UPDATE\r\n");
    rig.command(Command::EarlySession { status: 183, sdp: Bytes::from_static(said) });
    rig.prack(2);
    for _ in 0..2 {
        rig.command(ringing());
    }
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(said) });
    rig.command(Command::SendAnswer);
    rig.ack(1);
    rig.request("UPDATE", 3, "", "v=6\r\n");
    let heard = rig.events().into_iter().find_map(|event| match event {
        LegEvent::Update { sdp } => Some(sdp),
        _ => None,
    });
    rig.command(Command::AnswerReoffer { sdp: Bytes::from_static(said) });
    let stored = serde_json::to_string(&rig.dialog).unwrap();
    assert_eq!(stored.matches("118,61,53,13,10").count(), 1, "ours");
    assert_eq!(stored.matches("118,61,54,13,10").count(), 1, "the peer's");
    assert!(!stored.contains("83,73,80,47,50,46,48"), "a SIP/2.0 of some message");
    assert!(heard.unwrap().is_unique(), "whoever drops the message drops the last of it");
}

#[test]
fn a_prack_whose_offer_cannot_go_on_gets_the_session_as_it_is() {
    let mut rig = Rig::incoming("Supported: 100rel\r\n");
    rig.command(session());
    let rseq: u32 = rig.responded().header(Header::RSeq).unwrap().parse().unwrap();
    rig.request("PRACK", 2, &format!("RAck: {rseq} 1 INVITE\r\n"), "v=7\r\n");
    assert_eq!(rig.events(), [LegEvent::Prack { sdp: Bytes::from_static(b"v=7\r\n") }]);
    rig.command(Command::RefuseReoffer { status: 491 });
    assert_eq!(rig.statuses(), [200], "RFC 3262 section 3");
}

#[test]
fn a_200_that_waits_for_a_prack_in_vain_is_said_to_be_unsent() {
    let mut rig = Rig::incoming("Supported: 100rel\r\n");
    rig.command(session());
    rig.command(Command::PrepareAnswer { sdp: body() });
    rig.command(Command::SendAnswer);
    assert!(rig.statuses().is_empty());
    rig.timeout(32_000);
    let unsent = LegEvent::AnswerUnsent { status: 504 };
    assert_eq!((rig.statuses(), rig.events().first()), (vec![504], Some(&unsent)));
}

#[test]
fn a_late_reliable_response_is_acknowledged_while_its_invite_is_cancelled() {
    let mut rig = Rig::calling();
    rig.reliable(THEIRS, 1, "");
    rig.command(Command::End { status: 487, reason: None });
    rig.reliable(THEIRS, 2, "");
    assert_eq!(rig.racks(), ["2 1 INVITE"]);
}

#[test]
fn what_an_early_answer_has_become_is_offered_once_nothing_is_open_unless_something_later_is_agreed() {
    const TOLD: &str =
        "v=0\r\no=- 1 5 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 20000 RTP/AVP 0\r\n";
    let described = |version: u8| Bytes::from(TOLD.replace("1 5 IN", &format!("1 {version} IN")));
    for later in [4, 6] {
        let mut rig = Rig::incoming("Require: 100rel\r\nAllow: UPDATE\r\n");
        rig.command(Command::EarlySession { status: 183, sdp: described(3) });
        rig.prack(2);
        rig.command(Command::Update { sdp: described(later) });
        let first = rig.sent(Method::Update).unwrap().0.cseq();
        rig.command(Command::PrepareAnswer { sdp: described(5) });
        rig.command(Command::SendAnswer);
        rig.ack(1);
        assert!(rig.sent(Method::Update).is_none(), "an UPDATE is open");
        rig.respond(200, "UPDATE", first, "", "v=0\r\n");
        let offered = rig.sent(Method::Update).map(|(update, _)| update.body().to_vec());
        assert_eq!(offered, (later < 5).then(|| described(5).to_vec()), "{later}");
    }
}

#[test]
fn an_offer_in_a_reliable_response_of_a_branch_that_loses_is_refused_in_its_prack() {
    const OFFER: &str =
        "v=0\r\no=- 1 2 IN IP4 10.0.0.3\r\ns=-\r\nc=IN IP4 10.0.0.3\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n";
    const EARLY: &str = "Require: 100rel\r\nRSeq: 7\r\nContact: <sip:peer@10.0.0.3:5062>\r\n";
    let mut rig = Rig::asking();
    rig.respond_as("loses", 183, "INVITE", 1, EARLY, OFFER);
    assert!(rig.sent(Method::Prack).is_none(), "the call has the answer");
    rig.respond_as("wins", 200, "INVITE", 1, "Contact: <sip:peer@10.0.0.4>\r\n", OFFER);
    let (prack, _) = rig.sent(Method::Prack).expect("a PRACK");
    assert_eq!((prack.to_tag(), prack.header(Header::RAck)), (Some("loses"), Some("7 1 INVITE")));
    assert!(String::from_utf8_lossy(prack.body()).contains("m=audio 0 "), "{prack:?}");
    assert!(matches!(rig.events()[..], [LegEvent::AnsweredWithOffer { .. }]));
    rig.respond_as("loses", 200, "PRACK", prack.cseq(), "", "");
    rig.command(Command::Acknowledge { sdp: body() });
    assert_eq!(rig.sent(Method::Ack).unwrap().0.to_tag(), Some("wins"));
    assert!(rig.dialog.is_established());
}
