//! What happens to the sound: relay, sources, recording.

#![allow(clippy::unwrap_used, clippy::expect_used)]
// A recording is as long as its call by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command as Process;
use std::time::Instant;

use common::engine::{station, stations};
use common::phone::{assert_heard, connect, pair};
use common::rtp::RtpEnd;
use common::{Engine, Leg, Ua, eventually, sdp};
use tandem_phone::{Command, Event};

/// A call between two user agents with sockets for RTP: who they are, and where the engine wants their audio.
struct Call {
    a: Ua,
    b: Ua,
    leg: Leg,
    from_a: RtpEnd,
    from_b: RtpEnd,
    to_a: SocketAddr,
    to_b: SocketAddr,
}

/// Sets the call up; each end offers what `formats` says.
fn call(engine: &Engine, formats: &str) -> Call {
    let (a, b) = (Ua::new(engine, "1001"), Ua::new(engine, "1002").registered());
    let (from_a, from_b) = (RtpEnd::new(engine.peer().into()), RtpEnd::new(engine.peer().into()));
    let mut leg = a.call("1002", &sdp(from_a.local(), formats));
    let invite = b.request("INVITE");
    b.answer(&invite, &sdp(from_b.local(), formats));
    let answer = a.established(&mut leg);
    let (to_a, to_b) = (answer.media(), invite.media());
    Call { a, b, leg, from_a, from_b, to_a, to_b }
}

impl Call {
    /// The caller hangs up.
    fn end(mut self) {
        self.a.next(&mut self.leg, "BYE", "", "");
        self.b.respond(&self.b.request("BYE"), "200 OK", "", "", "");
        self.a.response("BYE", 200);
    }

    /// Packets cross both ways.
    fn flows(&self) {
        self.from_a.until_heard(self.to_a, 0x11, &self.from_b).expect("the callee hears the caller");
        self.from_b.until_heard(self.to_b, 0x22, &self.from_a).expect("the caller hears the callee");
    }
}

#[test]
fn both_hear_each_other_through_the_engine() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let call = a.dial("1002");
    let (_, to_a) = a.answered();
    let (_, to_b) = b.answered();
    assert_eq!((to_a.ip(), to_b.ip()), (engine.sip.ip(), engine.sip.ip()));
    let (by_a, by_b) = (a.listen(205), b.listen(205));
    a.command(Command::Hangup(call));
    a.ended();
    assert_heard(&by_a);
    assert_heard(&by_b);
    assert_eq!((by_a.strangers, by_b.strangers), (0, 0), "{by_a:?} {by_b:?}");
    let cdr = engine.cdr("normal", 200, "caller");
    for leg in cdr["legs"].as_array().unwrap() {
        assert_eq!(leg["codec"], "PCMU");
        assert!(leg["rx"].as_u64() >= Some(200) && leg["tx"].as_u64() >= Some(200), "{cdr:#}");
        assert!(leg["lost"].as_i64() <= Some(4) && leg["mos"].as_f64() > Some(4.0), "{cdr:#}");
    }
    assert!(engine.metric("tandem_rtp_packets_total", &[("direction", "in")]) >= 400.0);
}

#[test]
fn what_comes_from_elsewhere_is_refused_and_counted() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let call = call(&engine, "0");
    call.flows();
    let stranger = RtpEnd::new(engine.stranger().into());
    stranger.say(call.to_a, 0x66);
    engine.reaches("tandem_rtp_refused_total", &[], 1.0);
    call.from_a.say(call.to_a, 0x33);
    let next = call.from_b.wait("packet of the caller", |_, payload| payload[0] != 0x11);
    assert_eq!(next[12], 0x33, "the stranger's packet did not cross");
    call.end();
}

#[test]
fn a_phone_that_speaks_from_another_port_is_learned() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let call = call(&engine, "0");
    let elsewhere = RtpEnd::new(engine.peer().into());
    elsewhere.until_heard(call.to_a, 0x44, &call.from_b).expect("the port is learned");
    call.from_b.until_heard(call.to_b, 0x55, &elsewhere).expect("and sent to");
    call.from_a.until_heard(call.to_a, 0x11, &call.from_b).expect("the one that the SDP names takes over");
    call.end();
}

/// Where a description says that nobody speaks: a port that is nobody's.
fn nowhere() -> String {
    sdp(([127, 0, 0, 1], 9).into(), "0")
}

#[test]
fn a_fork_that_answers_is_heard_from_where_it_signals_though_another_was_asked_after_it() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let a = Ua::new(&engine, "1001");
    let forks = [engine.peer(), engine.stranger()].map(|ip| Ua::at(&engine, "1002", ip.into()).registered());
    for (answers, loses) in [(&forks[0], &forks[1]), (&forks[1], &forks[0])] {
        let (caller, callee) = (RtpEnd::new(engine.peer().into()), RtpEnd::new(answers.local().ip()));
        let lost = RtpEnd::new(loses.local().ip());
        let mut leg = a.call("1002", &sdp(caller.local(), "0"));
        let (invite, other) = (answers.request("INVITE"), loses.request("INVITE"));
        loses.respond(&other, "180 Ringing", "lost", "", "");
        answers.answer(&invite, &nowhere());
        let to_a = a.established(&mut leg).media();
        callee.until_heard(invite.media(), 0x11, &caller).expect("the one that answered is heard");
        caller.until_heard(to_a, 0x22, &callee).expect("and sent to");
        lost.say(invite.media(), 0x33);
        engine.reaches("tandem_rtp_refused_total", &[], 1.0);
        let cancel = loses.request("CANCEL");
        loses.respond(&cancel, "200 OK", "lost", "", "");
        loses.respond(&other, "487 Request Terminated", "lost", "", "");
        a.hang_up(&mut leg);
        answers.respond(&answers.request("BYE"), "200 OK", "", "", "");
        engine.quiet();
    }
}

#[test]
fn of_a_hunt_the_one_that_is_being_asked_is_heard_before_it_says_where_it_speaks() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let a = Ua::new(&engine, "1001");
    let [first, second] = [engine.peer(), engine.stranger()].map(|ip| Ua::at(&engine, "1002", ip.into()));
    for (ua, q) in [(&first, "1.0"), (&second, "0.5")] {
        let contact = format!("<{}>;q={q}", ua.contact());
        assert_eq!(ua.register(&[&contact], "Expires: 600\r\n").status(), Some(200));
    }
    let caller = RtpEnd::new(engine.peer().into());
    let leg = a.call("1002", &sdp(caller.local(), "0"));
    let invite = first.request("INVITE");
    let early = RtpEnd::new(first.local().ip());
    early.until_heard(invite.media(), 0x11, &caller).expect("the first is heard");
    first.respond(&invite, "486 Busy Here", "one", "", "");
    let invite = second.request("INVITE");
    let late = RtpEnd::new(second.local().ip());
    late.until_heard(invite.media(), 0x22, &caller).expect("the second is heard");
    let refused = engine.metric("tandem_rtp_refused_total", &[]);
    early.say(invite.media(), 0x33);
    engine.reaches("tandem_rtp_refused_total", &[], refused + 1.0);
    second.respond(&invite, "486 Busy Here", "two", "", "");
    a.refused(&leg);
    engine.quiet();
}

#[test]
fn keypresses_and_rtcp_cross_the_call() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let (from_a, from_b) = (RtpEnd::new(engine.peer().into()), RtpEnd::new(engine.peer().into()));
    let with_events =
        |media| sdp(media, "0 101") + "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n";
    let mut leg = a.call("1002", &with_events(from_a.local()));
    let invite = b.request("INVITE");
    assert!(invite.body().contains("telephone-event/8000"), "{invite:?}");
    b.answer(&invite, &with_events(from_b.local()));
    let to_a = a.established(&mut leg).media();
    from_a.until_heard(to_a, 0x11, &from_b).expect("audio");
    // Digit 5, then its end (RFC 4733).
    for payload in [[5, 10, 0, 160], [5, 0x8a, 1, 64]] {
        from_a.send(to_a, 101, payload[1] < 0x80, &payload);
    }
    let end = from_b.wait("end of the digit", |kind, payload| kind == 101 && payload[1] & 0x80 != 0);
    assert_eq!(end[12], 5);
    // An empty receiver report with an SDES of the sender (RFC 3550 section 6.5).
    let report =
        [0x80, 201, 0, 1, 0, 0, 0, 9, 0x81, 202, 0, 3, 0, 0, 0, 9, 1, 4, b't', b'e', b's', b't', 0, 0];
    from_a.send_rtcp(to_a, &report);
    from_b.wait_rtcp("report of the caller", |packet| packet.len() >= 8 && (200..=204).contains(&packet[1]));
    a.next(&mut leg, "BYE", "", "");
    b.respond(&b.request("BYE"), "200 OK", "", "", "");
}

#[test]
fn a_silent_call_is_ended_but_not_one_on_hold() {
    let silent = "[media]\nrtp_timeout_s = 3\n";
    let engine = Engine::start(&format!("{silent}{}", stations(&["1001", "1002"])));
    let call = call(&engine, "0");
    let bye = call.a.request("BYE");
    assert!(bye.header("Reason").contains("408"), "{bye:?}");
    call.a.respond(&bye, "200 OK", "", "", "");
    call.b.respond(&call.b.request("BYE"), "200 OK", "", "", "");
    engine.cdr("rtp_timeout", 200, "engine");

    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let (held, _) = connect(&mut a, &mut b);
    a.command(Command::Hold(held));
    a.wait(|event| matches!(event, Event::MediaChanged { .. }));
    // Five seconds by the packets of another call: more than the time that ends one that is not held.
    let other = common::phone::voice("1001");
    let mut clock = common::TestPhone::with(
        engine.sip,
        engine.peer(),
        "1001",
        Some(other),
        tandem_phone::AutoAnswer::Manual,
    );
    let echo = clock.dial("*43");
    clock.answered();
    clock.listen(250);
    clock.command(Command::Hangup(echo));
    clock.ended();
    assert_eq!(engine.call_in("up").len(), 19, "the held call is still there");
    a.command(Command::Hangup(held));
    assert_eq!(a.ended(), (true, Some(200)));
}

#[test]
fn bypass_leaves_the_session_descriptions_alone() {
    let bypass = |name| station(name, "media = \"bypass\"");
    let engine = Engine::start(&(bypass("1001") + &bypass("1002")));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let offer = sdp(a.local(), "0 8 18") + "a=x-of-nobody:else\r\na=ptime:20\r\n";
    let answer = sdp(b.local(), "8") + "a=ptime:30\r\n";
    let mut leg = a.call("1002", &offer);
    let invite = b.request("INVITE");
    assert_eq!(invite.body(), offer);
    b.answer(&invite, &answer);
    assert_eq!(a.established(&mut leg).body(), answer);
    engine.counts("tandem_media_sessions_active", &[], 0.0);
    a.next(&mut leg, "BYE", "", "");
    b.respond(&b.request("BYE"), "200 OK", "", "", "");
    assert_eq!(engine.cdr("normal", 200, "caller")["legs"], serde_json::json!([]));
}

/// What `sox` finds in a recording: channels and seconds; and the RMS level of each channel.
fn sound(file: &Path) -> (u32, f64, Vec<f64>) {
    let soxi = |flag: &str| {
        let output = Process::new("sox").args(["--i", flag]).arg(file).output().expect("sox");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let channels: u32 = soxi("-c").parse().unwrap();
    let level = |channel: u32| {
        let output = Process::new("sox")
            .arg(file)
            .args(["-n", "remix", &channel.to_string(), "stat"])
            .output()
            .expect("sox");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find(|line| line.starts_with("RMS") && line.contains("amplitude"));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    (channels, soxi("-D").parse().unwrap(), (1..=channels).map(level).collect())
}

#[test]
fn a_recording_has_the_caller_left_and_the_callee_right() {
    let engine = Engine::start(&(station("1001", "record = true") + &stations(&["1002"])));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let (call, _) = connect(&mut a, &mut b);
    a.listen(105);
    engine.counts("tandem_recordings_active", &[], 1.0);
    a.command(Command::Hangup(call));
    a.ended();
    let cdr = engine.cdr("normal", 200, "caller");
    let file = cdr["recording"].as_str().expect("a recording in the CDR").to_owned();
    let (channels, seconds, levels) = sound(Path::new(&file));
    let most = cdr["duration_s"].as_f64().unwrap() + 0.5;
    assert!(channels == 2 && (1.8..most).contains(&seconds), "{channels} channels, {seconds} s of {cdr:#}");
    assert!(levels.iter().all(|level| *level > 0.01), "{levels:?}");
    eventually("the recording has ended", || {
        common::so(engine.metric("tandem_recordings_active", &[]) == 0.0)
    });
}

#[test]
fn a_recording_can_be_played_after_kill_9() {
    let mut engine = Engine::start(&(station("1001", "record = true") + &stations(&["1002"])));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let begin = Instant::now();
    connect(&mut a, &mut b);
    a.listen(105);
    let calls = engine.calls();
    let file = calls[0]["recording"].as_str().expect("a recording in the call").to_owned();
    engine.kill9();
    let (channels, seconds, levels) = sound(Path::new(&file));
    let most = begin.elapsed().as_secs_f64();
    assert!(channels == 2 && (0.5..most).contains(&seconds), "{channels} channels, {seconds} s of {most} s");
    assert!(levels.iter().all(|level| *level > 0.005), "{levels:?}");
}

/// A file system of this many kilobytes, unmounted when dropped. Only root may have one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf, kilobytes: u32) -> Option<SmallDisk> {
        std::fs::create_dir_all(&at).unwrap();
        let size = format!("size={kilobytes}k");
        let status =
            Process::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output().ok()?;
        status.status.success().then_some(SmallDisk(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Process::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path().join("disk"), 64) else {
        eprintln!("not root: a small disk cannot be made, so a full one cannot be tested");
        return;
    };
    let recordings = format!("[media]\nrecording_dir = \"{}\"\n", disk.0.display());
    let engine = Engine::start(&(recordings + &station("1001", "record = true") + &stations(&["1002"])));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let (call, _) = connect(&mut a, &mut b);
    engine.reaches("tandem_recordings_failed_total", &[], 1.0);
    let before = a.heard().packets;
    a.listen(before + 100);
    a.command(Command::Hangup(call));
    assert_eq!(a.ended(), (true, Some(200)));
    engine.cdr("normal", 200, "caller");
}
