//! `kill -9` and a restart: what callers notice of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]
// A call lasts by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use std::time::{Duration, Instant};

use common::engine::{station, stations};
use common::phone::{assert_heard, connect, pair};
use common::ua::token;
use common::{Engine, Leg, SOON, Sipp, Ua, sdp, so, within};
use tandem_phone::{Command, Event};

/// How many calls are up when the engine is killed.
const CALLS: u32 = 700;
/// Ready again within this.
const READY: Duration = Duration::from_secs(2);

/// Calls come from {peer}:5090 and {peer}:5091, and go to {peer}:5070 (7...) and {peer}:5071 (8...).
const TRUNKS: &str = r#"
[[trunk]]
name = "in"
proxies = ["{peer}:5090", "{peer}:5091"]
[[trunk]]
name = "seven"
proxies = ["{peer}:5070"]
[[trunk]]
name = "eight"
proxies = ["{peer}:5071"]
[[dial_plan.pattern]]
pattern = "7X!"
target = "trunk:seven"
[[dial_plan.pattern]]
pattern = "8X!"
target = "trunk:eight"
"#;

#[test]
fn calls_survive_kill_9_and_either_side_can_end_them() {
    let begin = Instant::now();
    let mut engine = Engine::start_with(TRUNKS, &[("TANDEM__NODE__SHARDS", "2")]);
    let peer = engine.peer();
    let half = CALLS as usize / 2;
    let (count, limit) = (half.to_string(), CALLS.to_string());
    // Over the restart both sides repeat themselves, which SIPp would take for what nobody may say. What must come it waits for.
    let many = ["-m", count.as_str(), "-l", limit.as_str(), "-default_behaviors", "all,-abortunexp"];
    let calling = |number| [&many[..], &["-r", "100", "-s", number]].concat();
    let at = |port: u16| (peer, port).into();
    // The callers of the sevens hang up, of the eights the callees: each when the restarted engine has asked for it.
    let sevens = Sipp::start(&engine, "uas", at(5070), &many);
    let eights = Sipp::start(&engine, "uas_restart", at(5071), &many);
    let to_seven = Sipp::start(&engine, "uac_restart", at(5090), &calling("7001"));
    let to_eight = Sipp::start(&engine, "uac_waits", at(5091), &calling("8001"));
    within(4 * SOON, "every call up", || {
        let calls = engine.calls();
        so(calls.len() == CALLS as usize && calls.iter().all(|call| call["state"] == "up"))
    });
    let up = Instant::now();
    engine.recorded("call.answered", CALLS as usize);
    engine.kill9();
    let took = engine.restart();
    assert!(took < READY, "{took:?}");
    let down = up.elapsed().as_secs_f64();
    // They may be ended as soon as they are back.
    // The second: a thread of its own writes the log.
    let ready = common::eventually("the log says so", || {
        engine.log().lines().filter(|line| line.contains("ready: ")).nth(1).map(str::to_owned)
    });
    assert!(ready.contains(&format!("shards=2 calls={CALLS} ")), "all are back when it is ready: {ready}");
    for sipp in [to_seven, to_eight, sevens, eights] {
        sipp.passes();
    }
    engine.quiet();
    let cdrs = engine.wait_cdrs(CALLS as usize);
    let ended_by =
        |side: &str| cdrs.iter().filter(|cdr| cdr["cause"] == "normal" && cdr["ended_by"] == side).count();
    assert_eq!((ended_by("caller"), ended_by("callee")), (half, half), "{cdrs:#?}");
    let all = begin.elapsed().as_secs_f64();
    for cdr in &cdrs {
        let seconds = cdr["duration_s"].as_f64().unwrap();
        assert!((down..all).contains(&seconds), "the time before the restart counts: {cdr:#}");
        assert!(cdr["trunk"].is_string() && cdr["proxy"].is_string(), "{cdr:#}");
    }
}

#[test]
fn the_sound_goes_on_through_the_same_ports() {
    let mut engine = Engine::start(&stations(&["1001", "1002"]));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let call = a.dial("1002");
    let (_, to_a) = a.answered();
    let (other, to_b) = b.answered();
    a.listen(50);
    b.listen(50);
    engine.recorded("call.answered", 1);
    engine.kill9();
    let took = engine.restart();
    assert!(took < READY, "{took:?}");
    let (by_a, by_b) = (a.heard().packets, b.heard().packets);
    a.listen(by_a + 105);
    b.listen(by_b + 105);
    // A re-INVITE of either side works, and names the ports from before.
    for (phone, call, media) in [(&mut a, call, to_a), (&mut b, other, to_b)] {
        phone.command(Command::ReInvite(call));
        let changed = phone.wait(|event| {
            matches!(event, Event::MediaChanged { .. } | Event::ReInviteFailed { .. } | Event::Ended { .. })
        });
        assert!(
            matches!(changed, Event::MediaChanged { remote_media, .. } if remote_media == media),
            "{changed:?} instead of {media}"
        );
    }
    b.command(Command::Hangup(other));
    assert_eq!((a.ended(), b.ended()), ((false, None), (true, Some(200))));
    let cdr = engine.cdr("normal", 200, "callee");
    assert_eq!(cdr["legs"].as_array().map(Vec::len), Some(2), "{cdr:#}");
    // What comes after the restart is the same voice.
    assert!(a.heard().recognised > Some(0.4) && b.heard().recognised > Some(0.4));
    engine.quiet();
}

/// The same trunks, of which the one for the sevens has an account.
fn with_account() -> String {
    TRUNKS.replace("{peer}:5070\"]", "{peer}:5070\"]\nusername = \"office\"\npassword = \"hush\"")
}

/// Takes the 200 that comes again after a restart.
fn established_again(ua: &Ua, leg: &mut Leg) {
    let answer = ua.again("200 again", |message| message.answers("INVITE", 200));
    ua.accept(leg, &answer);
}

#[test]
fn a_bye_that_is_challenged_after_a_restart_proves_itself() {
    let mut engine = Engine::start(&with_account());
    let callee = Sipp::start(&engine, "uas_challenges", (engine.peer(), 5070).into(), &["-m", "1"]);
    let a = Ua::on(&engine, "5551234", (engine.peer(), 5090).into());
    let mut leg = a.leg("7001");
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0"));
    a.established(&mut leg);
    engine.recorded("call.answered", 1);
    engine.kill9();
    engine.restart();
    // Its checkpoint is older than the ACK.
    established_again(&a, &mut leg);
    a.hang_up(&mut leg);
    callee.passes();
    engine.cdr("normal", 200, "caller");
    engine.quiet();
    let password = |bytes: &[u8]| bytes.windows(4).any(|window| window == b"hush");
    for file in std::fs::read_dir(engine.data()).unwrap() {
        let path = file.unwrap().path();
        assert!(!path.is_file() || !password(&std::fs::read(&path).unwrap()), "{} has it", path.display());
    }
}

#[test]
fn what_is_challenged_after_a_restart_proves_itself_in_both_directions() {
    let mut engine = Engine::start(&with_account());
    let a = Ua::on(&engine, "7001", (engine.peer(), 5070).into());
    let b = Ua::on(&engine, "8001", (engine.peer(), 5071).into());
    let mut leg = a.leg("8001");
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0"));
    let mut other = b.answer(&b.request("INVITE"), &sdp(b.local(), "0"));
    a.established(&mut leg);
    engine.recorded("call.answered", 1);
    engine.kill9();
    engine.restart();
    established_again(&a, &mut leg);
    // A re-INVITE to the trunk that has called us, which a server asks about, then a proxy; then a BYE.
    let held = sdp(b.local(), "0").replace("o=- 1 1", "o=- 1 2") + "a=sendonly\r\n";
    b.next(&mut other, "INVITE", "", &held);
    let challenge = |by: &str, realm: &str| {
        format!("{by}-Authenticate: Digest realm=\"{realm}\", nonce=\"n{realm}\", qop=\"auth\"\r\n")
    };
    let signed = |method: &str, headers: &[&str]| {
        a.wait(&format!("{method} with {headers:?}"), |m| {
            let proves = |h: &&str| m.headers(h).iter().any(|v| v.contains("username=\"office\""));
            m.is(method) && headers.iter().all(proves)
        })
    };
    let first = a.request("INVITE");
    a.respond(&first, "401 Unauthorized", "", &challenge("WWW", "server"), "");
    let second = signed("INVITE", &["Authorization"]);
    a.respond(&second, "407 Proxy Authentication Required", "", &challenge("Proxy", "proxy"), "");
    let third = signed("INVITE", &["Authorization", "Proxy-Authorization"]);
    a.respond(&third, "200 OK", "", "", &sdp(a.local(), "0").replace("o=- 1 1", "o=- 1 2"));
    a.request("ACK");
    b.established(&mut other);
    b.hang_up(&mut other);
    let bye = a.request("BYE");
    a.respond(&bye, "407 Proxy Authentication Required", "", &challenge("Proxy", "proxy"), "");
    let bye = signed("BYE", &["Proxy-Authorization"]);
    a.respond(&bye, "200 OK", "", "", "");
    engine.cdr("normal", 200, "callee");
    engine.quiet();
}

#[test]
fn an_answer_for_a_call_that_may_still_come_back_ends_nothing_right_after_a_restart() {
    // The shard that gets the answer must be the one that has a call to bring back.
    let mut engine = Engine::start_with(TRUNKS, &[("TANDEM__NODE__SHARDS", "1")]);
    let at = |port| (engine.peer(), port).into();
    let (a, b) = (Ua::on(&engine, "5551234", at(5090)), Ua::on(&engine, "7001", at(5070)));
    let mut up = a.leg("7001");
    a.next(&mut up, "INVITE", "", &sdp(a.local(), "0"));
    b.answer(&b.request("INVITE"), &sdp(b.local(), "0"));
    a.established(&mut up);
    engine.recorded("call.answered", 1);
    let mut leg = a.leg("7002");
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    engine.kill9();
    let begin = Instant::now();
    engine.restart();
    b.respond(&invite, "200 OK", "b", "", &sdp(b.local(), "0"));
    b.ping();
    // A machine that is slow enough has passed the time in which calls come back.
    let in_time = begin.elapsed() < Duration::from_secs(2);
    assert!(!in_time || engine.metric("tandem_stray_answers_total", &[("result", "ended")]) == 0.0);
    let message = within(SOON, "its end", || {
        b.respond(&invite, "200 OK", "b", "", &sdp(b.local(), "0"));
        b.fresh(Duration::from_millis(500)).filter(|message| message.is("BYE"))
    });
    b.respond(&message, "200 OK", "", "", "");
}

#[test]
fn a_request_for_a_dialog_that_may_still_come_back_is_not_refused_right_after_a_restart() {
    let mut engine = Engine::start(TRUNKS);
    let (a, b) = (
        Ua::on(&engine, "5551234", (engine.peer(), 5090).into()),
        Ua::on(&engine, "7001", (engine.peer(), 5070).into()),
    );
    let mut leg = a.leg("7001");
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0"));
    b.answer(&b.request("INVITE"), &sdp(b.local(), "0"));
    a.established(&mut leg);
    engine.recorded("call.answered", 1);
    engine.kill9();
    engine.restart();
    established_again(&a, &mut leg);
    // A dialog of ours by its tag, that is not there: as one is whose turn has not come.
    let (tag, last) = leg.remote.split_at(leg.remote.len() - 1);
    let lost = Leg { remote: format!("{tag}{}", if last == "0" { "1" } else { "0" }), ..leg.clone() };
    let mut strange = Leg { remote: leg.remote.replace("tag=", "tag=nobody-"), ..leg.clone() };
    a.next(&mut strange, "INFO", "", "");
    let bye = a.text(&lost, "BYE", &lost.target, &format!("z9hG4bK{}", token()), "", "");
    a.send(&bye);
    let heard = a.wait("the answer to INFO, not to BYE", |m| m.status().is_some());
    assert!(heard.answers("INFO", 481), "{heard:?}");
    engine.reaches("tandem_requests_refused_total", &[("reason", "starting")], 1.0);
    // It comes again, as one by UDP does (Timer E), until the time is up.
    let refused = within(Duration::from_secs(5), "481", || {
        a.send(&bye);
        a.receive(Duration::from_millis(200)).filter(|m| m.answers("BYE", 481))
    });
    let starting = engine.metric("tandem_requests_refused_total", &[("reason", "starting")]);
    assert!(starting > 1.0, "{refused:?}");
    a.hang_up(&mut leg);
}

#[test]
fn an_attempt_in_progress_gets_a_record_with_cause_restart() {
    let mut engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.respond(&invite, "180 Ringing", "bob", "", "");
    let id = engine.call_in("ringing");
    // Its record is lazy: committed within 50 ms.
    common::eventually("the attempt in the log of events", || {
        let events = engine.api("GET", "/api/v1/events?from=0").to_string();
        so(events.contains(&id) && events.contains("call.ringing"))
    });
    engine.kill9();
    engine.restart();
    let cdr = engine.wait_cdrs(1).remove(0);
    assert_eq!((&cdr["call_id"], &cdr["cause"]), (&id.into(), &"restart".into()), "{cdr:#}");
    assert!(cdr["answer"].is_null(), "{cdr:#}");
    engine.counts("tandem_calls_active", &[], 0.0);
}

#[test]
fn new_calls_work_after_a_restart_and_old_records_stay() {
    let mut engine = Engine::start(&stations(&["1001", "1002"]));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    for round in 1..=3 {
        let (call, _) = connect(&mut a, &mut b);
        a.listen(105);
        a.command(Command::Hangup(call));
        assert_eq!((a.ended(), b.ended()), ((true, Some(200)), (false, None)));
        assert_heard(&a.heard());
        engine.wait_cdrs(round);
        engine.kill9();
        engine.restart();
        assert_eq!(engine.cdrs().len(), round, "no record is lost or doubled");
    }
}

#[test]
fn a_restored_call_counts_against_the_limits_of_both_its_ends() {
    let one_call = "max_calls = 1";
    let settings = station("1001", one_call) + &station("1002", one_call) + &station("1003", "");
    let mut engine = Engine::start(&settings);
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let c = Ua::new(&engine, "1003");
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    b.answer(&b.request("INVITE"), &sdp(b.local(), "0"));
    a.established(&mut leg);
    engine.recorded("call.answered", 1);
    engine.kill9();
    engine.restart();
    let busy = c.call("1002", &sdp(c.local(), "0"));
    assert_eq!(c.refused(&busy).status(), Some(486), "the callee has its one call");
    let second = a.call("1003", &sdp(a.local(), "0"));
    assert_eq!(a.refused(&second).status(), Some(503), "and so has the caller");
    a.hang_up(&mut leg);
    b.respond(&b.request("BYE"), "200 OK", "", "", "");
    engine.quiet();
    c.call("1002", &sdp(c.local(), "0"));
    b.request("INVITE");
}

#[test]
fn bindings_and_calls_keep_their_listener_wherever_the_settings_have_it() {
    let listen =
        |name: &str, port: u16| format!("[[listen]]\nname = \"{name}\"\naddress = \"{{ip}}:{port}\"\n");
    let (one, two, phones) = (listen("one", 5060), listen("two", 5062), stations(&["1001", "1002", "1003"]));
    let mut engine = Engine::start(&format!("{one}{two}{phones}"));
    let a = Ua::new(&engine, "1001").registered();
    let by_two = |user: &str| {
        let mut ua = Ua::new(&engine, user);
        ua.server.set_port(5062);
        ua
    };
    let (b, mut c) = (by_two("1002"), by_two("1003").registered());
    b.behind_nat();
    let b = b.registered();
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.answer(&invite, &sdp(b.local(), "0"));
    a.established(&mut leg);

    engine.kill9();
    engine.settle(&format!("{two}{one}{phones}"));
    engine.restart();
    a.next(&mut leg, "BYE", "", "");
    let bye = b.request("BYE");
    b.respond(&bye, "200 OK", "", "", "");
    a.response("BYE", 200);
    let via_port = |called: &Ua, number: &str| {
        let leg = a.call(number, &sdp(a.local(), "0"));
        let invite = called.request("INVITE");
        called.respond(&invite, "486 Busy Here", "called", "", "");
        assert_eq!(a.refused(&leg).status(), Some(486));
        invite.header("Via").split([':', ';']).nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(via_port(&b, "1002"), "5062");
    assert_eq!(via_port(&c, "1003"), "5062");

    // Without that listener another one of its kind calls: who is not behind a NAT hears it.
    engine.kill9();
    engine.settle(&format!("{one}{phones}"));
    engine.restart();
    c.server.set_port(5060);
    assert_eq!(via_port(&c, "1003"), "5060");
    assert!(engine.log().contains("a listener that is not configured any more"), "{}", engine.log());
}
