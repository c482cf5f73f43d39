//! Our side as the caller: our INVITE until its final response (RFC 3261 §13.2, CANCEL §9.1, authentication §22.2).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::challenge::Account;
use super::{Dialog, LegEvent, LocalSide, NoAnswer, Output, Phase, Routing};
use crate::flow::Flow;
use crate::message::{Builder, Contacts, Header, Message, Method, NameAddr};
use crate::time::{Instant, Now};
use crate::transaction::Timers;

/// Who we are to a peer that asks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// An INVITE to send.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InviteSpec {
    /// The Request-URI.
    pub request_uri: String,
    /// From, without a tag.
    pub from: String,
    /// To.
    pub to: String,
    /// Call-ID; unique.
    pub call_id: String,
    /// Our tag; unique in the engine.
    pub local_tag: String,
    /// Where it goes.
    pub flow: Flow,
    /// Where requests within the dialog will go.
    pub routing: Routing,
    /// A Route set for the INVITE itself (the binding's Path).
    pub route: Vec<String>,
    /// The offer; empty to ask for one.
    pub sdp: Bytes,
    /// Whether provisional responses may be reliable (RFC 3262).
    pub reliable: bool,
    /// Max-Forwards: the caller's, less one.
    pub max_forwards: u8,
    /// Further headers, by name and value.
    pub headers: Vec<(String, String)>,
    /// The transaction's timers.
    pub timers: Timers,
    /// Answers a 401 or 407.
    pub credentials: Option<Credentials>,
    /// Where the settings have the credentials: what a checkpoint holds in place of them. `None`: nowhere.
    pub account: Option<String>,
    /// How long the peer may say nothing further after 100 before the INVITE is cancelled; `None`: for ever.
    pub progress: Option<Duration>,
}

/// Our INVITE on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Calling {
    pub(super) spec: Arc<InviteSpec>,
    branch: String,
    /// The INVITE's CSeq: a PRACK or UPDATE in its early dialogs has a higher one.
    cseq: u32,
    provisional: bool,
    /// More than 100 is due by then.
    progress_by: Option<Instant>,
    /// Set when the call wants it cancelled; sent once a provisional has come.
    cancel: Option<Option<String>>,
    /// A CANCEL was sent: without a final response by then, the INVITE counts as unanswered (§9.1).
    cancelled_until: Option<Instant>,
}

impl Calling {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.cancelled_until.or(self.progress_by)
    }

    /// The call wants it cancelled, or it is being so.
    pub(super) fn is_given_up(&self) -> bool {
        self.cancel.is_some() || self.cancelled_until.is_some()
    }

    /// A provisional response: 100 says only that the next server has the INVITE.
    fn heard(&mut self, status: u16, now: Now) {
        self.progress_by = match (status, self.provisional) {
            (100, false) => self.spec.progress.map(|patience| now.mono + patience),
            (100, true) => self.progress_by,
            _ => None,
        };
        self.provisional = true;
    }
}

impl Dialog {
    /// A dialog that begins with our INVITE, which is pushed to `out`.
    pub fn calling(spec: impl Into<Arc<InviteSpec>>, local: Arc<LocalSide>, out: &mut Vec<Output>) -> Dialog {
        let spec: Arc<InviteSpec> = spec.into();
        let local_party = [&spec.from, ";tag=", &spec.local_tag].concat();
        let mut dialog =
            Dialog::new(local, spec.routing, spec.flow, &spec.call_id, &spec.local_tag, local_party);
        dialog.remote_party.clone_from(&spec.to);
        dialog.remote_target.clone_from(&spec.request_uri);
        dialog.route_set.clone_from(&spec.route);
        dialog.in_force.we_offer(&spec.sdp);
        dialog.account = Account::new(spec.account.clone(), spec.credentials.clone());
        dialog.invite(spec, &[], out);
        dialog
    }

    /// The dialog of an INVITE that `calling` has sent and whose state was lost: it only waits to cancel or to hang up. `last` is what
    /// was sent last of it, by CSeq and branch: a challenge or a 422 has it sent again. Where it was lost over the final response
    /// (`heard`) nothing is left to cancel: the dialog is to handle that next, and ends what it has made.
    pub fn calling_after_fault(
        spec: Arc<InviteSpec>,
        local: Arc<LocalSide>,
        last: Option<(u32, &str)>,
        heard: Option<&Message>,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Dialog {
        let mut unsent = Vec::new();
        let mut dialog = Dialog::calling(spec, local, &mut unsent);
        let Phase::Calling(calling) = &mut dialog.phase else { return dialog };
        calling.provisional = true;
        if let Some((cseq, branch)) = last {
            calling.cseq = cseq;
            branch.clone_into(&mut calling.branch);
            // Above whatever was sent in its early dialogs.
            dialog.local_cseq = cseq + super::RESTORED_CSEQ_GAP;
            dialog.sent += super::RESTORED_CSEQ_GAP;
        }
        let is_final = |heard: &&Message| {
            heard.method() == Method::Invite && heard.status() >= 200 && heard.cseq() == calling.cseq
        };
        if heard.filter(is_final).is_some() {
            calling.cancel = Some(None);
            calling.cancelled_until = Some(now.mono + calling.spec.timers.t1 * 64);
        } else {
            dialog.end(500, None, now, out);
        }
        dialog
    }

    fn invite(&mut self, spec: Arc<InviteSpec>, answers: &[(Header, String)], out: &mut Vec<Output>) {
        self.account.invites(!answers.is_empty());
        self.local_cseq += 1;
        let branch = self.next_branch();
        let mut message = Builder::request("INVITE", &spec.request_uri);
        self.request_head(&mut message, "INVITE", self.local_cseq, &branch, spec.max_forwards);
        for route in &spec.route {
            message.texts(Header::Route, &[route]);
        }
        message.texts(Header::Contact, &[&self.local.contact]);
        message.own(Header::Allow, &[super::callee::ALLOW]);
        if spec.reliable {
            message.own(Header::Supported, &[self.supported()]);
        } else if self.replaces {
            message.own(Header::Supported, &[super::callee::REPLACES]);
        }
        self.timer.write_request_headers(&mut message);
        for (name, value) in &spec.headers {
            message.raw_header(name, value);
        }
        for (header, value) in answers {
            message.header(*header, value);
        }
        out.push(Output::Request {
            message: message.finish(sdp_body(&spec.sdp)),
            method: Method::Invite,
            branch: branch.clone(),
            cseq: self.local_cseq,
            to: spec.flow,
            timers: spec.timers,
        });
        self.phase = Phase::Calling(Box::new(Calling {
            spec,
            branch,
            cseq: self.local_cseq,
            provisional: false,
            progress_by: None,
            cancel: None,
            cancelled_until: None,
        }));
    }

    pub(super) fn invite_response(&mut self, response: &Message, now: Now, out: &mut Vec<Output>) {
        let status = response.status();
        let Phase::Calling(calling) = &mut self.phase else { return };
        if response.cseq() != calling.cseq {
            if (200..300).contains(&status) {
                // A branch has taken the INVITE that another one challenged, and that we have sent anew.
                self.end_other_branch(response, out);
            }
            return;
        }
        match status {
            ..=199 => {
                calling.heard(status, now);
                let offered = !calling.spec.sdp.is_empty();
                if calling.cancel.is_some() {
                    self.send_cancel(now, out);
                    self.acknowledge_in_passing(response, offered, out);
                } else if status > 100 {
                    if status == 199 {
                        return self.early_dialog_over(response, offered, out);
                    }
                    self.forks.proceeds(response.to_tag());
                    if let Some(sdp) = sdp_of(response).filter(|_| offered) {
                        self.forks.note_early(response.to_tag(), &sdp);
                    }
                    let heard = self.early_response(response, offered, out);
                    out.extend(heard.map(Output::Up));
                }
            }
            200..=299 => self.answered(response, now, out),
            401 | 407 if calling.cancel.is_none() && calling.spec.credentials.is_some() => {
                self.authorize(response, out);
            }
            422 if calling.cancel.is_none() && self.timer.too_brief(response) => {
                let spec = calling.spec.clone();
                self.invite(spec, &[], out);
            }
            _ => {
                if (300..400).contains(&status) && calling.cancel.is_none() {
                    out.push(Output::Up(LegEvent::Redirected { contacts: contacts_of(response) }));
                }
                let reason = response.reason().to_owned();
                self.invite_failed(status, reason, response.retry_after(), None, out);
            }
        }
    }

    fn answered(&mut self, response: &Message, now: Now, out: &mut Vec<Output>) {
        let Phase::Calling(calling) = &self.phase else { return };
        let (given_up, offered) = (calling.cancel.is_some(), !calling.spec.sdp.is_empty());
        self.timer.accepted(response, now.mono);
        self.become_dialog_of(response);
        self.forks.offered_by_peer = !offered;
        if given_up {
            // The 200 crossed our CANCEL (§9.1): what was answered is ended.
            if let Some(offer) = sdp_of(response).filter(|_| !offered) {
                self.refuse_offer_in_ack(response.cseq(), &offer);
            }
            self.acknowledge(response.cseq(), out);
            self.bye(None, out);
        } else {
            self.settle_invite(response, offered, out);
        }
    }

    fn authorize(&mut self, response: &Message, out: &mut Vec<Output>) {
        let Phase::Calling(calling) = &self.phase else { return };
        let spec = calling.spec.clone();
        match self.account.answers_for_invite(response, &spec.request_uri, &self.local_tag) {
            Some(answers) => self.invite(spec, &answers, out),
            None => {
                let reason = "challenge not understood, or answered in vain".to_owned();
                self.invite_failed(response.status(), reason, None, None, out);
            }
        }
    }

    fn invite_failed(
        &mut self,
        status: u16,
        reason: String,
        retry_after: Option<u32>,
        unanswered: Option<NoAnswer>,
        out: &mut Vec<Output>,
    ) {
        self.phase = Phase::Ended;
        // An UPDATE of an early dialog waits for nobody any more.
        self.drop_update_of(|_| true, out);
        out.push(Output::Up(LegEvent::Failed { status, reason, retry_after, unanswered }));
        out.push(Output::Finished);
    }

    pub(super) fn invite_unanswered(&mut self, why: NoAnswer, out: &mut Vec<Output>) {
        let (status, reason) = match why {
            NoAnswer::Timeout => (408, "no response"),
            NoAnswer::Transport => (503, "could not be sent"),
        };
        self.invite_failed(status, reason.to_owned(), None, Some(why), out);
    }

    /// Cancels our INVITE: now, or as soon as a provisional shows that the peer has it.
    pub(super) fn cancel(&mut self, reason: Option<&str>, now: Now, out: &mut Vec<Output>) {
        let Phase::Calling(calling) = &mut self.phase else { return };
        if calling.cancel.is_none() {
            calling.cancel = Some(reason.map(str::to_owned));
            if calling.provisional {
                self.send_cancel(now, out);
            }
        }
    }

    /// The time of a deadline of our INVITE has come.
    pub(super) fn invite_timeout(&mut self, now: Now, out: &mut Vec<Output>) {
        let Phase::Calling(calling) = &mut self.phase else { return };
        if calling.cancelled_until.is_some_and(|at| at <= now.mono) {
            self.invite_unanswered(NoAnswer::Timeout, out);
        } else if calling.cancel.is_none() && calling.progress_by.is_some_and(|at| at <= now.mono) {
            calling.progress_by = None;
            out.push(Output::Up(LegEvent::NoProgress));
            self.cancel(Some("SIP;cause=408;text=\"no progress\""), now, out);
        }
    }

    fn send_cancel(&mut self, now: Now, out: &mut Vec<Output>) {
        let Phase::Calling(calling) = &mut self.phase else { return };
        if calling.cancelled_until.is_some() {
            return;
        }
        calling.cancelled_until = Some(now.mono + calling.spec.timers.t1 * 64);
        let (branch, to, timers) = (calling.branch.clone(), calling.spec.flow, calling.spec.timers);
        let (uri, route) = (calling.spec.request_uri.clone(), calling.spec.route.clone());
        let (cseq, reason) = (calling.cseq, calling.cancel.clone().flatten());
        let mut message = Builder::request("CANCEL", &uri);
        self.request_head(&mut message, "CANCEL", cseq, &branch, 70);
        for route in &route {
            message.texts(Header::Route, &[route]);
        }
        if let Some(reason) = reason {
            message.header(Header::Reason, reason);
        }
        out.push(Output::Request {
            message: message.finish(None),
            method: Method::Cancel,
            branch,
            cseq,
            to,
            timers,
        });
    }

    /// A response to an INVITE that already has its final: a repeated 2xx, a second branch's 2xx, or one to a re-INVITE.
    pub(super) fn late_invite_response(&mut self, response: &Message, now: Now, out: &mut Vec<Output>) {
        let status = response.status();
        if self.reoffering == Some(response.cseq()) {
            self.reoffer_response(response, now, out);
        } else if (200..300).contains(&status) {
            if response.to_tag() == self.remote_tag.as_deref() {
                if self.owes_ack(response.cseq()) {
                    return;
                }
                // Its ACK was lost. It may be an earlier INVITE's: a re-INVITE does not wait for the peer to have the ACK.
                self.acknowledge_again(response, out);
            } else {
                self.end_other_branch(response, out);
            }
        }
    }
}

fn sdp_body(sdp: &Bytes) -> Option<(&'static str, &[u8])> {
    (!sdp.is_empty()).then(|| ("application/sdp", sdp.as_ref()))
}

/// The session description a message carries, if any. A body of another type, or one that is encoded, is none.
pub(super) fn sdp_of(message: &Message) -> Option<Bytes> {
    message.session_description()
}

/// The contacts of a redirection, those of the highest q first (RFC 3261 §20.10); without one it counts as 1.
fn contacts_of(response: &Message) -> Vec<String> {
    let Ok(Contacts::List(contacts)) = response.contacts() else { return Vec::new() };
    let quality =
        |contact: &NameAddr<'_>| contact.param("q").and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
    let mut contacts: Vec<(f32, &str)> =
        contacts.iter().map(|contact| (quality(contact), contact.uri)).collect();
    contacts.sort_by(|a, b| b.0.total_cmp(&a.0));
    contacts.into_iter().map(|(_, uri)| uri.to_owned()).collect()
}
