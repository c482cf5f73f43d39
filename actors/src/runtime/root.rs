//! What outlives the shards: sockets, and the ends of their links. A shard's place is taken from it when its thread is stuck.
#![allow(clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use actix::prelude::*;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tandem_protocol::flow::ConnectionId;

use super::threads::{Threads, Wake, keep_time};
use super::{Clock, MediaRoute, Start, pace, receive};
use crate::engine::Engine;
use crate::env::{Env, Shared, Tell};
use crate::events::{Event, EventKind};
use crate::ids::ShardId;
use crate::links::{Inlet, Links};
use crate::metrics::ActorKind;
use crate::seat::Seat;
use crate::shard::{Estate, LinkMessage, Restore, Restored, Shard, Succession};
use crate::sip::ears::Ears;
use crate::sip::listening::Listening;
use crate::sip::tcp::Streams;
use crate::store::{Batch, Urgency};

/// A new thread that has not begun by then does not begin.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Why a shard has no successor: the process cannot go on as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreplaced {
    /// No thread, or no descriptor for its sockets.
    #[error("no new shard can be started: {0}")]
    Start(#[from] io::Error),
    /// The stuck thread stands in the middle of taking messages.
    #[error("the stuck thread holds on to the messages for its shard")]
    Inlet,
}

/// One shard's place.
pub(super) struct Chair {
    pub(super) shard: ShardId,
    pub(super) seat: Arc<Seat>,
    inlet: Inlet,
}

/// The places, and what a shard is started with.
pub(super) struct Root {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) links: Links,
    pub(super) chairs: Vec<Chair>,
    /// The sockets.
    listening: Arc<Listening>,
    media: MediaRoute,
}

impl Root {
    pub(super) fn new(start: Start) -> (Root, Vec<(ShardId, Restore)>) {
        let Start { shared, clock, listening, links, inlets, media, restore } = start;
        let chair = |(number, inlet)| Chair { shard: ShardId(number), seat: Arc::default(), inlet };
        let chairs = (0..).zip(inlets.0).map(chair).collect();
        (Root { shared, clock, links, chairs, listening, media }, restore)
    }

    pub(super) fn shards(&self) -> Vec<ShardId> {
        self.chairs.iter().map(|chair| chair.shard).collect()
    }

    fn chair(&mut self, shard: ShardId) -> Option<&mut Chair> {
        self.chairs.get_mut(usize::from(shard.0))
    }

    /// Starts a shard on a thread of its own.
    pub(super) fn start_shard(&self, shard: ShardId, restore: Option<Restore>) -> io::Result<Addr<Shard>> {
        let no_place = || io::Error::other("there is no such shard");
        let chair = self.chairs.get(usize::from(shard.0)).ok_or_else(no_place)?;
        let inlet = chair.inlet.handle();
        let post = Post {
            shard,
            seat: chair.seat.clone(),
            shared: self.shared.clone(),
            listening: self.listening.clone(),
            clock: self.clock,
            links: self.links.clone(),
            media: self.media.clone(),
        };
        let arbiter = Arbiter::try_with_tokio_rt(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let (park, unpark) = pace::hooks();
            runtime.enable_all().on_thread_park(park).on_thread_unpark(unpark).build()
        })?;
        let (ready, started) = mpsc::channel();
        arbiter.spawn(async move {
            // The starter may have given up.
            let _ = ready.send(post.take(inlet, restore));
        });
        let silent =
            |_| io::Error::other("a shard's thread has not begun in time, or has ended at its start");
        started.recv_timeout(START_PATIENCE).map_err(silent)?
    }

    /// Fences a shard and has another take its place: its sockets, what waits for it, its calls.
    pub(super) fn replace(&mut self, shard: ShardId, engine: &Engine) -> Result<(), Unreplaced> {
        let shared = self.shared.clone();
        let Some(chair) = self.chair(shard) else { return Ok(()) };
        let next = Arc::new(chair.seat.next());
        let estate = Estate::of(&shared, &chair.seat, &next);
        chair.inlet = chair.inlet.take_over().ok_or(Unreplaced::Inlet)?;
        chair.seat = next;
        let epoch = chair.seat.epoch();
        let successor = engine.replace(shard, || self.start_shard(shard, None))?;
        self.tell_gone(&estate.connections);
        let clock = self.clock;
        let hand_over = move || {
            // What it gave to the store before it was fenced is in it then, and nothing comes any more.
            shared.store.flush();
            let (succession, restored) = Succession::of(&shared, shard, estate, clock.now());
            successor.tell(succession);
            tell(&shared, shard, epoch, restored, clock);
        };
        // The store may take its time.
        std::thread::Builder::new().name("succession".to_owned()).spawn(hand_over)?;
        Ok(())
    }

    /// Connections of a shard that was fenced have ended: whoever waits for something on them hears so.
    fn tell_gone(&self, connections: &[ConnectionId]) {
        for (shard, connection) in
            self.shards().into_iter().flat_map(|s| connections.iter().map(move |c| (s, *c)))
        {
            self.links.send(shard, LinkMessage::Gone { connection, was_up: true });
        }
    }
}

fn tell(shared: &Shared, shard: ShardId, epoch: u32, restored: Restored, clock: Clock) {
    let Restored { calls, attempts, damaged } = restored;
    tracing::warn!(
        shard = shard.0,
        epoch,
        calls,
        attempts,
        damaged,
        "a new shard has taken the place of the fenced one"
    );
    let reason = "silent: it was fenced and its thread abandoned; another has its sockets and its calls";
    let event = Event::new(clock.now().wall, EventKind::ActorRestarted, reason);
    let event = event.with("actor", format!("{}:{}", ActorKind::Shard.as_str(), shard.0));
    let event = event.with("epoch", i64::from(epoch)).with("calls", calls as i64);
    let mut batch = Batch::new(Urgency::Lazy);
    batch.events.push(event.with("attempts", attempts as i64));
    shared.store.submit(batch);
}

/// What a shard's thread begins with.
struct Post {
    shard: ShardId,
    seat: Arc<Seat>,
    shared: Arc<Shared>,
    listening: Arc<Listening>,
    clock: Clock,
    links: Links,
    media: MediaRoute,
}

impl Post {
    fn take(self, inlet: Inlet, restore: Option<Restore>) -> io::Result<Addr<Shard>> {
        let seat = self.seat;
        seat.sit_down();
        let wake = Rc::new(Wake::default());
        let mut random = StdRng::from_os_rng();
        let ears = Rc::new(Ears::new(self.shard, seat.clone(), self.shared.clone(), self.listening));
        let first = random.next_u64();
        let streams = Streams::new(self.shard, seat.clone(), self.shared.clone(), ears.clone(), first);
        let seams = Threads {
            shared: self.shared.clone(),
            seat: seat.clone(),
            ears,
            clock: self.clock,
            read: Cell::new(self.clock.now()),
            streams: streams.clone(),
            links: self.links,
            media: self.media,
            wake: wake.clone(),
            random: RefCell::new(random),
        };
        let env = Env::in_seat(self.shard, seat.clone(), self.shared, Box::new(seams));
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
