//! Fuzz targets. Each takes bytes, and panics if something that must hold does not.
//!
//! The parsers get the bytes as they are; for the machines they are a sequence of operations. Every input that once found
//! a fault lies in `fuzz/corpus/TARGET`, and is played again by `cargo test`; `fuzz/run` looks for new ones.
#![forbid(unsafe_code)]

mod dialogs;
mod digest;
mod message;
mod sdp;
mod transactions;
mod uri;

/// One target.
pub type Target = fn(&[u8]);

/// Every target with the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("message", message::run),
    ("sdp", sdp::run),
    ("digest", digest::run),
    ("uri", uri::run),
    ("transactions", transactions::run),
    ("dialogs", dialogs::run),
];
