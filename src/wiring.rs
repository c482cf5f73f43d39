//! From settings to what an engine is told: names become places, defaults become values.

mod codecs;
mod patterns;
mod registration;
mod stations;
mod toll_fraud;
mod trunk_rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tandem_actors::config::{self, EngineConfig};
use tandem_actors::sip::tls::{Tls, TlsError};
use tandem_protocol::dial_plan::DialPlanError;
use tandem_protocol::dialog::{Credentials, SessionPolicy};
use tandem_protocol::digest;
use tandem_protocol::dns::{Bounds, Family, Target};
use tandem_protocol::flow::{ListenerId, Transport};
use tandem_protocol::message::Limits;
use tandem_protocol::proxy_list::{Proxy, RetryableCodes, Selection};
use tandem_protocol::transaction::{Timers, timer_f};

use crate::settings::{self, DigestAlgorithm, HostPort, MediaPath, ServiceKind, Settings, Trunk};

pub use patterns::dial_plan;
pub(crate) use patterns::{build_dial_plan, own_patterns};
pub use stations::{number_of, outbound_ani, trunk_of_station};
pub use toll_fraud::international;
pub use trunk_rules::called_by;

/// Stations get a CRLF this often.
const KEEPALIVE: Duration = Duration::from_secs(25);
/// Settings that are each right and together cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The dial plan.
    #[error("dial_plan: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    DialPlan(Vec<DialPlanError>),
    /// The certificate of a listener, or what belongs to it.
    #[error("listen {name:?}: {}: {source}", source.key())]
    Tls {
        /// The listener's name.
        name: String,
        /// Why.
        source: TlsError,
    },
}

/// The configuration of an engine whose listeners are bound to `bound`, in the order of the settings.
///
/// # Errors
/// The dial plan cannot be built, or a certificate not be read.
pub fn engine_config(
    settings: &Settings,
    bound: &[SocketAddr],
    chaos: bool,
) -> Result<EngineConfig, WiringError> {
    let listeners = settings.listen.iter().zip(bound).map(|(listen, address)| listener(listen, *address));
    let listeners: Vec<config::Listener> = listeners.collect::<Result<_, _>>()?;
    let (media, other_media) = media_addresses(settings, &listeners);
    let stations = stations::stations(settings);
    let names = stations.iter().map(|station| station.name.clone());
    Ok(EngineConfig {
        node: settings.node.name.clone(),
        domains: settings.domains(),
        realm: settings.realm().to_owned(),
        digest_algorithms: settings.node.digest_algorithms.iter().map(|a| algorithm(*a)).collect(),
        shards: shards(settings),
        sip_trace_bytes: settings.node.sip_trace_bytes(),
        trunks: settings.trunk.iter().map(|t| trunk(settings, t, &listeners)).collect(),
        dns: dns(&settings.dns),
        toll_fraud: toll_fraud::toll_fraud(settings),
        route_groups: settings.dial_plan.route_group.iter().map(route_group).collect(),
        route_lists: settings.dial_plan.route_list.iter().map(route_list).collect(),
        users: settings.user.iter().map(user).collect(),
        registration_groups: settings
            .registration_group
            .iter()
            .map(|group| registration::group(settings, group, &listeners))
            .collect(),
        services: settings.service.iter().map(service).collect(),
        dial_plan: Arc::new(patterns::dial_plan_of(settings, names).map_err(WiringError::DialPlan)?),
        stations,
        media: config::Media {
            address: media_address(settings, &listeners, media),
            other: other_media.map(|ip| media_address(settings, &listeners, ip)),
            ports: (settings.media.ports.first, settings.media.ports.last),
            workers: one_per_core(settings.media.workers),
            rtp_timeout: settings.media.rtp_timeout().unwrap_or_default(),
            recording_dir: settings.recording_dir(),
        },
        registrar: config::Registrar {
            min_expires: settings.registrar.min_expires(),
            max_expires: settings.registrar.max_expires(),
            default_expires: settings.registrar.default_expires(),
            accept_path: settings.registrar.accept_path_without_support,
        },
        keepalive: KEEPALIVE,
        overload: config::Overload {
            target: settings.overload.target_delay(),
            retry_after: settings.overload.retry_after(),
        },
        listeners: config::Listeners(listeners),
        chaos,
    })
}

/// How many shards the settings ask for.
pub fn shards(settings: &Settings) -> u16 {
    one_per_core(settings.node.shards)
}

/// A number of threads; 0 is one for each core.
fn one_per_core(threads: u32) -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    if threads == 0 { cores } else { threads }.min(250) as u16
}

fn algorithm(algorithm: DigestAlgorithm) -> digest::Algorithm {
    match algorithm {
        DigestAlgorithm::Md5 => digest::Algorithm::Md5,
        DigestAlgorithm::Sha256 => digest::Algorithm::Sha256,
    }
}

fn listener(listen: &settings::Listen, address: SocketAddr) -> Result<config::Listener, WiringError> {
    let external = match &listen.external_address {
        Some(external) => config::External::new(&external.host, external.port.unwrap_or(address.port())),
        None => SocketAddr::new(reachable(address.ip()), address.port()).into(),
    };
    let transport = transport(listen.transport);
    let tls = listen.tls_files().map(Tls::load).transpose();
    let tls = tls.map_err(|source| WiringError::Tls { name: listen.name.clone(), source })?;
    Ok(config::Listener {
        name: listen.name.clone(),
        id: ListenerId::new(transport, address),
        address,
        external,
        transport,
        timers: Timers::new(listen.t1(), listen.t2()),
        streams: config::StreamLimits {
            connections: listen.max_connections as usize,
            connections_per_source: listen.max_connections_per_source as usize,
            idle: listen.idle_timeout(),
            message: listen.message_timeout(),
            connect: listen.connect_timeout(),
            send_queue: listen.send_queue(),
            handshake: listen.handshake_timeout(),
            handshakes: listen.max_handshakes as usize,
        },
        session: session(listen),
        limits: limits(listen),
        tls: tls.map(Arc::new),
        uses: config::Uses::default(),
    })
}

/// How a listener carries SIP. The settings have been checked: one whose transport is not built is refused before.
pub fn transport(transport: settings::Transport) -> Transport {
    match transport {
        settings::Transport::Udp => Transport::Udp,
        settings::Transport::Tcp | settings::Transport::Ws => Transport::Tcp,
        settings::Transport::Tls | settings::Transport::Wss => Transport::Tls,
    }
}

fn limits(listen: &settings::Listen) -> Limits {
    Limits {
        max_bytes: listen.max_message_bytes as usize,
        max_header_line: listen.max_header_bytes as usize,
        max_headers: listen.max_headers as usize,
        max_vias: listen.max_vias as usize,
    }
}

fn session(listen: &settings::Listen) -> SessionPolicy {
    let (interval, min_se) = listen.session();
    SessionPolicy { interval, min_se }
}

fn redirect(redirect: settings::Redirect) -> config::Redirect {
    match redirect {
        settings::Redirect::Follow => config::Redirect::Follow,
        settings::Redirect::Pass => config::Redirect::Pass,
    }
}

fn source(source: &settings::Source) -> config::Source {
    config::Source {
        network: source.network.network(),
        prefix: source.network.prefix_len(),
        port: source.port,
    }
}

/// An address that peers can use: this one, or for "every address" the one the default route leaves by.
fn reachable(address: IpAddr) -> IpAddr {
    if !address.is_unspecified() {
        return address;
    }
    // Connecting a UDP socket sends nothing; it only asks the routing table.
    let (anywhere, here): (IpAddr, IpAddr) = match address {
        IpAddr::V4(_) => (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::LOCALHOST.into()),
    };
    let by_route = UdpSocket::bind((address, 0))
        .and_then(|socket| socket.connect((anywhere, 9)).and_then(|()| socket.local_addr()));
    by_route.map_or(here, |local| local.ip())
}

/// Where media sockets are bound: the first address, and the first one of the other family if there is one.
fn media_addresses(settings: &Settings, listeners: &[config::Listener]) -> (IpAddr, Option<IpAddr>) {
    let chosen: Vec<IpAddr> = settings.media.addresses.iter().map(|ip| ip.0).collect();
    let all = if chosen.is_empty() { listeners.iter().map(|l| l.address.ip()).collect() } else { chosen };
    let first = all.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    (first, all.into_iter().find(|ip| ip.is_ipv4() != first.is_ipv4()))
}

/// A media address with what peers are told of it.
fn media_address(settings: &Settings, listeners: &[config::Listener], bound: IpAddr) -> config::MediaAddress {
    let alike = |ip: IpAddr| ip.is_ipv4() == bound.is_ipv4();
    let external = settings.media.external_address.as_ref().map(|ip| ip.0).filter(|ip| alike(*ip));
    let told = external.unwrap_or_else(|| {
        let listener = listeners.iter().filter_map(|l| l.external.ip()).find(|ip| alike(*ip));
        if bound.is_unspecified() { listener.unwrap_or_else(|| reachable(bound)) } else { bound }
    });
    config::MediaAddress { bound, told }
}

fn path(media: MediaPath) -> config::MediaPath {
    match media {
        MediaPath::Anchored => config::MediaPath::Anchored,
        MediaPath::Bypass => config::MediaPath::Bypass,
    }
}

fn selection(selection: settings::Selection) -> Selection {
    match selection {
        settings::Selection::Priority => Selection::Priority,
        settings::Selection::RoundRobin => Selection::RoundRobin { offset: 0 },
    }
}

fn names(names: &[String]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(name.as_str())).collect()
}

fn route_group(group: &settings::RouteGroup) -> config::RouteGroup {
    config::RouteGroup {
        name: Arc::from(group.name.as_str()),
        trunks: names(&group.trunks),
        selection: selection(group.selection),
    }
}

fn route_list(list: &settings::RouteList) -> config::RouteList {
    config::RouteList { name: list.name.clone(), groups: names(&list.groups), enabled: list.enabled }
}

fn user(user: &settings::User) -> config::User {
    config::User {
        name: user.name.clone(),
        default_station: user.default_station.as_deref().map(Arc::from),
        alert_timeout: user.alert_timeout(),
    }
}

fn address_of(proxy: &HostPort, transport: Transport) -> Option<SocketAddr> {
    proxy.ip().map(|ip| SocketAddr::new(ip, proxy.port.unwrap_or_else(|| transport.default_port())))
}

/// A host as a URI has it: an IPv6 address in brackets (RFC 3261 §25.1).
fn uri_host(host: String) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host }
}

fn place_of(settings: &Settings, trunk: &Trunk) -> u16 {
    let listen = settings.listener_of(trunk);
    let place = listen.and_then(|listen| settings.listen.iter().position(|l| l.name == listen.name));
    place.unwrap_or(0) as u16
}

fn credentials(username: Option<&String>, password: Option<&settings::Secret>) -> Option<Credentials> {
    username.zip(password).map(|(username, password)| Credentials {
        username: username.clone(),
        password: password.reveal().to_owned(),
    })
}

fn dns(dns: &settings::Dns) -> config::Dns {
    let address = |server: &HostPort| Some(SocketAddr::new(server.ip()?, server.port.unwrap_or(53)));
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    config::Dns {
        servers: dns.servers.iter().filter_map(address).collect(),
        timeout: dns.timeout(),
        attempts: dns.attempts,
        bounds: Bounds {
            min_ttl: seconds(dns.min_ttl_s),
            max_ttl: seconds(dns.max_ttl_s),
            max_negative_ttl: seconds(dns.max_negative_ttl_s),
            max_stale: seconds(dns.max_stale_s),
            ..Bounds::default()
        },
    }
}

/// Where a trunk's calls go, with their weights.
fn proxies(trunk: &Trunk, listener: Option<&config::Listener>) -> (Vec<Proxy>, Vec<config::NamedProxy>) {
    let domain = trunk.domain.iter().map(|domain| HostPort { host: domain.clone(), port: None });
    let weights = trunk.weights.iter().copied().chain(std::iter::repeat(1));
    let places = trunk.proxies.iter().cloned().chain(domain).zip(weights);
    servers(places, listener, trunk.transport.is_some())
}

/// Servers with their weights: the addresses of the settings, and what DNS must find, by this listener. Their own order decides only
/// where their priorities, which are all the same, do not.
fn servers(
    places: impl Iterator<Item = (HostPort, u16)>,
    listener: Option<&config::Listener>,
    transport_named: bool,
) -> (Vec<Proxy>, Vec<config::NamedProxy>) {
    let (mut addresses, mut named) = (Vec::new(), Vec::new());
    let transport = listener.map_or(Transport::Udp, |listener| listener.transport);
    for (proxy, weight) in places {
        if let Some(address) = address_of(&proxy, transport) {
            addresses.push(Proxy { weight, ..Proxy::new(address) });
            continue;
        }
        let family = Family::of(listener.map_or(Ipv4Addr::UNSPECIFIED.into(), |l| l.address.ip()));
        let target = Target::new(&proxy.host, proxy.port, transport, family);
        let target = if transport_named { target.with_transport_named() } else { target };
        named.push(config::NamedProxy { after: addresses.len(), target, weight });
    }
    (addresses, named)
}

fn trunk(settings: &Settings, trunk: &Trunk, listeners: &[config::Listener]) -> config::Trunk {
    let (proxies, named) = proxies(trunk, listeners.get(usize::from(place_of(settings, trunk))));
    let listen = settings.listener_of(trunk).cloned().unwrap_or_default();
    let values = trunk.timers(&listen);
    let mut timers = Timers::new(values.t1, values.t2);
    timers.give_up = values.t1 * 2u32.saturating_pow(values.max_invite_retries.min(16));
    timers.connect = Some(values.connect_timeout);
    timers.timer_f = Some(timer_f(values.t1, values.t2, values.max_packet_retries));
    let codes: Vec<String> =
        trunk.retryable_codes.iter().map(|r| format!("{}-{}", r.first, r.last)).collect();
    config::Trunk {
        name: Arc::from(trunk.name.as_str()),
        listener: place_of(settings, trunk),
        proxies,
        named,
        accept_from: trunk.accept_from.iter().map(source).collect(),
        calling_search_space: trunk.calling_search_space.clone(),
        selection: selection(trunk.selection),
        timers,
        progress_timeout: values.progress_timeout,
        // The settings have been checked; what cannot be read here cannot come from them.
        retryable: RetryableCodes::parse(&codes).unwrap_or_default(),
        qualify_interval: trunk.qualify_interval(),
        max_calls: trunk.max_calls,
        emergency_channels: trunk.emergency_channels,
        max_new_calls_per_s: trunk.max_new_calls_per_s,
        media: path(trunk.media),
        codecs: codecs::codecs(settings, &trunk.codecs, trunk.location.as_ref()),
        media_delayed: trunk.media_timing == settings::MediaTiming::Delayed,
        record: trunk.record,
        trusted: trunk.trusted,
        redirect: redirect(trunk.redirect),
        redirect_to: trunk.redirect_to.iter().map(source).collect(),
        calling_party_mask: trunk.calling_party_mask.clone(),
        rules: trunk_rules::rules(trunk, &values),
        credentials: registration::credentials_of(settings, trunk),
        certificate_names: trunk.certificate_names.clone(),
    }
}

fn service(service: &settings::Service) -> config::Service {
    config::Service {
        name: service.name.clone(),
        kind: match service.kind {
            ServiceKind::Echo => config::ServiceKind::Echo,
            ServiceKind::Tone => config::ServiceKind::Tone,
        },
    }
}
