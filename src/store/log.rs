//! The event log and the CDR table: appending within a group's transaction, trimming in small steps, reading.
//!
//! The events of a group are one row: a row for each event would cost a call several microseconds more.

use rusqlite::{Connection, OptionalExtension as _, params};
use tandem_actors::store::Batch;

use super::render::{self, EventRenderer};

/// Rows that one trim deletes at most.
const TRIM_ROWS: u64 = 32;
/// A trim each so many groups, so that its pages are shared by the rows of many groups.
const TRIM_EACH: u32 = 16;

/// How much is kept.
#[derive(Clone, Copy)]
pub(super) struct Keep {
    pub(super) events: u64,
    pub(super) event_bytes: u64,
    pub(super) cdrs: u64,
}

/// Where the log stands. Copied before a group and put back if the group fails.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    /// The number of the next event.
    pub(super) next_n: u64,
    /// Bytes of all events ever appended.
    pub(super) end_bytes: u64,
    /// The id of the newest CDR.
    pub(super) last_cdr: u64,
    groups: u32,
    cdrs_since_trim: u64,
}

/// What a group has appended.
#[derive(Default)]
pub(super) struct Appended {
    pub(super) events: usize,
    pub(super) cdrs: usize,
    /// CDRs whose call and segment had one already.
    pub(super) repeated: usize,
}

/// Appends events and CDRs.
pub(super) struct Log {
    pub(super) at: Position,
    keep: Keep,
    renderer: EventRenderer,
    events: Vec<u8>,
    json: Vec<u8>,
}

fn json_error(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

impl Log {
    /// Reads where the log of a database stands; the first number is at least `floor`.
    pub(super) fn open(conn: &Connection, keep: Keep, floor: u64) -> Result<Log, rusqlite::Error> {
        let newest: Option<(u64, u64)> = conn
            .query_row("SELECT last_n, end_bytes FROM event_log ORDER BY first_n DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let first: Option<u64> = conn
            .query_row("SELECT value FROM fact WHERE name = 'first_event'", [], |row| row.get(0))
            .optional()?;
        let last_cdr: Option<u64> = conn.query_row("SELECT max(id) FROM cdr", [], |row| row.get(0))?;
        let (last_n, end_bytes) = newest.unwrap_or((0, 0));
        let at = Position {
            next_n: (last_n + 1).max(first.unwrap_or(1)).max(floor),
            end_bytes,
            last_cdr: last_cdr.unwrap_or(0),
            ..Position::default()
        };
        Ok(Log { at, keep, renderer: EventRenderer::default(), events: Vec::new(), json: Vec::new() })
    }

    /// Appends a group's events as one row and its CDRs; the lines of new CDRs are added to `lines`.
    ///
    /// `filed` is the id of the newest CDR known to be in the file: after a crash it tells where the file may end.
    pub(super) fn append<'a>(
        &mut self,
        conn: &Connection,
        batches: impl Iterator<Item = &'a Batch> + Clone,
        filed: u64,
        lines: &mut Vec<u8>,
    ) -> Result<Appended, rusqlite::Error> {
        let mut done = Appended::default();
        let first = self.at.next_n;
        self.events.clear();
        for event in batches.clone().flat_map(|batch| &batch.events) {
            self.renderer.line(&mut self.events, self.at.next_n, event).map_err(json_error)?;
            self.at.next_n += 1;
            done.events += 1;
        }
        if done.events > 0 {
            self.at.end_bytes += self.events.len() as u64;
            conn.prepare_cached(
                "INSERT INTO event_log (first_n, last_n, end_bytes, filed, data) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                first,
                self.at.next_n - 1,
                self.at.end_bytes,
                filed,
                self.events
            ])?;
        }
        self.append_cdrs(conn, batches, lines, &mut done)?;
        self.at.groups += 1;
        if self.at.groups >= TRIM_EACH {
            self.trim(conn)?;
        }
        Ok(done)
    }

    fn append_cdrs<'a>(
        &mut self,
        conn: &Connection,
        batches: impl Iterator<Item = &'a Batch> + Clone,
        lines: &mut Vec<u8>,
        done: &mut Appended,
    ) -> Result<(), rusqlite::Error> {
        if batches.clone().all(|batch| batch.cdrs.is_empty()) {
            return Ok(());
        }
        let mut insert = conn.prepare_cached(
            "INSERT OR IGNORE INTO cdr (id, call_id, segment, end_ms, json) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for cdr in batches.flat_map(|batch| &batch.cdrs) {
            self.json.clear();
            render::cdr(&mut self.json, cdr).map_err(json_error)?;
            let json = String::from_utf8_lossy(&self.json);
            let end_ms = i64::try_from(cdr.end.0).unwrap_or(i64::MAX);
            if insert.execute(params![self.at.last_cdr + 1, cdr.call_id, cdr.segment, end_ms, json])? == 0 {
                done.repeated += 1;
                continue;
            }
            self.at.last_cdr += 1;
            self.at.cdrs_since_trim += 1;
            done.cdrs += 1;
            lines.extend_from_slice(&self.json);
            lines.push(b'\n');
        }
        Ok(())
    }

    /// Deletes what is beyond the bounds, more than is added between two trims and never much at once.
    fn trim(&mut self, conn: &Connection) -> Result<(), rusqlite::Error> {
        self.at.groups = 0;
        if let Some(last) = self.last_to_trim(conn)? {
            conn.prepare_cached("DELETE FROM event_log WHERE first_n <= ?1")?.execute([last])?;
        }
        let step = TRIM_ROWS + 2 * std::mem::take(&mut self.at.cdrs_since_trim);
        let cut = self.at.last_cdr.saturating_sub(self.keep.cdrs);
        if cut > 0 {
            conn.prepare_cached("DELETE FROM cdr WHERE id <= min(?1, (SELECT min(id) FROM cdr) + ?2)")?
                .execute([cut, step])?;
        }
        Ok(())
    }

    /// The `first_n` of the newest row that this trim deletes.
    fn last_to_trim(&self, conn: &Connection) -> Result<Option<u64>, rusqlite::Error> {
        let keep_from = self.at.next_n.saturating_sub(self.keep.events);
        let keep_after = self.at.end_bytes.saturating_sub(self.keep.event_bytes);
        let mut oldest = conn
            .prepare_cached("SELECT first_n, last_n, end_bytes FROM event_log ORDER BY first_n LIMIT ?1")?;
        let mut rows = oldest.query([TRIM_ROWS])?;
        let mut trimmed = None;
        while let Some(row) = rows.next()? {
            let (first, last, end): (u64, u64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            // The newest row stays: it holds the number and the byte count.
            if last + 1 >= self.at.next_n || (last >= keep_from && end > keep_after) {
                break;
            }
            trimmed = Some(first);
        }
        Ok(trimmed)
    }
}

/// Up to `max` lines from number `from` on.
pub(super) fn events_from(conn: &Connection, from: u64, max: usize) -> Result<Vec<String>, rusqlite::Error> {
    let from = from.min(i64::MAX as u64);
    // The row that holds `from` begins at or before it.
    let mut rows = conn.prepare_cached(
        "SELECT first_n, data FROM event_log WHERE first_n >=
            coalesce((SELECT first_n FROM event_log WHERE first_n <= ?1 ORDER BY first_n DESC LIMIT 1), 0)
         ORDER BY first_n",
    )?;
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
    let Ok(mark) = render::call_id_mark(call_id) else { return Ok(Vec::new()) };
    let newest: Option<u64> = conn.query_row("SELECT max(first_n) FROM event_log", [], |row| row.get(0))?;
    let last: u64 = match newest {
        None => return Ok(Vec::new()),
        Some(first) => {
            conn.query_row("SELECT last_n FROM event_log WHERE first_n = ?1", [first], |row| row.get(0))?
        }
    };
    let from = (last + 1).saturating_sub(depth);
    let mut rows = conn.prepare_cached(
        "SELECT first_n, data FROM event_log WHERE first_n >=
            coalesce((SELECT first_n FROM event_log WHERE first_n <= ?1 ORDER BY first_n DESC LIMIT 1), 0)
         ORDER BY first_n",
    )?;
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

/// The newest record of a call.
pub(super) fn cdr(conn: &Connection, call_id: &str) -> Result<Option<String>, rusqlite::Error> {
    conn.prepare_cached("SELECT json FROM cdr WHERE call_id = ?1 ORDER BY segment DESC LIMIT 1")?
        .query_row([call_id], |row| row.get(0))
        .optional()
}

/// The ids of the newest CDR known to be in the file, by the log's newest row.
pub(super) fn filed(conn: &Connection) -> Result<u64, rusqlite::Error> {
    let filed = conn
        .query_row("SELECT filed FROM event_log ORDER BY first_n DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    Ok(filed.unwrap_or(0))
}

/// The id of a CDR.
pub(super) fn cdr_id(conn: &Connection, call_id: &str, segment: u32) -> Result<Option<u64>, rusqlite::Error> {
    conn.query_row(
        "SELECT id FROM cdr WHERE call_id = ?1 AND segment = ?2",
        params![call_id, segment],
        |row| row.get(0),
    )
    .optional()
}

/// The lines of the CDRs after `id`, and the newest id.
pub(super) fn cdrs_after(conn: &Connection, id: u64) -> Result<(Vec<u8>, u64), rusqlite::Error> {
    let mut rows = conn.prepare("SELECT id, json FROM cdr WHERE id > ?1 ORDER BY id")?;
    let mut rows = rows.query([id])?;
    let (mut lines, mut newest) = (Vec::new(), id);
    while let Some(row) = rows.next()? {
        newest = row.get(0)?;
        lines.extend_from_slice(row.get_ref(1)?.as_str()?.as_bytes());
        lines.push(b'\n');
    }
    Ok((lines, newest))
}
