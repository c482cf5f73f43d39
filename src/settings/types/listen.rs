//! `[[listen]]`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tandem_actors::sip::tls::TlsFiles;

use crate::settings::values::{BindAddress, HostPort};

/// How SIP is carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP (RFC 3261 §18).
    #[default]
    Udp,
    /// TCP (RFC 3261 §18).
    Tcp,
    /// TLS over TCP (RFC 3261 §26).
    Tls,
    /// WebSocket (RFC 7118).
    Ws,
    /// WebSocket over TLS (RFC 7118).
    Wss,
}

impl Transport {
    /// The name in settings, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// The port where an address has none.
    pub fn default_port(self) -> u16 {
        if self.is_secure() { 5061 } else { 5060 }
    }

    /// Whether the peer shows a certificate.
    pub fn is_secure(self) -> bool {
        match self {
            Self::Tls | Self::Wss => true,
            Self::Udp | Self::Tcp | Self::Ws => false,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One address that SIP is heard on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// What trunks and logs call it; never empty after loading: the transport's name stands in.
    pub name: String,
    /// How SIP is carried on it.
    pub transport: Transport,
    /// Where it listens.
    pub address: BindAddress,
    /// What peers are told instead of `address` in Via and Contact, if there is a NAT between.
    pub external_address: Option<HostPort>,
    /// RFC 3261 T1, in milliseconds; see [`t1`](Self::t1).
    pub t1_ms: u32,
    /// RFC 3261 T2, in milliseconds; see [`t2`](Self::t2).
    pub t2_ms: Option<u32>,
    /// The interval of session timers (RFC 4028) in seconds, 0 is off; see [`session`](Self::session).
    pub session_expires_s: u32,
    /// The shortest such interval that is accepted, in seconds.
    pub min_se_s: u32,
    /// The longest message accepted, in bytes; a request beyond this and the next three is answered 513 (RFC 3261 §21.5.7).
    pub max_message_bytes: u32,
    /// The longest start line, and the longest header with its folds, in bytes.
    pub max_header_bytes: u32,
    /// How many header lines a message may have, folds not counted.
    pub max_headers: u32,
    /// How many Via values a message may have.
    pub max_vias: u32,
    /// The certificate chain, in PEM.
    pub certificate: Option<PathBuf>,
    /// The key of the certificate, in PEM.
    pub private_key: Option<PathBuf>,
    /// The authorities whose client certificates are trusted, in PEM.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    pub require_client_certificate: bool,
    /// The authorities of servers that are connected to, in PEM; `None`: those of the system.
    pub server_ca: Option<PathBuf>,
    /// How long the TLS handshake of a client may take, in milliseconds; see [`handshake_timeout`](Self::handshake_timeout).
    pub handshake_timeout_ms: u32,
    /// The most such handshakes under way at once.
    pub max_handshakes: u32,
    /// The most connections at once.
    pub max_connections: u32,
    /// The most connections at once from one IPv4 address or IPv6 /64.
    pub max_connections_per_source: u32,
    /// How long a connection may be silent both ways, in seconds; see [`idle_timeout`](Self::idle_timeout).
    pub idle_timeout_s: u32,
    /// How long a message may take to come, in seconds; see [`message_timeout`](Self::message_timeout).
    pub message_timeout_s: u32,
    /// How long opening a connection may take, in milliseconds; see [`connect_timeout`](Self::connect_timeout).
    pub connect_timeout_ms: u32,
    /// What may wait to be sent on one connection, in KiB; see [`send_queue`](Self::send_queue).
    pub send_queue_kb: u32,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            name: String::new(),
            transport: Transport::Udp,
            address: BindAddress(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5060))),
            external_address: None,
            t1_ms: 500,
            t2_ms: None,
            session_expires_s: 1800,
            min_se_s: 90,
            max_message_bytes: 65_535,
            max_header_bytes: 8192,
            max_headers: 256,
            max_vias: 70,
            certificate: None,
            private_key: None,
            client_ca: None,
            require_client_certificate: false,
            server_ca: None,
            handshake_timeout_ms: 5000,
            max_handshakes: 100,
            max_connections: 10_000,
            max_connections_per_source: 100,
            idle_timeout_s: 600,
            message_timeout_s: 10,
            connect_timeout_ms: 3000,
            send_queue_kb: 256,
        }
    }
}

impl Listen {
    /// Whether its socket reaches a peer there: one of its own address family.
    pub fn reaches(&self, peer: IpAddr) -> bool {
        self.address.0.is_ipv4() == peer.is_ipv4()
    }

    /// The estimate of a round trip that the timers of RFC 3261 §17 are built on.
    pub fn t1(&self) -> Duration {
        Duration::from_millis(self.t1_ms.into())
    }

    /// After how long without a byte either way a connection is closed.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_s.into())
    }

    /// From a message's first byte to its last; also from a connection's beginning to the end of its first message.
    pub fn message_timeout(&self) -> Duration {
        Duration::from_secs(self.message_timeout_s.into())
    }

    /// How long opening a connection may take.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms.into())
    }

    /// How long the TLS handshake of a client may take.
    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms.into())
    }

    /// What its TLS is made of, if it has any.
    pub fn tls_files(&self) -> Option<TlsFiles> {
        let (certificate, private_key) = (self.certificate.clone()?, self.private_key.clone()?);
        self.transport.is_secure().then(|| TlsFiles {
            certificate,
            private_key,
            client_ca: self.client_ca.clone(),
            require_client_certificate: self.require_client_certificate,
            server_ca: self.server_ca.clone(),
        })
    }

    /// How many bytes may wait to be sent on one connection before the peer is cut off.
    pub fn send_queue(&self) -> usize {
        self.send_queue_kb as usize * 1024
    }

    /// The interval of session timers and the shortest that is accepted (RFC 4028); an interval of zero is off.
    pub fn session(&self) -> (Duration, Duration) {
        (Duration::from_secs(self.session_expires_s.into()), Duration::from_secs(self.min_se_s.into()))
    }

    /// The longest interval between retransmissions (RFC 3261 §17.1.2.2): 4 s, over TLS 1 s.
    pub fn t2(&self) -> Duration {
        let usual = if self.transport.is_secure() { 1000 } else { 4000 };
        Duration::from_millis(self.t2_ms.unwrap_or(usual).into())
    }
}
