//! The messages of RFC 4475 and RFC 5118, each sent as one datagram to a running engine (RFC 4475 §2: the fate of each is
//! a status, or silence).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::Path;

use common::engine::stations;
use common::phone::{connect, pair};
use common::ua::token;
use common::{Engine, Msg, SOON, Ua};
use tandem_phone::Command;

/// What must come of a message.
#[derive(Clone, Copy)]
enum Fate {
    /// A final response of one of these statuses. Where the RFC leaves a choice, or where a refusal for another good
    /// reason may come first, there are several.
    Answered(&'static [u16]),
    /// No answer, and it is counted as dropped.
    Counted,
    /// No answer: a response that belongs to nothing, or an ACK.
    Silence,
}

use Fate::{Answered, Counted, Silence};

/// In the order of the RFCs. The sender is a trunk, so that requests are judged for what they say; it calls numbers
/// that nobody has.
const MESSAGES: &[(&str, Fate)] = &[
    // RFC 4475 §3.1.1. `wsinv` has a To tag, but there is no such dialog.
    ("wsinv", Answered(&[481])),
    ("intmeth", Answered(&[405, 501])),
    ("esc01", Answered(&[404])),
    ("escnull", Answered(&[401, 403, 404])),
    ("esc02", Answered(&[405, 501])),
    ("lwsdisp", Answered(&[200])),
    ("longreq", Answered(&[404])),
    ("dblreq", Answered(&[401, 403, 404])),
    ("semiuri", Answered(&[200, 404])),
    ("transports", Answered(&[200])),
    ("mpart01", Answered(&[401, 405, 415, 501])),
    ("unreason", Silence),
    ("noreason", Silence),
    // §3.1.2
    ("badinv01", Answered(&[400])),
    ("clerr", Answered(&[400])),
    ("ncl", Answered(&[400])),
    ("scalar02", Answered(&[400])),
    ("scalarlg", Counted),
    ("quotbal", Answered(&[400])),
    ("ltgtruri", Answered(&[400])),
    ("lwsruri", Answered(&[400])),
    ("lwsstart", Answered(&[400])),
    ("trws", Answered(&[400])),
    ("escruri", Answered(&[400])),
    ("baddate", Answered(&[400, 404])),
    ("regbadct", Answered(&[400, 401, 403, 404])),
    ("badaspec", Answered(&[400])),
    ("baddn", Answered(&[400])),
    ("badvers", Answered(&[505])),
    ("mismatch01", Answered(&[400])),
    ("mismatch02", Answered(&[400, 501])),
    ("bigcode", Counted),
    // §3.2
    ("badbranch", Answered(&[200, 400])),
    // §3.3
    ("insuf", Counted),
    ("unkscm", Answered(&[416])),
    ("novelsc", Answered(&[416])),
    ("unksm2", Answered(&[400, 401, 403, 404])),
    ("bext01", Answered(&[420])),
    ("invut", Answered(&[415])),
    ("regaut01", Answered(&[401, 403, 404])),
    ("multi01", Answered(&[400])),
    ("mcl01", Answered(&[400])),
    ("bcast", Silence),
    ("zeromf", Answered(&[200, 483])),
    ("cparam01", Answered(&[401, 403, 404])),
    ("cparam02", Answered(&[401, 403, 404])),
    ("regescrt", Answered(&[400, 401, 403, 404])),
    ("sdp01", Answered(&[404, 406])),
    // §3.4
    ("inv2543", Answered(&[404])),
    // RFC 5118 §4
    ("ipv6-good", Answered(&[401, 403, 404])),
    ("ipv6-bad", Answered(&[400])),
    ("port-ambiguous", Answered(&[401, 403, 404])),
    ("port-unambiguous", Answered(&[401, 403, 404])),
    ("via-received-param-with-delim", Answered(&[200])),
    ("via-received-param-no-delim", Answered(&[200])),
    ("ipv6-in-sdp", Answered(&[404])),
    ("mult-ip-in-header", Answered(&[481])),
    ("mult-ip-in-sdp", Answered(&[404])),
    ("ipv4-mapped-ipv6", Answered(&[404])),
    ("ipv6-bug-abnf-3-colons", Answered(&[400])),
];

/// The bytes of each message, by name.
fn read() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture");
    let mut messages: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    messages.sort();
    messages
}

/// Stations, and a trunk whose other side is where the tests' sockets are.
fn engine() -> Engine {
    let trunk = "[[trunk]]\nname = \"a\"\nproxies = [\"{peer}:5099\"]\naccept_from = [\"{peer}/32\"]\n";
    Engine::start(&format!("{trunk}{}", stations(&["1001", "1002"])))
}

/// What comes before the answer to an OPTIONS that is sent after it. All comes from one socket, so it is handled in order
/// unless the shards differ; and to the message that must be answered the answer is waited for.
fn until_the_ping(ua: &Ua) -> Vec<Msg> {
    let call_id = format!("ping-{}", token());
    let mut leg = ua.leg("ping");
    leg.call_id.clone_from(&call_id);
    ua.next(&mut leg, "OPTIONS", "", "");
    let mut before = Vec::new();
    loop {
        let message = ua.receive(SOON).expect("the answer to an OPTIONS");
        if message.header("Call-ID") == call_id {
            assert_eq!(message.status(), Some(200), "{message:?}");
            return before;
        }
        before.push(message);
    }
}

/// The final response to the message just sent, acknowledged if it answers an INVITE.
fn final_of(ua: &Ua, name: &str) -> Msg {
    loop {
        let message = ua.receive(SOON).unwrap_or_else(|| panic!("no answer to {name}"));
        let status = message.status().unwrap_or_else(|| panic!("{name}: a request came: {message:?}"));
        if status >= 200 {
            if message.header("CSeq").ends_with("INVITE") {
                acknowledge(ua, &message);
            }
            return message;
        }
    }
}

/// The ACK of a refusal, which its transaction knows by Via and CSeq.
fn acknowledge(ua: &Ua, refusal: &Msg) {
    let top = refusal.header("Via").split(", ").next().unwrap().split(";received=").next().unwrap();
    let cseq = refusal.header("CSeq").replace("INVITE", "ACK");
    ua.send(format!(
        "ACK sip:a SIP/2.0\r\nVia: {top}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq}\r\nMax-Forwards: 70\r\n\
         Content-Length: 0\r\n\r\n",
        refusal.header("From"),
        refusal.header("To"),
        refusal.header("Call-ID"),
    ));
}

/// Two phones can call each other.
fn serves(engine: &Engine) {
    let (mut a, mut b) = pair(engine, "1001", "1002");
    let (call, _) = connect(&mut a, &mut b);
    a.command(Command::Hangup(call));
    assert_eq!((a.ended(), b.ended()), ((true, Some(200)), (false, None)));
    engine.quiet();
}

#[test]
fn each_torture_message_gets_its_status_or_silence_and_the_engine_still_serves() {
    let mut engine = engine();
    let messages = read();
    assert_eq!(messages.len(), MESSAGES.len());
    let mut wrong = Vec::new();
    for (name, fate) in MESSAGES {
        let (_, bytes) = messages.iter().find(|(found, _)| found == name).expect(name);
        // A socket for each, so that no answer is taken for another's.
        let ua = Ua::new(&engine, "torture");
        let dropped = engine.metric("tandem_sip_dropped_total", &[]);
        ua.send(bytes);
        match fate {
            Answered(statuses) => {
                let answer = final_of(&ua, name);
                if !statuses.contains(&answer.status().unwrap()) {
                    wrong.push(format!("{name}: {} and not one of {statuses:?}", answer.first_line()));
                } else if *statuses == [420] {
                    assert!(answer.header("Unsupported").contains("nothingSupportsThisEither"), "{answer:?}");
                }
            }
            Counted => {
                engine.reaches("tandem_sip_dropped_total", &[], dropped + 1.0);
                wrong.extend(until_the_ping(&ua).iter().map(|m| format!("{name}: {}", m.first_line())));
            }
            Silence => {
                wrong.extend(until_the_ping(&ua).iter().map(|m| format!("{name}: {}", m.first_line())));
                assert_eq!(engine.metric("tandem_sip_dropped_total", &[]), dropped, "{name} is SIP");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(engine.ended().is_none());
    serves(&engine);
}

#[test]
fn a_message_beyond_a_limit_of_the_settings_is_answered_513_and_counted() {
    let listen = "[[listen]]\naddress = \"{ip}:5060\"\nmax_message_bytes = 3000\nmax_header_bytes = 1000\n\
                  max_headers = 20\nmax_vias = 5\n";
    let engine = Engine::start(&format!("{listen}{}", stations(&["1001", "1002"])));
    let ua = Ua::new(&engine, "ping");
    let via = |n: usize| "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n".repeat(n);
    let padded = |n: usize| format!("Subject: {}\r\n", "x".repeat(n - 9));
    // One Via and eight header lines are there already.
    for (what, fits, too_much) in [
        ("Via values", via(4), via(5)),
        ("header lines", "Subject: x\r\n".repeat(12), "Subject: x\r\n".repeat(13)),
        ("a header", padded(1000), padded(1001)),
        (
            "a folded header",
            format!("Subject: {}\r\n", "\r\n x".repeat(100)),
            "Subject:\r\n x".to_owned() + &"\r\n x".repeat(400) + "\r\n",
        ),
    ] {
        let mut leg = ua.leg("ping");
        ua.next(&mut leg, "OPTIONS", &fits, "");
        assert_eq!(ua.final_response("OPTIONS").status(), Some(200), "{what}");
        let before = engine.metric("tandem_sip_dropped_total", &[]);
        ua.next(&mut leg, "OPTIONS", &too_much, "");
        assert_eq!(ua.final_response("OPTIONS").status(), Some(513), "{what}");
        engine.reaches("tandem_sip_dropped_total", &[], before + 1.0);
    }
    // A message that is too large for its body is answered; of a header section that is cut nothing is sure.
    let (mut leg, body) = (ua.leg("ping"), "x".repeat(3000));
    ua.next(&mut leg, "OPTIONS", "", &body);
    assert_eq!(ua.final_response("OPTIONS").status(), Some(513));
    let before = engine.metric("tandem_sip_dropped_total", &[]);
    ua.next(&mut leg, "OPTIONS", &padded(900).repeat(4), "");
    engine.reaches("tandem_sip_dropped_total", &[], before + 1.0);
    assert!(until_the_ping(&ua).is_empty());
    serves(&engine);
}
