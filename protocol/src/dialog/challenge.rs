//! A peer that asks who sends it a request within the dialog (RFC 3261 §22): BYE, re-INVITE, UPDATE, INFO and OPTIONS are sent once
//! more, with the answer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::caller::Credentials;
use super::{Dialog, Output, Phase};
use crate::digest;
use crate::message::{Header, Limits, Message, Method};

/// What a challenge is answered from.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Account {
    /// Never written down: a checkpoint holds no password.
    #[serde(skip)]
    pub(super) credentials: Option<Box<Credentials>>,
    /// The CSeq number of our last request, and the request.
    #[serde(skip)]
    last: Option<(u32, Bytes)>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the password nor what was made of it is for a log.
        f.write_str("Account")
    }
}

impl Account {
    /// A request is sent.
    pub(super) fn note(&mut self, cseq: u32, request: &Bytes) {
        if self.credentials.is_some() {
            self.last = Some((cseq, request.clone()));
        }
    }
}

impl Dialog {
    /// Answers a 401 or 407 to our last request; false if it cannot, or has been answered before.
    pub(super) fn answer_challenge(&mut self, response: &Message, out: &mut Vec<Output>) -> bool {
        if !matches!(self.phase, Phase::Confirmed | Phase::Closing) {
            return false;
        }
        let Some((cseq, request)) = self.account.last.take_if(|(cseq, _)| *cseq == response.cseq()) else {
            return false;
        };
        let Ok(request) = Message::parse(request, &Limits::NONE) else { return false };
        let (asks, answers) = if response.status() == 401 {
            (Header::WwwAuthenticate, Header::Authorization)
        } else {
            (Header::ProxyAuthenticate, Header::ProxyAuthorization)
        };
        // A CANCEL has the number of its INVITE.
        if request.method() != response.method() || self.is_cancelling(cseq) {
            return false;
        }
        if request.header(answers).is_some() {
            return false;
        }
        let Some(value) = self.answer_to(&response.headers(asks).collect::<Vec<_>>(), &request) else {
            return false;
        };
        let mut extra = vec![(answers, value.as_str())];
        // What was said of it besides what every request says.
        extra.extend([Header::Reason, Header::RAck].iter().filter_map(|h| Some((*h, request.header(*h)?))));
        let bytes = request.body_bytes();
        let body = request.header(Header::ContentType).map(|kind| (kind, &bytes));
        let again = self.in_dialog_request_with(request.method(), body, &extra, out);
        self.renumber(request.method(), cseq, again);
        true
    }

    fn answer_to(&self, challenges: &[&str], request: &Message) -> Option<String> {
        let who = self.account.credentials.as_ref()?;
        let (method, uri, cnonce) = (request.method_name(), request.request_uri(), &self.local_tag);
        digest::answer(challenges, method, uri, &who.username, &who.password, cnonce, 1).ok()
    }

    /// The request with number `from` goes on as number `to`.
    fn renumber(&mut self, method: Method, from: u32, to: u32) {
        let places = [&mut self.reoffering, &mut self.session.updating, &mut self.timer.refreshing];
        for place in places.into_iter().flatten().filter(|number| **number == from) {
            *place = to;
        }
        if matches!(method, Method::Info | Method::Message) {
            self.carried.renumber(from, to);
        }
    }
}
