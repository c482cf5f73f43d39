//! The database and its journal on their disk: opening them whatever is there, committing a group to the journal, saving groups
//! in the database.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use tandem_actors::store::{Batch, Bucket, StoreFault};

use super::calls::Calls;
use super::cdrs::Cdrs;
use super::checkpoint::{self, Checkpoints};
use super::group::{self, Change, Plan, Versions};
use super::journal::Journal;
use super::log::{Keep, Log};
use super::schema::{self, Unfit};
use super::unsaved::Unsaved;
use super::{render, salvage};

/// Held while an engine uses the directory.
const LOCK: &str = "tandem.lock";

/// The fact that has the number of the newest group in the journal that the database has, but for its calls.
const SAVED: &str = "journal";
/// The same for calls.
const SAVED_CALLS: &str = "journal_calls";

/// Why the disk cannot be used now.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// Another engine uses the directory.
    #[error("another engine uses {0}")]
    InUse(PathBuf),
    /// The database is not the file that was opened.
    #[error("{0} has been deleted or replaced")]
    Gone(PathBuf),
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database is damaged.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// The database refused.
    #[error(transparent)]
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for DiskError {
    fn from(error: rusqlite::Error) -> DiskError {
        if schema::is_corrupt(&error) { DiskError::Corrupt(error.to_string()) } else { DiskError::Sql(error) }
    }
}

/// What a transaction came to.
pub(super) struct Saved {
    /// CDRs that were there already.
    pub(super) repeated: usize,
    /// The id of the newest CDR.
    pub(super) last_cdr: u64,
}

/// An open database.
pub(super) struct Disk {
    conn: Connection,
    journal: Journal,
    log: Log,
    calls: Calls,
    cdrs: Cdrs,
    checkpoints: Checkpoints,
    path: PathBuf,
    identity: (u64, u64),
    /// Dropped, and with it released, after the connection.
    _lock: Option<File>,
}

impl Disk {
    /// Opens the database of a directory, or makes one; what cannot be used is set aside. `floor` is the least number for the next
    /// event of a fresh one; `distrust` sets aside what is there in any case.
    pub(super) fn open(dir: &Path, keep: Keep, floor: u64, distrust: bool) -> Result<Disk, DiskError> {
        match Disk::try_open(dir, keep, floor, distrust) {
            Err(DiskError::Corrupt(_)) if !distrust => Disk::try_open(dir, keep, floor, true),
            other => other,
        }
    }

    fn try_open(dir: &Path, keep: Keep, floor: u64, distrust: bool) -> Result<Disk, DiskError> {
        let lock = lock(&dir.join(LOCK))?;
        let path = dir.join(schema::FILE);
        let opened = if distrust {
            Err(Unfit::Corrupt("damage was met in it".into()))
        } else {
            schema::open_writer(&path)
        };
        let mut conn = match opened {
            Ok(conn) => conn,
            Err(Unfit::Sql(error)) => return Err(error.into()),
            Err(Unfit::Corrupt(why)) => {
                tracing::error!(file = %path.display(), %why, "the database is damaged and is set aside");
                salvage::replace(&path, "corrupt", floor)?
            }
            Err(Unfit::Newer(format)) => {
                let known = schema::FORMAT;
                tracing::error!(file = %path.display(), format, known, "the database is of a later version and is set aside");
                salvage::replace(&path, &format!("format{format}"), floor)?
            }
        };
        let log = Log::open(&conn, keep)?;
        let calls = open_calls(&conn)?;
        let cdrs = Cdrs::open(&conn, keep.cdrs)?;
        let checkpoints = Checkpoints::watch(&mut conn, &path)?;
        let identity = identity(&path)?;
        let journal = Journal::open(dir)?;
        Ok(Disk { conn, journal, log, calls, cdrs, checkpoints, path, identity, _lock: lock })
    }

    /// The connection, for what is read at a start.
    pub(super) fn connection(&self) -> &Connection {
        &self.conn
    }

    /// The least number that the next event may have.
    pub(super) fn next_n(&self) -> u64 {
        self.log.next_n()
    }

    /// After a start: reads what the journal has and the database lacks.
    pub(super) fn replay(&self, unsaved: &mut Unsaved) -> Result<(), DiskError> {
        let fact = |name: &str| -> Result<Option<u64>, rusqlite::Error> {
            let mut value = self.conn.prepare("SELECT value FROM fact WHERE name = ?1")?;
            value.query_row([name], |row| row.get(0)).optional()
        };
        let (saved, calls) = (fact(SAVED)?, fact(SAVED_CALLS)?);
        unsaved.group = self.journal.replay(calls, |number, group| {
            unsaved.decode(group, saved.is_some_and(|saved| number <= saved)).is_some()
        })?;
        Ok(())
    }

    /// Commits a group to the journal, all of it but the batches with a conflict, which are returned by position, rising.
    pub(super) fn commit(
        &mut self,
        batches: &[Batch],
        unsaved: &mut Unsaved,
    ) -> Result<Vec<(usize, StoreFault)>, DiskError> {
        self.journal.check()?;
        let Plan { changes, refused } = {
            let mut stored = Stored { conn: &self.conn, calls: &self.calls, unsaved };
            group::plan(batches, &mut stored)?
        };
        let journal = &mut self.journal;
        let done = render(batches, &refused, unsaved).and_then(|()| {
            // A number that no record has would end the journal.
            if changes.is_empty() && unsaved.is_staged_empty() {
                return Ok(false);
            }
            journal.append(unsaved.group + 1, |out| unsaved.encode(changes.iter().copied(), out))?;
            Ok(true)
        });
        match done {
            Ok(true) => unsaved.keep(changes.into_iter()),
            Ok(false) => {}
            Err(error) => {
                unsaved.roll_back();
                return Err(error);
            }
        }
        Ok(refused)
    }

    /// Whether the journal is so long that calls are to be saved, too.
    pub(super) fn is_journal_full(&self) -> bool {
        self.journal.is_full()
    }

    /// Saves groups in the database, all or nothing; calls only if `calls`, until then the journal keeps them. New CDRs are added to
    /// `lines`; `filed` is the newest one that their file has, if there is a file.
    pub(super) fn save(
        &mut self,
        unsaved: &Unsaved,
        calls: bool,
        filed: Option<u64>,
        lines: &mut Vec<u8>,
    ) -> Result<Saved, DiskError> {
        // A file that has lost its name takes every write, and keeps none beyond the process.
        if identity(&self.path)? != self.identity {
            return Err(DiskError::Gone(self.path.clone()));
        }
        let lines_before = lines.len();
        let done = self.transaction(unsaved, calls, filed, lines);
        if done.is_ok() {
            self.calls.committed();
            self.cdrs.committed();
            self.log.committed();
            if calls {
                self.journal.reset();
            }
        } else {
            self.calls.rolled_back();
            self.cdrs.rolled_back();
            self.log.rolled_back();
            lines.truncate(lines_before);
            if !self.conn.is_autocommit() {
                // Fails only if SQLite has rolled back by itself.
                let _ = self.conn.execute_batch("ROLLBACK");
            }
        }
        Ok(done?)
    }

    fn transaction(
        &mut self,
        unsaved: &Unsaved,
        calls: bool,
        filed: Option<u64>,
        lines: &mut Vec<u8>,
    ) -> Result<Saved, rusqlite::Error> {
        let conn = &self.conn;
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for (bucket, table) in
            [(Bucket::Bindings, &BINDINGS), (Bucket::Stations, &STATIONS), (Bucket::Meta, &META)]
        {
            for (key, change) in unsaved.changes(bucket) {
                table.write(conn, key, change)?;
            }
        }
        let mut fact = conn.prepare_cached("INSERT OR REPLACE INTO fact (name, value) VALUES (?1, ?2)")?;
        if calls {
            for (key, change) in unsaved.changes(Bucket::Calls) {
                self.calls.stage(key, change);
            }
            self.calls.write(conn)?;
            fact.execute(params![SAVED_CALLS, unsaved.group])?;
        }
        fact.execute(params![SAVED, unsaved.group])?;
        self.log.append(conn, &unsaved.events, filed.unwrap_or(self.cdrs.last()))?;
        let repeated = self.cdrs.append(conn, &unsaved.cdrs, lines)?;
        conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(Saved { repeated, last_cdr: self.cdrs.last() })
    }

    /// Leaves an empty journal, if the database has all of it. For an orderly end.
    pub(super) fn clear_journal(&mut self) {
        self.journal.clear();
    }

    /// What can wait until the tickets of a group are told.
    pub(super) fn tidy(&mut self) {
        self.checkpoints.step(&self.conn);
    }

    /// Moves the write-ahead log into the database, which may make room on a full disk.
    pub(super) fn checkpoint(&self) {
        let moved = checkpoint::pass(&self.conn);
        if let Err(error) = moved {
            tracing::debug!(%error, "no checkpoint of the write-ahead log");
        }
    }
}

/// A log of calls that cannot be decoded is as good as a damaged file.
fn open_calls(conn: &Connection) -> Result<Calls, DiskError> {
    Calls::open(conn).map_err(|error| match error {
        rusqlite::Error::InvalidQuery => DiskError::Corrupt("the log of calls cannot be decoded".into()),
        other => other.into(),
    })
}

/// Numbers and renders the events and CDRs of the batches that are not refused.
fn render(
    batches: &[Batch],
    refused: &[(usize, StoreFault)],
    unsaved: &mut Unsaved,
) -> Result<(), DiskError> {
    let error = |error| DiskError::Sql(render::error(error));
    for (at, batch) in batches.iter().enumerate() {
        if refused.iter().any(|(refused, _)| *refused == at) {
            continue;
        }
        for event in &batch.events {
            unsaved.push_event(event).map_err(error)?;
        }
        for cdr in &batch.cdrs {
            unsaved.push_cdr(cdr).map_err(error)?;
        }
    }
    Ok(())
}

/// What the database has, and over it what it lacks.
struct Stored<'a> {
    conn: &'a Connection,
    calls: &'a Calls,
    unsaved: &'a Unsaved,
}

impl Stored<'_> {
    fn saved(&self, bucket: Bucket, key: &str) -> Result<u64, rusqlite::Error> {
        match bucket {
            Bucket::Calls => Ok(self.calls.version(key)),
            Bucket::Bindings => BINDINGS.version(self.conn, key),
            Bucket::Stations => STATIONS.version(self.conn, key),
            Bucket::Meta => META.version(self.conn, key),
        }
    }
}

impl Versions for Stored<'_> {
    type Error = rusqlite::Error;
    fn version(&mut self, bucket: Bucket, key: &str) -> Result<u64, rusqlite::Error> {
        match self.unsaved.change(bucket, key) {
            Some(Change::Delete) => Ok(0),
            Some(Change::Set { version, .. }) => Ok(*version),
            Some(Change::Raise { by, .. }) => Ok(self.saved(bucket, key)? + by),
            None => self.saved(bucket, key),
        }
    }
}

/// The statements of a bucket that is a table by key.
struct Table {
    version: &'static str,
    delete: &'static str,
    raise: &'static str,
    set: &'static str,
}

macro_rules! table {
    ($name:literal) => {
        Table {
            version: concat!("SELECT version FROM ", $name, " WHERE key = ?1"),
            delete: concat!("DELETE FROM ", $name, " WHERE key = ?1"),
            raise: concat!(
                "INSERT INTO ",
                $name,
                " (key, version, value) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET version = version + ?2, value = ?3"
            ),
            set: concat!(
                "INSERT INTO ",
                $name,
                " (key, version, value) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET version = ?2, value = ?3"
            ),
        }
    };
}

static BINDINGS: Table = table!("bindings");
static STATIONS: Table = table!("stations");
static META: Table = table!("meta");

impl Table {
    fn version(&self, conn: &Connection, key: &str) -> Result<u64, rusqlite::Error> {
        let found = conn.prepare_cached(self.version)?.query_row([key], |row| row.get(0)).optional()?;
        Ok(found.unwrap_or(0))
    }

    fn write(&self, conn: &Connection, key: &str, change: Change<&Bytes>) -> Result<(), rusqlite::Error> {
        match change {
            Change::Delete => conn.prepare_cached(self.delete)?.execute([key])?,
            Change::Raise { by, value } => {
                conn.prepare_cached(self.raise)?.execute(params![key, by, &value[..]])?
            }
            Change::Set { version, value } => {
                conn.prepare_cached(self.set)?.execute(params![key, version, &value[..]])?
            }
        };
        Ok(())
    }
}

pub(super) fn at_path(path: &Path) -> impl FnOnce(io::Error) -> DiskError + '_ {
    move |source| DiskError::Io { path: path.to_owned(), source }
}

/// Device and inode of a file.
pub(super) fn identity(path: &Path) -> Result<(u64, u64), DiskError> {
    match std::fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DiskError::Gone(path.to_owned())),
        Err(error) => Err(at_path(path)(error)),
    }
}

/// Two engines in one directory would overwrite each other's calls. A disk that does not let a file be made for the lock is no reason
/// to do without the store.
fn lock(path: &Path) -> Result<Option<File>, DiskError> {
    let file = match File::options().create(true).append(true).open(path).or_else(|_| File::open(path)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(at_path(path)(error)),
        Err(_) => return Ok(None),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(DiskError::InUse(path.to_owned())),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}
