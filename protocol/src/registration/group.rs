//! Registrations in order, of which the first that work are kept: the next is begun when one fails, and given up again when the
//! one before it has come back to stay.
//!
//! ```text
//!            a refresh fails, or the first REGISTER
//!   in use ------------------------------------------> failed: the next is begun at once
//!     ^                                                   |  back-off, REGISTER, 2xx
//!     |  it has held for `return_after`                   v
//!     +------------------------------------------- returned: both hold
//! ```
//!
//! One that fails again soon after its return must hold twice as long the next time. Bindings are made before they are given
//! up, so a call to the account finds us at any time.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DownCause, Input, Output, Registration, Response, State};
use crate::time::{Instant, Now};

#[cfg(test)]
mod tests;

/// The longest time that one which has come back must hold.
const MAX_HOLD: Duration = Duration::from_secs(1_800);
/// One that fails within so many times what it had to hold is unsteady.
const STEADY: u32 = 5;

/// How a group chooses among its registrations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSettings {
    /// How many hold at once; at least one.
    pub active: usize,
    /// How long one that has failed must hold again before it is used in place of a later one.
    pub return_after: Duration,
}

/// What happens to a group; a registration is named by its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupInput {
    /// Register, the first ones at some time within this.
    Start {
        /// How long they may wait.
        within: Duration,
    },
    /// Unregister all.
    Stop,
    /// Where the registrar of one is.
    Servers(usize, Vec<SocketAddr>),
    /// A response to a REGISTER of one.
    Response(usize, Response),
    /// A REGISTER of one, of this CSeq number, found no answer.
    NoResponse(usize, u32),
    /// Addresses of the registrar of one have raced.
    Raced {
        /// Which.
        place: usize,
        /// See [`Input::Raced`], here and below.
        cseq: u32,
        /// Where its REGISTER went.
        won: Option<SocketAddr>,
        /// Where it could not go.
        failed: Vec<SocketAddr>,
    },
    /// The connection is gone by which one was registered.
    FlowFailed(usize),
    /// A deadline has come.
    Timeout,
}

/// What a group wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupOutput {
    /// What one of its registrations wants done.
    Of(usize, Output),
    /// Another one is in use: calls leave by its route. `None`: none holds.
    InUse(Option<usize>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    registration: Registration,
    /// It has failed and come back, and is in use again from then on.
    settles_at: Option<Instant>,
    /// When it last settled.
    settled_at: Option<Instant>,
    /// How often in a row it has failed soon after its return.
    unsteady: u32,
    /// It has failed since it was last in use.
    failed: bool,
}

/// Registrations that stand for each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationGroup {
    settings: GroupSettings,
    members: Vec<Member>,
    running: bool,
    in_use: Option<usize>,
}

impl RegistrationGroup {
    /// A group at rest, of registrations in the order they are preferred.
    pub fn new(settings: GroupSettings, registrations: Vec<Registration>) -> RegistrationGroup {
        let member = |registration| Member {
            registration,
            settles_at: None,
            settled_at: None,
            unsteady: 0,
            failed: false,
        };
        let members: Vec<Member> = registrations.into_iter().map(member).collect();
        RegistrationGroup { settings, members, running: false, in_use: None }
    }

    /// Its registrations.
    pub fn registrations(&self) -> impl Iterator<Item = &Registration> {
        self.members.iter().map(|member| &member.registration)
    }

    /// The one in use: calls leave by its route.
    pub fn in_use(&self) -> Option<usize> {
        self.in_use
    }

    /// Whether it was started and not stopped.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Whether nothing is registered and nothing under way.
    pub fn is_idle(&self) -> bool {
        self.registrations().all(|registration| registration.state() == State::Idle)
    }

    /// When [`handle`](Self::handle) is to be given [`GroupInput::Timeout`].
    pub fn deadline(&self) -> Option<Instant> {
        let own = self.members.iter().filter_map(|member| member.settles_at);
        self.registrations().filter_map(Registration::deadline).chain(own).min()
    }

    /// Takes an input. `random` is a fresh random number, for waits and client nonces.
    pub fn handle(&mut self, now: Now, input: &GroupInput, random: u64) -> Vec<GroupOutput> {
        let mut out = Vec::new();
        match input {
            GroupInput::Start { within } => {
                self.running = true;
                self.choose(now, *within, random, &mut out);
            }
            GroupInput::Stop => {
                self.running = false;
                for place in 0..self.members.len() {
                    self.feed(place, now, Input::Stop, random, &mut out);
                }
            }
            GroupInput::Servers(place, servers) => {
                self.feed(*place, now, Input::Servers(servers.clone()), random, &mut out);
            }
            GroupInput::Response(place, response) => {
                self.feed(*place, now, Input::Response(response.clone()), random, &mut out);
            }
            GroupInput::NoResponse(place, cseq) => {
                self.feed(*place, now, Input::NoResponse { cseq: *cseq }, random, &mut out);
            }
            GroupInput::Raced { place, cseq, won, failed } => {
                let input = Input::Raced { cseq: *cseq, won: *won, failed: failed.clone() };
                self.feed(*place, now, input, random, &mut out);
            }
            GroupInput::FlowFailed(place) => self.feed(*place, now, Input::FlowFailed, random, &mut out),
            GroupInput::Timeout => self.timeout(now, random, &mut out),
        }
        self.choose(now, Duration::ZERO, random, &mut out);
        self.note_in_use(now, &mut out);
        out
    }

    fn timeout(&mut self, now: Now, random: u64, out: &mut Vec<GroupOutput>) {
        for place in 0..self.members.len() {
            let Some(member) = self.members.get_mut(place) else { continue };
            if member.settles_at.is_some_and(|at| at <= now.mono) {
                member.settle(now.mono);
            }
            let outputs = member.registration.handle_timeout(now, own(random, place));
            self.take(place, now, outputs, out);
        }
    }

    fn feed(&mut self, place: usize, now: Now, input: Input, random: u64, out: &mut Vec<GroupOutput>) {
        let Some(member) = self.members.get_mut(place) else { return };
        let outputs = member.registration.handle(now, input, own(random, place));
        self.take(place, now, outputs, out);
    }

    /// Notes what has become of one, and hands on what it wants done.
    fn take(&mut self, place: usize, now: Now, outputs: Vec<Output>, out: &mut Vec<GroupOutput>) {
        let return_after = self.settings.return_after;
        let Some(member) = self.members.get_mut(place) else { return };
        for output in &outputs {
            match output {
                Output::Up { .. } => member.came_up(now.mono, return_after),
                Output::Down { cause: DownCause::Stopped } => member.settles_at = None,
                Output::Down { .. } => member.went_down(now.mono, return_after),
                Output::Send(_) => {}
            }
        }
        out.extend(outputs.into_iter().map(|output| GroupOutput::Of(place, output)));
    }

    /// Begins as many as are wanted, and gives up those that only stood for one that is back.
    fn choose(&mut self, now: Now, within: Duration, random: u64, out: &mut Vec<GroupOutput>) {
        if !self.running {
            return;
        }
        let most = self.settings.active.max(1);
        let (mut covered, mut settled) = (0, 0);
        for place in 0..self.members.len() {
            let Some(member) = self.members.get(place) else { continue };
            let idle = member.registration.state() == State::Idle;
            if covered < most && idle {
                self.feed(place, now, Input::Start { within }, random, out);
            } else if settled >= most && !idle {
                self.feed(place, now, Input::Stop, random, out);
            }
            let Some(member) = self.members.get(place) else { continue };
            covered += usize::from(member.is_settled() || member.is_promising());
            settled += usize::from(member.is_settled());
        }
    }

    fn note_in_use(&mut self, now: Now, out: &mut Vec<GroupOutput>) {
        let place = |pick: &dyn Fn(&Member) -> bool| self.members.iter().position(pick);
        let settled = place(&Member::is_settled);
        let in_use = settled.or_else(|| place(&|member| member.registration.is_up()));
        if let Some(member) = in_use.and_then(|place| self.members.get_mut(place))
            && settled.is_none()
        {
            // There is nobody it would have to prove itself against.
            member.settle(now.mono);
        }
        if self.in_use != in_use {
            self.in_use = in_use;
            out.push(GroupOutput::InUse(in_use));
        }
    }
}

impl Member {
    /// Whether it is registered and to be relied upon.
    fn is_settled(&self) -> bool {
        self.registration.is_up() && self.settles_at.is_none()
    }

    /// Whether it may soon be, so that the next need not be begun.
    fn is_promising(&self) -> bool {
        self.registration.is_promising() && !self.failed
    }

    fn settle(&mut self, now: Instant) {
        (self.settles_at, self.settled_at, self.failed) = (None, Some(now), false);
    }

    fn hold(&self, return_after: Duration) -> Duration {
        let factor = 1_u32.checked_shl(self.unsteady).unwrap_or(u32::MAX);
        return_after.saturating_mul(factor).min(MAX_HOLD.max(return_after))
    }

    fn came_up(&mut self, now: Instant, return_after: Duration) {
        if self.failed && self.settles_at.is_none() {
            self.settles_at = Some(now + self.hold(return_after));
        }
    }

    fn went_down(&mut self, now: Instant, return_after: Duration) {
        let soon = self.hold(return_after) * STEADY;
        let returned = self.settles_at.is_some() || self.settled_at.is_some_and(|at| now.since(at) < soon);
        self.unsteady = match (self.failed && self.settles_at.is_none(), returned) {
            // It has not come back since: nothing new.
            (true, _) => self.unsteady,
            (false, true) => self.unsteady.saturating_add(1),
            (false, false) => 0,
        };
        (self.failed, self.settles_at, self.settled_at) = (true, None, None);
    }
}

/// A random number of each registration's own.
fn own(random: u64, place: usize) -> u64 {
    random.wrapping_add((place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
