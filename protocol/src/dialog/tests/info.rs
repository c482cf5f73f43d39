use super::*;

const DTMF: &str = "Signal=5\r\nDuration=160\r\n";

/// An INFO with a body of a type of its own.
fn info(cseq: u32, extra: &str, body: &str) -> Message {
    parse(&format!(
        "INFO sip:10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bKinfo{cseq}\r\n\
         From: <sip:peer@x>;tag={THEIRS}\r\nTo: <sip:us@x>;tag={OURS}\r\nCall-ID: id\r\nCSeq: {cseq} INFO\r\n\
         Max-Forwards: 70\r\n{extra}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn ask(rig: &mut Rig, cseq: u32, extra: &str, body: &str) {
    let transaction = Some(ServerTransactionId(100 + u64::from(cseq)));
    rig.feed(Input::Request { transaction, request: info(cseq, extra, body), source: flow() });
}

fn body() -> Body {
    Body { content_type: "application/dtmf-relay".into(), bytes: Bytes::from_static(DTMF.as_bytes()) }
}

#[test]
fn an_info_waits_for_the_other_legs_answer_and_gets_its_status_and_body() {
    let mut rig = Rig::called();
    ask(&mut rig, 2, "Content-Type: application/dtmf-relay\r\n", DTMF);
    let asked = LegEvent::Asked { id: 2, method: Method::Info, body: Some(body()) };
    assert_eq!((rig.events(), rig.statuses()), (vec![asked], vec![]));
    let answer = Body { content_type: "text/plain".into(), bytes: Bytes::from_static(b"ok") };
    rig.command(Command::AnswerAsked { id: 2, status: 202, body: Some(answer) });
    let Some(Output::Respond { message, status: 202, .. }) = rig.out.first() else { panic!("{:?}", rig.out) };
    assert!(message.ends_with(b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"));
    rig.command(Command::AnswerAsked { id: 2, status: 200, body: None });
    assert!(rig.out.is_empty(), "it has its answer");
}

#[test]
fn what_no_leg_could_answer_is_refused_here() {
    let mut rig = Rig::called();
    let kind = "Content-Type: application/dtmf-relay\r\n";
    for (cseq, extra, body, status) in [
        (2, format!("Info-Package: conference\r\n{kind}"), DTMF, 469),
        (3, format!("Content-Encoding: gzip\r\n{kind}"), DTMF, 415),
        (4, String::new(), DTMF, 400),
    ] {
        ask(&mut rig, cseq, &extra, body);
        assert_eq!((rig.statuses(), rig.events()), (vec![status], vec![]), "{extra}");
    }
    for cseq in 5..13 {
        ask(&mut rig, cseq, kind, DTMF);
        assert!(rig.statuses().is_empty());
    }
    ask(&mut rig, 13, kind, DTMF);
    assert_eq!(rig.statuses(), [500], "a peer that asks faster than it is answered");
}

#[test]
fn an_unknown_method_in_a_dialog_is_501_and_one_that_is_not_for_a_dialog_405() {
    let mut rig = Rig::called();
    rig.request("SING", 2, "", "");
    assert_eq!(rig.statuses(), [501]);
    rig.request("PUBLISH", 3, "", "");
    assert_eq!(rig.statuses(), [405]);
    rig.request("OPTIONS", 4, "", "");
    assert_eq!(rig.statuses(), [200]);
}

#[test]
fn an_info_of_the_other_leg_is_sent_and_its_answer_handed_back() {
    let mut rig = Rig::answered("");
    rig.command(Command::Ask { id: 7, method: Method::Info, body: Some(body()) });
    let (sent, _) = rig.sent(Method::Info).unwrap();
    assert_eq!(
        (sent.body(), sent.header(Header::ContentType)),
        (DTMF.as_bytes(), Some("application/dtmf-relay"))
    );
    let cseq = sent.cseq();
    rig.respond(100, "INFO", cseq, "", "");
    assert_eq!(rig.events(), []);
    rig.respond(415, "INFO", cseq, "", "");
    assert_eq!(rig.events(), [LegEvent::AskedAnswered { id: 7, status: 415, body: None }]);
    assert!(rig.dialog.is_established());
}

#[test]
fn a_peer_that_does_not_know_the_dialog_of_an_info_or_is_silent_has_lost_it() {
    let mut rig = Rig::answered("");
    rig.command(Command::Ask { id: 7, method: Method::Info, body: None });
    let cseq = rig.sent(Method::Info).unwrap().0.cseq();
    rig.respond(481, "INFO", cseq, "", "");
    assert_eq!(rig.ended(), Some(EndedBy::Lost));
    let mut rig = Rig::answered("");
    rig.command(Command::Ask { id: 7, method: Method::Info, body: None });
    let cseq = rig.sent(Method::Info).unwrap().0.cseq();
    rig.feed(Input::Unanswered { method: Method::Info, cseq, why: NoAnswer::Timeout });
    assert_eq!(rig.ended(), Some(EndedBy::Lost));
    assert!(rig.events().contains(&LegEvent::AskedAnswered { id: 7, status: 408, body: None }));
    assert!(rig.sent(Method::Bye).is_some());
}

#[test]
fn an_info_that_waits_when_the_dialog_ends_is_answered_481() {
    let mut rig = Rig::called();
    ask(&mut rig, 2, "", "");
    rig.request("BYE", 3, "", "");
    let mut statuses = rig.statuses();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 481]);
}

#[test]
fn the_reason_of_a_bye_and_of_a_cancel_goes_up_before_the_end() {
    let mut rig = Rig::called();
    rig.request("BYE", 2, "Reason: Q.850;cause=16;text=\"bye\"\r\nReason: SIP;cause=200\r\n", "");
    let reason = LegEvent::Reason("Q.850;cause=16;text=\"bye\", SIP;cause=200".into());
    assert_eq!(rig.events(), [reason, LegEvent::Ended { by: EndedBy::Peer }]);
    let mut rig = Rig::incoming("");
    rig.feed(Input::Cancelled { transaction: ServerTransactionId(1), reason: Some("SIP;cause=200".into()) });
    assert_eq!(rig.events(), [LegEvent::Reason("SIP;cause=200".into()), LegEvent::Cancelled]);
}

#[test]
fn a_redirection_names_its_contacts_by_their_q() {
    let mut rig = Rig::calling();
    let contacts = "Contact: <sip:low@a>;q=0.2, <sip:high@b>\r\nContact: <sip:mid@c>;q=0.5\r\n";
    rig.respond(302, "INVITE", 1, contacts, "");
    let named = vec!["sip:high@b".to_owned(), "sip:mid@c".to_owned(), "sip:low@a".to_owned()];
    assert_eq!(rig.events()[0], LegEvent::Redirected { contacts: named });
    assert!(matches!(rig.events()[1], LegEvent::Failed { status: 302, .. }));
}

#[test]
fn a_redirection_is_handed_to_the_caller_with_its_contacts() {
    let mut rig = Rig::incoming("");
    rig.command(Command::Redirect { status: 302, contacts: vec!["sip:a@b".into(), "sip:c@d".into()] });
    let Some(Output::Respond { message, status: 302, .. }) = rig.out.first() else { panic!("{:?}", rig.out) };
    let message = Message::parse(message.clone(), &Limits::default()).unwrap();
    assert_eq!(message.headers(Header::Contact).collect::<Vec<_>>(), ["<sip:a@b>", "<sip:c@d>"]);
    assert!(rig.finished());
}
