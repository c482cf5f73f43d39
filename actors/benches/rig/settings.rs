//! What the engine is told: two trunks, some stations, and the defaults of `config/default.toml`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tandem_actors::config::{
    EngineConfig, Listener, Listeners, MediaPath, Overload, Redirect, Registrar, Station, StationRules,
    StreamLimits, Trunk, Uses,
};
use tandem_protocol::dial_plan::{DialPlan, DialPlanSpec, Pattern, Target};
use tandem_protocol::dialog::SessionPolicy;
use tandem_protocol::digest::{Algorithm, Secret};
use tandem_protocol::flow::{ListenerId, Transport};
use tandem_protocol::message::Limits;
use tandem_protocol::proxy_list::{RetryableCodes, Selection};
use tandem_protocol::sdp::negotiate::CodecList;
use tandem_protocol::transaction::Timers;

use super::{FAR, LISTENER, NEAR, Scenario};

#[path = "../../src/media_pool/tests/fixture.rs"]
mod fixture;

/// What flows call the listener.
pub(super) fn listener_id() -> ListenerId {
    ListenerId::new(Transport::Udp, LISTENER.parse().unwrap())
}

fn listener() -> Listener {
    let address: SocketAddr = LISTENER.parse().unwrap();
    Listener {
        name: "sip".into(),
        id: listener_id(),
        transport: Transport::Udp,
        address,
        external: address.into(),
        timers: Timers::default(),
        streams: StreamLimits::default(),
        session: SessionPolicy { interval: Duration::from_secs(1800), min_se: Duration::from_secs(90) },
        limits: Limits::default(),
        tls: None,
        uses: Uses::default(),
    }
}

fn trunk(name: &str, at: &str, media: MediaPath) -> Trunk {
    Trunk {
        name: name.into(),
        listener: 0,
        proxies: vec![tandem_protocol::proxy_list::Proxy::new(at.parse().unwrap())],
        accept_from: Vec::new(),
        calling_search_space: None,
        selection: Selection::Priority,
        timers: Timers::default(),
        retryable: RetryableCodes::default(),
        progress_timeout: Duration::from_secs(10),
        named: Vec::new(),
        qualify_interval: None,
        emergency_channels: 0,
        max_new_calls_per_s: 0,
        max_calls: 0,
        media,
        media_delayed: false,
        codecs: CodecList::ANY,
        record: false,
        trusted: false,
        redirect: Redirect::default(),
        redirect_to: Vec::new(),
        calling_party_mask: None,
        credentials: None,
        certificate_names: Vec::new(),
        rules: Default::default(),
    }
}

fn rules() -> StationRules {
    StationRules {
        calling_search_space: None,
        media: MediaPath::Bypass,
        codecs: CodecList::ANY,
        record: false,
        redirect: Redirect::default(),
        ring_timeout: Duration::from_secs(60),
        fork_timeout: Duration::from_secs(20),
        identify_by_user_only: false,
        outbound_ani: None,
        external_number_mask: None,
        max_contacts: 10,
        max_calls: 0,
        toll: Default::default(),
    }
}

fn all(count: u64) -> Vec<Station> {
    let rules = Arc::new(rules());
    let station = |number: u64| {
        let name = format!("u{number}");
        let ha1 = Algorithm::Md5.ha1(&name, "bench", "secret");
        Station {
            name: name.into(),
            extension: (10_000_000 + number).to_string().into(),
            secret: Secret::ha1_of_hex(Algorithm::Md5, &ha1),
            connection: None,
            rules: rules.clone(),
        }
    };
    (0..count).map(station).collect()
}

fn dial_plan(stations: &[Station]) -> DialPlan {
    let spec = DialPlanSpec {
        patterns: vec![Pattern::new("100", Target::Trunk("out".into()))],
        ..DialPlanSpec::default()
    };
    let stations = stations.iter().map(|s| Pattern::new(&*s.extension, Target::Station(s.name.clone())));
    DialPlan::with_more(spec, stations).unwrap()
}

pub(super) fn config(scenario: Scenario, stations: u64, trace: usize) -> EngineConfig {
    let (listener, stations) = (listener(), all(stations));
    EngineConfig {
        listeners: Listeners(vec![listener.clone()]),
        realm: "bench".into(),
        digest_algorithms: vec![Algorithm::Md5],
        sip_trace_bytes: trace,
        trunks: vec![trunk("in", NEAR, scenario.media()), trunk("out", FAR, scenario.media())],
        dial_plan: Arc::new(dial_plan(&stations)),
        stations,
        registrar: Registrar {
            min_expires: Duration::from_secs(60),
            max_expires: Duration::from_secs(86_400),
            default_expires: Duration::from_secs(3600),
            accept_path: false,
        },
        keepalive: Duration::from_secs(25),
        overload: Overload::default(),
        ..fixture::config(listener.address.ip(), (20_000, 39_999))
    }
}
