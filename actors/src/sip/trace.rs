//! The last SIP messages of a shard, bounded in bytes: what `why --sip` draws its ladder from.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Serialize;
use tandem_protocol::flow::Flow;
use tandem_protocol::message::framing::peek_call_id;
use tandem_protocol::time::UnixMillis;

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To us.
    In,
    /// From us.
    Out,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Traced {
    /// When.
    pub time: UnixMillis,
    /// Which way.
    pub direction: Direction,
    /// Between which of our listeners and which peer.
    pub flow: Flow,
    /// The whole message.
    pub bytes: Bytes,
}

/// A ring of messages, oldest out first.
#[derive(Debug)]
pub struct Trace {
    ring: VecDeque<Traced>,
    held: usize,
    limit: usize,
    dropped_until: Option<UnixMillis>,
}

/// What a message costs beyond its bytes.
const OVERHEAD: usize = std::mem::size_of::<Traced>() + 32;

/// What a message and what is kept of it usually take.
const USUAL: usize = 1024;

impl Trace {
    /// A ring of at most `limit` bytes; 0 keeps nothing.
    pub fn new(limit: usize) -> Trace {
        // Room at once, of which nothing is used yet: a ring that grows is copied while messages wait.
        Trace { ring: VecDeque::with_capacity(limit / USUAL), held: 0, limit, dropped_until: None }
    }

    /// Keeps a message.
    pub fn keep(&mut self, time: UnixMillis, direction: Direction, flow: Flow, bytes: &Bytes) {
        if self.limit == 0 {
            return;
        }
        self.held += bytes.len() + OVERHEAD;
        self.ring.push_back(Traced { time, direction, flow, bytes: bytes.clone() });
        while self.held > self.limit {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.held -= oldest.bytes.len() + OVERHEAD;
            self.dropped_until = Some(oldest.time);
        }
    }

    /// The messages that have one of these Call-IDs, oldest first.
    pub fn of(&self, call_ids: &[String]) -> Vec<Traced> {
        let ours = |bytes: &[u8]| {
            peek_call_id(bytes).is_some_and(|id| call_ids.iter().any(|wanted| wanted.as_bytes() == id))
        };
        self.ring.iter().filter(|traced| ours(&traced.bytes)).cloned().collect()
    }

    /// The time of the newest message that had to go: what is older may be missing.
    pub fn dropped_until(&self) -> Option<UnixMillis> {
        self.dropped_until
    }
}
