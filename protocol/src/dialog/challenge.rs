//! A peer, or a proxy on the way to it, that asks who sends it a request (RFC 3261 §22): the request is sent once more, with the answer
//! to each challenge. Several may ask, one after the other or at once; each is answered once, and once more if only its nonce was
//! too old. Between processes, and after a fault, only the name of the account is kept.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::caller::Credentials;
use super::{Dialog, Output, Phase};
use crate::digest::Challenge;
use crate::message::{Header, Limits, Message, Method};
use crate::time::Now;

/// How often one request is sent again with more answers.
const MOST_TRIES: u8 = 4;

/// What a challenge is answered from.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Account {
    /// Where the settings have the credentials.
    name: Option<String>,
    /// Never written down: a checkpoint holds no password.
    #[serde(skip)]
    credentials: Option<Box<Credentials>>,
    /// The CSeq number of our last request, and the request.
    #[serde(skip)]
    last: Option<(u32, Bytes)>,
    /// Who has asked so far.
    #[serde(skip)]
    asked: Vec<Asked>,
    /// How often the last request was sent again.
    #[serde(skip)]
    tries: u8,
}

/// Somebody who has asked.
#[derive(Clone)]
struct Asked {
    /// `WWW-Authenticate` or `Proxy-Authenticate`.
    by: Header,
    challenge: Challenge,
    /// How many requests were sent with its nonce.
    nc: u32,
    /// Our last request has had the answer.
    answered: bool,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the password nor what was made of it is for a log.
        f.debug_struct("Account").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Account {
    /// That of a call which the account `name` makes, or takes.
    pub(super) fn new(name: Option<String>, credentials: Option<Credentials>) -> Account {
        Account { name, credentials: credentials.map(Box::new), ..Account::default() }
    }

    /// A request is sent; `signed`: it has our answers to challenges.
    pub(super) fn note(&mut self, cseq: u32, request: &Bytes, signed: bool) {
        if self.credentials.is_some() || self.name.is_some() {
            self.last = Some((cseq, request.clone()));
        }
        self.begins(signed);
    }

    /// The same for one that the account need not keep.
    pub(super) fn begins(&mut self, signed: bool) {
        if !signed {
            self.tries = 0;
            self.asked.iter_mut().for_each(|asked| asked.answered = false);
        }
    }

    /// The answers for `response`, a 401 or 407 to our request; `None` if there are none, or if they have been refused.
    pub(super) fn answers(
        &mut self,
        response: &Message,
        (method, uri): (&str, &str),
        cnonce: &str,
    ) -> Option<Vec<(Header, String)>> {
        self.tries += 1;
        if self.credentials.is_none() || self.tries > MOST_TRIES || !self.take(response) {
            return None;
        }
        let who = self.credentials.as_deref()?;
        let answers = self.asked.iter_mut().filter(|asked| asked.answered).map(|asked| {
            asked.nc += 1;
            let (user, password) = (&who.username, &who.password);
            let value = asked.challenge.answer(method, uri, user, password, cnonce, asked.nc);
            let by = if asked.by == Header::WwwAuthenticate {
                Header::Authorization
            } else {
                Header::ProxyAuthorization
            };
            (by, value)
        });
        Some(answers.collect())
    }

    /// Takes the challenges of a response; false if there is none, or one that has had its answer already.
    fn take(&mut self, response: &Message) -> bool {
        let mut any = false;
        for by in [Header::WwwAuthenticate, Header::ProxyAuthenticate] {
            let values: Vec<&str> = response.headers(by).collect();
            for challenge in Challenge::one_of_each_realm(&values).unwrap_or_default() {
                any = true;
                let known =
                    self.asked.iter_mut().find(|a| a.by == by && a.challenge.realm == challenge.realm);
                let Some(known) = known else {
                    self.asked.push(Asked { by, challenge, nc: 0, answered: true });
                    continue;
                };
                let same_nonce = known.challenge.nonce == challenge.nonce;
                if known.answered && (same_nonce || !challenge.stale) {
                    return false;
                }
                let nc = if same_nonce { known.nc } else { 0 };
                *known = Asked { by, challenge, nc, answered: true };
            }
        }
        any
    }
}

impl Dialog {
    /// The same dialog, whose challenges are answered by what the settings have under `account`.
    pub fn with_account(mut self, account: Option<String>) -> Dialog {
        self.account = Account::new(account, None);
        self
    }

    /// Answers a 401 or 407 to our last request; false if it cannot, or has been answered before.
    pub(super) fn answer_challenge(&mut self, response: &Message, out: &mut Vec<Output>) -> bool {
        let early = match &self.phase {
            Phase::Confirmed | Phase::Closing | Phase::Incoming(_) | Phase::AnswerHeld(..) => None,
            // A PRACK or UPDATE; the INVITE itself is answered elsewhere.
            Phase::Calling(_) => {
                let of = |early: &super::prack::Early| Some(early.tag.as_str()) == response.to_tag();
                let Some(at) = self.session.early.iter().position(of) else { return false };
                Some(at)
            }
            Phase::Ended => return false,
        };
        let Some((cseq, request)) = self.account.last.clone().filter(|(cseq, _)| *cseq == response.cseq())
        else {
            return false;
        };
        let Ok(request) = Message::parse(request, &Limits::NONE) else { return false };
        // A CANCEL has the number of its INVITE.
        if request.method() != response.method() || self.is_cancelling(cseq) {
            return false;
        }
        if self.account.credentials.is_none()
            && let Some(account) = self.account.name.clone()
        {
            out.push(Output::Challenged { account, response: response.clone() });
            return true;
        }
        let line = (request.method_name(), request.request_uri());
        let Some(answers) = self.account.answers(response, line, &self.local_tag) else { return false };
        let mut extra: Vec<(Header, &str)> = answers.iter().map(|(h, value)| (*h, value.as_str())).collect();
        // What was said of it besides what every request says.
        extra.extend([Header::Reason, Header::RAck].iter().filter_map(|h| Some((*h, request.header(*h)?))));
        let bytes = request.body_bytes();
        let body = request.header(Header::ContentType).map(|kind| (kind, &bytes));
        let mut again = 0;
        let mut send = |dialog: &mut Dialog| {
            again = dialog.in_dialog_request_with(request.method(), body, &extra, out);
        };
        match early {
            Some(at) => self.within_early(at, send),
            None => send(self),
        }
        self.renumber(request.method(), cseq, again);
        again != 0
    }

    /// The answer to [`Output::Challenged`]: from now on challenges are answered with these; without any, they are refusals.
    pub(super) fn take_credentials(
        &mut self,
        credentials: Option<&Credentials>,
        challenge: &Message,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if credentials.is_none() {
            self.account.name = None;
        }
        self.account.credentials = credentials.cloned().map(Box::new);
        self.response(challenge, now, out);
    }

    /// The request with number `from` goes on as number `to`.
    fn renumber(&mut self, method: Method, from: u32, to: u32) {
        let places = [&mut self.reoffering, &mut self.session.updating, &mut self.timer.refreshing];
        for place in places.into_iter().flatten().filter(|number| **number == from) {
            *place = to;
        }
        self.session.solicited.iter_mut().filter(|number| **number == from).for_each(|number| *number = to);
        if matches!(method, Method::Info | Method::Message) {
            self.carried.renumber(from, to);
        }
    }
}
