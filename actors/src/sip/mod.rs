//! SIP on the wire: the transaction table of a shard, and the trace of its messages.

pub mod endpoint;
pub(crate) mod stateless;
pub mod trace;
