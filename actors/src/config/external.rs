//! How peers are told to reach a listener: its own address, or behind a NAT another address or a name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tandem_protocol::decimal::socket_addr;

/// What Via and Contact say of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Host and port as in a URI.
    text: Arc<str>,
    /// A name, or an address without brackets.
    host: Arc<str>,
    port: u16,
}

impl From<SocketAddr> for External {
    fn from(address: SocketAddr) -> External {
        let (text, host) = (socket_addr(address).into(), address.ip().to_string().into());
        External { text, host, port: address.port() }
    }
}

impl External {
    /// A host, which is a name or an address, and a port.
    pub fn new(host: &str, port: u16) -> External {
        match host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port).into(),
            Err(_) => External { text: format!("{host}:{port}").into(), host: host.into(), port },
        }
    }

    /// Host and port as in a URI.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name, or the address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address, unless it is a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether a host of a Via or URI, in brackets if it is an IPv6 address, is this one.
    pub fn is_host(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']);
        host.eq_ignore_ascii_case(&self.host) || self.ip().is_some_and(|ip| host.parse() == Ok(ip))
    }
}

impl fmt::Display for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_written_as_in_a_uri_and_known_however_it_is_written() {
        for (host, text, other) in [
            ("192.0.2.1", "192.0.2.1:5060", "192.0.2.1"),
            ("2001:db8::1", "[2001:db8::1]:5060", "[2001:DB8:0::1]"),
            ("sip.example.com", "sip.example.com:5060", "SIP.example.com"),
        ] {
            let external = External::new(host, 5060);
            assert_eq!((external.as_str(), external.host()), (text, host));
            assert!(external.is_host(other) && external.is_host(host), "{host}");
            assert!(!external.is_host("192.0.2.2") && !external.is_host("example.com"), "{host}");
        }
    }
}
