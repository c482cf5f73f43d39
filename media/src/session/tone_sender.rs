//! The RTP stream of a tone.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::rtp::RtpPacket;
use crate::tone::{ToneGenerator, TonePreset};
use crate::{FRAME, SAMPLES_PER_FRAME};

/// Further behind than this, packets are skipped: a burst would only overrun the peer's jitter buffer.
const LATEST: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ToneSender {
    generator: ToneGenerator,
    codec: Codec,
    sequence: u16,
    timestamp: u32,
    due: Duration,
    /// The next packet follows a silence.
    marker: bool,
}

impl ToneSender {
    pub(super) fn new(preset: TonePreset, codec: Codec, now: Duration) -> ToneSender {
        ToneSender {
            generator: ToneGenerator::preset(preset),
            codec,
            sequence: 0,
            timestamp: 0,
            due: now,
            marker: true,
        }
    }

    pub(super) fn seed(&mut self, random: u64) {
        // The first sequence stays in the lower half: a stream that wraps at once confuses some SRTP peers.
        self.sequence = random as u16 & 0x7fff;
        self.timestamp = (random >> 16) as u32;
    }

    /// The same stream as before, with another tone in it.
    pub(super) fn after(mut self, before: Option<&ToneSender>) -> ToneSender {
        if let Some(before) = before {
            (self.sequence, self.timestamp, self.due) = (before.sequence, before.timestamp, before.due);
        }
        self
    }

    pub(super) fn restart_clock(&mut self, now: Duration) {
        self.due = now;
        self.marker = true;
    }

    pub(super) fn due(&self) -> Duration {
        self.due
    }

    /// Writes one packet if one is due and there is somewhere to send it; the time of the others passes.
    pub(super) fn tick(&mut self, now: Duration, ssrc: u32, addressed: bool, out: &mut Vec<u8>) -> bool {
        let behind = now.saturating_sub(self.due);
        if behind > LATEST || (!addressed && now >= self.due) {
            let frames = (behind.as_nanos() / FRAME.as_nanos()) as u32 + u32::from(!addressed);
            self.due += FRAME * frames;
            self.timestamp = self.timestamp.wrapping_add(frames.wrapping_mul(SAMPLES_PER_FRAME as u32));
            self.marker = true;
        }
        if now < self.due || !addressed {
            return false;
        }
        let mut samples = [0; SAMPLES_PER_FRAME];
        self.generator.next_frame(&mut samples);
        let (marker, sequence, timestamp) = (self.marker, self.sequence, self.timestamp);
        let payload_type = self.codec.payload_type();
        RtpPacket { marker, payload_type, sequence, timestamp, ssrc, payload: &[] }.write(out);
        self.codec.encode(&samples, out);
        self.marker = false;
        self.sequence = sequence.wrapping_add(1);
        self.timestamp = timestamp.wrapping_add(SAMPLES_PER_FRAME as u32);
        self.due += FRAME;
        true
    }
}
