//! The one deadline table of a phone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::CallHandle;

/// RFC 3261 section 17.1.2.2: the longest retransmission interval.
pub(crate) const T2: Duration = Duration::from_secs(4);
/// RFC 3261 section 17.1.2.2: how long a message may stay in the network.
pub(crate) const T4: Duration = Duration::from_secs(5);
/// RFC 3261 section 16.6, Timer C: how long a phone lets another one ring.
pub(crate) const RING_LIMIT: Duration = Duration::from_secs(180);

/// Everything that the phone waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Timer {
    /// Timers A and E: send the request again.
    ClientRetransmit(u64),
    /// Timers B, D, F, K and M: the client transaction ends.
    ClientEnd(u64),
    /// Timer G: send the final response again.
    ServerRetransmit(u64),
    /// Timers H, I, J and L: the server transaction ends.
    ServerEnd(u64),
    /// Automatic 180.
    Ring(CallHandle),
    /// Automatic 200.
    Answer(CallHandle),
    /// The 2xx with this CSeq goes out again until its ACK comes, RFC 3261 section 13.3.1.4.
    Resend2xx(CallHandle, u32),
    /// The ACK of the 2xx with this CSeq never came.
    AckMissing(CallHandle, u32),
    /// A cancelled INVITE got no final answer in 64*T1, RFC 3261 section 9.1.
    CancelGiveUp(CallHandle),
    /// A reliable provisional response goes out again until its PRACK comes, RFC 3262 section 3.
    ResendReliable(CallHandle),
    /// The PRACK of a reliable provisional response never came.
    PrackMissing(CallHandle),
    /// We refresh the session, RFC 4028 section 7.4.
    Refresh(CallHandle),
    /// Nobody has refreshed the session, RFC 4028 section 10.
    SessionExpires(CallHandle),
    /// The peer's re-INVITE has been thought about.
    Ponder(CallHandle),
    /// Nobody answers and nobody refuses.
    RingLimit(CallHandle),
    /// A re-INVITE goes out again after a 491, RFC 3261 section 14.1.
    ReInvite(CallHandle),
    /// Register again.
    Register,
}

/// Deadlines, at most one for each timer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "BTreeSet<(Duration, Timer)>", into = "BTreeSet<(Duration, Timer)>")]
pub(crate) struct Timers {
    queue: BTreeSet<(Duration, Timer)>,
    deadlines: BTreeMap<Timer, Duration>,
}

impl From<BTreeSet<(Duration, Timer)>> for Timers {
    fn from(queue: BTreeSet<(Duration, Timer)>) -> Timers {
        let deadlines = queue.iter().map(|(at, timer)| (*timer, *at)).collect();
        Timers { queue, deadlines }
    }
}

impl From<Timers> for BTreeSet<(Duration, Timer)> {
    fn from(timers: Timers) -> BTreeSet<(Duration, Timer)> {
        timers.queue
    }
}

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Duration) {
        self.cancel(timer);
        self.deadlines.insert(timer, at);
        self.queue.insert((at, timer));
    }

    pub(crate) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.deadlines.remove(&timer) {
            self.queue.remove(&(at, timer));
        }
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.deadlines.contains_key(&timer)
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.queue.first().map(|(at, _)| *at)
    }

    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<Timer> {
        let (at, timer) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }

    /// Whether only the next registration is waited for.
    pub(crate) fn only_registration(&self) -> bool {
        self.deadlines.keys().all(|timer| *timer == Timer::Register)
    }
}
