//! What one run is made of: all of it follows from the seed.

use crate::rng::Rng;

/// What the network does, in thousandths of all datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) loss: u64,
    pub(crate) doubled: u64,
    /// Overtaken by others.
    pub(crate) late: u64,
    /// The longest ordinary delay.
    pub(crate) delay_us: u64,
    /// The sender's socket is full.
    pub(crate) full: u64,
}

/// How often a machine panics, in millionths of its inputs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Panics {
    pub(crate) call: u64,
    pub(crate) dialog: u64,
    pub(crate) named: u64,
    /// Of a media session's packets and orders.
    pub(crate) session: u64,
    /// Of a media worker's orders and steps.
    pub(crate) worker: u64,
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) calls: usize,
    pub(crate) shards: u16,
    pub(crate) workers: u16,
    /// Port pairs of one worker.
    pub(crate) pairs: u16,
    pub(crate) faults: Faults,
    pub(crate) panics: Panics,
    pub(crate) kills: u64,
    /// In thousandths of all commits.
    pub(crate) slow_disk: u64,
    /// The mean time from one call to the next.
    pub(crate) gap_us: u64,
    pub(crate) keepalive: bool,
}

impl Plan {
    /// The run of `seed`. Its weather follows from `seed` modulo 5: calm, lossy, wild, faulty, deadly.
    pub(crate) fn new(seed: u64, calls: usize) -> Plan {
        let mut rng = Rng::new(seed, 0);
        let weather = seed % 5;
        let delay_us = rng.pick(&[1_000, 8_000, 30_000]);
        let faults = match weather {
            0 => Faults { delay_us, ..Faults::default() },
            1 => Faults { loss: 10 + rng.below(140), delay_us, full: 5, ..Faults::default() },
            _ => Faults {
                loss: rng.below(80),
                doubled: rng.below(40),
                late: rng.below(40),
                delay_us,
                full: rng.below(5),
            },
        };
        let panics = match weather {
            3 | 4 => Panics { call: 4_000, dialog: 4_000, named: 20_000, session: 4_000, worker: 400 },
            _ => Panics::default(),
        };
        Plan {
            seed,
            calls,
            shards: 1 + rng.below(4) as u16,
            workers: 1 + rng.below(2) as u16,
            pairs: rng.pick(&[64, 400, 400]),
            faults,
            panics,
            kills: if weather == 4 { 2 + calls as u64 / 150 } else { 0 },
            slow_disk: if weather >= 2 { 5 } else { 0 },
            gap_us: rng.pick(&[30_000, 100_000, 200_000]),
            keepalive: rng.permille(500),
        }
    }

    /// The range of the media ports: so many pairs for each worker.
    pub(crate) fn media_ports(&self) -> (u16, u16) {
        (20_000, 20_000 + 2 * self.pairs * self.workers - 1)
    }

    /// True if a request may be sent again although it is answered, or come twice.
    pub(crate) fn repeats(&self) -> bool {
        self.faults.loss > 0 || self.faults.doubled > 0 || self.kills > 0
    }

    /// The longest that a datagram is on its way.
    pub(crate) fn longest_way_us(&self) -> u64 {
        let late = if self.faults.late > 0 { 400_000 } else { 0 };
        2_300 + late.max(self.faults.delay_us)
    }

    /// True if every deviation from the RFCs that a phone sees is a fault of the engine's: loss alone makes nobody break a rule.
    pub(crate) fn is_orderly(&self) -> bool {
        self.faults.doubled == 0 && self.faults.late == 0 && self.panics.call == 0 && self.kills == 0
    }
}
