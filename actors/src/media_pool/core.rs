//! What a worker owns: sockets, the legs that use them, ports at rest, recordings. Orders change it here; `packets.rs` runs it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tandem_media::session::{Mode, Session, SessionConfig};
use tandem_protocol::time::{Instant, Now};

use super::io::{Channel, PacketIo, PairId, Wants};
use super::order::{Lease, MediaEvent, SessionId};
use super::packets::{Loop, UPKEEP};
use super::ports::PortPool;
use super::recorder::Recorder;
use super::session::{Hub, Leg, at};
use crate::calls::CallKey;
use crate::ids::ShardId;

/// How long the sockets of a closed session rest: what its peer still sends must not reach the next call.
pub(super) const REST: Duration = Duration::from_secs(2);
/// Packets taken from a socket to empty it; who sends more will be a foreign source to the next session.
const DRAIN: usize = 256;

/// What a pair of sockets is used for.
pub(super) enum Use {
    /// Bound, and leased to nobody: the grant was lost.
    Spare,
    /// A shard's: on its free list, or a call's that has not opened it.
    Leased(ShardId),
    /// One of these, when the shard was fenced.
    SetAside(ShardId),
    /// A session's.
    Session(Rc<RefCell<Leg>>),
    /// Closed; goes back to the shard then.
    Resting(ShardId, Instant),
}

pub(super) struct Pair {
    pub(super) rtp: SocketAddr,
    pub(super) used: Use,
}

/// Everything of a worker that outlives its panics. `by_id`, `by_address`, `tones` and `resting` follow from `pairs`.
pub(crate) struct Core {
    pub(super) number: u16,
    pub(super) hub: Rc<Hub>,
    pub(super) io: Box<dyn PacketIo>,
    ports: Arc<PortPool>,
    pub(super) pairs: Vec<Pair>,
    pub(super) by_id: BTreeMap<SessionId, PairId>,
    by_address: BTreeMap<SocketAddr, PairId>,
    pub(super) tones: Vec<PairId>,
    pub(super) resting: VecDeque<(Instant, PairId)>,
    /// Pairs of a grant that has not left.
    granting: Vec<PairId>,
    pub(super) recorder: Recorder,
    pub(super) run: Loop,
}

/// What became of an order to open a session.
pub(super) enum Opened {
    /// It is new and needs an actor; that of this session before it on the same sockets is over.
    New(Option<SessionId>),
    /// It was there on the same sockets and is to take the new rules.
    Known,
    /// It cannot have the sockets.
    Refused(String),
}

impl Core {
    pub(super) fn new(number: u16, hub: Rc<Hub>, io: Box<dyn PacketIo>, ports: Arc<PortPool>) -> Core {
        let run = Loop::new(hub.shared.metrics.worker(number));
        Core {
            number,
            hub,
            io,
            ports,
            pairs: Vec::new(),
            by_id: BTreeMap::new(),
            by_address: BTreeMap::new(),
            tones: Vec::new(),
            resting: VecDeque::new(),
            granting: Vec::new(),
            recorder: Recorder::default(),
            run,
        }
    }

    fn bind(&mut self, rtp: SocketAddr) -> io::Result<PairId> {
        let pair = self.io.bind(rtp)?;
        if self.pairs.len() <= pair.index() {
            self.pairs.resize_with(pair.index() + 1, || Pair { rtp, used: Use::Spare });
        }
        self.by_address.insert(rtp, pair);
        Ok(pair)
    }

    /// Binds up to `count` pairs at `address` and leases them to `shard`.
    pub(super) fn grow(&mut self, shard: ShardId, address: IpAddr, count: u16) {
        self.granting.clear();
        while self.granting.len() < usize::from(count) {
            let Some(pair) = self.spare(address).or_else(|| self.bind_next(address)) else { break };
            self.granting.push(pair);
            self.pairs[pair.index()].used = Use::Leased(shard);
        }
        let pairs: Vec<Lease> = self.granting.iter().map(|pair| self.lease(*pair)).collect();
        if pairs.is_empty() {
            tracing::warn!(worker = self.number, "no media port is left");
        }
        self.hub.tell(shard, MediaEvent::Granted { worker: self.number, address, pairs });
        self.granting.clear();
    }

    fn lease(&self, pair: PairId) -> Lease {
        Lease { worker: self.number, rtp: self.pairs[pair.index()].rtp }
    }

    fn spare(&self, address: IpAddr) -> Option<PairId> {
        let is_spare = |pair: &Pair| matches!(pair.used, Use::Spare) && pair.rtp.ip() == address;
        let spare = self.pairs.iter().position(is_spare)?;
        Some(PairId(spare as u32))
    }

    fn bind_next(&mut self, address: IpAddr) -> Option<PairId> {
        while let Some(port) = self.ports.take() {
            if let Some(bound) = self.try_port(SocketAddr::new(address, port)) {
                return bound;
            }
        }
        // Others may have given back by now what they had.
        for _ in 0..self.ports.skipped() {
            let port = self.ports.take_skipped()?;
            if let Some(bound) = self.try_port(SocketAddr::new(address, port)) {
                return bound;
            }
        }
        None
    }

    /// The pair, nothing for now (`Some(None)`), or `None`: the next port may be better.
    fn try_port(&mut self, rtp: SocketAddr) -> Option<Option<PairId>> {
        match self.bind(rtp) {
            Ok(pair) => Some(Some(pair)),
            Err(why) if matches!(why.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
                self.hub.shared.metrics.media_ports_skipped.increment(1);
                self.ports.skip(rtp.port());
                None
            }
            Err(why) => {
                tracing::error!(worker = self.number, %rtp, %why, "cannot bind a media port");
                self.ports.put_back(rtp.port());
                Some(None)
            }
        }
    }

    /// Begins a session, or prepares one that is there to take new rules.
    pub(super) fn open(
        &mut self,
        id: SessionId,
        rtp: SocketAddr,
        config: &SessionConfig,
        shard: ShardId,
        peer: Option<SessionId>,
        now: Now,
    ) -> Opened {
        if let Some(known) = self.by_id.get(&id).copied() {
            if self.pairs[known.index()].rtp == rtp {
                if let Some(leg) = self.leg(known) {
                    let mut leg = leg.borrow_mut();
                    leg.belong_to(shard, peer);
                }
                self.join(known);
                self.retune(known, config);
                return Opened::Known;
            }
            self.release(known, now);
        }
        let pair = match self.by_address.get(&rtp).copied() {
            Some(pair) => pair,
            None => match self.bind(rtp) {
                Ok(pair) => pair,
                Err(why) => return self.refuse(rtp, &why),
            },
        };
        let other = self.leg(pair).map(|other| (other.borrow().id, other.borrow().left));
        match other {
            // A call that was restored counts its sides anew.
            Some((other, true)) if other.call == id.call => self.release(pair, now),
            Some((other, _)) => return Opened::Refused(format!("{rtp} has session {other:?}")),
            None => {}
        }
        self.resting.retain(|(_, resting)| *resting != pair);
        self.drain(pair);
        let mut session = Session::new(config.clone(), at(now));
        session.seed(self.hub.seams.random());
        let mut leg = Leg::new(id, shard, pair, session);
        (leg.peer_id, leg.recording) = (peer, self.recorder.of(id.call));
        let leg = Rc::new(RefCell::new(leg));
        self.pairs[pair.index()].used = Use::Session(leg);
        self.by_id.insert(id, pair);
        self.ports.claimed(rtp.port());
        self.join(pair);
        self.retune(pair, config);
        self.run.begin(self.by_id.len(), now);
        Opened::New(other.map(|(other, _)| other))
    }

    /// The call loses its port, so the pool may try it again for others.
    fn refuse(&self, rtp: SocketAddr, why: &io::Error) -> Opened {
        self.ports.skip(rtp.port());
        Opened::Refused(format!("cannot bind {rtp}: {why}"))
    }

    pub(super) fn leg(&self, pair: PairId) -> Option<&Rc<RefCell<Leg>>> {
        match &self.pairs.get(pair.index())?.used {
            Use::Session(leg) => Some(leg),
            Use::Spare | Use::Leased(_) | Use::SetAside(_) | Use::Resting(..) => None,
        }
    }

    /// Joins a leg and its peer, whichever came first. Of several callees' sessions the last that was joined has the caller's packets.
    fn join(&self, pair: PairId) {
        let Some(leg) = self.leg(pair) else { return };
        let mut leg = leg.borrow_mut();
        let peer = leg.peer_id.filter(|peer| *peer != leg.id).and_then(|peer| self.by_id.get(&peer).copied());
        leg.peer = peer;
        if let Some(peer) = peer.and_then(|peer| self.leg(peer)) {
            peer.borrow_mut().peer = Some(pair);
        }
    }

    /// Notes whether the leg sends a tone.
    pub(super) fn retune(&mut self, pair: PairId, config: &SessionConfig) {
        self.tones.retain(|tone| *tone != pair);
        if let Mode::Tone(_) = config.mode {
            self.tones.push(pair);
        }
    }

    /// Takes a leg off its sockets, which rest from now on, and ends the recording of its call.
    pub(super) fn release(&mut self, pair: PairId, now: Now) {
        let Some(leg) = self.leg(pair).cloned() else { return };
        let leg = leg.borrow();
        let until = now.mono + REST;
        self.pairs[pair.index()].used = Use::Resting(leg.shard, until);
        self.resting.push_back((until, pair));
        self.by_id.remove(&leg.id);
        self.tones.retain(|tone| *tone != pair);
        let peer = leg.peer.and_then(|peer| self.leg(peer));
        // A callee's session that another one has taken the place of ends nothing but itself.
        if peer.is_none_or(|peer| peer.borrow().peer == Some(pair)) {
            if let Some(peer) = peer {
                peer.borrow_mut().peer = None;
            }
            self.recorder.end(&self.hub, leg.id.call, at(now));
            self.mark_recordings();
        }
        self.run.sessions(self.by_id.len());
    }

    /// Sets aside what a shard that was fenced had leased and not used; its sessions are nobody's until they are opened again.
    pub(super) fn reclaim(&mut self, shard: ShardId) {
        for pair in &mut self.pairs {
            match &pair.used {
                Use::Leased(of) if *of == shard => pair.used = Use::SetAside(shard),
                Use::Session(leg) if leg.borrow().shard == shard => leg.borrow_mut().left = true,
                Use::Spare | Use::Leased(_) | Use::SetAside(_) | Use::Session(_) | Use::Resting(..) => {}
            }
        }
    }

    /// Frees what was set aside but for these ports; the sessions of the shard whose calls are none of these.
    pub(super) fn keep(&mut self, shard: ShardId, calls: &[CallKey], ports: &[SocketAddr]) -> Vec<SessionId> {
        for pair in &mut self.pairs {
            if matches!(pair.used, Use::SetAside(of) if of == shard) {
                let kept = ports.binary_search(&pair.rtp).is_ok();
                pair.used = if kept { Use::Leased(shard) } else { Use::Spare };
            }
        }
        let orphaned = |(id, pair): (&SessionId, &PairId)| {
            let leg = self.leg(*pair)?.borrow();
            let orphaned = leg.left && leg.shard == shard && calls.binary_search(&id.call).is_err();
            orphaned.then_some(*id)
        };
        self.by_id.iter().filter_map(orphaned).collect()
    }

    /// Empties a pair's sockets.
    fn drain(&mut self, pair: PairId) {
        for channel in [Channel::Rtp, Channel::Rtcp] {
            for _ in 0..DRAIN {
                if self.io.receive(pair, channel, &mut self.run.buffer).is_none() {
                    break;
                }
                self.run.tally.stray();
            }
        }
    }

    /// Gives back what has rested.
    pub(super) fn wake_rested(&mut self, now: Now) {
        let mut back: BTreeMap<ShardId, Vec<Lease>> = BTreeMap::new();
        while let Some((_, pair)) = self.resting.front().copied().filter(|(until, _)| *until <= now.mono) {
            self.resting.pop_front();
            if let Use::Resting(shard, _) = self.pairs[pair.index()].used {
                self.drain(pair);
                self.pairs[pair.index()].used = Use::Leased(shard);
                back.entry(shard).or_default().push(self.lease(pair));
            }
        }
        for (shard, leases) in back {
            self.hub.tell(shard, MediaEvent::Returned(leases));
        }
    }

    /// Records a call from now on.
    pub(super) fn record(&mut self, call: CallKey, shard: ShardId, path: PathBuf, now: Now) {
        self.recorder.begin(&self.hub, call, shard, path, at(now));
        self.mark_recordings();
    }

    /// Tells the legs of calls whose recording has begun or ended.
    pub(super) fn mark_recordings(&mut self) {
        while let Some(call) = self.recorder.changed() {
            let recording = self.recorder.of(call);
            let first = SessionId { call, side: 0 };
            let last = SessionId { call, side: u8::MAX };
            for (_, pair) in self.by_id.range(first..=last) {
                if let Some(leg) = self.leg(*pair) {
                    leg.borrow_mut().recording = recording;
                }
            }
        }
    }

    /// When the next step is wanted.
    pub(super) fn wants(&self, now: Now) -> Wants {
        let packets = !self.by_id.is_empty();
        let upkeep = (packets || self.recorder.is_busy()).then(|| self.run.upkeep_at.max(now.mono));
        let due = |pair: &PairId| self.leg(*pair)?.borrow().session().next_tick();
        let tone = self.tones.iter().filter_map(due).min().map(|due| Instant(due.as_micros() as u64));
        let rested = self.resting.front().map(|(until, _)| *until);
        let deadline = [upkeep, tone, rested].into_iter().flatten().min();
        Wants { packets, at_once: self.run.bound_hit, deadline }
    }

    /// Makes everything that follows from the sockets and their legs anew, and each leg from its checkpoint: a panic may have left any of
    /// it half changed. Pairs of a grant that never left are free for the next.
    pub(super) fn rebuild(&mut self, now: Now) {
        let tally = std::mem::take(&mut self.run.tally);
        self.run = Loop::new(self.hub.shared.metrics.worker(self.number));
        self.run.tally = tally;
        self.run.upkeep_at = now.mono + UPKEEP;
        self.by_id.clear();
        self.by_address.clear();
        self.tones.clear();
        for pair in std::mem::take(&mut self.granting) {
            self.pairs[pair.index()].used = Use::Spare;
        }
        let mut resting = Vec::new();
        for (number, pair) in self.pairs.iter().enumerate() {
            let id = PairId(number as u32);
            self.by_address.insert(pair.rtp, id);
            match &pair.used {
                Use::Spare | Use::Leased(_) | Use::SetAside(_) => {}
                Use::Resting(_, until) => resting.push((*until, id)),
                Use::Session(leg) => {
                    let mut leg = leg.borrow_mut();
                    leg.remake();
                    (leg.peer, leg.recording) = (None, self.recorder.of(leg.id.call));
                    self.by_id.insert(leg.id, id);
                    if let Mode::Tone(_) = leg.session().config().mode {
                        self.tones.push(id);
                    }
                }
            }
        }
        resting.sort_unstable();
        self.resting = resting.into();
        for pair in self.by_id.values() {
            self.join(*pair);
        }
        self.run.sessions(self.by_id.len());
    }
}
