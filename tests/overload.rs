//! More comes than the engine can do: what is refused and how, and what is served all the same.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::engine::stations;
use common::ua::token;
use common::{Engine, Msg, Ua, eventually, sdp, so};

/// So many INVITEs are under way at any time: what the engine has answered is made up for at once.
const AT_ONCE: usize = 100;

fn settings(overload: &str) -> String {
    format!(
        "{}[overload]\n{overload}\n\
         [[dial_plan.pattern]]\npattern = \"112\"\ntarget = \"service:echo\"\nemergency = true\n\
         [[dial_plan.pattern]]\npattern = \"600\"\ntarget = \"service:echo\"\n",
        stations(&["1001"])
    )
}

fn start(overload: &str) -> Engine {
    Engine::start_with(&settings(overload), &[("TANDEM__NODE__SHARDS", "1")])
}

/// A stranger who sends INVITEs without an end, and keeps [`AT_ONCE`] of them waiting.
struct Flood {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Vec<Msg>>,
}

impl Flood {
    fn begin(engine: &Engine) -> Flood {
        let stop = Arc::new(AtomicBool::new(false));
        let socket = UdpSocket::bind((engine.stranger(), 0)).expect("a socket");
        socket.connect(engine.sip).expect("an address");
        // What is lost is sent again by then.
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let stopped = stop.clone();
        let sender = thread::spawn(move || flood(&socket, &stopped));
        Flood { stop, sender }
    }

    /// Ends it; the answers of each kind, the first of each.
    fn end(self) -> Vec<Msg> {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().expect("the flood has ended")
    }
}

fn flood(socket: &UdpSocket, stopped: &AtomicBool) -> Vec<Msg> {
    let (mut kinds, mut buffer) = (Vec::<Msg>::new(), [0; 4096]);
    let local = socket.local_addr().expect("an address");
    for _ in 0..AT_ONCE {
        socket.send(invite(local, "").as_bytes()).expect("sent");
    }
    while !stopped.load(Ordering::Relaxed) {
        let lost = match socket.recv(&mut buffer) {
            Ok(length) => {
                let answer = Msg { text: String::from_utf8_lossy(&buffer[..length]).into_owned() };
                if !kinds.iter().any(|known| known.status() == answer.status()) {
                    kinds.push(answer);
                }
                1
            }
            Err(_) => AT_ONCE,
        };
        for _ in 0..lost {
            socket.send(invite(local, "").as_bytes()).expect("sent");
        }
    }
    kinds
}

/// An INVITE of nobody's, with these parameters of its Via.
fn invite(local: SocketAddr, via: &str) -> String {
    let id = token();
    format!(
        "INVITE sip:600@engine SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{id}{via}\r\nMax-Forwards: 70\r\n\
         From: <sip:x@{local}>;tag={id}\r\nTo: <sip:600@engine>\r\nCall-ID: {id}\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:x@{local}>\r\nContent-Length: 0\r\n\r\n"
    )
}

/// Sends an INVITE by another server, which asks for overload feedback, and gives the answer's Via.
fn via_of_answer(server: &Ua) -> String {
    server.send(invite(server.local(), ";oc;oc-algo=\"loss\""));
    let answer = server.final_response("INVITE");
    answer.header("Via").to_owned()
}

fn refused_share(engine: &Engine) -> f64 {
    engine.metric("tandem_overload_refused_share", &[("shard", "0")])
}

#[test]
fn new_calls_are_refused_and_calls_that_are_up_and_emergency_calls_are_served() {
    let engine = start("target_delay_ms = 1");
    let (caller, server) =
        (Ua::new(&engine, "1001"), Ua::on(&engine, "server", (engine.peer(), 5070).into()));
    let mut up = caller.call("600", &sdp(caller.local(), "0"));
    caller.established(&mut up);
    assert!(via_of_answer(&server).contains(";oc=0;oc-algo=\"loss\";oc-validity=500;oc-seq="));

    let flood = Flood::begin(&engine);
    eventually("most calls are refused", || so(refused_share(&engine) > 0.8));
    let refused = eventually("a refusal", || {
        let mut leg = caller.leg("600");
        caller.next(&mut leg, "INVITE", "", &sdp(caller.local(), "0"));
        let answer = caller.refused(&leg);
        (answer.status() == Some(503)).then_some(answer)
    });
    let retry_after: u32 = refused.header("Retry-After").parse().expect("seconds");
    assert!((3..=6).contains(&retry_after), "{retry_after}");
    eventually("a registration is refused", || {
        let answer = caller.register_once(&mut caller.registration(), &[], "");
        so(answer.status() == Some(503))
    });
    let told = eventually("feedback", || {
        let via = via_of_answer(&server);
        let share: u32 = via.split(";oc=").nth(1)?.split(';').next()?.parse().ok()?;
        (share > 50).then_some(via)
    });
    assert!(told.contains(";oc-algo=\"loss\""), "{told}");

    for _ in 0..10 {
        let mut leg = caller.call("112", &sdp(caller.local(), "0"));
        caller.established(&mut leg);
        caller.hang_up(&mut leg);
    }
    caller.hang_up(&mut up);
    assert!(engine.metric("tandem_invites_refused_total", &[("reason", "overload")]) > 0.0);

    let kinds = flood.end();
    let refusal = kinds.iter().find(|answer| answer.status() == Some(503)).expect("a 503");
    assert!(!refusal.header("Retry-After").is_empty(), "{refusal:?}");
    // Nothing comes any more, and that alone ends it.
    eventually("nothing is refused any more", || so(refused_share(&engine) <= 0.0));
    eventually("it is told", || so(engine.log().contains("the overload is over")));
    let mut leg = caller.call("600", &sdp(caller.local(), "0"));
    caller.established(&mut leg);
    caller.hang_up(&mut leg);
}

#[test]
fn without_a_target_nothing_is_refused_for_it() {
    let engine = start("target_delay_ms = 0");
    let flood = Flood::begin(&engine);
    engine.reaches("tandem_invites_refused_total", &[("reason", "unauthorized")], 2000.0);
    let kinds: Vec<Option<u16>> = flood.end().iter().map(Msg::status).collect();
    assert_eq!(kinds, [Some(401)]);
}

#[test]
fn what_finds_no_room_in_the_buffer_of_a_socket_is_counted() {
    let engine = start("target_delay_ms = 100");
    let socket = UdpSocket::bind((engine.stranger(), 0)).expect("a socket");
    socket.connect(engine.sip).expect("an address");
    engine.signal("STOP");
    for _ in 0..40_000 {
        socket.send(&[b'x'; 200]).expect("sent");
    }
    engine.signal("CONT");
    // What comes after it tells of it.
    Ua::new(&engine, "1001").ping();
    engine.reaches("tandem_sip_overflowed_total", &[], 1.0);
    let overflowed = engine.metric("tandem_sip_overflowed_total", &[]);
    engine.reaches("tandem_sip_dropped_total", &[], 40_000.0 - overflowed);
}
