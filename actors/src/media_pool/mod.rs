//! The media pool: workers that own the RTP sockets, sessions that say what each leg's packets may do.

pub(crate) mod leases;
pub mod order;
