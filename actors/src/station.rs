//! The actor of one station: its bindings. It is activated when they expire or their connection ends, and rests in the store otherwise.
//!
//! A REGISTER does not activate it: while a station has no actor its shard carries out what devices ask for, by the same machine
//! (`station/at_rest.rs`). Whatever that panics at is the actor's, which is made for it then.

pub(crate) mod at_rest;
mod changed;
mod commits;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use tandem_protocol::flow::ConnectionId;
use tandem_protocol::registrar::{Binding, BindingRef, Bindings, ContactSet, RegisterError, Update};
use tandem_protocol::time::{Instant, Now};

use crate::directory::StationEntry;
use crate::env::{Env, Fire, Tell, TimerKey, Told};
use crate::ids::ShardId;
use crate::metrics::ActorKind;
use crate::registrar::{Register, RegisterDone};
use crate::shard::{Adopted, BindingsChanged, Fault, LinkMessage, NamedDown, Shard, StationIdle};
use crate::shell::{Fed, Injection, Machine, Shell};
use crate::supervisor::Guard;
use crate::timer_wheel::TimerId;

use changed::Changed;
pub(crate) use commits::{Commits, Place};

/// The number of the stored form.
const FORMAT: u8 = 3;
/// The one before: its flows name a listener by its place in the settings, which reads alike.
const FORMER: u8 = 2;
/// A REGISTER waits this long for its commit; then it is answered from memory.
pub(crate) const COMMIT_PATIENCE: Duration = Duration::from_millis(100);
/// A station without work rests in the store after this.
const IDLE: Duration = Duration::from_secs(10);

/// What the store's tickets carry for a station, with the place of the REGISTER in the low bits ([`place_of`]): distinct from
/// every call's key by its top bit.
pub(crate) fn token(name: &str) -> u64 {
    (tandem_protocol::fnv::fnv1a(name.bytes()) | 1 << 63) & !u64::from(Place::MAX)
}

/// Takes a ticket's token apart: the station's, and which of its REGISTERs is meant.
pub(crate) fn place_of(token: u64) -> (u64, Place) {
    (token & !u64::from(Place::MAX), token as Place)
}

/// Bindings as the store keeps them.
pub fn read_bindings(frozen: &[u8]) -> Option<Vec<Binding>> {
    crate::checkpoint::thaw_of(&[FORMAT, FORMER], frozen)
}

/// The stored form of bindings.
pub(crate) fn freeze_bindings(bindings: &[Binding]) -> Option<Bytes> {
    crate::checkpoint::freeze(FORMAT, &bindings)
}

/// What stands behind the number of a form that is read, as `postcard` has written it.
pub(crate) fn of_known_format(frozen: &[u8]) -> Option<&[u8]> {
    frozen.split_first().filter(|(format, _)| [FORMAT, FORMER].contains(format)).map(|(_, rest)| rest)
}

/// Bindings have expired.
pub(crate) struct Expire;

/// A connection has ended by which a device kept a flow.
pub(crate) struct FlowGone(pub(crate) ConnectionId);

/// The settings have this station no longer.
pub(crate) struct Removed;

/// The store has committed the REGISTER at this place, or could not.
pub(crate) struct Committed {
    pub(crate) place: Place,
    pub(crate) well: bool,
}

/// The machine: the registrar's rules for one address-of-record.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Registered(Vec<Binding>);

impl Registered {
    #[cfg(test)]
    pub(crate) fn of(bindings: Vec<Binding>) -> Registered {
        Registered(bindings)
    }

    /// Has the registrar's rules change the bindings.
    fn change<T>(&mut self, change: impl FnOnce(&mut Bindings) -> T) -> T {
        let mut bindings = Bindings::from_list(std::mem::take(&mut self.0));
        let done = change(&mut bindings);
        self.0 = bindings.into_list();
        done
    }

    fn register(&mut self, update: &Update, now: Now) -> Result<(), RegisterError> {
        self.change(|bindings| bindings.update(now.wall, update))
    }
}

#[derive(Clone)]
pub(crate) enum Change {
    Register(Arc<Update>),
    Expire,
    FlowGone(ConnectionId),
    Clear,
    Nothing,
}

pub(crate) enum Outcome {
    Registered(Result<(), RegisterError>),
    /// What was removed, not by a REGISTER.
    Removed(Vec<Binding>),
}

impl Machine for Registered {
    type Input = Change;
    type Output = Outcome;

    fn handle(&mut self, input: &Change, now: Now, out: &mut Vec<Outcome>) {
        out.push(match input {
            Change::Register(update) => Outcome::Registered(self.register(update, now)),
            Change::Expire => Outcome::Removed(self.change(|bindings| bindings.expire(now.wall))),
            Change::FlowGone(connection) => {
                Outcome::Removed(self.change(|bindings| bindings.flow_failed(*connection)))
            }
            Change::Clear => Outcome::Removed(std::mem::take(&mut self.0)),
            Change::Nothing => return,
        });
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn blank() -> Registered {
        Registered(Vec::new())
    }

    fn freeze(&self) -> Option<Bytes> {
        freeze_bindings(&self.0)
    }

    fn thaw(frozen: &Bytes) -> Option<Registered> {
        read_bindings(frozen).map(Registered)
    }
}

/// The actor.
pub struct StationActor {
    env: Env,
    shard: Addr<Shard>,
    entry: Arc<StationEntry>,
    shell: Shell<Registered>,
    /// Answers, and for which shards.
    waiting: Commits<(ShardId, RegisterDone)>,
    idle_at: Instant,
    /// The settings have it no longer.
    removed: bool,
    /// How many of the shard's messages it has handled.
    handled: u64,
    timer: Option<TimerId>,
    fault: Fault,
    _guard: Guard,
}

impl StationActor {
    pub(crate) fn launch(env: &Env, shard: &Addr<Shard>, entry: Arc<StationEntry>) -> Addr<StationActor> {
        let (fault, guard) = NamedDown::guard(env, shard, ActorKind::Station, &entry.config.name);
        let actor = StationActor {
            env: env.clone(),
            shard: shard.clone(),
            shell: Shell::new(Registered(entry.bindings())),
            entry,
            waiting: Commits::new(env.random() as Place),
            idle_at: env.now().mono + IDLE,
            removed: false,
            handled: 0,
            timer: None,
            fault,
            _guard: guard,
        };
        actor.start()
    }

    fn feed(&mut self, change: &Change, ctx: &mut Context<Self>) -> Vec<Outcome> {
        if self.env.inject_panic(ActorKind::Station) {
            self.shell.inject(Injection::Once);
        }
        let mut out = Vec::new();
        match self.shell.feed(change, self.env.now(), &mut out) {
            Fed::Well => {}
            Fed::Rebuilt { panic } => {
                NamedDown::note_rebuilt(&self.env, ActorKind::Station, &self.entry.config.name, &panic);
            }
            Fed::Lost { panic } => {
                *self.fault.borrow_mut() = Some(panic);
                self.answer_all();
                ctx.stop();
            }
        }
        out
    }

    fn register(&mut self, register: Register, ctx: &mut Context<Self>) {
        let kept = self.entry.kept();
        let before: SmallVec<[BindingRef<'_>; 1]> = kept.iter().flat_map(|kept| kept.iter()).collect();
        let change = Change::Register(register.update.clone());
        let outcome = if self.removed { None } else { self.feed(&change, ctx).pop() };
        let Some(Outcome::Registered(result)) = outcome else {
            // There is no such station any more, or a fault has ended the machine; whoever comes next finds a new one.
            self.answer(register.shard, RegisterDone::of_none(&register));
            return;
        };
        let now = self.env.now();
        let bindings = result.map(|()| self.shell.machine().0.as_slice());
        let done = RegisterDone::of(&register, bindings, now.wall);
        if result.is_err() || register.update.contacts == ContactSet::Query {
            self.answer(register.shard, done);
            return;
        }
        let ticket = token(&self.entry.config.name) | u64::from(self.waiting.next());
        self.publish(|changed| {
            changed.registered(&before, register.flow.remote, now.wall, ticket);
        });
        self.waiting.push((register.shard, done), now.mono + COMMIT_PATIENCE);
    }

    /// Removes bindings, not by a REGISTER.
    fn remove(&mut self, change: &Change, why: &'static str, ctx: &mut Context<Self>) {
        let now = self.env.now();
        for outcome in self.feed(change, ctx) {
            if let Outcome::Removed(gone) = outcome {
                self.publish(|changed| {
                    if !gone.is_empty() {
                        changed.removed(gone.len(), why, now.wall);
                    }
                });
            }
        }
    }

    fn publish(&mut self, told: impl FnOnce(&Changed<'_>)) {
        // Before the machine is looked at: it may have to be frozen first.
        let frozen = self.shell.frozen().cloned();
        let bindings = &self.shell.machine().0;
        let changed = Changed { env: &self.env, entry: &self.entry, bindings, frozen: frozen.as_ref() };
        if changed.publish() {
            self.shard.tell(BindingsChanged(self.entry.clone()));
        }
        told(&changed);
    }

    fn answer(&self, shard: ShardId, done: RegisterDone) {
        self.env.link(shard, LinkMessage::RegisterDone(Box::new(done)));
    }

    fn answer_all(&mut self) {
        while let Some((shard, done)) = self.waiting.pop() {
            self.answer(shard, done);
        }
    }

    fn rearm(&mut self) {
        let now = self.env.now().mono;
        self.idle_at = now + IDLE;
        let at = self.waiting.deadline().unwrap_or(self.idle_at);
        if let Some(timer) = self.timer {
            self.env.arm(timer, Some(at));
        }
    }
}

impl Actor for StationActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.timer = Some(self.env.timer(TimerKey::Actor(ctx.address().downgrade().recipient())));
        self.rearm();
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            self.env.forget(timer);
        }
    }
}

impl Handler<Told<Register>> for StationActor {
    type Result = ();
    fn handle(&mut self, told: Told<Register>, ctx: &mut Context<Self>) {
        self.handled += 1;
        self.register(told.0, ctx);
        self.rearm();
    }
}

impl Handler<Told<Committed>> for StationActor {
    type Result = ();
    fn handle(&mut self, told: Told<Committed>, _: &mut Context<Self>) {
        self.handled += 1;
        let Committed { place, well } = told.0;
        if !well {
            tracing::error!(station = %self.entry.config.name, "the binding could not be stored; it is kept in memory");
        }
        if let Some((shard, done)) = self.waiting.committed(place) {
            self.answer(shard, done);
        }
        self.rearm();
    }
}

impl Handler<Told<Expire>> for StationActor {
    type Result = ();
    fn handle(&mut self, _: Told<Expire>, ctx: &mut Context<Self>) {
        self.handled += 1;
        self.remove(&Change::Expire, "expired", ctx);
        self.rearm();
    }
}

impl Handler<Told<FlowGone>> for StationActor {
    type Result = ();
    fn handle(&mut self, told: Told<FlowGone>, ctx: &mut Context<Self>) {
        self.handled += 1;
        self.remove(&Change::FlowGone(told.0.0), "flow_failed", ctx);
        self.rearm();
    }
}

impl Handler<Told<Removed>> for StationActor {
    type Result = ();
    fn handle(&mut self, _: Told<Removed>, ctx: &mut Context<Self>) {
        self.handled += 1;
        self.removed = true;
        self.remove(&Change::Clear, "station_removed", ctx);
        self.rearm();
    }
}

impl Handler<Told<Adopted>> for StationActor {
    type Result = ();
    fn handle(&mut self, told: Told<Adopted>, _: &mut Context<Self>) {
        self.handled += 1;
        self.env.adopt(&told.0.0);
        if let Some(entry) = self.env.directory().station(&self.entry.config.name) {
            self.entry = entry.clone();
            self.removed = false;
        }
        self.rearm();
    }
}

impl Handler<Told<Fire>> for StationActor {
    type Result = ();
    fn handle(&mut self, _: Told<Fire>, _: &mut Context<Self>) {
        let now = self.env.now().mono;
        while let Some((shard, done)) = self.waiting.overdue(now) {
            tracing::error!(station = %self.entry.config.name, "the store is slow: a REGISTER was answered before its commit");
            self.answer(shard, done);
        }
        if self.waiting.deadline().is_none() && self.idle_at <= now {
            self.shard.tell(StationIdle { station: self.entry.config.name.clone(), handled: self.handled });
        } else {
            let at = self.waiting.deadline().unwrap_or(self.idle_at);
            if let Some(timer) = self.timer {
                self.env.arm(timer, Some(at));
            }
        }
    }
}

impl Handler<Told<Injection>> for StationActor {
    type Result = ();
    fn handle(&mut self, told: Told<Injection>, ctx: &mut Context<Self>) {
        self.handled += 1;
        self.shell.inject(told.0);
        self.feed(&Change::Nothing, ctx);
        self.rearm();
    }
}
