//! Somebody takes the place of a party in a call (Replaces, RFC 3891): three parties, and each at its own socket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::calls::{call, connected, ends, hang_up, trunks};
use common::engine::station;
use common::message::tag;
use common::offer::{MODES, ack_with, direction, nothing, version};
use common::rtp::RtpEnd;
use common::{Engine, Leg, Msg, Ua, sdp};

/// The trunks "in" and "out", and "pbx" at {peer}:5092, which may replace calls.
fn settings(media: &str) -> String {
    let keys = format!("media = \"{media}\"");
    let pbx = "[[trunk]]\nname = \"pbx\"\nproxies = [\"{peer}:5092\"]\naccept_replaces = true\n";
    trunks(&keys, &keys) + pbx
}

/// An engine, the two ends of its calls, and who may take their places.
fn start(media: &str) -> (Engine, Ua, Ua, Ua) {
    let engine = Engine::start(&settings(media));
    let (a, b) = ends(&engine);
    let c = pbx(&engine);
    (engine, a, b, c)
}

fn pbx(engine: &Engine) -> Ua {
    Ua::on(engine, "7777", (engine.peer(), 5092).into())
}

/// The dialog of this leg, as the engine is told of it.
fn named(leg: &Leg) -> String {
    let (ours, theirs) = (tag(&leg.remote).expect("a dialog"), tag(&leg.local).unwrap());
    format!("{};to-tag={ours};from-tag={theirs}", leg.call_id)
}

/// An INVITE that is to take a place, with this offer.
fn seek_with(c: &Ua, named: &str, offer: &str) -> Leg {
    let mut leg = c.leg("9101");
    c.next(&mut leg, "INVITE", &format!("Require: replaces\r\nReplaces: {named}\r\n"), offer);
    leg
}

fn seek(c: &Ua, named: &str) -> Leg {
    seek_with(c, named, &sdp(c.local(), "0"))
}

/// A later description of the same end.
fn again(ua: &Ua, number: u32) -> String {
    sdp(ua.local(), "0").replace("o=- 1 1", &format!("o=- 1 {number}"))
}

/// The remaining side takes the newcomer's session: its re-INVITE.
#[track_caller]
fn agrees(remaining: &Ua, number: u32) -> Msg {
    let reinvite = remaining.request("INVITE");
    assert!(reinvite.to_tag().is_some(), "a re-INVITE: {reinvite:?}");
    remaining.respond(&reinvite, "200 OK", "", "", &again(remaining, number));
    remaining.request("ACK");
    reinvite
}

/// The replaced side is hung up.
#[track_caller]
fn is_dismissed(ua: &Ua) {
    let bye = ua.request("BYE");
    assert!(bye.header("Reason").contains("replaced"), "{bye:?}");
    ua.respond(&bye, "200 OK", "", "", "");
}

/// Who has taken whose place, as the only record says.
#[track_caller]
fn recorded(engine: &Engine, ended_by: &str, taken: &[(&str, &str)]) {
    let cdr = engine.cdr("normal", 200, ended_by);
    let found: Vec<_> = cdr["replaced"].as_array().into_iter().flatten().collect();
    let found: Vec<_> =
        found.iter().map(|r| (r["side"].as_str().unwrap(), r["by"].as_str().unwrap())).collect();
    assert_eq!(found, taken, "{cdr:#}");
    assert_eq!(cdr["from_trunk"], "in", "it came by there: {cdr:#}");
    assert_eq!((cdr["from"].as_str(), cdr["to"].as_str()), (Some("5551234"), Some("9101")));
}

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
fn a_trunk_takes_the_callers_place_and_the_callee_talks_to_it() {
    for media in MODES {
        let (engine, a, b, c) = start(media);
        let (leg, mut other) = connected(&a, &b);
        let mut new = seek(&c, &named(&leg));
        let reinvite = b.request("INVITE");
        assert_eq!(reinvite.header("Call-ID"), other.call_id);
        assert_eq!(reinvite.media() == c.local(), media == "bypass", "{reinvite:?}");
        // Nobody hears of anything before the callee has agreed.
        nothing(&a, "BYE");
        b.respond(&reinvite, "200 OK", "", "", &again(&b, 2));
        b.request("ACK");
        let answer = c.established(&mut new);
        assert_eq!(answer.media() == b.local(), media == "bypass", "{answer:?}");
        assert!(answer.header("Supported").contains("replaces"), "{answer:?}");
        is_dismissed(&a);
        // The new pair is a call like any other.
        c.next(&mut new, "INVITE", "", &(again(&c, 2) + "a=sendonly\r\n"));
        let held = b.request("INVITE");
        assert_eq!((direction(&held), version(&held)), ("sendonly", version(&reinvite) + 1));
        b.respond(&held, "200 OK", "", "", &(again(&b, 3) + "a=recvonly\r\n"));
        b.request("ACK");
        c.established(&mut new);
        hang_up(&b, &mut other, &c);
        recorded(&engine, "callee", &[("caller", "trunk:pbx")]);
        engine.counts("tandem_replaces_total", &[("result", "done")], 1.0);
        engine.counts("tandem_calls_total", &[], 1.0);
        engine.recorded("call.replaced", 1);
        engine.quiet();
    }
}

#[test]
fn a_trunk_takes_the_callees_place_and_another_the_callers() {
    for media in MODES {
        let (engine, a, b, c) = start(media);
        let (_, other) = connected(&a, &b);
        let mut new = seek(&c, &named(&other));
        agrees(&a, 2);
        c.established(&mut new);
        is_dismissed(&b);
        // The same trunk once more: now for the callee's place that it has, from another phone there.
        let mut next = seek(&c, &named(&new));
        agrees(&a, 3);
        c.established(&mut next);
        is_dismissed(&c);
        c.hang_up(&mut next);
        let bye = a.request("BYE");
        a.respond(&bye, "200 OK", "", "", "");
        recorded(&engine, "callee", &[("callee", "trunk:pbx"), ("callee", "trunk:pbx")]);
        engine.quiet();
    }
}

#[test]
fn audio_goes_between_the_new_pair_and_no_longer_to_who_was_replaced() {
    let (engine, a, b, c) = start("anchored");
    let [at_a, at_b, at_c] = [&a, &b, &c].map(|ua| RtpEnd::new(ua.local().ip()));
    let mut leg = a.leg("9101");
    a.next(&mut leg, "INVITE", "", &sdp(at_a.local(), "0"));
    let invite = b.request("INVITE");
    let mut other = b.answer(&invite, &sdp(at_b.local(), "0"));
    let answer = a.established(&mut leg);
    at_a.until_heard(answer.media(), 1, &at_b).expect("a heard by b");
    at_b.until_heard(invite.media(), 2, &at_a).expect("b heard by a");
    let mut new = seek_with(&c, &named(&leg), &sdp(at_c.local(), "0"));
    let reinvite = b.request("INVITE");
    b.respond(&reinvite, "200 OK", "", "", &sdp(at_b.local(), "0").replace("o=- 1 1", "o=- 1 2"));
    b.request("ACK");
    let answer = c.established(&mut new);
    is_dismissed(&a);
    at_c.until_heard(answer.media(), 3, &at_b).expect("c heard by b");
    at_b.until_heard(reinvite.media(), 4, &at_c).expect("b heard by c");
    assert_eq!(reinvite.media(), invite.media(), "b sends where it did");
    hang_up(&b, &mut other, &c);
    recorded(&engine, "callee", &[("caller", "trunk:pbx")]);
}

#[test]
fn an_early_call_is_answered_by_who_takes_the_place_of_the_phone_that_rings() {
    for media in MODES {
        let (engine, a, b, c) = start(media);
        let (mut leg, invite) = call(&a, &b, "");
        b.respond(&invite, "180 Ringing", "ringing", "", "");
        a.response("INVITE", 180);
        let ours = tag(invite.header("From")).unwrap();
        let named = format!("{};to-tag={ours};from-tag=ringing;early-only", invite.header("Call-ID"));
        let mut new = seek(&c, &named);
        let to_c = c.established(&mut new);
        let to_a = a.established(&mut leg);
        assert_eq!(to_a.media() == c.local(), media == "bypass", "{to_a:?}");
        assert_eq!(to_c.media() == a.local(), media == "bypass", "{to_c:?}");
        let cancel = b.request("CANCEL");
        b.respond(&cancel, "200 OK", "ringing", "", "");
        b.respond(&invite, "487 Request Terminated", "ringing", "", "");
        b.request("ACK");
        hang_up(&a, &mut leg, &c);
        recorded(&engine, "caller", &[("callee", "trunk:pbx")]);
        let cdr = engine.wait_cdrs(1).remove(0);
        assert_eq!(cdr["attempts"][0]["cause"], "cancelled", "{cdr:#}");
        assert!(cdr["proxy"].is_null(), "no proxy has answered: {cdr:#}");
        engine.quiet();
    }
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
fn a_trunk_that_may_replace_calls_is_told_so_and_another_is_not() {
    let (_engine, a, b, c) = start("anchored");
    for (ua, may) in [(&c, true), (&a, false)] {
        let mut options = ua.leg("9101");
        ua.next(&mut options, "OPTIONS", "", "");
        let answer = ua.final_response("OPTIONS");
        assert_eq!(answer.header("Supported").contains("replaces"), may, "{answer:?}");
    }
    let (_, invite) = call(&a, &b, "");
    assert!(!invite.header("Supported").contains("replaces"), "{invite:?}");
    for headers in ["Require: replaces\r\n", "Replaces: 1@x;to-tag=a;from-tag=b\r\n"] {
        let mut leg = a.leg("9101");
        a.next(&mut leg, "INVITE", headers, &sdp(a.local(), "0"));
        let refused = a.refused(&leg);
        assert_eq!((refused.status(), refused.header("Unsupported")), (Some(420), "replaces"));
    }
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

#[test]
fn a_newcomer_without_an_offer_gets_the_remaining_sides() {
    for media in MODES {
        let (engine, a, b, c) = start(media);
        let (leg, _) = connected(&a, &b);
        let mut new = seek_with(&c, &named(&leg), "");
        let reinvite = b.request("INVITE");
        assert!(reinvite.body().is_empty(), "{reinvite:?}");
        b.respond(&reinvite, "200 OK", "", "", &again(&b, 2));
        let offer = c.response("INVITE", 200);
        assert_eq!(offer.media() == b.local(), media == "bypass", "{offer:?}");
        is_dismissed(&a);
        ack_with(&c, &new, &offer, &sdp(c.local(), "0"));
        (new.remote, new.target) = (offer.header("To").to_owned(), offer.contact());
        let ack = b.request("ACK");
        assert_eq!(ack.media() == c.local(), media == "bypass", "{ack:?}");
        hang_up(&c, &mut new, &b);
        recorded(&engine, "caller", &[("caller", "trunk:pbx")]);

        engine.quiet();
    }
}

#[test]
fn a_station_moves_its_own_call_to_another_device_and_takes_nobody_elses() {
    let keys = "media = \"anchored\"";
    let engine = Engine::start(&(station("1001", keys) + &station("1002", keys)));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    assert!(invite.header("Supported").contains("replaces"), "{invite:?}");
    let mut other = b.answer(&invite, &sdp(b.local(), "0"));
    a.established(&mut leg);
    let replaces = format!("Replaces: {}\r\n", named(&leg));
    let stranger = Ua::new(&engine, "1002");
    let refused = stranger.call_with("1002", &replaces, &sdp(stranger.local(), "0"));
    assert_eq!(stranger.refused(&refused).status(), Some(403));
    let desk = Ua::new(&engine, "1001");
    let mut new = desk.call_with("1002", &replaces, &sdp(desk.local(), "0"));
    agrees(&b, 2);
    desk.established(&mut new);
    is_dismissed(&a);
    hang_up(&b, &mut other, &desk);
    let cdr = engine.cdr("normal", 200, "callee");
    assert_eq!(
        (cdr["replaced"][0]["by"].as_str(), cdr["from"].as_str()),
        (Some("station:1001"), Some("1001"))
    );
    engine.counts("tandem_replaces_total", &[("result", "not_allowed")], 1.0);
    engine.quiet();
}

#[test]
fn new_pairs_outlive_kill_9_whichever_shard_their_call_ids_belong_to() {
    const CALLS: usize = 8;
    let mut engine = Engine::start_with(&settings("anchored"), &[("TANDEM__NODE__SHARDS", "4")]);
    let (a, b) = ends(&engine);
    let c = pbx(&engine);
    let mut pairs = Vec::new();
    for n in 0..CALLS {
        let (leg, other) = connected(&a, &b);
        // One that is taken back, wherever it went.
        let given_up = seek(&c, &named(&leg));
        let reinvite = b.request("INVITE");
        b.respond(&reinvite, "100 Trying", "", "", "");
        c.cancel(&given_up);
        assert_eq!(c.refused(&given_up).status(), Some(487));
        let cancel = b.request("CANCEL");
        b.respond(&cancel, "200 OK", "", "", "");
        b.respond(&reinvite, "487 Request Terminated", "", "", "");
        b.request("ACK");
        let mut new = seek(&c, &named(&leg));
        agrees(&b, 2);
        c.established(&mut new);
        is_dismissed(&a);
        // Within the dialog it is found, too; what was committed before the 200 must do without.
        if n % 2 == 0 {
            c.next(&mut new, "INVITE", "", &(again(&c, 2) + "a=sendonly\r\n"));
            let held = b.request("INVITE");
            assert_eq!(held.header("Call-ID"), other.call_id);
            b.respond(&held, "200 OK", "", "", &(again(&b, 3) + "a=recvonly\r\n"));
            b.request("ACK");
            c.established(&mut new);
        }
        // When this is answered, c's ACK has been heard.
        c.next(&mut new, "INFO", "", "");
        let info = b.request("INFO");
        b.respond(&info, "200 OK", "", "", "");
        c.response("INFO", 200);
        pairs.push((new, other));
    }
    // And when this has been recorded, so has that.
    let (mut leg, _) = connected(&a, &b);
    hang_up(&a, &mut leg, &b);
    engine.recorded("call.ended", 1);
    engine.kill9();
    engine.restart();
    assert_eq!(engine.calls().len(), CALLS);
    for (n, (mut new, mut other)) in pairs.into_iter().enumerate() {
        // Who has only been answered would have to repeat his ACK before he could be hung up.
        if n % 2 == 1 {
            hang_up(&c, &mut new, &b);
        } else {
            hang_up(&b, &mut other, &c);
        }
    }
    engine.quiet();
    let mut cdrs = engine.wait_cdrs(CALLS + 1);
    cdrs.retain(|cdr| cdr["replaced"].is_array());
    assert_eq!(cdrs.len(), CALLS);
    for cdr in &cdrs {
        assert_eq!(
            (cdr["cause"].as_str(), cdr["from_trunk"].as_str()),
            (Some("normal"), Some("in")),
            "{cdr:#}"
        );
        assert_eq!(cdr["replaced"][0]["by"], "trunk:pbx", "{cdr:#}");
    }
    let by = |side: &str| cdrs.iter().filter(|cdr| cdr["ended_by"] == side).count();
    assert_eq!((by("caller"), by("callee")), (CALLS / 2, CALLS / 2));
}
