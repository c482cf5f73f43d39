//! A scripted SIP softphone, on purpose another SIP implementation than the engine's.
//!
//! [`Phone`] is the SIP half and [`media::MediaEnd`] the audio half; both are plain machines without
//! sockets, clocks and random numbers from outside, so that a simulation can run thousands of them in
//! virtual time and replay a run from its seeds. `driver` (feature `driver`, on by default) runs them
//! on real sockets.
//!
//! Messages are framed, named and printed by `rsip`; see `text.rs` and `wire.rs` for what it cannot be
//! trusted with. Nothing here depends on `tandem-protocol`: a fault of the engine's SIP must not be
//! shared by the one who would notice it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod api;
mod call;
mod dialog;
mod digest;
#[cfg(feature = "driver")]
pub mod driver;
mod endpoint;
mod manners;
pub mod media;
mod phone;
mod registration;
mod request;
mod rng;
mod sdp;
mod text;
mod timer;
mod transaction;
mod wire;

pub use api::{AutoAnswer, CallHandle, CallState, Command, Event, PhoneConfig, Transport};
pub use manners::{Manners, Refresher, Reliability, SessionTimers};
pub use phone::Phone;
pub use sdp::Direction;
