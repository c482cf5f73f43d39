//! What waits for the writer: bounded in bytes, and never a wait for its callers beyond a push under a lock.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tandem_actors::cdr::Cdr;
use tandem_actors::events::{Event, Field};
use tandem_actors::store::{Batch, Ticket, Urgency};

/// For so long after a group the next one is expected.
const BUSY: Duration = Duration::from_secs(1);

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
    /// Someone waits in [`Queue::flush`] for this mark.
    pub(super) flush: Option<u64>,
    /// No more will come.
    pub(super) closed: bool,
}

#[derive(Default)]
struct State {
    next: Taken,
    /// Bytes queued or taken and not yet [released](Queue::release).
    bytes: usize,
    due: Option<Instant>,
    /// The writer sleeps until this, or (`None` while `sleeping`) for ever.
    wakes: Option<Instant>,
    sleeping: bool,
    flush_asked: u64,
    flush_done: u64,
    gone: bool,
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
            state: Mutex::new(State::default()),
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

    /// The writer's wait: until a group is due, `retry` has passed, someone flushes, or the queue is closed.
    pub(super) fn take(&self, retry: Option<Duration>) -> Taken {
        let began = Instant::now();
        let retry_at = retry.map(|after| began + after);
        let mut state = self.lock();
        loop {
            let wakes = match (state.due, retry_at) {
                (Some(due), Some(at)) => Some(due.min(at)),
                (due, at) => due.or(at),
            };
            let now = Instant::now();
            // While there is traffic the writer looks by itself as often as a lazy batch may wait, so that none has to wake it.
            let wakes = wakes.or_else(|| (now - began < BUSY).then(|| now + self.pace.lazy));
            let urged = state.next.closed || state.next.flush.is_some();
            let due = state.due.into_iter().chain(retry_at).any(|at| at <= now);
            if urged || due {
                state.due = None;
                let closed = state.next.closed;
                let taken = std::mem::take(&mut state.next);
                state.next.closed = closed;
                return taken;
            }
            state.wakes = wakes;
            state.sleeping = true;
            state = match wakes {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => self.wake.wait_timeout(state, at - now).unwrap_or_else(PoisonError::into_inner).0,
            };
            state.sleeping = false;
        }
    }

    /// Gives back the bytes of batches that are committed or dropped; returns what is still held.
    pub(super) fn release(&self, bytes: usize) -> usize {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        state.bytes
    }

    /// Waits until everything pushed before has been tried.
    pub(super) fn flush(&self) {
        let mut state = self.lock();
        state.flush_asked += 1;
        let mark = state.flush_asked;
        state.next.flush = Some(mark);
        self.wake.notify_one();
        while state.flush_done < mark && !state.gone {
            state = self.flushed.wait(state).unwrap_or_else(PoisonError::into_inner);
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
