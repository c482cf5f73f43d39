//! From a callee's answer to two connected sides: the answer is written, its checkpoint committed, and only then sent.

use bytes::Bytes;

use super::reoffer::{Reoffer, Reply};
use super::{CALLER, COMMIT_PATIENCE, Call, Cause, Destination, LegId, Output, Phase, Side};
use crate::dialog::Command;
use crate::proxy_list::Outcome;
use crate::time::Now;

impl Call {
    /// A callee has answered: it is the one, and the others stop ringing.
    pub(super) fn callee_answered(&mut self, leg: LegId, sdp: &Bytes, now: Now, out: &mut Vec<Output>) {
        if !self.choose(leg, now, out) {
            return;
        }
        // An early exchange that the callee began is as it was: repeating it changes nothing.
        let answer = if self.caller_answers() {
            self.sdp.carry_offer(Side::Callee, &self.media, sdp).map(|carried| (carried.sdp, carried.view))
        } else if self.callee_offers() {
            self.cross_answers(leg, sdp, out).map(|sdp| (sdp, None))
        } else {
            self.sdp.answer_to_caller(&self.media, sdp)
        };
        match answer {
            Ok((sdp, view)) => {
                if view.is_some() {
                    out.push(Output::Media { side: Side::Callee, view, held: self.sdp.held() });
                }
                self.expect_answer_to_our_offer();
                self.commit(sdp, now, out);
            }
            Err(refusal) => self.clear(Cause::Media, Side::Engine, refusal.status(), now, out),
        }
    }

    /// A callee has answered with the offer that the caller has asked for: his ACK will bring the answer.
    pub(super) fn callee_answered_with_offer(
        &mut self,
        leg: LegId,
        sdp: &Bytes,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if !self.choose(leg, now, out) {
            return;
        }
        if !self.caller_answers() {
            match self.cross_answers(leg, sdp, out) {
                Ok(sdp) => self.commit(sdp, now, out),
                Err(refusal) => self.clear(Cause::Media, Side::Engine, refusal.status(), now, out),
            }
            return;
        }
        match self.sdp.carry_offer(Side::Callee, &self.media, sdp) {
            Ok(carried) => {
                self.reoffer = Some(Box::new(Reoffer {
                    from: leg,
                    offer: carried.offer,
                    text: sdp.clone(),
                    view: carried.view,
                    reply: Reply::Acknowledgement,
                    ..Reoffer::ours(CALLER)
                }));
                self.commit(carried.sdp, now, out);
            }
            Err(refusal) => self.clear(Cause::Media, Side::Engine, refusal.status(), now, out),
        }
    }

    /// Makes a leg the callee and ends the others; false if it comes too late.
    pub(super) fn choose(&mut self, leg: LegId, now: Now, out: &mut Vec<Output>) -> bool {
        let ending = self.leg(leg).is_none_or(|leg| leg.ending || leg.gone);
        if self.phase != Phase::Hunting || ending {
            // Too late: another was quicker, or the caller has gone (RFC 3261 §13.2.2.4).
            self.tell_to_end(leg, 487, Some("SIP;cause=200;text=\"answered elsewhere\""), out);
            return false;
        }
        self.callee = Some(leg);
        self.turn_to(leg, out);
        self.end_early_session_of_others(leg, now, out);
        if let Destination::Trunk { hunt, .. } = &mut self.destination {
            hunt.on_outcome(now.mono, Outcome::Status(200));
        }
        self.end_all_but(leg, "SIP;cause=200;text=\"answered elsewhere\"", out);
        true
    }

    /// Every callee but this one stops ringing.
    pub(super) fn end_all_but(&mut self, leg: LegId, reason: &str, out: &mut Vec<Output>) {
        let others: Vec<LegId> =
            self.legs.iter().filter(|l| l.id != CALLER && l.id != leg && !l.gone).map(|l| l.id).collect();
        for other in others {
            self.tell_to_end(other, 487, Some(reason), out);
        }
    }

    pub(super) fn answer_as_service(&mut self, now: Now, out: &mut Vec<Output>) {
        let answer = if self.sdp.is_offerless() {
            self.expect_answer_to_our_offer();
            self.sdp.service_offer(&self.media, &self.codecs)
        } else {
            self.sdp.answer_as_service(&self.media).map(|(sdp, _)| sdp)
        };
        match answer {
            Ok(sdp) => self.commit(sdp, now, out),
            Err(refusal) => self.clear(Cause::Media, Side::Engine, refusal.status(), now, out),
        }
    }

    pub(super) fn commit(&mut self, sdp: Bytes, now: Now, out: &mut Vec<Output>) {
        self.phase = Phase::Committing;
        self.sdp.forget_what_was_said();
        self.codecs.settle();
        self.answered_at = Some(now.wall);
        self.deadline = Some(now.mono + COMMIT_PATIENCE);
        out.push(Output::Tell(CALLER, Command::PrepareAnswer { sdp }));
    }

    /// The caller's 200 is written: now everything the checkpoint needs is there. It may be on its way already, if that took too long.
    pub(super) fn answer_ready(&mut self, leg: LegId, now: Now, out: &mut Vec<Output>) {
        if self.replacement.is_some() {
            self.newcomer_ready(leg, now, out);
        } else if matches!(self.phase, Phase::Committing | Phase::Up) {
            out.push(Output::Commit);
        }
    }

    /// The caller has never got his 200: he was not answered.
    pub(super) fn answer_unsent(&mut self, leg: LegId, status: u16, out: &mut Vec<Output>) {
        if leg == CALLER {
            self.answered_at = None;
            if let Some(verdict) = &mut self.verdict {
                verdict.status = status;
            }
            out.push(Output::AnswerUnsent);
        }
    }

    /// The checkpoint is safe, or will not be in time: the caller gets his answer.
    pub(super) fn committed(&mut self, protected: bool, _now: Now, out: &mut Vec<Output>) {
        if self.phase == Phase::Committing {
            self.phase = Phase::Up;
            self.deadline = None;
            out.push(Output::Tell(CALLER, Command::SendAnswer));
            out.push(Output::Answered { protected });
        }
        self.newcomer_committed(protected, out);
    }
}
