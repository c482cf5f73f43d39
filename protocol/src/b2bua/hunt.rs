//! From the caller's INVITE to a callee's answer: ringing, forking to a station's contacts, walking a trunk's proxies.

use bytes::Bytes;

use super::{CALLER, Call, Cause, Destination, LONGEST_RING, Leg, LegId, Output, Phase, Side, Target};
use crate::dialog::{Command, NoAnswer, Routing};
use crate::flow::Flow;
use crate::proxy_list::{Next, Outcome};
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
        match self.destination.clone() {
            Destination::Refused { status, cause } => self.clear(cause, Side::Engine, status, now, out),
            Destination::Service => self.answer_as_service(now, out),
            Destination::Station { contacts, ring_timeout } => {
                self.deadline = Some(now.mono + ring_timeout.min(LONGEST_RING));
                if contacts.is_empty() {
                    self.clear(Cause::NotRegistered, Side::Engine, 480, now, out);
                }
                for target in contacts {
                    self.invite(target, now, out);
                }
            }
            Destination::Trunk { mut walk, listener, user } => {
                self.deadline = Some(now.mono + LONGEST_RING);
                let next = walk.next(now.mono);
                self.destination = Destination::Trunk { walk, listener, user };
                self.walk_on(next, now, out);
            }
        }
    }

    fn invite(&mut self, target: Target, now: Now, out: &mut Vec<Output>) {
        let asks = self.callee_offers();
        match if asks { Ok(Bytes::new()) } else { self.sdp.offer_to_callee(&self.media) } {
            Ok(sdp) => {
                let leg = LegId(self.legs.len() as u8);
                self.legs.push(Leg { id: leg, gone: false, ending: false });
                let reliable = self.may_be_reliable();
                out.push(Output::Invite { leg, target, sdp, reliable });
            }
            Err(refusal) => self.clear(Cause::Media, Side::Engine, refusal.status(), now, out),
        }
    }

    /// What the walk over the trunk's proxies says comes next.
    fn walk_on(&mut self, next: Next, now: Now, out: &mut Vec<Output>) {
        let Destination::Trunk { listener, user, .. } = &self.destination else { return };
        match next {
            Next::Try(proxy) => {
                let target = Target {
                    request_uri: format!("sip:{user}@{proxy}"),
                    flow: Flow { listener: *listener, remote: proxy },
                    route: Vec::new(),
                    routing: Routing::Target,
                };
                self.invite(target, now, out);
            }
            Next::Wait | Next::Answered => {}
            Next::Fail { status, .. } => self.fail(status, now, out),
        }
    }

    /// A callee rings or sends early media. The caller hears of the first, and of every one with a session description.
    pub(super) fn callee_progress(
        &mut self,
        leg: LegId,
        status: u16,
        sdp: Option<&Bytes>,
        out: &mut Vec<Output>,
    ) {
        let live = self.leg(leg).is_some_and(|leg| !leg.ending && !leg.gone);
        if self.phase != Phase::Hunting || !live {
            return;
        }
        if !self.rang {
            self.rang = true;
            out.push(Output::Ringing);
        }
        let early = sdp.and_then(|sdp| self.sdp.answer_to_caller(&self.media, sdp).ok());
        if let Some((_, view)) = &early
            && view.is_some()
        {
            out.push(Output::Media { side: Side::Callee, view: view.clone(), held: false });
        }
        let sdp = early.map(|(sdp, _)| sdp);
        if sdp.is_some() {
            self.expect_answer_to_our_offer();
        }
        out.push(Output::Tell(CALLER, Command::Progress { status, sdp }));
    }

    /// A callee's INVITE came to nothing.
    pub(super) fn callee_failed(
        &mut self,
        leg: LegId,
        status: u16,
        unanswered: Option<NoAnswer>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let ending = self.leg(leg).is_none_or(|leg| leg.ending);
        if let Some(leg) = self.leg_mut(leg) {
            leg.gone = true;
        }
        if self.phase != Phase::Hunting || ending {
            self.over_if_clear(now, out);
            return;
        }
        if let Destination::Trunk { walk, .. } = &mut self.destination {
            let outcome = match (unanswered, status) {
                (Some(NoAnswer::Transport), _) => Outcome::TransportError,
                // A server that says 408 has waited for somebody else in vain: so have we.
                (Some(NoAnswer::Timeout), _) | (None, 408) => Outcome::Timeout,
                (None, status) => Outcome::Status(status),
            };
            let next = walk.on_outcome(now.mono, outcome);
            out.extend(walk.attempts().last().cloned().map(Output::AttemptFailed));
            let lost = self.early_session_is_lost_with(leg);
            self.end_early_session(leg, out);
            if lost {
                return self.fail(status, now, out);
            }
            self.walk_on(next, now, out);
            return;
        }
        self.refusal = Some(self.refusal.map_or(status, |best| better_refusal(best, status)));
        let ringing = self.legs.iter().any(|leg| leg.id != CALLER && !leg.gone);
        if status >= 600 || !ringing {
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
        // A challenge or a redirection is between us and the callee; it would only mislead the caller.
        let status = match status {
            401 | 407 => 403,
            300..=399 => 480,
            status => status,
        };
        self.clear(cause, Side::Callee, status, now, out);
    }

    pub(super) fn nobody_answered(&mut self, now: Now, out: &mut Vec<Output>) {
        self.clear(Cause::NoAnswer, Side::Engine, 480, now, out);
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
