//! Who is at the other end of connections by its certificate, for every shard to know.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tandem_protocol::flow::{ConnectionId, ListenerId};
use tandem_protocol::message::Via;

use super::PeerNames;

/// So many parts, each replaced whole by a change: of thousands of connections few are copied.
const PARTS: u64 = 64;

/// So many aliases are kept: more than there are servers that connect to us.
const MOST_ALIASES: usize = 4096;

type Aliases = BTreeMap<(ListenerId, SocketAddr), ConnectionId>;
type Part = BTreeMap<ConnectionId, Arc<PeerNames>>;

/// The connections whose peers have shown a certificate that is believed. Any shard reads and writes it without waiting.
pub struct SecurePeers {
    parts: Box<[ArcSwap<Part>]>,
    /// The connections by which those who have opened them take requests too (RFC 5923), by where they listen.
    aliases: ArcSwap<Aliases>,
}

impl Default for SecurePeers {
    fn default() -> SecurePeers {
        SecurePeers { parts: (0..PARTS).map(|_| ArcSwap::default()).collect(), aliases: ArcSwap::default() }
    }
}

impl SecurePeers {
    fn part(&self, connection: ConnectionId) -> Option<&ArcSwap<Part>> {
        // The lowest bit says who has opened it.
        self.parts.get((connection.generation / 2 % PARTS) as usize)
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
            self.change_aliases(|aliases| aliases.retain(|_, other| *other != connection));
        }
    }

    fn change_aliases(&self, change: impl Fn(&mut Aliases)) {
        self.aliases.rcu(|aliases| {
            let mut next = Aliases::clone(aliases);
            change(&mut next);
            next
        });
    }

    /// A request with this topmost Via has come by a connection from `remote`: if its sender says so, requests to where he listens may
    /// go by it. His certificate must be for the host that he says he is.
    pub fn note_via(
        &self,
        listener: ListenerId,
        remote: SocketAddr,
        connection: ConnectionId,
        via: &Via<'_>,
    ) {
        if via.param("alias").is_none() {
            return;
        }
        let at = (listener, SocketAddr::new(remote.ip(), via.sent_by_port()));
        if self.aliases.load().get(&at) == Some(&connection) {
            return;
        }
        let is_he = match via.host.parse::<IpAddr>() {
            Ok(ip) => remote.ip() == ip && self.of(connection).is_some(),
            Err(_) => self.of(connection).is_some_and(|names| names.include(via.host)),
        };
        if is_he {
            self.change_aliases(|aliases| {
                if aliases.len() < MOST_ALIASES || aliases.contains_key(&at) {
                    aliases.insert(at, connection);
                }
            });
        }
    }

    /// The connection that leads to `remote` though its peer has opened it, and who that is. Whoever sends by it makes sure that it is
    /// whom he wants.
    pub fn alias(&self, listener: ListenerId, remote: SocketAddr) -> Option<(ConnectionId, Arc<PeerNames>)> {
        let connection = *self.aliases.load().get(&(listener, remote))?;
        Some((connection, self.of(connection)?))
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
    fn a_server_that_has_connected_and_says_so_is_reached_by_its_connection() {
        let peers = SecurePeers::default();
        let (listener, id) = (ListenerId::default(), ConnectionId::new(0, 1, false));
        let from = SocketAddr::from(([192, 0, 2, 1], 40_000));
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let note = |via: &str| peers.note_via(listener, from, id, &Via::parse(via).unwrap());
        note("SIP/2.0/TLS a.example;branch=z9hG4bK1;alias");
        assert_eq!(peers.alias(listener, at(5061)), None, "it has shown no certificate");
        peers.note(id, PeerNames { domains: vec!["a.example".into()], addresses: Vec::new() });
        for other in ["a.example;branch=z9hG4bK1", "b.example;alias", "192.0.2.2;alias"] {
            note(&format!("SIP/2.0/TLS {other}"));
            assert_eq!(peers.alias(listener, at(5061)), None, "{other}");
        }
        note("SIP/2.0/TLS a.example;branch=z9hG4bK1;alias");
        note("SIP/2.0/TLS 192.0.2.1:5071;alias");
        for port in [5061, 5071] {
            assert_eq!(peers.alias(listener, at(port)).map(|(id, _)| id), Some(id), "{port}");
        }
        peers.forget(id);
        assert_eq!(peers.alias(listener, at(5061)), None);
    }

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
