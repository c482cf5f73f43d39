//! Calls between IPv4 and IPv6: each side is told an address of its own family, wherever the call ends, and the audio crosses (RFC 6157).
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use common::engine::{station, stations};
use common::rtp::RtpEnd;
use common::ua::token;
use common::{Engine, Leg, Msg, Ua, eventually, sdp, so};

/// A listener of each family; a trunk by each, to {peer}:5070 and to the port SIX, in one order by 9XX and in the other by 8XX.
const SETTINGS: &str = r#"
[[listen]]
name = "four"
address = "{ip}:5060"
[[listen]]
name = "six"
address = "LISTENER"
[[trunk]]
name = "four"
listen = "four"
proxies = ["{peer}:5070"]
[[trunk]]
name = "six"
listen = "six"
proxies = ["GATEWAY"]
[[dial_plan.route_group]]
name = "first_four"
trunks = ["four", "six"]
[[dial_plan.route_group]]
name = "first_six"
trunks = ["six", "four"]
[[dial_plan.pattern]]
pattern = "9XX"
target = "route_group:first_four"
[[dial_plan.pattern]]
pattern = "8XX"
target = "route_group:first_six"
"#;

/// An engine of both families, and what it listens to in IPv6.
struct Both {
    engine: Engine,
    listener: SocketAddr,
    gateway: SocketAddr,
}

impl Both {
    fn start() -> Both {
        Both::with(&stations(&["1001", "1002", "1003"]))
    }

    fn with(stations: &str) -> Both {
        let sockets = [(); 2].map(|()| UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).expect("a port"));
        let [listener, gateway] = sockets.each_ref().map(|s| s.local_addr().expect("an address"));
        drop(sockets);
        let settings = SETTINGS.replace("LISTENER", &listener.to_string());
        let settings = settings.replace("GATEWAY", &gateway.to_string());
        let engine = Engine::start(&(settings + stations));
        Both { engine, listener, gateway }
    }

    fn four(&self, user: &str) -> Ua {
        Ua::new(&self.engine, user).registered()
    }

    fn six(&self, user: &str) -> Ua {
        let mut ua = Ua::at(&self.engine, user, Ipv6Addr::LOCALHOST.into());
        ua.server = self.listener;
        ua.registered()
    }

    /// The far ends of the trunks.
    fn gateways(&self) -> (Ua, Ua) {
        let four = Ua::on(&self.engine, "gateway", (self.engine.peer(), 5070).into());
        let mut six = Ua::on(&self.engine, "gateway", self.gateway);
        six.server = self.listener;
        (four, six)
    }
}

#[track_caller]
fn is_told(message: &Msg, engine: SocketAddr) -> SocketAddr {
    let (family, ip) = (if engine.is_ipv4() { "IP4" } else { "IP6" }, engine.ip());
    assert_eq!(message.sdp_line("c="), Some(&*format!("IN {family} {ip}")), "{message:?}");
    assert!(message.sdp_line("o=").is_some_and(|line| line.ends_with(&format!("IN {family} {ip}"))));
    message.media()
}

/// A call on its way: who calls, and where he hears.
struct Caller<'a> {
    ua: &'a Ua,
    leg: Leg,
    media: RtpEnd,
}

impl<'a> Caller<'a> {
    #[track_caller]
    fn calls(ua: &'a Ua, number: &str) -> Caller<'a> {
        let media = RtpEnd::new(ua.local().ip());
        let leg = ua.call(number, &sdp(media.local(), "0"));
        Caller { ua, leg, media }
    }

    /// The callee answers; both hear each other, after `meanwhile` too, and each keeps his family when the call is held.
    #[track_caller]
    fn talks(mut self, to: &Ua, invite: &Msg, meanwhile: impl FnOnce()) {
        let media = RtpEnd::new(to.local().ip());
        let towards_callee = is_told(invite, to.server);
        to.answer(invite, &sdp(media.local(), "0"));
        let answer = self.ua.established(&mut self.leg);
        let towards_caller = is_told(&answer, self.ua.server);
        meanwhile();
        self.media.until_heard(towards_caller, 0x11, &media).expect("the callee hears the caller");
        media.until_heard(towards_callee, 0x22, &self.media).expect("the caller hears the callee");
        let held = sdp(self.media.local(), "0").replace("- 1 1", "- 1 2") + "a=sendonly\r\n";
        self.ua.next(&mut self.leg, "INVITE", "", &held);
        let invite = to.request("INVITE");
        assert_eq!(is_told(&invite, to.server), towards_callee);
        to.respond(&invite, "200 OK", "", "", &(sdp(media.local(), "0") + "a=recvonly\r\n"));
        to.request("ACK");
        let answer = self.ua.response("INVITE", 200);
        assert_eq!(is_told(&answer, self.ua.server), towards_caller);
        self.ua.ack(&self.leg, &answer);
        self.media.until_heard(towards_caller, 0x33, &media).expect("the callee hears the music");
        self.ua.hang_up(&mut self.leg);
        let bye = to.request("BYE");
        to.respond(&bye, "200 OK", "", "", "");
    }
}

/// So many calls have ended, each with counts of two legs, and no port is missing.
fn nothing_is_left(both: &Both, calls: usize, free: f64) {
    let cdr = both.engine.wait_cdrs(calls).pop().expect("a record");
    assert_eq!(cdr["legs"].as_array().map(Vec::len), Some(2), "{cdr:#}");
    both.engine.quiet();
    both.engine.reaches("tandem_media_ports_free", &[], free);
}

/// How many ports are free at the start.
fn free(both: &Both) -> f64 {
    eventually("ports", || so(both.engine.metric("tandem_media_ports_free", &[]) > 0.0));
    both.engine.metric("tandem_media_ports_free", &[])
}

#[test]
fn an_ipv4_phone_and_an_ipv6_phone_hear_each_other() {
    let both = Both::start();
    let (a, b) = (both.four("1001"), both.six("1002"));
    let free = free(&both);
    for (calls, (from, to)) in (1..).zip([(&a, &b), (&b, &a)]) {
        let call = Caller::calls(from, &to.user);
        let invite = to.request("INVITE");
        call.talks(to, &invite, || {});
        nothing_is_left(&both, calls, free);
    }
}

#[test]
fn media_that_is_to_go_past_us_goes_through_us_between_the_families_and_past_us_within_one() {
    let bypass = |name| station(name, "media = \"bypass\"");
    let both = Both::with(&(bypass("1001") + &bypass("1002") + &bypass("1003")));
    let (a, b, c) = (both.four("1001"), both.six("1002"), both.four("1003"));
    let free = free(&both);
    let call = Caller::calls(&a, "1002");
    let invite = b.request("INVITE");
    call.talks(&b, &invite, || {});
    nothing_is_left(&both, 1, free);
    let offer = sdp(a.local(), "0");
    let leg = a.call("1003", &offer);
    let invite = c.request("INVITE");
    assert_eq!(invite.body(), offer);
    c.respond(&invite, "486 Busy Here", "c", "", "");
    a.refused(&leg);
}

#[test]
fn a_service_speaks_the_family_of_its_caller() {
    let both = Both::start();
    let b = both.six("1002");
    let end = RtpEnd::new(b.local().ip());
    let mut leg = b.call("*43", &sdp(end.local(), "0"));
    let answer = b.established(&mut leg);
    let towards = is_told(&answer, b.server);
    end.until_heard(towards, 0x33, &end).expect("the echo");
    b.hang_up(&mut leg);
    both.engine.quiet();
}

#[test]
fn of_contacts_in_both_families_each_is_told_an_address_of_its_own_and_either_may_answer() {
    let both = Both::start();
    let (a, four, six) = (both.four("1001"), both.four("1002"), both.six("1002"));
    let free = free(&both);
    let mut calls = 0;
    for (answers, loses) in [(&four, &six), (&six, &four)] {
        for early in [false, true] {
            calls += 1;
            let call = Caller::calls(&a, "1002");
            let (invite, other) = (answers.request("INVITE"), loses.request("INVITE"));
            let towards_lost = is_told(&other, loses.server);
            loses.respond(&other, "180 Ringing", "lost", "", "");
            if early {
                // The one that loses is heard first.
                let lost = RtpEnd::new(loses.local().ip());
                loses.respond(&other, "183 Session Progress", "lost", "", &sdp(lost.local(), "0"));
                let towards_caller = is_told(&a.response("INVITE", 183), a.server);
                lost.until_heard(towards_lost, 0x44, &call.media).expect("early media");
                call.media.until_heard(towards_caller, 0x55, &lost).expect("and back");
            }
            call.talks(answers, &invite, || {
                let cancel = loses.request("CANCEL");
                loses.respond(&cancel, "200 OK", "lost", "", "");
                loses.respond(&other, "487 Request Terminated", "lost", "", "");
            });
            nothing_is_left(&both, calls, free);
        }
    }
}

#[test]
fn a_hunt_that_ends_at_a_trunk_of_the_other_family_is_heard_there_and_over_a_kill_9() {
    let mut both = Both::start();
    let (a, free) = (both.four("1001"), free(&both));
    let (four, six) = both.gateways();
    for (calls, (number, refuses, answers)) in (1..).zip([("900", &four, &six), ("800", &six, &four)]) {
        let call = Caller::calls(&a, number);
        let refused = refuses.request("INVITE");
        is_told(&refused, refuses.server);
        refuses.respond(&refused, "503 Service Unavailable", "no", "", "");
        let invite = answers.request("INVITE");
        call.talks(answers, &invite, || {
            both.engine.kill9();
            both.engine.restart();
        });
        nothing_is_left(&both, calls, free);
    }
}

#[test]
fn a_redirection_into_the_other_family_is_heard_there() {
    let both = Both::start();
    let (a, b, c) = (both.four("1001"), both.four("1002"), both.six("1003"));
    let free = free(&both);
    for (calls, (number, first, then)) in (1..).zip([("1002", &b, &c), ("1003", &c, &b)]) {
        let call = Caller::calls(&a, number);
        let invite = first.request("INVITE");
        is_told(&invite, first.server);
        let moved = format!("Contact: <sip:{}@{}>\r\n", then.user, first.server);
        let (via, from, to) = (invite.header("Via"), invite.header("From"), invite.header("To"));
        let (call_id, cseq, tag) = (invite.header("Call-ID"), invite.header("CSeq"), token());
        first.send(format!(
            "SIP/2.0 302 Moved Temporarily\r\nVia: {via}\r\nFrom: {from}\r\nTo: {to};tag={tag}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq}\r\n{moved}Content-Length: 0\r\n\r\n"
        ));
        let invite = then.request("INVITE");
        call.talks(then, &invite, || {});
        nothing_is_left(&both, calls, free);
    }
}
