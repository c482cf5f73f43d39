//! Where a message came from and where its answers go.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A path to a peer: one of our listeners, and the peer's address as that listener sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// The listener's place in the settings, from 0.
    pub listener: u16,
    /// The peer's address.
    pub remote: SocketAddr,
}
