//! Requests within a dialog that are the other leg's to answer: INFO (RFC 6086, DTMF for example) and MESSAGE (RFC 3428).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Dialog, LegEvent, Output, Pending, Phase};
use crate::message::{Header, Message, Method};

/// How many such requests of a peer wait for the other leg at a time.
const MOST_PENDING: usize = 8;

/// A body with its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The Content-Type.
    pub content_type: String,
    /// The bytes.
    pub bytes: Bytes,
}

impl Body {
    fn of(message: &Message) -> Option<Body> {
        let content_type = message.header(Header::ContentType)?.to_owned();
        (!message.body().is_empty()).then(|| Body { content_type, bytes: message.body_bytes() })
    }
}

/// The peer's requests that wait for the other leg, by their CSeq, and ours that wait for the peer: CSeq and whose answer it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Carried {
    from_peer: Vec<(u32, Pending)>,
    to_peer: Vec<(u32, u32)>,
}

impl Carried {
    /// Our request with number `from` goes on as number `to`.
    pub(super) fn renumber(&mut self, from: u32, to: u32) {
        for (cseq, _) in self.to_peer.iter_mut().filter(|(cseq, _)| *cseq == from) {
            *cseq = to;
        }
    }
}

impl Dialog {
    /// An INFO or MESSAGE of the peer: refused where that is plain, else the call's to carry across.
    pub(super) fn peer_asks(&mut self, pending: Pending, out: &mut Vec<Output>) {
        let request = &pending.request;
        let refusal: Option<(u16, Option<(Header, &str)>)> = if !self.is_established() {
            // An early dialog exists: 481 would have the peer forget it (RFC 5057 §5.1).
            let early = matches!(self.phase, Phase::Incoming(_) | Phase::AnswerHeld(..) | Phase::Calling(_));
            Some((if early { 480 } else { 481 }, None))
        } else if request.other("Info-Package").next().is_some() {
            // RFC 6086 §4.2.2: we have agreed to receive none.
            Some((469, None))
        } else if request.header(Header::ContentEncoding).is_some_and(|e| !e.eq_ignore_ascii_case("identity"))
        {
            Some((415, Some((Header::AcceptEncoding, "identity"))))
        } else if !request.body().is_empty() && request.header(Header::ContentType).is_none() {
            Some((400, Some((Header::Warning, "399 tandem \"a body needs a Content-Type\""))))
        } else if self.carried.from_peer.len() >= MOST_PENDING {
            Some((500, Some((Header::RetryAfter, "1"))))
        } else {
            None
        };
        if let Some((status, header)) = refusal {
            out.push(self.respond(&pending, status, None, header.as_slice()));
            return;
        }
        let (id, method, body) = (request.cseq(), request.method(), Body::of(request));
        self.carried.from_peer.push((id, pending));
        out.push(Output::Up(LegEvent::Asked { id, method, body }));
    }

    /// The other leg's answer to a request of the peer.
    pub(super) fn answer_asked(&mut self, id: u32, status: u16, body: Option<&Body>, out: &mut Vec<Output>) {
        let Some(at) = self.carried.from_peer.iter().position(|(known, _)| *known == id) else { return };
        let (_, pending) = self.carried.from_peer.remove(at);
        out.push(self.respond_with(&pending, status, body));
    }

    /// The other leg's peer asks ours.
    pub(super) fn ask(&mut self, id: u32, method: Method, body: Option<&Body>, out: &mut Vec<Output>) {
        if !self.is_established() {
            out.push(Output::Up(LegEvent::AskedAnswered { id, status: 481, body: None }));
            return;
        }
        let body = body.map(|body| (body.content_type.as_str(), &body.bytes));
        let cseq = self.in_dialog_request_with(method, body, &[], out);
        self.carried.to_peer.push((cseq, id));
    }

    /// The peer's answer to what the other leg asked.
    pub(super) fn asked_response(&mut self, response: &Message, out: &mut Vec<Output>) {
        let Some(at) = self.carried.to_peer.iter().position(|(cseq, _)| *cseq == response.cseq()) else {
            return;
        };
        let (_, id) = self.carried.to_peer.remove(at);
        // A challenge is between us and the peer: the one who asked could not answer it.
        let status = match response.status() {
            401 | 407 => 403,
            status => status,
        };
        out.push(Output::Up(LegEvent::AskedAnswered { id, status, body: Body::of(response) }));
        if matches!(response.status(), 408 | 481) && self.is_established() {
            // §12.2.1.2: the peer has lost the dialog.
            self.finish(super::EndedBy::Lost, out);
        }
    }

    /// The peer says nothing to what the other leg asked.
    pub(super) fn asked_unanswered(&mut self, cseq: u32, out: &mut Vec<Output>) {
        if !self.asked_refused(cseq, 408, out) {
            return;
        }
        if self.is_established() {
            self.lose("SIP;cause=408;text=\"request unanswered\"", out);
        }
    }

    /// A request of the other leg's ends with this status; false if it is none of them.
    pub(super) fn asked_refused(&mut self, cseq: u32, status: u16, out: &mut Vec<Output>) -> bool {
        let Some(at) = self.carried.to_peer.iter().position(|(known, _)| *known == cseq) else {
            return false;
        };
        let (_, id) = self.carried.to_peer.remove(at);
        out.push(Output::Up(LegEvent::AskedAnswered { id, status, body: None }));
        true
    }

    /// The dialog is over: nobody will answer any more.
    pub(super) fn drop_asked(&mut self, out: &mut Vec<Output>) {
        for (_, pending) in std::mem::take(&mut self.carried.from_peer) {
            out.push(self.respond(&pending, 481, None, &[]));
        }
        self.carried.to_peer.clear();
    }
}
