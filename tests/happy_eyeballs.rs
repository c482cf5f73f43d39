//! A proxy with several addresses, over a stream: connections to them race (RFC 8305), and the call goes by the first that comes about.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use common::calls::a_call;
use common::engine::stations;
use common::stream::{accepted, silent_port};
use common::tls::{self, Authority, Openssl};
use common::ua::token;
use common::{Engine, Msg, Nsd, Ua, eventually, sdp, so};
use serde_json::Value;

/// The port of every address.
const PORT: u16 = 5071;
/// Far longer than a race takes, so that an address that was waited for would be noticed.
const LONG: &str = "connect_timeout_ms = 20000";

/// Station 1001, which dials out with 9 by a trunk that is a domain.
fn settings(keys: &str) -> String {
    format!(
        "[dns]\nservers = [\"{{peer}}:5353\"]\n[[trunk]]\nname = \"out\"\ndomain = \"carrier.test\"\n{keys}\n\
         [[dial_plan.pattern]]\npattern = \"9.X!\"\ntarget = \"trunk:out\"\n{}",
        stations(&["1001"])
    )
}

/// The same by TCP, with one shard: it connects to a server once.
fn by_tcp(keys: &str) -> Engine {
    let listen = "[[listen]]\nname = \"udp\"\naddress = \"{ip}:5060\"\n\
                  [[listen]]\nname = \"tcp\"\ntransport = \"tcp\"\naddress = \"{ip}:5060\"\n";
    let toml = [listen, &settings(&format!("transport = \"tcp\"\n{keys}"))].concat();
    Engine::prepare(&toml, &[("TANDEM__NODE__SHARDS", "1")])
}

/// Three addresses that are this test's.
fn addresses(engine: &Engine) -> [Ipv4Addr; 3] {
    let IpAddr::V4(own) = engine.sip.ip() else { panic!("an IPv4 address") };
    [engine.peer(), engine.stranger(), own]
}

/// An SRV record of this priority for a server that has these addresses.
fn server(name: &str, priority: u16, ips: &[Ipv4Addr]) -> String {
    let hosts: String = ips.iter().map(|ip| format!("{name} A {ip}\n")).collect();
    format!(
        "_sip._tcp.carrier SRV {priority} 0 {PORT} {name}\n_sips._tcp.carrier SRV {priority} 0 {PORT} {name}\n{hosts}"
    )
}

/// Starts the engine, which knows `proxies` of them when this returns.
#[track_caller]
fn serve(engine: &mut Engine, records: &str, proxies: usize) -> Nsd {
    let nsd = Nsd::start(engine.dir(), engine.peer(), records);
    engine.restart();
    eventually("the proxies", || so(trunk(engine)["proxies"].as_array().expect("a list").len() == proxies));
    nsd
}

fn trunk(engine: &Engine) -> Value {
    engine.api("GET", "/api/v1/trunks")[0].clone()
}

/// The attempts of a CDR: proxy and cause.
fn attempts(cdr: &Value) -> Vec<(String, String)> {
    let text = |attempt: &Value, key: &str| attempt[key].as_str().expect("text").to_owned();
    let all = cdr["attempts"].as_array().expect("attempts");
    all.iter().map(|attempt| (text(attempt, "proxy"), text(attempt, "cause"))).collect()
}

fn at(ip: Ipv4Addr) -> SocketAddr {
    (ip, PORT).into()
}

fn attempt(ip: Ipv4Addr, cause: &str) -> (String, String) {
    (at(ip).to_string(), cause.to_owned())
}

fn refuse(proxy: &Ua, invite: &Msg, status: &str) {
    proxy.respond(invite, status, &token(), "", "");
    proxy.request("ACK");
}

fn failovers(engine: &Engine) -> f64 {
    engine.metric("tandem_trunk_failovers_total", &[("trunk", "out"), ("cause", "transport")])
}

#[test]
fn an_address_that_is_silent_loses_to_one_that_answers_and_that_is_no_failure_of_the_proxy() {
    let mut engine = by_tcp(LONG);
    let [one, two, open] = addresses(&engine);
    let _silent = [silent_port(at(one)), silent_port(at(two))];
    let listener = TcpListener::bind(at(open)).expect("the port");
    let _nsd = serve(&mut engine, &server("h", 1, &[one, two, open]), 3);
    let caller = Ua::new(&engine, "1001");
    let began = Instant::now();
    let leg = caller.call("9555", &sdp(caller.local(), "0"));
    let proxy = Ua::on_stream(accepted(&listener), "carrier");
    let invite = proxy.request("INVITE");
    assert!(began.elapsed() < Duration::from_secs(10), "nobody was waited for: {:?}", began.elapsed());
    assert_eq!(invite.uri(), "sip:555@carrier.test");
    refuse(&proxy, &invite, "486 Busy Here");
    caller.refused(&leg);
    let cdr = engine.wait_cdrs(1).remove(0);
    assert_eq!(attempts(&cdr), [attempt(open, "486")], "one attempt, with the address that has won");
    assert_eq!(failovers(&engine), 0.0);
    let shown = trunk(&engine);
    for proxy in shown["proxies"].as_array().expect("a list") {
        assert_ne!(proxy["state"], "down", "{shown:#}");
    }
    // Whichever address comes first now: what was slow comes after what was not, and the connection that is there is used.
    for _ in 0..6 {
        let leg = caller.call("9556", &sdp(caller.local(), "0"));
        let invite = proxy.request("INVITE");
        refuse(&proxy, &invite, "486 Busy Here");
        caller.refused(&leg);
    }
    assert_eq!(engine.metric("tandem_sip_connections_active", &[("transport", "tcp")]), 1.0);
}

#[test]
fn an_address_that_refuses_leads_to_the_next_within_the_same_attempt() {
    let mut engine = by_tcp(LONG);
    let [one, two, open] = addresses(&engine);
    let listener = TcpListener::bind(at(open)).expect("the port");
    let _nsd = serve(&mut engine, &server("h", 1, &[one, two, open]), 3);
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("9555", &sdp(caller.local(), "0"));
    let proxy = Ua::on_stream(accepted(&listener), "carrier");
    let invite = proxy.request("INVITE");
    refuse(&proxy, &invite, "486 Busy Here");
    caller.refused(&leg);
    assert_eq!(attempts(&engine.wait_cdrs(1)[0]), [attempt(open, "486")]);
    assert_eq!(failovers(&engine), 0.0);
}

#[test]
fn a_server_none_of_whose_addresses_can_be_reached_is_one_failed_attempt() {
    let mut engine = by_tcp("connect_timeout_ms = 600");
    let [refuses, silent, open] = addresses(&engine);
    let _silent = silent_port(at(silent));
    let listener = TcpListener::bind(at(open)).expect("the port");
    let records = server("h", 1, &[refuses, silent]) + &server("g", 2, &[open]);
    let _nsd = serve(&mut engine, &records, 3);
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("9555", &sdp(caller.local(), "0"));
    let proxy = Ua::on_stream(accepted(&listener), "carrier");
    let invite = proxy.request("INVITE");
    refuse(&proxy, &invite, "486 Busy Here");
    caller.refused(&leg);
    let cdr = engine.wait_cdrs(1).remove(0);
    let [(_, first), second] = &attempts(&cdr)[..] else { panic!("two attempts: {cdr:#}") };
    assert_eq!((first.as_str(), second), ("transport", &attempt(open, "486")));
    assert!(cdr["attempts"][0]["ms"].as_u64().expect("ms") >= 500, "connect_timeout_ms bounds all: {cdr:#}");
    assert_eq!(failovers(&engine), 1.0);
    // The trunk has learnt it of both.
    eventually("two that are down", || {
        let shown = trunk(&engine);
        let down = |p: &&Value| p["state"] == "down";
        so(shown["proxies"].as_array().expect("a list").iter().filter(down).count() == 2)
    });
}

#[test]
fn one_that_takes_the_call_and_refuses_it_leads_to_the_other_addresses() {
    let mut engine = by_tcp(LONG);
    let [one, two, silent] = addresses(&engine);
    let _silent = silent_port(at(silent));
    let listeners = [one, two].map(|ip| TcpListener::bind(at(ip)).expect("the port"));
    let _nsd = serve(&mut engine, &server("h", 1, &[one, two, silent]), 3);
    for listener in &listeners {
        listener.set_nonblocking(true).expect("set");
    }
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("9555", &sdp(caller.local(), "0"));
    let next = || {
        let (stream, _) =
            eventually("a connection", || listeners.iter().find_map(|listener| listener.accept().ok()));
        stream.set_nonblocking(false).expect("set");
        Ua::on_stream(stream, "carrier")
    };
    let first = next();
    let invite = first.request("INVITE");
    refuse(&first, &invite, "503 Service Unavailable");
    let second = next();
    assert_ne!(first.local(), second.local());
    let invite = second.request("INVITE");
    refuse(&second, &invite, "486 Busy Here");
    caller.refused(&leg);
    let cdr = engine.wait_cdrs(1).remove(0);
    let told = |ua: &Ua, cause: &str| (ua.local().to_string(), cause.to_owned());
    assert_eq!(attempts(&cdr), [told(&first, "503"), told(&second, "486")]);
}

#[test]
fn a_caller_who_gives_up_while_addresses_race_is_answered_and_nobody_is_called() {
    let mut engine = by_tcp(LONG);
    let all = addresses(&engine);
    let _silent = all.map(|ip| silent_port(at(ip)));
    let _nsd = serve(&mut engine, &server("h", 1, &all), 3);
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("9555", &sdp(caller.local(), "0"));
    engine.call_in("hunting");
    caller.cancel(&leg);
    assert_eq!(caller.refused(&leg).status(), Some(487));
    let cdr = engine.cdr("abandoned", 487, "caller");
    let [(_, cause)] = &attempts(&cdr)[..] else { panic!("one attempt: {cdr:#}") };
    assert_eq!(cause, "cancelled");
    engine.quiet();
}

#[test]
fn a_call_goes_by_the_connection_it_has_won_until_it_ends() {
    let mut engine = by_tcp(LONG);
    let [one, two, open] = addresses(&engine);
    let _silent = [silent_port(at(one)), silent_port(at(two))];
    let listener = TcpListener::bind(at(open)).expect("the port");
    let _nsd = serve(&mut engine, &server("h", 1, &[one, two, open]), 3);
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("9555", &sdp(caller.local(), "0"));
    let proxy = Ua::on_stream(accepted(&listener), "carrier");
    let invite = proxy.request("INVITE");
    proxy.answer(&invite, &sdp(proxy.local(), "0"));
    let mut leg = leg;
    caller.established(&mut leg);
    // ACK and BYE have found their way there; the trunk's next call does too.
    caller.hang_up(&mut leg);
    let bye = proxy.request("BYE");
    proxy.respond(&bye, "200 OK", "", "", "");
    engine.quiet();
    assert_eq!(attempts(&engine.cdr("normal", 200, "caller")), [attempt(open, "answered")]);
    a_call(&caller, &proxy, "9556");
}

#[test]
fn over_tls_an_address_that_takes_connections_and_no_handshake_loses_to_the_server() {
    let ca = Authority::new("ours");
    let keys = format!("transport = \"tls\"\n{LONG}\nmax_invite_retries = 7");
    let mut engine = tls::prepare(&ca, "", &settings(&keys));
    let [silent, deaf, ip] = addresses(&engine);
    let _silent = silent_port(at(silent));
    // Whoever connects here is taken and never answered.
    let _deaf = TcpListener::bind(at(deaf)).expect("the port");
    let own = ca.issue(engine.dir(), "carrier", &["carrier.test"]);
    let openssl = Openssl::server(&engine, at(ip), &own, &[]);
    let proxy = Ua::on_tls(openssl, at(ip), tls::address(&engine), "carrier");
    let _nsd = serve(&mut engine, &server("h", 1, &[silent, deaf, ip]), 3);
    let caller = Ua::new(&engine, "1001");
    let began = Instant::now();
    let leg = caller.call("9555", &sdp(caller.local(), "0"));
    let invite = proxy.request("INVITE");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(invite.header("Via").starts_with("SIP/2.0/TLS "), "{invite:?}");
    refuse(&proxy, &invite, "486 Busy Here");
    caller.refused(&leg);
    assert_eq!(attempts(&engine.wait_cdrs(1)[0]), [attempt(ip, "486")]);
    assert_eq!(failovers(&engine), 0.0);
}

#[test]
fn over_ipv6_an_address_without_a_way_leads_to_the_next() {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let ours = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("an address");
    let listen = format!(
        "[[listen]]\nname = \"udp\"\naddress = \"{{ip}}:5060\"\n\
         [[listen]]\nname = \"six\"\ntransport = \"tcp\"\naddress = \"{ours}\"\n"
    );
    let keys = format!("listen = \"six\"\ntransport = \"tcp\"\n{LONG}");
    let mut engine = Engine::prepare(&(listen + &settings(&keys)), &[("TANDEM__NODE__SHARDS", "1")]);
    // From the loopback address no packet leaves this machine: the kernel says so at once.
    let records = format!(
        "_sip._tcp.carrier SRV 1 0 {port} h\nh AAAA 100::1\nh AAAA 100::2\nh AAAA 100::3\nh AAAA ::1\n"
    );
    let _nsd = serve(&mut engine, &records, 4);
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("9555", &sdp(caller.local(), "0"));
    let proxy = Ua::on_stream(accepted(&listener), "carrier");
    let invite = proxy.request("INVITE");
    refuse(&proxy, &invite, "486 Busy Here");
    caller.refused(&leg);
    let cdr = engine.wait_cdrs(1).remove(0);
    assert_eq!(attempts(&cdr), [(format!("[::1]:{port}"), "486".to_owned())], "{cdr:#}");
}
