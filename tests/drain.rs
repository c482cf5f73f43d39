//! Draining as callers see it, and the command that waits for its end.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

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

fn end(a: &Ua, leg: &mut Leg, b: &Ua) {
    a.next(leg, "BYE", "", "");
    let bye = b.request("BYE");
    b.respond(&bye, "200 OK", "", "", "");
    a.response("BYE", 200);
}

#[test]
fn the_command_waits_until_no_call_is_left_and_tells_how_many_there_are() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b, mut legs) = calls(&engine, 2);
    let mut command = engine.command(&["drain", "--wait"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    assert!(line().ends_with("; 2 calls are left"));
    end(&a, &mut legs[0], &b);
    assert!(line().ends_with("; 1 call is left"));
    assert!(child.try_wait().unwrap().is_none(), "it waits for the last one");
    end(&a, &mut legs[1], &b);
    assert!(line().ends_with("; no call is left"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_command_gives_up_waiting_after_its_time_and_when_calls_are_taken_again() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b, mut legs) = calls(&engine, 1);
    let done = engine.command(&["drain", "--wait", "--timeout", "1"]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!((done.status.code(), said.contains("within 1 s, 1 left")), (Some(1), true), "{said}");
    assert_eq!(engine.api("GET", "/api/v1/drain")["draining"], true, "it goes on");

    let mut command = engine.command(&["drain", "--wait"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    engine.ask("POST", "/api/v1/drain", "{\"on\": false}");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("takes new calls again"), "{said}");
    end(&a, &mut legs[0], &b);
}
