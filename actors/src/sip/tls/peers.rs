//! Who is at the other end of connections by its certificate, for every shard to know.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tandem_protocol::flow::ConnectionId;

use super::PeerNames;

/// So many parts, each replaced whole by a change: of thousands of connections few are copied.
const PARTS: u64 = 64;

type Part = BTreeMap<ConnectionId, Arc<PeerNames>>;

/// The connections whose peers have shown a certificate that is believed. Any shard reads and writes it without waiting.
pub struct SecurePeers(Box<[ArcSwap<Part>]>);

impl Default for SecurePeers {
    fn default() -> SecurePeers {
        SecurePeers((0..PARTS).map(|_| ArcSwap::default()).collect())
    }
}

impl SecurePeers {
    fn part(&self, connection: ConnectionId) -> Option<&ArcSwap<Part>> {
        // The lowest bit says who has opened it.
        self.0.get((connection.generation / 2 % PARTS) as usize)
    }

    fn change(&self, connection: ConnectionId, change: impl Fn(&mut Part)) {
        if let Some(part) = self.part(connection) {
            part.rcu(|part| {
                let mut next = Part::clone(part);
                change(&mut next);
                next
            });
        }
    }

    /// The peer of a connection is this one.
    pub fn note(&self, connection: ConnectionId, names: PeerNames) {
        let names = Arc::new(names);
        self.change(connection, |part| {
            part.insert(connection, names.clone());
        });
    }

    /// A connection has ended.
    pub fn forget(&self, connection: ConnectionId) {
        if self.of(connection).is_some() {
            self.change(connection, |part| {
                part.remove(&connection);
            });
        }
    }

    /// Who the peer of a connection has proved to be.
    pub fn of(&self, connection: ConnectionId) -> Option<Arc<PeerNames>> {
        self.part(connection)?.load().get(&connection).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_known_while_its_connection_lasts() {
        let peers = SecurePeers::default();
        let names = |name: &str| PeerNames { domains: vec![name.to_owned()], addresses: Vec::new() };
        let id = |number| ConnectionId::new(1, number, false);
        for number in 0..200 {
            peers.note(id(number), names(&number.to_string()));
        }
        assert!(peers.of(id(7)).is_some_and(|names| names.include("7")));
        peers.forget(id(7));
        peers.forget(id(1000));
        assert!(peers.of(id(7)).is_none() && peers.of(id(71)).is_some_and(|names| names.include("71")));
    }
}
