//! Media workers that carry no packet: they keep the account of ports and sessions and find every order that does not fit it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use tandem_actors::calls::CallKey;
use tandem_actors::ids::ShardId;
use tandem_actors::media_pool::order::{Lease, MediaEvent, MediaOrder, SessionId};
use tandem_actors::shard::LinkMessage;
use tandem_media::session::Report;

use crate::engine::MEDIA_IP;
use crate::rng::Rng;
use crate::world::{Event, World};

/// Ports rest this long after their session.
const REST_US: u64 = 2_000_000;
/// Links from workers are numbered above those of shards.
const WORKER_LINK: u16 = 1000;

struct Session {
    worker: u16,
    port: u16,
    shard: ShardId,
    watched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    /// On a shard's free list, or taken from it by a call that has not opened it.
    Leased,
    InUse,
    Resting,
}

/// All workers of one engine.
pub(crate) struct SimMedia {
    epoch: u32,
    /// The first port a worker has not bound yet.
    next: Vec<u16>,
    limit: u16,
    ports: BTreeMap<(u16, u16), Port>,
    sessions: BTreeMap<SessionId, Session>,
    rng: Rng,
}

/// The first port of a worker.
fn base(worker: u16) -> u16 {
    20_000 + worker * 4_000
}

impl SimMedia {
    pub(crate) fn new(world: &World, reserved: &[u16]) -> SimMedia {
        let plan = world.plan();
        let mut media = SimMedia {
            epoch: world.epoch(),
            next: (0..plan.workers).map(base).collect(),
            limit: plan.pairs,
            ports: BTreeMap::new(),
            sessions: BTreeMap::new(),
            rng: Rng::new(plan.seed ^ u64::from(world.epoch()), 3),
        };
        for port in reserved {
            media.ports.insert(((port - 20_000) / 4_000, *port), Port::Leased);
        }
        media
    }

    /// Ports that some shard may give away.
    pub(crate) fn leased(&self) -> usize {
        self.ports.values().filter(|port| **port == Port::Leased).count()
    }

    /// Sessions that are open.
    pub(crate) fn open(&self) -> usize {
        self.sessions.len()
    }

    /// Ports that are neither leased nor in use.
    pub(crate) fn resting(&self) -> usize {
        self.ports.values().filter(|port| **port == Port::Resting).count()
    }

    fn tell(&self, world: &World, worker: u16, shard: ShardId, event: MediaEvent) {
        world.link(self.epoch, WORKER_LINK + worker, shard.0, LinkMessage::Media(event));
    }

    pub(crate) fn order(&mut self, world: &World, worker: u16, order: MediaOrder) {
        if worker >= world.plan().workers {
            world.violation(format!("media worker {worker} does not exist: {order:?}"));
            return;
        }
        match order {
            MediaOrder::Grow { shard, pairs } => self.grow(world, worker, shard, pairs),
            MediaOrder::Open { session, lease, config, shard, peer: _ } => {
                let watched = config.rtp_timeout.is_some();
                self.begin(
                    world,
                    worker,
                    session,
                    lease,
                    Session { worker, port: lease.rtp.port(), shard, watched },
                );
            }
            MediaOrder::Configure { session, config } => match self.sessions.get_mut(&session) {
                Some(known) => known.watched = config.rtp_timeout.is_some(),
                None => world.violation(format!("Configure of {session:?}, which is not open")),
            },
            MediaOrder::Record { call, .. } => {
                if !self.sessions.contains_key(&SessionId { call, side: 0 }) {
                    world.violation(format!("Record of {call:?}, which has no open session"));
                }
            }
            MediaOrder::Close { session } => self.close(world, session),
            MediaOrder::InjectSession(..) | MediaOrder::InjectWorker => {}
        }
    }

    fn grow(&mut self, world: &World, worker: u16, shard: ShardId, pairs: u16) {
        let next = &mut self.next[usize::from(worker)];
        let mut granted = Vec::new();
        while granted.len() < usize::from(pairs) && *next < base(worker) + 2 * self.limit {
            let port = *next;
            *next += 2;
            if let Entry::Vacant(free) = self.ports.entry((worker, port)) {
                free.insert(Port::Leased);
                granted.push(Lease { worker, rtp: SocketAddr::from((MEDIA_IP, port)) });
            }
        }
        self.tell(world, worker, shard, MediaEvent::Granted { worker, pairs: granted });
    }

    fn begin(&mut self, world: &World, worker: u16, id: SessionId, lease: Lease, session: Session) {
        if lease.worker != worker {
            world.violation(format!("Open of {id:?} on worker {worker} with a lease of {}", lease.worker));
        }
        match self.ports.insert((worker, session.port), Port::InUse) {
            Some(Port::Leased) => {}
            other => world.violation(format!("Open of {id:?} on port {} which is {other:?}", session.port)),
        }
        if self.rng.permille(5) {
            let at = world.now() + self.rng.below(8_000_000);
            world.push(at, Event::Silence { epoch: self.epoch, call: id.call.0, side: id.side });
        }
        if self.sessions.insert(id, session).is_some() {
            world.violation(format!("Open of {id:?}, which is open already"));
        }
    }

    fn close(&mut self, world: &World, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else {
            world.violation(format!("Close of {id:?}, which is not open"));
            return;
        };
        let (worker, port, shard) = (session.worker, session.port, session.shard);
        self.ports.insert((worker, port), Port::Resting);
        // A worker that is stalled for a while must not keep a call.
        if self.rng.permille(990) {
            let report = Box::new(Report { rx: 1, ..Report::default() });
            self.tell(world, worker, shard, MediaEvent::Closed { session: id, report });
        }
        let event = Event::Rested { epoch: self.epoch, worker, port, shard: shard.0 };
        world.push(world.now() + REST_US, event);
    }

    /// The ports of a session have rested.
    pub(crate) fn rested(&mut self, world: &World, worker: u16, port: u16, shard: u16) {
        if self.ports.insert((worker, port), Port::Leased) != Some(Port::Resting) {
            world.violation(format!("port {port} was returned twice"));
        }
        let lease = Lease { worker, rtp: SocketAddr::from((MEDIA_IP, port)) };
        self.tell(world, worker, ShardId(shard), MediaEvent::Returned(vec![lease]));
    }

    /// A session hears nothing any more.
    pub(crate) fn silence(&mut self, world: &World, call: u64, side: u8) {
        let id = SessionId { call: CallKey(call), side };
        if let Some(session) = self.sessions.get(&id).filter(|session| session.watched) {
            self.tell(world, session.worker, session.shard, MediaEvent::Silent(id));
        }
    }
}
