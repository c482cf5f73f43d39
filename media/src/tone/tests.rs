use super::*;
use crate::codec::Codec;

fn generated(mut generator: ToneGenerator, seconds: usize) -> Vec<i16> {
    let mut samples = vec![0; seconds * 8000];
    samples.chunks_mut(160).for_each(|frame| generator.next_frame(frame));
    samples
}

#[test]
fn the_milliwatt_sequence_of_g711_is_0_dbm0_in_both_laws() {
    for (codec, sequence) in [
        (Codec::Pcmu, [0x1e, 0x0b, 0x0b, 0x1e, 0x9e, 0x8b, 0x8b, 0x9e]),
        (Codec::Pcma, [0x34, 0x21, 0x21, 0x34, 0xb4, 0xa1, 0xa1, 0xb4]),
    ] {
        let mut samples = Vec::new();
        (0..50).for_each(|_| codec.decode(&sequence, &mut samples));
        assert!(level_dbm0(&samples).abs() < 0.08, "{codec}: {}", level_dbm0(&samples));
        assert!(goertzel(&samples, 1000.0, 8000).abs() < 0.08);
        assert!(goertzel(&samples, 440.0, 8000) < -40.0);
    }
}

#[test]
fn silence_has_the_lowest_level() {
    assert_eq!(level_dbm0(&[]), SILENCE_DBM0);
    assert_eq!(level_dbm0(&[0; 160]), SILENCE_DBM0);
    assert_eq!(goertzel(&[0; 160], 425.0, 8000), SILENCE_DBM0);
}

#[test]
fn ringback_is_425_hz_for_one_second_in_five() {
    let samples = generated(ToneGenerator::preset(TonePreset::Ringback), 10);
    for (second, part) in samples.chunks(8000).enumerate() {
        let expected = if second % 5 == 0 { -10.0 } else { SILENCE_DBM0 };
        assert!((goertzel(part, 425.0, 8000) - expected).abs() < 0.05, "second {second}");
        assert!((level_dbm0(part) - expected).abs() < 0.05, "second {second}");
    }
}

#[test]
fn every_preset_keeps_its_rhythm() {
    for (preset, on, period) in [(TonePreset::Busy, 4000, 8000), (TonePreset::Congestion, 2000, 4000)] {
        let samples = generated(ToneGenerator::preset(preset), 2);
        for period in samples.chunks(period) {
            assert!((level_dbm0(&period[..on]) + 10.0).abs() < 0.1, "{preset:?}");
            assert_eq!(level_dbm0(&period[on..]), SILENCE_DBM0, "{preset:?}");
        }
    }
    assert!((level_dbm0(&generated(ToneGenerator::preset(TonePreset::Milliwatt), 1))).abs() < 0.01);
    let sine = generated(ToneGenerator::preset(TonePreset::Sine { hz: 880 }), 1);
    assert!((goertzel(&sine, 880.0, 8000) + 10.0).abs() < 0.01);
}

#[test]
fn a_dual_tone_has_both_frequencies_at_the_level_and_impossible_ones_are_left_out() {
    let tone = Tone { frequencies: &[480.0, 620.0, 5000.0, -3.0], level_dbm0: -13.0, cadence: &[] };
    let samples = generated(ToneGenerator::new(&tone), 1);
    assert!((goertzel(&samples, 480.0, 8000) + 13.0).abs() < 0.05);
    assert!((goertzel(&samples, 620.0, 8000) + 13.0).abs() < 0.05);
    assert!((level_dbm0(&samples) + 10.0).abs() < 0.05);
}

#[test]
fn the_signal_does_not_depend_on_the_frame_length_and_survives_a_checkpoint() {
    for preset in [TonePreset::Ringback, TonePreset::Speech { seed: 3 }] {
        let mut whole = vec![0; 4800];
        ToneGenerator::preset(preset).next_frame(&mut whole);
        let mut generator = ToneGenerator::preset(preset);
        let mut parts = vec![0; 4800];
        for part in parts.chunks_mut(240) {
            generator.next_frame(part);
            generator = serde_json::from_str(&serde_json::to_string(&generator).unwrap()).unwrap();
        }
        assert_eq!(whole, parts);
    }
}

#[test]
fn speech_has_its_level_its_syllables_and_its_pauses() {
    for seed in 0..16 {
        let samples = generated(ToneGenerator::speech_like(seed), 20);
        let level = level_dbm0(&samples);
        assert!((-24.0..-17.0).contains(&level), "seed {seed}: {level}");
        assert!(samples.iter().all(|sample| sample.abs() < 32_000), "seed {seed} clips");
        let loud: Vec<bool> = samples.chunks(160).map(|frame| level_dbm0(frame) > -30.0).collect();
        let onsets = loud.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert!((35..100).contains(&onsets), "seed {seed}: {onsets} syllables in 20 s");
        let longest_pause = loud.split(|&loud| loud).map(<[bool]>::len).max();
        assert!(longest_pause > Some(15), "seed {seed}: {longest_pause:?} frames");
    }
}

#[test]
fn a_fingerprint_knows_its_voice_after_g711_and_loss_and_no_other() {
    let references: Vec<_> =
        (0..16).map(|seed| fingerprint(&generated(ToneGenerator::speech_like(seed), 5))).collect();
    for seed in 0..16u64 {
        let samples = generated(ToneGenerator::speech_like(seed), 8);
        let (mut coded, mut heard) = (Vec::new(), Vec::new());
        Codec::Pcmu.encode(&samples, &mut coded);
        Codec::Pcmu.decode(&coded, &mut heard);
        // Two frames of every fifty are lost, and three seconds are missed.
        for (index, frame) in heard.chunks_mut(160).enumerate() {
            if index % 50 < 2 {
                frame.fill(0);
            }
        }
        let heard = fingerprint(&heard[24_000..]);
        for (other, reference) in references.iter().enumerate() {
            let similarity = heard.similarity(reference);
            if other as u64 == seed {
                assert!(similarity > Fingerprint::SAME + 0.1, "seed {seed}: {similarity}");
            } else {
                assert!(similarity < Fingerprint::SAME - 0.1, "seeds {seed} and {other}: {similarity}");
            }
        }
    }
}

#[test]
fn silence_resembles_nothing() {
    let silence = fingerprint(&[0; 16_000]);
    assert_eq!(silence.similarity(&silence), 0.0);
}
