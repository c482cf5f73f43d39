//! The timers of a shard: one wheel, and one wish to be woken.

use tandem_protocol::time::Instant;

use super::{Env, TimerKey};
use crate::timer_wheel::TimerId;

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
        let later = timers.put_off(now);
        let next = later.or_else(|| {
            timers.sweep(now, due);
            timers.next_wake()
        });
        drop(timers);
        self.want_wake(next);
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
