//! What the shard takes from outside: a clock that is moved by hand, chance of a fixed seed, a network that notes what is sent.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tandem_actors::env::{Leftover, Seams, Unsent};
use tandem_actors::ids::ShardId;
use tandem_actors::media_pool::io::Wants;
use tandem_actors::media_pool::order::MediaOrder;
use tandem_actors::metrics::ActorKind;
use tandem_actors::shard::LinkMessage;
use tandem_actors::store::{Batch, Bucket, Entry, Store, StoreFault};
use tandem_protocol::flow::{ConnectionId, Flow, ListenerId};
use tandem_protocol::time::{Instant, Now, UnixMillis};

use super::Turn;

/// The wall clock when the engine's own begins.
pub(super) const WALL: UnixMillis = UnixMillis(1_800_000_000_000);

/// Everything around the shard and the worker.
#[derive(Default)]
pub(super) struct Outside {
    /// Microseconds since the start.
    pub(super) now: Cell<u64>,
    random: Cell<u64>,
    /// What was sent and not yet looked at.
    pub(super) sent: RefCell<Vec<(SocketAddr, Bytes)>>,
    /// What crosses to the shard.
    pub(super) links: RefCell<Vec<LinkMessage>>,
    /// What crosses to the worker.
    pub(super) orders: RefCell<Vec<MediaOrder>>,
    wake: Cell<Option<u64>>,
    wants: Cell<Wants>,
}

impl Outside {
    pub(super) fn clocks(&self) -> Now {
        let now = self.now.get();
        Now { mono: Instant(now), wall: UnixMillis(WALL.0 + now / 1000) }
    }

    /// SplitMix64.
    pub(super) fn random(&self) -> u64 {
        self.random.set(self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mut z = self.random.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn want(&self, wants: Wants) {
        self.wants.set(wants);
    }

    /// Takes the wish that is due first, and when that is.
    pub(super) fn next(&self) -> Option<(u64, Turn)> {
        let wants = self.wants.get();
        let step = if wants.at_once { Some(self.now.get()) } else { wants.deadline.map(|at| at.0) };
        match (self.wake.get(), step) {
            (Some(wake), step) if step.is_none_or(|step| wake <= step) => Some((wake, Turn::Tick)),
            (_, Some(step)) => Some((step, Turn::Step)),
            (_, None) => None,
        }
    }

    /// The wish that was granted is over.
    pub(super) fn granted(&self, turn: &Turn) {
        match turn {
            Turn::Tick => self.wake.set(None),
            Turn::Step => self.wants.set(Wants::default()),
            Turn::Datagrams(_) | Turn::Committed(_) | Turn::Asked(_) => {}
        }
    }
}

/// The shard's way out.
pub(super) struct ShardSeams(pub(super) Rc<Outside>);

impl Seams for ShardSeams {
    fn now(&self) -> Now {
        self.0.clocks()
    }

    fn random(&self) -> u64 {
        self.0.random()
    }

    fn transmit(&self, flow: Flow, message: Bytes, _: Leftover) -> Result<(), Unsent> {
        self.0.sent.borrow_mut().push((flow.remote, message));
        Ok(())
    }

    fn connect(&self, _: ListenerId, _: SocketAddr, _: Duration) -> Result<Flow, Unsent> {
        Err(Unsent::Unreachable)
    }

    fn close(&self, _: ConnectionId) {}

    fn link(&self, _: ShardId, message: LinkMessage) {
        self.0.links.borrow_mut().push(message);
    }

    fn wake_at(&self, at: Instant) {
        self.0.wake.set(Some(at.0));
    }

    fn media(&self, _: u16, order: MediaOrder) {
        self.0.orders.borrow_mut().push(order);
    }

    fn inject_panic(&self, _: ActorKind) -> bool {
        false
    }
}

/// A store that commits when it is told to, and keeps nothing.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Vec<Batch>>);

impl Waiting {
    /// The tickets of what has waited.
    pub(super) fn commit(&self) -> Vec<(u64, bool)> {
        let batches = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        batches.iter().filter_map(|batch| Some((batch.ticket?.token, true))).collect()
    }
}

impl Store for Waiting {
    fn submit(&self, batch: Batch) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
    }

    fn scan(&self, _: Bucket) -> Result<Vec<Entry>, StoreFault> {
        Ok(Vec::new())
    }

    fn events_from(&self, _: u64, _: usize) -> Result<Vec<String>, StoreFault> {
        Ok(Vec::new())
    }

    fn events_of(&self, _: &str, _: u64) -> Result<Vec<String>, StoreFault> {
        Ok(Vec::new())
    }

    fn cdr(&self, _: &str) -> Result<Option<String>, StoreFault> {
        Ok(None)
    }

    fn flush(&self) {}
}
