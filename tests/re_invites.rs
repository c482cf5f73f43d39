//! Re-INVITEs that are taken back, and branches that fail early: what becomes of an exchange that is cut short.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::calls::{TRUNKS, connected, ends, hang_up};
use common::ua::token;
use common::{Engine, Leg, Msg, Ua, sdp};

/// The description of a phone that holds.
fn held(ua: &Ua) -> String {
    sdp(ua.local(), "0").replace("o=- 1 1", "o=- 1 2") + "a=sendonly\r\n"
}

/// What a description says besides its version.
fn described(message: &Msg) -> String {
    let body = message.text.split_once("\r\n\r\n").unwrap().1;
    body.lines().filter(|line| !line.starts_with("o=")).collect::<Vec<_>>().join("\n")
}

fn version(message: &Msg) -> u64 {
    let origin = message.text.lines().find(|line| line.starts_with("o=")).expect("a description");
    origin.split(' ').nth(2).unwrap().parse().unwrap()
}

const REASON: &str = "SIP;cause=200;text=\"never mind\"";

/// Takes the last INVITE back; both it and the CANCEL are answered.
fn take_back(ua: &Ua, leg: &Leg) {
    ua.send(ua.text(leg, "CANCEL", &leg.invite_uri, &leg.branch, &format!("Reason: {REASON}\r\n"), ""));
    let mut statuses = Vec::new();
    while statuses.len() < 2 {
        let answer = ua.wait("answers", |m| m.answers("CANCEL", 200) || m.answers("INVITE", 487));
        if answer.answers("INVITE", 487) {
            ua.ack(leg, &answer);
        }
        statuses.push(answer.status());
    }
    statuses.sort();
    assert_eq!(statuses, [Some(200), Some(487)]);
}

#[test]
fn a_re_invite_that_is_cancelled_is_cancelled_at_the_other_end_and_the_call_goes_on() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let (mut leg, mut other) = connected(&a, &b);
    for body in [held(&a), String::new()] {
        a.next(&mut leg, "INVITE", "", &body);
        let reinvite = b.request("INVITE");
        b.respond(&reinvite, "180 Ringing", "", "", "");
        take_back(&a, &leg);
        let cancel = b.request("CANCEL");
        assert_eq!((cancel.uri(), cancel.header("Via")), (reinvite.uri(), reinvite.header("Via")));
        assert_eq!((cancel.cseq(), cancel.header("Reason")), (reinvite.cseq(), REASON));
        b.respond(&cancel, "200 OK", "", "", "");
        b.respond(&reinvite, "487 Request Terminated", "", "", "");
        b.request("ACK");
    }
    // The session can be changed from either side, as if nothing had been.
    a.next(&mut leg, "INVITE", "", &held(&a));
    let reinvite = b.request("INVITE");
    b.respond(&reinvite, "200 OK", "", "", &sdp(b.local(), "0").replace("o=- 1 1", "o=- 1 2"));
    b.request("ACK");
    a.established(&mut leg);
    b.next(&mut other, "INVITE", "", &sdp(b.local(), "0").replace("o=- 1 1", "o=- 1 3"));
    let reinvite = a.request("INVITE");
    a.respond(&reinvite, "200 OK", "", "", &sdp(a.local(), "0").replace("o=- 1 1", "o=- 1 3"));
    a.request("ACK");
    b.established(&mut other);
    hang_up(&a, &mut leg, &b);
    engine.cdr("normal", 200, "caller");
    engine.quiet();
}

#[test]
fn an_answer_that_crosses_the_cancel_of_a_re_invite_is_undone() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let mut leg = a.leg("9101");
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.answer(&invite, &sdp(b.local(), "0"));
    a.established(&mut leg);
    a.next(&mut leg, "INVITE", "", &held(&a));
    let reinvite = b.request("INVITE");
    assert_ne!(described(&reinvite), described(&invite));
    b.respond(&reinvite, "100 Trying", "", "", "");
    take_back(&a, &leg);
    let cancel = b.request("CANCEL");
    let answer = sdp(b.local(), "0").replace("o=- 1 1", "o=- 1 2");
    b.respond(&reinvite, "200 OK", "", "", &answer);
    b.respond(&cancel, "200 OK", "", "", "");
    b.request("ACK");
    let again = b.request("INVITE");
    assert_eq!(described(&again), described(&invite), "the session is as it was");
    assert_eq!(version(&again), version(&reinvite) + 1);
    b.respond(&again, "200 OK", "", "", &answer.replace("o=- 1 2", "o=- 1 3"));
    b.request("ACK");
    a.next(&mut leg, "BYE", "", "");
    let heard =
        a.wait("the answer to BYE, and no request", |m| m.status().is_none() || m.answers("BYE", 200));
    assert_eq!(heard.status(), Some(200), "{heard:?}");
    let bye = b.request("BYE");
    b.respond(&bye, "200 OK", "", "", "");
    engine.cdr("normal", 200, "caller");
}

#[test]
fn a_cancel_that_names_another_dialogs_re_invite_is_refused() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let (mut leg, _) = connected(&a, &b);
    a.next(&mut leg, "INVITE", "", &held(&a));
    let reinvite = b.request("INVITE");
    let guessed = Leg { call_id: token(), ..leg.clone() };
    a.cancel(&guessed);
    a.response("CANCEL", 481);
    b.respond(&reinvite, "200 OK", "", "", &sdp(b.local(), "0").replace("o=- 1 1", "o=- 1 2"));
    b.request("ACK");
    a.established(&mut leg);
}

#[test]
fn a_199_of_a_callee_is_no_ringing_for_the_caller() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let mut leg = a.leg("9101");
    a.next(&mut leg, "INVITE", "Supported: 199\r\n", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.respond(&invite, "199 Early Dialog Terminated", "one", "", "");
    b.respond(&invite, "180 Ringing", "two", "", "");
    let first = a.wait("a provisional response", |m| m.status().is_some_and(|s| s > 100));
    assert_eq!(first.status(), Some(180));
    b.respond(&invite, "486 Busy Here", "two", "", "");
    b.request("ACK");
    assert_eq!(a.refused(&leg).status(), Some(486));
}

#[test]
fn an_update_of_a_branch_that_has_lost_is_refused_at_once() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let mut leg = a.leg("9101");
    a.next(
        &mut leg,
        "INVITE",
        "Supported: 100rel\r\nAllow: INVITE, ACK, PRACK, UPDATE\r\n",
        &sdp(a.local(), "0"),
    );
    let invite = b.request("INVITE");
    let reliable = "Require: 100rel\r\nRSeq: 1\r\nAllow: INVITE, ACK, PRACK, UPDATE\r\n";
    b.respond(&invite, "183 Session Progress", "one", reliable, &sdp(b.local(), "0"));
    let prack = b.request("PRACK");
    b.respond(&prack, "200 OK", "", "", "");
    let progress = a.response("INVITE", 183);
    leg.remote = progress.header("To").to_owned();
    leg.target = progress.contact();
    let rack = format!("RAck: {} {} INVITE\r\n", progress.header("RSeq"), leg.cseq);
    a.next(&mut leg, "PRACK", &rack, "");
    a.response("PRACK", 200);
    let mut lost = b.leg_of(&invite, "one");
    b.next(&mut lost, "UPDATE", "", &held(&b));
    a.request("UPDATE");
    b.respond(&invite, "200 OK", "two", "", &sdp(b.local(), "0"));
    let answer = b.wait("the answer to UPDATE", |m| m.answers("UPDATE", 481) || m.answers("UPDATE", 504));
    assert_eq!(answer.status(), Some(481));
}
