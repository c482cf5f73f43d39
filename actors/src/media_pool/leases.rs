//! A shard's free list of media ports: taken and given back without a hop and without a system call.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::order::{Lease, MediaOrder};
use super::ports::PortPool;
use crate::config::Media;
use crate::env::Env;
use crate::seat::Figure;

/// The most pairs that are asked for at once.
const LARGEST_BLOCK: usize = 64;

/// What is free of one worker at one address.
struct Free {
    address: IpAddr,
    pairs: VecDeque<Lease>,
    /// More have been asked for and have not come.
    asked: bool,
    /// The worker said that no port is left.
    dry: bool,
    /// The worker has answered once.
    answered: bool,
}

impl Free {
    fn new(address: IpAddr) -> Free {
        Free { address, pairs: VecDeque::new(), asked: false, dry: false, answered: false }
    }
}

/// The free list, a queue for each worker and address family: both legs of a call live on one worker.
pub(crate) struct Leases {
    workers: Vec<Vec<Free>>,
    turn: usize,
    /// The workers that have not said yet which pairs are this shard's and not those of the one before it.
    reclaiming: Vec<u16>,
    /// How many pairs are asked for at once; with half as many left, more are.
    block: u16,
}

/// So many pairs at once that every shard gets some of every worker, however few the range holds; two, or no call could use them.
fn block(range: (u16, u16), shards: u16, queues: usize) -> u16 {
    let takers = usize::from(shards.max(1)) * queues.max(1);
    (PortPool::pairs(range) / takers).clamp(2, LARGEST_BLOCK) as u16
}

impl Leases {
    /// Empty lists of a shard, one of `shards` that share the ports of `media`.
    pub(crate) fn new(media: &Media, shards: u16) -> Leases {
        let worker = || media.addresses().map(|own| Free::new(own.bound)).collect::<Vec<Free>>();
        let workers: Vec<_> = (0..media.workers.max(1)).map(|_| worker()).collect();
        let block = block(media.ports, shards, workers.iter().map(Vec::len).sum());
        Leases { workers, turn: 0, reclaiming: Vec::new(), block }
    }

    fn queues(&self) -> impl Iterator<Item = &Free> {
        self.workers.iter().flatten()
    }

    fn queue(&mut self, worker: u16, address: IpAddr) -> Option<&mut Free> {
        self.workers.get_mut(usize::from(worker))?.iter_mut().find(|free| free.address == address)
    }

    /// Free pairs now.
    pub(crate) fn len(&self) -> usize {
        self.queues().map(|free| free.pairs.len()).sum()
    }

    /// Whether every worker has said what ports it has: before, having none means nothing.
    pub(crate) fn primed(&self) -> bool {
        self.queues().all(|free| free.answered)
    }

    /// Asks every worker for its first blocks.
    pub(crate) fn prime(&mut self, env: &Env) {
        if env.seat().epoch() > 0 {
            self.reclaiming = (0..self.workers.len() as u16).collect();
            for worker in &self.reclaiming {
                env.media(*worker, MediaOrder::Reclaim { shard: env.shard() });
            }
        }
        self.ask(env, |_| true);
    }

    /// Asks for a block of each of these queues.
    fn ask(&mut self, env: &Env, which: impl Fn(&Free) -> bool) {
        for (worker, queues) in (0..).zip(&mut self.workers) {
            for free in queues.iter_mut().filter(|free| !free.asked && !free.dry && which(free)) {
                free.asked = true;
                let address = free.address;
                env.media(worker, MediaOrder::Grow { shard: env.shard(), address, pairs: self.block });
            }
        }
    }

    /// One pair, bound at `address`.
    pub(crate) fn take_one(&mut self, env: &Env, address: IpAddr) -> Option<Lease> {
        self.take(env, [address]).map(|[pair]| pair)
    }

    /// Two pairs of one worker, bound at these addresses.
    fn take_two(&mut self, env: &Env, addresses: [IpAddr; 2]) -> Option<(Lease, Lease)> {
        self.take(env, addresses).map(|[a, b]| (a, b))
    }

    /// The same, and if there is one a third pair of that worker, bound at `other`.
    pub(crate) fn take_for_call(
        &mut self,
        env: &Env,
        [caller, callee]: [IpAddr; 2],
        other: Option<IpAddr>,
    ) -> Option<(Lease, Lease, Option<Lease>)> {
        let three = other.and_then(|other| self.take(env, [caller, callee, other]));
        match three {
            Some([a, b, c]) => Some((a, b, Some(c))),
            None => self.take_two(env, [caller, callee]).map(|(a, b)| (a, b, None)),
        }
    }

    fn take<const N: usize>(&mut self, env: &Env, addresses: [IpAddr; N]) -> Option<[Lease; N]> {
        let wanted = |free: &Free| addresses.iter().filter(|address| **address == free.address).count();
        let workers = self.workers.len();
        self.turn = self.turn.wrapping_add(1);
        let has_all = |queues: &Vec<Free>| queues.iter().all(|free| free.pairs.len() >= wanted(free));
        let turns = (0..workers).map(|n| (self.turn + n) % workers);
        let Some(worker) = turns.into_iter().find(|worker| has_all(&self.workers[*worker])) else {
            let short = |free: &Free| free.pairs.len() < wanted(free);
            self.workers.iter_mut().flatten().filter(|free| short(free)).for_each(|free| free.dry = false);
            self.ask(env, short);
            return None;
        };
        let queues = &mut self.workers[worker];
        let mut next = |address| queues.iter_mut().find(|free| free.address == address)?.pairs.pop_front();
        let taken = addresses.map(&mut next);
        env.count(Figure::FreePorts, -(taken.iter().flatten().count() as i64));
        let half = usize::from(self.block / 2);
        if queues.iter().any(|free| free.pairs.len() < half) {
            self.ask(env, |free| free.pairs.len() < half);
        }
        // Each was there a moment ago.
        let taken: Vec<Lease> = taken.into_iter().flatten().collect();
        taken.try_into().ok()
    }

    /// Pairs that a worker has bound; none: no port is left.
    pub(crate) fn granted(&mut self, env: &Env, worker: u16, address: IpAddr, pairs: Vec<Lease>) {
        if self.reclaiming.contains(&worker) {
            return;
        }
        if let Some(free) = self.queue(worker, address) {
            free.asked = false;
            free.answered = true;
            free.dry = pairs.is_empty();
        }
        self.returned(env, pairs);
    }

    /// A worker has set aside what the shard before had: what it tells from now on is for this one.
    pub(crate) fn reclaimed(&mut self, worker: u16) {
        self.reclaiming.retain(|waiting| *waiting != worker);
    }

    /// Pairs that have rested.
    pub(crate) fn rested(&mut self, env: &Env, mut pairs: Vec<Lease>) {
        pairs.retain(|pair| !self.reclaiming.contains(&pair.worker));
        self.returned(env, pairs);
    }

    /// Pairs that have rested, or were never used.
    pub(crate) fn returned(&mut self, env: &Env, pairs: Vec<Lease>) {
        for pair in pairs {
            // A call restored from before a change of settings may have had an address that is none of ours any more.
            if let Some(free) = self.queue(pair.worker, pair.rtp.ip()) {
                free.dry = false;
                free.pairs.push_back(pair);
                env.count(Figure::FreePorts, 1);
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
        assert_eq!(block((20000, 20079), 2, 4), 5);
    }
}
