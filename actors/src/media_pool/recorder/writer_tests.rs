use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tandem_media::codec::Codec;
use tandem_media::recording::Side;
use tandem_media::wav::read_wav;

use super::super::Tapped;
use super::*;

fn packet(n: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let timestamp = u32::from(n) * 160;
    let packet =
        RtpPacket { marker: false, payload_type: 0, sequence: n, timestamp, ssrc: 9, payload: &[0x55; 160] };
    packet.write(&mut bytes);
    bytes
}

/// Twenty-milliseconds packets from `first` on, for so many.
fn batch(recording: u64, first: u16, count: u16) -> Batch {
    let mut batch = Batch::default();
    for n in first..first + count {
        batch.bytes.extend(packet(n));
        let at = Duration::from_millis(20 * u64::from(n));
        let end = batch.bytes.len();
        batch.packets.push(Tapped { recording, side: Side::A, codec: Codec::Pcmu, at, end });
        batch.until = at;
    }
    batch
}

fn begin(recording: u64, path: &Path) -> Job {
    Job::Begin { recording, path: path.to_owned(), at: Duration::ZERO }
}

#[test]
fn the_thread_writes_a_file_in_a_new_directory_and_drop_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new").join("c.wav");
    let mut sink = ThreadSink::start("test", create_file).unwrap();
    sink.submit(begin(1, &path)).unwrap();
    sink.submit(Job::Write(batch(1, 0, 60))).unwrap();
    sink.submit(Job::End { recording: 1, at: Duration::from_millis(1200) }).unwrap();
    drop(sink);
    let wav = read_wav(File::open(&path).unwrap()).unwrap();
    assert_eq!(wav.channels[0].iter().filter(|sample| sample.abs() > 100).count(), 60 * 160);
}

#[test]
fn a_file_of_the_same_name_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.wav");
    fs::write(&path, "before").unwrap();
    create_file(&path).unwrap().write_all(b"after").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"after");
    assert_eq!(fs::read(dir.path().join("c.1.wav")).unwrap(), b"before");
}

#[test]
fn a_directory_that_cannot_be_made_fails_the_recording_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let mut writer = Writer::new(create_file);
    let mut told = Vec::new();
    writer.work(begin(1, &dir.path().join("file/c.wav")), &mut |outcome| told.push(outcome));
    writer.work(begin(2, &dir.path().join("d.wav")), &mut |outcome| told.push(outcome));
    assert!(matches!(told.as_slice(), [Outcome::Failed(1, why)] if why.contains("c.wav")), "{told:?}");
}

#[test]
fn a_writer_that_stands_still_refuses_after_a_bounded_number_of_jobs() {
    let go = Arc::new(AtomicBool::new(false));
    let gate = go.clone();
    let (reached, at_gate) = channel();
    let mut sink = ThreadSink::start("test", move |_| {
        reached.send(()).unwrap();
        while !gate.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        Err(io::ErrorKind::StorageFull.into())
    })
    .unwrap();
    sink.submit(begin(1, Path::new("c.wav"))).unwrap();
    at_gate.recv().unwrap();
    let taken = (0..1000).take_while(|_| sink.submit(Job::Write(Batch::default())).is_ok()).count();
    assert_eq!(taken, DEPTH);
    go.store(true, Ordering::Relaxed);
}
