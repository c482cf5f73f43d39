//! Where a message came from and where its answers go.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How a listener carries SIP (RFC 3261 §18).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// Datagrams; the transactions repeat what may be lost.
    #[default]
    Udp,
    /// A byte stream.
    Tcp,
}

impl Transport {
    /// Every transport, in the order of [`Transport::place`].
    pub const ALL: [Transport; 2] = [Transport::Udp, Transport::Tcp];

    /// Its place in [`Transport::ALL`], for tables with one entry each.
    pub fn place(self) -> usize {
        self as usize
    }

    /// The name in settings, metrics, and the `transport` parameter of a URI (RFC 3261 §19.1.1).
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }
    }

    /// The name in a Via (RFC 3261 §20.42).
    pub fn via(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        }
    }

    /// True if nothing is lost on the way, so that nothing is repeated (RFC 3261 §17.1.1.2).
    pub fn is_reliable(self) -> bool {
        match self {
            Transport::Udp => false,
            Transport::Tcp => true,
        }
    }
}

/// One connection of one life of the process. It belongs to the shard that accepted or opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId {
    /// The shard whose it is.
    pub shard: u16,
    /// Its number; none is used again, not even by a later process. Its lowest bit says who opened it.
    pub generation: u64,
}

impl ConnectionId {
    /// Connection `number` of a shard; `ours`: we have opened it.
    pub fn new(shard: u16, number: u64, ours: bool) -> ConnectionId {
        ConnectionId { shard, generation: number << 1 | u64::from(ours) }
    }

    /// True if we have opened it: then the far end is who listens at that address, and not only somebody who sends from there.
    pub fn is_ours(self) -> bool {
        self.generation & 1 == 1
    }
}

/// A path to a peer: one of our listeners, and the peer's address as that listener sees it.
///
/// A flow of datagrams outlives the process. A flow that names a connection ends with it, and sending to it then fails at
/// once; without one, a listener of streams finds or opens a connection to `remote`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// The listener's place in the settings, from 0.
    pub listener: u16,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The connection, if it is one that is meant.
    pub connection: Option<ConnectionId>,
}

impl Flow {
    /// A flow of datagrams, or the way to a peer over any connection.
    pub fn to(listener: u16, remote: SocketAddr) -> Flow {
        Flow { listener, remote, connection: None }
    }

    /// The way to an address that the peer of this flow has named: over the same connection if it is the same host, since
    /// a connection's far port says nothing about where that host listens; else by itself.
    pub fn towards(self, named: SocketAddr) -> Flow {
        if self.connection.is_some() && self.remote.ip() == named.ip() {
            return self;
        }
        Flow::to(self.listener, named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_address_keeps_the_connection_of_its_host_and_of_no_other() {
        let remote = SocketAddr::from(([192, 0, 2, 1], 40_000));
        let connection = Some(ConnectionId { shard: 1, generation: 7 });
        let flow = Flow { listener: 2, remote, connection };
        assert_eq!(flow.towards(([192, 0, 2, 1], 5060).into()), flow);
        let other = SocketAddr::from(([192, 0, 2, 2], 5060));
        assert_eq!(flow.towards(other), Flow::to(2, other));
        let same_host = SocketAddr::from(([192, 0, 2, 1], 5060));
        assert_eq!(Flow::to(2, remote).towards(same_host), Flow::to(2, same_host), "no connection to keep");
    }
}
