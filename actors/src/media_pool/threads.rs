//! Media workers on threads and sockets.
//!
//! Each worker has an arbiter thread and a pacer: while sessions are open a step each [`PERIOD`], since a wake-up costs
//! more than the packet it finds; while something only rests, a sleep until then; else nothing at all.
#![allow(clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use actix::dev::Stream;
use actix::prelude::*;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tandem_protocol::time::Now;
use tokio::time::{Interval, MissedTickBehavior, Sleep};

use super::io::{MediaSeams, Wants};
use super::order::Ordered;
use super::ports::PortPool;
use super::recorder::{Sink, ThreadSink, create_file};
use super::sockets::UdpPairs;
use super::worker::{MediaWorker, Step};
use crate::env::{Shared, Tell};
use crate::ids::ShardId;
use crate::metrics::ActorKind;
use crate::runtime::{Clock, MediaRoute};
use crate::shard::LinkMessage;

/// Between two steps of a worker that has sessions.
pub const PERIOD: Duration = Duration::from_millis(2);
/// Descriptors that media leaves to everything else.
const OTHER_DESCRIPTORS: u64 = 512;
/// Two legs, each with RTP and RTCP.
const DESCRIPTORS_PER_CALL: u64 = 4;
/// The limit asked for where the hard one is infinite: the kernel's own default bound.
const NO_HARD_LIMIT: u64 = 1 << 20;
/// The exit code when a worker cannot go on: EX_SOFTWARE.
const FATAL: i32 = 70;

/// Sends a message to a shard, from any thread.
pub type Link = Arc<dyn Fn(ShardId, LinkMessage) + Send + Sync>;

/// Starts the media workers of an engine, each on an arbiter thread of its own. `reserved` are the RTP ports of restored calls: nobody
/// else gets them. The soft limit of descriptors is raised to the hard one.
///
/// # Errors
/// A worker has no descriptor for its epoll instance.
pub fn spawn_workers(
    shared: &Arc<Shared>,
    clock: Clock,
    link: &Link,
    reserved: Vec<u16>,
) -> io::Result<Vec<Addr<MediaWorker>>> {
    spawn_paced(shared, clock, link, reserved, PERIOD)
}

/// The same with another time between two steps, for measurements.
///
/// # Errors
/// As [`spawn_workers`].
pub fn spawn_paced(
    shared: &Arc<Shared>,
    clock: Clock,
    link: &Link,
    reserved: Vec<u16>,
    period: Duration,
) -> io::Result<Vec<Addr<MediaWorker>>> {
    let media = &shared.current().config.media;
    log_capacity(media.ports, raise_descriptor_limit());
    let ports = Arc::new(PortPool::new(media.ports, StdRng::from_os_rng().next_u64(), reserved));
    let start = |number| {
        let instance = UdpPairs::instance()?;
        let (shared, link, ports) = (shared.clone(), link.clone(), ports.clone());
        let worker = MediaWorker::start_in_arbiter(&Arbiter::new().handle(), move |ctx| {
            let wants = Rc::new(Cell::default());
            let seams = Threads {
                number,
                clock,
                link,
                random: RefCell::new(StdRng::from_os_rng()),
                wants: wants.clone(),
            };
            MediaWorker::add_stream(Pacer::new(wants, clock, period), ctx);
            MediaWorker::new(number, shared, Box::new(seams), Box::new(UdpPairs::new(instance)), ports)
        });
        Ok(worker)
    };
    (0..media.workers.max(1)).map(start).collect()
}

/// The way to the workers. A lease of a process that had more workers goes to one of these.
pub fn route(workers: Vec<Addr<MediaWorker>>) -> MediaRoute {
    Arc::new(move |number, order: Ordered| {
        if let Some(worker) = workers.get(usize::from(number) % workers.len().max(1)) {
            worker.tell(order);
        }
    })
}

/// Raises the soft limit of descriptors to the hard one; what it is now.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(NO_HARD_LIMIT);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(why) => {
            tracing::warn!(current, wanted, %why, "the descriptor limit stays as it is");
            current
        }
    }
}

fn log_capacity(ports: (u16, u16), descriptors: u64) {
    let by_ports = PortPool::pairs(ports) as u64 / 2;
    let by_descriptors = descriptors.saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS_PER_CALL;
    let calls = by_ports.min(by_descriptors);
    tracing::info!(calls, by_ports, by_descriptors, descriptors, "calls that media ports suffice for");
}

/// Steps a worker when it wants it: a stream that the worker's own context polls, after its mailbox and after each step. That way the timer wakes
/// the actor and nothing else; a task beside it that sends messages costs two more system calls a step.
struct Pacer {
    wants: Rc<Cell<Wants>>,
    clock: Clock,
    ticks: Interval,
    rest: Pin<Box<Sleep>>,
}

impl Pacer {
    fn new(wants: Rc<Cell<Wants>>, clock: Clock, period: Duration) -> Pacer {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Pacer { wants, clock, ticks, rest: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }
}

impl Stream for Pacer {
    type Item = Step;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Step>> {
        let wants = self.wants.get();
        if wants.at_once {
            return Poll::Ready(Some(Step));
        }
        if wants.packets {
            return self.ticks.poll_tick(cx).map(|_| Some(Step));
        }
        let Some(at) = wants.deadline else { return Poll::Pending };
        let now = self.clock.now().mono;
        if at <= now {
            // A sleep until a time that has come is always a tick away.
            return Poll::Ready(Some(Step));
        }
        let rest = at.since(now);
        self.rest.as_mut().reset(tokio::time::Instant::now() + rest);
        self.rest.as_mut().poll(cx).map(|()| Some(Step))
    }
}

/// The seams of one worker in production.
struct Threads {
    number: u16,
    clock: Clock,
    link: Link,
    random: RefCell<StdRng>,
    wants: Rc<Cell<Wants>>,
}

impl MediaSeams for Threads {
    fn now(&self) -> Now {
        self.clock.now()
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().next_u64()
    }

    fn link(&self, to: ShardId, message: LinkMessage) {
        (self.link)(to, message);
    }

    fn inject_panic(&self, _: ActorKind) -> bool {
        false
    }

    fn want(&self, wants: Wants) {
        // Said in the actor's own handlers, after which its context polls the pacer.
        self.wants.set(wants);
    }

    fn sink(&self) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(ThreadSink::start(&format!("recorder-{}", self.number), create_file)?))
    }

    fn escalate(&self, why: &str) {
        tracing::error!(worker = self.number, why, "a media worker panics too often; the process ends");
        match System::try_current() {
            Some(system) => system.stop_with_code(FATAL),
            None => std::process::exit(FATAL),
        }
    }
}
