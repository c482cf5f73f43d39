use super::*;

const NEW: &[u8] = b"v=1\r\n";
const MINUTE: u64 = 60_000;

fn cancel(rig: &mut Rig, transaction: u64) {
    let transaction = ServerTransactionId(transaction);
    rig.feed(Input::Cancelled { transaction, reason: Some("SIP;cause=200".into()) });
}

/// A dialog whose re-INVITE the peer thinks about, taken back if `withdrawn`.
fn proceeding(command: Command, withdrawn: bool) -> Rig {
    let mut rig = Rig::answered("");
    rig.command(command);
    rig.respond(100, "INVITE", 2, "", "");
    if withdrawn {
        rig.command(Command::CancelReoffer { reason: Some("SIP;cause=200".into()) });
    }
    rig
}

fn reoffer() -> Command {
    Command::Reoffer { sdp: Bytes::from_static(NEW) }
}

#[test]
fn a_cancelled_re_invite_is_answered_487_and_leaves_dialog_and_session() {
    let mut rig = Rig::called();
    rig.request("INVITE", 2, "", "v=1\r\n");
    cancel(&mut rig, 1);
    assert!(rig.out.is_empty(), "it is not the first INVITE that is open");
    cancel(&mut rig, 2);
    assert_eq!(rig.statuses(), [487]);
    assert_eq!(rig.events(), [LegEvent::ReofferCancelled { reason: Some("SIP;cause=200".into()) }]);
    rig.command(Command::AnswerReoffer { sdp: Bytes::from_static(NEW) });
    assert!(rig.statuses().is_empty() && rig.dialog.is_established());
    assert_eq!(rig.events(), [LegEvent::AnsweredTooLate { heard: Bytes::from_static(SDP) }]);
    // The session is as it was: a refresh of it crosses nothing.
    let refresh = "Supported: timer\r\nSession-Expires: 1800\r\n";
    rig.request("INVITE", 3, refresh, "v=0\r\n");
    assert_eq!(rig.statuses(), [200]);
}

#[test]
fn a_cancel_that_crosses_our_200_to_the_re_invite_changes_nothing() {
    let mut rig = Rig::called();
    rig.request("INVITE", 2, "", "v=1\r\n");
    rig.command(Command::AnswerReoffer { sdp: Bytes::from_static(NEW) });
    cancel(&mut rig, 2);
    assert!(rig.out.is_empty());
}

#[test]
fn an_offer_that_is_taken_back_is_cancelled_once_the_peer_has_it() {
    let mut rig = Rig::answered("");
    rig.command(reoffer());
    let (invite, to) = rig.sent(Method::Invite).unwrap();
    rig.command(Command::CancelReoffer { reason: Some("SIP;cause=200".into()) });
    assert!(rig.out.is_empty(), "a CANCEL may overtake an INVITE that has no response");
    rig.respond(100, "INVITE", 2, "", "");
    let (cancel, where_to) = rig.sent(Method::Cancel).unwrap();
    assert_eq!((cancel.request_uri(), where_to), (invite.request_uri(), to));
    for header in [Header::Via, Header::From, Header::To, Header::CallId] {
        assert_eq!(cancel.header(header), invite.header(header));
    }
    assert_eq!((cancel.cseq(), cancel.header(Header::Reason)), (2, Some("SIP;cause=200")));
    rig.respond(180, "INVITE", 2, "", "");
    assert!(rig.out.is_empty(), "once");
    rig.respond(200, "CANCEL", 2, "", "");
    rig.respond(487, "INVITE", 2, "", "");
    assert!(rig.events().is_empty() && rig.dialog.is_established());
    rig.command(reoffer());
    assert!(rig.sent(Method::Invite).is_some());
}

#[test]
fn a_200_that_crosses_the_cancel_is_acknowledged_and_what_was_before_is_to_be_offered_again() {
    let mut rig = proceeding(reoffer(), true);
    rig.respond(200, "INVITE", 2, "", "v=8\r\n");
    assert!(rig.sent(Method::Ack).is_some());
    let (told, offered) = (Bytes::from_static(SDP), Bytes::from_static(NEW));
    assert_eq!(rig.events(), [LegEvent::Unwanted { told, offered }]);
}

#[test]
fn an_offer_that_is_taken_back_after_its_answer_is_undone_and_one_that_was_refused_is_not() {
    let withdraw = Command::CancelReoffer { reason: None };
    let mut rig = proceeding(reoffer(), false);
    rig.respond(200, "INVITE", 2, "", "v=8\r\n");
    rig.command(withdraw.clone());
    let (told, offered) = (Bytes::from_static(SDP), Bytes::from_static(NEW));
    assert_eq!(rig.events(), [LegEvent::Unwanted { told, offered }]);
    rig.command(withdraw.clone());
    assert!(rig.out.is_empty(), "once");
    rig.command(reoffer());
    rig.respond(200, "INVITE", 3, "", "v=8\r\n");
    rig.command(reoffer());
    rig.respond(488, "INVITE", 4, "", "");
    rig.command(withdraw);
    assert!(rig.out.is_empty());
}

#[test]
fn an_offer_that_nobody_wants_any_more_is_answered_by_the_session_as_it_is() {
    const SESSION: &[u8] =
        b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let offer = String::from_utf8_lossy(SESSION).replace("10.0.0.1", "10.0.0.3") + "m=video 9 RTP/AVP 31\r\n";
    let mut rig = Rig::inviting(SESSION);
    rig.respond(200, "INVITE", 1, "Contact: <sip:peer@10.0.0.3:5062>\r\n", "v=0\r\n");
    rig.command(Command::Solicit);
    rig.respond(100, "INVITE", 2, "", "");
    rig.command(Command::CancelReoffer { reason: None });
    assert!(rig.sent(Method::Cancel).is_some());
    rig.respond(200, "INVITE", 2, "", &offer);
    let (ack, _) = rig.sent(Method::Ack).unwrap();
    let answer = String::from_utf8_lossy(ack.body()).into_owned();
    assert!(answer.contains("m=audio 4000 RTP/AVP 0") && answer.contains("m=video 0 "), "{answer}");
    assert_eq!(rig.events(), [LegEvent::Refreshed { sdp: Bytes::from(offer) }]);
}

#[test]
fn an_offer_that_waits_for_its_second_try_is_dropped() {
    let mut rig = Rig::answered("");
    rig.command(reoffer());
    rig.respond(491, "INVITE", 2, "", "");
    rig.command(Command::CancelReoffer { reason: None });
    rig.timeout(10_000);
    assert!(rig.out.is_empty());
    let mut rig = proceeding(reoffer(), true);
    rig.respond(491, "INVITE", 2, "", "");
    rig.timeout(10_000);
    assert!(rig.out.is_empty(), "nor is it tried again");
}

#[test]
fn a_re_invite_goes_on_while_the_peer_says_so_and_is_cancelled_three_minutes_later() {
    let mut rig = proceeding(reoffer(), false);
    let mut now = 0;
    for _ in 0..3 {
        rig.timeout(now + 3 * MINUTE);
        assert!(rig.out.is_empty(), "{now}");
        now += 3 * MINUTE;
        rig.now = now;
        rig.respond(183, "INVITE", 2, "", "");
    }
    rig.timeout(now + 3 * MINUTE);
    assert!(rig.out.is_empty());
    rig.timeout(now + 3 * MINUTE + 1000);
    assert!(rig.sent(Method::Cancel).is_some());
    rig.respond(487, "INVITE", 2, "", "");
    assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 408 }]);
    assert!(rig.dialog.is_established());
}

#[test]
fn a_peer_that_answers_neither_re_invite_nor_cancel_but_was_there_keeps_the_dialog() {
    let unanswered = |cseq| Input::Unanswered { method: Method::Invite, cseq, why: NoAnswer::Timeout };
    let mut rig = proceeding(reoffer(), false);
    rig.timeout(3 * MINUTE + 1000);
    rig.feed(unanswered(2));
    assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 408 }]);
    assert!(rig.dialog.is_established() && rig.sent(Method::Bye).is_none());
    let mut rig = Rig::answered("Session-Expires: 1800;refresher=uac\r\n");
    rig.timeout(900_000);
    let refresh = rig.sent(Method::Invite).unwrap().0.cseq();
    rig.respond(100, "INVITE", refresh, "", "");
    rig.timeout(900_000 + 3 * MINUTE + 1000);
    assert!(rig.sent(Method::Cancel).is_some());
    rig.feed(unanswered(refresh));
    assert!(rig.ended().is_none() && rig.dialog.is_established());
    assert!(rig.dialog.deadline() < Some(Instant(1_800_000_000)), "it is refreshed again in time");
}

#[test]
fn a_refusal_of_the_cancel_is_not_one_of_the_re_invite() {
    let mut rig = proceeding(reoffer(), true);
    rig.respond(401, "CANCEL", 2, "WWW-Authenticate: Digest realm=\"x\", nonce=\"n\"\r\n", "");
    assert!(rig.out.is_empty());
}

#[test]
fn a_refresh_that_is_refused_after_our_bye_is_not_made_again() {
    for (status, extra) in [(422, "Min-SE: 3600\r\n"), (405, "")] {
        let mut rig = Rig::answered("Allow: INVITE, UPDATE\r\nSession-Expires: 600;refresher=uac\r\n");
        rig.timeout(300_000);
        let refresh = rig.sent(Method::Update).unwrap().0.cseq();
        rig.hang_up();
        rig.respond(status, "UPDATE", refresh, extra, "");
        assert!(rig.out.is_empty(), "{status}: {:?}", rig.out);
    }
}

#[test]
fn a_request_that_cannot_be_sent_ends_no_dialog() {
    let unsent = |method, cseq| Input::Unanswered { method, cseq, why: NoAnswer::Transport };
    let mut rig = Rig::answered("");
    rig.command(Command::Reoffer { sdp: Bytes::from_static(SDP) });
    rig.feed(unsent(Method::Invite, 2));
    assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 503 }]);
    assert!(rig.dialog.is_established() && rig.sent(Method::Bye).is_none());
    rig.command(Command::Reoffer { sdp: Bytes::from_static(SDP) });
    assert!(rig.sent(Method::Invite).is_some(), "the next one is tried");
    let mut rig = Rig { dialog: Dialog::restore(rig.dialog, at(0)), ..rig };
    rig.timeout(16_000);
    let (options, _) = rig.sent(Method::Options).unwrap();
    rig.feed(unsent(Method::Options, options.cseq()));
    assert_eq!((rig.ended(), rig.dialog.deadline()), (None, Some(Instant(31_000_000))));
    rig.timeout(31_000);
    assert!(rig.sent(Method::Options).is_some(), "the peer is asked again");
}

#[test]
fn a_cancel_that_cannot_be_sent_leaves_its_re_invite_open() {
    for why in [NoAnswer::Transport, NoAnswer::Timeout] {
        let mut rig = Rig::answered("");
        rig.command(Command::Reoffer { sdp: Bytes::from_static(b"v=1\r\n") });
        let (reinvite, _) = rig.sent(Method::Invite).unwrap();
        rig.respond(180, "INVITE", reinvite.cseq(), "", "");
        rig.command(Command::CancelReoffer { reason: None });
        assert!(rig.sent(Method::Cancel).is_some());
        rig.feed(Input::Unanswered { method: Method::Cancel, cseq: reinvite.cseq(), why });
        rig.command(Command::Reoffer { sdp: Bytes::from_static(b"v=2\r\n") });
        assert!(rig.sent(Method::Invite).is_none(), "two offers are open");
        rig.respond(487, "INVITE", reinvite.cseq(), "", "");
        rig.command(Command::Reoffer { sdp: Bytes::from_static(b"v=2\r\n") });
        assert!(rig.sent(Method::Invite).is_some());
    }
}

#[test]
fn an_offer_that_counted_as_unsent_and_was_accepted_is_undone() {
    for (allow, method) in [("", Method::Invite), ("Allow: INVITE, UPDATE\r\n", Method::Update)] {
        let mut rig = Rig::answered(allow);
        rig.command(Command::Update { sdp: Bytes::from_static(b"v=1\r\n") });
        let cseq = rig.sent(method).unwrap().0.cseq();
        rig.feed(Input::Unanswered { method, cseq, why: NoAnswer::Transport });
        assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 503 }]);
        rig.respond(200, method.as_str(), cseq, "", "v=0\r\n");
        let (told, offered) = (Bytes::from_static(SDP), Bytes::from_static(b"v=1\r\n"));
        assert_eq!(rig.events(), [LegEvent::Unwanted { told, offered }]);
        assert_eq!(rig.sent(Method::Ack).is_some(), method == Method::Invite);
        rig.respond(200, method.as_str(), cseq, "", "v=0\r\n");
        assert!(rig.events().is_empty(), "once");
    }
}

#[test]
fn an_offer_that_was_asked_for_in_a_re_invite_that_counted_as_unsent_has_its_answer() {
    const OFFER: &str =
        "v=0\r\no=- 1 2 IN IP4 10.0.0.3\r\ns=-\r\nc=IN IP4 10.0.0.3\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n";
    for over in [false, true] {
        let mut rig = Rig::answered("");
        rig.command(Command::Solicit);
        let cseq = rig.sent(Method::Invite).unwrap().0.cseq();
        rig.feed(Input::Unanswered { method: Method::Invite, cseq, why: NoAnswer::Transport });
        assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 503 }]);
        if over {
            rig.hang_up();
        }
        for _ in 0..2 {
            rig.respond(200, "INVITE", cseq, "", OFFER);
            let (ack, _) = rig.sent(Method::Ack).unwrap();
            assert!(String::from_utf8_lossy(ack.body()).contains("m=audio "), "an answer: {ack:?}");
        }
    }
}

#[test]
fn a_re_invite_has_its_full_time_where_an_invite_is_soon_sent_elsewhere() {
    let mut rig = Rig::answered("");
    let impatient = Timers { give_up: Duration::from_secs(2), ..Timers::default() };
    rig.dialog.local = Arc::new(LocalSide { timers: impatient, ..(*rig.dialog.local).clone() });
    rig.command(reoffer());
    let timers = rig.out.iter().find_map(|output| match output {
        Output::Request { method: Method::Invite, timers, .. } => Some(*timers),
        _ => None,
    });
    assert_eq!(timers.map(|timers| timers.give_up), Some(Duration::from_secs(32)));
}
