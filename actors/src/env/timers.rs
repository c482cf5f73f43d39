//! The timers of a shard: one wheel, and one wish to be woken.

use std::time::Duration;

use tandem_protocol::time::Instant;

use super::{Env, TimerKey};
use crate::timer_wheel::TimerId;

/// A standstill is told of if it was so long: half of T1, by which peers begin to send again.
const TOLD_FROM: Duration = Duration::from_millis(250);
/// Others are only counted for so long.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// What was told of a shard's standstills.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standstills {
    told: Option<Instant>,
    /// How many were not told since.
    untold: u32,
}

impl Env {
    /// A new, disarmed timer of an actor.
    pub(crate) fn timer(&self, owner: TimerKey) -> TimerId {
        self.0.common.timers.borrow_mut().insert(owner)
    }

    /// Arms, re-arms or disarms a timer.
    pub(crate) fn arm(&self, timer: TimerId, at: Option<Instant>) {
        let mut timers = self.0.common.timers.borrow_mut();
        let too_early = timers.arm(timer, at);
        let asked = self.0.common.wake.get();
        if asked.is_some() && asked == too_early {
            // Woken for nothing, an idle engine would have more to do than its work is.
            let next = timers.next_wake();
            if next.is_some() && next != asked {
                self.0.common.wake.set(None);
            }
            drop(timers);
            self.want_wake(next);
            return;
        }
        if at.is_none_or(|at| asked.is_some_and(|asked| asked <= at)) {
            // Whatever was armed before has its wake-up, and a later one needs none of its own.
            return;
        }
        let next = timers.next_wake();
        drop(timers);
        self.want_wake(next);
    }

    /// Forgets a timer.
    pub(crate) fn forget(&self, timer: TimerId) {
        self.0.common.timers.borrow_mut().remove(timer);
    }

    /// Takes what is due and asks to be woken for the next; takes nothing yet if the shard stood still meanwhile.
    pub(crate) fn sweep(&self, due: &mut Vec<TimerKey>) {
        let now = self.now().mono;
        self.0.common.wake.set(None);
        let mut timers = self.0.common.timers.borrow_mut();
        let put_off = timers.put_off(now);
        let next = match put_off {
            Some((later, _)) => Some(later),
            None => {
                timers.sweep(now, due);
                timers.next_wake()
            }
        };
        drop(timers);
        if let Some((_, stood_still)) = put_off {
            self.note_standstill(stood_still, now);
        }
        self.want_wake(next);
    }

    /// Counts a standstill, and tells of one that callers may have noticed; of further ones within [`TELL_AGAIN`] the next time.
    fn note_standstill(&self, stood_still: Duration, now: Instant) {
        self.metrics().standstills.increment(1);
        if stood_still < TOLD_FROM {
            return;
        }
        let common = &self.0.common;
        let before = common.standstills.get();
        if before.told.is_some_and(|told| now.since(told) < TELL_AGAIN) {
            common.standstills.set(Standstills { untold: before.untold + 1, ..before });
            return;
        }
        common.standstills.set(Standstills { told: Some(now), untold: 0 });
        tracing::warn!(
            shard = common.shard.0,
            stood_still_ms = stood_still.as_millis() as u64,
            untold = before.untold,
            "a shard stood still and looks at its timers so late: something else had its processor, or one of its actors took so long; see \
             tandem_shard_standstills_total, and who else is on this machine"
        );
    }

    fn want_wake(&self, next: Option<Instant>) {
        if let Some(at) = next
            && self.0.common.wake.get().is_none_or(|asked| at < asked)
        {
            self.0.common.wake.set(Some(at));
            self.0.common.seams.wake_at(at);
        }
    }

    /// How many timers exist on this shard.
    pub fn timers(&self) -> usize {
        self.0.common.timers.borrow().len()
    }
}
