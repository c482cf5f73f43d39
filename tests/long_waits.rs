//! What takes a minute: a phone that rings on, and sessions that somebody must refresh (RFC 4028, whose shortest interval is 90 s).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{Engine, Leg, Msg, Ua, sdp};

/// Calls come from {peer}:5090 to :5092, and those to 1..., 2..., 3... go to {peer}:5070, :5071 and :5072.
///
/// Nothing is said in them, and that for longer than silence is usually borne.
const SETTINGS: &str = r#"
[media]
rtp_timeout_s = 600
[[listen]]
address = "{ip}:5060"
session_expires_s = 90
[[trunk]]
name = "in"
proxies = ["{peer}:5090", "{peer}:5091", "{peer}:5092"]
[[trunk]]
name = "one"
proxies = ["{peer}:5070"]
[[trunk]]
name = "two"
proxies = ["{peer}:5071"]
[[trunk]]
name = "three"
proxies = ["{peer}:5072"]
[[dial_plan.pattern]]
pattern = "1X!"
target = "trunk:one"
[[dial_plan.pattern]]
pattern = "2X!"
target = "trunk:two"
[[dial_plan.pattern]]
pattern = "3X!"
target = "trunk:three"
"#;
const LONG: Duration = Duration::from_secs(70);

/// A caller and the callee that numbers with this digit lead to.
fn ends(engine: &Engine, digit: u16) -> (Ua, Ua) {
    let at = |port| (engine.peer(), port).into();
    (Ua::on(engine, "5551234", at(5089 + digit)), Ua::on(engine, &format!("{digit}001"), at(5069 + digit)))
}

/// A call of which the INVITE has these headers, and the answer those.
fn connected(a: &Ua, b: &Ua, asks: &str, answers: &str) -> (Leg, Msg) {
    let mut leg = a.leg(&b.user);
    a.next(&mut leg, "INVITE", asks, &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.respond(&invite, "200 OK", "b", answers, &sdp(b.local(), "0"));
    b.request("ACK");
    let answer = a.established(&mut leg);
    (leg, answer)
}

/// The next request, after whatever time.
fn after_a_while(ua: &Ua, method: &str) -> Msg {
    loop {
        let message = ua.receive(LONG).unwrap_or_else(|| panic!("no {method}"));
        if message.status().is_none() {
            assert!(message.is(method), "{message:?}");
            return message;
        }
    }
}

#[test]
fn a_session_is_refreshed_by_whoever_has_to_and_ended_if_nobody_does() {
    const TIMER: &str = "Supported: timer\r\n";
    let engine = Engine::start(SETTINGS);
    let [(a, b), (refreshing, other), (silent, mute)] = [1, 2, 3].map(|digit| ends(&engine, digit));
    // We refresh both legs: the one as UAC of the INVITE by re-INVITE, the other as UAS by UPDATE.
    let asks = format!("{TIMER}Session-Expires: 90;refresher=uas\r\nAllow: INVITE, ACK, BYE, UPDATE\r\n");
    let by_us = "Session-Expires: 90;refresher=uac\r\nAllow: INVITE, ACK, BYE\r\n";
    let (_, answer) = connected(&a, &b, &asks, by_us);
    assert_eq!(answer.header("Session-Expires"), "90;refresher=uas");
    // The peers refresh the others.
    let asks = format!("{TIMER}Session-Expires: 90;refresher=uac\r\n");
    let by_peer = "Require: timer\r\nSession-Expires: 90;refresher=uas\r\n";
    let (mut leg, answer) = connected(&refreshing, &other, &asks, by_us);
    assert_eq!(answer.header("Session-Expires"), "90;refresher=uac");
    connected(&silent, &mute, &asks, by_peer);
    // At half the interval.
    let refresh = after_a_while(&b, "INVITE");
    assert_eq!(refresh.header("Session-Expires"), "90;refresher=uac");
    b.respond(&refresh, "200 OK", "", "Session-Expires: 90;refresher=uac\r\n", &sdp(b.local(), "0"));
    b.request("ACK");
    let refresh = after_a_while(&a, "UPDATE");
    assert_eq!((refresh.header("Session-Expires"), refresh.body()), ("90;refresher=uac", ""));
    a.respond(&refresh, "200 OK", "", "Session-Expires: 90;refresher=uac\r\n", "");
    let refresh = after_a_while(&other, "INVITE");
    other.respond(&refresh, "200 OK", "", by_us, &sdp(other.local(), "0"));
    other.request("ACK");
    refreshing.next(&mut leg, "INVITE", &asks, &sdp(refreshing.local(), "0"));
    assert_eq!(refreshing.established(&mut leg).header("Session-Expires"), "90;refresher=uac");
    // Nobody has refreshed the third: it ends before the interval does (§10).
    for ua in [&silent, &mute] {
        let bye = after_a_while(ua, "BYE");
        assert!(bye.header("Reason").contains("session timer expired"), "{bye:?}");
        ua.respond(&bye, "200 OK", "", "", "");
    }
    let cdr = engine.wait_cdrs(1).remove(0);
    assert_eq!(cdr["cause"], "session_expired", "{cdr:#}");
    let seconds = cdr["duration_s"].as_f64().unwrap();
    assert!((59.0..75.0).contains(&seconds), "{cdr:#}");
    // They are older than the one that has ended.
    assert_eq!(engine.calls().iter().filter(|call| call["state"] == "up").count(), 2);
}

#[test]
fn a_caller_who_waits_a_minute_hears_again_that_it_rings() {
    let engine = Engine::start(SETTINGS);
    let (a, b) = ends(&engine, 1);
    let mut leg = a.leg(&b.user);
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.respond(&invite, "180 Ringing", "one", "", "");
    let first = a.response("INVITE", 180);
    let again = a.receive(LONG).expect("180 again, after a minute");
    assert_eq!((again.status(), &again.text), (Some(180), &first.text));
}
