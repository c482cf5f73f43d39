//! What happens within dialogs and between their branches: forked answers, session timers, redirection, INFO, Reason, identity.

#![allow(clippy::unwrap_used, clippy::expect_used)]
// A bound of the engine is by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use common::calls::{TRUNKS, call, connected, ends, hang_up, trunks};
use common::engine::{station, stations};
use common::ua::token;
use common::{Engine, Leg, Msg, Ua, eventually, sdp};

/// A request with a body that is no session description.
fn send_body(ua: &Ua, leg: &mut Leg, method: &str, headers: &str, kind: &str, body: &str) {
    leg.cseq += 1;
    let text = ua.text(leg, method, &leg.target, &format!("z9hG4bK{}", token()), headers, body);
    ua.send(text.replace("application/sdp", kind));
}

/// A response whose only Contacts are these.
fn redirect(ua: &Ua, invite: &Msg, contacts: &str) {
    let (via, from, to) = (invite.header("Via"), invite.header("From"), invite.header("To"));
    let (call_id, cseq) = (invite.header("Call-ID"), invite.header("CSeq"));
    ua.send(format!(
        "SIP/2.0 302 Moved Temporarily\r\nVia: {via}\r\nFrom: {from}\r\nTo: {to};tag={}\r\nCall-ID: {call_id}\r\n\
         CSeq: {cseq}\r\nContact: {contacts}\r\nContent-Length: 0\r\n\r\n",
        token()
    ));
    ua.request("ACK");
}

/// A socket that must hear nothing.
fn silent(socket: &UdpSocket) {
    socket.set_nonblocking(true).expect("a socket");
    let mut buffer = [0; 2048];
    let heard = socket.recv(&mut buffer).map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned());
    assert!(heard.is_err(), "a stranger heard {heard:?}");
}

#[test]
fn of_several_branches_that_answer_one_is_kept_and_each_other_acknowledged_and_ended() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let (mut leg, invite) = call(&a, &b, "");
    for tag in ["one", "two", "three"] {
        b.respond(&invite, "183 Session Progress", tag, "", &sdp(b.local(), "0"));
    }
    let to_tag = |message: &Msg| message.header("To").split("tag=").nth(1).unwrap_or_default().to_owned();
    b.respond(&invite, "200 OK", "two", "", &sdp(b.local(), "0"));
    assert_eq!(to_tag(&b.request("ACK")), "two");
    a.established(&mut leg);
    for tag in ["one", "three"] {
        b.respond(&invite, "200 OK", tag, "", &sdp(b.local(), "0"));
        assert_eq!(to_tag(&b.request("ACK")), tag);
        let bye = b.request("BYE");
        assert_eq!(to_tag(&bye), tag);
        b.respond(&bye, "200 OK", "", "", "");
        // Its ACK was lost: another, and no second BYE.
        b.respond(&invite, "200 OK", tag, "", &sdp(b.local(), "0"));
        assert_eq!(to_tag(&b.wait("ACK or BYE", |m| m.is("ACK") || m.is("BYE"))), tag);
    }
    engine.call_in("up");
    a.next(&mut leg, "BYE", "", "");
    let bye = b.request("BYE");
    assert_eq!(to_tag(&bye), "two");
    b.respond(&bye, "200 OK", "", "", "");
    engine.cdr("normal", 200, "caller");
}

#[test]
fn an_answer_to_an_invite_of_a_process_that_was_killed_is_acknowledged_and_ended() {
    let mut engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let (_leg, invite) = call(&a, &b, "");
    b.respond(&invite, "180 Ringing", "late", "", "");
    engine.kill9();
    engine.restart();
    b.respond(&invite, "200 OK", "late", "", &sdp(b.local(), "0"));
    let ack = b.request("ACK");
    assert_eq!((ack.cseq(), ack.uri()), (invite.cseq(), b.contact().as_str()));
    let bye = b.request("BYE");
    assert_eq!(bye.header("Call-ID"), invite.header("Call-ID"));
    assert!(bye.cseq() > invite.cseq(), "{bye:?}");
    assert!(bye.header("To").contains(";tag=late") && bye.header("From") == invite.header("From"));
    b.respond(&invite, "200 OK", "late", "", &sdp(b.local(), "0"));
    b.request("ACK");
    b.respond(&bye, "200 OK", "", "", "");
    engine.counts("tandem_stray_answers_total", &[("result", "ended")], 2.0);
}

#[test]
fn a_flood_of_answers_nobody_waits_for_draws_little() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let (leg, invite) = call(&a, &b, "");
    b.respond(&invite, "486 Busy Here", "busy", "", "");
    b.request("ACK");
    a.refused(&leg);
    // The right Call-ID, tag and branch, as only who has seen an INVITE of ours can have them; another CSeq, so that no
    // transaction takes them.
    let branch =
        format!("{}f", invite.header("Via").split("branch=").nth(1).unwrap().split(';').next().unwrap());
    let old = invite.header("Via").split("branch=").nth(1).unwrap().split(';').next().unwrap();
    let begin = Instant::now();
    for n in 1..=400_u16 {
        let forged = Msg { text: invite.text.replace(old, &branch) };
        b.respond(&forged, "200 OK", &format!("forged{n}"), "", "");
        if n % 100 == 0 {
            // No more than the kernel keeps for the engine.
            engine.reaches("tandem_stray_answers_total", &[], f64::from(n));
        }
    }
    engine.reaches("tandem_stray_answers_total", &[], 400.0);
    // Fifty at once, and one more for each 20 ms that it took.
    let most = 51.0 + begin.elapsed().as_secs_f64() * 50.0;
    let ended = engine.metric("tandem_stray_answers_total", &[("result", "ended")]);
    assert!((50.0..=most).contains(&ended), "{ended} were ended, {most} at most");
    assert!(engine.metric("tandem_stray_answers_total", &[("result", "dropped")]) > 0.0);
}

#[test]
fn the_reason_of_a_bye_and_of_a_cancel_crosses_the_call() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let (mut leg, _) = connected(&a, &b);
    a.next(&mut leg, "BYE", "Reason: Q.850;cause=16;text=\"Normal call clearing\"\r\n", "");
    let bye = b.request("BYE");
    assert_eq!(bye.header("Reason"), "Q.850;cause=16;text=\"Normal call clearing\"");
    b.respond(&bye, "200 OK", "", "", "");
    let (leg, invite) = call(&a, &b, "");
    b.respond(&invite, "180 Ringing", "t", "", "");
    a.response("INVITE", 180);
    let reason = "Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\n";
    a.send(a.text(&leg, "CANCEL", &leg.invite_uri, &leg.branch, reason, ""));
    let cancel = b.request("CANCEL");
    assert_eq!(cancel.header("Reason"), "SIP;cause=200;text=\"Call completed elsewhere\"");
    b.respond(&cancel, "200 OK", "t", "", "");
    b.respond(&invite, "487 Request Terminated", "t", "", "");
    a.refused(&leg);
    engine.wait_cdrs(2);
}

#[test]
fn an_info_crosses_the_call_and_its_answer_comes_back() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let (mut leg, mut other) = connected(&a, &b);
    let digit = "Signal=5\r\nDuration=160\r\n";
    send_body(&a, &mut leg, "INFO", "", "application/dtmf-relay", digit);
    let info = b.request("INFO");
    assert_eq!(info.header("Content-Type"), "application/dtmf-relay");
    assert!(info.text.ends_with(&format!("\r\n\r\n{digit}")), "{info:?}");
    b.respond(&info, "200 OK", "", "", "");
    a.response("INFO", 200);
    send_body(&b, &mut other, "MESSAGE", "", "text/plain", "hello");
    let message = a.request("MESSAGE");
    assert!(message.text.ends_with("\r\n\r\nhello"));
    a.respond(&message, "415 Unsupported Media Type", "", "", "");
    b.response("MESSAGE", 415);
    // What need not cross the call is answered here.
    send_body(&a, &mut leg, "INFO", "Info-Package: dtmf\r\n", "application/dtmf", "5");
    a.response("INFO", 469);
    a.next(&mut leg, "OPTIONS", "", "");
    a.response("OPTIONS", 200);
    a.next(&mut leg, "SING", "", "");
    a.response("SING", 501);
    a.next(&mut leg, "PUBLISH", "", "");
    a.response("PUBLISH", 405);
    leg.cseq -= 3;
    a.next(&mut leg, "OPTIONS", "", "");
    a.response("OPTIONS", 500);
    leg.cseq += 10;
    a.next(&mut leg, "BYE", "", "");
    let bye = b.wait("BYE, and nothing before it", |m| m.status().is_none());
    assert!(bye.is("BYE"), "{bye:?}");
    b.respond(&bye, "200 OK", "", "", "");
    a.next(&mut leg, "INFO", "", "");
    a.response("INFO", 481);
}

#[test]
fn a_session_interval_is_agreed_on_each_leg_by_itself() {
    let listen = "[[listen]]\naddress = \"{ip}:5060\"\nsession_expires_s = 1200\nmin_se_s = 120\n";
    let engine = Engine::start(&(listen.to_owned() + TRUNKS));
    let (a, b) = ends(&engine);
    let offer = sdp(a.local(), "0");
    let mut leg = a.leg("9101");
    a.next(&mut leg, "INVITE", "Supported: timer\r\nSession-Expires: 90\r\n", &offer);
    assert_eq!(a.refused(&leg).header("Min-SE"), "120");
    engine.counts("tandem_invites_refused_total", &[("reason", "session_interval")], 1.0);
    a.next(&mut leg, "INVITE", "Supported: timer\r\nSession-Expires: 600\r\n", &offer);
    // The callee's leg has an interval of its own, and its 422 is not the caller's business.
    let invite = b.request("INVITE");
    assert_eq!((invite.header("Session-Expires"), invite.header("Min-SE")), ("1200", "120"));
    assert!(invite.headers("Supported").iter().any(|value| value.contains("timer")));
    b.respond(&invite, "422 Session Interval Too Small", "t", "Min-SE: 1800\r\n", "");
    let invite = b.wait("another INVITE", |m| m.is("INVITE") && m.cseq() > invite.cseq());
    assert_eq!((invite.header("Session-Expires"), invite.header("Min-SE")), ("1800", "1800"));
    b.respond(&invite, "200 OK", "u", "Session-Expires: 1800;refresher=uas\r\n", &sdp(b.local(), "0"));
    b.request("ACK");
    let answer = a.established(&mut leg);
    assert_eq!((answer.header("Session-Expires"), answer.header("Require")), ("600;refresher=uac", "timer"));
    // A refresh that changes nothing is answered for the other end.
    a.next(&mut leg, "INVITE", "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n", &offer);
    let answer = a.established(&mut leg);
    assert_eq!(answer.header("Session-Expires"), "600;refresher=uac");
    a.next(&mut leg, "INVITE", "Supported: timer\r\nSession-Expires: 100\r\n", &offer);
    assert_eq!(a.refused(&leg).status(), Some(422));
    a.next(&mut leg, "BYE", "", "");
    let heard = b.wait("a request", |m| m.status().is_none());
    assert!(heard.is("BYE"), "the callee heard of the refresh: {heard:?}");
    b.respond(&heard, "200 OK", "", "", "");
    engine.cdr("normal", 200, "caller");
}

#[test]
fn a_redirection_is_followed_to_numbers_of_ours_by_q_and_never_to_a_stranger() {
    let engine = Engine::start(&stations(&["1001", "1002", "1003"]));
    let stranger = UdpSocket::bind((engine.stranger(), 0)).expect("a port");
    let a = Ua::new(&engine, "1001");
    let (b, c) = (Ua::new(&engine, "1002").registered(), Ua::new(&engine, "1003").registered());
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    let (ip, strange) = (engine.sip.ip(), stranger.local_addr().unwrap());
    let contacts =
        format!("<sip:1004@{ip}>;q=0.9, <sip:666@{strange}>, <sip:1003@{ip}>;q=0.4, <sip:1002@{ip}>;q=0.1");
    redirect(&b, &b.request("INVITE"), &contacts);
    let mut other = c.answer(&c.request("INVITE"), &sdp(c.local(), "0"));
    a.established(&mut leg);
    c.hang_up(&mut other);
    let bye = a.request("BYE");
    a.respond(&bye, "200 OK", "", "", "");
    let cdr = engine.cdr("normal", 200, "callee");
    assert_eq!(cdr["to"], "1002");
    let why = engine.command(&["why", cdr["call_id"].as_str().unwrap()]).output().expect("the program");
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.contains("302 of station:1002") && why.contains("nobody allows"), "{why}");
    // Only strangers: the caller hears no more than that nobody is there.
    let leg = a.call("1002", &sdp(a.local(), "0"));
    redirect(&b, &b.request("INVITE"), &format!("<sip:666@{strange}>"));
    assert_eq!(a.refused(&leg).status(), Some(480));
    silent(&stranger);
    engine.quiet();
}

#[test]
fn stations_that_redirect_to_each_other_do_not_keep_a_call() {
    let engine = Engine::start(&stations(&["1001", "1002", "1003"]));
    let a = Ua::new(&engine, "1001");
    let (b, c) = (Ua::new(&engine, "1002").registered(), Ua::new(&engine, "1003").registered());
    let leg = a.call("1002", &sdp(a.local(), "0"));
    let ip = engine.sip.ip();
    redirect(&b, &b.request("INVITE"), &format!("<sip:1003@{ip}>"));
    redirect(&c, &c.request("INVITE"), &format!("<sip:1002@{ip}>"));
    assert_eq!(a.refused(&leg).status(), Some(480));
    engine.cdr("rejected", 480, "callee");
}

#[test]
fn whoever_redirects_a_call_may_lead_it_only_where_he_may_dial() {
    let plan = r#"
[[dial_plan.partition]]
name = "outside"
[[dial_plan.calling_search_space]]
name = "all"
partitions = ["internal", "outside"]
[[dial_plan.pattern]]
pattern = "8.X!"
partition = "outside"
target = "trunk:out"
"#;
    let toml = station("1001", "calling_search_space = \"all\"") + &stations(&["1002"]) + TRUNKS + plan;
    let engine = Engine::start(&toml);
    let (_, trunk) = ends(&engine);
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    // The caller may dial it, the station that redirects may not.
    let leg = a.call("1002", &sdp(a.local(), "0"));
    redirect(&b, &b.request("INVITE"), &format!("<sip:8900123@{}>", engine.sip.ip()));
    assert_eq!(a.refused(&leg).status(), Some(480));
    assert!(trunk.receive(Duration::from_millis(1)).is_none());
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    redirect(&b, &b.request("INVITE"), "<tel:9101>");
    let invite = trunk.request("INVITE");
    assert!(invite.uri().starts_with("sip:101@"), "{invite:?}");
    trunk.answer(&invite, &sdp(trunk.local(), "0"));
    a.established(&mut leg);
    assert_eq!(
        eventually("the trunk in the call", || engine.calls()[0]["trunk"].as_str().map(str::to_owned)),
        "out"
    );
}

#[test]
fn a_redirection_is_passed_to_the_caller_where_the_settings_say_so() {
    let engine = Engine::start(&(stations(&["1001"]) + &station("1002", "redirect = \"pass\"")));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let leg = a.call("1002", &sdp(a.local(), "0"));
    redirect(&b, &b.request("INVITE"), "<sip:1003@elsewhere.example>;q=0.5, <sip:1004@elsewhere.example>");
    let answer = a.refused(&leg);
    assert_eq!(answer.status(), Some(302));
    assert_eq!(answer.headers("Contact"), ["<sip:1004@elsewhere.example>", "<sip:1003@elsewhere.example>"]);
    engine.cdr("redirected", 302, "callee");
}

#[test]
fn a_trunk_may_redirect_to_addresses_that_its_settings_name() {
    let engine = Engine::start(&trunks("", "redirect_to = [\"{peer}:5075\"]"));
    let (a, b) = ends(&engine);
    let c = Ua::on(&engine, "777", (engine.peer(), 5075).into());
    let (mut leg, invite) = call(&a, &b, "");
    let (refused, allowed) = ((engine.peer(), 5076), c.local());
    redirect(&b, &invite, &format!("<sip:777@{}:{}>, <sip:777@{allowed}>;q=0.5", refused.0, refused.1));
    let invite = c.request("INVITE");
    assert_eq!(invite.uri(), format!("sip:777@{allowed}"));
    c.answer(&invite, &sdp(c.local(), "0"));
    a.established(&mut leg);
}

const ASSERTED: &str = "P-Asserted-Identity: \"Alice\" <sip:+15550100@carrier.example>\r\n";

#[test]
fn an_asserted_identity_crosses_between_trusted_trunks_only() {
    for (inbound, outbound, crosses) in [
        ("trusted = true", "trusted = true", true),
        ("trusted = true", "", false),
        ("", "trusted = true", false),
    ] {
        let engine = Engine::start(&trunks(inbound, outbound));
        let (a, b) = ends(&engine);
        let (_, invite) = call(&a, &b, ASSERTED);
        let told = invite.headers("P-Asserted-Identity");
        let expected = if crosses { vec!["\"Alice\" <sip:+15550100@carrier.example>"] } else { vec![] };
        assert_eq!(told, expected, "from {inbound:?} to {outbound:?}");
        assert!(invite.header("From").contains("sip:5551234@"), "{invite:?}");
    }
}

#[test]
fn a_caller_who_wants_privacy_is_anonymous_and_known_only_within_the_trust_domain() {
    for (outbound, trusted) in [("trusted = true", true), ("", false)] {
        let engine = Engine::start(&(stations(&["1001"]) + &trunks("", outbound)));
        let (_, b) = ends(&engine);
        let a = Ua::new(&engine, "1001");
        let wish = format!("Privacy: id\r\n{}", ASSERTED.replace("Alice", "Mallory"));
        a.call_with("9101", &wish, &sdp(a.local(), "0"));
        let invite = b.request("INVITE");
        assert!(invite.header("From").starts_with("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag="));
        assert!(!invite.text.contains("Mallory"), "a station is what the settings say: {invite:?}");
        if trusted {
            assert!(invite.header("P-Asserted-Identity").contains("<sip:1001@"));
            assert_eq!(invite.header("Privacy"), "id");
        } else {
            // A tag or Call-ID may happen to have these digits.
            let number = ["sip:1001", "1001@", "\"1001"].iter().any(|number| invite.text.contains(number));
            assert!(!number, "{invite:?}");
        }
    }
}

#[test]
fn a_caller_that_never_acknowledges_its_200_loses_the_call_on_both_sides() {
    let listen = "[[listen]]\naddress = \"{ip}:5060\"\nt1_ms = 50\n";
    let engine = Engine::start(&(listen.to_owned() + TRUNKS));
    let (a, b) = ends(&engine);
    let (_leg, invite) = call(&a, &b, "");
    b.answer(&invite, &sdp(b.local(), "0"));
    let first = a.response("INVITE", 200);
    let again = a.again("200 again", |message| message.answers("INVITE", 200));
    assert_eq!(again.text, first.text, "it is repeated");
    for ua in [&a, &b] {
        let bye = ua.request("BYE");
        ua.respond(&bye, "200 OK", "", "", "");
    }
    engine.cdr("no_ack", 200, "engine");
    engine.quiet();
}

#[test]
fn a_bye_overtakes_a_re_invite_that_waits_for_the_other_end() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    // The one that asks hangs up, then the one that is asked.
    for asked_hangs_up in [false, true] {
        let (mut leg, mut other) = connected(&a, &b);
        let held = sdp(a.local(), "0").replace("o=- 1 1", "o=- 1 2") + "a=sendonly\r\n";
        a.next(&mut leg, "INVITE", "", &held);
        let reinvite = b.request("INVITE");
        if asked_hangs_up {
            b.next(&mut other, "BYE", "", "");
            b.response("BYE", 200);
            let bye = a.request("BYE");
            a.respond(&bye, "200 OK", "", "", "");
        } else {
            hang_up(&a, &mut leg, &b);
        }
        b.respond(&reinvite, "487 Request Terminated", "", "", "");
        b.request("ACK");
    }
    let cdrs = engine.wait_cdrs(2);
    assert!(cdrs.iter().all(|cdr| cdr["cause"] == "normal"), "{cdrs:#?}");
    engine.quiet();
}

#[test]
fn an_answer_that_is_repeated_after_its_call_is_over_is_ended() {
    let engine = Engine::start(TRUNKS);
    let (a, b) = ends(&engine);
    let (mut leg, invite) = call(&a, &b, "");
    let tag = token();
    b.respond(&invite, "200 OK", &tag, "", &sdp(b.local(), "0"));
    b.request("ACK");
    a.established(&mut leg);
    hang_up(&a, &mut leg, &b);
    engine.wait_cdrs(1);
    engine.quiet();
    b.respond(&invite, "200 OK", "another", "", &sdp(b.local(), "0"));
    assert!(b.request("ACK").header("To").ends_with("tag=another"));
    let bye = b.request("BYE");
    assert!(bye.header("To").ends_with("tag=another"));
    b.respond(&bye, "200 OK", "", "", "");
}
