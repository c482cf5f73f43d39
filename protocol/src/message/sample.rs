//! Messages for tests of what reads their headers.

use super::{Builder, Header, Limits, Message};

/// An INVITE from `sip:a@example.com` to `sip:b@example.com` for this Request-URI, with further headers.
pub(crate) fn invite<'h>(uri: &str, headers: impl IntoIterator<Item = (&'h str, &'h str)>) -> Message {
    let mut builder = Builder::request("INVITE", uri);
    builder
        .header(Header::Via, "SIP/2.0/UDP a;branch=z9hG4bK1")
        .header(Header::From, "<sip:a@example.com>;tag=f")
        .header(Header::To, "<sip:b@example.com>")
        .header(Header::CallId, "c")
        .header(Header::CSeq, "1 INVITE");
    for (name, value) in headers {
        builder.raw_header(name, value);
    }
    Message::parse(builder.finish(None), &Limits::default()).unwrap()
}
