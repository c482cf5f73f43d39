//! Who is known to take streams: only with them a message too large for a datagram is tried over one (RFC 3261 §18.1.1).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use tandem_protocol::flow::Transport;

use crate::config::EngineConfig;

/// How many hosts are remembered; a newer one may take an older one's place.
const PLACES: usize = 4096;

/// Hosts that were seen on streams, by a hash of their address. Any shard reads and writes it without waiting.
pub struct StreamPeers(Box<[AtomicU64]>);

impl Default for StreamPeers {
    fn default() -> StreamPeers {
        StreamPeers((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl StreamPeers {
    /// Knows the proxies of the trunks that use streams.
    pub fn of_trunks(config: &EngineConfig) -> StreamPeers {
        let peers = StreamPeers::default();
        for trunk in config
            .trunks
            .iter()
            .filter(|t| config.transport(config.listener_id(t.listener)) == Transport::Tcp)
        {
            trunk.proxies.iter().for_each(|proxy| peers.note(proxy.address.ip()));
        }
        peers
    }

    fn place(&self, ip: IpAddr) -> (&AtomicU64, u64) {
        let bits = match ip {
            IpAddr::V4(ip) => u128::from(ip.to_ipv6_mapped()),
            IpAddr::V6(ip) => u128::from(ip),
        };
        let hash = tandem_protocol::fnv::fnv1a(bits.to_le_bytes()) | 1;
        (&self.0[(hash >> 32) as usize % self.0.len()], hash)
    }

    /// Notes that a host takes streams.
    pub fn note(&self, ip: IpAddr) {
        let (place, hash) = self.place(ip);
        if place.load(Ordering::Relaxed) != hash {
            place.store(hash, Ordering::Relaxed);
        }
    }

    /// Whether a host takes streams, as far as is remembered.
    pub fn knows(&self, ip: IpAddr) -> bool {
        let (place, hash) = self.place(ip);
        place.load(Ordering::Relaxed) == hash
    }

    /// Notes that a host could not be reached by a stream.
    pub fn forget(&self, ip: IpAddr) {
        let (place, hash) = self.place(ip);
        // Another host may have taken the place.
        let _ = place.compare_exchange(hash, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_from_when_it_is_noted_until_it_is_forgotten() {
        let peers = StreamPeers::default();
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert!(!peers.knows(one));
        peers.note(one);
        assert!(peers.knows(one) && !peers.knows(two));
        peers.forget(two);
        assert!(peers.knows(one));
        peers.forget(one);
        assert!(!peers.knows(one));
    }
}
