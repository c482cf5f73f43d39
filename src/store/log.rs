//! The event log: appending within a transaction, trimming in small steps, reading.
//!
//! A row has the events of many calls, as many as fit a page: a row for each event would cost a call several microseconds more.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::render;
use super::unsaved::Lines;

/// Rows that one trim deletes at most, beyond twice those that were added.
const TRIM_ROWS: u64 = 32;

/// How much is kept.
#[derive(Clone, Copy)]
pub(super) struct Keep {
    pub(super) events: u64,
    pub(super) event_bytes: u64,
    pub(super) cdrs: u64,
}

/// Where the log stands.
#[derive(Clone, Copy, Default)]
struct Position {
    /// The number of the newest event.
    last_n: u64,
    /// Bytes of all events ever appended.
    end_bytes: u64,
}

/// Appends events.
pub(super) struct Log {
    at: Position,
    committed: Position,
    keep: Keep,
    first: u64,
}

impl Log {
    /// Reads where the log of a database stands.
    pub(super) fn open(conn: &Connection, keep: Keep) -> Result<Log, rusqlite::Error> {
        let newest: Option<(u64, u64)> = conn
            .query_row("SELECT last_n, end_bytes FROM event_log ORDER BY first_n DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let first: Option<u64> = conn
            .query_row("SELECT value FROM fact WHERE name = 'first_event'", [], |row| row.get(0))
            .optional()?;
        let (last_n, end_bytes) = newest.unwrap_or((0, 0));
        let at = Position { last_n, end_bytes };
        Ok(Log { at, committed: at, keep, first: first.unwrap_or(1) })
    }

    /// The least number that the next event may have.
    pub(super) fn next_n(&self) -> u64 {
        (self.at.last_n + 1).max(self.first)
    }

    /// Appends numbered events.
    ///
    /// `filed` is the id of the newest CDR known to be in the file: after a crash it tells where the file may end.
    pub(super) fn append(
        &mut self,
        conn: &Connection,
        events: &Lines,
        filed: u64,
    ) -> Result<(), rusqlite::Error> {
        let mut added = 0;
        let mut insert = conn.prepare_cached(
            "INSERT INTO event_log (first_n, last_n, end_bytes, filed, data) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for row in events.rows() {
            self.at.end_bytes += row.data.len() as u64;
            insert.execute(params![row.first_n, row.last_n, self.at.end_bytes, filed, row.data])?;
            self.at.last_n = row.last_n;
            added += 1;
        }
        if added > 0
            && let Some(last) = self.last_to_trim(conn, 2 * added + TRIM_ROWS)?
        {
            conn.prepare_cached("DELETE FROM event_log WHERE first_n <= ?1")?.execute([last])?;
        }
        Ok(())
    }

    /// The `first_n` of the newest row that a trim deletes: more rows than are added between two trims, and never many.
    fn last_to_trim(&self, conn: &Connection, most: u64) -> Result<Option<u64>, rusqlite::Error> {
        let keep_from = (self.at.last_n + 1).saturating_sub(self.keep.events);
        let keep_after = self.at.end_bytes.saturating_sub(self.keep.event_bytes);
        if keep_from == 0 && keep_after == 0 {
            return Ok(None);
        }
        let mut oldest = conn
            .prepare_cached("SELECT first_n, last_n, end_bytes FROM event_log ORDER BY first_n LIMIT ?1")?;
        let mut rows = oldest.query([most])?;
        let mut trimmed = None;
        while let Some(row) = rows.next()? {
            let (first, last, end): (u64, u64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            // The newest row stays: it holds the number and the byte count.
            if last >= self.at.last_n || (last >= keep_from && end > keep_after) {
                break;
            }
            trimmed = Some(first);
        }
        Ok(trimmed)
    }

    /// The transaction is committed.
    pub(super) fn committed(&mut self) {
        self.committed = self.at;
    }

    /// The transaction is not committed: nothing of it has been.
    pub(super) fn rolled_back(&mut self) {
        self.at = self.committed;
    }
}

/// The rows from the one that holds a number on.
const FROM: &str = "
    SELECT first_n, data FROM event_log WHERE first_n >=
        coalesce((SELECT first_n FROM event_log WHERE first_n <= ?1 ORDER BY first_n DESC LIMIT 1), 0)
    ORDER BY first_n";

/// Up to `max` lines from number `from` on.
pub(super) fn events_from(conn: &Connection, from: u64, max: usize) -> Result<Vec<String>, rusqlite::Error> {
    let from = from.min(i64::MAX as u64);
    let mut rows = conn.prepare_cached(FROM)?;
    let mut rows = rows.query([from])?;
    let mut lines = Vec::new();
    while lines.len() < max {
        let Some(row) = rows.next()? else { break };
        let first: u64 = row.get(0)?;
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let room = max - lines.len();
        let data = String::from_utf8_lossy(row.get_ref(1)?.as_blob()?);
        lines.extend(data.lines().skip(skip).take(room).map(str::to_owned));
    }
    Ok(lines)
}

/// The lines of one call among the newest `depth` events.
pub(super) fn events_of(
    conn: &Connection,
    call_id: &str,
    depth: u64,
) -> Result<Vec<String>, rusqlite::Error> {
    let mark = render::call_id_mark(call_id).map_err(render::error)?;
    let newest: Option<u64> = conn
        .query_row("SELECT last_n FROM event_log ORDER BY first_n DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    let Some(last) = newest else { return Ok(Vec::new()) };
    let from = (last + 1).saturating_sub(depth);
    let mut rows = conn.prepare_cached(FROM)?;
    let mut rows = rows.query([from])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        let first: u64 = row.get(0)?;
        let data = String::from_utf8_lossy(row.get_ref(1)?.as_blob()?);
        if !data.contains(&mark) {
            continue;
        }
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        lines.extend(data.lines().skip(skip).filter(|line| has_mark(line, &mark)).map(str::to_owned));
    }
    Ok(lines)
}

/// Whether the line's own call id is the mark's. Facts may have a `call_id` too, but they come later.
fn has_mark(line: &str, mark: &str) -> bool {
    line.find(",\"call_id\":").is_some_and(|at| line[at..].starts_with(mark))
}

/// The id of the newest CDR known to be in the file, by the log's newest row.
pub(super) fn filed(conn: &Connection) -> Result<u64, rusqlite::Error> {
    let filed = conn
        .query_row("SELECT filed FROM event_log ORDER BY first_n DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    Ok(filed.unwrap_or(0))
}
