//! `cdr.jsonl`: one line of JSON for each CDR, for whatever reads files. The database has them too; the file
//! follows it, also after a crash between the commit and the write.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde::Deserialize;

use super::{cdrs, log};

/// The file's name in the data directory.
pub(super) const FILE: &str = "cdr.jsonl";

/// Bytes of lines kept for the next group while the file cannot be written.
const WAITING: usize = 8 << 20;
/// The longest line looked for at a file's end.
const LONGEST: u64 = 1 << 20;

/// The file and what it still lacks.
pub(super) struct CdrFile {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    rotate_at: u64,
    rotations: u32,
    waiting: Vec<u8>,
    waiting_id: u64,
    filed: u64,
}

/// Names the record of a line.
#[derive(Deserialize)]
struct Name {
    call_id: String,
    segment: u32,
}

impl CdrFile {
    /// A file that is opened with the first [write](CdrFile::write).
    pub(super) fn new(dir: &Path, rotate_at: u64, rotations: u32) -> CdrFile {
        CdrFile {
            path: dir.join(FILE),
            file: None,
            len: 0,
            rotate_at,
            rotations,
            waiting: Vec::new(),
            waiting_id: 0,
            filed: 0,
        }
    }

    /// The id of the newest CDR in the file.
    pub(super) fn filed(&self) -> u64 {
        self.filed
    }

    /// Whether lines wait that could not be written.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// After a start: finds the last record of the file in the database and writes those the file lacks.
    pub(super) fn catch_up(&mut self, conn: &Connection) -> Result<io::Result<()>, rusqlite::Error> {
        let mut filed = log::filed(conn)?;
        let last = [self.path.clone(), self.numbered(1)].iter().find_map(|path| last_line(path));
        if let Some(name) = last.and_then(|line| serde_json::from_slice::<Name>(&line).ok()) {
            filed = filed.max(cdrs::id(conn, &name.call_id, name.segment)?.unwrap_or(0));
        }
        self.filed = filed;
        loop {
            let (lines, newest) = cdrs::after(conn, self.filed)?;
            if lines.is_empty() {
                return Ok(Ok(()));
            }
            self.push(&lines, newest);
            if let Err(error) = self.write() {
                return Ok(Err(error));
            }
        }
    }

    /// Adds the lines of a group whose newest CDR has this id; returns how many were dropped because too much waits.
    pub(super) fn push(&mut self, lines: &[u8], newest: u64) -> usize {
        if !self.waiting.is_empty() && self.waiting.len() + lines.len() > WAITING {
            return lines.iter().filter(|byte| **byte == b'\n').count();
        }
        self.waiting.extend_from_slice(lines);
        self.waiting_id = self.waiting_id.max(newest);
        0
    }

    /// Writes what waits, in one write unless it has to go to several files.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or written. What is not in it is kept, and it ends with a whole line.
    pub(super) fn write(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.reopen_if_moved()?;
        let mut written = 0;
        while written < self.waiting.len() {
            match self.write_some(written) {
                Ok(bytes) => written += bytes,
                Err(error) => {
                    self.waiting.drain(..written);
                    return Err(error);
                }
            }
        }
        self.waiting.clear();
        self.waiting.shrink_to(WAITING / 8);
        self.filed = self.filed.max(self.waiting_id);
        Ok(())
    }

    /// Writes as many lines as the file has room for, or rotates; returns how many bytes were written.
    fn write_some(&mut self, from: usize) -> io::Result<usize> {
        let waiting = &self.waiting[from..];
        let room = usize::try_from(self.rotate_at.saturating_sub(self.len)).unwrap_or(usize::MAX);
        let line_end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        let fits = if waiting.len() <= room { Some(waiting.len()) } else { line_end(&waiting[..room]) };
        let bytes = match fits {
            Some(bytes) => bytes,
            None if self.len > 0 => return self.rotate().map(|()| 0),
            // A line that is longer than a file may be has one of its own.
            None => waiting.iter().position(|byte| *byte == b'\n').map_or(waiting.len(), |at| at + 1),
        };
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = file.write_all(&waiting[..bytes]) {
            // Half a group in the file would become a torn line, then a repeated one.
            let cut = file.set_len(self.len);
            self.file = None;
            return Err(cut.err().unwrap_or(error));
        }
        self.len += bytes as u64;
        Ok(bytes)
    }

    /// Whatever rotates logs may have taken the file away.
    fn reopen_if_moved(&mut self) -> io::Result<()> {
        if let (Some(file), Ok(now)) = (&self.file, std::fs::metadata(&self.path)) {
            let open = file.metadata()?;
            if (open.dev(), open.ino()) == (now.dev(), now.ino()) {
                self.len = now.len();
                return Ok(());
            }
        }
        let file = OpenOptions::new().append(true).read(true).create(true).open(&self.path)?;
        self.len = end_of_last_line(&file)?;
        file.set_len(self.len)?;
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for n in (1..self.rotations).rev() {
            rename_if_there(&self.numbered(n), &self.numbered(n + 1))?;
        }
        if self.rotations > 0 {
            rename_if_there(&self.path, &self.numbered(1))?;
        } else {
            std::fs::remove_file(&self.path)?;
        }
        self.reopen_if_moved()
    }

    fn numbered(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The newest bytes of a file, and where they begin.
fn tail(mut file: &File) -> io::Result<(u64, Vec<u8>)> {
    let len = file.metadata()?.len();
    let from = len.saturating_sub(LONGEST);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok((from, bytes))
}

/// Where the last whole line ends: a power failure may have left a part of one after it.
fn end_of_last_line(file: &File) -> io::Result<u64> {
    let (from, bytes) = tail(file)?;
    Ok(bytes.iter().rposition(|byte| *byte == b'\n').map_or(from, |at| from + at as u64 + 1))
}

fn last_line(path: &Path) -> Option<Vec<u8>> {
    let (_, bytes) = tail(&File::open(path).ok()?).ok()?;
    let whole = &bytes[..bytes.iter().rposition(|byte| *byte == b'\n')?];
    let start = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Some(whole[start..].to_vec())
}
