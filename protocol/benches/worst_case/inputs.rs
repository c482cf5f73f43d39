//! The worst messages there are: what is long, deep or many in each.

use bytes::Bytes;
use tandem_protocol::message::{Header, Limits, Message};
use tandem_protocol::sdp::SessionDescription;

/// The default limits but for the counts, so that only the largest datagram bounds the input.
const LIMITS: Limits =
    Limits { max_bytes: 65_535, max_header_line: 65_535, max_headers: 65_535, max_vias: 65_535 };

/// The size of the smallest input; four times this is near the largest datagram.
pub(crate) const SMALLEST: usize = 15_000;

/// A request with `lines` among its headers.
fn request(lines: &str, body: &str) -> Bytes {
    Bytes::from(format!(
        "INVITE sip:1002@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n{lines}\
         From: <sip:1001@example.com>;tag=1\r\nTo: <sip:1002@example.com>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\
         Max-Forwards: 70\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn filled(before: &str, filler: &str, after: &str, size: usize) -> Bytes {
    request(&format!("{before}{}{after}\r\n", filler.repeat(size / filler.len())), "")
}

/// A session description of one line, again and again.
fn sdp_of(line: &str, size: usize) -> Bytes {
    let head = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 96\r\n";
    request("", &format!("{head}{}", line.repeat(size / line.len())))
}

/// Makes an input of about so many bytes.
pub(crate) type Input = fn(usize) -> Bytes;

/// The worst inputs, by name.
pub(crate) const INPUTS: &[(&str, Input)] = &[
    ("longest header", |n| filled("X-A: ", "x", "", n)),
    ("most headers", |n| filled("X-A: ", "1\r\nX-A: ", "1", n)),
    ("most Vias, a line each", |n| filled("", "v: SIP/2.0/UDP h\r\n", "X: 1", n)),
    ("most Vias in one line", |n| filled("v: SIP/2.0/UDP h", ",SIP/2.0/UDP h", "", n)),
    ("deepest fold", |n| filled("X-A: 1", "\r\n 1", "", n)),
    ("most commas", |n| filled("Contact: <sip:a@b>", ",", "", n)),
    ("most contacts", |n| filled("Contact: <sip:a@b>", ",<sip:a@b>", "", n)),
    ("most quotes", |n| filled("Contact: ", "\"\"", " <sip:a@b>", n)),
    ("most escapes in a quote", |n| filled("Contact: \"", "\\\"", "\" <sip:a@b>", n)),
    ("most parameters", |n| filled("Contact: <sip:a@b>", ";a", "", n)),
    ("most URI parameters", |n| filled("Contact: <sip:a@b", ";a", ">", n)),
    ("refused: an unclosed quote", |n| filled("t: \"", "\\\"", "", n)),
    ("refused: no end of the headers", |n| {
        Bytes::from("INVITE sip:a@b SIP/2.0\r\n".to_owned() + &"v: a\r\n".repeat(n / 6))
    }),
    ("largest SDP", |n| sdp_of("a=rtpmap:96 opus/48000/2\r\n", n)),
    ("most SDP attributes", |n| sdp_of("a=b\r\n", n)),
    ("most SDP streams", |n| sdp_of("m=a 9 b 0\r\n", n)),
    ("most SDP formats", |n| sdp_of(&format!("m=audio 9 RTP/AVP{}\r\n", " 0".repeat(n / 2)), n)),
];

/// Parses, and reads what a call reads of it.
pub(crate) fn read(datagram: &Bytes) -> usize {
    match Message::parse(datagram.clone(), &LIMITS) {
        Ok(message) => {
            let contacts = message.contacts().is_ok();
            let vias = message.values(Header::Via).count();
            let session = SessionDescription::parse(message.body()).is_ok();
            usize::from(contacts) + vias + usize::from(session) + message.to_tag().map_or(0, str::len)
        }
        Err(malformed) => malformed.answer.map_or(0, |answer| answer.via.len()),
    }
}
