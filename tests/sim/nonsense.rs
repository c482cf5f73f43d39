//! Strangers who send nonsense: garbage, and what they have made of the messages of running calls. Nobody answers them more than
//! they may learn, and no call minds them (the other checks see to that).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use tandem_protocol::message::framing::peek_call_id;

use crate::engine::LISTENER;
use crate::intruders::INTRUSIONS;
use crate::ladder;
use crate::plan::Part;
use crate::rng::Rng;
use crate::verbs::{Weighed, choose};
use crate::world::{Event, Fate, Line, World};

/// How far back they have listened, in messages.
const HEARD: usize = 400;
/// An answer is at most this longer than one and a half times what it answers.
const SLACK: usize = 200;

/// What a stranger may be answered.
pub(crate) type Due = fn(u16) -> bool;

pub(crate) fn nothing(_: u16) -> bool {
    false
}

pub(crate) fn refusal(status: u16) -> bool {
    (400..700).contains(&status)
}

struct Stranger {
    what: &'static str,
    due: Due,
    /// Knows the tag of a dialog: a refused re-INVITE is refused again and again until its ACK.
    knows_tag: bool,
    by_stream: bool,
}

/// All of them.
pub(crate) struct Nonsense {
    rng: Rng,
    strangers: BTreeMap<SocketAddr, Stranger>,
}

/// True of an address that is a stranger's.
pub(crate) fn is_stranger(address: SocketAddr) -> bool {
    match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[..2] == [10, 67],
        std::net::IpAddr::V6(_) => false,
    }
}

/// A message that can be changed.
#[derive(Clone)]
pub(crate) struct Draft {
    start: String,
    pub(crate) lines: Vec<String>,
    pub(crate) body: String,
}

impl Draft {
    fn read(text: &str) -> Option<Draft> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n").map(str::to_owned);
        Some(Draft { start: lines.next()?, lines: lines.collect(), body: body.to_owned() })
    }

    pub(crate) fn print(&self) -> Vec<u8> {
        format!("{}\r\n{}\r\n\r\n{}", self.start, self.lines.join("\r\n"), self.body).into_bytes()
    }

    fn line(&mut self, name: &str) -> Option<&mut String> {
        let is_it = |line: &&mut String| line.split(':').next() == Some(name);
        self.lines.iter_mut().find(is_it)
    }

    fn value(&self, name: &str) -> &str {
        let is_it = |line: &&String| line.split(':').next() == Some(name);
        let line = self.lines.iter().find(is_it).and_then(|line| line.split_once(": "));
        line.map_or("", |(_, value)| value)
    }

    pub(crate) fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    pub(crate) fn is_request(&self) -> bool {
        self.start.ends_with(" SIP/2.0")
    }

    fn has_tag(&self) -> bool {
        self.value("To").contains(";tag=")
    }

    /// Another method, in a transaction of its own.
    pub(crate) fn ask(&mut self, method: &str, rng: &mut Rng) {
        let uri = self.start.split(' ').nth(1).unwrap_or("sip:x").to_owned();
        self.start = format!("{method} {uri} SIP/2.0");
        let number: u32 = self.value("CSeq").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(1);
        self.number(number + 1, method);
        self.rebranch(rng);
    }

    fn number(&mut self, number: u32, method: &str) {
        if let Some(line) = self.line("CSeq") {
            *line = format!("CSeq: {number} {method}");
        }
    }

    pub(crate) fn rebranch(&mut self, rng: &mut Rng) {
        let fresh = format!("branch=z9hG4bKx{:016x}", rng.next());
        if let Some(line) = self.line("Via")
            && let Some((head, tail)) = line.clone().split_once("branch=")
        {
            let rest = tail.find(';').map_or("", |at| &tail[at..]);
            *line = format!("{head}{fresh}{rest}");
        }
    }

    /// Puts another word in the place of one of what names a dialog.
    fn spoil(&mut self, names: &[&str], rng: &mut Rng) {
        let name = rng.pick(names);
        let random = format!("{:x}", rng.next());
        if let Some(line) = self.line(name) {
            *line = match line.split_once(";tag=") {
                Some((head, _)) => format!("{head};tag={random}"),
                None => format!("{name}: {random}"),
            };
        }
    }

    /// Without a To tag, and of no call.
    pub(crate) fn stray(&mut self, rng: &mut Rng) {
        let random = format!("{:x}", rng.next());
        if let Some(line) = self.line("To")
            && let Some((head, _)) = line.clone().split_once(";tag=")
        {
            *line = head.to_owned();
        }
        if let Some(line) = self.line("Call-ID") {
            *line = format!("Call-ID: {random}");
        }
    }
}

/// One stranger at work.
pub(crate) struct Work<'a> {
    world: &'a World,
    pub(crate) rng: &'a mut Rng,
    made: Option<(Vec<Vec<u8>>, Stranger)>,
    /// When its connection is reset.
    pub(crate) leaves: Option<u64>,
}

impl Work<'_> {
    /// A message that went over the wire lately.
    pub(crate) fn overheard(&mut self, wanted: impl Fn(&Draft, bool) -> bool) -> Option<Draft> {
        let rng = &mut *self.rng;
        self.world.with_lines(|lines| {
            let first = lines.len().saturating_sub(HEARD);
            (0..24).find_map(|_| {
                let line = lines.get(first + rng.below((lines.len() - first) as u64) as usize)?;
                if is_stranger(line.from) || is_stranger(line.to) || line.fate == Fate::Lost {
                    return None;
                }
                let draft = Draft::read(std::str::from_utf8(&line.bytes).ok()?)?;
                wanted(&draft, line.to == LISTENER).then_some(draft)
            })
        })
    }

    /// A CSeq that the engine has had from the peer in this dialog and cannot forget: that of the INVITE which began it. Of a peer that
    /// was called, one that was answered with 2xx; a kill can forget it.
    fn long_had(&self, call_id: &str) -> Option<u32> {
        let kills = self.world.plan().kills + self.world.plan().fences > 0;
        self.world.with_lines(|lines| {
            let of_dialog = |line: &&Line| {
                peek_call_id(&line.bytes) == Some(call_id.as_bytes()) && line.fate != Fate::Lost
            };
            let had = lines.iter().filter(of_dialog).filter_map(|line| {
                let draft = Draft::read(std::str::from_utf8(&line.bytes).ok()?)?;
                let begins = line.to == LISTENER && draft.method() == "INVITE" && !draft.has_tag();
                let answer = line.from == LISTENER && draft.start.starts_with("SIP/2.0 2");
                let between_us = !is_stranger(line.from) && !is_stranger(line.to);
                let number = draft.value("CSeq").split(' ').next()?.parse().ok()?;
                (between_us && (begins || answer && !kills)).then_some(number)
            });
            had.min()
        })
    }

    fn done(&mut self, what: &'static str, bytes: Vec<u8>, due: Due) {
        self.made = Some((vec![bytes], Stranger { what, due, knows_tag: false, by_stream: false }));
    }

    /// Messages by a connection of the stranger's own.
    pub(crate) fn by_stream(&mut self, what: &'static str, messages: Vec<Vec<u8>>, due: Due) {
        self.made = Some((messages, Stranger { what, due, knows_tag: false, by_stream: true }));
    }

    /// A request within a running dialog, but for one word.
    fn spoofed(&mut self, what: &'static str, method: &str, due: Due) {
        let Some(mut draft) = self.overheard(|draft, _| draft.is_request() && draft.has_tag()) else {
            return;
        };
        draft.ask(method, self.rng);
        draft.spoil(&["To", "From", "Call-ID"], self.rng);
        let knows_tag = method == "INVITE";
        self.made = Some((vec![draft.print()], Stranger { what, due, knows_tag, by_stream: false }));
    }

    fn outside(&mut self, what: &'static str, method: &str, due: Due) {
        let wanted = |draft: &Draft, ours: bool| ours && draft.is_request() && draft.method() != "ACK";
        let Some(mut draft) = self.overheard(wanted) else { return };
        draft.ask(method, self.rng);
        draft.stray(self.rng);
        self.done(what, draft.print(), due);
    }

    fn replayed(&mut self, what: &'static str, method: &str) {
        let wanted = |draft: &Draft, ours: bool| {
            ours && draft.method() == method && draft.is_request() && !draft.has_tag()
        };
        let Some(draft) = self.overheard(wanted) else { return };
        self.done(what, draft.print(), refusal);
    }
}

/// What strangers do. A new kind of nonsense is one line.
const NONSENSE: &[Weighed<fn(&mut Work<'_>)>] = &[
    (2, |work| {
        let bytes = (0..1 + work.rng.below(600)).map(|_| work.rng.next() as u8).collect();
        work.done("garbage", bytes, refusal);
    }),
    (2, |work| {
        let Some(draft) = work.overheard(|draft, _| draft.method() != "ACK") else { return };
        let mut bytes = draft.print();
        // The blank line that ends the head is not there.
        bytes.truncate(1 + work.rng.below((bytes.len() - draft.body.len() - 3) as u64) as usize);
        work.done("a truncated message", bytes, refusal);
    }),
    (2, |work| {
        let wanted = |draft: &Draft, ours: bool| ours && draft.is_request() && draft.method() != "ACK";
        let Some(mut draft) = work.overheard(wanted) else { return };
        draft.rebranch(work.rng);
        draft.stray(work.rng);
        let mut bytes = draft.print();
        for _ in 0..1 + work.rng.below(8) {
            let at = work.rng.below(bytes.len() as u64) as usize;
            bytes[at] = work.rng.next() as u8;
        }
        work.done("a request with changed bytes", bytes, |status| refusal(status) || status == 200);
    }),
    (3, |work| work.spoofed("a BYE that nobody has sent", "BYE", refusal)),
    (2, |work| work.spoofed("a re-INVITE that nobody has sent", "INVITE", refusal)),
    (2, |work| work.spoofed("an ACK that nobody has sent", "ACK", nothing)),
    (1, |work| work.spoofed("an INFO that nobody has sent", "INFO", refusal)),
    (1, |work| work.spoofed("an UPDATE that nobody has sent", "UPDATE", refusal)),
    (1, |work| work.spoofed("a PRACK that nobody has sent", "PRACK", refusal)),
    (1, |work| work.spoofed("a CANCEL of no INVITE", "CANCEL", |status| status == 481)),
    // Every word of the real one, but for where it comes from.
    (3, |work| {
        let wanted = |draft: &Draft, ours: bool| ours && draft.method() == "INVITE" && !draft.has_tag();
        let Some(mut draft) = work.overheard(wanted) else { return };
        let via = draft.line("Via").cloned();
        let number = draft.value("CSeq").split(' ').next().and_then(|n| n.parse().ok());
        draft.ask("CANCEL", work.rng);
        if let (Some(line), Some(via)) = (draft.line("Via"), via) {
            *line = via;
        }
        draft.number(number.unwrap_or(1), "CANCEL");
        draft.lines.retain(|line| !line.starts_with("Content-"));
        draft.body.clear();
        work.done("somebody else's CANCEL", draft.print(), |status| status == 481);
    }),
    // A request that the dialog has long had.
    (2, |work| {
        let wanted = |draft: &Draft, ours: bool| ours && draft.method() == "ACK" && draft.has_tag();
        let Some(mut draft) = work.overheard(wanted) else { return };
        let Some(number) = work.long_had(draft.value("Call-ID")) else { return };
        draft.ask("BYE", work.rng);
        draft.number(number, "BYE");
        work.done("a BYE with a low CSeq", draft.print(), refusal);
    }),
    (3, |work| work.replayed("a REGISTER again", "REGISTER")),
    (3, |work| work.replayed("an INVITE again", "INVITE")),
    (1, |work| work.outside("an unknown method", "FROBNICATE", |status| status == 405)),
    (1, |work| work.outside("OPTIONS", "OPTIONS", |status| status == 200)),
    (1, |work| work.outside("MESSAGE", "MESSAGE", refusal)),
    (1, |work| work.outside("SUBSCRIBE", "SUBSCRIBE", refusal)),
    (1, |work| work.outside("a BYE of no dialog", "BYE", refusal)),
    (1, |work| work.outside("an INVITE without credentials that hold", "INVITE", refusal)),
    (2, |work| {
        let Some(mut draft) = work.overheard(|draft, ours| ours && !draft.is_request()) else { return };
        draft.rebranch(work.rng);
        work.done("a response to nothing", draft.print(), nothing);
    }),
    (2, |work| {
        let Some(mut draft) = work.overheard(|draft, ours| ours && !draft.is_request()) else { return };
        let method = draft.value("CSeq").split(' ').nth(1).unwrap_or_default().to_owned();
        draft.number(77_777, &method);
        draft.start = "SIP/2.0 603 Decline".to_owned();
        work.done("a response with another CSeq", draft.print(), nothing);
    }),
];

impl Nonsense {
    /// As many as the plan says, until `last`.
    pub(crate) fn new(world: &World, last: u64) -> Nonsense {
        let mut rng = Rng::new(world.plan().seed, 8);
        for _ in 0..world.plan().nonsense {
            world.push(3_000_000 + rng.below(last + 20_000_000), Event::Nonsense);
        }
        Nonsense { rng, strangers: BTreeMap::new() }
    }

    /// A new stranger does something, once or again and again.
    pub(crate) fn strike(&mut self, world: &World) {
        let connects = world.plan().choice.has(Part::Streams) && self.rng.permille(250);
        let verb = choose(&mut self.rng, if connects { INTRUSIONS } else { NONSENSE });
        let mut work = Work { world, rng: &mut self.rng, made: None, leaves: None };
        verb(&mut work);
        let leaves = work.leaves;
        let Some((messages, stranger)) = work.made else { return };
        let n = self.strangers.len() as u32;
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 67, 0, 0)) + n % 65_536);
        let from = SocketAddr::from((ip, 5_060 + (n / 65_536) as u16));
        if world.verbose() {
            eprintln!("{} {from} sends {}", ladder::time(world.now()), stranger.what);
        }
        let by_stream = stranger.by_stream;
        self.strangers.insert(from, stranger);
        if by_stream {
            return world.stream_intrude(from, messages.into_iter().map(Bytes::from), leaves);
        }
        let left = if self.rng.permille(100) { 1 + self.rng.below(30) as u32 } else { 0 };
        for bytes in messages {
            self.again(world, from, Bytes::from(bytes), left);
        }
    }

    /// Sends, and again a little later.
    pub(crate) fn again(&mut self, world: &World, from: SocketAddr, bytes: Bytes, left: u32) {
        world.send(from, LISTENER, bytes.clone());
        if left > 0 {
            let at = world.now() + 1 + self.rng.delay(4_000_000);
            world.push(at, Event::Again { from, bytes, left: left - 1 });
        }
    }

    /// What is wrong with the answers that strangers got.
    pub(crate) fn wrong(&self, world: &World) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut counts: BTreeMap<SocketAddr, [usize; 4]> = BTreeMap::new();
        world.with_lines(|lines| {
            for line in lines {
                if is_stranger(line.from) {
                    let count = counts.entry(line.from).or_default();
                    // What makes a stream unreadable need not have come whole.
                    let by_stream = self.strangers.get(&line.from).is_some_and(|stranger| stranger.by_stream);
                    let copies = if by_stream { 1 } else { line.arrives.iter().flatten().count() };
                    count[0] += copies;
                    count[1] += copies * line.bytes.len();
                } else if let Some(stranger) = self.strangers.get(&line.to) {
                    let count = counts.entry(line.to).or_default();
                    count[2] += 1;
                    count[3] += line.bytes.len();
                    let text = String::from_utf8_lossy(&line.bytes);
                    let status = text.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse().ok());
                    let sent = lines
                        .iter()
                        .find(|sent| sent.from == line.to)
                        .map_or_else(String::new, |sent| String::from_utf8_lossy(&sent.bytes).into_owned());
                    // A line that came broken is given back as it came, whatever has run into it.
                    let tells = |line: &str| {
                        let headers = ["Server:", "User-Agent:"].iter().any(|name| line.starts_with(name));
                        let own = |name: &&&str| sent.contains(**name);
                        headers
                            || ["tandem/", "Tandem/"]
                                .iter()
                                .filter(|name| !own(name))
                                .any(|name| line.contains(name))
                    };
                    if !status.is_some_and(stranger.due) || text.lines().any(tells) {
                        wrong.push(format!("a stranger who sent {} got\n{text}\n{sent}", stranger.what));
                    }
                }
            }
        });
        for (address, [sent, bytes, answers, answered]) in counts {
            let Some(stranger) = self.strangers.get(&address).filter(|stranger| !stranger.knows_tag) else {
                continue;
            };
            // Who has a connection has shown where he is: no third party is flooded.
            let much = !stranger.by_stream && answered > bytes * 3 / 2 + SLACK * sent;
            if answers > sent || much {
                wrong.push(format!(
                    "stranger {address} sent {} in {sent} messages ({bytes} bytes) and got {answers} ({answered} bytes)",
                    stranger.what
                ));
            }
        }
        wrong
    }
}
