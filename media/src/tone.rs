//! Call progress tones, a speech-like test signal, and measuring what is heard.
//!
//! Levels are in dBm0: the digital milliwatt of G.711 (a sine of 3.17 dB below the overload point) is
//! 0 dBm0, which is an RMS of [`RMS_AT_0_DBM0`] in 16-bit samples.

mod measure;
mod speech;

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

use crate::SAMPLE_RATE;
use speech::Speech;

pub use measure::{Fingerprint, SILENCE_DBM0, fingerprint, goertzel, level_dbm0};

/// The RMS of a signal of 0 dBm0, in 16-bit sample units, from the µ-law test sequence of G.711 table 6.
pub const RMS_AT_0_DBM0: f32 = 16_017.0;

/// One step of a cadence: sound, then silence. An `off_ms` of 0 joins it to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cadence {
    /// Length of the sound, milliseconds.
    pub on_ms: u32,
    /// Length of the silence after it, milliseconds.
    pub off_ms: u32,
}

/// A tone: sines, at a level, with a rhythm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tone<'a> {
    /// The sines, in Hz. Those at or above half the sample rate are left out.
    pub frequencies: &'a [f32],
    /// The level of each sine.
    pub level_dbm0: f32,
    /// The rhythm, repeated for ever; empty is continuous.
    pub cadence: &'a [Cadence],
}

/// The tones that the engine knows by name. European plan: 425 Hz (ITU-T E.180, ETSI TR 101 041).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TonePreset {
    /// 425 Hz, continuous.
    Dial,
    /// 425 Hz, 1 s on, 4 s off.
    Ringback,
    /// 425 Hz, 0.5 s on, 0.5 s off.
    Busy,
    /// 425 Hz, 0.25 s on, 0.25 s off.
    Congestion,
    /// 1004 Hz at 0 dBm0, continuous: the level reference.
    Milliwatt,
    /// One continuous sine at -10 dBm0, to tell sources apart in a mix.
    Sine {
        /// Its frequency.
        hz: u16,
    },
    /// [`ToneGenerator::speech_like`] with this seed.
    Speech {
        /// The voice.
        seed: u64,
    },
}

/// Generates a tone frame by frame. Frames may have any length; the signal does not depend on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToneGenerator {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Sines { oscillators: Vec<Oscillator>, cadence: Vec<Cadence>, position: u64 },
    Speech(Box<Speech>),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Oscillator {
    step: f64,
    phase: f64,
    peak: f64,
}

impl ToneGenerator {
    /// A generator that begins at the start of the tone's cadence.
    pub fn new(tone: &Tone<'_>) -> ToneGenerator {
        let peak = f64::from(peak_of(tone.level_dbm0));
        let audible = |hz: &f32| *hz > 0.0 && *hz < SAMPLE_RATE as f32 / 2.0;
        let oscillators = tone
            .frequencies
            .iter()
            .copied()
            .filter(audible)
            .map(|hz| Oscillator { step: TAU * f64::from(hz) / f64::from(SAMPLE_RATE), phase: 0.0, peak })
            .collect();
        ToneGenerator { kind: Kind::Sines { oscillators, cadence: tone.cadence.to_vec(), position: 0 } }
    }

    /// A generator of a named tone.
    pub fn preset(preset: TonePreset) -> ToneGenerator {
        let progress = |on_ms, off_ms| {
            let cadence = [Cadence { on_ms, off_ms }];
            ToneGenerator::new(&Tone { frequencies: &[425.0], level_dbm0: -10.0, cadence: &cadence })
        };
        let continuous =
            |hz, level_dbm0| ToneGenerator::new(&Tone { frequencies: &[hz], level_dbm0, cadence: &[] });
        match preset {
            TonePreset::Dial => continuous(425.0, -10.0),
            TonePreset::Ringback => progress(1000, 4000),
            TonePreset::Busy => progress(500, 500),
            TonePreset::Congestion => progress(250, 250),
            TonePreset::Milliwatt => continuous(1004.0, 0.0),
            TonePreset::Sine { hz } => continuous(f32::from(hz), -10.0),
            TonePreset::Speech { seed } => ToneGenerator::speech_like(seed),
        }
    }

    /// A signal with the marks of speech: a pitch, vowel formants, three to five syllables a second, pauses
    /// between phrases; about -18 dBm0 while a syllable sounds. The same seed gives the same samples. Seeds
    /// that differ modulo 16 have voices that [`fingerprint`] tells apart.
    pub fn speech_like(seed: u64) -> ToneGenerator {
        ToneGenerator { kind: Kind::Speech(Box::new(Speech::new(seed))) }
    }

    /// Fills `samples` with what comes next.
    pub fn next_frame(&mut self, samples: &mut [i16]) {
        match &mut self.kind {
            Kind::Speech(speech) => samples.fill_with(|| speech.next_sample()),
            Kind::Sines { oscillators, cadence, position } => {
                for sample in samples {
                    // The phase runs on through the silence, as that of an exchange's tone does.
                    let sum: f64 = oscillators.iter_mut().map(Oscillator::next_value).sum();
                    *sample = if sounds(cadence, *position) { sum.round() as i16 } else { 0 };
                    *position += 1;
                }
            }
        }
    }
}

impl Oscillator {
    fn next_value(&mut self) -> f64 {
        let value = self.phase.sin() * self.peak;
        self.phase += self.step;
        if self.phase >= TAU {
            self.phase -= TAU;
        }
        value
    }
}

/// Whether the cadence sounds at a sample.
fn sounds(cadence: &[Cadence], position: u64) -> bool {
    const PER_MS: u64 = SAMPLE_RATE as u64 / 1000;
    let length: u64 = cadence.iter().map(|step| u64::from(step.on_ms) + u64::from(step.off_ms)).sum();
    if length == 0 {
        return true;
    }
    let mut rest = position % (length * PER_MS) / PER_MS;
    for step in cadence {
        if rest < u64::from(step.on_ms) {
            return true;
        }
        rest -= u64::from(step.on_ms);
        if rest < u64::from(step.off_ms) {
            return false;
        }
        rest -= u64::from(step.off_ms);
    }
    false
}

/// The peak of a sine of a level.
fn peak_of(level_dbm0: f32) -> f32 {
    RMS_AT_0_DBM0 * std::f32::consts::SQRT_2 * 10f32.powf(level_dbm0 / 20.0)
}

#[cfg(test)]
#[path = "tone/tests.rs"]
mod tests;
