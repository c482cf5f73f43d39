//! What the asking for names counts.

use std::net::SocketAddr;

use metrics::{Counter, Gauge, Histogram, Unit};
use tandem_protocol::dns::Trouble;

use super::{Describe, Registry};

/// What one DNS server did.
#[derive(Clone)]
pub struct ServerMetrics {
    /// Records came.
    pub answered: Counter,
    /// It said that there are none.
    pub absent: Counter,
    /// It was silent, refused, or failed.
    pub failed: Counter,
}

/// What the asking for names counts.
#[derive(Clone)]
pub struct DnsMetrics {
    registry: Registry,
    /// Seconds until a server's answer.
    pub seconds: Histogram,
    /// Times that an answer was used beyond its time to live, because no server answered.
    pub stale_used: Counter,
    targets: [Gauge; STATES.len()],
}

/// The states of a named proxy, as `tandem_dns_targets` names them.
const STATES: [(&str, Option<Trouble>); 5] = [
    ("fresh", None),
    ("stale", Some(Trouble::Stale)),
    ("absent", Some(Trouble::Absent)),
    ("not_offered", Some(Trouble::NotOffered)),
    ("unreachable", Some(Trouble::Unreachable)),
];

impl DnsMetrics {
    /// Every handle; they exist from now on.
    pub fn new(registry: &Registry) -> DnsMetrics {
        describe(registry);
        DnsMetrics {
            registry: registry.clone(),
            seconds: registry.histogram("tandem_dns_query_seconds", &[]),
            stale_used: registry.counter("tandem_dns_stale_used_total", &[]),
            targets: STATES
                .map(|(state, _)| registry.gauge("tandem_dns_targets", &[("state", state.to_owned())])),
        }
    }

    /// The handles of one server.
    pub fn server(&self, server: SocketAddr) -> ServerMetrics {
        let counter = |result: &str| {
            let labels = [("server", server.to_string()), ("result", result.to_owned())];
            self.registry.counter("tandem_dns_queries_total", &labels)
        };
        ServerMetrics { answered: counter("answered"), absent: counter("absent"), failed: counter("failed") }
    }

    /// How many names are in each state.
    pub fn targets(&self, of: impl Fn(Option<Trouble>) -> usize) {
        for ((_, trouble), gauge) in STATES.iter().zip(&self.targets) {
            gauge.set(of(*trouble) as f64);
        }
    }
}

fn describe(registry: &Registry) {
    let seconds = Some(Unit::Seconds);
    registry.describe(
        Describe::Counter,
        "tandem_dns_queries_total",
        None,
        "Questions to DNS servers: answered, absent (there is no such record), failed",
    );
    registry.describe(
        Describe::Histogram,
        "tandem_dns_query_seconds",
        seconds,
        "From a question to its answer",
    );
    registry.describe(
        Describe::Counter,
        "tandem_dns_stale_used_total",
        None,
        "Times that an answer was used beyond its time to live, because no server answered",
    );
    registry.describe(
        Describe::Gauge,
        "tandem_dns_targets",
        None,
        "Named proxies of trunks now, by what is known of them",
    );
}
