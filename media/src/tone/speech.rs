//! A source-filter model of a voice: pulses at the pitch, shaped by the formants of a vowel, under the
//! envelope of a syllable.

use std::f32::consts::{PI, TAU};

use serde::{Deserialize, Serialize};

use super::RMS_AT_0_DBM0;
use crate::SAMPLE_RATE;

const RATE: f32 = SAMPLE_RATE as f32;
/// -18 dBm0, the level of a syllable at full swell.
const RMS: f32 = RMS_AT_0_DBM0 * 0.125_89;
/// The voices: their pitches lie within one octave, since a voice and its octave share every other harmonic.
const VOICES: u64 = 16;
const LOWEST_PITCH: f32 = 108.0;
const PITCH_STEP: f32 = 1.042;
/// Formants of five vowels of an adult male, Hz (Peterson and Barney 1952).
const VOWELS: [[f32; 3]; 5] = [
    [730.0, 1090.0, 2440.0],
    [530.0, 1840.0, 2480.0],
    [270.0, 2290.0, 3010.0],
    [570.0, 840.0, 2410.0],
    [300.0, 870.0, 2240.0],
];
const BANDWIDTHS: [f32; 3] = [80.0, 100.0, 140.0];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Speech {
    random: u64,
    pitch: f32,
    tract: f32,
    formants: [Formant; 3],
    gain: f32,
    // Of the current pitch period, 0 to 1.
    phase: f32,
    glide: f32,
    // Samples into the current syllable or pause, and its length.
    at: u32,
    length: u32,
    pause: bool,
    syllables_left: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Formant {
    a1: f32,
    a2: f32,
    y1: f32,
    y2: f32,
}

impl Formant {
    fn tune(&mut self, hz: f32, bandwidth: f32) {
        let radius = (-PI * bandwidth / RATE).exp();
        self.a1 = 2.0 * radius * (TAU * hz / RATE).cos();
        self.a2 = -radius * radius;
    }

    fn filter(&mut self, input: f32) -> f32 {
        let output = input + self.a1 * self.y1 + self.a2 * self.y2;
        self.y2 = self.y1;
        self.y1 = output;
        output
    }

    /// The squared gain at a frequency.
    fn power(&self, hz: f32) -> f32 {
        let w = TAU * hz / RATE;
        let real = 1.0 - self.a1 * w.cos() - self.a2 * (2.0 * w).cos();
        let imaginary = self.a1 * w.sin() + self.a2 * (2.0 * w).sin();
        1.0 / (real * real + imaginary * imaginary)
    }
}

impl Speech {
    pub(super) fn new(seed: u64) -> Speech {
        let voice = (seed % VOICES) as f32;
        let mut speech = Speech {
            random: seed,
            pitch: LOWEST_PITCH * PITCH_STEP.powf(voice),
            // Higher voices have shorter vocal tracts.
            tract: 1.0 + 0.15 * voice / VOICES as f32,
            formants: [Formant::default(); 3],
            gain: 0.0,
            phase: 0.0,
            glide: 0.0,
            at: 0,
            length: 0,
            pause: false,
            syllables_left: 0,
        };
        speech.syllables_left = speech.between(4, 9);
        speech.begin_syllable();
        speech
    }

    pub(super) fn next_sample(&mut self) -> i16 {
        if self.at == self.length {
            self.begin_next();
        }
        let progress = self.at as f32 / self.length as f32;
        self.at += 1;
        let mut value = 0.0;
        if !self.pause {
            self.phase += self.pitch * (1.0 + self.glide * (progress - 0.5)) / RATE;
            if self.phase >= 1.0 {
                self.phase -= 1.0;
                value = 1.0;
            }
        }
        for formant in &mut self.formants {
            value = formant.filter(value);
        }
        let swell = if self.pause { 0.0 } else { envelope(progress) };
        (value * self.gain * swell).clamp(-32_000.0, 32_000.0) as i16
    }

    fn begin_next(&mut self) {
        self.at = 0;
        if self.syllables_left == 0 {
            self.pause = true;
            self.length = self.between(2400, 5600);
            self.syllables_left = self.between(4, 9);
        } else {
            self.begin_syllable();
        }
    }

    fn begin_syllable(&mut self) {
        self.pause = false;
        self.syllables_left -= 1;
        // 200 to 333 ms.
        self.length = self.between(1600, 2666);
        self.glide = (self.between(0, 200) as f32 - 100.0) * 1e-4;
        let vowel = VOWELS[self.between(0, 4) as usize];
        for ((formant, hz), bandwidth) in self.formants.iter_mut().zip(vowel).zip(BANDWIDTHS) {
            // What rings on from the last vowel would leave the new filter with a bang.
            *formant = Formant::default();
            formant.tune(hz * self.tract, bandwidth);
        }
        self.gain = RMS / self.pulse_response_rms();
    }

    /// The RMS of the vowel driven by unit pulses at the pitch: each harmonic is a sine of peak 2 / period.
    fn pulse_response_rms(&self) -> f32 {
        let harmonics = (RATE / 2.0 / self.pitch) as u32;
        let power: f32 = (1..=harmonics)
            .map(|n| {
                let hz = self.pitch * n as f32;
                self.formants.iter().map(|formant| formant.power(hz)).product::<f32>()
            })
            .sum();
        (2.0 * power).sqrt() * self.pitch / RATE
    }

    /// A number from `low` to `high`, both included.
    fn between(&mut self, low: u32, high: u32) -> u32 {
        // SplitMix64: any seed will do, zero too.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        low + (z % u64::from(high - low + 1)) as u32
    }
}

/// Rises within the first fifth of a syllable, falls in its last two fifths.
fn envelope(progress: f32) -> f32 {
    let rise = (progress / 0.2).min(1.0);
    let fall = ((1.0 - progress) / 0.4).min(1.0);
    let edge = rise.min(fall);
    edge * edge * (3.0 - 2.0 * edge)
}
