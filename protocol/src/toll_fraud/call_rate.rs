//! How many new calls there may be: a token bucket that is one point in time.
//!
//! The bucket holds a minute's calls and fills evenly. Instead of how full it is it is kept when it will be full, so that no clock
//! has to fill it, and the state is one number that any thread may change by compare-and-set.

use std::time::Duration;

use crate::time::Instant;

/// In which a bucket is filled.
const MINUTE: Duration = Duration::from_secs(60);

/// When the bucket will be full once a call that begins now has been taken from it; `None` if there is none left to take.
/// `full_at` is what this said last, at first anything that has passed. `per_min` is how many calls the bucket holds, and gets in a
/// minute; of 0 there are any number.
pub fn take(full_at: Instant, per_min: u32, now: Instant) -> Option<Instant> {
    let Some(interval) = MINUTE.checked_div(per_min) else { return Some(full_at) };
    let next = full_at.max(now) + interval;
    (next.since(now) <= MINUTE).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    /// How many of `tries` calls at this time there may be.
    fn taken(full_at: &mut Instant, per_min: u32, ms: u64, tries: usize) -> usize {
        let mut call = || take(*full_at, per_min, at(ms)).map(|next| *full_at = next).is_some();
        (0..tries).filter(|_| call()).count()
    }

    #[test]
    fn a_minutes_calls_may_come_at_once_and_then_one_for_each_share_of_a_minute() {
        let mut bucket = Instant::default();
        assert_eq!(taken(&mut bucket, 6, 1_000, 10), 6);
        assert_eq!(taken(&mut bucket, 6, 10_999, 10), 0);
        assert_eq!(taken(&mut bucket, 6, 11_000, 10), 1);
        assert_eq!(taken(&mut bucket, 6, 31_000, 10), 2);
        assert_eq!(taken(&mut bucket, 6, 500_000, 10), 6, "it holds no more than a minute's");
    }

    #[test]
    fn in_the_long_run_there_are_as_many_a_minute_and_no_more() {
        for per_min in [1, 7, 60, 6_000, 59_999] {
            let mut bucket = Instant::default();
            let calls: usize = (0..600).map(|second| taken(&mut bucket, per_min, second * 1000, 2_000)).sum();
            let most = per_min as usize * 10 + per_min as usize;
            let least = most - per_min.div_ceil(60) as usize - 1;
            assert!(calls <= most.min(600 * 2_000) && calls >= least.min(590 * 1_000), "{per_min}: {calls}");
        }
    }

    #[test]
    fn without_a_limit_any_number_may_come() {
        let mut bucket = Instant::default();
        assert_eq!(taken(&mut bucket, 0, 5, 10_000), 10_000);
        assert_eq!(bucket, Instant::default());
    }
}
