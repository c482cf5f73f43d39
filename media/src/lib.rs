//! The packet and audio arithmetic of Tandem: RTP, RTCP, codecs, tones, recording.
//!
//! Nothing here opens a socket or a file, reads a clock or asks the operating system for randomness.
//! Time is a [`std::time::Duration`] since an epoch of the engine's own and is passed in; so is every
//! random number. Audio is mono, 16-bit linear, 8000 samples a second, in frames of 20 ms
//! ([`SAMPLES_PER_FRAME`]).
//!
//! [`session::Session`] is the heart: it decides for one leg of a call what is done with each packet.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod bits128;
pub mod codec;
pub mod dtmf;
pub mod jitter_buffer;
pub mod recording;
pub mod rtcp;
pub mod rtp;
pub mod session;
pub mod stats;
pub mod tone;
pub mod wav;

use std::time::Duration;

/// Samples a second of all audio inside the engine.
pub const SAMPLE_RATE: u32 = 8000;

/// Samples in one 20 ms frame.
pub const SAMPLES_PER_FRAME: usize = 160;

/// The packet time: one frame.
pub const FRAME: Duration = Duration::from_millis(20);
