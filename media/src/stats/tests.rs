use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// Feeds sequence numbers at an even 20 ms, the timestamps following the sequence.
fn fed(sequences: impl IntoIterator<Item = u16>) -> ReceiveStats {
    let mut stats = ReceiveStats::new(8000);
    for (slot, sequence) in (0u32..).zip(sequences) {
        stats.receive(MS * 20 * slot, 1, sequence, Some(u32::from(sequence) * 160));
    }
    stats
}

#[test]
fn loss_is_what_the_sequence_lacks() {
    let stats = fed([10, 11, 14, 15, 19]);
    assert_eq!((stats.received, stats.expected(), stats.lost()), (5, 10, 5));
    assert_eq!(stats.loss(), 0.5);
}

#[test]
fn the_sequence_wraps_without_loss() {
    let stats = fed((65_000u32..66_200).map(|sequence| sequence as u16));
    assert_eq!((stats.received, stats.expected(), stats.lost(), stats.reordered), (1200, 1200, 0, 0));
}

#[test]
fn late_packets_close_their_gap_and_duplicates_close_none() {
    let stats = fed([1, 3, 2, 3, 2, 6, 6, 4]);
    assert_eq!((stats.received, stats.expected(), stats.lost()), (5, 6, 1));
    assert_eq!((stats.reordered, stats.duplicates), (2, 3));
}

#[test]
fn a_packet_before_the_first_is_expected_too() {
    let stats = fed([0, 65_535, 1]);
    assert_eq!((stats.received, stats.expected(), stats.lost(), stats.reordered), (3, 3, 0, 1));
}

#[test]
fn a_lone_stray_sequence_is_no_loss_and_two_in_a_row_are_a_new_start() {
    let stats = fed([1, 2, 30_000, 3, 4]);
    assert_eq!((stats.received, stats.lost(), stats.suspects), (4, 0, 1));
    let stats = fed([1, 2, 30_000, 30_001, 30_003]);
    assert_eq!((stats.received, stats.expected(), stats.lost()), (4, 5, 1));
}

#[test]
fn a_new_ssrc_starts_a_new_sequence_and_keeps_what_was_lost() {
    let mut stats = fed([1, 4]);
    for sequence in [40_000, 40_001, 40_003] {
        stats.receive(MS * 100, 2, sequence, None);
    }
    assert_eq!((stats.received, stats.expected(), stats.lost()), (5, 8, 3));
    assert_eq!((stats.ssrc_changes, stats.ssrc()), (1, Some(2)));
}

#[test]
fn jitter_follows_the_formula_of_rfc_3550() {
    let mut stats = ReceiveStats::new(8000);
    // Transit differs by 80 units (10 ms) each time: J = J + (80 - J)/16, in sixteenths:
    // 0, 80, 80+80-(88>>4)=155, 155+80-(163>>4)=225, 225+80-(233>>4)=291.
    for (packet, late) in (0u32..).zip([0, 10, 0, 10, 0]) {
        stats.receive(MS * (20 * packet + late), 1, packet as u16, Some(packet * 160));
    }
    assert_eq!(stats.jitter(), 291 / 16);
    assert!((stats.jitter_ms() - 291.0 / 16.0 / 8.0).abs() < 1e-4);
}

#[test]
fn an_even_stream_has_no_jitter_and_a_new_clock_is_none() {
    let mut stats = fed(0..50);
    assert_eq!(stats.jitter(), 0);
    stats.receive(MS * 1000, 1, 50, Some(900_000_000));
    stats.receive(MS * 1020, 1, 51, Some(900_000_160));
    assert_eq!(stats.jitter(), 0);
}

#[test]
fn the_longest_gap_is_kept_and_a_hold_is_no_gap() {
    let mut stats = ReceiveStats::new(8000);
    for (sequence, at) in (0u16..).zip([0, 20, 140, 160]) {
        stats.receive(MS * at, 1, sequence, None);
    }
    stats.pause();
    stats.receive(MS * 9000, 1, 4, None);
    assert_eq!(stats.max_gap, MS * 120);
}

#[test]
fn the_report_block_covers_the_interval_since_the_last() {
    let mut stats = fed([65_533, 65_534, 65_535, 0]);
    let block = stats.report_block().unwrap();
    assert_eq!((block.fraction_lost, block.cumulative_lost, block.highest_sequence), (0, 0, 0x1_0000));
    stats.receive(MS * 200, 1, 4, None);
    let block = stats.report_block().unwrap();
    // 3 of 4 lost: 192/256.
    assert_eq!((block.fraction_lost, block.cumulative_lost, block.highest_sequence), (192, 3, 0x1_0004));
    assert_eq!(ReceiveStats::new(8000).report_block(), None);
}

#[test]
fn mos_falls_from_the_best_of_g711_with_loss_and_delay() {
    // R = 93.2 - 0.48 = 92.72.
    assert!((mos(Codec::Pcmu, 0.0, 0.0, 0.0) - 4.40).abs() < 0.01);
    // Ie,eff = 95 * 5 / 30.1 = 15.78; R = 76.94.
    assert!((mos(Codec::Pcma, 0.05, 0.0, 0.0) - 3.91).abs() < 0.02);
    // d = 320: Id = 7.68 + 15.70; R = 69.82.
    assert!((mos(Codec::Pcmu, 0.0, 0.0, 300.0) - 3.59).abs() < 0.02);
    assert_eq!(mos(Codec::Pcmu, 1.0, 1000.0, 2000.0), 1.0);
}

proptest! {
    #[test]
    fn counts_hold_for_any_small_loss_duplication_and_reorder(
        start: u16, fates in prop::collection::vec((0u8..10, 0usize..8), 2..300),
    ) {
        // Fate 0 loses a packet, 1 doubles it; each is delayed by up to 7 slots. The ends are kept in place.
        let last = fates.len() - 1;
        let mut arrivals: Vec<(usize, u16)> = Vec::new();
        let mut lost = 0;
        let mut doubled = 0;
        for (index, (fate, delay)) in fates.iter().enumerate() {
            let sequence = start.wrapping_add(index as u16);
            match fate {
                0 if index != 0 && index != last => lost += 1,
                1 => { doubled += 1; arrivals.extend([(index + delay, sequence), (index + delay + 1, sequence)]); }
                _ => arrivals.push((index + delay, sequence)),
            }
        }
        arrivals.sort_by_key(|(slot, _)| *slot);
        let stats = fed(arrivals.iter().map(|(_, sequence)| *sequence));
        prop_assert_eq!(stats.lost(), lost);
        prop_assert_eq!(stats.duplicates, doubled);
        prop_assert_eq!(stats.received + lost, fates.len() as u64);
    }

    #[test]
    fn any_sequence_of_packets_is_survived(
        packets in prop::collection::vec((0u32..3, any::<u16>(), any::<u32>(), 0u32..100_000), 0..200),
    ) {
        let mut stats = ReceiveStats::new(8000);
        for (ssrc, sequence, timestamp, at) in &packets {
            stats.receive(MS * *at, *ssrc, *sequence, Some(*timestamp));
            stats.report_block();
        }
        prop_assert!(stats.received + stats.duplicates + stats.suspects == packets.len() as u64);
        prop_assert!(stats.loss() <= 1.0);
        prop_assert!(stats.jitter_ms() <= 1000.0);
    }
}
