//! A proxy that says by RFC 7339 that it has too much to do: so many new calls are kept from it, and nothing else.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::calls::{hang_up, proxy, two_proxies};
use common::ua::token;
use common::{Engine, Msg, Ua, eventually, sdp, so};
use serde_json::Value;

/// How a Via of ours asks.
const ASKING: &str = ";oc;oc-algo=\"loss\"";

/// The engine, a caller and both proxies.
fn start(keys: &str) -> (Engine, Ua, [Ua; 2]) {
    let engine = Engine::start(&two_proxies(keys));
    let proxies = [5071, 5072].map(|port| proxy(&engine, port));
    let caller = Ua::new(&engine, "1001");
    (engine, caller, proxies)
}

/// A request whose responses say this of its sender's feedback.
fn told(request: &Msg, feedback: &str) -> Msg {
    assert!(request.header("Via").contains(ASKING), "{request:?}");
    Msg { text: request.text.replacen(ASKING, feedback, 1) }
}

fn refuse(proxy: &Ua, invite: &Msg, status: &str) {
    proxy.respond(invite, status, &token(), "", "");
    proxy.request("ACK");
}

/// Calls `number`; this proxy gets the INVITE and refuses it for good, saying this.
#[track_caller]
fn call(caller: &Ua, number: &str, proxy: &Ua, feedback: &str) {
    let leg = caller.call(number, &sdp(caller.local(), "0"));
    let invite = proxy.request("INVITE");
    refuse(proxy, &told(&invite, feedback), "486 Busy Here");
    caller.refused(&leg);
}

/// The percentage of calls that are kept from the first proxy, as people see it.
fn share(engine: &Engine) -> u64 {
    let trunks = engine.api("GET", "/api/v1/trunks");
    trunks[0]["proxies"][0]["overload_percent"].as_u64().expect("a percentage")
}

#[track_caller]
fn becomes(engine: &Engine, percent: u64) {
    eventually(&format!("{percent} %"), || so(share(engine) == percent));
}

fn causes(cdr: &Value) -> Vec<&str> {
    cdr["attempts"].as_array().expect("attempts").iter().filter_map(|a| a["cause"].as_str()).collect()
}

/// The events of the trunk that say something of overload.
fn events(engine: &Engine) -> Vec<Value> {
    let all = engine.api("GET", "/api/v1/events");
    let told = |event: &&Value| event["data"]["overload_percent"].is_number();
    all.as_array().expect("events").iter().filter(told).cloned().collect()
}

#[test]
fn a_proxy_that_wants_no_calls_gets_none_but_emergencies_and_what_belongs_to_calls_that_are_up() {
    let (engine, caller, [first, second]) = start("");
    let mut up = caller.call("9100", &sdp(caller.local(), "0"));
    first.answer(&told(&first.request("INVITE"), ";oc=0;oc-seq=1.0"), &sdp(first.local(), "0"));
    caller.established(&mut up);

    call(&caller, "9101", &first, ";oc=100;oc-algo=\"loss\";oc-validity=600000;oc-seq=5.0");
    becomes(&engine, 100);
    let gauge = [("trunk", "out"), ("proxy", &*first.local().to_string())];
    assert_eq!(engine.metric("tandem_trunk_overload_share", &gauge), 1.0);
    let shown = engine.command(&["trunks"]).output().expect("the program").stdout;
    assert!(String::from_utf8_lossy(&shown).contains("(-100 %)"), "{}", String::from_utf8_lossy(&shown));

    call(&caller, "9102", &second, "");
    let cdr = engine.wait_cdrs(2).into_iter().find(|cdr| cdr["to"] == "9102").expect("its record");
    assert_eq!(causes(&cdr), ["overload", "486"]);
    assert_eq!(cdr["attempts"][0]["proxy"], first.local().to_string());
    let failovers = [("trunk", "out"), ("cause", "overload")];
    assert_eq!(engine.metric("tandem_trunk_failovers_total", &failovers), 1.0);
    assert!(first.receive(Duration::from_millis(1)).is_none(), "nothing but the first two calls");

    // Neither this nor its answer, which is older than what was said, changes anything.
    call(&caller, "8112", &first, ";oc=0;oc-validity=600000;oc-seq=4.9");
    call(&caller, "9103", &second, "");
    hang_up(&caller, &mut up, &first);
    assert_eq!(share(&engine), 100);

    call(&caller, "8112", &first, ";oc=100;oc-validity=0;oc-seq=5.1");
    becomes(&engine, 0);
    assert_eq!(engine.metric("tandem_trunk_overload_share", &gauge), 0.0);
    call(&caller, "9104", &first, "");
    let percents =
        || events(&engine).iter().map(|e| e["data"]["overload_percent"].clone()).collect::<Vec<_>>();
    eventually("both events", || so(percents() == [100, 0]));
    assert_eq!(events(&engine)[0]["reason"], "it is overloaded and wants 100 % fewer calls");
}

#[test]
fn a_call_that_every_proxy_is_spared_is_refused_as_that() {
    let (engine, caller, [first, second]) = start("");
    let full = ";oc=100;oc-validity=600000;oc-seq=1.0";
    let leg = caller.call("9101", &sdp(caller.local(), "0"));
    refuse(&first, &told(&first.request("INVITE"), full), "503 Service Unavailable");
    refuse(&second, &told(&second.request("INVITE"), full), "486 Busy Here");
    caller.refused(&leg);
    let leg = caller.call("9102", &sdp(caller.local(), "0"));
    let refusal = caller.refused(&leg);
    assert_eq!(refusal.status(), Some(503));
    assert!(refusal.header("Reason").contains("Q.850;cause=42"), "{refusal:?}");
    assert!(refusal.headers("Retry-After").is_empty(), "{refusal:?}");
    let cdr = engine.wait_cdrs(2).into_iter().find(|cdr| cdr["to"] == "9102").expect("its record");
    assert_eq!((cdr["cause"].as_str(), cdr["ended_by"].as_str()), (Some("overload"), Some("engine")));
    assert_eq!(causes(&cdr), ["overload", "overload"]);
}

#[test]
fn of_many_calls_the_share_that_a_proxy_names_goes_elsewhere() {
    let (engine, caller, [first, second]) = start("");
    call(&caller, "9101", &first, ";oc=50;oc-validity=600000;oc-seq=1.0");
    becomes(&engine, 50);
    let mut counts = [0, 0];
    for number in 0..60 {
        let leg = caller.call(&format!("92{number:02}"), &sdp(caller.local(), "0"));
        let (which, invite) = eventually("an INVITE", || {
            let got = |which: usize| {
                let message = [&first, &second][which].receive(Duration::from_millis(10))?;
                let is_this = message.is("INVITE") && message.uri().contains(&format!("2{number:02}@"));
                is_this.then_some((which, message))
            };
            got(0).or_else(|| got(1))
        });
        counts[which] += 1;
        refuse([&first, &second][which], &invite, "486 Busy Here");
        caller.refused(&leg);
    }
    // Ten or fewer of sixty come about by chance once in twenty million runs.
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
}

#[test]
fn what_a_proxy_wants_ends_with_its_time_and_answers_to_options_say_it_too() {
    let (engine, caller, [first, second]) = start("qualify_interval_s = 60");
    let options = first.request("OPTIONS");
    first.respond(&told(&options, ";oc=100;oc-validity=3000;oc-seq=1.0"), "200 OK", "o", "", "");
    becomes(&engine, 100);
    call(&caller, "9101", &second, "");
    becomes(&engine, 0);
    call(&caller, "9102", &first, "");
    eventually("both events", || so(events(&engine).len() == 2));
}

#[test]
fn a_trunk_that_is_not_to_be_asked_is_neither_asked_nor_heeded() {
    let (engine, caller, [first, _second]) = start("overload_control = false");
    for number in ["9101", "9102"] {
        let leg = caller.call(number, &sdp(caller.local(), "0"));
        let invite = first.request("INVITE");
        let via = invite.header("Via").to_owned();
        assert!(!via.contains(";oc"), "{invite:?}");
        let said = Msg { text: invite.text.replacen(&via, &format!("{via};oc=100;oc-validity=600000"), 1) };
        refuse(&first, &said, "486 Busy Here");
        caller.refused(&leg);
    }
    assert_eq!(share(&engine), 0);
}
