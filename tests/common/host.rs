//! Addresses of a test's own: every address of 127.0.0.0/8 is this machine.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Four neighbouring loopback addresses, nobody else's until this is dropped.
#[derive(Debug)]
pub(crate) struct Host {
    base: u32,
    /// Holding it is what makes the addresses ours.
    _claim: TcpListener,
}

/// The port of the first address that a claim is made by.
const CLAIM: u16 = 4_000;
/// 127.64.0.0.
const FIRST: u32 = 0x7f40_0000;
const HOSTS: u32 = 1 << 20;

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Host {
    /// Addresses that no other test of this machine has.
    pub(crate) fn claim() -> Host {
        let start = std::process::id().wrapping_mul(61);
        for _ in 0..1_000 {
            let place = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % HOSTS;
            let base = FIRST + place * 4;
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::from(base), CLAIM)) {
                let host = Host { base, _claim: claim };
                if host.is_free() {
                    return host;
                }
            }
        }
        panic!("no loopback address is free");
    }

    /// Whether no engine of a test that was killed is left there.
    fn is_free(&self) -> bool {
        UdpSocket::bind((self.engine(), 5060)).is_ok() && TcpListener::bind((self.engine(), 8080)).is_ok()
    }

    /// The engine's.
    pub(crate) fn engine(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// That of phones and other servers.
    pub(crate) fn peer(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 2)
    }

    /// That of someone the engine does not know.
    pub(crate) fn stranger(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 3)
    }
}
