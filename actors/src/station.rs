//! The actor of one station: its bindings. It is activated by a REGISTER or an expiry and rests in the store otherwise.

mod commits;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tandem_protocol::flow::ConnectionId;
use tandem_protocol::registrar::{Binding, Bindings, RegisterError, Update};
use tandem_protocol::time::{Instant, Now};

use crate::directory::{KeptBindings, StationEntry};
use crate::env::{Env, Fire, Tell, TimerKey, Told};
use crate::events::{Event, EventKind};
use crate::metrics::ActorKind;
use crate::registrar::{Register, RegisterDone};
use crate::shard::{Adopted, BindingsChanged, Fault, LinkMessage, NamedDown, Shard, StationIdle};
use crate::shell::{Fed, Injection, Machine, Shell};
use crate::store::{Batch, Bucket, Ticket, Urgency, Write};
use crate::supervisor::Guard;
use crate::timer_wheel::TimerId;

use commits::Commits;
pub(crate) use commits::Place;

/// The number of the stored form.
const FORMAT: u8 = 3;
/// The one before: its flows name a listener by its place in the settings, which reads alike.
const FORMER: u8 = 2;
/// A REGISTER waits this long for its commit; then it is answered from memory.
const COMMIT_PATIENCE: Duration = Duration::from_millis(100);
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

#[cfg(test)]
impl Registered {
    pub(crate) fn of(bindings: Vec<Binding>) -> Registered {
        Registered(bindings)
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
    Registered(Result<Vec<Binding>, RegisterError>),
    /// What was removed, not by a REGISTER.
    Removed(Vec<Binding>),
}

impl Machine for Registered {
    type Input = Change;
    type Output = Outcome;

    fn handle(&mut self, input: &Change, now: Now, out: &mut Vec<Outcome>) {
        let mut bindings = Bindings::from_list(std::mem::take(&mut self.0));
        match input {
            Change::Register(update) => out.push(Outcome::Registered(bindings.register(now.wall, &**update))),
            Change::Expire => out.push(Outcome::Removed(bindings.expire(now.wall))),
            Change::FlowGone(connection) => out.push(Outcome::Removed(bindings.flow_failed(*connection))),
            Change::Clear => out.push(Outcome::Removed(std::mem::take(&mut bindings).into_list())),
            Change::Nothing => {}
        }
        self.0 = bindings.into_list();
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn freeze(&self) -> Option<Bytes> {
        freeze_bindings(&self.0)
    }

    fn thaw(frozen: &Bytes, _now: Now) -> Option<Registered> {
        read_bindings(frozen).map(Registered)
    }
}

/// The actor.
pub struct StationActor {
    env: Env,
    shard: Addr<Shard>,
    entry: Arc<StationEntry>,
    shell: Shell<Registered>,
    waiting: Commits<(Register, Result<Vec<Binding>, RegisterError>)>,
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
        if self.removed {
            return self.reply(register, None);
        }
        let now = self.env.now();
        let known = self.entry.kept();
        let change = Change::Register(register.update.clone());
        let outcome = self.feed(&change, ctx).pop();
        let Some(Outcome::Registered(result)) = outcome else {
            // A fault has ended the machine; whoever comes next finds a new one.
            self.reply(register, None);
            return;
        };
        let changed =
            result.is_ok() && register.update.contacts != tandem_protocol::registrar::ContactSet::Query;
        if !changed {
            self.answer(register, result);
            return;
        }
        self.publish();
        let bindings = &self.shell.machine().0;
        let (before, after) = (known.as_ref().map_or(0, |known| known.len()), bindings.len());
        let name = &self.entry.config.name;
        if is_refresh(known.as_deref(), bindings) {
            tracing::debug!(station = %name, bindings = after, source = %register.flow.remote, "registered again");
        } else {
            tracing::info!(station = %name, bindings = after, source = %register.flow.remote, "registered");
        }
        let event = Event::new(
            now.wall,
            EventKind::Registration,
            if after < before { "removed" } else { "registered" },
        );
        let event = event.with("station", name.to_string()).with("bindings", after as i64);
        self.save(Urgency::Urgent, event);
        self.waiting.push((register, result), now.mono + COMMIT_PATIENCE);
    }

    /// Removes bindings, not by a REGISTER.
    fn remove(&mut self, change: &Change, why: &'static str, ctx: &mut Context<Self>) {
        let now = self.env.now();
        for outcome in self.feed(change, ctx) {
            if let Outcome::Removed(gone) = outcome {
                self.publish();
                if !gone.is_empty() {
                    let name = self.entry.config.name.to_string();
                    tracing::info!(station = name, removed = gone.len(), why, "bindings removed");
                    let event = Event::new(now.wall, EventKind::Registration, why).with("station", name);
                    self.save(Urgency::Lazy, event.with("bindings", self.shell.machine().0.len() as i64));
                }
            }
        }
    }

    fn publish(&mut self) {
        if self.env.is_fenced() {
            return;
        }
        let before = self.entry.binding_count();
        // Before the machine is looked at: it may have to be frozen first.
        let frozen = self.shell.frozen().cloned();
        self.entry.publish_frozen(frozen.as_ref(), &self.shell.machine().0);
        let after = self.entry.binding_count();
        self.env.metrics().registrations_active.increment(after as f64 - before as f64);
        self.shard.tell(BindingsChanged(self.entry.clone()));
    }

    fn save(&mut self, urgency: Urgency, event: Event) {
        let empty = self.shell.machine().0.is_empty();
        let value = self.shell.frozen().filter(|_| !empty).cloned();
        let name = &self.entry.config.name;
        let mut batch = Batch::new(urgency);
        batch.writes.push(Write { bucket: Bucket::Bindings, key: name.to_string(), value, expect: None });
        batch.events.push(event);
        let token = token(name) | u64::from(self.waiting.next());
        batch.ticket = (urgency == Urgency::Urgent).then(|| Ticket { shard: self.env.shard().0, token });
        self.env.submit(batch);
    }

    fn answer(&self, register: Register, result: Result<Vec<Binding>, RegisterError>) {
        self.reply(register, Some(result));
    }

    fn reply(&self, register: Register, result: Option<Result<Vec<Binding>, RegisterError>>) {
        let Register { transaction, flow, request, shard, update, .. } = register;
        let done = RegisterDone { transaction, flow, request, update, now: self.env.now().wall, result };
        self.env.link(shard, LinkMessage::RegisterDone(Box::new(done)));
    }

    fn answer_all(&mut self) {
        while let Some((register, result)) = self.waiting.pop() {
            self.answer(register, result);
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

/// True if a REGISTER has changed neither where the station is found nor by which way.
fn is_refresh(before: Option<&KeptBindings>, after: &[Binding]) -> bool {
    let Some(before) = before else { return after.is_empty() };
    before.len() == after.len() && after.iter().all(|new| before.iter().any(|old| old.leads_where(new)))
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
        if let Some((register, result)) = self.waiting.committed(place) {
            self.answer(register, result);
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
        while let Some((register, result)) = self.waiting.overdue(now) {
            tracing::error!(station = %self.entry.config.name, "the store is slow: a REGISTER was answered before its commit");
            self.answer(register, result);
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
