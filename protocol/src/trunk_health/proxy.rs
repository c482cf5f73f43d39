//! The health of one proxy.
//!
//! ```text
//!            any response                    OPTIONS unanswered, 5 calls failed, Retry-After
//! Unknown ────────────────► Up ──────────────────────────────────────────► Degraded
//!    │                      ▲│                                              │ ▲  │
//!    │                      ││◄── answered for HOLD, or rested ─────────────┘ │  │
//!    │   call answered, no  ││ INVITE silent, unreachable          OPTIONS or │  │ INVITE silent, unreachable,
//!    │   OPTIONS are sent   ││                             call answered, and │  │ 2 OPTIONS unanswered
//!    ▼                      │▼                               OPTIONS are sent │  ▼
//!   as Up                  Down ────────────────────────────────────────────► Degraded
//! ```
//!
//! One that goes down again soon after it came back (within [`STEADY`]) must answer, or rest, for twice as long each time: else each
//! of its short lives would cost calls.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cause, Output, Qualified, Seen, State};
use crate::time::Instant;

/// A proxy that is not up is asked at least this often.
pub(super) const FAST: Duration = Duration::from_secs(2);
/// A proxy that is down and not asked is tried by a call after this long; one that fails calls is left alone for as long.
pub(super) const REST: Duration = Duration::from_secs(30);
/// A rest is never longer.
const LONGEST_REST: Duration = Duration::from_secs(300);
/// A proxy that was down must have answered for so many of its fast intervals.
const HOLD_INTERVALS: u32 = 2;
/// It need not answer for longer.
const LONGEST_HOLD: Duration = Duration::from_secs(120);
/// A proxy that has been back for so long has not merely flickered.
const STEADY: Duration = Duration::from_secs(300);
/// So many calls in a row that a proxy took and failed say more than chance.
pub(super) const MOST_FAILED: u32 = 5;
/// So many OPTIONS in a row without a response: each has been repeated, so this is more than a lost packet.
const MOST_MISSED: u32 = 2;
/// A trial of which nothing was heard is offered again after this long: the caller may have hung up.
const TRIAL_AGAIN: Duration = Duration::from_secs(60);
/// No answer about OPTIONS takes longer, or it was lost within.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
/// Nobody can keep calls away for longer by one Retry-After.
const LONGEST_BUSY: Duration = Duration::from_secs(3600);

/// One proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    pub(super) state: State,
    interval: Option<Duration>,
    /// Degraded: when it counts as up if nothing bad is seen. Down and not asked: when a call tries it.
    until: Option<Instant>,
    /// OPTIONS in a row without a response.
    missed: u32,
    /// Calls in a row that it failed, and how many it had taken then.
    failed: u32,
    taken: u64,
    /// Degraded because it shall be left alone, not because it must prove itself.
    rests: bool,
    /// When it was last seen to be back.
    back_at: Option<Instant>,
    /// How often it went down again soon after that.
    relapses: u32,
    /// One call has been let begin with it, and nothing is heard of that yet.
    on_trial: bool,
    /// The OPTIONS under way.
    number: Option<u32>,
    /// When the next OPTIONS leave, or those under way are given up.
    ask_at: Option<Instant>,
}

impl Proxy {
    pub(super) fn new(address: SocketAddr, interval: Option<Duration>, ask_at: Option<Instant>) -> Proxy {
        Proxy {
            address,
            state: State::Unknown,
            interval,
            until: None,
            missed: 0,
            failed: 0,
            taken: 0,
            rests: false,
            back_at: None,
            relapses: 0,
            on_trial: false,
            number: None,
            ask_at,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until.into_iter().chain(self.ask_at).min()
    }

    pub(super) fn is_asked(&self, number: u32) -> bool {
        self.number == Some(number)
    }

    pub(super) fn is_to_be_asked(&self, now: Instant) -> bool {
        self.number.is_none() && self.ask_at.is_some_and(|at| at <= now)
    }

    pub(super) fn asked(&mut self, number: u32, now: Instant) {
        self.number = Some(number);
        self.ask_at = Some(now + LONGEST_ASKED);
    }

    fn fast(&self) -> Duration {
        self.interval.unwrap_or(FAST).min(FAST)
    }

    /// How long it must answer before it is trusted again.
    fn hold(&self) -> Duration {
        (self.fast() * HOLD_INTERVALS * (1 << self.relapses)).min(LONGEST_HOLD)
    }

    fn rest(&self) -> Duration {
        (REST * (1 << self.relapses)).min(LONGEST_REST)
    }

    fn become_state(&mut self, state: State, cause: Cause, out: &mut Vec<Output>) {
        self.state = state;
        out.push(Output::Changed { proxy: self.address, state, cause });
    }

    /// A call has seen something.
    pub(super) fn seen(&mut self, seen: Seen, now: Instant, out: &mut Vec<Output>) {
        match seen {
            Seen::Answered => self.alive(now, out),
            Seen::Failed { status, taken } => {
                self.alive(now, out);
                self.failed_a_call(status, taken, now, out);
            }
            Seen::Busy(rest) => self.busy(rest, now, out),
            Seen::Silent => self.dead(Cause::Silent, now, out),
            Seen::Unreachable => self.dead(Cause::Unreachable, now, out),
        }
    }

    /// OPTIONS have come to an end; the next leave sooner while it is not up.
    pub(super) fn qualified(&mut self, what: Qualified, jitter: f64, now: Instant, out: &mut Vec<Output>) {
        self.number = None;
        match what {
            Qualified::Answered(rest) => {
                self.alive(now, out);
                if let Some(rest) = rest {
                    self.busy(rest, now, out);
                }
            }
            Qualified::Silent => self.unqualified(now, out),
            Qualified::Unreachable => self.dead(Cause::Unreachable, now, out),
        }
        self.ask_next(jitter, now);
    }

    fn ask_next(&mut self, jitter: f64, now: Instant) {
        self.ask_at = self.interval.map(|interval| match self.state {
            // A tenth more or less, so that trunks that began together do not ask together for ever.
            State::Unknown | State::Up => now.roughly_after(interval.mul_f64(0.9 + jitter / 5.0)),
            State::Degraded | State::Down => now.roughly_after(self.fast()),
        });
    }

    pub(super) fn timeout(&mut self, jitter: f64, now: Instant, out: &mut Vec<Output>) {
        if self.number.is_some() && self.ask_at.is_some_and(|at| at <= now) {
            self.qualified(Qualified::Silent, jitter, now, out);
        }
        if self.until.is_none_or(|at| at > now) {
            return;
        }
        self.until = None;
        match self.state {
            State::Degraded => {
                let cause = if self.rests { Cause::Rested } else { Cause::Steady };
                self.become_state(State::Up, cause, out);
            }
            State::Down => {
                self.on_trial = true;
                self.until = Some(now.roughly_after(TRIAL_AGAIN));
                out.push(Output::Trial(self.address));
            }
            State::Unknown | State::Up => {}
        }
    }

    /// It has responded.
    fn alive(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.missed = 0;
        self.on_trial = false;
        match self.state {
            State::Unknown => self.become_state(State::Up, Cause::Answered, out),
            State::Up => {}
            State::Degraded => {
                let hold = self.hold();
                self.until.get_or_insert(now + hold);
            }
            State::Down => {
                self.back_at = Some(now);
                self.rests = false;
                // Who is asked proves itself by that; who is not has taken a call, and only calls can prove more.
                self.until = self.interval.map(|_| now + self.hold());
                let state = if self.interval.is_some() { State::Degraded } else { State::Up };
                self.become_state(state, Cause::Answered, out);
            }
        }
    }

    fn unqualified(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.missed += 1;
        match self.state {
            State::Down => {}
            _ if self.missed >= MOST_MISSED => self.dead(Cause::Unqualified, now, out),
            State::Unknown | State::Up => {
                self.until = None;
                self.rests = false;
                self.become_state(State::Degraded, Cause::Unqualified, out);
            }
            // One that rests has said itself for how long.
            State::Degraded if self.rests => {}
            State::Degraded => self.until = None,
        }
    }

    /// There is no doubt: nobody answers.
    fn dead(&mut self, cause: Cause, now: Instant, out: &mut Vec<Output>) {
        match self.state {
            State::Down => {
                // Of many calls that were under way only the trial says anything new.
                if std::mem::take(&mut self.on_trial) {
                    self.relapses = (self.relapses + 1).min(6);
                    self.until = Some(now.roughly_after(self.rest()));
                }
            }
            State::Unknown | State::Up | State::Degraded => {
                let again = self.back_at.is_some_and(|at| now.since(at) < STEADY);
                self.relapses = if again { (self.relapses + 1).min(6) } else { 0 };
                self.failed = 0;
                self.until = self.interval.is_none().then(|| now.roughly_after(self.rest()));
                self.become_state(State::Down, cause, out);
                if self.number.is_none() {
                    self.ask_next(0.0, now);
                }
            }
        }
    }

    /// It is there, but a call failed.
    fn failed_a_call(&mut self, status: Option<u16>, taken: u64, now: Instant, out: &mut Vec<Output>) {
        if taken != self.taken {
            self.taken = taken;
            self.failed = 0;
        }
        self.failed += 1;
        if self.failed >= MOST_FAILED && matches!(self.state, State::Unknown | State::Up) {
            self.failed = 0;
            self.rests = true;
            self.until = Some(now.roughly_after(REST));
            let cause = status.map_or(Cause::Stalling, Cause::Failing);
            self.become_state(State::Degraded, cause, out);
        }
    }

    fn busy(&mut self, rest: Duration, now: Instant, out: &mut Vec<Output>) {
        self.alive(now, out);
        let rest = rest.min(LONGEST_BUSY);
        if rest.is_zero() {
            return;
        }
        let until = now + rest;
        self.until = Some(self.until.map_or(until, |at| at.max(until)));
        if self.state == State::Up {
            self.rests = true;
            self.become_state(State::Degraded, Cause::RetryAfter(rest.as_secs()), out);
        }
    }
}
