//! The packet loop: what a step does with what has arrived.
//!
//! A step takes packets in rounds, one from each socket that has any, so that a flood on one port cannot keep the others waiting. It allocates
//! nothing, takes no lock and counts in plain numbers, which it adds to the metrics once at its end.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tandem_media::recording::Side;
use tandem_media::rtp::{PacketKind, classify};
use tandem_media::session::{Mode, Verdict};
use tandem_protocol::time::{Instant, Now};

use super::core::{Core, Pair, Use};
use super::io::{Channel, PacketIo, PairId};
use super::recorder::{Recorder, side_of};
use super::session::{Hub, Leg, at};
use crate::metrics::{MEDIA_DROPS, Metrics, WorkerMetrics};

/// Packets that one step takes from one socket.
pub(super) const PER_SOCKET: usize = 16;
/// Packets that one step takes: three milliseconds of work.
pub(super) const PER_STEP: usize = 1024;
/// How often silence is looked for and recordings are handed over.
pub(super) const UPKEEP: Duration = Duration::from_millis(100);
/// The largest datagram UDP can carry.
const LARGEST_DATAGRAM: usize = 65_535;

/// What a step counts.
#[derive(Default)]
pub(super) struct Tally {
    taken: u64,
    sent: u64,
    refused: u64,
    unsent: u64,
    dropped: [u64; MEDIA_DROPS.len()],
}

impl Tally {
    /// A packet that nobody owns.
    pub(super) fn stray(&mut self) {
        self.dropped[5] += 1;
    }

    /// Neither RTP nor RTCP, or not on its own socket.
    fn other(&mut self, kind: PacketKind) {
        let place = match kind {
            PacketKind::Stun => 0,
            PacketKind::Dtls => 1,
            PacketKind::Zrtp => 2,
            PacketKind::TurnChannel => 3,
            PacketKind::Rtp | PacketKind::Rtcp | PacketKind::Unknown => 4,
        };
        self.dropped[place] += 1;
    }

    fn flush(&mut self, metrics: &Metrics) {
        let add = |counter: &metrics::Counter, count: u64| {
            if count > 0 {
                counter.increment(count);
            }
        };
        add(&metrics.rtp_in, self.taken);
        add(&metrics.rtp_out, self.sent);
        add(&metrics.rtp_refused, self.refused);
        add(&metrics.rtp_unsent, self.unsent);
        for (kind, count) in self.dropped.iter().enumerate().filter(|(_, count)| **count > 0) {
            metrics.media_dropped(kind, *count);
        }
        *self = Tally::default();
    }
}

/// The loop's own things. Nothing in it outlives a step but deadlines.
pub(super) struct Loop {
    pub(super) buffer: Box<[u8]>,
    tone: Vec<u8>,
    ready: Vec<(PairId, Channel)>,
    pub(super) tally: Tally,
    metrics: WorkerMetrics,
    pub(super) upkeep_at: Instant,
    /// The last step left packets.
    pub(super) bound_hit: bool,
    /// A session was found to be lost.
    pub(super) lost: Vec<PairId>,
}

impl Loop {
    pub(super) fn new(metrics: WorkerMetrics) -> Loop {
        Loop {
            buffer: vec![0; LARGEST_DATAGRAM].into_boxed_slice(),
            tone: Vec::with_capacity(LARGEST_DATAGRAM),
            ready: Vec::with_capacity(PER_STEP),
            tally: Tally::default(),
            metrics,
            upkeep_at: Instant::default(),
            bound_hit: false,
            lost: Vec::new(),
        }
    }

    /// A session has begun; the first one starts the clock of the upkeep.
    pub(super) fn begin(&mut self, sessions: usize, now: Now) {
        if sessions == 1 {
            self.upkeep_at = now.mono + UPKEEP;
        }
        self.sessions(sessions);
    }

    /// Tells how many sessions there are.
    pub(super) fn sessions(&self, count: usize) {
        self.metrics.sessions.set(count as f64);
    }
}

/// What one packet touches.
struct Path<'a> {
    hub: &'a Hub,
    io: &'a mut dyn PacketIo,
    pairs: &'a [Pair],
    recorder: &'a mut Recorder,
    tally: &'a mut Tally,
    lost: &'a mut Vec<PairId>,
    now: Now,
    time: Duration,
}

impl Core {
    /// Takes what has arrived, sends what is due, and looks after time-outs, rests and recordings.
    pub(super) fn step(&mut self, now: Now) {
        self.run.bound_hit = false;
        if !self.by_id.is_empty() {
            self.take_packets(now);
            self.send_tones(now);
        }
        if now.mono >= self.run.upkeep_at {
            self.run.upkeep_at = now.mono + UPKEEP;
            self.upkeep(now);
        } else if self.recorder.is_full() {
            self.recorder.upkeep(&self.hub, at(now));
            self.mark_recordings();
        }
        self.wake_rested(now);
        self.run.tally.flush(&self.hub.shared.metrics);
        let took = self.hub.seams.now().mono.since(now.mono);
        self.run.metrics.step.record(took.as_secs_f64());
    }

    fn take_packets(&mut self, now: Now) {
        let mut left = PER_STEP;
        for _ in 0..PER_SOCKET {
            let mut ready = std::mem::take(&mut self.run.ready);
            self.io.ready(&mut ready);
            let count = ready.len();
            let (buffer, mut path) = self.path(now);
            for (pair, channel) in ready.iter().take(left).copied() {
                path.take(pair, channel, buffer);
            }
            self.run.ready = ready;
            if count == 0 {
                return;
            }
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
        self.run.bound_hit = true;
        self.hub.shared.metrics.media_bound_hits.increment(1);
    }

    fn path(&mut self, now: Now) -> (&mut [u8], Path<'_>) {
        let path = Path {
            hub: &self.hub,
            io: self.io.as_mut(),
            pairs: &self.pairs,
            recorder: &mut self.recorder,
            tally: &mut self.run.tally,
            lost: &mut self.run.lost,
            now,
            time: at(now),
        };
        (&mut self.run.buffer, path)
    }

    fn send_tones(&mut self, now: Now) {
        let time = at(now);
        let mut packet = std::mem::take(&mut self.run.tone);
        for place in 0..self.tones.len() {
            let Some(leg) = self.tones.get(place).and_then(|pair| self.leg(*pair)).cloned() else { continue };
            let mut leg = leg.borrow_mut();
            while leg.is_open() && leg.session().next_tick().is_some_and(|due| due <= time) {
                let Some(Some(to)) = leg.feed(&self.hub, now, |session| session.tick(time, &mut packet))
                else {
                    break;
                };
                self.path(now).1.send_own(&mut leg, to, &packet);
            }
            if leg.is_lost() {
                self.run.lost.push(leg.pair);
            }
        }
        self.run.tone = packet;
    }

    fn upkeep(&mut self, now: Now) {
        for pair in self.by_id.values() {
            if let Some(leg) = self.leg(*pair) {
                leg.borrow_mut().upkeep(&self.hub, now);
            }
        }
        self.recorder.upkeep(&self.hub, at(now));
        self.mark_recordings();
    }
}

impl Path<'_> {
    /// Takes one packet from a socket that has one.
    fn take(&mut self, pair: PairId, channel: Channel, buffer: &mut [u8]) {
        let Some((length, from)) = self.io.receive(pair, channel, buffer) else { return };
        let packet = &mut buffer[..length];
        let pairs = self.pairs;
        let leg = match pairs.get(pair.index()).map(|pair| &pair.used) {
            Some(Use::Session(leg)) => leg,
            Some(Use::Spare | Use::Leased(_) | Use::SetAside(_) | Use::Resting(..)) | None => {
                return self.tally.stray();
            }
        };
        let mut open = leg.borrow_mut();
        if !open.is_open() {
            return self.tally.stray();
        }
        match (classify(packet), channel) {
            (PacketKind::Rtp, Channel::Rtp) => self.rtp(&mut open, from, packet),
            (PacketKind::Rtcp, _) => self.rtcp(&mut open, from, packet),
            (kind, _) => self.tally.other(kind),
        }
        if open.is_lost() {
            self.lost.push(pair);
        }
    }

    fn rtp(&mut self, leg: &mut Leg, from: SocketAddr, packet: &mut [u8]) {
        let time = self.time;
        match leg.feed(self.hub, self.now, |session| session.receive_rtp(time, from, packet)) {
            Some(Verdict::Deliver) => self.tally.taken += 1,
            Some(Verdict::Refuse(_)) => {
                self.tally.refused += 1;
                return;
            }
            // Lost with the panic.
            None => return,
        }
        self.tap(leg, side_of(leg.id), packet);
        match leg.session().config().mode {
            Mode::Relay => self.relay(leg, packet),
            Mode::Echo => {
                leg.session().stamp_echo(packet);
                match leg.session().send_to() {
                    Some(to) => self.send_own(leg, to, packet),
                    None => self.tally.unsent += 1,
                }
            }
            Mode::Tone(_) => {}
        }
    }

    fn peer(&self, leg: &Leg) -> Option<Rc<RefCell<Leg>>> {
        match &self.pairs.get(leg.peer?.index())?.used {
            Use::Session(peer) => Some(peer.clone()),
            Use::Spare | Use::Leased(_) | Use::SetAside(_) | Use::Resting(..) => None,
        }
    }

    fn relay(&mut self, leg: &Leg, packet: &[u8]) {
        let sent = self.peer(leg).is_some_and(|peer| {
            let mut peer = peer.borrow_mut();
            let to = if peer.is_open() { peer.session().send_to() } else { None };
            let sent = to.is_some_and(|to| self.io.send(peer.pair, Channel::Rtp, to, packet));
            if sent {
                peer.sent(packet.len());
            }
            sent
        });
        *if sent { &mut self.tally.sent } else { &mut self.tally.unsent } += 1;
    }

    /// Sends a packet of the leg's own stream: a tone or an echo. A recording has it on the other side.
    fn send_own(&mut self, leg: &mut Leg, to: SocketAddr, packet: &[u8]) {
        let other = if side_of(leg.id) == Side::A { Side::B } else { Side::A };
        self.tap(leg, other, packet);
        if self.io.send(leg.pair, Channel::Rtp, to, packet) {
            leg.sent(packet.len());
            self.tally.sent += 1;
        } else {
            self.tally.unsent += 1;
        }
    }

    fn rtcp(&mut self, leg: &mut Leg, from: SocketAddr, packet: &[u8]) {
        let time = self.time;
        match leg.feed(self.hub, self.now, |session| session.receive_rtcp(time, from, packet)) {
            Some(Verdict::Deliver) => {}
            Some(Verdict::Refuse(_)) => {
                self.tally.refused += 1;
                return;
            }
            None => return,
        }
        // A report on a tone or an echo has nobody else to go to, and one lost in relaying is followed by the next.
        if leg.session().config().mode == Mode::Relay
            && let Some(peer) = self.peer(leg)
        {
            let peer = peer.borrow();
            if let Some(to) = peer.session().rtcp_to().filter(|_| peer.is_open()) {
                self.io.send(peer.pair, peer.rtcp_channel(), to, packet);
            }
        }
    }

    fn tap(&mut self, leg: &Leg, side: Side, packet: &[u8]) {
        if let Some(recording) = leg.recording
            && let Some(codec) = leg.session().config().codec
        {
            self.recorder.tap(recording, side, codec, self.time, packet);
        }
    }
}
