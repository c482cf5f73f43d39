//! Entries of a list, found by a key that they hold themselves.
//!
//! A map from a string to a place costs 30 to 70 bytes an entry besides the string. Where the list stays as it is once it is made, and
//! each entry knows its key, six bytes do.

/// Means that a slot is free.
const FREE: u32 = u32::MAX;

/// Where in a list the entry of a key is. It knows neither: the caller hashes keys and compares them.
#[derive(Clone, Debug, Default)]
pub struct Index {
    slots: Box<[u32]>,
    used: usize,
}

impl Index {
    /// An empty index with room for so many entries.
    pub fn with_room(entries: usize) -> Index {
        Index { slots: vec![FREE; slots_for(entries)].into_boxed_slice(), used: 0 }
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.used
    }

    /// True if it has none.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The place of the entry whose key has this hash and that `is_it` recognises.
    pub fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        let occupied = self.way(hash).map(|slot| self.slots[slot]).take_while(|place| *place != FREE);
        occupied.map(|place| place as usize).find(|place| is_it(*place))
    }

    /// Adds the entry at `place`, whose key has this hash and is not there yet. `hash_of` tells the hashes of the others, should
    /// there be no room. A place that 32 bits cannot tell is not added.
    pub fn insert(&mut self, hash: u64, place: usize, hash_of: impl Fn(usize) -> u64) {
        let Some(place) = u32::try_from(place).ok().filter(|place| *place != FREE) else { return };
        if slots_for(self.used + 1) > self.slots.len() {
            self.make_room(self.used.max(8) * 2, hash_of);
        }
        self.put(hash, place);
    }

    fn put(&mut self, hash: u64, place: u32) {
        let free = self.way(hash).find(|slot| self.slots[*slot] == FREE);
        if let Some(slot) = free {
            self.slots[slot] = place;
            self.used += 1;
        }
    }

    /// Takes as much memory as its entries need. `hash_of` tells their hashes.
    pub fn settle(&mut self, hash_of: impl Fn(usize) -> u64) {
        self.make_room(self.used, hash_of);
    }

    fn make_room(&mut self, entries: usize, hash_of: impl Fn(usize) -> u64) {
        if slots_for(entries) == self.slots.len() {
            return;
        }
        let mut next = Index::with_room(entries.max(self.used));
        for place in self.slots.iter().filter(|place| **place != FREE) {
            next.put(hash_of(*place as usize), *place);
        }
        *self = next;
    }

    /// The slots in which an entry of this hash may be, in the order of search.
    fn way(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let slots = self.slots.len();
        let first = ((u128::from(mix(hash)) * slots as u128) >> 64) as usize;
        (first..slots).chain(0..first)
    }
}

/// A third of the slots stays free, and one at least, at which a search ends.
fn slots_for(entries: usize) -> usize {
    entries + entries / 2 + 1
}

/// Lets every bit of a hash count, the last step of MurmurHash3: those of names that are counted up differ in few.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fnv::fnv1a;

    fn hash(key: &str) -> u64 {
        fnv1a(key.bytes())
    }

    fn find(index: &Index, keys: &[String], key: &str) -> Option<usize> {
        index.find(hash(key), |place| keys[place] == key)
    }

    #[test]
    fn names_that_are_counted_up_lie_apart() {
        let keys: Vec<String> = (0..10_000).map(|n| format!("u{n}")).collect();
        let mut index = Index::with_room(keys.len());
        let size = index.slots.len();
        keys.iter().enumerate().for_each(|(place, key)| index.insert(hash(key), place, |_| 0));
        assert_eq!((index.slots.len(), index.len()), (size, keys.len()));
        let looked_at = std::cell::Cell::new(0);
        for (place, key) in keys.iter().enumerate() {
            let is_it = |at: usize| {
                looked_at.set(looked_at.get() + 1);
                keys[at] == *key
            };
            assert_eq!(index.find(hash(key), is_it), Some(place));
        }
        assert!(looked_at.get() < 30_000, "{}", looked_at.get());
    }

    proptest! {
        #[test]
        fn what_was_added_is_found_and_nothing_else(keys in proptest::collection::btree_set("[a-c]{1,4}", 0..80), other in "[a-c]{1,4}") {
            let keys: Vec<String> = keys.into_iter().collect();
            let hash_of = |place: usize| hash(&keys[place]);
            let mut index = Index::default();
            for (place, key) in keys.iter().enumerate() {
                prop_assert_eq!(find(&index, &keys, key), None);
                index.insert(hash(key), place, hash_of);
            }
            index.settle(hash_of);
            prop_assert_eq!(index.slots.len(), slots_for(keys.len()));
            for (place, key) in keys.iter().enumerate() {
                prop_assert_eq!(find(&index, &keys, key), Some(place));
            }
            prop_assert_eq!(find(&index, &keys, &other), keys.iter().position(|key| *key == other));
        }
    }
}
