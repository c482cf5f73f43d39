//! What everyone may know of a trunk: where its calls go, what is believed of each proxy, and how many calls it has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};
use tandem_protocol::dialog::LocalSide;
use tandem_protocol::dns::Located;
use tandem_protocol::proxy_list::{Proxy, ProxyHealth, Selection};
use tandem_protocol::time::{Instant, UnixMillis};
use tandem_protocol::trunk_health::State;

use super::{Permit, Permits, Places, Toll};
use crate::config::Trunk;
use crate::metrics::{Metrics, ProxyMetrics, TrunkMetrics};
use crate::seat::Seat;

/// Addresses of one trunk that have gauges of their own; those beyond share some, since a domain may change them for ever.
const GAUGES: usize = 64;

/// What is believed of a proxy, since when and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyStatus {
    /// What.
    pub state: State,
    /// Since when; `None`: since the start.
    pub since: Option<UnixMillis>,
    /// Why it last changed.
    pub cause: Option<String>,
}

/// One proxy of a trunk.
pub struct ProxyEntry {
    /// Where it is, and its share of the calls.
    pub proxy: Proxy,
    status: ArcSwap<ProxyStatus>,
    /// One call may begin with it, though it is down.
    trial: AtomicBool,
    taken: AtomicU64,
    /// When it last answered; microseconds of the monotonic clock.
    alive_at: AtomicU64,
    /// The percentage of new calls that are kept from it, as it was last told of.
    restrained: AtomicU8,
    metrics: ProxyMetrics,
}

impl ProxyEntry {
    fn new(proxy: Proxy, metrics: ProxyMetrics) -> ProxyEntry {
        let status = ProxyStatus::default();
        metrics.show(status.state);
        metrics.show_restraint(0);
        ProxyEntry {
            proxy,
            status: ArcSwap::from_pointee(status),
            trial: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            alive_at: AtomicU64::new(0),
            restrained: AtomicU8::new(0),
            metrics,
        }
    }

    /// What is believed of it as of now.
    pub fn status(&self) -> Arc<ProxyStatus> {
        self.status.load_full()
    }

    /// What it is now.
    pub fn state(&self) -> State {
        self.status.load().state
    }

    /// Publishes what is believed of it. Only the trunk's actor may.
    pub fn publish(&self, status: ProxyStatus) {
        self.metrics.show(status.state);
        self.trial.store(false, Ordering::Relaxed);
        self.status.store(Arc::new(status));
    }

    /// The percentage of new calls that are kept from it, for people.
    pub fn restrained(&self) -> u8 {
        self.restrained.load(Ordering::Relaxed)
    }

    /// Publishes that percentage; what it was. Only the trunk's actor may.
    pub fn restrain(&self, percent: u8) -> u8 {
        self.metrics.show_restraint(percent);
        self.restrained.swap(percent, Ordering::Relaxed)
    }

    /// Lets one call begin with it. Only the trunk's actor may.
    pub fn offer_trial(&self) {
        self.trial.store(true, Ordering::Relaxed);
    }

    fn take_trial(&self) -> bool {
        self.trial.load(Ordering::Relaxed) && self.trial.swap(false, Ordering::Relaxed)
    }

    /// How many calls it has taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// It has taken a call.
    pub fn note_taken(&self, now: Instant) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.note_alive(now);
    }

    /// It has answered something.
    pub fn note_alive(&self, now: Instant) {
        self.alive_at.store(now.0, Ordering::Relaxed);
    }

    /// True if it has answered something after `then`.
    pub fn was_alive_after(&self, then: Instant) -> bool {
        self.alive_at.load(Ordering::Relaxed) > then.0
    }
}

/// Why a trunk has no place for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// It has as many calls as it may.
    Calls,
    /// It has had as many new calls within a second, or for a station a minute, as it may.
    Rate,
}

impl NoPlace {
    /// The reason in events.
    pub fn as_str(self) -> &'static str {
        match self {
            NoPlace::Calls => "limit",
            NoPlace::Rate => "rate limit",
        }
    }
}

/// How many new calls there may be within any second. Any shard asks without waiting.
pub struct CallRate {
    /// When each of the last calls began, one more than its microsecond; empty: any number may.
    begun: Box<[AtomicU64]>,
    next: AtomicUsize,
}

impl CallRate {
    /// At most `per_second`; 0: any number.
    pub fn new(per_second: u32) -> CallRate {
        CallRate { begun: (0..per_second).map(|_| AtomicU64::new(0)).collect(), next: AtomicUsize::new(0) }
    }

    fn take(&self, now: Instant) -> bool {
        loop {
            let next = self.next.load(Ordering::Relaxed);
            let Some(place) = next.checked_rem(self.begun.len()).and_then(|at| self.begun.get(at)) else {
                return true;
            };
            let oldest = place.load(Ordering::Relaxed);
            if oldest > 0 && now.0 < oldest - 1 + 1_000_000 {
                return false;
            }
            let claim =
                self.next.compare_exchange(next, next.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
            if claim.is_ok() {
                place.store(now.0 + 1, Ordering::Relaxed);
                return true;
            }
        }
    }
}

/// How our side appears to a trunk on its listener, and where that is one of TLS with a `sips` Contact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrunkSide(pub Arc<LocalSide>, pub Option<Arc<LocalSide>>);

/// What everyone may know of a trunk.
pub struct TrunkEntry {
    /// Its settings.
    pub config: Trunk,
    /// Its calls.
    pub calls: Permits,
    /// Its calls to the outside; shared with the entries of the same trunk under other settings.
    pub toll: Arc<Toll>,
    /// Its metrics.
    pub metrics: TrunkMetrics,
    /// How our side appears to it, and with a `sips` Contact.
    local: TrunkSide,
    /// Which of its header rules have failed before.
    failed_rules: Box<[AtomicBool]>,
    rate: Arc<CallRate>,
    proxies: ArcSwap<Vec<Arc<ProxyEntry>>>,
    places: ArcSwap<Places>,
    /// The addresses that have gauges of their own.
    gauges: ArcSwap<Vec<SocketAddr>>,
    turn: AtomicUsize,
}

impl TrunkEntry {
    /// A trunk of which nothing is known but its settings.
    pub fn new(config: &Trunk, local: TrunkSide, metrics: &Metrics) -> TrunkEntry {
        let entry = TrunkEntry {
            calls: Permits::new(config.max_calls).keeping(config.emergency_channels),
            toll: Arc::default(),
            metrics: metrics.trunk(&config.name),
            local,
            failed_rules: config.rules.headers.iter().map(|_| AtomicBool::new(false)).collect(),
            rate: Arc::new(CallRate::new(config.max_new_calls_per_s)),
            proxies: ArcSwap::default(),
            places: ArcSwap::from_pointee(Places::new(&config.proxies, &config.named)),
            gauges: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            config: config.clone(),
        };
        entry.set_proxies(&config.proxies, metrics);
        entry
    }

    /// The same trunk with other settings: its calls, and what is believed of the proxies that stay, are the same ones.
    pub(super) fn with(&self, config: &Trunk, local: TrunkSide, metrics: &Metrics) -> TrunkEntry {
        let same_list = self.config.proxies == config.proxies && self.config.named == config.named;
        let same_rate = self.config.max_new_calls_per_s == config.max_new_calls_per_s;
        let rate = || Arc::new(CallRate::new(config.max_new_calls_per_s));
        let entry = TrunkEntry {
            calls: self.calls.limited(config.max_calls).keeping(config.emergency_channels),
            toll: self.toll.clone(),
            metrics: self.metrics.clone(),
            local,
            failed_rules: config.rules.headers.iter().map(|_| AtomicBool::new(false)).collect(),
            rate: if same_rate { self.rate.clone() } else { rate() },
            proxies: ArcSwap::new(self.proxies.load_full()),
            places: if same_list {
                ArcSwap::new(self.places.load_full())
            } else {
                ArcSwap::from_pointee(Places::new(&config.proxies, &config.named))
            },
            gauges: ArcSwap::new(self.gauges.load_full()),
            turn: AtomicUsize::new(self.turn.load(Ordering::Relaxed)),
            config: config.clone(),
        };
        if !same_list {
            // Those that only the settings before had are forgotten when their trunk's shard has these.
            entry.put_proxies(&entry.places().list(), metrics);
        }
        entry
    }

    /// These settings are no longer in force: the proxies that those after them do not have are no longer shown.
    pub(crate) fn retire(&self, successor: Option<&TrunkEntry>) {
        let stays = |old: &ProxyEntry| successor.is_some_and(|next| next.has_proxy(old.proxy.address));
        for gone in self.proxies().iter().filter(|old| !stays(old)) {
            gone.metrics.forget();
        }
    }

    /// True if our side appears to it like this.
    pub(super) fn has_side(&self, side: &TrunkSide) -> bool {
        self.local == *side
    }

    /// How our side appears to it on its listener; with a `sips` Contact if it must.
    pub(crate) fn local_side(&self, sips: bool) -> Arc<LocalSide> {
        self.local.1.as_ref().filter(|_| sips).unwrap_or(&self.local.0).clone()
    }

    /// True if the header rule at this place has not failed before: then it is told.
    pub(crate) fn is_first_failure(&self, place: usize) -> bool {
        self.failed_rules.get(place).is_some_and(|failed| !failed.swap(true, Ordering::Relaxed))
    }

    /// What stands at each place of its list, and what DNS has found for the names among them.
    pub fn places(&self) -> Guard<Arc<Places>> {
        self.places.load()
    }

    /// Notes what DNS has found for the named proxy at this place of the settings; the proxies that the trunk has now, for
    /// [`set_proxies`](Self::set_proxies). Only the trunk's shard may.
    pub fn locate(&self, place: usize, located: Arc<Located>) -> Vec<Proxy> {
        let places = self.places.load().with(place, located, &self.config.named);
        let list = places.list();
        self.places.store(Arc::new(places));
        list
    }

    /// True if these are its proxies, in this order.
    pub fn has_exactly(&self, proxies: &[Proxy]) -> bool {
        self.proxies().iter().map(|entry| &entry.proxy).eq(proxies)
    }

    /// Its proxies in the order that one call tries them, and the rule by which a walk orders them further. See
    /// [`health`](Self::health); `chance` shares the calls among the servers of a name.
    pub fn order(
        &self,
        may_try: bool,
        selection: Selection,
        chance: &mut dyn FnMut() -> u64,
    ) -> (Vec<ProxyHealth>, Selection) {
        let health = self.health(may_try);
        let places = self.places();
        if !places.by_name() {
            return (health, selection);
        }
        let turn = match selection {
            Selection::Priority => None,
            Selection::RoundRobin { offset } => Some(offset),
        };
        (places.order(&health, turn, chance), Selection::Priority)
    }

    /// Its proxies in the order of the settings, or as DNS told them last.
    pub fn proxies(&self) -> Guard<Arc<Vec<Arc<ProxyEntry>>>> {
        self.proxies.load()
    }

    /// The first of its proxies.
    pub fn first_proxy(&self) -> Option<SocketAddr> {
        self.proxies().first().map(|entry| entry.proxy.address)
    }

    /// The other addresses of the server that DNS has found at this one (RFC 8305); none if the settings name the address.
    pub fn addresses_beside(&self, address: SocketAddr) -> Vec<SocketAddr> {
        self.places().beside(address)
    }

    /// True if one of its proxies has this address.
    pub fn has_proxy(&self, address: SocketAddr) -> bool {
        self.proxies().iter().any(|entry| entry.proxy.address == address)
    }

    /// One of its proxies.
    pub fn proxy(&self, address: SocketAddr) -> Option<Arc<ProxyEntry>> {
        self.proxies().iter().find(|entry| entry.proxy.address == address).cloned()
    }

    /// Its calls go to these from now on; calls under way keep theirs. What is believed of those that stay is kept. Only the trunk's
    /// actor, or its shard while that rests, may.
    pub fn set_proxies(&self, proxies: &[Proxy], metrics: &Metrics) {
        let before = self.put_proxies(proxies, metrics);
        for gone in before.iter().filter(|old| !proxies.iter().any(|new| new.address == old.proxy.address)) {
            gone.metrics.forget();
        }
    }

    /// Has these proxies from now on; those from before.
    fn put_proxies(&self, proxies: &[Proxy], metrics: &Metrics) -> Arc<Vec<Arc<ProxyEntry>>> {
        let before = self.proxies.load_full();
        let entry = |proxy: &Proxy| {
            let same = before.iter().find(|entry| entry.proxy.address == proxy.address);
            match same {
                Some(same) if same.proxy == *proxy => same.clone(),
                Some(same) => {
                    let moved = ProxyEntry::new(*proxy, same.metrics.clone());
                    moved.publish((*same.status()).clone());
                    moved.restrain(same.restrained());
                    Arc::new(moved)
                }
                None => Arc::new(ProxyEntry::new(*proxy, self.gauges_of(proxy.address, metrics))),
            }
        };
        self.proxies.store(Arc::new(proxies.iter().map(entry).collect()));
        before
    }

    #[cfg(test)]
    pub(super) fn gauged(&self) -> usize {
        self.gauges.load().len()
    }

    fn gauges_of(&self, address: SocketAddr, metrics: &Metrics) -> ProxyMetrics {
        let known = self.gauges.load();
        if known.contains(&address) {
            return metrics.proxy(&self.config.name, &address.to_string());
        }
        if known.len() >= GAUGES {
            return metrics.proxy(&self.config.name, "others");
        }
        self.gauges.store(Arc::new(known.iter().copied().chain([address]).collect()));
        metrics.proxy(&self.config.name, &address.to_string())
    }

    /// Its proxies as a call that begins now finds them. One that is down and may be tried by one call counts as up for this one,
    /// if it `may_try`.
    pub fn health(&self, may_try: bool) -> Vec<ProxyHealth> {
        let health = |entry: &Arc<ProxyEntry>| {
            let state = match entry.state() {
                State::Down if may_try && entry.take_trial() => State::Up,
                state => state,
            };
            ProxyHealth { proxy: entry.proxy, state }
        };
        self.proxies().iter().map(health).collect()
    }

    /// The rank of its best proxy: a trunk with a lower one is tried first.
    pub fn rank(&self) -> u8 {
        let best = self.proxies().iter().map(|entry| entry.state().rank()).min();
        best.unwrap_or_else(|| State::Down.rank())
    }

    /// Whose turn it is, for round robin.
    pub fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// A place for a call that begins.
    ///
    /// # Errors
    /// It has as many as it may.
    pub fn permit(self: &Arc<Self>, seat: &Arc<Seat>, now: Instant) -> Result<Permit, NoPlace> {
        if self.is_full() {
            return Err(NoPlace::Calls);
        }
        if !self.rate.take(now) {
            return Err(NoPlace::Rate);
        }
        self.permit_again(seat).ok_or(NoPlace::Calls)
    }

    /// A place for a call that had one before a restart.
    pub fn permit_again(self: &Arc<Self>, seat: &Arc<Seat>) -> Option<Permit> {
        let taken = self.calls.take();
        if taken {
            self.metrics.calls.increment(1.0);
        }
        taken.then(|| Permit::of_trunk(self, seat))
    }

    /// A call has its place no longer.
    pub(crate) fn give_back(&self) {
        self.calls.give_back();
        self.metrics.calls.decrement(1.0);
    }

    /// A place for an emergency call, which no limit refuses.
    pub fn emergency_permit(self: &Arc<Self>, seat: &Arc<Seat>) -> Permit {
        self.calls.take_always();
        self.metrics.calls.increment(1.0);
        Permit::of_trunk(self, seat)
    }

    /// True while it has as many calls as it may, but for those kept for emergency calls.
    pub fn is_full(&self) -> bool {
        self.calls.is_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_new_calls_in_any_second() {
        let rate = CallRate::new(3);
        let at = |ms: u64| Instant(ms * 1000);
        for (ms, may) in
            [(0, true), (1, true), (2, true), (3, false), (999, false), (1000, true), (1000, false)]
        {
            assert_eq!(rate.take(at(ms)), may, "{ms}");
        }
        assert!(rate.take(at(1001)) && rate.take(at(1002)) && !rate.take(at(1999)) && rate.take(at(2000)));
        let any = CallRate::new(0);
        assert!((0..1000).all(|_| any.take(at(5))));
    }
}
