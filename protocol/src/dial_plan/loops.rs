//! Calls that come back: numbers that leave by a trunk to ourselves and leave by one again, for ever.
//!
//! A loop is told only with a number that proves it: the number is dialled here as it would be dialled on the wire, hop by hop.

use std::collections::BTreeSet;

use super::pattern::{Compiled, Element};
use super::{DialPlan, Target};

/// A number that comes back this often goes round: nobody means that, also if it grows and would end as too long.
const HOPS: usize = 32;

/// Numbers longer than this are not looked for: what goes round does so in a shorter form too.
const LONGEST: usize = 24;

/// A call that comes back to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return {
    /// The trunk by which it leaves and comes back.
    pub trunk: String,
    /// The calling search space that it then has.
    pub css: Option<String>,
}

/// A number that goes round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// The place of the pattern it begins with, in the order of the configuration.
    pub pattern: usize,
    /// The number.
    pub dialled: String,
    /// Each trunk it leaves by until it goes round, with the number it is sent as.
    pub hops: Vec<(String, String)>,
}

impl DialPlan {
    /// The numbers that go round, one for each pattern that has such numbers. `returns` says of a target by which trunks a call
    /// may come back to us; for nearly every target that is none.
    pub fn loops(&self, returns: &dyn Fn(&Target) -> Vec<Return>) -> Vec<Loop> {
        let back: Vec<(usize, Vec<Return>)> = self
            .patterns
            .iter()
            .enumerate()
            .map(|(index, pattern)| (index, returns(pattern.target)))
            .filter(|(_, returns)| !returns.is_empty())
            .collect();
        let looping = |(first, returns_of): &(usize, Vec<Return>)| {
            let dialled: BTreeSet<String> =
                back.iter().flat_map(|(next, _)| self.leading_to(*first, *next)).collect();
            let starts = dialled.iter().flat_map(|d| returns_of.iter().map(move |r| (d, r)));
            starts.into_iter().find_map(|(dialled, by)| self.goes_round(*first, dialled, by, returns))
        };
        back.iter().filter_map(looping).collect()
    }

    /// Numbers that match pattern `first` and are sent on as something that `next` matches: for each length one, and those that
    /// differ from it in one character, since another pattern may take some of them away.
    fn leading_to(&self, first: usize, next: usize) -> BTreeSet<String> {
        let mut numbers = BTreeSet::new();
        for length in 1..=LONGEST {
            let Some(choices) = self.choices(first, next, length) else { continue };
            let one: Vec<u8> = choices.iter().filter_map(|c| c.first().copied()).collect();
            for (place, choice) in choices.iter().enumerate() {
                for byte in choice {
                    let mut number = one.clone();
                    number[place] = *byte;
                    numbers.extend(String::from_utf8(number));
                }
            }
        }
        numbers
    }

    /// The characters that may stand in each place of such a number of `length` characters; `None`: there is none.
    fn choices(&self, first: usize, next: usize, length: usize) -> Option<Vec<Vec<u8>>> {
        let pattern = self.patterns.get(first);
        let dialled = spread(&self.patterns.compiled(first), length)?;
        let (stripped, kept) = dialled.split_at_checked(self.patterns.strip(first))?;
        let prefix: Vec<Element> = pattern.prefix.bytes().map(Element::Literal).collect();
        let sent: Vec<Element> = prefix.iter().chain(kept).copied().collect();
        let wanted = spread(&self.patterns.compiled(next), sent.len())?;
        let both: Vec<Vec<u8>> = sent.iter().zip(&wanted).map(|(a, b)| a.common(*b)).collect();
        if both.iter().any(Vec::is_empty) {
            return None;
        }
        // What is stripped leads on whatever it is.
        let start = stripped.iter().map(|element| element.common(*element).into_iter().take(1).collect());
        Some(start.chain(both.into_iter().skip(prefix.len())).collect())
    }

    /// Follows a call whose number matched `first` and left by a trunk; the loop, if it never ends.
    fn goes_round(
        &self,
        first: usize,
        dialled: &str,
        by: &Return,
        returns: &dyn Fn(&Target) -> Vec<Return>,
    ) -> Option<Loop> {
        let matched = self.patterns.matches(first, dialled)?;
        let mut number = self.finish(super::Candidate { index: first, matched }, dialled).number_out;
        let mut by = by.clone();
        let mut hops = vec![(by.trunk.clone(), number.clone())];
        let mut seen = BTreeSet::new();
        while hops.len() < HOPS && seen.insert((by.css.clone(), number.clone())) {
            let next = self.lookup(by.css.as_deref(), &number)?;
            by = returns(next.pattern.target).into_iter().next()?;
            number = next.number_out;
            hops.push((by.trunk.clone(), number.clone()));
        }
        // A repeat ends where it began; the last hop would say nothing new.
        hops.truncate(seen.len().max(1));
        Some(Loop { pattern: first, dialled: dialled.to_owned(), hops })
    }
}

/// The elements of a pattern for numbers of exactly `length` characters, each for one character.
fn spread(compiled: &Compiled, length: usize) -> Option<Vec<Element>> {
    let elements = compiled.elements();
    let Some(run) = compiled.run() else { return (elements.len() == length).then(|| elements.to_vec()) };
    let digits = (length + 1).checked_sub(elements.len()).filter(|digits| *digits > 0)?;
    let mut all = elements[..run].to_vec();
    all.extend(std::iter::repeat_n(Element::DIGIT, digits));
    all.extend(&elements[run + 1..]);
    Some(all)
}
