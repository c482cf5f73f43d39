//! What stands before a proxy's phone: it hands on what comes, or answers itself, as the mood of the proxy is when a call first comes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use tandem_protocol::message::framing::peek_call_id;

use super::Mood;
use crate::engine::LISTENER;
use crate::ladder::header;
use crate::phones::Phones;
use crate::world::{Event, World};

/// Something that happens at a proxy.
#[derive(Clone, Debug)]
pub(crate) enum Turn {
    /// It goes down: its connections end, with a word or without.
    Down(SocketAddr, Mood),
    /// An INVITE that it held is handed on.
    Released { at: SocketAddr, call_id: Bytes },
}

/// What became of a call at a proxy: its messages are all treated alike, whatever its mood is later.
#[derive(Clone, Debug)]
enum Fate {
    /// The phone has it.
    Passed,
    /// Refused with these words.
    Refused { status: &'static str, retry_after: Option<u32> },
    /// The INVITE waits.
    Held { invite: Bytes, heeds: bool, says_trying: bool },
}

/// The fronts of all proxies.
#[derive(Default)]
pub(crate) struct Front {
    calls: BTreeMap<(SocketAddr, Bytes), Fate>,
}

fn status_line(status: u16) -> &'static str {
    match status {
        480 => "480 Temporarily Unavailable",
        500 => "500 Server Internal Error",
        502 => "502 Bad Gateway",
        504 => "504 Server Time-out",
        _ => "503 Service Unavailable",
    }
}

/// A response to `request`.
fn response(request: &str, status: &str, retry_after: Option<u32>) -> Bytes {
    let mut answer = format!("SIP/2.0 {status}\r\n");
    for line in request.lines().skip(1) {
        let name = line.split(':').next().unwrap_or_default();
        match name {
            "Via" | "From" | "Call-ID" | "CSeq" => answer.push_str(line),
            "To" => {
                answer.push_str(line);
                if !status.starts_with("100") && !line.contains(";tag=") {
                    answer.push_str(";tag=front");
                }
            }
            _ => continue,
        }
        answer.push_str("\r\n");
    }
    if let Some(seconds) = retry_after {
        answer.push_str(&format!("Retry-After: {seconds}\r\n"));
    }
    answer.push_str("Content-Length: 0\r\n\r\n");
    Bytes::from(answer)
}

impl Front {
    /// A message of the engine's has come to the proxy at `at`; true if its phone is to have it.
    pub(crate) fn lets_pass(
        &mut self,
        world: &World,
        phones: &Phones,
        at: SocketAddr,
        message: &Bytes,
    ) -> bool {
        let text = String::from_utf8_lossy(message);
        let Some(id) = peek_call_id(message).map(Bytes::copy_from_slice) else { return true };
        let to = header(&text, ["To", "t"]);
        let begins = text.starts_with("INVITE ") && !to.contains(";tag=");
        let key = (at, id);
        if begins && !self.calls.contains_key(&key) {
            self.receive(world, &key, message);
        }
        let say = |status: &str, retry_after| {
            phones.send(world, at, response(&text, status, retry_after));
        };
        match self.calls.get_mut(&key) {
            None | Some(Fate::Passed) => true,
            Some(Fate::Refused { status, retry_after }) => {
                if text.starts_with("INVITE ") {
                    say(status, *retry_after);
                } else if text.starts_with("CANCEL ") {
                    say("200 OK", None);
                }
                false
            }
            Some(Fate::Held { says_trying, .. }) if text.starts_with("INVITE ") => {
                if *says_trying {
                    say("100 Trying", None);
                }
                false
            }
            Some(Fate::Held { heeds, invite, .. }) if text.starts_with("CANCEL ") => {
                if *heeds {
                    let refused = response(&String::from_utf8_lossy(invite), "487 Request Terminated", None);
                    say("200 OK", None);
                    phones.send(world, at, refused);
                    self.calls
                        .insert(key, Fate::Refused { status: "487 Request Terminated", retry_after: None });
                }
                false
            }
            Some(Fate::Held { .. }) => false,
        }
    }

    /// A call comes to a proxy: what it does with it.
    fn receive(&mut self, world: &World, (at, id): &(SocketAddr, Bytes), invite: &Bytes) {
        let invite = invite.clone();
        let (fate, on_after) = match world.moods().of(*at, world.now()) {
            Mood::Well | Mood::Silent | Mood::Unreachable => (Fate::Passed, None),
            Mood::Refuses { status, retry_after } => {
                (Fate::Refused { status: status_line(status), retry_after }, None)
            }
            Mood::Stalls { on_after_us, heeds } => {
                (Fate::Held { invite, heeds, says_trying: true }, Some(on_after_us))
            }
            Mood::Slow { on_after_us } => {
                (Fate::Held { invite, heeds: false, says_trying: false }, Some(on_after_us))
            }
        };
        self.calls.insert((*at, id.clone()), fate);
        if let Some(after) = on_after {
            let turn = Turn::Released { at: *at, call_id: id.clone() };
            world.push(world.now() + after, Event::Carrier(turn));
        }
    }

    /// Something happens at a proxy; the message that its phone gets now.
    pub(crate) fn turn(&mut self, world: &World, turn: Turn) -> Option<(SocketAddr, SocketAddr, Bytes)> {
        match turn {
            Turn::Down(at, mood) => {
                world.streams_of_host(at, mood == Mood::Silent);
                None
            }
            Turn::Released { at, call_id } => {
                let known = self.calls.get_mut(&(at, call_id))?;
                if !matches!(known, Fate::Held { .. }) {
                    return None;
                }
                match std::mem::replace(known, Fate::Passed) {
                    Fate::Held { invite, .. } => Some((LISTENER, at, invite)),
                    Fate::Passed | Fate::Refused { .. } => None,
                }
            }
        }
    }
}
