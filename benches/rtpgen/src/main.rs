//! Sends and receives many streams of G.711 at 50 packets a second each, and says what came: the load of the relay benchmark.
//!
//! `tandem-rtpgen LIST SECONDS`; each line of LIST is `PORT PORT`: where a stream's socket is, and where it sends to, on 127.0.0.1.
//! The sending of a stream's packets is spread over the 20 ms of a packet, as that of unrelated phones is.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Slots of a packet's time; each stream has one.
const SLOTS: usize = 20;
const SLOT: Duration = Duration::from_millis(1);
/// RTP header and 20 ms of PCMU.
const PACKET: usize = 172;
/// How long packets that are still on their way are waited for.
const LINGER: Duration = Duration::from_millis(300);

/// One stream: a socket, and what passed through it.
struct Stream {
    socket: UdpSocket,
    ssrc: u32,
    sequence: u32,
    sent: u64,
    received: u64,
    refused: u64,
}

impl Stream {
    fn open(ssrc: u32, local: u16, remote: u16) -> std::io::Result<Stream> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, local))?;
        socket.connect((Ipv4Addr::LOCALHOST, remote))?;
        socket.set_nonblocking(true)?;
        Ok(Stream { socket, ssrc, sequence: 0, sent: 0, received: 0, refused: 0 })
    }

    fn send(&mut self) {
        let mut packet = [0xff_u8; PACKET];
        // Version 2, payload type PCMU; the marker on the first packet of a talk (RFC 3551 4.1).
        packet[0] = 0x80;
        packet[1] = if self.sequence == 0 { 0x80 } else { 0 };
        packet[2..4].copy_from_slice(&(self.sequence as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&self.sequence.wrapping_mul(160).to_be_bytes());
        packet[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        for (at, byte) in packet[12..].iter_mut().enumerate() {
            *byte = (at as u32 * 37 + self.sequence * 11 + self.ssrc) as u8;
        }
        self.sequence = self.sequence.wrapping_add(1);
        match self.socket.send(&packet) {
            Ok(_) => self.sent += 1,
            Err(_) => self.refused += 1,
        }
    }

    fn receive(&mut self) -> std::io::Result<()> {
        let mut packet = [0; 2048];
        loop {
            match self.socket.recv(&mut packet) {
                Ok(_) => self.received += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Nobody is there, says ICMP.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => self.refused += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

fn streams(list: &str) -> Result<Vec<Stream>, Box<dyn Error>> {
    let mut streams = Vec::new();
    for line in list.lines() {
        let (local, remote) = line.split_once(' ').ok_or("each line is two ports")?;
        let ssrc = 0x1234_0000 + streams.len() as u32;
        streams.push(Stream::open(ssrc, local.trim().parse()?, remote.trim().parse()?)?);
    }
    if streams.is_empty() { Err("no streams".into()) } else { Ok(streams) }
}

/// Runs the streams for `length`; returns by how much the latest slot was late.
fn run(streams: &mut [Stream], length: Duration) -> std::io::Result<Duration> {
    let began = Instant::now();
    let slots = (length.as_millis() / SLOT.as_millis()) as usize;
    let mut latest = Duration::ZERO;
    for slot in 0..slots + (LINGER.as_millis() / SLOT.as_millis()) as usize {
        let due = SLOT * slot as u32;
        let elapsed = began.elapsed();
        match due.checked_sub(elapsed) {
            Some(early) => sleep(early),
            None => latest = latest.max(elapsed - due),
        }
        for stream in streams.iter_mut().skip(slot % SLOTS).step_by(SLOTS) {
            stream.receive()?;
            if slot < slots {
                stream.send();
            }
        }
    }
    Ok(latest)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [list, seconds] = arguments.as_slice() else {
        eprintln!("usage: tandem-rtpgen LIST SECONDS");
        return ExitCode::from(2);
    };
    match measured(list, seconds) {
        Ok(report) => println!("{report}"),
        Err(error) => {
            eprintln!("tandem-rtpgen: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measured(list: &str, seconds: &str) -> Result<String, Box<dyn Error>> {
    let mut streams = streams(&std::fs::read_to_string(list)?)?;
    let latest = run(&mut streams, Duration::try_from_secs_f64(seconds.parse()?)?)?;
    let sum = |of: fn(&Stream) -> u64| streams.iter().map(of).sum::<u64>();
    let silent = streams.iter().filter(|stream| stream.received == 0).count();
    Ok(format!(
        r#"{{"streams": {}, "sent": {}, "received": {}, "refused": {}, "silent_streams": {silent}, "latest_ms": {}}}"#,
        streams.len(),
        sum(|s| s.sent),
        sum(|s| s.received),
        sum(|s| s.refused),
        latest.as_millis()
    ))
}
