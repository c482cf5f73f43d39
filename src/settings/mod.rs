//! The settings: typed, merged from four layers, and checked as a whole.
//!
//! Later layers win, key by key; a list is replaced whole:
//!
//! 1. the defaults of the types,
//! 2. `config/default.toml`, compiled in and proved by a test to say the same,
//! 3. the settings file,
//! 4. the environment, `TANDEM__SECTION__KEY`.
//!
//! [`Settings::load`] finds every error before it gives up, each with its file and line or its
//! variable, the full path of the key, what was found and what is allowed. `config/default.toml`
//! is the reference of every key.

mod decode;
mod imported;
mod layer;
mod load;
mod problem;
mod shown;
pub mod token;
mod types;
mod unbuilt;
mod validate;
mod values;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use imported::{BadLine, StationLine, names_of_stations};
pub use load::Loaded;
pub use problem::{KeyPath, LoadError, Place, Problem, Step};
pub use shown::{KeyChange, changed_keys};
pub use types::{
    AlarmAction, CallingSearchSpace, CallsFrom, Credential, DialPlan, Dns, HeaderRule, Http,
    INTERNAL_PARTITION, Listen, Location, Media, MediaPath, MediaPool, MediaTiming, Node, NumberRule,
    Overload, Partition, Pattern, Redirect, Registrar, Registration, RegistrationGroup, RouteGroup,
    RouteList, RuleDirection, RuleParty, Selection, Service, ServiceKind, Srtp, Station, TimerFigures,
    TimerPreset, TollFraud, Transport, Trunk, TrunkTimers, User,
};
pub use values::{
    BindAddress, CodeRange, Codec, ConnectionAddress, DigestAlgorithm, HostPort, InvalidValue, Ip,
    NumberMask, PortRange, Secret, Source, Target,
};

/// The defaults with their documentation, as they were when the program was built.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// Everything a settings file can say. Fields are named as its sections are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The process as a whole.
    pub node: Node,
    /// The addresses SIP is heard on; never empty after loading.
    pub listen: Vec<Listen>,
    /// The HTTP surface.
    pub http: Http,
    /// Audio.
    pub media: Media,
    /// Addresses of RTP by name.
    pub media_pool: Vec<MediaPool>,
    /// Sites.
    pub location: Vec<Location>,
    /// Registrations of devices.
    pub registrar: Registrar,
    /// What keeps calls from becoming a bill.
    pub toll_fraud: TollFraud,
    /// Devices.
    pub station: Vec<Station>,
    /// People.
    pub user: Vec<User>,
    /// How names are looked up.
    pub dns: Dns,
    /// When more comes than can be done.
    pub overload: Overload,
    /// Lines to other SIP servers.
    pub trunk: Vec<Trunk>,
    /// Registrations at other servers.
    pub registration_group: Vec<RegistrationGroup>,
    /// What the engine itself answers; after loading with the built-in ones.
    pub service: Vec<Service>,
    /// Which number leads where.
    pub dial_plan: DialPlan,
}

impl Settings {
    /// The realm of digest challenges: as set, else the first of `node.domains`, else the node's name.
    pub fn realm(&self) -> &str {
        let domain = self.node.domains.first().unwrap_or(&self.node.name);
        self.node.realm.as_ref().unwrap_or(domain)
    }

    /// The hosts that are ours in a request: `node.domains`, then every listen and external address,
    /// each once. An unspecified address (`0.0.0.0`) is left out: it stands for every address of
    /// the machine, which only the machine knows.
    pub fn domains(&self) -> Vec<String> {
        let mut hosts = self.node.domains.clone();
        for listen in &self.listen {
            let ip = listen.address.0.ip();
            hosts.extend((!ip.is_unspecified()).then(|| ip.to_string()));
            hosts.extend(listen.external_address.as_ref().map(|address| address.host.clone()));
        }
        let mut seen = std::collections::BTreeSet::new();
        hosts.retain(|host| seen.insert(host.to_lowercase()));
        hosts
    }

    /// What `station` is allowed by the first that has a say: itself, its calling search space, `[toll_fraud]`.
    fn allowed<T>(
        &self,
        station: &Station,
        own: Option<T>,
        of_class: impl Fn(&CallingSearchSpace) -> Option<T>,
        otherwise: T,
    ) -> T {
        let class = || {
            let name = station.calling_search_space.as_ref()?;
            of_class(self.dial_plan.calling_search_space.iter().find(|space| space.name == *name)?)
        };
        own.or_else(class).unwrap_or(otherwise)
    }

    /// The most calls at once of a station; 0 is no limit.
    pub fn max_calls_of(&self, station: &Station) -> u32 {
        self.allowed(station, station.max_calls, |class| class.max_calls, self.toll_fraud.max_calls)
    }

    /// The most new calls of a station in a minute; 0 is no limit.
    pub fn max_new_calls_per_min_of(&self, station: &Station) -> u32 {
        let otherwise = self.toll_fraud.max_new_calls_per_min;
        self.allowed(station, station.max_new_calls_per_min, |class| class.max_new_calls_per_min, otherwise)
    }

    /// Whether a station may dial international numbers.
    pub fn may_dial_international(&self, station: &Station) -> bool {
        let otherwise = self.toll_fraud.international;
        self.allowed(station, station.international, |class| class.international, otherwise)
    }

    /// Where recordings go: as set, else `recordings` in the data directory.
    pub fn recording_dir(&self) -> PathBuf {
        self.media.recording_dir.clone().unwrap_or_else(|| self.node.data_dir.join("recordings"))
    }

    /// The listener that `trunk` is bound to: the one it names, else the first of its transport (if it
    /// names one) and of the address family of its proxies, else the first of its transport.
    /// `None` only for a transport that is not listened on.
    pub fn listener_of(&self, trunk: &Trunk) -> Option<&Listen> {
        let fits = |listen: &&Listen| match (&trunk.listen, trunk.transport) {
            (Some(name), _) => listen.name == *name,
            (None, Some(transport)) => listen.transport == transport,
            (None, None) => true,
        };
        let first_proxy = trunk.proxies.iter().find_map(HostPort::ip);
        let reaches = |listen: &&Listen| first_proxy.is_none_or(|ip| listen.reaches(ip));
        self.listen.iter().filter(fits).find(reaches).or_else(|| self.listen.iter().find(fits))
    }

    /// The trunk that a registration is at.
    pub fn trunk_of_registration(&self, registration: &Registration) -> Option<&Trunk> {
        let name = registration.trunk.as_ref()?;
        self.trunk.iter().find(|trunk| trunk.name == *name)
    }

    /// The listener that a registration is sent from: that of its trunk, else the first of its transport that reaches its server.
    pub fn listener_of_registration(&self, registration: &Registration) -> Option<&Listen> {
        if let Some(trunk) = self.trunk_of_registration(registration) {
            return self.listener_of(trunk);
        }
        let transport = registration.transport.unwrap_or(Transport::Udp);
        let server = registration.address.as_ref().or(registration.proxy.as_ref()).and_then(HostPort::ip);
        let fits = |listen: &&Listen| listen.transport == transport;
        let reaches = |listen: &&Listen| server.is_none_or(|ip| listen.reaches(ip));
        self.listen.iter().filter(fits).find(reaches)
    }
}

impl std::fmt::Display for Settings {
    /// What there is of each, in one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = [
            (self.listen.len(), "listener"),
            (self.station.len(), "station"),
            (self.user.len(), "user"),
            (self.trunk.len(), "trunk"),
            (self.service.len(), "service"),
            (self.dial_plan.pattern.len(), "pattern"),
        ];
        for (n, (count, what)) in counts.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            let plural = if *count == 1 { "" } else { "s" };
            write!(f, "{comma}{count} {what}{plural}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
