//! What a leg received, lost and sent (RFC 3550 appendix A), and how good that sounds (ITU-T G.107).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::rtcp::ReportBlock;

/// A forward step in sequence below this is loss; from here on it is a new start (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3000;
/// A packet at most this far behind is late; further behind is a new start (RFC 3550 A.1).
const MAX_MISORDER: u16 = 100;

/// What a packet is to the sequence so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The first of its source, or the next, or one after a loss.
    InOrder,
    /// Late, but not too late to close its gap.
    Reordered,
    /// Already here.
    Duplicate,
    /// Far out of sequence. Not counted; if its successor follows, the sender has started anew.
    Suspect,
}

/// Reception statistics of one leg (RFC 3550 A.1, A.3, A.8).
///
/// Totals go on when the sender changes its SSRC or restarts its sequence: what was lost before stays lost.
/// Other than in RFC 3550, a duplicate is not a reception, so that it cannot hide a loss; only
/// [`ReceiveStats::report_block`] counts as the RFC does, since the peer expects that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReceiveStats {
    clock_rate: u32,
    /// Distinct packets received, of all sources.
    pub received: u64,
    /// Packets that had arrived before.
    pub duplicates: u64,
    /// Distinct packets that arrived after a later one.
    pub reordered: u64,
    /// Changes of the SSRC.
    pub ssrc_changes: u32,
    /// Packets far out of sequence, counted nowhere else.
    pub suspects: u64,
    /// The longest time between two arrivals of one source.
    pub max_gap: Duration,
    // What was expected from the sources, and the sequences of sources, that have ended.
    expected_before: u64,
    source: Option<Source>,
}

/// The source that is speaking now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Source {
    ssrc: u32,
    base: u32,
    highest: u32,
    // Bit n: the packet n behind the highest is here; empty only before the first.
    #[serde(with = "crate::bits128")]
    window: u128,
    suspect: Option<u16>,
    received_with_duplicates: u64,
    expected_prior: u64,
    received_prior: u64,
    // In timestamp units, scaled by 16 as in RFC 3550 A.8.
    jitter: u32,
    transit: Option<u32>,
    arrived: Option<Duration>,
}

impl Source {
    fn new(ssrc: u32, sequence: u16) -> Source {
        Source {
            ssrc,
            base: u32::from(sequence),
            highest: u32::from(sequence),
            window: 0,
            suspect: None,
            received_with_duplicates: 0,
            expected_prior: 0,
            received_prior: 0,
            jitter: 0,
            transit: None,
            arrived: None,
        }
    }

    fn expected(&self) -> u64 {
        u64::from(self.highest.wrapping_sub(self.base)) + 1
    }

    fn place(&mut self, sequence: u16) -> Arrival {
        if self.window == 0 {
            self.window = 1;
            return Arrival::InOrder;
        }
        let ahead = sequence.wrapping_sub(self.highest as u16);
        let behind = ahead.wrapping_neg();
        if ahead == 0 || behind <= MAX_MISORDER {
            let bit = 1 << behind;
            if self.window & bit != 0 {
                return Arrival::Duplicate;
            }
            // One from before the first that we saw was sent all the same, so it is expected too.
            let extended = self.highest.wrapping_sub(u32::from(behind));
            if self.highest.wrapping_sub(self.base) < u32::from(behind) {
                self.base = extended;
            }
            self.window |= bit;
            Arrival::Reordered
        } else if ahead < MAX_DROPOUT {
            self.window = self.window.checked_shl(u32::from(ahead)).unwrap_or(0) | 1;
            self.highest = self.highest.wrapping_add(u32::from(ahead));
            Arrival::InOrder
        } else {
            Arrival::Suspect
        }
    }

    fn time(&mut self, now: Duration, timestamp: u32, clock_rate: u32) {
        let rate = u64::from(clock_rate);
        // Only the low 32 bits matter, so an overflow of the seconds may wrap.
        let arrival = now
            .as_secs()
            .wrapping_mul(rate)
            .wrapping_add(u64::from(now.subsec_nanos()) * rate / 1_000_000_000);
        let transit = (arrival as u32).wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let difference = (transit.wrapping_sub(before) as i32).unsigned_abs();
            // More than a second is a sender that set its clock anew, not jitter.
            if difference <= clock_rate {
                self.jitter = self.jitter + difference - ((self.jitter + 8) >> 4);
            }
        }
    }
}

impl ReceiveStats {
    /// Nothing received yet. `clock_rate` is in units of the RTP timestamp a second.
    pub fn new(clock_rate: u32) -> ReceiveStats {
        ReceiveStats {
            clock_rate,
            received: 0,
            duplicates: 0,
            reordered: 0,
            ssrc_changes: 0,
            suspects: 0,
            max_gap: Duration::ZERO,
            expected_before: 0,
            source: None,
        }
    }

    /// Counts a packet. `timestamp` is `None` where it does not name the moment of sending, as in the packets
    /// of a telephone event after the first: such a packet has no part in the jitter.
    #[inline]
    pub fn receive(&mut self, now: Duration, ssrc: u32, sequence: u16, timestamp: Option<u32>) -> Arrival {
        let source = match &mut self.source {
            Some(source) if source.ssrc == ssrc => source,
            other => {
                if let Some(old) = other.take() {
                    self.expected_before += old.expected();
                    self.ssrc_changes += 1;
                }
                other.insert(Source::new(ssrc, sequence))
            }
        };
        let mut arrival = source.place(sequence);
        if arrival == Arrival::Suspect {
            if source.suspect != Some(sequence) {
                source.suspect = Some(sequence.wrapping_add(1));
                self.suspects += 1;
                return Arrival::Suspect;
            }
            self.expected_before += source.expected();
            *source = Source::new(ssrc, sequence);
            arrival = source.place(sequence);
        }
        source.suspect = None;
        source.received_with_duplicates += 1;
        if arrival == Arrival::Duplicate {
            self.duplicates += 1;
            return arrival;
        }
        self.received += 1;
        self.reordered += u64::from(arrival == Arrival::Reordered);
        if let Some(before) = source.arrived.replace(now) {
            self.max_gap = self.max_gap.max(now.saturating_sub(before));
        }
        if let Some(timestamp) = timestamp {
            source.time(now, timestamp, self.clock_rate);
        }
        arrival
    }

    /// Says that the stream rests by agreement (hold), so that the silence is not counted as a gap.
    pub fn pause(&mut self) {
        if let Some(source) = &mut self.source {
            source.arrived = None;
            source.transit = None;
        }
    }

    /// Packets that were sent to us, as far as the sequence tells.
    pub fn expected(&self) -> u64 {
        self.expected_before + self.source.as_ref().map_or(0, Source::expected)
    }

    /// Packets that were sent to us and did not arrive.
    pub fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.received)
    }

    /// The lost share of the expected packets, 0 to 1; 0 while nothing is expected.
    pub fn loss(&self) -> f32 {
        match self.expected() {
            0 => 0.0,
            expected => self.lost() as f32 / expected as f32,
        }
    }

    /// Interarrival jitter of the current source, in units of the RTP timestamp.
    pub fn jitter(&self) -> u32 {
        self.source.as_ref().map_or(0, |source| source.jitter >> 4)
    }

    /// Interarrival jitter of the current source, in milliseconds.
    pub fn jitter_ms(&self) -> f32 {
        let scaled = self.source.as_ref().map_or(0, |source| source.jitter);
        scaled as f32 / 16.0 * 1000.0 / self.clock_rate as f32
    }

    /// The source that is speaking.
    pub fn ssrc(&self) -> Option<u32> {
        self.source.as_ref().map(|source| source.ssrc)
    }

    /// The block of the next SR or RR, counted as in RFC 3550 A.3; the fraction covers the time since the
    /// last call. `last_sr` and `delay_since_last_sr` are the caller's to fill. `None` while nobody speaks.
    pub fn report_block(&mut self) -> Option<ReportBlock> {
        let source = self.source.as_mut()?;
        let expected = source.expected();
        let received = source.received_with_duplicates;
        let interval = expected.saturating_sub(source.expected_prior);
        let lost = interval as i64 - (received - source.received_prior) as i64;
        source.expected_prior = expected;
        source.received_prior = received;
        let fraction = if interval == 0 || lost <= 0 { 0 } else { (lost << 8) / interval as i64 };
        Some(ReportBlock {
            ssrc: source.ssrc,
            // A whole interval lost is 256/256, which the field cannot say.
            fraction_lost: fraction.min(255) as u8,
            cumulative_lost: (expected as i64 - received as i64).clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: source.highest,
            jitter: source.jitter >> 4,
            last_sr: 0,
            delay_since_last_sr: 0,
        })
    }
}

/// What a leg sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendStats {
    /// RTP packets that the socket took.
    pub packets: u64,
    /// Their bytes, with the RTP header and without UDP and IP.
    pub bytes: u64,
}

impl SendStats {
    /// Counts a packet of so many bytes.
    #[inline]
    pub fn sent(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// The mean opinion score, 1 to 4.5, of what was received, by the E-model of ITU-T G.107 with its defaults.
///
/// With `loss` 0 to 1, `jitter_ms` and the network's one-way `delay_ms`:
///
/// ```text
/// d      = delay + 2 * jitter + 20              one-way delay with the peer's jitter buffer and one packet, ms
/// Id     = 0.024 d + 0.11 (d - 177.3) H(d - 177.3)
/// Ie,eff = Ie + (95 - Ie) * Ppl / (Ppl + Bpl)   Ppl = 100 loss; G.113: Ie = 0, Bpl = 25.1 (G.711 with concealment)
/// R      = 93.2 - Id - Ie,eff
/// MOS    = 1 + 0.035 R + R (R - 60) (100 - R) 7e-6,  1 where R < 0
/// ```
///
/// The simplified delay term is Cole and Rosenbluth's (2001). Loss is taken as random (BurstR = 1).
pub fn mos(codec: Codec, loss: f32, jitter_ms: f32, delay_ms: f32) -> f32 {
    let (ie, bpl) = match codec {
        Codec::Pcmu | Codec::Pcma => (0.0, 25.1),
    };
    let delay = delay_ms.max(0.0) + 2.0 * jitter_ms.max(0.0) + 20.0;
    let id = 0.024 * delay + 0.11 * (delay - 177.3).max(0.0);
    let ppl = loss.clamp(0.0, 1.0) * 100.0;
    let ie_eff = ie + (95.0 - ie) * ppl / (ppl + bpl);
    let r = (93.2 - id - ie_eff).clamp(0.0, 100.0);
    // Between R = 0 and 6.5 the curve dips below its own floor.
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
}

#[cfg(test)]
#[path = "stats/tests.rs"]
mod tests;
