//! What an engine is told at its start: the settings, already checked, in the engine's own terms.

mod external;
mod listeners;
mod registration;
mod station;
mod toll_fraud;
mod trunk_rules;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tandem_protocol::dial_plan::{DialPlan, NumberMask};
use tandem_protocol::dialog::SessionPolicy;
use tandem_protocol::digest::Algorithm;
use tandem_protocol::dns::{Bounds, Target};
use tandem_protocol::flow::{ListenerId, Transport};
use tandem_protocol::message::Limits;
use tandem_protocol::proxy_list::{Proxy, RetryableCodes, Selection};
use tandem_protocol::sdp::negotiate::CodecList;
use tandem_protocol::transaction::Timers;

use crate::sip::tls::Tls;

pub use external::External;
pub use listeners::{Listeners, Uses};
pub use registration::{Registration, RegistrationGroup};
pub use station::{ConnectedAt, Connection, Station, StationRules};
pub use toll_fraud::{StationToll, TollFraud};
pub use trunk_rules::{Accept, TrunkRules};

/// Whether a call's media crosses the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaPath {
    /// Through a media worker.
    Anchored,
    /// From endpoint to endpoint.
    Bypass,
}

/// One SIP listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in the settings.
    pub name: String,
    /// What flows call it: [`ListenerId::new`] of the next two.
    pub id: ListenerId,
    /// How it carries SIP.
    pub transport: Transport,
    /// Where it listens.
    pub address: SocketAddr,
    /// What peers are told, when that differs (NAT).
    pub external: External,
    /// T1 and T2 of its transactions.
    pub timers: Timers,
    /// What its connections may ask for; of no effect on datagrams.
    pub streams: StreamLimits,
    /// Session timers of its dialogs (RFC 4028).
    pub session: SessionPolicy,
    /// How much of a message is accepted.
    pub limits: Limits,
    /// Its certificate and what else TLS needs; of a listener of TLS alone.
    pub tls: Option<Arc<Tls>>,
    /// The legs that are reached by it, of whatever settings.
    pub uses: Uses,
}

/// What the connections of one listener may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Connections accepted at once.
    pub connections: usize,
    /// Connections accepted at once from one IPv4 address or IPv6 /64.
    pub connections_per_source: usize,
    /// A connection over which nothing went either way for this long is closed.
    pub idle: Duration,
    /// A message must be whole within this time after its first byte; the first one after the connection was accepted.
    pub message: Duration,
    /// How long opening a connection may take.
    pub connect: Duration,
    /// Bytes that may wait to be sent on one connection; a peer that reads too little for that is cut off.
    pub send_queue: usize,
    /// How long the TLS handshake of an accepted connection may take.
    pub handshake: Duration,
    /// How many such handshakes may be under way at once.
    pub handshakes: usize,
}

impl Default for StreamLimits {
    fn default() -> StreamLimits {
        StreamLimits {
            connections: 10_000,
            connections_per_source: 100,
            idle: Duration::from_secs(600),
            message: Duration::from_secs(10),
            connect: Duration::from_millis(3000),
            send_queue: 262_144,
            handshake: Duration::from_secs(5),
            handshakes: 100,
        }
    }
}

/// What a redirection does to a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redirect {
    /// The call goes on to its contacts.
    #[default]
    Follow,
    /// The caller gets it.
    Pass,
}

/// One trunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Trunk {
    /// Its name.
    pub name: Arc<str>,
    /// Its listener's place.
    pub listener: u16,
    /// Its proxies in order of preference: those whose address the settings give.
    pub proxies: Vec<Proxy>,
    /// Those that DNS must find.
    pub named: Vec<NamedProxy>,
    /// Further sources whose requests are the trunk's.
    pub accept_from: Vec<Source>,
    /// Whose numbers its callers may dial; `None`: partition `internal`.
    pub calling_search_space: Option<String>,
    /// Which proxy is asked first.
    pub selection: Selection,
    /// Timers of its INVITEs.
    pub timers: Timers,
    /// How long a proxy may send nothing further after 100 before the next is tried.
    pub progress_timeout: Duration,
    /// Which statuses send a call to the next proxy.
    pub retryable: RetryableCodes,
    /// How often a proxy that is up gets OPTIONS; `None`: never.
    pub qualify_interval: Option<Duration>,
    /// Concurrent calls it may have; 0: any number.
    pub max_calls: u32,
    /// How many of those only emergency calls may have.
    pub emergency_channels: u32,
    /// New calls it may have within any second; 0: any number.
    pub max_new_calls_per_s: u32,
    /// Whether its media crosses the engine.
    pub media: MediaPath,
    /// The codecs that it may use.
    pub codecs: CodecList,
    /// Whether its INVITEs leave without an offer, for its proxies to make it.
    pub media_delayed: bool,
    /// Whether its calls are recorded.
    pub record: bool,
    /// Whether it belongs to the trust domain of RFC 3325.
    pub trusted: bool,
    /// What a redirection by it does.
    pub redirect: Redirect,
    /// Addresses besides ours that a redirection by it may lead to.
    pub redirect_to: Vec<Source>,
    /// What its far end sees of the caller's number.
    pub calling_party_mask: Option<NumberMask>,
    /// What it changes of calls, and what it may ask for besides them.
    pub rules: TrunkRules,
    /// Answers the proxies' challenges.
    pub credentials: Option<tandem_protocol::dialog::Credentials>,
    /// Whom the certificates of its proxies are for; empty: for its domain, or for the proxy's own name or address.
    pub certificate_names: Vec<String>,
}

/// A proxy, or the domain of a trunk, that DNS must find.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedProxy {
    /// How many of the trunk's `proxies` come before it.
    pub after: usize,
    /// What is to be found.
    pub target: Target,
    /// Its share of the calls, as that of a [`Proxy`].
    pub weight: u16,
}

/// Whom names are asked of, and how long answers are good.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// The servers in order; empty: those of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// How long one server is waited for.
    pub timeout: Duration,
    /// How often each server is asked before a question is given up for a while.
    pub attempts: u32,
    /// The life of answers.
    pub bounds: Bounds,
}

impl Default for Dns {
    fn default() -> Dns {
        Dns {
            servers: Vec::new(),
            timeout: Duration::from_millis(2000),
            attempts: 2,
            bounds: Bounds::default(),
        }
    }
}

/// Trunks that stand for each other.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteGroup {
    /// Its name.
    pub name: Arc<str>,
    /// Its trunks in order.
    pub trunks: Vec<Arc<str>>,
    /// Which is tried first.
    pub selection: Selection,
}

/// Route groups in the order they are tried.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteList {
    /// Its name.
    pub name: String,
    /// Its groups in order.
    pub groups: Vec<Arc<str>>,
    /// Whether calls may leave by it.
    pub enabled: bool,
}

/// A person, who is reached at a station.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The station that rings.
    pub default_station: Option<Arc<str>>,
    /// How long it rings.
    pub alert_timeout: Duration,
}

/// A range of source addresses, with a port if only that one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The network.
    pub network: IpAddr,
    /// Its prefix length in bits.
    pub prefix: u8,
    /// The only port that counts.
    pub port: Option<u16>,
}

impl Source {
    /// True if `from` lies in the range.
    pub fn contains(&self, from: SocketAddr) -> bool {
        if self.port.is_some_and(|port| port != from.port()) {
            return false;
        }
        match (self.network, from.ip()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                shift == 32 || u32::from(net) >> shift == u32::from(ip) >> shift
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                shift == 128 || u128::from(net) >> shift == u128::from(ip) >> shift
            }
            _ => false,
        }
    }
}

/// What a built-in service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ServiceKind {
    /// Sends back what it hears.
    Echo,
    /// Plays a tone.
    Tone,
}

/// A service of the engine that can be dialled.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: ServiceKind,
}

/// The sockets of media in one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaAddress {
    /// The address they are bound to.
    pub bound: IpAddr,
    /// What peers are told, which differs behind a NAT.
    pub told: IpAddr,
}

/// Where media may go.
#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    /// Where it goes unless a peer is of the other family.
    pub address: MediaAddress,
    /// The same for peers of the other family, if there are listeners or media addresses of both.
    pub other: Option<MediaAddress>,
    /// First and last port.
    pub ports: (u16, u16),
    /// How many workers.
    pub workers: u16,
    /// A call without RTP for this long is ended; zero: never.
    pub rtp_timeout: Duration,
    /// Where recordings go.
    pub recording_dir: std::path::PathBuf,
}

impl Media {
    /// The addresses, each of a family of its own.
    pub fn addresses(&self) -> impl Iterator<Item = MediaAddress> {
        std::iter::once(self.address).chain(self.other)
    }

    /// The address for a leg whose peer is at `peer`: one of its family, if there is one.
    pub fn towards(&self, peer: IpAddr) -> MediaAddress {
        self.addresses().find(|own| own.bound.is_ipv4() == peer.is_ipv4()).unwrap_or(self.address)
    }
}

/// Expiry bounds of the registrar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Registrar {
    /// Shorter asks are refused with 423.
    pub min_expires: Duration,
    /// Longer asks are shortened.
    pub max_expires: Duration,
    /// For asks that name none.
    pub default_expires: Duration,
    /// Whether a `Path` is taken from a device that does not say it knows it (RFC 3327 §5.3).
    pub accept_path: bool,
}

/// When more comes than can be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overload {
    /// New work is refused so that nobody waits longer than this for long; zero: nothing is refused.
    pub target: Duration,
    /// Who is refused is asked to come again after this at the earliest, and after twice this at the latest: whole seconds.
    pub retry_after: Duration,
}

impl EngineConfig {
    /// The listener of a flow; see [`Listeners::place`].
    pub fn listener(&self, listener: ListenerId) -> Option<&Listener> {
        self.listeners.of(listener)
    }

    /// What flows call the listener at a place.
    pub fn listener_id(&self, place: u16) -> ListenerId {
        self.listeners.id(place)
    }

    /// How a listener carries SIP; see [`Listeners::transport`].
    pub fn transport(&self, listener: ListenerId) -> Transport {
        self.listeners.transport(listener)
    }
}

/// Everything an engine is told.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The node's name.
    pub node: String,
    /// Domains we are responsible for, every listener's address included.
    pub domains: Vec<String>,
    /// The digest realm.
    pub realm: String,
    /// What requests are challenged with, whoever sends them: the preferred algorithm first (RFC 8760 §2.4).
    pub digest_algorithms: Vec<Algorithm>,
    /// How many shards.
    pub shards: u16,
    /// Bytes of SIP kept for `why --sip`, a shard.
    pub sip_trace_bytes: usize,
    /// The listeners.
    pub listeners: Listeners,
    /// The stations.
    pub stations: Vec<Station>,
    /// The trunks.
    pub trunks: Vec<Trunk>,
    /// The route groups.
    pub route_groups: Vec<RouteGroup>,
    /// The route lists.
    pub route_lists: Vec<RouteList>,
    /// The people.
    pub users: Vec<User>,
    /// The outbound registrations.
    pub registration_groups: Vec<RegistrationGroup>,
    /// The services.
    pub services: Vec<Service>,
    /// The dial plan.
    pub dial_plan: Arc<DialPlan>,
    /// Media.
    pub media: Media,
    /// The registrar.
    pub registrar: Registrar,
    /// Names.
    pub dns: Dns,
    /// What keeps calls from becoming a bill.
    pub toll_fraud: TollFraud,
    /// Stations get a CRLF this often; zero: never.
    pub keepalive: Duration,
    /// When more comes than can be done.
    pub overload: Overload,
    /// True if faults may be injected through the API.
    pub chaos: bool,
}
