//! Re-INVITE across the bridge (RFC 3261 §14): hold, retrieve, a changed codec or address.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{CALLER, Call, LegId, MediaPlan, Output, Phase, Side};
use crate::dialog::Command;
use crate::sdp::SessionDescription;
use crate::sdp::negotiate::AudioView;

/// A new offer that is being carried to the other side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reoffer {
    from: LegId,
    to: LegId,
    offer: Option<SessionDescription>,
    view: Option<AudioView>,
}

impl Call {
    fn other(&self, leg: LegId) -> Option<LegId> {
        if leg == CALLER { self.callee } else { Some(CALLER) }
    }

    pub(super) fn leg_reoffers(&mut self, leg: LegId, sdp: &Bytes, out: &mut Vec<Output>) {
        if self.phase != Phase::Up {
            out.push(Output::Tell(leg, Command::RefuseReoffer { status: 491 }));
            return;
        }
        if matches!(self.media, MediaPlan::Service { .. }) {
            self.service_reoffered(leg, sdp, out);
            return;
        }
        let Some(to) = self.other(leg) else { return };
        if self.reoffer.is_some() {
            out.push(Output::Tell(leg, Command::RefuseReoffer { status: 491 }));
            return;
        }
        match self.sdp.carry_offer(Call::side(leg), &self.media, sdp) {
            Ok(carried) => {
                self.reoffer = Some(Reoffer { from: leg, to, offer: carried.offer, view: carried.view });
                out.push(Output::Tell(to, Command::Reoffer { sdp: carried.sdp }));
            }
            Err(refusal) => out.push(Output::Tell(leg, Command::RefuseReoffer { status: refusal.status() })),
        }
    }

    fn service_reoffered(&mut self, leg: LegId, sdp: &Bytes, out: &mut Vec<Output>) {
        match self.sdp.service_reanswer(&self.media, sdp) {
            Ok(carried) => {
                self.agree(Side::Caller, carried.view, out);
                out.push(Output::Tell(leg, Command::AnswerReoffer { sdp: carried.sdp }));
                out.push(Output::Refresh);
            }
            Err(refusal) => out.push(Output::Tell(leg, Command::RefuseReoffer { status: refusal.status() })),
        }
    }

    pub(super) fn reoffer_answered(&mut self, leg: LegId, sdp: &Bytes, out: &mut Vec<Output>) {
        let Some(reoffer) = self.reoffer.take_if(|reoffer| reoffer.to == leg) else { return };
        let to = Call::side(reoffer.from);
        match self.sdp.carry_answer(to, &self.media, reoffer.offer.as_ref(), sdp) {
            Ok(carried) => {
                self.note(to, reoffer.view.as_ref());
                self.note(Call::side(leg), carried.view.as_ref());
                self.agree(to, reoffer.view, out);
                self.agree(Call::side(leg), carried.view, out);
                out.push(Output::Tell(reoffer.from, Command::AnswerReoffer { sdp: carried.sdp }));
                out.push(Output::Refresh);
            }
            Err(refusal) => {
                out.push(Output::Tell(reoffer.from, Command::RefuseReoffer { status: refusal.status() }));
            }
        }
    }

    pub(super) fn reoffer_refused(&mut self, leg: LegId, status: u16, out: &mut Vec<Output>) {
        if let Some(reoffer) = self.reoffer.take_if(|reoffer| reoffer.to == leg) {
            // Silence and a lost dialog are the other side's; the one who asked is told that it did not work.
            let lost = matches!(status, 408 | 481);
            let status = if lost { 488 } else { super::hunt::refusal_for_caller(status) };
            out.push(Output::Tell(reoffer.from, Command::RefuseReoffer { status }));
        }
    }

    fn note(&mut self, side: Side, view: Option<&AudioView>) {
        if let Some(view) = view {
            self.sdp.note_direction(side, view.direction);
        }
    }

    fn agree(&mut self, side: Side, view: Option<AudioView>, out: &mut Vec<Output>) {
        if let Some(view) = view {
            self.sdp.note_direction(side, view.direction);
            out.push(Output::Media { side, view, held: self.sdp.held() });
        }
    }
}
