//! The database on its disk: opening it whatever is there, and committing one group.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _, params};
use tandem_actors::store::{Batch, Bucket, StoreFault};

use super::group::{self, Change, Versions};
use super::log::{Appended, Keep, Log};
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
    /// Events and CDRs.
    pub(super) appended: Appended,
    /// The id of the newest CDR.
    pub(super) last_cdr: u64,
}

/// An open database.
pub(super) struct Disk {
    conn: Connection,
    log: Log,
    path: PathBuf,
    identity: (u64, u64),
    /// Dropped, and with it released, after the connection.
    _lock: Option<File>,
}

impl Disk {
    /// Opens the database of a directory, or makes one; what cannot be used is set aside. `floor` is the least number for the next
    /// event; `distrust` sets aside what is there in any case.
    pub(super) fn open(dir: &Path, keep: Keep, floor: u64, distrust: bool) -> Result<Disk, DiskError> {
        let lock = lock(&dir.join(LOCK))?;
        let path = dir.join(schema::FILE);
        let opened = if distrust {
            Err(Unfit::Corrupt("damage was met while writing".into()))
        } else {
            schema::open_writer(&path)
        };
        let conn = match opened {
            Ok(conn) => conn,
            Err(Unfit::Sql(error)) => return Err(error.into()),
            Err(Unfit::Corrupt(why)) => {
                tracing::error!(file = %path.display(), %why, "the database is damaged and is set aside");
                replace(&path, "corrupt", floor)?
            }
            Err(Unfit::Newer(format)) => {
                let known = schema::FORMAT;
                tracing::error!(file = %path.display(), format, known, "the database is of a later version and is set aside");
                replace(&path, &format!("format{format}"), floor)?
            }
        };
        let log = Log::open(&conn, keep, floor)?;
        let identity = identity(&path)?;
        Ok(Disk { conn, log, path, identity, _lock: lock })
    }

    /// The connection, for what is read at a start.
    pub(super) fn connection(&self) -> &Connection {
        &self.conn
    }

    /// The number of the next event.
    pub(super) fn next_n(&self) -> u64 {
        self.log.at.next_n
    }

    /// Commits a group, all of it but the batches with a conflict. New CDRs are added to `lines`.
    pub(super) fn commit(
        &mut self,
        batches: &[Batch],
        filed: u64,
        lines: &mut Vec<u8>,
    ) -> Result<Committed, DiskError> {
        // A file that has lost its name takes every write, and keeps none beyond the process.
        if identity(&self.path)? != self.identity {
            return Err(DiskError::Gone(self.path.clone()));
        }
        let (before, lines_before) = (self.log.at, lines.len());
        let done = self.transaction(batches, filed, lines);
        if done.is_err() {
            self.log.at = before;
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
        filed: u64,
        lines: &mut Vec<u8>,
    ) -> Result<Committed, rusqlite::Error> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let plan = group::plan(batches, &mut Stored(&self.conn))?;
        for (bucket, key, change) in &plan.changes {
            write(&self.conn, *bucket, key, *change)?;
        }
        let refused = plan.refused;
        let kept = batches.iter().enumerate().filter(|(at, _)| refused.iter().all(|(r, _)| r != at));
        let appended = self.log.append(&self.conn, kept.map(|(_, batch)| batch), filed, lines)?;
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(Committed { refused, appended, last_cdr: self.log.at.last_cdr })
    }

    /// Moves the write-ahead log into the database, which may make room on a full disk.
    pub(super) fn checkpoint(&self) {
        let moved = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = moved {
            tracing::debug!(%error, "no checkpoint of the write-ahead log");
        }
    }
}

struct Stored<'c>(&'c Connection);

impl Versions for Stored<'_> {
    type Error = rusqlite::Error;
    fn version(&mut self, bucket: Bucket, key: &str) -> Result<u64, rusqlite::Error> {
        let sql = match bucket {
            Bucket::Bindings => "SELECT version FROM bindings WHERE key = ?1",
            Bucket::Calls => "SELECT version FROM calls WHERE key = ?1",
            Bucket::Stations => "SELECT version FROM stations WHERE key = ?1",
            Bucket::Meta => "SELECT version FROM meta WHERE key = ?1",
        };
        let found = self.0.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?;
        Ok(found.unwrap_or(0))
    }
}

macro_rules! by_bucket {
    ($bucket:expr, $before:literal, $after:literal) => {
        match $bucket {
            Bucket::Bindings => concat!($before, "bindings", $after),
            Bucket::Calls => concat!($before, "calls", $after),
            Bucket::Stations => concat!($before, "stations", $after),
            Bucket::Meta => concat!($before, "meta", $after),
        }
    };
}

fn write(conn: &Connection, bucket: Bucket, key: &str, change: Change<'_>) -> Result<(), rusqlite::Error> {
    match change {
        Change::Delete => {
            conn.prepare_cached(by_bucket!(bucket, "DELETE FROM ", " WHERE key = ?1"))?.execute([key])?;
        }
        Change::Raise { by, value } => {
            let sql = by_bucket!(
                bucket,
                "INSERT INTO ",
                " (key, version, value) VALUES (?1, ?2, ?3)
                  ON CONFLICT (key) DO UPDATE SET version = version + ?2, value = ?3"
            );
            conn.prepare_cached(sql)?.execute(params![key, by, &value[..]])?;
        }
        Change::Set { version, value } => {
            let sql = by_bucket!(
                bucket,
                "INSERT INTO ",
                " (key, version, value) VALUES (?1, ?2, ?3)
                  ON CONFLICT (key) DO UPDATE SET version = ?2, value = ?3"
            );
            conn.prepare_cached(sql)?.execute(params![key, version, &value[..]])?;
        }
    }
    Ok(())
}

fn at_path(path: &Path) -> impl FnOnce(io::Error) -> DiskError + '_ {
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

fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Sets a database aside, makes a fresh one and carries over the entries that can still be read.
fn replace(path: &Path, why: &str, floor: u64) -> Result<Connection, DiskError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{why}-{}", since_1970().as_millis()));
    let aside = PathBuf::from(aside);
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (with_suffix(path, suffix), with_suffix(&aside, suffix));
        match std::fs::rename(&from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at_path(&from)(error)),
            _ => {}
        }
    }
    let conn = match schema::open_writer(path) {
        Ok(conn) => conn,
        Err(Unfit::Sql(error)) => return Err(error.into()),
        Err(Unfit::Corrupt(why)) => return Err(DiskError::Corrupt(why)),
        Err(Unfit::Newer(_)) => return Err(DiskError::Gone(path.to_owned())),
    };
    // Numbers of the old log may have been read by others; microseconds are beyond any of them.
    let first = u64::try_from(since_1970().as_micros()).unwrap_or(1).max(floor);
    conn.execute("INSERT INTO fact (name, value) VALUES ('first_event', ?1)", [first])?;
    let saved = salvage(&aside, &conn);
    tracing::error!(aside = %aside.display(), entries = saved, next_event = first, "a fresh database was made");
    Ok(conn)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Copies entries until the damage is met; returns how many. The readers of entries distrust them anyway.
fn salvage(from: &Path, to: &Connection) -> u64 {
    let Ok(old) = schema::open_reader(from) else { return 0 };
    let mut saved = 0;
    for bucket in Bucket::ALL {
        let table = schema::table(bucket);
        let copied = (|| -> Result<(), rusqlite::Error> {
            let tx = to.unchecked_transaction()?;
            let mut insert = tx.prepare(&format!(
                "INSERT OR REPLACE INTO {table} (key, version, value) VALUES (?1, ?2, ?3)"
            ))?;
            let mut rows = old.prepare(&format!("SELECT key, version, value FROM {table} NOT INDEXED"))?;
            let mut rows = rows.query([])?;
            while let Ok(Some(row)) = rows.next() {
                let (Ok(key), Ok(version), Ok(value)) =
                    (row.get::<_, String>(0), row.get::<_, u64>(1), row.get::<_, Vec<u8>>(2))
                else {
                    continue;
                };
                insert.execute(params![key, version, value])?;
                saved += 1;
            }
            drop(insert);
            tx.commit()
        })();
        if let Err(error) = copied {
            tracing::warn!(bucket = table, %error, "entries were not carried over");
        }
    }
    saved
}
