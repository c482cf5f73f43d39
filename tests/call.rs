//! Calls between stations, to services and over trunks, each with the record it leaves.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::SocketAddr;

use common::calls::{TRUNKS, hang_up};
use common::engine::{station, stations};
use common::phone::{connect, pair, voice};
use common::ua::token;
use common::{Engine, Sipp, TestPhone, Ua, sdp};
use tandem_phone::{AutoAnswer, CallHandle, Command, Direction, Event};

/// A station that calls and one that is called, both by hand.
fn two(engine: &Engine) -> (Ua, Ua) {
    (Ua::new(engine, "1001"), Ua::new(engine, "1002").registered())
}

#[test]
fn the_caller_hangs_up() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let (call, _) = connect(&mut a, &mut b);
    engine.call_in("up");
    a.command(Command::Hangup(call));
    assert_eq!((a.ended(), b.ended()), ((true, Some(200)), (false, None)));
    let cdr = engine.cdr("normal", 200, "caller");
    assert_eq!((cdr["from"].as_str(), cdr["to"].as_str()), (Some("1001"), Some("1002")));
    assert!(cdr["answer"].is_string() && cdr["duration_s"].as_f64().unwrap() >= 0.0, "{cdr:#}");
    assert_eq!(cdr["legs"].as_array().map(Vec::len), Some(2), "{cdr:#}");
    engine.quiet();
    engine.counts("tandem_calls_total", &[("result", "answered")], 1.0);
}

#[test]
fn the_callee_hangs_up() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let (_, other) = connect(&mut a, &mut b);
    b.command(Command::Hangup(other));
    assert_eq!((a.ended(), b.ended()), ((false, None), (true, Some(200))));
    engine.cdr("normal", 200, "callee");
    engine.quiet();
}

#[test]
fn both_hang_up_at_once() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = two(&engine);
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    let mut other = b.answer(&b.request("INVITE"), &sdp(b.local(), "0"));
    a.established(&mut leg);
    a.next(&mut leg, "BYE", "", "");
    b.next(&mut other, "BYE", "", "");
    a.response("BYE", 200);
    b.response("BYE", 200);
    let cdr = engine.wait_cdrs(1).remove(0);
    assert_eq!(cdr["cause"], "normal");
    engine.quiet();
}

#[test]
fn a_busy_callee_is_busy_to_the_caller() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let mut a = TestPhone::new(&engine, "1001", "1002", AutoAnswer::Manual);
    let _b = TestPhone::new(&engine, "1002", "1001", AutoAnswer::Reject(486)).registered();
    a.dial("1002");
    assert_eq!(a.ended(), (false, Some(486)));
    let cdr = engine.cdr("busy", 486, "callee");
    assert!(cdr["answer"].is_null() && cdr["duration_s"] == 0.0, "{cdr:#}");
    engine.counts("tandem_calls_total", &[("result", "busy")], 1.0);
}

#[test]
fn a_callee_that_declines_is_heard() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let mut a = TestPhone::new(&engine, "1001", "1002", AutoAnswer::Manual);
    let _b = TestPhone::new(&engine, "1002", "1001", AutoAnswer::Reject(603)).registered();
    a.dial("1002");
    assert_eq!(a.ended(), (false, Some(603)));
    engine.cdr("rejected", 603, "callee");
}

#[test]
fn a_callee_that_only_rings_is_given_up_after_its_ring_timeout() {
    let engine = Engine::start(&(stations(&["1001"]) + &station("1002", "ring_timeout_s = 3")));
    let mut a = TestPhone::new(&engine, "1001", "1002", AutoAnswer::Manual);
    let mut b = TestPhone::new(&engine, "1002", "1001", AutoAnswer::Manual).registered();
    a.dial("1002");
    a.wait(|event| matches!(event, Event::Ringing { .. }));
    assert_eq!(a.ended(), (false, Some(480)));
    assert_eq!(b.ended(), (false, Some(487)));
    engine.cdr("no_answer", 480, "engine");
    engine.counts("tandem_calls_total", &[("result", "no_answer")], 1.0);
}

#[test]
fn a_caller_that_gives_up_stops_the_ringing() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let mut a = TestPhone::new(&engine, "1001", "1002", AutoAnswer::Manual);
    let mut b = TestPhone::new(&engine, "1002", "1001", AutoAnswer::Manual).registered();
    let call = a.dial("1002");
    a.wait(|event| matches!(event, Event::Ringing { .. }));
    engine.call_in("ringing");
    a.command(Command::Hangup(call));
    assert_eq!(a.ended(), (true, Some(487)));
    assert_eq!(b.ended(), (false, Some(487)));
    engine.cdr("abandoned", 487, "caller");
    engine.counts("tandem_calls_total", &[("result", "abandoned")], 1.0);
}

#[test]
fn a_200_that_crosses_the_cancel_is_acknowledged_and_ended() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = two(&engine);
    let leg = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.respond(&invite, "180 Ringing", "bob", "", "");
    a.response("INVITE", 180);
    a.cancel(&leg);
    a.response("CANCEL", 200);
    assert_eq!(a.refused(&leg).status(), Some(487));
    let cancel = b.request("CANCEL");
    b.respond(&invite, "200 OK", "bob", "", &sdp(b.local(), "0"));
    b.respond(&cancel, "200 OK", "bob", "", "");
    b.request("ACK");
    let bye = b.request("BYE");
    b.respond(&bye, "200 OK", "", "", "");
    engine.cdr("abandoned", 487, "caller");
    engine.quiet();
}

#[test]
fn a_cancel_that_comes_after_the_200_changes_nothing() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = two(&engine);
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    let other = b.answer(&b.request("INVITE"), &sdp(b.local(), "0"));
    let answer = a.response("INVITE", 200);
    a.cancel(&leg);
    a.response("CANCEL", 200);
    a.ack(&leg, &answer);
    engine.call_in("up");
    leg.remote = answer.header("To").to_owned();
    leg.target = answer.contact();
    a.next(&mut leg, "BYE", "", "");
    let bye = b.request("BYE");
    assert_eq!(bye.header("Call-ID"), other.call_id);
    b.respond(&bye, "200 OK", "", "", "");
    engine.cdr("normal", 200, "caller");
}

#[test]
fn a_number_that_leads_nowhere_is_404_and_recorded() {
    let engine = Engine::start(&stations(&["1001"]));
    let a = Ua::new(&engine, "1001");
    let leg = a.call("4711", &sdp(a.local(), "0"));
    assert_eq!(a.refused(&leg).status(), Some(404));
    let cdr = engine.cdr("not_found", 404, "engine");
    assert_eq!(cdr["to"], "4711");
}

#[test]
fn a_station_that_is_not_registered_is_480() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let a = Ua::new(&engine, "1001");
    let leg = a.call("1002", &sdp(a.local(), "0"));
    assert_eq!(a.refused(&leg).status(), Some(480));
    engine.cdr("not_registered", 480, "engine");
}

#[test]
fn a_caller_without_credentials_is_challenged_and_leaves_no_record() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let stranger = Ua::at(&engine, "nobody", engine.stranger().into());
    for number in ["1002", "4711"] {
        let mut leg = stranger.leg(number);
        stranger.next(&mut leg, "INVITE", "", &sdp(stranger.local(), "0"));
        assert_eq!(stranger.refused(&leg).status(), Some(401));
    }
    engine.counts("tandem_invites_refused_total", &[("reason", "unauthorized")], 2.0);
    assert!(engine.cdrs().is_empty());
}

#[test]
fn every_contact_rings_and_the_first_to_answer_has_the_call() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let caller = Ua::new(&engine, "1001");
    let (desk, mobile) = (Ua::new(&engine, "1002").registered(), Ua::new(&engine, "1002").registered());
    let mut leg = caller.call("1002", &sdp(caller.local(), "0"));
    let (at_desk, at_mobile) = (desk.request("INVITE"), mobile.request("INVITE"));
    desk.respond(&at_desk, "180 Ringing", "desk", "", "");
    mobile.respond(&at_mobile, "180 Ringing", "mobile", "", "");
    caller.response("INVITE", 180);
    mobile.answer(&at_mobile, &sdp(mobile.local(), "0"));
    caller.established(&mut leg);
    let cancel = desk.request("CANCEL");
    desk.respond(&cancel, "200 OK", "desk", "", "");
    desk.respond(&at_desk, "487 Request Terminated", "desk", "", "");
    desk.request("ACK");
    hang_up(&caller, &mut leg, &mobile);
    engine.cdr("normal", 200, "caller");
    engine.quiet();
}

#[test]
fn one_contact_that_refuses_leaves_the_other_ringing() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let caller = Ua::new(&engine, "1001");
    let (desk, mobile) = (Ua::new(&engine, "1002").registered(), Ua::new(&engine, "1002").registered());
    let leg = caller.call("1002", &sdp(caller.local(), "0"));
    let (at_desk, at_mobile) = (desk.request("INVITE"), mobile.request("INVITE"));
    desk.respond(&at_desk, "486 Busy Here", "desk", "", "");
    desk.request("ACK");
    mobile.respond(&at_mobile, "480 Temporarily Unavailable", "mobile", "", "");
    mobile.request("ACK");
    assert_eq!(caller.refused(&leg).status(), Some(486), "the better refusal");
    engine.cdr("busy", 486, "callee");
}

#[test]
fn hold_and_retrieve_cross_the_call() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let (call, other) = connect(&mut a, &mut b);
    hold_and_retrieve(&mut a, &mut b, call);
    hold_and_retrieve(&mut b, &mut a, other);
    a.command(Command::Hangup(call));
    a.ended();
    engine.cdr("normal", 200, "caller");
}

fn hold_and_retrieve(holder: &mut TestPhone, held: &mut TestPhone, call: CallHandle) {
    holder.command(Command::Hold(call));
    changed(held, Direction::RecvOnly);
    changed(holder, Direction::SendOnly);
    holder.command(Command::Retrieve(call));
    changed(held, Direction::SendRecv);
    changed(holder, Direction::SendRecv);
}

#[track_caller]
fn changed(phone: &mut TestPhone, to: Direction) {
    let changed = phone.wait(|event| {
        matches!(event, Event::MediaChanged { .. } | Event::ReInviteFailed { .. } | Event::Ended { .. })
    });
    assert!(matches!(changed, Event::MediaChanged { direction, .. } if direction == to), "{changed:?}");
}

#[test]
fn early_media_and_a_second_provisional_climb_to_the_caller() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = two(&engine);
    let leg = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.respond(&invite, "183 Session Progress", "bob", "", &sdp(b.local(), "0"));
    let progress = a.response("INVITE", 183);
    assert_eq!(progress.media().ip(), engine.sip.ip(), "{progress:?}");
    b.respond(&invite, "486 Busy Here", "bob", "", "");
    a.refused(&leg);
    engine.cdr("busy", 486, "callee");
}

#[test]
fn a_repeated_invite_is_one_call() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = two(&engine);
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    a.send(&leg.invite);
    a.send(&leg.invite);
    let invite = b.request("INVITE");
    b.respond(&invite, "180 Ringing", "bob", "", "");
    a.response("INVITE", 180);
    a.send(&leg.invite);
    a.again("180 again", |message| message.answers("INVITE", 180));
    b.answer(&invite, &sdp(b.local(), "0"));
    a.established(&mut leg);
    assert_eq!(engine.calls().len(), 1);
    a.next(&mut leg, "BYE", "", "");
    let bye = b.wait("BYE and no other INVITE", |message| {
        assert!(!message.is("INVITE") || message.header("Call-ID") == invite.header("Call-ID"));
        message.is("BYE")
    });
    b.respond(&bye, "200 OK", "", "", "");
    engine.cdr("normal", 200, "caller");
}

#[test]
fn a_lost_ack_makes_the_200_come_again() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = two(&engine);
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    b.answer(&b.request("INVITE"), &sdp(b.local(), "0"));
    let first = a.response("INVITE", 200);
    let again = a.again("200 again", |message| message.answers("INVITE", 200));
    assert_eq!(first.text, again.text);
    a.accept(&mut leg, &again);
    hang_up(&a, &mut leg, &b);
    engine.cdr("normal", 200, "caller");
}

#[test]
fn max_forwards_crosses_the_call_less_one() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = two(&engine);
    let leg = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    assert_eq!(invite.header("Max-Forwards"), "69");
    b.respond(&invite, "486 Busy Here", "bob", "", "");
    a.refused(&leg);
}

#[test]
fn an_operator_ends_a_call() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    connect(&mut a, &mut b);
    let id = engine.call_in("up");
    engine.api("DELETE", &format!("/api/v1/calls/{id}"));
    assert_eq!((a.ended(), b.ended()), ((false, None), (false, None)));
    let cdr = engine.cdr("operator", 200, "operator");
    assert_eq!(cdr["call_id"], id);
}

#[test]
fn the_echo_sends_back_what_it_hears() {
    let engine = Engine::start(&stations(&["1001"]));
    let own = Some(voice("1001"));
    let mut a = TestPhone::with(engine.sip, engine.peer(), "1001", own, AutoAnswer::Manual);
    let call = a.dial("*43");
    a.answered();
    common::phone::assert_heard(&a.listen(205));
    a.command(Command::Hangup(call));
    a.ended();
    let cdr = engine.cdr("normal", 200, "caller");
    assert_eq!(cdr["legs"].as_array().map(Vec::len), Some(1), "{cdr:#}");
}

#[test]
fn the_tone_service_sounds() {
    let engine = Engine::start(&stations(&["1001"]));
    let mut a = TestPhone::with(engine.sip, engine.peer(), "1001", None, AutoAnswer::Manual);
    let call = a.dial("*44");
    a.answered();
    let heard = a.listen(50);
    assert!((-13.0..-7.0).contains(&heard.level_dbm0), "{heard:?}");
    a.command(Command::Hangup(call));
    a.ended();
    engine.cdr("normal", 200, "caller");
}

#[test]
fn a_call_comes_by_one_trunk_and_leaves_by_another() {
    let engine = Engine::start(TRUNKS);
    let peer = engine.peer();
    let uas = Sipp::start(&engine, "uas", (peer, 5070).into(), &["-m", "5"]);
    let calls = ["-s", "9555123", "-m", "5", "-r", "20", "-d", "200"];
    Sipp::start(&engine, "uac", (peer, 5090).into(), &calls).passes();
    uas.passes();
    for cdr in engine.wait_cdrs(5) {
        assert_eq!((cdr["cause"].as_str(), cdr["ended_by"].as_str()), (Some("normal"), Some("caller")));
        assert_eq!((cdr["from"].as_str(), cdr["to"].as_str()), (Some("5550100"), Some("9555123")));
        assert_eq!((cdr["trunk"].as_str(), &cdr["proxy"]), (Some("out"), &format!("{peer}:5070").into()));
        assert_eq!(cdr["attempts"][0]["cause"], "answered", "{cdr:#}");
    }
    engine.quiet();
}

#[test]
fn the_far_end_of_a_trunk_hangs_up() {
    let engine = Engine::start(TRUNKS);
    let peer = engine.peer();
    let uas = Sipp::start(&engine, "uas_hangs_up", (peer, 5070).into(), &["-m", "3", "-d", "100"]);
    let calls = ["-s", "9555123", "-m", "3", "-r", "20"];
    Sipp::start(&engine, "uac_waits", (peer, 5090).into(), &calls).passes();
    uas.passes();
    for cdr in engine.wait_cdrs(3) {
        assert_eq!((cdr["cause"].as_str(), cdr["ended_by"].as_str()), (Some("normal"), Some("callee")));
    }
}

#[test]
fn a_stranger_is_not_taken_for_the_trunk() {
    let engine = Engine::start(TRUNKS);
    let other_port = Ua::on(&engine, "5550100", (engine.peer(), 5091).into());
    let mut leg = other_port.leg("9555123");
    other_port.next(&mut leg, "INVITE", "", &sdp(other_port.local(), "0"));
    assert_eq!(other_port.refused(&leg).status(), Some(401));
}

#[test]
fn the_best_pattern_wins_and_a_pattern_can_refuse() {
    let engine = Engine::start(&format!(
        "{}{TRUNKS}[[dial_plan.pattern]]\npattern = \"900!\"\ntarget = \"reject:403\"\n",
        stations(&["1001"])
    ));
    let out = Ua::on(&engine, "out", SocketAddr::from((engine.peer(), 5070)));
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("9001", &sdp(caller.local(), "0"));
    assert_eq!(caller.refused(&leg).status(), Some(403));
    let leg = caller.call("9101", &sdp(caller.local(), "0"));
    let invite = out.request("INVITE");
    assert!(invite.uri().starts_with("sip:101@"), "{invite:?}");
    out.respond(&invite, "404 Not Found", "out", "", "");
    assert_eq!(caller.refused(&leg).status(), Some(404));
    let cdrs = engine.wait_cdrs(2);
    assert_eq!((&cdrs[0]["cause"], &cdrs[1]["cause"]), (&"rejected".into(), &"rejected".into()), "{cdrs:#?}");
}

#[test]
fn a_stations_limit_on_calls_holds_and_is_given_back() {
    let engine = Engine::start(&(stations(&["1001", "1003"]) + &station("1002", "max_calls = 1")));
    let (a, b) = two(&engine);
    let other = Ua::new(&engine, "1003");
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    let mut called = b.answer(&b.request("INVITE"), &sdp(b.local(), "0"));
    a.established(&mut leg);
    let second = other.call("1002", &sdp(other.local(), "0"));
    assert_eq!(other.refused(&second).status(), Some(486));
    b.next(&mut called, "BYE", "", "");
    a.respond(&a.request("BYE"), "200 OK", "", "", "");
    engine.quiet();
    let third = other.call("1002", &sdp(other.local(), "0"));
    b.respond(&b.request("INVITE"), "603 Decline", &token(), "", "");
    assert_eq!(other.refused(&third).status(), Some(603));
}
