//! What each proxy is like at what time. All of it follows from the seed before the run begins, so that the network, the proxy and the
//! judge know the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{OF_MOODS, phones};
use crate::plan::{Part, Plan};
use crate::rng::Rng;

/// After this much silence an INVITE or a BYE is given up by anybody: a proxy is never gone for so long.
const LONGEST_US: u64 = 25_000_000;

/// What a proxy does with what comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// What its phone does.
    Well,
    /// Nothing: it is gone, and nobody says so.
    Silent,
    /// Nothing: no way leads to it.
    Unreachable,
    /// It refuses every INVITE, and may want to be left alone for so many seconds.
    Refuses { status: u16, retry_after: Option<u32> },
    /// It says 100 and no more. After so many microseconds it goes on, and its phone rings, unless it heeded a CANCEL.
    Stalls { on_after_us: u64, heeds: bool },
    /// It says nothing for so many microseconds, and goes on then, whoever is left to hear.
    Slow { on_after_us: u64 },
}

impl Mood {
    /// True if nothing comes to it or from it.
    pub(crate) fn is_down(self) -> bool {
        match self {
            Mood::Silent | Mood::Unreachable => true,
            Mood::Well | Mood::Refuses { .. } | Mood::Stalls { .. } | Mood::Slow { .. } => false,
        }
    }
}

/// A mood, and when it begins.
type Begins = (u64, Mood);

/// The moods of all proxies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moods(BTreeMap<SocketAddr, Vec<Begins>>);

fn any(rng: &mut Rng) -> Mood {
    let on_after_us = 1_000_000 + rng.below(20_000_000);
    match rng.below(100) {
        0..25 => Mood::Silent,
        25..35 => Mood::Unreachable,
        35..50 => Mood::Refuses { status: 503, retry_after: Some(5 + rng.below(55) as u32) },
        50..60 => Mood::Refuses { status: rng.pick(&[500, 502, 503, 504, 480]), retry_after: None },
        60..80 => Mood::Stalls { on_after_us, heeds: rng.permille(500) },
        _ => Mood::Slow { on_after_us },
    }
}

impl Moods {
    pub(crate) fn new(plan: &Plan) -> Moods {
        let mut moods = BTreeMap::new();
        let last = 20_000_000 + plan.gap_us * plan.calls as u64;
        for (n, (_, address, _)) in phones().into_iter().enumerate() {
            let mut rng = Rng::new(plan.seed, OF_MOODS + n as u64);
            let mut at = rng.below(20_000_000);
            let mut list = Vec::new();
            while at < last && plan.choice.has(Part::Trunks) {
                list.push((at, any(&mut rng)));
                at += 1_000_000 + rng.below(LONGEST_US - 1_000_000);
                list.push((at, Mood::Well));
                at += rng.delay(40_000_000);
            }
            moods.insert(address, list);
        }
        Moods(moods)
    }

    /// What the proxy at `address` is like at `at`; anybody else is well.
    pub(crate) fn of(&self, address: SocketAddr, at: u64) -> Mood {
        let Some(list) = self.0.get(&address) else { return Mood::Well };
        let next = list.partition_point(|(begins, _)| *begins <= at);
        next.checked_sub(1).and_then(|last| list.get(last)).map_or(Mood::Well, |(_, mood)| *mood)
    }

    /// Each time that a proxy goes down, with how.
    pub(crate) fn downs(&self) -> impl Iterator<Item = (u64, SocketAddr, Mood)> {
        let down = |(_, mood): &&Begins| mood.is_down();
        self.0.iter().flat_map(move |(address, list)| {
            list.iter().filter(down).map(move |(at, mood)| (*at, *address, *mood))
        })
    }

    /// True if no way led to a proxy at some time from `from` to `until`.
    pub(crate) fn was_unreachable(&self, address: SocketAddr, from: u64, until: u64) -> bool {
        let within = |at: u64, mood| mood == Mood::Unreachable && (from..=until).contains(&at);
        self.of(address, from) == Mood::Unreachable
            || self.downs().any(|(at, who, mood)| who == address && within(at, mood))
    }

    /// True if nothing came to a proxy or from it at some time from `from` to `until`.
    pub(crate) fn was_down(&self, address: SocketAddr, from: u64, until: u64) -> bool {
        let within = |at: u64| (from..=until).contains(&at);
        self.of(address, from).is_down() || self.downs().any(|(at, who, _)| who == address && within(at))
    }

    /// True if a proxy was not well at some time from `from` to `until`.
    pub(crate) fn ailed(&self, address: SocketAddr, from: u64, until: u64) -> bool {
        let within = |(at, mood): &Begins| *mood != Mood::Well && (from..=until).contains(at);
        self.of(address, from) != Mood::Well
            || self.0.get(&address).is_some_and(|list| list.iter().any(within))
    }
}
