//! What the media worker takes from outside: sockets at which nothing arrives.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tandem_actors::ids::ShardId;
use tandem_actors::media_pool::io::{Channel, MediaSeams, PacketIo, PairId, Wants};
use tandem_actors::media_pool::recorder::Sink;
use tandem_actors::metrics::ActorKind;
use tandem_actors::shard::LinkMessage;
use tandem_protocol::time::Now;

use super::seams::Outside;

pub(super) struct WorkerSeams(pub(super) Rc<Outside>);

impl MediaSeams for WorkerSeams {
    fn now(&self) -> Now {
        self.0.clocks()
    }

    fn random(&self) -> u64 {
        self.0.random()
    }

    fn link(&self, _: ShardId, message: LinkMessage) {
        self.0.links.borrow_mut().push(message);
    }

    fn inject_panic(&self, _: ActorKind) -> bool {
        false
    }

    fn want(&self, wants: Wants) {
        self.0.want(wants);
    }

    fn sink(&self) -> io::Result<Box<dyn Sink>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn escalate(&self, why: &str) {
        panic!("the media worker gives up: {why}");
    }
}

/// Sockets that are always empty.
#[derive(Default)]
pub(super) struct NoPackets(u32);

impl PacketIo for NoPackets {
    fn bind(&mut self, _: SocketAddr) -> io::Result<PairId> {
        self.0 += 1;
        Ok(PairId(self.0 - 1))
    }

    fn ready(&mut self, ready: &mut Vec<(PairId, Channel)>) {
        ready.clear();
    }

    fn receive(&mut self, _: PairId, _: Channel, _: &mut [u8]) -> Option<(usize, SocketAddr)> {
        None
    }

    fn send(&mut self, _: PairId, _: Channel, _: SocketAddr, _: &[u8]) -> bool {
        true
    }
}
