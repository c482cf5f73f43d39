//! The one store trait: named buckets of versioned values, an append-only event log, and CDRs.
//!
//! A write is a [`Batch`]; it never blocks its caller. Batches are committed in groups: an urgent one within 2 ms, a lazy
//! one within 50 ms. Who needs to know gives a [`Ticket`] and is told through [`Completions`] after the commit.

use bytes::Bytes;

use crate::cdr::Cdr;
use crate::events::Event;
use crate::seat::Seat;

/// The buckets an engine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Bindings of one AOR, by station name.
    Bindings,
    /// Call attempts in progress and checkpoints of established calls, by the engine's call id.
    Calls,
    /// Stations beyond those of the settings file, by name.
    Stations,
    /// The engine's own small facts (format numbers, start count).
    Meta,
}

impl Bucket {
    /// Every bucket.
    pub const ALL: [Bucket; 4] = [Bucket::Bindings, Bucket::Calls, Bucket::Stations, Bucket::Meta];

    /// The bucket's name in the backend.
    pub fn name(self) -> &'static str {
        match self {
            Bucket::Bindings => "bindings",
            Bucket::Calls => "calls",
            Bucket::Stations => "stations",
            Bucket::Meta => "meta",
        }
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Where.
    pub bucket: Bucket,
    /// Which key.
    pub key: String,
    /// The new value; `None` deletes.
    pub value: Option<Bytes>,
    /// The version the key must have now (0: it must not exist). `None` writes whatever is there.
    pub expect: Option<u64>,
}

/// How soon a batch must be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A message waits for it: next group, at most 2 ms.
    Urgent,
    /// Nobody waits: at most 50 ms.
    Lazy,
}

/// Names who is told when a batch is committed: a shard, and a number that shard understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// The shard to tell.
    pub shard: u16,
    /// Chosen by the shard.
    pub token: u64,
}

/// Changes that are committed together or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Changes of keys.
    pub writes: Vec<Write>,
    /// Events to number and append.
    pub events: Vec<Event>,
    /// Records of ended calls.
    pub cdrs: Vec<Cdr>,
    /// How soon.
    pub urgency: Urgency,
    /// Who is told.
    pub ticket: Option<Ticket>,
}

impl Batch {
    /// An empty batch.
    pub fn new(urgency: Urgency) -> Batch {
        Batch { writes: Vec::new(), events: Vec::new(), cdrs: Vec::new(), urgency, ticket: None }
    }
}

/// Why a batch was not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// The backend refused: a full disk, a broken file.
    #[error("the store could not commit: {0}")]
    Backend(String),
    /// A key had another version than expected; nothing of the batch was written.
    #[error("{key} in {bucket} has another version than expected")]
    Conflict {
        /// The bucket's name.
        bucket: &'static str,
        /// The key.
        key: String,
    },
    /// More is waiting than the store may hold; the batch was dropped.
    #[error("the store's queue is full")]
    Overflow,
}

/// Told after each commit, on the store's own thread, with every ticket of the group.
pub trait Completions: Send + Sync {
    /// Each ticket with what became of its batch.
    fn committed(&self, done: Vec<(Ticket, Result<(), StoreFault>)>);
}

/// One stored value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Rises by one with each write of the key, from 1.
    pub version: u64,
    /// The value.
    pub value: Bytes,
}

/// The store of one engine.
pub trait Store: Send + Sync {
    /// Queues a batch. Never blocks; what cannot be queued is counted, logged and reported to its ticket.
    fn submit(&self, batch: Batch);

    /// The same for a shard. Once its seat is fenced and [`flush`](Store::flush) has returned, nothing of it is queued any more.
    fn submit_from(&self, batch: Batch, seat: &Seat) {
        if !seat.is_fenced() {
            self.submit(batch);
        }
    }

    /// Every entry of a bucket, by key. Blocking: for the start of an engine and the API, never on a call's path.
    fn scan(&self, bucket: Bucket) -> Result<Vec<Entry>, StoreFault>;

    /// Up to `max` events from number `from` on, each as one line of JSON with its number. Blocking.
    fn events_from(&self, from: u64, max: usize) -> Result<Vec<String>, StoreFault>;

    /// The events of one call, oldest first, each as one line of JSON, looking back over the newest `depth` events. Blocking.
    fn events_of(&self, call_id: &str, depth: u64) -> Result<Vec<String>, StoreFault>;

    /// The record of a call as JSON, if it has one. Blocking.
    fn cdr(&self, call_id: &str) -> Result<Option<String>, StoreFault>;

    /// Commits what is queued and waits for it. For an orderly end.
    fn flush(&self);
}
