//! A worker in virtual time: the same actors, one thread, no timers, packets as values.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use actix::prelude::*;
use tandem_media::codec::Codec;
use tandem_media::session::{Report, SessionConfig};
use tandem_protocol::time::{Instant, Now};

use super::super::io::{Channel, MediaSeams, PacketIo, PairId, Wants};
use super::super::order::{Lease, MediaEvent, MediaOrder, SessionId};
use super::super::ports::PortPool;
use super::super::recorder::{InlineSink, Job, Outcome, RecordingFile, Sink};
use super::super::worker::{MediaWorker, Step};
use super::fixture::{Figures, shared};
use crate::calls::CallKey;
use crate::env::{Shared, Tell, in_flight};
use crate::ids::ShardId;
use crate::metrics::ActorKind;
use crate::shard::LinkMessage;

pub(super) const IP: [u8; 4] = [10, 0, 0, 1];
pub(super) const SHARD: ShardId = ShardId(0);

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[derive(Debug, PartialEq)]
pub(super) struct Sent {
    pub(super) from: u16,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// What has come for each port, oldest first.
type Inbox = BTreeMap<u16, VecDeque<(SocketAddr, Vec<u8>)>>;

/// The world of one worker.
#[derive(Default)]
pub(super) struct World {
    pub(super) now: Cell<u64>,
    pub(super) wants: Cell<Wants>,
    pub(super) events: RefCell<Vec<MediaEvent>>,
    /// Ports that others have bound.
    pub(super) foreign: RefCell<BTreeSet<u16>>,
    inbox: RefCell<Inbox>,
    pub(super) sent: RefCell<Vec<Sent>>,
    pub(super) panics: RefCell<BTreeMap<ActorKind, u32>>,
    pub(super) escalated: Cell<bool>,
    pub(super) opened: RefCell<Vec<PathBuf>>,
    /// The disk stands still: nothing more can be handed to the writer.
    pub(super) stalled: Cell<bool>,
    /// What a recording's file may hold.
    pub(super) disk: Arc<Mutex<Disk>>,
}

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) bytes: Vec<u8>,
    pub(super) room: usize,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk { bytes: Vec::new(), room: usize::MAX }
    }
}

struct DiskFile(Arc<Mutex<Disk>>, usize);

impl io::Write for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock().unwrap();
        let end = self.1 + bytes.len();
        if end > disk.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if disk.bytes.len() < end {
            disk.bytes.resize(end, 0);
        }
        disk.bytes[self.1..end].copy_from_slice(bytes);
        self.1 = end;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for DiskFile {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.1 = match to {
            io::SeekFrom::Start(place) => place as usize,
            io::SeekFrom::Current(by) => (self.1 as i64 + by) as usize,
            io::SeekFrom::End(by) => (self.0.lock().unwrap().bytes.len() as i64 + by) as usize,
        };
        Ok(self.1 as u64)
    }
}

/// A sink that is full while the disk stands still.
struct Stalling<S>(Rc<World>, S);

impl<S: Sink> Sink for Stalling<S> {
    fn submit(&mut self, job: Job) -> Result<(), Job> {
        if self.0.stalled.get() { Err(job) } else { self.1.submit(job) }
    }
    fn outcome(&mut self) -> Option<Outcome> {
        self.1.outcome()
    }
}

struct Net(Rc<World>, Vec<SocketAddr>);

impl PacketIo for Net {
    fn bind(&mut self, rtp: SocketAddr) -> io::Result<PairId> {
        let foreign = self.0.foreign.borrow();
        if self.1.contains(&rtp) || foreign.contains(&rtp.port()) || foreign.contains(&(rtp.port() + 1)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.1.push(rtp);
        Ok(PairId(self.1.len() as u32 - 1))
    }

    fn ready(&mut self, ready: &mut Vec<(PairId, Channel)>) {
        ready.clear();
        let inbox = self.0.inbox.borrow();
        for (number, rtp) in self.1.iter().enumerate() {
            for channel in [Channel::Rtp, Channel::Rtcp] {
                if inbox.get(&(rtp.port() + channel as u16)).is_some_and(|queue| !queue.is_empty()) {
                    ready.push((PairId(number as u32), channel));
                }
            }
        }
    }

    fn receive(&mut self, pair: PairId, channel: Channel, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let port = self.1[pair.index()].port() + channel as u16;
        let (from, bytes) = self.0.inbox.borrow_mut().get_mut(&port)?.pop_front()?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Some((bytes.len(), from))
    }

    fn send(&mut self, pair: PairId, channel: Channel, to: SocketAddr, packet: &[u8]) -> bool {
        let from = self.1[pair.index()].port() + channel as u16;
        self.0.sent.borrow_mut().push(Sent { from, to, bytes: packet.to_vec() });
        true
    }
}

struct Seams(Rc<World>);

impl MediaSeams for Seams {
    fn now(&self) -> Now {
        Now { mono: Instant(self.0.now.get()), ..Now::default() }
    }
    fn random(&self) -> u64 {
        0x1234_5678_9abc_def0
    }
    fn link(&self, to: ShardId, message: LinkMessage) {
        assert_eq!(to, SHARD);
        let LinkMessage::Media(event) = message else { panic!("only media events") };
        self.0.events.borrow_mut().push(event);
    }
    fn inject_panic(&self, kind: ActorKind) -> bool {
        match self.0.panics.borrow_mut().get_mut(&kind) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }
    fn want(&self, wants: Wants) {
        self.0.wants.set(wants);
    }
    fn sink(&self) -> io::Result<Box<dyn Sink>> {
        let world = self.0.clone();
        let sink = InlineSink::new(move |path| {
            world.opened.borrow_mut().push(path.to_owned());
            Ok(Box::new(DiskFile(world.disk.clone(), 0)) as Box<dyn RecordingFile>)
        });
        Ok(Box::new(Stalling(self.0.clone(), sink)))
    }
    fn escalate(&self, _: &str) {
        self.0.escalated.set(true);
    }
}

/// A worker and its world.
pub(super) struct Rig {
    pub(super) world: Rc<World>,
    pub(super) figures: Arc<Figures>,
    pub(super) shared: Arc<Shared>,
    worker: Addr<MediaWorker>,
}

/// Runs a test on one thread whose runtime has neither time nor I/O.
pub(super) fn run(ports: (u16, u16), reserved: &[u16], test: impl AsyncFnOnce(Rig)) {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    System::with_tokio_rt(runtime).block_on(async {
        let (world, figures) = (Rc::new(World::default()), Arc::new(Figures::default()));
        world.now.set(1_000_000);
        let shared = shared(&figures, IP.into(), ports);
        let pool = Arc::new(PortPool::new(ports, 0, reserved.iter().copied()));
        let net = Box::new(Net(world.clone(), Vec::new()));
        let seams = Box::new(Seams(world.clone()));
        let worker = MediaWorker::new(0, shared.clone(), seams, net, pool).start();
        test(Rig { world, figures, shared, worker }).await;
    });
}

impl Rig {
    pub(super) async fn settle(&self) {
        while in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn order(&self, order: MediaOrder) {
        self.worker.tell(order);
        self.settle().await;
    }

    pub(super) async fn step(&self) {
        self.worker.tell(Step);
        self.settle().await;
    }

    /// Lets time pass as a driver does: from one wish of the worker to the next.
    pub(super) async fn pass(&self, ms: u64) {
        let end = self.world.now.get() + ms * 1000;
        while let Some(at) = self.world.wants.get().deadline.filter(|at| at.0 <= end) {
            self.world.now.set(at.0.max(self.world.now.get()));
            self.step().await;
        }
        self.world.now.set(end);
    }

    pub(super) fn events(&self) -> Vec<MediaEvent> {
        std::mem::take(&mut *self.world.events.borrow_mut())
    }

    pub(super) fn sent(&self) -> Vec<Sent> {
        std::mem::take(&mut *self.world.sent.borrow_mut())
    }

    /// Puts a datagram on the way; the next step finds it.
    pub(super) fn arrive(&self, from: &str, port: u16, bytes: Vec<u8>) {
        self.world.inbox.borrow_mut().entry(port).or_default().push_back((addr(from), bytes));
    }

    pub(super) async fn receive(&self, from: &str, port: u16, bytes: Vec<u8>) {
        self.arrive(from, port, bytes);
        self.step().await;
    }

    pub(super) async fn grow(&self, pairs: u16) -> Vec<Lease> {
        self.order(MediaOrder::Grow { shard: SHARD, address: IP.into(), pairs }).await;
        match self.events().as_slice() {
            [MediaEvent::Granted { worker: 0, pairs, .. }] => pairs.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn open(&self, side: u8, lease: Lease, config: SessionConfig) {
        let peer = Some(session(1 - side));
        self.open_alone(side, lease, config, peer).await;
    }

    pub(super) async fn open_alone(
        &self,
        side: u8,
        lease: Lease,
        config: SessionConfig,
        peer: Option<SessionId>,
    ) {
        let config = Box::new(config);
        self.order(MediaOrder::Open { session: session(side), lease, config, shard: SHARD, peer }).await;
    }

    /// A call between 10.1.0.1:4000 and 10.2.0.1:5000.
    pub(super) async fn call(&self) -> (Lease, Lease) {
        let leases = self.grow(2).await;
        self.open(0, leases[0], config("10.1.0.1:4000")).await;
        self.open(1, leases[1], config("10.2.0.1:5000")).await;
        (leases[0], leases[1])
    }

    pub(super) async fn close(&self, side: u8) -> Report {
        self.order(MediaOrder::Close { session: session(side) }).await;
        let events = self.events();
        let report = events.into_iter().find_map(|event| match event {
            MediaEvent::Closed { session: closed, report } if closed == session(side) => Some(report),
            _ => None,
        });
        *report.unwrap()
    }
}

pub(super) fn session(side: u8) -> SessionId {
    SessionId { call: CallKey(7), side }
}

pub(super) fn config(remote: &str) -> SessionConfig {
    let remote = addr(remote);
    SessionConfig {
        remote_rtp: Some(remote),
        codec: Some(Codec::Pcmu),
        telephone_event: Some(101),
        ..SessionConfig::new(remote.ip())
    }
}
