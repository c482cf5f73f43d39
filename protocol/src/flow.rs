//! Where a message came from and where its answers go.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::fnv::fnv1a;
use crate::message::Via;

/// How a listener carries SIP (RFC 3261 §18).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// Datagrams; the transactions repeat what may be lost.
    #[default]
    Udp,
    /// A byte stream.
    Tcp,
    /// A byte stream that nobody else reads, between peers that have proved who they are (RFC 3261 §26.2).
    Tls,
}

impl Transport {
    /// Every transport, in the order of [`Transport::place`].
    pub const ALL: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

    /// Its place in [`Transport::ALL`], for tables with one entry each.
    pub fn place(self) -> usize {
        self as usize
    }

    /// The name in settings, metrics, and the `transport` parameter of a URI (RFC 3261 §19.1.1).
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        }
    }

    /// The name in a Via (RFC 3261 §20.42).
    pub fn via(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        }
    }

    /// True if nothing is lost on the way, so that nothing is repeated (RFC 3261 §17.1.1.2).
    pub fn is_reliable(self) -> bool {
        match self {
            Transport::Udp => false,
            Transport::Tcp | Transport::Tls => true,
        }
    }

    /// True if a `sips` URI may go by it (RFC 3261 §26.2.2).
    pub fn is_secure(self) -> bool {
        match self {
            Transport::Udp | Transport::Tcp => false,
            Transport::Tls => true,
        }
    }

    /// The port where there is none in a URI or Via (RFC 3261 §18.1.1, §19.1.2).
    pub fn default_port(self) -> u16 {
        if self.is_secure() { 5061 } else { 5060 }
    }
}

/// Names a listener by how and where it listens, so that what is stored with the name means the same after a restart, whatever else
/// listens then and in whatever order.
///
/// Of a listener that is not there any more it still tells the transport and the address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListenerId(u64);

impl ListenerId {
    /// Set in every name, and in no place that was stored instead of one.
    const NAMED: u64 = 1 << 63;
    /// The lowest bits say what kind of listener it is.
    const KIND: u64 = 0xf;
    const IPV6: u64 = 0x8;
    const TRANSPORT: u64 = 0x7;

    /// The name of a listener of `transport` on `address`.
    pub fn new(transport: Transport, address: SocketAddr) -> ListenerId {
        let family = if address.is_ipv6() { ListenerId::IPV6 } else { 0 };
        let kind = transport.place() as u64 | family;
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let hash = fnv1a(ip.octets().into_iter().chain(address.port().to_be_bytes()).chain([kind as u8]));
        ListenerId(hash & !ListenerId::KIND | ListenerId::NAMED | kind)
    }

    /// How it carries SIP.
    pub fn transport(self) -> Transport {
        let place = (self.0 & ListenerId::TRANSPORT) as usize;
        Transport::ALL.get(place).copied().unwrap_or_default()
    }

    /// True if the other carries SIP alike, over the same address family.
    pub fn is_alike(self, other: ListenerId) -> bool {
        self.0 & ListenerId::KIND == other.0 & ListenerId::KIND
    }

    /// The place of a listener in the settings, from 0: what the formats before this one stored, and read as such a name.
    pub fn former_place(self) -> Option<usize> {
        (self.0 & ListenerId::NAMED == 0).then_some(self.0 as usize)
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
    /// The listener.
    pub listener: ListenerId,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The connection, if it is one that is meant.
    pub connection: Option<ConnectionId>,
}

impl Flow {
    /// A flow of datagrams, or the way to a peer over any connection.
    pub fn to(listener: ListenerId, remote: SocketAddr) -> Flow {
        Flow { listener, remote, connection: None }
    }

    /// Where whoever sent a request with this topmost Via by this flow hears responses, and calls: where he sent it from. Only who neither asks
    /// for that (RFC 3581) nor is behind a NAT, which his own address shows, hears datagrams at the port that he names (RFC 3261 §18.2.2).
    pub fn answering(self, via: &Via<'_>) -> Flow {
        let datagrams = self.connection.is_none() && !self.listener.transport().is_reliable();
        let port = via.port.unwrap_or(5060);
        // Nearly everyone listens at the port he sends from: then nothing else of the Via matters.
        if !datagrams || port == self.remote.port() {
            return self;
        }
        if via.rport().is_some() || via.host.parse() != Ok(self.remote.ip().to_canonical()) {
            return self;
        }
        Flow { remote: SocketAddr::new(self.remote.ip(), port), ..self }
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
        let listener = ListenerId::new(Transport::Tcp, ([192, 0, 2, 9], 5060).into());
        let flow = Flow { listener, remote, connection };
        assert_eq!(flow.towards(([192, 0, 2, 1], 5060).into()), flow);
        let other = SocketAddr::from(([192, 0, 2, 2], 5060));
        assert_eq!(flow.towards(other), Flow::to(listener, other));
        let same_host = SocketAddr::from(([192, 0, 2, 1], 5060));
        assert_eq!(
            Flow::to(listener, remote).towards(same_host),
            Flow::to(listener, same_host),
            "no connection to keep"
        );
    }

    #[test]
    fn who_sends_from_another_port_than_he_listens_at_is_answered_where_he_says_unless_he_is_behind_a_nat() {
        let listener = |transport| ListenerId::new(transport, ([192, 0, 2, 9], 5060).into());
        let answered = |transport, source: &str, via: &str| {
            let flow = Flow::to(listener(transport), source.parse().unwrap());
            flow.answering(&Via::parse(&format!("SIP/2.0/UDP {via};branch=z9hG4bKx")).unwrap())
                .remote
                .to_string()
        };
        for (source, via, to) in [
            ("192.0.2.1:40000", "192.0.2.1:5062", "192.0.2.1:5062"),
            ("192.0.2.1:40000", "192.0.2.1", "192.0.2.1:5060"),
            ("192.0.2.1:40000", "192.0.2.1:5062;rport", "192.0.2.1:40000"),
            ("192.0.2.1:40000", "10.0.0.1:5062", "192.0.2.1:40000"),
            ("192.0.2.1:40000", "phone.example:5062", "192.0.2.1:40000"),
            ("[2001:db8::1]:40000", "[2001:DB8::1]:5062", "[2001:db8::1]:5062"),
        ] {
            assert_eq!(answered(Transport::Udp, source, via), to, "{via}");
            assert_eq!(answered(Transport::Tcp, source, via), source, "{via}");
        }
    }

    #[test]
    fn a_listener_is_named_by_its_transport_family_and_address_and_by_nothing_else() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let id = |transport, text| ListenerId::new(transport, address(text));
        let one = id(Transport::Udp, "192.0.2.1:5060");
        assert_eq!(one, id(Transport::Udp, "192.0.2.1:5060"));
        let others = [
            id(Transport::Tcp, "192.0.2.1:5060"),
            id(Transport::Udp, "192.0.2.1:5061"),
            id(Transport::Udp, "192.0.2.2:5060"),
            id(Transport::Udp, "[2001:db8::1]:5060"),
            ListenerId::default(),
        ];
        for other in others {
            assert_ne!(one, other);
        }
        assert_eq!(others.map(ListenerId::transport)[..2], [Transport::Tcp, Transport::Udp]);
        assert_eq!(others.map(|other| one.is_alike(other)), [false, true, true, false, true]);
        assert_eq!((one.former_place(), ListenerId::default().former_place()), (None, Some(0)));
    }
}
