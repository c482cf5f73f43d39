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
    assert_eq!(engine.metric("tandem_auth_failures_total", &[]), 1.0);
    assert_eq!(engine.metric("tandem_registrations_active", &[]), 0.0);
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
    assert_eq!(engine.metric("tandem_registrations_active", &[]), 1.0);
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
    engine.kill9();
    let took = engine.restart();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(engine.metric("tandem_registrations_active", &[]), 1.0);
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("1002", &sdp(caller.local(), "0"));
    let invite = called.request("INVITE");
    called.respond(&invite, "603 Decline", "x", "", "");
    assert_eq!(caller.refused(&leg).status(), Some(603));
}

#[test]
fn the_registration_of_another_user_is_refused() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let thief = Ua::new(&engine, "1001");
    let mut leg = thief.registration();
    leg.remote = leg.remote.replace("1001", "1002");
    let challenged = thief.register_once(&mut leg, &[], "");
    let answer = credentials(&thief, &leg, &challenged, "MD5", 1);
    let refused = thief.register_once(&mut leg, &[], &answer);
    assert!(matches!(refused.status(), Some(401 | 403)), "{refused:?}");
    assert_eq!(engine.metric("tandem_registrations_active", &[]), 0.0);
}
