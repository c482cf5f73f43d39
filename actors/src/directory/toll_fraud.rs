//! What is known of the outside calls of a station, or by a trunk: only of those that have had some.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tandem_protocol::time::Instant;
use tandem_protocol::toll_fraud::{Change, Measure, Past, Surge, Thresholds, call_rate};

use crate::ids::ShardId;

/// Whose calls are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A station, for what it dials or forwards.
    Station(Arc<str>),
    /// A trunk, for what leaves by it, and for what its callers dial that leaves by another.
    Trunk(Arc<str>),
}

impl Who {
    /// From `station:NAME` or `trunk:NAME`.
    pub fn parse(text: &str) -> Option<Who> {
        match text.split_once(':')? {
            ("station", name) => Some(Who::Station(name.into())),
            ("trunk", name) => Some(Who::Trunk(name.into())),
            _ => None,
        }
    }

    /// The label in metrics, and the name of the fact in events.
    pub fn kind(&self) -> &'static str {
        match self {
            Who::Station(_) => "station",
            Who::Trunk(_) => "trunk",
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Who::Station(name) | Who::Trunk(name) => name,
        }
    }
}

/// What happens to an outside call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It begins.
    Begun,
    /// It is answered.
    Answered,
    /// It is over, having been answered.
    Ended,
}

/// The outside calls of one.
#[derive(Debug)]
pub struct Watched {
    /// Whose.
    pub who: Who,
    surge: ArcSwap<Surge>,
    /// Of what there is suddenly too much: a bit for each of [`Measure::ALL`].
    sudden: AtomicU8,
    /// The shard that lets time pass for it.
    home: AtomicU16,
}

impl Watched {
    fn new(who: Who, past: Past, now: Instant) -> Watched {
        Watched {
            who,
            surge: ArcSwap::from_pointee(Surge::new(past, now)),
            sudden: AtomicU8::new(0),
            home: AtomicU16::new(0),
        }
    }

    /// Counts a step of a call. Any shard may, at once with others; the change of each is told to one of them.
    pub fn count(&self, step: Step, international: bool, now: Instant, limits: &Thresholds) -> Vec<Change> {
        self.change(|surge| match step {
            Step::Begun => surge.begin(international, now, limits),
            Step::Answered => surge.answer(international, now, limits),
            Step::Ended => surge.end(international, now, limits),
        })
    }

    /// Time has passed.
    pub fn tick(&self, now: Instant, limits: &Thresholds) -> Vec<Change> {
        if self.surge.load().is_quiet() {
            return Vec::new();
        }
        self.change(|surge| surge.tick(now, limits))
    }

    /// Somebody has looked at it: what the last hour held counts no more.
    pub fn clear(&self, now: Instant, limits: &Thresholds) -> Vec<Change> {
        self.change(|surge| surge.clear(now, limits))
    }

    /// An answered call is gone, and there is no telling when.
    pub fn drop_call(&self, international: bool) {
        self.change(|surge| {
            surge.drop_call(international);
            Vec::new()
        });
    }

    fn change(&self, step: impl Fn(&mut Surge) -> Vec<Change>) -> Vec<Change> {
        let mut changes = Vec::new();
        self.surge.rcu(|before| {
            let mut surge = (**before).clone();
            changes = step(&mut surge);
            surge
        });
        for change in &changes {
            let bit = 1 << (change.measure as u8);
            match change.sudden {
                true => self.sudden.fetch_or(bit, Ordering::Relaxed),
                false => self.sudden.fetch_and(!bit, Ordering::Relaxed),
            };
        }
        changes
    }

    /// Of what there is suddenly too much.
    pub fn sudden(&self) -> impl Iterator<Item = Measure> + use<> {
        let bits = self.sudden.load(Ordering::Relaxed);
        Measure::ALL.into_iter().filter(move |measure| bits & (1 << (*measure as u8)) != 0)
    }

    /// Answered calls that are counted now.
    pub fn calls_up(&self) -> u32 {
        self.surge.load().calls_up()
    }

    /// The shard that lets time pass for it.
    pub fn home(&self) -> ShardId {
        ShardId(self.home.load(Ordering::Relaxed))
    }

    /// This shard lets time pass for it.
    pub fn live_on(&self, shard: ShardId) {
        self.home.store(shard.0, Ordering::Relaxed);
    }

    /// What is usual, to be kept.
    pub fn past(&self) -> Past {
        self.surge.load().past()
    }
}

/// What the settings before and after a reload share of one.
#[derive(Debug, Default)]
pub struct Toll {
    /// When its share of new calls is whole again, as [`call_rate::take`] says.
    full_at: AtomicU64,
    past: OnceLock<Past>,
    watched: OnceLock<Arc<Watched>>,
}

impl Toll {
    /// Takes one of its new calls, if there is one left.
    pub fn take_call(&self, per_min: u32, now: Instant) -> bool {
        let take = |full_at| call_rate::take(Instant(full_at), per_min, now).map(|next| next.0);
        per_min == 0 || self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// What was usual in the process before. Only the start may.
    pub fn remember(&self, past: Past) {
        // It is said once.
        let _ = self.past.set(past);
    }

    /// Its outside calls, if there have been any.
    pub fn watched(&self) -> Option<&Arc<Watched>> {
        self.watched.get()
    }

    /// Its outside calls; the second is true for the first of them.
    pub fn watch(&self, who: impl FnOnce() -> Who, now: Instant) -> (&Arc<Watched>, bool) {
        let mut first = false;
        let watched = self.watched.get_or_init(|| {
            first = true;
            Arc::new(Watched::new(who(), self.past.get().copied().unwrap_or_default(), now))
        });
        (watched, first)
    }

    /// Whether there is suddenly too much of what a call adds to.
    pub fn is_sudden(&self, international: bool) -> bool {
        let adds = |measure: Measure| international || !measure.is_international();
        self.watched().is_some_and(|watched| watched.sudden().any(adds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_take_calls_at_once_get_no_more_than_there_are() {
        let toll = Toll::default();
        let taken: usize = std::thread::scope(|scope| {
            let tries = || (0..1_000).filter(|_| toll.take_call(60, Instant(1))).count();
            let shards: Vec<_> = (0..4).map(|_| scope.spawn(tries)).collect();
            shards.into_iter().map(|shard| shard.join().unwrap()).sum()
        });
        assert_eq!(taken, 60);
        assert!((0..100).all(|_| toll.take_call(0, Instant(1))));
    }

    #[test]
    fn calls_of_several_shards_make_one_alarm() {
        let toll = Toll::default();
        let limits = Thresholds { factor: 4, least: [0, 0, 100, 0] };
        let told: usize = std::thread::scope(|scope| {
            let calls = || {
                let (watched, _) = toll.watch(|| Who::Station("1001".into()), Instant(1));
                (0..50).map(|_| watched.count(Step::Begun, true, Instant(1), &limits).len()).sum::<usize>()
            };
            let shards: Vec<_> = (0..4).map(|_| scope.spawn(calls)).collect();
            shards.into_iter().map(|shard| shard.join().unwrap()).sum()
        });
        assert_eq!(told, 1);
        assert!(toll.is_sudden(true) && !toll.is_sudden(false), "calls at home go on");
        let watched = toll.watched().unwrap();
        assert_eq!(watched.sudden().collect::<Vec<_>>(), [Measure::InternationalCalls]);
        assert_eq!(watched.tick(Instant(3_900_000_000), &limits).len(), 1);
        assert!(!toll.is_sudden(true));
    }
}
