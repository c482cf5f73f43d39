use std::cell::RefCell;
use std::io::{self, Cursor, SeekFrom};
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::wav::read_wav;

const MS: Duration = Duration::from_millis(1);
const START: Duration = Duration::from_secs(1000);

/// A file that others can look at while it is written, on a disk of limited size.
#[derive(Clone)]
struct Disk {
    file: Rc<RefCell<Cursor<Vec<u8>>>>,
    size: u64,
}

impl Disk {
    fn new(size: u64) -> Disk {
        Disk { file: Rc::default(), size }
    }

    fn channels(&self) -> Vec<Vec<i16>> {
        let wav = read_wav(&self.file.borrow().get_ref()[..]).unwrap();
        assert_eq!((wav.rate, wav.channels.len()), (8000, 2));
        wav.channels
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.file.borrow_mut();
        if file.position() + bytes.len() as u64 > self.size {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Disk {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.borrow_mut().read(bytes)
    }
}

impl Seek for Disk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.borrow_mut().seek(to)
    }
}

fn push(recording: &mut StereoRecording<Disk>, side: Side, at_ms: u32, n: u32) -> Result<(), RecordingError> {
    push_type(recording, side, at_ms, n, 0)
}

fn push_type(
    recording: &mut StereoRecording<Disk>,
    side: Side,
    at_ms: u32,
    n: u32,
    payload_type: u8,
) -> Result<(), RecordingError> {
    let payload = [code(n); 160];
    let timestamp = (u32::MAX - 1000).wrapping_add(n * 160);
    let packet =
        RtpPacket { marker: false, payload_type, sequence: n as u16, timestamp, ssrc: 9, payload: &payload };
    recording.push(side, START + MS * at_ms, &packet, Codec::Pcmu)
}

/// Never one of the two zeros.
fn code(n: u32) -> u8 {
    (n % 100) as u8
}

fn value(n: u32) -> i16 {
    crate::codec::g711::ULAW[usize::from(code(n))]
}

/// The first sample of each frame, after a look that the frame is all of a piece.
fn frames(channel: &[i16]) -> Vec<i16> {
    let frames: Vec<_> = channel.chunks(160).collect();
    assert!(frames.iter().all(|frame| frame.iter().all(|sample| *sample == frame[0])));
    frames.iter().map(|frame| frame[0]).collect()
}

#[test]
fn both_sides_are_heard_in_the_file_when_they_came() {
    let disk = Disk::new(u64::MAX);
    let mut recording = StereoRecording::new(disk.clone(), START).unwrap();
    for slot in 50..200 {
        if slot < 150 {
            push(&mut recording, Side::A, 20 * slot, slot - 50).unwrap();
        }
        if slot >= 100 {
            push(&mut recording, Side::B, 20 * slot, slot - 100).unwrap();
        }
    }
    recording.advance(START + MS * 5000).unwrap();
    assert_eq!(recording.summary().duration_ms, 4940);
    let summary = recording.finish().unwrap();
    assert_eq!(summary.duration_ms, 4940);
    let channels = disk.channels();
    for (channel, first) in channels.iter().zip([50, 100]) {
        let frames = frames(channel);
        assert!(frames[..first].iter().all(|&sample| sample == 0));
        let heard: Vec<i16> = (0..100).map(value).collect();
        assert_eq!(frames[first..first + 100], heard);
        assert!(frames[first + 100..].iter().all(|&sample| sample == 0));
    }
}

#[test]
fn finish_writes_what_the_buffers_still_hold() {
    let disk = Disk::new(u64::MAX);
    let mut recording = StereoRecording::new(disk.clone(), START).unwrap();
    (0..10).for_each(|n| push(&mut recording, Side::B, 20 * n, n).unwrap());
    assert_eq!(recording.finish().unwrap().duration_ms, 200);
    assert_eq!(frames(&disk.channels()[1]), (0..10).map(value).collect::<Vec<_>>());
}

#[test]
fn the_file_can_be_played_each_second_without_being_finished() {
    let disk = Disk::new(u64::MAX);
    let mut recording = StereoRecording::new(disk.clone(), START).unwrap();
    assert_eq!(disk.channels()[0].len(), 0);
    for n in 0..200 {
        push(&mut recording, Side::A, 20 * n, n).unwrap();
    }
    // 3980 ms less the depth, rounded down to a second.
    assert_eq!(disk.channels()[0].len(), 3 * 8000);
    // As after kill -9: nobody drops the recording.
    std::mem::forget(recording);
    let resumed = StereoRecording::resume(
        Disk { file: Rc::new(RefCell::new(Cursor::new(disk.file.borrow().get_ref().clone()))), ..disk },
        START,
    );
    let mut resumed = resumed.unwrap();
    push(&mut resumed, Side::A, 40, 7).unwrap();
    assert_eq!(resumed.finish().unwrap().duration_ms, 3060);
}

#[test]
fn a_file_of_another_format_is_not_continued() {
    let mut file = Cursor::new(Vec::new());
    wav::write_mono(&mut file, 8000, &[1, 2, 3]).unwrap();
    file.set_position(0);
    assert!(matches!(StereoRecording::resume(file, START), Err(RecordingError::Foreign)));
}

#[test]
fn telephone_events_are_not_audio() {
    let disk = Disk::new(u64::MAX);
    let mut recording = StereoRecording::new(disk.clone(), START).unwrap();
    for n in 0..10 {
        let payload_type = if (3..6).contains(&n) { 101 } else { 0 };
        push_type(&mut recording, Side::A, 20 * n, n, payload_type).unwrap();
    }
    recording.finish().unwrap();
    let expected: Vec<i16> = (0..10).map(|n| if (3..6).contains(&n) { 0 } else { value(n) }).collect();
    assert_eq!(frames(&disk.channels()[0]), expected);
}

#[test]
fn a_full_disk_is_told_once_and_what_is_lost_is_counted() {
    let disk = Disk::new(50_000);
    let mut recording = StereoRecording::new(disk.clone(), START).unwrap();
    let mut errors = Vec::new();
    for n in 0..500 {
        errors.extend(push(&mut recording, Side::A, 20 * n, n).err());
    }
    assert!(matches!(errors[..], [RecordingError::Write(hound::Error::IoError(_))]), "{errors:?}");
    assert!(recording.is_dead());
    // 500 packets end at 9980 ms; less the depth that is 496 frames, of which 78 found room.
    let summary = recording.summary();
    assert_eq!((summary.discarded_frames, summary.duration_ms), (496 - 78, 78 * 20));
    assert_eq!(recording.finish().unwrap(), summary);
    assert!(disk.channels()[0].len() >= 8000, "the first second can be played");
}

#[test]
fn a_clock_that_jumps_is_followed_ten_seconds_at_a_time() {
    let disk = Disk::new(u64::MAX);
    let mut recording = StereoRecording::new(disk, START).unwrap();
    for tens in 1..=3 {
        recording.advance(START + Duration::from_secs(86_400)).unwrap();
        assert_eq!(recording.summary().duration_ms, tens * 10_000 - 60);
    }
    recording.advance(Duration::ZERO).unwrap();
    assert_eq!(recording.summary().duration_ms, 30_000 - 60);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Packets are lost, doubled and delayed by less than the depth: whatever arrives is where it belongs.
    #[test]
    fn loss_and_reorder_move_nothing(
        fates in prop::collection::vec((0u8..6, 0u32..3), 1..120), offset_ms in 0u32..1000,
    ) {
        let mut arrivals: Vec<(u32, u32)> = Vec::new();
        for (n, (fate, delay)) in (0u32..).zip(&fates) {
            let slot = n + if n == 0 { 0 } else { *delay };
            match fate {
                0 if n != 0 => {}
                1 => arrivals.extend([(slot, n), (slot + 1, n)]),
                _ => arrivals.push((slot, n)),
            }
        }
        arrivals.sort();
        let disk = Disk::new(u64::MAX);
        let mut recording = StereoRecording::new(disk.clone(), START).unwrap();
        for (slot, n) in &arrivals {
            push(&mut recording, Side::A, offset_ms + 20 * slot, *n).unwrap();
            // The other side has no loss and is the ruler.
            push(&mut recording, Side::B, offset_ms + 20 * slot, *slot).unwrap();
        }
        recording.advance(START + MS * (offset_ms + 20 * fates.len() as u32 + 200)).unwrap();
        recording.finish().unwrap();
        let channels = disk.channels();
        let heard = frames(&channels[0]);
        let first = (offset_ms / 20) as usize;
        for n in 0..fates.len() {
            let arrived = arrivals.iter().any(|(_, number)| *number == n as u32);
            let expected = if arrived { value(n as u32) } else { 0 };
            prop_assert_eq!(heard[first + n], expected, "packet {}", n);
        }
    }
}
