//! One running engine: bound, restored, started, and stopped in order.
// The seam of the process: its surfaces run beside the engine.
#![allow(clippy::disallowed_methods)]

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::PrometheusHandle;
use tandem_actors::directory::Directory;
use tandem_actors::dns::{self, Finder};
use tandem_actors::engine::Engine;
use tandem_actors::env::Shared;
use tandem_actors::ids::Names;
use tandem_actors::media_pool::{self, threads::Link};
use tandem_actors::metrics::{Describe, Metrics, Registry};
use tandem_actors::registration_group;
use tandem_actors::runtime::{self, Clock};
use tandem_actors::shard::{Ask, Found, Restored, read_records};
use tandem_actors::station::read_bindings;
use tandem_actors::store::{Batch, Bucket, Store, StoreFault, Urgency, Write};
use tandem_protocol::digest::{NonceSigner, NonceWindows};
use tokio::net::TcpListener;

use crate::certificates::{self, Watch};
use crate::http;
use crate::settings::token::{self, TokenError};
use crate::settings::{Secret, Settings, Transport};
use crate::store::{Dropped, Embedded, Meter, OpenError, Options};
use crate::telemetry::{self, TelemetryError};
use crate::wiring::{self, WiringError};

/// Media workers say at once which ports they have; this long is waited for them before calls are taken.
const PORTS_PATIENCE: Duration = Duration::from_secs(2);
/// So long the registrars that we leave are waited for.
const UNREGISTER_PATIENCE: Duration = Duration::from_secs(2);
/// So long the names of trunks are waited for.
const NAMES_PATIENCE: Duration = Duration::from_secs(3);
/// A nonce is good for this long.
const NONCE_AGE: Duration = Duration::from_secs(300);
/// How often the histograms' buffers are emptied.
const UPKEEP: Duration = Duration::from_secs(5);
/// How many nonces can be in use at once.
const NONCE_SLOTS: usize = 1 << 19;
/// The key under which the placement key is kept.
const PLACEMENT_KEY: &str = "placement_key";
/// So many imported stations that are left out are logged one by one.
const MOST_TOLD: usize = 20;

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address cannot be bound.
    #[error("listen {name:?}: cannot bind {transport} {address}: {source}")]
    Listen {
        /// The listener's name.
        name: String,
        /// Its transport.
        transport: Transport,
        /// Its address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The settings fit no engine.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The HTTP address cannot be bound.
    #[error("http.address: cannot bind tcp {address}: {source}")]
    Http {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The token of the API can be neither read nor made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The metrics cannot be recorded.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// A thread or a socket was refused by the operating system.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// An engine that runs.
pub struct Running {
    /// For those who ask.
    pub engine: Engine,
    /// Where each listener listens, in the order of the settings.
    pub sip_addresses: Vec<SocketAddr>,
    /// What was found in the store.
    pub restored: Restored,
    /// True once calls are taken.
    pub ready: Arc<AtomicBool>,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Where HTTP is served.
    pub http_address: SocketAddr,
    /// Finds named proxies as long as this lives.
    _names: Option<Finder>,
    /// Ends the HTTP surface when dropped or told.
    stop_http: tokio::sync::oneshot::Sender<()>,
}

impl Running {
    /// Refuses new calls from now on.
    pub fn drain(&self) {
        self.engine.shared().directory.set_draining(true);
    }

    /// Gives up our registrations at providers, as far as they answer soon.
    pub async fn unregister(&self) {
        self.drain();
        let ask = Ask::BeRegistered { registered: false, stopping: true };
        if tokio::time::timeout(UNREGISTER_PATIENCE, self.engine.ask_all(ask)).await.is_err() {
            tracing::warn!(
                "not every registrar has answered that we go: it sends calls here until they expire"
            );
        }
    }

    /// Reads the certificates of every listener again; connections stay. What cannot be read is logged, and the old stays in use.
    pub fn reload_certificates(&self) {
        certificates::reload(self.engine.shared());
    }

    /// Commits what is queued. Established calls stay in the store for the next start.
    pub fn stop(self) {
        self.ready.store(false, Ordering::Relaxed);
        self.drain();
        self.engine.shared().store.flush();
        // Nobody listens if the surface has ended by itself.
        let _ = self.stop_http.send(());
    }
}

/// Starts an engine on the current actor system.
///
/// # Errors
/// See [`StartError`].
pub async fn start(settings: &Settings, chaos: bool) -> Result<Running, StartError> {
    let clock = Clock::default();
    let (registry, prometheus) = telemetry::prometheus()?;
    let http = bind_http(settings.http.address.0).await?;
    let shards = wiring::shards(settings);
    let (bound, sockets) = bind(settings, shards)?;
    let metrics = Metrics::new(registry);
    let shed = metrics.registry().counter("tandem_link_shed_total", &[]);
    metrics.registry().describe(
        Describe::Counter,
        "tandem_link_shed_total",
        None,
        "Messages a full shard refused",
    );
    let (links, inlets) = runtime::links(shards, move |count| shed.increment(count));
    let meter = Box::new(StoreMeter::new(metrics.registry()));
    let data_dir = settings.node.data_dir.clone();
    let store = Arc::new(Embedded::open(&data_dir, Options::default(), Arc::new(links.clone()), meter)?);
    let mut config = wiring::engine_config(&with_imported(settings, store.as_ref()), &bound, chaos)?;
    let nonces = NonceSigner::new(random_key()?, clock.now().wall);
    let windows = NonceWindows::new(NONCE_SLOTS, NONCE_AGE);
    let directory = Directory::new(&config, &metrics, nonces, windows);
    // The directory has them, and a million of them are not kept twice.
    config.stations = Vec::new();
    let shared = Arc::new(Shared {
        names: Names::new(&config.node),
        placement_key: placement_key(store.as_ref())?,
        config,
        directory,
        store,
        metrics,
        census: tandem_actors::supervisor::Census::default(),
    });
    restore_bindings(&shared, clock.now().wall.0);
    registration_group::restore(&shared.directory, shared.store.as_ref());
    let Found { shards: restore, ports, restored } =
        read_records(&shared, clock.now()).unwrap_or_else(|why| {
            tracing::error!(%why, "the calls of the process before cannot be read; they are lost");
            Found::default()
        });
    let media = media_route(&shared, clock, &links, ports)?;
    let names = find_names(&shared, clock, &links)?;
    let start = runtime::Start { shared, clock, sockets, links, inlets, media, restore };
    let engine = runtime::start(start).await?;
    if tokio::time::timeout(PORTS_PATIENCE, engine.ask_all(Ask::Ready)).await.is_err() {
        tracing::error!("the media workers give no ports; calls through them must wait");
    }
    let names = match names {
        Some(mut names) => {
            if tokio::time::timeout(NAMES_PATIENCE, names.settled()).await.is_err() {
                tracing::error!(
                    "not every name of a trunk is found yet: no DNS server answers; calls by these must wait"
                );
            }
            Some(names)
        }
        None => None,
    };
    let ready = Arc::new(AtomicBool::new(true));
    tracing::info!(
        shards,
        calls = restored.calls,
        attempts = restored.attempts,
        listen = ?bound,
        "ready: established calls restored, attempts closed"
    );
    let state = http::State {
        engine: engine.clone(),
        tokens: tokens(settings)?,
        prometheus: prometheus.clone(),
        ready: ready.clone(),
        chaos,
        settings: Arc::new(settings.clone()),
        started_at: clock.now().wall,
    };
    let http_address = http.local_addr()?;
    let (stop_http, stopped) = tokio::sync::oneshot::channel();
    actix::spawn(http::serve(http, state, async {
        // An engine that was dropped is one that has stopped.
        let _ = stopped.await;
    }));
    actix::spawn(upkeep(prometheus, Arc::downgrade(&ready)));
    actix::spawn(watch_certificates(engine.shared().clone(), Arc::downgrade(&ready)));
    Ok(Running {
        engine,
        sip_addresses: bound,
        restored,
        ready,
        data_dir,
        http_address,
        _names: names,
        stop_http,
    })
}

/// The settings with the stations of the store. A station that cannot be used never keeps an engine from starting.
fn with_imported<'a>(settings: &'a Settings, store: &dyn Store) -> Cow<'a, Settings> {
    let kept = store.scan(Bucket::Stations).unwrap_or_else(|why| {
        tracing::error!(%why, "the imported stations cannot be read; they are unknown until the next start");
        Vec::new()
    });
    if kept.is_empty() {
        return Cow::Borrowed(settings);
    }
    let (all, left_out) = settings.with_stations(kept.iter().map(|entry| entry.value.as_ref()));
    for why in left_out.iter().take(MOST_TOLD) {
        tracing::error!(why, "an imported station is left out");
    }
    if left_out.len() > MOST_TOLD {
        tracing::error!(count = left_out.len(), "imported stations are left out; not each has a line here");
    }
    tracing::info!(stations = all.station.len() - settings.station.len(), "imported stations");
    Cow::Owned(all)
}

async fn bind_http(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Http { address, source })
}

/// The tokens of the settings, else the one in the data directory.
fn tokens(settings: &Settings) -> Result<Vec<Secret>, StartError> {
    if !settings.http.tokens.is_empty() {
        return Ok(settings.http.tokens.clone());
    }
    Ok(vec![token::load_or_create(&settings.node.data_dir)?])
}

/// Empties the histograms' buffers while the engine lives.
async fn upkeep(prometheus: PrometheusHandle, alive: Weak<AtomicBool>) {
    let mut every = tokio::time::interval(UPKEEP);
    while alive.strong_count() > 0 {
        every.tick().await;
        prometheus.run_upkeep();
    }
}

/// Reads the certificates again whose files have become others, while the engine lives.
async fn watch_certificates(shared: Arc<Shared>, alive: Weak<AtomicBool>) {
    let mut watch = Watch::new(&shared);
    let mut every = tokio::time::interval(certificates::PACE);
    while alive.strong_count() > 0 {
        every.tick().await;
        watch.look(&shared);
    }
}

/// Runs an engine until it is told to end: SIGTERM or SIGINT. SIGHUP has it read its certificates again.
///
/// # Errors
/// See [`StartError`].
pub fn run(settings: &Settings) -> Result<(), StartError> {
    let chaos = std::env::var("TANDEM_CHAOS").is_ok_and(|v| v == "1");
    actix::System::new().block_on(async {
        let running = start(settings, chaos).await?;
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut hang_up = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                done = tokio::signal::ctrl_c() => break done?,
                _ = hang_up.recv() => running.reload_certificates(),
            }
        }
        running.unregister().await;
        running.stop();
        Ok(())
    })
}

type Bound = (Vec<SocketAddr>, Vec<Vec<runtime::ListenSocket>>);

fn bind(settings: &Settings, shards: u16) -> Result<Bound, StartError> {
    let bind = |listen: &crate::settings::Listen| {
        let address = listen.address.0;
        runtime::bind(wiring::transport(listen.transport), address, shards).map_err(|source| {
            StartError::Listen { name: listen.name.clone(), transport: listen.transport, address, source }
        })
    };
    Ok(settings.listen.iter().map(bind).collect::<Result<Vec<_>, _>>()?.into_iter().unzip())
}

fn media_route(
    shared: &Arc<Shared>,
    clock: Clock,
    links: &runtime::Links,
    reserved: Vec<u16>,
) -> std::io::Result<runtime::MediaRoute> {
    let links = links.clone();
    let link: Link = Arc::new(move |to, message| links.send(to, message));
    Ok(media_pool::route(media_pool::spawn_workers(shared, clock, &link, reserved)?))
}

/// Finds the trunks that are named, if there are any.
fn find_names(shared: &Arc<Shared>, clock: Clock, links: &runtime::Links) -> std::io::Result<Option<Finder>> {
    let links = links.clone();
    let link: Link = Arc::new(move |to, message| links.send(to, message));
    dns::spawn(shared, clock, &link)
}

fn random_key() -> std::io::Result<[u8; 32]> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|why| std::io::Error::other(why.to_string()))?;
    Ok(key)
}

/// The key that places inbound calls: kept, so that a restart places them alike.
fn placement_key(store: &dyn Store) -> std::io::Result<u64> {
    let kept =
        store.scan(Bucket::Meta).unwrap_or_default().into_iter().find(|entry| entry.key == PLACEMENT_KEY);
    if let Some(bytes) = kept.and_then(|entry| <[u8; 8]>::try_from(entry.value.as_ref()).ok()) {
        return Ok(u64::from_le_bytes(bytes));
    }
    let [a, b, c, d, e, f, g, h, ..] = random_key()?;
    let key = [a, b, c, d, e, f, g, h];
    let mut batch = Batch::new(Urgency::Urgent);
    batch.writes.push(Write {
        bucket: Bucket::Meta,
        key: PLACEMENT_KEY.to_owned(),
        value: Some(bytes::Bytes::copy_from_slice(&key)),
        expect: None,
    });
    store.submit(batch);
    Ok(u64::from_le_bytes(key))
}

fn restore_bindings(shared: &Shared, now: u64) {
    let entries = shared.store.scan(Bucket::Bindings).unwrap_or_else(|why: StoreFault| {
        tracing::error!(%why, "the bindings cannot be read; stations must register again");
        Vec::new()
    });
    let (mut restored, mut moved) = (0, 0);
    for entry in entries {
        let Some(station) = shared.directory.station(&entry.key) else { continue };
        let Some(mut bindings) = read_bindings(&entry.value) else { continue };
        bindings.retain(|binding| binding.expires_at.0 > now);
        restored += bindings.len();
        for binding in &mut bindings {
            let named = binding.source.listener;
            if let Some(listener) = shared.config.listener(named) {
                moved += usize::from(named.former_place().is_none() && listener.id != named);
                binding.source.listener = listener.id;
            }
        }
        station.publish(bindings);
    }
    if moved > 0 {
        tracing::warn!(
            bindings = moved,
            "came by a listener that is not configured any more; another of its transport calls these phones"
        );
    }
    shared.metrics.registrations_active.set(restored as f64);
}

/// The store's figures.
struct StoreMeter {
    commit: Histogram,
    failed: Counter,
    dropped: [Counter; 6],
    waiting_batches: Gauge,
    waiting_bytes: Gauge,
}

impl StoreMeter {
    fn new(registry: &Registry) -> StoreMeter {
        registry.describe(
            Describe::Histogram,
            "tandem_store_commit_seconds",
            Some(metrics::Unit::Seconds),
            "How long a group commit took",
        );
        registry.describe(
            Describe::Counter,
            "tandem_store_failed_total",
            None,
            "Groups that were not committed",
        );
        registry.describe(
            Describe::Counter,
            "tandem_store_dropped_total",
            None,
            "What the store dropped, by kind",
        );
        registry.describe(
            Describe::Gauge,
            "tandem_store_waiting_batches",
            None,
            "Batches that wait for a commit",
        );
        registry.describe(
            Describe::Gauge,
            "tandem_store_waiting_bytes",
            Some(metrics::Unit::Bytes),
            "Bytes that wait for a commit",
        );
        let dropped =
            |kind: &str| registry.counter("tandem_store_dropped_total", &[("kind", kind.to_owned())]);
        StoreMeter {
            commit: registry.histogram("tandem_store_commit_seconds", &[]),
            failed: registry.counter("tandem_store_failed_total", &[]),
            dropped: [
                dropped("urgent"),
                dropped("lazy"),
                dropped("conflict"),
                dropped("backend"),
                dropped("repeated_cdr"),
                dropped("cdr_line"),
            ],
            waiting_batches: registry.gauge("tandem_store_waiting_batches", &[]),
            waiting_bytes: registry.gauge("tandem_store_waiting_bytes", &[]),
        }
    }
}

impl Meter for StoreMeter {
    fn committed(&self, took: Duration, _batches: usize) {
        self.commit.record(took.as_secs_f64());
    }

    fn failed(&self) {
        self.failed.increment(1);
    }

    fn dropped(&self, what: Dropped, count: u64) {
        let counter = match what {
            Dropped::OverflowUrgent => &self.dropped[0],
            Dropped::OverflowLazy => &self.dropped[1],
            Dropped::Conflict => &self.dropped[2],
            Dropped::Backend => &self.dropped[3],
            Dropped::RepeatedCdr => &self.dropped[4],
            Dropped::CdrLine => &self.dropped[5],
        };
        counter.increment(count);
    }

    fn waiting(&self, batches: usize, bytes: usize) {
        self.waiting_batches.set(batches as f64);
        self.waiting_bytes.set(bytes as f64);
    }
}
