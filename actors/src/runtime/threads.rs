//! The seams of one shard in production, and its timer.
#![allow(clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use rand::RngCore;
use rand::rngs::StdRng;
use tandem_protocol::flow::{ConnectionId, Flow, ListenerId};
use tandem_protocol::time::{Instant, Now};
use tokio::sync::Notify;

use super::{Clock, MediaRoute, WALL_HOLDS};
use crate::env::{Leftover, Seams, Shared, Tell, Unsent, Waiter};
use crate::ids::ShardId;
use crate::links::Links;
use crate::media_pool::order::{MediaOrder, Ordered};
use crate::metrics::ActorKind;
use crate::seat::Seat;
use crate::shard::{LinkMessage, Shard, Tick};
use crate::sip::ears::Ears;
use crate::sip::tcp::Streams;
use crate::sip::udp;

/// The one timer of a shard.
#[derive(Default)]
pub(super) struct Wake {
    at: Cell<Option<Instant>>,
    changed: Notify,
}

pub(super) async fn keep_time(wake: Rc<Wake>, clock: Clock, shard: Addr<Shard>) {
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
pub(super) struct Threads {
    pub(super) shared: Arc<Shared>,
    pub(super) seat: Arc<Seat>,
    pub(super) ears: Rc<Ears>,
    pub(super) clock: Clock,
    /// When both clocks were last read.
    pub(super) read: Cell<Now>,
    pub(super) streams: Rc<Streams>,
    pub(super) links: Links,
    pub(super) media: MediaRoute,
    pub(super) wake: Rc<Wake>,
    pub(super) random: RefCell<StdRng>,
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
        (self.media)(worker, Ordered { order, by: self.seat.clone() });
    }

    fn inject_panic(&self, _: ActorKind) -> bool {
        false
    }

    fn fenced(&self) {
        self.seat.halt_if_fenced();
    }
}
