//! What the trunks and their proxies count and show.

use metrics::{Counter, Gauge};
use tandem_protocol::trunk_health::State;

use super::{Describe, Registry};

/// What a trunk counts.
#[derive(Clone)]
pub struct TrunkMetrics {
    /// Calls that went on to the next proxy because of a status.
    pub failover_status: Counter,
    /// Calls that went on because a proxy was silent.
    pub failover_timeout: Counter,
    /// Calls that went on because a proxy said nothing further after 100.
    pub failover_progress: Counter,
    /// Calls that went on because a request could not be sent.
    pub failover_transport: Counter,
    /// Calls that went on because a proxy wants fewer of them.
    pub failover_overload: Counter,
    /// Calls that went on because the trunk had as many as it may.
    pub failover_limit: Counter,
    /// Header rules that wrote nothing, because a call had not what they need.
    pub header_rules_failed: Counter,
    /// Calls up.
    pub calls: Gauge,
}

impl TrunkMetrics {
    pub(super) fn new(registry: &Registry, name: &str) -> TrunkMetrics {
        let failover = |cause: &str| {
            let labels = [("trunk", name.to_owned()), ("cause", cause.to_owned())];
            registry.counter("tandem_trunk_failovers_total", &labels)
        };
        TrunkMetrics {
            failover_status: failover("status"),
            failover_timeout: failover("timeout"),
            failover_progress: failover("progress"),
            failover_transport: failover("transport"),
            failover_overload: failover("overload"),
            failover_limit: failover("limit"),
            header_rules_failed: registry
                .counter("tandem_trunk_header_rules_failed_total", &[("trunk", name.to_owned())]),
            calls: registry.gauge("tandem_trunk_calls_active", &[("trunk", name.to_owned())]),
        }
    }
}

/// What is shown of a proxy of a trunk.
#[derive(Clone)]
pub struct ProxyMetrics {
    up: Gauge,
    degraded: Gauge,
    restrained: Gauge,
}

impl ProxyMetrics {
    pub(super) fn new(registry: &Registry, trunk: &str, proxy: &str) -> ProxyMetrics {
        let labels = [("trunk", trunk.to_owned()), ("proxy", proxy.to_owned())];
        ProxyMetrics {
            up: registry.gauge("tandem_trunk_up", &labels),
            degraded: registry.gauge("tandem_trunk_degraded", &labels),
            restrained: registry.gauge("tandem_trunk_overload_share", &labels),
        }
    }

    /// Shows its state; one of which nothing is known counts as up.
    pub fn show(&self, state: State) {
        self.up.set(if state == State::Down { 0.0 } else { 1.0 });
        self.degraded.set(if state == State::Degraded { 1.0 } else { 0.0 });
    }

    /// Shows the percentage of new calls that are kept from it.
    pub fn show_restraint(&self, percent: u8) {
        self.restrained.set(f64::from(percent) / 100.0);
    }

    /// It is a proxy of the trunk no longer: neither up nor down.
    pub fn forget(&self) {
        self.restrained.set(f64::NAN);
        self.up.set(f64::NAN);
        self.degraded.set(f64::NAN);
    }
}

pub(super) fn describe(registry: &Registry) {
    use Describe::{Counter, Gauge};
    registry.describe(Gauge, "tandem_trunk_up", None, "0 if the proxy of the trunk is down");
    registry.describe(
        Gauge,
        "tandem_trunk_degraded",
        None,
        "1 if the proxy is tried after those that are up",
    );
    registry.describe(
        Gauge,
        "tandem_trunk_overload_share",
        None,
        "Share of new calls, 0 to 1, that are kept from the proxy of the trunk because it asks for that (RFC 7339)",
    );
    registry.describe(
        Counter,
        "tandem_trunk_failovers_total",
        None,
        "Calls that went on to another proxy or trunk, by cause",
    );
    registry.describe(
        Counter,
        "tandem_trunk_header_rules_failed_total",
        None,
        "Header rules of the trunk that wrote nothing, because a call had not what they need",
    );
    registry.describe(Gauge, "tandem_trunk_calls_active", None, "Calls on the trunk now");
}
