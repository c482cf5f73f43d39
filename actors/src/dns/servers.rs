//! The DNS servers: one question goes to one after the other until one answers.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{self, Name, RData};
use hickory_resolver::system_conf::read_system_conf;
use tandem_protocol::dns::{Absence, Answer, Naptr, Query, Record, RecordType, Srv};

use crate::config::EngineConfig;
use crate::metrics::{DnsMetrics, ServerMetrics};
use crate::runtime::Clock;

/// Servers that are asked at most: each costs its time while none answers.
const MOST: usize = 8;

/// The servers of one engine.
pub(super) struct Servers {
    list: Vec<Server>,
    /// The one that answered last: it is asked first.
    preferred: AtomicUsize,
    attempts: u32,
    clock: Clock,
    metrics: DnsMetrics,
    /// Why there is none.
    none: String,
}

struct Server {
    address: SocketAddr,
    resolver: TokioResolver,
    metrics: ServerMetrics,
}

/// A server did not say whether there are records.
struct Silent(String);

impl Servers {
    /// Those of the settings, else those of /etc/resolv.conf as it is now.
    pub(super) fn new(config: &EngineConfig, clock: Clock, metrics: &DnsMetrics) -> Servers {
        let (addresses, mut none) = match addresses(config) {
            Ok(addresses) => (addresses, "/etc/resolv.conf names no server".to_owned()),
            Err(why) => (Vec::new(), format!("/etc/resolv.conf cannot be read: {why}")),
        };
        let avoid = Arc::new(our_ports(config));
        let mut list = Vec::new();
        for address in addresses.into_iter().take(MOST) {
            match resolver(address, config.dns.timeout, &avoid) {
                Ok(resolver) => list.push(Server { address, resolver, metrics: metrics.server(address) }),
                Err(why) => none = format!("{address}: {why}"),
            }
        }
        let (preferred, attempts) = (AtomicUsize::new(0), config.dns.attempts.max(1));
        Servers { list, preferred, attempts, clock, metrics: metrics.clone(), none }
    }

    /// Whether these are the servers that /etc/resolv.conf names now; true as well if the settings name them.
    pub(super) fn are_current(&self, config: &EngineConfig) -> bool {
        let now = addresses(config).unwrap_or_default();
        let mine: Vec<SocketAddr> = self.list.iter().map(|server| server.address).collect();
        // A file that cannot be read for a moment changes nothing.
        now.is_empty() || now.iter().take(MOST).eq(mine.iter())
    }

    /// Asks one server after the other, the one that answered last first.
    pub(super) async fn ask(&self, query: &Query) -> Answer {
        let Ok(name) = Name::from_ascii(format!("{}.", query.name)) else {
            return Answer::Failed { why: "this is no name that DNS could have".to_owned() };
        };
        let mut failures: Vec<String> = Vec::new();
        for _ in 0..self.attempts {
            for step in 0..self.list.len() {
                let place = (self.preferred.load(Ordering::Relaxed) + step) % self.list.len();
                let Some(server) = self.list.get(place) else { continue };
                match self.ask_one(server, name.clone(), query.kind).await {
                    Ok(answer) => {
                        self.preferred.store(place, Ordering::Relaxed);
                        return answer;
                    }
                    Err(Silent(why)) => {
                        let why = format!("{} {why}", server.address);
                        if !failures.contains(&why) {
                            failures.push(why);
                        }
                    }
                }
            }
        }
        let why = if failures.is_empty() { self.none.clone() } else { failures.join("; ") };
        Answer::Failed { why }
    }

    async fn ask_one(&self, server: &Server, name: Name, kind: RecordType) -> Result<Answer, Silent> {
        let begun = self.clock.now().mono;
        let looked_up = server.resolver.lookup(name, record_type(kind)).await;
        self.metrics.seconds.record(self.clock.now().mono.since(begun).as_secs_f64());
        let answer = match looked_up {
            Ok(lookup) => Ok(records(&lookup, kind)),
            Err(NetError::Dns(DnsError::NoRecordsFound(no_records))) => absent(&no_records),
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(Silent(format!("answers {code}"))),
            Err(NetError::Timeout) => Err(Silent("does not answer".to_owned())),
            Err(error) => Err(Silent(format!("fails: {error}"))),
        };
        match &answer {
            Ok(Answer::Records { .. }) => server.metrics.answered.increment(1),
            Ok(Answer::Absent { .. }) => server.metrics.absent.increment(1),
            Ok(Answer::Failed { .. }) | Err(Silent(_)) => server.metrics.failed.increment(1),
        }
        answer
    }
}

/// The servers' addresses: of the settings, else of /etc/resolv.conf.
fn addresses(config: &EngineConfig) -> Result<Vec<SocketAddr>, NetError> {
    if !config.dns.servers.is_empty() {
        return Ok(config.dns.servers.clone());
    }
    let (system, _) = read_system_conf()?;
    Ok(system.name_servers().iter().map(|server| SocketAddr::new(server.ip, DNS_PORT)).collect())
}

/// The port of DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// Ports that a question must not be sent from: a call would find its own taken.
fn our_ports(config: &EngineConfig) -> HashSet<u16> {
    let (first, last) = config.media.ports;
    let listeners = config.listeners.iter().map(|listener| listener.address.port());
    (first..=last).chain(listeners).collect()
}

/// A resolver of one server, which keeps nothing and tries nothing twice: both are done by whoever asks it.
fn resolver(
    address: SocketAddr,
    timeout: Duration,
    avoid: &Arc<HashSet<u16>>,
) -> Result<TokioResolver, NetError> {
    let connection = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
    let server = NameServerConfig::new(address.ip(), true, connections);
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = timeout;
    options.attempts = 0;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Always;
    options.avoid_local_udp_ports = avoid.clone();
    builder.build()
}

fn record_type(kind: RecordType) -> rr::RecordType {
    match kind {
        RecordType::Naptr => rr::RecordType::NAPTR,
        RecordType::Srv => rr::RecordType::SRV,
        RecordType::A => rr::RecordType::A,
        RecordType::Aaaa => rr::RecordType::AAAA,
    }
}

/// The records of one kind. Every record of the answer has a say in how long it holds: an alias on the way may change first.
fn records(lookup: &Lookup, kind: RecordType) -> Answer {
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    let records: Vec<Record> =
        lookup.answers().iter().filter_map(|record| read(&record.data, kind)).collect();
    let ttl = Duration::from_secs(ttl.into());
    if records.is_empty() {
        return Answer::Absent { how: Absence::NoData, ttl: Some(ttl) };
    }
    Answer::Records { records, ttl }
}

fn read(data: &RData, kind: RecordType) -> Option<Record> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (data, kind) {
        (RData::A(a), RecordType::A) => Some(Record::Address(a.0.into())),
        (RData::AAAA(aaaa), RecordType::Aaaa) => Some(Record::Address(aaaa.0.into())),
        (RData::SRV(srv), RecordType::Srv) => Some(Record::Srv(Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_ascii(),
        })),
        (RData::NAPTR(naptr), RecordType::Naptr) => Some(Record::Naptr(Naptr {
            order: naptr.order,
            preference: naptr.preference,
            flags: text(&naptr.flags),
            service: text(&naptr.services),
            regexp: text(&naptr.regexp),
            replacement: naptr.replacement.to_ascii(),
        })),
        _ => None,
    }
}

/// That there is nothing. A server that says so only because it would have to ask others says nothing.
fn absent(no_records: &NoRecords) -> Result<Answer, Silent> {
    if no_records.soa.is_none() && no_records.ns.is_some() {
        return Err(Silent("refers to other servers: it is none that resolves names".to_owned()));
    }
    let how = match no_records.response_code {
        ResponseCode::NXDomain => Absence::NoName,
        ResponseCode::NoError => Absence::NoData,
        code => return Err(Silent(format!("answers {code}"))),
    };
    let ttl = no_records.negative_ttl.map(|ttl| Duration::from_secs(ttl.into()));
    Ok(Answer::Absent { how, ttl })
}
