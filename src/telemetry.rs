//! What the process tells of itself: the log, panics, and the recorder behind `/metrics`.
//!
//! | variable | means |
//! | --- | --- |
//! | `TANDEM_LOG`, else `RUST_LOG` | which lines: `info` (the default), `debug`, `tandem_actors=debug,info` ... |
//! | `TANDEM_LOG_FORMAT` | `json`: one object a line; anything else: text, in colour on a terminal |

use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tandem_actors::metrics::Registry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::log_format::Plain;
use crate::log_lines::LogLines;

/// What is logged where nothing is said.
const DEFAULT_FILTER: &str = "info";

/// How long the last lines may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why there is no log or no recorder.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter says nothing that can be understood.
    #[error("{variable}: {source}")]
    Filter {
        /// The variable that holds it.
        variable: &'static str,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The process logs elsewhere already.
    #[error(transparent)]
    Twice(#[from] TryInitError),
    /// The buckets of a histogram are wrong.
    #[error(transparent)]
    Recorder(#[from] BuildError),
}

/// The log, until the end of the process: the last lines are written when it is dropped.
pub struct Log(LogLines<io::Stderr>);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush(LAST_WORDS);
    }
}

/// Begins the log on standard error, as the environment asks for it, and sends panics there too. Once a process.
///
/// # Errors
/// The filter cannot be read, or the process has a log already.
pub fn init() -> Result<Log, TelemetryError> {
    let json = std::env::var("TANDEM_LOG_FORMAT").is_ok_and(|format| format.eq_ignore_ascii_case("json"));
    let filter = filter(|name| std::env::var(name).ok())?;
    let lines = LogLines::to(io::stderr());
    let log = fmt().with_writer(lines.clone()).with_env_filter(filter);
    if json {
        log.json().flatten_event(true).with_current_span(false).with_span_list(false).finish().try_init()?;
    } else if io::stderr().is_terminal() {
        log.with_ansi(true).finish().try_init()?;
    } else {
        log.with_ansi(false).event_format(Plain).fmt_fields(Plain).finish().try_init()?;
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(Log(lines))
}

fn filter(variable: impl Fn(&str) -> Option<String>) -> Result<EnvFilter, TelemetryError> {
    for name in ["TANDEM_LOG", "RUST_LOG"] {
        if let Some(text) = variable(name).filter(|text| !text.trim().is_empty()) {
            return EnvFilter::try_new(text)
                .map_err(|source| TelemetryError::Filter { variable: name, source });
        }
    }
    Ok(EnvFilter::new(DEFAULT_FILTER))
}

/// A panic as one line of the log, with what it said, where and on which thread. No backtrace: to name its frames stalls the thread, and
/// with it every call on it, for a tenth of a second.
fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    tracing::error!(place, thread, panic = said(info), "panic");
}

fn said<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

/// The upper bounds of the buckets of a histogram, in seconds, by its name.
const BUCKETS: [(&str, &[f64]); 4] = [
    (
        "tandem_call_setup_seconds",
        &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0],
    ),
    (
        "tandem_rtp_jitter_seconds",
        &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0],
    ),
    (
        "tandem_media_step_seconds",
        &[0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1],
    ),
    (
        "tandem_store_commit_seconds",
        &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0],
    ),
];

/// The bounds of every other histogram whose name ends in `_seconds`.
const OTHER_SECONDS: &[f64] = &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

/// A recorder of one engine's own, and what renders it. Nothing global: several engines fit in one process.
/// [`PrometheusHandle::run_upkeep`] is to be called every few seconds.
///
/// # Errors
/// The buckets are wrong; a test proves that they are not.
pub fn prometheus() -> Result<(Registry, PrometheusHandle), TelemetryError> {
    let mut builder = PrometheusBuilder::new();
    for (name, bounds) in BUCKETS {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)?;
    }
    builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), OTHER_SECONDS)?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    Ok((Registry::new(Arc::new(recorder)), handle))
}

#[cfg(test)]
mod tests {
    use tandem_actors::metrics::Metrics;

    use super::*;

    #[test]
    fn every_histogram_has_buckets_from_its_first_to_its_last_bound() {
        let (registry, handle) = prometheus().unwrap();
        let metrics = Metrics::new(registry);
        metrics.call_setup.record(0.003);
        metrics.rtp_jitter.record(0.003);
        metrics.worker(0).step.record(0.003);
        metrics.registry().histogram("tandem_store_commit_seconds", &[]).record(0.003);
        metrics.registry().histogram("tandem_anything_seconds", &[]).record(0.003);
        let text = handle.render();
        for expected in [
            "tandem_call_setup_seconds_bucket{le=\"0.001\"} 0",
            "tandem_call_setup_seconds_bucket{le=\"60\"} 1",
            "tandem_rtp_jitter_seconds_bucket{le=\"0.0001\"} 0",
            "tandem_rtp_jitter_seconds_bucket{le=\"1\"} 1",
            "tandem_media_step_seconds_bucket{worker=\"0\",le=\"0.00001\"} 0",
            "tandem_media_step_seconds_bucket{worker=\"0\",le=\"0.1\"} 1",
            "tandem_store_commit_seconds_bucket{le=\"0.0001\"} 0",
            "tandem_store_commit_seconds_bucket{le=\"1\"} 1",
            "tandem_anything_seconds_bucket{le=\"60\"} 1",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(!text.contains("quantile"), "{text}");
    }

    #[test]
    fn counters_exist_from_the_start() {
        let (registry, handle) = prometheus().unwrap();
        let _metrics = Metrics::new(registry);
        assert!(handle.render().contains("tandem_calls_total{result=\"answered\"} 0"));
    }

    #[test]
    fn two_engines_count_apart() {
        let (one, shown) = prometheus().unwrap();
        let (other, other_shown) = prometheus().unwrap();
        one.counter("tandem_test_total", &[]).increment(3);
        other.counter("tandem_test_total", &[]).increment(5);
        assert!(shown.render().contains("tandem_test_total 3"));
        assert!(other_shown.render().contains("tandem_test_total 5"));
    }

    #[test]
    fn the_filter_of_tandem_comes_before_the_common_one() {
        let chosen = |tandem: &'static str, rust: &'static str| {
            filter(|name| Some(if name == "TANDEM_LOG" { tandem } else { rust }.to_owned()))
        };
        assert_eq!(chosen("debug", "warn").unwrap().to_string(), "debug");
        assert_eq!(chosen(" ", "warn").unwrap().to_string(), "warn");
        assert_eq!(filter(|_| None).unwrap().to_string(), "info");
        let error = chosen("tandem=loud", "").unwrap_err();
        assert!(error.to_string().starts_with("TANDEM_LOG: "), "{error}");
    }
}
