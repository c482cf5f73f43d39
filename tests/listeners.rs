//! Listeners that a reload adds, moves and takes away while calls are up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use std::net::{SocketAddr, TcpStream, UdpSocket};

use common::calls::hang_up;
use common::offer::serve;
use common::stream::until_closed;
use common::tls::{Authority, Openssl};
use common::{Engine, Leg, Ua, eventually, sdp, so};
use socket2::{Domain, Socket, Type};

/// A listener on UDP unless it says otherwise, at a port of the engine's.
fn listen(name: &str, port: u16, more: &str) -> String {
    format!("[[listen]]\nname = \"{name}\"\naddress = \"{{ip}}:{port}\"\nt1_ms = 100\n{more}\n")
}

/// A trunk by a listener, and a digit that leads there.
fn trunk(name: &str, by: &str, port: u16, digit: u8) -> String {
    format!(
        "[[trunk]]\nname = \"{name}\"\nlisten = \"{by}\"\nproxies = [\"{{peer}}:{port}\"]\n\
         [[dial_plan.pattern]]\npattern = \"{digit}.X!\"\ntarget = \"trunk:{name}\"\n"
    )
}

/// What is there from the start: listener "one" with the trunk "out".
fn base() -> String {
    listen("one", 5060, "") + &trunk("out", "one", 5070, 9)
}

/// Listener "two" with the trunk "in".
fn second() -> String {
    listen("two", 5062, "") + &trunk("in", "two", 5090, 8)
}

/// A server at a port of the peer's that speaks with the listener at this port.
fn at(engine: &Engine, user: &str, port: u16, listener: u16) -> Ua {
    let mut ua = Ua::on(engine, user, (engine.peer(), port).into());
    ua.server = SocketAddr::from((engine.sip.ip(), listener));
    ua
}

/// A call from `a` to `b`, whose user is the number that leads there.
#[track_caller]
fn connected(a: &Ua, b: &Ua) -> (Leg, Leg) {
    let mut leg = a.leg(&b.user);
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    let other = b.answer(&invite, &sdp(b.local(), "0"));
    a.established(&mut leg);
    (leg, other)
}

/// The status that an INVITE gets.
#[track_caller]
fn refused(a: &Ua, number: &str) -> Option<u16> {
    let mut leg = a.leg(number);
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0"));
    a.refused(&leg).status()
}

/// A connection from the peer's address to a port of the engine's.
fn stream(engine: &Engine, port: u16) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((engine.peer(), 0)).into())?;
    socket.connect(&SocketAddr::from((engine.sip.ip(), port)).into())?;
    Ok(socket.into())
}

/// Whether nobody has the engine's port.
fn is_free(engine: &Engine, port: u16) -> bool {
    UdpSocket::bind((engine.sip.ip(), port)).is_ok()
}

#[test]
fn a_listener_that_is_added_is_heard_and_used_and_its_trunk_too() {
    let engine = Engine::start_with(&base(), &[("TANDEM__NODE__SHARDS", "3")]);
    let out = at(&engine, "9101", 5070, 5060);
    assert!(is_free(&engine, 5062));
    let more = base() + &second() + &listen("stream", 5064, "transport = \"tcp\"");
    let told = engine.reloaded(&more, &[]);
    for line in ["+ listen stream\n", "+ listen two\n", "+ trunk in\n"] {
        assert!(told.contains(line), "{line} {told}");
    }
    assert!(!is_free(&engine, 5062), "bound");
    let a = at(&engine, "8101", 5090, 5062);
    // Whatever shard the kernel gives it to, and whichever the call is on.
    for _ in 0..6 {
        let (mut leg, _) = connected(&a, &out);
        hang_up(&a, &mut leg, &out);
    }
    // The other way the new one is what the far end sees.
    let mut leg = out.leg("8101");
    out.next(&mut leg, "INVITE", "", &sdp(out.local(), "0"));
    let invite = a.request("INVITE");
    let new = format!("{}:5062", engine.sip.ip());
    assert!(invite.header("Via").contains(&new) && invite.contact().contains(&new), "{invite:?}");
    a.answer(&invite, &sdp(a.local(), "0"));
    out.established(&mut leg);
    hang_up(&out, &mut leg, &a);

    let stream = TcpStream::connect((engine.sip.ip(), 5064)).expect("it is heard");
    let phone = Ua::on_stream(stream, "x");
    phone.ping();
    assert_eq!(engine.reloaded(&more, &[]), "nothing was different\n");
    engine.quiet();
    assert!(engine.log().contains("a listener is opened"), "{}", engine.log());
}

#[test]
fn an_address_that_cannot_be_bound_refuses_the_whole_reload_with_file_key_and_why() {
    let engine = Engine::start(&base());
    let held = UdpSocket::bind((engine.sip.ip(), 5062)).expect("the port");
    let more = base() + &second() + &listen("stream", 5064, "transport = \"tcp\"");
    for options in [&["--dry-run"][..], &[]] {
        let done = engine.reload(&more, options);
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        let told = String::from_utf8(done.stderr).unwrap();
        let file = engine.dir().join("settings.toml").display().to_string();
        let why = format!("{file}: listen \"two\": address: cannot bind udp {}:5062: ", engine.sip.ip());
        assert!(told.contains(&why) && told.contains("in use"), "{told}");
    }
    assert_eq!(engine.metric("tandem_settings_generation", &[]), 1.0);
    assert_eq!(engine.metric("tandem_reloads_total", &[("result", "refused")]), 1.0);
    let stream = SocketAddr::from((engine.sip.ip(), 5064));
    assert!(TcpStream::connect(stream).is_err(), "nothing of it is left");
    let out = at(&engine, "9101", 5070, 5060);
    assert_eq!(refused(&out, "8101"), Some(404), "nor is anything else in force");
    drop(held);
    assert!(engine.reloaded(&more, &[]).contains("+ listen two\n"));
    TcpStream::connect(stream).expect("it is heard");
}

#[test]
fn a_dry_run_shows_listeners_and_leaves_nothing_bound() {
    let engine = Engine::start(&(base() + &second()));
    let moved = base() + &second().replace("5062", "5066") + &listen("stream", 5064, "transport = \"tcp\"");
    let done = engine.reload(&moved, &["--dry-run"]);
    let told = String::from_utf8(done.stdout).unwrap();
    let (from, to) = (format!("{}:5062", engine.sip.ip()), format!("{}:5066", engine.sip.ip()));
    assert!(told.contains("+ listen stream\n"), "{told}");
    assert!(told.contains(&format!("~ listen two: address \"{from}\" -> \"{to}\"\n")), "{told}");
    assert!(told.contains("nothing has changed"), "{told}");
    assert!(TcpStream::connect((engine.sip.ip(), 5064)).is_err());
    assert!(is_free(&engine, 5066) && !is_free(&engine, 5062));
}

#[test]
fn a_listener_that_is_removed_takes_nothing_new_and_is_closed_when_its_last_call_has_ended() {
    let engine = Engine::start_with(&(base() + &second()), &[("TANDEM__NODE__SHARDS", "2")]);
    let (a, out) = (at(&engine, "8101", 5090, 5062), at(&engine, "9101", 5070, 5060));
    let (mut leg, mut other) = connected(&a, &out);
    let told = engine.reloaded(&base(), &[]);
    assert!(told.contains("- listen two (1 leg of a call goes on there)\n"), "{told}");
    assert!(told.contains("- trunk in (1 call goes on)\n"), "{told}");
    assert_eq!(refused(&a, "9101"), Some(503));
    engine.counts("tandem_invites_refused_total", &[("reason", "draining")], 1.0);

    // The call is reached by it as before, in both directions.
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0").replace("o=- 1 1", "o=- 1 2"));
    serve(&out, "INVITE", &sdp(out.local(), "0"));
    out.request("ACK");
    a.established(&mut leg);
    out.next(&mut other, "INVITE", "", &sdp(out.local(), "0").replace("o=- 1 1", "o=- 1 2"));
    serve(&a, "INVITE", &sdp(a.local(), "0"));
    a.request("ACK");
    out.established(&mut other);
    assert!(!is_free(&engine, 5062), "as long as that is up");
    hang_up(&a, &mut leg, &out);
    engine.quiet();
    eventually("it is closed", || so(is_free(&engine, 5062)));
    assert!(engine.log().contains("a listener is closed"), "{}", engine.log());
    out.ping();
}

#[test]
fn a_listener_at_another_address_is_heard_there_and_calls_from_before_end_where_they_began() {
    let engine = Engine::start(&(base() + &second()));
    let (mut a, out) = (at(&engine, "8101", 5090, 5062), at(&engine, "9101", 5070, 5060));
    let (mut before, _) = connected(&a, &out);
    let told = engine.reloaded(&(base() + &second().replace("5062", "5066")), &[]);
    assert!(
        told.contains("~ listen two: address ") && told.contains("(1 leg of a call goes on there)"),
        "{told}"
    );
    assert_eq!(refused(&a, "9101"), Some(503));
    a.server.set_port(5066);
    let (mut after, _) = connected(&a, &out);
    // The far end is told the new address, by the trunk that is the same.
    let mut back = out.leg("8101");
    out.next(&mut back, "INVITE", "", &sdp(out.local(), "0"));
    let invite = a.request("INVITE");
    assert!(invite.header("Via").contains(":5066"), "{invite:?}");
    a.respond(&invite, "486 Busy Here", "b", "", "");
    out.refused(&back);
    hang_up(&a, &mut after, &out);
    a.server.set_port(5062);
    hang_up(&a, &mut before, &out);
    engine.quiet();
    eventually("the old one is closed", || so(is_free(&engine, 5062)));
    assert!(!is_free(&engine, 5066));
}

#[test]
fn a_listener_that_is_brought_back_while_its_call_is_up_goes_on() {
    let both = base() + &second();
    let engine = Engine::start(&both);
    let (a, out) = (at(&engine, "8101", 5090, 5062), at(&engine, "9101", 5070, 5060));
    let (mut leg, _) = connected(&a, &out);
    engine.reloaded(&base(), &[]);
    assert_eq!(refused(&a, "9101"), Some(503));
    assert!(engine.reloaded(&both, &[]).contains("+ listen two\n"));
    let (mut next, _) = connected(&a, &out);
    hang_up(&a, &mut leg, &out);
    hang_up(&a, &mut next, &out);
    engine.quiet();
    // Whoever waited for its last call does not close it.
    let (mut leg, _) = connected(&a, &out);
    hang_up(&a, &mut leg, &out);
    assert!(!is_free(&engine, 5062));
}

#[test]
fn connections_of_a_removed_listener_last_as_long_as_the_calls_they_carry() {
    let keys = listen("stream", 5064, "transport = \"tcp\"");
    let inbound = "[[trunk]]\nname = \"in\"\nlisten = \"stream\"\nproxies = [\"{peer}:5090\"]\naccept_from = [\"{peer}\"]\n";
    let engine = Engine::start(&(base() + &keys + inbound));
    let out = at(&engine, "9101", 5070, 5060);
    let connection = stream(&engine, 5064).expect("a connection");
    let a = Ua::on_stream(connection.try_clone().unwrap(), "8101");
    let (mut leg, _) = connected(&a, &out);
    engine.reloaded(&base(), &[]);
    assert_eq!(refused(&a, "9101"), Some(503));
    eventually("no further connections", || so(stream(&engine, 5064).is_err()));
    hang_up(&a, &mut leg, &out);
    engine.quiet();
    until_closed(&connection);
    engine.counts("tandem_sip_connections_closed_total", &[("cause", "unheard")], 1.0);
    // Its port can be had again.
    engine.reloaded(&(base() + &keys + inbound), &[]);
    let a = Ua::on_stream(stream(&engine, 5064).expect("a connection"), "8101");
    let (mut leg, _) = connected(&a, &out);
    hang_up(&a, &mut leg, &out);
}

#[test]
fn a_listener_of_tls_is_added_with_its_certificate_and_refused_without() {
    let engine = Engine::start(&base());
    let authority = Authority::new("ours");
    let secure = |certificate: &str| {
        let keys = format!(
            "transport = \"tls\"\ncertificate = \"{{dir}}/{certificate}.pem\"\nprivate_key = \"{{dir}}/{certificate}.key\""
        );
        base() + &listen("secure", 5061, &keys)
    };
    let done = engine.reload(&secure("missing"), &[]);
    assert_eq!(done.status.code(), Some(1));
    assert!(is_free(&engine, 5061));
    authority.issue(engine.dir(), "own", &["tandem.example"]);
    assert!(engine.reloaded(&secure("own"), &[]).contains("+ listen secure\n"));
    let openssl = Openssl::client(&engine, &[]);
    let local = SocketAddr::from((engine.peer(), 5081));
    let phone = Ua::on_tls(openssl, local, (engine.sip.ip(), 5061).into(), "x");
    phone.ping();
}
