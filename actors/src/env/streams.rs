//! What an actor may want of connections besides sending by them.

use std::net::SocketAddr;
use std::time::Duration;

use actix::WeakRecipient;
use tandem_protocol::flow::{ConnectionId, Flow, ListenerId};

use super::{Env, Tell, Told};

/// What came of a race for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raced {
    /// What its waiter has called it.
    pub number: u32,
    /// The address to which there is a connection now; `None`: there is none.
    pub won: Option<SocketAddr>,
    /// Those to which none came about.
    pub failed: Vec<SocketAddr>,
}

/// Who waits for a race.
#[derive(Clone)]
pub struct Waiter {
    /// Who is told.
    pub owner: WeakRecipient<Told<Raced>>,
    /// What he calls it.
    pub number: u32,
}

impl Waiter {
    /// Tells what came of it.
    pub fn tell(&self, won: Option<SocketAddr>, failed: &[SocketAddr]) {
        if let Some(owner) = self.owner.upgrade() {
            owner.tell(Raced { number: self.number, won, failed: failed.to_vec() });
        }
    }
}

impl Env {
    /// Which address of a server to go to, the first or one of the others; see [`Seams::race`](super::Seams::race). Where the server has opened a
    /// connection that takes requests too (RFC 5923), there is nothing to race for.
    pub fn race(
        &self,
        listener: ListenerId,
        to: (SocketAddr, &[SocketAddr]),
        within: Option<Duration>,
        waiter: Waiter,
    ) -> Option<SocketAddr> {
        let (first, others) = to;
        if self.is_fenced() {
            return None;
        }
        if others.is_empty() || !self.config().transport(listener).is_reliable() {
            return Some(first);
        }
        let aliased = |to: &SocketAddr| self.directory().aliased(Flow::to(listener, *to)).is_some();
        if let Some(there) = std::iter::once(&first).chain(others).find(|to| aliased(to)) {
            return Some(*there);
        }
        let limits = self.config().listener(listener).map(|l| l.streams);
        let within = within.unwrap_or(limits.unwrap_or_default().connect);
        self.0.common.seams.race(listener, to, within, waiter)
    }

    /// The connection to `remote` that this shard has opened; see [`Seams::opened`](super::Seams::opened).
    pub fn opened(&self, listener: ListenerId, remote: SocketAddr) -> Option<ConnectionId> {
        self.0.common.seams.opened(listener, remote)
    }

    /// Asks the far end of a connection of this shard for a sign of life; see [`Seams::ping`](super::Seams::ping).
    pub fn ping(&self, connection: ConnectionId) {
        if !self.is_fenced() {
            self.0.common.seams.ping(connection);
        }
    }
}
