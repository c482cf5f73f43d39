//! A call's walk over the proxies of a trunk, as callers and proxies see it: what leads on to the next, when, and what is told of it.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::calls::{hang_up, proxy, two_proxies};
use common::stream::silent_port;
use common::{Engine, Msg, Ua, eventually, sdp};
use serde_json::Value;

/// Long before a lost datagram is sent again (T1).
const AT_ONCE: Duration = Duration::from_millis(400);

/// The same by TCP.
fn by_tcp(keys: &str) -> String {
    format!(
        "[[listen]]\nname = \"udp\"\naddress = \"{{ip}}:5060\"\n\
         [[listen]]\nname = \"tcp\"\ntransport = \"tcp\"\naddress = \"{{ip}}:5060\"\n{}",
        two_proxies(&format!("transport = \"tcp\"\n{keys}"))
    )
}

/// The engine, a caller and both proxies.
fn start(keys: &str) -> (Engine, Ua, Ua, Ua) {
    let engine = Engine::start(&two_proxies(keys));
    let (first, second) = (proxy(&engine, 5071), proxy(&engine, 5072));
    let caller = Ua::new(&engine, "1001");
    (engine, caller, first, second)
}

/// The causes of a CDR's attempts, in order.
fn causes(cdr: &Value) -> Vec<&str> {
    cdr["attempts"].as_array().expect("attempts").iter().filter_map(|a| a["cause"].as_str()).collect()
}

/// The caller talks to `answering` and hangs up.
#[track_caller]
fn talk_and_hang_up(caller: &Ua, mut leg: common::Leg, answering: &Ua, invite: &Msg) {
    answering.answer(invite, &sdp(answering.local(), "0"));
    caller.established(&mut leg);
    hang_up(caller, &mut leg, answering);
}

#[test]
fn a_proxy_that_nobody_has_the_port_of_is_passed_over_at_once() {
    // On every shard: the kernel hands the error to any of them.
    let engine = Engine::start_with(&two_proxies(""), &[("TANDEM__NODE__SHARDS", "4")]);
    let (caller, second) = (Ua::new(&engine, "1001"), proxy(&engine, 5072));
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    let began = Instant::now();
    let invite = second.request("INVITE");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    talk_and_hang_up(&caller, leg, &second, &invite);
    let cdr = engine.cdr("normal", 200, "caller");
    assert_eq!(causes(&cdr), ["transport", "answered"]);
    let failovers =
        engine.metric("tandem_trunk_failovers_total", &[("trunk", "out"), ("cause", "transport")]);
    assert_eq!(failovers, 1.0);
}

#[test]
fn a_refused_connection_is_passed_over_at_once() {
    let engine = Engine::start(&by_tcp(""));
    let second = TcpListener::bind((engine.peer(), 5072)).expect("the port");
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    let began = Instant::now();
    let (stream, _) = second.accept().expect("a connection");
    let second = Ua::on_stream(stream, "proxy");
    let invite = second.request("INVITE");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    talk_and_hang_up(&caller, leg, &second, &invite);
    assert_eq!(causes(&engine.cdr("normal", 200, "caller")), ["transport", "answered"]);
}

#[test]
fn a_connection_that_does_not_come_about_is_given_up_after_the_trunks_connect_timeout() {
    let engine = Engine::start(&by_tcp("connect_timeout_ms = 300"));
    let _first = silent_port((engine.peer(), 5071).into());
    let second = TcpListener::bind((engine.peer(), 5072)).expect("the port");
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    let began = Instant::now();
    let (stream, _) = second.accept().expect("a connection");
    let waited = began.elapsed();
    assert!((200..2000).contains(&waited.as_millis()), "{waited:?}; the listener would wait 3 s");
    let second = Ua::on_stream(stream, "proxy");
    let invite = second.request("INVITE");
    talk_and_hang_up(&caller, leg, &second, &invite);
    let cdr = engine.cdr("normal", 200, "caller");
    assert_eq!(causes(&cdr), ["transport", "answered"]);
    assert!(cdr["attempts"][0]["ms"].as_u64().expect("ms") >= 290, "{cdr:#}");
}

#[test]
fn silence_leads_on_after_t1_doubled_for_each_retry_on_every_transport() {
    let keys = "t1_ms = 100\nmax_invite_retries = 2";
    let (engine, caller, first, second) = start(keys);
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    first.request("INVITE");
    let began = Instant::now();
    let invite = second.request("INVITE");
    assert!((350..2000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    talk_and_hang_up(&caller, leg, &second, &invite);
    let mut again = 0;
    while first.receive(Duration::from_millis(1)).is_some() {
        again += 1;
    }
    assert_eq!(again, 2, "0, 100 and 300 ms");
    assert_eq!(causes(&engine.cdr("normal", 200, "caller")), ["timeout", "answered"]);

    let engine = Engine::start(&by_tcp(keys));
    let listen = |port| TcpListener::bind((engine.peer(), port)).expect("the port");
    let (first, second) = (listen(5071), listen(5072));
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    let first = Ua::on_stream(first.accept().expect("a connection").0, "silent");
    first.request("INVITE");
    let second = Ua::on_stream(second.accept().expect("a connection").0, "proxy");
    let invite = second.request("INVITE");
    assert!(first.receive(Duration::from_millis(1)).is_none(), "nothing comes twice by a stream");
    talk_and_hang_up(&caller, leg, &second, &invite);
    assert_eq!(causes(&engine.cdr("normal", 200, "caller")), ["timeout", "answered"]);
}

#[test]
fn trying_alone_does_not_stop_the_walk_and_a_late_answer_of_who_was_left_is_ended() {
    let (engine, caller, first, second) = start("progress_timeout_ms = 300");
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    let abandoned = first.request("INVITE");
    first.respond(&abandoned, "100 Trying", "", "", "");
    let invite = second.request("INVITE");
    let cancel = first.request("CANCEL");
    assert!(cancel.header("Reason").contains("no progress"), "{cancel:?}");
    first.respond(&cancel, "200 OK", "late", "", "");
    // Its 200 has crossed our CANCEL.
    first.respond(&abandoned, "200 OK", "late", "", &sdp(first.local(), "0"));
    first.request("ACK");
    first.respond(&first.request("BYE"), "200 OK", "", "", "");
    talk_and_hang_up(&caller, leg, &second, &invite);
    let cdr = engine.cdr("normal", 200, "caller");
    assert_eq!(causes(&cdr), ["progress_timeout", "answered"]);
    assert_eq!(cdr["proxy"], format!("{}:5072", engine.peer()));
    engine.quiet();
}

#[test]
fn ringing_stops_the_walk_until_that_branch_fails() {
    let (engine, caller, first, second) = start("progress_timeout_ms = 300");
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    let ringing = first.request("INVITE");
    first.respond(&ringing, "100 Trying", "", "", "");
    first.respond(&ringing, "180 Ringing", "one", "", "");
    caller.response("INVITE", 180);
    assert!(second.receive(Duration::from_millis(900)).is_none(), "it rings: three times the timeout");
    first.respond(&ringing, "503 Service Unavailable", "one", "Retry-After: 60\r\n", "");
    let invite = second.request("INVITE");
    talk_and_hang_up(&caller, leg, &second, &invite);
    assert_eq!(causes(&engine.cdr("normal", 200, "caller")), ["503", "answered"]);
}

#[test]
fn a_caller_who_gives_up_stops_everything() {
    let (engine, caller, first, second) = start("progress_timeout_ms = 1000");
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    let invite = first.request("INVITE");
    first.respond(&invite, "100 Trying", "", "", "");
    caller.cancel(&leg);
    let cancel = first.request("CANCEL");
    first.respond(&cancel, "200 OK", "one", "", "");
    first.respond(&invite, "487 Request Terminated", "one", "", "");
    first.request("ACK");
    assert_eq!(caller.refused(&leg).status(), Some(487));
    assert_eq!(causes(&engine.cdr("abandoned", 487, "caller")), ["cancelled"]);
    assert!(second.receive(Duration::from_millis(1500)).is_none(), "past the timeout nobody else is called");
    assert_eq!(engine.metric("tandem_trunk_failovers_total", &[]), 0.0);
}

#[test]
fn the_settings_say_which_answers_lead_on_and_the_caller_never_sees_a_retry_after() {
    let keys = "retryable_codes = [\"404\", \"408\", \"600-699\"]";
    for (status, last) in [("404 Not Found", 603), ("408 Request Timeout", 480), ("603 Decline", 503)] {
        let (_engine, caller, first, second) = start(keys);
        let leg = caller.call("9555123", &sdp(caller.local(), "0"));
        first.respond(&first.request("INVITE"), status, "one", "", "");
        let end = format!("{last} No");
        second.respond(&second.request("INVITE"), &end, "two", "Retry-After: 60\r\n", "");
        let refused = caller.refused(&leg);
        assert_eq!(refused.status(), Some(last), "{status}");
        assert!(refused.headers("Retry-After").is_empty(), "{refused:?}");
    }
    let (_engine, caller, first, second) = start(keys);
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    first.respond(&first.request("INVITE"), "500 Server Internal Error", "one", "", "");
    assert_eq!(caller.refused(&leg).status(), Some(500), "500 is not in the list");
    assert!(second.receive(Duration::from_millis(100)).is_none());
}

#[test]
fn every_attempt_is_told_with_its_cause() {
    let engine = Engine::start(&two_proxies("progress_timeout_ms = 200"));
    let (caller, second) = (Ua::new(&engine, "1001"), proxy(&engine, 5072));
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    let invite = second.request("INVITE");
    second.respond(&invite, "100 Trying", "", "", "");
    let cancel = second.request("CANCEL");
    second.respond(&cancel, "200 OK", "two", "", "");
    second.respond(&invite, "487 Request Terminated", "two", "", "");
    assert_eq!(caller.refused(&leg).status(), Some(504));
    let cdr = engine.cdr("failed", 504, "callee");
    assert_eq!(causes(&cdr), ["transport", "progress_timeout"]);
    let id = cdr["call_id"].as_str().expect("an id");
    let why = eventually("the story", || {
        let story = engine.command(&["why", id]).output().ok()?;
        let text = String::from_utf8(story.stdout).ok()?;
        text.contains("progress_timeout after").then_some(text)
    });
    for (port, cause) in [(5071, "transport"), (5072, "progress_timeout")] {
        let line =
            |l: &str| l.contains("trunk.attempt") && l.contains(cause) && l.contains(&port.to_string());
        assert!(why.lines().any(line), "{cause}: {why}");
    }
}

#[test]
fn a_call_outlives_a_proxy_that_refuses_connections_for_a_while() {
    let engine = Engine::start(&by_tcp(""));
    let listen = || TcpListener::bind((engine.peer(), 5071)).expect("the port");
    let accept = |listener: &TcpListener| Ua::on_stream(listener.accept().expect("a connection").0, "proxy");
    let listener = listen();
    let caller = Ua::new(&engine, "1001");
    let mut leg = caller.call("9555123", &sdp(caller.local(), "0"));
    let first = accept(&listener);
    first.answer(&first.request("INVITE"), &sdp(first.local(), "0"));
    caller.established(&mut leg);
    drop((first, listener));
    let held = sdp(caller.local(), "0").replace("o=- 1 1", "o=- 1 2") + "a=sendonly\r\n";
    caller.next(&mut leg, "INVITE", "", &held);
    assert_eq!(caller.refused(&leg).status(), Some(503), "it could not be asked, and the call goes on");
    let listener = listen();
    caller.next(&mut leg, "INVITE", "", &held);
    let back = accept(&listener);
    let hold = back.request("INVITE");
    assert!(hold.text.contains("a=sendonly"), "{hold:?}");
    let answer = sdp(back.local(), "0").replace("o=- 1 1", "o=- 1 2") + "a=recvonly\r\n";
    back.answer(&hold, &answer);
    caller.established(&mut leg);
    hang_up(&caller, &mut leg, &back);
    assert_eq!(causes(&engine.cdr("normal", 200, "caller")), ["answered"]);
}

#[test]
fn a_proxy_that_is_overloaded_is_passed_over() {
    let (engine, caller, first, second) = start("");
    let mut leg = caller.call("9555123", &sdp(caller.local(), "0"));
    let refused = first.request("INVITE");
    assert!(refused.uri().starts_with("sip:555123@"), "the 9 is stripped: {refused:?}");
    first.respond(&refused, "503 Service Unavailable", "one", "", "");
    first.request("ACK");
    second.answer(&second.request("INVITE"), &sdp(second.local(), "0"));
    caller.established(&mut leg);
    hang_up(&caller, &mut leg, &second);
    let cdr = engine.cdr("normal", 200, "caller");
    assert_eq!(causes(&cdr), ["503", "answered"], "{cdr:#}");
    engine.counts("tandem_trunk_failovers_total", &[("trunk", "out")], 1.0);
}

#[test]
fn a_busy_far_end_is_final_whatever_proxies_are_left() {
    let (engine, caller, first, second) = start("");
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    let invite = first.request("INVITE");
    first.respond(&invite, "486 Busy Here", "one", "", "");
    assert_eq!(caller.refused(&leg).status(), Some(486));
    engine.cdr("busy", 486, "callee");
    drop(second);
}

#[test]
fn a_proxy_that_asks_for_credentials_gets_them() {
    let (engine, caller, first, _second) = start("username = \"office\"\npassword = \"hush\"");
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    let invite = first.request("INVITE");
    let challenge = "Digest realm=\"carrier\", nonce=\"abc\", algorithm=MD5, qop=\"auth\"";
    let header = format!("Proxy-Authenticate: {challenge}\r\n");
    first.respond(&invite, "407 Proxy Authentication Required", "one", &header, "");
    let again = first.wait("INVITE with credentials", |message| {
        message.is("INVITE") && !message.headers("Proxy-Authorization").is_empty()
    });
    assert!(again.header("Proxy-Authorization").contains("username=\"office\""), "{again:?}");
    first.respond(&again, "486 Busy Here", "one", "", "");
    assert_eq!(caller.refused(&leg).status(), Some(486));
    engine.cdr("busy", 486, "callee");
}

#[test]
fn a_proxy_and_a_server_behind_it_that_both_ask_for_credentials_get_them() {
    let keys = "username = \"office\"\npassword = \"hush\"";
    let www = "WWW-Authenticate: Digest realm=\"server\", nonce=\"abc\", qop=\"auth\"\r\n";
    let proxy = "Proxy-Authenticate: Digest realm=\"proxy\", nonce=\"def\"\r\n";
    let (_engine, caller, first, second) = start(keys);
    let signed = |invite: &Msg| ["Authorization", "Proxy-Authorization"].map(|h| invite.headers(h).len());
    // One after the other, and both at once.
    let after =
        [("407 Proxy Authentication Required", proxy.to_owned()), ("401 Unauthorized", www.to_owned())];
    let at_once = [("401 Unauthorized", format!("{www}{proxy}"))];
    for challenges in [&after[..], &at_once[..]] {
        let mut leg = caller.call("9555123", &sdp(caller.local(), "0"));
        let mut invite = first.request("INVITE");
        assert_eq!(signed(&invite), [0, 0]);
        for (status, headers) in challenges {
            first.respond(&invite, status, "one", headers, "");
            first.request("ACK");
            invite = first.request("INVITE");
        }
        assert_eq!(signed(&invite), [1, 1], "{invite:?}");
        first.answer(&invite, &sdp(first.local(), "0"));
        caller.established(&mut leg);
        hang_up(&caller, &mut leg, &first);
    }
    // A wrong password is not tried for ever.
    let leg = caller.call("9555123", &sdp(caller.local(), "0"));
    for nonce in ["one", "two"] {
        let invite = first.request("INVITE");
        let header = www.replace("abc", nonce);
        first.respond(&invite, "401 Unauthorized", "one", &header, "");
        first.request("ACK");
    }
    assert_eq!(caller.refused(&leg).status(), Some(403));
    assert!(second.receive(Duration::from_millis(1)).is_none());
}

#[test]
fn a_trunk_that_wants_an_extension_or_a_security_agreement_of_us_fails_the_call() {
    let (engine, caller, first, second) = start("");
    for (status, headers, told) in [
        ("421 Extension Required", "Require: path\r\n", 500),
        ("494 Security Agreement Required", "Security-Server: tls;q=0.1\r\nRequire: sec-agree\r\n", 403),
    ] {
        let leg = caller.call("9555123", &sdp(caller.local(), "0"));
        let invite = first.request("INVITE");
        first.respond(&invite, status, "one", headers, "");
        first.request("ACK");
        let refusal = caller.refused(&leg);
        assert_eq!(refusal.status(), Some(told), "{status}");
        assert!(refusal.headers("Require").is_empty() && refusal.headers("Security-Server").is_empty());
    }
    let cdrs = engine.wait_cdrs(2);
    let causes: Vec<&str> = cdrs.iter().filter_map(|cdr| cdr["cause"].as_str()).collect();
    assert_eq!(causes, ["rejected", "rejected"], "{cdrs:#?}");
    assert!(second.receive(Duration::from_millis(1)).is_none(), "another proxy would say the same");
}
