//! Registration groups that a reload adds, changes, moves and takes away, as registrars see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::calls::proxy;
use common::engine::stations;
use common::offer::nothing;
use common::ua::token;
use common::{Engine, Msg, Ua, eventually, so};

/// Stations 1001 and 1002.
fn office(more: &str) -> String {
    stations(&["1001", "1002"]) + more
}

/// A group with registrations at these ports of {peer}.
fn group(ports: &[u16], keys: &str) -> String {
    let one = |port: &u16| {
        format!("{{ address = \"{{peer}}:{port}\", username = \"office\", password = \"hush\" }}")
    };
    let list: Vec<String> = ports.iter().map(one).collect();
    format!("[[registration_group]]\nname = \"provider\"\n{keys}\nregistrations = [{}]\n", list.join(", "))
}

/// The next REGISTER, which is granted.
#[track_caller]
fn granted(registrar: &Ua) -> Msg {
    let register = registrar.request("REGISTER");
    let bound = format!("Contact: <{}>;expires=600\r\n", register.contact());
    registrar.respond(&register, "200 OK", &token(), &bound, "");
    register
}

/// The next REGISTER gives up this one's binding, and proves once more who sends it.
#[track_caller]
fn given_up(registrar: &Ua, register: &Msg) -> Msg {
    let challenge =
        "WWW-Authenticate: Digest realm=\"provider\", nonce=\"n\", algorithm=MD5, qop=\"auth\"\r\n";
    let last = registrar.request("REGISTER");
    registrar.respond(&last, "401 Unauthorized", &token(), challenge, "");
    let last = registrar.request("REGISTER");
    assert_eq!((last.header("Expires"), last.contact()), ("0", register.contact()), "{last:?}");
    assert!(last.header("Authorization").contains("nonce=\"n\""), "{last:?}");
    registrar.respond(&last, "200 OK", &token(), "", "");
    last
}

#[test]
fn registrations_come_and_go_with_a_reload_and_those_that_stay_are_not_made_anew() {
    let engine = Engine::start(&office(""));
    let (first, second) = (proxy(&engine, 5071), proxy(&engine, 5072));
    let told = engine.reloaded(&office(&group(&[5071], "")), &[]);
    assert!(told.contains("+ registration_group provider\n"), "{told}");
    let one = granted(&first);
    let states = || -> Vec<String> {
        let groups = engine.api("GET", "/api/v1/registration_groups");
        let list = groups[0]["registrations"].as_array().cloned().unwrap_or_default();
        list.iter().map(|r| r["state"].as_str().unwrap_or_default().to_owned()).collect()
    };
    eventually("it holds", || so(states() == ["registered"]));

    // What concerns other things leaves the binding where it is.
    let told = engine.reloaded(&office(&group(&[5071], "retry_s = 7")), &[]);
    assert!(told.contains("~ registration_group provider: retry_s 30 -> 7\n"), "{told}");
    eventually("it holds", || so(states() == ["registered"]));
    engine.reloaded(&office(&group(&[5071, 5072], "active = 2")), &[]);
    let two = granted(&second);
    eventually("both hold", || so(states() == ["registered", "registered"]));
    nothing(&first, "REGISTER");

    engine.reloaded(&office(&group(&[5072], "")), &[]);
    let last = given_up(&first, &one);
    assert_eq!(last.header("Call-ID"), one.header("Call-ID"), "it is the same registration's");
    eventually("the other holds", || so(states() == ["registered"]));
    nothing(&second, "REGISTER");

    let told = engine.reloaded(&office(""), &[]);
    assert!(told.contains("- registration_group provider\n"), "{told}");
    given_up(&second, &two);
    assert_eq!(engine.api("GET", "/api/v1/registration_groups").as_array().map(Vec::len), Some(0));
    eventually("its actor has ended", || {
        so(!engine.ask("GET", "/api/v1/tree", "").body.contains("registration_group:provider"))
    });
}

#[test]
fn a_listener_that_moves_takes_its_registrations_along() {
    let listen = |port: u16| {
        format!(
            "[[listen]]\nname = \"udp\"\naddress = \"{{ip}}:{port}\"\nt1_ms = 100\n{}",
            group(&[5071], "")
        )
    };
    let mut engine = Engine::prepare(&office(&listen(5060)), &[]);
    let mut registrar = proxy(&engine, 5071);
    engine.restart();
    let before = granted(&registrar);
    assert!(before.contact().contains(":5060;"), "{before:?}");
    let told = engine.reloaded(&office(&listen(5062)), &[]);
    assert!(told.contains("~ listen udp: address "), "{told}");
    // Neither waits for the other.
    let (mut moved, mut left) = (false, false);
    while !(moved && left) {
        let register = registrar.request("REGISTER");
        let gone = register.header("Expires") == "0";
        assert_eq!(register.contact().contains(":5062;"), !gone, "{register:?}");
        let bound =
            if gone { String::new() } else { format!("Contact: <{}>;expires=600\r\n", register.contact()) };
        registrar.server.set_port(if gone { 5060 } else { 5062 });
        registrar.respond(&register, "200 OK", &token(), &bound, "");
        (moved, left) = (moved || !gone, left || gone);
    }
}
