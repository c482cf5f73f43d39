//! The actors that have names: stations on demand, trunks and registration groups from the start; restarted after a fault.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use tandem_protocol::flow::{ConnectionId, Flow};
use tandem_protocol::message::Message;

use super::{LinkMessage, Shard};
use crate::env::{Env, Tell, Told};
use crate::events::{Event, EventKind};
use crate::metrics::ActorKind;
use crate::owner::Owner;
use crate::registrar::{self, Register};
use crate::registration_group::GroupActor;
use crate::shell::Injection;
use crate::sip::endpoint::Outgoing;
use crate::station::{self, StationActor};
use crate::store::{Batch, Urgency};
use crate::supervisor::Guard;
use crate::trunk::TrunkActor;

/// A named actor has ended.
pub(crate) struct NamedDown {
    pub(crate) kind: ActorKind,
    pub(crate) name: Arc<str>,
    /// What the panic said, if a fault ended it.
    pub(crate) fault: Option<String>,
}

/// Where an actor leaves word of the fault that ends it.
pub(crate) type Fault = Rc<RefCell<Option<String>>>;

impl NamedDown {
    /// A guard that tells the shard of the actor's end, with the fault if one is noted or if a panic escaped its shell.
    pub(crate) fn guard(env: &Env, shard: &Addr<Shard>, kind: ActorKind, name: &Arc<str>) -> (Fault, Guard) {
        let fault = Fault::default();
        let (shard, name, noted) = (shard.clone(), name.clone(), fault.clone());
        let guard = Guard::new(env, kind, move |panicked| {
            let fault = noted.take().or_else(|| panicked.then(|| "outside its machine".to_owned()));
            shard.tell(NamedDown { kind, name, fault });
        });
        (fault, guard)
    }

    /// Counts and tells that an actor's machine was rebuilt where it stands.
    pub(crate) fn note_rebuilt(env: &Env, kind: ActorKind, name: &str, panic: &str) {
        tracing::error!(actor = kind.as_str(), name, panic, "an actor panicked and was rebuilt");
        env.metrics().restarted(kind);
        env.shared().census.restarted(kind);
        let event = Event::new(env.now().wall, EventKind::ActorRestarted, "rebuilt from its last good state");
        let mut batch = Batch::new(Urgency::Lazy);
        batch
            .events
            .push(event.with("actor", format!("{}:{name}", kind.as_str())).with("panic", panic.to_owned()));
        env.submit(batch);
    }
}

/// A station's actor on this shard.
pub(super) struct KnownStation {
    pub(super) actor: Addr<StationActor>,
    /// How many messages it was told.
    told: u64,
}

impl KnownStation {
    pub(super) fn tell<T>(&mut self, message: T)
    where
        Addr<StationActor>: Tell<T>,
    {
        self.told += 1;
        self.actor.tell(message);
    }
}

/// A station has nothing to do. It goes once nobody has its address: a message on its way to it is not lost.
pub(crate) struct StationIdle {
    pub(crate) station: Arc<str>,
    /// How many of the shard's messages it has handled.
    pub(crate) handled: u64,
}

/// A request of an actor that is no dialog.
pub(crate) struct SendRequest {
    pub(crate) outgoing: Outgoing,
    pub(crate) owner: Owner,
}

impl Shard {
    /// Starts the trunks and registration groups that live here, and learns when stored bindings expire.
    pub(super) fn start_named(&mut self, ctx: &mut Context<Self>) {
        let env = self.env.clone();
        let here = |name: &str| env.directory().home(name) == env.shard();
        for trunk in env.config().trunks.iter().filter(|t| here(&t.name)) {
            self.start_trunk(&trunk.name, ctx);
        }
        for group in env.config().registration_groups.iter().filter(|g| here(&g.name)) {
            self.start_group(&group.name, ctx);
        }
        self.registered.begin(env.config().keepalive, env.now().mono);
        for station in env.directory().stations().filter(|s| here(&s.config.name)) {
            self.registered.forget(station);
            let first = station.kept().map(|kept| kept.first_expiry());
            self.registered.set(station, first, env.now());
        }
    }

    pub(super) fn start_trunk(&mut self, name: &Arc<str>, ctx: &Context<Self>) {
        if let Some(entry) = self.env.directory().trunk(name) {
            let trunk = TrunkActor::launch(&self.env, &ctx.address(), entry.clone());
            if self.poisoned.contains(&(ActorKind::Trunk, name.clone())) {
                trunk.tell(Injection::Always);
            }
            self.trunks.insert(name.clone(), trunk);
        }
    }

    pub(super) fn start_group(&mut self, name: &Arc<str>, ctx: &Context<Self>) {
        if let Some(entry) = self.env.directory().registration(name) {
            let group = GroupActor::launch(&self.env, &ctx.address(), entry.clone());
            if self.poisoned.contains(&(ActorKind::RegistrationGroup, name.clone())) {
                group.tell(Injection::Always);
            }
            self.groups.insert(name.clone(), group);
        }
    }

    /// Has a trunk or a registration group that lives here panic at every input, or no longer; false if there is none of this id.
    pub(super) fn poison(&mut self, id: &str, poisoned: bool) -> bool {
        let Some((kind, name)) = id.split_once(':') else { return false };
        let directory = self.env.directory();
        let found = match kind {
            "trunk" => directory.trunk(name).map(|t| (ActorKind::Trunk, t.config.name.clone())),
            "registration_group" => {
                directory.registration(name).map(|g| (ActorKind::RegistrationGroup, g.config.name.clone()))
            }
            _ => None,
        };
        let Some(actor) = found.filter(|(_, name)| directory.home(name) == self.env.shard()) else {
            return false;
        };
        let injection = if poisoned { Injection::Always } else { Injection::None };
        self.trunks
            .get(name)
            .filter(|_| actor.0 == ActorKind::Trunk)
            .into_iter()
            .for_each(|t| t.tell(injection));
        let group = self.groups.get(name).filter(|_| actor.0 == ActorKind::RegistrationGroup);
        group.into_iter().for_each(|g| g.tell(injection));
        if poisoned {
            self.poisoned.insert(actor);
        } else {
            self.poisoned.remove(&actor);
        }
        true
    }

    /// Writes to the actor of a station, activated if it is passive; false if there is no such station.
    pub(super) fn tell_station<T>(&mut self, name: &Arc<str>, message: T, ctx: &Context<Self>) -> bool
    where
        Addr<StationActor>: Tell<T>,
    {
        let mut known = self.stations.get_mut(name).filter(|station| station.actor.connected());
        if known.is_none() {
            let Some(entry) = self.env.directory().station(name).cloned() else { return false };
            let actor = StationActor::launch(&self.env, &ctx.address(), entry);
            self.station_tokens.insert(station::token(name), name.clone());
            self.stations.insert(name.clone(), KnownStation { actor, told: 0 });
            known = self.stations.get_mut(name);
        }
        if let Some(station) = known {
            station.tell(message);
        }
        true
    }

    pub(super) fn register(&mut self, request: &Message, flow: Flow, ctx: &Context<Self>) {
        if let Some(refused) = self.sheds_registration(request) {
            return self.refuse(request, flow, &refused);
        }
        match registrar::receive(&self.env, request, flow) {
            Ok(accepted) => {
                let transaction = self.endpoint().accept(request, flow);
                let home = self.env.directory().home(&accepted.station);
                let register = Register {
                    station: accepted.station,
                    update: Arc::new(accepted.update),
                    shard: self.env.shard(),
                    transaction,
                    flow,
                    request: request.clone(),
                };
                if home == self.env.shard() {
                    self.register_here(register, ctx);
                } else {
                    self.env.link(home, LinkMessage::Register(Box::new(register)));
                }
            }
            Err(refused) => self.refuse(request, flow, &refused),
        }
    }

    /// A connection has ended: the stations whose devices kept a flow by it drop that.
    pub(super) fn flows_gone(&mut self, connection: ConnectionId, ctx: &Context<Self>) {
        for station in self.flows.ended(connection) {
            self.tell_station(&station, station::FlowGone(connection), ctx);
        }
    }

    /// Starts again what has rested long enough.
    pub(super) fn wake_rested(&mut self, ctx: &Context<Self>) {
        let now = self.env.now().mono;
        while let Some((at, kind, name)) = self.resting.first().cloned() {
            if at > now {
                break;
            }
            self.resting.pop_first();
            match kind {
                ActorKind::Trunk => self.start_trunk(&name, ctx),
                ActorKind::RegistrationGroup => self.start_group(&name, ctx),
                ActorKind::Station
                | ActorKind::Shard
                | ActorKind::Call
                | ActorKind::Dialog
                | ActorKind::MediaSession
                | ActorKind::MediaWorker => {}
            }
        }
    }
}

impl Handler<Told<NamedDown>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<NamedDown>, _: &mut Context<Self>) {
        let NamedDown { kind, name, fault } = told.0;
        match kind {
            ActorKind::Station => {
                if self.stations.get(&name).is_some_and(|station| !station.actor.connected()) {
                    self.stations.remove(&name);
                    self.station_tokens.remove(&station::token(&name));
                }
            }
            // Another may have its place already, with other settings.
            ActorKind::Trunk => self.trunks.retain(|known, actor| *known != name || actor.connected()),
            ActorKind::RegistrationGroup => {
                self.groups.retain(|known, actor| *known != name || actor.connected());
            }
            ActorKind::Shard
            | ActorKind::Call
            | ActorKind::Dialog
            | ActorKind::MediaSession
            | ActorKind::MediaWorker => {}
        }
        let Some(panic) = fault else {
            self.failures.remove(&(kind, name));
            return;
        };
        let now = self.env.now();
        let rest = self.failures.entry((kind, name.clone())).or_default().again(now.mono);
        tracing::error!(actor = kind.as_str(), %name, panic, rest_ms = rest.as_millis() as u64, "an actor has failed; it restarts after a rest");
        self.env.metrics().restarted(kind);
        self.env.shared().census.restarted(kind);
        let event = Event::new(now.wall, EventKind::ActorRestarted, "restarted after a rest");
        let mut batch = Batch::new(Urgency::Lazy);
        batch.events.push(event.with("actor", format!("{}:{name}", kind.as_str())).with("panic", panic));
        self.env.submit(batch);
        if kind != ActorKind::Station {
            self.resting.insert((now.mono + rest, kind, name));
            self.rearm();
        }
    }
}

impl Handler<Told<StationIdle>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<StationIdle>, _: &mut Context<Self>) {
        let StationIdle { station, handled } = told.0;
        if self.stations.get(&station).is_some_and(|known| known.told == handled) {
            self.station_tokens.remove(&station::token(&station));
            self.stations.remove(&station);
        }
    }
}

impl Handler<Told<SendRequest>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<SendRequest>, _: &mut Context<Self>) {
        self.endpoint().send(told.0.outgoing, Some(told.0.owner));
    }
}
