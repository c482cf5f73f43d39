use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::invite_client::ClientAction;
use super::invite_server::ServerAction;
use super::timer::{Expiry, Timers};
use crate::time::Instant;

/// States of RFC 3261 figures 6 and 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

/// The non-INVITE client transaction (RFC 3261 §17.1.2).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NonInviteClient {
    state: State,
    reliable: bool,
    timers: Timers,
    interval: Duration,
    /// Timer E.
    retransmit: Option<Instant>,
    /// Timer F or K.
    end: Instant,
}

impl NonInviteClient {
    /// Begins in Trying; the endpoint has sent the request.
    pub fn new(now: Instant, timers: Timers, reliable: bool) -> NonInviteClient {
        NonInviteClient {
            state: State::Trying,
            reliable,
            timers,
            interval: timers.t1,
            retransmit: (!reliable).then(|| now + timers.t1),
            end: now + timers.timer_f.unwrap_or(timers.give_up),
        }
    }

    /// A response with `status` arrived.
    pub fn response(&mut self, now: Instant, status: u16) -> ClientAction {
        match (self.state, status) {
            (State::Trying | State::Proceeding, 100..=199) => {
                self.state = State::Proceeding;
                ClientAction::PassUp
            }
            (State::Trying | State::Proceeding, _) => {
                self.state = State::Completed;
                self.retransmit = None;
                self.end = forgotten_at(now, self.reliable, self.timers.t4);
                ClientAction::PassUp
            }
            (State::Completed | State::Terminated, _) => ClientAction::Absorb,
        }
    }

    /// True until a final response has come.
    pub fn is_unanswered(&self) -> bool {
        matches!(self.state, State::Trying | State::Proceeding)
    }

    /// The earliest armed timer.
    pub fn deadline(&self) -> Option<Instant> {
        (self.state != State::Terminated).then(|| self.retransmit.map_or(self.end, |at| at.min(self.end)))
    }

    /// Fires what is due.
    pub fn timeout(&mut self, now: Instant) -> Expiry {
        if self.state != State::Terminated && self.end <= now {
            let waiting = self.state != State::Completed;
            self.state = State::Terminated;
            self.retransmit = None;
            return if waiting { Expiry::GaveUp } else { Expiry::Terminated };
        }
        if self.retransmit.is_some_and(|at| at <= now) {
            self.interval = match self.state {
                State::Proceeding => self.timers.t2,
                State::Trying | State::Completed | State::Terminated => {
                    (self.interval * 2).min(self.timers.t2)
                }
            };
            self.retransmit = Some(now + self.interval);
            return Expiry::Retransmit;
        }
        Expiry::Nothing
    }
}

/// The non-INVITE server transaction (RFC 3261 §17.2.2).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NonInviteServer {
    state: State,
    reliable: bool,
    timers: Timers,
    /// Timer J; before a final response, the longest a request may stay unanswered.
    end: Instant,
}

impl NonInviteServer {
    /// Begins in Trying; the request has been passed up.
    pub fn new(now: Instant, timers: Timers, reliable: bool) -> NonInviteServer {
        NonInviteServer { state: State::Trying, reliable, timers, end: now + timers.t1 * 64 }
    }

    /// The request came again.
    pub fn retransmission(&self) -> ServerAction {
        match self.state {
            State::Proceeding | State::Completed => ServerAction::Send,
            State::Trying | State::Terminated => ServerAction::Absorb,
        }
    }

    /// The transaction user responds with `status`.
    pub fn respond(&mut self, now: Instant, status: u16) -> ServerAction {
        match (self.state, status) {
            (State::Trying | State::Proceeding, 100..=199) => {
                self.state = State::Proceeding;
                ServerAction::Send
            }
            (State::Trying | State::Proceeding, _) => {
                self.state = State::Completed;
                self.end = forgotten_at(now, self.reliable, self.timers.t1 * 64);
                ServerAction::Send
            }
            (State::Completed | State::Terminated, _) => ServerAction::Absorb,
        }
    }

    /// When the transaction ends.
    pub fn deadline(&self) -> Option<Instant> {
        (self.state != State::Terminated).then_some(self.end)
    }

    /// Fires what is due. `GaveUp` means that nobody ever answered the request.
    pub fn timeout(&mut self, now: Instant) -> Expiry {
        if self.state == State::Terminated || self.end > now {
            return Expiry::Nothing;
        }
        let unanswered = self.state != State::Completed;
        self.state = State::Terminated;
        if unanswered { Expiry::GaveUp } else { Expiry::Terminated }
    }
}

/// When Timer K or J ends a transaction that only waits for what comes again: nobody minds if that is a little later.
fn forgotten_at(now: Instant, reliable: bool, wait: Duration) -> Instant {
    if reliable { now } else { now.roughly_after(wait) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    #[test]
    fn an_unanswered_request_goes_out_eleven_times_capped_at_t2() {
        let mut t = NonInviteClient::new(at(0), Timers::default(), false);
        let mut sent = vec![0];
        loop {
            let due = t.deadline().unwrap();
            match t.timeout(due) {
                Expiry::Retransmit => sent.push(due.0 / 1000),
                Expiry::GaveUp => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(sent, vec![0, 500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
    }

    #[test]
    fn after_a_provisional_the_interval_is_t2() {
        let mut t = NonInviteClient::new(at(0), Timers::default(), false);
        t.response(at(100), 100);
        assert_eq!(t.timeout(at(500)), Expiry::Retransmit);
        assert_eq!(t.deadline(), Some(at(4500)));
    }

    #[test]
    fn one_final_climbs_and_the_rest_are_absorbed_for_t4() {
        let mut t = NonInviteClient::new(at(0), Timers::default(), false);
        assert_eq!(t.response(at(100), 200), ClientAction::PassUp);
        assert_eq!(t.response(at(200), 200), ClientAction::Absorb);
        let end = t.deadline().unwrap();
        assert!((at(5100)..at(5400)).contains(&end), "{end:?}");
        assert_eq!(t.timeout(at(5099)), Expiry::Nothing);
        assert_eq!(t.timeout(end), Expiry::Terminated);
    }

    #[test]
    fn transactions_that_are_only_to_be_forgotten_end_together() {
        let ends = [0, 20, 40].map(|ms| {
            let mut t = NonInviteClient::new(at(ms), Timers::default(), false);
            t.response(at(ms + 100), 200);
            t.deadline().unwrap()
        });
        assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
        let mut t = NonInviteClient::new(at(0), Timers::default(), true);
        t.response(at(100), 200);
        assert_eq!(t.deadline(), Some(at(100)), "on a stream nothing comes again");
    }

    #[test]
    fn a_server_repeats_its_final_for_64_t1() {
        let mut t = NonInviteServer::new(at(0), Timers::default(), false);
        assert_eq!(t.retransmission(), ServerAction::Absorb);
        assert_eq!(t.respond(at(10), 200), ServerAction::Send);
        assert_eq!(t.retransmission(), ServerAction::Send);
        assert_eq!(t.respond(at(20), 500), ServerAction::Absorb);
        let end = t.deadline().unwrap();
        assert!((at(32_010)..at(32_300)).contains(&end), "{end:?}");
        assert_eq!(t.timeout(end), Expiry::Terminated);
    }
}
