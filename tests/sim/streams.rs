//! Connections in virtual time: they take a while to come about or do not, carry what is sent in pieces of any size, break at any
//! moment with or without a word, and are closed by the rules of `actors/src/sip/tcp`.

mod ends;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use tandem_actors::config::StreamLimits;
use tandem_actors::env::Unsent;
use tandem_actors::shard::FromStream;
use tandem_protocol::flow::{ConnectionId, Flow, Transport};
use tandem_protocol::message::framing::stream::{Frame, FrameError, Framer};

use crate::engine::{LISTENER, listener_of};
use crate::nonsense::is_stranger;
use crate::rng::Rng;
use crate::world::{Event, Fate, World};

/// What the engine's connections may ask for.
pub(crate) fn limits() -> StreamLimits {
    StreamLimits {
        idle: std::time::Duration::from_secs(80),
        connect: std::time::Duration::from_secs(2),
        send_queue: 30_000,
        ..StreamLimits::default()
    }
}

/// The two ways of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toward {
    Engine,
    Phone,
}

/// Something that happens to a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn {
    /// It comes about, or does not.
    Opened { well: bool },
    /// Pieces arrive.
    Arrived(Toward),
    /// It is looked at: idle, slow or stuck ones are closed.
    Looked,
    /// It breaks, and both ends notice.
    Broken,
    /// The phone's end is gone and nobody says so.
    Lost,
    /// The phone sends nothing more, and still reads.
    HalfClosed,
    /// What the engine owes to a phone that sends nothing more has been waited for.
    Paid,
    /// The phone does not read any more, and reads again.
    Stalled(bool),
}

/// What the driver hands to a shard.
pub(crate) enum Told {
    Messages { shard: u16, flow: Flow, messages: Vec<Bytes> },
    Stream { shard: u16, what: FromStream },
    Phone { address: SocketAddr, messages: Vec<Bytes> },
}

/// A piece of the stream; the last of a message knows which.
struct Piece {
    at: u64,
    bytes: Bytes,
    line: Option<usize>,
}

struct Way {
    framer: Framer,
    pieces: VecDeque<Piece>,
    last: u64,
}

struct Connection {
    epoch: u32,
    flow: Flow,
    /// The phone's own address.
    phone: SocketAddr,
    by_engine: bool,
    is_up: bool,
    /// The phone's end is gone, since when.
    lost: Option<u64>,
    stalled: Option<u64>,
    to_engine: Way,
    to_phone: Way,
    active: u64,
    /// The message that has begun must be whole by then.
    whole_by: Option<u64>,
    /// Requests that have come by it and have no final response yet.
    owed: u32,
    /// The phone sends nothing more: only answers leave, and it ends with the last that is owed.
    half_closed: bool,
    /// Since when it cannot be read any further: what still comes is thrown away until it is closed.
    unreadable: Option<u64>,
    rng: Rng,
}

/// All connections.
#[derive(Default)]
pub(crate) struct Streams {
    next: u64,
    connections: BTreeMap<u64, Connection>,
    /// By which each phone sends.
    homes: BTreeMap<SocketAddr, u64>,
    opened: BTreeMap<(u16, SocketAddr), u64>,
    /// When connections of phones ended.
    pub(crate) ended: Vec<(u64, SocketAddr)>,
    pub(crate) breaks: u64,
    pub(crate) idle: u64,
}

impl Way {
    fn new() -> Way {
        Way { framer: Framer::new(65_536), pieces: VecDeque::new(), last: 0 }
    }

    fn waiting(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes.len()).sum()
    }
}

impl Connection {
    fn way(&mut self, toward: Toward) -> &mut Way {
        match toward {
            Toward::Engine => &mut self.to_engine,
            Toward::Phone => &mut self.to_phone,
        }
    }

    fn number(&self) -> u64 {
        self.flow.connection.map_or(0, |connection| connection.generation)
    }
}

impl World {
    fn turn(&self, at: u64, number: u64, turn: Turn) {
        self.push(at, Event::Stream(number, turn));
    }

    /// A new connection that is being opened.
    fn open(&self, shard: u16, phone: SocketAddr, by_engine: bool, within_us: u64) -> u64 {
        let now = self.now();
        let faults = self.plan().faults;
        let (number, opened, well) = self.with_streams(|streams| {
            streams.next += 1;
            let id = ConnectionId::new(shard, (u64::from(self.epoch()) << 32) + streams.next, by_engine);
            let number = id.generation;
            let mut rng = Rng::new(self.plan().seed, 0x5000_0000 + streams.next);
            let port = if by_engine { phone.port() } else { 20_000 + (streams.next % 40_000) as u16 };
            let remote = SocketAddr::new(phone.ip(), port);
            let connection = Some(id);
            let flow = Flow { listener: listener_of(Transport::Tcp), remote, connection };
            let well = !rng.permille(faults.refused) && !self.is_down(phone, now);
            let wait = if well { 600 + rng.below(4 * faults.delay_us) } else { rng.below(within_us) };
            let (to_engine, to_phone) = (Way::new(), Way::new());
            let lost = None;
            let (is_up, stalled, whole_by, active, epoch) = (false, None, None, now, self.epoch());
            let (unreadable, owed, half_closed) = (None, 0, false);
            let made = Connection {
                epoch,
                flow,
                phone,
                by_engine,
                is_up,
                lost,
                stalled,
                to_engine,
                to_phone,
                active,
                whole_by,
                owed,
                half_closed,
                unreadable,
                rng,
            };
            streams.connections.insert(number, made);
            streams.homes.insert(phone, number);
            (number, now + wait, well)
        });
        self.turn(opened, number, Turn::Opened { well });
        number
    }

    /// The engine wants a connection.
    pub(crate) fn stream_connect(&self, shard: u16, remote: SocketAddr, within_us: u64) -> Flow {
        let known = self.with_streams(|streams| {
            let number = streams.opened.get(&(shard, remote))?;
            streams.connections.get(number).map(|connection| connection.flow)
        });
        if is_stranger(remote) {
            self.violation(format!("a stranger, {remote}, has the engine open a connection"));
        }
        known.unwrap_or_else(|| {
            let number = self.open(shard, remote, true, within_us);
            self.with_streams(|streams| {
                streams.opened.insert((shard, remote), number);
                streams.connections[&number].flow
            })
        })
    }

    /// The engine sends.
    pub(crate) fn stream_transmit(&self, connection: ConnectionId, message: Bytes) -> Result<(), Unsent> {
        let waiting = self.with_streams(|streams| {
            let connection = streams.connections.get(&connection.generation)?;
            let closed = connection.half_closed && ends::status_of(&message).is_none();
            (!closed).then(|| (connection.phone, connection.to_phone.waiting()))
        });
        let (phone, waiting) = waiting.ok_or(Unsent::Unreachable)?;
        if waiting + message.len() > limits().send_queue {
            self.turn(self.now(), connection.generation, Turn::Broken);
            return Err(Unsent::Unreachable);
        }
        let last = ends::status_of(&message).is_some_and(|status| status >= 200);
        self.write(connection.generation, Toward::Phone, (LISTENER, phone), message);
        if last {
            self.pay(connection.generation);
        }
        Ok(())
    }

    /// The engine closes, when what it has sent has arrived.
    pub(crate) fn stream_close(&self, connection: ConnectionId) {
        let last = self.with_streams(|streams| {
            let connection = streams.connections.get(&connection.generation)?;
            Some(connection.to_phone.last)
        });
        if let Some(last) = last {
            self.turn(last.max(self.now()) + 1, connection.generation, Turn::Broken);
        }
    }

    /// A phone sends by the connection it has, or by a new one.
    pub(crate) fn stream_send(&self, phone: SocketAddr, message: Bytes, shards: u16) {
        let home = self.with_streams(|streams| {
            let number = *streams.homes.get(&phone)?;
            let connection = streams.connections.get(&number)?;
            (connection.lost.is_none() && connection.epoch == self.epoch()).then_some(number)
        });
        let number = home.unwrap_or_else(|| {
            let shard = self.with_streams(|streams| streams.next as u16 % shards);
            self.open(shard, phone, false, 2_000_000)
        });
        self.write(number, Toward::Engine, (phone, LISTENER), message);
    }

    /// A stranger connects and writes; it resets the connection so much later, or never.
    pub(crate) fn stream_intrude(
        &self,
        stranger: SocketAddr,
        messages: impl Iterator<Item = Bytes>,
        leaves: Option<u64>,
    ) {
        let shard = self.with_streams(|streams| streams.next as u16 % self.plan().shards);
        let number = self.open(shard, stranger, false, 2_000_000);
        for message in messages {
            self.write(number, Toward::Engine, (stranger, LISTENER), message);
        }
        if let Some(after) = leaves {
            self.turn(self.now() + after, number, Turn::Broken);
        }
    }

    /// Puts a message into a connection, in pieces.
    fn write(&self, number: u64, toward: Toward, (from, to): (SocketAddr, SocketAddr), message: Bytes) {
        let dead = self.is_dead(from, to, &message) || self.is_down(from, self.now());
        let line = self.note(from, to, message.clone(), if dead { Fate::Lost } else { Fate::Sent });
        if dead {
            return;
        }
        let (now, faults) = (self.now(), self.plan().faults);
        let (arrivals, breaks) = self.with_streams(|streams| {
            let Some(connection) = streams.connections.get_mut(&number) else { return (Vec::new(), None) };
            connection.active = now;
            let lost = connection.lost.is_some();
            let is_up = connection.is_up;
            let mut rng = connection.rng.clone();
            let way = connection.way(toward);
            let mut rest = message;
            let mut arrivals = Vec::new();
            while !rest.is_empty() {
                let whole = rng.permille(600);
                let size = if whole { rest.len() } else { 1 + rng.below(rest.len() as u64) as usize };
                let piece = rest.split_to(size);
                // What is lost under way comes again, later.
                let again = if rng.permille(faults.loss) { 200_000 } else { 0 };
                let at = now + 300 + rng.below(faults.delay_us) + again;
                way.last = at.max(way.last + 1);
                arrivals.push(way.last);
                let line = rest.is_empty().then_some(line);
                way.pieces.push_back(Piece { at: way.last, bytes: piece, line });
            }
            let breaks = rng.permille(faults.resets).then(|| (rng.below(3_000_000), rng.below(6)));
            let within = arrivals[0];
            let after = *arrivals.last().unwrap_or(&within);
            let breaks = breaks.map(|(wait, how)| match how {
                0 => (now + wait, Turn::Lost),
                1 => (now + wait, Turn::Stalled(true)),
                // In the midst of a message, if it comes in pieces.
                2 => (within, Turn::Broken),
                3 if toward == Toward::Engine => (after + 1, Turn::HalfClosed),
                _ => (now + wait, Turn::Broken),
            });
            connection.rng = rng;
            if matches!(breaks, Some((_, Turn::HalfClosed))) && streams.homes.get(&from) == Some(&number) {
                // What the phone says from now on goes by another.
                streams.homes.remove(&from);
            }
            (if is_up && !lost { arrivals } else { Vec::new() }, breaks)
        });
        for at in arrivals {
            self.turn(at, number, Turn::Arrived(toward));
        }
        if let Some((at, turn)) = breaks {
            self.turn(at, number, turn);
            self.with_streams(|streams| streams.breaks += 1);
        }
    }

    /// Something happens to a connection; what its ends hear of it.
    pub(crate) fn stream_turn(&self, number: u64, turn: Turn) -> Vec<Told> {
        let now = self.now();
        let alive = self.with_streams(|streams| streams.connections.get(&number).map(|c| c.epoch));
        let Some(epoch) = alive else { return Vec::new() };
        if epoch != self.epoch() {
            // It died with its process, and the phone hears so.
            self.drop_stream(number);
            return Vec::new();
        }
        match turn {
            Turn::Opened { well: false } => self.gone(number, false),
            Turn::Opened { well: true } => {
                let pieces = self.with_streams(|streams| {
                    let connection = streams.connections.get_mut(&number)?;
                    connection.is_up = true;
                    connection.active = now;
                    let late = |way: &mut Way| {
                        way.last = way.last.max(now);
                        for piece in &mut way.pieces {
                            way.last += 1;
                            piece.at = way.last;
                        }
                        way.last
                    };
                    Some((late(&mut connection.to_engine), late(&mut connection.to_phone)))
                });
                if let Some((engine, phone)) = pieces {
                    self.turn(engine, number, Turn::Arrived(Toward::Engine));
                    self.turn(phone, number, Turn::Arrived(Toward::Phone));
                }
                self.turn(now + 5_000_000, number, Turn::Looked);
                Vec::new()
            }
            Turn::Arrived(toward) => self.arrive(number, toward),
            Turn::Looked => self.look(number),
            Turn::Broken | Turn::Paid => self.gone(number, true),
            Turn::HalfClosed => self.half_close(number),
            Turn::Lost => {
                self.with_streams(|streams| {
                    if let Some(connection) = streams.connections.get_mut(&number) {
                        connection.lost.get_or_insert(now);
                    }
                });
                Vec::new()
            }
            Turn::Stalled(stalled) => {
                self.with_streams(|streams| {
                    if let Some(connection) = streams.connections.get_mut(&number) {
                        connection.stalled = stalled.then_some(now);
                    }
                });
                if stalled {
                    let after = self.with_streams(|streams| {
                        streams.connections.get_mut(&number).map_or(0, |c| c.rng.below(15_000_000))
                    });
                    self.turn(now + after, number, Turn::Stalled(false));
                    return Vec::new();
                }
                self.arrive(number, Toward::Phone)
            }
        }
    }

    /// What has arrived by now is read.
    fn arrive(&self, number: u64, toward: Toward) -> Vec<Told> {
        let now = self.now();
        let read = self.with_streams(|streams| {
            let connection = streams.connections.get_mut(&number)?;
            if connection.lost.is_some() || !connection.is_up {
                return None;
            }
            if toward == Toward::Phone && connection.stalled.is_some() {
                return None;
            }
            let deaf = toward == Toward::Engine && connection.unreadable.is_some();
            let way = connection.way(toward);
            let mut lines = Vec::new();
            let mut any = false;
            let (mut messages, mut fault) = (Vec::new(), None);
            while way.pieces.front().is_some_and(|piece| piece.at <= now) {
                let Some(piece) = way.pieces.pop_front() else { break };
                lines.extend(piece.line);
                any = true;
                if deaf {
                    continue;
                }
                way.framer.room().extend_from_slice(&piece.bytes);
                // Some pieces are read together, some alone.
                let more = way.pieces.front().is_some_and(|piece| piece.at <= now);
                if !more || piece.bytes.len() % 3 == 0 {
                    fault = frames(&mut way.framer, &mut messages).err();
                    if fault.is_some() {
                        break;
                    }
                }
            }
            let partial = way.framer.is_partial() && fault.is_none() && !deaf;
            if fault.is_some() && toward == Toward::Engine {
                connection.unreadable = Some(now);
            }
            if any {
                connection.active = now;
            }
            if toward == Toward::Engine {
                connection.owed +=
                    messages.iter().filter(|message| ends::wants_answer(message)).count() as u32;
            }
            if toward == Toward::Engine {
                let by = now + limits().message.as_micros() as u64;
                connection.whole_by = partial.then(|| connection.whole_by.unwrap_or(by));
            }
            Some((connection.flow, connection.phone, messages, fault, lines))
        });
        let Some((flow, phone, messages, fault, lines)) = read else { return Vec::new() };
        for line in lines {
            self.arrived(line);
        }
        let shard = flow.connection.map_or(0, |connection| connection.shard);
        let mut told = Vec::new();
        match (toward, messages.is_empty()) {
            (_, true) => {}
            (Toward::Engine, false) => told.push(Told::Messages { shard, flow, messages }),
            (Toward::Phone, false) => told.push(Told::Phone { address: phone, messages }),
        }
        match (fault, toward) {
            (None, _) => {}
            (Some(error), Toward::Engine) => {
                told.push(Told::Stream { shard, what: FromStream::Fault { flow, error } });
            }
            (Some(error), Toward::Phone) => {
                self.violation(format!("the engine writes to {phone} what is no SIP: {error}"));
            }
        }
        told
    }
}

/// Every message that is there whole.
fn frames(framer: &mut Framer, messages: &mut Vec<Bytes>) -> Result<(), FrameError> {
    while let Some(frame) = framer.poll_frame()? {
        match frame {
            Frame::Message(bytes) => messages.push(bytes),
            Frame::Ping => {}
        }
    }
    Ok(())
}
