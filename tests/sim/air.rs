//! The book of every packet of sound: who said it, which worker took it, where it was sent on, who heard it.

use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use tandem_media::rtp::RtpPacket;
use tandem_phone::CallHandle;

/// What every packet begins with, so that noise is known as noise.
const MAGIC: u32 = 0x7461_6e64;

/// A phone's end of a call.
pub(crate) type Ear = (usize, CallHandle);

/// One packet that somebody said.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Whose; none: a stranger's, who belongs to no call.
    pub(crate) ear: Option<Ear>,
    pub(crate) at: u64,
    pub(crate) to: SocketAddr,
    /// The network lost it on its way from the speaker.
    pub(crate) lost: bool,
    /// When the first worker to take it from its socket did so.
    pub(crate) taken: Option<u64>,
    /// Where it was sent on first, and when.
    pub(crate) forwarded: Option<(u64, SocketAddr)>,
    /// It was lost on its way from the engine.
    pub(crate) lost_behind: bool,
    pub(crate) heard: Option<u64>,
}

/// What was counted at the engine's own sockets, in one of its lives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    /// Different packets that a worker took from this address.
    pub(crate) taken: u64,
    /// Packets that were sent to it.
    pub(crate) sent: u64,
}

#[derive(Default)]
struct Inner {
    packets: Vec<Packet>,
    /// Which call an address belongs to.
    owners: BTreeMap<SocketAddr, Ear>,
    counts: BTreeMap<(u32, SocketAddr), Count>,
    worker_panics: Vec<u64>,
}

/// The book. Cheap to clone; one thread.
#[derive(Clone, Default)]
pub(crate) struct Air(Rc<RefCell<Inner>>);

/// The number of a packet, if it is one of ours.
pub(crate) fn number(datagram: &[u8]) -> Option<usize> {
    let packet = RtpPacket::parse(datagram).ok()?;
    let (magic, rest) = packet.payload.split_first_chunk::<4>()?;
    let number = rest.first_chunk::<4>()?;
    (u32::from_be_bytes(*magic) == MAGIC).then_some(u32::from_be_bytes(*number) as usize)
}

impl Air {
    /// A call hears at this address.
    pub(crate) fn own(&self, address: SocketAddr, phone: usize, call: CallHandle) {
        self.0.borrow_mut().owners.insert(address, (phone, call));
    }

    /// Which call hears at this address.
    pub(crate) fn owner(&self, address: SocketAddr) -> Option<Ear> {
        self.0.borrow().owners.get(&address).copied()
    }

    /// Every address of a call.
    pub(crate) fn addresses(&self, ear: Ear) -> Vec<SocketAddr> {
        let inner = self.0.borrow();
        inner.owners.iter().filter(|(_, owner)| **owner == ear).map(|(address, _)| *address).collect()
    }

    /// Every address of a phone.
    pub(crate) fn addresses_of(&self, phone: usize) -> Vec<SocketAddr> {
        let inner = self.0.borrow();
        inner.owners.iter().filter(|(_, owner)| owner.0 == phone).map(|(address, _)| *address).collect()
    }

    /// Notes a packet that is about to be said, and makes it.
    pub(crate) fn say(
        &self,
        at: u64,
        ear: Option<Ear>,
        to: SocketAddr,
        (payload_type, ssrc, sequence): (u8, u32, u16),
    ) -> (usize, Bytes) {
        let mut inner = self.0.borrow_mut();
        let number = inner.packets.len();
        let fresh = (None, None, None);
        let (taken, forwarded, heard) = fresh;
        inner.packets.push(Packet { ear, at, to, lost: false, taken, forwarded, lost_behind: false, heard });
        let mut payload = [0xff; 20];
        payload[..4].copy_from_slice(&MAGIC.to_be_bytes());
        payload[4..8].copy_from_slice(&(number as u32).to_be_bytes());
        let timestamp = (at / 125) as u32;
        let packet = RtpPacket { marker: false, payload_type, sequence, timestamp, ssrc, payload: &payload };
        let mut bytes = Vec::with_capacity(32);
        packet.write(&mut bytes);
        (number, Bytes::from(bytes))
    }

    /// Changes what is known of a packet.
    pub(crate) fn note(&self, number: usize, f: impl FnOnce(&mut Packet)) {
        if let Some(packet) = self.0.borrow_mut().packets.get_mut(number) {
            f(packet);
        }
    }

    /// A worker panics: its sessions go back to what was kept of them.
    pub(crate) fn worker_panicked(&self, at: u64) {
        self.0.borrow_mut().worker_panics.push(at);
    }

    /// When workers panicked.
    pub(crate) fn worker_panics(&self) -> Vec<u64> {
        self.0.borrow().worker_panics.clone()
    }

    /// A worker took a packet from its socket.
    pub(crate) fn taken(&self, epoch: u32, at: u64, from: SocketAddr, datagram: &[u8]) {
        let Some(number) = number(datagram) else { return };
        let mut inner = self.0.borrow_mut();
        let Some(packet) = inner.packets.get_mut(number) else { return };
        if packet.taken.is_none() {
            packet.taken = Some(at);
            inner.counts.entry((epoch, from)).or_default().taken += 1;
        }
    }

    /// A worker sends a packet on.
    pub(crate) fn forwarded(&self, epoch: u32, at: u64, to: SocketAddr, datagram: &[u8], lost: bool) {
        let mut inner = self.0.borrow_mut();
        inner.counts.entry((epoch, to)).or_default().sent += 1;
        if let Some(packet) = number(datagram).and_then(|number| inner.packets.get_mut(number))
            && packet.forwarded.is_none()
        {
            (packet.forwarded, packet.lost_behind) = (Some((at, to)), lost);
        }
    }

    /// A worker wanted to send a packet on and its socket was full.
    pub(crate) fn unsent(&self, at: u64, to: SocketAddr, datagram: &[u8]) {
        if let Some(number) = number(datagram) {
            self.note(number, |packet| {
                if packet.forwarded.is_none() {
                    (packet.forwarded, packet.lost_behind) = (Some((at, to)), true);
                }
            });
        }
    }

    pub(crate) fn packet(&self, number: usize) -> Option<Packet> {
        self.0.borrow().packets.get(number).cloned()
    }

    pub(crate) fn packets(&self) -> Ref<'_, [Packet]> {
        Ref::map(self.0.borrow(), |inner| inner.packets.as_slice())
    }

    /// What the engine's sockets counted of an address in one life.
    pub(crate) fn count(&self, epoch: u32, address: SocketAddr) -> Count {
        self.0.borrow().counts.get(&(epoch, address)).copied().unwrap_or_default()
    }
}
