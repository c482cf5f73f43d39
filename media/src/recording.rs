//! The recording of a call: a stereo WAV file, leg A left and leg B right, on the wall clock.

use std::io::{Read, Seek, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::codec::Codec;
use crate::jitter_buffer::{JitterBuffer, JitterBufferCounters};
use crate::rtp::RtpPacket;
use crate::{FRAME, SAMPLE_RATE, SAMPLES_PER_FRAME, wav};

/// Packets may be this late before their place in the file is written.
pub const DEPTH: Duration = Duration::from_millis(60);
const DEPTH_FRAMES: usize = (DEPTH.as_millis() / FRAME.as_millis()) as usize;
/// The file is made whole each second.
const FRAMES_PER_FLUSH: u64 = 50;
/// One call writes at most 10 s, so that a clock that jumps does not hold the thread for gigabytes.
const MAX_CATCH_UP: u64 = 500;
const FRAME_BYTES: u64 = 2 * 2 * SAMPLES_PER_FRAME as u64;
/// The sizes in a WAV header have 32 bits: 37 hours. Something is left for the header itself.
const MAX_FRAMES: u64 = (u32::MAX as u64 - 1024) / FRAME_BYTES;

/// Whose audio a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The left channel.
    A,
    /// The right channel.
    B,
}

/// Why a recording ended before its call.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// The writer failed, for instance because the disk is full.
    #[error("the recording cannot be written: {0}")]
    Write(#[from] hound::Error),
    /// The file has reached the 4 GiB that WAV can say, after 37 hours. It is whole.
    #[error("the recording has reached the size that a WAV file can have")]
    Full,
    /// The file that was to be continued is not one of our recordings.
    #[error("not a recording of 8000 Hz, 16 bits, stereo")]
    Foreign,
}

/// What a recording came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingSummary {
    /// Length of the file in milliseconds.
    pub duration_ms: u64,
    /// Frames of 20 ms that could not be written because the writer had failed.
    pub discarded_frames: u64,
    /// What became of leg A's packets.
    pub a: JitterBufferCounters,
    /// What became of leg B's packets.
    pub b: JitterBufferCounters,
}

/// Writes both legs of a call as 8 kHz, 16-bit stereo.
///
/// Time in the file is time on the clock: sample 0 is the moment of [`StereoRecording::new`], and a packet
/// that came 10 s later is heard at 10 s (to within a frame), on both sides alike. What is lost is silence.
///
/// Each second the header and the data are flushed, so that the file can be played at any moment, also after
/// `kill -9`. The writer should hold a second (32 kB) itself, as `BufWriter::with_capacity(1 << 16, file)` does.
///
/// After the first error, which is returned, the recording is dead: calls succeed, do nothing and count.
#[derive(Debug)]
pub struct StereoRecording<W: Write + Seek> {
    writer: Option<Writer<W>>,
    start: Duration,
    // Frames of the clock since `start`. The first few are those before the file that the depth costs.
    ticks: u64,
    // Frames in the file.
    written: u64,
    discarded: u64,
    a: JitterBuffer,
    b: JitterBuffer,
}

/// Hound's writer, which has no `Debug` of its own.
struct Writer<W: Write + Seek>(hound::WavWriter<W>);

impl<W: Write + Seek> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WavWriter({} samples)", self.0.len())
    }
}

impl<W: Write + Seek> StereoRecording<W> {
    /// Begins a file, whose header is written at once.
    ///
    /// # Errors
    ///
    /// [`RecordingError::Write`] if the writer fails.
    pub fn new(writer: W, now: Duration) -> Result<StereoRecording<W>, RecordingError> {
        let mut writer = hound::WavWriter::new(writer, wav::spec(2, SAMPLE_RATE))?;
        writer.flush()?;
        Ok(StereoRecording::with(writer, 0, now))
    }

    fn with(writer: hound::WavWriter<W>, written: u64, now: Duration) -> StereoRecording<W> {
        StereoRecording {
            writer: Some(Writer(writer)),
            start: now,
            ticks: 0,
            written,
            discarded: 0,
            a: JitterBuffer::new(DEPTH_FRAMES),
            b: JitterBuffer::new(DEPTH_FRAMES),
        }
    }

    /// Takes a packet of a leg. Only a payload of `codec` (by its static payload type) is audio here:
    /// telephone events and comfort noise leave silence.
    ///
    /// # Errors
    ///
    /// As [`StereoRecording::advance`], which it calls first.
    pub fn push(
        &mut self,
        side: Side,
        now: Duration,
        packet: &RtpPacket<'_>,
        codec: Codec,
    ) -> Result<(), RecordingError> {
        // The buffer counts from the frame that is next, so that must be the right one before it takes anything.
        let advanced = self.advance(now);
        if self.writer.is_some() && packet.payload_type == codec.payload_type() {
            match side {
                Side::A => self.a.put(packet, codec),
                Side::B => self.b.put(packet, codec),
            }
        }
        advanced
    }

    /// Writes what is due: all frames that ended [`DEPTH`] ago or earlier, but at most 10 s of them in one
    /// call. To be called at least each second.
    ///
    /// # Errors
    ///
    /// [`RecordingError`] when the writer fails or the file is full; the recording is dead from then on.
    pub fn advance(&mut self, now: Duration) -> Result<(), RecordingError> {
        let due = (now.saturating_sub(self.start).as_millis() / FRAME.as_millis()) as u64;
        if self.writer.is_none() {
            self.discarded += due.saturating_sub(self.ticks);
            self.ticks = self.ticks.max(due);
            return Ok(());
        }
        let until = due.min(self.ticks.saturating_add(MAX_CATCH_UP));
        while self.ticks < until {
            self.write_frame()?;
        }
        Ok(())
    }

    fn write_frame(&mut self) -> Result<(), RecordingError> {
        let Some(Writer(writer)) = &mut self.writer else { return Ok(()) };
        let (mut left, mut right) = ([0; SAMPLES_PER_FRAME], [0; SAMPLES_PER_FRAME]);
        self.a.take(&mut left);
        self.b.take(&mut right);
        self.ticks += 1;
        if self.ticks <= DEPTH_FRAMES as u64 {
            return Ok(());
        }
        if self.written == MAX_FRAMES {
            return self.die(RecordingError::Full);
        }
        let mut samples = writer.get_i16_writer(2 * SAMPLES_PER_FRAME as u32);
        for (left, right) in left.into_iter().zip(right) {
            samples.write_sample(left);
            samples.write_sample(right);
        }
        let mut written = samples.flush();
        if written.is_ok() && (self.written + 1).is_multiple_of(FRAMES_PER_FLUSH) {
            written = writer.flush();
        }
        match written {
            Ok(()) => self.written += 1,
            Err(error) => return self.die(error.into()),
        }
        Ok(())
    }

    /// Drops the writer, which makes hound try once more to leave a whole header behind.
    fn die(&mut self, error: RecordingError) -> Result<(), RecordingError> {
        self.writer = None;
        self.discarded += 1;
        Err(error)
    }

    /// Whether an error has ended the recording.
    pub fn is_dead(&self) -> bool {
        self.writer.is_none()
    }

    /// The figures so far.
    pub fn summary(&self) -> RecordingSummary {
        RecordingSummary {
            duration_ms: self.written * FRAME.as_millis() as u64,
            discarded_frames: self.discarded,
            a: self.a.counters(),
            b: self.b.counters(),
        }
    }

    /// Writes what the buffers still hold and ends the file. To end at a moment, [`StereoRecording::advance`]
    /// to it first.
    ///
    /// # Errors
    ///
    /// [`RecordingError`] if the writer fails now; of a recording that died before, its summary is returned.
    pub fn finish(mut self) -> Result<RecordingSummary, RecordingError> {
        while self.writer.is_some() && !(self.a.is_empty() && self.b.is_empty()) {
            self.write_frame()?;
        }
        if let Some(Writer(writer)) = self.writer.take() {
            writer.finalize()?;
        }
        Ok(self.summary())
    }
}

impl<W: Read + Write + Seek> StereoRecording<W> {
    /// Continues a file that a fault has cut off, after what its last flush left, from now on. The time of
    /// the fault itself is missing in it, and up to a second before it.
    ///
    /// # Errors
    ///
    /// [`RecordingError::Foreign`] if the file is of another format, [`RecordingError::Write`] if it is no
    /// WAV file or cannot be read.
    pub fn resume(writer: W, now: Duration) -> Result<StereoRecording<W>, RecordingError> {
        let writer = hound::WavWriter::new_append(writer)?;
        if writer.spec() != wav::spec(2, SAMPLE_RATE) {
            return Err(RecordingError::Foreign);
        }
        let frames = u64::from(writer.duration()) / SAMPLES_PER_FRAME as u64;
        Ok(StereoRecording::with(writer, frames, now))
    }
}

#[cfg(test)]
#[path = "recording/tests.rs"]
mod tests;
