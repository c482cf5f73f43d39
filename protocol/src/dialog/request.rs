//! Requests within a dialog: who, where and how (RFC 3261 §12.2.1.1).

use std::borrow::Cow;

use bytes::Bytes;

use super::reinvite::Reinvite;
use super::{Dialog, Output, PROBE_SPREAD, Routing};
use crate::decimal::{Decimal, push_hex};
use crate::flow::Flow;
use crate::message::{Builder, Contacts, Header, Message, Method, NameAddr, Uri};
use crate::time::Now;

impl Dialog {
    pub(super) fn next_branch(&mut self) -> String {
        self.sent += 1;
        let mut branch = String::with_capacity(self.local_tag.len() + 16);
        branch.push_str("z9hG4bK");
        branch.push_str(&self.local_tag);
        branch.push('.');
        push_hex(&mut branch, self.sent.into(), 1);
        branch
    }

    /// A request of ours in an established dialog could not be sent. That counts as a 503 (§8.1.3.1), which ends no dialog (§12.2.1.2):
    /// the way to the peer may be there again before either side needs it.
    pub(super) fn unsent(&mut self, method: Method, cseq: u32, now: Now, out: &mut Vec<Output>) {
        if self.timer.refreshing == Some(cseq) {
            self.reoffering.take_if(|reoffering| *reoffering == cseq);
            self.timer.postpone(false, now.mono);
        } else if [self.reoffering, self.session.updating].contains(&Some(cseq)) {
            // What was not in it cannot be accepted.
            let asked = self.session.solicited == Some(cseq);
            let proposal = self.session.proposal.as_ref().filter(|_| !asked);
            let offered = proposal.and_then(|proposal| proposal.sdp.clone());
            self.session.unsent = offered.map(|sdp| (cseq, sdp));
            self.proposal_refused(503, out);
            self.in_force.offer_is_void();
        } else if method == Method::Options {
            self.probe_at = Some(now.mono + PROBE_SPREAD);
        } else {
            self.asked_refused(cseq, 503, out);
        }
    }

    /// The headers every request of ours begins with.
    pub(super) fn request_head(
        &self,
        message: &mut Builder,
        method: &str,
        cseq: u32,
        branch: &str,
        max_forwards: u8,
    ) {
        message.texts(Header::Via, &[&self.local.via, ";branch=", branch, ";rport"]);
        message.own(Header::MaxForwards, &[Decimal::of(max_forwards.into()).as_str()]);
        message.texts(Header::From, &[&self.local_party]);
        message.texts(Header::To, &[&self.remote_party]);
        message.texts(Header::CallId, &[&self.call_id]);
        message.own(Header::CSeq, &[Decimal::of(cseq.into()).as_str(), " ", method]);
    }

    /// The Request-URI and Route headers: loose routing, or strict if the first route has no `lr`.
    pub(super) fn request_line(&self) -> (&str, Vec<Cow<'_, str>>) {
        let Some(first) = self.route_set.first() else { return (&self.remote_target, Vec::new()) };
        let first_uri = NameAddr::parse(first).map_or(first.as_str(), |name| name.uri);
        let loose = Uri::parse(first_uri).is_ok_and(|uri| uri.param("lr").is_some());
        let routes = self.route_set.iter().map(|route| Cow::Borrowed(route.as_str()));
        if loose {
            (&self.remote_target, routes.collect())
        } else {
            let target = Cow::Owned(["<", &self.remote_target, ">"].concat());
            (first_uri, routes.skip(1).chain([target]).collect())
        }
    }

    /// Where a request within the dialog is sent.
    pub(super) fn next_hop(&self) -> Flow {
        if self.routing == Routing::Flow {
            return self.flow;
        }
        let named = match self.route_set.first() {
            Some(route) => {
                NameAddr::parse(route).ok().and_then(|name| Uri::parse(name.uri).ok()?.socket_addr())
            }
            None => Uri::parse(&self.remote_target).ok().and_then(|uri| uri.socket_addr()),
        };
        match named {
            Some(remote) => self.flow.towards(remote),
            None => self.flow,
        }
    }

    /// §12.2.1.2: a Contact in a target refresh request, or in its 2xx, replaces the remote target.
    pub(super) fn refresh_target(&mut self, message: &Message) {
        if let Ok(Contacts::List(contacts)) = message.contacts()
            && let Some(contact) = contacts.first()
        {
            self.remote_target = contact.uri.to_owned();
        }
    }

    /// Sends a request within the dialog and returns its CSeq number.
    pub(super) fn in_dialog_request(
        &mut self,
        method: Method,
        sdp: Option<&Bytes>,
        extra: &[(Header, &str)],
        out: &mut Vec<Output>,
    ) -> u32 {
        self.in_dialog_request_with(method, sdp.map(|sdp| ("application/sdp", sdp)), extra, out)
    }

    /// The same with a body of any type.
    pub(super) fn in_dialog_request_with(
        &mut self,
        method: Method,
        body: Option<(&str, &Bytes)>,
        extra: &[(Header, &str)],
        out: &mut Vec<Output>,
    ) -> u32 {
        self.local_cseq += 1;
        let cseq = self.local_cseq;
        let branch = self.next_branch();
        let (uri, routes) = self.request_line();
        let mut message = Builder::request(method.as_str(), uri);
        self.request_head(&mut message, method.as_str(), cseq, &branch, 70);
        for route in &routes {
            message.texts(Header::Route, &[route]);
        }
        if matches!(method, Method::Invite | Method::Update) {
            message.texts(Header::Contact, &[&self.local.contact]);
            message.own(Header::Allow, &[super::callee::ALLOW]);
        }
        if matches!(method, Method::Invite | Method::Update) {
            self.timer.write_request_headers(&mut message);
        }
        for (header, value) in extra {
            message.texts(*header, &[value]);
        }
        let message = message.finish(body.map(|(kind, bytes)| (kind, bytes.as_ref())));
        self.account.note(cseq, method, &message);
        if method == Method::Bye {
            self.bye = Some(cseq);
        }
        if method == Method::Invite {
            let reinvite = Reinvite::new(cseq, message.clone(), branch.clone(), self.next_hop());
            self.reinvite = Some(Box::new(reinvite));
        }
        let mut timers = self.local.timers;
        if method == Method::Invite {
            // A place that is silent is soon left for another; a session that is up has only this peer (§14.1, Timer B).
            timers.give_up = timers.t1 * 64;
        }
        out.push(Output::Request { message, method, branch, cseq, to: self.next_hop(), timers });
        cseq
    }
}
