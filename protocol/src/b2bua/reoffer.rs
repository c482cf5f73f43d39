//! Offers across the bridge (RFC 3261 §14, RFC 3311, RFC 3264 §8): hold, retrieve, a changed codec or address, and the
//! exchanges that begin with no offer at all.
//!
//! One exchange at a time. It is the offerer's until the other side has answered it:
//!
//! ```text
//! offer of X ───► Command::Reoffer / Update to Y ───► answer of Y ───► Command::AnswerReoffer to X
//! X asks ───────► Command::Solicit to Y ───► offer of Y ───► Command::AnswerReoffer to X, which now owes the answer
//!                 Command::Acknowledge to Y ◄─── answer in X's ACK
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{CALLER, Call, Cause, LegId, MediaPlan, Output, Phase, Side};
use crate::dialog::Command;
use crate::sdp::SessionDescription;
use crate::sdp::negotiate::{AudioView, media_view};
use crate::time::Now;

/// What an offer came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Means {
    Invite,
    Update,
    Prack,
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Into the response to the request that brought the offer.
    Response(Means),
    /// Into the ACK or PRACK of the response that brought it.
    Acknowledgement,
    /// Nowhere: the offer was ours.
    Ours,
    /// There is no offer yet: the other side was asked for one.
    Solicited,
    /// Nowhere: the offer only undoes one that was taken back.
    Undo,
    /// Into the 200 of somebody who takes the place of a leg.
    Newcomer,
}

/// An offer that waits for the answer of leg `to`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reoffer {
    pub(super) from: LegId,
    pub(super) to: LegId,
    pub(super) offer: Option<SessionDescription>,
    /// The offer as it came, for a caller that cannot be refused.
    pub(super) text: Bytes,
    pub(super) view: Option<AudioView>,
    pub(super) reply: Reply,
}

impl Reoffer {
    /// The exchange in which a leg answers an offer of our own.
    pub(super) fn ours(to: LegId) -> Reoffer {
        Reoffer { from: to, to, offer: None, text: Bytes::new(), view: None, reply: Reply::Ours }
    }

    /// True for what must go on after a restart: the answer to the first offer is still to come.
    pub(super) fn outlives_restart(&self) -> bool {
        matches!(self.reply, Reply::Acknowledgement | Reply::Ours)
    }
}

impl Call {
    /// The leg at the other side of an offer, if there is one that can take it now.
    fn other(&self, leg: LegId) -> Option<LegId> {
        match self.phase {
            Phase::Up => self.across(leg),
            // Before the answer only the two ends of the early session have one to change.
            Phase::Hunting if leg == CALLER => self.early,
            Phase::Hunting => self.early.filter(|early| *early == leg).map(|_| CALLER),
            Phase::New | Phase::Committing | Phase::Clearing | Phase::Over => None,
        }
    }

    pub(super) fn leg_offers(&mut self, leg: LegId, sdp: &Bytes, means: Means, out: &mut Vec<Output>) {
        if self.phase == Phase::Up && matches!(self.media, MediaPlan::Service { .. }) {
            self.service_reoffered(leg, sdp, out);
            return;
        }
        let to = self.other(leg).filter(|_| self.reoffer.is_none() && !self.is_between());
        let Some(to) = to else {
            // RFC 3311 §5.2: what would have to wait for the callee is 504.
            let early = self.phase == Phase::Hunting && self.reoffer.is_none();
            self.refuse_offer(leg, sdp, means, if early { 504 } else { 491 }, out);
            return;
        };
        if self.phase == Phase::Hunting {
            self.sdp.note_said(self.side(leg), sdp);
        }
        match self.sdp.carry_offer(self.side(leg), &self.media, sdp) {
            Ok(carried) => {
                self.reoffer = Some(Box::new(Reoffer {
                    from: leg,
                    to,
                    offer: carried.offer,
                    text: sdp.clone(),
                    view: carried.view,
                    reply: Reply::Response(means),
                }));
                let sdp = carried.sdp;
                out.push(Output::Tell(
                    to,
                    match means {
                        Means::Invite => Command::Reoffer { sdp },
                        Means::Update | Means::Prack => Command::Update { sdp },
                    },
                ));
            }
            Err(refusal) => self.refuse_offer(leg, sdp, means, refusal.status(), out),
        }
    }

    /// Refuses an offer; one in a PRACK gets the session as it is (RFC 6337 §3.3).
    pub(super) fn refuse_offer(
        &mut self,
        leg: LegId,
        offer: &Bytes,
        means: Means,
        status: u16,
        out: &mut Vec<Output>,
    ) {
        let present = match means {
            Means::Prack => self.sdp.present_answer(self.side(leg), &self.media, offer),
            Means::Invite | Means::Update => None,
        };
        out.push(Output::Tell(
            leg,
            match present {
                Some(sdp) => Command::AnswerReoffer { sdp },
                None => Command::RefuseReoffer { status },
            },
        ));
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

    /// A re-INVITE asks for an offer: the other side is asked for it.
    pub(super) fn offer_wanted(&mut self, leg: LegId, out: &mut Vec<Output>) {
        let free = self.phase == Phase::Up && self.reoffer.is_none() && !self.is_between();
        if free && matches!(self.media, MediaPlan::Service { .. }) {
            match self.sdp.service_offer(&self.media, &self.codecs) {
                Ok(sdp) => {
                    self.reoffer = Some(Box::new(Reoffer::ours(leg)));
                    out.push(Output::Tell(leg, Command::AnswerReoffer { sdp }));
                }
                Err(refusal) => {
                    out.push(Output::Tell(leg, Command::RefuseReoffer { status: refusal.status() }));
                }
            }
            return;
        }
        match self.other(leg).filter(|_| free) {
            Some(to) => {
                let reoffer = Reoffer { from: leg, reply: Reply::Solicited, ..Reoffer::ours(to) };
                self.reoffer = Some(Box::new(reoffer));
                out.push(Output::Tell(to, Command::Solicit));
            }
            None => out.push(Output::Tell(leg, Command::RefuseReoffer { status: 491 })),
        }
    }

    /// The side that was asked for an offer has made it: it goes to the one who wanted it, and his ACK brings the answer.
    pub(super) fn solicited_offer(&mut self, leg: LegId, sdp: &Bytes, now: Now, out: &mut Vec<Output>) {
        let asked = self.reoffer.take_if(|open| open.to == leg && open.reply == Reply::Solicited);
        // Whoever asked has taken that back: the leg has been told, and answers for itself.
        let Some(asked) = asked else { return };
        if self.is_newcomer(asked.from) {
            return self.newcomer_is_offered(leg, sdp, now, out);
        }
        match self.sdp.carry_offer(self.side(leg), &self.media, sdp) {
            Ok(carried) => {
                self.reoffer = Some(Box::new(Reoffer {
                    from: leg,
                    to: asked.from,
                    offer: carried.offer,
                    text: sdp.clone(),
                    view: carried.view,
                    reply: Reply::Acknowledgement,
                }));
                out.push(Output::Tell(asked.from, Command::AnswerReoffer { sdp: carried.sdp }));
            }
            Err(refusal) => {
                out.push(Output::Tell(asked.from, Command::RefuseReoffer { status: refusal.status() }));
                self.clear(Cause::Media, Side::Engine, refusal.status(), now, out);
            }
        }
    }

    pub(super) fn reoffer_answered(&mut self, leg: LegId, sdp: &Bytes, now: Now, out: &mut Vec<Output>) {
        let Some(reoffer) = self.reoffer.take_if(|reoffer| reoffer.to == leg) else { return };
        match reoffer.reply {
            Reply::Ours => return self.our_offer_answered(leg, sdp, now, out),
            Reply::Undo => return self.session_refreshed(leg, sdp, out),
            Reply::Newcomer => return self.newcomer_accepted(*reoffer, sdp, now, out),
            Reply::Response(_) | Reply::Acknowledgement | Reply::Solicited => {}
        }
        let to = self.side(reoffer.from);
        if self.phase == Phase::Hunting {
            self.sdp.note_said(self.side(leg), sdp);
        }
        match self.sdp.carry_answer(to, &self.media, reoffer.offer.as_ref(), sdp) {
            Ok(carried) => {
                if !matches!(self.media, MediaPlan::Bypass) {
                    self.note(to, reoffer.view.as_ref());
                    self.note(self.side(leg), carried.view.as_ref());
                    self.media_of(to, reoffer.view, out);
                    self.media_of(self.side(leg), carried.view, out);
                }
                let sdp = carried.sdp;
                out.push(Output::Tell(
                    reoffer.from,
                    match reoffer.reply {
                        Reply::Acknowledgement | Reply::Solicited => Command::Acknowledge { sdp },
                        Reply::Response(_) | Reply::Ours | Reply::Undo | Reply::Newcomer => {
                            Command::AnswerReoffer { sdp }
                        }
                    },
                ));
                if self.phase == Phase::Up {
                    out.push(Output::Refresh);
                }
            }
            Err(refusal) => self.answered_unusably(&reoffer, refusal.status(), now, out),
        }
    }

    /// The answer to an offer is none that the other side could have.
    fn answered_unusably(&mut self, reoffer: &Reoffer, status: u16, now: Now, out: &mut Vec<Output>) {
        match reoffer.reply {
            Reply::Acknowledgement | Reply::Solicited | Reply::Ours | Reply::Undo => {
                self.clear(Cause::Media, Side::Engine, 488, now, out);
            }
            Reply::Response(means) => self.refuse_offer(reoffer.from, &reoffer.text, means, status, out),
            Reply::Newcomer => self.refuse_newcomer(status, now, out),
        }
    }

    /// The same for whatever leg `leg` has answered.
    pub(super) fn answer_unusable(&mut self, leg: LegId, status: u16, now: Now, out: &mut Vec<Output>) {
        if let Some(reoffer) = self.reoffer.take_if(|reoffer| reoffer.to == leg) {
            self.answered_unusably(&reoffer, status, now, out);
        }
    }

    /// A peer has answered a refresh of its session with another description than before: its media session follows. One whose
    /// media does not cross us is not followed, and one that cannot be read changes nothing.
    pub(super) fn session_refreshed(&mut self, leg: LegId, sdp: &Bytes, out: &mut Vec<Output>) {
        let connected = self.is_connected(leg);
        if self.phase != Phase::Up || !connected || matches!(self.media, MediaPlan::Bypass) {
            return;
        }
        if let Ok(described) = SessionDescription::parse(sdp) {
            self.agree(self.side(leg), media_view(&described), out);
            out.push(Output::Refresh);
        }
    }

    /// The answer to an offer of our own: only our media session needs it.
    fn our_offer_answered(&mut self, leg: LegId, sdp: &Bytes, now: Now, out: &mut Vec<Output>) {
        match self.sdp.view_of_answer(sdp) {
            Ok(view) => {
                self.caller_answered |= leg == CALLER;
                self.agree(self.side(leg), Some(view), out);
                if self.phase == Phase::Up {
                    out.push(Output::Refresh);
                }
            }
            Err(_) => self.clear(Cause::Media, Side::Engine, 488, now, out),
        }
    }

    pub(super) fn reoffer_refused(&mut self, leg: LegId, status: u16, now: Now, out: &mut Vec<Output>) {
        let Some(reoffer) = self.reoffer.take_if(|reoffer| reoffer.to == leg) else { return };
        if self.is_newcomer(reoffer.from) {
            return self.newcomer_unwanted(status, now, out);
        }
        // Silence and a lost dialog are the other side's; the one who asked is told that it did not work.
        let lost = matches!(status, 408 | 481);
        let status = if lost { 488 } else { super::hunt::refusal_for_caller(status) };
        match reoffer.reply {
            Reply::Response(means) => self.refuse_offer(reoffer.from, &reoffer.text, means, status, out),
            Reply::Solicited => out.push(Output::Tell(reoffer.from, Command::RefuseReoffer { status })),
            // What was offered in a response cannot be refused; the leg's own end says so.
            Reply::Acknowledgement | Reply::Ours | Reply::Undo | Reply::Newcomer => {}
        }
    }

    /// A leg has taken back its offer, or its wish for one, which it has answered itself: so does the other leg.
    pub(super) fn reoffer_cancelled(&mut self, leg: LegId, reason: Option<&str>, out: &mut Vec<Output>) {
        let open = self
            .reoffer
            .take_if(|open| open.from == leg && matches!(open.reply, Reply::Response(_) | Reply::Solicited));
        if let Some(open) = open {
            let reason = reason.map(str::to_owned);
            out.push(Output::Tell(open.to, Command::CancelReoffer { reason }));
        }
    }

    /// A leg has not waited for the answer that it was given: what the other leg has agreed to is undone.
    pub(super) fn answered_too_late(&mut self, leg: LegId, heard: &Bytes, out: &mut Vec<Output>) {
        self.reoffer.take_if(|open| open.to == leg && open.reply == Reply::Acknowledgement);
        self.session_refreshed(leg, heard, out);
        if let Some(other) = self.other(leg).filter(|_| self.phase == Phase::Up && self.reoffer.is_none()) {
            out.push(Output::Tell(other, Command::CancelReoffer { reason: None }));
        }
    }

    /// A peer's 200 has crossed our CANCEL: it is offered what it had before, unless something newer is on its way to it.
    pub(super) fn offer_again(&mut self, leg: LegId, told: &Bytes, offered: &Bytes, out: &mut Vec<Output>) {
        if told == offered {
            return;
        }
        let connected = self.is_connected(leg);
        if self.phase != Phase::Up || !connected || self.reoffer.is_some() {
            return;
        }
        if let Some(sdp) = self.sdp.again(self.side(leg), &self.media, told) {
            self.reoffer = Some(Box::new(Reoffer { reply: Reply::Undo, ..Reoffer::ours(leg) }));
            out.push(Output::Tell(leg, Command::Reoffer { sdp }));
        }
    }

    /// A side has no stream any more: it neither sends nor receives, and its silence is no fault.
    fn note(&mut self, side: Side, view: Option<&AudioView>) {
        let direction = view.map_or(crate::sdp::Direction::Inactive, |view| view.direction);
        self.sdp.note_direction(side, direction);
    }

    fn media_of(&self, side: Side, view: Option<AudioView>, out: &mut Vec<Output>) {
        out.push(Output::Media { side, view, held: self.sdp.held() });
    }

    pub(super) fn agree(&mut self, side: Side, view: Option<AudioView>, out: &mut Vec<Output>) {
        self.note(side, view.as_ref());
        self.media_of(side, view, out);
    }
}
