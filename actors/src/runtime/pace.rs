//! Lets a busy shard rest before it looks for work again, so that one wake-up finds several datagrams: waking costs more than most
//! datagrams do. The less a shard has to do, the less it rests; one that was idle answers at once.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// It is busy if it ran out of work less than this ago, and before that, too.
const BUSY: Duration = Duration::from_millis(2);
/// How long it rests at most, which is what that adds to a message's way; and at least.
const LONGEST: Duration = Duration::from_micros(500);
const SHORTEST: Duration = Duration::from_micros(200);
/// How long one that never does anything else than work would rest.
const OF_ITS_TIME: Duration = Duration::from_millis(5);
/// What the share of its time that it works is a mean of: so many times that it ran out of work.
const MEMORY: u32 = 16;

/// The pace of one thread.
#[derive(Debug)]
pub(super) struct Pace {
    /// When it last ran out of work.
    idle_since: Instant,
    /// When its rest after that was over.
    parked: Instant,
    /// When it last found work.
    woke: Instant,
    /// It had found work soon after that.
    was_busy: bool,
    /// The share of its time that it works, in thousandths.
    share: u32,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { idle_since: now, parked: now, woke: now, was_busy: false, share: 0 }
    }

    /// It has run out of work: how long it shall rest.
    fn rest(&mut self, now: Instant) -> Option<Duration> {
        let since = now.duration_since(std::mem::replace(&mut self.idle_since, now));
        let worked = now.duration_since(self.woke.max(self.parked));
        let share = (worked.as_micros() * 1000 / since.as_micros().max(1)) as u32;
        self.share = (self.share * (MEMORY - 1) + share) / MEMORY;
        let was_busy = std::mem::replace(&mut self.was_busy, now.duration_since(self.parked) < BUSY);
        let rest = OF_ITS_TIME * self.share / 1000;
        (self.was_busy && was_busy).then(|| rest.clamp(SHORTEST, LONGEST))
    }
}

/// What the runtime of a thread is to call when it runs out of work, and when it finds some.
pub(super) fn hooks() -> (impl Fn() + Send + Sync + 'static, impl Fn() + Send + Sync + 'static) {
    let pace = Arc::new(Mutex::new(Pace::new(Instant::now())));
    let woken = pace.clone();
    let park = move || {
        // Only this thread ever takes the lock: the runtime asks for hooks that could be shared.
        let Ok(mut pace) = pace.try_lock() else { return };
        if let Some(rest) = pace.rest(Instant::now()) {
            std::thread::sleep(rest);
        }
        pace.parked = Instant::now();
    };
    let unpark = move || {
        if let Ok(mut pace) = woken.try_lock() {
            pace.woke = Instant::now();
        }
    };
    (park, unpark)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rests of a shard that finds work `idle` after each rest and has `work` to do then.
    fn rests(idle: Duration, work: Duration) -> Vec<Option<Duration>> {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let turn = |_| {
            now += idle;
            pace.woke = now;
            now += work;
            let rest = pace.rest(now);
            now += rest.unwrap_or_default();
            pace.parked = now;
            rest
        };
        (0..200).map(turn).collect()
    }

    #[test]
    fn an_idle_shard_does_not_rest_even_if_an_answer_comes_at_once() {
        assert_eq!(rests(Duration::from_millis(50), Duration::from_micros(40)), vec![None; 200]);
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let asks = now + Duration::from_millis(50);
        assert_eq!(pace.rest(asks), None);
        pace.parked = asks;
        pace.woke = asks + Duration::from_micros(90);
        assert_eq!(pace.rest(asks + Duration::from_micros(130)), None);
    }

    #[test]
    fn the_rest_grows_with_the_work() {
        let settled =
            |work| rests(Duration::from_micros(10), Duration::from_micros(work)).last().copied().flatten();
        let (little, much) = (settled(20), settled(400));
        assert!(little.is_some_and(|rest| (SHORTEST..LONGEST).contains(&rest)), "{little:?}");
        assert_eq!(much, Some(LONGEST));
    }
}
