//! The DSCP of SIP packets (RFC 2474), per trunk.

use std::cell::Cell;
use std::net::UdpSocket;
use std::os::fd::AsFd;

use socket2::SockRef;

/// A shard's socket of one listener, and how its datagrams are marked now.
pub(crate) struct MarkedSocket {
    pub(crate) socket: UdpSocket,
    is_v4: bool,
    /// `None`: as the system does, which is what it begins with.
    mark: Cell<Option<u8>>,
}

impl MarkedSocket {
    pub(crate) fn new(socket: UdpSocket) -> MarkedSocket {
        let is_v4 = socket.local_addr().is_ok_and(|address| address.is_ipv4());
        MarkedSocket { socket, is_v4, mark: Cell::new(None) }
    }

    /// Datagrams that are sent from now on have this mark. Most have the same as those before, which costs nothing.
    pub(crate) fn mark(&self, dscp: Option<u8>) {
        if self.mark.replace(dscp) != dscp {
            mark(&self.socket, self.is_v4, dscp.unwrap_or(0));
        }
    }
}

/// What a socket sends from now on has this DSCP. That it cannot be marked never costs a message.
pub(crate) fn mark(socket: &impl AsFd, is_v4: bool, dscp: u8) {
    let socket = SockRef::from(socket);
    let class = u32::from(dscp) << 2;
    let marked = if is_v4 { socket.set_tos_v4(class) } else { socket.set_tclass_v6(class) };
    if let Err(why) = marked {
        tracing::debug!(dscp, %why, "packets cannot be marked");
    }
}
