//! A shard whose thread is stuck: it is fenced, another has its sockets and its calls, and what its thread does later counts for nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]
// A stall lasts by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use std::time::{Duration, Instant};

use common::calls::{TRUNKS, connected, ends};
use common::engine::{station, stations};
use common::phone::{assert_heard, connect, pair};
use common::stream::{both, until_closed};
use common::{Engine, Leg, Msg, Ua, eventually, sdp, so};
use serde_json::Value;
use tandem_phone::Command;

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// A stuck shard has another in its place after this: 2 s of silence, half a second until that is seen, and what a busy machine adds.
const REPLACED: Duration = Duration::from_secs(6);
const STANDSTILLS: &str = "tandem_shard_standstills_total";

fn start(shards: &str, toml: &str) -> Engine {
    Engine::start_with(toml, &[("TANDEM_CHAOS", "1"), ("TANDEM__NODE__SHARDS", shards)])
}

/// The shard of each call by its caller's Call-ID.
fn shard_of(engine: &Engine, leg: &Leg) -> u64 {
    let mut calls = engine.calls().into_iter();
    let mine = |call: &Value| call["sip_call_ids"].as_array().unwrap().iter().any(|id| *id == *leg.call_id);
    calls.find(mine).expect("the call")["shard"].as_u64().unwrap()
}

/// A call of two stations that is up.
fn up(a: &Ua, b: &Ua) -> (Leg, Leg) {
    let mut leg = a.call(&b.user, &sdp(a.local(), "0"));
    let other = b.answer(&b.request("INVITE"), &sdp(b.local(), "0"));
    a.established(&mut leg);
    (leg, other)
}

/// Waits for a message of a call. A shard that takes calls over repeats a 200 whose ACK it may not have heard, and asks each peer whether he has
/// the call too: it is told so, as any phone tells it.
fn hear(ua: &Ua, leg: &Leg, what: &str, pick: impl Fn(&Msg) -> bool) -> Msg {
    loop {
        let message = ua.again(what, |message| {
            let of_call = message.header("Call-ID") == leg.call_id;
            message.is("OPTIONS") || message.answers("INVITE", 200) || of_call && pick(message)
        });
        if message.is("OPTIONS") {
            ua.respond(&message, "200 OK", "", "", "");
        } else if message.answers("INVITE", 200) {
            let (call_id, local) = (message.header("Call-ID").to_owned(), message.header("From").to_owned());
            ua.ack(&Leg { call_id, local, ..leg.clone() }, &message);
        } else {
            return message;
        }
    }
}

/// The other side hears that this one hangs up, as this one hears.
fn hung_up(one: (&Ua, &Leg), other: (&Ua, &Leg)) {
    let bye = hear(other.0, other.1, "BYE", |message| message.is("BYE"));
    other.0.respond(&bye, "200 OK", "", "", "");
    hear(one.0, one.1, "200 to BYE", |message| message.answers("BYE", 200));
}

fn hang_up(one: (&Ua, &mut Leg), other: (&Ua, &Leg)) {
    one.0.next(one.1, "BYE", "", "");
    hung_up((one.0, one.1), other);
}

/// Nothing is left of any call: neither in the gauges, nor of the limits, nor in the tree.
fn nothing_is_left(engine: &Engine) {
    engine.counts("tandem_calls_active", &[], 0.0);
    engine.counts("tandem_media_sessions_active", &[], 0.0);
    engine.counts("tandem_trunk_calls_active", &[], 0.0);
    for kind in ["stations", "trunks"] {
        let list = engine.api("GET", &format!("/api/v1/{kind}"));
        for one in list.as_array().unwrap() {
            assert_eq!(one["calls"], 0, "{one:#}");
        }
    }
    eventually("no actor of a call in the tree", || {
        let tree = engine.api("GET", "/api/v1/tree");
        let alive = |kind: &str| {
            let kinds = tree["kinds"].as_array().unwrap();
            kinds.iter().find(|k| k["kind"] == kind).unwrap()["alive"].as_i64().unwrap()
        };
        so(alive("call") == 0 && alive("dialog") == 0 && alive("media_session") == 0)
    });
}

#[test]
fn calls_of_a_stuck_shard_go_on_by_another() {
    let engine = start("2", &stations(&["1001", "1002", "1003", "1004"]));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let (call, _) = connect(&mut a, &mut b);
    engine.call_in("up");
    let stuck = engine.calls()[0]["shard"].as_u64().unwrap();
    let (c, d) = (Ua::new(&engine, "1003"), Ua::new(&engine, "1004").registered());
    let mut calls = Vec::new();
    let count = |calls: &[(Leg, Leg, u64)], shard| calls.iter().filter(|(.., of)| *of == shard).count();
    while count(&calls, 0) < 2 || count(&calls, 1) < 2 {
        let (leg, other) = up(&c, &d);
        let shard = shard_of(&engine, &leg);
        calls.push((leg, other, shard));
    }
    a.listen(30);
    b.listen(30);
    let begin = Instant::now();
    engine.recorded("call.answered", calls.len() + 1);
    engine.stall(stuck, FOR_EVER);
    engine.replaced(1);
    assert!(begin.elapsed() < REPLACED, "{:?}", begin.elapsed());

    // Each is ended once by this side and once by that, on the shard that was stuck too.
    let total = calls.len() + 1;
    for (place, (mut leg, mut other, _)) in calls.into_iter().enumerate() {
        if place % 2 == 0 {
            hang_up((&c, &mut leg), (&d, &other));
        } else {
            hang_up((&d, &mut other), (&c, &leg));
        }
    }
    // Whoever calls now, on either shard, registered on either.
    let d = d.registered();
    let mut shards = [0, 0];
    while shards.contains(&0) {
        let (mut leg, other) = up(&c, &d);
        shards[shard_of(&engine, &leg) as usize] += 1;
        hang_up((&c, &mut leg), (&d, &other));
    }
    let later: usize = shards.iter().sum();

    for phone in [&a, &b] {
        phone.listen(phone.heard().packets.max(155) + 50);
    }
    a.command(Command::Hangup(call));
    assert_eq!((a.ended(), b.ended()), ((true, Some(200)), (false, None)));
    for heard in [a.heard(), b.heard()] {
        assert_heard(&heard);
        assert!(heard.longest_gap_ms < 500, "nothing of it is heard: {heard:?}");
    }
    let cdrs = engine.wait_cdrs(total + later);
    assert!(cdrs.iter().all(|cdr| cdr["cause"] == "normal" && cdr["sip_status"] == 200), "{cdrs:#?}");
    nothing_is_left(&engine);

    // It is told wherever somebody may look.
    assert_eq!(engine.metric("tandem_shards_abandoned", &[]), 1.0);
    assert_eq!(engine.metric("tandem_actor_restarts_total", &[("actor", "shard")]), 1.0);
    let tree = engine.api("GET", "/api/v1/tree");
    let epochs: Vec<u64> =
        tree["shards"].as_array().unwrap().iter().map(|s| s["epoch"].as_u64().unwrap()).collect();
    assert_eq!((epochs[stuck as usize], epochs[1 - stuck as usize]), (1, 0));
    let shards = tree["kinds"].as_array().unwrap().iter().find(|kind| kind["kind"] == "shard").unwrap();
    assert_eq!((&shards["alive"], &shards["restarts"]), (&2.into(), &1.into()));
    let events = engine.api("GET", "/api/v1/events?from=0&max=10000");
    let told = events.as_array().unwrap().iter().find(|event| event["type"] == "actor.restarted").unwrap();
    assert_eq!(told["data"]["actor"], format!("shard:{stuck}"), "{told:#}");
    let drawn = engine.command(&["tree"]).output().expect("the program");
    let drawn = String::from_utf8_lossy(&drawn.stdout).into_owned();
    assert!(drawn.contains(&format!("shard:{stuck} (epoch 1)")), "{drawn}");
}

#[test]
fn an_attempt_that_is_cut_off_has_an_answer_and_a_record() {
    let engine = start("1", &stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let leg = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.respond(&invite, "180 Ringing", "bob", "", "");
    a.response("INVITE", 180);
    engine.call_in("ringing");
    engine.recorded("call.ringing", 1);
    engine.stall(0, FOR_EVER);
    assert_eq!(a.refused(&leg).status(), Some(500));
    let cdr = engine.cdr("stall", 0, "engine");
    assert_eq!((cdr["from"].as_str(), cdr["to"].as_str()), (Some("1001"), Some("1002")));
    // Who answers too late, and again until he is heard, is told that nobody waits for him.
    let bye = eventually("BYE", || {
        b.respond(&invite, "200 OK", "bob", "", &sdp(b.local(), "0"));
        b.receive(Duration::from_millis(500)).filter(|message| message.is("BYE"))
    });
    b.respond(&bye, "200 OK", "", "", "");
    let (mut leg, other) = up(&a, &b);
    hang_up((&a, &mut leg), (&b, &other));
    engine.wait_cdrs(2);
    nothing_is_left(&engine);
}

#[test]
fn a_thread_that_comes_to_life_again_does_no_harm() {
    let settings = station("1001", "max_calls = 1") + &station("1002", "max_calls = 1") + TRUNKS;
    let engine = start("1", &settings);
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let (far_a, far_b) = ends(&engine);
    let (mut leg, other) = up(&a, &b);
    let (mut far, far_other) = connected(&far_a, &far_b);
    engine.recorded("call.answered", 2);
    engine.stall(0, Duration::from_secs(4));
    // Whatever comes meanwhile waits for the thread too, which must not take it.
    a.next(&mut leg, "BYE", "", "");
    engine.replaced(1);
    hung_up((&a, &leg), (&b, &other));
    eventually("the thread wakes", || engine.log().contains("has come to life").then_some(()));
    engine.counts("tandem_calls_active", &[], 1.0);
    engine.counts("tandem_trunk_calls_active", &[("trunk", "out")], 1.0);
    hang_up((&far_a, &mut far), (&far_b, &far_other));
    // The places are there again, each once.
    for _ in 0..2 {
        let (mut leg, other) = up(&a, &b);
        let refused = a.call("1002", &sdp(a.local(), "0"));
        assert_ne!(a.refused(&refused).status(), Some(200));
        hang_up((&a, &mut leg), (&b, &other));
    }
    let cdrs = engine.wait_cdrs(6);
    assert_eq!(cdrs.iter().filter(|cdr| cdr["cause"] == "normal").count(), 4, "{cdrs:#?}");
    nothing_is_left(&engine);
}

#[test]
fn a_shard_whose_own_actor_has_died_has_another_in_its_place() {
    let engine = start("1", &stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let (mut leg, other) = up(&a, &b);
    engine.recorded("call.answered", 1);
    engine.chaos("shard:0", "panic");
    engine.replaced(1);
    hang_up((&a, &mut leg), (&b, &other));
    engine.cdr("normal", 200, "caller");
    let b = b.registered();
    let (mut leg, other) = up(&a, &b);
    hang_up((&a, &mut leg), (&b, &other));
    nothing_is_left(&engine);
}

#[test]
fn the_ports_of_a_stuck_shard_are_there_for_other_calls() {
    // Eight pairs: four calls.
    let ports = "[media]\nports = [24000, 24015]\nworkers = 1\n";
    let engine = start("1", &(ports.to_owned() + &stations(&["1001", "1002"])));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let mut calls = vec![up(&a, &b), up(&a, &b)];
    // One that will not be restored has ports too.
    let leg = a.call("1002", &sdp(a.local(), "0"));
    b.respond(&b.request("INVITE"), "180 Ringing", "bob", "", "");
    a.response("INVITE", 180);
    engine.recorded("call.ringing", 1);
    engine.stall(0, FOR_EVER);
    assert_eq!(a.refused(&leg).status(), Some(500));
    engine.counts("tandem_media_sessions_active", &[], 4.0);
    while calls.len() < 4 {
        // Ports that were used rest for 2 s.
        let mut leg = a.call("1002", &sdp(a.local(), "0"));
        let answer = a.wait("an answer", |m| {
            m.status().is_some_and(|s| s == 503) || m.answers("INVITE", 100) || m.answers("INVITE", 180)
        });
        if answer.status() == Some(503) {
            a.ack(&leg, &answer);
            continue;
        }
        let other = b.answer(&b.request("INVITE"), &sdp(b.local(), "0"));
        a.established(&mut leg);
        calls.push((leg, other));
    }
    let one_more = a.call("1002", &sdp(a.local(), "0"));
    assert_eq!(a.refused(&one_more).status(), Some(503), "each pair is one call's alone");
    for (mut leg, other) in calls {
        hang_up((&a, &mut leg), (&b, &other));
    }
    nothing_is_left(&engine);
    // What rests comes back: all eight.
    engine.counts("tandem_media_ports_free", &[], 8.0);
}

#[test]
fn connections_of_a_stuck_shard_are_ended_so_that_their_peers_connect_anew() {
    let engine = start("1", &both(""));
    let (a, b) = (Ua::tcp(&engine, "1001").registered(), Ua::new(&engine, "1002").registered());
    engine.counts("tandem_sip_connections_active", &[], 1.0);
    engine.stall(0, FOR_EVER);
    until_closed(&a.stream().unwrap());
    engine.replaced(1);
    engine.counts("tandem_sip_connections_active", &[], 0.0);
    let a = Ua::tcp(&engine, "1001").registered();
    engine.counts("tandem_sip_connections_active", &[], 1.0);
    let (mut leg, other) = up(&b, &a);
    hang_up((&b, &mut leg), (&a, &other));
    nothing_is_left(&engine);
}

#[test]
fn a_register_that_waits_for_a_stuck_shard_is_answered_by_the_next() {
    let engine = start("2", &stations(&["1001", "1002", "1003", "1004"]));
    // A station lives on the shard of its name, and has an actor there only when it must.
    let home = |name: &str| tandem_protocol::fnv::fnv1a(name.bytes()) % 2;
    let phones = ["1001", "1002", "1003", "1004"].map(|name| Ua::new(&engine, name).registered());
    let stuck = home("1001");
    engine.stall(stuck, FOR_EVER);
    for phone in phones {
        phone.registered();
    }
    engine.counts("tandem_registrations_active", &[], 4.0);
    assert_eq!(engine.metric("tandem_shards_abandoned", &[]), 1.0);
}

#[test]
fn a_standstill_is_counted_and_told_with_how_long_it_was() {
    let engine = start("1", &stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    // Timer A is due half a second later, and twice that after it.
    a.call("1002", &sdp(a.local(), "0"));
    b.request("INVITE");
    let told = || {
        let log = engine.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("a shard stood still")).collect();
        let long = |line: &&str| line.split("stood_still_ms").nth(1).map(str::to_owned);
        lines.iter().filter_map(long).collect::<Vec<_>>()
    };
    assert_eq!((engine.metric(STANDSTILLS, &[]), told().len()), (0.0, 0));
    engine.stall(0, Duration::from_millis(1_400));
    engine.reaches(STANDSTILLS, &[], 1.0);
    let first = eventually("it is told", || told().into_iter().next());
    let ms: String =
        first.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    assert!((800..30_000).contains(&ms.parse::<u32>().unwrap()), "{first}");
    // The next one comes so soon that it is only counted.
    let before = engine.metric(STANDSTILLS, &[]);
    engine.stall(0, Duration::from_millis(1_900));
    engine.reaches(STANDSTILLS, &[], before + 1.0);
    a.ping();
    assert_eq!(told().len(), 1, "{:?}", told());
}

#[test]
fn a_shard_that_is_slow_and_a_process_that_is_stopped_are_not_fenced() {
    let engine = start("2", &stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let (mut leg, other) = up(&a, &b);
    for shard in [0, 1] {
        engine.stall(shard, Duration::from_secs(1));
    }
    a.ping();
    let stranger = Ua::new(&engine, "1001");
    engine.signal("STOP");
    assert!(stranger.receive(Duration::from_secs(4)).is_none(), "it is stopped");
    engine.signal("CONT");
    hang_up((&a, &mut leg), (&b, &other));
    engine.cdr("normal", 200, "caller");
    // A verdict takes four looks; the first may have been late, and say nothing.
    let looks = engine.metric("tandem_shard_looks_total", &[]);
    engine.reaches("tandem_shard_looks_total", &[], looks + 6.0);
    assert_eq!(engine.metric("tandem_shards_abandoned", &[]), 0.0);
    assert_eq!(engine.metric("tandem_actor_restarts_total", &[("actor", "shard")]), 0.0);
}

/// An engine of one shard whose thread was given up three times while this call of two stations was up.
fn given_up_three_times() -> (Engine, (Ua, Leg), (Ua, Leg)) {
    let engine = start("1", &stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let (leg, other) = up(&a, &b);
    engine.recorded("call.answered", 1);
    for times in 1..=3 {
        engine.stall(0, FOR_EVER);
        engine.replaced(times);
    }
    (engine, (a, leg), (b, other))
}

#[test]
fn the_third_thread_that_is_given_up_ends_the_process_once_no_call_is_left() {
    let (mut engine, (a, mut leg), (b, other)) = given_up_three_times();
    let refused = a.call("1002", &sdp(a.local(), "0"));
    assert_eq!(a.refused(&refused).status(), Some(503), "it takes no new calls");
    assert_eq!(engine.ended(), None, "a call is up");
    hang_up((&a, &mut leg), (&b, &other));
    let status = eventually("the end of the process", || engine.ended());
    assert_eq!(status.code(), Some(75));
    engine.cdr("normal", 200, "caller");
    engine.restart();
    let (mut leg, other) = up(&a, &b);
    hang_up((&a, &mut leg), (&b, &other));
}

#[test]
fn a_call_that_outlasts_the_process_is_taken_up_by_the_next() {
    let (mut engine, (a, mut leg), (b, other)) = given_up_three_times();
    let status = common::within(2 * common::SOON, "the end of the process", || engine.ended());
    assert_eq!(status.code(), Some(75));
    assert!(engine.cdrs().is_empty(), "nobody has ended it");
    engine.restart();
    hang_up((&a, &mut leg), (&b, &other));
    engine.cdr("normal", 200, "caller");
}
