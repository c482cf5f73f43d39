//! The procedure of RFC 3263 §4: from a name, a port and a transport to servers.
//!
//! It is a function of the answers that are known. Where one is missing it is named, and the procedure is gone through
//! again once it has come; so there is no state that could be half changed.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{
    Absence, Answer, Because, MAX_ADDRESSES, MAX_SERVERS, Naptr, Query, Record, RecordType, Server, Srv,
    Target, Trouble, canonical,
};
use crate::flow::Transport;

/// What is known, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The answers that the result stands on.
    pub used: Vec<Query>,
    /// The result.
    pub step: Step,
}

/// A step of the procedure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// These answers are missing: all of them are asked for at once.
    Ask(Vec<Query>),
    /// The procedure has ended.
    Done {
        /// The servers by priority.
        servers: Vec<Server>,
        /// What is wrong, if anything is. Never [`Trouble::Stale`]: age is not known here.
        because: Option<Because>,
    },
}

/// Goes through the procedure for `target` with the answers that `known` has.
pub fn locate<'a>(target: &Target, known: &'a dyn Fn(&Query) -> Option<&'a Answer>) -> Found {
    let mut walk = Walk { known, used: Vec::new(), missing: BTreeSet::new(), failed: None };
    let ended = walk.target(target);
    let Walk { used, missing, failed, .. } = walk;
    let step = match ended {
        _ if !missing.is_empty() => Step::Ask(missing.into_iter().collect()),
        Ended::Servers(mut servers) => {
            servers.sort_by_key(|server| server.priority);
            // Some are there and some could not be asked for: it is told, and what could not is asked again.
            Step::Done { servers, because: failed }
        }
        Ended::Nothing(because) => Step::Done { servers: Vec::new(), because: Some(because) },
        Ended::Pending => Step::Ask(Vec::new()),
    };
    Found { used, step }
}

enum Ended {
    Servers(Vec<Server>),
    Nothing(Because),
    /// An answer is missing.
    Pending,
}

/// The records of one kind, or why there are none.
enum Got<T> {
    Records(Vec<T>),
    Absent(Because),
    Failed(Because),
    Pending,
}

struct Walk<'a> {
    known: &'a dyn Fn(&Query) -> Option<&'a Answer>,
    used: Vec<Query>,
    missing: BTreeSet<Query>,
    /// The first question that nobody could answer.
    failed: Option<Because>,
}

/// A service whose SRV records are asked for.
struct Service {
    name: Arc<str>,
    transport: Transport,
}

impl Walk<'_> {
    fn target(&mut self, target: &Target) -> Ended {
        let transport = target.transports.first().copied().unwrap_or_default();
        if let Ok(ip) = target.host.parse::<IpAddr>() {
            let address = SocketAddr::new(ip, target.port.unwrap_or_else(|| transport.default_port()));
            return Ended::Servers(vec![alone(target, transport, vec![address])]);
        }
        if target.port.is_some() {
            // RFC 3263 §4.2: a port was named, so there is no SRV.
            return self.host(target, transport);
        }
        let services = match self.services(target) {
            Some(services) => services,
            None => return Ended::Pending,
        };
        self.service(target, transport, &services)
    }

    /// RFC 3263 §4.1: the services to ask for, the preferred one first; `None` while that is not known.
    fn services(&mut self, target: &Target) -> Option<Vec<Service>> {
        let own = || {
            let of = |transport: &Transport| Service {
                name: Arc::from(format!("{}.{}", prefix(*transport), target.host)),
                transport: *transport,
            };
            target.transports.iter().map(of).collect()
        };
        if target.transport_named {
            return Some(own());
        }
        let naptr = |record: &Record| match record {
            Record::Naptr(naptr) => Some(naptr.clone()),
            Record::Srv(_) | Record::Address(_) => None,
        };
        let mut records: Vec<Naptr> = match self.get(&target.host, RecordType::Naptr, naptr) {
            Got::Records(records) => records,
            // Without NAPTR the services have their usual names. Some servers do not answer at all for a kind of record
            // they do not know, so that is taken for none: SRV says as well where SIP is.
            Got::Absent(_) | Got::Failed(_) => return Some(own()),
            Got::Pending => return None,
        };
        records.sort_by_key(|record| (record.order, record.preference));
        let ours: Vec<Service> = records.iter().filter_map(|record| service(record, target)).collect();
        Some(if ours.is_empty() { own() } else { ours })
    }

    /// RFC 3263 §4.2: the servers of the first service that has any, else the addresses of the name itself.
    fn service(&mut self, target: &Target, transport: Transport, services: &[Service]) -> Ended {
        let srv = |record: &Record| match record {
            Record::Srv(srv) => Some(srv.clone()),
            Record::Naptr(_) | Record::Address(_) => None,
        };
        let (mut unanswered, mut not_offered) = (None, None);
        let mut found: Option<(Vec<Srv>, Transport)> = None;
        // All are asked for at once; one that is not known yet decides before a later one that is.
        for service in services {
            match self.get(&service.name, RecordType::Srv, srv) {
                Got::Pending => return self.ask_all(services),
                Got::Absent(_) => {}
                Got::Failed(because) => unanswered = unanswered.or(Some(because)),
                Got::Records(records) if records.iter().all(|srv| is_nothing(&srv.target)) => {
                    let query = Query::new(&service.name, RecordType::Srv);
                    let why = "the domain does not offer it (its target is \".\")".to_owned();
                    not_offered = Some(Because { trouble: Trouble::NotOffered, query, why });
                }
                Got::Records(records) => {
                    found = Some((records, service.transport));
                    break;
                }
            }
        }
        match (found, unanswered, not_offered) {
            (Some((records, transport)), unanswered, _) => {
                self.failed = unanswered;
                self.servers(target, transport, records)
            }
            // Addresses are asked for only where it is certain that there is no SRV: else a call would go to whatever
            // else the domain has there.
            (None, Some(because), _) | (None, None, Some(because)) => Ended::Nothing(because),
            (None, None, None) => self.host(target, transport),
        }
    }

    /// Names as missing whatever of these services is.
    fn ask_all(&mut self, services: &[Service]) -> Ended {
        for service in services {
            self.get(&service.name, RecordType::Srv, |_| None::<()>);
        }
        Ended::Pending
    }

    /// The servers that SRV records name, with their addresses.
    fn servers(&mut self, target: &Target, transport: Transport, mut records: Vec<Srv>) -> Ended {
        records.retain(|record| !is_nothing(&record.target));
        records.sort_by_key(|record| record.priority);
        records.truncate(MAX_SERVERS);
        let (mut servers, mut nothing, mut pending) = (Vec::new(), None, false);
        for record in records {
            match self.addresses(target, &record.target, record.port) {
                Got::Records(addresses) => servers.push(Server {
                    name: canonical(&record.target),
                    priority: record.priority,
                    weight: record.weight,
                    transport,
                    addresses,
                }),
                Got::Absent(because) => nothing = nothing.or(Some(because)),
                Got::Failed(because) => self.failed = self.failed.take().or(Some(because)),
                Got::Pending => pending = true,
            }
        }
        match (pending, servers.is_empty(), self.failed.clone().or(nothing)) {
            (true, _, _) => Ended::Pending,
            (false, true, Some(because)) => Ended::Nothing(because),
            (false, _, _) => Ended::Servers(servers),
        }
    }

    /// The addresses of the name itself.
    fn host(&mut self, target: &Target, transport: Transport) -> Ended {
        match self.addresses(target, &target.host, target.port.unwrap_or_else(|| transport.default_port())) {
            Got::Records(addresses) => Ended::Servers(vec![alone(target, transport, addresses)]),
            Got::Absent(because) | Got::Failed(because) => Ended::Nothing(because),
            Got::Pending => Ended::Pending,
        }
    }

    fn addresses(&mut self, target: &Target, name: &str, port: u16) -> Got<SocketAddr> {
        // An address where a name belongs is an error (RFC 2782), and common.
        let got = match name.parse::<IpAddr>() {
            Ok(ip) => Got::Records(vec![ip]),
            Err(_) => self.get(name, target.family.record(), |record| match record {
                Record::Address(ip) => Some(*ip),
                Record::Naptr(_) | Record::Srv(_) => None,
            }),
        };
        match got {
            Got::Records(ips) => {
                let mut seen = BTreeSet::new();
                let ips = ips.into_iter().filter(|ip| seen.insert(*ip)).take(MAX_ADDRESSES);
                Got::Records(ips.map(|ip| SocketAddr::new(ip, port)).collect())
            }
            Got::Absent(because) => Got::Absent(because),
            Got::Failed(because) => Got::Failed(because),
            Got::Pending => Got::Pending,
        }
    }

    fn get<T>(&mut self, name: &str, kind: RecordType, pick: impl Fn(&Record) -> Option<T>) -> Got<T> {
        let query = Query::new(name, kind);
        let Some(answer) = (self.known)(&query) else {
            self.missing.insert(query);
            return Got::Pending;
        };
        self.used.push(query.clone());
        match answer {
            Answer::Records { records, .. } => {
                let records: Vec<T> = records.iter().filter_map(pick).collect();
                if records.is_empty() {
                    Got::Absent(absent(query, Absence::NoData))
                } else {
                    Got::Records(records)
                }
            }
            Answer::Absent { how, .. } => Got::Absent(absent(query, *how)),
            Answer::Failed { why } => {
                Got::Failed(Because { trouble: Trouble::Unreachable, query, why: why.clone() })
            }
        }
    }
}

fn absent(query: Query, how: Absence) -> Because {
    Because { trouble: Trouble::Absent, query, why: how.as_str().to_owned() }
}

/// The one server of a target without SRV.
fn alone(target: &Target, transport: Transport, addresses: Vec<SocketAddr>) -> Server {
    Server { name: target.host.clone(), priority: 0, weight: 0, transport, addresses }
}

fn is_nothing(target: &str) -> bool {
    target.is_empty() || target == "."
}

/// The service that a NAPTR record names, if it is one of ours (RFC 3263 §4.1).
fn service(record: &Naptr, target: &Target) -> Option<Service> {
    let usable = record.flags.eq_ignore_ascii_case("s")
        && record.regexp.is_empty()
        && !is_nothing(&record.replacement);
    let mut transports = target.transports.iter();
    let transport = transports.find(|t| naptr_service(**t).eq_ignore_ascii_case(&record.service))?;
    usable.then(|| Service { name: canonical(&record.replacement), transport: *transport })
}

/// The services field of a NAPTR record (RFC 3263 §4.1).
fn naptr_service(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "SIP+D2U",
        Transport::Tcp => "SIP+D2T",
        Transport::Tls => "SIPS+D2T",
    }
}

/// What stands before the domain in the name of SRV records (RFC 3263 §4.2).
fn prefix(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        Transport::Tls => "_sips._tcp",
    }
}
