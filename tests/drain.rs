//! Draining as callers see it, the command that waits for its end, and the end of the process with the last call.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use common::calls::hang_up;
use common::engine::stations;
use common::phone::{connect, pair};
use common::{Engine, Leg, Ua, eventually, sdp};
use tandem_phone::Command;

#[test]
fn draining_refuses_new_calls_and_keeps_those_that_are_up() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let (call, _) = connect(&mut a, &mut b);
    engine.ask("POST", "/api/v1/drain", "{\"on\": true}");
    let c = Ua::new(&engine, "1002");
    let leg = c.call("1001", &sdp(c.local(), "0"));
    assert_eq!(c.refused(&leg).status(), Some(503));
    eventually("the refusal is counted", || {
        common::so(engine.metric("tandem_invites_refused_total", &[("reason", "draining")]) == 1.0)
    });
    a.command(Command::Hangup(call));
    assert_eq!(a.ended(), (true, Some(200)), "the call that is up ends as it should");
    engine.cdr("normal", 200, "caller");
}

/// So many calls that are up, of the first phone to the second.
fn calls(engine: &Engine, count: usize) -> (Ua, Ua, Vec<Leg>) {
    let (a, b) = (Ua::new(engine, "1001"), Ua::new(engine, "1002").registered());
    let legs = (0..count).map(|_| {
        let mut leg = a.call("1002", &sdp(a.local(), "0"));
        let invite = b.request("INVITE");
        b.answer(&invite, &sdp(b.local(), "0"));
        a.established(&mut leg);
        leg
    });
    let legs = legs.collect();
    (a, b, legs)
}

#[test]
fn the_command_waits_until_no_call_is_left_and_tells_how_many_there_are() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b, mut legs) = calls(&engine, 2);
    let mut command = engine.command(&["drain", "--stay", "--wait"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    assert!(line().ends_with("; 2 calls are left"));
    hang_up(&a, &mut legs[0], &b);
    assert!(line().ends_with("; 1 call is left"));
    assert!(child.try_wait().unwrap().is_none(), "it waits for the last one");
    hang_up(&a, &mut legs[1], &b);
    assert!(line().ends_with("; no call is left"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_command_gives_up_waiting_after_its_time_and_when_calls_are_taken_again() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b, mut legs) = calls(&engine, 1);
    let done = engine.command(&["drain", "--stay", "--wait", "--timeout", "1"]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!((done.status.code(), said.contains("within 1 s, 1 left")), (Some(1), true), "{said}");
    assert_eq!(engine.api("GET", "/api/v1/drain")["draining"], true, "it goes on");

    let mut command = engine.command(&["drain", "--stay", "--wait"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    engine.ask("POST", "/api/v1/drain", "{\"on\": false}");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("takes new calls again"), "{said}");
    hang_up(&a, &mut legs[0], &b);
}

/// Waits for the end of the process; its status.
fn ended(engine: &mut Engine) -> i32 {
    eventually("the end of the process", || engine.ended()).code().expect("a status")
}

#[test]
fn the_process_ends_with_the_last_call() {
    let mut engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b, mut legs) = calls(&engine, 2);
    let drained = engine.command(&["drain"]).output().unwrap();
    let said = String::from_utf8_lossy(&drained.stdout).into_owned();
    assert_eq!(
        said,
        "draining: new calls are refused; 2 calls are left, and the daemon ends with the last one\n"
    );
    let c = Ua::new(&engine, "1002");
    let leg = c.call("1001", &sdp(c.local(), "0"));
    assert_eq!(c.refused(&leg).status(), Some(503));
    hang_up(&a, &mut legs[0], &b);
    engine.counts("tandem_calls_active", &[], 1.0);
    assert_eq!(engine.ended(), None, "one is left");
    hang_up(&a, &mut legs[1], &b);
    assert_eq!(ended(&mut engine), 0);
    let cdrs = engine.cdrs();
    assert_eq!(cdrs.iter().filter(|cdr| cdr["cause"] == "normal").count(), 2, "{cdrs:#?}");
    // Nothing is taken up again.
    engine.restart();
    assert!(engine.calls().is_empty());
    assert_eq!(engine.api("GET", "/api/v1/drain")["draining"], false);
}

#[test]
fn without_a_call_it_ends_at_once_and_the_command_that_waits_sees_it() {
    let mut engine = Engine::start(&stations(&["1001"]));
    let done = engine.command(&["drain", "--wait"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(ended(&mut engine), 0);
}

#[test]
fn at_the_limit_the_calls_that_are_left_are_ended_in_order_and_the_status_says_so() {
    let mut engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b, _legs) = calls(&engine, 1);
    let answer = engine.ask("POST", "/api/v1/drain", r#"{"on": true, "exit": true, "limit_s": 1}"#).json();
    assert_eq!((&answer["exit"], answer["limit"].is_string()), (&true.into(), true), "{answer}");
    for phone in [&a, &b] {
        phone.respond(&phone.request("BYE"), "200 OK", "", "", "");
    }
    assert_eq!(ended(&mut engine), 3);
    engine.cdr("operator", 200, "operator");
}

#[test]
fn who_takes_calls_again_does_not_end() {
    let mut engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b, mut legs) = calls(&engine, 1);
    engine.ask("POST", "/api/v1/drain", r#"{"on": true, "exit": true, "limit_s": 600}"#);
    let answer = engine.ask("POST", "/api/v1/drain", r#"{"on": false}"#).json();
    assert_eq!((&answer["exit"], &answer["limit"]), (&false.into(), &serde_json::Value::Null));
    hang_up(&a, &mut legs[0], &b);
    engine.quiet();
    let mut again = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.answer(&invite, &sdp(b.local(), "0"));
    a.established(&mut again);
    assert_eq!(engine.ended(), None);
    for body in [r#"{"on": false, "exit": true}"#, r#"{"on": true, "limit_s": 5}"#] {
        assert_eq!(engine.ask("POST", "/api/v1/drain", body).status, 422, "{body}");
    }
    hang_up(&a, &mut again, &b);
}
