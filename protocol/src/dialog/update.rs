//! UPDATE (RFC 3311): a new offer without touching the INVITE, in early and in confirmed dialogs; and the choice between it and
//! a re-INVITE for offers of ours.

use bytes::Bytes;

use super::caller::sdp_of;
use super::offer_answer::Proposal;
use super::prack::Early;
use super::{Dialog, EndedBy, LegEvent, Output, Pending, Phase};
use crate::message::{ACCEPT, Header, Message, Method, NotUnderstood};
use crate::sdp::SessionDescription;
use crate::time::Now;

impl Dialog {
    /// True if a request of the peer's that may bring an offer or an answer was refused because its body is neither
    /// (RFC 3261 §8.2.3).
    pub(super) fn refuses_body(&self, pending: &Pending, out: &mut Vec<Output>) -> bool {
        let request = &pending.request;
        let negotiates = matches!(request.method(), Method::Invite | Method::Update | Method::Prack);
        let refusal = match request.understood() {
            Err(why) if negotiates => why,
            Ok(()) | Err(_) => return false,
        };
        let (status, header) = match refusal {
            NotUnderstood::Type => (415, (Header::Accept, ACCEPT)),
            NotUnderstood::Coding => (415, (Header::AcceptEncoding, "identity")),
            NotUnderstood::Malformed => {
                (400, (Header::Warning, "399 tandem \"the parts of the body are malformed\""))
            }
        };
        out.push(self.respond(pending, status, None, &[header]));
        true
    }

    /// The peer's UPDATE (§5.2). Without a description it refreshes the target and is answered here.
    pub(super) fn peer_updates(&mut self, pending: Pending, now: Now, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Closing | Phase::Ended) || self.hanging_up.is_some() {
            out.push(self.respond(&pending, 481, None, &[]));
            return;
        }
        self.note_allow(&pending.request);
        if matches!(self.phase, Phase::Calling(_)) {
            self.refresh_early_target(&pending.request);
        } else {
            self.refresh_target(&pending.request);
            self.flow = pending.source;
        }
        let Some(sdp) = sdp_of(&pending.request) else {
            out.push(self.respond(&pending, 200, None, &[]));
            return;
        };
        self.yield_to_peer(out);
        if self.our_offer_is_open(pending.request.from_tag()) {
            out.push(self.respond(&pending, 491, None, &[]));
        } else if self.their_offer_is_open() {
            let soon = self.soon();
            out.push(self.respond(&pending, 500, None, &[(Header::RetryAfter, &soon)]));
        } else {
            // Half of what the peer's Timer F allows.
            self.session.updated = Some(Box::new((pending, Some(now.mono + self.local.timers.t1 * 32))));
            out.push(Output::Up(LegEvent::Update { sdp }));
        }
    }

    /// Offers the peer a new session by re-INVITE, or asks it for an offer by one that has none.
    pub(super) fn reoffer(&mut self, sdp: Option<&Bytes>, out: &mut Vec<Output>) {
        self.propose(Proposal::new(sdp, false), out);
    }

    /// Offers the peer a new session by UPDATE if it takes that; else, in a confirmed dialog, by re-INVITE.
    pub(super) fn update(&mut self, sdp: &Bytes, out: &mut Vec<Output>) {
        let update = self.session.allows_update || !self.is_established();
        self.propose(Proposal::new(Some(sdp), update), out);
    }

    /// Offers what an early answer of ours has become, once nothing is open.
    pub(super) fn offer_what_has_changed(&mut self, out: &mut Vec<Output>) {
        if self.session.overtaken.is_none() {
            return;
        }
        let open = self.session.proposal.is_some()
            || self.unacknowledged.is_some()
            || self.hanging_up.is_some()
            || self.their_offer_is_open()
            || self.our_offer_is_open(None);
        if !self.is_established() || open {
            return;
        }
        let Some((sdp, is_offer)) = self.session.overtaken.take() else { return };
        // Unless something later has been agreed on.
        if version_of(self.in_force.told()) <= version_of(Some(&sdp)) {
            let update = self.session.allows_update;
            self.propose(Proposal::new(Some(&sdp), update).overtaking(is_offer), out);
        }
    }

    fn propose(&mut self, proposal: Proposal, out: &mut Vec<Output>) {
        let early = self.early_session();
        let tag = early.and_then(|at| self.session.early.get(at)).map(|early| early.tag.clone());
        let possible = match &self.phase {
            Phase::Confirmed => true,
            Phase::Incoming(_) | Phase::AnswerHeld(..) => {
                proposal.update && self.session.allows_update && self.session.reliable.agreed()
            }
            Phase::Calling(_) => proposal.update && self.session.allows_update && early.is_some(),
            Phase::Closing | Phase::Ended => false,
        };
        let busy = self.session.proposal.is_some()
            || self.their_offer_is_open()
            || self.our_offer_is_open(tag.as_deref());
        if !possible || busy {
            // RFC 3311 §5.2: 504 if it cannot be done now without asking anybody, 491 if another offer is in the way.
            if proposal.is_asked_for() {
                let status = if self.is_established() || possible { 491 } else { 504 };
                out.push(Output::Up(LegEvent::ReofferRefused { status }));
            }
            return;
        }
        // RFC 3261 §14.1: not before our 200 is acknowledged. Its ACK sets the proposal free.
        let until = self.unacknowledged.as_ref().map(|answer| answer.give_up);
        self.session.proposal = Some(proposal.not_before(until));
        let overtakes = self.session.pracking.is_some() && matches!(self.phase, Phase::Calling(_));
        if until.is_none() && !overtakes {
            self.send_proposal(out);
        }
    }

    /// The early dialog whose session can be changed: the last that has one.
    fn early_session(&self) -> Option<usize> {
        self.session.early.iter().rposition(|early| early.session.is_some())
    }

    /// The early dialog that our proposal goes to: one that is sent again goes where it went.
    fn early_of_proposal(&self) -> Option<usize> {
        let within = self.session.proposal.as_ref().and_then(Proposal::within);
        let known = self.session.early.iter().position(|early| Some(early.tag.as_str()) == within);
        known.or_else(|| self.early_session())
    }

    pub(super) fn send_proposal(&mut self, out: &mut Vec<Output>) {
        let Some(proposal) = &self.session.proposal else { return };
        let (sdp, update) = (proposal.sdp.clone(), proposal.update);
        if !update {
            self.send_reinvite(sdp.as_ref(), out);
        } else if self.is_established() || matches!(self.phase, Phase::Incoming(_) | Phase::AnswerHeld(..)) {
            let cseq = self.in_dialog_request(Method::Update, sdp.as_ref(), &[], out);
            self.session.updating = Some(cseq);
        } else if let Some(at) = self.early_of_proposal() {
            let mut cseq = None;
            self.within_early(at, |dialog| {
                cseq = Some(dialog.in_dialog_request(Method::Update, sdp.as_ref(), &[], out));
            });
            self.session.updating = cseq;
            let session = &mut self.session;
            if let Some((proposal, early)) = session.proposal.as_mut().zip(session.early.get(at)) {
                proposal.sent_within(&early.tag);
            }
        }
    }

    /// The peer's response to our UPDATE (§5.3).
    pub(super) fn update_response(&mut self, response: &Message, now: Now, out: &mut Vec<Output>) {
        if self.session.updating != Some(response.cseq()) {
            if response.status() >= 200 {
                self.accepted_unsent(response, out);
            }
            return;
        }
        match response.status() {
            ..=199 => {}
            200..=299 => {
                if self.is_established() {
                    self.refresh_target(response);
                }
                match sdp_of(response) {
                    Some(sdp) => {
                        self.note_early_session(response, &sdp);
                        self.proposal_answered(sdp, out);
                    }
                    None => self.proposal_refused(502, out),
                }
            }
            status if self.session.proposal.as_ref().is_some_and(Proposal::is_withdrawn) => {
                self.proposal_refused(status, out);
            }
            491 => self.proposal_met_glare(now, out),
            // RFC 4028 §7.4: again, with what the peer wants, in an early dialog too.
            422 if self.timer.too_brief(response) => self.send_proposal(out),
            // It does not take UPDATE after all, whatever its Allow says.
            405 | 501 if self.is_established() => {
                self.session.allows_update = false;
                self.session.updating = None;
                if let Some(proposal) = &mut self.session.proposal {
                    proposal.update = false;
                }
                self.send_proposal(out);
            }
            status @ (408 | 481) if self.is_established() => {
                // RFC 3261 §12.2.1.2: the peer has lost the dialog.
                self.proposal_refused(status, out);
                self.finish(EndedBy::Lost, out);
            }
            status => self.proposal_refused(status, out),
        }
    }

    /// Our UPDATE was not answered at all.
    pub(super) fn update_unanswered(&mut self, cseq: u32, out: &mut Vec<Output>) {
        if self.session.updating == Some(cseq) {
            self.proposal_refused(408, out);
            if self.is_established() {
                self.lose("SIP;cause=408;text=\"UPDATE unanswered\"", out);
            }
        }
    }

    fn note_early_session(&mut self, response: &Message, sdp: &Bytes) {
        if let Some(early) = self.early_mut(response.to_tag()) {
            early.session = Some(sdp.clone());
        }
    }

    /// The peer's offer in an early dialog of our INVITE is answered: the 2xx may repeat the first session, but this one holds.
    pub(super) fn note_early_offer(&mut self, update: &Message) {
        if let Some(early) = self.early_mut(update.from_tag()) {
            early.session = sdp_of(update);
        }
    }

    /// The early dialog with that tag of the peer's.
    pub(super) fn early_mut(&mut self, tag: Option<&str>) -> Option<&mut Early> {
        self.session.early.iter_mut().find(|early| Some(early.tag.as_str()) == tag)
    }
}

/// The version that the origin of a description has (RFC 4566 §5.2).
fn version_of(sdp: Option<&Bytes>) -> Option<u64> {
    sdp.and_then(|sdp| SessionDescription::parse(sdp).ok()).map(|sdp| sdp.origin.version)
}
