//! Interoperation with baresip, a softphone that is not ours: its own SIP, SDP and RTP on the other end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::engine::stations;
use common::phone::{QUICK, assert_heard, voice};
use common::tls::{self, Authority};
use common::{Engine, SOON, TestPhone, eventually, so};
use serde_json::{Value, json};
use tandem_media::tone::ToneGenerator;
use tandem_phone::{AutoAnswer, CallHandle, Command as Order, Direction, Event};

/// Station 1001. baresip 1.0.0 gives up at a challenge in SHA-256, even after one in MD5 ("Function not implemented"): it stands for
/// the phones that the default challenge must suit.
const STATION: &str = r#"
[[station]]
name = "1001"
extension = "1001"
password = "secret-1001"
"#;
/// baresip hangs up when its file ends, so the file is longer than any test.
const SPEECH_FRAMES: usize = 120 * 50;
const WAV_HEADER: usize = 44;
/// Three seconds of audio.
const MANY: f64 = 150.0;

/// A baresip process as station 1001 at the engine's peer address, registered. It says the station's voice, answers
/// by itself, and is killed when this is dropped.
struct Baresip {
    child: Child,
    control: TcpStream,
    received: Vec<u8>,
    dir: PathBuf,
}

impl Baresip {
    /// Starts it and waits until the engine has its binding.
    #[track_caller]
    fn registered(engine: &Engine) -> Baresip {
        Baresip::registered_by(engine, "")
    }

    /// The same with these parameters of its account's URI.
    #[track_caller]
    fn registered_by(engine: &Engine, parameters: &str) -> Baresip {
        let dir = engine.dir().join("baresip");
        fs::create_dir(&dir).unwrap();
        write_speech(&dir.join("says.wav"));
        configure(engine, &dir, parameters);
        let log = File::create(dir.join("log")).unwrap();
        let mut child = Command::new("baresip")
            .arg("-s")
            .arg("-f")
            .arg(&dir)
            .env("HOME", &dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("baresip, of the Debian package baresip-core");
        let at = SocketAddr::from((engine.peer(), 4444));
        let deadline = Instant::now() + SOON;
        let control = loop {
            match TcpStream::connect_timeout(&at, SOON) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => std::thread::park_timeout(Duration::from_millis(10)),
                Err(error) => {
                    child.kill().ok();
                    child.wait().ok();
                    let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
                    panic!("baresip's control port: {error}\n{log}");
                }
            }
        };
        let phone = Baresip { child, control, received: Vec::new(), dir };
        eventually("a binding of baresip", || so(binding(engine).is_some()));
        phone
    }

    /// Gives it a command and waits until it says that it was done.
    #[track_caller]
    fn command(&mut self, name: &str, parameters: &str) {
        let text = json!({ "command": name, "params": parameters, "token": name }).to_string();
        write!(self.control, "{}:{text},", text.len()).unwrap();
        let answer = self.wait(name, |message| message["response"] == true && message["token"] == name);
        assert_eq!(answer["ok"], true, "{answer}");
    }

    /// Waits for an event of this type.
    #[track_caller]
    fn event(&mut self, kind: &str) -> Value {
        self.wait(kind, |message| message["event"] == true && message["type"] == kind)
    }

    /// Waits for a message that `pick` accepts; those before it are dropped.
    #[track_caller]
    fn wait(&mut self, what: &str, pick: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        let mut seen = Vec::new();
        loop {
            while let Some(message) = netstring(&mut self.received) {
                if pick(&message) {
                    return message;
                }
                seen.push(message);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "baresip: no {what}; meanwhile: {seen:?}");
            self.control.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 4_096];
            match self.control.read(&mut buffer) {
                Ok(0) => panic!("baresip has ended before {what}; meanwhile: {seen:?}"),
                Ok(length) => self.received.extend(&buffer[..length]),
                // The deadline decides.
                Err(_) => {}
            }
        }
    }
}

impl Drop for Baresip {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            eprintln!("---- log of baresip\n{log}----");
        }
    }
}

/// Takes the first whole message, `LENGTH:JSON,`, off what was received.
fn netstring(received: &mut Vec<u8>) -> Option<Value> {
    let colon = received.iter().position(|byte| *byte == b':')?;
    let length: usize = std::str::from_utf8(&received[..colon]).unwrap().parse().expect("a length");
    let end = colon + 1 + length;
    if received.len() <= end {
        return None;
    }
    let message = serde_json::from_slice(&received[colon + 1..end]).expect("JSON");
    received.drain(..=end);
    Some(message)
}

/// Its whole configuration: no module but what the tests need, no sound card.
///
/// Its SIP is at the test's own address. Its RTP is not bound to one, so on loopback it comes from 127.0.0.1, and that
/// is what its SDP must say: the engine refuses audio from elsewhere. Its aufile module reads and cannot play.
fn configure(engine: &Engine, dir: &Path, parameters: &str) {
    let (ip, dir_name) = (engine.peer(), dir.display());
    let ca = engine.dir().join("ca.pem");
    let ca = if ca.exists() { format!("sip_cafile {}", ca.display()) } else { String::new() };
    let config = format!(
        "poll_method epoll\n\
         sip_listen {ip}:5060\n\
         net_interface 127.0.0.1\n\
         rtp_ports 10000-20000\n\
         audio_path {dir_name}\n\
         {ca}\n\
         audio_source aufile,{dir_name}/says.wav\n\
         audio_alert aufile,{dir_name}/alert.wav\n\
         menu_bell no\n\
         module_path /usr/lib/baresip/modules\n\
         module g711.so\n\
         module aufile.so\n\
         module_tmp account.so\n\
         module_app menu.so\n\
         module_app ctrl_tcp.so\n\
         ctrl_tcp_listen {ip}:4444\n"
    );
    fs::write(dir.join("config"), config).unwrap();
    let at = engine.sip.ip();
    let account = format!("<sip:1001@{at}{parameters}>;auth_pass=secret-1001;regint=60;answermode=auto\n");
    fs::write(dir.join("accounts"), account).unwrap();
}

/// Writes the voice of 1001: 16-bit PCM, mono, 8 kHz.
fn write_speech(path: &Path) {
    let mut tone = ToneGenerator::preset(voice("1001"));
    let mut samples = Vec::with_capacity(SPEECH_FRAMES * 320);
    for _ in 0..SPEECH_FRAMES {
        let mut frame = [0_i16; 160];
        tone.next_frame(&mut frame);
        samples.extend(frame.iter().flat_map(|sample| sample.to_le_bytes()));
    }
    let length = u32::try_from(samples.len()).unwrap();
    let mut wav = Vec::with_capacity(WAV_HEADER + samples.len());
    wav.extend(b"RIFF");
    wav.extend((length + 36).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    // PCM, one channel.
    wav.extend([1, 0, 1, 0]);
    wav.extend(8_000_u32.to_le_bytes());
    wav.extend(16_000_u32.to_le_bytes());
    // Bytes and bits of a sample.
    wav.extend([2, 0, 16, 0]);
    wav.extend(b"data");
    wav.extend(length.to_le_bytes());
    wav.extend(samples);
    fs::write(path, wav).unwrap();
}

/// The only binding of station 1001, if it has one.
fn binding(engine: &Engine) -> Option<Value> {
    let stations = engine.api("GET", "/api/v1/stations");
    let station = stations.as_array().unwrap().iter().find(|station| station["name"] == "1001").unwrap();
    match station["bindings"].as_array().unwrap().as_slice() {
        [] => None,
        [binding] => Some(binding.clone()),
        several => panic!("{several:?}"),
    }
}

/// Checks that there are so many legs, each with more than [`MANY`] packets both ways.
#[track_caller]
fn assert_flowed(cdr: &Value, legs: usize) {
    let list = cdr["legs"].as_array().unwrap();
    assert_eq!(list.len(), legs, "{cdr:#}");
    for leg in list {
        assert_eq!(leg["codec"], "PCMU", "{cdr:#}");
        for way in ["rx", "tx"] {
            assert!(leg[way].as_f64() > Some(MANY), "{cdr:#}");
        }
    }
}

/// Waits until the engine has passed more than [`MANY`] packets both ways on both legs of the only call: on baresip's what was not on the
/// phone's. It may begin to speak a second late.
#[track_caller]
fn flows(engine: &Engine, phone: &TestPhone) {
    eventually("audio both ways", || {
        let packets =
            ["in", "out"].map(|way| engine.metric("tandem_rtp_packets_total", &[("direction", way)]));
        let heard = f64::from(u32::try_from(phone.heard().packets).expect("few"));
        so(packets.iter().all(|all| all - heard > MANY) && heard > MANY)
    });
}

/// Calls baresip from a phone that knows its voice, up to the answer.
#[track_caller]
fn called(engine: &Engine, baresip: &mut Baresip) -> (TestPhone, CallHandle) {
    let mut phone = TestPhone::new(engine, "1002", "1001", AutoAnswer::Manual);
    let call = phone.dial("1001");
    phone.answered();
    baresip.event("CALL_ESTABLISHED");
    engine.call_in("up");
    (phone, call)
}

#[test]
fn baresip_registers_and_calls_the_echo() {
    let engine = Engine::start(STATION);
    let mut baresip = Baresip::registered(&engine);
    let binding = binding(&engine).unwrap();
    assert_eq!(binding["source"], format!("{}:5060", engine.peer()), "{binding:#}");
    assert!(binding["user_agent"].as_str().unwrap().starts_with("baresip"), "{binding:#}");

    baresip.command("dial", &format!("sip:*43@{}", engine.sip.ip()));
    baresip.event("CALL_ESTABLISHED");
    engine.call_in("up");
    for direction in ["in", "out"] {
        engine.reaches("tandem_rtp_packets_total", &[("direction", direction)], MANY + 1.0);
    }
    // It tells of no end that it has made itself: the record shows it.
    baresip.command("hangup", "");
    let cdr = engine.cdr("normal", 200, "caller");
    assert_eq!((cdr["from"].as_str(), cdr["to"].as_str()), (Some("1001"), Some("*43")));
    assert_flowed(&cdr, 1);
    engine.quiet();
}

#[test]
fn baresip_answers_and_is_heard() {
    let engine = Engine::start(&(STATION.to_owned() + &stations(&["1002"])));
    let mut baresip = Baresip::registered(&engine);
    let (mut phone, call) = called(&engine, &mut baresip);
    let heard = phone.listen(205);
    flows(&engine, &phone);
    phone.command(Order::Hangup(call));
    assert_eq!(phone.ended(), (true, Some(200)));
    baresip.event("CALL_CLOSED");
    assert_heard(&heard);
    let cdr = engine.cdr("normal", 200, "caller");
    assert_eq!((cdr["from"].as_str(), cdr["to"].as_str()), (Some("1002"), Some("1001")));
    assert_flowed(&cdr, 2);
    engine.quiet();
}

#[test]
fn baresip_holds_and_retrieves() {
    let engine = Engine::start(&(STATION.to_owned() + &stations(&["1002"])));
    let mut baresip = Baresip::registered(&engine);
    let (mut phone, _) = called(&engine, &mut baresip);
    for (command, expected) in [("hold", Direction::RecvOnly), ("resume", Direction::SendRecv)] {
        baresip.command(command, "");
        let changed = phone.wait(|event| matches!(event, Event::MediaChanged { .. } | Event::Ended { .. }));
        assert!(
            matches!(changed, Event::MediaChanged { direction, .. } if direction == expected),
            "{command}: {changed:?}"
        );
    }
    let before = phone.heard().packets;
    assert_heard(&phone.listen(before + 205));
    baresip.command("hangup", "");
    assert_eq!(phone.ended(), (false, None));
    engine.cdr("normal", 200, "callee");
    engine.quiet();
}

/// Calls both ways by a transport that it has registered by.
#[track_caller]
fn calls_and_is_called_by(engine: &Engine, transport: &str) {
    let mut baresip = Baresip::registered_by(engine, &format!(";transport={transport}"));
    assert_eq!(binding(engine).unwrap()["listener"], transport);
    let invites = |direction| {
        let labels = [("direction", direction), ("method", "INVITE"), ("transport", transport)];
        engine.metric("tandem_sip_messages_total", &labels)
    };

    let mut phone = TestPhone::new(engine, "1002", "1001", QUICK).registered();
    baresip.command("dial", &format!("sip:1002@{};transport={transport}", engine.sip.ip()));
    baresip.event("CALL_ESTABLISHED");
    phone.answered();
    assert_heard(&phone.listen(205));
    assert!(invites("in") >= 2.0, "the one without credentials, the one with");
    flows(&engine, &phone);
    baresip.command("hangup", "");
    assert_eq!(phone.ended(), (false, None));
    assert_flowed(&engine.cdr("normal", 200, "caller"), 2);

    let before = invites("out");
    let call = phone.dial("1001");
    phone.answered();
    baresip.event("CALL_ESTABLISHED");
    assert!(invites("out") > before, "over its connection");
    phone.command(Order::Hangup(call));
    assert_eq!(phone.ended(), (true, Some(200)));
    baresip.event("CALL_CLOSED");
    assert_eq!(engine.wait_cdrs(2)[1]["cause"], "normal");
    engine.quiet();
}

#[test]
fn baresip_on_tcp_calls_and_is_called() {
    let listen = "[[listen]]\nname = \"udp\"\naddress = \"{ip}:5060\"\n\
        [[listen]]\nname = \"tcp\"\ntransport = \"tcp\"\naddress = \"{ip}:5060\"\n";
    let engine = Engine::start(&(listen.to_owned() + STATION + &stations(&["1002"])));
    calls_and_is_called_by(&engine, "tcp");
}

#[test]
fn baresip_on_tls_calls_and_is_called() {
    let ca = Authority::new("ours");
    let engine = tls::engine(&ca, "", &(STATION.to_owned() + &stations(&["1002"])));
    calls_and_is_called_by(&engine, "tls");
}
