//! Finds the proxies of trunks that are named, on a thread of its own: no shard ever waits for a name.
//!
//! The thread (`thread.rs`) drives [`tandem_protocol::dns::Resolver`], which knows what is to be asked and when, and asks the servers
//! for it (`servers.rs`). What is found goes to the shard of each trunk, again and again as times to live end; calls read
//! what was published last. Nothing here is waited for but by a start, and that only for a moment. What was found
//! last is kept in the store (`kept.rs`), for a start without any server.

mod kept;
mod servers;
mod thread;

pub use thread::{Finder, spawn};
