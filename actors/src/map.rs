//! Hash maps with a key of the engine's own: as hard to flood as random ones, and the same in every run of a seed.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

/// A map keyed by [`new`].
pub type Map<K, V> = HashMap<K, V, Keyed>;

/// Builds hashers from one 64-bit key.
#[derive(Clone)]
pub struct Keyed(foldhash::quality::SeedableRandomState);

impl BuildHasher for Keyed {
    type Hasher = <foldhash::quality::SeedableRandomState as BuildHasher>::Hasher;
    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

/// A hash of `value` that depends on `key`.
pub fn hash<T: Hash>(key: u64, value: &T) -> u64 {
    foldhash::quality::SeedableRandomState::with_seed(key, foldhash::SharedSeed::global_fixed())
        .hash_one(value)
}

/// An empty map whose hashes depend on `key`.
pub fn new<K, V>(key: u64) -> Map<K, V> {
    let state = foldhash::quality::SeedableRandomState::with_seed(key, foldhash::SharedSeed::global_fixed());
    HashMap::with_hasher(Keyed(state))
}
