//! The table of CDRs: one for each call and segment, found by call.
//!
//! Calls end in another order than they began, so an index by call kept up with each record would dirty a page for each. The newest
//! records are indexed in memory. Thousands at a time go to the index of the database, in its order, so that neighbours share their page, and
//! with each transaction some of them, so that none takes long.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::unsaved::Records;

/// Records that are indexed in memory before they begin to go to the database's index; fewer if few are kept.
const RECENT: RangeInclusive<u64> = 1024..=8192;
/// How many go there with one transaction, beyond twice those that it adds.
const STEP: usize = 64;

/// Call and segment.
type Key = (String, u32);

/// Appends CDRs.
pub(super) struct Cdrs {
    keep: u64,
    last: u64,
    /// The ids of the records after `moving_to`.
    recent: BTreeMap<Key, u64>,
    /// The ids of the records on their way to the database's index.
    moving: BTreeMap<Key, u64>,
    /// The newest of them.
    moving_to: u64,
    /// The newest record in the database's index.
    indexed: u64,
    /// The last of them that is there.
    moved: Option<Key>,
    /// Of `recent`, what the transaction has added.
    added: Vec<Key>,
    step: Step,
}

/// What the transaction has moved to the database's index.
#[derive(Default)]
enum Step {
    #[default]
    Nothing,
    /// All up to this one.
    To(Key),
    /// All that were left.
    Rest,
}

impl Cdrs {
    /// Reads where the table of a database stands; `keep` records stay when it grows.
    pub(super) fn open(conn: &Connection, keep: u64) -> Result<Cdrs, rusqlite::Error> {
        let last: Option<u64> = conn.query_row("SELECT max(id) FROM cdr", [], |row| row.get(0))?;
        let mut unindexed =
            conn.prepare(&format!("SELECT call_id, segment, id FROM cdr WHERE id > ({INDEXED})"))?;
        let recent = unindexed
            .query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        let indexed = conn.query_row(INDEXED, [], |row| row.get(0))?;
        Ok(Cdrs {
            keep,
            last: last.unwrap_or(0),
            recent,
            moving: BTreeMap::new(),
            moving_to: indexed,
            indexed,
            moved: None,
            added: Vec::new(),
            step: Step::Nothing,
        })
    }

    /// The id of the newest record.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Appends records within a transaction; the lines of new ones are added to `lines`. Returns how many were
    /// ignored, because their call and segment had one already.
    pub(super) fn append(
        &mut self,
        conn: &Connection,
        cdrs: &Records,
        lines: &mut Vec<u8>,
    ) -> Result<usize, rusqlite::Error> {
        let mut repeated = 0;
        let mut insert = conn.prepare_cached(
            "INSERT INTO cdr (id, call_id, segment, end_ms, json) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut indexed = conn.prepare_cached("SELECT 1 FROM cdr_key WHERE call_id = ?1 AND segment = ?2")?;
        for (record, line) in cdrs.iter() {
            let key = (record.call_id.clone(), record.segment);
            if self.recent.contains_key(&key)
                || self.moving.contains_key(&key)
                || indexed.exists(params![key.0, key.1])?
            {
                repeated += 1;
                continue;
            }
            let json = String::from_utf8_lossy(&line[..line.len() - 1]);
            let end_ms = i64::try_from(record.end_ms).unwrap_or(i64::MAX);
            let id = self.last + 1;
            insert.execute(params![id, key.0, key.1, end_ms, json])?;
            self.last = id;
            self.added.push(key.clone());
            self.recent.insert(key, id);
            lines.extend_from_slice(line);
        }
        self.index(conn, 2 * self.added.len() + STEP)?;
        self.trim(conn, 4 * self.added.len() + STEP)?;
        Ok(repeated)
    }

    /// Moves up to `most` records to the database's index.
    fn index(&mut self, conn: &Connection, most: usize) -> Result<(), rusqlite::Error> {
        if self.moving.is_empty() {
            return Ok(());
        }
        let mut insert =
            conn.prepare_cached("INSERT OR IGNORE INTO cdr_key (call_id, segment, id) VALUES (?1, ?2, ?3)")?;
        let from = self.moved.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.moving.range((from, Bound::Unbounded));
        let mut to = None;
        for (key, id) in rest.by_ref().take(most) {
            insert.execute(params![key.0, key.1, id])?;
            to = Some(key);
        }
        self.step = match to {
            Some(to) if rest.next().is_some() => Step::To(to.clone()),
            Some(_) | None => Step::Rest,
        };
        if let Step::Rest = self.step {
            conn.prepare_cached("INSERT OR REPLACE INTO fact (name, value) VALUES ('cdr_indexed', ?1)")?
                .execute([self.moving_to])?;
        }
        Ok(())
    }

    /// Deletes up to `most` of the oldest records beyond the bound.
    fn trim(&self, conn: &Connection, most: usize) -> Result<(), rusqlite::Error> {
        // One that is not in the index yet would come there without its record.
        let cut = self.last.saturating_sub(self.keep).min(self.indexed);
        if cut == 0 {
            return Ok(());
        }
        let oldest: Option<u64> =
            conn.prepare_cached("SELECT min(id) FROM cdr")?.query_row([], |row| row.get(0))?;
        let Some(oldest) = oldest.filter(|oldest| *oldest <= cut) else { return Ok(()) };
        let cut = cut.min(oldest + most as u64);
        conn.prepare_cached(
            "DELETE FROM cdr_key WHERE (call_id, segment) IN (SELECT call_id, segment FROM cdr WHERE id <= ?1)",
        )?
        .execute([cut])?;
        conn.prepare_cached("DELETE FROM cdr WHERE id <= ?1")?.execute([cut])?;
        Ok(())
    }

    /// The transaction is committed.
    pub(super) fn committed(&mut self) {
        self.added.clear();
        match std::mem::take(&mut self.step) {
            Step::Nothing => {}
            Step::To(key) => self.moved = Some(key),
            Step::Rest => {
                self.moving.clear();
                (self.moved, self.indexed) = (None, self.moving_to);
            }
        }
        let recent = (self.keep / 4).clamp(*RECENT.start(), *RECENT.end());
        if self.moving.is_empty() && self.recent.len() as u64 >= recent {
            self.moving = std::mem::take(&mut self.recent);
            self.moving_to = self.last;
        }
    }

    /// The transaction is not committed: nothing of it has been.
    pub(super) fn rolled_back(&mut self) {
        self.last -= self.added.len() as u64;
        for key in self.added.drain(..) {
            self.recent.remove(&key);
        }
        self.step = Step::Nothing;
    }
}

/// The id of the newest record in the database's index.
const INDEXED: &str = "SELECT coalesce(max(value), 0) FROM fact WHERE name = 'cdr_indexed'";

/// The newest record of a call.
pub(super) fn newest(conn: &Connection, call_id: &str) -> Result<Option<String>, rusqlite::Error> {
    // The newest records first: one that is moved to the index in between is then found there.
    let recent = conn
        .prepare_cached(&format!(
            "SELECT json FROM cdr WHERE id > ({INDEXED}) AND call_id = ?1 ORDER BY segment DESC LIMIT 1"
        ))?
        .query_row([call_id], |row| row.get(0))
        .optional()?;
    if recent.is_some() {
        return Ok(recent);
    }
    conn.prepare_cached(
        "SELECT json FROM cdr
         WHERE id = (SELECT id FROM cdr_key WHERE call_id = ?1 ORDER BY segment DESC LIMIT 1)",
    )?
    .query_row([call_id], |row| row.get(0))
    .optional()
}

/// The id of a record.
pub(super) fn id(conn: &Connection, call_id: &str, segment: u32) -> Result<Option<u64>, rusqlite::Error> {
    conn.query_row(
        &format!(
            "SELECT id FROM cdr WHERE id > ({INDEXED}) AND call_id = ?1 AND segment = ?2
             UNION ALL SELECT id FROM cdr_key WHERE call_id = ?1 AND segment = ?2"
        ),
        params![call_id, segment],
        |row| row.get(0),
    )
    .optional()
}

/// The lines of some records after `id`, oldest first, and the id of the last of them.
pub(super) fn after(conn: &Connection, id: u64) -> Result<(Vec<u8>, u64), rusqlite::Error> {
    let mut rows = conn.prepare("SELECT id, json FROM cdr WHERE id > ?1 ORDER BY id LIMIT 4096")?;
    let mut rows = rows.query([id])?;
    let (mut lines, mut newest) = (Vec::new(), id);
    while let Some(row) = rows.next()? {
        newest = row.get(0)?;
        lines.extend_from_slice(row.get_ref(1)?.as_str()?.as_bytes());
        lines.push(b'\n');
    }
    Ok((lines, newest))
}
