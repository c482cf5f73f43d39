//! The patterns of a plan as they are kept. A plan may have a million, nearly all of them the number of a station and nothing else.

use std::borrow::Cow;

use super::pattern::Compiled;
use super::{CallingTransform, Pattern, Target, measure};
use crate::fnv::fnv1a;
use crate::index::Index;

/// Means that a pattern is the one number that it is written as.
const PLAIN: u32 = u32::MAX;
/// A pattern shares what it has in common with one of so many before it, or nothing.
const LOOKED_BACK: usize = 16;

/// A pattern of a plan, as it was configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternRef<'a> {
    /// The pattern's text.
    pub pattern: &'a str,
    /// The partition it is in.
    pub partition: &'a str,
    /// Where a matching call goes.
    pub target: &'a Target,
    /// Characters to strip from the left; unset: what stands before the `.`.
    pub strip: Option<usize>,
    /// What is put in front after stripping.
    pub prefix: &'a str,
    /// What the far end sees of the caller's number.
    pub calling: &'a CallingTransform,
    /// Whether a matching call is an emergency call.
    pub emergency: bool,
}

/// What many patterns have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Common {
    partition: String,
    place: usize,
    strip: Option<usize>,
    prefix: String,
    calling: CallingTransform,
    emergency: bool,
}

#[derive(Clone, Debug)]
struct Record {
    text: Box<str>,
    target: Target,
    /// Its place among `Patterns::common`.
    common: u32,
    /// Its place among `Patterns::compiled`, or [`PLAIN`].
    compiled: u32,
}

/// Every pattern, in the order of the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns {
    records: Vec<Record>,
    common: Vec<Common>,
    compiled: Vec<Compiled>,
    /// Patterns that match one string, by that and their partition.
    exact: Index,
}

fn hash(partition: usize, number: &str) -> u64 {
    fnv1a(number.bytes().chain(partition.to_le_bytes()))
}

impl Patterns {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Adds a pattern of the partition at `place`; true if it matches one string. It matches no other's.
    pub(super) fn push(&mut self, pattern: Pattern, place: usize, compiled: Compiled) -> bool {
        let exact = compiled.exact();
        let plain = exact.as_ref() == Some(&pattern.pattern);
        let compiled = if plain { PLAIN } else { add(&mut self.compiled, compiled) };
        let Pattern { pattern: text, partition, target, strip, prefix, calling, emergency } = pattern;
        let common = Common { partition, place, strip, prefix, calling, emergency };
        let known =
            self.common.iter().enumerate().rev().take(LOOKED_BACK).find(|(_, known)| **known == common);
        let common = known.map(|(at, _)| at as u32).unwrap_or_else(|| add(&mut self.common, common));
        let index = self.records.len();
        self.records.push(Record { text: text.into_boxed_str(), target, common, compiled });
        if let Some(number) = &exact {
            let mut by_number = std::mem::take(&mut self.exact);
            by_number.insert(hash(place, number), index, |other| self.hash_of(other));
            self.exact = by_number;
        }
        exact.is_some()
    }

    /// No more patterns come.
    pub(super) fn settle(&mut self) {
        self.records.shrink_to_fit();
        let mut by_number = std::mem::take(&mut self.exact);
        by_number.settle(|index| self.hash_of(index));
        self.exact = by_number;
    }

    fn hash_of(&self, index: usize) -> u64 {
        hash(self.common_of(index).place, &self.number(index).unwrap_or_default())
    }

    fn common_of(&self, index: usize) -> &Common {
        &self.common[self.records[index].common as usize]
    }

    /// The only string that a pattern matches, if there is only one.
    fn number(&self, index: usize) -> Option<Cow<'_, str>> {
        let record = &self.records[index];
        match self.compiled.get(record.compiled as usize) {
            Some(compiled) => compiled.exact().map(Cow::Owned),
            None => Some(Cow::Borrowed(&record.text)),
        }
    }

    /// The pattern of the partition at `place` that matches this string and no other.
    pub(super) fn exact(&self, place: usize, number: &str) -> Option<usize> {
        let is_it = |index: usize| {
            self.common_of(index).place == place && self.number(index).is_some_and(|own| own == number)
        };
        self.exact.find(hash(place, number), is_it)
    }

    pub(super) fn get(&self, index: usize) -> PatternRef<'_> {
        let Record { text, target, .. } = &self.records[index];
        let Common { partition, strip, prefix, calling, emergency, .. } = self.common_of(index);
        let (strip, emergency) = (*strip, *emergency);
        PatternRef { pattern: text, partition, target, strip, prefix, calling, emergency }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = PatternRef<'_>> {
        (0..self.records.len()).map(|index| self.get(index))
    }

    /// A pattern ready to match.
    pub(super) fn compiled(&self, index: usize) -> Cow<'_, Compiled> {
        let record = &self.records[index];
        match self.compiled.get(record.compiled as usize) {
            Some(compiled) => Cow::Borrowed(compiled),
            None => Cow::Owned(Compiled::of_number(&record.text)),
        }
    }

    /// How many characters of `dialled` a pattern matches, if it does: all, or all but a final `#`.
    pub(super) fn matches(&self, index: usize, dialled: &str) -> Option<usize> {
        let Record { text, compiled, .. } = &self.records[index];
        if let Some(compiled) = self.compiled.get(*compiled as usize) {
            return compiled.matches(dialled);
        }
        let shorter = dialled.strip_suffix('#').filter(|_| !text.ends_with('#'));
        let number = [Some(dialled), shorter].into_iter().flatten().find(|number| **number == **text);
        number.map(str::len)
    }

    pub(super) fn width(&self, index: usize) -> measure::Width {
        let compiled = self.compiled.get(self.records[index].compiled as usize);
        compiled.map_or(measure::Width::ONE, |compiled| *compiled.width())
    }

    /// How many characters are stripped of a number that a pattern matches.
    pub(super) fn strip(&self, index: usize) -> usize {
        let compiled = self.compiled.get(self.records[index].compiled as usize);
        self.common_of(index).strip.unwrap_or_else(|| compiled.map_or(0, Compiled::separator))
    }
}

fn add<T>(list: &mut Vec<T>, one: T) -> u32 {
    list.push(one);
    list.len() as u32 - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_number_of_a_station_takes_no_more_than_its_text_and_a_place() {
        let mut patterns = Patterns::default();
        for (text, exact) in [("1001", true), ("1002", true), ("100X", false), ("9.1", true)] {
            let pattern = Pattern::new(text, Target::Station(text.into()));
            assert_eq!(patterns.push(pattern, 0, Compiled::parse(text).unwrap()), exact, "{text}");
        }
        patterns.settle();
        assert_eq!((patterns.common.len(), patterns.compiled.len()), (1, 2));
        assert_eq!(
            ["1002", "91", "9.1", "1003"].map(|number| patterns.exact(0, number)),
            [Some(1), Some(3), None, None]
        );
        assert_eq!(patterns.exact(1, "1002"), None, "another partition");
        assert_eq!((patterns.strip(3), patterns.get(1).target.name()), (1, Some("1002")));
    }

    proptest! {
        #[test]
        fn a_plain_number_matches_what_its_pattern_matches(text in "[12#*]{1,3}", dialled in "[12#*]{0,4}") {
            let compiled = Compiled::parse(&text).unwrap();
            let mut patterns = Patterns::default();
            patterns.push(Pattern::new(text, Target::Reject(404)), 0, compiled.clone());
            prop_assert!(patterns.compiled.is_empty());
            prop_assert_eq!(patterns.matches(0, &dialled), compiled.matches(&dialled));
            prop_assert_eq!(patterns.compiled(0).matches(&dialled), compiled.matches(&dialled));
            prop_assert_eq!(patterns.width(0), *compiled.width());
        }
    }
}
