//! Requests that are refused, as the RFCs say: each with its status, the headers that belong to it, and a count.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::digest::Challenge;
use common::engine::stations;
use common::ua::token;
use common::{Engine, Leg, Msg, SOON, Ua, sdp};

/// The bodies that are understood.
const ACCEPT: &str = "application/sdp, multipart/mixed, multipart/alternative";

/// A request whose text `change` has changed, with the answer to its challenge. Without it, it is challenged like any other of a
/// stranger; the refusal is for those we know.
#[track_caller]
fn refused(ua: &Ua, method: &str, body: &str, change: impl Fn(&str) -> String) -> Msg {
    let mut leg = ua.leg("*43");
    let mut ask = |authorization: &str| {
        leg.cseq += 1;
        let branch = format!("z9hG4bK{}", token());
        let text = change(&ua.text(&leg, method, &leg.target, &branch, authorization, body));
        let uri = text.split(' ').nth(1).unwrap().to_owned();
        ua.send(&text);
        let answer = ua.final_response(method);
        if method == "INVITE" {
            ua.send(acknowledgement(&text, &answer));
        }
        (answer, uri)
    };
    let (first, uri) = ask("");
    assert_eq!(first.status(), Some(401), "a stranger learns nothing: {first:?}");
    let challenge = Challenge::parse(first.header("WWW-Authenticate"));
    let answer = challenge.answer(&ua.user, &ua.password, method, &uri, 1);
    ask(&format!("Authorization: {answer}\r\n")).0
}

/// The ACK of a refusal, made of the INVITE itself.
fn acknowledgement(invite: &str, answer: &Msg) -> String {
    let kept = |line: &&str| ["Via:", "From:", "Call-ID:"].iter().any(|name| line.starts_with(name));
    let lines: Vec<&str> = invite.lines().filter(kept).collect();
    let uri = invite.split(' ').nth(1).unwrap();
    format!(
        "ACK {uri} SIP/2.0\r\n{}\r\nTo: {}\r\nCSeq: {} ACK\r\nContent-Length: 0\r\n\r\n",
        lines.join("\r\n"),
        answer.header("To"),
        answer.cseq()
    )
}

fn replaced<'a>(from: &'a str, to: &'a str) -> impl Fn(&str) -> String + 'a {
    move |text| {
        assert!(text.contains(from), "no {from} in\n{text}");
        text.replacen(from, to, 1)
    }
}

#[track_caller]
fn counted(engine: &Engine, metric: &str, reason: &str, count: f64) {
    engine.counts(metric, &[("reason", reason)], count);
}

#[test]
fn an_invite_is_refused_by_what_it_asks_for() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let offer = sdp(ua.local(), "0");
    let invite = |from: &str, to: &str| refused(&ua, "INVITE", &offer, replaced(from, to));
    let kind = "Content-Type: application/sdp\r\n";

    let answer = invite("Max-Forwards: 70\r\n", "Max-Forwards: 70\r\nRequire: telepathy, X-y\r\n");
    assert_eq!((answer.status(), answer.header("Unsupported")), (Some(420), "telepathy, X-y"));
    let answer = invite(kind, "Content-Type: text/plain\r\n");
    assert_eq!((answer.status(), answer.header("Accept")), (Some(415), ACCEPT));
    let answer = invite(kind, &format!("{kind}Content-Encoding: gzip\r\n"));
    assert_eq!((answer.status(), answer.header("Accept-Encoding")), (Some(415), "identity"));
    assert!(answer.headers("Accept").is_empty(), "the type was right: {answer:?}");
    let answer = invite("Max-Forwards: 70", "Max-Forwards: 0");
    assert_eq!(answer.status(), Some(483));
    let answer = invite("INVITE sip:*43@", "INVITE gopher:*43@");
    assert_eq!(answer.status(), Some(416), "{answer:?}");
    let answer = invite("RTP/AVP", "RTP/SAVP");
    assert_eq!(answer.status(), Some(488));
    assert!(!answer.headers("Warning").is_empty(), "{answer:?}");

    for (reason, count) in [("unsupported", 2.0), ("media", 3.0), ("loop", 1.0), ("unauthorized", 6.0)] {
        counted(&engine, "tandem_invites_refused_total", reason, count);
    }
}

#[test]
fn a_refusal_of_a_known_caller_is_kept_for_the_same_request() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let leg = ua.call_with("*43", "Require: telepathy\r\n", &sdp(ua.local(), "0"));
    let first = ua.final_response("INVITE");
    ua.send(&leg.invite);
    let second =
        ua.again("the refusal again", |message| message.method() == "INVITE" && message.status() > Some(199));
    assert_eq!((first.status(), &second), (Some(420), &first), "not a stale nonce");
    ua.ack(&leg, &first);
}

#[test]
fn what_only_proxies_need_and_an_optional_coding_are_no_reason_to_refuse() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let headers = "Proxy-Require: telepathy\r\nSupported: telepathy\r\nContent-Encoding: identity\r\n";
    let mut leg = ua.call_with("*43", headers, &sdp(ua.local(), "0"));
    ua.established(&mut leg);
    ua.hang_up(&mut leg);
}

#[test]
fn what_is_not_built_is_refused_plainly() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let same = |text: &str| text.to_owned();
    for (method, status, header) in [
        ("SUBSCRIBE", 489, Some("Allow-Events")),
        ("PUBLISH", 489, Some("Allow-Events")),
        ("REFER", 603, None),
        ("MESSAGE", 405, Some("Allow")),
        ("BYE", 481, None),
        ("INFO", 481, None),
        ("UPDATE", 481, None),
        ("PRACK", 481, None),
        ("NOTIFY", 481, None),
    ] {
        let answer = refused(&ua, method, "", same);
        assert_eq!(answer.status(), Some(status), "{method}: {answer:?}");
        if let Some(header) = header {
            assert_eq!(answer.headers(header).len(), 1, "{method}: {answer:?}");
        }
    }
    let required = refused(
        &ua,
        "REGISTER",
        "",
        replaced("Max-Forwards: 70\r\n", "Max-Forwards: 70\r\nRequire: outbound\r\n"),
    );
    // The leg is for the echo's number, which is no station; the extension is known.
    assert_eq!(required.status(), Some(403));
    for (reason, count) in
        [("unsupported", 2.0), ("not_allowed", 2.0), ("no_dialog", 5.0), ("unauthorized", 11.0)]
    {
        counted(&engine, "tandem_requests_refused_total", reason, count);
    }
}

#[test]
fn an_unknown_method_is_501_to_those_we_know_and_405_to_strangers() {
    let trunk = "[[trunk]]\nname = \"carrier\"\nproxies = [\"{peer}:5070\"]\n";
    let engine = Engine::start(&(stations(&["1001"]) + trunk));
    let ask = |ua: &Ua, leg: &mut Leg, headers: &str| {
        ua.next(leg, "GUESS", headers, "");
        ua.final_response("GUESS")
    };
    let carrier = Ua::on(&engine, "5550100", (engine.peer(), 5070).into());
    let answer = ask(&carrier, &mut carrier.leg("1001"), "");
    assert_eq!((answer.status(), answer.first_line()), (Some(501), "SIP/2.0 501 Not Implemented"));

    let ua = Ua::new(&engine, "1001");
    let mut leg = ua.leg("1001");
    let answer = ask(&ua, &mut leg, "");
    assert_eq!(answer.status(), Some(405), "nobody is challenged for it: {answer:?}");
    assert!(answer.headers("WWW-Authenticate").is_empty(), "{answer:?}");
    // The nonce of another request proves who this one is from.
    ua.next(&mut leg, "MESSAGE", "", "");
    let challenge = ua.response("MESSAGE", 401);
    let challenge = Challenge::parse(challenge.header("WWW-Authenticate"));
    for (password, status) in [("guess", 405), ("secret-1001", 501)] {
        let credentials = challenge.answer("1001", password, "GUESS", &leg.target, 1);
        let answer = ask(&ua, &mut leg, &format!("Authorization: {credentials}\r\n"));
        assert_eq!(answer.status(), Some(status), "{password}: {answer:?}");
    }
    counted(&engine, "tandem_requests_refused_total", "not_allowed", 4.0);
    engine.counts("tandem_auth_failures_total", &[], 1.0);
}

#[test]
fn a_register_with_an_unknown_extension_is_420_and_changes_nothing() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let answer = ua.register(&[], "Require: telepathy\r\n");
    assert_eq!((answer.status(), answer.header("Unsupported")), (Some(420), "telepathy"));
    engine.counts("tandem_registrations_active", &[], 0.0);
}

#[test]
fn allow_tells_the_truth() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let mut leg = ua.leg("1001");
    ua.next(&mut leg, "OPTIONS", "", "");
    let options = ua.response("OPTIONS", 200);
    let allow: Vec<&str> = options.header("Allow").split(", ").collect();
    for method in ["INVITE", "OPTIONS", "REGISTER", "CANCEL", "BYE", "MESSAGE", "GUESS"] {
        let mut leg = ua.leg("1001");
        ua.next(&mut leg, method, "", "");
        let mut answer = ua.final_response(method);
        if answer.status() == Some(401) && method == "MESSAGE" {
            answer = refused(&ua, method, "", str::to_owned);
        }
        assert_eq!(answer.status() == Some(405), !allow.contains(&method), "{allow:?} {answer:?}");
        if answer.status() == Some(405) {
            assert_eq!(answer.header("Allow"), options.header("Allow"));
        }
    }
}

#[test]
fn what_is_malformed_is_told_what_is_wrong() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let many: String = (0..300).map(|n| format!("X-{n}: 1\r\n")).collect();
    for (method, from, to, line) in [
        ("OPTIONS", "SIP/2.0\r\nVia", "SIP/3.0\r\nVia", "505 SIP version not supported"),
        ("OPTIONS", "Max-Forwards: 70\r\n", many.as_str(), "513 too many header lines"),
        ("INVITE", "Max-Forwards: 70", "Max-Forwards: seventy", "400 Bad Max-Forwards"),
        ("REGISTER", "Max-Forwards: 70", "Max-Forwards: 256", "400 Bad Max-Forwards"),
        ("INVITE", "Contact: <", "Contact: <<", "400 Bad Contact"),
        ("OPTIONS", "Call-ID: ", "Call-ID: a b", "400 bad Call-ID"),
    ] {
        let mut leg = ua.leg("*43");
        leg.cseq = 1;
        let text = ua.text(&leg, method, &leg.target, &format!("z9hG4bK{}", token()), "", "");
        ua.send(replaced(from, to)(&text));
        let answer = ua.receive(SOON).unwrap_or_else(|| panic!("no answer: {line}"));
        assert!(answer.first_line().starts_with(&format!("SIP/2.0 {line}")), "{line}: {answer:?}");
    }
    counted(&engine, "tandem_invites_refused_total", "malformed", 2.0);
    counted(&engine, "tandem_requests_refused_total", "malformed", 4.0);
}

#[test]
fn the_same_invite_by_another_way_is_482() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let leg = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    let merged = leg.invite.replacen(&leg.branch, &format!("z9hG4bK{}", token()), 1);
    a.send(&merged);
    let answer = a.final_response("INVITE");
    assert_eq!(answer.status(), Some(482), "{answer:?}");
    a.send(acknowledgement(&merged, &answer));
    b.respond(&invite, "486 Busy Here", "b", "", "");
    assert_eq!(a.refused(&leg).status(), Some(486), "the first goes its way");
    counted(&engine, "tandem_invites_refused_total", "loop", 1.0);
}

/// A trunk that calls come by, and one whose proxy may send back what it gets.
const LOOP: &str = r#"
[[trunk]]
name = "in"
proxies = ["{peer}:5090"]
[[trunk]]
name = "carrier"
proxies = ["{peer}:5070"]
[[dial_plan.pattern]]
pattern = "5XX"
target = "trunk:carrier"
"#;

#[test]
fn a_call_that_a_proxy_sends_back_is_482_and_one_it_sends_on_is_taken() {
    let engine = Engine::start(&(LOOP.to_owned() + &stations(&["1002"])));
    let proxy = Ua::on(&engine, "carrier", (engine.peer(), 5070).into());
    let a = Ua::on(&engine, "4930123", (engine.peer(), 5090).into());
    let b = Ua::new(&engine, "1002").registered();
    let mut leg = a.leg("555");
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0"));
    let invite = proxy.request("INVITE");
    // As a proxy forwards: its own Via on top, one hop less; the number as it was.
    let via = format!("Via: SIP/2.0/UDP {};branch=z9hG4bKproxy1\r\nVia:", proxy.local());
    let back = invite.text.replacen("Via:", &via, 1).replacen("Max-Forwards: 69", "Max-Forwards: 68", 1);
    proxy.send(back.as_bytes());
    let answer = proxy.final_response("INVITE");
    assert_eq!(answer.status(), Some(482), "{answer:?}");
    // A proxy that knows the number as one of ours sends it on, to us again: that is no loop.
    let branch = via.replace("proxy1", "proxy2");
    let on = invite.text.replacen("Via:", &branch, 1).replacen("sip:555@", "sip:1002@", 1);
    proxy.send(on.as_bytes());
    let second = b.request("INVITE");
    b.respond(&second, "486 Busy Here", "b", "", "");
    assert_eq!(proxy.final_response("INVITE").status(), Some(486));
    proxy.respond(&invite, "486 Busy Here", "p", "", "");
    assert_eq!(a.refused(&leg).status(), Some(486));
}

#[test]
fn max_forwards_crosses_the_call_less_one() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let mut leg: Leg = a.leg("1002");
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0"));
    let challenge = a.response("INVITE", 401);
    a.ack(&leg, &challenge);
    let challenge = Challenge::parse(challenge.header("WWW-Authenticate"));
    let answer = challenge.answer("1001", &a.password, "INVITE", &leg.target, 1);
    leg.cseq += 1;
    leg.branch = format!("z9hG4bK{}", token());
    let headers = format!("Authorization: {answer}\r\n");
    let text = a.text(&leg, "INVITE", &leg.target, &leg.branch, &headers, &sdp(a.local(), "0"));
    a.send(text.replacen("Max-Forwards: 70", "Max-Forwards: 5", 1));
    let invite = b.request("INVITE");
    assert_eq!(invite.header("Max-Forwards"), "4");
    b.respond(&invite, "486 Busy Here", "b", "", "");
    assert_eq!(a.refused(&leg).status(), Some(486));
}

#[test]
fn requests_in_a_dialog_are_refused_by_the_same_rules_and_the_call_goes_on() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let mut leg = ua.call("*43", &sdp(ua.local(), "0"));
    ua.established(&mut leg);
    let offer = sdp(ua.local(), "0");
    for (method, headers, body, status, header) in [
        ("INVITE", "Require: telepathy\r\n", offer.as_str(), 420, Some("Unsupported")),
        ("INVITE", "Content-Encoding: gzip\r\n", offer.as_str(), 415, Some("Accept-Encoding")),
        ("OPTIONS", "Require: telepathy\r\n", "", 420, Some("Unsupported")),
        ("GUESS", "", "", 501, Some("Allow")),
        ("SUBSCRIBE", "Event: telepathy\r\n", "", 489, Some("Allow-Events")),
        ("NOTIFY", "Event: telepathy\r\n", "", 481, None),
        ("REFER", "", "", 603, None),
        ("OPTIONS", "", "", 200, Some("Allow")),
    ] {
        ua.next(&mut leg, method, headers, body);
        let answer = ua.final_response(method);
        assert_eq!(answer.status(), Some(status), "{method}: {answer:?}");
        if method == "INVITE" {
            ua.ack(&leg, &answer);
        }
        if let Some(header) = header {
            assert_eq!(answer.headers(header).len(), 1, "{method}: {answer:?}");
        }
    }
    let mut unknown = leg.clone();
    unknown.remote = leg.remote.replace("tag=", "tag=x");
    ua.next(&mut unknown, "BYE", "", "");
    assert_eq!(ua.final_response("BYE").status(), Some(481));
    ua.hang_up(&mut leg);
    engine.cdr("normal", 200, "caller");
}

#[test]
fn what_a_callee_says_of_our_invite_is_not_told_to_the_caller() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    for (status, headers, told) in [
        ("401 Unauthorized", "WWW-Authenticate: Digest realm=\"tandem\", nonce=\"n\"\r\n", 403),
        (
            "407 Proxy Authentication Required",
            "Proxy-Authenticate: Digest realm=\"tandem\", nonce=\"n\"\r\n",
            403,
        ),
        ("421 Extension Required", "Require: telepathy\r\n", 500),
        ("415 Unsupported Media Type", "Accept: text/plain\r\n", 488),
        ("404 Not Found", "", 404),
    ] {
        let leg = a.call("1002", &sdp(a.local(), "0"));
        let invite = b.request("INVITE");
        b.respond(&invite, status, "b", headers, "");
        let answer = a.refused(&leg);
        assert_eq!(answer.status(), Some(told), "{status}: {answer:?}");
        for header in ["WWW-Authenticate", "Proxy-Authenticate", "Require"] {
            assert!(answer.headers(header).is_empty(), "{status}: {answer:?}");
        }
    }
}
