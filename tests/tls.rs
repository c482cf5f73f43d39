//! SIP over TLS as seen on the wire: RFC 3261 §26.2, RFC 5922, RFC 5630. The other end is OpenSSL.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;

use common::calls::a_call;
use common::engine::stations;
use common::stream::until_closed;
use common::tls::{Authority, Files, Openssl, Purpose, address, engine, engine_of_one_shard, prepare};
use common::{Engine, Nsd, Ua, eventually, sdp, so};

/// A phone on TLS that knows the authority of the engine's certificate.
fn phone(engine: &Engine, user: &str, port: u16) -> Ua {
    let ca = engine.dir().join("ca.pem").display().to_string();
    let openssl = Openssl::client(
        engine,
        &["-CAfile", &ca, "-verify_return_error", "-verify_hostname", "tandem.example"],
    );
    let local = SocketAddr::from((engine.peer(), port));
    Ua::on_tls(openssl, local, address(engine), user)
}

/// Handshakes of one side that have come to this.
fn handshakes(engine: &Engine, side: &str, result: &str) -> f64 {
    engine.metric("tandem_tls_handshakes_total", &[("side", side), ("result", result)])
}

#[test]
fn stations_on_tls_and_udp_call_each_other() {
    let engine = engine(&Authority::new("ours"), "", &stations(&["1001", "1002"]));
    let (a, b) = (phone(&engine, "1001", 5081).registered(), Ua::new(&engine, "1002").registered());
    let invite = a_call(&a, &b, "1002");
    assert!(invite.header("Via").starts_with("SIP/2.0/UDP "), "{invite:?}");
    let invite = a_call(&b, &a, "1001");
    assert!(invite.header("Via").starts_with("SIP/2.0/TLS "), "{invite:?}");
    assert!(invite.contact().ends_with(":5061;transport=tls"), "{invite:?}");
    assert_eq!(handshakes(&engine, "accepted", "ok"), 1.0);
    assert_eq!(engine.metric("tandem_sip_connections_active", &[("transport", "tls")]), 1.0);
    engine.quiet();
}

/// A phone on TLS with a certificate.
fn phone_with(engine: &Engine, own: &Files, user: &str, port: u16) -> Ua {
    let openssl = Openssl::client_with(engine, own, &[]);
    Ua::on_tls(openssl, SocketAddr::from((engine.peer(), port)), address(engine), user)
}

/// A trunk's server may share its processor.
const PATIENT: &str = "connect_timeout_ms = 20000\nmax_invite_retries = 7\n";

/// Numbers that begin with 9 leave by a trunk whose proxy is `proxy`.
fn trunk(name: &str, proxy: &str, more: &str) -> String {
    format!(
        "[[trunk]]\nname = \"{name}\"\ntransport = \"tls\"\nproxies = [\"{proxy}\"]\n{PATIENT}{more}\n\
         [[dial_plan.pattern]]\npattern = \"9.X!\"\ntarget = \"trunk:{name}\"\n"
    )
}

/// A server of TLS at the peer's address, and what it is told there.
fn server(engine: &Engine, port: u16, own: &Files, arguments: &[&str]) -> Ua {
    let at = SocketAddr::from((engine.peer(), port));
    Ua::on_tls(Openssl::server(engine, at, own, arguments), at, address(engine), "carrier")
}

#[test]
fn a_trunk_is_called_at_the_address_or_name_that_its_certificate_proves() {
    let ca = Authority::new("ours");
    let named =
        trunk("name", "{peer}:5072", "certificate_names = [\"carrier.example\"]").replace("9.X!", "8.X!");
    let trunks = trunk("address", "{peer}:5071", "") + &named;
    let engine = engine_of_one_shard(&ca, "", &(trunks + &stations(&["1001"])));
    let ip = engine.peer().to_string();
    let address = ca.issue(engine.dir(), "address", &[&ip]);
    // The engine shows its own certificate to a server that asks.
    let authority = engine.dir().join("ca.pem").display().to_string();
    let asks = ["-CAfile", &authority, "-Verify", "1", "-verify_return_error"];
    let address = server(&engine, 5071, &address, &asks);
    let name = ca.issue_until(
        engine.dir(),
        "name",
        &["sip:Carrier.example", "other.example"],
        2060,
        Purpose::Server,
    );
    let name = server(&engine, 5072, &name, &["-tls1_2"]);
    let a = Ua::new(&engine, "1001").registered();
    for (number, carrier) in [("9555", &address), ("8555", &name)] {
        let invite = a_call(&a, carrier, number);
        assert!(invite.header("Via").starts_with("SIP/2.0/TLS "), "{invite:?}");
        assert!(invite.header("Via").contains(";alias"), "{invite:?}");
        assert!(invite.first_line().starts_with("INVITE sip:555@"), "{invite:?}");
        // And again by the same connection.
        a_call(&a, carrier, number);
    }
    assert_eq!(handshakes(&engine, "opened", "ok"), 2.0);
    engine.quiet();
}

#[test]
fn a_trunk_that_is_a_domain_is_proved_by_that_domain_and_not_by_what_srv_makes_of_it() {
    let ca = Authority::new("ours");
    let of = |name: &str| {
        format!(
            "[[trunk]]\nname = \"{name}\"\ntransport = \"tls\"\ndomain = \"{name}.test\"\n{PATIENT}\
             [[dial_plan.pattern]]\npattern = \"{}.X!\"\ntarget = \"trunk:{name}\"\n",
            if name == "carrier" { 9 } else { 8 }
        )
    };
    let dns = "[dns]\nservers = [\"{peer}:5353\"]\n";
    let mut engine = prepare(&ca, "", &[dns, &of("carrier"), &of("other"), &stations(&["1001"])].concat());
    let (dir, ip) = (engine.dir(), engine.peer());
    let records = "_sips._tcp.carrier SRV 1 0 5071 a\n_sips._tcp.other SRV 1 0 5072 a\n";
    let _nsd = Nsd::start(dir, ip, records);
    let (right, target) = (ca.issue(dir, "right", &["carrier.test"]), ca.issue(dir, "target", &["a.test"]));
    // It has the right certificate only for who asks for the domain (SNI).
    let (cert2, key2) = (right.certificate.display().to_string(), right.key.display().to_string());
    let by_name = ["-servername", "carrier.test", "-cert2", &cert2, "-key2", &key2, "-servername_fatal"];
    let carrier = server(&engine, 5071, &target, &by_name);
    let _other = server(&engine, 5072, &target, &[]);
    engine.restart();
    let a = Ua::new(&engine, "1001").registered();
    let invite = a_call(&a, &carrier, "9555");
    assert!(invite.first_line().starts_with("INVITE sip:555@carrier.test"), "{invite:?}");
    let leg = a.call("8555", &sdp(a.local(), "0"));
    assert_eq!(a.refused(&leg).status(), Some(503));
    engine.counts("tandem_tls_handshakes_total", &[("side", "opened"), ("result", "wrong_name")], 1.0);
    engine.quiet();
}

/// A device's flow over TLS (RFC 5626).
fn registered_flow(phone: &Ua, reg_id: u32) {
    let contact = format!("<{}>;reg-id={reg_id};+sip.instance=\"<urn:uuid:1>\"", phone.contact());
    let answer = phone.register(&[&contact], "Supported: outbound, path\r\nExpires: 600\r\n");
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    assert!(answer.headers("Require").contains(&"outbound"), "{answer:?}");
}

#[test]
fn a_flow_over_tls_ends_with_its_connection_and_its_pings_are_answered() {
    let engine = engine(&Authority::new("ours"), "", &stations(&["1001", "1002"]));
    let (first, second) = (phone(&engine, "1001", 5081), phone(&engine, "1001", 5082));
    registered_flow(&first, 1);
    registered_flow(&second, 2);
    first.send("\r\n\r\n");
    let mut pong = [0; 2];
    first.openssl().pipe().read_exact(&mut pong).expect("a pong");
    assert_eq!(&pong, b"\r\n");
    let b = Ua::new(&engine, "1002").registered();
    // The flow that was registered last is called; when it fails, the other.
    drop(second);
    let bindings = || engine.api("GET", "/api/v1/stations")[0]["bindings"].as_array().map(Vec::len);
    eventually("the end of the flow", || so(bindings() == Some(1)));
    a_call(&b, &first, "1001");
    engine.quiet();
}

#[test]
fn a_server_that_refuses_our_certificate_is_told_of_in_the_log() {
    let ca = Authority::new("ours");
    let more = trunk("carrier", "{peer}:5071", "") + &stations(&["1001"]);
    let engine = engine(&ca, "", &more);
    let own = ca.issue(engine.dir(), "carrier", &[&engine.peer().to_string()]);
    let other = Authority::new("other").write(engine.dir(), "other.pem").display().to_string();
    let _server = server(&engine, 5071, &own, &["-CAfile", &other, "-Verify", "1", "-verify_return_error"]);
    let a = Ua::new(&engine, "1001").registered();
    let leg = a.call("9555", &sdp(a.local(), "0"));
    assert_eq!(a.refused(&leg).status(), Some(503));
    eventually("a line", || so(engine.log().contains("is it our certificate?")));
}

#[test]
fn a_server_that_does_not_prove_who_it_is_gets_no_call() {
    let ca = Authority::new("ours");
    let names = ["expired", "stranger", "other", "wildcard"];
    let trunks = names.iter().enumerate().map(|(n, name)| {
        let names = if *name == "wildcard" { "certificate_names = [\"a.carrier.example\"]\n" } else { "" };
        format!(
            "[[trunk]]\nname = \"{name}\"\ntransport = \"tls\"\nproxies = [\"{{peer}}:{}\"]\n{PATIENT}{names}\
             [[dial_plan.pattern]]\npattern = \"9{n}X!\"\ntarget = \"trunk:{name}\"\n",
            5071 + n
        )
    });
    let engine = engine(&ca, "", &(trunks.collect::<String>() + &stations(&["1001"])));
    let (dir, ip) = (engine.dir(), engine.peer().to_string());
    let certificates = [
        ca.issue_until(dir, "expired", &[&ip], 2021, Purpose::Any),
        Authority::new("strange").issue(dir, "stranger", &[&ip]),
        ca.issue(dir, "other", &["127.0.0.9", "carrier.example"]),
        ca.issue(dir, "wildcard", &["*.carrier.example"]),
    ];
    let a = Ua::new(&engine, "1001").registered();
    for (n, (own, why)) in
        certificates.iter().zip(["expired", "unknown_authority", "wrong_name", "wrong_name"]).enumerate()
    {
        let at = SocketAddr::from((engine.peer(), 5071 + n as u16));
        let _server = Openssl::server(&engine, at, own, &[]);
        let before = handshakes(&engine, "opened", why);
        let leg = a.call(&format!("9{n}55"), &sdp(a.local(), "0"));
        assert_eq!(a.refused(&leg).status(), Some(503), "{why}");
        assert_eq!(handshakes(&engine, "opened", why), before + 1.0, "{why}");
        let cdr = engine.wait_cdrs(n + 1).remove(n);
        assert_eq!(cdr["attempts"][0]["cause"], "transport", "{cdr:#}");
    }
    let log = engine.log();
    for told in ["server_ca", "certificate_names", "is our clock wrong?", "a.carrier.example"] {
        assert!(log.contains(told), "{told}");
    }
    engine.quiet();
}

#[test]
fn a_client_must_prove_who_it_is_if_the_listener_wants_so() {
    let (ca, clients) = (Authority::new("ours"), Authority::new("of clients"));
    let keys = "client_ca = \"{dir}/clients.pem\"\nrequire_client_certificate = true\n";
    let mut engine = prepare(&ca, keys, &stations(&["1001"]));
    clients.write(engine.dir(), "clients.pem");
    engine.restart();
    let dir = engine.dir();
    let expired = clients.issue_until(dir, "expired", &["phone.example"], 2021, Purpose::Any);
    let stranger = ca.issue(dir, "stranger", &["phone.example"]);
    let refused = |mut client: Openssl, why: &str| {
        assert!(!client.ended().success(), "{why}");
        engine.counts("tandem_tls_handshakes_total", &[("side", "accepted"), ("result", why)], 1.0);
    };
    refused(Openssl::client(&engine, &["-tls1_2"]), "no_certificate");
    refused(Openssl::client_with(&engine, &expired, &[]), "expired");
    refused(Openssl::client_with(&engine, &stranger, &[]), "unknown_authority");
    let good = clients.issue_until(dir, "good", &["phone.example"], 2060, Purpose::Server);
    phone_with(&engine, &good, "1001", 5081).registered().ping();
}

#[test]
fn a_client_whose_certificate_names_a_trunk_is_that_trunk_and_others_are_strangers() {
    let ca = Authority::new("ours");
    let more =
        trunk("carrier", "{peer}:5071", "certificate_names = [\"carrier.example\"]") + &stations(&["1001"]);
    let engine = engine(&ca, "client_ca = \"{dir}/ca.pem\"\n", &more);
    let b = Ua::new(&engine, "1001").registered();
    let own = ca.issue(engine.dir(), "carrier", &["sip:carrier.example"]);
    // Whatever it says of itself: its certificate counts.
    let carrier = phone_with(&engine, &own, "1001", 5081);
    let mut leg = carrier.leg("1001");
    carrier.next(&mut leg, "INVITE", "", &sdp(carrier.local(), "0"));
    let invite = b.request("INVITE");
    b.answer(&invite, &sdp(b.local(), "0"));
    carrier.established(&mut leg);
    carrier.next(&mut leg, "BYE", "", "");
    b.respond(&b.request("BYE"), "200 OK", "", "", "");
    carrier.response("BYE", 200);
    assert_eq!(engine.wait_cdrs(1)[0]["cause"], "normal");
    let another = ca.issue(engine.dir(), "another", &["sip:another.example", "carrier.example"]);
    for stranger in [phone_with(&engine, &another, "x", 5082), phone(&engine, "x", 5083)] {
        let mut leg = stranger.leg("1001");
        stranger.next(&mut leg, "INVITE", "", &sdp(stranger.local(), "0"));
        assert_eq!(stranger.refused(&leg).status(), Some(401));
    }
    engine.quiet();
}

#[test]
fn a_server_that_has_connected_is_called_by_its_own_connection() {
    let ca = Authority::new("ours");
    let more =
        trunk("carrier", "{peer}:5071", "certificate_names = [\"carrier.example\"]") + &stations(&["1001"]);
    let engine = engine(&ca, "client_ca = \"{dir}/ca.pem\"\n", &more);
    let own = ca.issue(engine.dir(), "carrier", &["sip:carrier.example"]);
    // Nobody listens at 5071: the connection is the only way.
    let carrier = phone_with(&engine, &own, "carrier", 5071);
    let ip = engine.sip.ip();
    carrier.send(format!(
        "OPTIONS sip:{ip} SIP/2.0\r\nVia: SIP/2.0/TLS {};branch=z9hG4bKalias;alias\r\nFrom: <sip:x@{ip}>;tag=1\r\n\
         To: <sip:{ip}>\r\nCall-ID: alias\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        carrier.local()
    ));
    carrier.response("OPTIONS", 200);
    let a = Ua::new(&engine, "1001").registered();
    a_call(&a, &carrier, "9555");
    drop(carrier);
    let leg = a.call("9555", &sdp(a.local(), "0"));
    assert_eq!(a.refused(&leg).status(), Some(503), "its connection has ended");
    engine.quiet();
}

#[test]
fn a_call_for_a_sips_uri_goes_by_tls_or_not_at_all() {
    let more = "[[trunk]]\nname = \"plain\"\nproxies = [\"{peer}:5072\"]\n\
                [[dial_plan.pattern]]\npattern = \"9.X!\"\ntarget = \"trunk:plain\"\n";
    let engine = engine(&Authority::new("ours"), "", &(stations(&["1001", "1002", "1003"]) + more));
    let a = phone(&engine, "1001", 5081).registered();
    let secure = phone(&engine, "1002", 5082).registered();
    let plain = Ua::new(&engine, "1003").registered();
    let call = |number: &str| {
        let mut leg = a.leg(number);
        leg.target = leg.target.replacen("sip:", "sips:", 1);
        a.call_as(leg, &sdp(a.local(), "0"))
    };
    for number in ["1003", "9555"] {
        let leg = call(number);
        let refusal = a.refused(&leg);
        assert_eq!(refusal.status(), Some(480), "{number}: {refusal:?}");
        assert!(refusal.header("Warning").starts_with("380 "), "{refusal:?}");
    }
    engine.counts("tandem_invites_refused_total", &[("reason", "insecure")], 2.0);
    let mut leg = call("1002");
    let invite = secure.request("INVITE");
    assert!(invite.header("Via").starts_with("SIP/2.0/TLS "), "{invite:?}");
    secure.answer(&invite, &sdp(secure.local(), "0"));
    let answer = a.established(&mut leg);
    assert!(answer.contact().starts_with("sips:"), "{answer:?}");
    a.next(&mut leg, "BYE", "", "");
    secure.respond(&secure.request("BYE"), "200 OK", "", "", "");
    a.response("BYE", 200);

    // Who has registered a sips Contact is called by it, and then ours is one too.
    let contact = format!("<sips:1002@{}>", secure.local());
    assert_eq!(secure.register(&[&contact], "Expires: 600\r\n").status(), Some(200));
    secure.register(&[&format!("<{}>;expires=0", secure.contact())], "");
    let leg = plain.call("1002", &sdp(plain.local(), "0"));
    let invite = secure.request("INVITE");
    assert_eq!(
        (invite.uri(), &invite.contact()[..5]),
        (&contact[1..contact.len() - 1], "sips:"),
        "{invite:?}"
    );
    secure.respond(&invite, "486 Busy Here", "busy", "", "");
    secure.request("ACK");
    plain.refused(&leg);

    // By UDP its promise is broken before it is here.
    let mut leg = plain.leg("1002");
    leg.target = leg.target.replacen("sip:", "sips:", 1);
    let leg = plain.call_as(leg, &sdp(plain.local(), "0"));
    assert_eq!(plain.refused(&leg).status(), Some(416));
    let contact = format!("<sips:1003@{}>", plain.local());
    assert_eq!(plain.register(&[&contact], "").status(), Some(400));
    engine.quiet();
}

#[test]
fn certificates_are_read_again_and_connections_stay() {
    let ca = Authority::new("ours");
    let engine = engine(&ca, "", &stations(&["1001"]));
    let dir = engine.dir();
    let before = phone(&engine, "1001", 5081).registered();
    let not_after =
        || engine.metric("tandem_tls_certificate_not_after_timestamp_seconds", &[("listener", "tls")]);
    assert_eq!(not_after(), 2_840_140_800.0);
    let reloads = |result| engine.metric("tandem_tls_reloads_total", &[("result", result)]);

    // A key of another certificate: the old stays in use.
    ca.issue(dir, "next", &["tandem.example"]);
    std::fs::copy(dir.join("next.key"), dir.join("own.key")).expect("copied");
    engine.signal("HUP");
    eventually("a complaint", || so(reloads("failed") >= 1.0));
    assert!(engine.log().contains("own.key: is not the key of the certificate in"), "{}", engine.log());
    phone(&engine, "1001", 5082).ping();

    // Without a signal the files are looked at.
    ca.issue_until(dir, "own", &["tandem.example", "next.example"], 2061, Purpose::Any);
    eventually("the new certificate", || so(reloads("ok") >= 1.0));
    assert_eq!(not_after(), 2_871_763_200.0);
    let authority = dir.join("ca.pem").display().to_string();
    let checks = ["-CAfile", &authority, "-verify_return_error", "-verify_hostname", "next.example"];
    let after = Openssl::client(&engine, &checks);
    Ua::on_tls(after, SocketAddr::from((engine.peer(), 5083)), address(&engine), "1001").ping();
    before.ping();
    engine.signal("HUP");
    eventually("it was read again", || so(reloads("ok") >= 2.0));
    before.ping();
    assert_eq!(
        engine.metric("tandem_sip_connections_closed_total", &[("transport", "tls"), ("cause", "broken")]),
        0.0
    );
}

#[test]
fn who_is_slow_or_speaks_no_tls_is_cut_off_and_holds_nobody_up() {
    let ca = Authority::new("ours");
    let engine = engine(&ca, "handshake_timeout_ms = 3000\nmax_handshakes = 2\n", &stations(&["1001"]));
    let at = address(&engine);
    let a = phone(&engine, "1001", 5081).registered();
    let plain = TcpStream::connect(at).expect("a connection");
    (&plain).write_all(b"OPTIONS sip:a SIP/2.0\r\n\r\n").expect("sent");
    until_closed(&plain);
    engine.counts("tandem_tls_handshakes_total", &[("side", "accepted"), ("result", "not_tls")], 1.0);

    let silent = TcpStream::connect(at).expect("a connection");
    let slow = TcpStream::connect(at).expect("a connection");
    // The beginning of a ClientHello.
    (&slow).write_all(&[22, 3, 1, 2, 0, 1]).expect("sent");
    eventually("both to be waited for", || {
        until_closed(&TcpStream::connect(at).expect("a connection"));
        so(handshakes(&engine, "accepted", "limit") >= 1.0)
    });
    a.ping();
    for stream in [&silent, &slow] {
        assert!(until_closed(stream).len() < 100, "nothing but an alert");
    }
    eventually("two that took too long", || so(handshakes(&engine, "accepted", "timeout") >= 2.0));
    phone(&engine, "1001", 5082).ping();
}

#[test]
fn a_certificate_that_peers_will_refuse_is_told_by_check() {
    let ca = Authority::new("ours");
    let engine = prepare(&ca, "", "");
    let dir = engine.dir();
    let check = || {
        let Output { status, stdout, stderr } = engine.command(&["check"]).output().expect("the program");
        let said = [stdout, stderr].concat();
        (status.success(), String::from_utf8(said).expect("UTF-8"))
    };
    assert!(check().0, "{}", check().1);
    let told = |expected: &[&str]| {
        let (well, said) = check();
        assert!(!well && expected.iter().all(|text| said.contains(text)), "{said}");
    };
    ca.issue_until(dir, "own", &["tandem.example"], 2021, Purpose::Any);
    told(&["listen[1].certificate: ", "own.pem: has expired on 2021-01-01T00:00:00Z"]);
    ca.issue(dir, "other", &["tandem.example"]);
    std::fs::copy(dir.join("other.key"), dir.join("own.key")).expect("copied");
    told(&["listen[1].private_key: ", "own.key: is not the key of the certificate in ", "own.pem"]);
    std::fs::write(dir.join("own.key"), "nonsense").expect("written");
    told(&["listen[1].private_key: ", "own.key: holds no private key"]);
    std::fs::remove_file(dir.join("own.pem")).expect("removed");
    told(&["listen[1].certificate: ", "own.pem: cannot be read: No such file"]);
    ca.issue(dir, "own", &["*.tandem.example"]);
    let (well, said) = check();
    assert!(
        well && said.contains("own.pem: is for *.tandem.example, and for none of tandem.example"),
        "{said}"
    );
}

#[test]
fn a_server_that_takes_the_connection_and_no_handshake_is_given_up_after_the_connect_timeout() {
    let ca = Authority::new("ours");
    let trunk = trunk("out", "{peer}:5071\", \"{peer}:5072", "").replace("20000", "3000");
    let mut engine = prepare(&ca, "", &(trunk + &stations(&["1001"])));
    let deaf = TcpListener::bind((engine.peer(), 5071)).expect("the port");
    let own = ca.issue(engine.dir(), "second", &[&engine.peer().to_string()]);
    let second = server(&engine, 5072, &own, &[]);
    engine.restart();
    let a = Ua::new(&engine, "1001").registered();
    a_call(&a, &second, "9555");
    let cdr = engine.wait_cdrs(1).remove(0);
    assert_eq!(
        (&cdr["attempts"][0]["cause"], &cdr["attempts"][1]["cause"]),
        (&"transport".into(), &"answered".into())
    );
    let ms = cdr["attempts"][0]["ms"].as_u64().expect("ms");
    assert!((2_900..20_000).contains(&ms), "{cdr:#}");
    assert_eq!(handshakes(&engine, "opened", "timeout"), 1.0);
    drop(deaf);
    engine.quiet();
}
