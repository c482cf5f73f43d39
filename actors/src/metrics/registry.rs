//! Makes handles on a recorder, and says what each metric means.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString, Unit};

/// Makes handles on one recorder.
#[derive(Clone)]
pub struct Registry(Arc<dyn Recorder + Send + Sync>);

static METADATA: Metadata<'static> = Metadata::new("tandem", Level::INFO, None);

impl Registry {
    /// Handles of `recorder`.
    pub fn new(recorder: Arc<dyn Recorder + Send + Sync>) -> Registry {
        Registry(recorder)
    }

    fn key(name: &'static str, labels: &[(&'static str, String)]) -> Key {
        let labels: Vec<Label> = labels.iter().map(|(k, v)| Label::new(*k, v.clone())).collect();
        Key::from_parts(name, labels)
    }

    /// A counter, which exists from now on at 0.
    pub fn counter(&self, name: &'static str, labels: &[(&'static str, String)]) -> Counter {
        let counter = self.0.register_counter(&Self::key(name, labels), &METADATA);
        counter.increment(0);
        counter
    }

    /// A gauge, which exists from now on at 0.
    pub fn gauge(&self, name: &'static str, labels: &[(&'static str, String)]) -> Gauge {
        let gauge = self.0.register_gauge(&Self::key(name, labels), &METADATA);
        gauge.set(0.0);
        gauge
    }

    /// A histogram.
    pub fn histogram(&self, name: &'static str, labels: &[(&'static str, String)]) -> Histogram {
        self.0.register_histogram(&Self::key(name, labels), &METADATA)
    }

    /// Says what a metric means.
    pub fn describe(&self, kind: Describe, name: &'static str, unit: Option<Unit>, text: &'static str) {
        let name = metrics::KeyName::from_const_str(name);
        let text = SharedString::const_str(text);
        match kind {
            Describe::Counter => self.0.describe_counter(name, unit, text),
            Describe::Gauge => self.0.describe_gauge(name, unit, text),
            Describe::Histogram => self.0.describe_histogram(name, unit, text),
        }
    }
}

/// The kinds of metric.
#[derive(Clone, Copy, Debug)]
pub enum Describe {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}
