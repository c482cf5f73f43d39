//! The actors of Tandem: mailboxes, placement, timers, supervision, sockets.

pub mod cdr;
pub mod events;
pub mod store;
