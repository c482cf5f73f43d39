//! What a relayed packet costs: CPU time of the worker's thread alone, with a paced generator in the same process.
//!
//! `cargo bench -p tandem-actors --bench relay -- [STREAMS] [SECONDS] [PERIOD_US] [TAPPED]`: so many streams of 50 packets a second (two to a call), that
//! long, with that time between two steps of the worker (200, 10, 2000); with a fourth argument every call is recorded.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, unreachable_pub, dead_code)]

#[path = "../src/media_pool/tests/fixture.rs"]
mod fixture;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use actix::System;
use fixture::{Figures, rtp, shared};
use tandem_actors::calls::CallKey;
use tandem_actors::env::Tell;
use tandem_actors::ids::ShardId;
use tandem_actors::media_pool::order::{Lease, MediaEvent, MediaOrder, SessionId};
use tandem_actors::media_pool::threads::{Link, spawn_paced};
use tandem_actors::runtime::Clock;
use tandem_actors::shard::LinkMessage;
use tandem_media::codec::Codec;
use tandem_media::session::SessionConfig;
use tokio::sync::mpsc::unbounded_channel;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const FRAME: Duration = Duration::from_millis(20);

/// Nanoseconds that the process's threads whose name begins so have run, from the scheduler's own accounting.
fn cpu_ns(name: &str) -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let of = |task: fs::DirEntry| {
        let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let ran = stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        if comm.starts_with(name) { ran } else { 0 }
    };
    tasks.map(of).sum()
}

/// Sends a packet of each stream each 20 ms, spread over that time, and empties the phones' sockets.
fn generate(phones: &[UdpSocket], leases: &[Lease], stop: &AtomicBool) -> u64 {
    let mut sent = 0;
    let mut buffer = [0; 2048];
    let begin = Instant::now();
    for sequence in 0.. {
        for (place, (phone, lease)) in phones.iter().zip(leases).enumerate() {
            let due = begin + FRAME * sequence + FRAME * place as u32 / phones.len() as u32;
            let early = due.saturating_duration_since(Instant::now());
            if early > Duration::from_micros(300) {
                thread::sleep(early);
            }
            phone.send_to(&rtp(sequence as u16, place as u32), lease.rtp).unwrap();
            sent += 1;
            while phone.recv_from(&mut buffer).is_ok() {}
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    sent
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse::<u64>().ok());
    let (streams, seconds) = (numbers.next().unwrap_or(200), numbers.next().unwrap_or(10));
    let (period, tapped) = (numbers.next().unwrap_or(2000), numbers.next().is_some());
    System::new().block_on(run(streams as u16, seconds, Duration::from_micros(period), tapped));
}

async fn run(streams: u16, seconds: u64, period: Duration, tapped: bool) {
    let figures = Arc::new(Figures::default());
    let shared = shared(&figures, LOOPBACK, (20_000, 39_999));
    let (tell, mut events) = unbounded_channel();
    let link: Link = Arc::new(move |_, message| {
        if let LinkMessage::Media(event) = message {
            drop(tell.send(event));
        }
    });
    let workers = spawn_paced(&shared, Clock::default(), &link, Vec::new(), period).unwrap();
    workers[0].tell(MediaOrder::Grow { shard: ShardId(0), address: LOOPBACK, pairs: streams });
    let Some(MediaEvent::Granted { pairs, .. }) = events.recv().await else { panic!("no ports") };
    let phones: Vec<UdpSocket> = pairs.iter().map(|_| UdpSocket::bind((LOOPBACK, 0)).unwrap()).collect();
    let dir = std::env::temp_dir().join(format!("tandem-relay-{}", std::process::id()));
    for (place, (phone, lease)) in phones.iter().zip(&pairs).enumerate() {
        phone.set_nonblocking(true).unwrap();
        let (call, side) = (CallKey(place as u64 / 2), (place % 2) as u8);
        let config = Box::new(SessionConfig {
            remote_rtp: Some(phone.local_addr().unwrap()),
            codec: Some(Codec::Pcmu),
            rtp_timeout: Some(Duration::from_secs(60)),
            ..SessionConfig::new(LOOPBACK)
        });
        let peer = Some(SessionId { call, side: 1 - side });
        let session = SessionId { call, side };
        workers[0].tell(MediaOrder::Open { session, lease: *lease, config, shard: ShardId(0), peer });
        if tapped && side == 0 {
            let path = dir.join(format!("{place}.wav"));
            workers[0].tell(MediaOrder::Record { call, shard: ShardId(0), path });
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let generator = thread::spawn(move || generate(&phones, &pairs, &stopped));
    // The first second fills buffers and caches.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let measure = || {
        let counts =
            ["in", "out"].map(|d| figures.counter(&format!("tandem_rtp_packets_total{{direction={d}}}")));
        (cpu_ns("actix-rt"), cpu_ns("recorder"), counts)
    };
    let (before, wall) = (measure(), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (after, wall) = (measure(), wall.elapsed());
    stop.store(true, Ordering::Relaxed);
    let sent = generator.join().unwrap();
    // The directory may never have been made.
    let _ = fs::remove_dir_all(dir);
    let packets = after.2[0] - before.2[0];
    let us = |ns: u64| ns as f64 / 1000.0 / packets as f64;
    println!(
        "{streams} streams, step each {period:?}, {:.0} packets/s relayed ({sent} sent in all, out {}): worker {:.2} us/packet ({:.1} % of a core), recorder {:.2} us/packet, unsent {}, bound hits {}",
        packets as f64 / wall.as_secs_f64(),
        after.2[1] - before.2[1],
        us(after.0 - before.0),
        (after.0 - before.0) as f64 / wall.as_nanos() as f64 * 100.0,
        us(after.1 - before.1),
        figures.counter("tandem_rtp_unsent_total{}"),
        figures.counter("tandem_media_bound_hits_total{}"),
    );
}
