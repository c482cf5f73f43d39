//! The journal: each group as it is committed, in one write, until the database has it too.
//!
//! A transaction of the database costs more by its pages than by what is in them, so many groups share one, up to 50 ms later. What
//! a ticket has been told is in this file until then. Calls, most of which are short, stay in it for longer: until it is full. When the database
//! has all of it, it is written from its beginning again: a record of an earlier round is known by its number, which does not follow the one
//! before it.
//!
//! ```text
//! record: length (4), mark (4), number (8), checksum (8), payload
//! ```

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::disk::{DiskError, at_path};

/// The file's name in the data directory.
pub(super) const FILE: &str = "tandem.journal";

const HEAD: usize = 24;
const MARK: u32 = u32::from_le_bytes(*b"TJ01");
/// A round: what calls it has goes to the database together, and holds up the next urgent group.
const ROUND: u64 = 512 << 10;
/// A file that a fault of the database has made longer is cut to nothing.
const LONGEST: u64 = 16 << 20;

/// The open file.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Where the next record goes.
    at: u64,
    record: Vec<u8>,
}

impl Journal {
    /// Opens the journal of a directory, or makes one. The next record goes to its beginning.
    pub(super) fn open(dir: &Path) -> Result<Journal, DiskError> {
        let path = dir.join(FILE);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = options.map_err(at_path(&path))?;
        Ok(Journal { path, file, at: 0, record: Vec::new() })
    }

    /// Whether the file still has a name: otherwise it takes every write, and keeps none beyond the process.
    pub(super) fn check(&self) -> Result<(), DiskError> {
        match self.file.metadata() {
            Ok(found) if found.nlink() > 0 => Ok(()),
            Ok(_) => Err(DiskError::Gone(self.path.clone())),
            Err(error) => Err(at_path(&self.path)(error)),
        }
    }

    /// Whether its round is over, once the database has all of it.
    pub(super) fn is_full(&self) -> bool {
        self.at >= ROUND
    }

    /// Appends a record, whose payload is what `encode` adds.
    ///
    /// # Errors
    ///
    /// The file cannot be written; the next record goes to the same place.
    pub(super) fn append(&mut self, number: u64, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), DiskError> {
        self.record.clear();
        self.record.resize(HEAD, 0);
        encode(&mut self.record);
        let (head, payload) = self.record.split_at_mut(HEAD);
        // The queue's bound keeps it far below 4 GB.
        head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[4..8].copy_from_slice(&MARK.to_le_bytes());
        head[8..16].copy_from_slice(&number.to_le_bytes());
        head[16..].copy_from_slice(&checksum(number, payload).to_le_bytes());
        self.file.write_all_at(&self.record, self.at).map_err(at_path(&self.path))?;
        self.at += self.record.len() as u64;
        self.record.shrink_to(1 << 20);
        Ok(())
    }

    /// The database has all of it.
    pub(super) fn reset(&mut self) {
        if self.at > LONGEST {
            self.clear();
        }
        self.at = 0;
    }

    /// Leaves an empty file.
    pub(super) fn clear(&mut self) {
        self.at = 0;
        if let Err(error) = self.file.set_len(0) {
            tracing::debug!(%error, "the journal is not cut");
        }
    }

    /// Reads what the database lacks: each record after number `saved` that follows the one before it. `None`: the database knows of
    /// no journal, and all of it is read. `each` returns whether it could use the payload. Returns the highest number met.
    pub(super) fn replay(
        &self,
        saved: Option<u64>,
        mut each: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<u64, DiskError> {
        let mut data = Vec::new();
        (&self.file).read_to_end(&mut data).map_err(at_path(&self.path))?;
        let (mut rest, mut last) = (&data[..], saved.unwrap_or(0));
        let (mut before, mut used) = (None, true);
        while let Some((number, payload, after)) = first_record(rest) {
            if before.is_some_and(|before| number != before + 1) {
                break;
            }
            // A gap comes of a power failure that has taken the end of the database with it: what follows is newer than what is lost.
            used &= before.is_some() || saved.is_none_or(|saved| number <= saved + 1);
            if used && saved.is_none_or(|saved| number > saved) && !each(number, payload) {
                tracing::error!(number, "a record of the journal cannot be decoded");
                used = false;
            }
            (before, last, rest) = (Some(number), last.max(number), after);
        }
        Ok(last)
    }
}

/// The number and the payload of the record that a file's rest begins with, and what follows.
fn first_record(data: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (len, rest) = data.split_first_chunk::<4>()?;
    let (mark, rest) = rest.split_first_chunk::<4>()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    let number = u64::from_le_bytes(*number);
    let whole = u32::from_le_bytes(*mark) == MARK && checksum(number, payload) == u64::from_le_bytes(*sum);
    whole.then_some((number, payload, rest))
}

/// Tells a record that was written in part from a whole one. Not against malice.
fn checksum(number: u64, payload: &[u8]) -> u64 {
    const A: u64 = 0x9E37_79B9_7F4A_7C15;
    const B: u64 = 0xC2B2_AE3D_27D4_EB4F;
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let (mut a, mut b) = (number ^ A, payload.len() as u64 ^ B);
    let (pairs, tail) = payload.as_chunks::<16>();
    for pair in pairs {
        let both = u128::from_le_bytes(*pair);
        a = (a ^ both as u64).wrapping_mul(A).rotate_left(29);
        b = (b ^ (both >> 64) as u64).wrapping_mul(B).rotate_left(31);
    }
    for part in tail.chunks(8) {
        a = (a ^ word(part)).wrapping_mul(B).rotate_left(29);
    }
    let sum = (a ^ b.rotate_left(32)).wrapping_mul(A);
    sum ^ (sum >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(journal: &mut Journal, number: u64, payload: &[u8]) {
        journal.append(number, |out| out.extend_from_slice(payload)).unwrap();
    }

    fn read(dir: &Path, saved: Option<u64>) -> (Vec<Vec<u8>>, u64) {
        let mut found = Vec::new();
        let last = Journal::open(dir)
            .unwrap()
            .replay(saved, |_, payload| {
                found.push(payload.to_vec());
                true
            })
            .unwrap();
        (found, last)
    }

    #[test]
    fn what_the_database_lacks_is_read_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        for number in 1..=5 {
            write(&mut journal, number, &[number as u8; 100]);
        }
        assert_eq!(read(dir.path(), Some(3)), (vec![vec![4; 100], vec![5; 100]], 5));
        assert_eq!(read(dir.path(), Some(5)), (vec![], 5));
        assert_eq!(read(dir.path(), None).0.len(), 5);
    }

    #[test]
    fn records_of_an_earlier_round_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        for number in 1..=5 {
            write(&mut journal, number, &[0; 100]);
        }
        journal.reset();
        write(&mut journal, 6, &[6; 100]);
        assert_eq!(read(dir.path(), Some(5)), (vec![vec![6; 100]], 6));
        // The record of number 2 is whole, but does not follow number 6.
        assert_eq!(read(dir.path(), None).0, [vec![6; 100]]);
    }

    #[test]
    fn a_record_that_was_written_in_part_ends_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        write(&mut journal, 1, b"whole");
        let whole = journal.at;
        write(&mut journal, 2, b"not whole, and longer than sixteen bytes");
        let end = journal.at;
        for cut in whole..end {
            journal.file.set_len(cut).unwrap();
            assert_eq!(read(dir.path(), Some(0)), (vec![b"whole".to_vec()], 1));
        }
        let mut bytes = std::fs::read(dir.path().join(FILE)).unwrap();
        write(&mut journal, 2, b"x");
        for at in 0..bytes.len().min(whole as usize) {
            bytes[at] ^= 1;
            std::fs::write(dir.path().join(FILE), &bytes).unwrap();
            assert_eq!(read(dir.path(), Some(0)).0.len(), 0, "byte {at}");
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn what_follows_a_gap_is_not_read_and_its_numbers_are_not_given_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        write(&mut journal, 8, b"x");
        write(&mut journal, 9, b"x");
        assert_eq!(read(dir.path(), Some(5)), (vec![], 9));
    }

    #[test]
    fn a_journal_that_was_deleted_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        journal.check().unwrap();
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        assert!(matches!(journal.check(), Err(DiskError::Gone(_))));
    }
}
