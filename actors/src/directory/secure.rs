//! Whose a connection of TLS is: the names that servers must have, and the trunks of clients (RFC 5922).

use std::net::SocketAddr;
use std::sync::Arc;

use tandem_protocol::flow::Flow;

use super::{Directory, RegistrationEntry, TrunkEntry};
use crate::sip::tls::{Expected, PeerNames};

impl TrunkEntry {
    /// Whom the server at an address must prove to be, if it is one of the trunk's.
    fn identities_at(&self, address: SocketAddr) -> Vec<Vec<String>> {
        let own = &self.config.certificate_names;
        match (own.is_empty(), self.has_proxy(address)) {
            (_, false) => Vec::new(),
            (true, true) => self.places().identities_at(address),
            (false, true) => vec![own.clone()],
        }
    }

    /// True if a certificate is for the trunk's far end.
    fn is_of(&self, peer: &PeerNames) -> bool {
        let own = &self.config.certificate_names;
        if own.is_empty() {
            self.places().identities().any(|name| peer.include(&name))
        } else {
            own.iter().any(|name| peer.include(name))
        }
    }
}

impl RegistrationEntry {
    /// A registrar proves the domain that is registered in, or who it is by its own name.
    fn identities_at(&self, listener: u16, address: SocketAddr) -> impl Iterator<Item = Vec<String>> {
        let here = self.config.registrations.iter().zip(self.places()).filter(move |(config, places)| {
            config.listener == listener && places.list().iter().any(|server| server.address == address)
        });
        here.map(move |(config, places)| {
            let own = places.identities_at(address).into_iter().flatten();
            std::iter::once(config.domain.clone()).chain(own).collect()
        })
    }
}

impl Directory {
    /// Whom a server must prove to be that we connect to from the listener at a place.
    pub fn expected(&self, listener: u16, remote: SocketAddr) -> Expected {
        let trunks = self.trunks().filter(|trunk| trunk.config.listener == listener);
        let mut groups: Vec<Vec<String>> = trunks.flat_map(|trunk| trunk.identities_at(remote)).collect();
        if groups.is_empty() {
            groups.extend(self.registrations().flat_map(|group| group.identities_at(listener, remote)));
        }
        Expected::new(groups, remote.ip())
    }

    /// The same way by the connection of a server that has opened it and takes requests by it (RFC 5923), if that server is whom we
    /// would expect there.
    pub fn aliased(&self, flow: Flow) -> Option<Flow> {
        if flow.connection.is_some() || !flow.listener.transport().is_secure() {
            return None;
        }
        let (connection, peer) = self.secure_peers.alias(flow.listener, flow.remote)?;
        let place = self.listeners.iter().position(|id| *id == flow.listener)?;
        let expected = self.expected(u16::try_from(place).ok()?, flow.remote);
        expected.is_met_by(&peer).then_some(Flow { connection: Some(connection), ..flow })
    }

    /// The trunk whose far end has opened this connection, by the certificate it has shown. It must have come by the trunk's own
    /// listener: another one may believe other authorities.
    pub fn trunk_of_certificate(&self, source: Flow) -> Option<&Arc<TrunkEntry>> {
        let peer = self.secure_peers.of(source.connection.filter(|connection| !connection.is_ours())?)?;
        let place = self.listeners.iter().position(|id| *id == source.listener)?;
        self.trunks.values().find(|trunk| usize::from(trunk.config.listener) == place && trunk.is_of(&peer))
    }
}
