//! The embedded store: SQLite in the data directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tandem_actors::seat::Seat;
use tandem_actors::store::{Batch, Bucket, Completions, Entry, Store, StoreFault};

use super::cdr_file::CdrFile;
use super::cdrs;
use super::disk::DiskError;
use super::log::{self, Keep};
use super::queue::{Pace, Queue};
use super::reader::{self, Reader};
use super::schema;
use super::writer::{Meter, Shared, Writer};

/// How the store works.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long an urgent batch waits for others before its group is committed.
    pub urgent: Duration,
    /// How long a lazy batch waits, unless an urgent group takes it along; and how long the database may lack what the journal has.
    pub lazy: Duration,
    /// Bytes of batches that may wait; lazy ones may use three quarters of it.
    pub queue_bytes: usize,
    /// Whether CDRs are also appended to `cdr.jsonl`.
    pub cdr_jsonl: bool,
    /// `cdr.jsonl` becomes `cdr.jsonl.1` before it would be larger than this, in bytes.
    pub cdr_file_bytes: u64,
    /// How many rotated files are kept; the oldest goes.
    pub cdr_files: u32,
    /// How many events are kept; the oldest go, some hundred more may stay.
    pub keep_events: u64,
    /// How many bytes of events are kept.
    pub keep_event_bytes: u64,
    /// How many CDRs are kept in the database.
    pub keep_cdrs: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            urgent: Duration::from_millis(1),
            lazy: Duration::from_millis(50),
            queue_bytes: 64 << 20,
            cdr_jsonl: true,
            cdr_file_bytes: 64 << 20,
            cdr_files: 32,
            keep_events: 2_000_000,
            keep_event_bytes: 1 << 30,
            keep_cdrs: 5_000_000,
        }
    }
}

/// Why the store was not opened. A disk that cannot be used now is no reason: see the [module](super).
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory does not exist and cannot be made, or is not a directory.
    #[error("{path} cannot be used as data directory: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another engine uses the directory.
    #[error("another engine uses {0}")]
    InUse(PathBuf),
    /// The system does not give a thread.
    #[error("the store's thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// The store of one engine, in one directory.
///
/// Dropping it commits what is queued and ends its thread.
pub struct Embedded {
    pub(super) shared: Arc<Shared>,
    reader: Reader,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens the store of a directory, or makes one.
    ///
    /// # Errors
    ///
    /// Only what an operator must put right: see [`OpenError`]. With a full, read-only or damaged disk the store opens and says
    /// so in the log and by [`is_healthy`](Embedded::is_healthy).
    pub fn open(
        dir: &Path,
        options: Options,
        completions: Arc<dyn Completions>,
        meter: Box<dyn Meter>,
    ) -> Result<Embedded, OpenError> {
        let directory = |source| OpenError::Directory { path: dir.to_owned(), source };
        if !dir.is_dir() {
            std::fs::create_dir_all(dir).map_err(directory)?;
        }
        let pace = Pace { urgent: options.urgent, lazy: options.lazy };
        let opened = Arc::new(AtomicU64::new(0));
        let shared = Arc::new(Shared {
            queue: Queue::new(options.queue_bytes, pace),
            opened: opened.clone(),
            healthy: AtomicBool::new(true),
        });
        let keep = Keep {
            events: options.keep_events,
            event_bytes: options.keep_event_bytes,
            cdrs: options.keep_cdrs,
        };
        let file = options.cdr_jsonl.then(|| CdrFile::new(dir, options.cdr_file_bytes, options.cdr_files));
        let mut writer = Writer::new(shared.clone(), dir.to_owned(), keep, file, completions, meter);
        let began = Instant::now();
        match writer.ready() {
            Ok(()) => {}
            Err(DiskError::InUse(_)) => return Err(OpenError::InUse(dir.to_owned())),
            Err(error) => writer.failed(&error, began),
        }
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run())
            .map_err(OpenError::Thread)?;
        let reader = Reader::new(dir.join(schema::FILE), opened);
        Ok(Embedded { shared, reader, thread: Some(thread) })
    }

    /// The reader, once the database has what was submitted before: a ticket may be told of what only the journal has.
    fn settled(&self) -> &Reader {
        self.shared.queue.settle();
        &self.reader
    }

    /// Whether the last group was committed. For `/readyz` and alarms; a store that fails is used all the same.
    pub fn is_healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Relaxed)
    }
}

impl Store for Embedded {
    fn submit(&self, batch: Batch) {
        self.shared.queue.push(batch);
    }

    fn submit_from(&self, batch: Batch, seat: &Seat) {
        self.shared.queue.push_unless(batch, || seat.is_fenced());
    }

    fn scan(&self, bucket: Bucket) -> Result<Vec<Entry>, StoreFault> {
        // The journal keeps calls for longer than the queue counts them.
        self.shared.queue.flush_for_reader();
        self.reader.read(|conn| reader::scan(conn, bucket))
    }

    fn events_from(&self, from: u64, max: usize) -> Result<Vec<String>, StoreFault> {
        self.settled().read(|conn| log::events_from(conn, from, max))
    }

    fn events_of(&self, call_id: &str, depth: u64) -> Result<Vec<String>, StoreFault> {
        self.settled().read(|conn| log::events_of(conn, call_id, depth))
    }

    fn cdr(&self, call_id: &str) -> Result<Option<String>, StoreFault> {
        self.settled().read(|conn| cdrs::newest(conn, call_id))
    }

    fn flush(&self) {
        self.shared.queue.flush();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shared.queue.close();
        let Some(thread) = self.thread.take() else { return };
        // The last owner may be told of a commit and drop it there: a thread cannot wait for itself.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the store's thread has panicked");
        }
    }
}

/// The imported stations in the store of a directory, whether or not an engine uses it; none if there is no store.
///
/// # Errors
/// The store cannot be read.
pub fn stations(dir: &Path) -> Result<Vec<Bytes>, StoreFault> {
    let path = dir.join(schema::FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let reader = Reader::new(path, Arc::default());
    let entries = reader.read(|conn| reader::scan(conn, Bucket::Stations))?;
    Ok(entries.into_iter().map(|entry| entry.value).collect())
}
