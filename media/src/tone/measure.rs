//! Measuring what is heard: level, the power of one frequency, and whose voice it is.

use std::f32::consts::TAU;

use serde::{Deserialize, Serialize};

use super::RMS_AT_0_DBM0;
use crate::SAMPLE_RATE;

/// The level given to silence, and the lowest that is measured: below the last bit of 16.
pub const SILENCE_DBM0: f32 = -100.0;

/// The level of the samples. Nothing, or only zeros, is [`SILENCE_DBM0`].
pub fn level_dbm0(samples: &[i16]) -> f32 {
    let power: f64 = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    decibels((power / samples.len().max(1) as f64) as f32)
}

/// The level of the frequency `hz` in samples taken at `rate` a second, by Goertzel's algorithm.
///
/// Its bandwidth is about `rate / samples.len()`: 205 samples, 39 Hz, tell DTMF frequencies apart. A lone sine
/// reads as its own level if the samples hold a whole number of its periods.
pub fn goertzel(samples: &[i16], hz: f32, rate: u32) -> f32 {
    decibels(goertzel_power(samples.iter().map(|&sample| f32::from(sample)), hz, rate))
}

/// The mean power of the sine at `hz`.
fn goertzel_power(samples: impl Iterator<Item = f32>, hz: f32, rate: u32) -> f32 {
    let coefficient = 2.0 * f64::from(TAU * hz / rate as f32).cos();
    let (mut s1, mut s2, mut count) = (0.0f64, 0.0f64, 0u32);
    for sample in samples {
        let s0 = f64::from(sample) + coefficient * s1 - s2;
        s2 = s1;
        s1 = s0;
        count += 1;
    }
    let power = s1 * s1 + s2 * s2 - coefficient * s1 * s2;
    // The peak is 2 |X| / n, and the mean power of a sine is half its squared peak.
    (2.0 * power / f64::from(count.max(1)).powi(2)) as f32
}

fn decibels(mean_power: f32) -> f32 {
    (10.0 * (mean_power / (RMS_AT_0_DBM0 * RMS_AT_0_DBM0)).log10()).max(SILENCE_DBM0)
}

/// Samples to a block: 128 ms, so that neighbouring harmonics are resolved.
const BLOCK: usize = 1024;
const LOWEST_HZ: f32 = 80.0;
const STEP_HZ: f32 = 8.0;
const BANDS: usize = 140;

/// The long-term spectrum of a signal from 80 to 1200 Hz, free of its level: whose voice it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    bands: Vec<f32>,
}

/// Takes the fingerprint of samples at 8000 a second. Some two seconds are needed for one that says much;
/// less than 128 ms, or silence, resembles nothing.
pub fn fingerprint(samples: &[i16]) -> Fingerprint {
    let mut powers = vec![0.0f32; BANDS];
    // Silence only dilutes the picture; -50 dBm0 is below any speech.
    for block in samples.chunks_exact(BLOCK).filter(|block| level_dbm0(block) > -50.0) {
        let windowed: Vec<f32> = (0u16..)
            .zip(block)
            .map(|(n, &sample)| f32::from(sample) * (0.5 - 0.5 * (TAU * f32::from(n) / BLOCK as f32).cos()))
            .collect();
        for (band, power) in (0u16..).zip(powers.iter_mut()) {
            let hz = LOWEST_HZ + STEP_HZ * f32::from(band);
            *power += goertzel_power(windowed.iter().copied(), hz, SAMPLE_RATE);
        }
    }
    // The root compresses peaks without lifting the noise floor as a logarithm would.
    let mut bands: Vec<f32> = powers.iter().map(|power| power.sqrt().sqrt()).collect();
    let mean = bands.iter().sum::<f32>() / BANDS as f32;
    bands.iter_mut().for_each(|band| *band -= mean);
    let length = bands.iter().map(|band| band * band).sum::<f32>().sqrt();
    if length > 0.0 {
        bands.iter_mut().for_each(|band| *band /= length);
    }
    Fingerprint { bands }
}

impl Fingerprint {
    /// How alike two signals are: 1 is the same, 0 is unrelated, below 0 is opposed. Above
    /// [`Fingerprint::SAME`] it is the same voice.
    pub fn similarity(&self, other: &Fingerprint) -> f32 {
        self.bands.iter().zip(&other.bands).map(|(a, b)| a * b).sum()
    }

    /// The similarity that only the same voice reaches.
    pub const SAME: f32 = 0.7;
}
