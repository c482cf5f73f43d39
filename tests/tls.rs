//! SIP over TLS as seen on the wire: RFC 3261 §26.2, RFC 5922, RFC 5630. The other end is OpenSSL.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::net::SocketAddr;

use common::engine::stations;
use common::tls::{Authority, Openssl, address, engine};
use common::{Engine, Msg, Ua, sdp};

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

/// A call from `a`, up to BYE by it.
#[track_caller]
fn a_call(a: &Ua, b: &Ua, number: &str) -> Msg {
    let mut leg = a.call(number, &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.respond(&invite, "180 Ringing", "bob", "", "");
    a.response("INVITE", 180);
    b.answer(&invite, &sdp(b.local(), "0"));
    a.established(&mut leg);
    a.next(&mut leg, "BYE", "", "");
    let bye = b.request("BYE");
    b.respond(&bye, "200 OK", "", "", "");
    a.response("BYE", 200);
    invite
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
