//! The sockets of a worker on Linux: UDP pairs in an epoll instance of the worker's own.
//!
//! It is level-triggered on purpose. A leg's socket holds one packet each 20 ms, and an edge-triggered instance would cost a second
//! receive that finds nothing for each of them; this way a wake-up costs one receive a packet and one more look at the instance.
//!
//! The kernel's default receive buffer holds seconds of a leg's audio, so none is asked for.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::io::{Channel, PacketIo, PairId};

/// Sockets that one look at the instance can tell.
const EVENTS: usize = 512;

/// Bound pairs and their epoll instance.
pub struct UdpPairs {
    epoll: OwnedFd,
    pairs: Vec<[UdpSocket; 2]>,
    events: Vec<epoll::Event>,
}

impl UdpPairs {
    /// An epoll instance, to be taken to the worker's thread.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn instance() -> io::Result<OwnedFd> {
        Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?)
    }

    /// No pairs yet.
    pub fn new(instance: OwnedFd) -> UdpPairs {
        UdpPairs { epoll: instance, pairs: Vec::new(), events: Vec::with_capacity(EVENTS) }
    }

    fn socket(&self, pair: PairId, channel: Channel) -> Option<&UdpSocket> {
        self.pairs.get(pair.index()).map(|pair| &pair[channel as usize])
    }

    fn watch(&self, socket: &UdpSocket, pair: u32, channel: Channel) -> io::Result<()> {
        let data = u64::from(pair) << 1 | channel as u64;
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(data), epoll::EventFlags::IN)?)
    }
}

fn bound(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl PacketIo for UdpPairs {
    fn bind(&mut self, rtp: SocketAddr) -> io::Result<PairId> {
        let number = u32::try_from(self.pairs.len()).map_err(io::Error::other)?;
        let after = rtp.port().checked_add(1).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let pair = [bound(rtp)?, bound(SocketAddr::new(rtp.ip(), after))?];
        // A failure drops the sockets, and a closed socket leaves the instance by itself.
        self.watch(&pair[0], number, Channel::Rtp)?;
        self.watch(&pair[1], number, Channel::Rtcp)?;
        self.pairs.push(pair);
        Ok(PairId(number))
    }

    fn ready(&mut self, ready: &mut Vec<(PairId, Channel)>) {
        ready.clear();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Interrupted by a signal: the next look finds the same.
        if epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&at_once)).is_err() {
            return;
        }
        for event in self.events.drain(..) {
            let data = event.data.u64();
            let channel = if data & 1 == 0 { Channel::Rtp } else { Channel::Rtcp };
            ready.push((PairId((data >> 1) as u32), channel));
        }
    }

    fn receive(&mut self, pair: PairId, channel: Channel, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        // Nothing there, or news of an earlier packet: neither is a packet.
        self.socket(pair, channel)?.recv_from(buffer).ok()
    }

    fn send(&mut self, pair: PairId, channel: Channel, to: SocketAddr, packet: &[u8]) -> bool {
        self.socket(pair, channel).is_some_and(|socket| socket.send_to(packet, to).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_whose_second_port_is_in_use_leaves_nothing_bound() {
        let mut pairs = UdpPairs::new(UdpPairs::instance().unwrap());
        for _ in 0..50 {
            let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
            let before = SocketAddr::from(([127, 0, 0, 1], taken.local_addr().unwrap().port() - 1));
            let Ok(free) = UdpSocket::bind(before) else { continue };
            drop(free);
            assert_eq!(pairs.bind(before).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            drop(taken);
            assert_eq!(pairs.bind(before).unwrap(), PairId(0));
            return;
        }
        panic!("no two free neighbours in 50 tries");
    }
}
