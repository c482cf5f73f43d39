//! The world of one run: its clock, everything that is still to happen, the network, and the log.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use tandem_actors::media_pool::order::MediaOrder;
use tandem_actors::shard::LinkMessage;
use tandem_protocol::message::framing::peek_call_id;

use crate::plan::Plan;
use crate::rng::Rng;
use crate::script::Action;
use crate::streams::{Streams, Turn};
use crate::trunks::{self, Mood, Moods};

/// The wall clock at the beginning of every run, in milliseconds.
pub(crate) const WALL_START_MS: u64 = 1_790_000_000_000;

/// Something that is going to happen.
pub(crate) enum Event {
    /// A datagram arrives.
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Bytes },
    /// A message between shards, or from the store or the media to a shard, arrives.
    Link { epoch: u32, shard: u16, message: LinkMessage },
    /// A shard's timer is due.
    Wake { epoch: u32, shard: u16 },
    /// The store commits what is queued.
    Commit { epoch: u32 },
    /// An order of a shard arrives at a media worker.
    Order { epoch: u32, worker: u16, order: MediaOrder },
    /// A media worker's next step is due.
    Step { epoch: u32, worker: u16 },
    /// Whoever is in a call says something.
    Talk,
    /// A phone's timer is due.
    PhoneTimer { phone: usize },
    /// Somebody does something.
    Do(Action),
    /// Something happens to a connection.
    Stream(u64, Turn),
    /// Something happens at a proxy of a trunk.
    Carrier(trunks::Turn),
    /// A stranger does something.
    Nonsense,
    /// And again.
    Again { from: SocketAddr, bytes: Bytes, left: u32 },
    /// An operator ends a call.
    Operator,
    /// An operator breaks an actor of a call for good, or once.
    Chaos,
    /// A shard stands still.
    Stall,
    /// It goes on, or another has its place.
    StallEnds { epoch: u32, shard: usize },
    /// Other settings come into force.
    Reload(u64),
    /// The engine is killed.
    Kill,
    /// It starts again.
    Restart,
}

/// Links of workers are numbered above those of shards.
pub(crate) const WORKER_LINK: u16 = 1000;

struct Entry {
    at: u64,
    tie: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        // Reversed: the heap's greatest is the earliest.
        (other.at, other.tie, other.sequence).cmp(&(self.at, self.tie, self.sequence))
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Sent,
    Lost,
    Doubled,
}

/// One datagram, as it was sent.
pub(crate) struct Line {
    pub(crate) at: u64,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Bytes,
    pub(crate) fate: Fate,
    /// When its copies arrive.
    pub(crate) arrives: [Option<u64>; 2],
}

/// The way from one address to another. Its chance is its own, so that it is the same without the others.
struct Way {
    rng: Rng,
    /// When the last datagram arrives: only a late one is overtaken.
    last: u64,
}

impl Way {
    fn new(seed: u64, from: SocketAddr, to: SocketAddr) -> Way {
        let word = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => (u64::from(u32::from(ip)) << 16) | u64::from(address.port()),
            IpAddr::V6(ip) => u128::from(ip) as u64,
        };
        Way { rng: Rng::new(seed, word(from).rotate_left(32) ^ word(to)), last: 0 }
    }
}

struct Inner {
    heap: BinaryHeap<Entry>,
    sequence: u64,
    order: Rng,
    /// When the last message on each link between shards arrives: links are FIFO.
    links: BTreeMap<(u32, u16, u16), u64>,
    wires: BTreeMap<(SocketAddr, SocketAddr), Way>,
    lines: Vec<Line>,
    /// Phones that take no part in a call any more, by their address and its Call-ID.
    dead: BTreeSet<(SocketAddr, Vec<u8>)>,
    hash: u64,
    hashed: u64,
    violations: Vec<String>,
    verbose: bool,
}

/// The world. Cheap to clone; one thread.
#[derive(Clone)]
pub(crate) struct World {
    now: Rc<Cell<u64>>,
    /// The living engine's number; what an earlier one set in motion inside itself is void.
    epoch: Rc<Cell<u32>>,
    plan: Rc<Plan>,
    moods: Rc<Moods>,
    inner: Rc<RefCell<Inner>>,
    streams: Rc<RefCell<Streams>>,
}

impl World {
    pub(crate) fn new(plan: Rc<Plan>, verbose: bool) -> World {
        let inner = Inner {
            heap: BinaryHeap::new(),
            sequence: 0,
            order: Rng::new(plan.seed, 1),
            links: BTreeMap::new(),
            wires: BTreeMap::new(),
            lines: Vec::new(),
            dead: BTreeSet::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            hashed: 0,
            violations: Vec::new(),
            verbose,
        };
        World {
            now: Rc::new(Cell::new(0)),
            epoch: Rc::new(Cell::new(0)),
            moods: Rc::new(Moods::new(&plan)),
            plan,
            inner: Rc::new(RefCell::new(inner)),
            streams: Rc::default(),
        }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the proxies of the trunks are like.
    pub(crate) fn moods(&self) -> &Moods {
        &self.moods
    }

    /// True if nothing comes to this address or from it at `at`.
    pub(crate) fn is_down(&self, address: SocketAddr, at: u64) -> bool {
        self.moods.of(address, at).is_down()
    }

    /// True if no way leads to this address now.
    pub(crate) fn is_unreachable(&self, address: SocketAddr) -> bool {
        self.moods.of(address, self.now()) == Mood::Unreachable
    }

    /// Microseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        WALL_START_MS + self.now() / 1000
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.get()
    }

    pub(crate) fn set_epoch(&self, epoch: u32) {
        self.epoch.set(epoch);
    }

    pub(crate) fn push(&self, at: u64, event: Event) {
        let mut inner = self.inner.borrow_mut();
        inner.sequence += 1;
        let (sequence, tie) = (inner.sequence, inner.order.next());
        let at = at.max(self.now());
        inner.heap.push(Entry { at, tie, sequence, event });
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.inner.borrow().heap.peek().map(|entry| entry.at)
    }

    pub(crate) fn advance(&self, at: u64) {
        self.now.set(at.max(self.now()));
    }

    /// What happens now, if there is more of it.
    pub(crate) fn pop_due(&self) -> Option<Event> {
        let mut inner = self.inner.borrow_mut();
        if inner.heap.peek().is_some_and(|entry| entry.at <= self.now.get()) {
            inner.heap.pop().map(|entry| entry.event)
        } else {
            None
        }
    }

    /// Sends a SIP message through the network, and notes it.
    pub(crate) fn send(&self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        let unsaid = self.is_dead(from, to, &bytes) || self.is_down(from, self.now());
        let (fate, arrives) = match unsaid {
            true => (Fate::Lost, [None, None]),
            false => self.carry(from, to, &bytes, 1),
        };
        let line = self.note(from, to, bytes, fate);
        self.inner.borrow_mut().lines[line].arrives = arrives;
    }

    /// Notes a message; gives its number.
    pub(crate) fn note(&self, from: SocketAddr, to: SocketAddr, bytes: Bytes, fate: Fate) -> usize {
        self.hash(&bytes);
        let line = Line { at: self.now(), from, to, bytes, fate, arrives: [None, None] };
        let mut inner = self.inner.borrow_mut();
        if inner.verbose && line.bytes.len() > 4 {
            eprintln!("{}", crate::ladder::render(&line));
        }
        inner.lines.push(line);
        inner.lines.len() - 1
    }

    /// A message by a connection has arrived.
    pub(crate) fn arrived(&self, line: usize) {
        let now = self.now();
        self.inner.borrow_mut().lines[line].arrives[0] = Some(now);
    }

    /// A message by a connection will never arrive.
    pub(crate) fn lost(&self, line: usize) {
        self.inner.borrow_mut().lines[line].fate = Fate::Lost;
    }

    /// The connections.
    pub(crate) fn with_streams<T>(&self, f: impl FnOnce(&mut Streams) -> T) -> T {
        f(&mut self.streams.borrow_mut())
    }

    /// Sends a packet of sound through the same network. Workers look at their sockets each 2 ms.
    pub(crate) fn send_sound(&self, from: SocketAddr, to: SocketAddr, bytes: &Bytes) -> Fate {
        self.hash(bytes);
        self.carry(from, to, bytes, 2_000).0
    }

    /// From now on nothing of a call reaches a phone or leaves it.
    pub(crate) fn cut(&self, phone: SocketAddr, call_id: &str) {
        self.inner.borrow_mut().dead.insert((phone, call_id.as_bytes().to_vec()));
    }

    pub(crate) fn is_dead(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        let inner = self.inner.borrow();
        let cut = |phone, id: &[u8]| inner.dead.contains(&(phone, id.to_vec()));
        !inner.dead.is_empty() && peek_call_id(bytes).is_some_and(|id| cut(from, id) || cut(to, id))
    }

    /// What the weather does to a datagram; it arrives at a multiple of `grid` microseconds.
    fn carry(&self, from: SocketAddr, to: SocketAddr, bytes: &Bytes, grid: u64) -> (Fate, [Option<u64>; 2]) {
        let faults = self.plan.faults;
        let (fate, times) = {
            let inner = &mut *self.inner.borrow_mut();
            let way = || Way::new(self.plan.seed, from, to);
            let Way { rng, last } = inner.wires.entry((from, to)).or_insert_with(way);
            let lost = rng.permille(faults.loss);
            let doubled = rng.permille(faults.doubled);
            let mut time = || {
                if rng.permille(faults.late) {
                    return self.now() + 300 + rng.below(400_000);
                }
                let at = self.now() + 300 + rng.below(faults.delay_us);
                // Datagrams that arrive together are read together.
                let at = if rng.permille(300) { at.next_multiple_of(2_000) } else { at };
                *last = at.max(*last + 1).next_multiple_of(grid);
                *last
            };
            let times = [(!lost).then(&mut time), doubled.then(&mut time)];
            // Whoever is down by then does not get it.
            let times = times.map(|time| time.filter(|at| !self.is_down(to, *at)));
            let lost = lost || times == [None, None];
            let fate = match (lost, doubled) {
                (true, false) => Fate::Lost,
                (_, true) => Fate::Doubled,
                (false, false) => Fate::Sent,
            };
            (fate, times)
        };
        for at in times.into_iter().flatten() {
            self.push(at, Event::Datagram { from, to, bytes: bytes.clone() });
        }
        (fate, times)
    }

    /// Sends an order to a media worker; those of one shard stay in order.
    pub(crate) fn order(&self, epoch: u32, from: u16, worker: u16, order: MediaOrder) {
        let at = self.link_time(epoch, from, WORKER_LINK + worker);
        self.push(at, Event::Order { epoch, worker, order });
    }

    /// Sends a message from one shard (or worker, or the store) to another, in order.
    pub(crate) fn link(&self, epoch: u32, from: u16, to: u16, message: LinkMessage) {
        let at = self.link_time(epoch, from, to);
        self.push(at, Event::Link { epoch, shard: to, message });
    }

    /// When a message on a link arrives.
    fn link_time(&self, epoch: u32, from: u16, to: u16) -> u64 {
        let mut inner = self.inner.borrow_mut();
        let delay = inner.order.below(200);
        let last = inner.links.entry((epoch, from, to)).or_default();
        // Never two at one time: what happens at one time happens in any order.
        *last = (*last + 1).max(self.now() + delay);
        *last
    }

    /// Adds to the log's hash, with the time.
    pub(crate) fn hash(&self, bytes: &[u8]) {
        let now = self.now();
        let mut inner = self.inner.borrow_mut();
        let mut hash = inner.hash ^ now;
        let mut mix = |word: u64| hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            mix(word.try_into().map_or(0, u64::from_le_bytes));
        }
        for byte in words.remainder() {
            mix(u64::from(*byte));
        }
        inner.hash = hash;
        inner.hashed += 1;
    }

    /// The hash of the log so far, and how many entries it has.
    pub(crate) fn digest(&self) -> (u64, u64) {
        let inner = self.inner.borrow();
        (inner.hash, inner.hashed)
    }

    /// Something is wrong.
    pub(crate) fn violation(&self, what: String) {
        self.inner.borrow_mut().violations.push(format!("{} {what}", crate::ladder::time(self.now())));
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.inner.borrow().violations.clone()
    }

    /// Every datagram, in order.
    pub(crate) fn with_lines<T>(&self, f: impl FnOnce(&[Line]) -> T) -> T {
        f(&self.inner.borrow().lines)
    }

    pub(crate) fn verbose(&self) -> bool {
        self.inner.borrow().verbose
    }
}
