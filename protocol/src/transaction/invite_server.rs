use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timer::{Expiry, Timers};
use crate::time::Instant;

/// §17.2.1: a 100 is due unless the transaction user answers within this time.
const TRYING_AFTER: Duration = Duration::from_millis(200);

/// States of RFC 3261 figure 7, with RFC 6026's Accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Proceeding,
    Completed,
    Confirmed,
    Accepted,
    Terminated,
}

/// What a request or a response from the transaction user asks of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerAction {
    /// Nothing.
    Absorb,
    /// Send the response given, or the last response again.
    Send,
    /// Pass the request to the transaction user.
    PassUp,
}

/// The INVITE server transaction (RFC 3261 §17.2.1, RFC 6026 §7.1). It retransmits a refusal; a 2xx is retransmitted by the dialog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InviteServer {
    state: State,
    reliable: bool,
    timers: Timers,
    interval: Duration,
    /// The 100 that is due, or Timer G.
    repeat: Option<Instant>,
    /// Timer H, I or L.
    end: Option<Instant>,
    answered: bool,
}

impl InviteServer {
    /// Begins in Proceeding; the INVITE has been passed up.
    pub fn new(now: Instant, timers: Timers, reliable: bool) -> InviteServer {
        InviteServer {
            state: State::Proceeding,
            reliable,
            timers,
            interval: timers.t1,
            repeat: Some(now + TRYING_AFTER),
            end: None,
            answered: false,
        }
    }

    /// The INVITE came again: the last response goes out again, if there was one.
    pub fn retransmission(&self) -> ServerAction {
        match self.state {
            State::Proceeding if self.answered => ServerAction::Send,
            State::Completed => ServerAction::Send,
            State::Proceeding | State::Confirmed | State::Accepted | State::Terminated => {
                ServerAction::Absorb
            }
        }
    }

    /// The transaction user responds with `status`.
    pub fn respond(&mut self, now: Instant, status: u16) -> ServerAction {
        match (self.state, status) {
            (State::Proceeding, 100..=199) => {
                self.repeat = None;
                self.answered = true;
                ServerAction::Send
            }
            (State::Proceeding, 200..=299) => {
                self.state = State::Accepted;
                self.repeat = None;
                self.end = Some(now + self.timers.t1 * 64);
                ServerAction::Send
            }
            (State::Proceeding, _) => {
                self.state = State::Completed;
                self.answered = true;
                self.repeat = (!self.reliable).then(|| now + self.timers.t1);
                self.end = Some(now + self.timers.t1 * 64);
                ServerAction::Send
            }
            (State::Accepted, 200..=299) => ServerAction::Send,
            (State::Completed | State::Confirmed | State::Accepted | State::Terminated, _) => {
                ServerAction::Absorb
            }
        }
    }

    /// An ACK that matches this transaction came.
    pub fn ack(&mut self, now: Instant) -> ServerAction {
        match self.state {
            State::Completed => {
                self.state = State::Confirmed;
                self.repeat = None;
                let wait = if self.reliable { Duration::ZERO } else { self.timers.t4 };
                self.end = Some(now + wait);
                ServerAction::Absorb
            }
            State::Accepted => ServerAction::PassUp,
            State::Proceeding | State::Confirmed | State::Terminated => ServerAction::Absorb,
        }
    }

    /// The earliest armed timer.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.repeat, self.end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Fires what is due.
    pub fn timeout(&mut self, now: Instant) -> Expiry {
        if self.end.is_some_and(|at| at <= now) {
            let unacknowledged = self.state == State::Completed;
            self.state = State::Terminated;
            self.repeat = None;
            self.end = None;
            return if unacknowledged { Expiry::GaveUp } else { Expiry::Terminated };
        }
        if self.repeat.is_some_and(|at| at <= now) {
            if self.state == State::Proceeding {
                self.repeat = None;
                return Expiry::Trying;
            }
            self.interval = (self.interval * 2).min(self.timers.t2);
            self.repeat = Some(now + self.interval);
            return Expiry::Retransmit;
        }
        Expiry::Nothing
    }

    /// True until a final response was given: a CANCEL still has an effect (§9.2).
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
    fn a_silent_user_gets_100_after_200_ms_and_a_quick_one_does_not() {
        let mut t = InviteServer::new(at(0), Timers::default(), false);
        assert_eq!(t.timeout(at(200)), Expiry::Trying);
        let mut t = InviteServer::new(at(0), Timers::default(), false);
        t.respond(at(10), 180);
        assert_eq!(t.deadline(), None);
    }

    #[test]
    fn a_refusal_is_repeated_until_the_ack() {
        let mut t = InviteServer::new(at(0), Timers::default(), false);
        assert_eq!(t.respond(at(0), 486), ServerAction::Send);
        let mut sent = vec![];
        while sent.len() < 5 {
            let due = t.deadline().unwrap();
            assert_eq!(t.timeout(due), Expiry::Retransmit);
            sent.push(due.0 / 1000);
        }
        assert_eq!(sent, vec![500, 1500, 3500, 7500, 11_500]);
        assert_eq!(t.retransmission(), ServerAction::Send);
        t.ack(at(12_000));
        assert_eq!(t.retransmission(), ServerAction::Absorb);
        assert_eq!(t.timeout(at(17_000)), Expiry::Terminated);
    }

    #[test]
    fn a_refusal_never_acknowledged_ends_after_64_t1() {
        let mut t = InviteServer::new(at(0), Timers::default(), false);
        t.respond(at(0), 404);
        assert_eq!(t.timeout(at(32_000)), Expiry::GaveUp);
    }

    #[test]
    fn a_2xx_keeps_absorbing_the_invite_and_hands_up_acks() {
        let mut t = InviteServer::new(at(0), Timers::default(), false);
        assert_eq!(t.respond(at(0), 200), ServerAction::Send);
        assert_eq!(t.retransmission(), ServerAction::Absorb);
        assert_eq!(t.respond(at(500), 200), ServerAction::Send);
        assert_eq!(t.ack(at(600)), ServerAction::PassUp);
        assert!(!t.may_cancel());
        assert_eq!(t.timeout(at(32_000)), Expiry::Terminated);
    }
}
