//! What everyone may know of our registrations at providers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tandem_protocol::dns::Located;
use tandem_protocol::flow::Flow;
use tandem_protocol::registration::{Granted, State};
use tandem_protocol::time::UnixMillis;

use super::{Directory, Places, TrunkEntry};
use crate::config::{Registration, RegistrationGroup};
use crate::metrics::{Metrics, RegistrationMetrics};
use crate::registration_group::KeptRegistration;

/// Where one registration of a group stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its state; also while it is refreshed it holds until it expires.
    pub state: State,
    /// What the registrar last granted; `None`: it has granted nothing, or has refused since.
    pub granted: Option<Granted>,
    /// When and why it was last lost or refused. It stays once that is over.
    pub last_failure: Option<(UnixMillis, String)>,
    /// What names it in the Contact that was registered, and so in requests to the account.
    pub line: Option<Arc<str>>,
}

/// Where the registrations of a group stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationStatus {
    /// Whether it is to be registered at all.
    pub running: bool,
    /// The place of the one whose route calls take; `None`: none holds.
    pub in_use: Option<usize>,
    /// Each, in the order of the settings.
    pub members: Vec<MemberStatus>,
}

/// One registration group.
pub struct RegistrationEntry {
    /// Its settings.
    pub config: RegistrationGroup,
    /// Its metrics.
    pub metrics: RegistrationMetrics,
    status: ArcSwap<RegistrationStatus>,
    /// A call to it has come from where none is taken from.
    from_elsewhere: AtomicBool,
    places: Vec<ArcSwap<Places>>,
    /// What the process before, or the actor before a fault, has left.
    kept: ArcSwap<Vec<KeptRegistration>>,
}

/// An account of ours that somebody calls.
pub struct Account {
    /// The trunk by which its calls come.
    pub trunk: Arc<TrunkEntry>,
    pub(super) entry: Arc<RegistrationEntry>,
    pub(super) registration: usize,
}

impl Account {
    /// True if its calls may come from here: from an address of one of its registrars, or from where its trunk's calls come. A port says
    /// nothing: many providers call from another one than they register at.
    pub fn is_called_from(&self, source: Flow, directory: &Directory) -> bool {
        let ip = source.remote.ip();
        let at = |place: &Places| place.list().iter().any(|server| server.address.ip() == ip);
        let granted = |member: &MemberStatus| member.granted.as_ref().is_some_and(|g| g.at.to.ip() == ip);
        self.entry.config.calls_from_anyone
            || self.entry.places().any(|places| at(&places))
            || self.entry.status().members.iter().any(granted)
            || self.trunk.proxies().iter().any(|proxy| proxy.proxy.address.ip() == ip)
            || self.trunk.config.accept_from.iter().any(|network| network.contains(source.remote))
            || directory.trunk_of_certificate(source).is_some_and(|trunk| Arc::ptr_eq(trunk, &self.trunk))
    }

    /// True if no call to it has come from elsewhere before: then it is told.
    pub fn is_first_from_elsewhere(&self) -> bool {
        !self.entry.from_elsewhere.swap(true, Ordering::Relaxed)
    }

    /// The settings of its registration.
    pub fn config(&self) -> Option<&Registration> {
        self.entry.config.registrations.get(self.registration)
    }
}

impl RegistrationEntry {
    pub(super) fn new(config: &RegistrationGroup, metrics: &Metrics) -> RegistrationEntry {
        let member = |_: &Registration| MemberStatus {
            state: State::Idle,
            granted: None,
            last_failure: None,
            line: None,
        };
        let members = config.registrations.iter().map(member).collect();
        let status = RegistrationStatus { running: false, in_use: None, members };
        let places = |r: &Registration| ArcSwap::from_pointee(Places::new(&r.proxies, &r.named));
        RegistrationEntry {
            metrics: metrics.registration(&config.name),
            status: ArcSwap::from_pointee(status),
            from_elsewhere: AtomicBool::new(false),
            places: config.registrations.iter().map(places).collect(),
            kept: ArcSwap::default(),
            config: config.clone(),
        }
    }

    /// Where it stands now.
    pub fn status(&self) -> Arc<RegistrationStatus> {
        self.status.load_full()
    }

    /// Publishes where it stands. Only its actor may.
    pub fn publish(&self, status: RegistrationStatus) {
        self.metrics.show(status.running, status.in_use.is_some(), held(&status));
        self.status.store(Arc::new(status));
    }

    /// What is kept of its registrations.
    pub(crate) fn kept(&self) -> Arc<Vec<KeptRegistration>> {
        self.kept.load_full()
    }

    /// Keeps that of its registrations for the next actor. Only its actor, and the start from the store, may.
    pub(crate) fn keep(&self, kept: Vec<KeptRegistration>) {
        self.kept.store(Arc::new(kept));
    }

    /// Notes what DNS has found for a named server of a registration. Only its shard may.
    pub(crate) fn locate(&self, registration: usize, place: usize, located: Arc<Located>) {
        let config = self.config.registrations.get(registration);
        if let Some((places, config)) = self.places.get(registration).zip(config) {
            let next = places.load().with(place, located, &config.named);
            places.store(Arc::new(next));
        }
    }

    /// The servers of each registration, as far as they are known.
    pub(super) fn places(&self) -> impl Iterator<Item = Arc<Places>> {
        self.places.iter().map(ArcSwap::load_full)
    }

    /// Where the REGISTERs of a registration may be sent, in the order of one draw (RFC 2782).
    pub fn servers(&self, registration: usize, chance: &mut dyn FnMut() -> u64) -> Vec<SocketAddr> {
        self.places.get(registration).map(|places| places.load().draw(chance)).unwrap_or_default()
    }

    /// The other addresses of the server of a registration that DNS has found at this one (RFC 8305).
    pub fn addresses_beside(&self, registration: usize, address: SocketAddr) -> Vec<SocketAddr> {
        self.places.get(registration).map(|places| places.load().beside(address)).unwrap_or_default()
    }

    /// The registration that `line` names, and its trunk.
    pub(super) fn of_line(&self, line: &str) -> Option<(&str, usize)> {
        let status = self.status.load();
        let place = status.members.iter().position(|member| member.line.as_deref() == Some(line))?;
        let trunk = self.config.registrations.get(place)?.trunk.as_deref()?;
        Some((trunk, place))
    }

    /// The route of calls by a trunk that has an account here; the one in use first.
    pub(super) fn service_route(&self, trunk: &str) -> Option<Vec<String>> {
        let status = self.status.load();
        let of_trunk = |place: &usize| {
            let config = self.config.registrations.get(*place);
            config.is_some_and(|config| config.trunk.as_deref() == Some(trunk))
        };
        let places = status.in_use.into_iter().chain(0..status.members.len());
        let mut routes = places.filter(of_trunk).filter_map(|place| {
            let granted = status.members.get(place)?.granted.as_ref()?;
            (!granted.service_route.is_empty()).then(|| granted.service_route.clone())
        });
        routes.next()
    }
}

/// How many registrations hold.
fn held(status: &RegistrationStatus) -> usize {
    status.members.iter().filter(|member| member.granted.is_some()).count()
}
