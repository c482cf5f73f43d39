//! What waits for the writer: bounded in bytes, and never a wait for its callers beyond a push under a lock.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tandem_actors::cdr::Cdr;
use tandem_actors::events::{Event, Field};
use tandem_actors::store::{Batch, Ticket, Urgency};

/// For so long after a group the next one is expected.
const BUSY: Duration = Duration::from_secs(1);
/// Looks for urgent batches in vain, one after the other, until the writer waits to be woken by the next.
const IN_VAIN: u32 = 4;
/// How long a reader waits for a disk that fails.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a group collects.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// From the first urgent batch.
    pub(super) urgent: Duration,
    /// From the first lazy batch.
    pub(super) lazy: Duration,
}

/// What the writer takes at once.
#[derive(Default)]
pub(super) struct Taken {
    /// In the order of their submission.
    pub(super) batches: Vec<Batch>,
    /// Tickets of batches that did not fit.
    pub(super) refused: Vec<Ticket>,
    /// How many batches did not fit, by urgency.
    pub(super) refused_urgent: u64,
    /// See `refused_urgent`.
    pub(super) refused_lazy: u64,
    /// When the oldest of the batches has waited as long as a lazy one may.
    pub(super) save_by: Option<Instant>,
    /// Someone waits in [`Queue::flush`] for this mark.
    pub(super) flush: Option<u64>,
    /// No more will come.
    pub(super) closed: bool,
}

#[derive(Default)]
struct State {
    next: Taken,
    /// Bytes queued or taken and not yet [released](Queue::release): what the database lacks.
    bytes: usize,
    due: Option<Instant>,
    /// Whether an urgent batch is queued.
    urgent: bool,
    /// How many looks for urgent batches have been in vain.
    in_vain: u32,
    /// The writer sleeps until this, or (`None` while `sleeping`) for ever.
    wakes: Option<Instant>,
    sleeping: bool,
    flush_asked: u64,
    flush_done: u64,
    gone: bool,
}

impl State {
    /// Whether the writer looks for urgent batches by itself.
    fn looks(&self) -> bool {
        self.in_vain < IN_VAIN
    }

    fn take(&mut self) -> Taken {
        if std::mem::take(&mut self.urgent) {
            self.in_vain = 0;
        }
        self.due = None;
        let closed = self.next.closed;
        let taken = std::mem::take(&mut self.next);
        self.next.closed = closed;
        taken
    }
}

/// The queue between the shards and the writer.
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    flushed: Condvar,
    bound: usize,
    pace: Pace,
}

impl Queue {
    pub(super) fn new(bound: usize, pace: Pace) -> Queue {
        Queue {
            state: Mutex::new(State { in_vain: IN_VAIN, ..State::default() }),
            wake: Condvar::new(),
            flushed: Condvar::new(),
            bound,
            pace,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch, or its refusal: a lazy batch may fill three quarters of the bound, an urgent one all of it.
    pub(super) fn push(&self, batch: Batch) {
        self.push_unless(batch, || false);
    }

    /// The same, unless it is refused. That is asked under the lock: what is refused from a moment on is not taken after any other use of the queue
    /// that follows it.
    pub(super) fn push_unless(&self, batch: Batch, refused: impl FnOnce() -> bool) {
        let size = batch_bytes(&batch);
        let now = Instant::now();
        let (limit, wait) = match batch.urgency {
            Urgency::Urgent => (self.bound, self.pace.urgent),
            Urgency::Lazy => (self.bound / 4 * 3, self.pace.lazy),
        };
        let mut state = self.lock();
        if state.gone || refused() {
            return;
        }
        if state.bytes.saturating_add(size) > limit {
            match batch.urgency {
                Urgency::Urgent => state.next.refused_urgent += 1,
                Urgency::Lazy => state.next.refused_lazy += 1,
            }
            state.next.refused.extend(batch.ticket);
        } else {
            state.bytes += size;
            state.urgent |= batch.urgency == Urgency::Urgent;
            state.next.save_by.get_or_insert(now + self.pace.lazy);
            state.next.batches.push(batch);
        }
        let due = now + wait;
        if state.due.is_none_or(|earlier| due < earlier) {
            state.due = Some(due);
        }
        // Waking costs a system call: only when the writer would sleep past the new deadline.
        let wake = state.sleeping && state.wakes.is_none_or(|at| due < at);
        if wake {
            state.sleeping = false;
        }
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// The writer's wait: until a group is due, `retry` has passed, `save_by` is reached, someone flushes, or the queue is closed.
    ///
    /// While urgent batches come, it looks for them by itself as often as one may wait, so that none has to wake it.
    pub(super) fn take(&self, retry: Option<Duration>, save_by: Option<Instant>) -> Taken {
        let began = Instant::now();
        let asked = [retry.map(|after| began + after), save_by];
        let mut state = self.lock();
        let mut look = state.looks().then(|| began + self.pace.urgent);
        loop {
            let now = Instant::now();
            let looked = look.is_some_and(|at| at <= now);
            if looked && !state.urgent {
                state.in_vain += 1;
                look = state.looks().then(|| now + self.pace.urgent);
            }
            let first = asked.iter().copied().chain([state.due]).flatten().min();
            let urged = state.next.closed || state.next.flush.is_some();
            if urged || first.is_some_and(|at| at <= now) || (looked && state.urgent) {
                return state.take();
            }
            let wakes = first.into_iter().chain(look).min();
            // Lazy batches need not wake it either while there is traffic.
            let wakes = wakes.or_else(|| (now - began < BUSY).then(|| now + self.pace.lazy));
            state.wakes = wakes;
            state.sleeping = true;
            state = match wakes {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => self.wake.wait_timeout(state, at - now).unwrap_or_else(PoisonError::into_inner).0,
            };
            state.sleeping = false;
        }
    }

    /// Gives back the bytes of batches that are saved or dropped; returns what is still held.
    pub(super) fn release(&self, bytes: usize) -> usize {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        state.bytes
    }

    /// Waits until everything pushed before has been tried.
    pub(super) fn flush(&self) {
        self.flush_until(None);
    }

    /// The same for a reader, who does not wait long for a disk that fails.
    pub(super) fn flush_for_reader(&self) {
        self.flush_until(Some(Instant::now() + PATIENCE));
    }

    /// The same for a reader of anything but calls, who does not wait at all if the database has everything.
    pub(super) fn settle(&self) {
        if self.lock().bytes > 0 {
            self.flush_for_reader();
        }
    }

    fn flush_until(&self, end: Option<Instant>) {
        let mut state = self.lock();
        state.flush_asked += 1;
        let mark = state.flush_asked;
        state.next.flush = Some(mark);
        self.wake.notify_one();
        while state.flush_done < mark && !state.gone {
            state = match end.map(|end| end.saturating_duration_since(Instant::now())) {
                None => self.flushed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return,
                Some(left) => {
                    self.flushed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Tells those who flush that their mark has been reached.
    pub(super) fn flushed(&self, mark: u64) {
        self.lock().flush_done = mark;
        self.flushed.notify_all();
    }

    /// No more will come: the writer takes what there is and ends.
    pub(super) fn close(&self) {
        self.lock().next.closed = true;
        self.wake.notify_one();
    }

    /// The writer has ended: nobody may wait for it.
    pub(super) fn writer_gone(&self) {
        self.lock().gone = true;
        self.flushed.notify_all();
    }
}

/// About how much memory a batch holds, in bytes.
pub(super) fn batch_bytes(batch: &Batch) -> usize {
    let writes: usize = batch
        .writes
        .iter()
        .map(|w| size_of_val(w) + w.key.len() + w.value.as_ref().map_or(0, bytes::Bytes::len))
        .sum();
    let events: usize = batch.events.iter().map(event_bytes).sum();
    let cdrs: usize = batch.cdrs.iter().map(cdr_bytes).sum();
    size_of::<Batch>() + writes + events + cdrs
}

fn event_bytes(event: &Event) -> usize {
    let facts: usize = event
        .data
        .iter()
        .map(|(_, value)| match value {
            Field::Text(text) => text.len(),
            Field::Number(_) => 0,
        })
        .sum();
    size_of_val(event) + event.reason.len() + facts
}

fn cdr_bytes(cdr: &Cdr) -> usize {
    let text = cdr.call_id.len() + cdr.from.len() + cdr.to.len() + cdr.cause.len() + cdr.ended_by.len();
    let attempts: usize =
        cdr.attempts.iter().map(|a| size_of_val(a) + a.trunk.len() + a.proxy.len() + a.cause.len()).sum();
    size_of_val(cdr) + text + attempts + cdr.legs.iter().map(size_of_val).sum::<usize>()
}
