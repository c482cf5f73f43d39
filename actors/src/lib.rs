//! The actors of Tandem: mailboxes, placement, timers, supervision, sockets.
//!
//! ```text
//! engine
//! ├── shard:0 .. n                 one a core, on an arbiter thread of its own
//! │   ├── call:ID                  one a call; two legs or more
//! │   │   └── dialog:ID/0 .. m     one a leg
//! │   ├── station:NAME             on demand, on the shard of its name, which takes REGISTERs of those that rest
//! │   ├── trunk:NAME
//! │   └── registration_group:NAME
//! ├── dns                          finds the trunks that are named, on a thread of its own; only if there are any
//! └── media_worker:0 .. n          the packet loop, on an arbiter thread of its own
//!     └── media_session:ID/0 .. 1  one a leg whose media we carry
//! ```
//!
//! Each is a thin shell ([`shell`]) around a state machine of `tandem-protocol` or `tandem-media`; [`mod@env`] is their only way
//! out; [`supervisor`] says what happens when one fails.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[cfg(test)]
extern crate self as tandem_actors;

pub mod call;
pub mod calls;
pub mod cdr;
mod checkpoint;
pub mod config;
pub mod dialog;
pub mod directory;
pub mod dns;
pub mod engine;
pub mod env;
pub mod events;
pub mod generation;
pub mod ids;
pub mod links;
pub mod map;
pub mod media_pool;
pub mod metrics;
mod owner;
pub mod registrar;
pub mod registration_group;
pub mod runtime;
pub mod seat;
pub mod shard;
pub mod shell;
pub mod sip;
pub mod station;
pub mod store;
pub mod supervisor;
pub mod timer_wheel;
pub mod toll_fraud;
pub mod trunk;
