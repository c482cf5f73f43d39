//! The media pool: workers that own the RTP sockets, sessions that say what each leg's packets may do.
//!
//! ```text
//! shard ── MediaOrder ──> MediaWorker ── Control ──> MediaSession      actors: orders and news only
//!   ^                       │ owns                       │ shares
//!   └── MediaEvent ──────── Core: sockets, step() ────── Leg: the rules of one leg and their checkpoint
//! ```
//!
//! A packet is never a message: [`worker::Step`] tells a worker to look at its sockets, and its loop hands each packet to the
//! [`Session`](tandem_media::session::Session) of its leg. The loop is in `packets.rs`, what orders do to the sockets in
//! `core.rs`. What a worker takes from outside is in [`io`]; [`threads`] has it for threads and sockets.

mod core;
pub mod io;
pub(crate) mod leases;
pub mod order;
mod packets;
pub mod ports;
pub mod recorder;
pub mod session;
pub mod sockets;
#[cfg(test)]
pub(crate) mod tests;
pub mod threads;
pub mod worker;

pub use threads::{route, spawn_workers};
