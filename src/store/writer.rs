//! The writer: one thread that commits group after group to the journal, and saves them in the database, through every fault
//! of the disk.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tandem_actors::store::{Batch, Completions, StoreFault, Ticket};

use super::cdr_file::CdrFile;
use super::disk::{Disk, DiskError, Saved};
use super::log::Keep;
use super::queue::{Queue, Taken, batch_bytes};
use super::unsaved::Unsaved;

/// The bytes of batches that one transaction takes: more would hold up the tickets of the first ones.
const GROUP_BYTES: usize = 1 << 20;
/// Bytes of groups that are saved before their time: what a transaction takes holds up the next urgent group.
const SAVE_BYTES: usize = 256 << 10;
/// Without traffic, a failing disk is tried again after this long.
const RETRY: Duration = Duration::from_millis(50);
/// A state that changes back and forth is logged once in this time.
const QUIET: Duration = Duration::from_secs(1);
/// The longest rest of a failing disk.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Why batches or records were not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// An urgent batch found the queue full.
    OverflowUrgent,
    /// A lazy batch found the queue full.
    OverflowLazy,
    /// A batch expected another version of a key.
    Conflict,
    /// A batch with an expected version met a failing disk, or a batch met a fault of the store itself.
    Backend,
    /// A CDR whose call and segment had one already.
    RepeatedCdr,
    /// A line that `cdr.jsonl` could not take; the database has the record.
    CdrLine,
}

/// Counts what the store does. Called on the writer's thread, so it must not block.
pub trait Meter: Send {
    /// A group was committed: how long it took, and how many batches it had.
    fn committed(&self, took: Duration, batches: usize);
    /// Groups were saved in the database: how long it took.
    fn saved(&self, took: Duration);
    /// A group was not committed, or groups were not saved.
    fn failed(&self);
    /// Something was dropped.
    fn dropped(&self, what: Dropped, count: u64);
    /// Batches and bytes that still wait, after each group.
    fn waiting(&self, batches: usize, bytes: usize);
}

/// Counts nothing.
impl Meter for () {
    fn committed(&self, _: Duration, _: usize) {}
    fn saved(&self, _: Duration) {}
    fn failed(&self) {}
    fn dropped(&self, _: Dropped, _: u64) {}
    fn waiting(&self, _: usize, _: usize) {}
}

/// A fault that lasts.
struct Fault {
    why: String,
    groups: u64,
    logged: bool,
    next_try: Instant,
    /// The database must be opened anew, and not be trusted.
    distrust: bool,
}

/// What the writer and its [`Embedded`](super::Embedded) share.
pub(super) struct Shared {
    pub(super) queue: Queue,
    /// Raised with each database that is opened.
    pub(super) opened: Arc<AtomicU64>,
    /// Whether the last group was committed.
    pub(super) healthy: AtomicBool,
}

/// The state of the writer's thread.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: PathBuf,
    pub(super) keep: Keep,
    pub(super) completions: Arc<dyn Completions>,
    pub(super) meter: Box<dyn Meter>,
    disk: Option<Disk>,
    file: Option<CdrFile>,
    file_fault: bool,
    caught_up: bool,
    /// Whether the journal of the last run has been read.
    replayed: bool,
    pending: VecDeque<Batch>,
    unsaved: Unsaved,
    /// When the database is to have what it lacks.
    save_by: Option<Instant>,
    /// Whether the database must work before the journal takes more: after a fault, and when the journal may be another than the one that has
    /// what the database lacks.
    save_first: bool,
    saving: bool,
    fault: Option<Fault>,
    /// When the queue was last full, until it has not been for a while.
    overflowed: Option<Instant>,
    logged: Option<Instant>,
    lines: Vec<u8>,
    told: Vec<(Ticket, Result<(), StoreFault>)>,
}

/// Lets nobody wait for a writer that has ended, however it ended.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.healthy.store(false, Ordering::Relaxed);
        self.0.queue.writer_gone();
    }
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        dir: PathBuf,
        keep: Keep,
        file: Option<CdrFile>,
        completions: Arc<dyn Completions>,
        meter: Box<dyn Meter>,
    ) -> Writer {
        Writer {
            shared,
            dir,
            keep,
            completions,
            meter,
            disk: None,
            file,
            file_fault: false,
            caught_up: false,
            replayed: false,
            pending: VecDeque::new(),
            unsaved: Unsaved::default(),
            save_by: None,
            save_first: false,
            saving: false,
            fault: None,
            overflowed: None,
            logged: None,
            lines: Vec::new(),
            told: Vec::new(),
        }
    }

    /// The thread: until the queue is closed and what it held has been tried.
    pub(super) fn run(mut self) {
        let _ended = Ended(self.shared.clone());
        loop {
            let waits = !self.pending.is_empty() || (self.fault.is_some() && !self.unsaved.is_empty());
            let save_by = self.save_by.filter(|_| self.fault.is_none());
            let taken = self.shared.queue.take(waits.then_some(RETRY), save_by);
            let (flush, closed) = (taken.flush, taken.closed);
            let stepped = catch_unwind(AssertUnwindSafe(|| self.step(taken, flush.is_some() || closed)));
            if stepped.is_err() {
                self.give_up_pending();
            }
            if let Some(mark) = flush {
                self.shared.queue.flushed(mark);
            }
            if closed {
                if let (Some(disk), true) = (&mut self.disk, self.unsaved.is_empty()) {
                    disk.clear_journal();
                }
                return;
            }
        }
    }

    /// After a panic, which is a fault of this program: what was pending may have been its cause, or what was saved.
    fn give_up_pending(&mut self) {
        tracing::error!(batches = self.pending.len(), "the store has panicked, what was pending is dropped");
        self.disk = None;
        self.lines.clear();
        self.unsaved.roll_back();
        let mut bytes = self.pending.iter().map(batch_bytes).sum();
        if std::mem::take(&mut self.saving) {
            bytes += std::mem::take(&mut self.unsaved.bytes);
            self.unsaved.clear(true);
        }
        self.shared.queue.release(bytes);
        self.dropped(Dropped::Backend, self.pending.len() as u64);
        let fault = || Err(StoreFault::Backend("the store has panicked".into()));
        self.told.extend(self.pending.drain(..).filter_map(|batch| Some((batch.ticket?, fault()))));
        self.tell();
    }

    fn step(&mut self, taken: Taken, now: bool) {
        self.refuse(&taken);
        self.told.extend(taken.refused.into_iter().map(|ticket| (ticket, Err(StoreFault::Overflow))));
        self.pending.extend(taken.batches);
        self.save_by = self.save_by.into_iter().chain(taken.save_by).min();
        let resting = self.fault.as_ref().is_some_and(|fault| !now && Instant::now() < fault.next_try);
        let began = Instant::now();
        let done = if resting { Ok(()) } else { self.work(now) };
        if let Err(error) = done {
            self.meter.failed();
            self.failed(&error, began);
        }
        if self.fault.is_some() {
            self.fail_pending();
        }
        self.tell();
        if let (Some(disk), None) = (&mut self.disk, &self.fault) {
            disk.tidy();
        }
        self.write_cdr_file();
        let held = self.shared.queue.release(0);
        self.meter.waiting(self.pending.len(), held);
    }

    fn refuse(&mut self, taken: &Taken) {
        let (urgent, lazy) = (taken.refused_urgent, taken.refused_lazy);
        if urgent + lazy > 0 {
            if self.overflowed.replace(Instant::now()).is_none() {
                tracing::error!(urgent, lazy, "the store's queue is full, batches are dropped");
            }
        } else if self.overflowed.is_some_and(|last| last.elapsed() > QUIET) {
            self.overflowed = None;
            tracing::warn!("the store's queue has room again");
        }
        self.dropped(Dropped::OverflowUrgent, urgent);
        self.dropped(Dropped::OverflowLazy, lazy);
    }

    fn dropped(&self, what: Dropped, count: u64) {
        if count > 0 {
            self.meter.dropped(what, count);
        }
    }

    /// Commits what is pending, oldest first, in groups of a bounded size, and saves what is due, or with `now` everything.
    fn work(&mut self, now: bool) -> Result<(), DiskError> {
        while !self.pending.is_empty() {
            self.ready()?;
            let (count, bytes) = self.first_group();
            let began = Instant::now();
            let refused = self.commit(count)?;
            self.meter.committed(began.elapsed(), count);
            self.committed(count, bytes, refused);
            self.tell();
            if self.unsaved.bytes >= SAVE_BYTES {
                self.save(false)?;
            }
        }
        let due = now || self.save_by.is_some_and(|at| at <= Instant::now());
        if due || self.fault.is_some() {
            self.ready()?;
            self.save(now)?;
        }
        Ok(())
    }

    fn first_group(&self) -> (usize, usize) {
        let mut bytes = 0;
        for (count, batch) in self.pending.iter().enumerate() {
            let size = batch_bytes(batch);
            if count > 0 && bytes + size > GROUP_BYTES {
                return (count, bytes);
            }
            bytes += size;
        }
        (self.pending.len(), bytes)
    }

    fn commit(&mut self, count: usize) -> Result<Vec<(usize, StoreFault)>, DiskError> {
        let Some(disk) = &mut self.disk else { return Err(DiskError::Gone(self.dir.clone())) };
        disk.commit(&self.pending.make_contiguous()[..count], &mut self.unsaved)
    }

    /// Makes the disk ready for the next group. After a fault the database must work before the journal is trusted with more.
    pub(super) fn ready(&mut self) -> Result<(), DiskError> {
        self.open()?;
        self.catch_up()?;
        if self.save_first {
            self.save(true)?;
        }
        Ok(())
    }

    /// Opens the database, unless it is open.
    fn open(&mut self) -> Result<(), DiskError> {
        if self.disk.is_some() {
            return Ok(());
        }
        let distrust = self.fault.as_ref().is_some_and(|fault| fault.distrust);
        let disk = Disk::open(&self.dir, self.keep, self.unsaved.next_n, distrust)?;
        if let Some(fault) = &mut self.fault {
            fault.distrust = false;
        }
        self.unsaved.go_on_at(disk.next_n());
        if self.replayed {
            self.save_first = true;
        } else {
            disk.replay(&mut self.unsaved)?;
            self.replayed = true;
            self.save_first |= !self.unsaved.is_empty();
        }
        self.disk = Some(disk);
        self.shared.opened.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Saves in the database what it lacks; the journal keeps calls until its round is over, or until `calls`.
    fn save(&mut self, calls: bool) -> Result<(), DiskError> {
        if self.pending.is_empty() {
            self.save_by = None;
        }
        if self.unsaved.is_empty() && !self.save_first {
            self.saved_bytes();
            return Ok(());
        }
        let began = Instant::now();
        let Some(disk) = &mut self.disk else { return Err(DiskError::Gone(self.dir.clone())) };
        let calls = calls || disk.is_journal_full();
        let filed = self.file.as_ref().map(CdrFile::filed);
        self.saving = true;
        let done = disk.save(&self.unsaved, calls, filed, &mut self.lines);
        self.saving = false;
        let Saved { repeated, last_cdr } = done?;
        self.meter.saved(began.elapsed());
        self.save_first = false;
        self.unsaved.clear(calls);
        self.saved_bytes();
        self.works_again();
        self.dropped(Dropped::RepeatedCdr, repeated as u64);
        if let Some(file) = &mut self.file {
            let lost = file.push(&self.lines, last_cdr);
            self.dropped(Dropped::CdrLine, lost as u64);
        }
        self.lines.clear();
        Ok(())
    }

    fn saved_bytes(&mut self) {
        self.shared.queue.release(std::mem::take(&mut self.unsaved.bytes));
    }

    /// After a start: writes to the file of CDRs what it lacks of the database.
    fn catch_up(&mut self) -> Result<(), DiskError> {
        if let (Some(file), Some(disk), false) = (&mut self.file, &self.disk, self.caught_up) {
            if let Err(error) = file.catch_up(disk.connection())? {
                tracing::error!(%error, "cdr.jsonl lacks records of the last run");
            }
            self.caught_up = true;
        }
        Ok(())
    }

    fn works_again(&mut self) {
        self.shared.healthy.store(true, Ordering::Relaxed);
        if let Some(fault) = self.fault.take().filter(|fault| fault.logged) {
            tracing::warn!(failed_groups = fault.groups, fault = fault.why, "the store commits again");
        }
    }

    fn committed(&mut self, count: usize, bytes: usize, refused: Vec<(usize, StoreFault)>) {
        self.unsaved.bytes += bytes;
        self.works_again();
        self.dropped(Dropped::Conflict, refused.len() as u64);
        let mut refused = refused.into_iter().peekable();
        for (position, batch) in self.pending.drain(..count).enumerate() {
            let result = match refused.next_if(|(at, _)| *at == position) {
                Some((_, fault)) => Err(fault),
                None => Ok(()),
            };
            self.told.extend(batch.ticket.map(|ticket| (ticket, result)));
        }
    }

    /// Notes a failed group. Logged when the fault begins or changes, not for each group.
    pub(super) fn failed(&mut self, error: &DiskError, began: Instant) {
        self.shared.healthy.store(false, Ordering::Relaxed);
        self.save_first = true;
        let why = error.to_string();
        let distrust = match error {
            DiskError::Corrupt(_) => true,
            DiskError::Gone(_) | DiskError::InUse(_) | DiskError::Io { .. } | DiskError::Sql(_) => false,
        };
        match error {
            DiskError::Sql(_) => {
                if let Some(disk) = &self.disk {
                    disk.checkpoint();
                }
            }
            DiskError::Corrupt(_) | DiskError::Gone(_) | DiskError::Io { .. } | DiskError::InUse(_) => {
                self.disk = None;
            }
        }
        let mut logged = self.fault.as_ref().is_some_and(|fault| fault.logged && fault.why == why);
        if !logged && self.logged.is_none_or(|last| last.elapsed() > QUIET) {
            tracing::error!(why, "the store cannot commit");
            self.logged = Some(Instant::now());
            logged = true;
        }
        // A disk that fails slowly gets a tenth of the thread, so that the tickets of the next groups are told in time.
        let next_try = Instant::now() + (began.elapsed() * 10).min(LONGEST_REST);
        let groups = self.fault.as_ref().map_or(0, |fault| fault.groups) + 1;
        self.fault = Some(Fault { why, groups, next_try, distrust, logged });
    }

    /// Tells every ticket that waits of the fault. The batches stay and are written when the disk works again,
    /// but for those with an expected version, whose owners decide anew.
    fn fail_pending(&mut self) {
        let why = self.fault.as_ref().map(|fault| fault.why.clone()).unwrap_or_default();
        let (mut dropped, mut bytes) = (0, 0);
        let told = &mut self.told;
        self.pending.retain_mut(|batch| {
            told.extend(batch.ticket.take().map(|ticket| (ticket, Err(StoreFault::Backend(why.clone())))));
            let stays = batch.writes.iter().all(|write| write.expect.is_none());
            if !stays {
                dropped += 1;
                bytes += batch_bytes(batch);
            }
            stays
        });
        self.shared.queue.release(bytes);
        self.dropped(Dropped::Backend, dropped);
    }

    fn tell(&mut self) {
        if self.told.is_empty() {
            return;
        }
        let told = std::mem::take(&mut self.told);
        let completions = &self.completions;
        // Whoever is told must not end the only thread that writes.
        if catch_unwind(AssertUnwindSafe(|| completions.committed(told))).is_err() {
            tracing::error!("a panic while tickets were told");
        }
    }

    fn write_cdr_file(&mut self) {
        let Some(file) = &mut self.file else { return };
        match file.write() {
            Ok(()) if self.file_fault => tracing::warn!("cdr.jsonl is written again"),
            Err(error) if !self.file_fault => tracing::error!(%error, "cdr.jsonl cannot be written"),
            _ => {}
        }
        self.file_fault = file.is_behind();
    }
}
