//! The engine on threads and sockets: the only file that reads the operating system's clocks and spawns tasks for shards.
//!
//! Each shard has an arbiter thread. On it three kinds of task feed its actor: one a listener (datagrams, in batches), one for what comes from
//! other threads (in batches), one for the shard's single timer. A listener has one socket a shard, and the kernel spreads
//! peers over them; a datagram whose call lives elsewhere crosses once.
#![allow(clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::prelude::*;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use smallvec::SmallVec;
use socket2::{Domain, Protocol, Socket, Type};
use tandem_protocol::flow::Flow;
use tandem_protocol::time::{Instant, Now, UnixMillis};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};

use crate::engine::Engine;
use crate::env::{Datagram, Env, Seams, Shared, Tell, Unsent};
use crate::ids::ShardId;
use crate::media_pool::order::MediaOrder;
use crate::metrics::ActorKind;
use crate::shard::{Datagrams, LinkMessage, Linked, Restore, Shard, Tick};
use crate::store::{Completions, StoreFault, Ticket};

/// Messages that may wait for a shard from other threads; more are shed and counted.
const LINK_DEPTH: usize = 65_536;
/// Datagrams taken from a socket, and messages from a link, before the shard's actors get their turn.
const BATCH: usize = 32;
/// The largest datagram UDP can carry.
const LARGEST_DATAGRAM: usize = 65_535;
/// Asked of the kernel for each SIP socket; it grants what it may.
const SOCKET_BUFFER: usize = 4 << 20;

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
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: Instant(self.epoch.elapsed().as_micros() as u64),
            wall: UnixMillis(wall.as_millis() as u64),
        }
    }

    fn at(&self, instant: Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.epoch + Duration::from_micros(instant.0))
    }
}

/// The ways into the shards, from any thread.
#[derive(Clone)]
pub struct Links {
    senders: Arc<Vec<mpsc::Sender<LinkMessage>>>,
    shed: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Links {
    /// Hands a message to a shard. It never waits: what does not fit is shed and counted.
    pub fn send(&self, to: ShardId, message: LinkMessage) {
        if let Some(sender) = self.senders.get(usize::from(to.0))
            && sender.try_send(message).is_err()
        {
            (self.shed)(1);
        }
    }
}

impl Completions for Links {
    fn committed(&self, done: Vec<(Ticket, Result<(), StoreFault>)>) {
        let mut per_shard: Vec<Vec<(u64, bool)>> = self.senders.iter().map(|_| Vec::new()).collect();
        for (ticket, result) in done {
            if let Some(tokens) = per_shard.get_mut(usize::from(ticket.shard)) {
                tokens.push((ticket.token, result.is_ok()));
            }
        }
        for (shard, tokens) in per_shard.into_iter().enumerate().filter(|(_, tokens)| !tokens.is_empty()) {
            self.send(ShardId(shard as u16), LinkMessage::Committed(tokens));
        }
    }
}

/// The receiving ends of [`Links`], one a shard.
pub struct Inlets(Vec<mpsc::Receiver<LinkMessage>>);

/// The ways into `shards` shards. `shed` counts what a full one refused.
pub fn links(shards: u16, shed: impl Fn(u64) + Send + Sync + 'static) -> (Links, Inlets) {
    let (senders, receivers) = (0..shards).map(|_| mpsc::channel(LINK_DEPTH)).unzip();
    (Links { senders: Arc::new(senders), shed: Arc::new(shed) }, Inlets(receivers))
}

/// Binds a listener: one socket a shard on the same address.
///
/// # Errors
/// The address is in use, or not ours.
pub fn bind(address: SocketAddr, shards: u16) -> io::Result<(SocketAddr, Vec<StdUdpSocket>)> {
    // The first bind is exclusive: another process on the port is found even if it shares ports as we do.
    let probe = StdUdpSocket::bind(address)?;
    let address = probe.local_addr()?;
    drop(probe);
    let sockets = (0..shards.max(1)).map(|_| shared_socket(address)).collect::<io::Result<Vec<_>>>()?;
    Ok((address, sockets))
}

fn shared_socket(address: SocketAddr) -> io::Result<StdUdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // The kernel's bound may be lower; more room only helps in a burst.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Hands orders to media workers.
pub type MediaRoute = Arc<dyn Fn(u16, MediaOrder) + Send + Sync>;

/// What an engine is started with.
pub struct Start {
    /// What all shards share.
    pub shared: Arc<Shared>,
    /// The clock.
    pub clock: Clock,
    /// For each listener, one socket a shard.
    pub sockets: Vec<Vec<StdUdpSocket>>,
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
    let Start { shared, clock, mut sockets, links, inlets, media, mut restore } = start;
    let mut shards = Vec::new();
    for (number, inlet) in inlets.0.into_iter().enumerate() {
        let shard = ShardId(number as u16);
        let own: Vec<StdUdpSocket> = sockets.iter_mut().filter_map(Vec::pop).collect();
        let records = restore.iter().position(|(s, _)| *s == shard).map(|at| restore.swap_remove(at).1);
        let seat = Seat { shard, shared: shared.clone(), clock, links: links.clone(), media: media.clone() };
        let (ready, started) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_park(Pace::default().into_hook())
            .build()?;
        let arbiter = Arbiter::with_tokio_rt(move || runtime);
        arbiter.spawn(async move {
            // The starter may have given up.
            let _ = ready.send(seat.take(own, inlet, records));
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
const REST: Duration = Duration::from_micros(500);
/// It is busy if it ran out of work less than this ago.
const BUSY: Duration = Duration::from_millis(1);

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
    clock: Clock,
    links: Links,
    media: MediaRoute,
}

impl Seat {
    fn take(
        self,
        sockets: Vec<StdUdpSocket>,
        inlet: mpsc::Receiver<LinkMessage>,
        restore: Option<Restore>,
    ) -> io::Result<Addr<Shard>> {
        let wake = Rc::new(Wake::default());
        let senders = sockets.iter().map(StdUdpSocket::try_clone).collect::<io::Result<Vec<_>>>()?;
        let seams = Threads {
            clock: self.clock,
            sockets: senders,
            links: self.links,
            media: self.media,
            wake: wake.clone(),
            random: RefCell::new(StdRng::from_os_rng()),
        };
        let env = Env::new(self.shard, self.shared, Box::new(seams));
        let shard = Shard::new(env).start();
        if let Some(restore) = restore {
            shard.tell(restore);
        }
        for (listener, socket) in sockets.into_iter().enumerate() {
            actix::spawn(listen(UdpSocket::from_std(socket)?, listener as u16, shard.clone()));
        }
        actix::spawn(receive(inlet, shard.clone()));
        actix::spawn(keep_time(wake, self.clock, shard.clone()));
        Ok(shard)
    }
}

/// Reads a listener's socket for ever.
async fn listen(socket: UdpSocket, listener: u16, shard: Addr<Shard>) {
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    loop {
        if let Err(why) = socket.readable().await {
            tracing::error!(listener, %why, "a SIP socket has failed");
            return;
        }
        let mut batch = SmallVec::new();
        while batch.len() < BATCH {
            match socket.try_recv_from(&mut buffer) {
                Ok((length, from)) => {
                    batch.push(Datagram::new(listener, from, Bytes::copy_from_slice(&buffer[..length])))
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error of an earlier send; the transaction's timer deals with it.
                Err(why) => tracing::debug!(listener, %why, "receive error"),
            }
        }
        if !batch.is_empty() {
            shard.tell(Datagrams(batch));
        }
        tokio::task::yield_now().await;
    }
}

/// Takes what other threads send.
async fn receive(mut inlet: mpsc::Receiver<LinkMessage>, shard: Addr<Shard>) {
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        if inlet.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
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
    clock: Clock,
    sockets: Vec<StdUdpSocket>,
    links: Links,
    media: MediaRoute,
    wake: Rc<Wake>,
    random: RefCell<StdRng>,
}

impl Seams for Threads {
    fn now(&self) -> Now {
        self.clock.now()
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().next_u64()
    }

    fn transmit(&self, flow: Flow, datagram: Bytes) -> Result<(), Unsent> {
        let socket = self.sockets.get(usize::from(flow.listener)).ok_or(Unsent::Unreachable)?;
        match socket.send_to(&datagram, flow.remote) {
            Ok(_) => Ok(()),
            Err(why) => match why.kind() {
                io::ErrorKind::WouldBlock => Err(Unsent::Full),
                // Tells of an earlier datagram (ICMP port unreachable), not of this one; this one is sent again by its timer.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted => Err(Unsent::Full),
                _ => Err(Unsent::Unreachable),
            },
        }
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
