//! Setting a database aside and carrying over what can still be read of it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};
use tandem_actors::store::Bucket;

use super::disk::DiskError;
use super::schema::{self, Unfit};
use super::{calls, disk};

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Sets a database aside, makes a fresh one and carries over the entries that can still be read.
pub(super) fn replace(path: &Path, why: &str, floor: u64) -> Result<Connection, DiskError> {
    let aside = with_suffix(path, &format!(".{why}-{}", since_1970().as_millis()));
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (with_suffix(path, suffix), with_suffix(&aside, suffix));
        match std::fs::rename(&from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk::at_path(&from)(error)),
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
    let mut saved = 0;
    for bucket in Bucket::ALL {
        match carry_over(bucket, &aside, &conn) {
            Ok(count) => saved += count,
            Err(error) => tracing::error!(bucket = bucket.name(), %error, "entries are not carried over"),
        }
    }
    tracing::error!(aside = %aside.display(), entries = saved, next_event = first, "a fresh database is made");
    Ok(conn)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Copies entries until the damage is met; returns how many. The readers of entries distrust them anyway.
fn carry_over(bucket: Bucket, from: &Path, to: &Connection) -> Result<usize, rusqlite::Error> {
    let old = schema::open_reader(from)?;
    if bucket == Bucket::Calls {
        let entries = calls::scan(&old, true)?;
        calls::restore(to, &entries)?;
        return Ok(entries.len());
    }
    let table = bucket.name();
    let tx = to.unchecked_transaction()?;
    let mut saved = 0;
    {
        let mut insert =
            tx.prepare(&format!("INSERT OR REPLACE INTO {table} (key, version, value) VALUES (?1, ?2, ?3)"))?;
        // The table itself: its index may be damaged too.
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
    }
    tx.commit()?;
    Ok(saved)
}
