//! SIP on the wire: sockets and connections, the transaction table of a shard, and the trace of its messages.

pub(crate) mod dscp;
pub(crate) mod ears;
pub mod endpoint;
pub mod icmp;
pub mod listening;
pub mod peers;
pub(crate) mod stateless;
pub mod tcp;
pub mod tls;
pub mod trace;
pub mod udp;
