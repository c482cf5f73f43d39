//! The table of CDRs: one for each call and segment, found by call.
//!
//! Calls end in another order than they began, so an index by call kept up with each record would dirty a page for each. The newest
//! records are indexed in memory, and go to the index of the database a thousand at a time.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use tandem_actors::cdr::Cdr;

use super::render;

/// Records that are indexed in memory before they go to the database's index together.
const RECENT: usize = 1024;

/// Appends CDRs.
pub(super) struct Cdrs {
    keep: u64,
    last: u64,
    /// By call and segment, the ids of the records that are not in the database's index.
    recent: BTreeMap<(String, u32), u64>,
    /// Of `recent`, what the group has added.
    added: Vec<(String, u32)>,
    /// Whether the group has moved `recent` to the database's index.
    moved: bool,
    json: Vec<u8>,
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
        let last = last.unwrap_or(0);
        Ok(Cdrs { keep, last, recent, added: Vec::new(), moved: false, json: Vec::new() })
    }

    /// The id of the newest record.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Appends records within a group's transaction; the lines of new ones are added to `lines`. Returns how many were
    /// ignored, because their call and segment had one already.
    pub(super) fn append<'a>(
        &mut self,
        conn: &Connection,
        cdrs: impl Iterator<Item = &'a Cdr>,
        lines: &mut Vec<u8>,
    ) -> Result<usize, rusqlite::Error> {
        let mut repeated = 0;
        let mut cdrs = cdrs.peekable();
        if cdrs.peek().is_none() {
            return Ok(0);
        }
        let mut insert = conn.prepare_cached(
            "INSERT INTO cdr (id, call_id, segment, end_ms, json) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut indexed = conn.prepare_cached("SELECT 1 FROM cdr_key WHERE call_id = ?1 AND segment = ?2")?;
        for cdr in cdrs {
            let key = (cdr.call_id.clone(), cdr.segment);
            if self.recent.contains_key(&key) || indexed.exists(params![key.0, key.1])? {
                repeated += 1;
                continue;
            }
            self.json.clear();
            render::cdr(&mut self.json, cdr).map_err(render::error)?;
            let json = String::from_utf8_lossy(&self.json);
            let end_ms = i64::try_from(cdr.end.0).unwrap_or(i64::MAX);
            let id = self.last + 1;
            insert.execute(params![id, key.0, key.1, end_ms, json])?;
            self.last = id;
            self.added.push(key.clone());
            self.recent.insert(key, id);
            lines.extend_from_slice(&self.json);
            lines.push(b'\n');
        }
        if self.recent.len() >= RECENT {
            self.index(conn)?;
            self.trim(conn)?;
        }
        Ok(repeated)
    }

    /// Moves `recent` to the database's index, in its order, so that neighbours share their page.
    fn index(&mut self, conn: &Connection) -> Result<(), rusqlite::Error> {
        let mut insert =
            conn.prepare_cached("INSERT OR IGNORE INTO cdr_key (call_id, segment, id) VALUES (?1, ?2, ?3)")?;
        for ((call_id, segment), id) in &self.recent {
            insert.execute(params![call_id, segment, id])?;
        }
        conn.prepare_cached("INSERT OR REPLACE INTO fact (name, value) VALUES ('cdr_indexed', ?1)")?
            .execute([self.last])?;
        self.moved = true;
        Ok(())
    }

    /// Deletes the oldest records beyond the bound, somewhat more than are added between two trims.
    fn trim(&self, conn: &Connection) -> Result<(), rusqlite::Error> {
        let cut = self.last.saturating_sub(self.keep);
        if cut == 0 {
            return Ok(());
        }
        let oldest: Option<u64> =
            conn.prepare_cached("SELECT min(id) FROM cdr")?.query_row([], |row| row.get(0))?;
        let cut = cut.min(oldest.unwrap_or(0) + 2 * self.recent.len() as u64);
        conn.prepare_cached(
            "DELETE FROM cdr_key WHERE (call_id, segment) IN (SELECT call_id, segment FROM cdr WHERE id <= ?1)",
        )?
        .execute([cut])?;
        conn.prepare_cached("DELETE FROM cdr WHERE id <= ?1")?.execute([cut])?;
        Ok(())
    }

    /// The group is committed.
    pub(super) fn committed(&mut self) {
        self.added.clear();
        if std::mem::take(&mut self.moved) {
            self.recent.clear();
        }
    }

    /// The group is not committed: nothing of it has been.
    pub(super) fn rolled_back(&mut self) {
        self.last -= self.added.len() as u64;
        for key in self.added.drain(..) {
            self.recent.remove(&key);
        }
        self.moved = false;
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
