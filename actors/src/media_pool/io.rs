//! What a media worker takes from outside: time, chance, the way to the shards, sockets and files.

use std::io;
use std::net::SocketAddr;

use tandem_protocol::time::{Instant, Now};

use super::recorder::Sink;
use crate::ids::ShardId;
use crate::metrics::ActorKind;
use crate::shard::LinkMessage;

/// The seams of one worker: one implementation for threads, one for virtual time.
pub trait MediaSeams {
    /// Both clocks.
    fn now(&self) -> Now;
    /// Chance: seeded in a simulation.
    fn random(&self) -> u64;
    /// Hands a message to a shard.
    fn link(&self, to: ShardId, message: LinkMessage);
    /// True if an actor of this kind shall panic at its next input, packets included: never outside a simulation.
    fn inject_panic(&self, kind: ActorKind) -> bool;
    /// Says when the worker wants its next [`Step`](super::worker::Step); replaces what it said before.
    fn want(&self, wants: Wants);
    /// Makes what writes recordings: asked when the first recording begins.
    ///
    /// # Errors
    /// No thread can be had; it is asked again at the next recording.
    fn sink(&self) -> io::Result<Box<dyn Sink>>;
    /// The worker fails too often to go on: the process is to end for its service manager.
    fn escalate(&self, why: &str);
}

/// When a worker wants its next step. All unset: nothing can happen before the next order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Packets may come: step soon after one has.
    pub packets: bool,
    /// Packets were left because a step may only take so many: step at once.
    pub at_once: bool,
    /// A tone, a time-out, a rest or a recording is due then.
    pub deadline: Option<Instant>,
}

/// One socket of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// The one on the even port.
    Rtp,
    /// The one on the port after it.
    Rtcp,
}

/// A bound pair of sockets, numbered from 0 in the order of binding. It stays bound as long as its worker lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PairId(pub u32);

impl PairId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The sockets of one worker.
pub trait PacketIo {
    /// Binds a pair: RTP to `rtp`, RTCP to the port after it.
    ///
    /// # Errors
    /// Either port is in use ([`io::ErrorKind::AddrInUse`]), the address is not ours, or no descriptor is left. Nothing
    /// stays bound then.
    fn bind(&mut self, rtp: SocketAddr) -> io::Result<PairId>;
    /// Replaces `ready` by the sockets that hold a packet now; perhaps not all of them, but fairly. One that still holds a packet after
    /// one was received is told again by the next call.
    fn ready(&mut self, ready: &mut Vec<(PairId, Channel)>);
    /// Takes the oldest packet, if there is one: its length and its sender.
    fn receive(&mut self, pair: PairId, channel: Channel, buffer: &mut [u8]) -> Option<(usize, SocketAddr)>;
    /// Sends a packet; false if it could not be handed to the network, which is as good as lost on the way.
    fn send(&mut self, pair: PairId, channel: Channel, to: SocketAddr, packet: &[u8]) -> bool;
}
