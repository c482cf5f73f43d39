//! What a trunk believes of its proxies, by OPTIONS and by calls, and what that does to the next call.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::calls::{proxy, two_proxies};
use common::engine::stations;
use common::{Engine, Ua, eventually, sdp, so};
use serde_json::Value;

/// A proxy that answers OPTIONS with 404 and each INVITE with what it is told.
struct Proxy {
    stop: Arc<AtomicBool>,
    invites: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    fn start(engine: &Engine, port: u16, status: &'static str, headers: &'static str) -> Proxy {
        let ua = proxy(engine, port);
        let (stop, invites) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (stop.clone(), invites.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Some(message) = ua.receive(Duration::from_millis(20)) else { continue };
                if message.is("OPTIONS") {
                    ua.respond(&message, "404 Not Found", "o", "", "");
                } else if message.is("INVITE") {
                    counted.fetch_add(1, Ordering::Relaxed);
                    ua.respond(&message, status, "i", headers, "");
                }
            }
        });
        Proxy { stop, invites, thread: Some(thread) }
    }

    /// How many INVITEs came since this was asked last.
    fn invites(&self) -> usize {
        self.invites.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn proxies(engine: &Engine) -> Vec<Value> {
    engine.api("GET", "/api/v1/trunks")[0]["proxies"].as_array().expect("proxies").clone()
}

fn state(engine: &Engine, place: usize) -> String {
    proxies(engine)[place]["state"].as_str().expect("a state").to_owned()
}

#[track_caller]
fn becomes(engine: &Engine, place: usize, wanted: &str) {
    eventually(&format!("proxy {place} {wanted}"), || so(state(engine, place) == wanted));
}

/// One call, refused by somebody in the end: its status.
#[track_caller]
fn refused_call(caller: &Ua, number: &str) -> Option<u16> {
    let leg = caller.call(number, &sdp(caller.local(), "0"));
    caller.refused(&leg).status()
}

const BUSY: &str = "486 Busy Here";

#[test]
fn options_find_a_dead_proxy_and_the_preferred_one_is_used_again_once_it_is_steadily_back() {
    let engine = Engine::start(&two_proxies("qualify_interval_s = 1"));
    let (first, second) = (Proxy::start(&engine, 5071, BUSY, ""), Proxy::start(&engine, 5072, BUSY, ""));
    let caller = Ua::new(&engine, "1001");
    becomes(&engine, 0, "up");
    becomes(&engine, 1, "up");
    assert_eq!(refused_call(&caller, "9555123"), Some(486));
    assert_eq!((first.invites(), second.invites()), (1, 0));

    drop(first);
    becomes(&engine, 0, "down");
    assert_eq!(engine.metric("tandem_trunk_up", &[("proxy", &format!("{}:5071", engine.peer()))]), 0.0);
    let told = &proxies(&engine)[0];
    assert!(told["since"].is_string() && told["up"] == false, "{told:#}");
    assert_eq!(told["cause"], "it cannot be reached");
    let shown = engine.command(&["trunks"]).output().expect("the program").stdout;
    let shown = String::from_utf8(shown).expect("text");
    let line = |l: &str| l.contains(":5071") && l.contains("DOWN") && l.contains("it cannot be reached");
    assert!(shown.lines().any(line), "{shown}");
    assert_eq!(refused_call(&caller, "9555123"), Some(486));
    assert_eq!(second.invites(), 1);
    let cdrs = engine.wait_cdrs(2);
    assert_eq!(cdrs[1]["attempts"].as_array().map(Vec::len), Some(1), "{:#}", cdrs[1]);

    let first = Proxy::start(&engine, 5071, BUSY, "");
    // First it must prove itself: calls begin with the other until it has.
    becomes(&engine, 0, "degraded");
    becomes(&engine, 0, "up");
    assert_eq!(refused_call(&caller, "9555123"), Some(486));
    assert_eq!((first.invites(), second.invites()), (1, 0));
    let told = eventually("four events", || {
        let events = engine.api("GET", "/api/v1/events?from=1");
        let events = events.get("events").unwrap_or(&events).as_array()?.clone();
        let first = |e: &&Value| e["data"]["proxy"] == format!("{}:5071", engine.peer());
        let changes = events.iter().filter(|e| e["type"] == "trunk.state").filter(first);
        let states: Vec<String> =
            changes.filter_map(|e| e["data"]["state"].as_str().map(str::to_owned)).collect();
        (states.len() == 4).then_some(states)
    });
    assert_eq!(told, ["up", "down", "degraded", "up"]);
}

#[test]
fn a_proxy_that_does_not_answer_options_goes_down_though_its_port_is_there() {
    let mut engine = Engine::prepare(&two_proxies("qualify_interval_s = 1\nt1_ms = 50"), &[]);
    let silent = Ua::on(&engine, "silent", (engine.peer(), 5071).into());
    engine.restart();
    let _second = Proxy::start(&engine, 5072, BUSY, "");
    becomes(&engine, 0, "down");
    assert_eq!(proxies(&engine)[0]["cause"], "no response to OPTIONS");
    let options = silent.request("OPTIONS");
    assert_eq!(options.uri(), format!("sip:{}:5071", engine.peer()));
    assert_eq!(options.headers("Max-Forwards"), ["70"]);
    assert!(options.contact().starts_with("sip:"), "{options:?}");
}

#[test]
fn one_that_is_down_is_tried_last_and_never_skipped_and_calls_that_are_up_stay() {
    let mut engine = Engine::start(&two_proxies(""));
    assert_eq!((state(&engine, 0).as_str(), state(&engine, 1).as_str()), ("unknown", "unknown"));
    let caller = Ua::new(&engine, "1001");
    let first = Ua::on(&engine, "proxy", (engine.peer(), 5071).into());
    let mut leg = caller.call("9555123", &sdp(caller.local(), "0"));
    first.answer(&first.request("INVITE"), &sdp(first.local(), "0"));
    caller.established(&mut leg);
    becomes(&engine, 0, "up");
    drop(first);

    let other = Ua::new(&engine, "1001");
    assert_eq!(refused_call(&other, "9555123"), Some(503), "nobody is there");
    becomes(&engine, 0, "down");
    becomes(&engine, 1, "down");
    assert_eq!(engine.call_in("up"), engine.calls()[0]["call_id"], "the call that is up stays");
    let second = Proxy::start(&engine, 5072, BUSY, "");
    assert_eq!(refused_call(&other, "9555123"), Some(486), "the last one left is tried");
    becomes(&engine, 1, "up");
    let first = Proxy::start(&engine, 5071, BUSY, "");
    assert_eq!(refused_call(&other, "9555123"), Some(486));
    assert_eq!(
        (first.invites(), second.invites()),
        (0, 2),
        "the one that answered is preferred while it rests"
    );

    engine.kill9();
    engine.restart();
    assert_eq!(state(&engine, 0), "unknown", "what was believed does not outlive the process");
    assert_eq!(refused_call(&other, "9555123"), Some(486));
    assert_eq!((first.invites(), second.invites()), (1, 0));
}

#[test]
fn no_new_call_is_lost_while_seven_of_eight_proxies_die_one_after_the_other() {
    let ports: Vec<u16> = (5071..5079).collect();
    let list: Vec<String> = ports.iter().map(|port| format!("\"{{peer}}:{port}\"")).collect();
    let two = "\"{peer}:5071\", \"{peer}:5072\"";
    let keys = "selection = \"round_robin\"\nqualify_interval_s = 1";
    let engine = Engine::start(&two_proxies(keys).replace(two, &list.join(", ")));
    let mut alive: Vec<Proxy> = ports.iter().map(|port| Proxy::start(&engine, *port, BUSY, "")).collect();
    let last = alive.pop().expect("eight");
    let calling = Arc::new(AtomicBool::new(true));
    let callers: Vec<JoinHandle<usize>> = (0..4)
        .map(|_| {
            let (caller, calling) = (Ua::new(&engine, "1001"), calling.clone());
            std::thread::spawn(move || {
                let mut calls = 0;
                while calling.load(Ordering::Relaxed) {
                    assert_eq!(refused_call(&caller, "9555123"), Some(486), "call {calls}");
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for place in (0..alive.len()).rev() {
        let before = engine.metric("tandem_calls_total", &[]);
        alive.pop();
        becomes(&engine, place, "down");
        engine.reaches("tandem_calls_total", &[], before + 10.0);
    }
    calling.store(false, Ordering::Relaxed);
    let calls: usize = callers.into_iter().map(|caller| caller.join().expect("no call was lost")).sum();
    assert!(calls >= 70 && last.invites() >= 10, "{calls} calls");
}

#[test]
fn a_proxy_that_asks_for_rest_gets_it() {
    let engine = Engine::start(&two_proxies(""));
    let first = Proxy::start(&engine, 5071, "503 Service Unavailable", "Retry-After: 3 (in a moment)\r\n");
    let second = Proxy::start(&engine, 5072, BUSY, "");
    let caller = Ua::new(&engine, "1001");
    assert_eq!(refused_call(&caller, "9555123"), Some(486));
    becomes(&engine, 0, "degraded");
    assert_eq!(proxies(&engine)[0]["cause"], "it wants no calls for 3 s");
    assert_eq!(engine.metric("tandem_trunk_degraded", &[]), 1.0);
    assert_eq!(refused_call(&caller, "9555123"), Some(486));
    assert_eq!((first.invites(), second.invites()), (1, 2));
    becomes(&engine, 0, "up");
    assert_eq!(refused_call(&caller, "9555123"), Some(486));
    assert_eq!((first.invites(), second.invites()), (1, 1));
}

#[test]
fn proxies_share_the_calls_by_weight() {
    let engine = Engine::start(&two_proxies("selection = \"round_robin\"\nweights = [3, 1]"));
    let (first, second) = (Proxy::start(&engine, 5071, BUSY, ""), Proxy::start(&engine, 5072, BUSY, ""));
    let caller = Ua::new(&engine, "1001");
    for _ in 0..12 {
        assert_eq!(refused_call(&caller, "9555123"), Some(486));
    }
    assert_eq!((first.invites(), second.invites()), (9, 3));
}

#[test]
fn new_calls_beyond_the_rate_go_to_the_next_trunk() {
    let engine = Engine::start(&format!(
        "{}[[trunk]]\nname = \"slow\"\nproxies = [\"{{peer}}:5071\"]\nmax_new_calls_per_s = 2\n\
         [[trunk]]\nname = \"wide\"\nproxies = [\"{{peer}}:5072\"]\n\
         [[dial_plan.route_group]]\nname = \"out\"\ntrunks = [\"slow\", \"wide\"]\n\
         [[dial_plan.pattern]]\npattern = \"9.X!\"\ntarget = \"route_group:out\"\n",
        stations(&["1001"])
    ));
    let (slow, wide) = (Proxy::start(&engine, 5071, BUSY, ""), Proxy::start(&engine, 5072, BUSY, ""));
    let callers = [0; 6].map(|_| Ua::new(&engine, "1001"));
    std::thread::scope(|scope| {
        for caller in callers {
            scope.spawn(move || assert_eq!(refused_call(&caller, "9555123"), Some(486)));
        }
    });
    let (slow, wide) = (slow.invites(), wide.invites());
    assert!((2..=4).contains(&slow) && slow + wide == 6, "{slow} and {wide}");
    let cdrs = engine.wait_cdrs(6);
    let limited = cdrs.iter().filter(|cdr| cdr["attempts"][0]["cause"] == "limit").count();
    assert_eq!(limited, wide, "{cdrs:#?}");
}

#[test]
fn channels_kept_for_emergency_calls_are_theirs() {
    let engine = Engine::start(&two_proxies("max_calls = 2\nemergency_channels = 1"));
    let first = Ua::on(&engine, "proxy", (engine.peer(), 5071).into());
    let caller = Ua::new(&engine, "1001");
    let mut leg = caller.call("9555123", &sdp(caller.local(), "0"));
    first.answer(&first.request("INVITE"), &sdp(first.local(), "0"));
    caller.established(&mut leg);
    let other = Ua::new(&engine, "1001");
    assert_eq!(refused_call(&other, "9555123"), Some(503), "one of two is kept");
    let _emergency = other.call("8112", &sdp(other.local(), "0"));
    let invite = first.request("INVITE");
    assert!(invite.uri().starts_with("sip:112@"), "{invite:?}");
}

#[test]
fn one_that_is_down_is_asked_more_often_than_one_that_is_up() {
    // Nobody is there; the first OPTIONS leave within two seconds.
    let engine = Engine::start(&two_proxies("qualify_interval_s = 3600"));
    becomes(&engine, 0, "down");
    let _first = Proxy::start(&engine, 5071, BUSY, "");
    // At most every two seconds, and it must answer for a while: not after the hour.
    becomes(&engine, 0, "up");
}
