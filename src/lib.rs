//! The daemon `tandem`: command line, settings, store and wiring. Telephony lives in the crates below.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod certificates;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod demo;
pub mod drain;
pub mod http;
pub mod ladder;
mod log_format;
mod log_lines;
pub mod reload;
pub mod rerouted;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod wiring;
