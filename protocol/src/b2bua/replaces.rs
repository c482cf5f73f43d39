//! Somebody takes a leg's place (RFC 3891): the newcomer's INVITE is answered once the remaining side has agreed to a session with it,
//! and only then does the leg that it replaces end.
//!
//! ```text
//! confirmed: newcomer's offer ──► Command::Succeed to the remaining leg ──► its answer ──► the newcomer's 200, held
//!            ──► Output::Replaced, Output::Commit ──► committed: the 200 leaves, the replaced leg gets its BYE
//! early:     newcomer's offer and the caller's answer each other; both 200s wait for one commit, whoever rings is cancelled
//! ```
//!
//! Until the newcomer's 200 is held nothing has changed but what the remaining side was offered, and that is undone if it comes to nothing.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::reoffer::{Reoffer, Reply};
use super::{CALLER, COMMIT_PATIENCE, Call, Cause, Leg, LegId, MediaPlan, Output, Phase, Side};
use crate::dialog::{Command, EndedBy};
use crate::sdp::negotiate::{AudioView, CodecList, LegDescription, Role, succeeding_answer, within_codecs};
use crate::time::{Instant, Now};

/// How often the remaining side is asked again after an offer of its own came between.
const GLARE_RETRIES: u8 = 2;
/// How long its own exchange has then before it is waited for.
const GLARE_PAUSE: Duration = Duration::from_millis(500);
const ELSEWHERE: &str = "SIP;cause=200;text=\"answered elsewhere\"";
const REPLACED: &str = "SIP;cause=200;text=\"replaced\"";
/// For whoever asks for the place in a call that ends meanwhile (§3).
pub(super) const DECLINED: u16 = 603;

/// Who is to take a leg's place.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// Its leg, which has [that number](Call::next_leg).
    pub leg: LegId,
    /// The leg whose place it takes.
    pub replaced: LegId,
    /// That leg has not answered yet.
    pub early: bool,
    /// The newcomer's offer; empty: it wants one.
    pub offer: Bytes,
    /// What it may say of its media.
    pub codecs: CodecList,
    /// Where it signals from.
    pub at: IpAddr,
    /// A session id that is new.
    pub session_id: u64,
}

/// What became of somebody who was to take a leg's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succession {
    /// It has it; its 200 has left.
    Done {
        /// False if that was before its checkpoint was committed.
        protected: bool,
    },
    /// It was refused with this status, and the call goes on as it was.
    Refused(u16),
    /// It has given up itself.
    Cancelled,
    /// The call has ended meanwhile.
    CallEnded,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Stage {
    /// For another exchange to end, and until that time if there is one.
    Waiting(Option<Instant>),
    /// For the remaining side.
    Asking,
    /// The newcomer's 200 is being written. What both then say of their media: the newcomer, the remaining side.
    Agreed(Option<Box<(Option<AudioView>, Option<AudioView>)>>),
    /// For the checkpoint.
    Committing,
    /// Both 200s of an early call are being written: which are ready, the caller's and the newcomer's.
    Answering(bool, bool),
}

/// A leg's place is about to be taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Replacement {
    newcomer: LegId,
    replaced: LegId,
    side: Side,
    offer: Bytes,
    stage: Stage,
    retries: u8,
    /// What the side had before.
    codecs: CodecList,
    told: LegDescription,
    /// The replaced leg has ended by itself: so the call does, unless the newcomer takes it.
    left: Option<(Cause, Side)>,
}

impl Replacement {
    /// The side has the newcomer already.
    fn is_in(&self) -> bool {
        matches!(self.stage, Stage::Committing | Stage::Answering(..))
    }
}

impl Call {
    /// The number of a leg that begins now; `None` if there have been as many as can be numbered.
    pub fn next_leg(&self) -> Option<LegId> {
        self.legs.iter().map(|leg| leg.id.0).max().unwrap_or(0).checked_add(1).map(LegId)
    }

    /// The leg of the caller, or of who has taken his place.
    pub fn caller(&self) -> LegId {
        self.caller
    }

    /// The leg that is connected with this one.
    pub(super) fn across(&self, leg: LegId) -> Option<LegId> {
        if leg == self.caller {
            self.callee
        } else {
            self.callee.filter(|callee| *callee == leg).map(|_| self.caller)
        }
    }

    /// Whether it is one of the two that are connected.
    pub(super) fn is_connected(&self, leg: LegId) -> bool {
        leg == self.caller || self.callee == Some(leg)
    }

    /// The side of the call a leg is on, was on, or is to be on.
    pub(super) fn side(&self, leg: LegId) -> Side {
        if let Some(replacement) =
            self.replacement.as_deref().filter(|r| r.newcomer == leg || r.replaced == leg)
        {
            return replacement.side;
        }
        let former = self.former.iter().find(|(known, _)| *known == leg).map(|(_, side)| *side);
        former.unwrap_or(if leg == self.caller { Side::Caller } else { Side::Callee })
    }

    /// True for who waits to take a leg's place and has not got it.
    pub(super) fn is_newcomer(&self, leg: LegId) -> bool {
        self.replacement.as_deref().is_some_and(|r| r.newcomer == leg && !r.is_in())
    }

    /// Somebody is to take a leg's place.
    pub(super) fn replace(&mut self, newcomer: &Newcomer, now: Now, out: &mut Vec<Output>) {
        self.legs.push(Leg::new(newcomer.leg, Some(newcomer.at)));
        let begun = if newcomer.early {
            self.replace_early(newcomer, now, out)
        } else {
            self.replace_confirmed(newcomer)
        };
        if let Err(status) = begun {
            self.tell_to_end(newcomer.leg, status, None, out);
            out.push(Output::Succession(newcomer.leg, Succession::Refused(status)));
        }
    }

    /// Checks what can be said at once; the status if the newcomer is refused.
    fn replace_confirmed(&mut self, newcomer: &Newcomer) -> Result<(), u16> {
        match self.phase {
            Phase::Up => {}
            // The answer is being committed: in a moment it can be.
            Phase::New | Phase::Hunting | Phase::Committing => return Err(491),
            Phase::Clearing | Phase::Over => return Err(DECLINED),
        }
        if !self.is_connected(newcomer.replaced) {
            return Err(DECLINED);
        }
        if self.replacement.is_some() {
            return Err(491);
        }
        let side = self.side(newcomer.replaced);
        match &self.media {
            MediaPlan::Bypass => {}
            MediaPlan::Anchored { caller, callee, .. } => {
                let local = if side == Side::Caller { caller } else { callee };
                // RFC 6157: there are ports of the other family only until the answer.
                if local.addr.is_ipv4() != newcomer.at.is_ipv4() {
                    return Err(488);
                }
            }
            // Nobody remains who could agree to anything.
            MediaPlan::Service { .. } => return Err(488),
        }
        let offer = self.within_codecs(newcomer, side)?;
        let (newcomer, replaced, session_id) = (newcomer.clone(), newcomer.replaced, newcomer.session_id);
        self.replacement = Some(Box::new(Replacement {
            newcomer: newcomer.leg,
            replaced,
            side,
            offer,
            stage: Stage::Waiting(None),
            retries: 0,
            codecs: self.codecs.replace(side, newcomer.codecs),
            told: self.sdp.anew(side, session_id),
            left: None,
        }));
        Ok(())
    }

    /// The newcomer's offer, less what it or the remaining side may not use.
    fn within_codecs(&self, newcomer: &Newcomer, side: Side) -> Result<Bytes, u16> {
        let remaining = self.codecs.of(if side == Side::Caller { Side::Callee } else { Side::Caller });
        let less = within_codecs(&newcomer.offer, Role::Offer, &newcomer.codecs, remaining);
        less.map(|less| less.unwrap_or_else(|| newcomer.offer.clone())).map_err(|why| why.status())
    }

    /// The caller is answered by the newcomer, and whoever rings is cancelled.
    fn replace_early(&mut self, newcomer: &Newcomer, now: Now, out: &mut Vec<Output>) -> Result<(), u16> {
        let rings = self.leg(newcomer.replaced).is_some_and(|leg| !leg.ending && !leg.gone);
        if self.phase != Phase::Hunting || !rings {
            // Another has the call, or it is over.
            return Err(DECLINED);
        }
        if self.sdp.is_offerless() || newcomer.offer.is_empty() {
            // Whichever of the two is asked for the offer answers only in the ACK of a 200 that the other's 200 would have to wait for.
            return Err(488);
        }
        let offer = self.within_codecs(newcomer, Side::Callee)?;
        let (mut sdp, mut media) = (self.sdp.clone(), self.media.clone());
        sdp.turn_to(&mut media, newcomer.at);
        if let MediaPlan::Anchored { callee, .. } = &media
            && callee.addr.is_ipv4() != newcomer.at.is_ipv4()
        {
            return Err(488);
        }
        let told = sdp.anew(Side::Callee, newcomer.session_id);
        let crossed = sdp.cross_answers(&media, &offer).map_err(|why| why.status())?;
        (self.sdp, self.media) = (sdp, media);
        let codecs = self.codecs.replace(Side::Callee, newcomer.codecs.clone());
        self.abandon_attempt(now, out);
        self.callee = Some(newcomer.leg);
        out.push(Output::Towards(newcomer.leg));
        self.end_early_session_of_others(newcomer.leg, now, out);
        self.end_all_but(newcomer.leg, ELSEWHERE, out);
        out.push(Output::Replaced { side: Side::Callee, by: newcomer.leg });
        if !matches!(self.media, MediaPlan::Bypass) {
            self.agree(Side::Caller, crossed.caller_view, out);
            self.agree(Side::Callee, crossed.callee_view, out);
        }
        self.replacement = Some(Box::new(Replacement {
            newcomer: newcomer.leg,
            replaced: newcomer.replaced,
            side: Side::Callee,
            offer,
            stage: Stage::Answering(false, false),
            retries: 0,
            codecs,
            told,
            left: None,
        }));
        out.push(Output::Tell(newcomer.leg, Command::PrepareAnswer { sdp: crossed.to_callee }));
        self.commit(crossed.to_caller, now, out);
        Ok(())
    }

    /// True while a side is between two peers: nobody's offer can cross.
    pub(super) fn is_between(&self) -> bool {
        self.replacement.as_deref().is_some_and(|r| !matches!(r.stage, Stage::Waiting(_)))
    }

    /// Goes on with whoever waits, as soon as no other exchange is open.
    pub(super) fn go_on_replacing(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(replacement) = self.replacement.as_deref() else { return };
        let Stage::Waiting(until) = replacement.stage else { return };
        if self.phase != Phase::Up || self.reoffer.is_some() || until.is_some_and(|at| now.mono < at) {
            return;
        }
        let (from, side, text) = (replacement.newcomer, replacement.side, replacement.offer.clone());
        let Some(to) = self.across(replacement.replaced) else { return };
        self.deadline = None;
        if text.is_empty() {
            self.reoffer = Some(Box::new(Reoffer { from, reply: Reply::Solicited, ..Reoffer::ours(to) }));
            out.push(Output::Tell(to, Command::Solicit));
        } else {
            match self.sdp.carry_offer(side, &self.media, &text) {
                Ok(carried) => {
                    let reply = Reply::Newcomer;
                    let (offer, view) = (carried.offer, carried.view);
                    let reoffer = Reoffer { from, to, offer, text, view, reply };
                    self.reoffer = Some(Box::new(reoffer));
                    out.push(Output::Tell(to, Command::Succeed { sdp: carried.sdp }));
                }
                Err(why) => return self.refuse_newcomer(why.status(), now, out),
            }
        }
        if let Some(replacement) = self.replacement.as_deref_mut() {
            replacement.stage = Stage::Asking;
        }
    }

    /// The remaining side has answered the newcomer's offer.
    pub(super) fn newcomer_accepted(
        &mut self,
        reoffer: Reoffer,
        sdp: &Bytes,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let Some(replacement) = self.replacement.as_deref_mut() else { return };
        let bypass = matches!(self.media, MediaPlan::Bypass);
        // Where media crosses us the answer is fitted as any other.
        let fitted = if bypass { succeeding_answer(&replacement.offer, sdp) } else { Ok(None) };
        let side = replacement.side;
        let carried = fitted.and_then(|fitted| {
            self.sdp.carry_answer(side, &self.media, reoffer.offer.as_ref(), fitted.as_ref().unwrap_or(sdp))
        });
        match carried {
            Ok(carried) => {
                replacement.stage = Stage::Agreed(Some(Box::new((reoffer.view, carried.view))));
                out.push(Output::Tell(replacement.newcomer, Command::PrepareAnswer { sdp: carried.sdp }));
            }
            Err(why) => self.refuse_newcomer(why.status(), now, out),
        }
    }

    /// The remaining side has made the offer that the newcomer wants: his ACK brings the answer.
    pub(super) fn newcomer_is_offered(&mut self, leg: LegId, sdp: &Bytes, now: Now, out: &mut Vec<Output>) {
        let side = self.side(leg);
        let carried = self.sdp.carry_offer(side, &self.media, sdp);
        let Some(replacement) = self.replacement.as_deref_mut() else { return };
        match carried {
            Ok(carried) => {
                replacement.stage = Stage::Agreed(None);
                let to = replacement.newcomer;
                let (offer, view, text) = (carried.offer, carried.view, sdp.clone());
                let reply = Reply::Acknowledgement;
                self.reoffer = Some(Box::new(Reoffer { from: leg, to, offer, text, view, reply }));
                out.push(Output::Tell(to, Command::PrepareAnswer { sdp: carried.sdp }));
            }
            Err(why) => self.refuse_newcomer(why.status(), now, out),
        }
    }

    /// The remaining side refuses. If that is because it makes an offer itself, the newcomer waits until that is over.
    pub(super) fn newcomer_unwanted(&mut self, status: u16, now: Now, out: &mut Vec<Output>) {
        let Some(replacement) = self.replacement.as_deref_mut() else { return };
        if status == 491 && replacement.retries < GLARE_RETRIES {
            let until = now.mono + GLARE_PAUSE;
            replacement.retries += 1;
            replacement.stage = Stage::Waiting(Some(until));
            self.deadline = Some(until);
            return;
        }
        // It has not changed anything, so there is nothing to take back.
        replacement.stage = Stage::Waiting(None);
        let lost = matches!(status, 408 | 481);
        let status = if lost { 480 } else { super::hunt::refusal_for_caller(status) };
        self.refuse_newcomer(status, now, out);
    }

    /// A 200 is ready and held: when all are that are to leave, the newcomer has its place, and the checkpoint may say so.
    pub(super) fn newcomer_ready(&mut self, leg: LegId, now: Now, out: &mut Vec<Output>) {
        let Some(replacement) = self.replacement.as_deref_mut() else { return };
        let (newcomer, replaced, side) = (replacement.newcomer, replacement.replaced, replacement.side);
        let views = match &mut replacement.stage {
            Stage::Answering(caller, callee) => {
                *caller |= leg == CALLER;
                *callee |= leg == newcomer;
                if *caller && *callee {
                    out.push(Output::Commit);
                }
                return;
            }
            Stage::Agreed(views) if leg == newcomer => views.take(),
            Stage::Waiting(_) | Stage::Asking | Stage::Agreed(_) | Stage::Committing => return,
        };
        replacement.stage = Stage::Committing;
        let remaining = self.across(replaced);
        match side {
            Side::Caller => self.caller = newcomer,
            Side::Callee | Side::Engine | Side::Operator => self.callee = Some(newcomer),
        }
        self.former.push((replaced, side));
        out.push(Output::Replaced { side, by: newcomer });
        if !matches!(self.media, MediaPlan::Bypass) {
            // Without views the newcomer's ACK brings the answer.
            let (view, others) = views.map_or((None, None), |views| (views.0, Some(views.1)));
            self.agree(side, view, out);
            if let Some((remaining, others)) = remaining.zip(others) {
                self.agree(self.side(remaining), others, out);
            }
        }
        self.deadline = Some(now.mono + COMMIT_PATIENCE);
        out.push(Output::Commit);
    }

    /// The checkpoint is safe, or will not be in time: the newcomer gets its answer, and the leg that it replaces ends.
    pub(super) fn newcomer_committed(&mut self, protected: bool, out: &mut Vec<Output>) {
        let Some(replacement) = self.replacement.take_if(|r| r.is_in()) else { return };
        self.deadline = None;
        // Why the replaced leg may have ended is no reason for what comes.
        self.reason = None;
        out.push(Output::Tell(replacement.newcomer, Command::SendAnswer));
        if self.leg(replacement.replaced).is_some_and(|leg| !leg.gone && !leg.ending) {
            self.tell_to_end(replacement.replaced, 487, Some(REPLACED), out);
        }
        out.push(Output::Succession(replacement.newcomer, Succession::Done { protected }));
    }

    /// The newcomer does not get the place; the call goes on as it was.
    pub(super) fn refuse_newcomer(&mut self, status: u16, now: Now, out: &mut Vec<Output>) {
        self.give_up_replacing(Some(status), now, out);
    }

    /// The newcomer has gone.
    pub(super) fn newcomer_gone(&mut self, leg: LegId, now: Now, out: &mut Vec<Output>) {
        if let Some(leg) = self.leg_mut(leg) {
            leg.gone = true;
        }
        self.give_up_replacing(None, now, out);
    }

    fn give_up_replacing(&mut self, status: Option<u16>, now: Now, out: &mut Vec<Output>) {
        let Some(replacement) = self.replacement.take().map(|replacement| *replacement) else { return };
        let Replacement { newcomer, replaced, side, stage, codecs, told, left, .. } = replacement;
        self.codecs.replace(side, codecs);
        self.sdp.put_back(side, told);
        self.reoffer.take_if(|open| open.from == newcomer || open.to == newcomer);
        self.deadline = None;
        if matches!(stage, Stage::Asking | Stage::Agreed(_))
            && let Some(remaining) = self.across(replaced)
        {
            // What it has agreed to already it is asked to undo.
            out.push(Output::Tell(remaining, Command::CancelReoffer { reason: None }));
        }
        if let Some(status) = status {
            self.tell_to_end(newcomer, status, None, out);
        }
        let became = status.map_or(Succession::Cancelled, Succession::Refused);
        out.push(Output::Succession(newcomer, became));
        if let Some((cause, by)) = left {
            self.clear(cause, by, 480, now, out);
        }
    }

    /// The call ends: whoever waits for a place in it is given back, to be told.
    pub(super) fn end_replacing(&mut self, out: &mut Vec<Output>) -> Option<LegId> {
        let replacement = self.replacement.take()?;
        out.push(Output::Succession(replacement.newcomer, Succession::CallEnded));
        Some(replacement.newcomer)
    }

    /// The leg that is to be replaced ends by itself: the newcomer may take its place all the same. False if that does not keep the call.
    pub(super) fn replaced_has_left(&mut self, leg: LegId, by: EndedBy) -> bool {
        let verdict = self.verdict_of(leg, by);
        let Some(replacement) = self.replacement.as_deref_mut() else { return false };
        if replacement.replaced != leg || replacement.is_in() {
            return false;
        }
        replacement.left = Some(verdict);
        if let Some(leg) = self.leg_mut(leg) {
            leg.gone = true;
        }
        true
    }

    /// After a restart nothing of it is under way: what has not been committed is as before.
    pub(super) fn forget_replacing(&mut self) {
        let Some(replacement) = self.replacement.take().filter(|replacement| !replacement.is_in()) else {
            return;
        };
        self.codecs.replace(replacement.side, replacement.codecs);
        self.sdp.put_back(replacement.side, replacement.told);
    }
}
