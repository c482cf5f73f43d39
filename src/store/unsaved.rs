//! What the journal has and the database lacks: what groups have changed, merged by key, and their events and CDRs as lines.
//!
//! A call that begins and ends between two transactions leaves its events and its record in the database, and no trace in the log of calls.

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem_actors::cdr::Cdr;
use tandem_actors::events::Event;
use tandem_actors::store::Bucket;

use super::group::Change;
use super::render::{self, EventRenderer};

/// Bytes of a row of the event log: with its other columns it fills one page of the database.
const ROW: usize = 3900;

/// Groups that are in the journal, and one that is about to be.
#[derive(Default)]
pub(super) struct Unsaved {
    /// By bucket.
    entries: [BTreeMap<Box<str>, Change<Bytes>>; Bucket::ALL.len()],
    pub(super) events: Lines,
    pub(super) cdrs: Records,
    /// The number of the newest group in the journal.
    pub(super) group: u64,
    /// The number of the next event.
    pub(super) next_n: u64,
    /// What the queue counts for it, in bytes.
    pub(super) bytes: usize,
    kept: Mark,
}

/// Where the events and CDRs of the group that is about to be journaled begin.
#[derive(Clone, Copy, Default)]
struct Mark {
    next_n: u64,
    events: usize,
    event_bytes: usize,
    cdrs: usize,
    cdr_bytes: usize,
}

impl Unsaved {
    /// Whether the database has all of it.
    pub(super) fn is_empty(&self) -> bool {
        self.events.ends.is_empty() && self.cdrs.all.is_empty() && self.entries.iter().all(BTreeMap::is_empty)
    }

    /// What has become of a key since the last transaction.
    pub(super) fn change(&self, bucket: Bucket, key: &str) -> Option<&Change<Bytes>> {
        self.entries[bucket as usize].get(key)
    }

    /// What has become of the keys of a bucket since the last transaction, by key.
    pub(super) fn changes(&self, bucket: Bucket) -> impl Iterator<Item = (&str, Change<&Bytes>)> {
        self.entries[bucket as usize].iter().map(|(key, change)| (&**key, change.as_ref()))
    }

    /// Numbers and renders an event of the next group.
    pub(super) fn push_event(&mut self, event: &Event) -> Result<(), serde_json::Error> {
        self.events.renderer.line(&mut self.events.data, self.next_n, event)?;
        self.events.ends.push((self.next_n, self.events.data.len()));
        self.next_n += 1;
        Ok(())
    }

    /// Renders a CDR of the next group.
    pub(super) fn push_cdr(&mut self, cdr: &Cdr) -> Result<(), serde_json::Error> {
        render::cdr(&mut self.cdrs.data, cdr)?;
        self.cdrs.push(cdr.call_id.clone(), cdr.segment, cdr.end.0);
        Ok(())
    }

    /// Whether the next group has neither events nor CDRs.
    pub(super) fn is_staged_empty(&self) -> bool {
        self.events.ends.len() == self.kept.events && self.cdrs.all.len() == self.kept.cdrs
    }

    /// The group is in the journal.
    pub(super) fn keep<'a>(&mut self, changes: impl Iterator<Item = (Bucket, &'a str, Change<&'a Bytes>)>) {
        for (bucket, key, change) in changes {
            self.merge(bucket, key, change.cloned());
        }
        self.group += 1;
        self.mark();
    }

    fn mark(&mut self) {
        self.kept = Mark {
            next_n: self.next_n,
            events: self.events.ends.len(),
            event_bytes: self.events.data.len(),
            cdrs: self.cdrs.all.len(),
            cdr_bytes: self.cdrs.data.len(),
        };
    }

    fn merge(&mut self, bucket: Bucket, key: &str, change: Change<Bytes>) {
        let entries = &mut self.entries[bucket as usize];
        let before = entries.get_mut(key);
        let now = match (change, before.as_deref()) {
            (Change::Raise { by, value }, Some(Change::Raise { by: before, .. })) => {
                Change::Raise { by: before + by, value }
            }
            (Change::Raise { by, value }, Some(Change::Set { version, .. })) => {
                Change::Set { version: version + by, value }
            }
            (Change::Raise { by, value }, Some(Change::Delete)) => Change::Set { version: by, value },
            (change @ Change::Raise { .. }, None) | (change @ (Change::Set { .. } | Change::Delete), _) => {
                change
            }
        };
        match before {
            Some(before) => *before = now,
            None => drop(entries.insert(key.into(), now)),
        }
    }

    /// The group is not in the journal: its numbers are given again.
    pub(super) fn roll_back(&mut self) {
        self.next_n = self.kept.next_n;
        self.events.ends.truncate(self.kept.events);
        self.events.data.truncate(self.kept.event_bytes);
        self.cdrs.all.truncate(self.kept.cdrs);
        self.cdrs.data.truncate(self.kept.cdr_bytes);
    }

    /// Numbers go on at `n`, if that is later.
    pub(super) fn go_on_at(&mut self, n: u64) {
        self.next_n = self.next_n.max(n);
        self.kept.next_n = self.next_n;
    }

    /// The database has all of it, but for the calls unless `calls`; or it is given up.
    pub(super) fn clear(&mut self, calls: bool) {
        for bucket in Bucket::ALL {
            if calls || bucket != Bucket::Calls {
                self.entries[bucket as usize].clear();
            }
        }
        self.events.ends.clear();
        self.events.data.clear();
        self.events.data.shrink_to(1 << 20);
        self.cdrs.all.clear();
        self.cdrs.data.clear();
        self.cdrs.data.shrink_to(1 << 20);
        self.mark();
    }

    /// What the journal is to have of the next group.
    pub(super) fn encode<'a>(
        &self,
        changes: impl ExactSizeIterator<Item = (Bucket, &'a str, Change<&'a Bytes>)>,
        out: &mut Vec<u8>,
    ) {
        put_u32(out, changes.len());
        for (bucket, key, change) in changes {
            let (what, number, value): (u8, u64, &[u8]) = match change {
                Change::Delete => (0, 0, &[]),
                Change::Raise { by, value } => (1, by, value),
                Change::Set { version, value } => (2, version, value),
            };
            out.extend_from_slice(&[bucket as u8, what]);
            out.extend_from_slice(&number.to_le_bytes());
            put(out, key.as_bytes());
            put(out, value);
        }
        put(out, &self.events.data[self.kept.event_bytes..]);
        let cdrs = &self.cdrs.all[self.kept.cdrs..];
        put_u32(out, cdrs.len());
        for cdr in cdrs {
            out.extend_from_slice(&cdr.segment.to_le_bytes());
            out.extend_from_slice(&cdr.end_ms.to_le_bytes());
            put(out, cdr.call_id.as_bytes());
        }
        put(out, &self.cdrs.data[self.kept.cdr_bytes..]);
    }

    /// Takes in a group of the journal after a start; `None`, and nothing is taken in, if it is none. The database may have it but for
    /// its calls. Its events are numbered anew: with the same numbers, unless the database is another one.
    pub(super) fn decode(&mut self, mut data: &[u8], only_calls: bool) -> Option<()> {
        let input = &mut data;
        let mut changes = Vec::new();
        for _ in 0..take_u32(input)? {
            let (&[bucket, what], rest) = input.split_first_chunk::<2>()?;
            *input = rest;
            let number = take_u64(input)?;
            let key = std::str::from_utf8(take(input)?).ok()?;
            let value = Bytes::copy_from_slice(take(input)?);
            let bucket = Bucket::ALL.into_iter().find(|known| *known as u8 == bucket)?;
            let change = match what {
                0 => Change::Delete,
                1 => Change::Raise { by: number, value },
                2 => Change::Set { version: number, value },
                _ => return None,
            };
            changes.push((bucket, key, change));
        }
        let events = take(input)?;
        let mut cdrs = Vec::new();
        for _ in 0..take_u32(input)? {
            let segment = take_u32(input)? as u32;
            let end_ms = take_u64(input)?;
            cdrs.push((segment, end_ms, std::str::from_utf8(take(input)?).ok()?));
        }
        let records: Vec<&[u8]> = take(input)?.split_inclusive(|byte| *byte == b'\n').collect();
        if !input.is_empty() || records.len() != cdrs.len() {
            return None;
        }
        for (bucket, key, change) in changes {
            if !only_calls || bucket == Bucket::Calls {
                self.merge(bucket, key, change);
            }
        }
        if only_calls {
            return Some(());
        }
        for line in events.split_inclusive(|byte| *byte == b'\n') {
            let facts = line.iter().position(|byte| *byte == b',').unwrap_or(0);
            self.events.data.extend_from_slice(format!("{{\"n\":{}", self.next_n).as_bytes());
            self.events.data.extend_from_slice(&line[facts..]);
            self.events.ends.push((self.next_n, self.events.data.len()));
            self.next_n += 1;
        }
        for ((segment, end_ms, call_id), line) in cdrs.into_iter().zip(records) {
            self.cdrs.data.extend_from_slice(&line[..line.len() - 1]);
            self.cdrs.push(call_id.to_owned(), segment, end_ms);
        }
        self.mark();
        Some(())
    }
}

/// Events as lines, each with its number and its end.
#[derive(Default)]
pub(super) struct Lines {
    data: Vec<u8>,
    ends: Vec<(u64, usize)>,
    renderer: EventRenderer,
}

/// A row of the event log.
#[derive(Debug, PartialEq)]
pub(super) struct Row<'a> {
    pub(super) first_n: u64,
    pub(super) last_n: u64,
    pub(super) data: &'a [u8],
}

impl Lines {
    /// The lines, as many as fit a page to a row.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let mut rest = self.ends.iter().peekable();
        let mut from = 0;
        std::iter::from_fn(move || {
            let (first_n, mut end) = *rest.next()?;
            let mut last_n = first_n;
            while let Some((n, next)) = rest.next_if(|(n, next)| *n == last_n + 1 && next - from <= ROW) {
                (last_n, end) = (*n, *next);
            }
            let data = &self.data[from..end];
            from = end;
            Some(Row { first_n, last_n, data })
        })
    }
}

/// CDRs as lines.
#[derive(Default)]
pub(super) struct Records {
    data: Vec<u8>,
    all: Vec<Record>,
}

/// What the table of CDRs has of one beside its line.
pub(super) struct Record {
    pub(super) call_id: String,
    pub(super) segment: u32,
    pub(super) end_ms: u64,
    end: usize,
}

impl Records {
    /// Ends the line that has been added.
    fn push(&mut self, call_id: String, segment: u32, end_ms: u64) {
        self.data.push(b'\n');
        self.all.push(Record { call_id, segment, end_ms, end: self.data.len() });
    }

    /// Each with its line, which ends with a line feed.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Record, &[u8])> {
        let mut from = 0;
        self.all.iter().map(move |record| {
            let line = &self.data[from..record.end];
            from = record.end;
            (record, line)
        })
    }
}

// The queue's bound keeps every length far below 4 GB.
fn put_u32(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&(number as u32).to_le_bytes());
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn take_u32(input: &mut &[u8]) -> Option<usize> {
    let (number, rest) = input.split_first_chunk::<4>()?;
    *input = rest;
    Some(u32::from_le_bytes(*number) as usize)
}

fn take_u64(input: &mut &[u8]) -> Option<u64> {
    let (number, rest) = input.split_first_chunk::<8>()?;
    *input = rest;
    Some(u64::from_le_bytes(*number))
}

fn take<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_u32(input)?;
    let (bytes, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use tandem_actors::events::EventKind;
    use tandem_protocol::time::UnixMillis;

    use super::*;

    fn event(reason: String) -> Event {
        Event::new(UnixMillis(0), EventKind::CallStarted, reason)
    }

    fn change(unsaved: &Unsaved, key: &str) -> Option<Change<Bytes>> {
        unsaved.change(Bucket::Calls, key).cloned()
    }

    #[test]
    fn what_groups_make_of_a_key_is_what_they_made_of_it_one_by_one() {
        let value = Bytes::from_static(b"v");
        let last = Bytes::from_static(b"last");
        let (raise, set) =
            (Change::Raise { by: 2, value: &value }, Change::Set { version: 7, value: &value });
        let next = Change::Raise { by: 3, value: &last };
        for (before, after) in [
            (None, Change::Raise { by: 3, value: last.clone() }),
            (Some(raise), Change::Raise { by: 5, value: last.clone() }),
            (Some(set), Change::Set { version: 10, value: last.clone() }),
            (Some(Change::Delete), Change::Set { version: 3, value: last.clone() }),
        ] {
            let mut unsaved = Unsaved::default();
            unsaved.keep(before.into_iter().map(|change| (Bucket::Calls, "a", change)));
            unsaved.keep([(Bucket::Calls, "a", next)].into_iter());
            assert_eq!(change(&unsaved, "a"), Some(after));
            unsaved.keep([(Bucket::Calls, "a", Change::Delete)].into_iter());
            assert_eq!(change(&unsaved, "a"), Some(Change::Delete));
            assert_eq!(unsaved.change(Bucket::Meta, "a"), None);
        }
    }

    #[test]
    fn a_group_is_decoded_as_it_was_encoded_and_a_part_of_one_is_not() {
        let value = Bytes::from_static(b"value");
        let changes = [
            (Bucket::Calls, "a", Change::Raise { by: 2, value: &value }),
            (Bucket::Bindings, "b", Change::Set { version: 3, value: &value }),
            (Bucket::Stations, "c", Change::Delete),
        ];
        let mut unsaved = Unsaved { next_n: 9, ..Unsaved::default() };
        unsaved.push_event(&event("of the group before".into())).unwrap();
        unsaved.keep(std::iter::empty());
        unsaved.push_event(&event("a,\n\"b".into())).unwrap();
        unsaved.push_event(&event("c".into())).unwrap();
        for call_id in ["x", "y"] {
            unsaved.push_cdr(&Cdr { call_id: call_id.into(), segment: 2, ..Cdr::default() }).unwrap();
        }
        let mut data = Vec::new();
        unsaved.encode(changes.into_iter(), &mut data);
        let mut read = Unsaved { next_n: 10, ..Unsaved::default() };
        for cut in 0..data.len() {
            assert_eq!(read.decode(&data[..cut], false), None);
            assert!(read.is_empty());
        }
        read.decode(&data, false).unwrap();
        for (bucket, key, change) in changes {
            assert_eq!(read.changes(bucket).collect::<Vec<_>>(), [(key, change)]);
        }
        let wanted = &unsaved.events.data[unsaved.kept.event_bytes..];
        assert_eq!(read.events.rows().collect::<Vec<_>>(), [Row { first_n: 10, last_n: 11, data: wanted }]);
        let cdrs = |of: &Unsaved| -> Vec<(String, u32, Vec<u8>)> {
            of.cdrs.iter().map(|(r, line)| (r.call_id.clone(), r.segment, line.to_vec())).collect()
        };
        assert_eq!(cdrs(&read), cdrs(&unsaved));
        assert_eq!(read.next_n, 12);
        let mut read = Unsaved { next_n: 10, ..Unsaved::default() };
        read.decode(&data, true).unwrap();
        assert_eq!(read.changes(Bucket::Calls).collect::<Vec<_>>(), [("a", changes[0].2)]);
        read.clear(true);
        assert!(read.is_empty());
    }

    #[test]
    fn a_group_that_is_rolled_back_leaves_no_trace_and_its_numbers_are_given_again() {
        let mut unsaved = Unsaved { next_n: 1, ..Unsaved::default() };
        unsaved.keep(std::iter::empty());
        unsaved.push_event(&event("lost".into())).unwrap();
        unsaved.push_cdr(&Cdr::default()).unwrap();
        assert!(!unsaved.is_staged_empty());
        unsaved.roll_back();
        assert!(unsaved.is_empty() && unsaved.is_staged_empty());
        assert_eq!(unsaved.next_n, 1);
    }

    #[test]
    fn rows_are_whole_lines_and_no_longer_than_a_page_and_numbers_within_them_have_no_gap() {
        let mut unsaved = Unsaved { next_n: 1, ..Unsaved::default() };
        for n in 0..200 {
            // One is longer than a page by itself.
            let len = if n == 100 { 5000 } else { n };
            unsaved.push_event(&event("x".repeat(len))).unwrap();
        }
        unsaved.go_on_at(1000);
        unsaved.push_event(&event("later".into())).unwrap();
        let rows: Vec<Row<'_>> = unsaved.events.rows().collect();
        let all: Vec<u8> = rows.iter().flat_map(|row| row.data).copied().collect();
        assert_eq!(all, unsaved.events.data);
        let mut next = 1;
        for row in &rows[..rows.len() - 1] {
            assert!(row.data.len() <= ROW || row.first_n == row.last_n);
            assert_eq!(row.first_n, next);
            next = row.last_n + 1;
            assert_eq!(row.data.split(|b| *b == b'\n').count() as u64 - 1, next - row.first_n);
        }
        assert_eq!((next, rows.last().map(|row| row.first_n)), (201, Some(1000)));
        assert!(rows.len() < 30);
    }
}
