//! A seeded generator: the phone asks no operating system for randomness, so a run can be replayed.

use serde::{Deserialize, Serialize};

/// SplitMix64: enough to keep tags and branches apart, and the same sequence for the same seed everywhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0 when `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// A token that is unique for all practical purposes (64 bits).
    pub(crate) fn token(&mut self) -> String {
        format!("{:016x}", self.next())
    }
}
