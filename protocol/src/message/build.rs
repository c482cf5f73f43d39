//! Writing messages: one buffer, no intermediate strings, and no way to smuggle in a header.

use std::fmt::{self, Display, Write};
use std::net::SocketAddr;

use bytes::Bytes;

use super::Message;
use super::header::Header;
use super::malformed::Answerable;
use super::method::Method;
use super::syntax::{LINE, TOKEN, URI, all, is, param};
use crate::decimal::Decimal;

pub use super::reason::reason_phrase;
use super::stamp::Stamped;
pub use super::stamp::stamp_via;

/// Up to this length a text is looked at character by character.
const SHORT: usize = 24;
/// Room for nearly every message without a body, so that the buffer seldom grows.
const CAPACITY: usize = 1024;

/// A message being written, header by header in the order of the calls.
///
/// Whatever a value holds, it stays one header: CR, LF and NUL in it become spaces.
#[derive(Clone, Debug)]
pub struct Builder {
    out: Vec<u8>,
}

/// Writes text with each of its line ends and NULs replaced by a space.
struct OneLine<'a>(&'a mut Vec<u8>);

impl Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        // Most parts of a line are short, and a look at each character is cheaper then.
        if rest.len() <= SHORT && all(rest, LINE) {
            self.0.extend_from_slice(rest);
            return Ok(());
        }
        while let Some(at) = memchr::memchr3(b'\r', b'\n', 0, rest) {
            self.0.extend_from_slice(&rest[..at]);
            self.0.push(b' ');
            rest = &rest[at + 1..];
        }
        self.0.extend_from_slice(rest);
        Ok(())
    }
}

impl Builder {
    /// Starts a request. Characters that a method cannot have become `-`; those that a URI cannot have are escaped.
    pub fn request(method: &str, uri: &str) -> Builder {
        let mut out = Vec::with_capacity(CAPACITY);
        put_token(&mut out, method);
        out.push(b' ');
        if all(uri.as_bytes(), URI) {
            out.extend_from_slice(uri.as_bytes());
        } else {
            put_escaped(&mut out, uri);
        }
        out.extend_from_slice(b" SIP/2.0\r\n");
        Builder { out }
    }

    /// Starts a response.
    pub fn response(status: u16, reason: &str) -> Builder {
        let mut out = Vec::with_capacity(CAPACITY);
        out.extend_from_slice(b"SIP/2.0 ");
        if status < 100 {
            write_infallibly(&mut out, format_args!("{status:03}"));
        } else {
            out.extend_from_slice(Decimal::of(status.into()).as_bytes());
        }
        out.push(b' ');
        put_line(&mut out, reason);
        out.extend_from_slice(b"\r\n");
        Builder { out }
    }

    /// Adds a header line. Content-Length, and Content-Type, are written by [`Builder::finish`]: here they are ignored,
    /// as is [`Header::Other`], which has no name.
    pub fn header(&mut self, h: Header, value: impl Display) -> &mut Builder {
        if is_free(h) {
            self.begin(h);
            write_infallibly(&mut self.out, format_args!("{value}"));
            self.out.extend_from_slice(b"\r\n");
        }
        self
    }

    /// As [`Builder::header`], of a value that is these texts one after the other: several times cheaper than formatting.
    pub fn texts(&mut self, h: Header, parts: &[&str]) -> &mut Builder {
        if is_free(h) {
            self.begin(h);
            let start = self.out.len();
            for part in parts {
                self.out.extend_from_slice(part.as_bytes());
            }
            keep_in_line(&mut self.out[start..]);
            self.out.extend_from_slice(b"\r\n");
        }
        self
    }

    /// As [`Builder::texts`], of texts of ours, in which no line ends.
    pub(crate) fn own(&mut self, h: Header, parts: &[&str]) {
        self.begin(h);
        for part in parts {
            self.out.extend_from_slice(part.as_bytes());
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// Adds a header line of any name, with the exceptions of [`Builder::header`]. Characters that a name cannot
    /// have become `-`; an empty name is ignored.
    pub fn raw_header(&mut self, name: &str, value: impl Display) -> &mut Builder {
        let ours = matches!(Header::parse(name), Header::ContentLength | Header::ContentType);
        if !ours && !name.is_empty() {
            self.line(name, value);
        }
        self
    }

    /// Copies every line of that header from a message, byte for byte.
    pub fn copy(&mut self, message: &Message, h: Header) -> &mut Builder {
        if is_free(h) {
            for value in message.headers(h) {
                self.verbatim(h, value);
            }
        }
        self
    }

    /// The name of a known header needs no look at its characters.
    fn begin(&mut self, h: Header) {
        self.out.extend_from_slice(h.line_start().as_bytes());
    }

    fn line(&mut self, name: &str, value: impl Display) {
        put_token(&mut self.out, name);
        self.out.extend_from_slice(b": ");
        write_infallibly(&mut self.out, format_args!("{value}"));
        self.out.extend_from_slice(b"\r\n");
    }

    /// A value out of a parsed message, which has no line end; a NUL in a quoted string is kept.
    fn verbatim(&mut self, h: Header, value: &str) {
        self.begin(h);
        self.out.extend_from_slice(value.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    fn stamped(&mut self, via: &Stamped<'_>) {
        self.begin(Header::Via);
        // Writing to memory cannot fail.
        let _ = via.write(&mut OneLine(&mut self.out));
        self.out.extend_from_slice(b"\r\n");
    }

    /// Ends the message. `body` is (content type, bytes); without it the message has `Content-Length: 0`.
    pub fn finish(mut self, body: Option<(&str, &[u8])>) -> Bytes {
        let (content_type, body) = body.unwrap_or_default();
        if !content_type.is_empty() {
            self.begin(Header::ContentType);
            put_line(&mut self.out, content_type);
            self.out.extend_from_slice(b"\r\n");
        }
        self.begin(Header::ContentLength);
        self.out.extend_from_slice(Decimal::of(body.len() as u64).as_bytes());
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(body);
        // Messages are kept, for retransmission and for the trace: without the room that building needed.
        Bytes::copy_from_slice(&self.out)
    }
}

/// Writing to memory cannot fail; a `Display` that says it did has written what it could.
fn write_infallibly(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    let _ = OneLine(out).write_fmt(text);
}

/// The headers that a user of the builder may write.
fn is_free(h: Header) -> bool {
    !matches!(h, Header::ContentLength | Header::ContentType | Header::Other)
}

/// As [`OneLine`] does it, of what is written already.
fn keep_in_line(written: &mut [u8]) {
    if written.len() <= SHORT && all(written, LINE) {
        return;
    }
    let mut at = 0;
    while let Some(found) = memchr::memchr3(b'\r', b'\n', 0, &written[at..]) {
        written[at + found] = b' ';
        at += found + 1;
    }
}

/// As [`OneLine`] does it.
fn put_line(out: &mut Vec<u8>, text: &str) {
    let _ = OneLine(out).write_str(text);
}

fn put_escaped(out: &mut Vec<u8>, uri: &str) {
    for byte in uri.bytes() {
        if is(byte, URI) {
            out.push(byte);
        } else {
            write_infallibly(out, format_args!("%{byte:02X}"));
        }
    }
}

fn put_token(out: &mut Vec<u8>, name: &str) {
    if all(name.as_bytes(), TOKEN) {
        out.extend_from_slice(name.as_bytes());
    } else {
        out.extend(name.bytes().map(|b| if is(b, TOKEN) { b } else { b'-' }));
    }
}

/// Starts the response to a request (RFC 3261 section 8.2.6): every Via in order, From, To, Call-ID and CSeq, and the
/// Record-Route if it may establish a dialog; to a 100 the Timestamp.
///
/// With a `source` the topmost Via is stamped as by [`stamp_via`]. `to_tag` is added to a To that has no tag.
pub fn response_to(
    request: &Message,
    source: Option<SocketAddr>,
    status: u16,
    reason: &str,
    to_tag: Option<&str>,
) -> Builder {
    let mut builder = Builder::response(status, reason);
    let (mut first, mut cseq) = (true, None);
    for (header, value) in request.lines() {
        match header {
            Header::Via if !value.is_empty() => {
                match source.filter(|_| first) {
                    Some(source) => builder.stamped(&Stamped::of(request, value, source)),
                    None => builder.verbatim(Header::Via, value),
                }
                first = false;
            }
            Header::CSeq => cseq = Some(value),
            _ => {}
        }
    }
    let (from, to, call_id) = request.names();
    builder.verbatim(Header::From, from);
    match to_tag.filter(|_| request.to_tag().is_none()) {
        Some(tag) => {
            builder.out.extend_from_slice(b"To: ");
            builder.out.extend_from_slice(to.as_bytes());
            builder.out.extend_from_slice(b";tag=");
            put_line(&mut builder.out, tag);
            builder.out.extend_from_slice(b"\r\n");
        }
        None => builder.verbatim(Header::To, to),
    }
    builder.verbatim(Header::CallId, call_id);
    builder.verbatim(Header::CSeq, cseq.unwrap_or_default());
    let opens_dialog = matches!(request.method(), Method::Invite | Method::Subscribe | Method::Refer);
    if opens_dialog && (101..300).contains(&status) {
        builder.copy(request, Header::RecordRoute);
    }
    if status == 100 {
        for timestamp in request.other("Timestamp") {
            builder.raw_header("Timestamp", timestamp);
        }
    }
    builder
}

/// The whole response to a request that was too malformed to parse. Its To tag depends only on what it answers,
/// so that a retransmission is answered alike (RFC 3261 section 8.2.7). An ACK must not be answered.
pub fn bad_request(answerable: &Answerable, source: SocketAddr, status: u16, reason: &str) -> Bytes {
    let mut builder = Builder::response(status, reason);
    for (n, line) in answerable.via.iter().enumerate() {
        match Some(n).filter(|n| *n == 0).and_then(|_| Stamped::unread(line, source)) {
            Some(stamped) => builder.stamped(&stamped),
            None => drop(builder.header(Header::Via, line)),
        }
    }
    builder.header(Header::From, &answerable.from);
    let after_uri = answerable.to.rfind('>').map_or(0, |at| at + 1);
    let tagged = answerable.to[after_uri..]
        .find(';')
        .is_some_and(|at| param(&answerable.to[after_uri + at..], "tag").is_some());
    if tagged {
        builder.header(Header::To, &answerable.to);
    } else {
        builder.header(Header::To, format_args!("{};tag={:016x}", answerable.to, fingerprint(answerable)));
    }
    builder.header(Header::CallId, &answerable.call_id).header(Header::CSeq, &answerable.cseq);
    builder.finish(None)
}

/// A hash over what a retransmission repeats.
fn fingerprint(answerable: &Answerable) -> u64 {
    let parts = [answerable.via.first().map_or("", String::as_str), &answerable.call_id, &answerable.cseq];
    crate::fnv::fnv1a(parts.iter().flat_map(|part| part.bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::*;

    fn request(via: &str, to: &str) -> Message {
        let mut builder = Builder::request("INVITE", "sip:b@example.com");
        builder
            .header(Header::Via, via)
            .header(Header::Via, "SIP/2.0/TCP second")
            .header(Header::RecordRoute, "<sip:p1;lr>")
            .header(Header::RecordRoute, "<sip:p2;lr>")
            .header(Header::From, "<sip:a@example.com>;tag=f")
            .header(Header::To, to)
            .header(Header::CallId, "c")
            .header(Header::CSeq, "7 INVITE")
            .raw_header("Timestamp", "54");
        Message::parse(builder.finish(None), &Limits::default()).unwrap()
    }

    fn text(builder: Builder) -> String {
        String::from_utf8(builder.finish(None).to_vec()).unwrap()
    }

    #[test]
    fn a_response_copies_what_the_rfc_names_in_order() {
        let m = request("SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bK1", "<sip:b@example.com>");
        let expected = "SIP/2.0 180 Ringing\r\n\
            Via: SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bK1\r\nVia: SIP/2.0/TCP second\r\n\
            From: <sip:a@example.com>;tag=f\r\nTo: <sip:b@example.com>;tag=x\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\n\
            Record-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p2;lr>\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(text(response_to(&m, None, 180, "Ringing", Some("x"))), expected);
    }

    #[test]
    fn record_route_and_timestamp_go_where_they_belong() {
        let m = request("SIP/2.0/UDP a", "<sip:b@example.com>");
        let has = |status, name: &str| text(response_to(&m, None, status, "", None)).contains(name);
        assert!(has(200, "Record-Route") && has(183, "Record-Route"));
        assert!(!has(100, "Record-Route") && !has(486, "Record-Route"));
        assert!(has(100, "Timestamp: 54") && !has(200, "Timestamp"));
    }

    #[test]
    fn a_to_tag_is_added_only_where_there_is_none() {
        let tag_of = |to: &str, tag| {
            let wire = response_to(&request("SIP/2.0/UDP a", to), None, 200, "OK", tag).finish(None);
            Message::parse(wire, &Limits::default()).unwrap().to_tag().map(str::to_owned)
        };
        assert_eq!(tag_of("sip:b@example.com;x=1", Some("n")).as_deref(), Some("n"));
        assert_eq!(tag_of("<sip:b@example.com;tag=no>", Some("n")).as_deref(), Some("n"));
        assert_eq!(tag_of("<sip:b@example.com>;tag=o", Some("n")).as_deref(), Some("o"));
        assert_eq!(tag_of("<sip:b@example.com>", None), None);
    }

    #[test]
    fn the_top_via_tells_where_the_request_came_from() {
        let stamped = |via: &str, source: &str| {
            let m = request(via, "<sip:b@example.com>");
            let stamped = stamp_via(&m, source.parse().unwrap());
            let response = text(response_to(&m, Some(source.parse().unwrap()), 100, "Trying", None));
            assert!(response.contains(&format!("\r\nVia: {stamped}")), "{response}");
            assert!(response.contains("\r\nVia: SIP/2.0/TCP second\r\n"));
            stamped
        };
        let v4 = "192.0.2.1:5062";
        assert_eq!(stamped("SIP/2.0/UDP 192.0.2.1;branch=b", v4), "SIP/2.0/UDP 192.0.2.1;branch=b");
        assert_eq!(stamped("SIP/2.0/UDP host;branch=b", v4), "SIP/2.0/UDP host;branch=b;received=192.0.2.1");
        let asked = "SIP/2.0/UDP 192.0.2.1;branch=b;received=192.0.2.1;rport=5062";
        assert_eq!(stamped("SIP/2.0/UDP 192.0.2.1;rport;branch=b", v4), asked);
        assert_eq!(stamped("SIP/2.0/UDP 192.0.2.1;rport=1;received=6.6.6.6;branch=b", v4), asked);
        assert_eq!(
            stamped("SIP / 2.0/UDP 192.0.2.1 ; branch = b;flag", v4),
            "SIP / 2.0/UDP 192.0.2.1;branch=b;flag"
        );
        assert_eq!(
            stamped("SIP/2.0/UDP [2001:db8::1]:5060", "[2001:db8:0::1]:1"),
            "SIP/2.0/UDP [2001:db8::1]:5060"
        );
        assert_eq!(stamped("SIP/2.0/UDP [::2]", "[::1]:1"), "SIP/2.0/UDP [::2];received=::1");
        assert_eq!(stamped("SIP/2.0/UDP 192.0.2.1", "[::ffff:192.0.2.1]:5060"), "SIP/2.0/UDP 192.0.2.1");
    }

    #[test]
    fn only_the_first_of_several_vias_in_a_line_is_stamped() {
        let m = request("SIP/2.0/UDP h;x=\"a,b\", SIP/2.0/TCP h2;rport", "<sip:b@example.com>");
        let response = text(response_to(&m, Some("192.0.2.9:5".parse().unwrap()), 200, "OK", None));
        let line = "Via: SIP/2.0/UDP h;x=\"a,b\";received=192.0.2.9, SIP/2.0/TCP h2;rport\r\n";
        assert!(response.contains(line), "{response}");
    }

    #[test]
    fn the_length_is_always_the_bodys() {
        let mut builder = Builder::request("INFO", "sip:b");
        builder
            .header(Header::ContentLength, 99)
            .raw_header("l", 99)
            .raw_header("C", "x/y")
            .raw_header("", "z");
        let wire = builder.finish(Some(("text/plain", b"12345")));
        let expected = "INFO sip:b SIP/2.0\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n12345";
        assert_eq!(wire, expected);
    }

    #[test]
    fn a_start_line_stays_one_line_of_three_parts() {
        let wire = Builder::request("BYE x", "sip:a b\r\nX: \u{fc}").finish(None);
        assert_eq!(wire, "BYE-x sip:a%20b%0D%0AX:%20%C3%BC SIP/2.0\r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn a_value_that_ends_a_line_stays_in_it() {
        let mut builder = Builder::response(200, "O\nK");
        builder.header(Header::Subject, "a\r\nEvil: 1\0").raw_header("X\r\nEvil", "\n\n");
        let expected = "SIP/2.0 200 O K\r\nSubject: a  Evil: 1 \r\nX--Evil:   \r\nContent-Length: 0\r\n\r\n";
        assert_eq!(text(builder), expected);
    }

    #[test]
    fn every_class_has_a_reason_phrase() {
        assert_eq!(
            (reason_phrase(486), reason_phrase(499), reason_phrase(299)),
            ("Busy Here", "Bad Request", "OK")
        );
        assert!((100..700).all(|status| reason_phrase(status) != "Unknown"));
    }
}
