//! The seams of one shard in virtual time.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tandem_actors::env::{Leftover, Seams, Unsent};
use tandem_actors::ids::ShardId;
use tandem_actors::media_pool::order::MediaOrder;
use tandem_actors::metrics::ActorKind;
use tandem_actors::shard::LinkMessage;
use tandem_protocol::flow::{ConnectionId, Flow, ListenerId, Transport};
use tandem_protocol::time::{Instant, Now, UnixMillis};

use crate::engine::{LISTENER, NOWHERE, listener_of};
use crate::rng::Rng;
use crate::world::{Event, Fate, World};

/// One shard's way out. It is deaf once its engine has been killed.
pub(crate) struct SimSeams {
    pub(crate) world: World,
    pub(crate) epoch: u32,
    pub(crate) shard: u16,
    /// The engine's monotonic clock begins when it does.
    pub(crate) began: u64,
    pub(crate) rng: RefCell<Rng>,
    pub(crate) chance: RefCell<Rng>,
    /// When the shard wants to be woken: the last wish counts.
    pub(crate) wake: Rc<Cell<Option<u64>>>,
}

impl SimSeams {
    fn is_dead(&self) -> bool {
        self.world.epoch() != self.epoch
    }
}

impl Seams for SimSeams {
    fn now(&self) -> Now {
        Now { mono: Instant(self.world.now() - self.began), wall: UnixMillis(self.world.wall_ms()) }
    }

    fn random(&self) -> u64 {
        self.rng.borrow_mut().next()
    }

    fn transmit(&self, flow: Flow, datagram: Bytes, _: Leftover) -> Result<(), Unsent> {
        if self.is_dead() {
            return Ok(());
        }
        if let Some(connection) = flow.connection {
            return self.world.stream_transmit(connection, datagram);
        }
        if flow.remote.ip() == NOWHERE || self.world.is_unreachable(flow.remote) {
            return Err(Unsent::Unreachable);
        }
        if self.chance.borrow_mut().permille(self.world.plan().faults.full) {
            self.world.note(LISTENER, flow.remote, datagram, Fate::Lost);
            return Err(Unsent::Full);
        }
        self.world.send(LISTENER, flow.remote, datagram);
        Ok(())
    }

    fn connect(&self, listener: ListenerId, remote: SocketAddr, within: Duration) -> Result<Flow, Unsent> {
        let nowhere = remote.ip() == NOWHERE || self.world.is_unreachable(remote);
        if self.is_dead() || nowhere || listener != listener_of(Transport::Tcp) {
            return Err(Unsent::Unreachable);
        }
        Ok(self.world.stream_connect(self.shard, remote, within.as_micros() as u64))
    }

    fn close(&self, connection: ConnectionId) {
        if !self.is_dead() {
            self.world.stream_close(connection);
        }
    }

    fn link(&self, to: ShardId, message: LinkMessage) {
        if !self.is_dead() {
            self.world.link(self.epoch, self.shard, to.0, message);
        }
    }

    fn wake_at(&self, at: Instant) {
        if !self.is_dead() {
            let at = (at.0 + self.began).max(self.world.now());
            self.wake.set(Some(at));
            self.world.push(at, Event::Wake { epoch: self.epoch, shard: self.shard });
        }
    }

    fn media(&self, worker: u16, order: MediaOrder) {
        if !self.is_dead() {
            self.world.order(self.epoch, self.shard, worker, order);
        }
    }

    fn inject_panic(&self, kind: ActorKind) -> bool {
        let panics = self.world.plan().panics;
        let millionths = match kind {
            ActorKind::Call => panics.call,
            ActorKind::Dialog => panics.dialog,
            ActorKind::Station | ActorKind::Trunk | ActorKind::RegistrationGroup => panics.named,
            ActorKind::Shard | ActorKind::MediaSession | ActorKind::MediaWorker => 0,
        };
        millionths > 0 && self.chance.borrow_mut().below(1_000_000) < millionths
    }
}
