//! Refreshing the session (RFC 4028 §7.4, §10): what a dialog does when its session timer says so.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::caller::sdp_of;
use super::session_timer::Due;
use super::{Dialog, EndedBy, LegEvent, Output, Pending, ServerTransactionId};
use crate::message::{Header, Message, Method};
use crate::time::Now;

/// The session descriptions in force, to be said again as they are: an unchanged one asks for nothing (RFC 3264 §8).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct InForce {
    /// Ours, as the peer has it.
    pub(super) told: Option<Bytes>,
    /// The peer's.
    pub(super) heard: Option<Bytes>,
    /// Ours in a re-INVITE that waits for the peer.
    pub(super) offered: Option<Bytes>,
    /// True if the peer takes UPDATE (RFC 3311).
    updates: bool,
}

impl InForce {
    /// Both sides have agreed on these.
    pub(super) fn agree(&mut self, told: Option<Bytes>, heard: Option<Bytes>) {
        self.told = told.or_else(|| self.told.take());
        self.heard = heard.or_else(|| self.heard.take());
    }

    /// Learns from Allow whether the peer takes UPDATE.
    pub(super) fn note_allow(&mut self, message: &Message) {
        if message.header(Header::Allow).is_some() {
            self.updates = message.has_token(Header::Allow, "UPDATE");
        }
    }
}

impl Dialog {
    /// Follows what was just sent: a 2xx to an INVITE or UPDATE of the peer's starts its session's time.
    pub(super) fn note_answers(&mut self, sent: &[Output], now: Now) {
        for output in sent {
            if let Output::Respond { transaction, status, .. } = output {
                self.timer.answered(*transaction, *status, now.mono);
            }
        }
    }

    /// True if the peer's INVITE or UPDATE was refused because its interval is too small (§9).
    pub(super) fn refuses_interval(&mut self, pending: &Pending, out: &mut Vec<Output>) -> bool {
        let request = &pending.request;
        if !matches!(request.method(), Method::Invite | Method::Update) {
            return false;
        }
        if let Some(min_se) = self.local.session.refuses(request) {
            out.push(self.respond(pending, 422, None, &[(Header::MinSe, &min_se.to_string())]));
            return true;
        }
        self.note_asked(pending.transaction, request);
        false
    }

    pub(super) fn note_asked(&mut self, transaction: ServerTransactionId, request: &Message) {
        self.in_force.note_allow(request);
        self.timer.asked(transaction, request);
    }

    /// A re-INVITE that only refreshes the session, and says what is in force already, is answered here with this: the other side
    /// need not hear of it.
    pub(super) fn unchanged(&self, reinvite: &Message, offer: &Bytes) -> Option<Bytes> {
        let refresh = reinvite.header(Header::SessionExpires).is_some();
        let unchanged = refresh && self.in_force.heard.as_ref() == Some(offer);
        self.in_force.told.clone().filter(|_| unchanged)
    }

    pub(super) fn session_due(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.is_established() {
            return;
        }
        match self.timer.due(now.mono) {
            Due::Nothing => {}
            Due::Refresh => self.refresh(now, out),
            Due::Expired => {
                out.push(Output::Up(LegEvent::Ended { by: EndedBy::SessionExpired }));
                self.hanging_up = None;
                self.bye(Some("SIP;cause=408;text=\"session timer expired\""), out);
            }
        }
    }

    /// By UPDATE without a description if the peer takes it, else by a re-INVITE with the one it knows (§7.4).
    fn refresh(&mut self, now: Now, out: &mut Vec<Output>) {
        let busy = self.reoffering.is_some() || self.reoffered.is_some() || self.unacknowledged.is_some();
        let told = self.in_force.told.clone();
        if busy || self.hanging_up.is_some() || (told.is_none() && !self.in_force.updates) {
            // A re-INVITE that is under way refreshes the session if it succeeds.
            self.timer.postpone(busy, now.mono);
        } else if self.in_force.updates {
            let cseq = self.in_dialog_request(Method::Update, None, &[], out);
            self.timer.refreshing = Some(cseq);
        } else {
            let cseq = self.in_dialog_request(Method::Invite, told.as_ref(), &[], out);
            self.reoffering = Some(cseq);
            self.timer.refreshing = Some(cseq);
        }
    }

    /// The peer's response to our refresh. A 2xx has been noted by the session timer already.
    pub(super) fn refresh_response(&mut self, response: &Message, now: Now, out: &mut Vec<Output>) {
        let (status, cseq) = (response.status(), response.cseq());
        if status < 200 {
            return;
        }
        self.timer.refreshing = None;
        self.reoffering.take_if(|reoffering| *reoffering == cseq);
        match status {
            200..=299 => {
                self.refresh_target(response);
                if response.method() == Method::Invite {
                    self.in_force.agree(None, sdp_of(response));
                    self.acknowledge(cseq, out);
                }
            }
            408 | 481 => self.finish(EndedBy::Lost, out),
            422 if self.timer.too_brief(response) => self.refresh(now, out),
            405 | 501 if response.method() == Method::Update => {
                // It does not take UPDATE after all, whatever its Allow says.
                self.in_force.updates = false;
                self.refresh(now, out);
            }
            status => self.timer.postpone(status == 491, now.mono),
        }
    }

    /// Our refresh was not answered at all (§10).
    pub(super) fn refresh_unanswered(&mut self, cseq: u32, out: &mut Vec<Output>) {
        self.timer.refreshing = None;
        self.reoffering.take_if(|reoffering| *reoffering == cseq);
        if self.is_established() {
            self.lose("SIP;cause=408;text=\"refresh unanswered\"", out);
        }
    }
}
