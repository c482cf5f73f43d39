//! A shard's free list of media ports: taken and given back without a hop and without a system call.

use std::collections::VecDeque;

use super::order::{Lease, MediaOrder};
use super::ports::PortPool;
use crate::config::Media;
use crate::env::Env;

/// The most pairs that are asked for at once.
const LARGEST_BLOCK: usize = 64;

struct Free {
    pairs: VecDeque<Lease>,
    /// More have been asked for and have not come.
    asked: bool,
    /// The worker said that no port is left.
    dry: bool,
    /// The worker has answered once.
    answered: bool,
}

/// The free list, one queue a worker: both legs of a call live on one worker.
pub(crate) struct Leases {
    workers: Vec<Free>,
    turn: usize,
    /// How many pairs are asked for at once; with half as many left, more are.
    block: u16,
}

/// So many pairs at once that every shard gets some of every worker, however few the range holds; two, or no call could use them.
fn block(range: (u16, u16), shards: u16, workers: u16) -> u16 {
    let takers = usize::from(shards.max(1)) * usize::from(workers.max(1));
    (PortPool::pairs(range) / takers).clamp(2, LARGEST_BLOCK) as u16
}

impl Leases {
    /// Empty lists of a shard, one of `shards` that share the ports of `media`.
    pub(crate) fn new(media: &Media, shards: u16) -> Leases {
        let free = || Free { pairs: VecDeque::new(), asked: false, dry: false, answered: false };
        let block = block(media.ports, shards, media.workers);
        Leases { workers: (0..media.workers.max(1)).map(|_| free()).collect(), turn: 0, block }
    }

    /// Free pairs now.
    pub(crate) fn len(&self) -> usize {
        self.workers.iter().map(|w| w.pairs.len()).sum()
    }

    /// Whether every worker has said what ports it has: before, having none means nothing.
    pub(crate) fn primed(&self) -> bool {
        self.workers.iter().all(|worker| worker.answered)
    }

    /// Asks every worker for its first block.
    pub(crate) fn prime(&mut self, env: &Env) {
        for worker in 0..self.workers.len() {
            self.ask(env, worker);
        }
    }

    fn ask(&mut self, env: &Env, worker: usize) {
        let free = &mut self.workers[worker];
        if !free.asked && !free.dry {
            free.asked = true;
            env.media(worker as u16, MediaOrder::Grow { shard: env.shard(), pairs: self.block });
        }
    }

    /// One pair.
    pub(crate) fn take_one(&mut self, env: &Env) -> Option<Lease> {
        self.take(env, 1).and_then(|pairs| pairs.into_iter().next())
    }

    /// Two pairs of one worker.
    pub(crate) fn take_two(&mut self, env: &Env) -> Option<(Lease, Lease)> {
        match self.take(env, 2)?.as_slice() {
            [a, b] => Some((*a, *b)),
            _ => None,
        }
    }

    fn take(&mut self, env: &Env, count: usize) -> Option<Vec<Lease>> {
        let workers = self.workers.len();
        self.turn = self.turn.wrapping_add(1);
        let worker =
            (0..workers).map(|n| (self.turn + n) % workers).find(|w| self.workers[*w].pairs.len() >= count);
        let Some(worker) = worker else {
            for worker in 0..workers {
                self.workers[worker].dry = false;
                self.ask(env, worker);
            }
            return None;
        };
        let taken: Vec<Lease> = self.workers[worker].pairs.drain(..count).collect();
        env.metrics().media_ports_free.decrement(count as f64);
        if self.workers[worker].pairs.len() < usize::from(self.block / 2) {
            self.ask(env, worker);
        }
        Some(taken)
    }

    /// Pairs that a worker has bound; none: no port is left.
    pub(crate) fn granted(&mut self, env: &Env, worker: u16, pairs: Vec<Lease>) {
        if let Some(free) = self.workers.get_mut(usize::from(worker)) {
            free.asked = false;
            free.answered = true;
            free.dry = pairs.is_empty();
        }
        env.metrics().media_ports_free.increment(pairs.len() as f64);
        self.put(pairs);
    }

    /// Pairs that have rested, or were never used.
    pub(crate) fn returned(&mut self, env: &Env, pairs: Vec<Lease>) {
        env.metrics().media_ports_free.increment(pairs.len() as f64);
        self.put(pairs);
    }

    fn put(&mut self, pairs: Vec<Lease>) {
        for pair in pairs {
            if let Some(free) = self.workers.get_mut(usize::from(pair.worker)) {
                free.dry = false;
                free.pairs.push_back(pair);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_range_is_shared_by_all_shards_and_a_large_one_taken_in_blocks() {
        assert_eq!(block((20000, 39999), 2, 2), 64);
        assert_eq!(block((20000, 20079), 2, 2), 10);
        assert_eq!(block((20000, 20003), 8, 2), 2);
    }
}
