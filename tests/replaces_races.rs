//! Somebody is to take the place of a party in a call (Replaces, RFC 3891), and cannot, or something else happens meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::calls::{call, connected, hang_up};
use common::message::tag;
use common::offer::direction;
use common::replaces::{again, agrees, is_dismissed, named, recorded, seek, start};
use common::{Engine, Leg, Msg, Ua, sdp};

/// The callee's hold goes through first; then the newcomer has the caller's place.
#[track_caller]
fn follows_a_hold(
    (engine, a, b, c): (&Engine, &Ua, &Ua, &Ua),
    held: &Msg,
    callee: &mut Leg,
    newcomer: &mut Leg,
) {
    a.respond(held, "200 OK", "", "", &(again(a, 2) + "a=recvonly\r\n"));
    a.request("ACK");
    b.established(callee);
    agrees(b, 3);
    c.established(newcomer);
    is_dismissed(a);
    hang_up(b, callee, c);
    recorded(engine, "callee", &[("caller", "trunk:pbx")]);
    engine.quiet();
}

#[test]
fn what_cannot_be_replaced_is_refused_with_the_status_that_says_why() {
    let (engine, a, b, c) = start("anchored");
    let (mut leg, _) = connected(&a, &b);
    let up = named(&leg);
    let other = |from: &str, to: &str| up.replace(from, to);
    let ours = tag(&leg.remote).unwrap();
    let cases = [
        (format!("Replaces: {up}\r\nReplaces: {up}\r\n"), 400),
        (format!("Replaces: {up}\r\nJoin: {up}\r\n"), 400),
        (format!("Replaces: {};to-tag={ours}\r\n", leg.call_id), 400),
        ("Replaces: 1@x;to-tag=a;from-tag=b\r\n".to_owned(), 481),
        (format!("Replaces: {}\r\n", other("from-tag=", "from-tag=x")), 481),
        (format!("Replaces: x{up}\r\n"), 481),
        // A tag of ours that is nobody's: the last digit is another.
        (format!("Replaces: {}\r\n", other(&ours, &format!("{}z", &ours[..ours.len() - 1]))), 481),
        (format!("Replaces: {up};early-only\r\n"), 486),
    ];
    for (headers, status) in cases {
        let mut new = c.leg("9101");
        c.next(&mut new, "INVITE", &headers, &sdp(c.local(), "0"));
        assert_eq!(c.refused(&new).status(), Some(status), "{headers}");
    }
    // Elsewhere than in an INVITE it is a mistake.
    let mut options = c.leg("9101");
    c.next(&mut options, "OPTIONS", &format!("Replaces: {up}\r\n"), "");
    assert_eq!(c.final_response("OPTIONS").status(), Some(400));
    for (result, count) in [("no_dialog", 4.0), ("not_early", 1.0), ("done", 0.0)] {
        engine.counts("tandem_replaces_total", &[("result", result)], count);
    }
    hang_up(&a, &mut leg, &b);
    engine.quiet();
    let new = seek(&c, &up);
    assert_eq!(c.refused(&new).status(), Some(603), "it has just ended");
    engine.counts("tandem_replaces_total", &[("result", "ended")], 1.0);
    // The caller's own early dialog was begun by him, not by us.
    let (mut leg, invite) = call(&a, &b, "");
    b.respond(&invite, "180 Ringing", "ringing", "", "");
    leg.remote = a.response("INVITE", 180).header("To").to_owned();
    let new = seek(&c, &named(&leg));
    assert_eq!(c.refused(&new).status(), Some(481));
    // Nobody on the other side of a call has rung or hung up for any of these.
    b.respond(&invite, "486 Busy Here", "ringing", "", "");
    assert_eq!(a.refused(&leg).status(), Some(486));
    assert_eq!(engine.wait_cdrs(2).len(), 2);
}

#[test]
fn if_the_remaining_side_refuses_the_newcomer_is_refused_and_the_call_goes_on() {
    for (answer, status) in [("488 Not Acceptable Here", 488), ("486 Busy Here", 486), ("500 Oops", 500)] {
        let (engine, a, b, c) = start("anchored");
        let (mut leg, mut other) = connected(&a, &b);
        let new = seek(&c, &named(&leg));
        let reinvite = b.request("INVITE");
        b.respond(&reinvite, answer, "", "", "");
        b.request("ACK");
        assert_eq!(c.refused(&new).status(), Some(status));
        // Either side of it can still be changed, and what b is told goes on in one row of versions.
        a.next(&mut leg, "INVITE", "", &(again(&a, 2) + "a=sendonly\r\n"));
        let held = b.request("INVITE");
        assert_eq!((direction(&held), held.header("Call-ID")), ("sendonly", other.call_id.as_str()));
        b.respond(&held, "200 OK", "", "", &(again(&b, 2) + "a=recvonly\r\n"));
        b.request("ACK");
        a.established(&mut leg);
        b.next(&mut other, "INVITE", "", &again(&b, 3));
        let retrieved = a.request("INVITE");
        a.respond(&retrieved, "200 OK", "", "", &again(&a, 3));
        a.request("ACK");
        b.established(&mut other);
        hang_up(&a, &mut leg, &b);
        recorded(&engine, "caller", &[]);
        engine.counts("tandem_replaces_total", &[("result", "refused")], 1.0);
        engine.quiet();
    }
}

#[test]
fn a_newcomer_that_gives_up_is_forgotten_and_the_remaining_side_has_what_it_had() {
    let (engine, a, b, c) = start("bypass");
    let (mut leg, _) = connected(&a, &b);
    // Its CANCEL reaches the re-INVITE ...
    let new = seek(&c, &named(&leg));
    let reinvite = b.request("INVITE");
    b.respond(&reinvite, "100 Trying", "", "", "");
    c.cancel(&new);
    assert_eq!(c.refused(&new).status(), Some(487));
    let cancel = b.request("CANCEL");
    b.respond(&cancel, "200 OK", "", "", "");
    b.respond(&reinvite, "487 Request Terminated", "", "", "");
    b.request("ACK");
    // ... or comes when that has been accepted already.
    let new = seek(&c, &named(&leg));
    let reinvite = b.request("INVITE");
    b.respond(&reinvite, "100 Trying", "", "", "");
    c.cancel(&new);
    assert_eq!(c.refused(&new).status(), Some(487));
    let cancel = b.request("CANCEL");
    b.respond(&cancel, "200 OK", "", "", "");
    b.respond(&reinvite, "200 OK", "", "", &again(&b, 2));
    b.request("ACK");
    let undone = agrees(&b, 3);
    assert_eq!(undone.media(), a.local(), "b sends to a again: {undone:?}");
    hang_up(&a, &mut leg, &b);
    recorded(&engine, "caller", &[]);
    engine.counts("tandem_replaces_total", &[("result", "cancelled")], 2.0);
    engine.quiet();
}

#[test]
fn a_side_that_hangs_up_while_it_is_being_replaced_has_its_successor_all_the_same() {
    let (engine, a, b, c) = start("anchored");
    let (mut leg, mut other) = connected(&a, &b);
    let mut new = seek(&c, &named(&leg));
    let reinvite = b.request("INVITE");
    a.hang_up(&mut leg);
    b.respond(&reinvite, "200 OK", "", "", &again(&b, 2));
    b.request("ACK");
    c.established(&mut new);
    hang_up(&b, &mut other, &c);
    recorded(&engine, "callee", &[("caller", "trunk:pbx")]);
    engine.quiet();
}

#[test]
fn without_a_successor_the_call_ends_with_the_side_that_has_hung_up() {
    let (engine, a, b, c) = start("anchored");
    let (mut leg, _) = connected(&a, &b);
    let new = seek(&c, &named(&leg));
    let reinvite = b.request("INVITE");
    a.hang_up(&mut leg);
    b.respond(&reinvite, "488 Not Acceptable Here", "", "", "");
    b.request("ACK");
    assert_eq!(c.refused(&new).status(), Some(488));
    let bye = b.request("BYE");
    b.respond(&bye, "200 OK", "", "", "");
    recorded(&engine, "caller", &[]);
    engine.quiet();
}

#[test]
fn if_the_remaining_side_hangs_up_the_newcomer_is_declined_and_the_other_is_told() {
    let (engine, a, b, c) = start("anchored");
    let (leg, mut other) = connected(&a, &b);
    let new = seek(&c, &named(&leg));
    b.request("INVITE");
    b.next(&mut other, "BYE", "", "");
    let bye = a.request("BYE");
    a.respond(&bye, "200 OK", "", "", "");
    assert_eq!(c.refused(&new).status(), Some(603));
    recorded(&engine, "callee", &[]);
    engine.counts("tandem_replaces_total", &[("result", "ended")], 1.0);
    engine.quiet();
}

#[test]
fn an_exchange_that_is_open_is_waited_for_and_a_second_newcomer_is_not() {
    let (engine, a, b, c) = start("anchored");
    let (leg, mut other) = connected(&a, &b);
    b.next(&mut other, "INVITE", "", &(again(&b, 2) + "a=sendonly\r\n"));
    let held = a.request("INVITE");
    let mut new = seek(&c, &named(&leg));
    // It waits.
    c.response("INVITE", 100);
    let second = seek(&c, &named(&leg));
    assert_eq!(c.refused(&second).status(), Some(491));
    follows_a_hold((&engine, &a, &b, &c), &held, &mut other, &mut new);
}

#[test]
fn an_offer_of_the_remaining_side_that_crosses_ours_goes_first() {
    let (engine, a, b, c) = start("anchored");
    let (leg, mut other) = connected(&a, &b);
    let mut new = seek(&c, &named(&leg));
    let reinvite = b.request("INVITE");
    // Both INVITEs are under way (RFC 3261 section 14.1): b's is refused, and ours, which b's own comes before.
    b.next(&mut other, "INVITE", "", &(again(&b, 2) + "a=sendonly\r\n"));
    let refused = b.final_response("INVITE");
    assert_eq!(refused.status(), Some(491), "{refused:?}");
    b.ack(&other, &refused);
    b.respond(&reinvite, "491 Request Pending", "", "", "");
    b.request("ACK");
    b.next(&mut other, "INVITE", "", &(again(&b, 2) + "a=sendonly\r\n"));
    let held = a.request("INVITE");
    follows_a_hold((&engine, &a, &b, &c), &held, &mut other, &mut new);
}
