//! What an engine of media workers alone needs: settings, figures that can be read, a store that keeps nothing. The bench uses it too.
// Shared with the benchmark, where the same names are exported.
#![allow(unreachable_pub)]
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tandem_actors::config::{EngineConfig, Listeners, Media, MediaAddress, Overload, Registrar};
use tandem_actors::directory::Directory;
use tandem_actors::env::Shared;
use tandem_actors::generation::Generations;
use tandem_actors::ids::Names;
use tandem_actors::metrics::{Metrics, Registry};
use tandem_actors::store::{Batch, Bucket, Entry, Store, StoreFault};
use tandem_actors::supervisor::Census;
use tandem_protocol::dial_plan::{DialPlan, DialPlanSpec};
use tandem_protocol::digest::{NonceSigner, NonceWindows};
use tandem_protocol::time::UnixMillis;

struct Nothing;

impl Store for Nothing {
    fn submit(&self, _: Batch) {}
    fn scan(&self, _: Bucket) -> Result<Vec<Entry>, StoreFault> {
        Ok(Vec::new())
    }
    fn events_from(&self, _: u64, _: usize) -> Result<Vec<String>, StoreFault> {
        Ok(Vec::new())
    }
    fn events_of(&self, _: &str, _: u64) -> Result<Vec<String>, StoreFault> {
        Ok(Vec::new())
    }
    fn cdr(&self, _: &str) -> Result<Option<String>, StoreFault> {
        Ok(None)
    }
    fn flush(&self) {}
}

/// Counters and gauges by `name{label=value}`.
#[derive(Default)]
pub struct Figures(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Figures {
    fn cell(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<String> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        self.0.lock().unwrap().entry(name).or_default().clone()
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    pub fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.counter(name))
    }
}

impl Recorder for Figures {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// An engine with one media worker on these ports.
pub fn shared(figures: &Arc<Figures>, address: IpAddr, ports: (u16, u16)) -> Arc<Shared> {
    let metrics = Metrics::new(Registry::new(figures.clone()));
    let config = config(address, ports);
    let nonces = NonceSigner::new([7; 32], UnixMillis(0));
    let directory = Directory::new(&config, &metrics, nonces, NonceWindows::new(8, Duration::from_secs(300)));
    Arc::new(Shared {
        settings: Generations::new(config, directory),
        store: Arc::new(Nothing),
        metrics,
        names: Names::new("test"),
        census: Census::default(),
        placement_key: 7,
    })
}

/// The settings of an engine that has nothing but one shard and one media worker.
pub fn config(address: IpAddr, ports: (u16, u16)) -> EngineConfig {
    let minute = Duration::from_secs(60);
    EngineConfig {
        node: "test".into(),
        domains: Vec::new(),
        realm: "test".into(),
        digest_algorithms: Vec::new(),
        shards: 1,
        sip_trace_bytes: 0,
        listeners: Listeners::default(),
        stations: Vec::new(),
        trunks: Vec::new(),
        route_groups: Vec::new(),
        route_lists: Vec::new(),
        users: Vec::new(),
        registration_groups: Vec::new(),
        services: Vec::new(),
        dial_plan: Arc::new(DialPlan::new(DialPlanSpec::default()).unwrap()),
        media: Media {
            address: MediaAddress { bound: address, told: address },
            other: None,
            ports,
            workers: 1,
            rtp_timeout: minute,
            recording_dir: "/nowhere".into(),
        },
        dns: tandem_actors::config::Dns::default(),
        toll_fraud: Default::default(),
        registrar: Registrar {
            min_expires: minute,
            max_expires: minute,
            default_expires: minute,
            accept_path: false,
        },
        keepalive: Duration::ZERO,
        overload: Overload::default(),
        chaos: false,
    }
}

/// An RTP packet of 20 ms of PCMU.
pub fn rtp(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(172);
    let timestamp = u32::from(sequence) * 160;
    let payload = [0x55; 160];
    let packet = tandem_media::rtp::RtpPacket {
        marker: false,
        payload_type: 0,
        sequence,
        timestamp,
        ssrc,
        payload: &payload,
    };
    packet.write(&mut bytes);
    bytes
}
