//! What a commit group writes: of each key only the last write, and nothing of a batch whose expectation fails.

use std::collections::HashMap;

use bytes::Bytes;
use tandem_actors::store::{Batch, Bucket, StoreFault, Write};

/// Looks up the version a key has in the last commit; 0 if it does not exist.
pub(super) trait Versions {
    /// Why a look-up failed.
    type Error;
    /// The version of a key.
    fn version(&mut self, bucket: Bucket, key: &str) -> Result<u64, Self::Error>;
}

/// What becomes of one key. `V` is its value, or a reference to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change<V> {
    /// Written; the version rises by `by`, from 0 if the key does not exist.
    Raise {
        /// How many writes this one stands for.
        by: u64,
        /// The last value.
        value: V,
    },
    /// Written with this version, whatever is there.
    Set {
        /// The version from now on.
        version: u64,
        /// The last value.
        value: V,
    },
    /// Deleted, if it exists.
    Delete,
}

impl Change<Bytes> {
    /// The same with a reference to the value.
    pub(super) fn as_ref(&self) -> Change<&Bytes> {
        match self {
            Change::Raise { by, value } => Change::Raise { by: *by, value },
            Change::Set { version, value } => Change::Set { version: *version, value },
            Change::Delete => Change::Delete,
        }
    }
}

impl Change<&Bytes> {
    /// The same with a value of its own.
    pub(super) fn cloned(self) -> Change<Bytes> {
        match self {
            Change::Raise { by, value } => Change::Raise { by, value: value.clone() },
            Change::Set { version, value } => Change::Set { version, value: value.clone() },
            Change::Delete => Change::Delete,
        }
    }
}

/// A group's changes, one for each key, and the batches that are no part of it.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    /// In the order in which the keys were first written.
    pub(super) changes: Vec<(Bucket, &'a str, Change<&'a Bytes>)>,
    /// By position in the group, rising.
    pub(super) refused: Vec<(usize, StoreFault)>,
}

/// What the group has made of a key so far.
#[derive(Clone, Copy)]
enum Version {
    /// Nothing.
    Untouched,
    /// Raised by as much, from whatever the last commit has.
    Plus(u64),
    /// Exactly this; 0: it does not exist.
    At(u64),
}

#[derive(Clone, Copy)]
struct Slot<'a> {
    bucket: Bucket,
    key: &'a str,
    /// The version of the last commit, once someone had to know it.
    base: Option<u64>,
    version: Version,
    value: Option<&'a Bytes>,
}

struct Planner<'a> {
    slots: Vec<Slot<'a>>,
    by_key: HashMap<(Bucket, &'a str), usize>,
    /// What the current batch has overwritten, to be put back if the batch is refused.
    undo: Vec<(usize, Slot<'a>)>,
}

/// Plans a group. Look-ups are made only for keys with an expected version.
pub(super) fn plan<'a, V: Versions>(batches: &'a [Batch], versions: &mut V) -> Result<Plan<'a>, V::Error> {
    let writes = batches.iter().map(|batch| batch.writes.len()).sum();
    let mut planner = Planner {
        slots: Vec::with_capacity(writes),
        by_key: HashMap::with_capacity(writes),
        undo: Vec::new(),
    };
    let mut refused = Vec::new();
    for (position, batch) in batches.iter().enumerate() {
        if let Some(fault) = planner.add(batch, versions)? {
            refused.push((position, fault));
        }
    }
    let changes = planner.slots.iter().filter_map(Slot::change).collect();
    Ok(Plan { changes, refused })
}

impl<'a> Planner<'a> {
    fn add<V: Versions>(
        &mut self,
        batch: &'a Batch,
        versions: &mut V,
    ) -> Result<Option<StoreFault>, V::Error> {
        self.undo.clear();
        for write in &batch.writes {
            let position = self.slot(write);
            self.undo.push((position, self.slots[position]));
            if let Some(expected) = write.expect {
                let slot = &mut self.slots[position];
                if slot.current(versions)? != expected {
                    let key = write.key.clone();
                    // Newest first: a key written twice must end as it was before the batch.
                    while let Some((position, before)) = self.undo.pop() {
                        self.slots[position] = Slot { base: self.slots[position].base, ..before };
                    }
                    return Ok(Some(StoreFault::Conflict { bucket: write.bucket.name(), key }));
                }
            }
            self.slots[position].write(write);
        }
        Ok(None)
    }

    fn slot(&mut self, write: &'a Write) -> usize {
        *self.by_key.entry((write.bucket, write.key.as_str())).or_insert_with(|| {
            self.slots.push(Slot {
                bucket: write.bucket,
                key: &write.key,
                base: None,
                version: Version::Untouched,
                value: None,
            });
            self.slots.len() - 1
        })
    }
}

impl<'a> Slot<'a> {
    fn write(&mut self, write: &'a Write) {
        self.value = write.value.as_ref();
        self.version = match (&write.value, self.version) {
            (None, _) => Version::At(0),
            (Some(_), Version::At(version)) => Version::At(version + 1),
            (Some(_), Version::Plus(by)) => Version::Plus(by + 1),
            (Some(_), Version::Untouched) => Version::Plus(1),
        };
    }

    fn current<V: Versions>(&mut self, versions: &mut V) -> Result<u64, V::Error> {
        let by = match self.version {
            Version::At(version) => return Ok(version),
            Version::Plus(by) => by,
            Version::Untouched => 0,
        };
        let base = match self.base {
            Some(base) => base,
            None => versions.version(self.bucket, self.key)?,
        };
        self.base = Some(base);
        Ok(base + by)
    }

    fn change(&self) -> Option<(Bucket, &'a str, Change<&'a Bytes>)> {
        let change = match (self.version, self.value) {
            (Version::Untouched, _) => return None,
            // Made and gone within the group: there is nothing to delete.
            (Version::At(0), _) | (_, None) if self.base == Some(0) => return None,
            (Version::At(0), _) | (_, None) => Change::Delete,
            (Version::Plus(by), Some(value)) => Change::Raise { by, value },
            (Version::At(version), Some(value)) => Change::Set { version, value },
        };
        Some((self.bucket, self.key, change))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tandem_actors::store::Urgency;

    use super::*;

    struct Known(u64, usize);

    impl Versions for Known {
        type Error = Infallible;
        fn version(&mut self, _: Bucket, _: &str) -> Result<u64, Infallible> {
            self.1 += 1;
            Ok(self.0)
        }
    }

    fn batch(writes: &[(&str, Option<&'static str>, Option<u64>)]) -> Batch {
        let mut batch = Batch::new(Urgency::Lazy);
        for (key, value, expect) in writes {
            batch.writes.push(Write {
                bucket: Bucket::Calls,
                key: (*key).to_owned(),
                value: value.map(|v| Bytes::from_static(v.as_bytes())),
                expect: *expect,
            });
        }
        batch
    }

    fn planned(known: u64, batches: &[Batch]) -> (Vec<(String, String)>, Vec<usize>, usize) {
        let mut versions = Known(known, 0);
        let plan = plan(batches, &mut versions).unwrap();
        let changes = plan.changes.iter().map(|(_, key, c)| ((*key).to_owned(), format!("{c:?}"))).collect();
        (changes, plan.refused.iter().map(|(at, _)| *at).collect(), versions.1)
    }

    #[test]
    fn only_the_last_write_of_a_key_is_planned_and_counts_for_all() {
        let (changes, refused, asked) =
            planned(0, &[batch(&[("a", Some("1"), None)]), batch(&[("a", Some("2"), None)])]);
        assert_eq!(changes, [("a".into(), "Raise { by: 2, value: b\"2\" }".into())]);
        assert_eq!((refused.len(), asked), (0, 0));
    }

    #[test]
    fn a_key_made_and_deleted_within_a_group_is_planned_only_if_it_may_have_existed() {
        let (changes, ..) = planned(0, &[batch(&[("a", Some("1"), Some(0))]), batch(&[("a", None, None)])]);
        assert_eq!(changes, []);
        let (changes, ..) = planned(3, &[batch(&[("a", Some("1"), None)]), batch(&[("a", None, None)])]);
        assert_eq!(changes, [("a".into(), "Delete".into())]);
    }

    #[test]
    fn an_expectation_sees_the_writes_of_earlier_batches_of_the_group() {
        let (changes, refused, asked) = planned(
            4,
            &[
                batch(&[("a", Some("1"), None)]),
                batch(&[("a", Some("2"), Some(5))]),
                batch(&[("a", Some("3"), Some(5))]),
            ],
        );
        assert_eq!(changes, [("a".into(), "Raise { by: 2, value: b\"2\" }".into())]);
        assert_eq!((refused, asked), (vec![2], 1));
    }

    #[test]
    fn a_conflict_takes_back_every_write_of_its_batch_and_no_other() {
        let (changes, refused, _) = planned(
            1,
            &[
                batch(&[("a", Some("1"), None), ("b", None, None)]),
                batch(&[
                    ("a", Some("x"), None),
                    ("a", None, None),
                    ("c", Some("x"), None),
                    ("b", Some("x"), Some(9)),
                ]),
                batch(&[("b", Some("2"), Some(0))]),
            ],
        );
        assert_eq!(
            changes,
            [
                ("a".into(), "Raise { by: 1, value: b\"1\" }".into()),
                ("b".into(), "Set { version: 1, value: b\"2\" }".into()),
            ]
        );
        assert_eq!(refused, [1]);
    }

    #[test]
    fn a_batch_may_expect_what_it_has_written_itself() {
        let (changes, refused, _) =
            planned(0, &[batch(&[("a", Some("1"), Some(0)), ("a", Some("2"), Some(1))])]);
        assert_eq!(changes, [("a".into(), "Raise { by: 2, value: b\"2\" }".into())]);
        assert!(refused.is_empty());
    }
}
