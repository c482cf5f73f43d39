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
        Timers { t1, t2, t4: Duration::from_secs(5), give_up: t1 * 64, connect: None }
    }
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
