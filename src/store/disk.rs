//! The database on its disk: opening it whatever is there, and committing one group.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, params};
use tandem_actors::store::{Batch, Bucket, StoreFault};

use super::calls::Calls;
use super::cdrs::Cdrs;
use super::checkpoint::{self, Checkpoints};
use super::group::{self, Change, Versions};
use super::log::{Keep, Log};
use super::salvage;
use super::schema::{self, Unfit};

/// Held while an engine uses the directory.
const LOCK: &str = "tandem.lock";

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

/// What a group came to.
pub(super) struct Committed {
    /// Batches with a conflict, by position, rising.
    pub(super) refused: Vec<(usize, StoreFault)>,
    /// CDRs that were there already.
    pub(super) repeated: usize,
    /// The id of the newest CDR.
    pub(super) last_cdr: u64,
}

/// An open database.
pub(super) struct Disk {
    conn: Connection,
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
    /// event; `distrust` sets aside what is there in any case.
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
        let log = Log::open(&conn, keep, floor)?;
        let calls = open_calls(&conn)?;
        let cdrs = Cdrs::open(&conn, keep.cdrs)?;
        let checkpoints = Checkpoints::watch(&mut conn, &path)?;
        let identity = identity(&path)?;
        Ok(Disk { conn, log, calls, cdrs, checkpoints, path, identity, _lock: lock })
    }

    /// The connection, for what is read at a start.
    pub(super) fn connection(&self) -> &Connection {
        &self.conn
    }

    /// The number of the next event.
    pub(super) fn next_n(&self) -> u64 {
        self.log.next_n()
    }

    /// Commits a group, all of it but the batches with a conflict. New CDRs are added to `lines`; `filed` is the
    /// newest one that their file has, if there is a file.
    pub(super) fn commit(
        &mut self,
        batches: &[Batch],
        filed: Option<u64>,
        lines: &mut Vec<u8>,
    ) -> Result<Committed, DiskError> {
        // A file that has lost its name takes every write, and keeps none beyond the process.
        if identity(&self.path)? != self.identity {
            return Err(DiskError::Gone(self.path.clone()));
        }
        let lines_before = lines.len();
        let done = self.transaction(batches, filed, lines);
        if done.is_ok() {
            self.calls.committed();
            self.cdrs.committed();
            self.log.committed();
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
        batches: &[Batch],
        filed: Option<u64>,
        lines: &mut Vec<u8>,
    ) -> Result<Committed, rusqlite::Error> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let plan = group::plan(batches, &mut Stored(&self.conn, &self.calls))?;
        for (bucket, key, change) in plan.changes {
            let table = match bucket {
                Bucket::Calls => {
                    self.calls.stage(key, change);
                    continue;
                }
                Bucket::Bindings => &BINDINGS,
                Bucket::Stations => &STATIONS,
                Bucket::Meta => &META,
            };
            table.write(&self.conn, key, change)?;
        }
        self.calls.write(&self.conn)?;
        let refused = plan.refused;
        let kept = batches.iter().enumerate().filter(|(at, _)| refused.iter().all(|(r, _)| r != at));
        let kept = kept.map(|(_, batch)| batch);
        self.log.append(
            &self.conn,
            kept.clone().flat_map(|batch| &batch.events),
            filed.unwrap_or(self.cdrs.last()),
        )?;
        let repeated = self.cdrs.append(&self.conn, kept.flat_map(|batch| &batch.cdrs), lines)?;
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(Committed { refused, repeated, last_cdr: self.cdrs.last() })
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

struct Stored<'a>(&'a Connection, &'a Calls);

impl Versions for Stored<'_> {
    type Error = rusqlite::Error;
    fn version(&mut self, bucket: Bucket, key: &str) -> Result<u64, rusqlite::Error> {
        match bucket {
            Bucket::Calls => Ok(self.1.version(key)),
            Bucket::Bindings => BINDINGS.version(self.0, key),
            Bucket::Stations => STATIONS.version(self.0, key),
            Bucket::Meta => META.version(self.0, key),
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

    fn write(&self, conn: &Connection, key: &str, change: Change<'_>) -> Result<(), rusqlite::Error> {
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
fn identity(path: &Path) -> Result<(u64, u64), DiskError> {
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
