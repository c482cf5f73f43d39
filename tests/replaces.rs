//! Somebody takes the place of a party in a call (Replaces, RFC 3891): three parties, and each at its own socket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::calls::{call, connected, ends, hang_up};
use common::engine::station;
use common::message::tag;
use common::offer::{MODES, ack_with, direction, nothing, version};
use common::replaces::{again, agrees, is_dismissed, named, pbx, recorded, seek, seek_with, settings, start};
use common::rtp::RtpEnd;
use common::{Engine, Ua, sdp};

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
