//! The engine's metrics: every handle made once, on a recorder of the engine's own.

mod actor;
mod dns;
mod media;
mod overload;
mod refusal;
mod registration;
mod registry;
mod reload;
mod replaces;
mod sip;
mod tls;
mod toll_fraud;
mod trunk;

use metrics::{Counter, Gauge, Histogram, Unit};
use tandem_protocol::flow::Transport;
use tandem_protocol::message::Method;

pub use actor::ActorKind;
pub use dns::{DnsMetrics, ServerMetrics};
pub use media::{MEDIA_DROPS, WorkerMetrics};
pub use overload::OverloadMetrics;
pub use refusal::Refusal;
pub use registration::RegistrationMetrics;
pub use registry::{Describe, Registry};
pub use reload::ReloadMetrics;
pub use replaces::ReplacesMetrics;
pub use sip::{Closed, ConnectionMetrics, Refused};
pub use tls::{Handshake, TlsMetrics, not_after};
pub use toll_fraud::{TollMetrics, TollRefusal};
pub use trunk::{ProxyMetrics, TrunkMetrics};

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
    /// Datagrams that the kernel dropped because a SIP socket's buffer was full.
    pub sip_overflowed: Counter,
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
    /// INVITEs that are to take the place of a dialog.
    pub replaces: ReplacesMetrics,
    /// Limits and rules against toll fraud.
    pub toll: TollMetrics,
    restarts: Vec<Counter>,
    /// Threads of shards that were given up.
    pub shards_abandoned: Gauge,
    shed: Vec<Counter>,
    /// Sweeps of a shard's timers that were put off because it had stood still.
    pub standstills: Counter,
    /// Looks at whether the shards get on.
    pub looks: Counter,
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
    /// Phones that rang for INVITEs of ours that nobody waited for: cancelled.
    pub stray_ringing_cancelled: Counter,
    /// The same, dropped because there were too many.
    pub stray_answers_dropped: Counter,
}

/// Results of calls, as `tandem_calls_total` names them.
pub const CALL_RESULTS: [&str; 6] = ["answered", "busy", "no_answer", "abandoned", "rejected", "failed"];

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
            sip_overflowed: registry.counter("tandem_sip_overflowed_total", &[]),
            transactions_active: registry.gauge("tandem_transactions_active", &[]),
            registrations_active: registry.gauge("tandem_registrations_active", &[]),
            auth_failures: registry.counter("tandem_auth_failures_total", &[]),
            auth_throttled: registry.counter("tandem_auth_throttled_total", &[]),
            dns: DnsMetrics::new(&registry),
            reloads: ReloadMetrics::new(&registry),
            replaces: ReplacesMetrics::new(&registry),
            toll: TollMetrics::new(&registry),
            shards_abandoned: registry.gauge("tandem_shards_abandoned", &[]),
            restarts: per_actor("tandem_actor_restarts_total"),
            shed: per_actor("tandem_mailbox_shed_total"),
            standstills: registry.counter("tandem_shard_standstills_total", &[]),
            looks: registry.counter("tandem_shard_looks_total", &[]),
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
            stray_ringing_cancelled: stray("cancelled"),
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
        TrunkMetrics::new(&self.registry, name)
    }

    /// The handles of one proxy of a trunk.
    pub fn proxy(&self, trunk: &str, proxy: &str) -> ProxyMetrics {
        ProxyMetrics::new(&self.registry, trunk, proxy)
    }

    /// The handles of one registration group.
    pub fn registration(&self, group: &str) -> RegistrationMetrics {
        RegistrationMetrics::new(&self.registry, group)
    }

    /// The handles of one media worker.
    pub fn worker(&self, worker: u16) -> WorkerMetrics {
        WorkerMetrics::new(&self.registry, worker)
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
    overload::describe(registry);
    replaces::describe(registry);
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
    trunk::describe(registry);
    actor::describe(registry);
    media::describe(registry);
    registry.describe(Counter, "tandem_sip_dropped_total", None, "Messages on SIP ports that were not SIP");
    let overflowed = "Datagrams that the kernel dropped because the buffer of a SIP socket was full";
    registry.describe(Counter, "tandem_sip_overflowed_total", None, overflowed);
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
    registry.describe(
        Counter,
        "tandem_stray_answers_total",
        None,
        "Responses to INVITEs that nobody waited for: a 2xx acknowledged and ended, ringing cancelled, or dropped",
    );
    registry.describe(
        Counter,
        "tandem_unprotected_answers_total",
        None,
        "Answers sent before their checkpoint was committed",
    );
}
