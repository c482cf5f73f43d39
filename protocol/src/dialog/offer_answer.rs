//! Which offers are open in a dialog, and where their answers go (RFC 3264 §5, RFC 6337 §2).
//!
//! An offer travels in an INVITE, a reliable provisional response, a PRACK, an UPDATE or a 2xx; its answer in what completes that
//! message. At most one is open at a time, in either direction: a second of the peer's is refused with 500, one that crosses
//! ours with 491, and ours that met a 491 is tried again after the back-off of RFC 3261 §14.1.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::as_told::refusal_of;
use super::caller::sdp_of;
use super::{Dialog, EndedBy, LegEvent, Output, Pending, Phase, prack};
use crate::message::{Header, Message, Method};
use crate::time::{Instant, Now};

/// An offer of ours is tried so often again after a 491 before whoever asked for it is told.
const GLARE_RETRIES: u8 = 1;

/// What the two sides of a dialog know of their session, and what is open between them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Session {
    /// The peer has said that it takes UPDATE (RFC 3311 §4).
    pub(super) allows_update: bool,
    /// Our reliable provisional responses to the peer's INVITE.
    pub(super) reliable: prack::Server,
    /// The early dialogs that our INVITE has made.
    pub(super) early: Vec<prack::Early>,
    /// The peer's offer in a response: our ACK or PRACK waits for the answer.
    pub(super) owed: Option<Owed>,
    /// The answer in our ACK of the INVITE with this CSeq: a repeated 2xx gets it again.
    pub(super) acknowledged: Option<(u32, Bytes)>,
    /// The peer's offer in an UPDATE or PRACK that waits for the call's answer, and until when it may.
    pub(super) updated: Option<Box<(Pending, Option<Instant>)>>,
    /// Our offer, or our wish for one, that the peer has not answered.
    pub(super) proposal: Option<Proposal>,
    /// The CSeq of our UPDATE that waits for the peer.
    pub(super) updating: Option<u32>,
    /// The CSeq of our PRACK that waits for the peer: an UPDATE that overtakes it would have it refused (RFC 3261 §12.2.2).
    pub(super) pracking: Option<u32>,
    /// Our last offer that counted as unsent, and its CSeq: the peer may have it all the same.
    pub(super) unsent: Option<(u32, Bytes)>,
    /// The CSeq of our last re-INVITE, if it left the offer to the peer.
    pub(super) solicited: Option<u32>,
    /// The description that the caller was last told, while its 200 can still say another.
    pub(super) told: Option<Bytes>,
    /// The first description that the caller has seen in an unreliable response: it may take no other for the answer
    /// (RFC 3261 §13.2.1).
    pub(super) previewed: Option<Bytes>,
    /// What the peer is to be offered once its ACK is here, as an early description of ours no longer holds; and whether this is an
    /// offer too.
    pub(super) overtaken: Option<(Bytes, bool)>,
}

/// The peer's offer in a response.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Owed {
    /// In the 2xx to the INVITE with this CSeq.
    Ack { cseq: u32, offer: Bytes },
    /// In a reliable provisional response.
    Prack { tag: String, rack: String, offer: Bytes },
}

impl Owed {
    /// True if it is what a PRACK in the early dialog `of` waits for.
    pub(super) fn is_prack_of(&self, of: &str) -> bool {
        matches!(self, Owed::Prack { tag, .. } if tag == of)
    }
}

/// An offer of ours within the dialog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Proposal {
    /// The offer; `None` asks the peer for one.
    pub(super) sdp: Option<Bytes>,
    /// By UPDATE rather than re-INVITE.
    pub(super) update: bool,
    /// The tag of the early dialog of our INVITE that it was sent in.
    within: Option<String>,
    /// Nobody has asked for it, so nobody is told of its end.
    own: bool,
    /// It takes the place of an early description, which the call may or may not wait to hear answered.
    overtakes: bool,
    /// Whoever has asked for it has taken that back.
    withdrawn: bool,
    retries: u8,
    /// When it is tried again.
    retry_at: Option<Instant>,
}

impl Proposal {
    pub(super) fn new(sdp: Option<&Bytes>, update: bool) -> Proposal {
        Proposal {
            sdp: sdp.cloned(),
            update,
            within: None,
            own: false,
            overtakes: false,
            withdrawn: false,
            retries: 0,
            retry_at: None,
        }
    }

    /// The same, in the place of an early description of ours: an answer, or an offer whose answer may be waited for.
    pub(super) fn overtaking(self, is_offer: bool) -> Proposal {
        Proposal { own: !is_offer, overtakes: is_offer, ..self }
    }

    /// True if somebody waits for its outcome.
    pub(super) fn is_asked_for(&self) -> bool {
        !self.own
    }

    /// The same, kept for a while.
    pub(super) fn not_before(self, retry_at: Option<Instant>) -> Proposal {
        Proposal { retry_at, ..self }
    }

    /// It is now sent in the early dialog with that tag.
    pub(super) fn sent_within(&mut self, tag: &str) {
        self.within = Some(tag.to_owned());
    }

    /// The tag of the early dialog that it was sent in.
    pub(super) fn within(&self) -> Option<&str> {
        self.within.as_deref()
    }

    /// Nobody wants to hear of it any more.
    pub(super) fn withdraw(&mut self) {
        self.own = true;
        self.withdrawn = true;
    }

    /// True if it has been taken back.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn
    }

    /// True while it is not on its way.
    pub(super) fn waits(&self) -> bool {
        self.retry_at.is_some()
    }
}

/// RFC 3261 §14.1: who owns the Call-ID waits 2.1 to 4 s after a 491, the other 0 to 2 s, in units of 10 ms. `random` is spread
/// over the interval.
pub fn glare_back_off(owns_call_id: bool, random: u64) -> Duration {
    let units = if owns_call_id { 210 + random % 191 } else { random % 201 };
    Duration::from_millis(units * 10)
}

/// A 2xx to an INVITE as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) message: Bytes,
    /// It carries an offer: the ACK must carry the answer.
    pub(super) offer: bool,
}

impl Answer {
    /// The 2xx that answers `pending`; what it says is an offer if the INVITE has none.
    pub(super) fn new(pending: &Pending, sdp: Option<&Bytes>, message: Bytes) -> Answer {
        Answer { message, offer: sdp.is_some() && sdp_of(&pending.request).is_none() }
    }
}

impl Dialog {
    /// A number that differs from dialog to dialog and from request to request; the tag it is made from is random.
    pub(super) fn chance(&self) -> u64 {
        let seed = self.local_tag.bytes().chain(self.local_cseq.to_be_bytes());
        let hash = crate::fnv::fnv1a(seed);
        hash ^ (hash >> 29)
    }

    /// A Retry-After for a 500 to an offer that came too early: 0 to 10 s (RFC 3261 §14.2, RFC 3311 §5.2).
    pub(super) fn soon(&self) -> String {
        (self.chance() % 11).to_string()
    }

    /// An offer of the peer's has not been answered.
    pub(super) fn their_offer_is_open(&self) -> bool {
        let invite = match &self.phase {
            Phase::Incoming(pending) | Phase::AnswerHeld(pending, _) => {
                sdp_of(&pending.request).is_some() && !self.session.reliable.settled()
            }
            Phase::Calling(_) | Phase::Confirmed | Phase::Closing | Phase::Ended => false,
        };
        invite || self.reoffered.is_some() || self.session.updated.is_some() || self.session.owed.is_some()
    }

    /// An offer of ours, or our re-INVITE that asks for one, has not been answered by the peer whose tag is `tag`.
    pub(super) fn our_offer_is_open(&self, tag: Option<&str>) -> bool {
        let early = |tag: &str| self.session.early.iter().find(|early| early.tag == tag);
        let invite = match &self.phase {
            Phase::Calling(_) => tag.and_then(early).is_none_or(|early| early.session.is_none()),
            Phase::Incoming(pending) | Phase::AnswerHeld(pending, _) => {
                // Until the offer that the INVITE asks for is made, it counts as open.
                sdp_of(&pending.request).is_none() && !self.session.reliable.agreed()
            }
            Phase::Confirmed | Phase::Closing | Phase::Ended => false,
        };
        let in_2xx = self.unacknowledged.as_ref().is_some_and(|answer| answer.offer);
        let proposed = self.session.proposal.as_ref().is_some_and(|proposal| !proposal.waits());
        // A refresh of the session offers what is in force again.
        let refreshing = self.reoffering.is_some() || self.session.updating.is_some();
        invite || in_2xx || proposed || refreshing
    }

    /// True while an exchange within the established dialog is open, in either direction: what the two sides know of the session, and
    /// of who refreshes it, is about to change.
    pub fn is_negotiating(&self) -> bool {
        let session = &self.session;
        let ours = self.reoffering.or(session.updating).or(self.timer.refreshing).is_some();
        self.is_established() && (ours || session.proposal.is_some() || self.their_offer_is_open())
    }

    /// The peer's own offer comes while ours waits to be tried again: ours has lost.
    pub(super) fn yield_to_peer(&mut self, out: &mut Vec<Output>) {
        if self.session.proposal.as_ref().is_some_and(Proposal::waits) {
            self.proposal_refused(491, out);
        }
    }

    /// Ends our proposal; whoever asked for it is told.
    pub(super) fn proposal_refused(&mut self, status: u16, out: &mut Vec<Output>) {
        self.reoffering = None;
        self.session.updating = None;
        if self.session.proposal.take().is_none_or(|proposal| !proposal.own) {
            out.push(Output::Up(LegEvent::ReofferRefused { status }));
        }
    }

    /// The peer has answered our proposal.
    pub(super) fn proposal_answered(&mut self, sdp: Bytes, out: &mut Vec<Output>) {
        self.reoffering = None;
        self.session.updating = None;
        let Some(proposal) = self.session.proposal.take() else { return };
        if let Some(sdp) = &proposal.sdp {
            self.note_told(sdp);
        }
        if proposal.withdrawn {
            self.in_force.offer_is_accepted();
        }
        if !proposal.own {
            out.push(Output::Up(LegEvent::ReofferAnswered { sdp: sdp.clone() }));
        }
        if proposal.own || proposal.overtakes {
            out.extend(self.news(sdp));
        }
    }

    /// A 491: the proposal waits and is tried again, but not for ever.
    pub(super) fn proposal_met_glare(&mut self, now: Now, out: &mut Vec<Output>) {
        let by_rfc = || glare_back_off(!self.invited, self.chance());
        let wait = self.local.reinvite_delay.unwrap_or_else(by_rfc);
        self.reoffering = None;
        self.session.updating = None;
        match &mut self.session.proposal {
            Some(proposal) if proposal.retries < GLARE_RETRIES && !proposal.withdrawn => {
                proposal.retries += 1;
                proposal.retry_at = Some(now.mono + wait);
            }
            Some(_) | None => self.proposal_refused(491, out),
        }
    }

    /// When something here wants to be told the time.
    pub(super) fn session_deadline(&self) -> Option<Instant> {
        let retry = self.session.proposal.as_ref().and_then(|proposal| proposal.retry_at);
        let answer = self.session.updated.as_ref().and_then(|updated| updated.1);
        let provisional = match &self.phase {
            Phase::Incoming(_) | Phase::AnswerHeld(..) => self.session.reliable.deadline(),
            Phase::Calling(_) | Phase::Confirmed | Phase::Closing | Phase::Ended => None,
        };
        retry.into_iter().chain(answer).chain(provisional).min()
    }

    /// Does here what is due.
    pub(super) fn session_timeout(&mut self, now: Now, out: &mut Vec<Output>) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now.mono);
        if due(self.session.updated.as_ref().and_then(|updated| updated.1))
            && let Some((pending, _)) = self.session.updated.take().map(|updated| *updated)
        {
            self.in_force.we_refuse();
            if pending.request.method() == Method::Prack {
                self.answer_prack_as_told(&pending, out);
            } else {
                // RFC 3311 §5.2: an UPDATE cannot wait for a person.
                out.push(self.respond(&pending, 504, None, &[]));
            }
        }
        if due(self.session.proposal.as_ref().and_then(|proposal| proposal.retry_at)) {
            self.propose_again(now, out);
        }
        self.repeat_provisional(now, out);
    }

    /// Our 200 is acknowledged: what waited for that need not wait any longer.
    pub(super) fn after_ack(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.session.proposal.as_ref().is_some_and(Proposal::waits) {
            self.propose_again(now, out);
        }
    }

    fn propose_again(&mut self, now: Now, out: &mut Vec<Output>) {
        if let Some(proposal) = &mut self.session.proposal {
            proposal.retry_at = None;
        }
        if self.is_established() && (self.unacknowledged.is_some() || self.their_offer_is_open()) {
            return self.proposal_met_glare(now, out);
        }
        self.send_proposal(out);
    }

    /// The peer's description as far as it settles our INVITE: the 2xx of the early dialog `tag`, now confirmed.
    pub(super) fn settle_invite(&mut self, response: &Message, offered: bool, out: &mut Vec<Output>) {
        // Another branch's reliable response goes on being repeated until its PRACK comes (RFC 3262 §3).
        self.prack_in_vain(response.to_tag(), out);
        let early = self.session.early.iter().position(|early| Some(early.tag.as_str()) == response.to_tag());
        let early = early.map(|at| self.session.early.swap_remove(at));
        self.session.early.clear();
        self.leave_lost_branch(response.to_tag(), out);
        self.drop_update_of(|tag| tag != response.to_tag(), out);
        self.remote_cseq = early.as_ref().and_then(|early| early.remote_cseq);
        self.note_allow(response);
        let agreed = early.and_then(|early| early.session);
        // An answer that came early and is not repeated is the answer all the same (RFC 3261 §13.2.1).
        let unrepeated = self.forks.settle(response.to_tag()).filter(|_| offered);
        match (agreed, sdp_of(response).or(unrepeated)) {
            // RFC 6337 §3.1.1: what follows an answer in a reliable response is no news.
            (Some(sdp), _) => {
                self.acknowledge(response.cseq(), out);
                out.push(Output::Up(LegEvent::Answered { sdp }));
            }
            (None, Some(sdp)) if offered => {
                self.acknowledge(response.cseq(), out);
                out.push(Output::Up(LegEvent::Answered { sdp }));
            }
            (None, Some(offer)) => {
                self.session.owed = Some(Owed::Ack { cseq: response.cseq(), offer: offer.clone() });
                out.push(Output::Up(LegEvent::AnsweredWithOffer { sdp: offer }));
            }
            (None, None) => {
                self.acknowledge(response.cseq(), out);
                let reason = "the callee's 200 has no session description".to_owned();
                out.push(Output::Up(LegEvent::Failed {
                    status: 502,
                    reason,
                    retry_after: None,
                    unanswered: None,
                }));
                self.bye(Some("SIP;cause=502;text=\"no session description in 200\""), out);
            }
        }
    }

    /// The early dialog that has our UPDATE is over.
    pub(super) fn drop_proposal_within(&mut self, tag: &str, out: &mut Vec<Output>) {
        if self.session.proposal.as_ref().is_some_and(|proposal| proposal.within.as_deref() == Some(tag)) {
            self.proposal_refused(504, out);
        }
    }

    /// Another branch than `tag` has our UPDATE: whatever it says to it, or that it says nothing, is not this dialog's.
    fn leave_lost_branch(&mut self, tag: Option<&str>, out: &mut Vec<Output>) {
        let within = self.session.proposal.as_ref().and_then(|proposal| proposal.within.as_deref());
        if self.session.updating.is_some() && within.is_some() && within != tag {
            self.proposal_refused(491, out);
        }
    }

    /// The call has the answer to the offer in the peer's response: our ACK or PRACK takes it.
    pub(super) fn acknowledge_with(&mut self, sdp: &Bytes, out: &mut Vec<Output>) {
        match self.session.owed.take() {
            Some(Owed::Ack { cseq, .. }) => {
                self.session.acknowledged = Some((cseq, sdp.clone()));
                self.acknowledge(cseq, out);
            }
            Some(Owed::Prack { tag, rack, offer }) => self.prack(&tag, &rack, Some((sdp, offer)), out),
            None => {}
        }
    }

    /// The dialog ends before there is an answer to the peer's offer: it gets its ACK, with every stream refused.
    pub(super) fn acknowledge_in_vain(&mut self, out: &mut Vec<Output>) {
        match self.session.owed.take() {
            Some(Owed::Ack { cseq, offer }) => {
                self.refuse_offer_in_ack(cseq, &offer);
                self.acknowledge(cseq, out);
            }
            Some(Owed::Prack { .. }) | None => {}
        }
    }

    /// A 2xx that offers has its answer in the ACK, also where the dialog is ended right after (RFC 3261 §13.2.2.4).
    pub(super) fn refuse_offer_in_ack(&mut self, cseq: u32, offer: &Bytes) {
        self.session.acknowledged = refusal_of(offer, self.in_force.told()).map(|sdp| (cseq, sdp));
    }

    /// The ACK of a 2xx that carried our offer must carry the answer; false if the dialog has ended for want of it.
    pub(super) fn answer_in_ack(&mut self, ack: &Message, out: &mut Vec<Output>) -> bool {
        match sdp_of(ack) {
            Some(sdp) => {
                out.push(Output::Up(LegEvent::ReofferAnswered { sdp }));
                true
            }
            None => {
                out.push(Output::Up(LegEvent::Ended { by: EndedBy::NoSession }));
                self.bye(Some("SIP;cause=488;text=\"no answer in ACK\""), out);
                false
            }
        }
    }

    /// Answers the peer's offer in whatever it came.
    pub(super) fn answer_reoffer(&mut self, sdp: &Bytes, now: Now, out: &mut Vec<Output>) {
        if self.session.updated.is_some() || self.reoffered.is_some() {
            self.in_force.we_answer(sdp);
            // Whatever was to follow on our early answer is older than this.
            self.session.overtaken = None;
        }
        if let Some((pending, _)) = self.session.updated.take().map(|updated| *updated) {
            self.note_told(sdp);
            self.note_early_offer(&pending.request);
            out.push(self.respond(&pending, 200, Some(sdp), &[]));
        } else if let Some(pending) = self.reoffered.take()
            && let Output::Respond { message, .. } = self.respond(&pending, 200, Some(sdp), &[])
        {
            let answer = Answer::new(&pending, Some(sdp), message);
            self.answer_until_acknowledged(&pending, answer, now, out);
        } else if self.is_established() {
            // Its CANCEL, or our 504, was quicker.
            let heard = self.in_force.heard().cloned();
            out.extend(heard.map(|heard| Output::Up(LegEvent::AnsweredTooLate { heard })));
        }
    }

    fn note_told(&mut self, sdp: &Bytes) {
        if matches!(self.phase, Phase::Incoming(_)) {
            self.session.told = Some(sdp.clone());
        }
    }

    /// Refuses the peer's offer; the session stays as it was.
    pub(super) fn refuse_reoffer(&mut self, status: u16, out: &mut Vec<Output>) {
        let pending = self
            .session
            .updated
            .take()
            .map(|updated| updated.0)
            .or_else(|| self.reoffered.take().map(|pending| *pending));
        if let Some(pending) = pending {
            if pending.request.method() == Method::Prack {
                return self.answer_prack_as_told(&pending, out);
            }
            let soon = self.soon();
            let extra = [(Header::RetryAfter, soon.as_str())];
            let extra = if status == 500 { &extra[..] } else { &[] };
            out.push(self.respond(&pending, status, None, extra));
        }
    }

    /// The dialog ends: what the peer still waits for is answered with 487.
    pub(super) fn refuse_what_is_open(&mut self, out: &mut Vec<Output>) {
        let updated = self.session.updated.take().map(|updated| updated.0);
        for pending in self.reoffered.take().map(|pending| *pending).into_iter().chain(updated) {
            if pending.request.method() == Method::Prack {
                self.answer_prack_as_told(&pending, out);
            } else {
                out.push(self.respond(&pending, 487, None, &[]));
            }
        }
        self.session.proposal = None;
        self.session.updating = None;
    }

    /// Learns from Allow whether the peer takes UPDATE.
    pub(super) fn note_allow(&mut self, message: &Message) {
        if message.header(Header::Allow).is_some() {
            self.session.allows_update = message.has_token(Header::Allow, "UPDATE");
        }
    }
}

impl Session {
    /// What is left of it after a restart of the process: exchanges that were under way within the dialog are not.
    pub(super) fn restore(&mut self) {
        self.reliable = prack::Server::default();
        self.early.clear();
        self.updated = None;
        self.proposal = None;
        self.updating = None;
        self.pracking = None;
    }
}
