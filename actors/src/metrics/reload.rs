//! What reloads of the settings count.

use metrics::{Counter, Gauge, Histogram, Unit};

use super::{Describe, Registry};

/// What reloads of the settings count.
#[derive(Clone)]
pub struct ReloadMetrics {
    /// Something has changed.
    pub applied: Counter,
    /// Nothing was different.
    pub unchanged: Counter,
    /// The settings were wrong, or could not be read: those before stay in force.
    pub refused: Counter,
    /// Seconds from the wish until every shard had the settings.
    pub seconds: Histogram,
    /// The number of the settings in force.
    pub generation: Gauge,
    /// Generations before that one which calls still use.
    pub former: Gauge,
    /// Keys whose new values wait for a restart.
    pub pending: Gauge,
}

impl ReloadMetrics {
    /// Every handle; they exist from now on.
    pub fn new(registry: &Registry) -> ReloadMetrics {
        use Describe::{Counter, Gauge, Histogram};
        let describe = |kind, name, unit, text| registry.describe(kind, name, unit, text);
        describe(Counter, "tandem_reloads_total", None, "Reloads of the settings by result");
        describe(
            Histogram,
            "tandem_reload_seconds",
            Some(Unit::Seconds),
            "From the wish to reload until every shard had the settings",
        );
        describe(Gauge, "tandem_settings_generation", None, "The number of the settings in force");
        describe(
            Gauge,
            "tandem_settings_former",
            None,
            "Settings before those in force that calls still use",
        );
        describe(Gauge, "tandem_settings_pending", None, "Keys whose new values wait for a restart");
        let result =
            |result: &str| registry.counter("tandem_reloads_total", &[("result", result.to_owned())]);
        let generation = registry.gauge("tandem_settings_generation", &[]);
        generation.set(1.0);
        ReloadMetrics {
            applied: result("applied"),
            unchanged: result("unchanged"),
            refused: result("refused"),
            seconds: registry.histogram("tandem_reload_seconds", &[]),
            generation,
            former: registry.gauge("tandem_settings_former", &[]),
            pending: registry.gauge("tandem_settings_pending", &[]),
        }
    }
}
