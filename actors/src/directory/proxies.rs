//! The proxies of one trunk: those that the settings give an address of, and those that DNS has found.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::Gauge;
use tandem_protocol::dns::{Located, order};
use tandem_protocol::proxy_list::{ProxyHealth, Selection};

use crate::config::Trunk;
use crate::metrics::TrunkMetrics;

/// Addresses of one trunk that have a gauge of their own; those beyond share one, since a domain may change them for ever.
const GAUGES: usize = 64;
/// The label of those that share one.
const OTHERS: &str = "others";

/// One address that calls are sent to.
#[derive(Clone)]
pub struct Proxy {
    /// The address.
    pub address: SocketAddr,
    up: Arc<AtomicBool>,
    gauge: Gauge,
}

impl Proxy {
    fn new(address: SocketAddr, gauge: Gauge) -> Proxy {
        gauge.set(1.0);
        Proxy { address, up: Arc::new(AtomicBool::new(true)), gauge }
    }

    /// Whether it is believed to answer.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Notes whether it answers; true if that is new. Only the trunk's actor may.
    pub fn set_up(&self, up: bool) -> bool {
        self.gauge.set(if up { 1.0 } else { 0.0 });
        self.up.swap(up, Ordering::Relaxed) != up
    }
}

/// What stands at one place of a trunk's list.
#[derive(Clone)]
enum Entry {
    Address(SocketAddr),
    Name {
        /// As a URI writes it.
        host: String,
        /// `None`: not found yet.
        located: Option<Arc<Located>>,
    },
}

impl Entry {
    fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Entry::Address(address) => vec![*address],
            Entry::Name { located, .. } => located.iter().flat_map(|located| located.addresses()).collect(),
        }
    }
}

/// The proxies of one trunk as of one moment.
#[derive(Clone)]
pub struct Proxies {
    entries: Vec<Entry>,
    /// Each address once, in the order of the entries and their priorities.
    list: Vec<Proxy>,
    /// Every label that a gauge was made for.
    labels: Vec<String>,
}

impl Proxies {
    /// Those of a trunk before DNS has found any.
    pub fn new(trunk: &Trunk, metrics: &TrunkMetrics) -> Proxies {
        let mut entries: Vec<Entry> = trunk.proxies.iter().map(|proxy| Entry::Address(*proxy)).collect();
        for (place, named) in trunk.named.iter().enumerate() {
            let name = Entry::Name { host: named.target.to_string(), located: None };
            // The named ones before it stand in the list already.
            entries.insert((named.after + place).min(entries.len()), name);
        }
        let mut proxies = Proxies { entries, list: Vec::new(), labels: Vec::new() };
        proxies.relist(metrics);
        proxies
    }

    /// The same with what was found for named proxy number `place`; an address that stays keeps its health.
    pub(super) fn with(
        &self,
        place: usize,
        found: Arc<Located>,
        trunk: &Trunk,
        metrics: &TrunkMetrics,
    ) -> Proxies {
        let mut next = self.clone();
        let at = trunk.named.get(place).map(|named| named.after + place);
        if let Some(Entry::Name { located, .. }) = at.and_then(|at| next.entries.get_mut(at)) {
            *located = Some(found);
        }
        next.relist(metrics);
        let gone = self.list.iter().filter(|proxy| next.get(proxy.address).is_none());
        // A gauge cannot be taken away; without a number it is neither up nor down.
        gone.for_each(|proxy| proxy.gauge.set(f64::NAN));
        next
    }

    fn relist(&mut self, metrics: &TrunkMetrics) {
        let mut known: BTreeMap<SocketAddr, Proxy> =
            self.list.drain(..).map(|proxy| (proxy.address, proxy)).collect();
        for address in self.entries.iter().flat_map(Entry::addresses) {
            if self.list.iter().any(|proxy| proxy.address == address) {
                continue;
            }
            let proxy = known.remove(&address).unwrap_or_else(|| {
                let label = address.to_string();
                let own = self.labels.contains(&label) || self.labels.len() < GAUGES;
                let label = if own { label } else { OTHERS.to_owned() };
                let gauge = metrics.up(&label);
                if !self.labels.contains(&label) {
                    self.labels.push(label);
                }
                Proxy::new(address, gauge)
            });
            self.list.push(proxy);
        }
    }

    /// Each once, in order of preference.
    pub fn list(&self) -> impl Iterator<Item = &Proxy> {
        self.list.iter()
    }

    /// One of them.
    pub fn get(&self, address: SocketAddr) -> Option<&Proxy> {
        self.list.iter().find(|proxy| proxy.address == address)
    }

    /// What was found for each named proxy, with its host, in the order of the settings.
    pub fn located(&self) -> impl Iterator<Item = (&str, Option<&Located>)> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Address(_) => None,
            Entry::Name { host, located } => Some((host.as_str(), located.as_deref())),
        })
    }

    /// The host of the first proxy, for a To that all of them see.
    pub fn domain(&self) -> Option<String> {
        self.entries.first().map(|entry| match entry {
            Entry::Address(address) => address.to_string(),
            Entry::Name { host, .. } => host.clone(),
        })
    }

    /// The proxies that were found by name, each with that name.
    pub fn hosts(&self) -> Vec<(SocketAddr, String)> {
        let named = self.entries.iter().filter_map(|entry| match entry {
            Entry::Address(_) => None,
            Entry::Name { host, .. } => Some((host, entry.addresses())),
        });
        named.flat_map(|(host, all)| all.into_iter().map(|address| (address, host.clone()))).collect()
    }

    /// The proxies in the order that one call tries them, and by which rule a walk goes on from there. `round_robin` counts the
    /// trunk's calls, if they begin at each entry in turn. The servers of a name share calls as their weights say
    /// (RFC 2782), by `chance`.
    pub fn order(
        &self,
        round_robin: Option<usize>,
        chance: &mut dyn FnMut() -> u64,
    ) -> (Vec<ProxyHealth>, Selection) {
        let health = |proxy: &Proxy| ProxyHealth { proxy: proxy.address, up: proxy.is_up() };
        let by_name = self.entries.iter().any(|entry| matches!(entry, Entry::Name { .. }));
        if !by_name {
            let selection = match round_robin {
                Some(offset) => Selection::RoundRobin { offset },
                None => Selection::Priority,
            };
            return (self.list.iter().map(health).collect(), selection);
        }
        let groups: Vec<Vec<SocketAddr>> =
            self.entries.iter().map(|entry| self.draw(entry, chance)).collect();
        // As for single proxies: one that is down has no turn of its own, or the next would get the calls of both.
        let is_up = |address: &SocketAddr| self.get(*address).is_some_and(Proxy::is_up);
        let (mut up, down): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.iter().any(is_up));
        let by = round_robin.and_then(|turn| turn.checked_rem(up.len())).unwrap_or(0);
        up.rotate_left(by);
        let order = up.into_iter().chain(down).flatten();
        (order.filter_map(|address| self.get(address)).map(health).collect(), Selection::Priority)
    }

    fn draw(&self, entry: &Entry, chance: &mut dyn FnMut() -> u64) -> Vec<SocketAddr> {
        match entry {
            Entry::Address(address) => vec![*address],
            Entry::Name { located, .. } => {
                located.as_ref().map(|located| order(&located.servers, chance)).unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests;
