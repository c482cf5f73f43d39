//! What everyone may know of a station.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tandem_protocol::fnv::fnv1a;
use tandem_protocol::index::Index;
use tandem_protocol::registrar::Binding;
use tandem_protocol::time::Instant;

use super::bindings::KeptBindings;
use super::{NoPlace, Permit, Toll, Watched, take_below};
use crate::config::Station;
use crate::seat::Seat;
use crate::station::freeze_bindings;

/// What everyone may know of a station.
pub struct StationEntry {
    /// Its settings.
    pub config: Station,
    standing: Arc<Standing>,
}

/// What has come about of a station, shared by its entries under several settings.
pub(crate) struct Standing {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its calls.
    calls: AtomicU32,
    /// Whether the shard where it lives has it among those that are registered. No other asks.
    pub(crate) listed: AtomicBool,
    bindings: ArcSwapOption<KeptBindings>,
    /// Its new calls, and those to the outside, once there are any to be counted.
    toll: OnceLock<Box<Toll>>,
}

impl Standing {
    /// Its bindings as of now, if it has any.
    pub(crate) fn bindings(&self) -> Option<Arc<KeptBindings>> {
        self.bindings.load_full()
    }
}

impl StationEntry {
    pub(super) fn new(config: Station) -> StationEntry {
        let standing = Standing {
            name: config.name.clone(),
            calls: AtomicU32::new(0),
            listed: AtomicBool::new(false),
            bindings: ArcSwapOption::empty(),
            toll: OnceLock::new(),
        };
        StationEntry { config, standing: Arc::new(standing) }
    }

    /// The same station with other settings: its bindings and its calls are the same ones.
    pub(super) fn with(&self, config: Station) -> StationEntry {
        StationEntry { config, standing: self.standing.clone() }
    }

    /// What has come about of it.
    pub(crate) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Its bindings as of now, if it has any.
    pub fn kept(&self) -> Option<Arc<KeptBindings>> {
        self.standing.bindings()
    }

    /// Its bindings as of now, to be changed or carried off.
    pub fn bindings(&self) -> Vec<Binding> {
        self.kept().map(|kept| kept.thaw()).unwrap_or_default()
    }

    /// How many bindings it has.
    pub fn binding_count(&self) -> usize {
        self.standing.bindings.load().as_ref().map_or(0, |kept| kept.len())
    }

    /// Whether it has bindings, be they expired or not.
    pub fn is_registered(&self) -> bool {
        self.standing.bindings.load().is_some()
    }

    /// Publishes its bindings. Only its actor, and the start from the store, may.
    pub fn publish(&self, bindings: &[Binding]) {
        self.publish_frozen(freeze_bindings(bindings).as_ref(), bindings);
    }

    /// The same with the form that [`freeze_bindings`] has made of them.
    pub(crate) fn publish_frozen(&self, frozen: Option<&Bytes>, bindings: &[Binding]) {
        let kept = frozen.and_then(|frozen| KeptBindings::new(frozen, bindings));
        self.standing.bindings.store(kept.map(Arc::new));
    }

    /// Its calls now.
    pub fn calls(&self) -> u32 {
        self.standing.calls.load(Ordering::Relaxed)
    }

    /// What is known of its new calls and of those to the outside; begun if nothing is.
    pub fn toll(&self) -> &Toll {
        self.standing.toll.get_or_init(Box::default)
    }

    /// Its outside calls, if there have been any.
    pub fn watched(&self) -> Option<&Arc<Watched>> {
        self.standing.toll.get()?.watched()
    }

    /// Whether there is suddenly too much of what a call adds to.
    pub fn is_sudden(&self, international: bool) -> bool {
        self.standing.toll.get().is_some_and(|toll| toll.is_sudden(international))
    }

    /// Takes one of its new calls, if there is one left.
    pub fn take_new_call(&self, now: Instant) -> bool {
        let per_min = self.config.rules.toll.max_new_calls_per_min;
        per_min == 0 || self.toll().take_call(per_min, now)
    }

    /// How many calls it may have.
    fn limit(&self) -> u32 {
        Some(self.config.rules.max_calls).filter(|most| *most > 0).unwrap_or(u32::MAX)
    }

    /// A call has its place no longer.
    pub(crate) fn give_back(&self) {
        self.standing.calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// A place for a call of the shard in this seat, unless it has as many as it may.
    pub fn permit(self: &Arc<Self>, seat: &Arc<Seat>) -> Option<Permit> {
        take_below(&self.standing.calls, self.limit()).then(|| Permit::of_station(self, seat))
    }

    /// A place for a call that it makes.
    ///
    /// # Errors
    /// It has as many as it may, or has begun as many within a minute as it may.
    pub fn call_permit(self: &Arc<Self>, seat: &Arc<Seat>, now: Instant) -> Result<Permit, NoPlace> {
        let permit = self.permit(seat).ok_or(NoPlace::Calls)?;
        if self.take_new_call(now) { Ok(permit) } else { Err(NoPlace::Rate) }
    }

    /// A place for an emergency call, which no limit refuses.
    pub fn emergency_permit(self: &Arc<Self>, seat: &Arc<Seat>) -> Permit {
        self.standing.calls.fetch_add(1, Ordering::Relaxed);
        Permit::of_station(self, seat)
    }

    /// True while it has as many calls as it may.
    pub fn is_full(&self) -> bool {
        self.calls() >= self.limit()
    }
}

/// The stations of one set of settings.
#[derive(Default)]
pub(super) struct Stations {
    /// In the order of their names.
    list: Box<[Arc<StationEntry>]>,
    by_name: Index,
    /// The first station, by name, of each extension: so that one that does not exist takes no longer to find.
    by_extension: Index,
}

impl Stations {
    /// Of two with one name the later counts.
    pub(super) fn new(mut entries: Vec<Arc<StationEntry>>) -> Stations {
        entries.reverse();
        entries.sort_by(|a, b| a.config.name.cmp(&b.config.name));
        entries.dedup_by(|a, b| a.config.name == b.config.name);
        let mut stations = Stations {
            by_name: Index::with_room(entries.len()),
            by_extension: Index::with_room(entries.len()),
            list: entries.into_boxed_slice(),
        };
        for (place, entry) in stations.list.iter().enumerate() {
            stations.by_name.insert(fnv1a(entry.config.name.bytes()), place, |_| 0);
            if stations.extension(&entry.config.extension).is_none() {
                stations.by_extension.insert(fnv1a(entry.config.extension.bytes()), place, |_| 0);
            }
        }
        stations
    }

    /// The one of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<StationEntry>> {
        let place = self.by_name.find(fnv1a(name.bytes()), |place| *self.list[place].config.name == *name);
        self.list.get(place?)
    }

    /// The one of this extension.
    pub(super) fn extension(&self, number: &str) -> Option<&Arc<StationEntry>> {
        let is_it = |place: usize| *self.list[place].config.extension == *number;
        self.list.get(self.by_extension.find(fnv1a(number.bytes()), is_it)?)
    }

    /// Every one, by name.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Arc<StationEntry>> {
        self.list.iter()
    }
}
