//! Answers that come when nobody waits for them: each is acknowledged and ended (RFC 3261 §9.1, §13.2.2.4), or whoever gave it
//! would believe for ever that he is in a call.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::calls::{call, ends, hang_up, trunks};
use common::engine::stations;
use common::offer::prack;
use common::{Engine, Msg, Ua, sdp};

/// Calls cross the trunks, of which `out` may ask who we are; what nobody answers is given up after 64 times 20 ms.
fn settings() -> String {
    let trunks = trunks("", "username = \"office\"\npassword = \"hush\"");
    format!("[[listen]]\naddress = \"{{ip}}:5060\"\nt1_ms = 20\n{trunks}")
}

fn to_tag(message: &Msg) -> String {
    message.header("To").split("tag=").nth(1).unwrap_or_default().to_owned()
}

/// The 200 of this branch comes, and is acknowledged and ended.
#[track_caller]
fn is_ended(b: &Ua, invite: &Msg, tag: &str) {
    b.respond(invite, "200 OK", tag, "", &sdp(b.local(), "0"));
    let ack = b.request("ACK");
    assert_eq!((to_tag(&ack).as_str(), ack.cseq()), (tag, invite.cseq()), "{ack:?}");
    let bye = b.request("BYE");
    assert_eq!(to_tag(&bye), tag);
    assert!(bye.cseq() > invite.cseq());
    b.respond(&bye, "200 OK", "", "", "");
}

#[test]
fn a_proxy_that_asks_who_ends_a_lost_branch_is_told() {
    let engine = Engine::start(&settings());
    let (a, b) = ends(&engine);
    let (mut leg, invite) = call(&a, &b, "");
    b.answer(&invite, &sdp(b.local(), "0"));
    a.established(&mut leg);
    b.respond(&invite, "200 OK", "lost", "", &sdp(b.local(), "0"));
    b.request("ACK");
    let bye = b.request("BYE");
    let challenge = "Proxy-Authenticate: Digest realm=\"carrier\", nonce=\"abc\", qop=\"auth\"\r\n";
    b.respond(&bye, "407 Proxy Authentication Required", "", challenge, "");
    let again = b.request("BYE");
    assert_eq!((to_tag(&again).as_str(), again.cseq()), ("lost", bye.cseq() + 1));
    assert!(again.header("Proxy-Authorization").contains("username=\"office\""), "{again:?}");
    b.respond(&again, "200 OK", "", "", "");
    engine.call_in("up");
    a.next(&mut leg, "BYE", "", "");
    let bye = b.request("BYE");
    assert_ne!(to_tag(&bye), "lost");
    b.respond(&bye, "200 OK", "", "", "");
    engine.cdr("normal", 200, "caller");
}

#[test]
fn an_answer_after_a_cancel_that_was_given_up_is_ended() {
    let engine = Engine::start(&settings());
    let (a, b) = ends(&engine);
    let (leg, invite) = call(&a, &b, "");
    b.respond(&invite, "180 Ringing", "late", "", "");
    a.response("INVITE", 180);
    a.cancel(&leg);
    assert_eq!(a.refused(&leg).status(), Some(487));
    // The callee says nothing to the CANCEL until no transaction waits any more.
    b.request("CANCEL");
    engine.cdr("abandoned", 487, "caller");
    engine.quiet();
    is_ended(&b, &invite, "late");
    is_ended(&b, &invite, "another");
    engine.reaches("tandem_stray_answers_total", &[("result", "ended")], 2.0);
}

#[test]
fn an_answer_after_an_invite_that_nobody_answered_in_time_is_ended() {
    let engine = Engine::start(&settings());
    let (a, b) = ends(&engine);
    let (leg, invite) = call(&a, &b, "");
    assert!(a.refused(&leg).status() >= Some(408), "Timer B");
    engine.quiet();
    is_ended(&b, &invite, "slow");
}

#[test]
fn a_phone_that_rings_for_a_call_that_was_given_up_is_cancelled() {
    let engine = Engine::start(&settings());
    let (a, b) = ends(&engine);
    let (leg, invite) = call(&a, &b, "");
    assert!(a.refused(&leg).status() >= Some(408), "Timer B");
    engine.quiet();
    b.respond(&invite, "180 Ringing", "ghost", "", "");
    let cancel = b.request("CANCEL");
    let branch = |message: &Msg| message.header("Via").split("branch=").nth(1).unwrap_or_default().to_owned();
    assert_eq!((branch(&cancel), cancel.cseq()), (branch(&invite), invite.cseq()));
    assert_eq!((cancel.header("To"), cancel.header("From")), (invite.header("To"), invite.header("From")));
    b.respond(&cancel, "200 OK", "ghost", "", "");
    b.respond(&invite, "487 Request Terminated", "ghost", "", "");
    let ack = b.request("ACK");
    assert_eq!((branch(&ack), to_tag(&ack).as_str()), (branch(&invite), "ghost"));
    engine.reaches("tandem_stray_answers_total", &[("result", "cancelled")], 1.0);
}

#[test]
fn an_answer_that_comes_after_the_ringing_was_given_up_is_ended() {
    let engine = Engine::start(&(settings() + &stations(&["1002"]) + "ring_timeout_s = 1\n"));
    let (a, _b) = ends(&engine);
    let b = Ua::new(&engine, "1002").registered();
    let (leg, invite) = call(&a, &b, "");
    b.respond(&invite, "180 Ringing", "late", "", "");
    assert_eq!(a.refused(&leg).status(), Some(480));
    let cancel = b.request("CANCEL");
    b.respond(&cancel, "200 OK", "late", "", "");
    engine.cdr("no_answer", 480, "engine");
    engine.quiet();
    is_ended(&b, &invite, "late");
}

#[test]
fn an_answer_without_a_contact_is_ended_by_the_address_in_to() {
    let engine = Engine::start(&settings());
    let (a, b) = ends(&engine);
    let (leg, invite) = call(&a, &b, "");
    assert!(a.refused(&leg).status() >= Some(408));
    engine.quiet();
    let (via, from, to) = (invite.header("Via"), invite.header("From"), invite.header("To"));
    b.send(format!(
        "SIP/2.0 200 OK\r\nVia: {via}\r\nFrom: {from}\r\nTo: {to};tag=bare\r\nCall-ID: {}\r\nCSeq: {} INVITE\r\n\
         Content-Length: 0\r\n\r\n",
        invite.header("Call-ID"),
        invite.cseq()
    ));
    assert_eq!(to_tag(&b.request("ACK")), "bare");
    let bye = b.request("BYE");
    assert!(to.contains(bye.uri()), "{to} {bye:?}");
    b.respond(&bye, "200 OK", "", "", "");
}

#[test]
fn a_branch_that_answers_the_invite_which_another_has_challenged_is_ended() {
    let engine = Engine::start(&settings());
    let (a, b) = ends(&engine);
    let (mut leg, invite) = call(&a, &b, "");
    let challenge = "Proxy-Authenticate: Digest realm=\"carrier\", nonce=\"abc\", qop=\"auth\"\r\n";
    b.respond(&invite, "407 Proxy Authentication Required", "proxy", challenge, "");
    b.request("ACK");
    let again = b.request("INVITE");
    assert_eq!(again.cseq(), invite.cseq() + 1);
    is_ended(&b, &invite, "early");
    let mut other = b.answer(&again, &sdp(b.local(), "0"));
    a.established(&mut leg);
    engine.call_in("up");
    hang_up(&b, &mut other, &a);
    engine.cdr("normal", 200, "callee");
}

#[test]
fn each_fork_whose_prack_is_challenged_gets_it_again_with_the_answer() {
    let engine = Engine::start(&settings());
    let (a, b) = ends(&engine);
    let mut leg = a.leg("9101");
    a.next(&mut leg, "INVITE", "Supported: 100rel\r\n", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    let pracks = ["one", "two"].map(|tag| {
        let reliable = "Require: 100rel\r\nRSeq: 5\r\n";
        b.respond(&invite, "183 Session Progress", tag, reliable, &sdp(b.local(), "0"));
        b.request("PRACK")
    });
    for (tag, prack) in ["one", "two"].iter().zip(&pracks) {
        let challenge =
            format!("Proxy-Authenticate: Digest realm=\"carrier\", nonce=\"{tag}\", qop=\"auth\"\r\n");
        b.respond(prack, "407 Proxy Authentication Required", "", &challenge, "");
        let again = b.request("PRACK");
        assert_eq!((to_tag(&again).as_str(), again.header("RAck")), (*tag, prack.header("RAck")));
        assert!(again.header("Proxy-Authorization").contains(&format!("nonce=\"{tag}\"")), "{again:?}");
        b.respond(&again, "200 OK", "", "", "");
    }
    let progress = a.response("INVITE", 183);
    prack(&a, &mut leg, &progress, "");
    a.response("PRACK", 200);
    b.respond(&invite, "200 OK", "two", "", "");
    assert_eq!(to_tag(&b.request("ACK")), "two");
    a.established(&mut leg);
    hang_up(&a, &mut leg, &b);
    engine.cdr("normal", 200, "caller");
}
