//! An engine behind a NAT: what peers are told of it, and that it knows itself by that; and by which port it reaches phones that are behind
//! one, and phones that speak from one port and listen at another (RFC 3261 §18.2.2, RFC 3581, RFC 5626 §4.4).
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::engine::stations;
use common::rtp::RtpEnd;
use common::ua::token;
use common::{Engine, Leg, Msg, Ua, sdp};

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

/// A phone that speaks from one port, `mouth`, and listens at another.
struct TwoPorts {
    mouth: Ua,
    ear: Ua,
}

impl TwoPorts {
    /// Sends a request with its credentials, if it is challenged; gives the first response that is no challenge.
    fn ask(&self, leg: &mut Leg, method: &str, headers: &str, body: &str) -> Msg {
        let mut authorization = String::new();
        loop {
            leg.cseq += 1;
            leg.branch = format!("z9hG4bK{}", token());
            leg.invite_uri = leg.target.clone();
            let headers = format!("{headers}{authorization}");
            let text = self.ear.text(leg, method, &leg.target, &leg.branch, &headers, body);
            self.mouth.send(text.replacen(";rport", "", 1));
            let answer = self.ear.final_response(method);
            if answer.status() != Some(401) || !authorization.is_empty() {
                return answer;
            }
            let challenge = common::digest::Challenge::parse(answer.header("WWW-Authenticate"));
            let value = challenge.answer(&self.ear.user, &self.ear.password, method, &leg.target, 1);
            authorization = format!("Authorization: {value}\r\n");
        }
    }
}

#[test]
fn a_phone_that_listens_at_another_port_than_it_speaks_from_registers_calls_and_is_called() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let phone = TwoPorts { mouth: Ua::new(&engine, "1001"), ear: Ua::new(&engine, "1001") };
    let answer = phone.ask(&mut phone.ear.registration(), "REGISTER", "Expires: 600\r\n", "");
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    let b = Ua::new(&engine, "1002").registered();

    // It is called.
    let mut leg = b.call("1001", &sdp(b.local(), "0"));
    let invite = phone.ear.request("INVITE");
    phone.ear.answer(&invite, &sdp(phone.ear.local(), "0"));
    b.established(&mut leg);
    b.hang_up(&mut leg);
    let bye = phone.ear.request("BYE");
    phone.ear.respond(&bye, "200 OK", "", "", "");

    // It calls, changes the call, and the other side ends it.
    let mut leg = phone.ear.leg("*43");
    leg.cseq = 10;
    let answer = phone.ask(&mut leg, "INVITE", "", &sdp(phone.ear.local(), "0"));
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    phone.ear.accept(&mut leg, &answer);
    let held = sdp(phone.ear.local(), "0").replace("- 1 1", "- 1 2") + "a=sendonly\r\n";
    let answer = phone.ask(&mut leg, "INVITE", "", &held);
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    phone.ear.ack(&leg, &answer);
    let call = engine.call_in("up").as_str().to_owned();
    assert!(engine.command(&["call", &call, "--hangup"]).output().expect("the program").status.success());
    let bye = phone.ear.request("BYE");
    phone.ear.respond(&bye, "200 OK", "", "", "");
    engine.quiet();
    assert!(phone.mouth.receive(Duration::from_millis(1)).is_none(), "nobody listens there");
}

#[test]
fn a_phone_behind_a_nat_that_does_not_ask_for_it_is_answered_where_it_speaks_from() {
    let engine = Engine::start(&stations(&["1001"]));
    let phone = Ua::new(&engine, "1001");
    let mut leg = phone.leg("x");
    leg.cseq = 1;
    let text = phone.text(&leg, "OPTIONS", &leg.target, &format!("z9hG4bK{}", token()), "", "");
    phone.send(text.replacen(";rport", "", 1).replacen(&phone.local().to_string(), "10.255.255.1:5060", 1));
    let answer = phone.response("OPTIONS", 200);
    assert!(answer.header("Via").ends_with(&format!("received={}", phone.local().ip())), "{answer:?}");
}

#[test]
fn a_phone_whose_port_is_closed_is_passed_over_at_once_and_with_none_left_the_caller_gets_480() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let caller = Ua::new(&engine, "1001");
    let phone = |q: &str| {
        let phone = Ua::new(&engine, "1002");
        let contact = format!("<{}>;q={q}", phone.contact());
        assert_eq!(phone.register(&[&contact], "Expires: 600\r\n").status(), Some(200));
        phone
    };
    let (first, second) = (phone("1.0"), phone("0.5"));
    drop(first);
    let began = Instant::now();
    let leg = caller.call("1002", &sdp(caller.local(), "0"));
    let invite = second.request("INVITE");
    second.respond(&invite, "486 Busy Here", "b", "", "");
    assert_eq!(caller.refused(&leg).status(), Some(486));
    drop(second);
    let leg = caller.call("1002", &sdp(caller.local(), "0"));
    assert_eq!(caller.refused(&leg).status(), Some(480));
    assert!(began.elapsed() < Duration::from_secs(3), "Timer B was waited for: {:?}", began.elapsed());
}
