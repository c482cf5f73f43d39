use super::*;

const TIMER: &str = "Supported: timer\r\n";
const CONTACT: &str = "Contact: <sip:peer@10.0.0.2>\r\n";

fn seconds(s: u64) -> u64 {
    s * 1000
}

/// The peer's INVITE with these headers, answered and acknowledged; and the 200.
fn called(extra: &str) -> (Rig, Message) {
    let mut rig = Rig::incoming(extra);
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
    rig.command(Command::SendAnswer);
    let answer = responded(&rig);
    rig.ack(1);
    (rig, answer)
}

fn responded(rig: &Rig) -> Message {
    let response = rig.out.iter().find_map(|output| match output {
        Output::Respond { message, .. } => Some(message.clone()),
        _ => None,
    });
    Message::parse(response.expect("a response"), &Limits::default()).unwrap()
}

/// Lets the time pass until something is due; the seconds from the start.
fn wait(rig: &mut Rig) -> u64 {
    let at = rig.dialog.deadline().expect("a deadline").0.div_ceil(1000);
    rig.timeout(at);
    at / 1000
}

fn expires(message: &Message) -> Option<&str> {
    message.header(Header::SessionExpires)
}

#[test]
fn a_caller_with_session_timers_refreshes_unless_it_says_otherwise() {
    for (asked, answered, required) in [
        (format!("{TIMER}Session-Expires: 600\r\n"), "600;refresher=uac", true),
        (format!("{TIMER}x: 3600;refresher=uac\r\n"), "1800;refresher=uac", true),
        (format!("{TIMER}Session-Expires: 600 ; refresher=UAS\r\n"), "600;refresher=uas", false),
        (TIMER.to_owned(), "1800;refresher=uac", true),
        (format!("{TIMER}Session-Expires: 7200\r\nMin-SE: 3600\r\n"), "3600;refresher=uac", true),
        ("Session-Expires: 600\r\n".to_owned(), "600;refresher=uas", false),
    ] {
        let (_, answer) = called(&asked);
        assert_eq!(expires(&answer), Some(answered), "{asked}");
        assert_eq!(answer.has_token(Header::Require, "timer"), required, "{asked}");
    }
    let (_, answer) = called("");
    assert_eq!(expires(&answer), None);
    // A proxy's interval on behalf of a caller who knows no session timers is not to be refused.
    assert_eq!(expires(&called("Session-Expires: 30\r\n").1), None);
}

#[test]
fn a_session_that_the_peer_does_not_refresh_is_ended_before_it_expires() {
    for (interval, end) in [(600, 568), (90, 60)] {
        let (mut rig, _) = called(&format!("{TIMER}Session-Expires: {interval};refresher=uac\r\n"));
        assert_eq!(wait(&mut rig), end, "the interval less 32 s or a third of it");
        assert_eq!(rig.ended(), Some(EndedBy::SessionExpired));
        let (bye, _) = rig.sent(Method::Bye).unwrap();
        assert!(bye.header(Header::Reason).is_some_and(|reason| reason.contains("session timer expired")));
    }
}

#[test]
fn a_peer_without_session_timers_is_asked_whether_it_is_still_there() {
    let (mut rig, _) = called("");
    for at in [900, 1800] {
        assert_eq!(wait(&mut rig), at);
        let (options, _) = rig.sent(Method::Options).unwrap();
        assert!(options.body().is_empty() && expires(&options).is_none());
        rig.respond(405, "OPTIONS", options.cseq(), "", "");
        assert!(rig.dialog.is_established(), "any answer will do");
    }
    wait(&mut rig);
    let (options, _) = rig.sent(Method::Options).unwrap();
    rig.respond(481, "OPTIONS", options.cseq(), "", "");
    assert_eq!(rig.ended(), Some(EndedBy::Lost));
}

#[test]
fn the_peers_re_invite_refreshes_and_one_that_changes_nothing_is_answered_here() {
    let (mut rig, _) = called(&format!("{TIMER}Session-Expires: 600;refresher=uac\r\n"));
    rig.now = seconds(300);
    let refresh = format!("{TIMER}{CONTACT}Session-Expires: 600;refresher=uac\r\n");
    rig.request("INVITE", 2, &refresh, "v=0\r\n");
    assert_eq!((rig.statuses(), rig.events()), (vec![200], vec![]));
    let answer = responded(&rig);
    assert_eq!((answer.body(), expires(&answer)), (SDP, Some("600;refresher=uac")));
    rig.ack(2);
    assert_eq!(wait(&mut rig), 868);
    assert_eq!(rig.ended(), Some(EndedBy::SessionExpired));
    let (mut rig, _) = called("");
    rig.request("INVITE", 2, CONTACT, "v=0\r\ns=new\r\n");
    assert!(matches!(rig.events()[..], [LegEvent::Reoffer { .. }]), "a changed one is the other side's");
}

#[test]
fn an_interval_below_ours_is_refused_with_422() {
    let policy = SessionPolicy { interval: Duration::from_secs(1800), min_se: Duration::from_secs(120) };
    let brief = request("INVITE", 1, &format!("{TIMER}Session-Expires: 100\r\n"), "");
    assert_eq!(policy.refuses(&brief), Some(120));
    assert_eq!(SessionPolicy::default().refuses(&brief), None);
    let (mut rig, _) = called("");
    rig.request("INVITE", 2, &format!("{TIMER}{CONTACT}Session-Expires: 60\r\n"), "v=0\r\n");
    let answer = responded(&rig);
    assert_eq!((answer.status(), answer.header(Header::MinSe)), (422, Some("90")));
    assert!(rig.dialog.is_established());
}

#[test]
fn our_invite_asks_for_a_session_timer_and_takes_what_a_422_wants() {
    let mut rig = Rig::calling();
    let (first, _) = rig.sent(Method::Invite).unwrap();
    assert_eq!((expires(&first), first.header(Header::MinSe)), (Some("1800"), None));
    rig.respond(422, "INVITE", 1, "Min-SE: 3600\r\n", "");
    let (second, _) = rig.sent(Method::Invite).unwrap();
    assert_eq!(
        (second.cseq(), expires(&second), second.header(Header::MinSe)),
        (2, Some("3600"), Some("3600"))
    );
    // A peer that never has enough, and one that does not say what it wants.
    rig.respond(422, "INVITE", 2, "Min-SE: 4000\r\n", "");
    rig.respond(422, "INVITE", 3, "Min-SE: 5000\r\n", "");
    rig.respond(422, "INVITE", 4, "Min-SE: 6000\r\n", "");
    assert!(matches!(rig.events()[..], [LegEvent::Failed { status: 422, .. }]));
    let mut rig = Rig::calling();
    rig.respond(422, "INVITE", 1, "", "");
    assert!(matches!(rig.events()[..], [LegEvent::Failed { status: 422, .. }]));
}

#[test]
fn we_refresh_at_half_the_interval_by_the_same_description() {
    let mut rig = Rig::answered("Session-Expires: 600;refresher=uac\r\n");
    assert_eq!(wait(&mut rig), 300);
    let (refresh, _) = rig.sent(Method::Invite).unwrap();
    assert_eq!((refresh.body(), expires(&refresh)), (SDP, Some("600;refresher=uac")));
    // A re-INVITE of the peer that crosses it meets a session that is being changed.
    rig.request("INVITE", 1, CONTACT, "v=0\r\ns=x\r\n");
    assert_eq!(rig.statuses(), [491]);
    rig.now = seconds(301);
    rig.respond(
        200,
        "INVITE",
        refresh.cseq(),
        &format!("{CONTACT}Session-Expires: 600;refresher=uac\r\n"),
        "v=0\r\n",
    );
    assert_eq!(rig.events(), []);
    assert!(rig.out.iter().any(|output| matches!(output, Output::Ack { .. })));
    assert_eq!(wait(&mut rig), 601);
    assert!(rig.sent(Method::Invite).is_some());
}

#[test]
fn a_peer_that_takes_update_is_refreshed_by_it_and_by_re_invite_if_it_does_not_after_all() {
    let mut rig = Rig::answered("Allow: INVITE, ACK, BYE, UPDATE\r\nSession-Expires: 600;refresher=uac\r\n");
    wait(&mut rig);
    let (update, _) = rig.sent(Method::Update).unwrap();
    assert!(update.body().is_empty() && expires(&update).is_some());
    rig.respond(501, "UPDATE", update.cseq(), "", "");
    let (refresh, _) = rig.sent(Method::Invite).unwrap();
    rig.respond(
        200,
        "INVITE",
        refresh.cseq(),
        &format!("{CONTACT}Session-Expires: 600;refresher=uas\r\n"),
        "v=0\r\n",
    );
    assert_eq!(wait(&mut rig), 300 + 568, "now it is the peer's to refresh");
    assert_eq!(rig.ended(), Some(EndedBy::SessionExpired));
}

#[test]
fn a_refresh_that_fails_is_tried_again_and_one_that_finds_no_dialog_ends_it() {
    let mut rig = Rig::answered("Session-Expires: 600;refresher=uac\r\n");
    wait(&mut rig);
    let mut tries = 0;
    while rig.ended().is_none() {
        let (refresh, _) = rig.sent(Method::Invite).expect("a refresh");
        tries += 1;
        rig.respond(if tries == 1 { 491 } else { 503 }, "INVITE", refresh.cseq(), "", "");
        let at = wait(&mut rig);
        assert!(tries > 1 || at == 303, "soon after glare, not {at}");
        assert!(tries < 40, "it is given up in time");
    }
    assert_eq!((rig.ended(), rig.now), (Some(EndedBy::SessionExpired), seconds(568)));
    for status in [408, 481] {
        let mut rig = Rig::answered("Session-Expires: 600;refresher=uac\r\n");
        wait(&mut rig);
        let cseq = rig.sent(Method::Invite).unwrap().0.cseq();
        rig.respond(status, "INVITE", cseq, "", "");
        assert_eq!(rig.ended(), Some(EndedBy::Lost));
    }
    let mut rig = Rig::answered("Session-Expires: 600;refresher=uac\r\n");
    wait(&mut rig);
    let cseq = rig.sent(Method::Invite).unwrap().0.cseq();
    rig.feed(Input::Unanswered { method: Method::Invite, cseq, why: NoAnswer::Timeout });
    assert_eq!(rig.ended(), Some(EndedBy::Lost));
    assert!(rig.sent(Method::Bye).is_some());
}

#[test]
fn after_a_restart_we_refresh_soon_and_the_peer_has_another_interval() {
    let ours = Rig::answered("Session-Expires: 600;refresher=uac\r\n");
    let mut ours =
        Rig { dialog: Dialog::restore(ours.dialog, at(0)), now: 0, out: Vec::new(), transactions: 0 };
    assert!(wait(&mut ours) < 30);
    assert!(ours.sent(Method::Options).is_some() || ours.sent(Method::Invite).is_some());
    let (peers, _) = called(&format!("{TIMER}Session-Expires: 600;refresher=uac\r\n"));
    let mut peers =
        Rig { dialog: Dialog::restore(peers.dialog, at(0)), now: 0, out: Vec::new(), transactions: 0 };
    while peers.ended().is_none() {
        wait(&mut peers);
    }
    assert_eq!(peers.now, seconds(568));
}

#[test]
fn without_session_timers_nothing_is_said_of_them() {
    let off = LocalSide { session: SessionPolicy::default(), ..(*local()).clone() };
    let invite = request("INVITE", 1, &format!("{TIMER}{CONTACT}Session-Expires: 600\r\n"), "v=0\r\n");
    let id = ServerTransactionId(1);
    let dialog = Dialog::incoming(id, invite, flow(), OURS.into(), Arc::new(off), Routing::Target);
    let mut rig = Rig { dialog, now: 0, out: Vec::new(), transactions: 1 };
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
    rig.command(Command::SendAnswer);
    assert_eq!(expires(&responded(&rig)), None);
}

#[test]
fn an_answer_to_our_refresh_that_differs_is_told_and_one_that_does_not_is_not() {
    let mut rig = Rig::answered("Session-Expires: 600;refresher=uac\r\n");
    for (answer, told) in [("v=0\r\n", false), ("v=7\r\n", true), ("v=7\r\n", false)] {
        wait(&mut rig);
        let cseq = rig.sent(Method::Invite).unwrap().0.cseq();
        let extra = format!("{CONTACT}Session-Expires: 600;refresher=uac\r\n");
        rig.respond(200, "INVITE", cseq, &extra, answer);
        let news = LegEvent::Refreshed { sdp: Bytes::copy_from_slice(answer.as_bytes()) };
        assert_eq!(rig.events(), if told { vec![news] } else { vec![] }, "{answer}");
        assert_eq!(rig.sent(Method::Ack).unwrap().0.cseq(), cseq);
    }
    wait(&mut rig);
    assert_eq!(rig.sent(Method::Invite).unwrap().0.body(), SDP, "what we say is as it was");
}

#[test]
fn an_offer_of_ours_that_meets_a_422_is_made_again_with_what_the_peer_wants() {
    for (command, method) in [
        (Command::Reoffer { sdp: Bytes::from_static(b"v=3\r\n") }, Method::Invite),
        (Command::Update { sdp: Bytes::from_static(b"v=3\r\n") }, Method::Update),
    ] {
        let mut rig = Rig::answered("Allow: INVITE, UPDATE\r\n");
        rig.command(command);
        let first = rig.sent(method).unwrap().0.cseq();
        rig.respond(422, method.as_str(), first, "Min-SE: 2400\r\n", "");
        let (again, _) = rig.sent(method).unwrap();
        assert_eq!((again.body(), again.header(Header::MinSe)), (&b"v=3\r\n"[..], Some("2400")));
        assert_eq!(expires(&again), Some("2400"));
        assert!(again.cseq() > first && rig.events().is_empty());
        rig.respond(200, method.as_str(), again.cseq(), "", "v=0\r\n");
        assert_eq!(rig.events(), [LegEvent::ReofferAnswered { sdp: Bytes::from_static(SDP) }]);
        assert!(rig.dialog.is_established());
    }
}

#[test]
fn an_answer_that_comes_after_our_504_is_not_in_force() {
    let mut rig = Rig::answered("Allow: INVITE, UPDATE\r\nSession-Expires: 600;refresher=uac\r\n");
    rig.request("UPDATE", 1, "Allow: INVITE\r\n", "v=8\r\n");
    rig.timeout(16_000);
    assert_eq!(rig.statuses(), [504]);
    rig.command(Command::AnswerReoffer { sdp: Bytes::from_static(b"v=9\r\n") });
    assert_eq!(rig.events(), [LegEvent::AnsweredTooLate { heard: Bytes::from_static(SDP) }]);
    wait(&mut rig);
    let (refresh, _) = rig.sent(Method::Invite).unwrap();
    assert_eq!(refresh.body(), SDP, "the refresh says what was agreed");
    let extra = format!("{CONTACT}Session-Expires: 600;refresher=uac\r\n");
    rig.respond(200, "INVITE", refresh.cseq(), &extra, "v=0\r\n");
    assert!(rig.events().is_empty(), "and what the peer says is no news");
}

#[test]
fn an_offer_in_an_early_dialog_that_meets_a_422_is_made_again_there() {
    const EARLY: &str =
        "Require: 100rel\r\nRSeq: 1\r\nContact: <sip:peer@10.0.0.3:5062>\r\nAllow: UPDATE\r\n";
    let callers = || {
        let mut rig = Rig::incoming("Supported: 100rel\r\nAllow: UPDATE\r\n");
        rig.command(Command::EarlySession { status: 183, sdp: Bytes::from_static(SDP) });
        rig.prack(2);
        rig
    };
    let callees = || {
        let mut rig = Rig::calling();
        for tag in [THEIRS, "fork"] {
            rig.respond_as(tag, 183, "INVITE", 1, EARLY, "v=0\r\n");
            let cseq = rig.sent(Method::Prack).unwrap().0.cseq();
            rig.respond_as(tag, 200, "PRACK", cseq, "", "");
        }
        rig
    };
    for (mut rig, tag) in [(callers(), THEIRS), (callees(), "fork")] {
        rig.command(Command::Update { sdp: Bytes::from_static(b"v=3\r\n") });
        let (first, _) = rig.sent(Method::Update).unwrap();
        assert_eq!(first.to_tag(), Some(tag));
        rig.respond_as(tag, 422, "UPDATE", first.cseq(), "Min-SE: 2400\r\n", "");
        let (again, _) = rig.sent(Method::Update).expect("the same offer again");
        assert_eq!(
            (again.to_tag(), again.body(), expires(&again)),
            (Some(tag), &b"v=3\r\n"[..], Some("2400"))
        );
        assert!(again.cseq() > first.cseq() && rig.events().is_empty());
        rig.respond_as(tag, 200, "UPDATE", again.cseq(), "", "v=0\r\n");
        assert_eq!(rig.events(), [LegEvent::ReofferAnswered { sdp: Bytes::from_static(SDP) }]);
    }
}

#[test]
fn an_answer_to_our_invite_starts_the_time_anew_though_an_update_was_accepted_before() {
    let mut rig = Rig::calling();
    let early = "Require: 100rel\r\nRSeq: 1\r\nContact: <sip:peer@10.0.0.3:5062>\r\nAllow: UPDATE\r\n";
    rig.respond(183, "INVITE", 1, early, "v=0\r\n");
    rig.respond(200, "PRACK", 2, "", "");
    rig.command(Command::Update { sdp: Bytes::from_static(b"v=3\r\n") });
    let cseq = rig.sent(Method::Update).unwrap().0.cseq();
    rig.respond(200, "UPDATE", cseq, "Session-Expires: 200;refresher=uac\r\n", "v=0\r\n");
    rig.now = seconds(60);
    rig.respond(200, "INVITE", 1, &format!("{CONTACT}Session-Expires: 400;refresher=uac\r\n"), "");
    assert_eq!(wait(&mut rig), 60 + 200, "half of what was granted last, from then on");
    assert!(rig.sent(Method::Update).is_some());
}
