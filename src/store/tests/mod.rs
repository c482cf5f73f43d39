//! The store seen from outside. Nothing sleeps: each test waits for tickets, with a bound.

mod crash;
mod faults;
mod groups;
mod journal;
mod logs;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tandem_actors::cdr::Cdr;
use tandem_actors::events::{Event, EventKind};
use tandem_actors::store::{Batch, Bucket, Completions, Store, StoreFault, Ticket, Urgency, Write};
use tandem_protocol::time::UnixMillis;

use super::{Dropped, Embedded, Meter, OpenError, Options};

/// Far longer than any commit takes, so that only a store that never answers fails a test.
const BOUND: Duration = Duration::from_secs(20);

type Told = (u64, Result<(), StoreFault>);

struct Sent(Mutex<Sender<Told>>);

impl Completions for Sent {
    fn committed(&self, done: Vec<(Ticket, Result<(), StoreFault>)>) {
        let sender = self.0.lock().unwrap();
        for (ticket, result) in done {
            let _ = sender.send((ticket.token, result));
        }
    }
}

#[derive(Default)]
struct Counted {
    groups: AtomicU64,
    failed: AtomicU64,
    dropped: Mutex<Vec<(Dropped, u64)>>,
}

impl Counted {
    fn groups(&self) -> u64 {
        self.groups.load(Ordering::Relaxed)
    }

    fn dropped(&self, what: Dropped) -> u64 {
        self.dropped.lock().unwrap().iter().filter(|(w, _)| *w == what).map(|(_, count)| count).sum()
    }
}

struct Meters(Arc<Counted>);

impl Meter for Meters {
    fn committed(&self, _: Duration, _: usize) {
        self.0.groups.fetch_add(1, Ordering::Relaxed);
    }
    fn saved(&self, _: Duration) {}
    fn failed(&self) {
        self.0.failed.fetch_add(1, Ordering::Relaxed);
    }
    fn dropped(&self, what: Dropped, count: u64) {
        self.0.dropped.lock().unwrap().push((what, count));
    }
    fn waiting(&self, _: usize, _: usize) {}
}

/// A store, what it tells and what it counts.
struct Rig {
    store: Embedded,
    told: Receiver<Told>,
    counted: Arc<Counted>,
}

impl Rig {
    fn open(dir: &Path) -> Rig {
        Rig::with(dir, Options::default())
    }

    fn with(dir: &Path, options: Options) -> Rig {
        let (sender, told) = channel();
        let counted = Arc::new(Counted::default());
        let sent = Arc::new(Sent(Mutex::new(sender)));
        let give_up = std::time::Instant::now() + BOUND;
        let store = loop {
            let opened =
                Embedded::open(dir, options.clone(), sent.clone(), Box::new(Meters(counted.clone())));
            match opened {
                // A child that another test is about to start has the lock of a store that was just dropped until it runs its program.
                Err(OpenError::InUse(_)) if std::time::Instant::now() < give_up => std::thread::yield_now(),
                opened => break opened.unwrap(),
            }
        };
        Rig { store, told, counted }
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(BOUND).expect("a ticket is told")
    }

    /// Submits and waits for this ticket, passing over others.
    fn put(&self, batch: Batch, token: u64) -> Result<(), StoreFault> {
        self.store.submit(ticketed(batch, token));
        loop {
            let (of, result) = self.next();
            if of == token {
                return result;
            }
        }
    }

    /// Tries until the store commits: each try is a group of its own.
    fn put_until_ok(&self, key: &str) {
        let give_up = std::time::Instant::now() + BOUND;
        while self.put(put(key, "again"), u64::MAX).is_err() {
            assert!(std::time::Instant::now() < give_up, "the store works again");
        }
    }

    fn keys(&self, bucket: Bucket) -> Vec<(String, u64, String)> {
        let entries = self.store.scan(bucket).unwrap();
        entries
            .into_iter()
            .map(|entry| (entry.key, entry.version, String::from_utf8_lossy(&entry.value).into_owned()))
            .collect()
    }
}

fn write(bucket: Bucket, key: &str, value: Option<&str>, expect: Option<u64>) -> Write {
    Write { bucket, key: key.into(), value: value.map(|v| Bytes::copy_from_slice(v.as_bytes())), expect }
}

fn of(urgency: Urgency, writes: Vec<Write>) -> Batch {
    Batch { writes, ..Batch::new(urgency) }
}

fn put(key: &str, value: &str) -> Batch {
    of(Urgency::Urgent, vec![write(Bucket::Calls, key, Some(value), None)])
}

fn delete(key: &str) -> Batch {
    of(Urgency::Urgent, vec![write(Bucket::Calls, key, None, None)])
}

fn ticketed(batch: Batch, token: u64) -> Batch {
    Batch { ticket: Some(Ticket { shard: 0, token }), ..batch }
}

fn event(call_id: &str, reason: &str) -> Event {
    Event::new(UnixMillis(1_767_225_600_000), EventKind::CallStarted, reason.to_owned()).of(&call_id.into())
}

fn events(all: Vec<Event>) -> Batch {
    Batch { events: all, ..Batch::new(Urgency::Urgent) }
}

fn record(call_id: &str, segment: u32) -> Batch {
    let cdr = Cdr { call_id: call_id.into(), segment, cause: "normal".into(), ..Cdr::default() };
    Batch { cdrs: vec![cdr], ..Batch::new(Urgency::Urgent) }
}

/// The lines of a file in the directory.
fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The number of an event's line.
fn number(line: &str) -> u64 {
    serde_json::from_str::<serde_json::Value>(line).unwrap()["n"].as_u64().unwrap()
}
