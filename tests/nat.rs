//! An engine behind a NAT: what peers are told of it, and that it knows itself by that (RFC 3581, RFC 5626 §4.4).
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::engine::stations;
use common::rtp::RtpEnd;
use common::{Engine, Ua, sdp};

/// Two listeners that peers know by other addresses, as the settings write them; the media's is another one still.
fn engine(udp: &str, tcp: &str) -> Engine {
    let settings = format!(
        "[media]\nexternal_address = \"203.0.113.9\"\n\
         [[listen]]\nname = \"udp\"\naddress = \"{{ip}}:5060\"\nexternal_address = \"{udp}\"\n\
         [[listen]]\nname = \"tcp\"\ntransport = \"tcp\"\naddress = \"{{ip}}:5060\"\nexternal_address = \"{tcp}\"\n{}",
        stations(&["1001", "1002"])
    );
    Engine::start(&settings)
}

#[test]
fn peers_are_told_the_external_address_or_name_and_the_call_is_heard() {
    for (udp, via, tcp, contact) in [
        ("203.0.113.5:5070", "203.0.113.5:5070", "203.0.113.6", "203.0.113.6:5060"),
        ("sip.example.com", "sip.example.com:5060", "tcp.example.com:5071", "tcp.example.com:5071"),
    ] {
        let engine = engine(udp, tcp);
        let (a, b) = (Ua::tcp(&engine, "1001"), Ua::new(&engine, "1002").registered());
        let (caller, callee) = (RtpEnd::new(a.local().ip()), RtpEnd::new(b.local().ip()));
        let mut leg = a.call("1002", &sdp(caller.local(), "0"));
        let invite = b.request("INVITE");
        assert!(invite.header("Via").starts_with(&format!("SIP/2.0/UDP {via};")), "{invite:?}");
        assert_eq!(invite.contact(), format!("sip:{via}"));
        assert_eq!(invite.sdp_line("c="), Some("IN IP4 203.0.113.9"), "{invite:?}");
        assert!(invite.sdp_line("o=").is_some_and(|line| line.ends_with("IN IP4 203.0.113.9")));
        let mut other = b.answer(&invite, &sdp(callee.local(), "0"));
        let answer = a.established(&mut leg);
        assert_eq!(answer.contact(), format!("sip:{contact};transport=tcp"));
        assert_eq!(answer.sdp_line("c="), Some("IN IP4 203.0.113.9"));
        // What the NAT would do with the ports.
        let inside = |port: u16| (engine.sip.ip(), port).into();
        caller
            .until_heard(inside(answer.media().port()), 0x11, &callee)
            .expect("the callee hears the caller");
        callee
            .until_heard(inside(invite.media().port()), 0x22, &caller)
            .expect("the caller hears the callee");
        // Both address what they were told: the Request-URI of each is ours.
        a.next(&mut leg, "INVITE", "", &sdp(caller.local(), "0").replace("- 1 1", "- 1 2"));
        let again = b.request("INVITE");
        b.respond(&again, "200 OK", "", "", &sdp(callee.local(), "0"));
        b.request("ACK");
        let answer = a.response("INVITE", 200);
        a.ack(&leg, &answer);
        b.hang_up(&mut other);
        let bye = a.request("BYE");
        a.respond(&bye, "200 OK", "", "", "");
        engine.quiet();
    }
}

#[test]
fn a_number_at_the_external_name_is_one_of_ours() {
    let engine = engine("sip.example.com:5070", "tcp.example.com");
    let mut a = Ua::new(&engine, "1001");
    for host in ["sip.example.com", "SIP.example.com:5070", "tcp.example.com"] {
        let mut leg = a.leg("*43");
        leg.local = leg.local.replace(&engine.sip.ip().to_string(), host.split(':').next().expect("a host"));
        leg.target = format!("sip:*43@{host}");
        a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0"));
        let challenge = a.response("INVITE", 401);
        a.ack(&leg, &challenge);
        let challenge = common::digest::Challenge::parse(challenge.header("WWW-Authenticate"));
        let answer = challenge.answer("1001", &a.password, "INVITE", &leg.target, 1);
        a.next(&mut leg, "INVITE", &format!("Authorization: {answer}\r\n"), &sdp(a.local(), "0"));
        a.established(&mut leg);
        a.hang_up(&mut leg);
    }
    a.user = "1002".to_owned();
    a.password = "secret-1002".to_owned();
    let mut leg = a.registration();
    leg.target = "sip:sip.example.com".to_owned();
    leg.remote = "<sip:1002@sip.example.com>".to_owned();
    let first = a.register_once(&mut leg, &[], "");
    let challenge = common::digest::Challenge::parse(first.header("WWW-Authenticate"));
    let answer = challenge.answer("1002", &a.password, "REGISTER", &leg.target, 1);
    let answer = a.register_once(&mut leg, &[], &format!("Authorization: {answer}\r\nExpires: 60\r\n"));
    assert_eq!(answer.status(), Some(200), "{answer:?}");
}

#[test]
fn a_registered_phone_is_sent_a_line_end_that_keeps_its_way_through_a_nat_open() {
    let engine = engine("203.0.113.5", "203.0.113.5");
    let (udp, tcp) = (Ua::new(&engine, "1001").registered(), Ua::tcp(&engine, "1002").registered());
    for phone in [udp, tcp] {
        assert!(phone.is_kept_alive(Duration::from_secs(40)), "{} hears nothing", phone.user);
    }
}
