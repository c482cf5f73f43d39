//! What is shown of a shard that more comes to than it can do.

use std::time::Duration;

use metrics::{Gauge, Unit};

use super::{Describe, Metrics, Registry};
use crate::ids::ShardId;

/// What is shown of one shard.
#[derive(Clone)]
pub struct OverloadMetrics {
    share: Gauge,
    delay: Gauge,
}

impl OverloadMetrics {
    /// Shows the share of new calls that is refused, and how long messages wait.
    pub fn show(&self, share: f64, delay: Duration) {
        self.share.set(share);
        self.delay.set(delay.as_secs_f64());
    }
}

impl Metrics {
    /// The handles of a shard; they exist from now on.
    pub fn overload(&self, shard: ShardId) -> OverloadMetrics {
        let labels = [("shard", shard.0.to_string())];
        OverloadMetrics {
            share: self.registry.gauge("tandem_overload_refused_share", &labels),
            delay: self.registry.gauge("tandem_sip_queue_delay_seconds", &labels),
        }
    }
}

pub(super) fn describe(registry: &Registry) {
    let refused = "Share of new calls that a shard refuses because more comes than it can do";
    registry.describe(Describe::Gauge, "tandem_overload_refused_share", None, refused);
    let delay = "How long messages by UDP wait for a shard, the shortest of the last moment";
    registry.describe(Describe::Gauge, "tandem_sip_queue_delay_seconds", Some(Unit::Seconds), delay);
}
