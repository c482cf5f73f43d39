//! The only state that shards share: bindings, trunk health, permits, nonce windows.
//!
//! Each entry has one writer, its actor; readers take an [`Arc`] snapshot and never wait. What several write at once
//! (permits, nonce windows, round robin) is an atomic.

mod bindings;
mod overload_control;
mod permit;
mod places;
mod registration;
mod secure;
mod station;
mod toll_fraud;
mod trunk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use tandem_protocol::dialog::LocalSide;
use tandem_protocol::digest::{NonceSigner, NonceWindows, Throttle};
use tandem_protocol::flow::{ConnectionId, Flow, ListenerId, Transport};
use tandem_protocol::fnv::fnv1a;

use crate::config::{EngineConfig, Listener, RegistrationGroup, Station, Trunk};
use crate::ids::ShardId;
use crate::metrics::Metrics;
use crate::sip::peers::StreamPeers;
use crate::sip::tls::SecurePeers;

use station::Stations;

pub use bindings::KeptBindings;
pub use overload_control::OverloadControl;
pub use permit::{Permit, PlaceOf};
pub use places::Places;
pub use registration::{Account, MemberStatus, RegistrationEntry, RegistrationStatus};
pub(crate) use station::Standing;
pub use station::StationEntry;
pub use toll_fraud::{Step, Toll, Watched, Who};
pub use trunk::{CallRate, NoPlace, ProxyEntry, ProxyStatus, TrunkEntry, TrunkSide};

/// Pairs of source and user, and sources, whose wrong guesses are remembered: 48 bytes each.
const THROTTLE_SLOTS: usize = 16_384;

/// How many calls something has, and how many it may have.
#[derive(Debug, Default)]
pub struct Permits {
    /// Shared with those under other settings, so that calls from before a reload count.
    taken: Arc<AtomicU32>,
    limit: u32,
    /// How many of them are kept for emergency calls.
    kept: u32,
}

impl Permits {
    /// At most `limit` at once; 0: any number.
    pub fn new(limit: u32) -> Permits {
        Permits { taken: Arc::default(), limit, kept: 0 }
    }

    /// The same calls under another limit.
    fn limited(&self, limit: u32) -> Permits {
        Permits { taken: self.taken.clone(), limit, kept: 0 }
    }

    /// The same, of which so many are for emergency calls only.
    pub fn keeping(self, kept: u32) -> Permits {
        Permits { kept, ..self }
    }

    /// How many calls that are no emergencies there may be.
    fn open(&self) -> u32 {
        if self.limit == 0 { u32::MAX } else { self.limit.saturating_sub(self.kept) }
    }

    /// Taken now.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        take_below(&self.taken, self.open())
    }

    /// Taken without regard to the limit.
    fn take_always(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.taken() >= self.open()
    }

    fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes one more if fewer than `limit` are taken.
fn take_below(taken: &AtomicU32, limit: u32) -> bool {
    taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1)).is_ok()
}

/// The hosts that are ours, in lower case.
fn domains(config: &EngineConfig) -> Vec<String> {
    let mut domains: Vec<String> = config.domains.iter().map(|d| d.to_ascii_lowercase()).collect();
    for Listener { address, external, .. } in config.listeners.iter() {
        domains.push(address.ip().to_string());
        domains.push(external.host().to_ascii_lowercase());
    }
    domains.sort();
    domains.dedup();
    domains
}

/// How our side appears to a trunk on its listener.
fn trunk_side(config: &EngineConfig, trunk: &Trunk) -> TrunkSide {
    let listener = config.listeners.get(usize::from(trunk.listener));
    let own = |side| Arc::new(crate::calls::as_trunk_wants(trunk, side));
    let plain = listener.map(|listener| own(crate::calls::local_side(listener)));
    let secure = listener.and_then(crate::calls::secure_side).map(own);
    TrunkSide(plain.unwrap_or_default(), secure)
}

/// The shared state of one engine under one set of settings.
pub struct Directory {
    stations: Stations,
    trunks: BTreeMap<Arc<str>, Arc<TrunkEntry>>,
    registrations: BTreeMap<Arc<str>, Arc<RegistrationEntry>>,
    /// Stations that are known by where their requests come from.
    unmanaged: Vec<Arc<StationEntry>>,
    /// Whose turn it is in each route group.
    group_turns: BTreeMap<Arc<str>, Arc<AtomicUsize>>,
    domains: Vec<String>,
    shards: u16,
    /// Makes and knows our nonces.
    pub nonces: Arc<NonceSigner>,
    /// Which nonce counts were used.
    pub windows: Arc<NonceWindows>,
    /// Who has guessed passwords.
    pub throttle: Arc<Throttle>,
    /// How our side appears on each listener.
    local_sides: Vec<Arc<LocalSide>>,
    /// The same with a `sips` Contact, on those of TLS.
    secure_sides: Vec<Option<Arc<LocalSide>>>,
    /// What flows call the listeners, in the order of their places.
    listeners: Vec<ListenerId>,
    /// Who is known to take streams.
    pub stream_peers: Arc<StreamPeers>,
    /// Who is at the other end of connections by its certificate.
    pub secure_peers: Arc<SecurePeers>,
    /// Which proxies want fewer calls.
    pub overload_control: Arc<OverloadControl>,
    draining: Arc<AtomicBool>,
    /// Whether packets to any trunk are marked.
    marks: bool,
}

impl Directory {
    /// The directory of an engine that starts.
    pub fn new(
        config: &EngineConfig,
        metrics: &Metrics,
        nonces: impl Into<Arc<NonceSigner>>,
        windows: NonceWindows,
    ) -> Directory {
        let nonces = nonces.into();
        let empty = Directory {
            stations: Stations::default(),
            trunks: BTreeMap::new(),
            registrations: BTreeMap::new(),
            unmanaged: Vec::new(),
            group_turns: BTreeMap::new(),
            domains: Vec::new(),
            shards: config.shards,
            throttle: Arc::new(Throttle::new(nonces.derive("throttle"), THROTTLE_SLOTS)),
            nonces,
            windows: Arc::new(windows),
            local_sides: Vec::new(),
            secure_sides: Vec::new(),
            listeners: Vec::new(),
            stream_peers: Arc::default(),
            secure_peers: Arc::default(),
            overload_control: Arc::default(),
            draining: Arc::default(),
            marks: false,
        };
        empty.next(config, metrics)
    }

    /// The directory of the same engine with other settings. What is set as before is the same entry; what is set otherwise shares with the
    /// one before what has come about since: calls, bindings, health. The number of shards stays.
    pub(crate) fn next(&self, config: &EngineConfig, metrics: &Metrics) -> Directory {
        let stations = Stations::new(config.stations.iter().map(|s| self.next_station(s)).collect());
        let is_unmanaged =
            |s: &&Arc<StationEntry>| s.config.secret.is_none() && s.config.connection.is_some();
        let turn = |name: &Arc<str>| self.group_turns.get(name).cloned().unwrap_or_default();
        self.stream_peers.note_trunks(config);
        Directory {
            unmanaged: stations.iter().filter(is_unmanaged).cloned().collect(),
            group_turns: config.route_groups.iter().map(|g| (g.name.clone(), turn(&g.name))).collect(),
            stations,
            registrations: config
                .registration_groups
                .iter()
                .map(|g| (g.name.clone(), self.next_registration(g, metrics)))
                .collect(),
            trunks: config
                .trunks
                .iter()
                .map(|t| (t.name.clone(), self.next_trunk(config, t, metrics)))
                .collect(),
            domains: domains(config),
            shards: self.shards,
            throttle: self.throttle.clone(),
            nonces: self.nonces.clone(),
            windows: self.windows.clone(),
            local_sides: config.listeners.iter().map(|l| Arc::new(crate::calls::local_side(l))).collect(),
            secure_sides: config
                .listeners
                .iter()
                .map(|l| crate::calls::secure_side(l).map(Arc::new))
                .collect(),
            listeners: config.listeners.iter().map(|l| l.id).collect(),
            secure_peers: self.secure_peers.clone(),
            overload_control: self.overload_control.clone(),
            stream_peers: self.stream_peers.clone(),
            draining: self.draining.clone(),
            marks: config.trunks.iter().any(|trunk| trunk.rules.dscp.is_some()),
        }
    }

    fn next_station(&self, config: &Station) -> Arc<StationEntry> {
        match self.stations.get(&config.name) {
            Some(same) if same.config == *config => same.clone(),
            Some(before) => Arc::new(before.with(config.clone())),
            None => Arc::new(StationEntry::new(config.clone())),
        }
    }

    fn next_trunk(&self, engine: &EngineConfig, config: &Trunk, metrics: &Metrics) -> Arc<TrunkEntry> {
        // What its listener says of us is part of it.
        let side = trunk_side(engine, config);
        match self.trunks.get(&config.name) {
            Some(same) if same.config == *config && same.has_side(&side) => same.clone(),
            Some(before) => Arc::new(before.with(config, side, metrics)),
            None => Arc::new(TrunkEntry::new(config, side, metrics)),
        }
    }

    fn next_registration(&self, config: &RegistrationGroup, metrics: &Metrics) -> Arc<RegistrationEntry> {
        match self.registrations.get(&config.name) {
            Some(same) if same.config == *config => same.clone(),
            Some(before) => {
                let next = RegistrationEntry::new(config, metrics);
                // What holds is not registered anew.
                next.keep(before.kept().to_vec());
                Arc::new(next)
            }
            None => Arc::new(RegistrationEntry::new(config, metrics)),
        }
    }

    /// A station by name.
    pub fn station(&self, name: &str) -> Option<&Arc<StationEntry>> {
        self.stations.get(name)
    }

    /// A station by the user part of a From or To: its name, or its extension.
    pub fn station_of_user(&self, user: &str) -> Option<&Arc<StationEntry>> {
        // Both are looked up in any case: how long it takes tells nobody which of them exists.
        let (by_name, by_extension) = (self.stations.get(user), self.stations.extension(user));
        by_name.or(by_extension)
    }

    /// A station to be looked at in place of one that does not exist, so that this takes as long; it must have no say.
    pub fn stand_in(&self) -> Option<&Arc<StationEntry>> {
        self.stations.iter().next()
    }

    /// The stations without credentials that have a connection address: where a request comes from says that it is theirs.
    pub fn unmanaged(&self) -> &[Arc<StationEntry>] {
        &self.unmanaged
    }

    /// Whose turn it is in a route group, for round robin.
    pub fn turn_of_group(&self, name: &str) -> usize {
        self.group_turns.get(name).map_or(0, |turn| turn.fetch_add(1, Ordering::Relaxed))
    }

    /// Every station, by name.
    pub fn stations(&self) -> impl Iterator<Item = &Arc<StationEntry>> {
        self.stations.iter()
    }

    /// How our side appears on the listener at a place; the first stands for one that does not exist.
    pub(crate) fn local_side(&self, place: Option<usize>) -> Arc<LocalSide> {
        let side = place.and_then(|place| self.local_sides.get(place)).or_else(|| self.local_sides.first());
        side.cloned().unwrap_or_default()
    }

    /// The same with a `sips` Contact (RFC 3261 §12.1.1), on a listener of TLS.
    pub(crate) fn secure_side(&self, place: usize) -> Option<Arc<LocalSide>> {
        self.secure_sides.get(place)?.clone()
    }

    /// A trunk by name.
    pub fn trunk(&self, name: &str) -> Option<&Arc<TrunkEntry>> {
        self.trunks.get(name)
    }

    /// Every trunk, by name.
    pub fn trunks(&self) -> impl Iterator<Item = &Arc<TrunkEntry>> {
        self.trunks.values()
    }

    /// A registration group by name.
    pub fn registration(&self, name: &str) -> Option<&Arc<RegistrationEntry>> {
        self.registrations.get(name)
    }

    /// Every registration group, by name.
    pub fn registrations(&self) -> impl Iterator<Item = &Arc<RegistrationEntry>> {
        self.registrations.values()
    }

    /// The account that a request is for by the `line` of its Request-URI, which only those know whom we have registered with.
    pub fn account_of_line(&self, line: &str) -> Option<Account> {
        self.registrations.values().find_map(|entry| {
            let (trunk, registration) = entry.of_line(line)?;
            let trunk = self.trunks.get(trunk).cloned()?;
            Some(Account { trunk, entry: entry.clone(), registration })
        })
    }

    /// By which way calls by a trunk go on from its proxy: that of the account that holds there (RFC 3608).
    pub fn service_route(&self, trunk: &str) -> Vec<String> {
        self.registrations.values().find_map(|entry| entry.service_route(trunk)).unwrap_or_default()
    }

    /// The trunk a request belongs to by its source: one of its proxies, or within `accept_from`. Only a datagram comes from the
    /// port that its sender listens on; a stream leads to a proxy if we have opened it to there, and of others it is
    /// `accept_from` alone, or by TLS the certificate.
    pub fn trunk_of_source(&self, source: Flow, transport: Transport) -> Option<&Arc<TrunkEntry>> {
        let from = source.remote;
        let from_there = !transport.is_reliable() || source.connection.is_some_and(ConnectionId::is_ours);
        let proxies = |t: &&Arc<TrunkEntry>| from_there && t.has_proxy(from);
        let known = self.trunks.values().find(proxies).or_else(|| self.trunk_of_certificate(source));
        known.or_else(|| {
            self.trunks.values().find(|t| t.config.accept_from.iter().any(|source| source.contains(from)))
        })
    }

    /// How packets to a peer are marked: as the settings of its trunk say (RFC 2474).
    pub fn dscp_towards(&self, flow: Flow) -> Option<u8> {
        if !self.marks {
            return None;
        }
        let marked = self.trunks.values().filter(|trunk| trunk.config.rules.dscp.is_some());
        let is_its = |trunk: &&Arc<TrunkEntry>| {
            let accepted = || trunk.config.accept_from.iter().any(|source| source.contains(flow.remote));
            trunk.has_proxy(flow.remote) || accepted()
        };
        marked.into_iter().find(is_its).and_then(|trunk| trunk.config.rules.dscp)
    }

    /// True if `host` is one of our domains.
    pub fn is_ours(&self, host: &str) -> bool {
        self.domains.iter().any(|domain| domain.eq_ignore_ascii_case(host))
    }

    /// The shard where the actor of a station, trunk or registration group lives.
    pub fn home(&self, name: &str) -> ShardId {
        ShardId((fnv1a(name.bytes()) % u64::from(self.shards.max(1))) as u16)
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// True while new calls are refused.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Refuses new calls from now on, or no longer.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }
}
