//! Which of several addresses of one server a connection is opened to: they race (RFC 8305, Happy Eyeballs version 2).
//!
//! Verbs: [`Race::begin`] starts the first attempt; [`Race::handle`] takes what came of one, or that time has passed, and pushes
//! [`Output`]s; [`Race::deadline`] says when it wants [`Input::Timeout`]. The first attempt that succeeds wins, and whoever carries them
//! out ends the others. What an attempt is, and so what its success means, is his: for TCP the connection, for TLS the handshake too,
//! since a server that takes connections and no handshake takes no call.
//!
//! ```text
//!   begin               250 ms, or a failure            success of any
//!  ────────► one attempt ────────────────► two attempts ──────────────► won
//!                 │                              │
//!                 └──── all have failed ─────────┴─────────────────────► lost
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// The Connection Attempt Delay (§5, §8): so long an attempt has the race to itself.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The order of attempts (§4): as given, but the families take turns, that of the first address first (a First Address Family Count of
/// one). Each address once.
pub fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let mut families = [VecDeque::new(), VecDeque::new()];
    for address in addresses {
        let family = &mut families[usize::from(address.is_ipv4() != first.is_ipv4())];
        if !family.contains(address) {
            family.push_back(*address);
        }
    }
    let [mut preferred, mut other] = families;
    let mut order = Vec::with_capacity(preferred.len() + other.len());
    while !(preferred.is_empty() && other.is_empty()) {
        order.extend(preferred.pop_front());
        order.extend(other.pop_front());
    }
    order
}

/// What happens to a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// An attempt has succeeded.
    Succeeded(SocketAddr),
    /// An attempt has failed: refused, or given up at [`Race::until`].
    Failed(SocketAddr),
    /// [`Race::deadline`] has passed.
    Timeout,
}

/// What a race wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Begin an attempt.
    Connect(SocketAddr),
    /// This one has won: the others are ended.
    Won(SocketAddr),
    /// Every attempt has failed.
    Lost,
}

/// One race.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Race {
    /// What has no attempt yet.
    left: VecDeque<SocketAddr>,
    running: Vec<SocketAddr>,
    failed: Vec<SocketAddr>,
    /// When the next attempt begins, whatever comes of those before it.
    next_at: Option<Instant>,
    until: Instant,
    over: bool,
}

impl Race {
    /// Begins a race among `addresses` in this order. An attempt that has come to nothing `within` this time is to be given up by who
    /// carries it out.
    pub fn begin(addresses: Vec<SocketAddr>, within: Duration, now: Instant, out: &mut Vec<Output>) -> Race {
        let mut race = Race {
            left: addresses.into(),
            running: Vec::new(),
            failed: Vec::new(),
            next_at: None,
            until: now + within,
            over: false,
        };
        race.start_next(now, out);
        race
    }

    /// Takes one input at `now`, pushing what is to be done to `out`. Nothing happens in a race that is over.
    pub fn handle(&mut self, input: Input, now: Instant, out: &mut Vec<Output>) {
        if self.over {
            return;
        }
        match input {
            Input::Succeeded(address) => {
                self.running.retain(|other| *other != address);
                self.over = true;
                out.push(Output::Won(address));
            }
            Input::Failed(address) => {
                self.running.retain(|other| *other != address);
                self.failed.push(address);
                // §5: a failure does not wait for the delay.
                self.start_next(now, out);
            }
            Input::Timeout => {
                if self.next_at.is_some_and(|at| at <= now) {
                    self.start_next(now, out);
                }
            }
        }
    }

    fn start_next(&mut self, now: Instant, out: &mut Vec<Output>) {
        let next = if now < self.until { self.left.pop_front() } else { None };
        if let Some(next) = next {
            self.running.push(next);
            out.push(Output::Connect(next));
        }
        if self.running.is_empty() {
            self.over = true;
            out.push(Output::Lost);
        }
        self.next_at = (!self.over && !self.left.is_empty()).then(|| now + ATTEMPT_DELAY);
    }

    /// When it wants to be told the time.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_at.filter(|at| !self.over && *at < self.until)
    }

    /// When attempts are to be given up.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// The attempts that have failed so far.
    pub fn failed(&self) -> &[SocketAddr] {
        &self.failed
    }

    /// The attempts under way; of a race that is won, those that were slower.
    pub fn running(&self) -> &[SocketAddr] {
        &self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(all: &[&str]) -> Vec<SocketAddr> {
        all.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    /// Among a, b and c for two seconds, and what it did first.
    fn race() -> (Race, [SocketAddr; 3], Vec<Output>) {
        let all = addresses(&["192.0.2.1:5060", "192.0.2.2:5060", "192.0.2.3:5060"]);
        let mut out = Vec::new();
        let race = Race::begin(all.clone(), Duration::from_secs(2), at(0), &mut out);
        (race, all.try_into().unwrap(), out)
    }

    fn after(race: &mut Race, ms: u64, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        race.handle(input, at(ms), &mut out);
        out
    }

    #[test]
    fn families_take_turns_that_of_the_first_address_first() {
        let mixed = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.3:1"];
        let turns = ["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.2:1", "192.0.2.3:1"];
        assert_eq!(interleave(&addresses(&mixed)), addresses(&turns));
        let six_first = ["[2001:db8::1]:1", "[2001:db8::2]:1", "192.0.2.1:1"];
        let turns = ["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1"];
        assert_eq!(interleave(&addresses(&six_first)), addresses(&turns));
        assert_eq!(interleave(&[]), []);
    }

    #[test]
    fn a_silent_address_has_a_quarter_of_a_second_to_itself_and_may_still_win() {
        let (mut race, [a, b, c], first) = race();
        assert_eq!(first, [Output::Connect(a)]);
        assert_eq!(race.deadline(), Some(at(250)));
        assert_eq!(after(&mut race, 249, Input::Timeout), []);
        assert_eq!(after(&mut race, 250, Input::Timeout), [Output::Connect(b)]);
        assert_eq!(race.deadline(), Some(at(500)));
        assert_eq!(after(&mut race, 300, Input::Succeeded(a)), [Output::Won(a)]);
        assert_eq!((race.running(), race.failed(), race.deadline()), (&[b][..], &[][..], None));
        assert_eq!(after(&mut race, 301, Input::Succeeded(b)), [], "there is one winner");
        assert_eq!(after(&mut race, 900, Input::Timeout), []);
        assert!(!race.left.is_empty() && race.left.contains(&c), "nobody knocked at the third");
    }

    #[test]
    fn a_failure_starts_the_next_at_once_and_begins_its_delay() {
        let (mut race, [a, b, c], _) = race();
        assert_eq!(after(&mut race, 10, Input::Failed(a)), [Output::Connect(b)]);
        assert_eq!(race.deadline(), Some(at(260)));
        assert_eq!(after(&mut race, 260, Input::Timeout), [Output::Connect(c)]);
        assert_eq!(race.deadline(), None, "nobody is left");
        assert_eq!(after(&mut race, 270, Input::Failed(b)), []);
        assert_eq!(after(&mut race, 280, Input::Failed(c)), [Output::Lost]);
        assert_eq!(race.failed(), [a, b, c]);
    }

    #[test]
    fn no_attempt_begins_when_the_time_for_all_has_passed() {
        let all = addresses(&["192.0.2.1:5060", "192.0.2.2:5060", "192.0.2.3:5060"]);
        let mut out = Vec::new();
        let mut race = Race::begin(all.clone(), Duration::from_millis(300), at(0), &mut out);
        assert_eq!(after(&mut race, 250, Input::Timeout), [Output::Connect(all[1])]);
        assert_eq!((race.deadline(), race.until()), (None, at(300)));
        assert_eq!(after(&mut race, 300, Input::Failed(all[0])), []);
        assert_eq!(after(&mut race, 300, Input::Failed(all[1])), [Output::Lost]);
        assert_eq!(race.failed(), &all[..2], "of the third nothing is known");
    }

    #[test]
    fn a_race_of_nobody_is_lost_at_once() {
        let mut out = Vec::new();
        Race::begin(Vec::new(), ATTEMPT_DELAY, at(0), &mut out);
        assert_eq!(out, [Output::Lost]);
    }
}
