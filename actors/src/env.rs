//! The seams: the only way out of an actor.
//!
//! An actor asks its [`Env`] for the time, for chance, for the network, the store, media and other shards, and for nothing
//! else; so the same actors run on threads and sockets, and in virtual time on one thread. [`Tell::tell`] is the only way
//! one actor writes to another: each message carries a token, and a simulation that counts the tokens knows when all
//! mailboxes are empty.

mod datagram;
mod endpoint;
mod streams;
mod timers;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message, Recipient, WeakRecipient};
use bytes::Bytes;
use tandem_protocol::dialog::LocalSide;
use tandem_protocol::flow::{ConnectionId, Flow, ListenerId};
use tandem_protocol::time::{Instant, Now};

use crate::calls::CallKey;
use crate::config::EngineConfig;
use crate::dialog::DialogActor;
use crate::directory::{Directory, TrunkEntry};
use crate::generation::{Generation, Generations};
use crate::ids::{Names, ShardId};
use crate::media_pool::order::MediaOrder;
use crate::metrics::{ActorKind, Metrics};
use crate::owner::WeakAddress;
use crate::seat::{Figure, Seat};
use crate::shard::LinkMessage;
use crate::sip::endpoint::{Endpoint, TransactionKey};
use crate::store::{Batch, Store};
use crate::supervisor::Census;
use crate::timer_wheel::TimerWheel;

pub use datagram::Datagram;
pub use streams::{Raced, Waiter};

/// What an engine takes from outside, one implementation for threads and sockets and one for virtual time.
pub trait Seams {
    /// Both clocks.
    fn now(&self) -> Now;
    /// Chance: seeded in a simulation.
    fn random(&self) -> u64;
    /// Sends a message: as a datagram, or by the connection that the flow names, which is this shard's. An error is final for
    /// this message; retransmission is the protocol's business. [`Unsent::Unreachable`] for a connection means that it is gone.
    /// `leftover` says what becomes of it should the connection end before it has left.
    fn transmit(&self, flow: Flow, message: Bytes, leftover: Leftover) -> Result<(), Unsent>;
    /// A connection from a listener of streams to `remote`: one that this shard has opened before, else a new one, which may
    /// take `within` to come about. What is sent until then waits. That it did not come about, or ends, is told by
    /// [`crate::shard::FromStream::Gone`].
    fn connect(&self, listener: ListenerId, remote: SocketAddr, within: Duration) -> Result<Flow, Unsent>;
    /// The same where several addresses lead to one server: they race (RFC 8305). An address that the caller may go on with now,
    /// because there is a connection already or nothing to choose from; `None`: `waiter` is told.
    fn race(
        &self,
        listener: ListenerId,
        to: (SocketAddr, &[SocketAddr]),
        within: Duration,
        waiter: Waiter,
    ) -> Option<SocketAddr> {
        let _ = (listener, within, waiter);
        Some(to.0)
    }
    /// The connection to `remote` that this shard has opened, if there is one.
    fn opened(&self, listener: ListenerId, remote: SocketAddr) -> Option<ConnectionId> {
        let _ = (listener, remote);
        None
    }
    /// Asks the far end of a connection of this shard for a sign of life (RFC 5626 §3.5.1): if none comes, the connection ends.
    fn ping(&self, connection: ConnectionId) {
        let _ = connection;
    }
    /// Closes a connection of this shard once what waits to be sent by it has gone.
    fn close(&self, connection: ConnectionId);
    /// Has the sockets of the listeners that there are now.
    fn listen(&self) {}
    /// Hands a message to another shard, or to this one later.
    fn link(&self, to: ShardId, message: LinkMessage);
    /// Asks that this shard be told the time at `at`; replaces the last such wish.
    fn wake_at(&self, at: Instant);
    /// Hands an order to a media worker.
    fn media(&self, worker: u16, order: MediaOrder);
    /// True if an actor of this kind shall panic at its next input: never outside a simulation.
    fn inject_panic(&self, kind: ActorKind) -> bool;
    /// The shard was fenced, and something of it still runs. Does not return where that has a thread of its own; in a simulation it does, and
    /// nothing comes of what is done.
    fn fenced(&self) {}
}

/// What becomes of a message whose connection ends before it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// It is dropped: its transaction sends it again, or nobody misses it.
    Dropped,
    /// It is handed back by [`crate::shard::FromStream::Undelivered`], and may go another way (RFC 3261 §18.2.2).
    HandedBack,
}

/// A message could not be handed to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// The socket's buffer is full: as good as lost on the way.
    #[error("the socket's buffer is full")]
    Full,
    /// There is no way to that address, or the connection is gone.
    #[error("the address cannot be reached")]
    Unreachable,
}

/// What all shards of one engine share.
pub struct Shared {
    /// The settings in force, with bindings, trunk health, permits and nonce windows.
    pub settings: Generations,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The metrics.
    pub metrics: Metrics,
    /// How names are made.
    pub names: Names,
    /// How many actors of each kind live.
    pub census: Census,
    /// Keys the hash that places an inbound INVITE; kept in the store, so that a restart places it alike.
    pub placement_key: u64,
}

impl Shared {
    /// The settings in force, for those that are no shard: a shard asks its [`Env`].
    pub fn current(&self) -> Arc<Generation> {
        self.settings.current()
    }
}

/// Whose timer it is.
#[derive(Clone)]
pub(crate) enum TimerKey {
    /// A transaction of the endpoint.
    Transaction(TransactionKey),
    /// A call.
    Call(CallKey),
    /// A dialog.
    Dialog(WeakAddress<DialogActor>),
    /// Another actor.
    Actor(WeakRecipient<Told<Fire>>),
}

struct Common {
    seams: Box<dyn Seams>,
    shard: ShardId,
    seat: Arc<Seat>,
    shared: Arc<Shared>,
    timers: RefCell<TimerWheel<TimerKey>>,
    wake: Cell<Option<Instant>>,
    standstills: Cell<timers::Standstills>,
    /// That of the shard, while there is one: it has an `Env` itself.
    endpoint: RefCell<Weak<RefCell<Endpoint>>>,
}

struct Inner {
    common: Rc<Common>,
    settings: Arc<Generation>,
}

/// One shard's way out, and the settings that hold for whoever has it: a clone keeps them, whatever is reloaded, until it
/// [adopts](Env::adopt) others. Cheap to clone; never leaves its thread.
#[derive(Clone)]
pub struct Env(Rc<Inner>);

impl Env {
    /// The way out of `shard`, the first in its place.
    pub fn new(shard: ShardId, shared: Arc<Shared>, seams: Box<dyn Seams>) -> Env {
        Env::in_seat(shard, Arc::default(), shared, seams)
    }

    /// The way out of `shard` while its seat is not fenced.
    pub fn in_seat(shard: ShardId, seat: Arc<Seat>, shared: Arc<Shared>, seams: Box<dyn Seams>) -> Env {
        let timers = RefCell::new(TimerWheel::new(seams.now().mono));
        let settings = shared.current();
        let (wake, standstills, endpoint) = (Cell::default(), Cell::default(), RefCell::default());
        let common = Rc::new(Common { seams, shard, seat, shared, timers, wake, standstills, endpoint });
        Env(Rc::new(Inner { common, settings }))
    }

    /// What tells this shard from one in the same place that was fenced.
    pub fn seat(&self) -> &Arc<Seat> {
        &self.0.common.seat
    }

    /// True if this shard was fenced and must do nothing any more; on a thread of its own it does not even return then.
    pub(crate) fn is_fenced(&self) -> bool {
        let fenced = self.0.common.seat.is_fenced();
        if fenced {
            self.0.common.seams.fenced();
        }
        fenced
    }

    /// Adds to a gauge of the engine.
    pub(crate) fn count(&self, figure: Figure, count: i64) {
        self.0.common.seat.count(self.metrics(), figure, count);
    }

    /// These settings hold from now on for whoever has this `Env`, and for its later clones.
    pub fn adopt(&mut self, settings: &Arc<Generation>) {
        let (common, settings) = (self.0.common.clone(), settings.clone());
        self.0 = Rc::new(Inner { common, settings });
    }

    /// Both clocks. Whoever asks gets on.
    pub fn now(&self) -> Now {
        self.is_fenced();
        self.0.common.seat.beat();
        self.0.common.seams.now()
    }

    /// Chance.
    pub fn random(&self) -> u64 {
        self.0.common.seams.random()
    }

    /// This shard.
    pub fn shard(&self) -> ShardId {
        self.0.common.shard
    }

    /// What all shards share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.0.common.shared
    }

    /// The settings.
    pub fn config(&self) -> &EngineConfig {
        &self.0.settings.config
    }

    /// Bindings, trunk health, permits, nonce windows.
    pub fn directory(&self) -> &Directory {
        &self.0.settings.directory
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.0.common.shared.metrics
    }

    /// Queues a batch for the store.
    pub fn submit(&self, batch: Batch) {
        if !self.is_fenced() {
            self.0.common.shared.store.submit_from(batch, &self.0.common.seat);
        }
    }

    /// How our side appears on a listener.
    pub(crate) fn local_side(&self, listener: ListenerId) -> Arc<LocalSide> {
        self.directory().local_side(self.config().listeners.place(listener))
    }

    /// The same; with a `sips` Contact where the peer must have one and the listener is one of TLS.
    pub(crate) fn local_side_for(&self, listener: ListenerId, sips: bool) -> Arc<LocalSide> {
        let place = self.config().listeners.place(listener);
        let secure = place.filter(|_| sips).and_then(|place| self.directory().secure_side(place));
        secure.unwrap_or_else(|| self.directory().local_side(place))
    }

    /// The same to a trunk: as its settings have it, by whichever listener it comes.
    pub(crate) fn local_side_of(
        &self,
        trunk: &TrunkEntry,
        listener: ListenerId,
        sips: bool,
    ) -> Arc<LocalSide> {
        let own = self.config().listener_id(trunk.config.listener) == listener;
        if own {
            return trunk.local_side(sips);
        }
        let side = self.local_side_for(listener, sips);
        Arc::new(crate::calls::as_trunk_wants(&trunk.config, (*side).clone()))
    }

    /// Sends a message and says by which flow: the given one, with the connection that was found or opened for it.
    ///
    /// # Errors
    /// See [`Seams::transmit`]. If a connection of another shard is gone, that shard says so later.
    pub fn transmit(&self, flow: Flow, message: Bytes, leftover: Leftover) -> Result<Flow, Unsent> {
        self.transmit_within(flow, message, leftover, None)
    }

    /// The same; a connection that must be opened has `connect` to come about, else what its listener says.
    ///
    /// # Errors
    /// As [`transmit`](Self::transmit).
    pub fn transmit_within(
        &self,
        flow: Flow,
        message: Bytes,
        leftover: Leftover,
        connect: Option<Duration>,
    ) -> Result<Flow, Unsent> {
        if self.is_fenced() {
            return Ok(flow);
        }
        if let Some(aliased) = self.directory().aliased(flow)
            && let Ok(sent) = self.transmit_within(aliased, message.clone(), leftover, connect)
        {
            return Ok(sent);
        }
        let flow = match flow.connection {
            None if self.config().transport(flow.listener).is_reliable() => {
                let limits = self.config().listener(flow.listener).map(|l| l.streams);
                let within = connect.unwrap_or(limits.unwrap_or_default().connect);
                self.connect(flow.listener, flow.remote, within)?
            }
            Some(connection) if connection.shard >= self.directory().shards() => {
                return Err(Unsent::Unreachable);
            }
            Some(connection) if connection.shard != self.0.common.shard.0 => {
                let from = self.0.common.shard;
                self.link(ShardId(connection.shard), LinkMessage::Send { flow, message, leftover, from });
                return Ok(flow);
            }
            None | Some(_) => flow,
        };
        self.0.common.seams.transmit(flow, message, leftover).map(|()| flow)
    }

    /// A connection to `remote`; see [`Seams::connect`].
    ///
    /// # Errors
    /// None can be opened.
    pub fn connect(
        &self,
        listener: ListenerId,
        remote: SocketAddr,
        within: Duration,
    ) -> Result<Flow, Unsent> {
        if self.is_fenced() {
            return Err(Unsent::Unreachable);
        }
        self.0.common.seams.connect(listener, remote, within)
    }

    /// Closes a connection of this shard; see [`Seams::close`].
    pub fn close(&self, connection: ConnectionId) {
        if !self.is_fenced() {
            self.0.common.seams.close(connection);
        }
    }

    /// Has the sockets of the listeners that there are now; see [`Seams::listen`].
    pub fn listen(&self) {
        self.0.common.seams.listen();
    }

    /// Hands a message to a shard.
    pub fn link(&self, to: ShardId, message: LinkMessage) {
        if self.is_fenced() {
            return;
        }
        if to != self.0.common.shard {
            self.metrics().crossings.increment(1);
        }
        self.0.common.seams.link(to, message);
    }

    /// Hands an order to a media worker.
    pub fn media(&self, worker: u16, order: MediaOrder) {
        if !self.is_fenced() {
            self.0.common.seams.media(worker, order);
        }
    }

    /// True if an actor of this kind shall panic now.
    pub fn inject_panic(&self, kind: ActorKind) -> bool {
        self.0.common.seams.inject_panic(kind)
    }

    /// A new tag or Call-ID that leads back to this shard.
    pub fn name(&self) -> String {
        self.0.common.shared.names.make(self.0.common.shard, self.random())
    }
}

thread_local!(static IN_FLIGHT: Cell<i64> = const { Cell::new(0) });

/// Rides in each message; its end (handled, or lost with a mailbox) is what makes quiescence exact.
#[derive(Debug)]
pub struct Token(());

impl Token {
    fn new() -> Token {
        IN_FLIGHT.with(|count| count.set(count.get() + 1));
        Token(())
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // A message may be dropped while its thread ends.
        let _ = IN_FLIGHT.try_with(|count| count.set(count.get() - 1));
    }
}

/// Messages told and not yet handled. Only meaningful where all actors live on one thread.
pub fn in_flight() -> i64 {
    IN_FLIGHT.with(Cell::get)
}

/// A message on its way, with its token.
#[derive(Debug)]
pub struct Told<T>(pub T, Token);

impl<T: Send + 'static> Message for Told<T> {
    type Result = ();
}

/// The time has come that an actor's machine asked for.
#[derive(Clone, Copy, Debug)]
pub struct Fire;

/// The one way to write to an actor. It never waits; what the receiver cannot keep up with is bounded at ingress.
pub trait Tell<T> {
    /// Puts `message` into the actor's mailbox; into nothing if the actor has ended.
    fn tell(&self, message: T);
}

impl<A, T> Tell<T> for Addr<A>
where
    A: Actor + Handler<Told<T>>,
    A::Context: ToEnvelope<A, Told<T>>,
    T: Send + 'static,
{
    #[allow(clippy::disallowed_methods)]
    fn tell(&self, message: T) {
        self.do_send(Told(message, Token::new()));
    }
}

impl<T: Send + 'static> Tell<T> for Recipient<Told<T>> {
    #[allow(clippy::disallowed_methods)]
    fn tell(&self, message: T) {
        self.do_send(Told(message, Token::new()));
    }
}
