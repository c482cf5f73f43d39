//! Re-INVITEs to trunks that want to make the offer themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use common::calls::{connected, ends, hang_up, trunks};
use common::offer::{MODES, direction, nothing, offer, version};
use common::{Engine, Leg, Msg, Ua};

const DELAYED: &str = "reinvite_media_timing = \"delayed\"";

/// What a phone says the next time, with this direction.
fn again(ua: &Ua, version: u32, formats: &str, direction: &str) -> String {
    offer(ua, formats, &format!("a={direction}\r\n")).replace("o=- 1 1", &format!("o=- 1 {version}"))
}

/// An offer of `by` that reaches `to` as an INVITE without one, which `to` answers with an offer of its own: what `to` gets in the ACK
/// and `by` in the 200.
#[track_caller]
fn meets(by: &Ua, leg: &mut Leg, offered: &str, to: &Ua, theirs: &str) -> (Msg, Msg) {
    by.next(leg, "INVITE", "", offered);
    let invite = to.request("INVITE");
    assert!(invite.body().is_empty() && invite.headers("Content-Type").is_empty(), "{invite:?}");
    to.respond(&invite, "200 OK", "", "", theirs);
    let ack = to.request("ACK");
    (ack, by.established(leg))
}

#[test]
fn a_hold_reaches_a_delayed_trunk_without_an_offer_and_the_ack_brings_the_answer() {
    for media in MODES {
        let keys = format!("media = \"{media}\"");
        let engine = Engine::start(&trunks(&keys, &format!("{keys}\n{DELAYED}")));
        let (a, b) = ends(&engine);
        // The INVITE has a rule of its own.
        let (mut leg, mut other) = connected(&a, &b);
        let held = again(&a, 2, "0", "sendonly");
        let (ack, answer) = meets(&a, &mut leg, &held, &b, &again(&b, 2, "8 0", "sendrecv"));
        assert_eq!((direction(&ack), direction(&answer)), ("sendonly", "recvonly"), "{ack:?} {answer:?}");
        assert!(ack.sdp_line("m=audio ").unwrap().ends_with("RTP/AVP 0"), "what both have: {ack:?}");
        assert_eq!(ack.media().ip() == engine.sip.ip(), media == "anchored");
        let retrieved = again(&a, 3, "0", "sendrecv");
        let (next, answer) = meets(&a, &mut leg, &retrieved, &b, &again(&b, 3, "0", "sendrecv"));
        assert_eq!((direction(&next), direction(&answer)), ("sendrecv", "sendrecv"));
        assert!(version(&next) > version(&ack), "{next:?}");

        // The other way nothing is delayed.
        b.next(&mut other, "INVITE", "", &again(&b, 4, "0", "sendonly"));
        let invite = a.request("INVITE");
        assert_eq!(direction(&invite), "sendonly");
        a.respond(&invite, "200 OK", "", "", &again(&a, 4, "0", "recvonly"));
        a.request("ACK");
        b.established(&mut other);
        hang_up(&a, &mut leg, &b);
        engine.cdr("normal", 200, "caller");
    }
}

#[test]
fn a_delayed_trunk_that_refuses_or_offers_what_does_not_fit_leaves_the_call_as_it_is() {
    for media in MODES {
        let keys = format!("media = \"{media}\"");
        let engine = Engine::start(&trunks(&keys, &format!("{keys}\n{DELAYED}")));
        let (a, b) = ends(&engine);
        let (mut leg, _) = connected(&a, &b);
        a.next(&mut leg, "INVITE", "", &again(&a, 2, "0", "sendonly"));
        b.respond(&b.request("INVITE"), "488 Not Acceptable Here", "", "", "");
        assert_eq!(a.refused(&leg).status(), Some(488));

        a.next(&mut leg, "INVITE", "", &again(&a, 3, "0", "sendonly"));
        let invite = b.request("INVITE");
        assert_eq!(invite.body(), "");
        b.respond(&invite, "200 OK", "", "", &again(&b, 3, "8", "sendrecv"));
        let ack = b.request("ACK");
        assert_eq!(ack.sdp_line("m=audio "), Some("0 RTP/AVP 8"), "its offer is answered: {ack:?}");
        assert_eq!(a.refused(&leg).status(), Some(488));

        let held = again(&a, 4, "0", "sendonly");
        let (ack, _) = meets(&a, &mut leg, &held, &b, &again(&b, 4, "0", "sendrecv"));
        assert_eq!(direction(&ack), "sendonly", "nothing is left open");
        hang_up(&a, &mut leg, &b);
        engine.cdr("normal", 200, "caller");
    }
}

#[test]
fn two_re_invites_that_cross_end_as_with_offers() {
    let engine = Engine::start(&trunks("", &format!("{DELAYED}\nreinvite_delay_ms = 50")));
    let (a, b) = ends(&engine);
    let (mut leg, mut other) = connected(&a, &b);
    a.next(&mut leg, "INVITE", "", &again(&a, 2, "0", "sendonly"));
    let invite = b.request("INVITE");
    b.next(&mut other, "INVITE", "", &again(&b, 2, "0", "sendonly"));
    assert_eq!(b.refused(&other).status(), Some(491));
    b.respond(&invite, "491 Request Pending", "", "", "");
    b.request("ACK");
    let invite = b.wait("the INVITE again", |m| m.is("INVITE") && m.cseq() > invite.cseq());
    assert_eq!(invite.body(), "");
    b.respond(&invite, "200 OK", "", "", &again(&b, 2, "0", "sendrecv"));
    assert_eq!(direction(&b.request("ACK")), "sendonly");
    assert_eq!(direction(&a.established(&mut leg)), "recvonly");
    hang_up(&a, &mut leg, &b);
    engine.quiet();
}

#[test]
fn who_takes_back_his_hold_leaves_the_session_at_a_delayed_trunk_as_it_was() {
    let engine = Engine::start(&trunks("", DELAYED));
    let (a, b) = ends(&engine);
    let (mut leg, _) = connected(&a, &b);
    a.next(&mut leg, "INVITE", "", &again(&a, 2, "0", "sendonly"));
    let invite = b.request("INVITE");
    b.respond(&invite, "100 Trying", "", "", "");
    a.cancel(&leg);
    assert_eq!(a.refused(&leg).status(), Some(487));
    b.respond(&b.request("CANCEL"), "200 OK", "", "", "");
    b.respond(&invite, "200 OK", "", "", &again(&b, 2, "0", "sendrecv"));
    assert_eq!(direction(&b.request("ACK")), "sendrecv", "as it is");
    nothing(&b, "INVITE");
    hang_up(&a, &mut leg, &b);
    engine.cdr("normal", 200, "caller");
}

#[test]
fn a_delayed_trunk_stays_so_for_a_call_over_a_reload_and_a_restart_whichever_side_it_is() {
    for media in MODES {
        let keys = format!("media = \"{media}\"");
        let mut engine = Engine::start(&trunks(&format!("{keys}\n{DELAYED}"), &keys));
        let (a, b) = ends(&engine);
        let (mut leg, mut other) = connected(&a, &b);
        engine.settle(&trunks(&keys, &keys));
        let reload = || assert!(engine.command(&["reload"]).output().unwrap().status.success());
        reload();
        let held = again(&b, 2, "0", "sendonly");
        let (ack, answer) = meets(&b, &mut other, &held, &a, &again(&a, 2, "0", "sendrecv"));
        assert_eq!((direction(&ack), direction(&answer)), ("sendonly", "recvonly"));
        // What has come of that is in the store once something later is.
        reload();
        engine.recorded("settings", 2);
        engine.kill9();
        engine.restart();
        let retrieved = again(&b, 3, "0", "sendrecv");
        let (ack, _) = meets(&b, &mut other, &retrieved, &a, &again(&a, 3, "0", "sendrecv"));
        assert_eq!(direction(&ack), "sendrecv");
        hang_up(&a, &mut leg, &b);
        engine.quiet();
    }
}
