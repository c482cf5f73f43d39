//! Every attempt of every call at a proxy, as the wire shows it: the book that the engine's records are held against.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use tandem_actors::cdr::Cdr;
use tandem_protocol::message::framing::peek_call_id;

use super::{give_up_us, phones, route};
use crate::engine::LISTENER;
use crate::ladder::header;
use crate::world::{Line, WALL_START_MS, World};

/// The legs of a call that is over keep its place until they have ended: for 64*T1 and a little.
const CLEARING_US: u64 = 40_000_000;

/// A response that came to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) at: u64,
    pub(crate) status: u16,
    pub(crate) to_tag: String,
    /// It carries a session description.
    pub(crate) sdp: bool,
    /// Of a 503.
    pub(crate) retry_after: Option<u64>,
}

/// A request of the engine's within an attempt, INVITEs apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) at: u64,
    pub(crate) method: String,
    pub(crate) to_tag: String,
    pub(crate) cseq: String,
}

/// One INVITE of one call to one proxy, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) proxy: SocketAddr,
    pub(crate) call_id: String,
    /// The last INVITE's: one that is challenged, or whose session interval is too brief, is sent anew.
    cseq: String,
    /// When the first INVITE was sent.
    pub(crate) at: u64,
    /// When the last one was sent first.
    pub(crate) asked: u64,
    /// The responses to that, by when they came.
    pub(crate) heard: Vec<Heard>,
    pub(crate) sent: Vec<Sent>,
    /// Final responses to other requests of the engine's: when they came, and with which CSeq.
    pub(crate) finals: Vec<(u64, String)>,
}

impl Attempt {
    /// The first final response.
    pub(crate) fn answer(&self) -> Option<&Heard> {
        self.heard.iter().find(|heard| heard.status >= 200)
    }

    /// The first 2xx of each branch.
    pub(crate) fn answers(&self) -> Vec<&Heard> {
        let mut tags = BTreeSet::new();
        let new = |heard: &&Heard| heard.status / 100 == 2 && tags.insert(heard.to_tag.clone());
        self.heard.iter().filter(new).collect()
    }

    /// The proxy has said that it rings.
    pub(crate) fn rang(&self) -> bool {
        self.heard.iter().any(|heard| (101..200).contains(&heard.status))
    }

    /// When the engine first sent such a request to the branch with this tag.
    pub(crate) fn first(&self, method: &str, to_tag: &str) -> Option<u64> {
        let mut such = self.sent.iter().filter(|sent| sent.method == method && sent.to_tag == to_tag);
        such.next().map(|sent| sent.at)
    }
}

/// The attempts of a run.
#[derive(Default)]
pub(crate) struct Book {
    /// By the callee's number, in the order of the first INVITEs.
    calls: BTreeMap<String, Vec<Attempt>>,
    /// Who had a place at which trunk, and from when until when at most.
    places: Vec<(&'static str, String, u64, u64)>,
}

fn tag(text: &str) -> String {
    header(text, ["To", "t"]).split_once(";tag=").unwrap_or_default().1.to_owned()
}

/// True if the INVITE of a call to the proxy at `host` was given up for want of any response: nothing told the proxy so.
pub(crate) fn was_given_up(lines: &[Line], call_ids: &[String], host: IpAddr) -> bool {
    let of_call = |line: &&Line| {
        peek_call_id(&line.bytes).is_some_and(|id| call_ids.iter().any(|wanted| wanted.as_bytes() == id))
    };
    let mut said = lines.iter().filter(of_call);
    let invite =
        said.find(|line| line.from == LISTENER && line.to.ip() == host && line.bytes.starts_with(b"INVITE "));
    let Some((at, patience)) = invite.and_then(|line| Some((line.at, give_up_us(line.to)?))) else {
        return false;
    };
    let heard =
        said.filter(|line| line.from.ip() == host).flat_map(|line| line.arrives.into_iter().flatten());
    heard.min().is_none_or(|first| first >= at + patience)
}

impl Book {
    /// Reads what was sent so far.
    pub(crate) fn read(world: &World, records: &[Cdr]) -> Book {
        let proxies: BTreeSet<SocketAddr> = phones().into_iter().map(|(_, address, _)| address).collect();
        let mut whose: BTreeMap<Vec<u8>, (String, usize)> = BTreeMap::new();
        let mut book = Book::default();
        world.with_lines(|lines| {
            for line in lines {
                if line.from == LISTENER && proxies.contains(&line.to) {
                    book.requested(line, &mut whose);
                } else if line.to == LISTENER && proxies.contains(&line.from) {
                    book.responded(line, &whose);
                }
            }
        });
        for attempts in book.calls.values_mut().flatten() {
            attempts.heard.sort_by_key(|heard| heard.at);
            attempts.finals.sort();
        }
        book.note_places(records);
        book
    }

    fn note_places(&mut self, records: &[Cdr]) {
        for cdr in records {
            let Some((lines, number)) = route(&cdr.to) else { continue };
            let over = cdr.end.0.saturating_sub(WALL_START_MS) * 1000 + CLEARING_US;
            for line in lines {
                let first = self.of(number).iter().find(|a| line.addresses().contains(&a.proxy));
                if let Some(from) = first.map(|attempt| attempt.at) {
                    self.places.push((line.name, number.to_owned(), from, over));
                }
            }
        }
    }

    /// How many other calls had a place at a trunk at some time from `from` to `until`, at most.
    pub(crate) fn others_at(&self, trunk: &str, number: &str, from: u64, until: u64) -> usize {
        let then = |place: &&(&str, String, u64, u64)| {
            place.0 == trunk && place.1 != number && place.2 <= until && from <= place.3
        };
        self.places.iter().filter(then).count()
    }

    fn requested(&mut self, line: &Line, whose: &mut BTreeMap<Vec<u8>, (String, usize)>) {
        let text = String::from_utf8_lossy(&line.bytes);
        let Some(id) = peek_call_id(&line.bytes) else { return };
        let (cseq, method) = header(&text, ["CSeq", "CSeq"]).split_once(' ').unwrap_or_default();
        let to_tag = tag(&text);
        if let Some(rest) = text.strip_prefix("INVITE sip:").filter(|_| to_tag.is_empty()) {
            let number = rest.split('@').next().unwrap_or_default();
            if let Some(attempt) = self.attempt(id, whose) {
                if cseq.parse::<u32>().ok() > attempt.cseq.parse().ok() {
                    (attempt.cseq, attempt.asked) = (cseq.to_owned(), line.at);
                    attempt.heard.clear();
                }
            } else {
                let attempts = self.calls.entry(number.to_owned()).or_default();
                whose.insert(id.to_vec(), (number.to_owned(), attempts.len()));
                attempts.push(Attempt {
                    proxy: line.to,
                    call_id: String::from_utf8_lossy(id).into_owned(),
                    cseq: cseq.to_owned(),
                    at: line.at,
                    asked: line.at,
                    heard: Vec::new(),
                    sent: Vec::new(),
                    finals: Vec::new(),
                });
            }
            return;
        }
        if text.starts_with("SIP/2.0 ") {
            return;
        }
        if let Some(attempt) = self.attempt(id, whose) {
            attempt.sent.push(Sent { at: line.at, method: method.to_owned(), to_tag, cseq: cseq.to_owned() });
        }
    }

    fn responded(&mut self, line: &Line, whose: &BTreeMap<Vec<u8>, (String, usize)>) {
        let text = String::from_utf8_lossy(&line.bytes);
        let status = text.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
        let (Some(id), Some(status)) = (peek_call_id(&line.bytes), status) else { return };
        let Some(attempt) = self.attempt(id, whose) else { return };
        let (cseq, method) = header(&text, ["CSeq", "CSeq"]).split_once(' ').unwrap_or_default();
        for at in line.arrives.into_iter().flatten() {
            if method == "INVITE" && cseq == attempt.cseq {
                let retry_after = header(&text, ["Retry-After", "Retry-After"]).parse().ok();
                let sdp = text.contains("application/sdp");
                attempt.heard.push(Heard { at, status, to_tag: tag(&text), sdp, retry_after });
            } else if status >= 200 {
                attempt.finals.push((at, cseq.to_owned()));
            }
        }
    }

    fn attempt(&mut self, id: &[u8], whose: &BTreeMap<Vec<u8>, (String, usize)>) -> Option<&mut Attempt> {
        let (number, place) = whose.get(id)?;
        self.calls.get_mut(number)?.get_mut(*place)
    }

    /// Those of the call to this number.
    pub(crate) fn of(&self, number: &str) -> &[Attempt] {
        self.calls.get(number).map_or(&[], Vec::as_slice)
    }

    /// The numbers of the calls that have asked a proxy which had been silent for too long to some call: it may still send its media to a
    /// port that another call has by then.
    pub(crate) fn haunted(&self) -> BTreeSet<String> {
        let silent = |attempt: &&Attempt| {
            let patience = give_up_us(attempt.proxy).unwrap_or(u64::MAX);
            let is_late = |heard: &Heard| heard.at >= attempt.asked + patience;
            attempt.heard.first().is_some_and(is_late) || attempt.answers().into_iter().any(is_late)
        };
        let late: BTreeSet<SocketAddr> =
            self.calls.values().flatten().filter(silent).map(|attempt| attempt.proxy).collect();
        let asked = |attempts: &Vec<Attempt>| attempts.iter().any(|attempt| late.contains(&attempt.proxy));
        self.calls.iter().filter(|(_, attempts)| asked(attempts)).map(|(number, _)| number.clone()).collect()
    }

    /// Those of every call.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &[Attempt])> {
        self.calls.iter().map(|(number, attempts)| (number.as_str(), attempts.as_slice()))
    }
}
