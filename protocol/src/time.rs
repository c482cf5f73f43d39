//! Time as data: machines are told what time it is and never read a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on the engine's monotonic clock, in microseconds since an epoch of the engine's own.
///
/// It is a number and not [`std::time::Instant`], so that machines can be serialised and run in virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(pub u64);

impl Instant {
    /// The time passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// About so long after this: up to a sixteenth of `wait` later, 262 ms at most, and never earlier. For what needs no precision: such times
    /// lie on a common grid, so that what is due at about the same time is due together, and an idle engine is not woken for each.
    #[must_use]
    pub fn roughly_after(self, wait: Duration) -> Instant {
        let exact = self + wait;
        let late = (wait / LEAST_EXACT).min(LATEST).as_micros() as u64;
        // Powers of two, so that each grid has the times of every coarser one.
        let grid = late.checked_ilog2().map_or(1, |power| 1 << power);
        exact.0.checked_next_multiple_of(grid).map_or(exact, Instant)
    }
}

/// The part of a wait by which it may be longer.
const LEAST_EXACT: u32 = 16;
/// Nothing is later by more: the coarsest grid, 2^18 us.
const LATEST: Duration = Duration::from_micros(1 << 18);

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(d.as_micros().min(u128::from(u64::MAX)) as u64))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, d: Duration) -> Instant {
        Instant(self.0.saturating_sub(d.as_micros().min(u128::from(u64::MAX)) as u64))
    }
}

/// Wall-clock time in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixMillis(pub u64);

/// The time at which an input is handled: both clocks, read once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and durations.
    pub mono: Instant,
    /// For records that outlive the process.
    pub wall: UnixMillis,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_waits_that_end_at_about_the_same_time_end_together() {
        let begin = Instant(1_000_003);
        let ends = |waits: [u64; 4]| waits.map(|ms| begin.roughly_after(Duration::from_millis(ms)));
        let [first, others @ ..] = ends([29_000, 29_030, 29_060, 29_090]);
        assert!(others.iter().all(|other| *other == first), "{first:?} {others:?}");
        // Those of T4 share the times of those that are longer.
        let grid = |wait: Duration| begin.roughly_after(wait).0 % (1 << 18);
        assert_eq!([5, 30, 3600].map(|s| grid(Duration::from_secs(s))), [0; 3]);
    }

    #[test]
    fn a_short_wait_stays_as_it_is() {
        let begin = Instant(1_000_003);
        assert_eq!(begin.roughly_after(Duration::ZERO), begin);
        assert_eq!(begin.roughly_after(Duration::from_micros(31)), Instant(1_000_034));
        assert_eq!(Instant(u64::MAX - 1).roughly_after(Duration::from_secs(30)), Instant(u64::MAX));
    }

    proptest! {
        #[test]
        fn nothing_is_early_nor_late_by_more_than_a_sixteenth(
            begin in 0..u64::MAX / 4, wait in 0..u64::from(u32::MAX),
        ) {
            let (begin, wait) = (Instant(begin), Duration::from_micros(wait));
            let late = begin.roughly_after(wait).since(begin + wait);
            prop_assert!(begin.roughly_after(wait) >= begin + wait);
            prop_assert!(late <= (wait / 16).min(Duration::from_millis(263)), "{late:?}");
        }
    }
}
