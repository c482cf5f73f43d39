//! The engine under test: its settings, and one life of it from start to kill.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Addr};
use tandem_actors::config::{
    EngineConfig, Listener, Listeners, Media, MediaAddress, MediaPath, Overload, Redirect, Registrar,
    Registration, RegistrationGroup, RouteGroup, RouteList, Service, ServiceKind, Source, Station,
    StationRules, TollFraud, Trunk, TrunkRules, Uses,
};
use tandem_actors::directory::Directory;
use tandem_actors::engine::Engine;
use tandem_actors::env::{Shared, Tell};
use tandem_actors::generation::Generations;
use tandem_actors::ids::Names;
use tandem_actors::metrics::{Metrics, Registry};
use tandem_actors::seat::Seat;
use tandem_actors::shard::{Found, Restored, Shard, read_records};
use tandem_actors::station::read_bindings;
use tandem_actors::store::Bucket;
use tandem_actors::supervisor::Census;
use tandem_protocol::dial_plan::{DialPlan, DialPlanSpec, Pattern, Target};
use tandem_protocol::dialog::{Credentials, SessionPolicy};
use tandem_protocol::digest::{Algorithm, NonceSigner, NonceWindows, Secret};
use tandem_protocol::flow::{ListenerId, Transport};
use tandem_protocol::message::Limits;
use tandem_protocol::proxy_list::{Proxy, RetryableCodes, Selection};
use tandem_protocol::sdp::negotiate::CodecList;
use tandem_protocol::time::{Instant, Now, UnixMillis};
use tandem_protocol::toll_fraud::Thresholds;
use tandem_protocol::transaction::Timers;

use crate::air::Air;
use crate::fences::{Parts, Stall};
use crate::gauges::Gauges;
use crate::media::Workers;
use crate::store::{Disk, SimStore};
use crate::trunks;
use crate::world::World;

/// The engine's SIP address.
pub(crate) const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 5060);
/// The engine's media address.
pub(crate) const MEDIA_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// No way leads there.
pub(crate) const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));
/// The provider with whom the engine registers.
pub(crate) const PROVIDER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 3, 0, 1)), 5060);
/// Silence after which a call whose media is ours ends.
pub(crate) const RTP_TIMEOUT_US: u64 = 8_000_000;
/// The place of the listener of streams, which has the same address.
pub(crate) const STREAMS: u16 = 1;
/// Timer F of a trunk, which the default settings leave at 64*T1 however soon an INVITE is given up.
pub(crate) const TIMER_F: Duration = Duration::from_secs(32);

/// What flows call the listener of `transport`.
pub(crate) fn listener_of(transport: Transport) -> ListenerId {
    ListenerId::new(transport, LISTENER)
}
/// The domain of the stations.
pub(crate) const DOMAIN: &str = "tandem.test";
/// How many stations there are; the last one is never registered.
pub(crate) const STATIONS: usize = 32;
/// The password of every station.
pub(crate) const PASSWORD: &str = "correct horse";

/// The name and number of a station.
pub(crate) fn station(index: usize) -> String {
    format!("{}", 1000 + index)
}

/// The proxies of trunk `a`: all answer; so do those of `c`, by streams. Those of `b`: the first is switched off, the second cannot be reached.
pub(crate) fn proxies(trunk: char) -> Vec<SocketAddr> {
    match trunk {
        'c' => (0..2).map(|n| SocketAddr::from(([10, 2, 2, 1 + n], 5060))).collect(),
        'a' => (0..3).map(|n| SocketAddr::from(([10, 2, 0, 1 + n], 5060))).collect(),
        _ => vec![
            SocketAddr::from(([10, 2, 1, 1], 5060)),
            SocketAddr::new(NOWHERE, 5060),
            SocketAddr::from(([10, 2, 1, 2], 5060)),
        ],
    }
}

/// The station that may have two calls at once.
pub(crate) const LIMITED: usize = 5;

fn stations() -> Vec<Station> {
    (0..STATIONS)
        .map(|index| Station {
            name: station(index).into(),
            extension: station(index).into(),
            secret: Some(Secret::Password(PASSWORD.into())),
            connection: None,
            rules: Arc::new(StationRules {
                calling_search_space: None,
                media: if index % 2 == 0 { MediaPath::Anchored } else { MediaPath::Bypass },
                codecs: CodecList::ANY,
                record: index % 8 == 0,
                redirect: Redirect::default(),
                ring_timeout: Duration::from_secs(20),
                fork_timeout: Duration::from_secs(8),
                identify_by_user_only: false,
                outbound_ani: None,
                external_number_mask: None,
                max_contacts: 3,
                max_calls: if index == LIMITED { 2 } else { 0 },
                toll: Default::default(),
            }),
        })
        .collect()
}

pub(crate) fn trunk(name: char, selection: Selection, media: MediaPath) -> Trunk {
    // Trunk b gives a silent proxy up after 4 s.
    let mut timers = Timers { timer_f: Some(TIMER_F), ..Timers::default() };
    if name == 'b' {
        timers.timer_f = Some(timers.give_up);
        timers.give_up = Duration::from_secs(4);
    }
    Trunk {
        name: name.to_string().into(),
        listener: if name == 'c' { STREAMS } else { 0 },
        proxies: proxies(name).into_iter().map(Proxy::new).collect(),
        named: Vec::new(),
        accept_from: if name == 'c' {
            vec![Source { network: Ipv4Addr::new(10, 2, 2, 0).into(), prefix: 24, port: None }]
        } else {
            Vec::new()
        },
        calling_search_space: None,
        selection,
        timers,
        progress_timeout: Duration::from_secs(10),
        retryable: RetryableCodes::default(),
        qualify_interval: None,
        max_calls: 0,
        emergency_channels: 0,
        max_new_calls_per_s: 0,
        media,
        record: false,
        trusted: false,
        redirect: Redirect::default(),
        redirect_to: Vec::new(),
        media_delayed: false,
        codecs: CodecList::ANY,
        calling_party_mask: None,
        rules: TrunkRules::default(),
        credentials: None,
        certificate_names: Vec::new(),
    }
}

fn dial_plan() -> DialPlan {
    let mut patterns: Vec<Pattern> =
        (0..STATIONS).map(|n| Pattern::new(station(n), Target::Station(station(n).into()))).collect();
    patterns.push(Pattern::new("*43", Target::Service("echo".into())));
    patterns.push(Pattern::new("96.!", Target::Trunk("a".into())));
    patterns.push(Pattern::new("97.!", Target::RouteList("out".into())));
    patterns.push(Pattern::new("98.!", Target::Trunk("c".into())));
    patterns.extend(trunks::patterns());
    patterns.push(Pattern::new("5550", Target::Reject(603)));
    let spec = DialPlanSpec { partitions: Vec::new(), search_spaces: Vec::new(), patterns };
    DialPlan::new(spec).expect("the plan is sound")
}

fn listener(transport: Transport) -> Listener {
    Listener {
        name: transport.as_str().into(),
        id: listener_of(transport),
        transport,
        address: LISTENER,
        external: LISTENER.into(),
        timers: Timers::default(),
        streams: crate::streams::limits(),
        session: SessionPolicy { interval: Duration::from_secs(180), min_se: Duration::from_secs(90) },
        limits: Limits::default(),
        tls: None,
        uses: Uses::default(),
    }
}

/// Every call that leaves by a trunk is counted, and soon suspicious; nothing is refused for it.
fn toll_fraud() -> TollFraud {
    let alarms = Thresholds { factor: 2, least: [3, 1, 0, 0] };
    TollFraud { stations: alarms, trunks: alarms, ..TollFraud::default() }
}

pub(crate) fn config(world: &World) -> EngineConfig {
    let plan = world.plan();
    EngineConfig {
        node: "sim".into(),
        domains: vec![DOMAIN.into()],
        realm: "tandem".into(),
        digest_algorithms: vec![Algorithm::Md5, Algorithm::Sha256],
        shards: plan.shards,
        sip_trace_bytes: 100_000,
        listeners: Listeners([Transport::Udp, Transport::Tcp].map(listener).into()),
        stations: stations(),
        trunks: vec![
            trunk('a', Selection::RoundRobin { offset: 0 }, MediaPath::Bypass),
            trunk('b', Selection::Priority, MediaPath::Anchored),
            trunk('c', Selection::RoundRobin { offset: 0 }, MediaPath::Bypass),
        ]
        .into_iter()
        .chain(trunks::settings())
        .collect(),
        route_groups: vec![
            RouteGroup { name: "first".into(), trunks: vec!["b".into()], selection: Selection::Priority },
            RouteGroup {
                name: "rest".into(),
                trunks: vec!["b".into(), "a".into()],
                selection: Selection::RoundRobin { offset: 0 },
            },
        ]
        .into_iter()
        .chain(trunks::route_groups())
        .collect(),
        route_lists: vec![RouteList {
            name: "out".into(),
            groups: vec!["first".into(), "rest".into()],
            enabled: true,
        }]
        .into_iter()
        .chain(trunks::route_lists())
        .collect(),
        users: Vec::new(),
        registration_groups: vec![RegistrationGroup {
            name: "provider".into(),
            registrations: vec![Registration {
                label: "address:provider.test".into(),
                trunk: None,
                listener: 0,
                proxies: vec![Proxy::new(PROVIDER)],
                named: Vec::new(),
                domain: "provider.test".into(),
                credentials: Credentials { username: "tandem".into(), password: "secret".into() },
                expires: Duration::from_secs(120),
                number: None,
                timers: Timers::default(),
            }],
            calls_from_anyone: false,
            active: 1,
            return_after: Duration::from_secs(60),
            base_retry: Duration::from_secs(30),
            max_retry: Duration::from_secs(300),
            unregister_on_stop: true,
        }],
        services: vec![Service { name: "echo".into(), kind: ServiceKind::Echo }],
        dial_plan: Arc::new(dial_plan()),
        media: Media {
            address: MediaAddress { bound: MEDIA_IP.into(), told: MEDIA_IP.into() },
            other: None,
            ports: plan.media_ports(),
            workers: plan.workers,
            rtp_timeout: Duration::from_micros(RTP_TIMEOUT_US),
            recording_dir: "/nowhere".into(),
        },
        dns: tandem_actors::config::Dns::default(),
        toll_fraud: toll_fraud(),
        registrar: Registrar {
            min_expires: Duration::from_secs(30),
            max_expires: Duration::from_secs(600),
            default_expires: Duration::from_secs(60),
            accept_path: false,
        },
        keepalive: if plan.keepalive { Duration::from_secs(25) } else { Duration::ZERO },
        overload: Overload::default(),
        chaos: false,
    }
}

/// One life of the engine.
pub(crate) struct Life {
    pub(crate) epoch: u32,
    /// When it began.
    pub(crate) began: u64,
    pub(crate) seats: Vec<Arc<Seat>>,
    /// The shards that stand still.
    pub(crate) stalls: Vec<Option<Stall>>,
    pub(crate) shards: Vec<Addr<Shard>>,
    pub(crate) engine: Engine,
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Arc<SimStore>,
    pub(crate) media: Workers,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) restored: Restored,
    /// When each shard wants to be woken.
    pub(crate) wakes: Vec<Rc<Cell<Option<u64>>>>,
    /// When the store commits next.
    pub(crate) commit_at: Option<u64>,
}

impl Life {
    /// Starts the engine from what is on the disk.
    pub(crate) fn begin(world: &World, air: &Air, disk: &Arc<Mutex<Disk>>) -> Life {
        let epoch = world.epoch() + 1;
        world.set_epoch(epoch);
        let now = Now { mono: Instant(0), wall: UnixMillis(world.wall_ms()) };
        let gauges = Arc::new(Gauges::default());
        let metrics = Metrics::new(Registry::new(gauges.clone()));
        let config = config(world);
        let nonces = NonceSigner::new([epoch as u8; 32], now.wall);
        let windows = NonceWindows::new(4096, Duration::from_secs(300));
        let store = Arc::new(SimStore::new(disk.clone()));
        let directory = Directory::new(&config, &metrics, nonces, windows);
        let shared = Arc::new(Shared {
            names: Names::new(&config.node),
            placement_key: world.plan().seed,
            settings: Generations::new(config, directory),
            store: store.clone(),
            metrics,
            census: Census::default(),
        });
        restore_bindings(&shared, now.wall);
        tandem_actors::registration_group::restore(&shared.current().directory, store.as_ref());
        tandem_actors::toll_fraud::restore(&shared.current().directory, store.as_ref(), now);
        let Found { shards: records, ports, restored } =
            read_records(&shared, now).expect("the disk can be read");
        let media = Workers::start(world, air, &shared, ports);
        let mut shards = Vec::new();
        let wakes: Vec<Rc<Cell<Option<u64>>>> = (0..world.plan().shards).map(|_| Rc::default()).collect();
        let began = world.now();
        let seats: Vec<Arc<Seat>> = wakes.iter().map(|_| Arc::default()).collect();
        for (shard, (seat, wake)) in (0..).zip(seats.iter().zip(&wakes)) {
            let env = Life::env(world, (epoch, began), shard, Parts { seat, shared: &shared, wake });
            shards.push(Shard::new(env).start());
        }
        for (shard, records) in records {
            shards[usize::from(shard.0)].tell(records);
        }
        let engine = Engine::new(shards.clone(), shared.clone());
        let stalls = seats.iter().map(|_| None).collect();
        let commit_at = None;
        Life {
            epoch,
            began,
            seats,
            stalls,
            shards,
            engine,
            shared,
            store,
            media,
            gauges,
            restored,
            wakes,
            commit_at,
        }
    }
}

fn restore_bindings(shared: &Shared, now: UnixMillis) {
    let mut restored = 0;
    let directory = &shared.current().directory;
    for entry in shared.store.scan(Bucket::Bindings).expect("the disk can be read") {
        let Some(station) = directory.station(&entry.key) else { continue };
        let mut bindings = read_bindings(&entry.value).expect("bindings can be read");
        bindings.retain(|binding| binding.expires_at > now);
        restored += bindings.len();
        station.publish(&bindings);
    }
    shared.metrics.registrations_active.set(restored as f64);
}
