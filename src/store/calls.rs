//! The bucket of calls, which changes far more often than it is read: a log of changes, one row for each transaction, and
//! an index of it in the writer's memory.
//!
//! A call is written two or three times and then deleted. In a table by key each of these dirties pages of its own, and pages are what
//! a commit costs; here they all go to the table's end. Rows are deleted from the oldest on: when more than half of the log
//! is outdated, what is still current in the oldest rows is written again at the end.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use rusqlite::{Connection, params};
use tandem_actors::store::Entry;

use super::group::Change;

/// Outdated bytes that are always allowed, so that short lives cost no second write.
const SLACK: usize = 4 << 20;
/// Bytes of old rows that one group looks through, beyond twice its own.
const STEP: usize = 64 << 10;
/// Stands for the length of a deleted key's value.
const DELETED: u32 = u32::MAX;
/// Version, length of the key, length of the value.
const HEAD: usize = 16;

/// Where a key's current value is.
struct Live {
    row: u64,
    version: u64,
    size: usize,
}

struct Row {
    id: u64,
    bytes: usize,
    /// How many of its records are current.
    live: usize,
}

/// The version and the size of a value.
type Written = (u64, usize);

/// What a group has appended, until it is committed.
#[derive(Default)]
struct Staged {
    data: Vec<u8>,
    /// `None`: deleted.
    changes: Vec<(Box<str>, Option<Written>)>,
    /// How many of the oldest rows are deleted.
    trimmed: usize,
}

/// The index of the log.
#[derive(Default)]
pub(super) struct Calls {
    live: HashMap<Box<str>, Live>,
    live_bytes: usize,
    rows: VecDeque<Row>,
    bytes: usize,
    next_row: u64,
    staged: Staged,
}

impl Calls {
    /// Reads the log of a database.
    ///
    /// # Errors
    ///
    /// [`rusqlite::Error::InvalidQuery`] for a row that is not a row of this log.
    pub(super) fn open(conn: &Connection) -> Result<Calls, rusqlite::Error> {
        let mut calls = Calls { next_row: 1, ..Calls::default() };
        let mut rows = conn.prepare("SELECT id, data FROM calls ORDER BY id")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let data = row.get_ref(1)?.as_blob()?;
            calls.next_row = row.get(0)?;
            let mut records = Records(data);
            for record in &mut records {
                let now = record.value.map(|value| (record.version, size(record.key, value)));
                calls.staged.changes.push((record.key.into(), now));
            }
            if !records.0.is_empty() {
                return Err(rusqlite::Error::InvalidQuery);
            }
            calls.staged.data.resize(data.len(), 0);
            calls.committed();
        }
        Ok(calls)
    }

    /// The version of a key in the last commit; 0 if it does not exist.
    pub(super) fn version(&self, key: &str) -> u64 {
        self.live.get(key).map_or(0, |live| live.version)
    }

    /// Notes a change for the group's row. A key that does not exist is deleted without a trace.
    pub(super) fn stage(&mut self, key: &str, change: Change<&Bytes>) {
        let before = self.version(key);
        let (version, value) = match change {
            Change::Delete if before == 0 => return,
            Change::Delete => (before, None),
            Change::Raise { by, value } => (before + by, Some(value)),
            Change::Set { version, value } => (version, Some(value)),
        };
        put_record(&mut self.staged.data, key, version, value.map(|value| &value[..]));
        self.staged.changes.push((key.into(), value.map(|value| (version, size(key, value)))));
    }

    /// Writes the group's row within its transaction, and trims the log.
    pub(super) fn write(&mut self, conn: &Connection) -> Result<(), rusqlite::Error> {
        if self.staged.changes.is_empty() {
            return Ok(());
        }
        if self.bytes - self.live_bytes > self.live_bytes.max(SLACK) {
            self.trim(conn)?;
        }
        conn.prepare_cached("INSERT INTO calls (id, data) VALUES (?1, ?2)")?
            .execute(params![self.next_row, self.staged.data])?;
        Ok(())
    }

    /// Deletes the oldest rows and stages what is current in them. Theirs are the oldest records of all, so nothing that a deletion in them
    /// hides can come back.
    fn trim(&mut self, conn: &Connection) -> Result<(), rusqlite::Error> {
        let bound = 2 * self.staged.data.len() + STEP;
        let taken: HashSet<Box<str>> = self.staged.changes.iter().map(|(key, _)| key.clone()).collect();
        let (mut seen, mut last) = (0, None);
        let mut read = conn.prepare_cached("SELECT data FROM calls WHERE id = ?1")?;
        for row in &self.rows {
            if seen >= bound {
                break;
            }
            (seen, last) = (seen + row.bytes, Some(row.id));
            self.staged.trimmed += 1;
            if row.live == 0 {
                continue;
            }
            let data: Vec<u8> = read.query_row([row.id], |found| found.get(0))?;
            for record in Records(&data) {
                let current = self.live.get(record.key).is_some_and(|live| live.row == row.id);
                let Some(value) = record.value.filter(|_| current && !taken.contains(record.key)) else {
                    continue;
                };
                put_record(&mut self.staged.data, record.key, record.version, Some(value));
                let now = (record.version, size(record.key, value));
                self.staged.changes.push((record.key.into(), Some(now)));
            }
        }
        if let Some(last) = last {
            conn.prepare_cached("DELETE FROM calls WHERE id <= ?1")?.execute([last])?;
        }
        Ok(())
    }

    /// The group is committed: the index follows.
    pub(super) fn committed(&mut self) {
        let mut staged = std::mem::take(&mut self.staged);
        if !staged.changes.is_empty() {
            let (row, bytes) = (self.next_row, staged.data.len());
            self.next_row += 1;
            let mut live = 0;
            for (key, now) in staged.changes.drain(..) {
                let before = match now {
                    Some((version, size)) => {
                        live += 1;
                        self.live_bytes += size;
                        self.live.insert(key, Live { row, version, size })
                    }
                    None => self.live.remove(&key),
                };
                if let Some(before) = before {
                    self.live_bytes -= before.size;
                    self.outdated(before.row);
                }
            }
            self.bytes += bytes;
            self.rows.push_back(Row { id: row, bytes, live });
            for row in self.rows.drain(..staged.trimmed) {
                self.bytes -= row.bytes;
            }
        }
        self.staged = staged;
        self.rolled_back();
    }

    fn outdated(&mut self, row: u64) {
        if let Ok(at) = self.rows.binary_search_by_key(&row, |row| row.id) {
            self.rows[at].live -= 1;
        }
    }

    /// The group is not committed: nothing of it has been.
    pub(super) fn rolled_back(&mut self) {
        self.staged.data.clear();
        self.staged.changes.clear();
        self.staged.trimmed = 0;
    }
}

/// Every current entry, by key; with `tolerant`, those before the first row that cannot be read.
pub(super) fn scan(conn: &Connection, tolerant: bool) -> Result<Vec<Entry>, rusqlite::Error> {
    let mut entries = BTreeMap::new();
    let mut rows = conn.prepare("SELECT data FROM calls ORDER BY id")?;
    let mut rows = rows.query([])?;
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Err(error) if !tolerant => return Err(error),
            Ok(None) | Err(_) => break,
        };
        for record in Records(row.get_ref(0)?.as_blob()?) {
            match record.value {
                Some(value) => {
                    entries.insert(record.key.to_owned(), (record.version, Bytes::copy_from_slice(value)));
                }
                None => {
                    entries.remove(record.key);
                }
            }
        }
    }
    Ok(entries.into_iter().map(|(key, (version, value))| Entry { key, version, value }).collect())
}

fn size(key: &str, value: &[u8]) -> usize {
    HEAD + key.len() + value.len()
}

fn put_record(out: &mut Vec<u8>, key: &str, version: u64, value: Option<&[u8]>) {
    // The queue's bound keeps both far below 4 GB.
    let value_len = value.map_or(DELETED, |value| value.len() as u32);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(&value_len.to_le_bytes());
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value.unwrap_or_default());
}

struct Record<'a> {
    key: &'a str,
    version: u64,
    value: Option<&'a [u8]>,
}

/// The records of a row; ends early, with bytes left over, at one that is none.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;
    fn next(&mut self) -> Option<Record<'a>> {
        let (version, rest) = self.0.split_first_chunk::<8>()?;
        let (key_len, rest) = rest.split_first_chunk::<4>()?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
        let (value, rest) = match u32::from_le_bytes(*value_len) {
            DELETED => (None, rest),
            len => rest.split_at_checked(len as usize).map(|(value, rest)| (Some(value), rest))?,
        };
        let record =
            Record { key: std::str::from_utf8(key).ok()?, version: u64::from_le_bytes(*version), value };
        self.0 = rest;
        Some(record)
    }
}

/// Writes entries as one row of a new log, each with its version.
pub(super) fn restore(conn: &Connection, entries: &[Entry]) -> Result<(), rusqlite::Error> {
    let mut data = Vec::new();
    for entry in entries {
        put_record(&mut data, &entry.key, entry.version, Some(&entry.value));
    }
    conn.execute("INSERT INTO calls (data) VALUES (?1)", [data])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE calls (id INTEGER PRIMARY KEY, data BLOB NOT NULL)").unwrap();
        conn
    }

    /// The next of a fixed series of numbers.
    fn next(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *seed >> 33
    }

    type Model = BTreeMap<String, (u64, Bytes)>;

    fn group(calls: &mut Calls, model: &mut Model, seed: &mut u64, keys: u64) {
        let mut taken = HashSet::new();
        for _ in 0..20 {
            let key = format!("k{}", next(seed) % keys);
            if !taken.insert(key.clone()) {
                continue;
            }
            let before = model.get(&key).map_or(0, |(version, _)| *version);
            let value = Bytes::from(vec![next(seed) as u8; 1000 + (next(seed) % 1000) as usize]);
            match next(seed) % 4 {
                0 => {
                    calls.stage(&key, Change::Delete);
                    model.remove(&key);
                }
                1 => {
                    calls.stage(&key, Change::Set { version: 1, value: &value });
                    model.insert(key, (1, value));
                }
                _ => {
                    calls.stage(&key, Change::Raise { by: 2, value: &value });
                    model.insert(key, (before + 2, value));
                }
            }
        }
    }

    fn check(conn: &Connection, calls: &Calls, model: &Model) {
        let entries = scan(conn, false).unwrap();
        assert_eq!(entries.len(), model.len());
        for entry in entries {
            assert_eq!(model.get(&entry.key), Some(&(entry.version, entry.value)));
            assert_eq!(calls.version(&entry.key), entry.version);
        }
        let stored: u64 =
            conn.query_row("SELECT sum(length(data)) FROM calls", [], |row| row.get(0)).unwrap();
        assert_eq!(stored, calls.bytes as u64);
        assert!(calls.bytes <= 2 * calls.live_bytes + 2 * SLACK, "{} of {}", calls.live_bytes, calls.bytes);
    }

    #[test]
    fn the_log_stays_in_bounds_and_loses_nothing_whatever_is_written_rolled_back_or_read_again() {
        let conn = database();
        let mut calls = Calls::open(&conn).unwrap();
        let (mut model, mut seed) = (Model::new(), 7);
        // Some keys are written once and must be carried along for as long as others change.
        for n in 0..50 {
            let value = Bytes::from(format!("kept {n}"));
            calls.stage(&format!("kept{n}"), Change::Raise { by: 1, value: &value });
            model.insert(format!("kept{n}"), (1, value));
        }
        calls.write(&conn).unwrap();
        calls.committed();
        for round in 0..1500 {
            let tx = conn.unchecked_transaction().unwrap();
            if round % 10 == 9 {
                group(&mut calls, &mut model.clone(), &mut seed, 1000);
                calls.write(&tx).unwrap();
                tx.rollback().unwrap();
                calls.rolled_back();
            } else {
                group(&mut calls, &mut model, &mut seed, 1000);
                calls.write(&tx).unwrap();
                tx.commit().unwrap();
                calls.committed();
            }
            if round % 300 == 299 {
                check(&conn, &calls, &model);
                calls = Calls::open(&conn).unwrap();
                check(&conn, &calls, &model);
            }
        }
        assert!(calls.rows.front().is_some_and(|row| row.id > 1), "old rows are gone");
    }

    #[test]
    fn a_key_that_does_not_exist_is_deleted_without_a_row() {
        let conn = database();
        let mut calls = Calls::open(&conn).unwrap();
        calls.stage("a", Change::Delete);
        calls.write(&conn).unwrap();
        calls.committed();
        assert_eq!(conn.query_row("SELECT count(*) FROM calls", [], |row| row.get::<_, u64>(0)), Ok(0));
    }

    #[test]
    fn a_row_that_cannot_be_decoded_is_an_error() {
        let conn = database();
        conn.execute("INSERT INTO calls (data) VALUES (x'0102')", []).unwrap();
        assert!(matches!(Calls::open(&conn), Err(rusqlite::Error::InvalidQuery)));
    }
}
