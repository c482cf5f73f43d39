//! Which contacts of a station ring, and when: parallel and sequential forking (RFC 3261 §16.6, §16.7; RFC 5626 §5.3).
//!
//! Contacts of one q ring together. Those of the next lower q ring once all of these have failed, or once they have rung long
//! enough; then these are cancelled. Of the flows of one device (same instance, several `reg-id`s) one is used at a time, and the
//! next if that one is dead.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{LegId, Target};
use crate::time::Instant;

/// One device: the ways to it, the preferred first. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The ways to the device.
    pub flows: Vec<Target>,
}

impl Branch {
    /// A device with one way to it.
    pub fn one(target: Target) -> Branch {
        Branch { flows: vec![target] }
    }
}

/// The contacts of a station as one call rings them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The groups of equal preference not yet rung, the next one last.
    left: Vec<Vec<Branch>>,
    /// How many devices there are, in all groups.
    devices: usize,
    /// How long a group rings while there is another; zero: until all of it has failed.
    group_timeout: Duration,
    /// The flows left to each device that is called.
    spare: Vec<(LegId, Vec<Target>)>,
    /// When the next group's turn comes.
    next_at: Option<Instant>,
    /// When nobody has answered in time.
    give_up_at: Option<Instant>,
}

impl Fork {
    /// Rings `groups` in order; empty groups are passed over.
    pub fn new(mut groups: Vec<Vec<Branch>>, group_timeout: Duration) -> Fork {
        groups.retain(|group| !group.is_empty());
        groups.reverse();
        let devices = groups.iter().map(Vec::len).sum();
        Fork { left: groups, devices, group_timeout, spare: Vec::new(), next_at: None, give_up_at: None }
    }

    /// Rings all contacts at once.
    pub fn parallel(contacts: Vec<Target>) -> Fork {
        Fork::new(vec![contacts.into_iter().map(Branch::one).collect()], Duration::ZERO)
    }

    /// True if there is nobody to ring beside or after the first.
    pub(super) fn is_one_device(&self) -> bool {
        self.devices == 1
    }

    /// The ways to the contacts that have not rung, the one that is tried first at the front.
    pub fn ways(&self) -> impl Iterator<Item = &Target> {
        self.left.iter().rev().flatten().flat_map(|branch| &branch.flows)
    }

    /// Nobody has answered in time at `at`.
    pub(super) fn give_up_at(&mut self, at: Instant) {
        self.give_up_at = Some(at);
    }

    /// When something is to be done if nobody answers.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_at.into_iter().chain(self.give_up_at).min()
    }

    /// The next group to ring; empty if there is none.
    pub(super) fn next_group(&mut self, now: Instant) -> Vec<Branch> {
        let group = self.left.pop().unwrap_or_default();
        let others_wait = !self.left.is_empty() && !self.group_timeout.is_zero();
        self.next_at = others_wait.then(|| now + self.group_timeout);
        group
    }

    /// Whether the next group's turn has come.
    pub(super) fn is_next_due(&self, now: Instant) -> bool {
        let expired = self.give_up_at.is_some_and(|at| at <= now);
        !expired && self.next_at.is_some_and(|at| at <= now)
    }

    /// Remembers the other ways to the device that `leg` calls.
    pub(super) fn called(&mut self, leg: LegId, spare: Vec<Target>) {
        if !spare.is_empty() {
            self.spare.push((leg, spare));
        }
    }

    /// The next way to the device that `leg` called in vain, with those left after it.
    pub(super) fn next_flow(&mut self, leg: LegId) -> Option<Branch> {
        let place = self.spare.iter().position(|(of, _)| *of == leg)?;
        let (_, flows) = self.spare.swap_remove(place);
        Some(Branch { flows })
    }
}
