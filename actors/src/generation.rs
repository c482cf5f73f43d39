//! The settings in force, and how others take their place while calls are up.
//!
//! A [`Generation`] never changes. A reload makes the next one beside it ([`Generation::next`], on no shard's thread), hands it to every
//! shard, and each takes it over between two messages. A call keeps the one it began with: its [`crate::env::Env`] holds it, so no call ever
//! sees two. What must outlive the settings (permits, bindings, the health of proxies, nonces) is shared between generations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use tandem_protocol::flow::ListenerId;

use crate::config::{EngineConfig, RegistrationGroup, Station, Trunk};
use crate::directory::{Directory, StationEntry};
use crate::ids::ShardId;
use crate::metrics::Metrics;

/// The settings of an engine and what is shared under them.
pub struct Generation {
    /// Counts from 1; one more with each reload that changed something.
    pub number: u64,
    /// The settings; the stations are in the directory alone.
    pub config: EngineConfig,
    /// Bindings, trunk health, permits, nonce windows.
    pub directory: Directory,
}

/// What of a kind the next settings add, change and no longer have, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// New ones.
    pub added: Vec<Arc<str>>,
    /// Those that are set otherwise.
    pub changed: Vec<Arc<str>>,
    /// Those that are gone.
    pub removed: Vec<Arc<str>>,
}

impl Differences {
    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// Both lists by name, in its order.
    pub(crate) fn of<'a, T: PartialEq + 'a>(
        before: impl Iterator<Item = (&'a Arc<str>, &'a T)>,
        after: impl Iterator<Item = (&'a Arc<str>, &'a T)>,
    ) -> Differences {
        let mut differences = Differences::default();
        let (mut before, mut after) = (before.peekable(), after.peekable());
        loop {
            match (before.peek().copied(), after.peek().copied()) {
                (None, None) => return differences,
                (Some((old, was)), Some((new, is))) if old == new => {
                    if was != is {
                        differences.changed.push(new.clone());
                    }
                    before.next();
                    after.next();
                }
                (Some((old, _)), new) if new.is_none_or(|(new, _)| old < new) => {
                    differences.removed.push(old.clone());
                    before.next();
                }
                (_, Some((new, _))) => {
                    differences.added.push(new.clone());
                    after.next();
                }
                (Some((old, _)), None) => {
                    differences.removed.push(old.clone());
                    before.next();
                }
            }
        }
    }
}

/// In what other settings differ from a generation, by what has actors or entries of its own.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Stations.
    pub stations: Differences,
    /// Trunks.
    pub trunks: Differences,
    /// Registration groups.
    pub registration_groups: Differences,
    /// Whether a number may lead elsewhere.
    pub dial_plan: bool,
}

/// The way from one generation to the next.
pub struct Change {
    /// What comes into force.
    pub generation: Arc<Generation>,
    /// What it changes.
    pub comparison: Comparison,
    /// The stations that are gone, as they were.
    pub(crate) gone: Vec<Arc<StationEntry>>,
}

impl Generation {
    /// The first settings of an engine. `directory` has been made of `config`.
    pub fn first(config: EngineConfig, directory: Directory) -> Generation {
        Generation { number: 1, config: without_stations(config), directory }
    }

    /// What differs in `config`. Takes time in proportion to all stations and must run on no shard's thread, as [`Generation::next`].
    pub fn compare(&self, config: &EngineConfig) -> Comparison {
        Comparison {
            stations: Differences::of(
                self.directory.stations().map(|s| (&s.config.name, &s.config)),
                by_name(config.stations.iter().map(|s| (&s.name, s))),
            ),
            trunks: self.compare_trunks(config),
            registration_groups: self.compare_groups(config),
            dial_plan: self.config.dial_plan != config.dial_plan,
        }
    }

    /// One by another listener is another trunk, though it may have the same place.
    fn compare_trunks(&self, config: &EngineConfig) -> Differences {
        let before = |t: &Trunk| self.config.listener_id(t.listener);
        let after = |t: &Trunk| config.listener_id(t.listener);
        let (old, new): (Vec<_>, Vec<_>) = (
            self.directory.trunks().map(|t| (&t.config.name, (before(&t.config), &t.config))).collect(),
            by_name(config.trunks.iter().map(|t| (&t.name, t)))
                .map(|(name, t)| (name, (after(t), t)))
                .collect(),
        );
        Differences::of(old.iter().map(|(name, t)| (*name, t)), new.iter().map(|(name, t)| (*name, t)))
    }

    /// The same of registration groups.
    fn compare_groups(&self, config: &EngineConfig) -> Differences {
        let by = |config: &EngineConfig, group: &RegistrationGroup| -> Vec<ListenerId> {
            group.registrations.iter().map(|registration| config.listener_id(registration.listener)).collect()
        };
        let (old, new): (Vec<_>, Vec<_>) = (
            self.directory
                .registrations()
                .map(|g| (&g.config.name, (by(&self.config, &g.config), &g.config)))
                .collect(),
            by_name(config.registration_groups.iter().map(|g| (&g.name, g)))
                .map(|(name, g)| (name, (by(config, g), g)))
                .collect(),
        );
        Differences::of(old.iter().map(|(name, g)| (*name, g)), new.iter().map(|(name, g)| (*name, g)))
    }

    /// The generation that has `config`: whatever is set as before is the same entry with all that is known of it. Nothing of it shows
    /// until a shard has it.
    pub fn next(&self, mut config: EngineConfig, comparison: Comparison, metrics: &Metrics) -> Change {
        if !comparison.dial_plan {
            // It has a pattern for each station, and is not kept twice for as long as a call keeps the settings before.
            config.dial_plan = self.config.dial_plan.clone();
        }
        let directory = self.directory.next(&config, metrics);
        let removed = &comparison.stations.removed;
        let gone = removed.iter().filter_map(|name| self.directory.station(name).cloned()).collect();
        let config = without_stations(config);
        let generation = Arc::new(Generation { number: self.number + 1, config, directory });
        Change { generation, comparison, gone }
    }

    /// A station's settings.
    pub fn station(&self, name: &str) -> Option<&Station> {
        self.directory.station(name).map(|entry| &entry.config)
    }

    /// A trunk's settings.
    pub fn trunk(&self, name: &str) -> Option<&Trunk> {
        self.directory.trunk(name).map(|entry| &entry.config)
    }

    /// A registration group's settings.
    pub fn registration_group(&self, name: &str) -> Option<&RegistrationGroup> {
        self.directory.registration(name).map(|entry| &entry.config)
    }
}

fn by_name<'a, T: 'a>(
    list: impl Iterator<Item = (&'a Arc<str>, &'a T)>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a T)> {
    list.collect::<BTreeMap<_, _>>().into_iter()
}

/// The directory has the stations, and a million of them are not kept twice.
fn without_stations(mut config: EngineConfig) -> EngineConfig {
    config.stations = Vec::new();
    config
}

impl Change {
    /// The stations that are gone and live on `shard`.
    pub(crate) fn gone_from(&self, shard: ShardId) -> impl Iterator<Item = &Arc<StationEntry>> {
        let here =
            move |entry: &&Arc<StationEntry>| self.generation.directory.home(&entry.config.name) == shard;
        self.gone.iter().filter(here)
    }
}

/// The generation in force, for those that are no shard, and those before that some call still uses.
pub struct Generations {
    current: ArcSwap<Generation>,
    /// Kept until nobody else has them, so that no shard spends its time with the end of a million entries.
    former: Mutex<Vec<Arc<Generation>>>,
}

impl Generations {
    /// That of an engine that starts. `directory` has been made of `config`.
    pub fn new(config: EngineConfig, directory: Directory) -> Generations {
        let first = Generation::first(config, directory);
        Generations { current: ArcSwap::from_pointee(first), former: Mutex::default() }
    }

    /// The one in force. A shard may be a moment behind; it asks its [`crate::env::Env`].
    pub fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// The same for a moment, as cheap as reading a number.
    pub(crate) fn peek(&self) -> Guard<Arc<Generation>> {
        self.current.load()
    }

    pub(crate) fn put(&self, generation: Arc<Generation>) {
        let former = self.current.swap(generation);
        self.former.lock().unwrap_or_else(PoisonError::into_inner).push(former);
    }

    /// Frees the generations that no call uses any more; how many are left. To be called now and then on a thread that may take its time.
    pub fn reap(&self) -> usize {
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = former.extract_if(.., |generation| Arc::strong_count(generation) == 1);
        let unused: Vec<Arc<Generation>> = unused.collect();
        let left = former.len();
        drop(former);
        drop(unused);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(list: &[(&str, u8)]) -> Vec<(Arc<str>, u8)> {
        list.iter().map(|(name, value)| (Arc::from(*name), *value)).collect()
    }

    #[test]
    fn what_differs_is_found_by_name() {
        let before = named(&[("a", 1), ("b", 1), ("d", 1), ("e", 1)]);
        let after = named(&[("b", 1), ("c", 1), ("d", 2), ("f", 1)]);
        let of = |list: &'_ [(Arc<str>, u8)]| list.to_vec();
        let (before, after) = (of(&before), of(&after));
        let found = Differences::of(before.iter().map(|(n, v)| (n, v)), after.iter().map(|(n, v)| (n, v)));
        let names = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&found.added), ["c", "f"]);
        assert_eq!(names(&found.changed), ["d"]);
        assert_eq!(names(&found.removed), ["a", "e"]);
        let same = Differences::of(after.iter().map(|(n, v)| (n, v)), after.iter().map(|(n, v)| (n, v)));
        assert!(same.is_empty());
    }
}
