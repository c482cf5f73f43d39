//! What our registrations at providers count.

use metrics::{Counter, Gauge};
use tandem_protocol::registration::DownCause;

use super::{Describe, Registry};

/// What one registration group counts.
#[derive(Clone)]
pub struct RegistrationMetrics {
    up: Gauge,
    held: Gauge,
    failures: [Counter; DownCause::KINDS.len()],
    /// Times that another registration came into use than the one before.
    pub failovers: Counter,
}

impl RegistrationMetrics {
    pub(super) fn new(registry: &Registry, group: &str) -> RegistrationMetrics {
        let labels = [("group", group.to_owned())];
        RegistrationMetrics {
            up: registry.gauge("tandem_registration_up", &labels),
            held: registry.gauge("tandem_registration_held", &labels),
            failures: DownCause::KINDS.map(|cause| {
                let labels = [("group", group.to_owned()), ("cause", cause.to_owned())];
                registry.counter("tandem_registration_failures_total", &labels)
            }),
            failovers: registry.counter("tandem_registration_failovers_total", &labels),
        }
    }

    /// Shows whether the account can be called, and how many registrations hold. One that is not to be registered, while the engine
    /// drains, is neither up nor down.
    pub fn show(&self, running: bool, up: bool, held: usize) {
        self.up.set(match (running, up) {
            (false, _) => f64::NAN,
            (true, true) => 1.0,
            (true, false) => 0.0,
        });
        self.held.set(held as f64);
    }

    /// Counts a REGISTER that was refused or not answered.
    pub fn failed(&self, cause: &DownCause) {
        let place = cause.kind().and_then(|kind| DownCause::KINDS.iter().position(|known| *known == kind));
        if let Some(counter) = place.and_then(|place| self.failures.get(place)) {
            counter.increment(1);
        }
    }
}

pub(super) fn describe(registry: &Registry) {
    registry.describe(
        Describe::Gauge,
        "tandem_registration_up",
        None,
        "1 if a registration of the group holds, 0 if none does",
    );
    registry.describe(
        Describe::Gauge,
        "tandem_registration_held",
        None,
        "Registrations of the group that hold now",
    );
    registry.describe(
        Describe::Counter,
        "tandem_registration_failures_total",
        None,
        "REGISTERs of ours that were refused or not answered, by cause",
    );
    registry.describe(
        Describe::Counter,
        "tandem_registration_failovers_total",
        None,
        "Times that another registration of the group came into use",
    );
}
