//! Answers of which nothing is kept: the same request gets the same answer again, and no answer is repeated unasked.
//!
//! Whoever forges the source of a datagram has the answer sent to somebody else. So it is hardly larger than the request:
//! what is optional in it is left out where it would be, and who is too brief to be challenged is told so.

use std::net::SocketAddr;

use bytes::Bytes;
use tandem_protocol::decimal::push_hex;
use tandem_protocol::fnv::fnv1a;
use tandem_protocol::message::{Header, Message, reason_phrase, response_to};

/// An answer to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    /// What the status line says.
    pub(crate) phrase: &'a str,
    /// The first are the ones most needed.
    pub(crate) headers: &'a [(Header, &'a str)],
}

impl<'a> Answer<'a> {
    pub(crate) fn new(status: u16, headers: &'a [(Header, &'a str)]) -> Answer<'a> {
        Answer { status, phrase: reason_phrase(status), headers }
    }

    /// The whole answer, to somebody who has proved where he is.
    pub(crate) fn write(self, request: &Message, to: SocketAddr) -> Bytes {
        let tag = tag(request);
        let mut response = response_to(request, Some(to), self.status, self.phrase, Some(&tag));
        for (header, value) in self.headers {
            response.texts(*header, &[value]);
        }
        response.finish(None)
    }

    /// The answer to somebody who may not be where he says: with as many of its headers as fit into one and a half times
    /// the request.
    pub(crate) fn write_bounded(self, request: &Message, to: SocketAddr) -> Bytes {
        let whole = self.write(request, to);
        let limit = request.raw().len() * 3 / 2;
        let mut surplus = whole.len().saturating_sub(limit);
        if surplus == 0 || self.headers.is_empty() {
            return whole;
        }
        let mut kept = self.headers;
        while let Some(((header, value), rest)) = kept.split_last().filter(|_| surplus > 0) {
            surplus = surplus.saturating_sub(header.name().len() + value.len() + 4);
            kept = rest;
        }
        if self.status == 401 && kept.is_empty() {
            // A 401 must have a challenge (RFC 3261 §22.1).
            let brief = Answer { status: 400, phrase: "Too Short To Be Challenged", headers: &[] };
            return brief.write(request, to);
        }
        Answer { headers: kept, ..self }.write(request, to)
    }
}

/// The tag of an answer that is not kept: the same for the same request, and of no use to who has not seen it.
fn tag(request: &Message) -> String {
    let via = request.via();
    let seed = request.call_id().bytes().chain(via.branch().unwrap_or("").bytes());
    let mut tag = "s".to_owned();
    push_hex(&mut tag, fnv1a(seed), 16);
    tag
}

#[cfg(test)]
mod tests {
    use tandem_protocol::message::Limits;

    use super::*;

    const CHALLENGES: [(Header, &str); 2] = [
        (
            Header::WwwAuthenticate,
            "Digest realm=\"tandem\", nonce=\"0123456789012345678901234567890123456789012\", algorithm=MD5, qop=\"auth\"",
        ),
        (
            Header::WwwAuthenticate,
            "Digest realm=\"tandem\", nonce=\"0123456789012345678901234567890123456789012\", algorithm=SHA-256, qop=\"auth\"",
        ),
    ];

    /// A REGISTER with so many bytes of headers that no answer repeats.
    fn request(more: usize) -> Message {
        let text = format!(
            "REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;rport;branch=z9hG4bK1\r\nFrom: <sip:1001@a>;tag=1\r\n\
             To: <sip:1001@a>\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\nSubject: {}\r\n\r\n",
            "x".repeat(more)
        );
        Message::parse(text.into(), &Limits::default()).unwrap()
    }

    #[test]
    fn an_answer_is_never_much_larger_than_what_it_answers() {
        let to = ([192, 0, 2, 1], 5060).into();
        let mut seen = Vec::new();
        for more in 0..600 {
            let request = request(more);
            let answer = Answer::new(401, &CHALLENGES).write_bounded(&request, to);
            assert!(
                answer.len() * 2 <= request.raw().len() * 3,
                "{} for {}",
                answer.len(),
                request.raw().len()
            );
            let answer = Message::parse(answer, &Limits::default()).unwrap();
            seen.push((answer.status(), answer.headers(Header::WwwAuthenticate).count()));
        }
        seen.dedup();
        assert_eq!(seen, [(400, 0), (401, 1), (401, 2)], "what is optional goes first");
    }

    #[test]
    fn the_same_request_gets_the_same_tag() {
        let to = ([192, 0, 2, 1], 5060).into();
        let answer = |more| Answer::new(481, &[]).write_bounded(&request(more), to);
        assert_eq!(answer(0), answer(0));
    }
}
