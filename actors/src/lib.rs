//! The actors of Tandem: mailboxes, placement, timers, supervision, sockets.

pub mod cdr;
pub mod events;
pub mod store;
pub mod timer_wheel;
