//! What a commit of the embedded store takes, from the submission of its batches until it is in the write-ahead log, and what it
//! allocates on all threads. `benches/store.rs` has the CPU of a call under load.
//!
//! `cargo bench --bench commit` prints a table and a line of JSON.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tandem::store::{Dropped, Embedded, Meter, Options};
use tandem_actors::events::{Event, EventKind};
use tandem_actors::store::{Batch, Bucket, Completions, Store, StoreFault, Ticket, Urgency, Write};
use tandem_counting::{Counting, Report};
use tandem_protocol::time::UnixMillis;

#[global_allocator]
static ALLOCATOR: Counting<mimalloc::MiMalloc> = Counting(mimalloc::MiMalloc);

/// The checkpoint of an established bypass call.
const CHECKPOINT: usize = 1200;

struct Nobody;

impl Completions for Nobody {
    fn committed(&self, done: Vec<(Ticket, Result<(), StoreFault>)>) {
        assert!(done.iter().all(|(_, result)| result.is_ok()), "{done:?}");
    }
}

impl Meter for Nobody {
    fn committed(&self, _: Duration, _: usize) {}
    fn saved(&self, _: Duration) {}
    fn failed(&self) {
        panic!("a commit has failed");
    }
    fn dropped(&self, what: Dropped, count: u64) {
        panic!("the store has dropped {count}: {what:?}");
    }
    fn waiting(&self, _: usize, _: usize) {}
}

/// What is committed when a call is answered.
fn answered(call: u64, value: &Bytes) -> Batch {
    let id: Arc<str> = format!("c00{call:016x}").into();
    let mut batch = Batch::new(Urgency::Lazy);
    let (key, value) = (id.to_string(), Some(value.clone()));
    batch.writes.push(Write { bucket: Bucket::Calls, key, value, expect: None });
    let now = UnixMillis(1_800_000_000_000 + call);
    batch.events.push(Event::new(now, EventKind::CallAnswered, "200 from 127.0.0.1:5070").of(&id));
    batch.ticket = Some(Ticket { shard: 0, token: call });
    batch
}

/// What is committed when a call has ended, but for its record.
fn ended(call: u64) -> Batch {
    let mut batch = Batch::new(Urgency::Lazy);
    let key = format!("c00{call:016x}");
    batch.writes.push(Write { bucket: Bucket::Calls, key, value: None, expect: None });
    batch
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    // Only a flush commits.
    let options = Options { lazy: Duration::from_secs(3600), ..Options::default() };
    let store = Embedded::open(dir.path(), options, Arc::new(Nobody), Box::new(Nobody)).unwrap();
    let value = Bytes::from(vec![0x55; CHECKPOINT]);
    let (mut report, mut next) = (Report::new("commit"), 0);
    for calls in [1, 8, 64] {
        let prepare = || {
            let group = next..next + calls;
            next += calls;
            let batches: Vec<Batch> = group.clone().map(|call| answered(call, &value)).collect();
            // Those before are over, so that the log of calls does not grow.
            let over = group.map(|call| ended(call.wrapping_sub(calls))).collect();
            (batches, over)
        };
        let commit = |(batches, over): (Vec<Batch>, Vec<Batch>)| {
            over.into_iter().chain(batches).for_each(|batch| store.submit(batch));
            store.flush();
        };
        report.measure_with(&format!("commit of a group of {calls} answered calls"), prepare, commit);
    }
    println!("{report}");
}
