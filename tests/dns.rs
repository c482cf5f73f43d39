//! Trunks that are named, with NSD as the server that is asked (RFC 3263, RFC 2782, RFC 2308).

#![allow(clippy::unwrap_used, clippy::expect_used)]
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use common::engine::station;
use common::ua::token;
use common::{Engine, Msg, Nsd, SOON, Ua, eventually, sdp, so, within};
use serde_json::Value;

/// A phone, and a trunk that DNS must find. In capitals: what is particular.
const SITE: &str = r#"
[dns]
servers = SERVERS
timeout_ms = 500
attempts = 1

[[trunk]]
name = "carrier"
TRUNK

[[dial_plan.pattern]]
pattern = "9XXX"
target = "trunk:carrier"
"#;

/// An engine, the server it asks, and the proxies that may be found.
struct Site {
    engine: Engine,
    nsd: Nsd,
    proxies: Vec<Ua>,
    phone: Ua,
    /// A server that never answers, at port 5354.
    _silent: UdpSocket,
}

impl Site {
    /// `records` are given the ports of the proxies.
    #[track_caller]
    fn start(trunk: &str, records: impl Fn(&[u16]) -> String) -> Site {
        Site::with_servers("[\"{peer}:5353\"]", trunk, records)
    }

    #[track_caller]
    fn with_servers(servers: &str, trunk: &str, records: impl Fn(&[u16]) -> String) -> Site {
        let toml = SITE.replace("SERVERS", servers).replace("TRUNK", trunk) + &station("1001", "");
        let mut engine = Engine::prepare(&toml, &[]);
        let proxies: Vec<Ua> = (1..=3).map(|n| Ua::new(&engine, &format!("p{n}"))).collect();
        let ports: Vec<u16> = proxies.iter().map(|proxy| proxy.local().port()).collect();
        let nsd = Nsd::start(engine.dir(), engine.peer(), &records(&ports));
        let silent = UdpSocket::bind((engine.peer(), 5354)).expect("the port");
        engine.restart();
        let phone = Ua::new(&engine, "1001");
        Site { engine, nsd, proxies, phone, _silent: silent }
    }

    /// Serves other records.
    #[track_caller]
    fn serve(&mut self, records: impl Fn(&[u16]) -> String) {
        let ports: Vec<u16> = self.proxies.iter().map(|proxy| proxy.local().port()).collect();
        self.nsd.serve(&records(&ports));
    }

    /// Calls, and has each of these proxies in turn refuse the INVITE; gives the last of these. No other proxy may get one.
    #[track_caller]
    fn call(&self, refusals: &[(usize, &str)]) -> Msg {
        let leg = self.phone.call("9100", &sdp(self.phone.local(), "0"));
        let mut last = None;
        for (proxy, status) in refusals {
            let proxy = &self.proxies[*proxy];
            let invite = proxy.request("INVITE");
            proxy.respond(&invite, status, &token(), "", "");
            proxy.request("ACK");
            last = Some(invite);
        }
        self.phone.refused(&leg);
        last.expect("a refusal")
    }

    /// Calls without any proxy to go to; gives the status.
    #[track_caller]
    fn call_in_vain(&self) -> u16 {
        let leg = self.phone.call("9100", &sdp(self.phone.local(), "0"));
        self.phone.refused(&leg).status().expect("a status")
    }

    /// What is known of the trunk.
    #[track_caller]
    fn trunk(&self) -> Value {
        self.engine.api("GET", "/api/v1/trunks")[0].clone()
    }

    /// Waits until this is known of the first name.
    #[track_caller]
    fn becomes(&self, state: &str) {
        eventually(&format!("a name that is {state}"), || so(self.trunk()["names"][0]["state"] == state));
    }

    /// Waits until the first proxy is this one.
    #[track_caller]
    fn leads_to(&self, proxy: usize) {
        let address = self.proxies[proxy].local().to_string();
        eventually(&format!("a trunk that leads to {address}"), || {
            so(self.trunk()["proxies"][0]["address"] == *address)
        });
    }

    fn questions(&self, result: &str) -> f64 {
        self.engine.metric("tandem_dns_queries_total", &[("result", result)])
    }
}

/// One SRV record of "carrier.test" for each of these: its priority, weight and port.
fn srv(records: &[(u16, u16, u16)]) -> String {
    let line = |(priority, weight, port): &(u16, u16, u16)| {
        format!("_sip._udp.carrier 1 SRV {priority} {weight} {port} a\n")
    };
    records.iter().map(line).collect()
}

const BY_DOMAIN: &str = "domain = \"carrier.test\"";
const BUSY: &str = "486 Busy Here";
const DOWN: &str = "503 Service Unavailable";

#[test]
fn servers_are_tried_by_priority_with_requests_for_the_domain() {
    let site =
        Site::start(BY_DOMAIN, |ports| srv(&[(20, 0, ports[1]), (30, 0, ports[2]), (10, 0, ports[0])]));
    let invite = site.call(&[(0, DOWN), (1, DOWN), (2, BUSY)]);
    assert_eq!(invite.uri(), "sip:9100@carrier.test");
    assert!(invite.header("To").contains("sip:9100@carrier.test"), "{invite:?}");
    let cdr = site.engine.wait_cdrs(1).remove(0);
    let tried: Vec<&str> = cdr["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["proxy"].as_str().unwrap())
        .collect();
    let addresses: Vec<String> = site.proxies.iter().map(|proxy| proxy.local().to_string()).collect();
    assert_eq!(tried, addresses);
    let output = site.engine.command(&["trunks"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    for address in addresses {
        assert!(shown.contains(&format!("{address} (carrier.test)  up")), "{shown}");
    }
}

#[test]
fn calls_are_shared_among_servers_of_one_priority_by_their_weights() {
    let site =
        Site::start(BY_DOMAIN, |ports| srv(&[(1, 300, ports[0]), (1, 100, ports[1]), (2, 900, ports[2])]));
    let (mut counts, mut seen) = ([0, 0], Vec::new());
    for _ in 0..100 {
        let leg = site.phone.call("9100", &sdp(site.phone.local(), "0"));
        let (which, invite) = eventually("an INVITE", || {
            let got = |which: usize| {
                let message = site.proxies[which].receive(Duration::from_millis(20))?;
                // Of a slow test's last call it may have come again.
                let new = message.is("INVITE") && !seen.contains(&message.header("Call-ID").to_owned());
                new.then_some((which, message))
            };
            got(0).or_else(|| got(1))
        });
        seen.push(invite.header("Call-ID").to_owned());
        counts[which] += 1;
        site.proxies[which].respond(&invite, BUSY, &token(), "", "");
        site.phone.refused(&leg);
    }
    // Three to one; chance makes the second as frequent as the first once in ten million runs.
    assert!(counts[0] > counts[1] && counts[1] > 0, "{counts:?}");
}

/// NAPTR by which UDP is elsewhere than SRV alone would say.
fn naptr(ports: &[u16]) -> String {
    format!(
        "carrier NAPTR 10 10 \"s\" \"SIP+D2T\" \"\" _tcp.carrier\n\
         carrier NAPTR 20 10 \"s\" \"SIP+D2U\" \"\" _edge.carrier\n\
         _tcp.carrier SRV 1 0 {} a\n_edge.carrier SRV 1 0 {} a\n_sip._udp.carrier SRV 1 0 {} a\n",
        ports[2], ports[1], ports[0]
    )
}

#[test]
fn naptr_says_where_the_transport_of_the_trunk_is() {
    let site = Site::start(BY_DOMAIN, naptr);
    site.call(&[(1, BUSY)]);
}

#[test]
fn a_trunk_that_names_its_transport_does_not_ask_for_naptr() {
    let site = Site::start("transport = \"udp\"\ndomain = \"carrier.test\"", naptr);
    site.call(&[(0, BUSY)]);
}

#[test]
fn a_name_with_a_port_stands_for_its_addresses_beside_proxies_without_dns() {
    let toml = "proxies = [\"a.test:5070\", \"{peer}:5075\"]";
    let mut site = Site::start(toml, |ports| format!("_sip._udp.a SRV 1 0 {} a\n", ports[2]));
    let at = |port: u16| SocketAddr::from((site.engine.peer(), port));
    let found = [at(5070), at(5075)].map(|address| Ua::on(&site.engine, "gateway", address));
    let [first, second] = found;
    site.proxies = vec![first, second];
    site.phone.call("9100", &sdp(site.phone.local(), "0"));
    let invite = site.proxies[0].request("INVITE");
    assert_eq!(invite.uri(), "sip:9100@a.test:5070");
    site.proxies[0].respond(&invite, DOWN, &token(), "", "");
    let invite = site.proxies[1].request("INVITE");
    assert_eq!(invite.uri(), format!("sip:9100@{}", site.proxies[1].local()));
    site.proxies[1].respond(&invite, BUSY, &token(), "", "");
}

#[test]
fn a_call_from_an_address_that_was_found_is_the_trunks() {
    let site = Site::start(BY_DOMAIN, |ports| srv(&[(1, 0, ports[0])]));
    let stranger = &site.proxies[1];
    let from_proxy = &site.proxies[0];
    let leg = stranger.leg("1001");
    stranger.next(&mut leg.clone(), "INVITE", "", &sdp(stranger.local(), "0"));
    assert_eq!(stranger.refused(&leg).status(), Some(401), "who is not a proxy is a stranger");
    let leg = from_proxy.leg("1001");
    from_proxy.next(&mut leg.clone(), "INVITE", "", &sdp(from_proxy.local(), "0"));
    assert_ne!(from_proxy.refused(&leg).status(), Some(401), "the phone is not registered");
}

#[test]
fn a_changed_record_is_followed_when_its_time_to_live_has_ended() {
    let mut site = Site::start(BY_DOMAIN, |ports| srv(&[(1, 0, ports[0])]));
    site.call(&[(0, BUSY)]);
    site.serve(|ports| srv(&[(1, 0, ports[1])]));
    site.leads_to(1);
    site.call(&[(1, BUSY)]);
    let gone = site.proxies[0].local().to_string();
    assert!(!site.trunk().to_string().contains(&gone), "{}", site.trunk());
}

#[test]
fn a_dead_resolver_leaves_the_last_answer_in_use_and_is_told() {
    let mut site = Site::start(BY_DOMAIN, |ports| srv(&[(1, 0, ports[0])]));
    site.leads_to(0);
    site.nsd.kill();
    site.becomes("stale");
    site.call(&[(0, BUSY)]);
    site.engine.reaches("tandem_dns_stale_used_total", &[], 1.0);
    assert_eq!(site.engine.metric("tandem_dns_targets", &[("state", "stale")]), 1.0);
    let server = site.nsd.address().to_string();
    let why = site.trunk()["names"][0]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("_sip._udp.carrier.test SRV") && why.contains(&server), "{why}");
    assert!(site.engine.log().contains("no DNS server answers; calls go on by the last answer"));
    eventually("an event", || {
        let events = site.engine.api("GET", "/api/v1/events");
        let told = |event: &Value| event["reason"] == "dns: stale" && event["data"]["trunk"] == "carrier";
        so(events.as_array().unwrap().iter().any(told))
    });
    site.serve(|ports| srv(&[(1, 0, ports[1])]));
    site.leads_to(1);
    assert_eq!(site.trunk()["names"][0]["state"], "fresh");
    site.call(&[(1, BUSY)]);
}

#[test]
fn a_name_that_does_not_exist_is_asked_for_as_rarely_as_its_zone_says() {
    let mut site = Site::start(BY_DOMAIN, |_| String::new());
    site.becomes("absent");
    assert_eq!(site.call_in_vain(), 503);
    let asked = site.questions("absent");
    let begun = Instant::now();
    let rounds = (asked / 3.0).ceil() + 2.0;
    while begun.elapsed() < Duration::from_secs(1) {
        site.call_in_vain();
    }
    // NAPTR, SRV and A, each absent for the two seconds that the SOA says.
    within(SOON * 2, "two more rounds", || so(site.questions("absent") >= rounds * 3.0));
    assert!(begun.elapsed() > Duration::from_millis(2_500), "{:?}", begun.elapsed());
    site.serve(|ports| srv(&[(1, 0, ports[0])]));
    site.leads_to(0);
    site.call(&[(0, BUSY)]);
}

#[test]
fn a_server_that_is_silent_is_passed_over_and_no_longer_asked_first() {
    let site =
        Site::with_servers("[\"{peer}:5354\", \"{peer}:5353\"]", BY_DOMAIN, |ports| srv(&[(1, 0, ports[0])]));
    site.leads_to(0);
    site.call(&[(0, BUSY)]);
    let silent = SocketAddr::from((site.engine.peer(), 5354)).to_string();
    let failed =
        || site.engine.metric("tandem_dns_queries_total", &[("server", &silent), ("result", "failed")]);
    let before = failed();
    assert!(before >= 1.0);
    let answered = site.questions("answered");
    site.engine.reaches("tandem_dns_queries_total", &[("result", "answered")], answered + 2.0);
    assert_eq!(failed(), before);
}

#[test]
fn a_start_without_any_dns_server_takes_calls_and_finds_the_trunk_later() {
    // Nothing of before is used either.
    let servers = "[\"{peer}:5353\"]\nmax_stale_s = 0";
    let mut site = Site::with_servers(servers, BY_DOMAIN, |ports| srv(&[(1, 0, ports[0])]));
    site.nsd.kill();
    let took = site.engine.restart();
    assert!(took < SOON, "{took:?}");
    site.becomes("unreachable");
    assert_eq!(site.call_in_vain(), 503);
    site.serve(|ports| srv(&[(1, 0, ports[0])]));
    site.leads_to(0);
    site.call(&[(0, BUSY)]);
}

#[test]
fn a_start_without_any_dns_server_goes_on_with_what_was_found_before() {
    let mut site = Site::start(BY_DOMAIN, |ports| srv(&[(1, 0, ports[0])]));
    // Two rounds lie longer apart than a commit takes.
    site.engine.reaches("tandem_dns_queries_total", &[("result", "answered")], 4.0);
    site.nsd.kill();
    site.engine.kill9();
    site.engine.restart();
    site.becomes("stale");
    site.call(&[(0, BUSY)]);
    site.serve(|ports| srv(&[(1, 0, ports[1])]));
    site.leads_to(1);
    site.becomes("fresh");
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_by_tcp() {
    let many = |ports: &[u16]| {
        let others: Vec<_> = (0..100).map(|n| (2, 0, 40_000 + n)).chain([(1, 0, ports[0])]).collect();
        srv(&others)
    };
    let site = Site::start(BY_DOMAIN, many);
    site.call(&[(0, BUSY)]);
    assert_eq!(site.trunk()["proxies"].as_array().unwrap().len(), 32, "no more than that many are looked at");
}

#[test]
fn by_tcp_a_server_that_refuses_is_left_for_the_next() {
    let toml = r#"
[[listen]]
name = "tcp"
transport = "tcp"
address = "{ip}:5060"

[[listen]]
name = "udp"
address = "{ip}:5060"

[[trunk]]
name = "tcp"
transport = "tcp"
domain = "carrier.test"

[[dial_plan.pattern]]
pattern = "8XXX"
target = "trunk:tcp"
"#;
    let toml = SITE
        .replace("SERVERS", "[\"{peer}:5353\"]")
        .replace("TRUNK", "listen = \"udp\"\nproxies = [\"{peer}\"]")
        + toml
        + &station("1001", "");
    let mut engine = Engine::prepare(&toml, &[]);
    let gateway = TcpListener::bind((engine.peer(), 0)).unwrap();
    let closed = TcpListener::bind((engine.peer(), 0)).unwrap().local_addr().unwrap().port();
    let open = gateway.local_addr().unwrap().port();
    let records = format!("_sip._tcp.carrier SRV 1 0 {closed} a\n_sip._tcp.carrier SRV 2 0 {open} a\n");
    let _nsd = Nsd::start(engine.dir(), engine.peer(), &records);
    engine.restart();
    let phone = Ua::new(&engine, "1001");
    let leg = phone.call("8100", &sdp(phone.local(), "0"));
    let gateway = Ua::on_stream(gateway.accept().unwrap().0, "gateway");
    let invite = gateway.request("INVITE");
    assert_eq!(invite.uri(), "sip:8100@carrier.test");
    gateway.respond(&invite, BUSY, &token(), "", "");
    assert_eq!(phone.refused(&leg).status(), Some(486));
    assert!(
        engine.metric("tandem_trunk_failovers_total", &[("trunk", "tcp"), ("cause", "transport")]) >= 1.0
    );
}

#[test]
fn a_reload_has_names_found_for_what_it_adds_and_keeps_those_that_were() {
    let site = Site::start(BY_DOMAIN, |ports| {
        srv(&[(10, 0, ports[0])]) + &format!("_sip._udp.other 1 SRV 1 0 {} a\n", ports[1])
    });
    site.call(&[(0, BUSY)]);
    let keys = format!("{BY_DOMAIN}\nmax_calls = 9");
    let toml = SITE.replace("SERVERS", "[\"{peer}:5353\"]").replace("TRUNK", &keys) + &station("1001", "");
    let added = "[[trunk]]\nname = \"other\"\ndomain = \"other.test\"\n\
                 [[dial_plan.pattern]]\npattern = \"8XXX\"\ntarget = \"trunk:other\"\n";
    site.engine.settle(&(toml + added));
    let answer = site.engine.ask("POST", "/api/v1/reload", "{}");
    assert_eq!((answer.status, answer.json()["result"].as_str()), (200, Some("applied")), "{answer:?}");
    // At once: what was found of it before is still so.
    site.call(&[(0, BUSY)]);
    eventually("the name of the new trunk", || {
        let trunks = site.engine.api("GET", "/api/v1/trunks");
        so(trunks[1]["proxies"][0]["address"] == *site.proxies[1].local().to_string())
    });
    let leg = site.phone.call("8100", &sdp(site.phone.local(), "0"));
    let invite = site.proxies[1].request("INVITE");
    site.proxies[1].respond(&invite, BUSY, &token(), "", "");
    site.phone.refused(&leg);
}
