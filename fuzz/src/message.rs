//! A datagram: what is parsed can be printed and parsed to the same, and every answer to it is a message.

use std::net::SocketAddr;

use bytes::Bytes;
use tandem_protocol::message::{
    Builder, Header, Limits, Malformed, Message, NotUnderstood, bad_request, is_keepalive, peek_call_id,
    peek_to_tag, response_to, stamp_via,
};

const SOURCE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5099);

pub(super) fn run(data: &[u8]) {
    let datagram = Bytes::copy_from_slice(data);
    let _ = (is_keepalive(&datagram), peek_to_tag(&datagram));
    match Message::parse(datagram, &Limits::default()) {
        Ok(message) => {
            read(&message);
            let printed = print(&message);
            let again = parse(printed.clone());
            same(&message, &again);
            // Printing settles: what was printed once is printed alike. A NUL has become a space, which may be trimmed.
            if !message.iter().any(|(_, value)| value.contains('\0')) {
                assert_eq!(print(&again), printed);
            }
            if message.is_request() {
                answer(&message);
            }
        }
        Err(malformed) => refuse(&malformed),
    }
}

#[track_caller]
fn parse(bytes: Bytes) -> Message {
    let shown = String::from_utf8_lossy(&bytes).into_owned();
    Message::parse(bytes, &Limits::NONE).unwrap_or_else(|why| panic!("{why}: {shown}"))
}

/// Every view of a message.
fn read(message: &Message) {
    let _ =
        (message.contacts(), message.max_forwards(), message.expires(), message.from_tag(), message.to_tag());
    assert_eq!(message.body(), message.body_bytes());
    assert_eq!(peek_call_id(message.raw()).is_some(), !message.call_id().is_empty());
    let _ =
        (message.via().branch(), message.via().received(), message.via().rport(), stamp_via(message, SOURCE));
    for (name, value) in message.iter() {
        assert!(message.other(name).any(|found| found == value), "{name} is not found");
        assert!(!value.contains(['\r', '\n']), "a line end in {name}");
    }
    if let Some(sdp) = message.session_description() {
        assert!(
            message.body().windows(sdp.len()).any(|part| part == sdp),
            "a description that is no part of the body"
        );
        assert_ne!(message.understood(), Err(NotUnderstood::Malformed));
    }
    for header in [Header::Via, Header::Route, Header::Supported] {
        message.values(header).for_each(|value| assert!(!value.is_empty()));
    }
}

/// The message written anew, header by header.
fn print(message: &Message) -> Bytes {
    let mut builder = if message.is_request() {
        Builder::request(message.method_name(), message.request_uri())
    } else {
        Builder::response(message.status(), message.reason())
    };
    for (name, value) in message.iter() {
        builder.raw_header(name, value);
    }
    let kind = message.header(Header::ContentType).unwrap_or_default();
    builder.finish(Some((kind, message.body())))
}

fn same(a: &Message, b: &Message) {
    assert_eq!((a.status(), a.method(), a.method_name()), (b.status(), b.method(), b.method_name()));
    assert_eq!((a.request_uri(), a.cseq(), a.call_id()), (b.request_uri(), b.cseq(), b.call_id()));
    assert_eq!((a.from_tag(), a.to_tag()), (b.from_tag(), b.to_tag()));
    // A NUL within a quoted string becomes a space.
    assert_eq!(a.from().to_string().replace('\0', " "), b.from().to_string());
    assert_eq!(a.to().to_string().replace('\0', " "), b.to().to_string());
    assert_eq!(
        (a.via().host, a.via().port, a.via().branch()),
        (b.via().host, b.via().port, b.via().branch())
    );
    assert_eq!(vias(a), vias(b));
    assert_eq!(a.body(), b.body());
}

/// How many Via values there are. A NUL is printed as a space, and a value of nothing but spaces is none.
fn vias(message: &Message) -> usize {
    message.values(Header::Via).filter(|via| !via.trim_matches(['\0', ' ', '\t']).is_empty()).count()
}

/// A response to what was understood is understood, and is of the same transaction.
fn answer(request: &Message) {
    let response = parse(response_to(request, Some(SOURCE), 486, "Busy Here", Some("t")).finish(None));
    assert_eq!(
        (response.status(), response.cseq(), response.call_id()),
        (486, request.cseq(), request.call_id())
    );
    assert_eq!((response.method(), response.method_name()), (request.method(), request.method_name()));
    assert_eq!(response.via().branch(), request.via().branch());
    assert_eq!(vias(&response), vias(request));
    assert_eq!(response.from_tag(), request.from_tag());
    assert_eq!(response.to_tag(), request.to_tag().or(Some("t")));
}

/// An answer to what was not understood repeats only its five headers, each on its line.
fn refuse(malformed: &Malformed) {
    assert!((400..600).contains(&malformed.status()));
    let Some(answerable) = &malformed.answer else { return };
    let bytes = bad_request(answerable, SOURCE, malformed.status(), &malformed.to_string());
    assert_eq!(bytes, bad_request(answerable, SOURCE, malformed.status(), &malformed.to_string()));
    let head = bytes.strip_suffix(b"\r\n\r\n").expect("no body");
    let lines: Vec<&[u8]> = head.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 1 + answerable.via.len() + 5, "an injected line");
    assert!(lines[..lines.len() - 1].iter().all(|line| line.ends_with(b"\r")));
    assert!(head.iter().filter(|byte| **byte == b'\r').count() == lines.len() - 1, "a bare CR");
}
