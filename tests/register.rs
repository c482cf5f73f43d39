//! REGISTER on the wire: digest, bindings, and what they survive.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::digest::Challenge;
use common::engine::{station, stations};
use common::{Engine, Leg, Msg, Ua, eventually, sdp};

const BOTH: &str = "[node]\ndigest_algorithms = [\"SHA-256\", \"MD5\"]\n";

/// What makes a REGISTER as long as a real phone's: the second challenge is left out where the answer would be much larger.
const USUAL: &str = "User-Agent: Phone 1.2.3 of a certain maker\r\nSupported: path, outbound, gruu, replaces\r\n\
    Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REFER, NOTIFY, SUBSCRIBE, INFO, UPDATE, PRACK, MESSAGE\r\n";

/// Answers the challenge of the given algorithm.
fn credentials(ua: &Ua, leg: &Leg, challenged: &Msg, algorithm: &str, nc: u32) -> String {
    let challenge = challenged
        .headers("WWW-Authenticate")
        .into_iter()
        .map(Challenge::parse)
        .find(|challenge| challenge.algorithm == algorithm)
        .unwrap_or_else(|| panic!("no challenge for {algorithm} in\n{challenged:?}"));
    let answer = challenge.answer(&ua.user, &ua.password, "REGISTER", &leg.target, nc);
    format!("Expires: 600\r\nAuthorization: {answer}\r\n")
}

fn contacts(answer: &Msg) -> Vec<String> {
    let uri = |value: &&str| value.trim_start_matches('<').split('>').next().unwrap().to_owned();
    answer.headers("Contact").iter().map(uri).collect()
}

fn expires(answer: &Msg, uri: &str) -> u32 {
    let value = answer.headers("Contact").into_iter().find(|value| value.contains(uri));
    let value = value.unwrap_or_else(|| panic!("no {uri} in\n{answer:?}"));
    value.split("expires=").nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_hashes_of_the_settings_are_offered_in_their_order_and_each_is_taken() {
    let engine = Engine::start(&(BOTH.to_owned() + &stations(&["1001"])));
    for algorithm in ["SHA-256", "MD5"] {
        let ua = Ua::new(&engine, "1001");
        let mut leg = ua.registration();
        let challenged = ua.register_once(&mut leg, &[], USUAL);
        assert_eq!(challenged.status(), Some(401));
        let offered: Vec<String> = challenged
            .headers("WWW-Authenticate")
            .into_iter()
            .map(|value| Challenge::parse(value).algorithm)
            .collect();
        assert_eq!(offered, ["SHA-256", "MD5"]);
        let answer = credentials(&ua, &leg, &challenged, algorithm, 1);
        let registered = ua.register_once(&mut leg, &[], &answer);
        assert_eq!(registered.status(), Some(200), "{registered:?}");
        assert!(contacts(&registered).contains(&ua.contact()), "{registered:?}");
    }
    engine.reaches("tandem_registrations_active", &[], 2.0);
}

#[test]
fn a_stored_hash_serves_as_the_password() {
    for (algorithm, key) in [("MD5", "ha1_md5"), ("SHA-256", "ha1_sha256")] {
        let hash = common::digest::hash(algorithm, "1001:example.test:secret-1001");
        let engine = Engine::start(&format!(
            "[node]\nrealm = \"example.test\"\ndigest_algorithms = [\"{algorithm}\"]\n\
             [[station]]\nname = \"1001\"\nextension = \"1001\"\n{key} = \"{hash}\"\n"
        ));
        let _registered = Ua::new(&engine, "1001").registered();
    }
}

#[test]
fn a_wrong_password_is_challenged_again_and_counted() {
    let engine = Engine::start(&stations(&["1001"]));
    let mut ua = Ua::new(&engine, "1001");
    ua.password = "guess".to_owned();
    let refused = ua.register(&[], "Expires: 600\r\n");
    assert_eq!(refused.status(), Some(401));
    assert!(!Challenge::parse(refused.header("WWW-Authenticate")).stale);
    engine.counts("tandem_auth_failures_total", &[], 1.0);
    engine.counts("tandem_registrations_active", &[], 0.0);
}

/// A message with all that differs from one challenge to the next taken out.
fn shape(message: &Msg, ua: &Ua) -> String {
    let changing = ["Via:", "From:", "To:", "Call-ID:"];
    let lines = message.text.lines().filter(|line| !changing.iter().any(|name| line.starts_with(name)));
    let plain = lines.map(|line| match line.split_once("nonce=\"") {
        Some((before, after)) => format!("{before}{}", after.split_once('"').unwrap().1),
        None => line.replace(&ua.user, "USER"),
    });
    plain.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_unknown_user_is_answered_like_a_known_one() {
    let engine = Engine::start(&stations(&["1001"]));
    let mut answers = Vec::new();
    for user in ["1001", "1999"] {
        let mut ua = Ua::new(&engine, user);
        ua.password = "guess".to_owned();
        let mut leg = ua.registration();
        let first = ua.register_once(&mut leg, &[], "");
        let guess = credentials(&ua, &leg, &first, "MD5", 1);
        let second = ua.register_once(&mut leg, &[], &guess);
        assert_eq!(second.status(), Some(401));
        answers.push((shape(&first, &ua), shape(&second, &ua)));
    }
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_replayed_nonce_count_gains_nothing() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let mut leg = ua.registration();
    let challenged = ua.register_once(&mut leg, &[], "");
    let once = credentials(&ua, &leg, &challenged, "MD5", 1);
    assert_eq!(ua.register_once(&mut leg, &[], &once).status(), Some(200));
    let thief = Ua::at(&engine, "1001", engine.stranger().into());
    let refused = thief.register_once(&mut leg, &[], &once);
    assert_eq!(refused.status(), Some(401));
    assert!(Challenge::parse(refused.header("WWW-Authenticate")).stale, "{refused:?}");
    let next = credentials(&ua, &leg, &challenged, "MD5", 2);
    assert_eq!(ua.register_once(&mut leg, &[], &next).status(), Some(200), "the owner goes on counting");
    engine.counts("tandem_registrations_active", &[], 1.0);
}

#[test]
fn a_nonce_of_an_earlier_process_is_stale() {
    let mut engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let mut leg = ua.registration();
    let challenged = ua.register_once(&mut leg, &[], "");
    let old = credentials(&ua, &leg, &challenged, "MD5", 1);
    engine.kill9();
    engine.restart();
    let refused = ua.register_once(&mut leg, &[], &old);
    assert_eq!(refused.status(), Some(401));
    assert!(Challenge::parse(refused.header("WWW-Authenticate")).stale, "{refused:?}");
    let new = credentials(&ua, &leg, &refused, "MD5", 1);
    assert_eq!(ua.register_once(&mut leg, &[], &new).status(), Some(200));
}

#[test]
fn each_contact_has_its_own_expiry_and_a_refresh_renews_it() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let (desk, mobile) = ("sip:1001@192.0.2.1:5060", "sip:1001@192.0.2.2:5060");
    let asked = [format!("<{desk}>;expires=120"), format!("<{mobile}>")];
    let answer = ua.register(&[&asked[0], &asked[1]], "Expires: 600\r\n");
    assert_eq!((expires(&answer, desk), expires(&answer, mobile)), (120, 600), "{answer:?}");
    let answer = ua.register(&[&format!("<{desk}>;expires=300")], "");
    assert_eq!(expires(&answer, desk), 300, "{answer:?}");
    assert!(expires(&answer, mobile) <= 600, "the other contact stays: {answer:?}");
    let answer = ua.register(&[&format!("<{desk}>;expires=0")], "");
    assert_eq!(contacts(&answer), [mobile]);
}

#[test]
fn a_query_tells_the_bindings_and_changes_nothing() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001").registered();
    // A REGISTER whose only Contact is taken out.
    let mut leg = ua.registration();
    let challenged = ua.register_once(&mut leg, &[], "");
    let answer = credentials(&ua, &leg, &challenged, "MD5", 1);
    leg.cseq += 1;
    let text = ua.text(&leg, "REGISTER", &leg.target, "z9hG4bKquery", &answer, "");
    let contact = format!("Contact: <{}>\r\n", ua.contact());
    ua.send(text.replacen(&contact, "", 1));
    let answer = ua.final_response("REGISTER");
    assert_eq!(contacts(&answer), [ua.contact()], "{answer:?}");
}

#[test]
fn a_star_removes_every_contact_and_needs_expires_0() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001").registered();
    assert_eq!(ua.register(&["*"], "Expires: 60\r\n").status(), Some(400));
    engine.reaches("tandem_registrations_active", &[], 1.0);
    let answer = ua.register(&["*"], "Expires: 0\r\n");
    assert_eq!((answer.status(), contacts(&answer).len()), (Some(200), 0), "{answer:?}");
    eventually("no binding", || common::so(engine.metric("tandem_registrations_active", &[]) == 0.0));
}

#[test]
fn too_brief_an_interval_is_refused_with_the_least() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let answer = ua.register(&[], "Expires: 5\r\n");
    assert_eq!(answer.status(), Some(423), "{answer:?}");
    let least: u32 = answer.header("Min-Expires").parse().unwrap();
    assert_eq!(ua.register(&[], &format!("Expires: {least}\r\n")).status(), Some(200));
}

#[test]
fn one_contact_too_many_replaces_the_oldest() {
    let engine = Engine::start(&station("1001", "max_contacts = 2"));
    let ua = Ua::new(&engine, "1001");
    let uris: Vec<String> = (1..=3).map(|n| format!("sip:1001@192.0.2.{n}:5060")).collect();
    for uri in &uris {
        assert_eq!(ua.register(&[&format!("<{uri}>")], "Expires: 600\r\n").status(), Some(200));
    }
    let answer = ua.register(&[&format!("<{}>", uris[2])], "Expires: 600\r\n");
    let mut left = contacts(&answer);
    left.sort();
    assert_eq!(left, uris[1..]);
}

#[test]
fn calls_go_to_the_source_of_the_binding_not_to_its_contact() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let behind_nat = Ua::new(&engine, "1002");
    let private = "<sip:1002@10.255.255.1:5060>";
    assert_eq!(behind_nat.register(&[private], "Expires: 600\r\n").status(), Some(200));
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("1002", &sdp(caller.local(), "0"));
    let invite = behind_nat.request("INVITE");
    assert_eq!(invite.uri(), "sip:1002@10.255.255.1:5060");
    behind_nat.respond(&invite, "486 Busy Here", "nat", "", "");
    assert_eq!(caller.refused(&leg).status(), Some(486));
}

#[test]
fn bindings_survive_kill_9() {
    let mut engine = Engine::start(&stations(&["1001", "1002"]));
    let called = Ua::new(&engine, "1002").registered();
    engine.recorded("registration", 1);
    engine.kill9();
    let took = engine.restart();
    assert!(took < Duration::from_secs(2), "{took:?}");
    engine.counts("tandem_registrations_active", &[], 1.0);
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("1002", &sdp(caller.local(), "0"));
    let invite = called.request("INVITE");
    called.respond(&invite, "603 Decline", "x", "", "");
    assert_eq!(caller.refused(&leg).status(), Some(603));
}

#[test]
fn the_registration_of_another_user_is_refused_with_403_once_its_sender_has_proved_who_he_is() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let mut thief = Ua::new(&engine, "1001");
    let refusal = |thief: &Ua, aor: &str| {
        let mut leg = thief.registration();
        leg.remote = leg.remote.replace("1001", aor);
        let challenged = thief.register_once(&mut leg, &[], "");
        let answer = credentials(thief, &leg, &challenged, "MD5", 1);
        thief.register_once(&mut leg, &[], &answer).status()
    };
    assert_eq!(refusal(&thief, "1002"), Some(403));
    assert_eq!(refusal(&thief, "1999"), Some(403), "nobody learns which stations there are");
    thief.password = "guess".to_owned();
    assert_eq!(refusal(&thief, "1002"), Some(401));
    engine.counts("tandem_registrations_active", &[], 0.0);
}

#[test]
fn the_settings_bound_what_is_granted() {
    let engine = Engine::start(&format!(
        "[registrar]\nmin_expires_s = 100\nmax_expires_s = 200\ndefault_expires_s = 150\n{}",
        stations(&["1001"])
    ));
    let ua = Ua::new(&engine, "1001");
    let brief = ua.register(&[], "Expires: 99\r\n");
    assert_eq!((brief.status(), brief.header("Min-Expires")), (Some(423), "100"));
    for (asked, granted) in [("Expires: 100\r\n", 100), ("Expires: 3600\r\n", 200), ("", 150)] {
        assert_eq!(expires(&ua.register(&[], asked), &ua.contact()), granted, "{asked}");
    }
}

#[test]
fn a_register_that_is_older_than_the_binding_changes_nothing() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let mut leg = ua.registration();
    leg.cseq = 50;
    let challenged = ua.register_once(&mut leg, &[], "");
    let first = credentials(&ua, &leg, &challenged, "MD5", 1);
    assert_eq!(ua.register_once(&mut leg, &[], &first).status(), Some(200));
    leg.cseq = 10;
    let other = "<sip:1001@192.0.2.9:5060>";
    let own = format!("<{}>;expires=0", ua.contact());
    let late = credentials(&ua, &leg, &challenged, "MD5", 2);
    assert_eq!(ua.register_once(&mut leg, &[other, &own], &late).status(), Some(500));
    leg.cseq = 60;
    let query = credentials(&ua, &leg, &challenged, "MD5", 3);
    let now = ua.register_once(&mut leg, &[], &query);
    assert_eq!(contacts(&now), [ua.contact()], "neither is the new contact bound nor the old one removed");
}

#[test]
fn a_path_is_stored_returned_and_becomes_the_route() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let edge = Ua::new(&engine, "1002");
    let path = "Expires: 600\r\nPath: <sip:edge.example;lr>, <sip:192.0.2.7;lr>\r\n";
    let refused = edge.register(&[], path);
    assert_eq!((refused.status(), refused.header("Unsupported")), (Some(420), "path"));
    let registered = edge.register(&[], &format!("{path}Supported: path\r\n"));
    assert_eq!(registered.status(), Some(200), "{registered:?}");
    let kept = ["<sip:edge.example;lr>", "<sip:192.0.2.7;lr>"];
    assert_eq!(registered.headers("Path").join(", "), kept.join(", "));
    assert!(registered.header("Supported").contains("path"));
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("1002", &sdp(caller.local(), "0"));
    let invite = edge.request("INVITE");
    assert_eq!(invite.headers("Route").join(", "), kept.join(", "), "{invite:?}");
    assert_eq!(invite.uri(), edge.contact());
    edge.respond(&invite, "486 Busy Here", "e", "", "");
    assert_eq!(caller.refused(&leg).status(), Some(486));
}

#[test]
fn a_required_extension_that_is_unknown_is_named() {
    let engine = Engine::start(&stations(&["1001"]));
    let refused = Ua::new(&engine, "1001").register(&[], "Require: path, gruu\r\n");
    assert_eq!((refused.status(), refused.header("Unsupported")), (Some(420), "gruu"));
}

#[test]
fn lower_contacts_ring_after_higher_ones_have_refused() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let phone = || Ua::new(&engine, "1002");
    let (desk, mobile, home) = (phone(), phone(), phone());
    for (ua, q) in [(&home, "0.1"), (&desk, "1"), (&mobile, "0.5")] {
        let contact = format!("<{}>;q={q}", ua.contact());
        assert_eq!(ua.register(&[&contact], "Expires: 600\r\n").status(), Some(200));
    }
    let caller = Ua::new(&engine, "1001");
    let mut leg = caller.call("1002", &sdp(caller.local(), "0"));
    for refusing in [&desk, &mobile] {
        let invite = refusing.request("INVITE");
        refusing.respond(&invite, "480 Temporarily Unavailable", "n", "", "");
        refusing.request("ACK");
    }
    home.answer(&home.request("INVITE"), &sdp(home.local(), "0"));
    caller.established(&mut leg);
}

#[test]
fn a_contact_that_only_rings_gives_way_to_the_next_lower_one_in_time() {
    let engine = Engine::start(&format!(
        "{}{}",
        station("1001", ""),
        station("1002", "fork_timeout_s = 1\nring_timeout_s = 20")
    ));
    let (desk, mobile) = (Ua::new(&engine, "1002"), Ua::new(&engine, "1002"));
    assert_eq!(desk.register(&[], "Expires: 600\r\n").status(), Some(200));
    let lower = format!("<{}>;q=0.5", mobile.contact());
    assert_eq!(mobile.register(&[&lower], "Expires: 600\r\n").status(), Some(200));
    let caller = Ua::new(&engine, "1001");
    let mut leg = caller.call("1002", &sdp(caller.local(), "0"));
    let ringing = desk.request("INVITE");
    desk.respond(&ringing, "180 Ringing", "d", "", "");
    let cancel = desk.request("CANCEL");
    desk.respond(&cancel, "200 OK", "d", "", "");
    desk.respond(&ringing, "487 Request Terminated", "d", "", "");
    desk.request("ACK");
    mobile.answer(&mobile.request("INVITE"), &sdp(mobile.local(), "0"));
    caller.established(&mut leg);
}

/// Registers one flow of the device that all flows of this test belong to.
fn flow(ua: &Ua, reg_id: u32) -> Msg {
    let instance = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"";
    let contact = format!("<{}>;reg-id={reg_id};{instance}", ua.contact());
    ua.register(&[&contact], "Expires: 600\r\nSupported: path, outbound\r\n")
}

#[test]
fn a_device_has_a_binding_for_each_flow_and_a_new_address_replaces_the_old() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = || Ua::new(&engine, "1001");
    let (first, second, moved) = (ua(), ua(), ua());
    let answer = flow(&first, 1);
    assert_eq!((answer.status(), answer.header("Require")), (Some(200), "outbound"), "{answer:?}");
    assert!(answer.headers("Flow-Timer").is_empty(), "over UDP nothing would answer its keep-alives");
    assert_eq!(contacts(&flow(&second, 2)).len(), 2);
    let answer = flow(&moved, 1);
    assert_eq!(contacts(&answer), [second.contact(), moved.contact()]);
    assert!(answer.headers("Contact").iter().all(|c| c.contains(";reg-id=")), "{answer:?}");
}

#[test]
fn a_dead_flow_is_followed_by_the_devices_next_and_the_caller_never_sees_430() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (first, second) = (Ua::new(&engine, "1002"), Ua::new(&engine, "1002"));
    flow(&first, 1);
    flow(&second, 2);
    let caller = Ua::new(&engine, "1001");
    let fails = |ua: &Ua, legs: u64| {
        let invite = ua.request("INVITE");
        assert_eq!(engine.calls()[0]["legs"], legs, "no other flow of the device is called meanwhile");
        ua.respond(&invite, "430 Flow Failed", "f", "", "");
        ua.request("ACK");
    };
    let mut leg = caller.call("1002", &sdp(caller.local(), "0"));
    fails(&second, 2);
    let mut other = first.answer(&first.request("INVITE"), &sdp(first.local(), "0"));
    caller.established(&mut leg);
    first.next(&mut other, "BYE", "", "");
    first.response("BYE", 200);
    caller.respond(&caller.request("BYE"), "200 OK", "", "", "");
    engine.quiet();
    let leg = caller.call("1002", &sdp(caller.local(), "0"));
    fails(&second, 2);
    fails(&first, 3);
    assert_eq!(caller.refused(&leg).status(), Some(480));
}
