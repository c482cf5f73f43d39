//! A store in memory: batches wait in a queue, and what is committed is on a disk that outlives the engine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tandem_actors::cdr::Cdr;
use tandem_actors::events::Event;
use tandem_actors::store::{Batch, Bucket, Entry, Store, StoreFault, Ticket, Urgency};

/// What has been committed.
#[derive(Default)]
pub(crate) struct Disk {
    values: BTreeMap<(Bucket, String), (u64, Bytes)>,
    /// With their numbers.
    pub(crate) events: Vec<(u64, Event)>,
    pub(crate) cdrs: Vec<Cdr>,
}

#[derive(Default)]
struct Queue {
    batches: Vec<Batch>,
    /// How many of them the driver has seen.
    seen: usize,
}

/// The store of one engine.
pub(crate) struct SimStore {
    disk: Arc<Mutex<Disk>>,
    queue: Mutex<Queue>,
    dead: AtomicBool,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one commit did.
pub(crate) struct Committed {
    /// Whom to tell.
    pub(crate) tickets: Vec<Ticket>,
    /// Everything that was written, for the log's hash.
    pub(crate) record: String,
}

impl SimStore {
    pub(crate) fn new(disk: Arc<Mutex<Disk>>) -> SimStore {
        SimStore { disk, queue: Mutex::default(), dead: AtomicBool::new(false) }
    }

    /// The engine is killed: what was not committed is gone.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
        *held(&self.queue) = Queue::default();
    }

    /// The most urgent of the batches that came since the last time this was asked.
    pub(crate) fn new_batches(&self) -> Option<Urgency> {
        let mut queue = held(&self.queue);
        let urgent = queue.batches[queue.seen..].iter().any(|b| b.urgency == Urgency::Urgent);
        let any = queue.seen < queue.batches.len();
        queue.seen = queue.batches.len();
        any.then_some(if urgent { Urgency::Urgent } else { Urgency::Lazy })
    }

    /// Commits everything that is queued.
    pub(crate) fn commit(&self) -> Committed {
        let batches = std::mem::take(&mut *held(&self.queue)).batches;
        let mut disk = held(&self.disk);
        let mut done = Committed { tickets: Vec::new(), record: String::new() };
        for batch in batches {
            for write in batch.writes {
                let key = (write.bucket, write.key);
                let version = disk.values.get(&key).map_or(0, |(version, _)| *version);
                match write.value {
                    Some(value) => drop(disk.values.insert(key, (version + 1, value))),
                    None => drop(disk.values.remove(&key)),
                }
            }
            for event in batch.events {
                let number = disk.events.last().map_or(1, |(n, _)| n + 1);
                done.record.push_str(&format!("{event:?}"));
                disk.events.push((number, event));
            }
            for cdr in batch.cdrs {
                done.record.push_str(&format!("{cdr:?}"));
                disk.cdrs.push(cdr);
            }
            done.tickets.extend(batch.ticket);
        }
        done
    }
}

impl Store for SimStore {
    fn submit(&self, batch: Batch) {
        if !self.dead.load(Ordering::Relaxed) {
            held(&self.queue).batches.push(batch);
        }
    }

    fn scan(&self, bucket: Bucket) -> Result<Vec<Entry>, StoreFault> {
        let disk = held(&self.disk);
        let of_bucket = disk.values.iter().filter(|((b, _), _)| *b == bucket);
        Ok(of_bucket
            .map(|((_, key), (version, value))| Entry {
                key: key.clone(),
                version: *version,
                value: value.clone(),
            })
            .collect())
    }

    fn events_from(&self, from: u64, max: usize) -> Result<Vec<String>, StoreFault> {
        let disk = held(&self.disk);
        let found = disk.events.iter().filter(|(n, _)| *n >= from).take(max);
        Ok(found.map(|(n, event)| format!("{n} {event:?}")).collect())
    }

    fn events_of(&self, call_id: &str, _depth: u64) -> Result<Vec<String>, StoreFault> {
        let disk = held(&self.disk);
        let found = disk.events.iter().filter(|(_, event)| event.call_id.as_deref() == Some(call_id));
        Ok(found.map(|(n, event)| format!("{n} {event:?}")).collect())
    }

    fn cdr(&self, call_id: &str) -> Result<Option<String>, StoreFault> {
        Ok(held(&self.disk).cdrs.iter().find(|cdr| cdr.call_id == call_id).map(|cdr| format!("{cdr:?}")))
    }

    fn flush(&self) {
        self.commit();
    }
}
