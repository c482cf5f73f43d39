//! Finds targets and finds them again as what is known of them runs out. Whoever drives it asks the servers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cache::{Bounds, Cache};
use super::locate::{Step, locate};
use super::{Answer, Located, Query, Target};
use crate::time::Instant;

/// Between two walks for one target lies at least this.
const PAUSE: Duration = Duration::from_millis(100);
/// A target that needs no DNS is looked at again after this, for no reason but that everything has a time.
const NUMERIC: Duration = Duration::from_secs(86_400);

/// What happens to a [`Resolver`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A target is wanted, until it is forgotten.
    Watch(Target),
    /// It is wanted no longer.
    Forget(Target),
    /// What came of an [`Output::Ask`].
    Answered(Query, Answer),
    /// [`Resolver::deadline`] has passed.
    Timeout,
}

/// What a [`Resolver`] wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask the servers; exactly one [`Input::Answered`] is to follow, in bounded time.
    Ask(Query),
    /// What was found for a target, the first time and each time it was asked again.
    Located(Target, Located),
}

/// A target that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Watch {
    /// When the walk that is under way began.
    begun: Option<Instant>,
    /// The answers that it waits for.
    waiting: Vec<Query>,
    /// When the next one is due.
    due: Instant,
    /// The answers that the last result stands on.
    used: Vec<Query>,
}

/// The targets that are wanted, and every answer they stand on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    cache: Cache,
    watches: BTreeMap<Target, Watch>,
}

impl Resolver {
    /// One that knows nothing yet.
    pub fn new(bounds: Bounds) -> Resolver {
        Resolver { cache: Cache::new(bounds), watches: BTreeMap::new() }
    }

    /// Takes one input at `now`, pushing what is to be done to `out`.
    pub fn handle(&mut self, input: &Input, now: Instant, out: &mut Vec<Output>) {
        match input {
            Input::Watch(target) => {
                let new = Watch { begun: None, waiting: Vec::new(), due: now, used: Vec::new() };
                self.watches.entry(target.clone()).or_insert(new);
            }
            Input::Forget(target) => {
                self.watches.remove(target);
                self.tidy();
            }
            Input::Answered(query, answer) => self.cache.keep(query, answer, now),
            Input::Timeout => {}
        }
        let ready = |watch: &Watch| match (watch.begun, input) {
            (Some(_), Input::Answered(query, _)) => watch.waiting.contains(query),
            (Some(_), Input::Watch(_) | Input::Forget(_) | Input::Timeout) => false,
            (None, _) => watch.due <= now,
        };
        let ready: Vec<Target> =
            self.watches.iter().filter(|(_, watch)| ready(watch)).map(|(target, _)| target.clone()).collect();
        for target in ready {
            self.walk(&target, now, out);
        }
    }

    /// When the first target must be asked for again; `None` while nothing is wanted, or all that is is on its way.
    pub fn deadline(&self) -> Option<Instant> {
        self.watches.values().filter(|watch| watch.begun.is_none()).map(|watch| watch.due).min()
    }

    /// The same after a fault of whoever drives it: what was on its way is asked for again.
    pub fn resume(&mut self, now: Instant) {
        self.cache.nothing_asked();
        for watch in self.watches.values_mut().filter(|watch| watch.begun.is_some()) {
            watch.begun = None;
            watch.waiting.clear();
            watch.due = now;
        }
    }

    fn walk(&mut self, target: &Target, now: Instant, out: &mut Vec<Output>) {
        let Some(watch) = self.watches.get_mut(target) else { return };
        let begun = *watch.begun.get_or_insert(now);
        let cache = &self.cache;
        let found = locate(target, &|query| cache.get(query, begun, now));
        match found.step {
            Step::Ask(queries) => {
                for query in &queries {
                    if self.cache.ask(query, now) {
                        out.push(Output::Ask(query.clone()));
                    }
                }
                watch.waiting = queries;
            }
            Step::Done { servers, because } => {
                // Something always lies between two walks, whatever an answer says of its life.
                let until = self.cache.good_until(&found.used).unwrap_or(now + NUMERIC);
                let until = until.max(now + PAUSE);
                let because = because.or_else(|| self.cache.stale(&found.used));
                let changed = watch.used != found.used;
                *watch = Watch { begun: None, waiting: Vec::new(), due: until, used: found.used };
                out.push(Output::Located(target.clone(), Located { servers, because, until }));
                if changed {
                    self.tidy();
                }
            }
        }
    }

    /// Forgets the answers that no target stands on. While a walk is under way it may still need some.
    fn tidy(&mut self) {
        if self.watches.values().all(|watch| watch.begun.is_none()) {
            let used: BTreeSet<&Query> = self.watches.values().flat_map(|watch| &watch.used).collect();
            self.cache.retain(&used);
        }
    }

    /// How many answers are kept.
    #[cfg(test)]
    pub(super) fn answers(&self) -> usize {
        self.cache.len()
    }
}
