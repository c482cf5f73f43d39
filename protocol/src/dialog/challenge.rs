//! A peer, or a proxy on the way to it, that asks who sends it a request (RFC 3261 §22): the request is sent once more, with the answer
//! to each challenge. Several may ask, one after the other or at once; each is answered once, and once more if only its nonce was
//! too old. Between processes, and after a fault, only the name of the account is kept.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::caller::Credentials;
use super::{Dialog, Output, Phase};
use crate::digest::Challenge;
use crate::flow::Flow;
use crate::message::{Builder, Header, Limits, Message, Method};
use crate::time::Now;

/// How often one request is sent again with more answers.
const MOST_TRIES: u8 = 4;
/// Requests that may wait for their answers at once: a PRACK to each of several forks, an INFO while a re-INVITE waits.
const MOST_OPEN: usize = 16;
/// Servers and proxies that are told apart; no path is longer.
const MOST_ASKING: usize = 16;

/// What a challenge is answered from.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Account {
    /// Where the settings have the credentials.
    name: Option<String>,
    /// Never written down: a checkpoint holds no password.
    #[serde(skip)]
    credentials: Option<Box<Credentials>>,
    /// Our requests that have no final answer, but for the INVITE that makes the dialog.
    #[serde(skip)]
    open: Vec<Sent>,
    /// What was answered of that INVITE.
    #[serde(skip)]
    invite: Tried,
    /// The BYEs of its branches that were not kept, each with the peer's tag and its way.
    #[serde(skip)]
    lost: Vec<(String, Flow, Sent)>,
    /// Who has asked so far.
    #[serde(skip)]
    asked: Vec<Asked>,
}

/// A request of ours that may be challenged.
#[derive(Clone)]
struct Sent {
    cseq: u32,
    method: Method,
    request: Bytes,
    tried: Tried,
}

/// What one request has been through.
#[derive(Clone, Default)]
struct Tried {
    /// How often it was challenged.
    times: u8,
    /// The places in [`Account::asked`] of those whose answer it has.
    answered: Vec<usize>,
}

/// Somebody who has asked.
#[derive(Clone)]
struct Asked {
    /// `WWW-Authenticate` or `Proxy-Authenticate`.
    by: Header,
    challenge: Challenge,
    /// How many requests were sent with its nonce.
    nc: u32,
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

    /// True if a checkpoint has all of it that the settings have not.
    pub(super) fn is_saved(&self) -> bool {
        let named = self.credentials.is_none() || self.name.is_some();
        named && self.open.is_empty() && self.lost.is_empty() && self.asked.is_empty()
    }

    /// A request is sent within the dialog.
    pub(super) fn note(&mut self, cseq: u32, method: Method, request: &Bytes) {
        if self.credentials.is_some() || self.name.is_some() {
            if self.open.len() == MOST_OPEN {
                self.open.remove(0);
            }
            let tried = Tried::default();
            self.open.push(Sent { cseq, method, request: request.clone(), tried });
        }
    }

    /// A branch of the INVITE is ended by the last request of `other`, its dialog.
    pub(super) fn note_lost(&mut self, tag: &str, to: Flow, other: &mut Account) {
        let bye = other.open.pop().filter(|sent| sent.method == Method::Bye);
        if let Some(bye) = bye.filter(|_| self.lost.len() < MOST_OPEN) {
            self.lost.push((tag.to_owned(), to, bye));
        }
    }

    /// The INVITE that makes the dialog is sent; `signed`: it has our answers to challenges.
    pub(super) fn invites(&mut self, signed: bool) {
        if !signed {
            self.invite = Tried::default();
        }
    }

    /// The place of the request that a response is for.
    fn open_at(&self, (cseq, method): (u32, Method)) -> Option<usize> {
        // A CANCEL has the number of its INVITE.
        self.open.iter().position(|sent| (sent.cseq, sent.method) == (cseq, method))
    }

    /// The request with that number has had its final answer.
    fn settle(&mut self, request: (u32, Method)) {
        if let Some(at) = self.open_at(request) {
            self.open.remove(at);
        }
    }

    /// The answers for `response`, a 401 or 407 to the INVITE that makes the dialog; see [`Account::answers`].
    pub(super) fn answers_for_invite(
        &mut self,
        response: &Message,
        uri: &str,
        cnonce: &str,
    ) -> Option<Vec<(Header, String)>> {
        let mut tried = std::mem::take(&mut self.invite);
        let answers = self.answers(&mut tried, response, ("INVITE", uri), cnonce);
        self.invite = tried;
        answers
    }

    /// The answers for `response`, a 401 or 407 to our request; `None` if there are none, or if they have been refused.
    fn answers(
        &mut self,
        tried: &mut Tried,
        response: &Message,
        (method, uri): (&str, &str),
        cnonce: &str,
    ) -> Option<Vec<(Header, String)>> {
        tried.times += 1;
        if self.credentials.is_none() || tried.times > MOST_TRIES || !self.take(tried, response) {
            return None;
        }
        let who = self.credentials.as_deref()?;
        let answered = |at: usize| tried.answered.contains(&at);
        let asked = self.asked.iter_mut().enumerate().filter(|(at, _)| answered(*at));
        let answers = asked.map(|(_, asked)| {
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

    /// Takes the challenges of a response; false if there is none, or one that this request has answered already.
    fn take(&mut self, tried: &mut Tried, response: &Message) -> bool {
        let mut any = false;
        for by in [Header::WwwAuthenticate, Header::ProxyAuthenticate] {
            let values: Vec<&str> = response.headers(by).collect();
            for challenge in Challenge::one_of_each_realm(&values).unwrap_or_default() {
                any = true;
                let same = |asked: &Asked| asked.by == by && asked.challenge.realm == challenge.realm;
                let Some(at) = self.asked.iter().position(same) else {
                    if self.asked.len() == MOST_ASKING {
                        return false;
                    }
                    tried.answered.push(self.asked.len());
                    self.asked.push(Asked { by, challenge, nc: 0 });
                    continue;
                };
                let known = &mut self.asked[at];
                let same_nonce = known.challenge.nonce == challenge.nonce;
                let answered = tried.answered.contains(&at);
                if answered && (same_nonce || !challenge.stale) {
                    return false;
                }
                if !answered {
                    tried.answered.push(at);
                }
                let nc = if same_nonce { known.nc } else { 0 };
                *known = Asked { by, challenge, nc };
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

    /// Answers a 401 or 407 to a request of ours; false if it cannot, or has been answered before.
    pub(super) fn answer_challenge(&mut self, response: &Message, out: &mut Vec<Output>) -> bool {
        if self.answer_for_lost(response, out) {
            return true;
        }
        let early = match &self.phase {
            // A PRACK of another branch is no request of this dialog.
            _ if !self.is_from_peer(response) => return false,
            Phase::Confirmed | Phase::Closing | Phase::Incoming(_) | Phase::AnswerHeld(..) => None,
            // A PRACK or UPDATE; the INVITE itself is answered elsewhere.
            Phase::Calling(_) => {
                let of = |early: &super::prack::Early| Some(early.tag.as_str()) == response.to_tag();
                let Some(at) = self.session.early.iter().position(of) else { return false };
                Some(at)
            }
            Phase::Ended => return false,
        };
        let named = (response.cseq(), response.method());
        let Some(at) = self.account.open_at(named) else { return false };
        if self.is_cancelling(response.cseq()) {
            return false;
        }
        if self.account.credentials.is_none()
            && let Some(account) = self.account.name.clone()
        {
            out.push(Output::Challenged { account, response: response.clone() });
            return true;
        }
        let mut sent = self.account.open.remove(at);
        let Ok(request) = Message::parse(sent.request, &Limits::NONE) else { return false };
        let line = (request.method_name(), request.request_uri());
        let Some(answers) = self.account.answers(&mut sent.tried, response, line, &self.local_tag) else {
            return false;
        };
        let mut extra: Vec<(Header, &str)> = answers.iter().map(|(h, value)| (*h, value.as_str())).collect();
        // What was said of it besides what every request says.
        extra.extend([Header::Reason, Header::RAck].iter().filter_map(|h| Some((*h, request.header(*h)?))));
        let bytes = request.body_bytes();
        let body = request.header(Header::ContentType).map(|kind| (kind, &bytes));
        let mut again = 0;
        let mut send = |dialog: &mut Dialog| {
            again = dialog.in_dialog_request_with(sent.method, body, &extra, out);
        };
        match early {
            Some(at) => self.within_early(at, send),
            None => send(self),
        }
        if let Some(at) = self.account.open_at((again, sent.method)) {
            self.account.open[at].tried = sent.tried;
        }
        self.renumber(sent.method, sent.cseq, again);
        again != 0
    }

    /// The same for the BYE that ends another branch of our INVITE: it goes again once, as it was but for the answers.
    fn answer_for_lost(&mut self, response: &Message, out: &mut Vec<Output>) -> bool {
        let is_it = |(tag, _, sent): &(String, Flow, Sent)| {
            Some(tag.as_str()) == response.to_tag()
                && (sent.cseq, sent.method) == (response.cseq(), response.method())
        };
        let Some(at) = self.account.lost.iter().position(is_it) else { return false };
        let (_, to, mut sent) = self.account.lost.remove(at);
        let Ok(request) = Message::parse(sent.request, &Limits::NONE) else { return false };
        let line = (request.method_name(), request.request_uri());
        let Some(answers) = self.account.answers(&mut sent.tried, response, line, &self.local_tag) else {
            return false;
        };
        self.local_cseq += 1;
        let (branch, cseq) = (self.next_branch(), self.local_cseq);
        let mut message = Builder::request(line.0, line.1);
        message.texts(Header::Via, &[&self.local.via, ";branch=", &branch, ";rport"]);
        message.header(Header::CSeq, format_args!("{cseq} {}", line.0));
        for header in
            [Header::MaxForwards, Header::From, Header::To, Header::CallId, Header::Reason, Header::Route]
        {
            for value in request.headers(header) {
                message.header(header, value);
            }
        }
        for (header, value) in &answers {
            message.header(*header, value);
        }
        let (message, method, timers) = (message.finish(None), sent.method, self.local.timers);
        out.push(Output::Request { message, method, branch, cseq, to, timers });
        true
    }

    /// A final response has come that no challenge of ours is answered by.
    pub(super) fn settle_account(&mut self, response: &Message) {
        if response.status() >= 200 {
            self.account.settle((response.cseq(), response.method()));
        }
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
