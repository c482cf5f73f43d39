//! The lines of the log on their way out: a thread of its own writes them, many at once, so that no shard waits for whoever reads them.
//!
//! A warning, an error or a panic is written before the call that logs it returns, after everything that came before it; so the
//! last words of a process are not lost. Unless the reader has stalled: then they wait like the others, and what there is no
//! room for is counted and told of.
#![allow(clippy::disallowed_methods)]

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// How long lines are collected while there are some.
const COLLECT: Duration = Duration::from_millis(10);
/// How long a line that is written at once waits for whoever is writing.
const URGENT: Duration = Duration::from_millis(5);
/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_micros(100);
/// Bytes of lines that may wait.
const MOST_WAITING: usize = 1 << 20;
/// Room that is kept between two writes.
const ROOM: usize = 64 << 10;

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    lost: u64,
    /// The thread waits to be woken.
    asleep: bool,
    /// There is no thread.
    unattended: bool,
}

struct Shared<W> {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    out: Mutex<W>,
}

/// The way out, shared by everybody who logs.
pub(crate) struct LogLines<W>(Arc<Shared<W>>);

impl<W> Clone for LogLines<W> {
    fn clone(&self) -> LogLines<W> {
        LogLines(self.0.clone())
    }
}

impl<W: Write + Send + 'static> LogLines<W> {
    /// Lines for `out`. Without a thread they are written at once.
    pub(crate) fn to(out: W) -> LogLines<W> {
        let shared = Shared { waiting: Mutex::default(), wake: Condvar::new(), out: Mutex::new(out) };
        let lines = LogLines(Arc::new(shared));
        let own = lines.clone();
        let spawned = thread::Builder::new().name("log".into()).spawn(move || own.write_for_ever());
        lines.waiting().unattended = spawned.is_err();
        lines
    }

    fn write_for_ever(&self) {
        loop {
            let mut waiting = self.waiting();
            while waiting.lines.is_empty() && waiting.lost == 0 {
                waiting.asleep = true;
                waiting = self.0.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            waiting.asleep = false;
            drop(waiting);
            self.write_to(self.0.out.lock().unwrap_or_else(PoisonError::into_inner));
            thread::sleep(COLLECT);
        }
    }

    /// Writes everything that waits, unless a stalled reader keeps somebody at it all this time.
    pub(crate) fn flush(&self, patience: Duration) {
        let began = Instant::now();
        loop {
            match self.0.out.try_lock() {
                Ok(out) => return self.write_to(out),
                Err(TryLockError::Poisoned(out)) => return self.write_to(out.into_inner()),
                Err(TryLockError::WouldBlock) if began.elapsed() < patience => thread::sleep(LOOK_AGAIN),
                Err(TryLockError::WouldBlock) => return,
            }
        }
    }

    fn write_to(&self, mut out: MutexGuard<'_, W>) {
        let (lines, lost) = {
            let mut waiting = self.waiting();
            (std::mem::take(&mut waiting.lines), std::mem::take(&mut waiting.lost))
        };
        // There is nobody left to tell of an error.
        let _ = out.write_all(&lines);
        if lost > 0 {
            let _ = writeln!(out, "{lost} lines of the log are lost: they were not read in time");
        }
        let _ = out.flush();
        if lines.capacity() <= ROOM {
            let mut waiting = self.waiting();
            if waiting.lines.capacity() == 0 {
                waiting.lines = lines;
                waiting.lines.clear();
            }
        }
    }

    fn push(&self, line: &[u8], urgent: bool) {
        let mut waiting = self.waiting();
        if waiting.lines.len() + line.len() > MOST_WAITING {
            waiting.lost += 1;
        } else {
            waiting.lines.extend_from_slice(line);
        }
        let wake = std::mem::take(&mut waiting.asleep);
        let now = urgent || waiting.unattended;
        drop(waiting);
        if now {
            self.flush(URGENT);
        }
        // Also after an urgent line: somebody may have been at it who had not seen this one.
        if wake {
            self.0.wake.notify_one();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change under the lock is complete.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line, being written.
pub(crate) struct Line<'a, W> {
    lines: &'a LogLines<W>,
    urgent: bool,
}

impl<W: Write + Send + 'static> Write for Line<'_, W> {
    /// A line comes in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.push(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a, W: Write + Send + 'static> MakeWriter<'a> for LogLines<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Line<'a, W> {
        Line { lines: self, urgent: true }
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Line<'a, W> {
        Line { lines: self, urgent: *meta.level() <= tracing::Level::WARN }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Tells of each write, and lets it end only when it is told to.
    struct Reader {
        written: Sender<String>,
        go_on: Receiver<()>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            self.go_on.recv().unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_line_is_written_without_being_waited_for_and_those_that_come_meanwhile_together() {
        let ((written, told), (go, go_on)) = (channel(), channel());
        let lines = LogLines::to(Reader { written, go_on });
        lines.push(b"1\n", false);
        assert_eq!(told.recv_timeout(SOON).unwrap(), "1\n");
        // The reader stalls, and nobody waits for him, not even with an error.
        lines.push(b"2\n", false);
        lines.push(b"3\n", true);
        go.send(()).unwrap();
        assert_eq!(told.recv_timeout(SOON).unwrap(), "2\n3\n");
        go.send(()).unwrap();
    }

    #[test]
    fn what_a_stalled_reader_has_no_room_for_is_counted() {
        let ((written, told), (go, go_on)) = (channel(), channel());
        let lines = LogLines::to(Reader { written, go_on });
        lines.push(b"1\n", false);
        told.recv_timeout(SOON).unwrap();
        lines.push(&vec![b'x'; MOST_WAITING], false);
        lines.push(b"2\n", false);
        lines.push(b"3\n", false);
        go.send(()).unwrap();
        assert_eq!(told.recv_timeout(SOON).unwrap().len(), MOST_WAITING);
        go.send(()).unwrap();
        let mut rest = String::new();
        while !rest.ends_with('\n') {
            rest += &told.recv_timeout(SOON).unwrap();
            go.send(()).unwrap();
        }
        assert_eq!(rest, "2 lines of the log are lost: they were not read in time\n");
    }

    #[test]
    fn an_error_is_written_with_all_before_it_when_its_call_returns() {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let lines = LogLines::to(kept.clone());
        let log = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(lines).finish();
        tracing::subscriber::with_default(log, || {
            for n in 0..100 {
                kept.0.lock().unwrap().clear();
                tracing::info!(n, "one");
                tracing::error!(n, "two");
                let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
                assert!(text.ends_with(&format!("two n={n}\n")), "{text}");
            }
        });
    }
}
