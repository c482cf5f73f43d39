//! REGISTERs that wait for their commit, each bound to its own ticket: of a station, or of a shard's stations that rest.

use std::collections::VecDeque;

use tandem_protocol::time::Instant;

/// Names the commit of one REGISTER: the low bits of the store's ticket.
pub(crate) type Place = u16;

/// What waits, the longest waiting first.
///
/// A ticket may come after its REGISTER was answered because the store was slow; then it is nobody's, and the
/// REGISTER that waits by then still waits for its own.
pub(crate) struct Commits<T> {
    next: Place,
    waiting: VecDeque<Waiting<T>>,
}

struct Waiting<T> {
    place: Place,
    until: Instant,
    what: T,
}

impl<T> Commits<T> {
    /// None yet. `first` is chance, so that a ticket for an actor before this one is hardly taken for one of this.
    pub(crate) fn new(first: Place) -> Commits<T> {
        Commits { next: first, waiting: VecDeque::new() }
    }

    /// The place of what is pushed next.
    pub(crate) fn next(&self) -> Place {
        self.next
    }

    /// Waits at [`next`](Self::next) until then at most.
    pub(crate) fn push(&mut self, what: T, until: Instant) {
        self.waiting.push_back(Waiting { place: self.next, until, what });
        self.next = self.next.wrapping_add(1);
    }

    /// What was committed, if it still waits.
    pub(crate) fn committed(&mut self, place: Place) -> Option<T> {
        let at = self.waiting.iter().position(|waiting| waiting.place == place)?;
        self.waiting.remove(at).map(|waiting| waiting.what)
    }

    /// What has waited too long.
    pub(crate) fn overdue(&mut self, now: Instant) -> Option<T> {
        self.waiting.pop_front_if(|waiting| waiting.until <= now).map(|waiting| waiting.what)
    }

    /// Whatever waits, the longest waiting first.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.waiting.pop_front().map(|waiting| waiting.what)
    }

    /// When the first has waited too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_ticket_answers_nobody_else() {
        let mut commits = Commits::new(u16::MAX);
        let first = commits.next();
        commits.push("first", Instant(100));
        assert_eq!(commits.overdue(Instant(99)), None);
        assert_eq!(commits.overdue(Instant(100)), Some("first"));
        let second = commits.next();
        commits.push("second", Instant(300));
        assert_eq!(commits.committed(first), None, "the store was slow");
        assert_eq!(commits.deadline(), Some(Instant(300)));
        assert_eq!(commits.committed(second), Some("second"));
        assert_eq!(commits.pop(), None);
    }
}
