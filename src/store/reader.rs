//! The second connection: reads for the start of an engine and for the API, never on a call's path.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::Connection;
use tandem_actors::store::{Bucket, Entry, StoreFault};

use super::{calls, schema};

/// Opens its connection when first asked, and anew after an error or when the writer has another file.
pub(super) struct Reader {
    path: PathBuf,
    /// Raised by the writer with each database it opens.
    opened: Arc<AtomicU64>,
    slot: Mutex<Option<(u64, Connection)>>,
}

impl Reader {
    pub(super) fn new(path: PathBuf, opened: Arc<AtomicU64>) -> Reader {
        Reader { path, opened, slot: Mutex::new(None) }
    }

    /// Runs one read.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreFault> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = self.opened.load(Ordering::Acquire);
        let kept = slot.take().filter(|(of, _)| *of == opened);
        let conn = match kept {
            Some((_, conn)) => conn,
            None => schema::open_reader(&self.path).map_err(fault)?,
        };
        let value = read(&conn).map_err(fault)?;
        *slot = Some((opened, conn));
        Ok(value)
    }
}

fn fault(error: rusqlite::Error) -> StoreFault {
    StoreFault::Backend(error.to_string())
}

/// Every entry of a bucket, by key.
pub(super) fn scan(conn: &Connection, bucket: Bucket) -> Result<Vec<Entry>, rusqlite::Error> {
    if bucket == Bucket::Calls {
        return calls::scan(conn, false);
    }
    let table = bucket.name();
    let mut all = conn.prepare_cached(&format!("SELECT key, version, value FROM {table} ORDER BY key"))?;
    let rows = all.query_map([], |row| {
        let value = Bytes::copy_from_slice(row.get_ref(2)?.as_blob()?);
        Ok(Entry { key: row.get(0)?, version: row.get(1)?, value })
    })?;
    rows.collect()
}
