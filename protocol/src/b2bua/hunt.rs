//! From the caller's INVITE to a callee's answer: ringing, forking to a station's contacts, hunting over trunks.

use std::net::SocketAddr;

use bytes::Bytes;

use super::route_list::{HuntNext, TrunkHunt, Unasked};
use super::{
    Branch, CALLER, Call, Cause, Destination, LONGEST_RING, Leg, LegId, MediaPlan, Output, Phase, Side,
    Target,
};
use crate::dialog::{Command, NoAnswer, Routing};
use crate::flow::Flow;
use crate::proxy_list::Outcome;
use crate::sdp::negotiate::NegotiationError;
use crate::time::Now;

impl Call {
    pub(super) fn begin(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.phase != Phase::New {
            return;
        }
        self.phase = Phase::Hunting;
        if let Some((view, side)) = self.sdp.caller_view(&self.media) {
            out.push(Output::Media { side, view: Some(view), held: self.sdp.held() });
        }
        self.hunt(now, out);
    }

    /// Goes where the destination says.
    pub(super) fn hunt(&mut self, now: Now, out: &mut Vec<Output>) {
        match &mut self.destination {
            Destination::Refused { status, cause } => {
                let (status, cause) = (*status, *cause);
                self.clear(cause, Side::Engine, status, now, out);
            }
            Destination::Service => self.answer_as_service(now, out),
            Destination::Station { contacts, ring_timeout } => {
                contacts.give_up_at(now.mono + (*ring_timeout).min(LONGEST_RING));
                if !self.ring_next_group(now, out) {
                    self.clear(Cause::NotRegistered, Side::Engine, 480, now, out);
                }
            }
            Destination::Trunk { hunt, ring_timeout } => {
                self.deadline = Some(now.mono + (*ring_timeout).min(LONGEST_RING));
                let next = hunt.begin(now.mono);
                self.hunt_on(next, now, out);
            }
        }
    }

    /// Sends an INVITE, unless no offer can be made: then the call is over.
    fn invite(&mut self, target: Target, now: Now, out: &mut Vec<Output>) -> Option<LegId> {
        let Ok(number) = u8::try_from(self.legs.len()) else {
            // More attempts than legs can be numbered: whatever the settings list, a call has tried enough.
            self.clear(Cause::Failed, Side::Engine, 503, now, out);
            return None;
        };
        let at = target.flow.remote.ip();
        self.sdp.turn_to(&mut self.media, at);
        self.codecs.turn_to(target.trunk.as_deref());
        let asks = self.callee_offers();
        match if asks { Ok(Bytes::new()) } else { self.sdp.offer_to_callee(&self.media, &self.codecs) } {
            Ok(sdp) => {
                let leg = LegId(number);
                self.legs.push(Leg::new(leg, Some(at)));
                let reliable = self.may_be_reliable();
                out.push(Output::Invite { leg, target, sdp, reliable });
                Some(leg)
            }
            Err(NegotiationError::NoCommonCodec) if matches!(self.destination, Destination::Trunk { .. }) => {
                self.trunk_without_codec(now, out);
                None
            }
            Err(refusal) => {
                self.clear(Cause::Media, Side::Engine, refusal.status(), now, out);
                None
            }
        }
    }

    /// What is said to the callee, and heard of him, is this leg's from now on: legs may be in different address families.
    pub(super) fn turn_to(&mut self, leg: LegId, out: &mut Vec<Output>) {
        if matches!(self.media, MediaPlan::Anchored { .. })
            && let Some(at) = self.leg(leg).and_then(|leg| leg.at)
        {
            self.sdp.turn_to(&mut self.media, at);
            out.push(Output::Towards(leg));
        }
    }

    /// Calls a device by the first of its flows.
    fn call_device(&mut self, branch: Branch, now: Now, out: &mut Vec<Output>) {
        let mut flows = branch.flows.into_iter();
        let Some(target) = flows.next() else { return };
        let leg = self.invite(target, now, out);
        if let (Some(leg), Destination::Station { contacts, .. }) = (leg, &mut self.destination) {
            contacts.called(leg, flows.collect());
        }
    }

    /// Rings the contacts of the next lower q, if there are any.
    fn ring_next_group(&mut self, now: Now, out: &mut Vec<Output>) -> bool {
        let Destination::Station { contacts, .. } = &mut self.destination else { return false };
        let group = contacts.next_group(now.mono);
        self.deadline = contacts.deadline();
        let any = !group.is_empty();
        for branch in group {
            self.call_device(branch, now, out);
        }
        any
    }

    /// What the hunt over the trunks says comes next.
    pub(super) fn hunt_on(&mut self, next: HuntNext, now: Now, out: &mut Vec<Output>) {
        let Destination::Trunk { hunt, .. } = &self.destination else { return };
        match (next, hunt.current()) {
            (HuntNext::Try(proxy), Some(choice)) => {
                let target = Target {
                    request_uri: choice.request_uri(proxy),
                    flow: Flow::to(choice.listener, proxy),
                    route: Vec::new(),
                    routing: Routing::Target,
                    trunk: Some(choice.trunk.clone()),
                };
                self.invite(target, now, out);
            }
            (HuntNext::Unfit, _) => self.clear(Cause::Media, Side::Engine, 488, now, out),
            (HuntNext::Fail { unasked: Some(Unasked::Limit), .. }, _) => {
                self.clear(Cause::Limit, Side::Engine, 503, now, out);
            }
            (HuntNext::Fail { unasked: Some(Unasked::Overload), .. }, _) => {
                self.clear(Cause::Overload, Side::Engine, 503, now, out);
            }
            (HuntNext::Fail { status, unasked: None }, _) => self.fail(status, now, out),
            (HuntNext::Try(_), None) | (HuntNext::Wait, _) => {}
        }
    }

    /// The addresses that its trunk would try after the one that is tried, in order.
    pub fn left_to_try(&self) -> impl Iterator<Item = SocketAddr> {
        let hunt = match &self.destination {
            Destination::Trunk { hunt, .. } => Some(hunt),
            Destination::Station { .. } | Destination::Service | Destination::Refused { .. } => None,
        };
        hunt.into_iter().flat_map(TrunkHunt::left)
    }

    /// Addresses of the proxy that a leg was to begin with have raced.
    pub(super) fn raced(&mut self, leg: LegId, won: Option<SocketAddr>, failed: &[SocketAddr]) {
        let Some(leg) = self.leg_mut(leg).filter(|leg| !leg.ending && !leg.gone) else { return };
        leg.at = won.map(|address| address.ip()).or(leg.at);
        if let Destination::Trunk { hunt, .. } = &mut self.destination {
            hunt.raced(won, failed);
        }
    }

    /// The trunk of a leg that was to begin has no place for it.
    pub(super) fn trunk_full(&mut self, leg: LegId, now: Now, out: &mut Vec<Output>) {
        let ending = self.leg(leg).is_none_or(|leg| leg.ending);
        if let Some(leg) = self.leg_mut(leg) {
            leg.gone = true;
        }
        match &mut self.destination {
            Destination::Trunk { hunt, .. } if self.phase == Phase::Hunting && !ending => {
                let next = hunt.no_place(now.mono);
                self.hunt_on(next, now, out);
            }
            Destination::Trunk { .. }
            | Destination::Station { .. }
            | Destination::Service
            | Destination::Refused { .. } => self.over_if_clear(now, out),
        }
    }

    /// The proxy that a leg was to begin with wants fewer calls, and does not get this one.
    pub(super) fn proxy_spared(&mut self, leg: LegId, now: Now, out: &mut Vec<Output>) {
        let ending = self.leg(leg).is_none_or(|leg| leg.ending);
        if let Some(leg) = self.leg_mut(leg) {
            leg.gone = true;
        }
        if self.phase != Phase::Hunting || ending {
            return self.over_if_clear(now, out);
        }
        if let Some(next) = self.attempt_ended((Outcome::Shed, None), true, now, out) {
            self.hunt_on(next, now, out);
        }
    }

    /// A callee says something before it answers, the first time told of as ringing; false if nobody waits for it any more.
    pub(super) fn alerting(&mut self, leg: LegId, out: &mut Vec<Output>) -> bool {
        let live = self.leg(leg).is_some_and(|leg| !leg.ending && !leg.gone);
        if self.phase != Phase::Hunting || !live {
            return false;
        }
        if !self.rang {
            self.rang = true;
            out.push(Output::Ringing);
        }
        true
    }

    /// A callee rings or sends early media. The caller hears of the first, and of every one with a session description.
    pub(super) fn callee_progress(
        &mut self,
        leg: LegId,
        status: u16,
        sdp: Option<&Bytes>,
        out: &mut Vec<Output>,
    ) {
        if !self.alerting(leg, out) {
            return;
        }
        if sdp.is_some() {
            self.turn_to(leg, out);
        }
        let early = sdp.and_then(|sdp| self.sdp.answer_to_caller(&self.media, sdp).ok());
        if let Some((_, view)) = &early
            && view.is_some()
        {
            out.push(Output::Media { side: Side::Callee, view: view.clone(), held: false });
        }
        let sdp = early.map(|(sdp, _)| sdp).filter(|_| self.may_preview());
        if sdp.is_some() {
            self.expect_answer_to_our_offer();
        }
        out.push(Output::Tell(CALLER, Command::Progress { status, sdp }));
    }

    /// A callee's INVITE came to nothing.
    pub(super) fn callee_failed(
        &mut self,
        leg: LegId,
        (status, retry_after): (u16, Option<u32>),
        unanswered: Option<NoAnswer>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        // One that is gone has failed before, by a fault of ours: what comes of its INVITE now is no news of the one under way.
        let ending = self.leg(leg).is_none_or(|leg| leg.ending || leg.gone);
        if let Some(leg) = self.leg_mut(leg) {
            leg.gone = true;
        }
        if self.phase != Phase::Hunting || ending {
            if let (Destination::Trunk { .. }, 503, Some(seconds)) = (&self.destination, status, retry_after)
            {
                out.push(Output::ProxyBusy(leg, seconds));
            }
            self.over_if_clear(now, out);
            return;
        }
        let early_lost = self.early_session_is_lost_with(leg);
        self.end_early_session(leg, now, out);
        match &mut self.destination {
            Destination::Trunk { .. } => {
                let outcome = outcome_of(status, unanswered);
                if let Some(next) = self.attempt_ended((outcome, retry_after), !early_lost, now, out) {
                    self.hunt_on(next, now, out);
                } else {
                    self.fail(status, now, out);
                }
            }
            Destination::Station { contacts, .. } => {
                // RFC 5626 §5.3: a dead flow is no answer of the device; its next flow is tried.
                let dead = status == 430 || unanswered.is_some();
                if early_lost {
                    return self.fail(status, now, out);
                }
                if let Some(branch) = contacts.next_flow(leg).filter(|_| dead) {
                    self.call_device(branch, now, out);
                    return;
                }
                // Only we and the device know of flows: to the caller it is a device that cannot be reached now.
                let lost = status == 430 || unanswered == Some(NoAnswer::Transport);
                self.contact_failed(if lost { 480 } else { status }, now, out);
            }
            Destination::Service | Destination::Refused { .. } => self.contact_failed(status, now, out),
        }
    }

    /// A proxy has taken the INVITE and then said nothing more: its leg cancels itself, and the next one is tried.
    pub(super) fn callee_stalls(&mut self, leg: LegId, now: Now, out: &mut Vec<Output>) {
        let live = self.leg(leg).is_some_and(|leg| !leg.ending && !leg.gone);
        if self.phase != Phase::Hunting || !live {
            return;
        }
        if let Some(leg) = self.leg_mut(leg) {
            leg.ending = true;
        }
        if let Some(next) = self.attempt_ended((Outcome::NoProgress, None), true, now, out) {
            self.hunt_on(next, now, out);
        }
    }

    /// The attempt under way has ended: it is told, and what comes next given back, if anything `may` and there is a hunt.
    fn attempt_ended(
        &mut self,
        (outcome, retry_after): (Outcome, Option<u32>),
        may: bool,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Option<HuntNext> {
        let Destination::Trunk { hunt, .. } = &mut self.destination else { return None };
        let before = hunt.attempts().len();
        let next = hunt.on_outcome(now.mono, outcome);
        let goes_on = may && matches!(next, HuntNext::Try(_));
        let attempt = hunt.attempts().get(before).cloned();
        out.extend(attempt.map(|attempt| Output::AttemptFailed { attempt, retry_after, goes_on }));
        may.then_some(next)
    }

    /// The call ends while a proxy is being tried: that attempt is told too.
    pub(super) fn abandon_attempt(&mut self, now: Now, out: &mut Vec<Output>) {
        let hunting = matches!(&self.destination, Destination::Trunk { hunt, .. } if hunt.is_trying());
        if hunting {
            self.attempt_ended((Outcome::Cancelled, None), false, now, out);
        }
    }

    fn contact_failed(&mut self, status: u16, now: Now, out: &mut Vec<Output>) {
        self.refusal = Some(self.refusal.map_or(status, |best| better_refusal(best, status)));
        let ringing = self.legs.iter().any(|leg| leg.id != CALLER && !leg.gone && !leg.ending);
        if status >= 600 || (!ringing && !self.ring_next_group(now, out)) {
            self.fail(self.refusal.unwrap_or(status), now, out);
        }
    }

    pub(super) fn fail(&mut self, status: u16, now: Now, out: &mut Vec<Output>) {
        if self.take_detour(status, out) {
            return;
        }
        let cause = match status {
            486 | 600 => Cause::Busy,
            408 | 480 => Cause::NoAnswer,
            500..=599 => Cause::Failed,
            _ => Cause::Rejected,
        };
        self.clear(cause, Side::Callee, refusal_for_caller(status), now, out);
    }

    /// Time has passed without an answer: the next contacts ring, or the call ends.
    pub(super) fn hunted_in_vain(&mut self, now: Now, out: &mut Vec<Output>) {
        let due = matches!(&self.destination, Destination::Station { contacts, .. } if contacts.is_next_due(now.mono));
        if !due {
            self.clear(Cause::NoAnswer, Side::Engine, 480, now, out);
            return;
        }
        let rung: Vec<LegId> = self
            .legs
            .iter()
            .filter(|leg| leg.id != CALLER && !leg.gone && !leg.ending)
            .map(|leg| leg.id)
            .collect();
        for leg in rung {
            self.tell_to_end(leg, 487, None, out);
        }
        self.ring_next_group(now, out);
    }
}

fn outcome_of(status: u16, unanswered: Option<NoAnswer>) -> Outcome {
    match (unanswered, status) {
        (Some(NoAnswer::Transport), _) => Outcome::TransportError,
        (Some(NoAnswer::Timeout), _) => Outcome::Timeout,
        (None, status) => Outcome::Status(status),
    }
}

/// What the caller is told of a callee's refusal. A challenge, a redirection and what else was said of our INVITE, not of the caller's,
/// is between us and the callee: a challenge handed on would have the caller prove himself to the callee, with an
/// answer that the callee could use with us; the others mean nothing without their headers.
pub(super) fn refusal_for_caller(status: u16) -> u16 {
    match status {
        401 | 407 | 494 => 403,
        300..=399 => 480,
        406 | 415 => 488,
        400 | 405 | 413 | 414 | 416 | 420 | 421 | 422 | 423 | 481 | 489 | 493 | 501 | 505 | 513 => 500,
        status => status,
    }
}

/// RFC 3261 §16.7 step 6: a 6xx wins, then the lowest class; within 4xx what tells the caller most.
fn better_refusal(a: u16, b: u16) -> u16 {
    let rank = |status: u16| match status {
        600.. => 0,
        486 => 1,
        300..=399 => 2,
        480 => 5,
        408 | 481 | 487 => 6,
        400..=499 => 3,
        _ => 7,
    };
    if rank(b) < rank(a) { b } else { a }
}
