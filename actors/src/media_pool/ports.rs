//! The port numbers of an engine, shared by its workers: asked when a block of pairs is bound, never on a call's way.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Hands out RTP port numbers, each once.
#[derive(Debug)]
pub struct PortPool(Mutex<Ports>);

#[derive(Debug)]
struct Ports {
    /// The first even port of the range.
    first: u32,
    /// The pair to be tried next, counted from the first.
    next: u32,
    /// How many pairs nobody has tried.
    left: u32,
    /// How many pairs the range holds.
    pairs: u32,
    reserved: BTreeSet<u16>,
    /// Ports that were in use by somebody else when they were tried.
    skipped: VecDeque<u16>,
}

impl PortPool {
    /// The even ports of `first..=last` whose odd neighbour is in the range too. `reserved` ones belong to restored calls and are
    /// handed out to nobody else.
    ///
    /// It begins somewhere in the range, where `chance` says, and goes round: to the ports of calls that a restart has lost, their
    /// phones still send, and a new call on one of them would take that for its own.
    pub fn new(range: (u16, u16), chance: u64, reserved: impl IntoIterator<Item = u16>) -> PortPool {
        let pairs = PortPool::pairs(range) as u32;
        PortPool(Mutex::new(Ports {
            first: u32::from(range.0).next_multiple_of(2).max(2),
            next: (chance % u64::from(pairs.max(1))) as u32,
            left: pairs,
            pairs,
            reserved: reserved.into_iter().collect(),
            skipped: VecDeque::new(),
        }))
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        // Every change is whole before the lock is given back, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A port that was not handed out before.
    pub fn take(&self) -> Option<u16> {
        let mut ports = self.ports();
        while ports.left > 0 {
            let port = (ports.first + ports.next * 2) as u16;
            ports.next = (ports.next + 1) % ports.pairs;
            ports.left -= 1;
            if !ports.reserved.contains(&port) {
                return Some(port);
            }
        }
        None
    }

    /// A port that was skipped, to be tried again.
    pub fn take_skipped(&self) -> Option<u16> {
        self.ports().skipped.pop_front()
    }

    /// How many ports were skipped and not tried again.
    pub fn skipped(&self) -> usize {
        self.ports().skipped.len()
    }

    /// Somebody else has bound the port: it is tried again when all others are taken.
    pub fn skip(&self, port: u16) {
        let mut ports = self.ports();
        if !ports.skipped.contains(&port) {
            ports.skipped.push_back(port);
        }
    }

    /// The port could not be bound, for a reason that is not its own: the next to ask gets it.
    pub fn put_back(&self, port: u16) {
        self.ports().skipped.push_front(port);
    }

    /// A restored call has bound its port.
    pub fn claimed(&self, port: u16) {
        let mut ports = self.ports();
        ports.skipped.retain(|skipped| *skipped != port);
    }

    /// How many pairs the range holds.
    pub fn pairs((first, last): (u16, u16)) -> usize {
        let (first, last) = (u32::from(first).next_multiple_of(2).max(2), u32::from(last));
        if first >= last { 0 } else { (last - first).div_ceil(2) as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_even_port_with_its_neighbour_is_handed_out_once_but_not_the_reserved() {
        let pool = PortPool::new((20001, 20009), 0, [20004]);
        let all: Vec<u16> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(all, [20002, 20006, 20008]);
        assert_eq!(PortPool::pairs((20001, 20009)), 4);
        assert_eq!(PortPool::pairs((20000, 20001)), 1);
        assert_eq!(PortPool::pairs((20000, 20000)), 0);
    }

    #[test]
    fn it_begins_where_chance_says_and_goes_round_once() {
        let all = |chance| {
            let pool = PortPool::new((20000, 20007), chance, [20002]);
            std::iter::from_fn(|| pool.take()).collect::<Vec<u16>>()
        };
        assert_eq!(all(2), [20004, 20006, 20000]);
        assert_eq!(all(7), [20006, 20000, 20004]);
        assert!(all(u64::MAX).iter().all(|port| (20000..20007).contains(port) && port.is_multiple_of(2)));
        assert_eq!(PortPool::new((20000, 20000), 5, []).take(), None);
    }

    #[test]
    fn the_range_may_end_at_the_last_port_there_is() {
        let pool = PortPool::new((65533, 65535), 0, []);
        assert_eq!((pool.take(), pool.take()), (Some(65534), None));
    }

    #[test]
    fn a_skipped_port_is_tried_again_and_a_port_put_back_comes_first() {
        let pool = PortPool::new((20000, 20003), 0, []);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        pool.skip(a);
        pool.skip(a);
        pool.put_back(b);
        assert_eq!(pool.skipped(), 2);
        assert_eq!((pool.take_skipped(), pool.take_skipped(), pool.take_skipped()), (Some(b), Some(a), None));
    }
}
