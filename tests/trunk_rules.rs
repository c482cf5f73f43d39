//! What a trunk's settings do to the calls that cross it: timers, numbers, headers, diversions, marks, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use std::io::IoSliceMut;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use common::engine::stations;
use common::ua::token;
use common::{Engine, Leg, Msg, Ua, eventually, sdp, so};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

/// Station 1001, trunk "in" at {peer}:5070 and trunk "out" at {peer}:5071; 9 and a number dial that out, 2001 is the station.
fn settings(inbound: &str, outbound: &str) -> String {
    format!(
        "{}[[trunk]]\nname = \"in\"\nproxies = [\"{{peer}}:5070\"]\n{inbound}\n\
         [[trunk]]\nname = \"out\"\nproxies = [\"{{peer}}:5071\"]\n{outbound}\n\
         [[dial_plan.pattern]]\npattern = \"9.X!\"\ntarget = \"trunk:out\"\n\
         [[dial_plan.pattern]]\npattern = \"2001\"\ntarget = \"station:1001\"\n",
        stations(&["1001"])
    )
}

/// The engine, and who is at the trunks "in" and "out".
fn start(inbound: &str, outbound: &str) -> (Engine, Ua, Ua) {
    let engine = Engine::start(&settings(inbound, outbound));
    let at = |user: &str, port: u16| Ua::on(&engine, user, (engine.peer(), port).into());
    let (caller, proxy) = (at("5551234", 5070), at("proxy", 5071));
    (engine, caller, proxy)
}

/// Sends an INVITE with these headers by the trunk "in".
fn invite(caller: &Ua, number: &str, headers: &str) -> Leg {
    let mut leg = caller.leg(number);
    caller.next(&mut leg, "INVITE", headers, &sdp(caller.local(), "0"));
    leg
}

/// Refuses the INVITE that leaves by "out", and gives it.
#[track_caller]
fn crosses(caller: &Ua, proxy: &Ua, number: &str, headers: &str) -> Msg {
    let leg = invite(caller, number, headers);
    let invite = proxy.request("INVITE");
    proxy.respond(&invite, "486 Busy Here", &token(), "", "");
    assert_eq!(caller.refused(&leg).status(), Some(486));
    invite
}

/// A call by "out" that is up.
#[track_caller]
fn connected(caller: &Ua, proxy: &Ua) -> (Leg, Leg) {
    let mut leg = invite(caller, "9555777", "");
    let invite = proxy.request("INVITE");
    let answered = proxy.answer(&invite, &sdp(proxy.local(), "0"));
    caller.established(&mut leg);
    (leg, answered)
}

/// Collects copies of one request, the first included, until none has come for `silence`: when each came.
fn copies(ua: &Ua, method: &str, silence: Duration) -> Vec<Duration> {
    let began = Instant::now();
    let mut times = Vec::new();
    while let Some(message) = ua.receive(silence) {
        if message.is(method) {
            times.push(began.elapsed());
        }
    }
    times
}

#[test]
fn a_parameter_of_call_info_is_written_into_another_header_and_a_rule_that_fails_kills_no_call() {
    let rules = "header_rules = [\
                 { direction = \"out\", header = \"x-inin-crn\", value = \"2000;loc={Call-Info;x-cisco-loc-name}\" }, \
                 { direction = \"out\", header = \"X-Site\", value = \"{X-Site|none} {{1}}\" }]";
    let inbound = "header_rules = [{ direction = \"in\", header = \"X-By\", value = \"in\" }]";
    let (engine, caller, proxy) = start(inbound, rules);
    let info = "Call-Info: <urn:x-cisco-remotecc:callinfo>; security=Unknown; x-cisco-loc-name=\"Hub 7\"\r\n";
    let invite = crosses(&caller, &proxy, "9555777", info);
    assert_eq!(invite.header("x-inin-crn"), "2000;loc=Hub 7");
    assert_eq!((invite.header("X-Site"), invite.header("X-By")), ("none {1}", "in"));

    for bad in ["", "Call-Info: <urn:a>;purpose=icon\r\n", "Call-Info: \"<;;;=\r\n"] {
        let invite = crosses(&caller, &proxy, "9555777", &format!("{bad}X-Site: Berlin\r\n"));
        assert!(invite.headers("x-inin-crn").is_empty(), "{invite:?}");
        assert_eq!(invite.header("X-Site"), "Berlin {1}");
    }
    engine.counts("tandem_trunk_header_rules_failed_total", &[("trunk", "out")], 3.0);
    let told = engine.log().lines().filter(|line| line.contains("a header rule has failed")).count();
    assert_eq!(told, 1, "{}", engine.log());
}

#[test]
fn numbers_are_changed_on_their_way_in_and_out() {
    let inbound = "number_rules = [\
                   { direction = \"in\", party = \"calling\", begins = \"+49\", strip = 3, prefix = \"0\" }, \
                   { direction = \"in\", party = \"called\", begins = \"+4989\", length = 9, strip = 5, prefix = \"9\" }]";
    let outbound = "number_rules = [\
                    { direction = \"out\", party = \"calling\", begins = \"0\", strip = 1, prefix = \"+49\" }, \
                    { direction = \"out\", party = \"called\", begins = \"0\", strip = 1, prefix = \"+4989\" }]";
    // What the rule of "out" makes of the number is international.
    let (engine, mut caller, proxy) = start(&format!("{inbound}\ninternational = true"), outbound);
    caller.user = "+4989555123".into();
    let invite = crosses(&caller, &proxy, "+49890123", "");
    assert!(invite.uri().starts_with("sip:+4989123@"), "{invite:?}");
    assert!(invite.header("To").starts_with("<sip:+4989123@"), "{invite:?}");
    assert!(invite.header("From").contains("<sip:+4989555123@"), "{invite:?}");
    let cdr = &engine.wait_cdrs(1)[0];
    assert_eq!(
        (cdr["from"].as_str(), cdr["to"].as_str()),
        (Some("089555123"), Some("90123")),
        "as they are here"
    );

    // A name is no number, and what no rule fits stays.
    caller.user = "anonymous".into();
    let invite = crosses(&caller, &proxy, "9555777", "");
    assert!(invite.header("From").contains("<sip:anonymous@"), "{invite:?}");
    assert!(invite.uri().starts_with("sip:555777@"), "{invite:?}");
}

const CHAIN: &str = "Diversion: <sip:b@x>;reason=user-busy;counter=2, <sip:a@x>;reason=no-answer\r\n\
                     History-Info: <sip:a@x?Reason=SIP%3Bcause%3D408>;index=1, <sip:9555777@x>;index=1.1;mp=1\r\n";

#[test]
fn diversions_are_handed_on_between_trunks_that_believe_and_are_told() {
    let (_engine, caller, proxy) =
        start("diversion_in = true\nhistory_info_in = true", "diversion_out = true\nhistory_info_out = true");
    let invite = crosses(&caller, &proxy, "9555777", CHAIN);
    assert_eq!(
        invite.headers("Diversion"),
        ["<sip:b@x>;reason=user-busy;counter=2", "<sip:a@x>;reason=no-answer"]
    );
    let history = invite.headers("History-Info");
    assert_eq!(
        history[..2],
        ["<sip:a@x?Reason=SIP%3Bcause%3D408>;index=1", "<sip:9555777@x>;index=1.1;mp=1"]
    );
    let last = format!("<sip:555777@{}>;index=1.1.1", proxy.local());
    assert_eq!(history[2..], [last.as_str()]);
}

#[test]
fn a_trunk_that_is_not_believed_or_not_told_gets_and_gives_no_diversions() {
    let (_engine, caller, proxy) = start("", "diversion_out = true\nhistory_info_out = true");
    let invite = crosses(&caller, &proxy, "9555777", CHAIN);
    assert!(invite.headers("Diversion").is_empty(), "{invite:?}");
    let asked = format!("<sip:9555777@{}>;index=1", caller.server.ip());
    assert_eq!(invite.headers("History-Info")[0], asked);
    assert_eq!(invite.headers("History-Info").len(), 2);
    drop((caller, proxy));

    let (_engine, caller, proxy) = start("diversion_in = true\nhistory_info_in = true", "");
    let invite = crosses(&caller, &proxy, "9555777", CHAIN);
    assert!(
        invite.headers("Diversion").is_empty() && invite.headers("History-Info").is_empty(),
        "{invite:?}"
    );
}

#[test]
fn a_redirection_that_is_followed_is_a_diversion_before_the_others() {
    let (engine, caller, proxy) =
        start("diversion_in = true", "diversion_out = true\nhistory_info_out = true");
    let phone = Ua::new(&engine, "1001").registered();
    let leg = invite(&caller, "2001", "Diversion: <sip:a@x>;reason=no-answer\r\n");
    let rung = phone.request("INVITE");
    let moved = format!("Contact: <sip:9555777@{}>\r\n", engine.sip);
    let redirect = redirection(&rung, &moved);
    phone.send(redirect);
    let invite = proxy.request("INVITE");
    let own = engine.sip;
    assert_eq!(
        invite.headers("Diversion"),
        [format!("<sip:2001@{own}>;reason=unconditional;counter=1").as_str(), "<sip:a@x>;reason=no-answer"]
    );
    assert_eq!(
        invite.headers("History-Info"),
        [
            format!("<sip:2001@{}>;index=1", own.ip()),
            format!("<sip:2001@{own}?Reason=SIP%3Bcause%3D302>;index=1.1"),
            format!("<sip:555777@{}>;index=1.2;mp=1.1", proxy.local()),
        ]
    );
    proxy.respond(&invite, "486 Busy Here", "b", "", "");
    assert_eq!(caller.refused(&leg).status(), Some(486));
}

/// A 302 with these contacts alone.
fn redirection(request: &Msg, contacts: &str) -> String {
    let mut copied: String = request.headers("Via").iter().map(|via| format!("Via: {via}\r\n")).collect();
    for name in ["From", "Call-ID", "CSeq"] {
        copied += &format!("{name}: {}\r\n", request.header(name));
    }
    let to = request.header("To");
    format!("SIP/2.0 302 Moved Temporarily\r\n{copied}To: {to};tag=r\r\n{contacts}Content-Length: 0\r\n\r\n")
}

#[test]
fn what_a_trunk_may_not_ask_for_is_refused_plainly() {
    let (_engine, caller, proxy) = start("accept_unsolicited_notify = true", "");
    let cases = [
        (&proxy, "SUBSCRIBE", "Event: presence\r\nExpires: 60\r\n", 403),
        (&proxy, "REFER", "Refer-To: <sip:2001@x>\r\n", 405),
        (&proxy, "NOTIFY", "Event: message-summary\r\nSubscription-State: active\r\n", 489),
        (&proxy, "INVITE", "Replaces: 1@x;to-tag=a;from-tag=b\r\n", 420),
        (&caller, "NOTIFY", "Event: message-summary\r\nSubscription-State: active\r\n", 200),
    ];
    for (ua, method, headers, status) in cases {
        let mut leg = ua.leg("2001");
        let body = if method == "INVITE" { sdp(ua.local(), "0") } else { String::new() };
        ua.next(&mut leg, method, headers, &body);
        let answer = ua.final_response(method);
        assert_eq!(answer.status(), Some(status), "{method}: {answer:?}");
        match status {
            405 => assert!(answer.header("Allow").contains("INVITE"), "{answer:?}"),
            420 => assert_eq!(answer.header("Unsupported"), "replaces"),
            _ => {}
        }
        if method == "INVITE" {
            ua.ack(&leg, &answer);
        }
    }
}

#[test]
fn what_a_trunk_may_ask_for_and_is_not_built_is_refused_as_such() {
    let (engine, caller, proxy) = start("accept_presence = true\naccept_refer = true", "");
    let cases = [
        (&caller, "SUBSCRIBE", "Event: presence\r\nExpires: 60\r\n", 489),
        (&caller, "REFER", "Refer-To: <sip:2001@x>\r\n", 603),
        // Another package than the one that the setting is about is known to nobody.
        (&proxy, "SUBSCRIBE", "Event: dialog\r\nExpires: 60\r\n", 489),
    ];
    for (ua, method, headers, status) in cases {
        let mut leg = ua.leg("2001");
        ua.next(&mut leg, method, headers, "");
        let answer = ua.final_response(method);
        assert_eq!(answer.status(), Some(status), "{method}: {answer:?}");
        assert_eq!(answer.headers("Allow-Events").is_empty(), status != 489, "{answer:?}");
    }
    for (reason, count) in [("unsupported", 2.0), ("not_allowed", 1.0)] {
        engine.counts("tandem_requests_refused_total", &[("reason", reason)], count);
    }
    let told = engine.command(&["check"]).output().expect("the program");
    let told = String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
    assert!(told.contains("accept_presence") && told.contains("refused with 489"), "{told}");
}

#[test]
fn retransmissions_are_as_many_as_the_trunk_says_and_each_trunk_has_its_own() {
    let outbound = "t1_ms = 50\nt2_ms = 100\nmax_packet_retries = 3\nmax_invite_retries = 2";
    let (engine, caller, proxy) = start("", outbound);
    let (mut leg, _) = connected(&caller, &proxy);
    caller.next(&mut leg, "BYE", "", "");
    // At once, and after 50, 150 and 250 ms; the next would have been after 350.
    let times = copies(&proxy, "BYE", Duration::from_secs(2));
    assert_eq!(times.len(), 4, "{times:?}");
    assert!(times[3] - times[0] < Duration::from_millis(1500), "T2 is the trunk's: {times:?}");
    engine.quiet();

    let leg = invite(&caller, "9555777", "");
    let times = copies(&proxy, "INVITE", Duration::from_secs(2));
    // At once, and after 50 and 150 ms; given up after four times T1.
    assert_eq!(times.len(), 3, "{times:?}");
    assert_eq!(caller.refused(&leg).status(), Some(504));
}

#[test]
fn a_preset_is_a_whole_set_of_figures_and_what_is_said_beside_it_wins() {
    let (engine, caller, proxy) = start("", "timer_preset = \"tls\"\nt1_ms = 100");
    let (mut leg, _) = connected(&caller, &proxy);
    caller.next(&mut leg, "BYE", "", "");
    // T1 of 100 ms, T2 of 1 s, 4 retransmissions: at 0.1, 0.3, 0.7 and 1.5 s.
    let times = copies(&proxy, "BYE", Duration::from_secs(3));
    assert_eq!(times.len(), 5, "{times:?}");
    engine.quiet();
    let shown = engine.command(&["check"]).output().expect("the program");
    assert!(shown.status.success(), "{shown:?}");
}

#[test]
fn a_reinvite_that_met_another_is_sent_again_after_the_delay_of_the_trunk() {
    let (_engine, caller, proxy) = start("", "reinvite_delay_ms = 60000\ntimer_preset = \"unsecured\"");
    assert_glare(&caller, &proxy, None);
    drop((caller, proxy));
    let (_engine, caller, proxy) = start("", "timer_preset = \"unsecured\"");
    assert_glare(&caller, &proxy, Some(Duration::from_millis(750)));
}

/// A re-INVITE of the caller meets 491 at the proxy: it comes again after `delay`, or not within the longest time of RFC 3261 §14.1.
#[track_caller]
fn assert_glare(caller: &Ua, proxy: &Ua, delay: Option<Duration>) {
    let (mut leg, _) = connected(caller, proxy);
    caller.next(&mut leg, "INVITE", "", &sdp(caller.local(), "0 8"));
    let first = proxy.request("INVITE");
    proxy.respond(&first, "491 Request Pending", "", "", "");
    let began = Instant::now();
    let cseq = first.cseq();
    match delay {
        Some(delay) => {
            proxy.wait("another re-INVITE", |m| m.is("INVITE") && m.cseq() > cseq);
            let waited = began.elapsed();
            assert!(waited >= delay - Duration::from_millis(5), "{waited:?}");
            assert!(
                waited < Duration::from_millis(2050),
                "who owns the Call-ID would wait 2.1 s: {waited:?}"
            );
        }
        None => {
            let deadline = began + Duration::from_millis(4500);
            while let Some(left) = deadline.checked_duration_since(Instant::now()) {
                let again = proxy.fresh(left).is_some_and(|m| m.is("INVITE") && m.cseq() > cseq);
                assert!(!again, "after {:?}", began.elapsed());
            }
        }
    }
}

#[test]
fn packets_to_a_trunk_are_marked_and_those_to_others_are_not() {
    let engine = Engine::start(&settings("", "dscp = 24"));
    let proxy = UdpSocket::bind((engine.peer(), 5071)).expect("the port");
    setsockopt(&proxy, sockopt::IpRecvTos, &true).expect("marks");
    proxy.set_read_timeout(Some(common::SOON)).expect("a timeout");
    let caller = Ua::new(&engine, "1001");
    let plain = UdpSocket::bind((engine.peer(), 0)).expect("a port");
    setsockopt(&plain, sockopt::IpRecvTos, &true).expect("marks");
    plain.set_read_timeout(Some(common::SOON)).expect("a timeout");
    for _ in 0..2 {
        let _leg = caller.call("9555777", &sdp(caller.local(), "0"));
        let (text, class) = marked(&proxy);
        assert!(text.starts_with("INVITE "), "{text}");
        assert_eq!(class, 24 << 2);
        let options = format!(
            "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK{}\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:x>\r\n\
             Call-ID: {}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
            plain.local_addr().expect("an address"),
            token(),
            token()
        );
        plain.send_to(options.as_bytes(), engine.sip).expect("sent");
        let (text, class) = marked(&plain);
        assert!(text.starts_with("SIP/2.0 200 "), "{text}");
        assert_eq!(class, 0);
    }
}

#[test]
fn connections_with_a_trunk_are_marked_and_those_with_others_are_not() {
    let stream = "[[listen]]\nname = \"udp\"\naddress = \"{ip}:5060\"\n\
                  [[listen]]\nname = \"tcp\"\ntransport = \"tcp\"\naddress = \"{ip}:5060\"\n";
    let marked = "transport = \"tcp\"\ndscp = 24\nqualify_interval_s = 1\naccept_from = [\"{peer}\"]";
    let plain = "transport = \"tcp\"\nqualify_interval_s = 1";
    let settings = settings(plain, marked).replace("{peer}:5070", "{ip}:5070");
    let mut engine = Engine::prepare(&(stream.to_owned() + &settings), &[]);
    let proxies = [(engine.peer(), 5071), (engine.sip.ip().to_string().parse().unwrap(), 5070)];
    let doors = proxies.map(|address| TcpListener::bind(address).expect("the port"));
    engine.restart();
    // One that we open, then one that the trunk opens, and one of somebody else.
    let opened = doors.each_ref().map(|door| door.accept().expect("a connection").0);
    let from = TcpStream::connect((engine.sip.ip(), 5060)).expect("a connection");
    let by_trunk = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    by_trunk.bind(&SocketAddr::from((engine.peer(), 0)).into()).expect("bound");
    by_trunk.connect(&engine.sip.into()).expect("a connection");
    let by_trunk = TcpStream::from(by_trunk);
    let ours = |stream: &TcpStream| (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
    for (stream, mark) in [(&opened[0], 24 << 2), (&by_trunk, 24 << 2), (&opened[1], 0), (&from, 0)] {
        let (local, remote) = ours(stream);
        eventually(&format!("the mark {mark:#x} of {local} to {remote}"), || {
            so(mark_of(local, remote) == mark)
        });
    }
}

/// The type of service of a connection from `local` as the kernel has it.
fn mark_of(local: SocketAddr, remote: SocketAddr) -> u8 {
    let filter = format!("src {local} and dst {remote}");
    let shown =
        Command::new("ss").args(["-H", "-t", "-n", "--tos", &filter]).output().expect("ss, of iproute2");
    let shown = String::from_utf8(shown.stdout).expect("text");
    let mark = shown.split_whitespace().find_map(|word| word.strip_prefix("tos:0x"));
    mark.map_or(0, |hex| u8::from_str_radix(hex, 16).expect("a number"))
}

/// The next datagram, and the type of service of its packet.
fn marked(socket: &UdpSocket) -> (String, u8) {
    let mut buffer = vec![0; 65_535];
    let mut control = nix::cmsg_space!(u8, u32);
    let (length, class) = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received =
            recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let received = received.expect("a datagram");
        let class = received.cmsgs().expect("control data").find_map(|message| match message {
            ControlMessageOwned::Ipv4Tos(class) => Some(class),
            _ => None,
        });
        (received.bytes, class.expect("a type of service"))
    };
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), class)
}
