//! The store's figures as metrics.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use tandem_actors::metrics::{Describe, Registry};

use super::{Dropped, Meter};

/// What the metrics show of a store.
pub struct StoreMeter {
    commit: Histogram,
    save: Histogram,
    failed: Counter,
    dropped: [Counter; 6],
    waiting_batches: Gauge,
    waiting_bytes: Gauge,
}

impl StoreMeter {
    /// Every handle; they exist from now on.
    pub fn new(registry: &Registry) -> StoreMeter {
        registry.describe(
            Describe::Histogram,
            "tandem_store_commit_seconds",
            Some(metrics::Unit::Seconds),
            "How long a group commit took",
        );
        registry.describe(
            Describe::Histogram,
            "tandem_store_save_seconds",
            Some(metrics::Unit::Seconds),
            "How long it took to save committed groups in the database",
        );
        registry.describe(
            Describe::Counter,
            "tandem_store_failed_total",
            None,
            "Groups that were not committed or saved",
        );
        registry.describe(
            Describe::Counter,
            "tandem_store_dropped_total",
            None,
            "What the store dropped, by kind",
        );
        registry.describe(
            Describe::Gauge,
            "tandem_store_waiting_batches",
            None,
            "Batches that wait for a commit",
        );
        registry.describe(
            Describe::Gauge,
            "tandem_store_waiting_bytes",
            Some(metrics::Unit::Bytes),
            "Bytes that wait for a commit, or were committed and are not saved in the database yet",
        );
        let dropped =
            |kind: &str| registry.counter("tandem_store_dropped_total", &[("kind", kind.to_owned())]);
        StoreMeter {
            commit: registry.histogram("tandem_store_commit_seconds", &[]),
            save: registry.histogram("tandem_store_save_seconds", &[]),
            failed: registry.counter("tandem_store_failed_total", &[]),
            dropped: [
                dropped("urgent"),
                dropped("lazy"),
                dropped("conflict"),
                dropped("backend"),
                dropped("repeated_cdr"),
                dropped("cdr_line"),
            ],
            waiting_batches: registry.gauge("tandem_store_waiting_batches", &[]),
            waiting_bytes: registry.gauge("tandem_store_waiting_bytes", &[]),
        }
    }
}

impl Meter for StoreMeter {
    fn committed(&self, took: Duration, _batches: usize) {
        self.commit.record(took.as_secs_f64());
    }

    fn saved(&self, took: Duration) {
        self.save.record(took.as_secs_f64());
    }

    fn failed(&self) {
        self.failed.increment(1);
    }

    fn dropped(&self, what: Dropped, count: u64) {
        let counter = match what {
            Dropped::OverflowUrgent => &self.dropped[0],
            Dropped::OverflowLazy => &self.dropped[1],
            Dropped::Conflict => &self.dropped[2],
            Dropped::Backend => &self.dropped[3],
            Dropped::RepeatedCdr => &self.dropped[4],
            Dropped::CdrLine => &self.dropped[5],
        };
        counter.increment(count);
    }

    fn waiting(&self, batches: usize, bytes: usize) {
        self.waiting_batches.set(batches as f64);
        self.waiting_bytes.set(bytes as f64);
    }
}
