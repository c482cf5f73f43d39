//! The engine on threads and sockets: the only place that reads the operating system's clocks and spawns tasks for shards.
//!
//! Each shard has an arbiter thread. On it these kinds of task feed its actor: one a listener ([`crate::sip::udp`],
//! [`crate::sip::tcp`]), one a connection, one for what comes from other threads (in batches), one for the shard's single
//! timer. A listener has one socket a shard, and the kernel spreads peers over them; a message whose call lives elsewhere
//! crosses once. The sockets are the root's (`root`): should a thread get stuck, which `watch` notices, a new one goes on with them.
#![allow(clippy::disallowed_methods)]

mod pace;
mod root;
mod threads;
mod watch;

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::prelude::*;
use tandem_protocol::flow::Transport;
use tandem_protocol::time::{Instant, Now, UnixMillis};

use self::root::Root;
use crate::engine::Engine;
use crate::env::{Shared, Tell};
use crate::ids::ShardId;
use crate::links::Inlet;
use crate::media_pool::order::Ordered;
use crate::shard::{Linked, Restore, Shard};
use crate::sip::listening::Listening;
use crate::sip::{tcp, udp};

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
pub type MediaRoute = Arc<dyn Fn(u16, Ordered) + Send + Sync>;

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

/// Starts every shard on an arbiter thread of its own, and a thread that watches over them.
///
/// # Errors
/// A socket or a thread cannot be had.
pub async fn start(start: Start) -> io::Result<Engine> {
    let (root, mut restore) = Root::new(start);
    let mut shards = Vec::new();
    for shard in root.shards() {
        let records = restore.iter().position(|(s, _)| *s == shard).map(|at| restore.swap_remove(at).1);
        shards.push(root.start_shard(shard, records)?);
    }
    let engine = Engine::new(shards, root.shared.clone());
    watch::start(root, &engine)?;
    Ok(engine)
}

/// Takes what other threads send.
async fn receive(mut inlet: Inlet, shard: Addr<Shard>) {
    while let Some(batch) = inlet.next().await {
        shard.tell(Linked(batch));
        tokio::task::yield_now().await;
        if !shard.connected() {
            // A fault has ended its actor: what waits is for the next one.
            std::future::pending::<()>().await;
        }
    }
}
