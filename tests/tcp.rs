//! SIP over TCP as seen on the wire: RFC 3261 §18, RFC 5626 §3.5.1.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use common::calls::a_call;
use common::engine::stations;
use common::stream::{EMPTY, accepted, both, options, reset, until_closed};
use common::ua::token;
use common::{Engine, SOON, Sipp, Ua, eventually, sdp};

/// Far from Timer B's 32 s, after which an INVITE without answer is given up (RFC 3261 §17.1.1.2).
const AT_ONCE: Duration = Duration::from_secs(3);

#[test]
fn stations_on_tcp_and_udp_call_each_other() {
    let engine = Engine::start(&both(""));
    let (a, b) = (Ua::tcp(&engine, "1001").registered(), Ua::new(&engine, "1002").registered());
    let invite = a_call(&a, &b, "1002");
    assert!(invite.header("Via").starts_with("SIP/2.0/UDP "), "{invite:?}");
    assert!(!invite.contact().contains("transport"), "{invite:?}");
    let invite = a_call(&b, &a, "1001");
    assert!(invite.header("Via").starts_with("SIP/2.0/TCP "), "{invite:?}");
    assert!(invite.contact().ends_with(";transport=tcp"), "{invite:?}");
    for (direction, transport) in [("in", "tcp"), ("out", "tcp"), ("in", "udp"), ("out", "udp")] {
        let labels = [("direction", direction), ("method", "INVITE"), ("transport", transport)];
        assert!(engine.metric("tandem_sip_messages_total", &labels) >= 1.0, "{labels:?}");
    }
    engine.quiet();
}

#[test]
fn many_phones_on_tcp_call_each_other_whatever_shard_has_their_connections() {
    let engine = Engine::start_with(&both(""), &[("TANDEM__NODE__SHARDS", "4")]);
    for _ in 0..8 {
        let (a, b) = (Ua::tcp(&engine, "1001").registered(), Ua::tcp(&engine, "1002"));
        let b = b.registered();
        a_call(&a, &b, "1002");
        a.register(&["*"], "Expires: 0\r\n");
        b.register(&["*"], "Expires: 0\r\n");
    }
    engine.quiet();
    assert!(engine.metric("tandem_shard_crossings_total", &[]) > 0.0);
}

#[test]
fn pipelined_and_dribbled_requests_are_each_answered() {
    let engine = Engine::start(&both(""));
    let ua = Ua::tcp(&engine, "1001");
    let (a, b) = (options(&engine, "a", EMPTY), options(&engine, "b", "l: 4\r\n\r\nbody"));
    let c = options(&engine, "c", EMPTY);
    ua.send(format!("{a}\r\n{b}{}", &c[..50]));
    // Each on the shard of its Call-ID, so in no certain order.
    let mut answered = [ua.response("OPTIONS", 200), ua.response("OPTIONS", 200)]
        .map(|answer| answer.header("Call-ID").to_owned());
    answered.sort();
    assert_eq!(answered, ["a", "b"]);
    for byte in c.as_bytes()[50..].chunks(1) {
        ua.send(byte);
    }
    let answer = ua.response("OPTIONS", 200);
    let via = answer.header("Via");
    assert!(via.contains("received=127."), "{via}");
    assert!(via.contains(&format!("rport={}", ua.local().port())), "{via}");
}

#[test]
fn a_double_line_end_is_answered_by_a_single_one_and_on_udp_by_nothing() {
    let engine = Engine::start(&both(""));
    let mut stream = TcpStream::connect(engine.sip).expect("a connection");
    stream.write_all(b"\r\n\r\n").expect("sent");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut pong = [0; 2];
    stream.read_exact(&mut pong).expect("a pong");
    assert_eq!(&pong, b"\r\n");
    stream.write_all(options(&engine, "a", EMPTY).as_bytes()).expect("sent");
    let mut next = [0; 7];
    stream.read_exact(&mut next).expect("an answer");
    assert_eq!(&next, b"SIP/2.0", "one pong only");

    let socket = UdpSocket::bind((engine.peer(), 0)).expect("a port");
    socket.send_to(b"\r\n\r\n", engine.sip).expect("sent");
    socket.send_to(options(&engine, "b", EMPTY).as_bytes(), engine.sip).expect("sent");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("an answer");
    assert!(buffer[..length].starts_with(b"SIP/2.0 200"), "no datagram answers a keep-alive");
}

#[test]
fn a_message_that_takes_too_long_ends_its_connection_and_no_other() {
    let engine = Engine::start(&both("message_timeout_s = 1"));
    let good = Ua::tcp(&engine, "1001");
    good.send(options(&engine, "a", EMPTY));
    good.response("OPTIONS", 200);
    let silent = TcpStream::connect(engine.sip).expect("a connection");
    let mut pings = TcpStream::connect(engine.sip).expect("a connection");
    pings.write_all(b"\r\n\r\n").expect("sent");
    let mut slow = TcpStream::connect(engine.sip).expect("a connection");
    let begin = Instant::now();
    let text = options(&engine, "slow", "");
    // A byte now and then is no progress.
    slow.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let mut bytes = text.bytes();
    loop {
        let _ = slow.write_all(&[bytes.next().expect("it takes too long")]);
        match slow.read(&mut [0; 16]) {
            Ok(0) => break,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
            Ok(_) => panic!("an answer"),
        }
    }
    assert!(begin.elapsed() > Duration::from_millis(800) && begin.elapsed() < SOON);
    assert_eq!(until_closed(&silent), "");
    assert_eq!(until_closed(&pings), "\r\n", "a ping is no message");
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "slow")], 3.0);
    good.send(options(&engine, "b", EMPTY));
    good.response("OPTIONS", 200);
}

#[test]
fn what_cannot_be_framed_is_answered_if_it_can_be_and_ends_the_connection() {
    let engine = Engine::start(&both(""));
    let send = |text: &str| {
        let mut stream = TcpStream::connect(engine.sip).expect("a connection");
        stream.write_all(text.as_bytes()).expect("sent");
        until_closed(&stream)
    };
    let no_length = send(&options(&engine, "a", "\r\n"));
    assert!(no_length.starts_with("SIP/2.0 400 "), "{no_length}");
    let two = send(&options(&engine, "b", "Content-Length: 0\r\nl: 9\r\n\r\n"));
    assert!(two.starts_with("SIP/2.0 400 "), "{two}");
    let large = send(&options(&engine, "c", "Content-Length: 9999999\r\n\r\n"));
    assert!(large.starts_with("SIP/2.0 513 "), "{large}");
    let ack = options(&engine, "d", "\r\n").replace("OPTIONS", "ACK");
    assert_eq!(send(&ack), "", "an ACK is never answered");
    assert_eq!(send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "");
    assert_eq!(send("\u{16}\u{3}\u{1}\u{2}\u{0}"), "", "TLS");
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "malformed")], 6.0);
}

#[test]
fn headers_without_end_are_held_within_a_bound() {
    let engine = Engine::start(&both(""));
    let mut stream = TcpStream::connect(engine.sip).expect("a connection");
    let line = format!("X-Long: {}\r\n", "x".repeat(1000));
    stream.write_all(options(&engine, "a", "").as_bytes()).expect("sent");
    let written = (0..10_000).take_while(|_| stream.write_all(line.as_bytes()).is_ok()).count();
    assert!(written < 10_000, "the engine reads for ever");
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "malformed")], 1.0);
}

#[test]
fn a_source_has_so_many_connections_and_an_idle_one_is_closed() {
    let engine = Engine::start(&both("max_connections_per_source = 2\nidle_timeout_s = 3"));
    let ua = || {
        let ua = Ua::tcp(&engine, "1001");
        ua.send(options(&engine, "a", EMPTY));
        ua
    };
    let (one, two) = (ua(), ua());
    one.response("OPTIONS", 200);
    two.response("OPTIONS", 200);
    let third = TcpStream::connect(engine.sip).expect("a connection");
    assert_eq!(until_closed(&third), "");
    engine.counts("tandem_sip_connections_refused_total", &[("reason", "source_limit")], 1.0);
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "idle")], 2.0);
    engine.counts("tandem_sip_connections_active", &[("transport", "tcp")], 0.0);
    ua().response("OPTIONS", 200);
}

#[test]
fn a_peer_that_does_not_read_is_cut_off() {
    let engine = Engine::start_with(&both("send_queue_kb = 64"), &[("TANDEM__NODE__SHARDS", "4")]);
    let mut stream = TcpStream::connect(engine.sip).expect("a connection");
    // Of calls on every shard.
    let piece: String = (0..50).map(|n| options(&engine, &format!("a{n}"), EMPTY)).collect();
    let written = (0..5_000).take_while(|_| stream.write_all(piece.as_bytes()).is_ok()).count();
    assert!(written < 5_000, "the engine holds every answer");
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "backlog")], 1.0);
    let other = Ua::tcp(&engine, "1001");
    other.send(options(&engine, "b", EMPTY));
    other.response("OPTIONS", 200);
    engine.counts("tandem_link_shed_total", &[], 0.0);
}

#[test]
fn a_phone_whose_connection_has_gone_is_passed_over_and_with_none_left_the_caller_gets_480_at_once() {
    let engine = Engine::start(&both(""));
    let a = Ua::new(&engine, "1001").registered();
    let gone = Ua::tcp(&engine, "1002").registered();
    let here = Ua::new(&engine, "1002").registered();
    drop(gone);
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "peer")], 1.0);
    a_call(&a, &here, "1002");
    here.register(&["*"], "Expires: 0\r\n");
    let gone = Ua::tcp(&engine, "1002").registered();
    drop(gone);
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "peer")], 2.0);
    let begin = Instant::now();
    let leg = a.call("1002", &sdp(a.local(), "0"));
    assert_eq!(a.refused(&leg).status(), Some(480));
    assert!(begin.elapsed() < AT_ONCE, "no timer was waited for");
}

#[test]
fn a_device_with_two_flows_is_called_by_the_one_that_is_left() {
    for shards in ["1", "4"] {
        let engine = Engine::start_with(&both(""), &[("TANDEM__NODE__SHARDS", shards)]);
        let a = Ua::new(&engine, "1001").registered();
        // The device listens too, but a flow is what it wants to be called by.
        let source = Ua::tcp(&engine, "1002").local().ip();
        let listener = TcpListener::bind((source, 0)).expect("a port");
        let flow = |reg_id: u32| {
            let mut ua = Ua::tcp(&engine, "1002");
            ua.listens = Some(listener.local_addr().expect("an address"));
            let contact = format!("<{}>;reg-id={reg_id};+sip.instance=\"<urn:uuid:1>\"", ua.contact());
            let answer = ua.register(&[&contact], "Expires: 600\r\nSupported: path, outbound\r\n");
            assert_eq!(answer.status(), Some(200), "{answer:?}");
            ua
        };
        let (first, second) = (flow(1), flow(2));
        let bindings = || engine.metric("tandem_registrations_active", &[]);
        eventually("three bindings", || (bindings() == 3.0).then_some(()));
        drop(second);
        eventually("one flow less", || (bindings() == 2.0).then_some(()));
        a_call(&a, &first, "1002");
        listener.set_nonblocking(true).expect("set");
        assert!(listener.accept().is_err(), "by the flow, and not by its contact");
        drop(first);
        eventually("no flow", || (bindings() == 1.0).then_some(()));
        let leg = a.call("1002", &sdp(a.local(), "0"));
        assert_eq!(a.refused(&leg).status(), Some(480));
    }
}

#[test]
fn an_invite_without_answer_when_its_connection_breaks_fails_at_once() {
    let engine = Engine::start(&both(""));
    let a = Ua::new(&engine, "1001").registered();
    let b = Ua::tcp(&engine, "1002").registered();
    let begin = Instant::now();
    let leg = a.call("1002", &sdp(a.local(), "0"));
    b.request("INVITE");
    drop(b);
    assert_eq!(a.refused(&leg).status(), Some(480));
    assert!(begin.elapsed() < AT_ONCE, "Timer B was not waited for");
}

#[test]
fn a_bye_finds_a_phone_that_listens_after_its_connection_broke() {
    let engine = Engine::start(&both(""));
    let a = Ua::new(&engine, "1001").registered();
    let mut b = Ua::tcp(&engine, "1002");
    let listener = TcpListener::bind((b.local().ip(), 0)).expect("a port");
    b.listens = Some(listener.local_addr().expect("an address"));
    let b = b.registered();
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.answer(&invite, &sdp(b.local(), "0"));
    a.established(&mut leg);
    drop(b);
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "peer")], 1.0);
    a.next(&mut leg, "BYE", "", "");
    let stream = accepted(&listener);
    let b = Ua::on_stream(stream, "1002");
    let bye = b.request("BYE");
    b.respond(&bye, "200 OK", "", "", "");
    a.response("BYE", 200);
    engine.quiet();
}

#[test]
fn a_response_whose_connection_is_gone_goes_to_the_sent_by() {
    let engine = Engine::start(&both(""));
    let b = Ua::new(&engine, "1002").registered();
    let stream = TcpStream::connect(engine.sip).expect("a connection");
    let source = stream.local_addr().expect("an address").ip();
    let sent_by = TcpListener::bind((source, 0)).expect("a port");
    let a = Ua::on_stream(stream.try_clone().expect("a copy"), "1001");
    let mut leg = a.leg("1002");
    let ours = format!("SIP/2.0/TCP {}", a.local());
    let named = format!("SIP/2.0/TCP {}", sent_by.local_addr().expect("an address"));
    let invite = |leg: &common::Leg, headers: &str, branch: &str| {
        let text = a.text(leg, "INVITE", &leg.target, branch, headers, &sdp(a.local(), "0"));
        text.replacen(&ours, &named, 1)
    };
    leg.cseq = 1;
    a.send(invite(&leg, "", "z9hG4bKone"));
    let challenge = a.response("INVITE", 401);
    let challenge = common::digest::Challenge::parse(challenge.header("WWW-Authenticate"));
    let answer = challenge.answer("1001", "secret-1001", "INVITE", &leg.target, 1);
    leg.cseq = 2;
    a.send(invite(&leg, &format!("Authorization: {answer}\r\n"), "z9hG4bKtwo"));
    let invite = b.request("INVITE");
    drop(a);
    reset(stream);
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "broken")], 1.0);
    b.respond(&invite, "486 Busy Here", "bob", "", "");
    let stream = accepted(&sent_by);
    Ua::on_stream(stream, "1001").response("INVITE", 486);
}

/// A trunk by TCP to two servers, and one by which calls come.
fn trunks() -> String {
    both(
        "[[trunk]]\nname = \"out\"\ntransport = \"tcp\"\nproxies = [\"{peer}:5071\", \"{peer}:5070\"]\n\
         [[trunk]]\nname = \"in\"\ntransport = \"tcp\"\nproxies = [\"192.0.2.1:5060\"]\naccept_from = [\"{ip}/30\", \"127.0.0.1\"]\n\
         calling_search_space = \"outside\"\n\
         [[dial_plan.partition]]\nname = \"outside\"\n\
         [[dial_plan.calling_search_space]]\nname = \"outside\"\npartitions = [\"outside\", \"internal\"]\n\
         [[dial_plan.pattern]]\npattern = \"9.X!\"\npartition = \"outside\"\ntarget = \"trunk:out\"\nstrip = 0\n",
    )
}

#[test]
fn calls_come_and_leave_by_trunks_on_tcp_and_pass_over_a_proxy_that_refuses() {
    let engine = Engine::start(&trunks());
    let peer = engine.peer();
    let uas = Sipp::start(&engine, "uas", (peer, 5070).into(), &["-t", "t1", "-m", "5"]);
    eventually("SIPp listens", || TcpStream::connect((peer, 5070)).ok());
    let calls = ["-t", "tn", "-max_socket", "20", "-s", "9555123", "-m", "5", "-r", "20", "-d", "200"];
    Sipp::start(&engine, "uac", (peer, 5090).into(), &calls).passes();
    uas.passes();
    for cdr in engine.wait_cdrs(5) {
        assert_eq!((cdr["cause"].as_str(), cdr["ended_by"].as_str()), (Some("normal"), Some("caller")));
        assert_eq!(cdr["proxy"], format!("{peer}:5070"), "{cdr:#}");
    }
    assert!(engine.metric("tandem_trunk_failovers_total", &[("cause", "transport")]) >= 1.0);
    engine.quiet();
}

#[test]
fn many_phones_register_on_one_connection_and_on_one_each() {
    let engine = Engine::start(&both(""));
    for (port, kind) in [(5090, "t1"), (5091, "tn")] {
        let phones = ["-t", kind, "-max_socket", "20", "-m", "10", "-r", "20"];
        Sipp::start(&engine, "register", (engine.peer(), port).into(), &phones).passes();
    }
    assert_eq!(engine.metric("tandem_auth_failures_total", &[]), 0.0);
    eventually("no binding", || (engine.metric("tandem_registrations_active", &[]) == 0.0).then_some(()));
}

#[test]
fn a_proxy_of_a_trunk_on_tcp_is_known_by_accept_from_only() {
    let settings =
        trunks().replace("accept_from = [\"{ip}/30\", \"127.0.0.1\"]", "accept_from = [\"192.0.2.0/24\"]");
    let engine = Engine::start(&settings.replace("192.0.2.1:5060", "{ip}:5060"));
    let ua = Ua::tcp(&engine, "5550100");
    let mut leg = ua.leg("9555123");
    ua.next(&mut leg, "INVITE", "", &sdp(ua.local(), "0"));
    assert_eq!(ua.refused(&leg).status(), Some(401));
}

#[test]
fn a_large_request_goes_by_tcp_to_a_peer_that_was_seen_on_it_and_else_by_udp() {
    let engine = Engine::start(&both(""));
    let a = Ua::new(&engine, "1001").registered();
    let seen = Ua::tcp(&engine, "x");
    let b = Ua::at(&engine, "1002", seen.local().ip()).registered();
    let large = format!("{}a=x:{}\r\n", sdp(a.local(), "0"), "y".repeat(1500));
    // Nobody has seen it on TCP: a datagram.
    let leg = a.call("1002", &large);
    let invite = b.request("INVITE");
    assert!(invite.header("Via").starts_with("SIP/2.0/UDP "), "{invite:?}");
    b.respond(&invite, "486 Busy Here", "bob", "", "");
    a.refused(&leg);
    let see = || {
        seen.send(options(&engine, &token(), EMPTY));
        seen.response("OPTIONS", 200);
    };
    // Seen, but it refuses: a datagram after all.
    see();
    let leg = a.call("1002", &large);
    let invite = b.request("INVITE");
    assert!(invite.header("Via").starts_with("SIP/2.0/UDP "), "{invite:?}");
    b.respond(&invite, "486 Busy Here", "bob", "", "");
    a.refused(&leg);
    engine.reaches("tandem_sip_connections_closed_total", &[("cause", "unreachable")], 1.0);
    see();
    let listener = TcpListener::bind(b.local()).expect("the same port");
    let leg = a.call("1002", &large);
    let stream = accepted(&listener);
    let b = Ua::on_stream(stream, "1002");
    let invite = b.request("INVITE");
    assert!(invite.header("Via").starts_with("SIP/2.0/TCP "), "{invite:?}");
    b.respond(&invite, "486 Busy Here", "bob", "", "");
    b.request("ACK");
    assert_eq!(a.refused(&leg).status(), Some(486));
    engine.quiet();
}

#[test]
fn a_call_over_ipv6_by_tcp_and_udp() {
    let Ok(port) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).map(|a| a.port())
    else {
        eprintln!("this machine has no IPv6, so calls over it cannot be tested");
        return;
    };
    let server = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let settings = format!(
        "[[listen]]\nname = \"udp\"\naddress = \"{server}\"\n\
         [[listen]]\nname = \"tcp\"\ntransport = \"tcp\"\naddress = \"{server}\"\n{}",
        stations(&["1001", "1002"])
    );
    let engine = Engine::start(&settings);
    let mut b = Ua::at(&engine, "1002", Ipv6Addr::LOCALHOST.into());
    b.server = server;
    let b = b.registered();
    let a = Ua::on_stream(TcpStream::connect(server).expect("a connection"), "1001").registered();
    let invite = a_call(&a, &b, "1002");
    assert!(invite.header("Via").starts_with(&format!("SIP/2.0/UDP [::1]:{port};")), "{invite:?}");
    let invite = a_call(&b, &a, "1001");
    assert!(invite.header("Via").starts_with(&format!("SIP/2.0/TCP [::1]:{port};")), "{invite:?}");
    engine.quiet();
}
