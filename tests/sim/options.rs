//! What the command line and the list of regressions ask for.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::plan::{Choice, Part};

/// Calls of each run in CI.
pub(crate) const CALLS: usize = 700;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// These runs alone.
    pub(crate) choices: Vec<Choice>,
    pub(crate) calls: usize,
    pub(crate) verbose: bool,
    pub(crate) shrink: bool,
    /// Each run is compared with that of a second process.
    pub(crate) twin: bool,
    /// Print the hash and nothing else: a second process asks.
    pub(crate) hash_only: bool,
    /// How many fresh seeds come after the fixed ones.
    pub(crate) fresh: u64,
    /// Fresh seeds for so long.
    pub(crate) time: Option<Duration>,
    pub(crate) skip: bool,
    /// Say nothing of the runs that pass.
    pub(crate) brief: bool,
    /// Every call leaves by trunks.
    pub(crate) trunks: bool,
}

fn list<T>(word: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    let one = |item: &str| read(item).ok_or_else(|| format!("`{item}` in `{word}` means nothing here"));
    word.split(',').filter(|item| !item.is_empty()).map(one).collect()
}

/// `17` or `17-20`.
fn range<T: std::str::FromStr>(item: &str) -> Option<std::ops::RangeInclusive<T>> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

fn number<T: std::str::FromStr>(option: &str, word: Option<String>) -> Result<T, String> {
    word.and_then(|w| w.parse().ok()).ok_or_else(|| format!("{option} wants a number"))
}

impl Options {
    /// All of a seed.
    pub(crate) fn all(&self, seed: u64) -> Choice {
        Choice { trunks: self.trunks, ..Choice::all(seed, self.calls) }
    }

    /// Reads the words of a command line.
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let (mut seeds, mut only, mut without) = (Vec::new(), None, BTreeSet::new());
        let mut found = Options {
            choices: Vec::new(),
            calls: CALLS,
            verbose: false,
            shrink: true,
            twin: true,
            fresh: 1,
            hash_only: false,
            time: None,
            skip: false,
            brief: false,
            trunks: false,
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seed" => seeds = list(&words.next().unwrap_or_default(), range::<u64>)?,
                "--calls" => found.calls = number("--calls", words.next())?,
                "--fresh" => found.fresh = number("--fresh", words.next())?,
                "--hours" => {
                    let hours: f64 = number("--hours", words.next())?;
                    found.time =
                        Some(Duration::try_from_secs_f64(hours * 3600.0).map_err(|w| w.to_string())?);
                }
                "--only" => {
                    let dials = list(&words.next().unwrap_or_default(), range::<usize>)?;
                    only = Some(dials.into_iter().flatten().collect());
                }
                "--without" => {
                    let part = |item: &str| Part::ALL.into_iter().find(|part| part.name() == item);
                    without.extend(list(&words.next().unwrap_or_default(), part)?);
                }
                "--verbose" => found.verbose = true,
                "--brief" => found.brief = true,
                "--trunks" => found.trunks = true,
                "--no-shrink" => found.shrink = false,
                "--no-twin" => found.twin = false,
                "--hash-only" => found.hash_only = true,
                // The test harness's own words: `cargo test NAME` runs what has that name, `--list` runs nothing.
                "--list" => found.skip = true,
                word if word.starts_with('-') => {}
                name => found.skip |= !"sim".contains(name),
            }
        }
        let choice = |seed| Choice {
            seed,
            calls: found.calls,
            only: only.clone(),
            without: without.clone(),
            trunks: found.trunks,
        };
        found.choices = seeds.into_iter().flatten().map(choice).collect();
        Ok(found)
    }
}

/// The runs that have failed once.
pub(crate) fn regressions() -> Vec<Choice> {
    let lines = include_str!("regressions.txt").lines().filter(|line| !line.starts_with('#'));
    let choices = |line: &str| {
        let options = Options::read(line.split_whitespace().map(str::to_owned));
        let choices = options.expect("regressions.txt can be read").choices;
        assert!(!choices.is_empty(), "a regression names its seed: {line}");
        choices
    };
    lines.filter(|line| !line.trim().is_empty()).flat_map(choices).collect()
}
