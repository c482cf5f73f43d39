//! Bodies that are more than a session description, or something else: RFC 3261 §8.2.3, RFC 5621.
#![allow(clippy::expect_used)]

mod common;

use common::calls::{TRUNKS, ends, hang_up};
use common::{Engine, Leg, Msg, Ua, sdp};

const MIXED: &str = "Content-Type: multipart/mixed;boundary=\"of-it\"\r\n";
const OPTIONAL: &str = "Content-Disposition: signal;handling=optional\r\n";

/// A session description beside what a carrier's exchange says to another, with these headers.
fn with_isup(sdp: &str, headers: &str) -> String {
    format!(
        "--of-it\r\nContent-Type: application/ISUP;version=itu-t92+\r\n{headers}\r\n\x01\x11\x02--of-it--x\r\n\
         --of-it\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--of-it--\r\n"
    )
}

/// The same message with a body of another type than a session description.
fn retyped(text: &str, kind: &str) -> String {
    text.replacen("Content-Type: application/sdp\r\n", kind, 1)
}

fn sends(ua: &Ua, leg: &mut Leg, kind: &str, body: &str) {
    leg.cseq += 1;
    leg.branch = format!("z9hG4bK{}", common::ua::token());
    leg.invite_uri = leg.target.clone();
    let text = ua.text(leg, "INVITE", &leg.target, &leg.branch, "", body);
    ua.send(retyped(&text, kind));
}

/// A 200 whose body has parts.
fn answers(ua: &Ua, invite: &Msg, body: &str) {
    let kind = MIXED.trim_start_matches("Content-Type: ");
    let to = format!("{};tag=parts", invite.header("To"));
    let to = if invite.header("To").contains(";tag=") { invite.header("To") } else { &to };
    ua.send(format!(
        "SIP/2.0 200 OK\r\nVia: {}\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\nContact: <{}>\r\n\
         c: {kind}Content-Length: {}\r\n\r\n{body}",
        invite.header("Via"),
        invite.header("From"),
        invite.header("Call-ID"),
        invite.header("CSeq"),
        ua.contact(),
        body.len()
    ));
}

#[test]
fn a_session_description_is_found_among_the_parts_of_a_body_and_crosses_alone() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let mut leg = a.leg("9101");
    for change in [false, true] {
        let offer = sdp(a.local(), "8 0").replace("- 1 1", if change { "- 1 2" } else { "- 1 1" });
        sends(&a, &mut leg, MIXED, &with_isup(&offer, OPTIONAL));
        let invite = b.request("INVITE");
        assert_eq!(invite.header("Content-Type"), "application/sdp");
        assert!(invite.sdp_line("m=audio ").is_some_and(|line| line.ends_with("RTP/AVP 8 0")), "{invite:?}");
        assert!(!invite.text.contains("ISUP") && !invite.text.contains("of-it"), "{invite:?}");
        answers(&b, &invite, &with_isup(&sdp(b.local(), "8"), OPTIONAL));
        b.request("ACK");
        let answer = a.response("INVITE", 200);
        assert_eq!(answer.header("Content-Type"), "application/sdp");
        assert!(answer.sdp_line("m=audio ").is_some_and(|line| line.ends_with("RTP/AVP 8")), "{answer:?}");
        a.accept(&mut leg, &answer);
    }
    hang_up(&a, &mut leg, &b);
    engine.cdr("normal", 200, "caller");
}

#[test]
fn what_must_be_understood_and_is_not_is_415_and_what_cannot_be_read_400() {
    let engine = Engine::start(TRUNKS);
    let (a, _b) = ends(&engine);
    let offer = sdp(a.local(), "0");
    for (kind, body, status) in [
        (MIXED, with_isup(&offer, ""), 415),
        (MIXED, with_isup(&offer, OPTIONAL).replace("--of-it--\r\n", ""), 400),
        ("Content-Type: multipart/mixed\r\n", with_isup(&offer, OPTIONAL), 400),
        ("Content-Type: multipart/related;boundary=of-it\r\n", with_isup(&offer, OPTIONAL), 415),
    ] {
        let mut leg = a.leg("9101");
        sends(&a, &mut leg, kind, &body);
        let refusal = a.refused(&leg);
        assert_eq!(refusal.status(), Some(status), "{kind} {body}");
        let accept = (status == 415).then_some("application/sdp, multipart/mixed, multipart/alternative");
        assert_eq!(refusal.headers("Accept"), Vec::from_iter(accept));
    }
}

#[test]
fn a_body_that_may_be_left_unread_is_and_the_call_has_no_offer() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let mut leg = a.leg("9101");
    sends(&a, &mut leg, &format!("Content-Type: text/html\r\n{OPTIONAL}"), "<p>");
    let invite = b.request("INVITE");
    assert!(invite.sdp_line("m=audio ").is_some(), "ours: {invite:?}");
    b.respond(&invite, "486 Busy Here", "b", "", "");
    assert_eq!(a.refused(&leg).status(), Some(486));
    engine.cdr("busy", 486, "callee");
}
