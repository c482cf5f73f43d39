//! Interoperation with Kamailio as the proxy in front: phones register and call through it, and so does a trunk.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::{SocketAddr, TcpListener};

use common::engine::stations;
use common::kamailio::Kamailio;
use common::stream::accepted;
use common::tls::{Authority, Openssl};
use common::ua::token;
use common::{Engine, Leg, Msg, Ua, eventually, sdp, so};

/// Two stations behind the proxy, and a trunk that leads to it and, where it fails, to a gateway beside it.
const TRUNK: &str = r#"
[node]
domains = ["{peer}"]

[[listen]]
name = "udp"
address = "{ip}:5060"
t1_ms = T1

[[listen]]
name = "STREAM"
transport = "STREAM"
address = "{ip}:5060"
t1_ms = T1
KEYS

[[trunk]]
name = "proxy"
listen = "TRANSPORT"
transport = "TRANSPORT"
proxies = ["{peer}:5070", "{peer}:5075"]
accept_from = ["{peer}/32"]
# As long as by UDP, also by TLS: the proxy may share its processor.
connect_timeout_ms = 3500
max_invite_retries = 6
redirect_to = ["{peer}/32"]

[[dial_plan.pattern]]
pattern = "9XXX"
target = "trunk:proxy"
"#;

/// How the proxy and the engine speak with each other.
const TRANSPORTS: [&str; 3] = ["udp", "tcp", "tls"];

/// What a listener of TLS has besides: both sides prove who they are.
const KEYS: &str = "certificate = \"{dir}/own.pem\"\nprivate_key = \"{dir}/own.key\"\nserver_ca = \"{dir}/ca.pem\"\n\
    client_ca = \"{dir}/ca.pem\"\nrequire_client_certificate = true";

/// An engine, two gateways and the proxy between them.
struct Site {
    engine: Engine,
    gateways: [Ua; 2],
    proxy: Kamailio,
    transport: &'static str,
    ca: Authority,
}

impl Site {
    #[track_caller]
    fn start(transport: &'static str) -> Site {
        Site::with_t1(transport, 500)
    }

    /// The same with this T1, in milliseconds: after 64 of them a proxy that says nothing is given up.
    #[track_caller]
    fn with_t1(transport: &'static str, t1_ms: u32) -> Site {
        let (stream, keys) = if transport == "tls" { ("tls", KEYS) } else { ("tcp", "") };
        let toml = TRUNK.replace("TRANSPORT", transport).replace("T1", &t1_ms.to_string());
        let toml = toml.replace("STREAM", stream).replace("KEYS", keys) + &stations(&["1001", "1002"]);
        let mut engine = Engine::prepare(&toml, &[]);
        let ca = Authority::new("of both");
        ca.write(engine.dir(), "ca.pem");
        for (name, ip) in [("own", engine.sip.ip()), ("kamailio", engine.peer().into())] {
            ca.issue(engine.dir(), name, &[&ip.to_string()]);
        }
        engine.restart();
        let mut gateways = ["9001", "9002"].map(|name| Ua::new(&engine, name));
        let proxy = Kamailio::start(&engine, transport, [&gateways[0], &gateways[1]]);
        gateways.iter_mut().for_each(|gateway| gateway.server = proxy.trunk);
        Site { engine, gateways, proxy, transport, ca }
    }

    /// A phone, registered through the proxy.
    #[track_caller]
    fn phone(&self, user: &str) -> Ua {
        let phone = self.proxy.phone(&self.engine, user);
        let answer = phone.register(&[], "Expires: 600\r\nSupported: path\r\n");
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        let transport = match self.transport {
            "udp" => String::new(),
            stream => format!(";transport={stream}"),
        };
        let path = format!("<sip:{}{transport};lr>", self.proxy.edge.ip());
        assert_eq!(answer.header("Path"), path, "{answer:?}");
        phone
    }
}

/// Checks what a request looks like that has come through the engine and the proxy.
#[track_caller]
fn assert_hops(request: &Msg, max_forwards: &str) {
    assert_eq!(request.headers("Via").len(), 2, "one of the engine, one of the proxy: {request:?}");
    assert_eq!(request.header("Max-Forwards"), max_forwards, "{request:?}");
    assert!(request.headers("Route").is_empty(), "the proxy has taken its own: {request:?}");
}

/// A call that both ends have: the caller's leg and the callee's.
#[track_caller]
fn connected(a: &Ua, b: &Ua, number: &str) -> (Leg, Leg) {
    let mut leg = a.call(number, &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    // One hop for each proxy on the way, and one for the engine.
    assert_hops(&invite, if a.server.ip() == b.server.ip() { "67" } else { "68" });
    let tag = token();
    b.respond(&invite, "180 Ringing", &tag, "", "");
    let ringing = a.response("INVITE", 180);
    assert_eq!(ringing.headers("Via").len(), 1, "{ringing:?}");
    b.respond(&invite, "200 OK", &tag, "", &sdp(b.local(), "0"));
    let answer = a.established(&mut leg);
    assert_eq!(answer.headers("Via").len(), 1, "{answer:?}");
    let ack = b.request("ACK");
    assert_hops(&ack, "69");
    let other = b.leg_of(&invite, &tag);
    for (ua, leg) in [(a, &leg), (b, &other)] {
        let behind_it = ua.server.ip() == ua.local().ip();
        assert_eq!(!leg.routes.is_empty(), behind_it, "the proxy stays in its dialogs: {:?}", leg.routes);
    }
    (leg, other)
}

/// A re-INVITE by `a` that `b` takes.
#[track_caller]
fn reinvite(a: &Ua, leg: &mut Leg, b: &Ua) {
    a.next(leg, "INVITE", "", &sdp(a.local(), "0").replace("o=- 1 1", "o=- 1 2"));
    let invite = b.request("INVITE");
    assert_eq!(invite.uri(), b.contact(), "to its contact: {invite:?}");
    b.respond(&invite, "200 OK", "", "", &sdp(b.local(), "0"));
    b.request("ACK");
    a.established(leg);
}

/// A BYE by `a` that `b` takes.
#[track_caller]
fn bye(a: &Ua, leg: &mut Leg, b: &Ua) {
    a.next(leg, "BYE", "", "");
    let bye = b.request("BYE");
    assert_hops(&bye, "69");
    b.respond(&bye, "200 OK", "", "", "");
    a.response("BYE", 200);
}

#[test]
fn phones_register_and_call_each_other_through_it() {
    for transport in TRANSPORTS {
        let site = Site::start(transport);
        let (a, b) = (site.phone("1001"), site.phone("1002"));
        let stations = site.engine.api("GET", "/api/v1/stations");
        let source = stations[0]["bindings"][0]["source"].as_str().unwrap().to_owned();
        assert!(source.starts_with(&format!("{}:", site.engine.peer())), "{stations:#}");

        let (mut leg, mut other) = connected(&a, &b, "1002");
        reinvite(&a, &mut leg, &b);
        reinvite(&b, &mut other, &a);
        bye(&a, &mut leg, &b);
        site.engine.wait_cdrs(1);
        let (mut leg, mut other) = connected(&b, &a, "1001");
        reinvite(&b, &mut leg, &a);
        bye(&a, &mut other, &b);
        let cdrs = site.engine.wait_cdrs(2);
        let ends: Vec<_> = cdrs.iter().map(|cdr| cdr["ended_by"].as_str().unwrap()).collect();
        assert_eq!(ends, ["caller", "callee"], "{cdrs:#?}");
        site.engine.quiet();
    }
}

#[test]
fn a_call_is_cancelled_and_refused_through_it() {
    for transport in TRANSPORTS {
        let site = Site::start(transport);
        let (a, b) = (site.phone("1001"), site.phone("1002"));
        let leg = a.call("1002", &sdp(a.local(), "0"));
        let invite = b.request("INVITE");
        b.respond(&invite, "180 Ringing", "bob", "", "");
        a.response("INVITE", 180);
        a.cancel(&leg);
        a.response("CANCEL", 200);
        let cancel = b.request("CANCEL");
        b.respond(&cancel, "200 OK", "bob", "", "");
        b.respond(&invite, "487 Request Terminated", "bob", "", "");
        b.request("ACK");
        assert_eq!(a.refused(&leg).status(), Some(487));
        // The proxy acknowledges the callee's refusal by itself: the engine may hear of it later.
        site.engine.wait_cdrs(1);

        let leg = a.call("1002", &sdp(a.local(), "0"));
        let invite = b.request("INVITE");
        b.respond(&invite, "486 Busy Here", "bob", "", "");
        b.request("ACK");
        assert_eq!(a.refused(&leg).status(), Some(486));
        let causes = site.engine.wait_cdrs(2);
        let causes: Vec<_> = causes.iter().map(|cdr| cdr["cause"].as_str().unwrap()).collect();
        assert_eq!(causes, ["abandoned", "busy"]);
        site.engine.quiet();
    }
}

#[test]
fn a_trunk_calls_both_ways_through_it() {
    for transport in TRANSPORTS {
        let site = Site::start(transport);
        let (a, gateway) = (site.phone("1001"), &site.gateways[0]);
        let (mut leg, mut other) = connected(&a, gateway, "9100");
        reinvite(&a, &mut leg, gateway);
        reinvite(gateway, &mut other, &a);
        bye(gateway, &mut other, &a);

        let mut leg = gateway.leg("1001");
        gateway.next(&mut leg, "INVITE", "", &sdp(gateway.local(), "0"));
        let invite = a.request("INVITE");
        assert_hops(&invite, "67");
        assert!(invite.header("From").contains("sip:9001@"), "{invite:?}");
        let mut other = a.answer(&invite, &sdp(a.local(), "0"));
        gateway.established(&mut leg);
        reinvite(&a, &mut other, gateway);
        reinvite(gateway, &mut leg, &a);
        bye(gateway, &mut leg, &a);
        site.engine.quiet();
    }
}

/// The forked INVITE, as each gateway has it.
#[track_caller]
fn forked(site: &Site, a: &Ua) -> (Leg, [Msg; 2]) {
    let leg = a.call("9200", &sdp(a.local(), "0"));
    let invites = [0, 1].map(|n| site.gateways[n].request("INVITE"));
    assert_eq!(invites[0].header("Call-ID"), invites[1].header("Call-ID"), "it was the proxy that forked");
    for (gateway, invite, tag) in
        [(&site.gateways[0], &invites[0], "one"), (&site.gateways[1], &invites[1], "two")]
    {
        gateway.respond(invite, "180 Ringing", tag, "", "");
    }
    a.response("INVITE", 180);
    (leg, invites)
}

#[test]
fn of_two_branches_that_ring_the_one_that_answers_has_the_call() {
    for transport in TRANSPORTS {
        let site = Site::start(transport);
        let a = site.phone("1001");
        let [one, two] = &site.gateways;
        let (mut leg, [first, second]) = forked(&site, &a);
        two.respond(&second, "200 OK", "two", "", &sdp(two.local(), "0"));
        a.established(&mut leg);
        two.request("ACK");
        let cancel = one.request("CANCEL");
        one.respond(&cancel, "200 OK", "one", "", "");
        one.respond(&first, "487 Request Terminated", "one", "", "");
        one.request("ACK");
        bye(&a, &mut leg, two);
        site.engine.cdr("normal", 200, "caller");
        site.engine.quiet();
    }
}

#[test]
fn of_two_branches_that_both_answer_one_is_kept_and_the_other_ended() {
    for transport in TRANSPORTS {
        let site = Site::start(transport);
        let a = site.phone("1001");
        let [one, two] = &site.gateways;
        let (mut leg, [first, second]) = forked(&site, &a);
        one.respond(&first, "200 OK", "one", "", &sdp(one.local(), "0"));
        a.established(&mut leg);
        one.request("ACK");
        // The CANCEL comes too late.
        let cancel = two.request("CANCEL");
        two.respond(&cancel, "200 OK", "two", "", "");
        two.respond(&second, "200 OK", "two", "", &sdp(two.local(), "0"));
        two.request("ACK");
        let ended = two.request("BYE");
        assert_eq!(ended.to_tag().as_deref(), Some("two"));
        two.respond(&ended, "200 OK", "", "", "");
        site.engine.call_in("up");
        bye(&a, &mut leg, one);
        site.engine.cdr("normal", 200, "caller");
        site.engine.quiet();
    }
}

#[test]
fn its_redirection_is_followed_through_it() {
    for transport in TRANSPORTS {
        let site = Site::start(transport);
        let (a, gateway) = (site.phone("1001"), &site.gateways[0]);
        let mut leg = a.call("9302", &sdp(a.local(), "0"));
        let invite = gateway.request("INVITE");
        assert!(invite.uri().starts_with("sip:9100@"), "{invite:?}");
        gateway.answer(&invite, &sdp(gateway.local(), "0"));
        a.established(&mut leg);
        bye(&a, &mut leg, gateway);
        site.engine.cdr("normal", 200, "caller");
        site.engine.quiet();
    }
}

/// The gateway beside the proxy, before it is called.
enum Beside {
    There(Box<Ua>),
    Listens(TcpListener),
}

impl Beside {
    #[track_caller]
    fn start(site: &Site, at: SocketAddr) -> Beside {
        let ip = at.ip().to_string();
        match site.transport {
            "udp" => Beside::There(Box::new(Ua::on(&site.engine, "9003", at))),
            "tcp" => Beside::Listens(TcpListener::bind(at).unwrap()),
            _ => {
                let own = site.ca.issue(site.engine.dir(), "beside", &[&ip]);
                let openssl = Openssl::server(&site.engine, at, &own, &[]);
                Beside::There(Box::new(Ua::on_tls(openssl, at, site.engine.sip, "9003")))
            }
        }
    }

    #[track_caller]
    fn called(self) -> Ua {
        match self {
            Beside::There(gateway) => *gateway,
            Beside::Listens(listener) => Ua::on_stream(accepted(&listener), "9003"),
        }
    }
}

#[test]
fn calls_go_on_to_the_next_gateway_once_it_has_crashed() {
    for transport in TRANSPORTS {
        let mut site = Site::with_t1(transport, 100);
        // The caller does not depend on the proxy.
        let a = Ua::new(&site.engine, "1001").registered();
        let beside = SocketAddr::from((site.engine.peer(), 5075));
        let next = Beside::start(&site, beside);
        let (mut leg, _) = connected(&a, &site.gateways[0], "9100");
        bye(&a, &mut leg, &site.gateways[0]);
        site.engine.wait_cdrs(1);
        site.proxy.kill();
        let mut leg = a.call("9100", &sdp(a.local(), "0"));
        let last = next.called();
        let invite = last.request("INVITE");
        assert_eq!(invite.uri(), format!("sip:9100@{beside}"));
        last.answer(&invite, &sdp(last.local(), "0"));
        a.established(&mut leg);
        a.next(&mut leg, "BYE", "", "");
        let bye = last.request("BYE");
        last.respond(&bye, "200 OK", "", "", "");
        a.response("BYE", 200);
        let cdr = site.engine.wait_cdrs(2).remove(1);
        assert_eq!(cdr["proxy"], beside.to_string(), "{cdr:#}");
        assert_eq!(cdr["attempts"].as_array().map(Vec::len), Some(2), "{cdr:#}");
        site.engine.quiet();
    }
}

#[test]
fn a_call_ends_for_both_when_it_has_crashed_in_the_middle() {
    for transport in TRANSPORTS {
        let mut site = Site::with_t1(transport, 100);
        let a = Ua::new(&site.engine, "1001").registered();
        let gateway = &site.gateways[0];
        let mut leg = a.call("9100", &sdp(a.local(), "0"));
        let invite = gateway.request("INVITE");
        gateway.answer(&invite, &sdp(gateway.local(), "0"));
        a.established(&mut leg);
        site.proxy.kill();
        a.next(&mut leg, "BYE", "", "");
        a.response("BYE", 200);
        site.engine.cdr("normal", 200, "caller");
        eventually("nothing is left", || so(site.engine.calls().is_empty()));
    }
}
