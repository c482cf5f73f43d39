//! The dial plan: which pattern a dialled number matches, and where the call then goes.
//!
//! # Patterns
//!
//! | element | matches |
//! | --- | --- |
//! | a digit, a letter, `*`, `#`, `+`, `-`, `_` | itself; only `X`, `Z` and `N` are special, so `x` is a letter |
//! | `X`, `Z`, `N` | one digit: 0-9, 1-9, 2-9 |
//! | `[2-9]`, `[13-5*]` | one of the set: digits, ranges of digits, `*`, `#`, `+` |
//! | `[^9]`, `[^0-3]` | one digit that is not in the set |
//! | `!` | one or more digits; once in a pattern |
//! | `#` after `!`, last | nothing: it may be dialled to end the number, and is not sent on |
//! | `.` | nothing: the place where stripping ends, once, before any `!` |
//! | `\` | the next character as itself: `john\.doe` |
//!
//! What stands before the `.` is stripped from the number unless the pattern says `strip` itself, which counts
//! characters from the left; then `prefix` is put in front. A `#` dialled at the end only says that dialling is
//! complete: it is dropped when the pattern does not end in `#` itself.
//!
//! # The best match
//!
//! Over all partitions of the caller's search space the pattern that matches the fewest strings wins. The
//! measure is exact: the number of strings of at most 64 characters that a pattern matches, and every pattern
//! with `!` is wider than any without. If two are equal, the earlier partition of the search space wins; within
//! a partition, the pattern that was configured first.

mod explain;
mod loops;
mod mask;
mod measure;
mod pattern;
mod stored;
mod target;
#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use pattern::Compiled;
use stored::Patterns;

pub use explain::{Decision, Step, StepVerdict};
pub use loops::{Loop, Return};
pub use mask::{BadMask, CallingTransform, NumberMask, is_dialable};
pub use pattern::{PatternFault, PatternKey, pattern_key};
pub use stored::PatternRef;
pub use target::{BadTarget, Target};

/// The partition of patterns that name none, and all that a caller without a search space can reach.
pub const INTERNAL: &str = "internal";

/// The longest number that is routed, in characters.
pub const MAX_NUMBER: usize = 64;

/// One pattern as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    /// The pattern's text.
    pub pattern: String,
    /// The partition it is in.
    pub partition: String,
    /// Where a matching call goes.
    pub target: Target,
    /// Characters to strip from the left; unset: what stands before the `.`.
    pub strip: Option<usize>,
    /// What is put in front after stripping.
    pub prefix: String,
    /// What the far end sees of the caller's number.
    pub calling: CallingTransform,
    /// Whether a matching call is an emergency call.
    pub emergency: bool,
}

impl Pattern {
    /// A pattern in [`INTERNAL`] that changes nothing of the number.
    pub fn new(pattern: impl Into<String>, target: Target) -> Self {
        Self {
            pattern: pattern.into(),
            partition: INTERNAL.to_owned(),
            target,
            strip: None,
            prefix: String::new(),
            calling: CallingTransform::default(),
            emergency: false,
        }
    }

    /// The same in another partition.
    pub fn in_partition(self, partition: impl Into<String>) -> Self {
        Self { partition: partition.into(), ..self }
    }
}

/// A calling search space as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchSpace {
    /// Its name.
    pub name: String,
    /// Its partitions, the preferred first.
    pub partitions: Vec<String>,
}

/// Everything a dial plan is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialPlanSpec {
    /// The partitions; [`INTERNAL`] exists without being named.
    pub partitions: Vec<String>,
    /// The calling search spaces.
    pub search_spaces: Vec<SearchSpace>,
    /// The patterns, extensions included.
    pub patterns: Vec<Pattern>,
}

/// A fault in a [`DialPlanSpec`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialPlanError {
    /// A pattern cannot be read.
    #[error("pattern {pattern:?} in partition {partition:?}: {fault}")]
    BadPattern {
        /// The pattern's text.
        pattern: String,
        /// Its partition.
        partition: String,
        /// What is wrong.
        fault: PatternFault,
    },
    /// A pattern strips more than its shortest number has.
    #[error(
        "pattern {pattern:?} in partition {partition:?} strips {strip} of at least {shortest} characters"
    )]
    StripsTooMuch {
        /// The pattern's text.
        pattern: String,
        /// Its partition.
        partition: String,
        /// How many it strips.
        strip: usize,
        /// The length of the shortest number it matches.
        shortest: usize,
    },
    /// A pattern is in a partition that does not exist.
    #[error("pattern {pattern:?} is in partition {partition:?}, which does not exist")]
    UnknownPartition {
        /// The pattern's text.
        pattern: String,
        /// The partition's name.
        partition: String,
    },
    /// A search space lists a partition that does not exist.
    #[error("calling search space {search_space:?} lists partition {partition:?}, which does not exist")]
    UnknownPartitionInSearchSpace {
        /// The search space's name.
        search_space: String,
        /// The partition's name.
        partition: String,
    },
    /// Two patterns of one partition match the same strings.
    #[error("patterns {first:?} and {second:?} of partition {partition:?} match the same numbers")]
    DuplicatePattern {
        /// The earlier pattern's text.
        first: String,
        /// The later pattern's text.
        second: String,
        /// Their partition.
        partition: String,
    },
    /// A partition is listed twice.
    #[error("partition {0:?} is defined twice")]
    DuplicatePartition(String),
    /// A search space is defined twice.
    #[error("calling search space {0:?} is defined twice")]
    DuplicateSearchSpace(String),
}

/// The patterns of one partition, made ready for look-up.
#[derive(Clone, Debug, Default)]
struct Partition {
    name: String,
    /// How many of its patterns match one string.
    exact: usize,
    /// The others, those that match the fewest strings first.
    wild: Vec<usize>,
}

/// A validated dial plan. Cheap to share and to ask; replaced as a whole on reload.
#[derive(Clone, Debug)]
pub struct DialPlan {
    patterns: Patterns,
    partitions: Vec<Partition>,
    search_spaces: BTreeMap<String, Vec<usize>>,
    internal: Vec<usize>,
    /// The patterns of emergency calls.
    emergency: Vec<usize>,
}

/// Two are equal if they were made from the same patterns, partitions and search spaces, in the same order.
impl PartialEq for DialPlan {
    fn eq(&self, other: &DialPlan) -> bool {
        self.search_spaces == other.search_spaces
            && self.partition_names().eq(other.partition_names())
            && self.patterns().eq(other.patterns())
    }
}

/// Where a dialled number goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match<'a> {
    /// The pattern that won.
    pub pattern: PatternRef<'a>,
    /// The number after stripping and prefixing.
    pub number_out: String,
}

/// A pattern that matches, with what the choice looks at.
#[derive(Clone, Copy)]
struct Candidate {
    index: usize,
    /// How much of the dialled number was matched: all, or all but the final `#`.
    matched: usize,
}

impl DialPlan {
    /// Builds a dial plan.
    ///
    /// # Errors
    /// Every fault found, in the order of the configuration.
    pub fn new(spec: DialPlanSpec) -> Result<Self, Vec<DialPlanError>> {
        Self::with_more(spec, [])
    }

    /// The same with more patterns, which come after those of `spec` and are not kept beside each other on the way.
    ///
    /// # Errors
    /// Every fault found, in the order of the configuration.
    pub fn with_more(
        spec: DialPlanSpec,
        more: impl IntoIterator<Item = Pattern>,
    ) -> Result<Self, Vec<DialPlanError>> {
        let mut errors = Vec::new();
        let (partitions, index_of) = name_partitions(&spec.partitions, &mut errors);
        let search_spaces = resolve_search_spaces(&spec.search_spaces, &index_of, &mut errors);
        let internal = index_of.get(INTERNAL).copied().into_iter().collect();
        let mut plan = Self {
            patterns: Patterns::default(),
            partitions,
            search_spaces,
            internal,
            emergency: Vec::new(),
        };
        let mut seen = BTreeMap::new();
        for pattern in spec.patterns.into_iter().chain(more) {
            if let Err(error) = plan.add(pattern, &index_of, &mut seen) {
                errors.push(error);
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        for partition in &mut plan.partitions {
            // Stable: of equal patterns the first configured stays first.
            partition.wild.sort_by_key(|index| plan.patterns.width(*index));
        }
        plan.patterns.settle();
        Ok(plan)
    }

    fn add(
        &mut self,
        pattern: Pattern,
        index_of: &BTreeMap<String, usize>,
        seen: &mut BTreeMap<(usize, Vec<pattern::Element>), usize>,
    ) -> Result<(), DialPlanError> {
        // A plan may have a million extensions: nothing is copied but for a fault.
        let (text, partition) = (&pattern.pattern, &pattern.partition);
        let named = || (text.clone(), partition.clone());
        let Some(place) = index_of.get(partition).copied() else {
            let (pattern, partition) = named();
            return Err(DialPlanError::UnknownPartition { pattern, partition });
        };
        let compiled = Compiled::parse(text).map_err(|fault| {
            let (pattern, partition) = named();
            DialPlanError::BadPattern { pattern, partition, fault }
        })?;
        let shortest = compiled.elements().len();
        if let Some(strip) = pattern.strip.filter(|strip| *strip > shortest) {
            let (pattern, partition) = named();
            return Err(DialPlanError::StripsTooMuch { pattern, partition, strip, shortest });
        }
        let index = self.patterns.len();
        let same = match compiled.exact() {
            Some(number) => self.patterns.exact(place, &number),
            None => match seen.entry((place, compiled.elements().to_vec())) {
                Entry::Occupied(first) => Some(*first.get()),
                Entry::Vacant(free) => {
                    free.insert(index);
                    None
                }
            },
        };
        if let Some(first) = same {
            let first = self.patterns.get(first).pattern.to_owned();
            let (second, partition) = named();
            return Err(DialPlanError::DuplicatePattern { first, second, partition });
        }
        if pattern.emergency {
            self.emergency.push(index);
        }
        match self.patterns.push(pattern, place, compiled) {
            true => self.partitions[place].exact += 1,
            false => self.partitions[place].wild.push(index),
        }
        Ok(())
    }

    /// Whether the search space exists.
    pub fn has_search_space(&self, name: &str) -> bool {
        self.search_spaces.contains_key(name)
    }

    /// Whether the partition exists.
    pub fn has_partition(&self, name: &str) -> bool {
        self.partitions.iter().any(|p| p.name == name)
    }

    /// The names of all partitions, [`INTERNAL`] among them.
    pub fn partition_names(&self) -> impl Iterator<Item = &str> {
        self.partitions.iter().map(|p| p.name.as_str())
    }

    /// Every pattern, in the order of the configuration.
    pub fn patterns(&self) -> impl Iterator<Item = PatternRef<'_>> {
        self.patterns.iter()
    }

    /// Whether somebody may reach an emergency pattern by this number: without knowing who dials it, the benefit of the doubt.
    pub fn may_be_emergency(&self, dialled: &str) -> bool {
        self.emergency.iter().any(|index| self.patterns.matches(*index, dialled).is_some())
    }

    /// The partitions a caller reaches, the preferred first; `None` for a search space that does not exist.
    fn reach(&self, css: Option<&str>) -> Option<&[usize]> {
        match css {
            None => Some(&self.internal),
            Some(name) => self.search_spaces.get(name).map(Vec::as_slice),
        }
    }

    /// The best match for a dialled number, without reasons: what the call path asks.
    ///
    /// `css` names the caller's calling search space; `None` reaches [`INTERNAL`] only, an unknown name nothing.
    pub fn lookup(&self, css: Option<&str>, dialled: &str) -> Option<Match<'_>> {
        let mut best: Option<Candidate> = None;
        for place in self.reach(css)? {
            let Some(candidate) = self.best_in(*place, dialled) else { continue };
            if best.is_none_or(|b| self.width(candidate) < self.width(b)) {
                best = Some(candidate);
            }
        }
        best.map(|candidate| self.finish(candidate, dialled))
    }

    fn width(&self, candidate: Candidate) -> measure::Width {
        self.patterns.width(candidate.index)
    }

    fn best_in(&self, place: usize, dialled: &str) -> Option<Candidate> {
        self.exact_in(place, dialled).or_else(|| {
            // Sorted by width: the first that matches is the best.
            self.partitions[place].wild.iter().find_map(|index| {
                let matched = self.patterns.matches(*index, dialled)?;
                Some(Candidate { index: *index, matched })
            })
        })
    }

    fn finish(&self, candidate: Candidate, dialled: &str) -> Match<'_> {
        let pattern = self.patterns.get(candidate.index);
        let number = &dialled[..candidate.matched];
        let kept = number.get(self.patterns.strip(candidate.index)..).unwrap_or_default();
        Match { pattern, number_out: [pattern.prefix, kept].concat() }
    }

    /// The exact pattern of a partition for a number, else for the number without its final `#`.
    fn exact_in(&self, place: usize, dialled: &str) -> Option<Candidate> {
        [Some(dialled), dialled.strip_suffix('#')].into_iter().flatten().find_map(|number| {
            let index = self.patterns.exact(place, number)?;
            // A pattern that ends in '#' is not offered a number that lost one.
            let wanted = number.len() == dialled.len() || !number.ends_with('#');
            wanted.then_some(Candidate { index, matched: number.len() })
        })
    }
}

fn name_partitions(
    names: &[String],
    errors: &mut Vec<DialPlanError>,
) -> (Vec<Partition>, BTreeMap<String, usize>) {
    let mut partitions = Vec::new();
    let mut index_of = BTreeMap::new();
    let implied = Some(INTERNAL.to_owned()).filter(|internal| !names.contains(internal));
    for name in implied.iter().chain(names) {
        if index_of.insert(name.clone(), partitions.len()).is_some() {
            errors.push(DialPlanError::DuplicatePartition(name.clone()));
        }
        partitions.push(Partition { name: name.clone(), ..Partition::default() });
    }
    (partitions, index_of)
}

fn resolve_search_spaces(
    spaces: &[SearchSpace],
    index_of: &BTreeMap<String, usize>,
    errors: &mut Vec<DialPlanError>,
) -> BTreeMap<String, Vec<usize>> {
    let mut resolved = BTreeMap::new();
    for space in spaces {
        let mut places = Vec::new();
        let mut listed = BTreeSet::new();
        for partition in &space.partitions {
            match index_of.get(partition) {
                Some(place) if listed.insert(*place) => places.push(*place),
                // Listed again it changes nothing: the earlier place counts.
                Some(_) => {}
                None => errors.push(DialPlanError::UnknownPartitionInSearchSpace {
                    search_space: space.name.clone(),
                    partition: partition.clone(),
                }),
            }
        }
        if resolved.insert(space.name.clone(), places).is_some() {
            errors.push(DialPlanError::DuplicateSearchSpace(space.name.clone()));
        }
    }
    resolved
}
