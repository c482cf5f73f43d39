//! The early session: what a callee says reliably before it answers (RFC 3262 §5), and which leg has it.

use bytes::Bytes;

use super::reoffer::{Reoffer, Reply};
use super::{CALLER, Call, Destination, LegId, MediaPlan, Output, Phase, Side};
use crate::dialog::Command;
use crate::sdp::negotiate::NegotiationError;
use crate::time::Now;

impl Call {
    /// True if the INVITEs of this call leave without an offer, so that a callee makes it.
    pub(super) fn callee_offers(&self) -> bool {
        self.delayed || (matches!(self.media, MediaPlan::Bypass) && self.sdp.is_offerless())
    }

    /// True if what a callee offers must wait for the caller's answer.
    pub(super) fn caller_answers(&self) -> bool {
        self.callee_offers() && self.sdp.is_offerless()
    }

    /// Whether callees may answer provisionally and reliably. What one of them offers then must be answered by the caller in a
    /// PRACK: so it must know that, and there may be one callee only.
    pub(super) fn may_be_reliable(&self) -> bool {
        !self.caller_answers() || (self.caller_takes_reliable && self.is_sole_callee())
    }

    /// Whether the caller may see what a callee will send before there is an answer: a description in a provisional response must be
    /// that of the 2xx (RFC 3261 §13.2.1). Where media crosses us it is ours whoever answers.
    pub(super) fn may_preview(&self) -> bool {
        self.is_sole_callee() || !matches!(self.media, MediaPlan::Bypass)
    }

    fn is_sole_callee(&self) -> bool {
        match &self.destination {
            Destination::Station { contacts, .. } => contacts.is_one_device(),
            Destination::Trunk { .. } => true,
            Destination::Service | Destination::Refused { .. } => false,
        }
    }

    /// A callee's reliable provisional response has a description that holds.
    pub(super) fn callee_early_session(
        &mut self,
        leg: LegId,
        status: u16,
        sdp: &Bytes,
        out: &mut Vec<Output>,
    ) {
        if !self.alerting(leg, out) {
            return;
        }
        self.turn_to(leg, out);
        let carried = if self.caller_answers() {
            let carried = self.sdp.carry_offer(Side::Callee, &self.media, sdp).ok();
            if let Some(carried) = &carried {
                self.reoffer = Some(Box::new(Reoffer {
                    from: leg,
                    offer: carried.offer.clone(),
                    text: sdp.clone(),
                    view: carried.view.clone(),
                    reply: Reply::Acknowledgement,
                    ..Reoffer::ours(CALLER)
                }));
            }
            carried.map(|carried| carried.sdp)
        } else if self.callee_offers() {
            self.cross_answers(leg, sdp, out).ok()
        } else {
            self.early_answer(sdp, out)
        };
        let command = match carried {
            Some(sdp) if self.is_sole_callee() => {
                self.early = Some(leg);
                Command::EarlySession { status, sdp }
            }
            // With several callees the one who answers may be another: to the caller it is but a preview.
            sdp => Command::Progress { status, sdp: sdp.filter(|_| self.may_preview()) },
        };
        out.push(Output::Tell(CALLER, command));
    }

    /// Both sides have offered: each gets its answer, the callee in its ACK or PRACK; what the caller gets is given back.
    pub(super) fn cross_answers(
        &mut self,
        leg: LegId,
        sdp: &Bytes,
        out: &mut Vec<Output>,
    ) -> Result<Bytes, NegotiationError> {
        let crossed = self.sdp.cross_answers(&self.media, sdp)?;
        if !matches!(self.media, MediaPlan::Bypass) {
            self.agree(Side::Caller, crossed.caller_view, out);
            self.agree(Side::Callee, crossed.callee_view, out);
        }
        out.push(Output::Tell(leg, Command::Acknowledge { sdp: crossed.to_callee }));
        Ok(crossed.to_caller)
    }

    fn early_answer(&mut self, sdp: &Bytes, out: &mut Vec<Output>) -> Option<Bytes> {
        let (sdp, view) = self.sdp.answer_to_caller(&self.media, sdp).ok()?;
        if view.is_some() {
            out.push(Output::Media { side: Side::Callee, view, held: false });
        }
        self.expect_answer_to_our_offer();
        Some(sdp)
    }

    /// The caller, who offered nothing, gets an offer of ours: his ACK or PRACK brings the answer.
    pub(super) fn expect_answer_to_our_offer(&mut self) {
        if self.sdp.is_offerless() && !self.callee_offers() && !self.caller_answered && self.reoffer.is_none()
        {
            self.reoffer = Some(Box::new(Reoffer::ours(CALLER)));
        }
    }

    /// Another callee than `answered` had the early session: what was being changed in it is of no use any more.
    pub(super) fn end_early_session_of_others(&mut self, answered: LegId, now: Now, out: &mut Vec<Output>) {
        if let Some(other) = self.early.filter(|early| *early != answered) {
            self.end_early_session(other, now, out);
        }
    }

    /// The early session of a leg is over.
    pub(super) fn end_early_session(&mut self, leg: LegId, now: Now, out: &mut Vec<Output>) {
        if self.early != Some(leg) {
            return;
        }
        self.early = None;
        self.reoffer_refused(leg, 504, now, out);
        self.reoffer.take_if(|open| open.from == leg);
    }

    /// The early session of a callee is over, while others of its branches may still answer (RFC 6228). What the caller has
    /// answered cannot be taken back: then the final response is waited for.
    pub(super) fn callee_early_ended(&mut self, leg: LegId, now: Now, out: &mut Vec<Output>) {
        if self.phase == Phase::Hunting && !self.early_session_is_lost_with(leg) {
            self.end_early_session(leg, now, out);
        }
    }

    /// The callee whose offer the caller has answered in vain: nobody else can be called with that answer.
    pub(super) fn early_session_is_lost_with(&self, leg: LegId) -> bool {
        self.early == Some(leg) && self.caller_answers()
    }
}
