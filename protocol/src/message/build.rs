//! Writing messages: one buffer, no intermediate strings, and no way to smuggle in a header.

use std::fmt::{self, Display, Write};
use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};

use super::Message;
use super::address::Via;
use super::header::Header;
use super::malformed::Answerable;
use super::method::Method;
use super::syntax::{TOKEN, URI, is, param, params, split, trim};

pub use super::reason::reason_phrase;

/// Room for nearly every message without a body, so that the buffer seldom grows.
const CAPACITY: usize = 1024;

/// A message being written, header by header in the order of the calls.
///
/// Whatever a value holds, it stays one header: CR, LF and NUL in it become spaces.
#[derive(Clone, Debug)]
pub struct Builder {
    out: BytesMut,
}

/// Writes text with each of its line ends and NULs replaced by a space.
struct OneLine<'a>(&'a mut BytesMut);

impl Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while let Some(at) = memchr::memchr3(b'\r', b'\n', 0, rest) {
            self.0.put_slice(&rest[..at]);
            self.0.put_u8(b' ');
            rest = &rest[at + 1..];
        }
        self.0.put_slice(rest);
        Ok(())
    }
}

impl Builder {
    /// Starts a request. Characters that a method cannot have become `-`; those that a URI cannot have are escaped.
    pub fn request(method: &str, uri: &str) -> Builder {
        let mut out = BytesMut::with_capacity(CAPACITY);
        put_token(&mut out, method);
        out.put_u8(b' ');
        for byte in uri.bytes() {
            if is(byte, URI) {
                out.put_u8(byte);
            } else {
                write_infallibly(&mut out, format_args!("%{byte:02X}"));
            }
        }
        out.put_slice(b" SIP/2.0\r\n");
        Builder { out }
    }

    /// Starts a response.
    pub fn response(status: u16, reason: &str) -> Builder {
        let mut out = BytesMut::with_capacity(CAPACITY);
        write_infallibly(&mut out, format_args!("SIP/2.0 {status:03} {reason}"));
        out.put_slice(b"\r\n");
        Builder { out }
    }

    /// Adds a header line. Content-Length, and Content-Type, are written by [`Builder::finish`]: here they are ignored,
    /// as is [`Header::Other`], which has no name.
    pub fn header(&mut self, h: Header, value: impl Display) -> &mut Builder {
        if !matches!(h, Header::ContentLength | Header::ContentType | Header::Other) {
            self.line(h.name(), value);
        }
        self
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
        if !matches!(h, Header::ContentLength | Header::ContentType | Header::Other) {
            for value in message.headers(h) {
                self.verbatim(h, value);
            }
        }
        self
    }

    fn line(&mut self, name: &str, value: impl Display) {
        put_token(&mut self.out, name);
        self.out.put_slice(b": ");
        write_infallibly(&mut self.out, format_args!("{value}"));
        self.out.put_slice(b"\r\n");
    }

    /// A value out of a parsed message, which has no line end; a NUL in a quoted string is kept.
    fn verbatim(&mut self, h: Header, value: &str) {
        self.out.put_slice(h.name().as_bytes());
        self.out.put_slice(b": ");
        self.out.put_slice(value.as_bytes());
        self.out.put_slice(b"\r\n");
    }

    /// Ends the message. `body` is (content type, bytes); without it the message has `Content-Length: 0`.
    pub fn finish(mut self, body: Option<(&str, &[u8])>) -> Bytes {
        let (content_type, body) = body.unwrap_or_default();
        if !content_type.is_empty() {
            self.line(Header::ContentType.name(), content_type);
        }
        self.line(Header::ContentLength.name(), body.len());
        self.out.put_slice(b"\r\n");
        self.out.put_slice(body);
        self.out.freeze()
    }
}

/// Writing to memory cannot fail; a `Display` that says it did has written what it could.
fn write_infallibly(out: &mut BytesMut, text: fmt::Arguments<'_>) {
    let _ = OneLine(out).write_fmt(text);
}

fn put_token(out: &mut BytesMut, name: &str) {
    out.extend(name.bytes().map(|b| if is(b, TOKEN) { b } else { b'-' }));
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
    for (n, line) in request.headers(Header::Via).filter(|line| !line.is_empty()).enumerate() {
        match source {
            Some(source) if n == 0 => builder.line(Header::Via.name(), Stamped { line, source }),
            _ => builder.verbatim(Header::Via, line),
        }
    }
    builder.copy(request, Header::From);
    match (request.header(Header::To), to_tag) {
        (Some(to), Some(tag)) if request.to_tag().is_none() => {
            builder.line("To", format_args!("{to};tag={tag}"))
        }
        (Some(to), _) => builder.verbatim(Header::To, to),
        (None, _) => {}
    }
    builder.copy(request, Header::CallId).copy(request, Header::CSeq);
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

/// The topmost Via of a request as its response must carry it: with `received` if the sent-by is not the source's address or
/// a port was asked for, and with `rport` filled in if it was (RFC 3261 section 18.2.1, RFC 3581 section 4).
pub fn stamp_via(request: &Message, source: SocketAddr) -> String {
    let line = request.values(Header::Via).next().unwrap_or("");
    Stamped { line, source }.to_string()
}

/// A Via line whose first value gets the parameters that tell where the request came from.
struct Stamped<'a> {
    line: &'a str,
    source: SocketAddr,
}

impl Display for Stamped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(top) = split(self.line, b',').find(|value| !value.is_empty()) else {
            return f.write_str(self.line);
        };
        let address = self.source.ip().to_canonical();
        let Ok(via) = Via::parse(top) else {
            return f.write_str(self.line);
        };
        // An IPv6 address has no ';' and no quote, so the text before the parameters is found by length.
        let (sent_by, raw_params) = top.split_at(top.len() - via.params.len());
        f.write_str(trim(sent_by))?;
        for (name, value) in params(raw_params) {
            if name.eq_ignore_ascii_case("received") || name.eq_ignore_ascii_case("rport") {
                continue;
            }
            match value {
                Some(value) => write!(f, ";{name}={value}")?,
                None => write!(f, ";{name}")?,
            }
        }
        let asked = via.rport().is_some();
        if asked || via.host.parse() != Ok(address) {
            write!(f, ";received={address}")?;
        }
        if asked {
            write!(f, ";rport={}", self.source.port())?;
        }
        let rest = self.line.find(top).map_or("", |at| &self.line[at + top.len()..]);
        f.write_str(rest)
    }
}

/// The whole response to a request that was too malformed to parse. Its To tag depends only on what it answers,
/// so that a retransmission is answered alike (RFC 3261 section 8.2.7). An ACK must not be answered.
pub fn bad_request(answerable: &Answerable, source: SocketAddr, status: u16, reason: &str) -> Bytes {
    let mut builder = Builder::response(status, reason);
    for (n, line) in answerable.via.iter().enumerate() {
        if n == 0 {
            builder.header(Header::Via, Stamped { line, source });
        } else {
            builder.header(Header::Via, line);
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

/// FNV-1a over what a retransmission repeats.
fn fingerprint(answerable: &Answerable) -> u64 {
    let parts = [answerable.via.first().map_or("", String::as_str), &answerable.call_id, &answerable.cseq];
    let bytes = parts.iter().flat_map(|part| part.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
