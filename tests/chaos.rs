//! Actors that panic: what callers notice of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::SocketAddr;

use common::engine::stations;
use common::phone::{assert_heard, connect, pair};
use common::{Engine, TestPhone, Ua, eventually, sdp};
use serde_json::Value;
use tandem_phone::{CallHandle, Command};

/// An established call of two phones that has been heard, and one beside it that no fault strikes: what the machine does to both is
/// none of the engine's.
struct Calls {
    a: TestPhone,
    b: TestPhone,
    call: CallHandle,
    id: String,
    beside: (TestPhone, TestPhone, CallHandle),
    /// The media worker of the first; the other call has the other one.
    worker: &'static str,
}

/// An engine whose only shard gives its media workers calls in turn, and calls on both.
fn talking() -> (Engine, Calls) {
    let settings = "[node]\nshards = 1\n[media]\nworkers = 2\n".to_owned();
    let engine = Engine::start_with_chaos(&(settings + &stations(&["1001", "1002", "1003", "1004"])));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let (mut c, mut d) = pair(&engine, "1003", "1004");
    let (call, _) = connect(&mut a, &mut b);
    let id = engine.call_in("up");
    let sessions = |worker| engine.metric("tandem_media_sessions_active", &[("worker", worker)]);
    let worker =
        eventually("a media worker", || ["0", "1"].into_iter().find(|worker| sessions(worker) == 2.0));
    let (other, _) = connect(&mut c, &mut d);
    for worker in ["0", "1"] {
        engine.counts("tandem_media_sessions_active", &[("worker", worker)], 2.0);
    }
    for phone in [&a, &b, &c, &d] {
        phone.listen(30);
    }
    (engine, Calls { a, b, call, id, beside: (c, d, other), worker })
}

fn restarts(engine: &Engine, kind: &str) -> f64 {
    engine.metric("tandem_actor_restarts_total", &[("actor", kind)])
}

/// The call goes on as if nothing had been: it is heard, without a gap, and ends when its caller hangs up.
fn goes_on(engine: &Engine, calls: Calls) {
    let Calls { mut a, mut b, call, id, beside: (mut c, mut d, other), worker: _ } = calls;
    for phone in [&a, &b, &c, &d] {
        phone.listen(phone.heard().packets.max(155) + 50);
    }
    assert!(engine.calls().iter().any(|call| call["call_id"] == *id && call["state"] == "up"));
    a.command(Command::Hangup(call));
    assert_eq!((a.ended(), b.ended()), ((true, Some(200)), (false, None)));
    let cdr = engine.cdr("normal", 200, "caller");
    assert_eq!(cdr["call_id"], *id);
    c.command(Command::Hangup(other));
    assert_eq!((c.ended(), d.ended()), ((true, Some(200)), (false, None)));
    // When the machine stops for a moment, no call of it hears anything.
    let machine = c.heard().longest_gap_ms.max(d.heard().longest_gap_ms);
    for heard in [a.heard(), b.heard()] {
        assert_heard(&heard);
        assert!(heard.longest_gap_ms < 180 + machine, "{heard:?}, and beside it {machine} ms");
    }
    assert!(engine.log().contains(&id), "the log names the call");
    engine.quiet();
}

/// An established call survives the panic of one of its actors; `place` is what follows the call's id.
fn survives(kind: &str, place: &str) {
    let (engine, calls) = talking();
    engine.chaos(&format!("{kind}:{}{place}", calls.id), "panic");
    engine.reaches("tandem_actor_restarts_total", &[("actor", kind)], 1.0);
    goes_on(&engine, calls);
    assert_eq!(restarts(&engine, kind), 1.0);
}

#[test]
fn an_established_call_survives_its_call_actor() {
    survives("call", "");
}

#[test]
fn an_established_call_survives_its_callers_dialog() {
    survives("dialog", "/0");
}

#[test]
fn an_established_call_survives_its_callees_dialog() {
    survives("dialog", "/1");
}

#[test]
fn an_established_call_survives_its_callers_media_session() {
    survives("media_session", "/0");
}

#[test]
fn an_established_call_survives_its_callees_media_session() {
    survives("media_session", "/1");
}

#[test]
fn an_established_call_survives_its_media_worker() {
    let (engine, calls) = talking();
    engine.chaos(&format!("media_worker:{}", calls.worker), "panic");
    engine.reaches("tandem_actor_restarts_total", &[("actor", "media_worker")], 1.0);
    goes_on(&engine, calls);
}

/// A call that rings, and is to lose one of its actors.
fn in_set_up_ends_with_500(actor: impl Fn(&str) -> String) {
    let engine = Engine::start_with_chaos(&stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let leg = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.respond(&invite, "180 Ringing", "bob", "", "");
    a.response("INVITE", 180);
    let id = engine.call_in("ringing");
    engine.chaos(&actor(&id), "panic");
    assert_eq!(a.refused(&leg).status(), Some(500));
    let cancel = b.request("CANCEL");
    b.respond(&cancel, "200 OK", "bob", "", "");
    b.respond(&invite, "487 Request Terminated", "bob", "", "");
    let cdr = engine.cdr("fault", 500, "engine");
    assert_eq!(cdr["call_id"], *id);
    engine.quiet();
}

#[test]
fn a_call_in_set_up_whose_actor_panics_ends_with_500_and_a_cdr() {
    in_set_up_ends_with_500(|id| format!("call:{id}"));
}

#[test]
fn a_call_in_set_up_whose_callers_dialog_panics_ends_with_500_and_a_cdr() {
    in_set_up_ends_with_500(|id| format!("dialog:{id}/0"));
}

#[test]
fn a_call_that_panics_at_every_input_is_ended_on_every_leg_with_a_cdr() {
    let engine = Engine::start_with_chaos(&stations(&["1001", "1002"]));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    connect(&mut a, &mut b);
    let id = engine.call_in("up");
    engine.chaos(&format!("call:{id}"), "panic_always");
    assert_eq!((a.ended(), b.ended()), ((false, None), (false, None)));
    let cdr = engine.cdr("fault", 200, "engine");
    assert_eq!(cdr["call_id"], *id);
    engine.quiet();
}

/// Trunk "out" to {peer}:5070, registered there, beside two stations.
const TRUNK: &str = r#"
[[trunk]]
name = "out"
proxies = ["{peer}:5070"]
username = "office"
password = "hush"
[[registration_group]]
name = "carrier"
registrations = [{ trunk = "out" }]
[[dial_plan.pattern]]
pattern = "9.X!"
target = "trunk:out"
"#;

/// With a call up over the trunk, fails `actor`, and then makes another call.
fn loses_no_call(actor: &str, kind: &str, times: u32) {
    let engine = Engine::start_with_chaos(&(stations(&["1001", "1002"]) + TRUNK));
    let far = Ua::on(&engine, "far", SocketAddr::from((engine.peer(), 5070)));
    let caller = Ua::new(&engine, "1001").registered();
    let mut legs = Vec::new();
    for place in 0..2 {
        let mut leg = caller.call("9555123", &sdp(caller.local(), "0"));
        far.answer(&far.request("INVITE"), &sdp(far.local(), "0"));
        caller.established(&mut leg);
        legs.push(leg);
        if place == 0 {
            for time in 1..=times {
                engine.chaos(actor, "panic");
                engine.reaches("tandem_actor_restarts_total", &[("actor", kind)], f64::from(time));
            }
        }
    }
    assert_eq!(engine.calls().len(), 2);
    for leg in &mut legs {
        caller.next(leg, "BYE", "", "");
        far.respond(&far.request("BYE"), "200 OK", "", "", "");
        caller.response("BYE", 200);
    }
    for cdr in engine.wait_cdrs(2) {
        assert_eq!((cdr["cause"].as_str(), cdr["ended_by"].as_str()), (Some("normal"), Some("caller")));
    }
}

#[test]
fn a_panicking_trunk_loses_no_call() {
    loses_no_call("trunk:out", "trunk", 3);
}

/// How often a named actor has failed in a row, by the tree.
fn failures(engine: &Engine, id: &str) -> u64 {
    let tree = engine.api("GET", "/api/v1/tree");
    let lists =
        tree["shards"].as_array().unwrap().iter().flat_map(|shard| shard["failures"].as_array().unwrap());
    lists.filter(|failure| failure["id"] == id).filter_map(|failure| failure["failures"].as_u64()).sum()
}

#[test]
fn a_trunk_that_panics_at_every_message_is_parked_and_its_calls_walk_on() {
    let two = TRUNK.replace("[\"{peer}:5070\"]", "[\"{peer}:5070\", \"{peer}:5071\"]");
    let engine = Engine::start_with_chaos(&(stations(&["1001", "1002"]) + &two));
    let at = |port| Ua::on(&engine, "far", SocketAddr::from((engine.peer(), port)));
    let (busy, far) = (at(5070), at(5071));
    let caller = Ua::new(&engine, "1001").registered();
    engine.chaos("trunk:out", "panic_always");
    for times in [3, 5] {
        // It rests longer each time.
        eventually("failures in a row", || (failures(&engine, "trunk:out") >= times).then_some(()));
        let mut leg = caller.call("9555123", &sdp(caller.local(), "0"));
        busy.respond(&busy.request("INVITE"), "503 Service Unavailable", "b", "", "");
        far.answer(&far.request("INVITE"), &sdp(far.local(), "0"));
        caller.established(&mut leg);
        caller.next(&mut leg, "BYE", "", "");
        far.respond(&far.request("BYE"), "200 OK", "", "", "");
        caller.response("BYE", 200);
    }
    let drawn = engine.command(&["tree"]).output().expect("the program");
    let drawn = String::from_utf8_lossy(&drawn.stdout).into_owned();
    assert!(drawn.contains("trunk:out (resting; failed "), "{drawn}");
    // 100 ms, doubled each time: so many rests take more than this.
    let restarts = restarts(&engine, "trunk");
    assert!((5.0..10.0).contains(&restarts), "{restarts}");
    for cdr in engine.wait_cdrs(2) {
        let causes: Vec<_> = cdr["attempts"].as_array().unwrap().iter().map(|a| a["cause"].clone()).collect();
        assert_eq!((&cdr["cause"], causes), (&"normal".into(), vec!["503".into(), "answered".into()]));
    }
    // The operator has enough.
    engine.chaos("trunk:out", "panic");
    eventually("it lives", || {
        let tree = engine.api("GET", "/api/v1/tree");
        tree["shards"].to_string().contains("\"trunks\":[\"trunk:out\"]").then_some(())
    });
}

#[test]
fn a_panicking_station_loses_no_call() {
    loses_no_call("station:1001", "station", 3);
}

#[test]
fn a_panicking_registration_group_loses_no_call() {
    loses_no_call("registration_group:carrier", "registration_group", 1);
}

#[test]
fn a_panicking_station_keeps_its_bindings() {
    let engine = Engine::start_with_chaos(&stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    engine.chaos("station:1002", "panic");
    engine.reaches("tandem_actor_restarts_total", &[("actor", "station")], 1.0);
    let b = b.registered();
    let leg = a.call("1002", &sdp(a.local(), "0"));
    b.respond(&b.request("INVITE"), "486 Busy Here", "b", "", "");
    assert_eq!(a.refused(&leg).status(), Some(486));
}

/// Every number under a key of this name.
fn sum(tree: &Value, key: &str) -> u64 {
    match tree {
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| {
                let own = if name == key { value.as_u64().unwrap_or_default() } else { 0 };
                own + sum(value, key)
            })
            .sum(),
        Value::Array(list) => list.iter().map(|value| sum(value, key)).sum(),
        _ => 0,
    }
}

#[test]
fn the_tree_shows_the_actors_and_their_restarts() {
    let engine = Engine::start_with_chaos(&(stations(&["1001", "1002"]) + TRUNK));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    connect(&mut a, &mut b);
    let id = engine.call_in("up");
    engine.chaos(&format!("call:{id}"), "panic");
    engine.chaos("trunk:out", "panic");
    let tree = eventually("two restarts in the tree", || {
        let tree = engine.api("GET", "/api/v1/tree");
        (sum(&tree, "restarts") == 2).then_some(tree)
    });
    let text = tree.to_string();
    for actor in
        ["shard:0", "trunk:out", "registration_group:carrier", "media_worker:0", &format!("call:{id}")]
    {
        assert!(text.contains(actor), "no {actor} in {tree:#}");
    }
    let drawn = engine.command(&["tree"]).output().expect("the program");
    let drawn = String::from_utf8_lossy(&drawn.stdout).into_owned();
    assert!(drawn.contains(&format!("call:{id}")) && drawn.contains("trunk:out"), "{drawn}");
}

#[test]
fn faults_cannot_be_injected_without_the_variable() {
    let engine = Engine::start(&(stations(&["1001"]) + TRUNK));
    let answer = engine.ask("POST", "/api/v1/chaos", "{\"actor\": \"trunk:out\", \"do\": \"panic\"}");
    assert!(matches!(answer.status, 403 | 404), "{answer:?}");
}
