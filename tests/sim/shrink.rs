//! A run that fails is made as short as it still fails: parts of it are left out, one after the other, and it is run again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::plan::{Choice, Part, Plan};
use crate::run;

/// Longer nobody waits for a shorter script.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is wrong, without what differs from run to run: times, numbers, names.
fn kind(violation: &str) -> String {
    let line = violation.lines().next().unwrap_or_default();
    let words = line.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    words.take(6).collect::<Vec<_>>().join(" ")
}

/// The calls that are complained of.
fn suspects(violations: &[String]) -> BTreeSet<usize> {
    let number = |violation: &String| {
        let (_, rest) = violation.split_once(" call ")?;
        rest.split(':').next()?.parse().ok()
    };
    violations.iter().filter_map(number).collect()
}

struct Shrink {
    kinds: BTreeSet<String>,
    until: Instant,
    best: Choice,
}

impl Shrink {
    /// Runs a smaller choice; it is the best from now on if it fails alike.
    fn tries(&mut self, choice: Choice) -> bool {
        if choice == self.best || Instant::now() >= self.until {
            return false;
        }
        let outcome = run::run(&Plan::new(&choice), false);
        let fails = outcome.violations.iter().any(|violation| self.kinds.contains(&kind(violation)));
        if fails {
            self.best = choice;
        }
        fails
    }

    fn parts(&mut self) {
        for part in Part::ALL {
            let mut choice = self.best.clone();
            choice.without.insert(part);
            self.tries(choice);
        }
    }

    /// Delta debugging: leaves out ever smaller groups of calls.
    fn dials(&mut self) {
        let mut size = self.best.dials().len().div_ceil(2);
        while size > 0 && Instant::now() < self.until {
            let mut place = 0;
            loop {
                let dials = self.best.dials();
                if place >= dials.len() {
                    break;
                }
                let end = (place + size).min(dials.len());
                let rest: BTreeSet<usize> = dials[..place].iter().chain(&dials[end..]).copied().collect();
                let choice = Choice { only: Some(rest.clone()), ..self.best.clone() };
                if rest.is_empty() || !self.tries(choice) {
                    place = end;
                }
            }
            size /= 2;
        }
    }
}

/// The shortest script found that has one of these violations.
pub(crate) fn shrink(choice: &Choice, violations: &[String]) -> Choice {
    let kinds = violations.iter().map(|violation| kind(violation)).collect();
    let mut shrink = Shrink { kinds, until: Instant::now() + PATIENCE, best: choice.clone() };
    let suspects = suspects(violations);
    for only in suspects.iter().map(|one| BTreeSet::from([*one])).chain([suspects.clone()]) {
        if !only.is_empty() && shrink.tries(Choice { only: Some(only), ..choice.clone() }) {
            break;
        }
    }
    shrink.parts();
    shrink.dials();
    shrink.parts();
    shrink.best
}
