//! Where a SIP server is, by DNS: RFC 3263 over NAPTR (RFC 3403), SRV (RFC 2782) and address records.
//!
//! Three layers, none of which sends anything:
//!
//! - [`locate`] is the procedure of RFC 3263 §4 over answers that are known, and says which are still missing;
//! - [`Resolver`] keeps the answers: for their time to live, negative ones too (RFC 2308), and beyond it while no server
//!   answers (RFC 8767); it asks for each record set once, however many want it;
//! - [`order`] draws the order in which one call tries the servers that were found (RFC 2782).

mod cache;
mod locate;
mod resolver;
mod srv;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flow::Transport;
use crate::time::Instant;

pub use cache::Bounds;
pub use locate::locate;
pub use resolver::{Input, Output, Resolver};
pub use srv::order;

/// Servers of one target that are looked at, in order of priority; whoever publishes more gets no more of us.
pub const MAX_SERVERS: usize = 32;
/// Addresses of one server that are looked at.
pub const MAX_ADDRESSES: usize = 16;

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RecordType {
    /// Which transports a domain offers, and where (RFC 3403).
    Naptr,
    /// The servers of one service (RFC 2782).
    Srv,
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordType::Naptr => "NAPTR",
            RecordType::Srv => "SRV",
            RecordType::A => "A",
            RecordType::Aaaa => "AAAA",
        })
    }
}

/// A question: every record of one kind that a name has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Query {
    /// The name: whole, in lower case, without the last dot.
    pub name: Arc<str>,
    /// The kind.
    pub kind: RecordType,
}

impl Query {
    /// The question for `name`, in whatever case and with the last dot or without it.
    pub fn new(name: &str, kind: RecordType) -> Query {
        Query { name: canonical(name), kind }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.kind)
    }
}

/// One name for all its spellings.
fn canonical(name: &str) -> Arc<str> {
    Arc::from(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase())
}

/// A NAPTR record, as far as RFC 3263 reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Naptr {
    /// The lowest is the first.
    pub order: u16,
    /// Among those of one order, the lowest is the first.
    pub preference: u16,
    /// What comes next: `s` is an SRV record.
    pub flags: String,
    /// What it is about: `SIP+D2U`.
    pub service: String,
    /// Not empty: a rule of substitution, of which RFC 3263 knows none.
    pub regexp: String,
    /// The name that is asked next.
    pub replacement: String,
}

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Srv {
    /// The lowest is tried first.
    pub priority: u16,
    /// Its share among those of one priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The name of the server; empty or `.`: the service is decidedly not offered.
    pub target: String,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// NAPTR.
    Naptr(Naptr),
    /// SRV.
    Srv(Srv),
    /// A or AAAA.
    Address(IpAddr),
}

/// What a server said to a [`Query`], or that none said anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// There are records.
    Records {
        /// All of them, of the kind that was asked for.
        records: Vec<Record>,
        /// How long they hold: the least of their times to live.
        ttl: Duration,
    },
    /// There are none, and that is certain.
    Absent {
        /// In what way.
        how: Absence,
        /// How long that holds: the least of the SOA's time to live and its minimum (RFC 2308 §5); `None`: no SOA came.
        ttl: Option<Duration>,
    },
    /// Nobody could say.
    Failed {
        /// Which server failed, and how.
        why: String,
    },
}

/// In what way there are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Absence {
    /// There is no such name (NXDOMAIN).
    NoName,
    /// The name has no records of the kind.
    NoData,
}

impl Absence {
    /// As a log tells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Absence::NoName => "there is no such name (NXDOMAIN)",
            Absence::NoData => "the name has no such record",
        }
    }
}

/// A family of addresses. A listener has one, and so have the peers it can send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    fn record(self) -> RecordType {
        match self {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::Aaaa,
        }
    }
}

/// What is to be found: the TARGET of RFC 3263 §4 and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// A name, in lower case without the last dot, or an address.
    pub host: Arc<str>,
    /// A port that was named: there is no SRV then.
    pub port: Option<u16>,
    /// The transports that can be used, the preferred one first.
    pub transports: Vec<Transport>,
    /// Whether the transport was named, so that NAPTR has no say.
    pub transport_named: bool,
    /// The addresses that can be used.
    pub family: Family,
}

impl Target {
    /// A target of one transport.
    pub fn new(host: &str, port: Option<u16>, transport: Transport, family: Family) -> Target {
        Target { host: canonical(host), port, transports: vec![transport], transport_named: false, family }
    }

    /// The same with its transport named: `transport=` of a URI, or of the settings.
    pub fn with_transport_named(self) -> Target {
        Target { transport_named: true, ..self }
    }
}

impl fmt::Display for Target {
    /// As an operator writes it: `host` or `host:port`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v6 = self.host.contains(':');
        let (open, close) = if v6 && self.port.is_some() { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// One server of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its name.
    pub name: Arc<str>,
    /// The lowest is tried first.
    pub priority: u16,
    /// Its share among those of one priority.
    pub weight: u16,
    /// How it is spoken to.
    pub transport: Transport,
    /// Its addresses, as DNS gave them; at least one.
    pub addresses: Vec<SocketAddr>,
}

/// What is wrong with what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Trouble {
    /// The answers are older than they may be, and no server gives newer ones.
    Stale,
    /// There is nothing: the name, or its address records, do not exist.
    Absent,
    /// The domain says that it has no such service (RFC 2782, a target of `.`).
    NotOffered,
    /// No server answers, and nothing is known from before. If there are servers nevertheless, some are missing.
    Unreachable,
}

impl Trouble {
    /// The word of logs, API and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Trouble::Stale => "stale",
            Trouble::Absent => "absent",
            Trouble::NotOffered => "not_offered",
            Trouble::Unreachable => "unreachable",
        }
    }
}

/// [`Trouble`], with the question that it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Because {
    /// Its kind.
    pub trouble: Trouble,
    /// The question.
    pub query: Query,
    /// What came of it.
    pub why: String,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.query, self.why)
    }
}

/// What was found for a [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The servers by priority; empty: none.
    pub servers: Vec<Server>,
    /// What is wrong, if anything is.
    pub because: Option<Because>,
    /// When it is asked again.
    pub until: Instant,
}

impl Located {
    /// What is wrong.
    pub fn trouble(&self) -> Option<Trouble> {
        self.because.as_ref().map(|because| because.trouble)
    }

    /// Every address, by priority.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.servers.iter().flat_map(|server| server.addresses.iter().copied())
    }
}

#[cfg(test)]
mod tests;
