//! The figures of a leg, for its CDR and the metrics.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::codec::Codec;

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Relay it to the other leg; with [`Mode::Echo`](super::Mode::Echo) send it back, with
    /// [`Mode::Tone`](super::Mode::Tone) drop it.
    Deliver,
    /// Drop it; it is counted.
    Refuse(Refused),
}

/// Why a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// It comes from a source that the leg neither names nor may learn now.
    ForeignSource,
    /// It is not what belongs on this port: not RTP, or not RTCP.
    NotRtp,
    /// Its payload type was not agreed.
    WrongPayloadType,
    /// The leg is held: we do not receive.
    Direction,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Refused; 4] =
        [Refused::ForeignSource, Refused::NotRtp, Refused::WrongPayloadType, Refused::Direction];

    /// The name in metrics and events.
    pub const fn name(self) -> &'static str {
        match self {
            Refused::ForeignSource => "foreign_source",
            Refused::NotRtp => "not_rtp",
            Refused::WrongPayloadType => "wrong_payload_type",
            Refused::Direction => "direction",
        }
    }
}

/// Refused packets by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedCounts {
    /// See [`Refused::ForeignSource`].
    pub foreign_source: u64,
    /// See [`Refused::NotRtp`].
    pub not_rtp: u64,
    /// See [`Refused::WrongPayloadType`].
    pub wrong_payload_type: u64,
    /// See [`Refused::Direction`].
    pub direction: u64,
}

impl RefusedCounts {
    /// Counts one.
    #[inline]
    pub fn count(&mut self, reason: Refused) {
        *match reason {
            Refused::ForeignSource => &mut self.foreign_source,
            Refused::NotRtp => &mut self.not_rtp,
            Refused::WrongPayloadType => &mut self.wrong_payload_type,
            Refused::Direction => &mut self.direction,
        } += 1;
    }

    /// The count of one reason.
    pub fn get(&self, reason: Refused) -> u64 {
        match reason {
            Refused::ForeignSource => self.foreign_source,
            Refused::NotRtp => self.not_rtp,
            Refused::WrongPayloadType => self.wrong_payload_type,
            Refused::Direction => self.direction,
        }
    }

    /// All reasons together.
    pub fn total(&self) -> u64 {
        Refused::ALL.iter().map(|reason| self.get(*reason)).sum()
    }
}

/// What RTCP told, and how much of it was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtcpCounters {
    /// Valid compound packets from the leg.
    pub received: u64,
    /// Refused packets: of a foreign source, or not valid RTCP.
    pub refused: RefusedCounts,
    /// Sender reports among them.
    pub sender_reports: u64,
    /// BYE packets among them.
    pub byes: u64,
    /// Packets that the leg says it has lost of what reached it; of the last report block.
    pub remote_lost: i32,
    /// The jitter that the leg measures, in units of the RTP timestamp; of the last report block.
    pub remote_jitter: u32,
}

/// The figures of one leg since its beginning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The agreed codec.
    pub codec: Option<Codec>,
    /// RTP packets sent to the leg.
    pub tx: u64,
    /// Bytes of them, with the RTP header.
    pub tx_bytes: u64,
    /// Distinct RTP packets taken from the leg.
    pub rx: u64,
    /// Bytes of all RTP packets taken, with the RTP header.
    pub rx_bytes: u64,
    /// Packets from the leg that its sequence shows missing.
    pub lost: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Interarrival jitter (RFC 3550), milliseconds.
    pub jitter_ms: f32,
    /// What the leg's audio is worth when it reaches us, 1 to 4.5 (see [`crate::stats::mos`]); the delay of
    /// the network is not known and taken as 0. `None` without codec or packets.
    pub mos: Option<f32>,
    /// The longest time between two packets while not held, milliseconds.
    pub max_gap_ms: u32,
    /// Changes of the leg's SSRC.
    pub ssrc_changes: u32,
    /// RTP packets refused.
    pub refused: RefusedCounts,
    /// The source that is learned now, if it is not the one that the SDP names.
    pub learned: Option<SocketAddr>,
    /// RTCP.
    pub rtcp: RtcpCounters,
}
