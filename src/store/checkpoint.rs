//! Moving the write-ahead log into the database beside the writer: it syncs files, and the tickets of a group cannot wait for a disk.
//!
//! The log is begun anew only when all of it has been moved and nobody writes meanwhile. So a second thread moves
//! nearly all of it, with the syncs, and the writer then moves the little that came in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rusqlite::Connection;

use super::schema;

/// Pages of the log from which on it is moved: 32 MB, in which most pages of the log of calls are overwritten.
const PAGES: u32 = 8192;
/// If not all could be moved (a reader needs the old pages), it is tried again after this many more pages.
const AGAIN: u32 = 2048;

/// Watches the write-ahead log of one connection.
pub(super) struct Checkpoints {
    pages: Arc<AtomicU32>,
    next: u32,
    moved: Arc<AtomicBool>,
    running: bool,
    ask: Option<SyncSender<()>>,
}

impl Checkpoints {
    /// Takes over the checkpoints of the writer's connection. The second thread ends with the last use of this.
    pub(super) fn watch(conn: &mut Connection, path: &Path) -> Result<Checkpoints, rusqlite::Error> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = pages.clone();
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            counted.store(pages.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        }))?;
        let moved = Arc::new(AtomicBool::new(false));
        let (ask, asked) = sync_channel::<()>(1);
        let (path, done) = (PathBuf::from(path), moved.clone());
        let spawned = thread::Builder::new().name("checkpoint".into()).spawn(move || {
            while asked.recv().is_ok() {
                // The second pass has only what came during the first.
                for _ in 0..2 {
                    if let Err(error) = schema::open_reader(&path).and_then(|conn| pass(&conn)) {
                        tracing::warn!(%error, "the write-ahead log is not moved into the database");
                    }
                }
                done.store(true, Ordering::Release);
            }
        });
        if let Err(error) = &spawned {
            tracing::warn!(%error, "no thread for checkpoints: the writer does them");
        }
        let ask = spawned.is_ok().then_some(ask);
        Ok(Checkpoints { pages, next: PAGES, moved, running: false, ask })
    }

    /// To be called after each commit.
    pub(super) fn step(&mut self, conn: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if self.running {
            if !self.moved.swap(false, Ordering::Acquire) {
                return;
            }
            self.running = false;
            self.finish(conn, pages);
        } else if pages < PAGES {
            self.next = PAGES;
        } else if pages >= self.next {
            match self.ask.as_ref().map(|ask| ask.try_send(())) {
                Some(Ok(())) => self.running = true,
                Some(Err(_)) | None => self.finish(conn, pages),
            }
        }
    }

    fn finish(&mut self, conn: &Connection, pages: u32) {
        self.next = pages + AGAIN;
        if let Err(error) = pass(conn) {
            tracing::warn!(%error, "the write-ahead log is not moved into the database");
        }
    }
}

/// Moves what no reader holds back.
pub(super) fn pass(conn: &Connection) -> Result<(), rusqlite::Error> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
