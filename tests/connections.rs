//! Whose a connection is, how long it is kept, and what becomes of answers when it ends: RFC 3261 §18.2, RFC 5626 §3.5.1.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::digest::Challenge;
use common::stream::{EMPTY, accepted, both, options, reset, silent_port, until_closed};
use common::ua::token;
use common::{Engine, Leg, Ua, eventually, sdp};

/// A caller on a connection of his own, whose Via names `via` or else `sent_by`, and his INVITE to 1002, which has its credentials.
fn caller_named(engine: &Engine, sent_by: &TcpListener, via: Option<&str>) -> (TcpStream, Ua, Leg) {
    let stream = TcpStream::connect(engine.sip).expect("a connection");
    let a = Ua::on_stream(stream.try_clone().expect("a copy"), "1001");
    let mut leg = a.leg("1002");
    let ours = format!("SIP/2.0/TCP {}", a.local());
    let listens = sent_by.local_addr().expect("an address").to_string();
    let named = format!("SIP/2.0/TCP {}", via.unwrap_or(&listens));
    let invite = |leg: &mut Leg, headers: &str| {
        leg.cseq += 1;
        leg.branch = format!("z9hG4bK{}", token());
        leg.invite_uri = leg.target.clone();
        let text = a.text(leg, "INVITE", &leg.target, &leg.branch, headers, &sdp(a.local(), "0"));
        leg.invite = text.replacen(&ours, &named, 1);
        a.send(&leg.invite);
    };
    invite(&mut leg, "");
    let challenge = Challenge::parse(a.response("INVITE", 401).header("WWW-Authenticate"));
    let answer = challenge.answer("1001", "secret-1001", "INVITE", &leg.target, 1);
    invite(&mut leg, &format!("Authorization: {answer}\r\n"));
    (stream, a, leg)
}

/// A listener on the host that callers by TCP are on.
fn beside(engine: &Engine) -> TcpListener {
    let stream = TcpStream::connect(engine.sip).expect("a connection");
    TcpListener::bind((stream.local_addr().expect("an address").ip(), 0)).expect("a port")
}

#[test]
fn an_answer_written_to_a_peer_that_has_gone_goes_to_the_sent_by() {
    let engine = Engine::start(&both(""));
    let b = Ua::new(&engine, "1002").registered();
    let sent_by = beside(&engine);
    let (stream, a, _) = caller_named(&engine, &sent_by, None);
    let invite = b.request("INVITE");
    // It could still read, for all that the engine can see.
    drop((stream, a));
    b.respond(&invite, "486 Busy Here", "bob", "", "");
    Ua::on_stream(accepted(&sent_by), "1001").response("INVITE", 486);
}

#[test]
fn a_peer_behind_a_nat_is_answered_by_the_connection_that_its_request_came_by_again() {
    let engine = Engine::start(&both(""));
    let b = Ua::new(&engine, "1002").registered();
    let sent_by = beside(&engine);
    let (stream, a, leg) = caller_named(&engine, &sent_by, Some("10.0.0.7:5060"));
    let invite = b.request("INVITE");
    drop(a);
    reset(stream);
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "broken")], 1.0);
    let again = Ua::tcp(&engine, "1001");
    again.send(&leg.invite);
    // Nothing else says that it has come.
    again.response("INVITE", 100);
    b.respond(&invite, "486 Busy Here", "bob", "", "");
    again.response("INVITE", 486);
    sent_by.set_nonblocking(true).expect("set");
    assert!(sent_by.accept().is_err());
}

#[test]
fn a_connection_that_brings_nothing_concerns_one_shard_only() {
    let engine = Engine::start_with(&both(""), &[("TANDEM__NODE__SHARDS", "4")]);
    let crossings = engine.metric("tandem_shard_crossings_total", &[]);
    for _ in 0..20 {
        let mut stream = TcpStream::connect(engine.sip).expect("a connection");
        stream.write_all(b"\r\n\r\n").expect("sent");
        stream.read_exact(&mut [0; 2]).expect("a pong");
    }
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "peer")], 20.0);
    assert_eq!(engine.metric("tandem_shard_crossings_total", &[]), crossings);
}

#[test]
fn a_peer_that_sends_nothing_more_still_gets_its_answer() {
    for shards in ["1", "4"] {
        let engine = Engine::start_with(&both(""), &[("TANDEM__NODE__SHARDS", shards)]);
        let b = Ua::new(&engine, "1002").registered();
        let sent_by = beside(&engine);
        let (stream, a, _) = caller_named(&engine, &sent_by, None);
        let invite = b.request("INVITE");
        stream.shutdown(Shutdown::Write).expect("shut");
        // The engine has seen it once another that came later has been dealt with.
        let later = Ua::tcp(&engine, "x");
        later.send(options(&engine, "later", EMPTY));
        later.response("OPTIONS", 200);
        b.respond(&invite, "180 Ringing", "bob", "", "");
        a.response("INVITE", 180);
        b.respond(&invite, "486 Busy Here", "bob", "", "");
        a.response("INVITE", 486);
        assert_eq!(until_closed(&stream).trim(), "", "then it ends");
        engine.reaches("tandem_sip_connections_closed_total", &[("cause", "peer")], 2.0);
        sent_by.set_nonblocking(true).expect("set");
        assert!(sent_by.accept().is_err(), "the answer was read");
    }
}

#[test]
fn a_stranger_is_answered_by_his_own_connection_or_not_at_all() {
    let engine = Engine::start_with(&both(""), &[("TANDEM__NODE__SHARDS", "4")]);
    let sent_by = beside(&engine);
    let named = sent_by.local_addr().expect("an address").to_string();
    const STRANGERS: usize = 40;
    for n in 0..STRANGERS {
        let mut stream = TcpStream::connect(engine.sip).expect("a connection");
        let text = options(&engine, &format!("stranger-{n}"), EMPTY).replacen("192.0.2.9", &named, 1);
        // More than fit into one turn: some are answered when the connection has gone.
        stream.write_all(text.repeat(20).as_bytes()).expect("sent");
        reset(stream);
    }
    eventually("every connection ended", || {
        (engine.metric("tandem_sip_connections_active", &[("transport", "tcp")]) == 0.0).then_some(())
    });
    // What goes to the sent-by is somebody's whom the engine knows, and all that was to go there before has gone.
    let b = Ua::new(&engine, "1002").registered();
    let (stream, a, _) = caller_named(&engine, &sent_by, None);
    let invite = b.request("INVITE");
    drop(a);
    reset(stream);
    eventually("its connection ended", || {
        (engine.metric("tandem_sip_connections_active", &[("transport", "tcp")]) == 0.0).then_some(())
    });
    b.respond(&invite, "486 Busy Here", "bob", "", "");
    let first = Ua::on_stream(accepted(&sent_by), "1001").receive(common::SOON).expect("an answer");
    assert!(first.answers("INVITE", 486), "{first:?}");
    assert_eq!(sent_by.accept().map_err(|error| error.kind()).err(), Some(ErrorKind::WouldBlock));
}

/// What comes until nothing has come for `pause`, or the engine closes: true in that case.
fn come(mut stream: &TcpStream, pause: Duration, all: &mut Vec<u8>) -> bool {
    stream.set_read_timeout(Some(pause)).expect("a timeout");
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return true,
            Ok(length) => all.extend_from_slice(&piece[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(_) => return true,
        }
    }
}

#[test]
fn a_burst_of_pings_is_answered_by_a_few_pongs() {
    let engine = Engine::start(&both(""));
    let ua = Ua::tcp(&engine, "1001");
    let mut stream = TcpStream::connect(engine.sip).expect("a connection");
    let burst = b"\r\n\r\n".repeat(10_000);
    stream.write_all(&burst).expect("sent");
    stream.write_all(options(&engine, "a", EMPTY).as_bytes()).expect("sent");
    let mut all = Vec::new();
    eventually("the answer", || {
        assert!(!come(&stream, Duration::from_millis(50), &mut all), "closed");
        all.windows(7).any(|window| window == b"SIP/2.0").then_some(())
    });
    let pongs = all.windows(7).position(|window| window == b"SIP/2.0").map_or(0, |at| at / 2);
    assert!((1..=2_000).contains(&pongs), "{pongs} pongs");
    ua.send(options(&engine, "b", EMPTY));
    ua.response("OPTIONS", 200);
}

/// Pings five times a second for as long as that is answered and `limit` has not passed; how long it was.
fn pings(stream: &TcpStream, limit: Duration) -> Duration {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        let mut all = Vec::new();
        if (&mut &*stream).write_all(b"\r\n\r\n").is_err()
            || come(stream, Duration::from_millis(200), &mut all)
        {
            break;
        }
    }
    begin.elapsed()
}

#[test]
fn pings_alone_keep_the_connection_of_a_phone_and_of_no_stranger() {
    let engine = Engine::start(&both("idle_timeout_s = 1"));
    let long = Duration::from_secs(4);
    let stranger = TcpStream::connect(engine.sip).expect("a connection");
    let ua = Ua::on_stream(stranger.try_clone().expect("a copy"), "1001");
    // A registration that is refused makes nobody known.
    let mut leg = ua.registration();
    assert_eq!(ua.register_once(&mut leg, &[], "").status(), Some(401));
    assert!(pings(&stranger, long) < long, "a stranger holds a place by pings");
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "idle")], 1.0);

    let stream = TcpStream::connect(engine.sip).expect("a connection");
    let phone = Ua::on_stream(stream.try_clone().expect("a copy"), "1002").registered();
    assert!(pings(&stream, long) >= long, "the flow of a phone (RFC 5626 §4.4.1)");
    assert_eq!(engine.metric("tandem_sip_connections_active", &[("transport", "tcp")]), 1.0);
    drop(phone);
}

#[test]
fn a_trunk_that_calls_by_the_connection_we_opened_to_it_is_known_and_nobody_else_from_there() {
    for shards in ["1", "4"] {
        let settings = both(
            "[[trunk]]\nname = \"out\"\ntransport = \"tcp\"\nproxies = [\"{peer}:5070\"]\n\
             [[dial_plan.pattern]]\npattern = \"9.X!\"\npartition = \"internal\"\ntarget = \"trunk:out\"\nstrip = 0\n",
        );
        let engine = Engine::start_with(&settings, &[("TANDEM__NODE__SHARDS", shards)]);
        let proxy = TcpListener::bind((engine.peer(), 5070)).expect("the port");
        let a = Ua::new(&engine, "1001").registered();
        let leg = a.call("9555123", &sdp(a.local(), "0"));
        let trunk = Ua::on_stream(accepted(&proxy), "5550100");
        let invite = trunk.request("INVITE");
        trunk.respond(&invite, "486 Busy Here", "far", "", "");
        assert_eq!(a.refused(&leg).status(), Some(486));
        // Each on the shard of its Call-ID.
        for _ in 0..8 {
            let mut leg = trunk.leg("1001");
            trunk.next(&mut leg, "INVITE", "", &sdp(trunk.local(), "0"));
            let invite = a.request("INVITE");
            a.respond(&invite, "486 Busy Here", "a", "", "");
            assert_eq!(trunk.refused(&leg).status(), Some(486));
        }
        // The same host by a connection that it has opened.
        let stranger = Ua::tcp(&engine, "5550100");
        let mut leg = stranger.leg("1001");
        stranger.next(&mut leg, "INVITE", "", &sdp(stranger.local(), "0"));
        assert_eq!(stranger.refused(&leg).status(), Some(401));
        // Who says that he is a station must prove it, wherever he calls from.
        let station = Ua::on_stream(trunk.stream().expect("a connection"), "1002");
        let mut leg = station.leg("1001");
        station.next(&mut leg, "INVITE", "", &sdp(station.local(), "0"));
        assert_eq!(station.refused(&leg).status(), Some(401));
    }
}

#[test]
fn a_large_request_waits_half_a_second_for_a_connection_and_then_goes_as_a_datagram() {
    let engine = Engine::start(&both(""));
    let a = Ua::new(&engine, "1001").registered();
    let seen = Ua::tcp(&engine, "x");
    let b = Ua::at(&engine, "1002", seen.local().ip()).registered();
    seen.send(options(&engine, &token(), EMPTY));
    seen.response("OPTIONS", 200);
    // It is known to have TCP, but its port answers nobody now.
    let _silent = silent_port(b.local());
    let began = Instant::now();
    let leg = a.call("1002", &format!("{}a=x:{}\r\n", sdp(a.local(), "0"), "y".repeat(1500)));
    let invite = b.request("INVITE");
    let waited = began.elapsed();
    assert!(invite.header("Via").starts_with("SIP/2.0/UDP "), "{invite:?}");
    assert!((450..2_000).contains(&waited.as_millis()), "{waited:?}");
    b.respond(&invite, "486 Busy Here", "bob", "", "");
    assert_eq!(a.refused(&leg).status(), Some(486));
    // A small one does not wait at all.
    let began = Instant::now();
    let leg = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    b.respond(&invite, "486 Busy Here", "bob", "", "");
    assert_eq!(a.refused(&leg).status(), Some(486));
}
