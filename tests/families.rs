//! Calls between IPv4 and IPv6: each side is told an address of its own family, and the audio crosses (RFC 6157).
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use common::engine::stations;
use common::rtp::RtpEnd;
use common::{Engine, Msg, Ua, sdp};

/// A listener of each family on one engine, and a registered phone at each.
fn both() -> (Engine, Ua, Ua) {
    let six = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).and_then(|s| s.local_addr()).expect("a port");
    let settings = format!(
        "[[listen]]\nname = \"four\"\naddress = \"{{ip}}:5060\"\n\
         [[listen]]\nname = \"six\"\naddress = \"{six}\"\n{}",
        stations(&["1001", "1002"])
    );
    let engine = Engine::start(&settings);
    let a = Ua::new(&engine, "1001").registered();
    let mut b = Ua::at(&engine, "1002", Ipv6Addr::LOCALHOST.into());
    b.server = six;
    let b = b.registered();
    (engine, a, b)
}

#[track_caller]
fn is_told(message: &Msg, engine: SocketAddr) -> SocketAddr {
    let (family, ip) = (if engine.is_ipv4() { "IP4" } else { "IP6" }, engine.ip());
    assert_eq!(message.sdp_line("c="), Some(&*format!("IN {family} {ip}")), "{message:?}");
    assert!(message.sdp_line("o=").is_some_and(|line| line.ends_with(&format!("IN {family} {ip}"))));
    message.media()
}

/// A call from one to the other, heard both ways.
fn is_heard_both_ways(engine: &Engine, from: &Ua, to: &Ua) {
    let (caller, callee) = (RtpEnd::new(from.local().ip()), RtpEnd::new(to.local().ip()));
    let mut leg = from.call(&to.user, &sdp(caller.local(), "0"));
    let invite = to.request("INVITE");
    let towards_callee = is_told(&invite, to.server);
    to.answer(&invite, &sdp(callee.local(), "0"));
    let answer = from.established(&mut leg);
    let towards_caller = is_told(&answer, from.server);
    caller.until_heard(towards_caller, 0x11, &callee).expect("the callee hears the caller");
    callee.until_heard(towards_callee, 0x22, &caller).expect("the caller hears the callee");
    from.hang_up(&mut leg);
    let bye = to.request("BYE");
    to.respond(&bye, "200 OK", "", "", "");
    engine.quiet();
}

#[test]
fn an_ipv4_phone_and_an_ipv6_phone_hear_each_other() {
    let (engine, a, b) = both();
    is_heard_both_ways(&engine, &a, &b);
    is_heard_both_ways(&engine, &b, &a);
}

#[test]
fn a_service_speaks_the_family_of_its_caller() {
    let (engine, _, b) = both();
    let end = RtpEnd::new(b.local().ip());
    let mut leg = b.call("*43", &sdp(end.local(), "0"));
    let answer = b.established(&mut leg);
    let towards = is_told(&answer, b.server);
    end.until_heard(towards, 0x33, &end).expect("the echo");
    b.hang_up(&mut leg);
    engine.quiet();
}
