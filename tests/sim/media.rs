//! The real media workers in virtual time: sockets in the simulated network, and a pacer.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Addr};
use bytes::Bytes;
use tandem_actors::env::{Shared, Tell};
use tandem_actors::ids::ShardId;
use tandem_actors::media_pool::io::{Channel, MediaSeams, PacketIo, PairId, Wants};
use tandem_actors::media_pool::order::MediaOrder;
use tandem_actors::media_pool::ports::PortPool;
use tandem_actors::media_pool::recorder::{InlineSink, RecordingFile, Sink};
use tandem_actors::media_pool::worker::{MediaWorker, Step};
use tandem_actors::metrics::ActorKind;
use tandem_actors::shard::LinkMessage;
use tandem_protocol::time::{Instant, Now, UnixMillis};

use crate::air::Air;
use crate::rng::Rng;
use crate::world::{Event, Fate, WORKER_LINK, World};

/// A worker with open sessions looks at its sockets at every multiple of this.
const PERIOD_US: u64 = 2_000;
/// What a socket holds before it drops.
const SOCKET_BUFFER: usize = 256;

/// What has arrived at a bound port and was not taken.
type Queue = VecDeque<(SocketAddr, Bytes)>;

/// One worker as the network and the clock see it.
struct Desk {
    world: World,
    air: Air,
    epoch: u32,
    began: u64,
    number: u16,
    sockets: RefCell<BTreeMap<u16, Queue>>,
    /// The ports at which something has arrived and was not taken.
    waiting: RefCell<BTreeSet<u16>>,
    wants: Cell<Wants>,
    /// When the next step is due.
    step_at: Cell<Option<u64>>,
    random: RefCell<Rng>,
    chance: RefCell<Rng>,
}

impl Desk {
    fn is_dead(&self) -> bool {
        self.world.epoch() != self.epoch
    }

    /// Sees to it that the worker is stepped when it wants to be.
    fn pace(&self) {
        let (now, wants) = (self.world.now(), self.wants.get());
        let packets = wants.packets && !self.waiting.borrow().is_empty();
        // Time passes between two steps, also if they are wanted at once.
        let soon = if wants.at_once { now + 1 } else { now.next_multiple_of(PERIOD_US) };
        let soon = (wants.at_once || packets).then_some(soon);
        let deadline = wants.deadline.map(|at| (at.0 + self.began).max(now));
        let Some(at) = soon.into_iter().chain(deadline).min() else { return };
        if self.step_at.get().is_none_or(|set| at < set) {
            self.step_at.set(Some(at));
            self.world.push(at, Event::Step { epoch: self.epoch, worker: self.number });
        }
    }
}

struct Seams(Rc<Desk>);

impl MediaSeams for Seams {
    fn now(&self) -> Now {
        let world = &self.0.world;
        Now { mono: Instant(world.now() - self.0.began), wall: UnixMillis(world.wall_ms()) }
    }

    fn random(&self) -> u64 {
        self.0.random.borrow_mut().next()
    }

    fn link(&self, to: ShardId, message: LinkMessage) {
        if !self.0.is_dead() {
            self.0.world.link(self.0.epoch, WORKER_LINK + self.0.number, to.0, message);
        }
    }

    fn inject_panic(&self, kind: ActorKind) -> bool {
        let panics = self.0.world.plan().panics;
        let millionths = match kind {
            ActorKind::MediaSession => panics.session,
            ActorKind::MediaWorker => panics.worker,
            ActorKind::Call
            | ActorKind::Dialog
            | ActorKind::Station
            | ActorKind::Trunk
            | ActorKind::RegistrationGroup
            | ActorKind::Shard => 0,
        };
        let panics = millionths > 0 && self.0.chance.borrow_mut().below(1_000_000) < millionths;
        if panics && kind == ActorKind::MediaWorker {
            self.0.air.worker_panicked(self.0.world.now());
        }
        panics
    }

    fn want(&self, wants: Wants) {
        if !self.0.is_dead() {
            self.0.wants.set(wants);
            self.0.pace();
        }
    }

    fn sink(&self) -> io::Result<Box<dyn Sink>> {
        let desk = self.0.clone();
        Ok(Box::new(InlineSink::new(move |_| {
            let faulty = desk.world.plan().panics.session > 0 && desk.chance.borrow_mut().permille(200);
            Ok(Box::new(Tape { faulty, place: 0 }) as Box<dyn RecordingFile>)
        })))
    }

    fn escalate(&self, _: &str) {
        // The process ends, and its service manager starts another.
        self.0.world.push(self.0.world.now(), Event::Kill);
    }
}

/// What is recorded goes nowhere; some disks are full.
struct Tape {
    faulty: bool,
    place: u64,
}

impl io::Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.place += bytes.len() as u64;
        if self.faulty && self.place > 4_000 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for Tape {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.place = match to {
            io::SeekFrom::Start(place) => place,
            io::SeekFrom::Current(by) | io::SeekFrom::End(by) => self.place.saturating_add_signed(by),
        };
        Ok(self.place)
    }
}

/// The sockets of one worker.
struct Sockets {
    desk: Rc<Desk>,
    pairs: Vec<SocketAddr>,
    /// By their RTP port.
    by_port: BTreeMap<u16, PairId>,
}

impl Sockets {
    fn port(&self, pair: PairId, channel: Channel) -> u16 {
        let rtp = self.pairs[pair.0 as usize].port();
        match channel {
            Channel::Rtp => rtp,
            Channel::Rtcp => rtp + 1,
        }
    }
}

impl PacketIo for Sockets {
    fn bind(&mut self, rtp: SocketAddr) -> io::Result<PairId> {
        let mut sockets = self.desk.sockets.borrow_mut();
        if sockets.contains_key(&rtp.port()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        sockets.insert(rtp.port(), Queue::new());
        sockets.insert(rtp.port() + 1, Queue::new());
        self.pairs.push(rtp);
        let pair = PairId(self.pairs.len() as u32 - 1);
        self.by_port.insert(rtp.port(), pair);
        Ok(pair)
    }

    fn ready(&mut self, ready: &mut Vec<(PairId, Channel)>) {
        ready.clear();
        for port in self.desk.waiting.borrow().iter() {
            if let Some(pair) = self.by_port.get(port) {
                ready.push((*pair, Channel::Rtp));
            } else if let Some(pair) = self.by_port.get(&(port - 1)) {
                ready.push((*pair, Channel::Rtcp));
            }
        }
    }

    fn receive(&mut self, pair: PairId, channel: Channel, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let port = self.port(pair, channel);
        let mut sockets = self.desk.sockets.borrow_mut();
        let queue = sockets.get_mut(&port)?;
        let (from, bytes) = queue.pop_front()?;
        if queue.is_empty() {
            self.desk.waiting.borrow_mut().remove(&port);
        }
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.desk.air.taken(self.desk.epoch, self.desk.world.now(), from, &bytes);
        Some((bytes.len(), from))
    }

    fn send(&mut self, pair: PairId, channel: Channel, to: SocketAddr, packet: &[u8]) -> bool {
        let Desk { world, air, epoch, .. } = &*self.desk;
        if self.desk.is_dead() || self.desk.chance.borrow_mut().permille(world.plan().faults.full) {
            air.unsent(world.now(), to, packet);
            return false;
        }
        let mut from = self.pairs[pair.0 as usize];
        from.set_port(self.port(pair, channel));
        let lost = world.send_sound(from, to, &Bytes::copy_from_slice(packet)) == Fate::Lost;
        if channel == Channel::Rtp {
            air.forwarded(*epoch, world.now(), to, packet, lost);
        }
        if air.owner(to).is_none() {
            world.violation(format!("a media worker sends to {to}, which no phone has named"));
        }
        true
    }
}

/// All workers of one life of the engine.
pub(crate) struct Workers {
    workers: Vec<Addr<MediaWorker>>,
    desks: Vec<Rc<Desk>>,
}

impl Workers {
    /// Starts them; `reserved` are the ports of restored calls.
    pub(crate) fn start(world: &World, air: &Air, shared: &Arc<Shared>, reserved: Vec<u16>) -> Workers {
        let seed = world.plan().seed ^ (u64::from(world.epoch()) << 32);
        let chance = Rng::new(seed, 49).next();
        let ports = Arc::new(PortPool::new(shared.current().config.media.ports, chance, reserved));
        let mut all = Workers { workers: Vec::new(), desks: Vec::new() };
        for number in 0..world.plan().workers {
            let desk = Rc::new(Desk {
                world: world.clone(),
                air: air.clone(),
                epoch: world.epoch(),
                began: world.now(),
                number,
                sockets: RefCell::default(),
                waiting: RefCell::default(),
                wants: Cell::default(),
                step_at: Cell::default(),
                random: RefCell::new(Rng::new(seed, 50 + u64::from(number))),
                chance: RefCell::new(Rng::new(seed, 70 + u64::from(number))),
            });
            let io = Box::new(Sockets { desk: desk.clone(), pairs: Vec::new(), by_port: BTreeMap::new() });
            let seams = Box::new(Seams(desk.clone()));
            all.workers.push(MediaWorker::new(number, shared.clone(), seams, io, ports.clone()).start());
            all.desks.push(desk);
        }
        all
    }

    /// A lease of a process that had more workers goes to one of these.
    pub(crate) fn order(&self, worker: u16, order: MediaOrder) {
        self.workers[usize::from(worker) % self.workers.len()].tell(order);
    }

    /// A step is due, if no earlier one has been taken since.
    pub(crate) fn step(&self, worker: u16) {
        let desk = &self.desks[usize::from(worker)];
        if desk.step_at.get() == Some(desk.world.now()) {
            desk.step_at.set(None);
            self.workers[usize::from(worker)].tell(Step);
        }
    }

    /// A datagram for one of the sockets; without one it is gone.
    pub(crate) fn arrive(&self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        for desk in &self.desks {
            let mut sockets = desk.sockets.borrow_mut();
            if let Some(queue) = sockets.get_mut(&to.port()).filter(|queue| queue.len() < SOCKET_BUFFER) {
                queue.push_back((from, bytes));
                desk.waiting.borrow_mut().insert(to.port());
                drop(sockets);
                return desk.pace();
            }
        }
    }
}
