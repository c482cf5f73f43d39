//! What one run is made of: all of it follows from the seed.

use std::collections::BTreeSet;

use crate::rng::Rng;

/// A part of a run that can be switched off, and leaves the others as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Loss,
    Doubled,
    Late,
    Full,
    Resets,
    Panics,
    Chaos,
    Kills,
    SlowDisk,
    Operators,
    Nonsense,
    Registrations,
    Verbs,
    Reliable,
    Timers,
    Ponders,
    Streams,
    Keepalive,
    Trunks,
    Reloads,
    Fences,
}

impl Part {
    pub(crate) const ALL: [Part; 21] = [
        Part::Loss,
        Part::Doubled,
        Part::Late,
        Part::Full,
        Part::Resets,
        Part::Panics,
        Part::Chaos,
        Part::Kills,
        Part::SlowDisk,
        Part::Operators,
        Part::Nonsense,
        Part::Registrations,
        Part::Verbs,
        Part::Reliable,
        Part::Timers,
        Part::Ponders,
        Part::Streams,
        Part::Keepalive,
        Part::Trunks,
        Part::Reloads,
        Part::Fences,
    ];

    /// As `--without` has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::Loss => "loss",
            Part::Doubled => "doubled",
            Part::Late => "late",
            Part::Full => "full",
            Part::Resets => "resets",
            Part::Panics => "panics",
            Part::Chaos => "chaos",
            Part::Kills => "kills",
            Part::SlowDisk => "slow-disk",
            Part::Operators => "operators",
            Part::Nonsense => "nonsense",
            Part::Registrations => "registrations",
            Part::Verbs => "verbs",
            Part::Reliable => "reliable",
            Part::Timers => "timers",
            Part::Ponders => "ponders",
            Part::Streams => "streams",
            Part::Keepalive => "keepalive",
            Part::Trunks => "trunks",
            Part::Reloads => "reloads",
            Part::Fences => "fences",
        }
    }
}

/// What is run: a seed, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) seed: u64,
    pub(crate) calls: usize,
    /// The calls that are made; all if absent.
    pub(crate) only: Option<BTreeSet<usize>>,
    pub(crate) without: BTreeSet<Part>,
    /// Every call leaves by trunks, and nothing else happens.
    pub(crate) trunks: bool,
}

impl Choice {
    /// All of a seed.
    pub(crate) fn all(seed: u64, calls: usize) -> Choice {
        Choice { seed, calls, only: None, without: BTreeSet::new(), trunks: false }
    }

    pub(crate) fn has(&self, part: Part) -> bool {
        let elsewhere = self.trunks && matches!(part, Part::Nonsense | Part::Registrations | Part::Keepalive);
        !self.without.contains(&part) && !elsewhere
    }

    /// The numbers of the calls that are made.
    pub(crate) fn dials(&self) -> Vec<usize> {
        let made = |n: &usize| self.only.as_ref().is_none_or(|only| only.contains(n));
        (0..self.calls).filter(made).collect()
    }

    /// The words that say this on a command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words =
            vec!["--seed".into(), self.seed.to_string(), "--calls".into(), self.calls.to_string()];
        if self.trunks {
            words.push("--trunks".into());
        }
        let list = |items: Vec<String>| items.join(",");
        if let Some(only) = &self.only {
            words.extend(["--only".into(), ranges(only)]);
        }
        if !self.without.is_empty() {
            words.extend([
                "--without".into(),
                list(self.without.iter().map(|part| part.name().to_owned()).collect()),
            ]);
        }
        words
    }
}

/// A set of numbers as people write it: `3,17-20`.
fn ranges(numbers: &BTreeSet<usize>) -> String {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match found.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            Some(_) | None => found.push((*number, *number)),
        }
    }
    let words = found.into_iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    words.collect::<Vec<_>>().join(",")
}

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
    /// In thousandths of all messages by a connection: something befalls it soon.
    pub(crate) resets: u64,
    /// In thousandths of all attempts to connect: they come to nothing.
    pub(crate) refused: u64,
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
    pub(crate) choice: Choice,
    pub(crate) seed: u64,
    pub(crate) calls: usize,
    pub(crate) shards: u16,
    pub(crate) workers: u16,
    /// Port pairs of one worker.
    pub(crate) pairs: u16,
    pub(crate) faults: Faults,
    pub(crate) panics: Panics,
    pub(crate) kills: u64,
    /// How often a shard stands still.
    pub(crate) fences: u64,
    /// In thousandths of all commits.
    pub(crate) slow_disk: u64,
    /// The mean time from one call to the next.
    pub(crate) gap_us: u64,
    pub(crate) keepalive: bool,
    /// How often a stranger sends nonsense.
    pub(crate) nonsense: usize,
}

impl Plan {
    /// The run of a choice. Its weather follows from the seed modulo 5: calm, lossy, wild, faulty, deadly.
    pub(crate) fn new(choice: &Choice) -> Plan {
        let (seed, calls) = (choice.seed, choice.calls);
        let mut rng = Rng::new(seed, 0);
        let weather = seed % 5;
        let delay_us = rng.pick(&[1_000, 8_000, 30_000]);
        let mut faults = match weather {
            0 => Faults { delay_us, ..Faults::default() },
            1 => Faults {
                loss: 10 + rng.below(140),
                delay_us,
                full: 5,
                resets: 10,
                refused: 50,
                ..Faults::default()
            },
            _ => Faults {
                loss: rng.below(80),
                doubled: rng.below(40),
                late: rng.below(40),
                delay_us,
                full: rng.below(5),
                resets: rng.below(20),
                refused: rng.below(100),
            },
        };
        let mut panics = match weather {
            3 | 4 => Panics { call: 4_000, dialog: 4_000, named: 20_000, session: 4_000, worker: 400 },
            _ => Panics::default(),
        };
        let shards = 1 + rng.below(4) as u16;
        let workers = 1 + rng.below(2) as u16;
        let pairs = rng.pick(&[64, 400, 400]);
        let gap_us = rng.pick(&[30_000, 100_000, 200_000]);
        // As long as it takes a proxy to come and go.
        let gap_us = if choice.trunks { 600_000 } else { gap_us };
        let keepalive = rng.permille(500) && choice.has(Part::Keepalive);
        let nonsense = calls * rng.pick(&[1, 2, 4]);
        let off = |part: Part, value: &mut u64| {
            if !choice.has(part) {
                *value = 0;
            }
        };
        off(Part::Loss, &mut faults.loss);
        off(Part::Doubled, &mut faults.doubled);
        off(Part::Late, &mut faults.late);
        off(Part::Full, &mut faults.full);
        off(Part::Resets, &mut faults.resets);
        off(Part::Resets, &mut faults.refused);
        if !choice.has(Part::Panics) {
            panics = Panics::default();
        }
        let mut kills = if weather == 4 { 2 + calls as u64 / 150 } else { 0 };
        off(Part::Kills, &mut kills);
        let mut fences = if weather == 4 { 2 + calls as u64 / 150 } else { 0 };
        off(Part::Fences, &mut fences);
        let mut slow_disk = if weather >= 2 { 5 } else { 0 };
        off(Part::SlowDisk, &mut slow_disk);
        Plan {
            choice: choice.clone(),
            seed,
            calls,
            shards,
            workers,
            pairs,
            faults,
            panics,
            kills,
            fences,
            slow_disk,
            gap_us,
            keepalive,
            nonsense: if choice.has(Part::Nonsense) { nonsense } else { 0 },
        }
    }

    /// True if operators break actors.
    pub(crate) fn is_chaotic(&self) -> bool {
        self.panics.call > 0 && self.choice.has(Part::Chaos)
    }

    /// The range of the media ports: so many pairs for each worker.
    pub(crate) fn media_ports(&self) -> (u16, u16) {
        (20_000, 20_000 + 2 * self.pairs * self.workers - 1)
    }

    /// True if a request may be sent again although it is answered, or come twice.
    pub(crate) fn repeats(&self) -> bool {
        self.faults.loss > 0
            || self.faults.doubled > 0
            || self.faults.resets > 0
            || self.kills > 0
            || self.fences > 0
            || self.nonsense > 0
    }

    /// The longest that a datagram is on its way.
    pub(crate) fn longest_way_us(&self) -> u64 {
        let late = if self.faults.late > 0 { 400_000 } else { 0 };
        2_300 + late.max(self.faults.delay_us)
    }

    /// True if every deviation from the RFCs that a phone sees is a fault of the engine's: loss alone makes nobody break a rule.
    pub(crate) fn is_orderly(&self) -> bool {
        self.faults.doubled == 0
            && self.faults.late == 0
            && self.panics.call == 0
            && self.kills == 0
            && self.fences == 0
    }
}
