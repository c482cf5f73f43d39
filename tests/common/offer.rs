//! Two phones that exchange offers and answers in every way there is.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use super::engine::station;
use super::ua::token;
use super::{Engine, Leg, Msg, Ua, sdp};

pub(crate) const MODES: [&str; 2] = ["anchored", "bypass"];
pub(crate) const RELIABLE: &str = "Supported: 100rel\r\nAllow: INVITE, ACK, CANCEL, BYE, PRACK, UPDATE\r\n";
pub(crate) const UPDATES: &str = "Allow: INVITE, ACK, CANCEL, BYE, UPDATE\r\n";
/// Nothing that was to come is later than this on loopback; what must not come is awaited for as long.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

/// An engine with two stations whose media runs in this way, the second registered.
pub(crate) fn engine(media: &str) -> (Engine, Ua, Ua) {
    let keys = format!("media = \"{media}\"");
    let engine = Engine::start(&(station("1001", &keys) + &station("1002", &keys)));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    (engine, a, b)
}

/// A description of this phone's, with more lines.
pub(crate) fn offer(ua: &Ua, formats: &str, lines: &str) -> String {
    sdp(ua.local(), formats) + lines
}

/// The ACK of a 2xx, with a body.
pub(crate) fn ack_with(ua: &Ua, leg: &Leg, response: &Msg, body: &str) {
    let mut ack = leg.clone();
    ack.cseq = response.cseq();
    ack.remote = response.header("To").to_owned();
    ua.send(ua.text(&ack, "ACK", &response.contact(), &format!("z9hG4bK{}", token()), "", body));
}

/// The PRACK of a reliable response, within its early dialog.
pub(crate) fn prack(ua: &Ua, leg: &mut Leg, response: &Msg, body: &str) {
    early(leg, response);
    let rack = format!("RAck: {} {}\r\n", response.header("RSeq"), response.header("CSeq"));
    ua.next(leg, "PRACK", &rack, body);
}

/// Makes the leg the early dialog of a response.
pub(crate) fn early(leg: &mut Leg, response: &Msg) {
    leg.remote = response.header("To").to_owned();
    leg.target = response.contact();
}

/// A reliable provisional response to an INVITE.
pub(crate) fn reliably(ua: &Ua, invite: &Msg, status: &str, tag: &str, rseq: u32, body: &str) {
    let headers = format!("Require: 100rel\r\nRSeq: {rseq}\r\n{UPDATES}");
    ua.respond(invite, status, tag, &headers, body);
}

/// The next request of this method; it is answered with 200 and this body.
pub(crate) fn serve(ua: &Ua, method: &str, body: &str) -> Msg {
    let request = ua.request(method);
    ua.respond(&request, "200 OK", "", "", body);
    request
}

/// A call that both sides have; `allow` is what the phones say they take.
pub(crate) fn connect(a: &Ua, b: &Ua, allow: &str) -> (Leg, Leg) {
    let mut leg = a.call_with("1002", allow, &offer(a, "0 8", ""));
    let invite = b.request("INVITE");
    let tag = token();
    b.respond(&invite, "200 OK", &tag, allow, &offer(b, "0 8", ""));
    b.request("ACK");
    a.established(&mut leg);
    (leg, b.leg_of(&invite, &tag))
}

/// Ends a call from `a`.
pub(crate) fn end(engine: &Engine, a: &Ua, leg: &mut Leg, b: &Ua) {
    a.next(leg, "BYE", "", "");
    serve(b, "BYE", "");
    a.response("BYE", 200);
    engine.quiet();
}

/// A request that is not to come.
#[track_caller]
pub(crate) fn nothing(ua: &Ua, method: &str) {
    while let Some(message) = ua.fresh(QUIET) {
        assert!(!message.is(method), "{message:?}");
    }
}

pub(crate) fn direction(message: &Msg) -> &str {
    ["sendrecv", "sendonly", "recvonly", "inactive"]
        .into_iter()
        .find(|name| message.body().lines().any(|line| line == format!("a={name}")))
        .unwrap_or("none")
}

/// The version in `o=`.
pub(crate) fn version(message: &Msg) -> u64 {
    message.sdp_line("o=").unwrap().split(' ').nth(2).unwrap().parse().unwrap()
}
