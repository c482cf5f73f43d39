//! A recorder that can be read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Gauges and counters by name and labels.
#[derive(Default)]
pub(crate) struct Gauges {
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
}

fn handle(map: &Mutex<BTreeMap<String, Arc<AtomicU64>>>, key: &Key) -> Arc<AtomicU64> {
    let labels: Vec<String> =
        key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    let name = format!("{}{{{}}}", key.name(), labels.join(","));
    map.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
}

impl Gauges {
    /// One gauge, by its labels in their order.
    pub(crate) fn labelled(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
        let gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let value = gauges.get(&format!("{name}{{{}}}", labels.join(",")))?;
        Some(f64::from_bits(value.load(Ordering::Relaxed)))
    }

    /// The sum of a gauge over its labels.
    pub(crate) fn gauge(&self, name: &str) -> f64 {
        let gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = gauges.iter().filter(|(key, _)| key.split('{').next() == Some(name));
        ours.map(|(_, value)| f64::from_bits(value.load(Ordering::Relaxed))).sum()
    }
}

impl Recorder for Gauges {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(handle(&self.counters, key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(handle(&self.gauges, key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
