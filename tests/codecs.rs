//! Which codecs are offered to a trunk and taken from it, in which order, and what becomes of calls that have none in common.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use common::calls::{ends, hang_up, trunks};
use common::engine::stations;
use common::offer::{MODES, ack_with, end, offer};
use common::ua::token;
use common::{Engine, Leg, Msg, Ua, sdp};

const EVENTS: &str = "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n";

/// The formats of the audio line.
#[track_caller]
fn formats(message: &Msg) -> &str {
    let line = message.sdp_line("m=audio ").unwrap_or_else(|| panic!("no audio: {message:?}"));
    line.split_once("RTP/AVP ").unwrap().1
}

/// A call from the trunk "in" with this offer, and the INVITE that leaves by "out".
#[track_caller]
fn call(a: &Ua, b: &Ua, body: &str) -> (Leg, Msg) {
    let mut leg = a.leg(&b.user);
    a.next(&mut leg, "INVITE", "", body);
    (leg, b.request("INVITE"))
}

/// The same, answered with these formats; both legs, and what the caller gets.
#[track_caller]
fn connected(a: &Ua, b: &Ua, offered: &str, answered: &str) -> (Leg, Leg, Msg) {
    let (mut leg, invite) = call(a, b, &offer(a, offered, EVENTS));
    let tag = token();
    b.respond(&invite, "200 OK", &tag, "", &offer(b, answered, EVENTS));
    b.request("ACK");
    let answer = a.established(&mut leg);
    (leg, b.leg_of(&invite, &tag), answer)
}

/// An offer by re-INVITE: what arrives at the other end, which answers it so.
#[track_caller]
fn reoffered(by: &Ua, leg: &mut Leg, to: &Ua, offered: &str, answered: &str) -> (Msg, Msg) {
    by.next(leg, "INVITE", "", &offer(by, offered, "").replace("o=- 1 1", "o=- 1 2"));
    let invite = to.request("INVITE");
    to.respond(&invite, "200 OK", "", "", &offer(to, answered, "").replace("o=- 1 1", "o=- 1 2"));
    to.request("ACK");
    let answer = by.established(leg);
    (invite, answer)
}

#[test]
fn a_trunk_is_offered_its_codecs_in_its_order_and_nothing_else_in_every_exchange() {
    for media in MODES {
        let keys = format!("media = \"{media}\"");
        let settings = trunks(&keys, &format!("{keys}\ncodecs = [\"G722\", \"PCMA\", \"opus\"]"));
        let engine = Engine::start(&settings);
        let (a, b) = ends(&engine);
        let (mut leg, invite) = call(&a, &b, &offer(&a, "0 8 18 9 101", EVENTS));
        assert_eq!(formats(&invite), "9 8 101", "{invite:?}");
        assert!(invite.body().contains("a=rtpmap:101 telephone-event/8000\r\n"), "{invite:?}");
        assert_eq!(invite.media().ip() == engine.sip.ip(), media == "anchored");
        // What was not offered is not taken either.
        let tag = token();
        b.respond(&invite, "200 OK", &tag, "", &offer(&b, "0 8 101", EVENTS));
        b.request("ACK");
        let mut other = b.leg_of(&invite, &tag);
        assert_eq!(formats(&a.established(&mut leg)), "8 101");

        let (invite, answer) = reoffered(&a, &mut leg, &b, "8 0 9", "8");
        assert_eq!((formats(&invite), formats(&answer)), ("9 8", "8"));
        let (invite, answer) = reoffered(&b, &mut other, &a, "0 8 9", "9 8");
        assert_eq!((formats(&invite), formats(&answer)), ("9 8", "9 8"), "its own order is its setting's");

        // Nothing is left of this one: it is refused, and the session stays as it is.
        b.next(&mut other, "INVITE", "", &offer(&b, "0", "").replace("o=- 1 1", "o=- 1 3"));
        assert_eq!(b.refused(&other).status(), Some(488));
        hang_up(&a, &mut leg, &b);
        engine.cdr("normal", 200, "caller");
    }
}

#[test]
fn what_a_trunk_offers_beyond_its_codecs_goes_nowhere() {
    for media in MODES {
        let keys = format!("media = \"{media}\"");
        let engine = Engine::start(&trunks(&format!("{keys}\ncodecs = [\"PCMU\", \"G729\"]"), &keys));
        let (a, b) = ends(&engine);
        let mut leg = a.leg(&b.user);
        a.next(&mut leg, "INVITE", "", &offer(&a, "8 9", ""));
        let refused = a.refused(&leg);
        assert_eq!(refused.status(), Some(488));
        assert!(refused.header("Warning").starts_with("305 "), "{refused:?}");
        engine.counts("tandem_invites_refused_total", &[("reason", "media")], 1.0);

        let (mut leg, mut other, answer) = connected(&a, &b, "8 18 0 101", "18 101");
        assert_eq!(formats(&answer), "18 101");
        let (invite, _) = reoffered(&b, &mut other, &a, "8 18", "18");
        assert_eq!(formats(&invite), "18", "nor is it offered anything else");
        hang_up(&a, &mut leg, &b);
        engine.cdr("normal", 200, "caller");
    }
}

#[test]
fn an_answer_with_none_of_the_trunks_codecs_ends_the_call() {
    for media in MODES {
        let engine = Engine::start(&trunks("", &format!("media = \"{media}\"\ncodecs = [\"PCMA\"]")));
        let (a, b) = ends(&engine);
        let (leg, invite) = call(&a, &b, &offer(&a, "0 8", ""));
        // Its early media is nothing that could be heard.
        b.respond(&invite, "183 Session Progress", "far", "", &offer(&b, "0", ""));
        assert_eq!(a.response("INVITE", 183).body(), "");
        b.respond(&invite, "200 OK", "far", "", &offer(&b, "0", ""));
        b.request("ACK");
        b.respond(&b.request("BYE"), "200 OK", "", "", "");
        assert_eq!(a.refused(&leg).status(), Some(488));
        engine.cdr("media", 488, "engine");
        engine.quiet();
    }
}

#[test]
fn a_trunk_that_takes_none_of_the_callers_codecs_is_passed_over() {
    let settings = trunks("", "codecs = [\"G722\"]")
        + "[[trunk]]\nname = \"next\"\nproxies = [\"{peer}:5071\"]\ncodecs = [\"PCMA\"]\n\
           [[dial_plan.route_group]]\nname = \"all\"\ntrunks = [\"out\", \"next\"]\n\
           [[dial_plan.pattern]]\npattern = \"8.X!\"\ntarget = \"route_group:all\"\n";
    let engine = Engine::start(&settings);
    let (a, b) = ends(&engine);
    let next = Ua::on(&engine, "8101", (engine.peer(), 5071).into());
    let (mut leg, invite) = call(&a, &next, &sdp(a.local(), "0 8"));
    assert_eq!(formats(&invite), "8");
    next.answer(&invite, &sdp(next.local(), "8"));
    a.established(&mut leg);
    hang_up(&a, &mut leg, &next);
    let cdr = engine.cdr("normal", 200, "caller");
    assert_eq!(cdr["trunk"], "next", "{cdr:#}");
    engine.recorded("trunk.attempt", 1);
    let why = engine.command(&["why", cdr["call_id"].as_str().unwrap()]).output().unwrap();
    let why = String::from_utf8(why.stdout).unwrap();
    assert!(why.contains("no common codec"), "{why}");

    // Where no other is left the caller hears why.
    let mut leg = a.leg(&b.user);
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0 8"));
    assert_eq!(a.refused(&leg).status(), Some(488));
    let cdr = &engine.wait_cdrs(2)[1];
    assert_eq!((cdr["cause"].as_str(), cdr["sip_status"].as_u64()), (Some("media"), Some(488)), "{cdr:#}");
    engine.quiet();
}

#[test]
fn our_own_offers_are_of_the_trunks_codecs_too() {
    let engine = Engine::start(&trunks("codecs = [\"PCMA\"]", "codecs = [\"G729\", \"PCMA\", \"PCMU\"]"));
    let (a, b) = ends(&engine);
    let (leg, invite) = call(&a, &b, "");
    assert_eq!(formats(&invite), "8 101", "what both trunks may use");
    let tag = token();
    b.respond(&invite, "200 OK", &tag, "", &sdp(b.local(), "8"));
    b.request("ACK");
    let answer = a.response("INVITE", 200);
    assert_eq!(formats(&answer), "8");
    ack_with(&a, &leg, &answer, &sdp(a.local(), "8"));
    let mut leg = Leg { remote: answer.header("To").to_owned(), target: answer.contact(), ..leg };
    hang_up(&a, &mut leg, &b);

    // A service of ours.
    for (body, taken) in [(sdp(a.local(), "0 8"), "8"), (String::new(), "8 101")] {
        let mut leg = a.leg("*43");
        a.next(&mut leg, "INVITE", "", &body);
        let answer = a.response("INVITE", 200);
        assert_eq!(formats(&answer), taken);
        let ours = if body.is_empty() { sdp(a.local(), "8") } else { String::new() };
        ack_with(&a, &leg, &answer, &ours);
        leg.remote = answer.header("To").to_owned();
        leg.target = answer.contact();
        a.hang_up(&mut leg);
    }
    engine.quiet();
}

#[test]
fn both_ends_of_a_delayed_invite_get_what_both_trunks_may_use() {
    for media in MODES {
        let keys = format!("media = \"{media}\"");
        let outbound = format!("{keys}\nmedia_timing = \"delayed\"\ncodecs = [\"PCMA\", \"PCMU\"]");
        let engine = Engine::start(&trunks(&format!("{keys}\ncodecs = [\"PCMU\", \"G722\"]"), &outbound));
        let (a, b) = ends(&engine);
        let (mut leg, invite) = call(&a, &b, &sdp(a.local(), "9 8 0"));
        assert_eq!(invite.body(), "");
        b.respond(&invite, "200 OK", "far", "", &sdp(b.local(), "8 9 0"));
        assert_eq!(formats(&b.request("ACK")), "0");
        assert_eq!(formats(&a.established(&mut leg)), "0");
        hang_up(&a, &mut leg, &b);
        engine.cdr("normal", 200, "caller");
    }
}

#[test]
fn a_call_keeps_its_codecs_over_a_reload_and_over_a_restart() {
    for media in MODES {
        let keys = format!("media = \"{media}\"");
        let settings = |codecs: &str| trunks(&keys, &format!("{keys}\ncodecs = [{codecs}]"));
        let mut engine = Engine::start(&settings("\"PCMA\", \"G722\""));
        let (a, b) = ends(&engine);
        let (mut leg, _, answer) = connected(&a, &b, "0 8 9", "8");
        assert_eq!(formats(&answer), "8");
        let told = engine.reloaded(&settings("\"PCMU\""), &[]);
        assert!(
            told.contains("~ trunk out: codecs ") && told.contains("(1 call keeps its settings)"),
            "{told}"
        );
        let (invite, _) = reoffered(&a, &mut leg, &b, "0 9 8", "9");
        assert_eq!(formats(&invite), "8 9", "as it began");
        let (mut second, _, _) = connected(&a, &b, "0 8 9", "0");

        engine.kill9();
        engine.restart();
        let (invite, _) = reoffered(&a, &mut leg, &b, "0 9 8", "8");
        assert_eq!(formats(&invite), "8 9", "as it began");
        let (invite, _) = reoffered(&a, &mut second, &b, "8 0", "0");
        assert_eq!(formats(&invite), "0");
        for leg in [&mut leg, &mut second] {
            a.next(leg, "BYE", "", "");
            let bye = b.request("BYE");
            b.respond(&bye, "200 OK", "", "", "");
            a.response("BYE", 200);
        }
        engine.quiet();
    }
}

#[test]
fn stations_and_trunks_without_codecs_of_their_own_have_those_of_their_site() {
    let station = |name: &str| stations(&[name]).replace("extension", "location = \"branch\"\nextension");
    let settings = format!(
        "[[location]]\nname = \"branch\"\ncodecs = [\"G729\", \"PCMA\"]\n{}{}{}",
        station("1001"),
        stations(&["1002"]),
        trunks("location = \"branch\"", "location = \"branch\"\ncodecs = [\"PCMU\"]"),
    );
    let engine = Engine::start(&settings);
    let (phone, other) = (Ua::new(&engine, "1001").registered(), Ua::new(&engine, "1002").registered());
    let mut leg = other.call("1001", &sdp(other.local(), "0 8 18"));
    let invite = phone.request("INVITE");
    assert_eq!(formats(&invite), "18 8");
    phone.answer(&invite, &sdp(phone.local(), "8"));
    assert_eq!(formats(&other.established(&mut leg)), "8");
    end(&engine, &other, &mut leg, &phone);

    // From the site over a trunk of the site that has its own.
    let (_, far) = ends(&engine);
    let leg = phone.call("9101", &sdp(phone.local(), "0 8"));
    assert_eq!(phone.refused(&leg).status(), Some(488));
    let leg = other.call("9101", &sdp(other.local(), "8 0"));
    let invite = far.request("INVITE");
    assert_eq!(formats(&invite), "0");
    far.respond(&invite, "486 Busy Here", "b", "", "");
    other.refused(&leg);
    engine.quiet();
    let check = engine.command(&["check"]).output().unwrap();
    let told = String::from_utf8(check.stdout).unwrap() + &String::from_utf8(check.stderr).unwrap();
    assert!(check.status.success() && !told.contains("no effect"), "{told}");
}
