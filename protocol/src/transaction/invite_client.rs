use serde::{Deserialize, Serialize};

use super::timer::{Expiry, Timers};
use crate::time::Instant;

/// A peer that has sent a provisional response and then nothing is given up after this long. Whoever still rings says so again
/// each minute (§13.3.1.1); it is longer than any call rings, and than our Timer C of a re-INVITE.
const LONGEST_PROCEEDING: std::time::Duration = std::time::Duration::from_secs(240);

/// States of RFC 3261 figure 5, with RFC 6026's Accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Calling,
    Proceeding,
    Completed,
    Accepted,
    Terminated,
}

/// What a response asks of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAction {
    /// Nothing: a response that came again, or too late.
    Absorb,
    /// Pass it to the transaction user.
    PassUp,
    /// Pass it to the transaction user and send the ACK of a non-2xx final (§17.1.1.3).
    PassUpAndAck,
    /// A final came again: send the ACK again.
    Ack,
}

/// The INVITE client transaction (RFC 3261 §17.1.1, RFC 6026 §7.2).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InviteClient {
    state: State,
    reliable: bool,
    timers: Timers,
    interval: std::time::Duration,
    /// Timer A.
    retransmit: Option<Instant>,
    /// Timer B, D or M, whichever the state has; in Proceeding when the peer is given up.
    end: Option<Instant>,
}

impl InviteClient {
    /// Begins in Calling; the endpoint has sent the INVITE.
    pub fn new(now: Instant, timers: Timers, reliable: bool) -> InviteClient {
        InviteClient {
            state: State::Calling,
            reliable,
            timers,
            interval: timers.t1,
            retransmit: (!reliable).then(|| now + timers.t1),
            end: Some(now + timers.give_up),
        }
    }

    /// A response with `status` arrived.
    pub fn response(&mut self, now: Instant, status: u16) -> ClientAction {
        match (self.state, status) {
            (State::Calling | State::Proceeding, 100..=199) => {
                self.state = State::Proceeding;
                self.retransmit = None;
                self.end = Some(now + LONGEST_PROCEEDING);
                ClientAction::PassUp
            }
            (State::Calling | State::Proceeding, 200..=299) => {
                self.state = State::Accepted;
                self.retransmit = None;
                self.end = Some(now + self.timers.t1 * 64);
                ClientAction::PassUp
            }
            (State::Calling | State::Proceeding, _) => {
                self.state = State::Completed;
                self.retransmit = None;
                let wait = if self.reliable { std::time::Duration::ZERO } else { self.timers.t1 * 64 };
                self.end = Some(now + wait);
                ClientAction::PassUpAndAck
            }
            (State::Accepted, 200..=299) => ClientAction::PassUp,
            // A fork behind a proxy that has refused already (§16.7 step 5): its dialog has to be ended.
            (State::Completed, 200..=299) => ClientAction::PassUp,
            (State::Completed, 300..) => ClientAction::Ack,
            (State::Accepted | State::Completed | State::Terminated, _) => ClientAction::Absorb,
        }
    }

    /// A CANCEL has been sent: without a final response the transaction ends 64*T1 later (§9.1).
    pub fn cancelled(&mut self, now: Instant) {
        if self.state == State::Proceeding {
            self.end = Some(now + self.timers.t1 * 64);
        }
    }

    /// The earliest armed timer.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.retransmit, self.end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Fires what is due.
    pub fn timeout(&mut self, now: Instant) -> Expiry {
        if self.end.is_some_and(|at| at <= now) {
            let gave_up = matches!(self.state, State::Calling | State::Proceeding);
            self.state = State::Terminated;
            self.retransmit = None;
            self.end = None;
            return if gave_up { Expiry::GaveUp } else { Expiry::Terminated };
        }
        if self.retransmit.is_some_and(|at| at <= now) {
            self.interval *= 2;
            self.retransmit = Some(now + self.interval);
            return Expiry::Retransmit;
        }
        Expiry::Nothing
    }

    /// True until anything has come back.
    pub fn is_unanswered(&self) -> bool {
        self.state == State::Calling
    }

    /// True while a CANCEL makes sense now (§9.1: only after a provisional, never after a final).
    pub fn may_cancel(&self) -> bool {
        self.state == State::Proceeding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    #[test]
    fn an_unanswered_invite_goes_out_seven_times_and_gives_up_after_32_s() {
        let mut t = InviteClient::new(at(0), Timers::default(), false);
        let mut sent = vec![0];
        loop {
            let due = t.deadline().unwrap();
            match t.timeout(due) {
                Expiry::Retransmit => sent.push(due.0 / 1000),
                Expiry::GaveUp => {
                    assert_eq!(due, at(32_000));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(sent, vec![0, 500, 1500, 3500, 7500, 15_500, 31_500]);
    }

    #[test]
    fn a_provisional_stops_timers_a_and_b() {
        let mut t = InviteClient::new(at(0), Timers::default(), false);
        assert_eq!(t.response(at(10), 180), ClientAction::PassUp);
        assert_eq!(t.timeout(at(32_000)), Expiry::Nothing);
        assert!(t.may_cancel());
    }

    #[test]
    fn a_peer_that_only_rings_is_given_up_and_after_a_cancel_sooner() {
        let mut t = InviteClient::new(at(0), Timers::default(), false);
        t.response(at(10), 180);
        t.response(at(60_000), 180);
        assert_eq!((t.deadline(), t.timeout(at(300_000))), (Some(at(300_000)), Expiry::GaveUp));
        let mut t = InviteClient::new(at(0), Timers::default(), false);
        t.response(at(10), 180);
        t.cancelled(at(1000));
        assert_eq!((t.deadline(), t.timeout(at(33_000))), (Some(at(33_000)), Expiry::GaveUp));
    }

    #[test]
    fn every_2xx_climbs_for_64_t1() {
        let mut t = InviteClient::new(at(0), Timers::default(), false);
        assert_eq!(t.response(at(10), 200), ClientAction::PassUp);
        assert_eq!(t.response(at(510), 200), ClientAction::PassUp);
        assert_eq!(t.response(at(520), 486), ClientAction::Absorb);
        assert_eq!(t.timeout(at(32_010)), Expiry::Terminated);
        assert_eq!(t.response(at(33_000), 200), ClientAction::Absorb);
    }

    #[test]
    fn a_refusal_that_comes_again_is_acknowledged_again() {
        let mut t = InviteClient::new(at(0), Timers::default(), false);
        assert_eq!(t.response(at(10), 486), ClientAction::PassUpAndAck);
        assert_eq!(t.response(at(510), 486), ClientAction::Ack);
        assert_eq!(t.response(at(600), 200), ClientAction::PassUp, "another branch was answered");
        assert_eq!(t.timeout(at(32_010)), Expiry::Terminated);
    }
}
