//! TCP, and TLS over it: the connections of one shard, those that it accepted and those that it opened (RFC 3261 §18).
//!
//! A connection never changes its shard. Each is a task of the shard's thread (`connection`); the table here is how the shard
//! sends by them. A listener has a socket on each shard, over which the kernel spreads new connections; what all shards together
//! may take is counted at the listener's [`Door`].
#![allow(clippy::disallowed_methods)]

mod connection;
mod door;
mod open;
mod race;
mod tracked;
mod wire;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use actix::Addr;
use bytes::Bytes;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tandem_protocol::flow::{ConnectionId, Flow, ListenerId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use self::connection::carry;
use self::open::Attempt;
use self::race::Races;
use self::tracked::Tracked;
use self::wire::Wire;
use crate::env::{Leftover, Shared, Tell, Unsent};
use crate::ids::ShardId;
use crate::metrics::{Closed, ConnectionMetrics, Handshake, Refused};
use crate::seat::{Figure, Loan, Seat};
use crate::shard::{FromStream, Shard};
use crate::sip::dscp;
use crate::sip::ears::Ears;
use crate::sip::tls::{Expected, Tls};

pub use door::Door;

/// New connections that the kernel may keep waiting.
const BACKLOG: i32 = 1024;
/// A peer that acknowledges nothing for so long is gone (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// After so long in silence the kernel asks the peer whether it is still there.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// Accepting rests this long after the operating system has refused a connection.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Binds a listener: one socket a shard on the same address. An IPv6 address hears IPv6 only.
///
/// # Errors
/// The address is in use, or not ours.
pub fn bind(address: SocketAddr, shards: u16) -> io::Result<(SocketAddr, Vec<StdTcpListener>)> {
    // The first is exclusive: another process on the port is found even if it shares ports as we do.
    let probe = socket(address, false)?;
    let address = probe.local_addr()?;
    drop(probe);
    let sockets = (0..shards.max(1)).map(|_| socket(address, true)).collect::<io::Result<Vec<_>>>()?;
    Ok((address, sockets))
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<StdTcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of the process before may still be dying.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A connection that we have opened.
struct Opened {
    number: u64,
    /// Whom its server had to prove to be. It is no way to whoever must be another.
    expected: Option<Expected>,
}

/// The connections of one shard.
pub(crate) struct Streams {
    shard: ShardId,
    seat: Arc<Seat>,
    shared: Arc<Shared>,
    ears: Rc<Ears>,
    /// Set as soon as the shard has an address, which is before anything can come.
    to: OnceCell<Addr<Shard>>,
    wires: RefCell<BTreeMap<u64, Rc<Wire>>>,
    /// Those that we have opened, by where they lead.
    opened: RefCell<BTreeMap<(ListenerId, SocketAddr), Opened>>,
    next: Cell<u64>,
    /// How the last handshake failed with each server with which it did.
    failing: RefCell<BTreeMap<(ListenerId, SocketAddr), Handshake>>,
    races: Races,
}

impl Streams {
    /// No connections. `first` is the number of the first: chance, so that a flow of an earlier process names none of ours.
    pub(crate) fn new(
        shard: ShardId,
        seat: Arc<Seat>,
        shared: Arc<Shared>,
        ears: Rc<Ears>,
        first: u64,
    ) -> Rc<Streams> {
        Rc::new(Streams {
            shard,
            seat,
            shared,
            ears,
            to: OnceCell::new(),
            wires: RefCell::default(),
            opened: RefCell::default(),
            next: Cell::new(first),
            failing: RefCell::default(),
            races: Races::default(),
        })
    }

    /// Says whose connections these are.
    pub(crate) fn belong_to(&self, shard: Addr<Shard>) {
        // Only the first is ever said.
        let _ = self.to.set(shard);
    }

    /// Whose they are.
    pub(crate) fn owner(&self) -> Option<Addr<Shard>> {
        self.to.get().cloned()
    }

    /// Takes over which listeners there are; the connections of those that are gone end.
    ///
    /// # Errors
    /// A socket cannot be had.
    pub(crate) fn listen(self: &Rc<Self>) -> io::Result<()> {
        let gone = self.ears.adopt(self)?;
        for wire in self.wires.borrow().values().filter(|wire| gone.contains(&wire.flow.listener)) {
            wire.close(Closed::Unheard);
        }
        Ok(())
    }

    /// What is counted of the connections of a listener.
    fn metrics(&self, listener: ListenerId) -> &ConnectionMetrics {
        self.shared.metrics.connections(self.ears.transport(listener))
    }

    /// How many there are has changed by this.
    fn count(&self, listener: ListenerId, count: i64) {
        let secure = self.ears.transport(listener).is_secure();
        self.seat.count(&self.shared.metrics, if secure { Figure::Tls } else { Figure::Tcp }, count);
    }

    /// Sends by a connection.
    pub(crate) fn send(
        &self,
        connection: ConnectionId,
        message: Bytes,
        leftover: Leftover,
    ) -> Result<(), Unsent> {
        let wire = self.wires.borrow().get(&connection.generation).cloned();
        wire.ok_or(Unsent::Unreachable)?.send(message, leftover)
    }

    /// Closes a connection once its queue is empty.
    pub(crate) fn close(&self, connection: ConnectionId) {
        if let Some(wire) = self.wires.borrow().get(&connection.generation) {
            wire.close(Closed::Malformed);
        }
    }

    /// The connection to `remote` that we have opened, if there is one.
    pub(crate) fn opened_to(&self, listener: ListenerId, remote: SocketAddr) -> Option<ConnectionId> {
        let listener = self.ears.of(listener)?.listener.id;
        let expected = self.secure(listener, remote).map(|(_, expected)| expected);
        self.opened(listener, remote, expected.as_ref()).filter(|wire| wire.is_up())?.flow.connection
    }

    /// Asks the far end of a connection for a sign of life.
    pub(crate) fn ping(&self, connection: ConnectionId) {
        if let Some(wire) = self.wires.borrow().get(&connection.generation) {
            wire.ping();
        }
    }

    /// A connection to `remote` that we have opened or open now.
    pub(crate) fn connect(
        self: &Rc<Self>,
        listener: ListenerId,
        remote: SocketAddr,
        within: Duration,
    ) -> Result<Flow, Unsent> {
        let ear = self.ears.of(listener).ok_or(Unsent::Unreachable)?;
        let listener = ear.listener.id;
        let secure = self.secure(listener, remote);
        let expected = secure.as_ref().map(|(_, expected)| expected.clone());
        if let Some(wire) = self.opened(listener, remote, expected.as_ref()) {
            return Ok(wire.flow);
        }
        let local = Some(ear.listener.address);
        let local = local.filter(|l| l.is_ipv4() == remote.is_ipv4()).ok_or(Unsent::Unreachable)?;
        if self.opened.borrow().len() >= ear.door.limits().connections {
            self.metrics(listener).refuse(Refused::Limit);
            return Err(Unsent::Unreachable);
        }
        let wire = self.insert_opened(listener, remote, expected);
        let flow = wire.flow;
        let streams = self.clone();
        let until = tokio::time::Instant::now() + within;
        actix::spawn(async move {
            streams.open(Attempt { from: (listener, local), remote, secure, until }, &wire).await;
        });
        Ok(flow)
    }

    /// How a listener speaks TLS to an address, and who must be there; `None`: it does not.
    fn secure(&self, listener: ListenerId, remote: SocketAddr) -> Option<(Arc<Tls>, Expected)> {
        let tls = self.ears.of(listener)?.tls()?.clone();
        let current = self.shared.current();
        // One that is only kept for the calls it has is nobody's any more.
        let place = current.config.listeners.place(listener).and_then(|place| u16::try_from(place).ok());
        Some((tls, current.directory.expected(place.unwrap_or(u16::MAX), remote)))
    }

    /// The connection to `remote` that we have opened or open now, if requests may leave by it and it leads to whom is expected.
    fn opened(
        &self,
        listener: ListenerId,
        remote: SocketAddr,
        expected: Option<&Expected>,
    ) -> Option<Rc<Wire>> {
        let opened = self.opened.borrow();
        let number = opened.get(&(listener, remote)).filter(|o| o.expected.as_ref() == expected)?.number;
        self.wires.borrow().get(&number).filter(|wire| wire.is_whole()).cloned()
    }

    fn insert_opened(
        &self,
        listener: ListenerId,
        remote: SocketAddr,
        expected: Option<Expected>,
    ) -> Rc<Wire> {
        let wire = self.insert(listener, remote, true);
        let number = number_of(wire.flow);
        self.opened.borrow_mut().insert((listener, remote), Opened { number, expected });
        wire
    }

    /// `ours`: we open it.
    fn insert(&self, listener: ListenerId, remote: SocketAddr, ours: bool) -> Rc<Wire> {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let id = ConnectionId::new(self.shard.0, number, ours);
        let (generation, connection) = (id.generation, Some(id));
        let current = self.shared.current();
        let settings = current.config.listener(listener);
        let (limits, messages) = settings.map(|l| (l.streams, l.limits)).unwrap_or_default();
        let hold = self.seat.lend(Loan::Connection(id));
        let flow = Flow { listener, remote, connection };
        let wire = Wire::new(flow, (limits, messages.max_bytes), ours, hold);
        self.wires.borrow_mut().insert(generation, wire.clone());
        self.count(listener, 1);
        wire
    }

    /// Takes a connection that a peer has opened, unless there are enough.
    fn accepted(self: &Rc<Self>, stream: TcpStream, remote: SocketAddr, listener: ListenerId) {
        let Some(ear) = self.ears.of(listener) else { return };
        let guest = match ear.door.enter(&self.seat, remote.ip()) {
            Ok(guest) => guest,
            Err(why) => {
                self.metrics(listener).refuse(why);
                tracing::debug!(peer = %remote, reason = why.as_str(), "a connection was refused");
                return;
            }
        };
        tune(&stream);
        self.mark(&stream, listener, remote);
        let stream = Tracked::new(stream, &self.seat);
        let streams = self.clone();
        match ear.tls().cloned() {
            None => {
                let wire = self.insert(listener, remote, false);
                actix::spawn(async move {
                    streams.run(stream, &wire, true).await;
                    drop(guest);
                });
            }
            Some(tls) => {
                let door = ear.door.clone();
                actix::spawn(async move {
                    streams.accept_secure(&tls, &door, stream, (remote, listener)).await;
                    drop(guest);
                });
            }
        }
    }

    /// Marks what goes by a connection as the settings of its trunk say.
    fn mark(&self, stream: &TcpStream, listener: ListenerId, remote: SocketAddr) {
        let flow = Flow::to(listener, remote);
        if let Some(dscp) = self.shared.current().directory.dscp_towards(flow) {
            dscp::mark(stream, remote.is_ipv4(), dscp);
        }
    }

    async fn run<S: AsyncRead + AsyncWrite>(&self, stream: S, wire: &Rc<Wire>, accepted: bool) {
        wire.come_about();
        let why = match self.to.get() {
            Some(shard) => carry(stream, wire, shard, accepted).await,
            None => Closed::Unreachable,
        };
        self.remove(wire, why, true);
    }

    /// A connection has ended: whoever waits for something on it hears so. `was_up`: it had come about.
    fn remove(&self, wire: &Wire, why: Closed, was_up: bool) {
        let flow = wire.flow;
        let number = number_of(flow);
        self.wires.borrow_mut().remove(&number);
        let place = (flow.listener, flow.remote);
        if self.opened.borrow().get(&place).is_some_and(|opened| opened.number == number) {
            self.opened.borrow_mut().remove(&place);
        }
        self.count(flow.listener, -1);
        self.metrics(flow.listener).close(why);
        if let Some(connection) = flow.connection {
            self.shared.current().directory.secure_peers.forget(connection);
        }
        tracing::debug!(peer = %flow.remote, cause = why.as_str(), "a connection has ended");
        let (Some(connection), Some(shard)) = (flow.connection, self.to.get()) else { return };
        let messages = wire.leftover(why);
        if !messages.is_empty() {
            shard.tell(FromStream::Undelivered { flow, messages });
        }
        shard.tell(FromStream::Gone { connection, was_up, brought: wire.has_brought() });
    }
}

fn number_of(flow: Flow) -> u64 {
    flow.connection.map_or(0, |connection| connection.generation)
}

/// Small messages leave at once, and a peer that has vanished is found out.
fn tune(stream: &TcpStream) {
    // Each only improves what works without.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER));
}

/// Takes a listener's connections for ever.
pub(crate) async fn accept(socket: TcpListener, listener: ListenerId, streams: Rc<Streams>) {
    let next = |cx: &mut Context<'_>| {
        // What a shard that was fenced would take is lost.
        streams.seat.halt_if_fenced();
        socket.poll_accept(cx)
    };
    loop {
        match poll_fn(next).await {
            Ok((stream, remote)) => streams.accepted(stream, remote, listener),
            Err(why) => {
                streams.metrics(listener).refuse(Refused::System);
                tracing::warn!(?listener, %why, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}
