//! Valid requests with a few bytes or lines changed, thousands of them, at an engine that serves calls meanwhile.
//!
//! The seed is fresh and printed: `TANDEM_SEED` repeats a run, and `TANDEM_MUTATIONS` sets another number.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]
// The seed of a run is fresh.
#![allow(clippy::disallowed_methods)]

mod common;

use std::net::UdpSocket;
use std::time::SystemTime;

use common::engine::stations;
use common::phone::{assert_heard, connect, pair};
use common::ua::token;
use common::{Engine, Ua, sdp};
use tandem_phone::Command;

/// How many are sent unless told otherwise: ten seconds' worth of a debug build.
const USUAL: u64 = 100_000;
/// So many are in flight at most; then the engine is asked for a sign of life, so that the kernel drops none.
const BATCH: u64 = 200;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Xorshift64: no library, so that a seed can be repeated anywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit.max(1)
    }
}

/// What requests are made of, and what breaks parsers.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"\r\n ",
    b"\r\n\r\n",
    b"\"",
    b"<",
    b">",
    b";",
    b",",
    b":",
    b"@",
    b"%00",
    b"%",
    b"\xff",
    b"\xc3\x28",
    b"sip:",
    b"tel:",
    b";tag=",
    b";branch=z9hG4bK",
    b";received=",
    b";rport",
    b";lr",
    b"*",
    b"SIP/2.0",
    b"Via: ",
    b"Contact: *\r\n",
    b"Content-Length: 99999\r\n",
    b"Content-Length: -1\r\n",
    b"[::1]",
    b"4294967296",
    b"-1",
    b"\\",
    b"Require: 100rel\r\n",
    b"Replaces: a;to-tag=b;from-tag=c\r\n",
    b"Route: <sip:127.0.0.1:1;lr>\r\n",
    b"Max-Forwards: 0\r\n",
    b"m=audio 0 RTP/AVP 0\r\n",
    b"a=sendonly\r\n",
    b"INVITE",
    b"REGISTER",
    b"BYE",
    b"CANCEL",
    b"ACK",
];

fn mutate(chance: &mut Chance, bytes: &mut Vec<u8>) {
    for _ in 0..1 + chance.below(4) {
        let at = chance.below(bytes.len());
        match chance.below(7) {
            0 => bytes[at] ^= 1 << chance.below(8),
            1 => bytes[at] = chance.next() as u8,
            2 => bytes.truncate(at.max(1)),
            3 => {
                let piece = PIECES[chance.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            4 => {
                let end = (at + 1 + chance.below(40)).min(bytes.len());
                if end - at < bytes.len() {
                    bytes.drain(at..end);
                }
            }
            5 => {
                let end = (at + 1 + chance.below(80)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = chance.below(bytes.len());
                (0..1 + chance.below(4)).for_each(|_| drop(bytes.splice(to..to, copy.iter().copied())));
            }
            _ => swap_lines(chance, bytes),
        }
    }
}

fn swap_lines(chance: &mut Chance, bytes: &mut Vec<u8>) {
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let (a, b) = (chance.below(lines.len()), chance.below(lines.len()));
    lines.swap(a, b);
    *bytes = lines.concat();
}

/// A valid request; each is of a call of its own.
fn valid(chance: &mut Chance, ua: &Ua) -> Vec<u8> {
    let number = ["1001", "1002", "*43", "9999"][chance.below(4)];
    let mut leg = ua.leg(number);
    leg.cseq = 1 + chance.below(1000) as u32;
    let offer = sdp(ua.local(), "0 8 101") + "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n";
    let credentials = "Authorization: Digest username=\"1001\", realm=\"tandem\", nonce=\"bm9uY2U\", uri=\"sip:1002@a\", \
                       response=\"6629fae49393a05397450978507c4ef1\", algorithm=MD5, qop=auth, nc=00000001, cnonce=\"0a4f\"\r\n";
    let (method, headers, body) = match chance.below(7) {
        0 | 1 => ("INVITE", credentials, offer.as_str()),
        2 => ("REGISTER", credentials, ""),
        3 => ("BYE", "", ""),
        4 => ("CANCEL", "", ""),
        5 => ("ACK", "Reason: SIP;cause=200\r\n", ""),
        _ => ("OPTIONS", "Supported: timer, 100rel\r\nAccept: application/sdp\r\n", ""),
    };
    if method == "BYE" || method == "ACK" {
        leg.remote = format!("{};tag={}", leg.remote, token());
    }
    let branch = format!("z9hG4bK{}", token());
    ua.text(&leg, method, &leg.target.clone(), &branch, headers, body).into_bytes()
}

#[test]
fn calls_are_served_while_mutated_requests_rain_and_after() {
    let count = setting("TANDEM_MUTATIONS").unwrap_or(USUAL);
    let fresh = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = setting("TANDEM_SEED").unwrap_or_else(fresh);
    eprintln!("{count} mutations; again with TANDEM_SEED={seed}");
    let mut chance = Chance(seed | 1);
    let mut engine = Engine::start(&stations(&["1001", "1002"]));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let (call, _) = connect(&mut a, &mut b);
    let (rain, ping) = (Ua::new(&engine, "1001"), Ua::new(&engine, "ping"));
    let socket = UdpSocket::bind((engine.peer(), 0)).unwrap();
    for n in 1..=count {
        let mut bytes = valid(&mut chance, &rain);
        mutate(&mut chance, &mut bytes);
        bytes.truncate(60_000);
        socket.send_to(&bytes, engine.sip).unwrap();
        if n % BATCH == 0 {
            ping.ping();
            assert!(engine.ended().is_none(), "the engine ended after {n}");
        }
    }
    // The call of before is still heard, both ways; and a new one can be made.
    let (by_a, by_b) = (a.listen(100), b.listen(100));
    a.command(Command::Hangup(call));
    assert_eq!((a.ended(), b.ended()), ((true, Some(200)), (false, None)));
    assert_heard(&by_a);
    assert_heard(&by_b);
    let (call, _) = connect(&mut a, &mut b);
    a.command(Command::Hangup(call));
    assert_eq!((a.ended(), b.ended()), ((true, Some(200)), (false, None)));
    engine.quiet();
    assert!(engine.metric("tandem_sip_dropped_total", &[]) > count as f64 / 20.0);
    assert_eq!(engine.metric("tandem_actor_restarts_total", &[]), 0.0, "nothing panicked");
    assert!(!engine.log().contains("panicked"));
}
