//! One running engine: bound, restored, started, and stopped in order.
// The seam of the process: its surfaces run beside the engine.
#![allow(clippy::disallowed_methods)]

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tandem_actors::directory::Directory;
use tandem_actors::dns::{self, Finder};
use tandem_actors::engine::Engine;
use tandem_actors::env::Shared;
use tandem_actors::generation::Generations;
use tandem_actors::ids::{Names, ShardId};
use tandem_actors::media_pool::{self, threads::Link};
use tandem_actors::metrics::{Describe, Metrics};
use tandem_actors::registration_group;
use tandem_actors::runtime::{self, Clock};
use tandem_actors::shard::{Ask, Found, LinkMessage, Restored, read_records};
use tandem_actors::sip::listening::Listening;
use tandem_actors::station::read_bindings;
use tandem_actors::store::{Batch, Bucket, Store, StoreFault, Urgency, Write};
use tandem_protocol::digest::{NonceSigner, NonceWindows};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::certificates::{self, Watch};
use crate::drain::{self, Drained, Drainer, EXIT_ABANDONED, EXIT_CUT, Ending};
use crate::http;
use crate::reload::{self, Asker, FindNames, Reloader, Source, Wish};
use crate::settings::token::TokenError;
use crate::settings::{Settings, Transport};
use crate::store::{Embedded, OpenError, Options, StoreMeter};
use crate::telemetry::{self, TelemetryError};
use crate::wiring::{self, WiringError};

/// Media workers say at once which ports they have; this long is waited for them before calls are taken.
const PORTS_PATIENCE: Duration = Duration::from_secs(2);
/// So long the registrars that we leave are waited for.
const UNREGISTER_PATIENCE: Duration = Duration::from_secs(2);
/// So long the names of trunks are waited for, and then the shards that hear of them.
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
    /// The engine's clock.
    pub clock: Clock,
    /// Reads the settings again.
    pub reloader: Arc<Reloader>,
    /// Lets it drain.
    pub drainer: Arc<Drainer>,
    /// Ends the HTTP surface when dropped or told.
    stop_http: tokio::sync::oneshot::Sender<()>,
}

impl Running {
    /// Refuses new calls from now on.
    pub fn drain(&self) {
        self.drainer.drain(self.engine.shared(), true, drain::Wish::default());
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

    /// Commits what is queued. Established calls stay in the store for the next start.
    pub fn stop(self) {
        self.ready.store(false, Ordering::Relaxed);
        self.engine.shared().current().directory.set_draining(true);
        self.reloader.end();
        self.engine.shared().store.flush();
        // Nobody listens if the surface has ended by itself.
        let _ = self.stop_http.send(());
    }
}

/// Starts an engine on the current actor system that neither reads settings again nor ends by draining.
///
/// # Errors
/// See [`StartError`].
pub async fn start(settings: &Settings, chaos: bool) -> Result<Running, StartError> {
    start_from(settings, Source::Nowhere, Drainer::idle(), chaos).await
}

/// Starts an engine on the current actor system whose settings come from `source`.
///
/// # Errors
/// See [`StartError`].
pub async fn start_from(
    settings: &Settings,
    source: Source,
    drainer: Drainer,
    chaos: bool,
) -> Result<Running, StartError> {
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
    let config = wiring::engine_config(&with_imported(settings, store.as_ref()), &bound, chaos)?;
    let listening = Arc::new(Listening::new(&config.listeners, sockets));
    let nonces = NonceSigner::new(random_key()?, clock.now().wall);
    let windows = NonceWindows::new(NONCE_SLOTS, NONCE_AGE);
    let directory = Directory::new(&config, &metrics, nonces, windows);
    let shared = Arc::new(Shared {
        names: Names::new(&config.node),
        placement_key: placement_key(store.as_ref())?,
        settings: Generations::new(config, directory),
        store,
        metrics,
        census: tandem_actors::supervisor::Census::default(),
    });
    restore_bindings(&shared, clock.now().wall.0);
    registration_group::restore(&shared.current().directory, shared.store.as_ref());
    tandem_actors::toll_fraud::restore(&shared.current().directory, shared.store.as_ref(), clock.now());
    let Found { shards: restore, ports, restored } =
        read_records(&shared, clock.now()).unwrap_or_else(|why| {
            tracing::error!(%why, "the calls of the process before cannot be read; they are lost");
            Found::default()
        });
    let media = media_route(&shared, clock, &links, ports)?;
    let (finding, ways) = (links.clone(), links.clone());
    let find: FindNames = Box::new(move |shared| find_names(shared, clock, &finding));
    let names = find(&shared)?;
    let start = runtime::Start { shared, clock, listening: listening.clone(), links, inlets, media, restore };
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
            // What has been found is on its way to the shards.
            taken_by_all(&ways, shards).await;
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
    let set = (settings, reload::tokens(settings)?);
    let (at, names) = ((listening, chaos), (find, names));
    let reloader = Arc::new(Reloader::new(engine.clone(), clock, source, set, at, names));
    let drainer = Arc::new(drainer);
    let state = http::State {
        engine: engine.clone(),
        clock,
        reloader: reloader.clone(),
        drainer: drainer.clone(),
        prometheus: prometheus.clone(),
        ready: ready.clone(),
        chaos,
        started_at: clock.now().wall,
    };
    let http_address = http.local_addr()?;
    let (stop_http, stopped) = tokio::sync::oneshot::channel();
    actix::spawn(http::serve(http, state, async {
        // An engine that was dropped is one that has stopped.
        let _ = stopped.await;
    }));
    actix::spawn(upkeep(prometheus, Arc::downgrade(&ready), Arc::downgrade(engine.shared())));
    actix::spawn(watch_certificates(engine.shared().clone(), Arc::downgrade(&ready)));
    Ok(Running {
        engine,
        sip_addresses: bound,
        restored,
        ready,
        data_dir,
        http_address,
        clock,
        reloader,
        drainer,
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

/// Waits until every shard has taken the control that was sent to it.
async fn taken_by_all(ways: &runtime::Links, shards: u16) {
    let (passed, mut all) = tokio::sync::mpsc::unbounded_channel();
    for shard in 0..shards {
        ways.send(ShardId(shard), LinkMessage::Marker(passed.clone()));
    }
    drop(passed);
    let each = async { while all.recv().await.is_some() {} };
    if tokio::time::timeout(NAMES_PATIENCE, each).await.is_err() {
        tracing::error!("a shard does not take what it is told; calls by named trunks must wait");
    }
}

async fn bind_http(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Http { address, source })
}

/// Empties the histograms' buffers and frees settings that no call uses any more, while the engine lives.
async fn upkeep(prometheus: PrometheusHandle, alive: Weak<AtomicBool>, shared: Weak<Shared>) {
    let mut every = tokio::time::interval(UPKEEP);
    while alive.strong_count() > 0 {
        every.tick().await;
        prometheus.run_upkeep();
        if let Some(shared) = shared.upgrade() {
            let left = tokio::task::spawn_blocking(move || (shared.settings.reap(), shared)).await;
            if let Ok((left, shared)) = left {
                shared.metrics.reloads.former.set(left as f64);
            }
        }
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

/// Runs an engine until it is told to end: by SIGTERM or SIGINT, by draining, or by threads that were given up. At SIGHUP it reads its settings again. The status of
/// the process.
///
/// # Errors
/// See [`StartError`].
pub fn run(settings: &Settings, source: Source) -> Result<u8, StartError> {
    let chaos = std::env::var("TANDEM_CHAOS").is_ok_and(|v| v == "1");
    actix::System::new().block_on(async {
        // Before the engine is there a SIGHUP would end the process.
        let mut hang_up = signal(SignalKind::hangup())?;
        let (drainer, mut drained) = Drainer::new();
        let running = start_from(settings, source, drainer, chaos).await?;
        let status = until_told(&running, &mut hang_up, &mut drained).await?;
        running.unregister().await;
        running.stop();
        Ok(status)
    })
}

async fn until_told(
    running: &Running,
    hang_up: &mut Signal,
    drained: &mut Drained,
) -> Result<u8, StartError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut given_up = std::pin::pin!(drain::given_up(&running.engine));
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(0),
            _ = interrupt.recv() => return Ok(0),
            () = &mut given_up => return Ok(EXIT_ABANDONED),
            ending = drained.wait(&running.engine, running.clock) => return Ok(match ending {
                Ending::LastCall => 0,
                Ending::Cut(_) => EXIT_CUT,
            }),
            Some(()) = hang_up.recv() => {
                let reloader = running.reloader.clone();
                // What came of it is in the log. A signal that comes meanwhile is not lost.
                actix::spawn(async move { reloader.reload(Wish::Apply, Asker::Signal).await.map(drop).unwrap_or(()) });
            }
        }
    }
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
    let current = shared.current();
    let (mut restored, mut moved) = (0, 0);
    for entry in entries {
        let Some(station) = current.directory.station(&entry.key) else { continue };
        let Some(mut bindings) = read_bindings(&entry.value) else { continue };
        bindings.retain(|binding| binding.expires_at.0 > now);
        restored += bindings.len();
        for binding in &mut bindings {
            let named = binding.source.listener;
            if let Some(listener) = current.config.listener(named) {
                moved += usize::from(named.former_place().is_none() && listener.id != named);
                binding.source.listener = listener.id;
            }
        }
        station.publish(&bindings);
    }
    if moved > 0 {
        tracing::warn!(
            bindings = moved,
            "came by a listener that is not configured any more; another of its transport calls these phones"
        );
    }
    shared.metrics.registrations_active.set(restored as f64);
}
