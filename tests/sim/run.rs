//! The driver: moves the clock, hands out what happens, and lets every mailbox run dry before it moves on.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use smallvec::SmallVec;
use tandem_actors::env::{Datagram, in_flight};
use tandem_actors::ids::ShardId;
use tandem_actors::media_pool::order::MediaOrder;
use tandem_actors::metrics::ActorKind;
use tandem_actors::shard::{Datagrams, LinkMessage, place};
use tandem_actors::store::Urgency;
use tandem_phone as phone;
use tandem_protocol::flow::Transport;

use crate::air::Air;
use crate::engine::{LISTENER, Life, MEDIA_IP, PROVIDER, listener_of};
use crate::fences::Feed;
use crate::nonsense::Nonsense;
use crate::phones::Phones;
use crate::plan::Plan;
use crate::provider;
use crate::rng::Rng;
use crate::script::{Action, Script};
use crate::store::Disk;
use crate::streams::{Told, Turn};
use crate::trunks::Front;
use crate::voices::Voices;
use crate::world::{Event, World};

/// After the last call began: every call is over, and every transaction, timer and port has rested.
const SETTLE_US: u64 = 300_000_000;

/// What a run came to.
pub(crate) struct Outcome {
    pub(crate) hash: u64,
    pub(crate) entries: u64,
    pub(crate) virtual_s: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) summary: String,
}

/// Why an engine's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Killed,
    Done,
}

/// Everything of a run but the engine.
pub(crate) struct Sim {
    pub(crate) world: World,
    pub(crate) phones: Phones,
    pub(crate) script: Script,
    pub(crate) air: Air,
    pub(crate) voices: Voices,
    pub(crate) nonsense: Nonsense,
    front: Front,
    pub(crate) disk: Arc<Mutex<Disk>>,
    pub(crate) rng: Rng,
    told: Vec<(usize, phone::Event)>,
    /// When the engine was killed, and when it was back.
    pub(crate) outages: Vec<(u64, u64)>,
    /// When a shard stood still, and when it went on or another had its place.
    pub(crate) stalled: Vec<(u64, u64)>,
    pub(crate) fences: usize,
    pub(crate) restored_calls: usize,
    pub(crate) closed_attempts: usize,
    pub(crate) restarts: u64,
    /// Packets of sound that had to get through, or be lost on the way.
    pub(crate) steady: usize,
    next_sample: u64,
}

thread_local! {
    /// Panics that nobody injected, as the hook saw them.
    static UNEXPECTED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static SIMULATING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Notes each panic within a simulation that is not an injected one; leaves those elsewhere to the hook before.
pub(crate) fn watch_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !SIMULATING.get() {
            before(info);
            return;
        }
        let text = info.to_string();
        if !text.contains("injected") {
            UNEXPECTED.with_borrow_mut(|list| list.push(text));
        }
    }));
}

/// Runs a plan to its end.
pub(crate) fn run(plan: &Plan, verbose: bool) -> Outcome {
    SIMULATING.set(true);
    UNEXPECTED.take();
    let world = World::new(Rc::new(plan.clone()), verbose);
    let air = Air::default();
    let phones = Phones::new(&world, &air);
    let script = Script::new(&world, &phones);
    let mut sim = Sim {
        rng: Rng::new(plan.seed, 5),
        voices: Voices::new(&world, &air),
        nonsense: Nonsense::new(&world, script.last_dial),
        front: Front::default(),
        world,
        air,
        phones,
        script,
        disk: Arc::default(),
        told: Vec::new(),
        outages: Vec::new(),
        stalled: Vec::new(),
        fences: 0,
        restored_calls: 0,
        closed_attempts: 0,
        restarts: 0,
        steady: 0,
        next_sample: 0,
    };
    loop {
        let system = actix::System::with_tokio_rt(|| {
            // Neither time nor I/O: an actor that reaches past its seams panics.
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
        });
        let (death, life) = system.block_on(sim.live());
        if death == Death::Killed {
            let down = 50_000 + sim.rng.below(2_000_000);
            sim.bury(&life, down);
        }
        drop(life);
        drop(system);
        if in_flight() != 0 {
            sim.world.violation(format!("{} messages outlived their engine", in_flight()));
        }
        if death == Death::Done {
            break;
        }
        sim.wait_for_restart();
    }
    for panic in UNEXPECTED.take() {
        sim.world.violation(format!("an actor panicked by itself: {panic}"));
    }
    SIMULATING.set(false);
    let (hash, entries) = sim.world.digest();
    let mut ends: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for dial in sim.script.dials.iter().flatten() {
        let end = match dial.ends.first() {
            Some((_, crate::account::End::Failed(status))) => status.to_string(),
            Some(_) if dial.answered.is_some() => "answered".to_owned(),
            Some(_) => "abandoned".to_owned(),
            None => "none".to_owned(),
        };
        *ends.entry(end).or_default() += 1;
    }
    let disk = sim.disk.lock().expect("the disk is whole");
    let mut causes: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for cdr in &disk.cdrs {
        *causes.entry(&cdr.cause).or_default() += 1;
    }
    let summary = format!(
        "{ends:?}, {} CDRs {causes:?}, {} events, {} kills and {} fences ({} calls restored, {} attempts closed), {} rebuilt after panics, {} packets of sound followed",
        disk.cdrs.len(),
        disk.events.len(),
        sim.outages.len(),
        sim.fences,
        sim.restored_calls,
        sim.closed_attempts,
        sim.restarts,
        sim.steady
    );
    Outcome {
        hash,
        entries,
        virtual_s: sim.world.now() / 1_000_000,
        violations: sim.world.violations(),
        summary,
    }
}

impl Sim {
    /// One life of the engine.
    async fn live(&mut self) -> (Death, Life) {
        let mut life = Life::begin(&self.world, &self.air, &self.disk);
        self.restored_calls += life.restored.calls;
        self.closed_attempts += life.restored.attempts;
        if life.restored.damaged > 0 {
            self.world.violation(format!("{} records could not be read", life.restored.damaged));
        }
        let end = self.end_of_script();
        loop {
            self.drain().await;
            self.see_batches(&mut life);
            self.sample(&life);
            let Some(at) = self.world.next_at().filter(|at| *at <= end) else { break };
            self.world.advance(at);
            if self.happen(&mut life) {
                return (Death::Killed, life);
            }
        }
        self.world.advance(end);
        self.take_every_port(&mut life).await;
        crate::checks::at_rest(self, &life).await;
        for kind in ActorKind::ALL {
            self.restarts += life.shared.census.restarts(kind);
        }
        (Death::Done, life)
    }

    /// Has every port that is left leased to a shard, so that one that was lost is missed.
    async fn take_every_port(&mut self, life: &mut Life) {
        for worker in 0..self.world.plan().workers {
            life.media.order(
                worker,
                MediaOrder::Grow { shard: ShardId(0), address: MEDIA_IP.into(), pairs: u16::MAX },
            );
        }
        let until = self.world.now() + 1_000_000;
        self.drain().await;
        while let Some(at) = self.world.next_at().filter(|at| *at <= until) {
            self.world.advance(at);
            self.happen(life);
            self.drain().await;
            self.see_batches(life);
        }
    }

    fn end_of_script(&self) -> u64 {
        self.script.last_dial + 60_000_000 + SETTLE_US
    }

    /// Lets every mailbox run dry. An actor that was just started has no message yet, hence the further turns.
    pub(crate) async fn drain(&self) {
        let mut quiet = 0;
        while quiet < 3 {
            quiet = if in_flight() > 0 { 0 } else { quiet + 1 };
            tokio::task::yield_now().await;
        }
    }

    /// The store will commit what is queued now.
    pub(crate) fn see_batches(&mut self, life: &mut Life) {
        let Some(urgency) = life.store.new_batches() else { return };
        let mut wait = match urgency {
            Urgency::Urgent => self.rng.below(2_000),
            Urgency::Lazy => self.rng.below(50_000),
        };
        if self.rng.permille(self.world.plan().slow_disk) {
            wait += 150_000;
        }
        let at = self.world.now() + wait;
        if life.commit_at.is_none_or(|set| at < set) {
            life.commit_at = Some(at);
            self.world.push(at, Event::Commit { epoch: life.epoch });
        }
    }

    /// Everything that happens at this moment; true if the engine is killed.
    pub(crate) fn happen(&mut self, life: &mut Life) -> bool {
        let mut arrived: Vec<SmallVec<[Datagram; 16]>> = Vec::new();
        arrived.resize_with(life.shards.len(), SmallVec::new);
        while let Some(event) = self.world.pop_due() {
            match event {
                Event::Datagram { from, to, bytes } if to == LISTENER => {
                    let shard = self.socket_of(life, &bytes);
                    arrived[shard].push(Datagram::new(listener_of(Transport::Udp), from, bytes));
                }
                Event::Kill => return true,
                Event::Operator => self.operate(life, false),
                Event::Chaos => self.operate(life, true),
                Event::Stall => self.stall(life),
                Event::StallEnds { epoch, shard } if epoch == life.epoch => self.end_stall(life, shard),
                Event::Reload(turn) => crate::reloads::reload(&self.world, life, turn),
                Event::Stream(number, turn) => self.stream(Some(life), number, turn),
                Event::Link { epoch, shard, message } if epoch == life.epoch => {
                    life.feed(usize::from(shard), Feed::Linked(message));
                }
                Event::Wake { epoch, shard } if epoch == life.epoch => {
                    let wish = &life.wakes[usize::from(shard)];
                    if wish.get() == Some(self.world.now()) {
                        wish.set(None);
                        life.feed(usize::from(shard), Feed::Tick);
                    }
                }
                Event::Commit { epoch } if epoch == life.epoch => self.commit(life),
                Event::Datagram { from, to, bytes } if to.ip() == LISTENER.ip() => {
                    life.media.arrive(from, to, bytes);
                }
                Event::Order { epoch, worker, order } if epoch == life.epoch => {
                    life.media.order(worker, order);
                }
                Event::Step { epoch, worker } if epoch == life.epoch => life.media.step(worker),
                Event::Link { .. }
                | Event::Wake { .. }
                | Event::Commit { .. }
                | Event::Order { .. }
                | Event::Step { .. }
                | Event::StallEnds { .. }
                | Event::Restart => {}
                Event::Datagram { .. }
                | Event::PhoneTimer { .. }
                | Event::Carrier(_)
                | Event::Do(_)
                | Event::Talk
                | Event::Nonsense
                | Event::Again { .. } => self.outside(event),
            }
        }
        for (shard, datagrams) in arrived.into_iter().enumerate() {
            if !datagrams.is_empty() {
                life.feed(shard, Feed::Datagrams(Box::new(Datagrams(datagrams))));
            }
        }
        false
    }

    /// The socket a datagram comes to: any, or that of its call's shard.
    fn socket_of(&mut self, life: &Life, bytes: &[u8]) -> usize {
        let any = self.rng.below(life.shards.len() as u64) as usize;
        if self.rng.permille(300) {
            any
        } else {
            place(&life.shared, &life.shared.current().directory, bytes).map_or(any, |s| usize::from(s.0))
        }
    }

    fn commit(&mut self, life: &mut Life) {
        if life.commit_at != Some(self.world.now()) {
            return;
        }
        self.commit_now(life);
    }

    /// Everything that is queued is committed.
    pub(crate) fn commit_now(&mut self, life: &mut Life) {
        life.commit_at = None;
        let done = life.store.commit();
        self.world.hash(done.record.as_bytes());
        for ticket in done.tickets {
            let message = LinkMessage::Committed(vec![(ticket.token, true)]);
            self.world.link(life.epoch, 2000, ShardId(ticket.shard).0, message);
        }
    }

    /// What happens outside the engine.
    fn outside(&mut self, event: Event) {
        let mut told = std::mem::take(&mut self.told);
        match event {
            Event::Datagram { from, to, bytes } => self.deliver(from, to, &bytes, &mut told),
            Event::PhoneTimer { phone } => self.phones.timer(&self.world, phone, &mut told),
            Event::Do(action) => self.act(action, &mut told),
            Event::Carrier(turn) => {
                if let Some((from, to, bytes)) = self.front.turn(&self.world, turn) {
                    self.deliver(from, to, &bytes, &mut told);
                }
            }
            Event::Talk => self.voices.talk(&self.world, &self.phones),
            Event::Nonsense => self.nonsense.strike(&self.world),
            Event::Again { from, bytes, left } => self.nonsense.again(&self.world, from, bytes, left),
            Event::Stream(number, turn) => self.stream(None, number, turn),
            Event::Link { .. }
            | Event::Wake { .. }
            | Event::Commit { .. }
            | Event::Order { .. }
            | Event::Step { .. }
            | Event::Operator
            | Event::Chaos
            | Event::Stall
            | Event::StallEnds { .. }
            | Event::Reload(_)
            | Event::Kill
            | Event::Restart => {}
        }
        self.listen(&mut told);
        self.told = told;
    }

    /// Something happens to a connection.
    fn stream(&mut self, mut life: Option<&mut Life>, number: u64, turn: Turn) {
        for what in self.world.stream_turn(number, turn) {
            match (what, life.as_deref_mut()) {
                (Told::Phone { address, messages }, _) => {
                    let mut told = std::mem::take(&mut self.told);
                    for message in messages {
                        self.deliver(LISTENER, address, &message, &mut told);
                        // What it says now is about this message.
                        self.listen(&mut told);
                    }
                    self.told = told;
                }
                (Told::Messages { shard, flow, messages }, Some(life)) => {
                    let datagrams = messages.into_iter().map(|bytes| Datagram::by(flow, bytes)).collect();
                    life.feed(usize::from(shard), Feed::Datagrams(Box::new(Datagrams(datagrams))));
                }
                (Told::Stream { shard, what }, Some(life)) => {
                    life.feed(usize::from(shard), Feed::Stream(what));
                }
                (Told::Messages { .. } | Told::Stream { .. }, None) => {}
            }
        }
    }

    /// What the phones say is noted.
    fn listen(&mut self, told: &mut Vec<(usize, phone::Event)>) {
        while !told.is_empty() {
            for (phone, event) in std::mem::take(told) {
                if self.world.verbose() {
                    let user = &self.phones.handsets[phone].user;
                    eprintln!("{} {user}({phone}): {event:?}", crate::ladder::time(self.world.now()));
                }
                self.script.told(&self.world, &self.phones, phone, event.clone());
                self.voices.told(&self.world, &self.phones, &self.script, phone, &event);
            }
        }
    }

    fn act(&mut self, action: Action, told: &mut Vec<(usize, phone::Event)>) {
        if let Action::Fade { call, callee, vanishes } = action {
            if let Some(ear) = self.script.fade(&self.world, &self.phones, call, callee, vanishes) {
                self.voices.mute(ear);
            }
            return;
        }
        self.script.act(&self.world, &mut self.phones, action, told);
    }

    fn deliver(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &Bytes,
        told: &mut Vec<(usize, phone::Event)>,
    ) {
        if to == PROVIDER {
            if let Some(answer) = provider::answer(bytes) {
                self.world.send(PROVIDER, from, answer);
            }
        } else if crate::nonsense::is_stranger(to) {
            // What strangers hear is judged at the end.
        } else if let Some(phone) = self.phones.at(to) {
            if !self.front.lets_pass(&self.world, &self.phones, to, bytes) {
                return;
            }
            self.phones.receive(&self.world, phone, from, bytes, told);
        } else {
            self.voices.hear(&self.world, &self.script, from, to, bytes);
        }
    }

    /// The engine dies: nothing it had in memory, in mailboxes or in the store's queue is left.
    fn bury(&mut self, life: &Life, down: u64) {
        for kind in ActorKind::ALL {
            self.restarts += life.shared.census.restarts(kind);
        }
        self.world.set_epoch(life.epoch + 1_000);
        self.world.streams_die();
        life.store.kill();
        self.script.killed(&self.world);
        let now = self.world.now();
        self.outages.push((now, now + down));
        self.world.push(now + down, Event::Restart);
    }

    /// Time passes without an engine.
    fn wait_for_restart(&mut self) {
        while let Some(at) = self.world.next_at() {
            self.world.advance(at);
            while let Some(event) = self.world.pop_due() {
                match event {
                    Event::Restart => {
                        self.world.set_epoch(self.outages.len() as u32);
                        return;
                    }
                    Event::Datagram { to, .. } if to.ip() == LISTENER.ip() => {}
                    other => self.outside(other),
                }
            }
        }
    }

    /// Now and then, what the gauges say is compared with what lives.
    fn sample(&mut self, life: &Life) {
        if self.world.now() < self.next_sample {
            return;
        }
        self.next_sample = self.world.now() + 1_000_000;
        crate::checks::gauges(&self.world, life);
    }
}
