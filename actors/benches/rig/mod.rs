//! A shard and a media worker of the real engine on one thread, in virtual time, with peers that answer as they should: the
//! same work in every run, so that it can be counted.
//!
//! The store keeps nothing and commits when it is told to; the log is written and thrown away.
// Each benchmark and test that has this uses another part of it.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods
)]

mod calls;
#[path = "../../../src/log_format.rs"]
mod log_format;
mod media;
mod registrations;
mod seams;
mod settings;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::Duration;

use actix::{Actor, Addr, SystemRunner};
use bytes::Bytes;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tandem_actors::config::{EngineConfig, MediaPath};
use tandem_actors::directory::Directory;
use tandem_actors::env::{Datagram, Env, Shared, Tell, in_flight};
use tandem_actors::generation::Generations;
use tandem_actors::ids::{Names, ShardId};
use tandem_actors::media_pool::ports::PortPool;
use tandem_actors::media_pool::worker::{MediaWorker, Step};
use tandem_actors::metrics::{Metrics, Registry};
use tandem_actors::shard::{Ask, Asked, Datagrams, LinkMessage, Linked, Shard, Tick};
use tandem_actors::supervisor::Census;
use tandem_protocol::digest::{NonceSigner, NonceWindows};
use tandem_protocol::message::{Limits, Message, is_keepalive};

use log_format::Plain;
use seams::{Outside, ShardSeams, Waiting};

/// The bounds of histograms.
const BUCKETS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
/// Where the engine listens.
const LISTENER: &str = "10.0.0.1:5060";
/// The trunk that calls, or the phone that registers.
const NEAR: &str = "10.0.0.2:5060";
/// The trunk that is called.
const FAR: &str = "10.0.0.3:5060";
/// How many stations register in turn, unless it is said.
const STATIONS: u64 = 64;
/// Bytes of messages that are kept for people, unless it is said.
const TRACE: usize = 8 << 20;
/// Operations that are under way at once: a shard finds several datagrams when it wakes.
const TOGETHER: u64 = 4;

/// Longer than any transaction lives (64 * T1), and than a machine rests before it sleeps.
const REST: Duration = Duration::from_secs(60);

/// What is done over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// INVITE, 180, 200, ACK, BYE, 200 between two trunks.
    Bypass,
    /// The same with media through the engine, and not a packet.
    Anchored,
    /// REGISTER, 401, REGISTER, 200.
    Register,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Scenario; 3] = [Scenario::Bypass, Scenario::Anchored, Scenario::Register];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Bypass => "a call, bypass",
            Scenario::Anchored => "a call, anchored",
            Scenario::Register => "a registration with digest",
        }
    }

    fn media(self) -> MediaPath {
        match self {
            Scenario::Anchored => MediaPath::Anchored,
            Scenario::Bypass | Scenario::Register => MediaPath::Bypass,
        }
    }
}

/// Stands around everything the engine does, and around nothing else.
pub trait Observer {
    /// Has the engine do something.
    fn around(&mut self, work: &mut dyn FnMut());
}

/// Sees nothing.
pub struct Nobody;

impl Observer for Nobody {
    fn around(&mut self, work: &mut dyn FnMut()) {
        work();
    }
}

/// What reaches the engine.
enum Turn {
    Datagrams(Box<Datagrams>),
    Committed(Vec<(u64, bool)>),
    Tick,
    Step,
    Asked(Asked),
}

/// The engine and its peers.
pub struct Rig {
    scenario: Scenario,
    system: SystemRunner,
    shard: Addr<Shard>,
    worker: Addr<MediaWorker>,
    outside: Rc<Outside>,
    store: Arc<Waiting>,
    /// Operations begun so far.
    begun: u64,
    /// How many stations there are.
    stations: u64,
}

/// Calls that are up: those from this one on, and what their callers were answered.
pub struct Up(u64, Vec<Message>);

impl Rig {
    /// An engine that is ready.
    pub fn new(scenario: Scenario) -> Rig {
        Rig::with_stations(scenario, STATIONS, TRACE)
    }

    /// The same with so many stations, and so many bytes of messages that are kept for people.
    pub fn with_stations(scenario: Scenario, stations: u64, trace: usize) -> Rig {
        Rig::of(scenario, settings::config(scenario, stations, trace), stations)
    }

    /// The same for calls that stay: it keeps no messages for `why --sip`, so that what it holds is theirs, and they may be silent.
    pub fn of_calls_that_stay(scenario: Scenario) -> Rig {
        let mut config = settings::config(scenario, STATIONS, 0);
        config.media.rtp_timeout = Duration::ZERO;
        Rig::of(scenario, config, STATIONS)
    }

    fn of(scenario: Scenario, config: EngineConfig, stations: u64) -> Rig {
        log();
        let system = actix::System::with_tokio_rt(|| {
            // Neither time nor I/O: an actor that reaches past its seams panics.
            tokio::runtime::Builder::new_current_thread().build().unwrap()
        });
        let outside = Rc::new(Outside::default());
        let store = Arc::new(Waiting::default());
        let shared = shared(config, &store);
        let (shard, worker) = system.block_on(async {
            let env = Env::new(ShardId(0), shared.clone(), Box::new(ShardSeams(outside.clone())));
            (Shard::new(env).start(), worker(&shared, &outside))
        });
        let mut rig = Rig { scenario, system, shard, worker, outside, store, begun: 0, stations };
        rig.turn(&mut Nobody, Turn::Tick);
        // The first ports are bound.
        rig.pass(&mut Nobody, Duration::from_secs(1));
        rig
    }

    /// Does it some times more; returns how often.
    pub fn run(&mut self, observer: &mut dyn Observer, times: u64) -> u64 {
        let until = self.begun + times;
        while self.begun < until {
            match self.scenario {
                Scenario::Bypass | Scenario::Anchored => self.calls(observer),
                Scenario::Register => self.registrations(observer),
            }
            self.begun += TOGETHER;
        }
        times.next_multiple_of(TOGETHER)
    }

    /// Long enough for whatever was begun to be over.
    pub fn rest(&mut self) {
        self.come_to_rest(&mut Nobody);
    }

    /// Sets up some calls more, which stay; returns when they rest.
    pub fn establish(&mut self, observer: &mut dyn Observer, times: u64) -> Vec<Up> {
        let (mut up, until) = (Vec::new(), self.begun + times);
        while self.begun < until {
            let answered = self.set_up(observer);
            up.push(Up(self.begun, answered));
            self.begun += TOGETHER;
        }
        self.come_to_rest(observer);
        up
    }

    /// Ends calls; returns when nothing of them is under way any more.
    pub fn end(&mut self, observer: &mut dyn Observer, up: Vec<Up>) {
        for Up(begun, answered) in up {
            self.hang_up(observer, begun, &answered);
        }
        self.come_to_rest(observer);
    }

    /// Asks all calls what they are doing; how many have answered.
    pub fn list(&mut self, observer: &mut dyn Observer) -> usize {
        let (reply, mut answers) = tokio::sync::mpsc::unbounded_channel();
        self.turn(observer, Turn::Asked(Asked(Ask::Calls, reply)));
        std::iter::from_fn(|| answers.try_recv().ok()).count()
    }

    fn come_to_rest(&mut self, observer: &mut dyn Observer) {
        for _ in 0..REST.as_secs() {
            self.pass(observer, Duration::from_secs(1));
            self.commit(observer);
        }
        self.outside.sent.take();
    }

    /// Hands the engine something and lets every mailbox run dry.
    fn turn(&mut self, observer: &mut dyn Observer, turn: Turn) {
        let mut turn = Some(turn);
        let Rig { system, shard, worker, outside, .. } = self;
        observer.around(&mut || {
            let Some(turn) = turn.take() else { return };
            system.block_on(async {
                match turn {
                    Turn::Datagrams(datagrams) => shard.tell(*datagrams),
                    Turn::Committed(tickets) => {
                        shard.tell(Linked(vec![LinkMessage::Committed(tickets)]));
                    }
                    Turn::Tick => shard.tell(Tick),
                    Turn::Step => worker.tell(Step),
                    Turn::Asked(asked) => shard.tell(asked),
                }
                settle(shard, worker, outside).await;
            });
        });
    }

    /// The engine receives what peers send.
    fn receive(&mut self, observer: &mut dyn Observer, from: &str, messages: Vec<Bytes>) {
        let from: SocketAddr = from.parse().unwrap();
        let datagrams =
            messages.into_iter().map(|bytes| Datagram::new(settings::listener_id(), from, bytes)).collect();
        self.turn(observer, Turn::Datagrams(Box::new(Datagrams(datagrams))));
    }

    /// What the engine has sent to `to` since it was last asked; what it has sent to others is an error.
    fn sent(&self, to: &str, what: &str) -> Vec<Message> {
        let to: SocketAddr = to.parse().unwrap();
        let (ours, others) = self.outside.sent.take().into_iter().partition::<Vec<_>, _>(|(at, _)| *at == to);
        self.outside.sent.replace(others);
        let messages: Vec<Message> = ours
            .into_iter()
            .filter(|(_, bytes)| !is_keepalive(bytes))
            .map(|(_, bytes)| Message::parse(bytes, &Limits::default()).unwrap())
            .collect();
        let all = messages.iter().all(|m| m.raw().starts_with(what.as_bytes()));
        assert!(
            all && messages.len() as u64 == TOGETHER,
            "wanted {TOGETHER} of {what:?} for {to}: {messages:?}"
        );
        messages
    }

    /// The store commits what waits.
    fn commit(&mut self, observer: &mut dyn Observer) {
        let tickets = self.store.commit();
        if !tickets.is_empty() {
            self.turn(observer, Turn::Committed(tickets));
        }
    }

    /// Time passes, and whoever wants to be woken is.
    fn pass(&mut self, observer: &mut dyn Observer, time: Duration) {
        let until = self.outside.now.get() + time.as_micros() as u64;
        while let Some((at, turn)) = self.outside.next().filter(|(at, _)| *at <= until) {
            self.outside.now.set(at.max(self.outside.now.get()));
            self.outside.granted(&turn);
            self.turn(observer, turn);
        }
        self.outside.now.set(until);
    }
}

/// Lets every mailbox run dry. An actor that was just started has no message yet, hence the further turns.
async fn settle(shard: &Addr<Shard>, worker: &Addr<MediaWorker>, outside: &Outside) {
    let mut quiet = 0;
    while quiet < 3 {
        for order in outside.orders.take() {
            worker.tell(order);
        }
        let links = outside.links.take();
        if !links.is_empty() {
            shard.tell(Linked(links));
        }
        quiet = if in_flight() > 0 { 0 } else { quiet + 1 };
        tokio::task::yield_now().await;
    }
}

/// Writes the log as the daemon does, to nowhere. Once a process.
fn log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = tracing_subscriber::EnvFilter::new("info");
        let log = tracing_subscriber::fmt().with_ansi(false).event_format(Plain).fmt_fields(Plain);
        log.with_writer(std::io::sink).with_env_filter(filter).init();
    });
}

fn shared(config: EngineConfig, store: &Arc<Waiting>) -> Arc<Shared> {
    // As the daemon's: histograms, not summaries.
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(seconds, &BUCKETS).unwrap();
    let metrics = Metrics::new(Registry::new(Arc::new(builder.build_recorder())));
    let nonces = NonceSigner::new([7; 32], seams::WALL);
    let windows = NonceWindows::new(4096, Duration::from_secs(300));
    let directory = Directory::new(&config, &metrics, nonces, windows);
    Arc::new(Shared {
        names: Names::new(&config.node),
        placement_key: 7,
        settings: Generations::new(config, directory),
        store: store.clone(),
        metrics,
        census: Census::default(),
    })
}

fn worker(shared: &Arc<Shared>, outside: &Rc<Outside>) -> Addr<MediaWorker> {
    let ports = Arc::new(PortPool::new(shared.current().config.media.ports, 0, []));
    let seams = Box::new(media::WorkerSeams(outside.clone()));
    MediaWorker::new(0, shared.clone(), seams, Box::new(media::NoPackets::default()), ports).start()
}
