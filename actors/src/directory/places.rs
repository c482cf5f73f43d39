//! The places of a trunk's or registration's list: at each an address that the settings give, or a name with what DNS has found for it.

use std::net::SocketAddr;
use std::sync::Arc;

use tandem_protocol::decimal::socket_addr;
use tandem_protocol::dns::{Located, order};
use tandem_protocol::proxy_list::{Proxy, ProxyHealth, whose_turn};
use tandem_protocol::trunk_health::State;

use crate::config::NamedProxy;

/// What stands at one place.
#[derive(Clone)]
enum Place {
    Address(Proxy),
    Name {
        /// As a URI writes it.
        host: String,
        /// The same without a port: whom a certificate is for (RFC 5922 §4).
        domain: Arc<str>,
        /// Its share of the calls among the places.
        weight: u16,
        /// `None`: not found yet.
        located: Option<Arc<Located>>,
    },
}

impl Place {
    fn proxies(&self) -> Vec<Proxy> {
        match self {
            Place::Address(proxy) => vec![*proxy],
            Place::Name { located, .. } => {
                let servers = located.iter().flat_map(|located| &located.servers);
                let proxies = servers.flat_map(|server| {
                    let (priority, weight) = (server.priority, server.weight);
                    server.addresses.iter().map(move |address| Proxy { address: *address, priority, weight })
                });
                proxies.collect()
            }
        }
    }

    fn weight(&self) -> u16 {
        match self {
            Place::Address(proxy) => proxy.weight,
            Place::Name { weight, .. } => *weight,
        }
    }

    /// Its addresses in the order of one call (RFC 2782).
    fn draw(&self, chance: &mut dyn FnMut() -> u64) -> Vec<SocketAddr> {
        match self {
            Place::Address(proxy) => vec![proxy.address],
            Place::Name { located, .. } => {
                located.as_ref().map(|located| order(&located.servers, chance)).unwrap_or_default()
            }
        }
    }
}

/// The places of one list as of one moment.
#[derive(Clone)]
pub struct Places(Vec<Place>);

impl Places {
    /// Those of a trunk or registration before DNS has found anything.
    pub fn new(proxies: &[Proxy], named: &[NamedProxy]) -> Places {
        let mut places: Vec<Place> = proxies.iter().map(|proxy| Place::Address(*proxy)).collect();
        for (number, named) in named.iter().enumerate() {
            let (host, domain) = (named.target.to_string(), named.target.host.clone());
            let name = Place::Name { host, domain, weight: named.weight, located: None };
            // The named ones before it stand in the list already.
            places.insert((named.after + number).min(places.len()), name);
        }
        Places(places)
    }

    /// The same with what was found for named proxy `number`.
    pub(super) fn with(&self, number: usize, found: Arc<Located>, named: &[NamedProxy]) -> Places {
        let mut next = self.clone();
        let at = named.get(number).map(|named| named.after + number);
        if let Some(Place::Name { located, .. }) = at.and_then(|at| next.0.get_mut(at)) {
            *located = Some(found);
        }
        next
    }

    /// Each address once, in the order of the places and of the priorities at each.
    pub fn list(&self) -> Vec<Proxy> {
        let mut list: Vec<Proxy> = Vec::new();
        for proxy in self.0.iter().flat_map(Place::proxies) {
            if !list.iter().any(|seen| seen.address == proxy.address) {
                list.push(proxy);
            }
        }
        list
    }

    /// Each address once, in the order of the places and as `chance` draws it at each (RFC 2782).
    pub(super) fn draw(&self, chance: &mut dyn FnMut() -> u64) -> Vec<SocketAddr> {
        let mut drawn: Vec<SocketAddr> = Vec::new();
        for address in self.0.iter().flat_map(|place| place.draw(chance)) {
            if !drawn.contains(&address) {
                drawn.push(address);
            }
        }
        drawn
    }

    /// The addresses of the servers that one of `address` is, without it.
    pub(super) fn beside(&self, address: SocketAddr) -> Vec<SocketAddr> {
        let mut beside = Vec::new();
        let servers = self.0.iter().filter_map(|place| match place {
            Place::Address(_) => None,
            Place::Name { located, .. } => located.as_deref(),
        });
        for server in servers.flat_map(|located| &located.servers) {
            if server.addresses.contains(&address) {
                beside.extend(server.addresses.iter().filter(|other| **other != address));
            }
        }
        beside
    }

    /// True if DNS has a say.
    pub fn by_name(&self) -> bool {
        self.0.iter().any(|place| matches!(place, Place::Name { .. }))
    }

    /// Each name with what was found for it.
    pub fn located(&self) -> impl Iterator<Item = (&str, Option<&Located>)> {
        self.0.iter().filter_map(|place| match place {
            Place::Address(_) => None,
            Place::Name { host, located, .. } => Some((host.as_str(), located.as_deref())),
        })
    }

    /// The host of the first place, for a To that all proxies see.
    pub fn domain(&self) -> Option<String> {
        self.0.first().map(|place| match place {
            Place::Address(proxy) => socket_addr(proxy.address),
            Place::Name { host, .. } => host.clone(),
        })
    }

    /// Whom the certificates of its servers are for: the names that were looked for, whatever DNS has made of them, and addresses.
    pub(super) fn identities(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|place| match place {
            Place::Address(proxy) => proxy.address.ip().to_string(),
            Place::Name { domain, .. } => domain.to_string(),
        })
    }

    /// Whom the certificate of the server at `address` is for: every name that has led there.
    pub(super) fn identities_at(&self, address: SocketAddr) -> Vec<Vec<String>> {
        let leads = |place: &Place| place.proxies().iter().any(|proxy| proxy.address == address);
        let at = self.0.iter().zip(self.identities()).filter(|(place, _)| leads(place));
        at.map(|(_, identity)| vec![identity]).collect()
    }

    /// The addresses that were found by name, each with that name.
    pub fn hosts(&self) -> Vec<(SocketAddr, String)> {
        let named = self.0.iter().filter_map(|place| match place {
            Place::Address(_) => None,
            Place::Name { host, .. } => Some((host, place.proxies())),
        });
        named.flat_map(|(host, all)| all.into_iter().map(|proxy| (proxy.address, host.clone()))).collect()
    }

    /// The proxies in the order that one call tries them, given what is believed of each: their priorities are that order. `turn`
    /// counts the trunk's calls, if the places take turns. The servers of a name share calls as their weights say (RFC 2782), by
    /// `chance`.
    pub(super) fn order(
        &self,
        health: &[ProxyHealth],
        turn: Option<usize>,
        chance: &mut dyn FnMut() -> u64,
    ) -> Vec<ProxyHealth> {
        let of = |address: SocketAddr| health.iter().find(|h| h.proxy.address == address).copied();
        let mut groups: Vec<(ProxyHealth, Vec<ProxyHealth>)> = Vec::new();
        for place in &self.0 {
            let group: Vec<ProxyHealth> = place.draw(chance).into_iter().filter_map(of).collect();
            // The place is as good as the best of its addresses.
            let best = group.iter().min_by_key(|h| h.state.rank());
            if let Some(mut best) = best.copied() {
                (best.proxy.priority, best.proxy.weight) = (0, place.weight());
                groups.push((best, group));
            }
        }
        groups.sort_by_key(|(best, _)| best.state.rank());
        if let Some(turn) = turn {
            let rank = |state: State| state.rank();
            for equals in groups.chunk_by_mut(|(a, _), (b, _)| rank(a.state) == rank(b.state)) {
                let bests: Vec<ProxyHealth> = equals.iter().map(|(best, _)| *best).collect();
                equals.rotate_left(whose_turn(&bests, turn));
            }
        }
        let mut order: Vec<ProxyHealth> = groups.into_iter().flat_map(|(_, group)| group).collect();
        for (place, health) in order.iter_mut().enumerate() {
            health.proxy.priority = u16::try_from(place).unwrap_or(u16::MAX);
        }
        order
    }
}

#[cfg(test)]
mod tests;
