//! Recordings of calls.

use tandem_media::wav::{Wav, read_wav};

use super::super::order::{MediaEvent, MediaOrder};
use super::fixture::rtp;
use super::rig::{Rig, SHARD, config, run, session};
use crate::calls::CallKey;

const CALLER: &str = "10.1.0.1:4000";
const ACTIVE: &str = "tandem_recordings_active{}";
const FAILED: &str = "tandem_recordings_failed_total{}";

async fn record(rig: &Rig) {
    let path = "/rec/c1.wav".into();
    rig.order(MediaOrder::Record { call: CallKey(7), shard: SHARD, path }).await;
}

/// One side talks for so many packets.
async fn talk(rig: &Rig, packets: u16) {
    for n in 0..packets {
        rig.receive(CALLER, 20000, rtp(n, 9)).await;
        rig.pass(20).await;
    }
}

fn file(rig: &Rig) -> Wav {
    read_wav(rig.world.disk.lock().unwrap().bytes.as_slice()).unwrap()
}

fn loud(samples: &[i16]) -> usize {
    samples.iter().filter(|sample| sample.abs() > 100).count()
}

#[test]
fn a_recording_is_whole_each_second_and_ends_with_the_first_session() {
    run((20000, 20003), &[], async |rig| {
        rig.call().await;
        record(&rig).await;
        assert_eq!(rig.figures.gauge(ACTIVE), 1.0);
        talk(&rig, 150).await;
        // Before any end: as kill -9 would leave it.
        let so_far = file(&rig).channels[0].len();
        assert!(so_far >= 2 * 8000, "{so_far}");
        rig.close(0).await;
        assert_eq!(rig.figures.gauge(ACTIVE), 0.0);
        rig.pass(200).await;
        let wav = file(&rig);
        assert_eq!((loud(&wav.channels[0]), loud(&wav.channels[1])), (150 * 160, 0));
        assert_eq!(rig.figures.counter(FAILED), 0);
        assert_eq!(
            rig.world.opened.borrow().as_slice(),
            ["/rec/c1.wav".to_owned()].map(std::path::PathBuf::from)
        );
    });
}

#[test]
fn a_session_whose_place_another_has_taken_ends_neither_the_recording_nor_the_callers_peer() {
    run((20000, 20005), &[], async |rig| {
        let (caller, _) = rig.call().await;
        let other = rig.grow(1).await[0];
        rig.open_alone(2, other, config("10.3.0.1:6000"), Some(session(0))).await;
        record(&rig).await;
        rig.close(1).await;
        assert_eq!(rig.figures.gauge(ACTIVE), 1.0);
        rig.sent();
        rig.receive(CALLER, caller.rtp.port(), rtp(1, 9)).await;
        rig.receive("10.3.0.1:6000", other.rtp.port(), rtp(1, 8)).await;
        let to: Vec<String> = rig.sent().iter().map(|sent| sent.to.to_string()).collect();
        assert_eq!(to, ["10.3.0.1:6000", CALLER]);
        rig.close(2).await;
        assert_eq!(rig.figures.gauge(ACTIVE), 0.0);
    });
}

#[test]
fn a_full_disk_ends_the_recording_once_and_not_the_call() {
    run((20000, 20003), &[], async |rig| {
        rig.call().await;
        rig.world.disk.lock().unwrap().room = 40_000;
        record(&rig).await;
        talk(&rig, 300).await;
        let failed =
            |event: &MediaEvent| matches!(event, MediaEvent::RecordingFailed { call: CallKey(7), .. });
        assert_eq!(rig.events().iter().filter(|event| failed(event)).count(), 1);
        assert_eq!((rig.figures.counter(FAILED), rig.figures.gauge(ACTIVE)), (1, 0.0));
        assert_eq!(rig.sent().len(), 300);
        rig.close(0).await;
        assert_eq!((rig.figures.counter(FAILED), rig.figures.gauge(ACTIVE)), (1, 0.0));
    });
}

#[test]
fn a_recording_ordered_before_its_sessions_records_them() {
    run((20000, 20003), &[], async |rig| {
        record(&rig).await;
        rig.call().await;
        talk(&rig, 60).await;
        rig.close(1).await;
        rig.pass(200).await;
        assert_eq!(loud(&file(&rig).channels[0]), 60 * 160);
    });
}

#[test]
fn a_recording_goes_on_after_panics() {
    run((20000, 20003), &[], async |rig| {
        rig.call().await;
        record(&rig).await;
        talk(&rig, 50).await;
        rig.order(MediaOrder::InjectWorker).await;
        for n in 50..100 {
            rig.receive(CALLER, 20000, rtp(n, 9)).await;
            rig.pass(20).await;
        }
        rig.close(0).await;
        rig.pass(200).await;
        assert_eq!(loud(&file(&rig).channels[0]), 100 * 160);
    });
}

#[test]
fn a_disk_that_stands_still_costs_the_recording_and_no_packet() {
    run((20000, 20003), &[], async |rig| {
        rig.call().await;
        record(&rig).await;
        talk(&rig, 60).await;
        rig.world.stalled.set(true);
        talk(&rig, 60).await;
        let events = rig.events();
        let slow = |event: &MediaEvent| matches!(event, MediaEvent::RecordingFailed { why, .. } if why.contains("slow"));
        assert_eq!((events.len(), events.iter().filter(|event| slow(event)).count()), (1, 1));
        assert_eq!(rig.sent().len(), 120);
        assert_eq!((rig.figures.counter(FAILED), rig.figures.gauge(ACTIVE)), (1, 0.0));
        // What was written before stays, and the next recording is whole.
        rig.world.stalled.set(false);
        rig.pass(200).await;
        assert!(loud(&file(&rig).channels[0]) >= 50 * 160);
        record(&rig).await;
        rig.close(0).await;
        assert_eq!((rig.figures.counter(FAILED), rig.world.opened.borrow().len()), (1, 2));
        rig.close(1).await;
        rig.pass(3000).await;
        assert_eq!(rig.world.wants.get(), super::super::io::Wants::default());
    });
}
