//! The engine on threads and sockets: the only file that reads the operating system's clocks and spawns tasks for shards.
//!
//! Each shard has an arbiter thread. On it these kinds of task feed its actor: one a listener ([`crate::sip::udp`],
//! [`crate::sip::tcp`]), one a connection, one for what comes from other threads (in batches), one for the shard's single
//! timer. A listener has one socket a shard, and the kernel spreads peers over them; a message whose call lives elsewhere
//! crosses once.
#![allow(clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::prelude::*;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tandem_protocol::flow::{ConnectionId, Flow, ListenerId, Transport};
use tandem_protocol::time::{Instant, Now, UnixMillis};
use tokio::sync::Notify;

use crate::engine::Engine;
use crate::env::{Env, Leftover, Seams, Shared, Tell, Unsent, Waiter};
use crate::ids::ShardId;
use crate::links::Inlet;
use crate::media_pool::order::MediaOrder;
use crate::metrics::ActorKind;
use crate::shard::{LinkMessage, Linked, Restore, Shard, Tick};
use crate::sip::ears::Ears;
use crate::sip::listening::Listening;
use crate::sip::tcp::{self, Streams};
use crate::sip::udp;

pub use crate::links::{Inlets, Links, links};

/// So long what the wall clock has said is good enough: it is told in milliseconds.
const WALL_HOLDS: Duration = Duration::from_millis(1);
/// Both clocks, read from the operating system.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: std::time::Instant,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { epoch: std::time::Instant::now() }
    }
}

impl Clock {
    /// Both clocks now.
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: Clock::wall() }
    }

    /// As [`Clock::now`], when the clocks have been read at `last`: the other clock, which counts milliseconds, is read again only
    /// after one.
    fn now_after(&self, last: Now) -> Now {
        let mono = self.mono();
        if mono.since(last.mono) < WALL_HOLDS {
            Now { mono, ..last }
        } else {
            Now { mono, wall: Clock::wall() }
        }
    }

    fn mono(&self) -> Instant {
        Instant(self.epoch.elapsed().as_micros() as u64)
    }

    fn wall() -> UnixMillis {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(wall.as_millis() as u64)
    }

    fn at(&self, instant: Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.epoch + Duration::from_micros(instant.0))
    }
}

/// A socket of a listener, on one shard.
pub enum ListenSocket {
    /// Of datagrams.
    Udp(StdUdpSocket),
    /// Of connections.
    Tcp(StdTcpListener),
}

impl ListenSocket {
    /// The same socket once more.
    pub(crate) fn try_clone(&self) -> io::Result<ListenSocket> {
        match self {
            ListenSocket::Udp(socket) => socket.try_clone().map(ListenSocket::Udp),
            ListenSocket::Tcp(socket) => socket.try_clone().map(ListenSocket::Tcp),
        }
    }
}

/// Binds a listener: one socket a shard on the same address.
///
/// # Errors
/// The address is in use, or not ours.
pub fn bind(
    transport: Transport,
    address: SocketAddr,
    shards: u16,
) -> io::Result<(SocketAddr, Vec<ListenSocket>)> {
    match transport {
        Transport::Udp => udp::bind(address, shards)
            .map(|(address, sockets)| (address, sockets.into_iter().map(ListenSocket::Udp).collect())),
        Transport::Tcp | Transport::Tls => tcp::bind(address, shards)
            .map(|(address, sockets)| (address, sockets.into_iter().map(ListenSocket::Tcp).collect())),
    }
}

/// Hands orders to media workers.
pub type MediaRoute = Arc<dyn Fn(u16, MediaOrder) + Send + Sync>;

/// What an engine is started with.
pub struct Start {
    /// What all shards share.
    pub shared: Arc<Shared>,
    /// The clock.
    pub clock: Clock,
    /// What is listened on.
    pub listening: Arc<Listening>,
    /// The ways into the shards.
    pub links: Links,
    /// Their receiving ends.
    pub inlets: Inlets,
    /// The way to the media workers.
    pub media: MediaRoute,
    /// The calls each shard takes over from the process before.
    pub restore: Vec<(ShardId, Restore)>,
}

/// Starts every shard on an arbiter thread of its own.
///
/// # Errors
/// A socket cannot be used.
pub async fn start(start: Start) -> io::Result<Engine> {
    let Start { shared, clock, listening, links, inlets, media, mut restore } = start;
    let mut shards = Vec::new();
    for (number, inlet) in inlets.0.into_iter().enumerate() {
        let shard = ShardId(number as u16);
        let records = restore.iter().position(|(s, _)| *s == shard).map(|at| restore.swap_remove(at).1);
        let seat = Seat {
            shard,
            shared: shared.clone(),
            listening: listening.clone(),
            clock,
            links: links.clone(),
            media: media.clone(),
        };
        let (ready, started) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_park(Pace::default().into_hook())
            .build()?;
        let arbiter = Arbiter::with_tokio_rt(move || runtime);
        arbiter.spawn(async move {
            // The starter may have given up.
            let _ = ready.send(seat.take(inlet, records));
        });
        shards.push(started.await.map_err(|_| io::Error::other("a shard's thread ended at its start"))??);
    }
    Ok(Engine::new(shards, shared))
}

/// Lets a busy shard rest before it looks for work again, so that one wake-up finds several datagrams: waking costs more than
/// most datagrams do. A shard that was idle answers at once.
struct Pace {
    /// When the thread last ran out of work.
    parked: std::sync::Mutex<std::time::Instant>,
}

/// How long it rests; what it adds to a message's way at most.
const REST: Duration = Duration::from_millis(1);
/// It is busy if it ran out of work less than this ago.
const BUSY: Duration = Duration::from_millis(2);

impl Default for Pace {
    fn default() -> Pace {
        Pace { parked: std::sync::Mutex::new(std::time::Instant::now()) }
    }
}

impl Pace {
    fn into_hook(self) -> impl Fn() + Send + Sync + 'static {
        move || {
            // Only this thread ever takes the lock: the runtime asks for a hook that could be shared.
            let Ok(mut parked) = self.parked.try_lock() else { return };
            if parked.elapsed() < BUSY {
                std::thread::sleep(REST);
            }
            *parked = std::time::Instant::now();
        }
    }
}

/// What a shard's thread begins with.
struct Seat {
    shard: ShardId,
    shared: Arc<Shared>,
    listening: Arc<Listening>,
    clock: Clock,
    links: Links,
    media: MediaRoute,
}

impl Seat {
    fn take(self, inlet: Inlet, restore: Option<Restore>) -> io::Result<Addr<Shard>> {
        let wake = Rc::new(Wake::default());
        let mut random = StdRng::from_os_rng();
        let ears = Rc::new(Ears::new(self.shard, self.shared.clone(), self.listening));
        let streams = Streams::new(self.shard, self.shared.clone(), ears.clone(), random.next_u64());
        let seams = Threads {
            shared: self.shared.clone(),
            ears,
            clock: self.clock,
            read: Cell::new(self.clock.now()),
            streams: streams.clone(),
            links: self.links,
            media: self.media,
            wake: wake.clone(),
            random: RefCell::new(random),
        };
        let env = Env::new(self.shard, self.shared, Box::new(seams));
        let shard = Shard::new(env).start();
        streams.belong_to(shard.clone());
        if let Some(restore) = restore {
            shard.tell(restore);
        }
        streams.listen()?;
        actix::spawn(receive(inlet, shard.clone()));
        actix::spawn(keep_time(wake, self.clock, shard.clone()));
        Ok(shard)
    }
}

/// Takes what other threads send.
async fn receive(mut inlet: Inlet, shard: Addr<Shard>) {
    while let Some(batch) = inlet.next().await {
        shard.tell(Linked(batch));
        tokio::task::yield_now().await;
    }
}

/// The one timer of a shard.
#[derive(Default)]
struct Wake {
    at: Cell<Option<Instant>>,
    changed: Notify,
}

async fn keep_time(wake: Rc<Wake>, clock: Clock, shard: Addr<Shard>) {
    loop {
        let Some(at) = wake.at.get() else {
            wake.changed.notified().await;
            continue;
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(clock.at(at)) => {
                wake.at.set(None);
                shard.tell(Tick);
                tokio::task::yield_now().await;
            }
            () = wake.changed.notified() => {}
        }
    }
}

/// The seams of one shard in production.
struct Threads {
    shared: Arc<Shared>,
    ears: Rc<Ears>,
    clock: Clock,
    /// When both clocks were last read.
    read: Cell<Now>,
    streams: Rc<Streams>,
    links: Links,
    media: MediaRoute,
    wake: Rc<Wake>,
    random: RefCell<StdRng>,
}

impl Seams for Threads {
    fn now(&self) -> Now {
        let last = self.read.get();
        let now = self.clock.now_after(last);
        if now.mono.since(last.mono) >= WALL_HOLDS {
            self.read.set(now);
        }
        now
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().next_u64()
    }

    fn transmit(&self, flow: Flow, message: Bytes, leftover: Leftover) -> Result<(), Unsent> {
        if let Some(connection) = flow.connection {
            return self.streams.send(connection, message, leftover);
        }
        let ear = self.ears.of(flow.listener);
        let marked = ear.as_ref().and_then(|ear| ear.datagrams.as_ref()).ok_or(Unsent::Unreachable)?;
        marked.mark(self.shared.settings.peek().directory.dscp_towards(flow));
        udp::send(&marked.socket, flow.remote, &message)
    }

    fn listen(&self) {
        if let Err(why) = self.streams.listen() {
            tracing::error!(%why, "a listener's socket cannot be had by a shard: it hears nothing there");
        }
    }

    fn connect(&self, listener: ListenerId, remote: SocketAddr, within: Duration) -> Result<Flow, Unsent> {
        self.streams.connect(listener, remote, within)
    }

    fn race(
        &self,
        listener: ListenerId,
        to: (SocketAddr, &[SocketAddr]),
        within: Duration,
        waiter: Waiter,
    ) -> Option<SocketAddr> {
        self.streams.race(listener, to, within, waiter)
    }

    fn opened(&self, listener: ListenerId, remote: SocketAddr) -> Option<ConnectionId> {
        self.streams.opened_to(listener, remote)
    }

    fn ping(&self, connection: ConnectionId) {
        self.streams.ping(connection);
    }

    fn close(&self, connection: ConnectionId) {
        self.streams.close(connection);
    }

    fn link(&self, to: ShardId, message: LinkMessage) {
        self.links.send(to, message);
    }

    fn wake_at(&self, at: Instant) {
        self.wake.at.set(Some(at));
        self.wake.changed.notify_one();
    }

    fn media(&self, worker: u16, order: MediaOrder) {
        (self.media)(worker, order);
    }

    fn inject_panic(&self, _: ActorKind) -> bool {
        false
    }
}
