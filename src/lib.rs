//! The daemon `tandem`: command line, settings and wiring. Telephony lives in the crates below.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod cli;
pub mod settings;
pub mod store;
