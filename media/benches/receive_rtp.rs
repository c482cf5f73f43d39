//! What the packet rules of a leg cost per packet: `cargo bench -p tandem-media`.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tandem_media::rtp::{HEADER_LEN, RtpPacket};
use tandem_media::session::{Session, SessionConfig, Verdict};

const ROUNDS: u32 = 20;
const PACKETS: u32 = 1_000_000;

fn nanoseconds(from: SocketAddr, expected: Verdict) -> f64 {
    let named = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4000));
    let config = SessionConfig {
        remote_rtp: Some(named),
        codec: Some(tandem_media::codec::Codec::Pcmu),
        payload_types: vec![0],
        telephone_event: Some(101),
        ..SessionConfig::new(named.ip())
    };
    let mut bytes = Vec::new();
    let payload = &[0xff; 160];
    RtpPacket { marker: false, payload_type: 0, sequence: 0, timestamp: 0, ssrc: 1, payload }
        .write(&mut bytes);
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let mut session = Session::new(config.clone(), Duration::ZERO);
        let begin = Instant::now();
        for n in 0..PACKETS {
            bytes[2..4].copy_from_slice(&(n as u16).to_be_bytes());
            bytes[4..8].copy_from_slice(&n.wrapping_mul(160).to_be_bytes());
            // 10 us apart, so that a foreign source never finds the named one silent.
            let now = Duration::from_micros(10) * (n % 10_000);
            assert_eq!(session.receive_rtp(black_box(now), black_box(from), black_box(&bytes)), expected);
        }
        black_box(&session);
        best = best.min(begin.elapsed().as_nanos() as f64 / f64::from(PACKETS));
    }
    best
}

#[allow(clippy::print_stdout)]
fn main() {
    use tandem_media::session::Refused;
    let address = |port| SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port));
    let packet = HEADER_LEN + 160;
    println!(
        "receive_rtp of {packet} bytes, delivered: {:.1} ns",
        nanoseconds(address(4000), Verdict::Deliver)
    );
    let foreign = Verdict::Refuse(Refused::ForeignSource);
    println!("receive_rtp of {packet} bytes, foreign:   {:.1} ns", nanoseconds(address(4002), foreign));
}
