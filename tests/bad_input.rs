//! What must be refused, on every surface, without harm.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command as Process;

use common::engine::stations;
use common::phone::{assert_heard, connect, pair};
use common::ua::token;
use common::{Engine, Ua, eventually, sdp, so};
use tandem_phone::Command;

/// The engine answers OPTIONS: it lives.
#[track_caller]
fn lives(engine: &Engine) {
    Ua::new(engine, "ping").ping();
    // An actor that answers late on a busy machine is a 503.
    eventually("health", || so(engine.ask("GET", "/healthz", "").status == 200));
}

/// An OPTIONS with `lines` in the place of its headers of these names.
fn with(ua: &Ua, replaced: &[(&str, &str)]) -> String {
    let mut leg = ua.leg("ping");
    leg.cseq = 1;
    let mut text = ua.text(&leg, "OPTIONS", &leg.target, &format!("z9hG4bK{}", token()), "", "");
    for (name, line) in replaced {
        let old =
            text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name}")).to_owned();
        text = text.replacen(&format!("{old}\r\n"), line, 1);
    }
    text
}

#[test]
fn malformed_requests_are_answered_400() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "ping");
    for (what, replaced) in [
        ("a CSeq of another method", ("CSeq:", "CSeq: 1 INVITE\r\n")),
        ("a CSeq that is no number", ("CSeq:", "CSeq: one OPTIONS\r\n")),
        ("a second Call-ID", ("Max-Forwards:", "Call-ID: b\r\n")),
        ("a body longer than the datagram", ("Content-Length:", "Content-Length: 999\r\n")),
        ("a length that is no number", ("Content-Length:", "Content-Length: -1\r\n")),
        ("a line that is no header", ("Max-Forwards:", "no header at all\r\n")),
    ] {
        ua.send(with(&ua, &[replaced]));
        let answer = ua.receive(common::SOON).unwrap_or_else(|| panic!("no answer: {what}"));
        assert_eq!(answer.status(), Some(400), "{what}: {answer:?}");
    }
    lives(&engine);
}

#[test]
fn a_400_that_would_be_much_larger_than_its_datagram_is_not_sent() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "ping");
    // In an answer the short names of headers are written out.
    let datagram = |id: &str, vias: usize| {
        format!(
            "OPTIONS sip:a SIP/2.0\r\nv:SIP/2.0/UDP 192.0.2.9\r\n{}f:a\r\nt:b\r\ni:{id}\r\nCSeq:1 OPTIONS\r\nl:-1\r\n\r\n",
            "v:x\r\n".repeat(vias)
        )
    };
    ua.send(datagram("large", 400));
    let small = datagram("small", 2);
    ua.send(&small);
    let answer = ua.receive(common::SOON).expect("an answer");
    assert_eq!((answer.status(), answer.header("Call-ID")), (Some(400), "small"), "{answer:?}");
    // They are of two shards, perhaps, and the large one of the later.
    engine.counts("tandem_sip_dropped_total", &[], 2.0);
    lives(&engine);
}

#[test]
fn requests_that_no_answer_could_name_are_dropped_and_counted() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "ping");
    let missing = ["Call-ID:", "From:", "To:", "CSeq:", "Via:"];
    for name in missing {
        ua.send(with(&ua, &[(name, "")]));
    }
    engine.reaches("tandem_sip_dropped_total", &[], missing.len() as f64);
    // Nothing came for them: the first answer is that to the OPTIONS after them.
    ua.send(with(&ua, &[]));
    assert_eq!(ua.receive(common::SOON).and_then(|answer| answer.status()), Some(200));
    lives(&engine);
}

#[test]
fn strangers_get_the_answers_that_tell_nothing() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::at(&engine, "nobody", engine.stranger().into());
    let mut leg = ua.leg("1001");
    for (method, status) in
        [("OPTIONS", 200), ("CANCEL", 481), ("GUESS", 405), ("MESSAGE", 401), ("SUBSCRIBE", 401)]
    {
        ua.next(&mut leg, method, "", "");
        let answer = ua.final_response(method);
        assert_eq!(answer.status(), Some(status), "{answer:?}");
        let banner = answer.text.to_lowercase();
        assert!(!banner.contains("tandem/") && !banner.contains(env!("CARGO_PKG_VERSION")), "{answer:?}");
    }
    leg.remote = format!("{};tag=nobody", leg.remote);
    for method in ["BYE", "INVITE", "INFO"] {
        ua.next(&mut leg, method, "", "");
        let answer = ua.final_response(method);
        assert_eq!(answer.status(), Some(481), "{answer:?}");
    }
    // An ACK is never answered: what comes next is the answer to the OPTIONS after it.
    ua.next(&mut leg, "ACK", "", "");
    let mut other = ua.leg("ping");
    ua.next(&mut other, "OPTIONS", "", "");
    assert!(ua.receive(common::SOON).unwrap().answers("OPTIONS", 200));
    lives(&engine);
}

/// Bytes of a seed: no library, so that a run can be repeated anywhere.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn garbage_on_the_sip_port_is_counted_and_dropped() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "noise");
    let before = engine.metric("tandem_sip_dropped_total", &[]);
    for seed in 0..200 {
        ua.send(noise(seed, 1 + (seed as usize * 37) % 1_400));
    }
    engine.reaches("tandem_sip_dropped_total", &[], before + 1.0);
    let whole = with(&ua, &[]);
    // Every prefix, and every byte of the message turned over once.
    for end in 0..whole.len() {
        ua.send(&whole.as_bytes()[..end]);
        let mut turned = whole.clone().into_bytes();
        turned[end] ^= 0x55;
        ua.send(turned);
        if end % 50 == 0 {
            // No more than the kernel keeps for the engine.
            lives(&engine);
        }
    }
    ua.send(vec![b'A'; 65_000]);
    let many = format!("Call-ID:{}", "x".repeat(60_000));
    ua.send(with(&ua, &[("Call-ID:", &format!("{many}\r\n"))]));
    lives(&engine);
}

/// What media has refused, or dropped as no RTP.
fn thrown_away(engine: &Engine) -> f64 {
    ["tandem_rtp_refused_total", "tandem_media_dropped_total"]
        .iter()
        .map(|name| engine.metric(name, &[]))
        .sum()
}

#[test]
fn garbage_on_a_media_port_is_refused_and_the_call_is_heard() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let call = a.dial("1002");
    let (_, to_a) = a.answered();
    b.answered();
    let near = UdpSocket::bind((engine.peer(), 0)).unwrap();
    let far = UdpSocket::bind((engine.stranger(), 0)).unwrap();
    for seed in 0..300_u32 {
        let bytes = noise(seed.into(), 1 + (seed as usize * 13) % 1_400);
        for (socket, port) in [(&near, to_a.port()), (&far, to_a.port()), (&far, to_a.port() + 1)] {
            socket.send_to(&bytes, (to_a.ip(), port)).unwrap();
        }
        if seed % 20 == 19 {
            // No more than the kernel keeps for the engine: a full socket loses what the phones say too.
            let least = f64::from(2 * (seed + 1));
            eventually("the garbage is read", || so(thrown_away(&engine) >= least));
        }
    }
    near.send_to(&[], to_a).unwrap();
    engine.reaches("tandem_rtp_refused_total", &[], 1.0);
    let (by_a, by_b) = (a.listen(155), b.listen(155));
    a.command(Command::Hangup(call));
    a.ended();
    assert_heard(&by_a);
    assert_heard(&by_b);
    lives(&engine);
}

#[test]
fn garbage_on_the_http_port_is_refused() {
    let engine = Engine::start(&stations(&["1001"]));
    for seed in 0..30 {
        let mut stream = TcpStream::connect(engine.http).unwrap();
        stream.set_read_timeout(Some(common::SOON)).unwrap();
        stream.write_all(&noise(seed, 1 + seed as usize * 100)).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
    for (method, path, body, status) in [
        ("GET", "/api/v1/calls/../../etc/passwd", "", 404),
        ("GET", "/api/v1/calls/c00zz", "", 404),
        ("GET", "/nowhere", "", 404),
        ("POST", "/api/v1/drain", "{", 400),
    ] {
        let answer = engine.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    }
    for token in [None, Some("guess")] {
        let answer = common::http::ask(engine.http, "GET", "/api/v1/calls", token, "").unwrap();
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    lives(&engine);
}

#[test]
fn an_offer_without_a_common_codec_is_488() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, _b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    for offer in [
        sdp(a.local(), "97") + "a=rtpmap:97 iLBC/8000\r\n",
        sdp(a.local(), "0").replace("RTP/AVP", "RTP/SAVP"),
        sdp(a.local(), "0").replace("m=audio", "m=video"),
    ] {
        let leg = a.call("*43", &offer);
        let refused = a.refused(&leg);
        assert_eq!(refused.status(), Some(488), "{refused:?}");
        assert!(!refused.headers("Warning").is_empty(), "{refused:?}");
    }
    engine.counts("tandem_invites_refused_total", &[("reason", "media")], 3.0);
    lives(&engine);
}

#[test]
fn an_offer_that_is_no_sdp_is_refused() {
    let engine = Engine::start(&stations(&["1001"]));
    let a = Ua::new(&engine, "1001");
    for body in ["this is no session description\r\n", "v=0\r\n", "v=0\r\nm=audio 99999999 RTP/AVP 0\r\n"] {
        let leg = a.call("*43", body);
        let refused = a.refused(&leg);
        assert!(matches!(refused.status(), Some(400 | 488)), "{refused:?}");
    }
    lives(&engine);
}

#[test]
fn without_a_free_port_a_call_is_503_and_counted() {
    // Room for two pairs: one call.
    let ports = "[media]\nports = [20000, 20003]\nworkers = 1\n[node]\nshards = 1\n";
    let engine = Engine::start(&format!("{ports}{}", stations(&["1001", "1002"])));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let (call, _) = connect(&mut a, &mut b);
    let other = Ua::new(&engine, "1002");
    let leg = other.call("1001", &sdp(other.local(), "0"));
    let refused = other.refused(&leg);
    assert_eq!(refused.status(), Some(503), "{refused:?}");
    assert!(refused.headers("Retry-After").is_empty(), "upstream would rest the whole server: {refused:?}");
    engine.counts("tandem_invites_refused_total", &[("reason", "no_port")], 1.0);
    a.command(Command::Hangup(call));
    a.ended();
    // Ports rest before they are used again.
    eventually("the ports are free again", || {
        let leg = other.call("*43", &sdp(other.local(), "0"));
        let answer = other.final_response("INVITE");
        other.ack(&leg, &answer);
        so(answer.status() == Some(200))
    });
}

/// The status and the complaint of a run that ends by itself.
fn ends(engine: &Engine) -> (Option<i32>, String) {
    let mut child = engine.command(&["run"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = child.stderr.take().unwrap();
    let status = common::within(common::SOON, "the engine ends", || child.try_wait().unwrap());
    let mut text = String::new();
    said.read_to_string(&mut text).unwrap();
    (status.code(), text)
}

#[test]
fn a_typing_error_in_the_settings_is_named_with_its_file() {
    let engine = Engine::prepare("[media]\nrtp_timout_s = 5\n", &[]);
    let (status, said) = ends(&engine);
    assert_eq!(status, Some(1), "{said}");
    let file = engine.dir().join("settings.toml");
    assert!(said.contains(&format!("{}:2: media.rtp_timout_s: unknown key", file.display())), "{said}");
    assert!(said.contains("rtp_timeout_s"), "it says what was meant: {said}");
}

#[test]
fn a_port_in_use_is_named() {
    let engine = Engine::prepare(&stations(&["1001"]), &[]);
    let taken = UdpSocket::bind(engine.sip).unwrap();
    let (status, said) = ends(&engine);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&engine.sip.to_string()) && said.contains("in use"), "{said}");
    drop(taken);
    let taken = std::net::TcpListener::bind(engine.http).unwrap();
    let (status, said) = ends(&engine);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&engine.http.to_string()) && said.contains("in use"), "{said}");
    drop(taken);
}

#[test]
fn a_second_engine_on_the_same_data_is_refused() {
    let engine = Engine::start(&stations(&["1001"]));
    let (sip, http) =
        (SocketAddr::from((engine.stranger(), 5060)), SocketAddr::from((engine.stranger(), 8080)));
    let output = engine
        .command(&["run"])
        .env("TANDEM__LISTEN", format!("[{{ address = \"{sip}\" }}]"))
        .env("TANDEM__HTTP__ADDRESS", http.to_string())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another engine uses"), "{said}");
    lives(&engine);
}

/// A tmpfs over the data directory; only root may have one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf, size: &str) -> Option<SmallDisk> {
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={size}");
        let done =
            Process::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).output().ok()?;
        done.status.success().then_some(SmallDisk(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Process::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk_costs_no_call_and_no_registration() {
    let mut engine = Engine::prepare(&stations(&["1001", "1002"]), &[]);
    let Some(disk) = SmallDisk::mount(engine.data(), "4m") else {
        eprintln!("not root: a small disk cannot be made, so a full one cannot be tested");
        return;
    };
    engine.restart();
    let fill = disk.0.join("fill");
    let mut file = fs::File::create(&fill).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}
    drop(file);
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    for _ in 0..5 {
        let (call, _) = connect(&mut a, &mut b);
        a.listen(10);
        a.command(Command::Hangup(call));
        assert_eq!((a.ended(), b.ended()), ((true, Some(200)), (false, None)));
    }
    engine.reaches("tandem_store_failed_total", &[], 1.0);
    engine.quiet();
    fs::remove_file(&fill).unwrap();
    let (call, _) = connect(&mut a, &mut b);
    a.command(Command::Hangup(call));
    a.ended();
    eventually("records are written again", || so(!engine.cdrs().is_empty()));
    lives(&engine);
    drop(engine);
    drop(disk);
}
