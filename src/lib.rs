//! The Tandem daemon as a library: what `main.rs` wires together.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod store;
