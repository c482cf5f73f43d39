//! What the media workers count, and what the metrics of RTP and recordings mean.

use metrics::{Gauge, Histogram, Unit};

use super::{Describe, Registry};

/// Kinds of datagram on media ports that are dropped, as `tandem_media_dropped_total` names them.
pub const MEDIA_DROPS: [&str; 6] = ["stun", "dtls", "zrtp", "turn_channel", "unknown", "stray"];

/// What a media worker counts.
#[derive(Clone)]
pub struct WorkerMetrics {
    /// Sessions.
    pub sessions: Gauge,
    /// Seconds a wake-up of the packet loop took.
    pub step: Histogram,
}

impl WorkerMetrics {
    pub(super) fn new(registry: &Registry, worker: u16) -> WorkerMetrics {
        let labels = [("worker", worker.to_string())];
        WorkerMetrics {
            sessions: registry.gauge("tandem_media_sessions_active", &labels),
            step: registry.histogram("tandem_media_step_seconds", &labels),
        }
    }
}

pub(super) fn describe(registry: &Registry) {
    use Describe::{Counter, Gauge, Histogram};
    let seconds = Some(Unit::Seconds);
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
}
