//! The engine's metrics: every handle made once, on a recorder of the engine's own.

mod dns;
mod refusal;
mod registration;
mod reload;
mod sip;
mod tls;
mod toll_fraud;

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString, Unit};
use tandem_protocol::flow::Transport;
use tandem_protocol::message::Method;
use tandem_protocol::trunk_health::State;

pub use dns::{DnsMetrics, ServerMetrics};
pub use refusal::Refusal;
pub use registration::RegistrationMetrics;
pub use reload::ReloadMetrics;
pub use sip::{Closed, ConnectionMetrics, Refused};
pub use tls::{Handshake, TlsMetrics, not_after};
pub use toll_fraud::{TollMetrics, TollRefusal};

/// The kinds of actor, for restarts and shed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A shard.
    Shard,
    /// A call.
    Call,
    /// A dialog.
    Dialog,
    /// A station.
    Station,
    /// A trunk.
    Trunk,
    /// A registration group.
    RegistrationGroup,
    /// A media session.
    MediaSession,
    /// A media worker.
    MediaWorker,
}

impl ActorKind {
    /// Every kind.
    pub const ALL: [ActorKind; 8] = [
        ActorKind::Shard,
        ActorKind::Call,
        ActorKind::Dialog,
        ActorKind::Station,
        ActorKind::Trunk,
        ActorKind::RegistrationGroup,
        ActorKind::MediaSession,
        ActorKind::MediaWorker,
    ];

    /// The label's value, and the first part of an actor's id in the supervision tree.
    pub fn as_str(self) -> &'static str {
        match self {
            ActorKind::Shard => "shard",
            ActorKind::Call => "call",
            ActorKind::Dialog => "dialog",
            ActorKind::Station => "station",
            ActorKind::Trunk => "trunk",
            ActorKind::RegistrationGroup => "registration_group",
            ActorKind::MediaSession => "media_session",
            ActorKind::MediaWorker => "media_worker",
        }
    }
}

/// Makes handles on one recorder.
#[derive(Clone)]
pub struct Registry(Arc<dyn Recorder + Send + Sync>);

static METADATA: Metadata<'static> = Metadata::new("tandem", Level::INFO, None);

impl Registry {
    /// Handles of `recorder`.
    pub fn new(recorder: Arc<dyn Recorder + Send + Sync>) -> Registry {
        Registry(recorder)
    }

    fn key(name: &'static str, labels: &[(&'static str, String)]) -> Key {
        let labels: Vec<Label> = labels.iter().map(|(k, v)| Label::new(*k, v.clone())).collect();
        Key::from_parts(name, labels)
    }

    /// A counter, which exists from now on at 0.
    pub fn counter(&self, name: &'static str, labels: &[(&'static str, String)]) -> Counter {
        let counter = self.0.register_counter(&Self::key(name, labels), &METADATA);
        counter.increment(0);
        counter
    }

    /// A gauge, which exists from now on at 0.
    pub fn gauge(&self, name: &'static str, labels: &[(&'static str, String)]) -> Gauge {
        let gauge = self.0.register_gauge(&Self::key(name, labels), &METADATA);
        gauge.set(0.0);
        gauge
    }

    /// A histogram.
    pub fn histogram(&self, name: &'static str, labels: &[(&'static str, String)]) -> Histogram {
        self.0.register_histogram(&Self::key(name, labels), &METADATA)
    }

    /// Says what a metric means.
    pub fn describe(&self, kind: Describe, name: &'static str, unit: Option<Unit>, text: &'static str) {
        let name = metrics::KeyName::from_const_str(name);
        let text = SharedString::const_str(text);
        match kind {
            Describe::Counter => self.0.describe_counter(name, unit, text),
            Describe::Gauge => self.0.describe_gauge(name, unit, text),
            Describe::Histogram => self.0.describe_histogram(name, unit, text),
        }
    }
}

/// The kinds of metric.
#[derive(Clone, Copy, Debug)]
pub enum Describe {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// What a trunk counts.
#[derive(Clone)]
pub struct TrunkMetrics {
    /// Calls that went on to the next proxy because of a status.
    pub failover_status: Counter,
    /// Calls that went on because a proxy was silent.
    pub failover_timeout: Counter,
    /// Calls that went on because a proxy said nothing further after 100.
    pub failover_progress: Counter,
    /// Calls that went on because a request could not be sent.
    pub failover_transport: Counter,
    /// Calls that went on because the trunk had as many as it may.
    pub failover_limit: Counter,
    /// Header rules that wrote nothing, because a call had not what they need.
    pub header_rules_failed: Counter,
    /// Calls up.
    pub calls: Gauge,
}

/// What is shown of a proxy of a trunk.
#[derive(Clone)]
pub struct ProxyMetrics {
    up: Gauge,
    degraded: Gauge,
}

impl ProxyMetrics {
    /// Shows its state; one of which nothing is known counts as up.
    pub fn show(&self, state: State) {
        self.up.set(if state == State::Down { 0.0 } else { 1.0 });
        self.degraded.set(if state == State::Degraded { 1.0 } else { 0.0 });
    }

    /// It is a proxy of the trunk no longer: neither up nor down.
    pub fn forget(&self) {
        self.up.set(f64::NAN);
        self.degraded.set(f64::NAN);
    }
}

/// What a media worker counts.
#[derive(Clone)]
pub struct WorkerMetrics {
    /// Sessions.
    pub sessions: Gauge,
    /// Seconds a wake-up of the packet loop took.
    pub step: Histogram,
}

/// The handles of one engine.
pub struct Metrics {
    registry: Registry,
    /// Calls that exist now.
    pub calls_active: Gauge,
    /// Ended calls by result: answered, busy, no_answer, abandoned, rejected, failed.
    calls: Vec<(&'static str, Counter)>,
    refused: Vec<Counter>,
    refused_requests: Vec<Counter>,
    /// Seconds from INVITE to its 200.
    pub call_setup: Histogram,
    messages: sip::Messages,
    connections: [ConnectionMetrics; 2],
    /// TLS handshakes and certificates.
    pub tls: TlsMetrics,
    /// SIP messages that were dropped: not SIP at all, or malformed beyond an answer.
    pub sip_dropped: Counter,
    /// Transactions that exist now.
    pub transactions_active: Gauge,
    /// Bindings that exist now.
    pub registrations_active: Gauge,
    /// Failed authentications.
    pub auth_failures: Counter,
    /// Credentials that were not judged, because too many before them were wrong.
    pub auth_throttled: Counter,
    /// The asking for names.
    pub dns: DnsMetrics,
    /// Reloads of the settings.
    pub reloads: ReloadMetrics,
    /// Limits and rules against toll fraud.
    pub toll: TollMetrics,
    restarts: Vec<Counter>,
    shed: Vec<Counter>,
    /// Messages that went from one shard to another.
    pub crossings: Counter,
    /// RTP packets received.
    pub rtp_in: Counter,
    /// RTP packets sent.
    pub rtp_out: Counter,
    /// RTP packets that never came.
    pub rtp_lost: Counter,
    /// Interarrival jitter of ended legs, in seconds.
    pub rtp_jitter: Histogram,
    /// Media packets refused.
    pub rtp_refused: Counter,
    /// RTP packets that were taken and could not go on: no address, a peer on hold, no room in the socket.
    pub rtp_unsent: Counter,
    media_dropped: Vec<Counter>,
    /// Wake-ups of a packet loop that left packets for the next one.
    pub media_bound_hits: Counter,
    /// Media ports that somebody else had bound.
    pub media_ports_skipped: Counter,
    /// Free media ports (pairs) that are bound and ready.
    pub media_ports_free: Gauge,
    /// Recordings now.
    pub recordings_active: Gauge,
    /// Recordings that died, of a full disk for example.
    pub recordings_failed: Counter,
    /// Answers that left before their checkpoint was committed.
    pub unprotected_answers: Counter,
    /// 2xx to INVITEs of ours that nobody waited for: acknowledged and ended.
    pub stray_answers_ended: Counter,
    /// The same, dropped because there were too many.
    pub stray_answers_dropped: Counter,
}

/// Results of calls, as `tandem_calls_total` names them.
pub const CALL_RESULTS: [&str; 6] = ["answered", "busy", "no_answer", "abandoned", "rejected", "failed"];

/// Kinds of datagram on media ports that are dropped, as `tandem_media_dropped_total` names them.
pub const MEDIA_DROPS: [&str; 6] = ["stun", "dtls", "zrtp", "turn_channel", "unknown", "stray"];

impl Metrics {
    /// Makes every handle; every counter known now starts at 0.
    pub fn new(registry: Registry) -> Metrics {
        describe(&registry);
        let per_actor = |name| {
            ActorKind::ALL
                .iter()
                .map(|kind| registry.counter(name, &[("actor", kind.as_str().to_owned())]))
                .collect()
        };
        let per_refusal = |name| {
            Refusal::ALL
                .iter()
                .map(|why| registry.counter(name, &[("reason", why.as_str().to_owned())]))
                .collect()
        };
        let stray =
            |result: &str| registry.counter("tandem_stray_answers_total", &[("result", result.to_owned())]);
        Metrics {
            calls_active: registry.gauge("tandem_calls_active", &[]),
            calls: CALL_RESULTS
                .iter()
                .map(|result| {
                    (*result, registry.counter("tandem_calls_total", &[("result", (*result).to_owned())]))
                })
                .collect(),
            refused: per_refusal("tandem_invites_refused_total"),
            refused_requests: per_refusal("tandem_requests_refused_total"),
            call_setup: registry.histogram("tandem_call_setup_seconds", &[]),
            messages: sip::Messages::new(&registry),
            connections: [Transport::Tcp, Transport::Tls].map(|t| ConnectionMetrics::new(&registry, t)),
            tls: TlsMetrics::new(&registry),
            sip_dropped: registry.counter("tandem_sip_dropped_total", &[]),
            transactions_active: registry.gauge("tandem_transactions_active", &[]),
            registrations_active: registry.gauge("tandem_registrations_active", &[]),
            auth_failures: registry.counter("tandem_auth_failures_total", &[]),
            auth_throttled: registry.counter("tandem_auth_throttled_total", &[]),
            dns: DnsMetrics::new(&registry),
            reloads: ReloadMetrics::new(&registry),
            toll: TollMetrics::new(&registry),
            restarts: per_actor("tandem_actor_restarts_total"),
            shed: per_actor("tandem_mailbox_shed_total"),
            crossings: registry.counter("tandem_shard_crossings_total", &[]),
            rtp_in: registry.counter("tandem_rtp_packets_total", &[("direction", "in".to_owned())]),
            rtp_out: registry.counter("tandem_rtp_packets_total", &[("direction", "out".to_owned())]),
            rtp_lost: registry.counter("tandem_rtp_lost_total", &[]),
            rtp_jitter: registry.histogram("tandem_rtp_jitter_seconds", &[]),
            rtp_refused: registry.counter("tandem_rtp_refused_total", &[]),
            rtp_unsent: registry.counter("tandem_rtp_unsent_total", &[]),
            media_dropped: MEDIA_DROPS
                .iter()
                .map(|kind| registry.counter("tandem_media_dropped_total", &[("kind", (*kind).to_owned())]))
                .collect(),
            media_bound_hits: registry.counter("tandem_media_bound_hits_total", &[]),
            media_ports_skipped: registry.counter("tandem_media_ports_skipped_total", &[]),
            media_ports_free: registry.gauge("tandem_media_ports_free", &[]),
            recordings_active: registry.gauge("tandem_recordings_active", &[]),
            recordings_failed: registry.counter("tandem_recordings_failed_total", &[]),
            unprotected_answers: registry.counter("tandem_unprotected_answers_total", &[]),
            stray_answers_ended: stray("ended"),
            stray_answers_dropped: stray("dropped"),
            registry,
        }
    }

    /// Makes handles that settings name: per trunk, per worker.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The handles of one trunk.
    pub fn trunk(&self, name: &str) -> TrunkMetrics {
        let failover = |cause: &str| {
            let labels = [("trunk", name.to_owned()), ("cause", cause.to_owned())];
            self.registry.counter("tandem_trunk_failovers_total", &labels)
        };
        TrunkMetrics {
            failover_status: failover("status"),
            failover_timeout: failover("timeout"),
            failover_progress: failover("progress"),
            failover_transport: failover("transport"),
            failover_limit: failover("limit"),
            header_rules_failed: self
                .registry
                .counter("tandem_trunk_header_rules_failed_total", &[("trunk", name.to_owned())]),
            calls: self.registry.gauge("tandem_trunk_calls_active", &[("trunk", name.to_owned())]),
        }
    }

    /// The handles of one proxy of a trunk.
    pub fn proxy(&self, trunk: &str, proxy: &str) -> ProxyMetrics {
        let labels = [("trunk", trunk.to_owned()), ("proxy", proxy.to_owned())];
        ProxyMetrics {
            up: self.registry.gauge("tandem_trunk_up", &labels),
            degraded: self.registry.gauge("tandem_trunk_degraded", &labels),
        }
    }

    /// The handles of one registration group.
    pub fn registration(&self, group: &str) -> RegistrationMetrics {
        RegistrationMetrics::new(&self.registry, group)
    }

    /// The handles of one media worker.
    pub fn worker(&self, worker: u16) -> WorkerMetrics {
        let labels = [("worker", worker.to_string())];
        WorkerMetrics {
            sessions: self.registry.gauge("tandem_media_sessions_active", &labels),
            step: self.registry.histogram("tandem_media_step_seconds", &labels),
        }
    }

    /// Counts an ended call.
    pub fn call_ended(&self, result: &str) {
        if let Some((_, counter)) = self.calls.iter().find(|(name, _)| *name == result) {
            counter.increment(1);
        }
    }

    /// Counts a refused INVITE.
    pub fn refuse(&self, why: Refusal) {
        self.refused[why as usize].increment(1);
    }

    /// Counts a refused request of any method.
    pub fn refuse_request(&self, method: Method, why: Refusal) {
        let counters = if method == Method::Invite { &self.refused } else { &self.refused_requests };
        counters[why as usize].increment(1);
    }

    /// Counts a SIP message that came.
    pub fn message_in(&self, method: Method, transport: Transport) {
        self.messages.received(method, transport).increment(1);
    }

    /// Counts a SIP message that went.
    pub fn message_out(&self, method: Method, transport: Transport) {
        self.messages.sent(method, transport).increment(1);
    }

    /// The connections of listeners of TLS, or of those of TCP.
    pub fn connections(&self, transport: Transport) -> &ConnectionMetrics {
        let [tcp, tls] = &self.connections;
        if transport.is_secure() { tls } else { tcp }
    }

    /// Counts an actor's restart.
    pub fn restarted(&self, kind: ActorKind) {
        self.restarts[kind as usize].increment(1);
    }

    /// Counts dropped datagrams of the kind at this place of [`MEDIA_DROPS`].
    pub fn media_dropped(&self, kind: usize, count: u64) {
        if let Some(counter) = self.media_dropped.get(kind) {
            counter.increment(count);
        }
    }

    /// Counts messages that a bound refused.
    pub fn shed(&self, kind: ActorKind, count: u64) {
        self.shed[kind as usize].increment(count);
    }
}

fn describe(registry: &Registry) {
    use Describe::{Counter, Gauge, Histogram};
    let seconds = Some(Unit::Seconds);
    registry.describe(Gauge, "tandem_calls_active", None, "Calls that exist now");
    registry.describe(Counter, "tandem_calls_total", None, "Ended calls by result");
    registry.describe(
        Counter,
        "tandem_invites_refused_total",
        None,
        "INVITEs that did not become calls, by reason",
    );
    registry.describe(Histogram, "tandem_call_setup_seconds", seconds, "From an INVITE to its 200");
    sip::describe(registry);
    registration::describe(registry);
    registry.describe(Counter, "tandem_sip_dropped_total", None, "Messages on SIP ports that were not SIP");
    registry.describe(Gauge, "tandem_transactions_active", None, "SIP transactions that exist now");
    registry.describe(Gauge, "tandem_registrations_active", None, "Bindings that exist now");
    registry.describe(Counter, "tandem_requests_refused_total", None, "Other requests refused, by reason");
    registry.describe(Counter, "tandem_auth_failures_total", None, "Wrong credentials");
    registry.describe(
        Counter,
        "tandem_auth_throttled_total",
        None,
        "Credentials not judged, after too many wrong ones",
    );
    registry.describe(Gauge, "tandem_trunk_up", None, "0 if the proxy of the trunk is down");
    registry.describe(
        Gauge,
        "tandem_trunk_degraded",
        None,
        "1 if the proxy is tried after those that are up",
    );
    registry.describe(
        Counter,
        "tandem_trunk_failovers_total",
        None,
        "Calls that went on to another proxy or trunk, by cause",
    );
    registry.describe(
        Counter,
        "tandem_trunk_header_rules_failed_total",
        None,
        "Header rules of the trunk that wrote nothing, because a call had not what they need",
    );
    registry.describe(Gauge, "tandem_trunk_calls_active", None, "Calls on the trunk now");
    registry.describe(Counter, "tandem_actor_restarts_total", None, "Actors rebuilt after a fault, by kind");
    registry.describe(
        Counter,
        "tandem_mailbox_shed_total",
        None,
        "Messages refused by a bound, by kind of actor",
    );
    registry.describe(Counter, "tandem_shard_crossings_total", None, "Messages from one shard to another");
    registry.describe(Gauge, "tandem_media_sessions_active", None, "Media sessions now, by worker");
    registry.describe(
        Histogram,
        "tandem_media_step_seconds",
        seconds,
        "How long one wake-up of the packet loop took",
    );
    registry.describe(Counter, "tandem_rtp_packets_total", None, "RTP packets by direction");
    registry.describe(Counter, "tandem_rtp_lost_total", None, "RTP packets that never came, of ended legs");
    registry.describe(Histogram, "tandem_rtp_jitter_seconds", seconds, "Interarrival jitter of ended legs");
    registry.describe(
        Counter,
        "tandem_rtp_refused_total",
        None,
        "Media packets refused: foreign source, not RTP",
    );
    registry.describe(Counter, "tandem_rtp_unsent_total", None, "RTP packets taken that could not go on");
    registry.describe(
        Counter,
        "tandem_media_dropped_total",
        None,
        "Datagrams on media ports that are neither RTP nor RTCP, or came while no call had the port",
    );
    registry.describe(
        Counter,
        "tandem_media_bound_hits_total",
        None,
        "Wake-ups of a packet loop that left packets for the next",
    );
    registry.describe(Counter, "tandem_media_ports_skipped_total", None, "Media ports in use by others");
    registry.describe(Gauge, "tandem_media_ports_free", None, "Bound port pairs that no call uses");
    registry.describe(Gauge, "tandem_recordings_active", None, "Recordings now");
    registry.describe(Counter, "tandem_recordings_failed_total", None, "Recordings that died");
    registry.describe(
        Counter,
        "tandem_stray_answers_total",
        None,
        "2xx to INVITEs that nobody waited for: acknowledged and ended, or dropped",
    );
    registry.describe(
        Counter,
        "tandem_unprotected_answers_total",
        None,
        "Answers sent before their checkpoint was committed",
    );
}
