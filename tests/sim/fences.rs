//! Shards that stand still: for a moment, or until another has their place.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use actix::Actor;
use tandem_actors::env::{Env, Tell};
use tandem_actors::ids::ShardId;
use tandem_actors::shard::{Datagrams, Estate, FromStream, LinkMessage, Linked, Shard, Succession, Tick};
use tandem_protocol::time::{Instant, Now, UnixMillis};

use crate::engine::Life;
use crate::rng::Rng;
use crate::run::Sim;
use crate::seams::SimSeams;
use crate::world::{Event, World};

/// A shard is fenced after so long, and half a second at most.
const SILENT_US: u64 = 2_000_000;
const LOOK_US: u64 = 500_000;

/// What comes to a shard.
pub(crate) enum Feed {
    Datagrams(Box<Datagrams>),
    Linked(LinkMessage),
    Stream(FromStream),
    Tick,
}

/// What waits for a shard that stands still.
pub(crate) struct Stall {
    since: u64,
    waiting: Vec<Feed>,
}

impl Life {
    /// Hands a shard something, or keeps it until the shard goes on.
    pub(crate) fn feed(&mut self, shard: usize, feed: Feed) {
        if let Some(Some(stall)) = self.stalls.get_mut(shard) {
            stall.waiting.push(feed);
            return;
        }
        let Some(shard) = self.shards.get(shard) else { return };
        match feed {
            Feed::Datagrams(datagrams) => shard.tell(*datagrams),
            Feed::Linked(message) => shard.tell(Linked(vec![message])),
            Feed::Stream(what) => shard.tell(what),
            Feed::Tick => shard.tell(Tick),
        }
    }

    pub(crate) fn is_stalled(&self, shard: usize) -> bool {
        self.stalls.get(shard).is_some_and(Option::is_some)
    }

    /// One shard's way out.
    pub(crate) fn env(world: &World, life: (u32, u64), shard: u16, parts: Parts<'_>) -> Env {
        let Parts { seat, shared, wake } = parts;
        let (epoch, began) = life;
        let seed = world.plan().seed ^ (u64::from(epoch) << 32) ^ (u64::from(seat.epoch()) << 48);
        let seams = SimSeams {
            world: world.clone(),
            epoch,
            shard,
            began,
            rng: RefCell::new(Rng::new(seed, 10 + u64::from(shard))),
            chance: RefCell::new(Rng::new(seed, 30 + u64::from(shard))),
            wake: wake.clone(),
        };
        Env::in_seat(ShardId(shard), seat.clone(), shared.clone(), Box::new(seams))
    }
}

/// What a shard's way out is made of.
pub(crate) struct Parts<'a> {
    pub(crate) seat: &'a Arc<tandem_actors::seat::Seat>,
    pub(crate) shared: &'a Arc<tandem_actors::env::Shared>,
    pub(crate) wake: &'a Rc<Cell<Option<u64>>>,
}

impl Sim {
    /// When something of the engine was cut off, and when that was back.
    pub(crate) fn cuts(&self) -> impl Iterator<Item = &(u64, u64)> {
        self.outages.iter().chain(&self.stalled)
    }

    /// When what came at a moment was taken at the latest: a shard that stood still then has taken it afterwards.
    pub(crate) fn taken_at(&self, at: u64) -> u64 {
        let stood_still = self.stalled.iter().filter(|(from, until)| *from <= at && at < *until);
        stood_still.map(|(_, until)| *until).max().unwrap_or(at)
    }

    /// A shard stands still from now on.
    pub(crate) fn stall(&mut self, life: &mut Life) {
        let shard = self.rng.below(life.shards.len() as u64) as usize;
        let time = match self.rng.permille(300) {
            true => 1 + self.rng.below(SILENT_US),
            false => SILENT_US + self.rng.below(LOOK_US),
        };
        if let Some(stall) = life.stalls.get_mut(shard).filter(|stall| stall.is_none()) {
            *stall = Some(Stall { since: self.world.now(), waiting: Vec::new() });
            self.world.push(self.world.now() + time, Event::StallEnds { epoch: life.epoch, shard });
        }
    }

    /// A shard goes on, or another has its place.
    pub(crate) fn end_stall(&mut self, life: &mut Life, shard: usize) {
        let Some(Stall { since, waiting }) = life.stalls.get_mut(shard).and_then(Option::take) else {
            return;
        };
        let fenced = self.world.now() >= since + SILENT_US;
        self.stalled.push((since, self.world.now()));
        let estate = fenced.then(|| self.replace(life, shard));
        for feed in waiting {
            match &feed {
                // A connection ends with its shard, and its socket's buffer with it.
                Feed::Datagrams(datagrams)
                    if fenced && datagrams.0.iter().all(|d| d.flow.connection.is_some()) => {}
                Feed::Stream(_) if fenced => {}
                Feed::Datagrams(_) | Feed::Linked(_) | Feed::Stream(_) | Feed::Tick => life.feed(shard, feed),
            }
        }
        if let Some(estate) = estate {
            self.commit_now(life);
            let mono = Instant(self.world.now() - life.began);
            let now = Now { mono, wall: UnixMillis(self.world.wall_ms()) };
            let (succession, restored) = Succession::of(&life.shared, ShardId(shard as u16), estate, now);
            self.restored_calls += restored.calls;
            self.closed_attempts += restored.attempts;
            if restored.damaged > 0 {
                self.world.violation(format!("{} records could not be read", restored.damaged));
            }
            life.shards[shard].tell(succession);
        }
    }

    /// Fences a shard. Its actors live on as long as their engine, and nothing comes of what they do.
    fn replace(&mut self, life: &mut Life, shard: usize) -> Estate {
        self.fences += 1;
        self.script.killed(&self.world);
        let number = shard as u16;
        let next = Arc::new(life.seats[shard].next());
        let estate = Estate::of(&life.shared, &life.seats[shard], &next);
        life.seats[shard] = next;
        life.wakes[shard] = Rc::default();
        let parts = Parts { seat: &life.seats[shard], shared: &life.shared, wake: &life.wakes[shard] };
        let env = Life::env(&self.world, (life.epoch, life.began), number, parts);
        let started = life.engine.replace(ShardId(number), || Ok(Shard::new(env).start()));
        life.shards[shard] = started.expect("an actor can be started");
        for connection in self.world.streams_of_shard_die(number) {
            for to in 0..life.shards.len() as u16 {
                let gone = LinkMessage::Gone { connection, was_up: true };
                self.world.link(life.epoch, number, to, gone);
            }
        }
        estate
    }
}
