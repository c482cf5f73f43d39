use proptest::prelude::*;

use super::*;

const DEPTH: usize = 3;

/// A packet of `samples` A-law samples that all decode to the value of its number.
fn put(buffer: &mut JitterBuffer, ssrc: u32, timestamp: u32, samples: usize, code: u8) {
    let payload = vec![code; samples];
    let packet =
        RtpPacket { marker: false, payload_type: 8, sequence: 0, timestamp, ssrc, payload: &payload };
    buffer.put(&packet, Codec::Pcma);
}

fn value(code: u8) -> i16 {
    crate::codec::g711::ALAW[usize::from(code)]
}

fn take(buffer: &mut JitterBuffer) -> (Playout, i16) {
    let mut frame = [1; SAMPLES_PER_FRAME];
    let playout = buffer.take(&mut frame);
    (playout, frame[0])
}

#[test]
fn the_first_packet_is_played_after_the_depth() {
    let mut buffer = JitterBuffer::new(DEPTH);
    assert_eq!(take(&mut buffer), (Playout::Empty, 0));
    put(&mut buffer, 1, 5000, 160, 7);
    for _ in 0..DEPTH {
        assert_eq!(take(&mut buffer), (Playout::Lost, 0));
    }
    assert!(!buffer.is_empty());
    assert_eq!(take(&mut buffer), (Playout::Audio, value(7)));
    assert!(buffer.is_empty());
    assert_eq!(take(&mut buffer), (Playout::Empty, 0));
}

#[test]
fn loss_leaves_a_gap_and_reorder_none() {
    let mut buffer = JitterBuffer::new(0);
    for (number, code) in [(0, 1), (3, 4), (2, 3)] {
        put(&mut buffer, 1, (u32::MAX - 200).wrapping_add(number * 160), 160, code);
    }
    let taken: Vec<_> = (0..5).map(|_| take(&mut buffer)).collect();
    assert_eq!(
        taken,
        [
            (Playout::Audio, value(1)),
            (Playout::Lost, 0),
            (Playout::Audio, value(3)),
            (Playout::Audio, value(4)),
            (Playout::Empty, 0)
        ]
    );
    assert_eq!(buffer.counters().lost_frames, 1);
}

#[test]
fn packets_of_other_lengths_fill_the_same_frames() {
    for samples in [80, 240, 320, 480] {
        let mut buffer = JitterBuffer::new(0);
        for number in 0..4u8 {
            put(&mut buffer, 1, u32::from(number) * samples as u32, samples, number);
        }
        for frame in 0..4 * samples / 160 {
            assert_eq!(take(&mut buffer), (Playout::Audio, value((frame * 160 / samples) as u8)));
        }
    }
}

#[test]
fn what_comes_too_late_is_dropped_and_the_late_half_of_a_packet_too() {
    let mut buffer = JitterBuffer::new(0);
    put(&mut buffer, 1, 0, 160, 1);
    take(&mut buffer);
    take(&mut buffer);
    put(&mut buffer, 1, 160, 160, 2);
    assert_eq!((buffer.counters().late, take(&mut buffer).0), (1, Playout::Empty));
    put(&mut buffer, 1, 320, 320, 3);
    assert_eq!(take(&mut buffer), (Playout::Audio, value(3)));
    assert_eq!(buffer.counters().late, 1);
}

#[test]
fn a_pause_of_a_sender_whose_clock_runs_on_keeps_the_place() {
    let mut buffer = JitterBuffer::new(DEPTH);
    put(&mut buffer, 1, 0, 160, 1);
    for _ in 0..500 {
        take(&mut buffer);
    }
    put(&mut buffer, 1, 500 * 160, 160, 2);
    let waited = (0..).position(|_| take(&mut buffer).0 == Playout::Audio);
    assert_eq!(waited, Some(DEPTH));
    assert_eq!(buffer.counters().restarts, 0);
}

#[test]
fn a_jump_of_the_timestamp_a_shift_and_a_new_ssrc_begin_anew() {
    let mut buffer = JitterBuffer::new(1);
    put(&mut buffer, 1, 0, 160, 1);
    put(&mut buffer, 1, 1 << 30, 160, 2);
    assert_eq!((take(&mut buffer).0, take(&mut buffer)), (Playout::Lost, (Playout::Audio, value(2))));
    put(&mut buffer, 2, 77, 160, 3);
    assert_eq!((take(&mut buffer).0, take(&mut buffer)), (Playout::Lost, (Playout::Audio, value(3))));
    assert_eq!(buffer.counters().restarts, 2);
    // A sender whose clock stood still for 200 ms is late with every packet from then on.
    for _ in 0..10 {
        take(&mut buffer);
    }
    let mut heard = 0;
    for number in 1..30 {
        put(&mut buffer, 2, 77 + number * 160, 160, 4);
        heard += u32::from(take(&mut buffer).0 == Playout::Audio);
    }
    assert_eq!(buffer.counters().restarts, 3);
    assert!(heard >= 18, "{heard}");
}

proptest! {
    #[test]
    fn any_packets_are_survived(
        packets in prop::collection::vec((0u32..3, any::<u32>(), 0usize..1000, 0usize..4), 0..60),
    ) {
        let mut buffer = JitterBuffer::new(DEPTH);
        for (ssrc, timestamp, samples, takes) in packets {
            put(&mut buffer, ssrc, timestamp, samples, 1);
            for _ in 0..takes {
                take(&mut buffer);
            }
        }
    }

    #[test]
    fn jitter_below_the_depth_costs_nothing(delays in prop::collection::vec(0usize..3, 1..100), start: u32) {
        // Packet n is sent in slot n and arrives up to 2 slots later; the first sets the pace, undelayed.
        let mut arrivals: Vec<(usize, usize)> =
            delays.iter().enumerate().map(|(n, delay)| (n + if n == 0 { 0 } else { *delay }, n)).collect();
        arrivals.sort();
        let mut buffer = JitterBuffer::new(DEPTH);
        let mut played = Vec::new();
        for slot in 0..delays.len() + DEPTH {
            for (_, n) in arrivals.iter().filter(|(at, _)| *at == slot) {
                put(&mut buffer, 1, start.wrapping_add(*n as u32 * 160), 160, *n as u8);
            }
            let (playout, sample) = take(&mut buffer);
            if slot >= DEPTH {
                prop_assert_eq!(playout, Playout::Audio);
                played.push(sample);
            }
        }
        let sent: Vec<i16> = (0..delays.len()).map(|n| value(n as u8)).collect();
        prop_assert_eq!(played, sent);
    }
}
