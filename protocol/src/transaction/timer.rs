use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The base values of RFC 3261 §17's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// Round-trip estimate; the first retransmission interval.
    pub t1: Duration,
    /// Ceiling of the retransmission interval of non-INVITE requests and INVITE responses.
    pub t2: Duration,
    /// Longest time a message stays in the network.
    pub t4: Duration,
    /// Timer B and F: how long a request waits for any answer; 64*T1 unless a trunk says otherwise.
    pub give_up: Duration,
    /// Timer F, if it is not the same.
    pub timer_f: Option<Duration>,
    /// How long a connection opened for a request may take to come about; `None`: as its listener says.
    pub connect: Option<Duration>,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers::new(Duration::from_millis(500), Duration::from_secs(4))
    }
}

impl Timers {
    /// The timers that follow from T1 and T2, with T4 = 5 s and Timers B and F = 64*T1.
    pub fn new(t1: Duration, t2: Duration) -> Timers {
        Timers { t1, t2, t4: Duration::from_secs(5), give_up: t1 * 64, timer_f: None, connect: None }
    }
}

/// When a request that is no INVITE is given up after so many retransmissions (RFC 3261 §17.1.2.2): when the next would be due, but not
/// after 64*T1.
pub fn timer_f(t1: Duration, t2: Duration, retransmissions: u32) -> Duration {
    let interval = |n: u32| t1.saturating_mul(2_u32.saturating_pow(n)).min(t2);
    let due: Duration = (0..=retransmissions.min(64)).map(interval).sum();
    due.min(t1 * 64)
}

/// What a deadline that has passed asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Not due yet, or nothing to do.
    Nothing,
    /// Send the last message once more.
    Retransmit,
    /// Answer 100 Trying: the transaction user has been silent for 200 ms (§17.2.1).
    Trying,
    /// Nobody answered in time (Timer B, F or H); the transaction is over and its user is told.
    GaveUp,
    /// The transaction is over; nobody needs to be told.
    Terminated,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_retransmissions_as_the_presets_name_take_this_long() {
        let ms = Duration::from_millis;
        let after = |t2, retransmissions| timer_f(ms(500), ms(t2), retransmissions);
        assert_eq!(after(4000, 10), ms(32_000), "what RFC 3261 has: at 0.5, 1.5, 3.5, 7.5 s and each 4 s on");
        assert_eq!(after(1000, 4), ms(4_500), "at 0.5, 1.5, 2.5 and 3.5 s");
        assert_eq!(after(4000, 0), ms(500));
        assert_eq!(after(4000, u32::MAX), ms(32_000));
    }
}
