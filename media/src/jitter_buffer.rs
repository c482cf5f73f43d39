//! A playout buffer of fixed depth: packets go in as they come, frames come out on the consumer's clock.

use serde::{Deserialize, Serialize};

use crate::SAMPLES_PER_FRAME;
use crate::codec::Codec;
use crate::rtp::RtpPacket;

/// Samples that the buffer spans, 512 ms: what is further ahead belongs to a new beginning.
const CAPACITY: usize = 4096;
/// So many packets in a row that are too late mean that the sender's time has shifted.
const LATE_RUN: u32 = 10;

/// What a frame is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Playout {
    /// Every sample arrived.
    Audio,
    /// Some or all samples are missing although later ones are here; they are zero.
    Lost,
    /// Nothing is there and nothing is waiting: the stream has not begun, or it rests. All samples are zero.
    Empty,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JitterBufferCounters {
    /// Came after their time.
    pub late: u64,
    /// New beginnings after the first: another SSRC, or a jump of the timestamp.
    pub restarts: u64,
    /// Frames with missing samples.
    pub lost_frames: u64,
}

/// Places audio by its timestamp. The first packet is played `depth` after the frame that is next when it
/// comes; from then on the timestamps rule, so that loss and reorder leave everything else in its place.
///
/// The consumer takes one frame each 20 ms of its own clock. Where the sender's clock drifts away from that,
/// the buffer begins anew when packets come too late or too early.
#[derive(Clone, Debug)]
pub struct JitterBuffer {
    depth: u32,
    samples: Vec<i16>,
    filled: Vec<bool>,
    stream: Option<Stream>,
    late_run: u32,
    counters: JitterBufferCounters,
    decoded: Vec<i16>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    ssrc: u32,
    /// The timestamp of the next frame to be taken.
    next: u32,
    /// The timestamp after the last sample that came.
    end: u32,
}

impl JitterBuffer {
    /// An empty buffer that delays by `depth_frames` of 20 ms, at most 20.
    pub fn new(depth_frames: usize) -> JitterBuffer {
        JitterBuffer {
            depth: (depth_frames.min(20) * SAMPLES_PER_FRAME) as u32,
            samples: vec![0; CAPACITY],
            filled: vec![false; CAPACITY],
            stream: None,
            late_run: 0,
            counters: JitterBufferCounters::default(),
            decoded: Vec::with_capacity(CAPACITY),
        }
    }

    /// Decodes a packet and puts it in its place. The caller makes sure that its payload is of `codec`.
    pub fn put(&mut self, packet: &RtpPacket<'_>, codec: Codec) {
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.clear();
        // No agreed packet time comes near the capacity.
        codec.decode(&packet.payload[..packet.payload.len().min(CAPACITY / 2)], &mut decoded);
        self.put_samples(packet.ssrc, packet.timestamp, &decoded);
        self.decoded = decoded;
    }

    fn put_samples(&mut self, ssrc: u32, timestamp: u32, samples: &[i16]) {
        if samples.is_empty() {
            return;
        }
        let mut stream = match self.stream {
            Some(stream) if stream.ssrc == ssrc => stream,
            other => {
                self.counters.restarts += u64::from(other.is_some());
                self.begin(ssrc, timestamp)
            }
        };
        // Distances in samples; signed, for timestamps wrap.
        let mut ahead = timestamp.wrapping_sub(stream.next) as i32 as i64;
        let length = samples.len() as i64;
        if ahead + length <= 0 {
            self.counters.late += 1;
            self.late_run += 1;
        } else {
            self.late_run = 0;
        }
        let span = CAPACITY as i64;
        if self.late_run == LATE_RUN || ahead < -span || ahead + length > span {
            self.counters.restarts += 1;
            stream = self.begin(ssrc, timestamp);
            ahead = i64::from(self.depth);
        }
        let missed = (-ahead).clamp(0, length) as usize;
        for (offset, &sample) in (0u32..).zip(samples).skip(missed) {
            let at = timestamp.wrapping_add(offset) as usize % CAPACITY;
            self.samples[at] = sample;
            self.filled[at] = true;
        }
        let end = timestamp.wrapping_add(samples.len() as u32);
        if (end.wrapping_sub(stream.end) as i32) > 0 {
            stream.end = end;
        }
        self.stream = Some(stream);
    }

    fn begin(&mut self, ssrc: u32, timestamp: u32) -> Stream {
        self.filled.fill(false);
        self.late_run = 0;
        Stream { ssrc, next: timestamp.wrapping_sub(self.depth), end: timestamp }
    }

    /// Takes the next 20 ms.
    pub fn take(&mut self, frame: &mut [i16; SAMPLES_PER_FRAME]) -> Playout {
        frame.fill(0);
        let Some(stream) = &mut self.stream else { return Playout::Empty };
        let waiting = (stream.end.wrapping_sub(stream.next) as i32) > 0;
        let mut present = 0;
        for (offset, sample) in (0u32..).zip(frame.iter_mut()) {
            let at = stream.next.wrapping_add(offset) as usize % CAPACITY;
            if std::mem::take(&mut self.filled[at]) {
                *sample = self.samples[at];
                present += 1;
            }
        }
        stream.next = stream.next.wrapping_add(SAMPLES_PER_FRAME as u32);
        if !waiting {
            // The end keeps up, lest a long rest brings it more than half the range behind.
            stream.end = stream.next;
            return Playout::Empty;
        }
        if present == SAMPLES_PER_FRAME {
            return Playout::Audio;
        }
        self.counters.lost_frames += 1;
        Playout::Lost
    }

    /// Whether no samples wait to be taken.
    pub fn is_empty(&self) -> bool {
        self.stream.is_none_or(|stream| stream.end.wrapping_sub(stream.next) as i32 <= 0)
    }

    /// What became of packets so far.
    pub fn counters(&self) -> JitterBufferCounters {
        self.counters
    }
}

#[cfg(test)]
#[path = "jitter_buffer/tests.rs"]
mod tests;
