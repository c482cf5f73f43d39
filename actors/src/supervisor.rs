//! Supervision: who is whose child, how often it may fail, how long it rests.
//!
//! | parent | children | strategy | intensity | after that |
//! | --- | --- | --- | --- | --- |
//! | engine | shards | one that gives no sign of life for 2 s is fenced; another has its sockets and calls | 3 threads | the process drains and ends for its service manager |
//! | engine | media workers | rebuilt in place, sockets stay | 5 in 10 s | the process ends for its service manager |
//! | shard | calls | each alone, rebuilt in place | 5 in 10 s | the call ends: BYE on every leg, CDR |
//! | shard | stations, trunks, registration groups | each alone, restarted from settings and store | back-off 100 ms to 30 s, forgotten after 5 min | kept trying |
//! | call | dialogs | each alone, rebuilt in place | 5 in 10 s | the leg ends |
//! | media worker | media sessions | each alone, re-made on the same ports | 5 in 10 s | the session ends |
//!
//! Rebuilding in place is the shell's work ([`crate::shell`]): address and mailbox stay. What is here is the rest: the
//! last resort when an actor's own handler panics, its count, and its back-off.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tandem_protocol::time::Instant;

use crate::env::{Env, Shared};
use crate::metrics::ActorKind;
use crate::seat::Seat;

/// The first rest of a named actor after a fault; doubled each time.
pub const FIRST_REST: Duration = Duration::from_millis(100);
/// The longest rest.
pub const LONGEST_REST: Duration = Duration::from_secs(30);

/// How long a named actor rests after its `restarts`th fault in a row.
pub fn rest_after(restarts: u32) -> Duration {
    let factor = 1u32.checked_shl(restarts.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_REST.saturating_mul(factor).min(LONGEST_REST)
}

/// Who has not failed for so long since the last time has not failed again.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// How often a named actor has failed in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failures {
    in_a_row: u32,
    last: Option<Instant>,
}

impl Failures {
    /// It has failed again: how long it rests.
    pub fn again(&mut self, now: Instant) -> Duration {
        let soon = self.last.is_some_and(|last| now.since(last) < FORGOTTEN_AFTER);
        self.in_a_row = if soon { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = Some(now);
        rest_after(self.in_a_row)
    }

    /// How often.
    pub fn count(&self) -> u32 {
        self.in_a_row
    }
}

/// How many actors of each kind live, and how often each kind was rebuilt.
#[derive(Debug, Default)]
pub struct Census {
    alive: [AtomicI64; ActorKind::ALL.len()],
    restarts: [AtomicU64; ActorKind::ALL.len()],
}

impl Census {
    /// Living actors of a kind.
    pub fn alive(&self, kind: ActorKind) -> i64 {
        self.alive[kind as usize].load(Ordering::Relaxed)
    }

    /// Restarts of a kind since the start.
    pub fn restarts(&self, kind: ActorKind) -> u64 {
        self.restarts[kind as usize].load(Ordering::Relaxed)
    }

    /// So many actors of a kind live no longer.
    pub(crate) fn leave(&self, kind: ActorKind, count: i64) {
        self.alive[kind as usize].fetch_sub(count, Ordering::Relaxed);
    }

    /// Counts a restart.
    pub fn restarted(&self, kind: ActorKind) {
        self.restarts[kind as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Lives inside an actor: counts it, and is the last thing that speaks for it.
///
/// Its `Drop` runs when the actor has stopped, and also when a panic has escaped the shell and the runtime has thrown the actor away.
pub struct Guard {
    shared: Arc<Shared>,
    /// Of a shard's actors: that of their shard.
    seat: Option<Arc<Seat>>,
    kind: ActorKind,
    down: Option<Box<dyn FnOnce(bool)>>,
}

impl Guard {
    /// Counts an actor of `kind`; `down` is called at its end, with true if a panic ended it.
    pub fn new(env: &Env, kind: ActorKind, down: impl FnOnce(bool) + 'static) -> Guard {
        Guard::counted(env.shared().clone(), Some(env.seat().clone()), kind, down)
    }

    /// The same where there is no shard: on a media worker's thread.
    pub fn with(shared: Arc<Shared>, kind: ActorKind, down: impl FnOnce(bool) + 'static) -> Guard {
        Guard::counted(shared, None, kind, down)
    }

    fn counted(
        shared: Arc<Shared>,
        seat: Option<Arc<Seat>>,
        kind: ActorKind,
        down: impl FnOnce(bool) + 'static,
    ) -> Guard {
        let guard = Guard { shared, seat, kind, down: Some(Box::new(down)) };
        guard.count(1);
        guard
    }

    fn count(&self, count: i64) {
        // Of a shard that was fenced nobody is counted any more.
        if self.seat.as_ref().is_none_or(|seat| seat.count_actor(self.kind, count)) {
            self.shared.census.alive[self.kind as usize].fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// So many actors of a kind begin to live, or end: for those that need no [`Guard`], because they speak for themselves when they are dropped.
pub(crate) fn count(env: &Env, kind: ActorKind, count: i64) {
    if env.seat().count_actor(kind, count) {
        env.shared().census.alive[kind as usize].fetch_add(count, Ordering::Relaxed);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.count(-1);
        if let Some(down) = self.down.take() {
            down(std::thread::panicking());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_up_to_the_longest() {
        assert_eq!(rest_after(1), Duration::from_millis(100));
        assert_eq!(rest_after(4), Duration::from_millis(800));
        assert_eq!(rest_after(40), LONGEST_REST);
    }

    #[test]
    fn a_fault_a_day_is_not_a_row_of_faults() {
        let (mut failures, mut now) = (Failures::default(), Instant(0));
        for _ in 0..30 {
            assert_eq!(failures.again(now), FIRST_REST);
            now = now + Duration::from_secs(86_400);
        }
        assert_eq!(failures.again(now), FIRST_REST);
        assert_eq!(failures.again(now + LONGEST_REST), FIRST_REST * 2);
        assert_eq!(failures.count(), 2);
    }
}
