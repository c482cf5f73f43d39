//! Registrations of ours over connections: REGISTER by TCP and TLS (RFC 3261 §10.2), and the flows by which a registrar reaches us (RFC 5626).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use common::digest::hash;
use common::engine::stations;
use common::stream::{accepted, reset, silent_port};
use common::tls::{self, Authority, Openssl};
use common::ua::token;
use common::{Engine, Msg, Nsd, SOON, Ua, eventually, sdp, so};
use serde_json::Value;

/// UDP and TCP, station 1001, a trunk whose account is registered by TCP at {peer}:5071 and on, as many as there are keys.
fn settings(keys: &str, registrations: &[&str]) -> String {
    let one = |(place, more): (usize, &&str)| {
        let port = 5071 + place;
        format!(
            "{{ address = \"{{peer}}:{port}\", transport = \"tcp\", username = \"office\", password = \"hush\"{more} }}"
        )
    };
    let list: Vec<String> = registrations.iter().enumerate().map(one).collect();
    format!(
        "[[listen]]\nname = \"udp\"\naddress = \"{{ip}}:5060\"\n\
         [[listen]]\nname = \"tcp\"\ntransport = \"tcp\"\naddress = \"{{ip}}:5060\"\n{}{}",
        group(keys, &list),
        stations(&["1001"])
    )
}

/// A group of these, and its trunk.
fn group(keys: &str, registrations: &[String]) -> String {
    format!(
        "[[trunk]]\nname = \"carrier\"\nproxies = [\"{{peer}}:5070\"]\n\
         [[registration_group]]\nname = \"provider\"\ntrunk = \"carrier\"\nretry_s = 1\nmax_retry_s = 2\n{keys}\n\
         registrations = [{}]\n\
         [[dial_plan.pattern]]\npattern = \"9.X!\"\ntarget = \"trunk:carrier\"\n",
        registrations.join(", ")
    )
}

/// The engine, started when registrars listen at these ports.
fn start<const N: usize>(toml: &str, ports: [u16; N]) -> (Engine, [TcpListener; N]) {
    let mut engine = Engine::prepare(toml, &[]);
    let listeners = ports.map(|port| TcpListener::bind((engine.peer(), port)).expect("the port"));
    engine.restart();
    (engine, listeners)
}

/// The far end of the next connection.
#[track_caller]
fn registrar(listener: &TcpListener) -> Ua {
    Ua::on_stream(accepted(listener), "registrar")
}

fn grant(registrar: &Ua, register: &Msg, headers: &str) {
    let bound = format!("Contact: <{}>;expires=600\r\n{headers}", register.contact());
    registrar.respond(register, "200 OK", &token(), &bound, "");
}

#[track_caller]
fn becomes(engine: &Engine, place: usize, state: &str) -> Value {
    eventually(&format!("registration {place} {state}"), || {
        let groups = engine.api("GET", "/api/v1/registration_groups");
        let one = groups[0]["registrations"][place].clone();
        (one["state"] == state).then_some(one)
    })
}

fn challenge(nonce: &str, more: &str) -> String {
    format!(
        "WWW-Authenticate: Digest realm=\"provider\", nonce=\"{nonce}\", algorithm=MD5, qop=\"auth\"{more}\r\n"
    )
}

/// Whether a REGISTER proves that its sender knows the password (RFC 7616 §3.4.1).
fn proves(register: &Msg, nonce: &str) -> bool {
    let value = register.header("Authorization").to_owned();
    let get = |name: &str| {
        let mut params =
            value.trim_start_matches("Digest ").split(',').filter_map(|p| p.trim().split_once('='));
        params
            .find(|(key, _)| *key == name)
            .map(|(_, text)| text.trim_matches('"').to_owned())
            .unwrap_or_default()
    };
    let ha1 = hash("MD5", "office:provider:hush");
    let ha2 = hash("MD5", &format!("REGISTER:{}", register.uri()));
    let expected = hash("MD5", &format!("{ha1}:{nonce}:{}:{}:auth:{ha2}", get("nc"), get("cnonce")));
    get("nonce") == nonce && get("response") == expected
}

const FLOW: &str = "Require: outbound\r\n";

/// What names our flow in a REGISTER.
#[track_caller]
fn flow(register: &Msg) -> String {
    assert!(register.header("Supported").contains("path, outbound"), "{register:?}");
    let contact = register.header("Contact");
    let (_, params) = contact.split_once(">;").expect("parameters of the Contact");
    assert!(params.contains("reg-id=1;+sip.instance=\"<urn:uuid:"), "{contact}");
    params.to_owned()
}

#[test]
fn a_flow_is_kept_alive_and_when_its_connection_ends_there_is_another() {
    let (mut engine, [listener]) = start(&settings("", &[""]), [5071]);
    let first = registrar(&listener);
    let register = first.request("REGISTER");
    assert!(register.header("Via").starts_with("SIP/2.0/TCP "), "{register:?}");
    let names = flow(&register);
    grant(&first, &register, &format!("{FLOW}Flow-Timer: 1\r\n"));
    becomes(&engine, 0, "registered");
    for _ in 0..2 {
        assert!(first.is_kept_alive(SOON), "a ping");
        first.send("\r\n");
    }

    // The account is called by the connection that we have opened: there need not be another way.
    let phone = Ua::new(&engine, "1001").registered();
    let mut leg = first.leg("1001");
    leg.target = register.contact().replace("sip:office@", "sip:1001@");
    first.next(&mut leg, "INVITE", "", &sdp(first.local(), "0"));
    phone.respond(&phone.request("INVITE"), "486 Busy Here", &token(), "", "");
    assert_eq!(first.refused(&leg).status(), Some(486));

    reset(first.stream().expect("a connection"));
    drop(first);
    let down = becomes(&engine, 0, "failed");
    assert!(down["last_cause"].as_str().is_some_and(|why| why.contains("connection")), "{down:#}");
    let second = registrar(&listener);
    let again = second.request("REGISTER");
    assert_eq!((flow(&again), again.header("Call-ID")), (names.clone(), register.header("Call-ID")));
    assert!(again.cseq() > register.cseq());
    grant(&second, &again, FLOW);
    becomes(&engine, 0, "registered");
    let failures = [("group", "provider"), ("cause", "flow")];
    assert_eq!(engine.metric("tandem_registration_failures_total", &failures), 1.0);

    // After a crash nothing waits for the next refresh: the connection is gone.
    drop(second);
    let third = registrar(&listener);
    grant(&third, &third.request("REGISTER"), FLOW);
    becomes(&engine, 0, "registered");
    engine.kill9();
    engine.restart();
    let fourth = registrar(&listener);
    assert_eq!(flow(&fourth.request("REGISTER")), names, "the same ways to the same");
}

#[test]
fn a_registrar_that_shows_no_sign_of_life_is_left_for_a_new_connection() {
    let (engine, [listener]) = start(&settings("", &[""]), [5071]);
    let first = registrar(&listener);
    grant(&first, &first.request("REGISTER"), &format!("{FLOW}Flow-Timer: 1\r\n"));
    assert!(first.is_kept_alive(SOON), "a ping");
    // It has ten seconds to answer (RFC 5626 §4.4.1), and does not.
    let second = registrar(&listener);
    grant(&second, &second.request("REGISTER"), FLOW);
    becomes(&engine, 0, "registered");
    let closed = [("transport", "tcp"), ("cause", "no_pong")];
    assert_eq!(engine.metric("tandem_sip_connections_closed_total", &closed), 1.0);
}

#[test]
fn a_registrar_that_knows_no_flows_calls_by_a_connection_of_its_own() {
    let (engine, [listener]) = start(&settings("", &[""]), [5071]);
    let first = registrar(&listener);
    grant(&first, &first.request("REGISTER"), "Flow-Timer: 1\r\n");
    let before = becomes(&engine, 0, "registered");
    assert!(!first.is_kept_alive(Duration::from_millis(1500)), "who has not asked for pings gets none");
    drop(first);
    eventually("the end of the connection", || {
        so(engine.metric("tandem_sip_connections_active", &[("transport", "tcp")]) == 0.0)
    });
    assert_eq!(becomes(&engine, 0, "registered")["since"], before["since"]);
}

#[test]
fn by_tcp_challenges_are_answered_423_obeyed_and_a_redirection_followed() {
    let (engine, [listener, other]) = start(&settings("", &[", expires_s = 60"]), [5071, 5072]);
    let first = registrar(&listener);
    first.respond(&first.request("REGISTER"), "401 Unauthorized", "a", &challenge("n1", ""), "");
    let register = first.request("REGISTER");
    assert!(proves(&register, "n1"), "{register:?}");
    first.respond(&register, "401 Unauthorized", "a", &challenge("n2", ", stale=true"), "");
    let register = first.request("REGISTER");
    assert!(proves(&register, "n2"), "{register:?}");
    first.respond(&register, "423 Interval Too Brief", "a", "Min-Expires: 700\r\n", "");
    let register = first.request("REGISTER");
    assert_eq!(register.header("Expires"), "700");
    let to = format!("sip:office@{}:5072;transport=tcp", engine.peer());
    let moved = format!(
        "SIP/2.0 302 Moved Temporarily\r\nVia: {}\r\nFrom: {}\r\nTo: {};tag=m\r\nCall-ID: {}\r\nCSeq: {}\r\nContact: <{to}>\r\nContent-Length: 0\r\n\r\n",
        register.header("Via"),
        register.header("From"),
        register.header("To"),
        register.header("Call-ID"),
        register.header("CSeq")
    );
    first.send(moved);
    let second = registrar(&other);
    let register = second.request("REGISTER");
    assert_eq!(register.uri(), to);
    grant(&second, &register, FLOW);
    let one = becomes(&engine, 0, "registered");
    assert_eq!(one["registrar"], format!("{}:5072", engine.peer()));
}

#[test]
fn by_tcp_the_next_registrar_takes_over_at_once_and_gives_back_when_the_first_is_there_again() {
    let keys = "return_after_s = 1";
    let (engine, [second]) = start(&settings(keys, &["", ""]), [5072]);
    // Nobody has the port of the first.
    let substitute = registrar(&second);
    grant(&substitute, &substitute.request("REGISTER"), FLOW);
    becomes(&engine, 1, "registered");
    let listener = TcpListener::bind((engine.peer(), 5071)).expect("the port");
    let first = registrar(&listener);
    let register = first.request("REGISTER");
    grant(&first, &register, FLOW);
    becomes(&engine, 0, "registered");
    let unregister = substitute.request("REGISTER");
    assert_eq!(unregister.header("Expires"), "0", "{unregister:?}");
    substitute.respond(&unregister, "200 OK", "b", "", "");
    becomes(&engine, 1, "idle");
    // And the flow's end has the second stand in again, long before the first is asked anew.
    drop(first);
    drop(listener);
    let register = substitute.request("REGISTER");
    assert_ne!(register.header("Expires"), "0", "{register:?}");
    grant(&substitute, &register, FLOW);
    becomes(&engine, 1, "registered");
}

#[test]
fn by_tcp_an_address_that_is_silent_loses_to_one_where_the_registrar_is() {
    let registration =
        "{ domain = \"provider.test\", transport = \"tcp\", username = \"office\", password = \"hush\" }";
    let listen = "[[listen]]\nname = \"udp\"\naddress = \"{ip}:5060\"\n\
                  [[listen]]\nname = \"tcp\"\ntransport = \"tcp\"\naddress = \"{ip}:5060\"\nconnect_timeout_ms = 20000\n";
    let toml =
        [listen, &group("", &[registration.to_owned()]), "[dns]\nservers = [\"{peer}:5353\"]\n"].concat();
    let mut engine = Engine::prepare(&toml, &[]);
    let at = |ip| SocketAddr::from((ip, 5071));
    let std::net::IpAddr::V4(own) = engine.sip.ip() else { panic!("an IPv4 address") };
    let _silent = [silent_port(at(engine.peer())), silent_port(at(own))];
    let listener = TcpListener::bind(at(engine.stranger())).expect("the port");
    let records = format!(
        "_sip._tcp.provider SRV 10 0 5071 h\nh A {}\nh A {own}\nh A {}\n",
        engine.peer(),
        engine.stranger()
    );
    let _nsd = Nsd::start(engine.dir(), engine.peer(), &records);
    engine.restart();
    let began = Instant::now();
    let registrar = registrar(&listener);
    let register = registrar.request("REGISTER");
    assert!(began.elapsed() < Duration::from_secs(12), "nobody was waited for: {:?}", began.elapsed());
    grant(&registrar, &register, FLOW);
    assert_eq!(becomes(&engine, 0, "registered")["registrar"], at(engine.stranger()).to_string());
    let unanswered = [("group", "provider"), ("cause", "no_response")];
    let failures = engine.metric("tandem_registration_failures_total", &unanswered);
    assert_eq!(failures, 0.0);
}

#[test]
fn by_tls_a_registrar_found_by_srv_proves_its_domain_and_gives_the_route_of_calls() {
    let ca = Authority::new("ours");
    let registration =
        "{ domain = \"provider.test\", transport = \"tls\", username = \"office\", password = \"hush\" }";
    let more =
        group("", &[registration.to_owned()]) + &stations(&["1001"]) + "[dns]\nservers = [\"{peer}:5353\"]\n";
    let mut engine = tls::prepare(&ca, "", &more);
    let at = SocketAddr::from((engine.peer(), 5071));
    let own = ca.issue(engine.dir(), "provider", &["provider.test"]);
    let openssl = Openssl::server(&engine, at, &own, &[]);
    let registrar = Ua::on_tls(openssl, at, tls::address(&engine), "registrar");
    // The first server of the domain is not there.
    let records = "_sips._tcp.provider SRV 10 0 5079 a\n_sips._tcp.provider SRV 20 0 5071 a\n";
    let _nsd = Nsd::start(engine.dir(), engine.peer(), records);
    engine.restart();
    let register = registrar.request("REGISTER");
    assert!(register.header("Via").starts_with("SIP/2.0/TLS "), "{register:?}");
    flow(&register);
    registrar.respond(&register, "401 Unauthorized", "a", &challenge("n1", ""), "");
    let register = registrar.request("REGISTER");
    assert!(proves(&register, "n1"), "{register:?}");
    grant(&registrar, &register, &format!("{FLOW}Service-Route: <sip:edge.provider.test;lr>\r\n"));
    assert_eq!(becomes(&engine, 0, "registered")["registrar"], at.to_string());

    let proxy = Ua::on(&engine, "carrier", (engine.peer(), 5070).into());
    let phone = Ua::new(&engine, "1001").registered();
    let leg = phone.call("9555", &sdp(phone.local(), "0"));
    let invite = proxy.request("INVITE");
    assert_eq!(invite.headers("Route"), ["<sip:edge.provider.test;lr>"]);
    proxy.respond(&invite, "486 Busy Here", &token(), "", "");
    phone.refused(&leg);

    // Its calls come by the connection that we have opened to it.
    let mut leg = registrar.leg("1001");
    leg.target = register.contact().replace("sip:office@", "sip:1001@");
    registrar.next(&mut leg, "INVITE", "", &sdp(registrar.local(), "0"));
    phone.respond(&phone.request("INVITE"), "486 Busy Here", &token(), "", "");
    assert_eq!(registrar.refused(&leg).status(), Some(486));
}
