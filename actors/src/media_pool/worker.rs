//! The actor of a media worker: takes orders, spawns sessions, steps the packet loop.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use smallvec::SmallVec;
use tandem_protocol::time::Instant;

use super::core::{Core, Opened};
use super::io::{MediaSeams, PacketIo};
use super::order::{MediaEvent, MediaOrder, Ordered, SessionId};
use super::ports::PortPool;
use super::session::{Control, FromSession, Hub, MediaSession};
use crate::env::{Shared, Tell, Told};
use crate::metrics::ActorKind;
use crate::shell::{MAX_PANICS, WINDOW, words};
use crate::supervisor::Guard;

/// Look at the sockets and at the time.
#[derive(Clone, Copy, Debug)]
pub struct Step;

/// The actor. Its sockets and sessions survive its panics.
pub struct MediaWorker {
    core: Core,
    hub: Rc<Hub>,
    sessions: BTreeMap<SessionId, Addr<MediaSession>>,
    panics: SmallVec<[Instant; 2]>,
    _guard: Guard,
}

impl MediaWorker {
    /// Worker `number` of an engine; `ports` is the engine's.
    pub fn new(
        number: u16,
        shared: Arc<Shared>,
        seams: Box<dyn MediaSeams>,
        io: Box<dyn PacketIo>,
        ports: Arc<PortPool>,
    ) -> MediaWorker {
        let guard = Guard::with(shared.clone(), ActorKind::MediaWorker, move |panicked| {
            if panicked {
                tracing::error!(worker = number, "a panic has escaped the media worker's shell");
            }
        });
        let hub = Rc::new(Hub { shared, seams });
        MediaWorker {
            core: Core::new(number, hub.clone(), io, ports),
            hub,
            sessions: BTreeMap::new(),
            panics: SmallVec::new(),
            _guard: guard,
        }
    }

    /// Runs `input`; if it panics, everything is rebuilt where it stands and this is `None`.
    fn shielded<R>(&mut self, ctx: &mut Context<Self>, input: impl FnOnce(&mut Self) -> R) -> Option<R> {
        let injected = self.hub.seams.inject_panic(ActorKind::MediaWorker);
        let done = catch_unwind(AssertUnwindSafe(|| {
            let result = input(self);
            assert!(!injected, "injected");
            result
        }));
        match done {
            Ok(result) => Some(result),
            Err(payload) => {
                self.rebuild(&words(payload.as_ref()), ctx);
                None
            }
        }
    }

    #[cold]
    fn rebuild(&mut self, panic: &str, ctx: &mut Context<Self>) {
        let now = self.hub.seams.now();
        let worker = self.core.number;
        tracing::error!(worker, panic, sessions = self.core.by_id.len(), "a media worker is rebuilt");
        self.hub.restarted(ActorKind::MediaWorker);
        self.core.rebuild(now);
        let legs = &self.core.by_id;
        self.sessions.retain(|id, session| legs.contains_key(id) && session.connected());
        let orphans: Vec<SessionId> =
            legs.keys().filter(|id| !self.sessions.contains_key(id)).copied().collect();
        for id in orphans {
            self.spawn(id, ctx);
        }
        self.panics.retain(|at| now.mono.since(*at) < WINDOW);
        self.panics.push(now.mono);
        if self.panics.len() > MAX_PANICS {
            self.hub.seams.escalate(panic);
        }
    }

    /// Gives a leg its actor.
    fn spawn(&mut self, id: SessionId, ctx: &mut Context<Self>) {
        let leg = self.core.by_id.get(&id).and_then(|pair| self.core.leg(*pair)).cloned();
        if let Some(leg) = leg {
            let session = MediaSession::new(leg, self.hub.clone(), ctx.address().recipient());
            self.sessions.insert(id, session.start());
        }
    }

    /// An order that panics is given once more to the rebuilt worker; the second time it is refused.
    fn take(&mut self, order: &MediaOrder, ctx: &mut Context<Self>) {
        for attempt in 0..2 {
            // A panic that was ordered has been had.
            if attempt == 1 && matches!(order, MediaOrder::InjectWorker) {
                return;
            }
            match self.shielded(ctx, |worker| worker.obey(order)) {
                Some(Some(session)) => return self.spawn(session, ctx),
                Some(None) => return,
                None => {}
            }
        }
        self.refuse(order);
    }

    fn refuse(&self, order: &MediaOrder) {
        let why = "the media worker panicked".to_owned();
        match order {
            MediaOrder::Grow { shard, address, .. } => {
                let none =
                    MediaEvent::Granted { worker: self.core.number, address: *address, pairs: Vec::new() };
                self.hub.tell(*shard, none);
            }
            MediaOrder::Open { session, shard, .. } => {
                self.hub.tell(*shard, MediaEvent::Refused { session: *session, why });
            }
            MediaOrder::Record { call, shard, .. } => {
                self.hub.tell(*shard, MediaEvent::RecordingFailed { call: *call, why });
            }
            MediaOrder::Configure { .. }
            | MediaOrder::Close { .. }
            | MediaOrder::Reclaim { .. }
            | MediaOrder::Keep { .. }
            | MediaOrder::InjectSession(..)
            | MediaOrder::InjectWorker => {}
        }
    }

    /// Does what is ordered; a session that it made needs an actor.
    fn obey(&mut self, order: &MediaOrder) -> Option<SessionId> {
        let now = self.hub.seams.now();
        match order {
            MediaOrder::Grow { shard, address, pairs } => self.core.grow(*shard, *address, *pairs),
            MediaOrder::Open { session, lease, config, shard, peer } => {
                match self.core.open(*session, lease.rtp, config, *shard, *peer, now) {
                    Opened::New(before) => {
                        // Its actor ends with its address.
                        before.and_then(|before| self.sessions.remove(&before));
                        return Some(*session);
                    }
                    Opened::Known => self.control(*session, Control::Configure(config.clone())),
                    Opened::Refused(why) => {
                        self.hub.tell(*shard, MediaEvent::Refused { session: *session, why });
                    }
                }
            }
            MediaOrder::Configure { session, config } => {
                if let Some(pair) = self.core.by_id.get(session).copied() {
                    self.core.retune(pair, config);
                }
                self.control(*session, Control::Configure(config.clone()));
            }
            MediaOrder::Record { call, shard, path } => {
                self.core.record(*call, *shard, path.clone(), now);
            }
            MediaOrder::Close { session } => self.control(*session, Control::Close),
            MediaOrder::Reclaim { shard } => {
                self.core.reclaim(*shard);
                self.hub.tell(*shard, MediaEvent::Reclaimed { worker: self.core.number });
            }
            MediaOrder::Keep { shard, calls, ports } => {
                for orphan in self.core.keep(*shard, calls, ports) {
                    self.control(orphan, Control::Close);
                }
            }
            MediaOrder::InjectSession(session, injection) => {
                self.control(*session, Control::Inject(*injection));
            }
            MediaOrder::InjectWorker => panic!("injected by an operator"),
        }
        None
    }

    fn control(&self, session: SessionId, control: Control) {
        if let Some(session) = self.sessions.get(&session) {
            session.tell(control);
        }
    }

    /// Hands sessions that the packet loop found lost to their actors.
    fn report_lost(&mut self) {
        for pair in std::mem::take(&mut self.core.run.lost) {
            let lost = self.core.leg(pair).map(|leg| leg.borrow().id);
            if let Some(session) = lost {
                self.control(session, Control::Check);
            }
        }
    }

    fn step(&mut self, ctx: &mut Context<Self>) {
        let now = self.hub.seams.now();
        self.shielded(ctx, |worker| worker.core.step(now));
        self.report_lost();
        self.announce();
    }

    fn announce(&self) {
        self.hub.seams.want(self.core.wants(self.hub.seams.now()));
    }

    /// Rests what an ended session had.
    fn heard(&mut self, message: &FromSession) {
        match message {
            FromSession::Changed | FromSession::Down(_) => {}
            FromSession::Ended(id, pair) => {
                let closed = self.core.leg(*pair).is_some_and(|leg| !leg.borrow().is_open());
                if closed {
                    self.core.release(*pair, self.hub.seams.now());
                    self.sessions.remove(id);
                }
            }
        }
    }

    /// The last resort: the leg is whole, only its actor is gone.
    fn down(&mut self, id: SessionId, ctx: &mut Context<Self>) {
        self.hub.restarted(ActorKind::MediaSession);
        self.sessions.remove(&id);
        self.spawn(id, ctx);
    }
}

impl Actor for MediaWorker {
    type Context = Context<Self>;
}

impl Handler<Told<MediaOrder>> for MediaWorker {
    type Result = ();
    fn handle(&mut self, told: Told<MediaOrder>, ctx: &mut Context<Self>) {
        self.take(&told.0, ctx);
        self.announce();
    }
}

impl Handler<Told<Ordered>> for MediaWorker {
    type Result = ();
    fn handle(&mut self, told: Told<Ordered>, ctx: &mut Context<Self>) {
        let Ordered { order, by } = told.0;
        if !by.is_fenced() {
            self.take(&order, ctx);
            self.announce();
        }
    }
}

impl Handler<Told<Step>> for MediaWorker {
    type Result = ();
    fn handle(&mut self, _: Told<Step>, ctx: &mut Context<Self>) {
        self.step(ctx);
    }
}

impl StreamHandler<Step> for MediaWorker {
    fn handle(&mut self, _: Step, ctx: &mut Context<Self>) {
        self.step(ctx);
    }
}

impl Handler<Told<FromSession>> for MediaWorker {
    type Result = ();
    fn handle(&mut self, told: Told<FromSession>, ctx: &mut Context<Self>) {
        if let FromSession::Down(id) = told.0 {
            self.down(id, ctx);
        } else if self.shielded(ctx, |worker| worker.heard(&told.0)).is_none() {
            // It says so only once.
            self.shielded(ctx, |worker| worker.heard(&told.0));
        }
        self.announce();
    }
}
