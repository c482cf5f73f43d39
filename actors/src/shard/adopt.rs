//! Other settings come into force on a shard: between two messages, and for whatever begins from then on.

use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::mpsc::UnboundedSender;

use super::Shard;
use crate::env::{Env, Tell, Told};
use crate::generation::{Change, Generation};
use crate::ids::ShardId;
use crate::metrics::ActorKind;
use crate::registration_group::Part;
use crate::station;

/// These settings are in force from now on.
pub struct Adopt {
    /// What they change.
    pub change: Arc<Change>,
    /// Told when they are.
    pub done: UnboundedSender<ShardId>,
}

/// The same, for an actor that outlives a reload. Calls and dialogs do not hear of it.
pub(crate) struct Adopted(pub(crate) Arc<Generation>);

impl Shard {
    fn adopt(&mut self, change: &Change, ctx: &Context<Self>) {
        // Before the stations that are gone cannot be found any more.
        for entry in change.gone_from(self.env.shard()) {
            let name = &entry.config.name;
            if entry.is_registered() || self.stations.contains_key(name) {
                self.tell_station(name, station::Removed, ctx);
            }
        }
        let before = self.env.clone();
        self.env.adopt(&change.generation);
        self.endpoint.adopt(&self.env);
        // By what has come can be sent from now on; it is read once every shard has it.
        self.env.listen();
        self.adopt_overload();
        for known in self.stations.values_mut() {
            known.tell(Adopted(change.generation.clone()));
        }
        self.adopt_trunks(&before, change, ctx);
        self.adopt_groups(change, ctx);
    }

    fn adopt_trunks(&mut self, before: &Env, change: &Change, ctx: &Context<Self>) {
        let here = self.here();
        for name in change.comparison.trunks.removed.iter().filter(|name| here(name)) {
            if let Some(old) = before.directory().trunk(name) {
                old.retire(None);
            }
            self.trunks.remove(name);
            self.forget_fault(ActorKind::Trunk, name);
        }
        for name in change.comparison.trunks.changed.iter().filter(|name| here(name)) {
            let (old, new) = (before.directory().trunk(name), self.env.directory().trunk(name));
            let (Some(old), Some(new)) = (old, new) else { continue };
            old.retire(Some(new));
            // What is believed of its proxies holds only if they are reached and asked as before.
            let asked_alike = old.config.qualify_interval == new.config.qualify_interval
                && before.config().listener_id(old.config.listener)
                    == self.env.config().listener_id(new.config.listener);
            if !asked_alike || !self.trunks.contains_key(name) {
                self.forget_fault(ActorKind::Trunk, name);
                self.start_trunk(name, ctx);
            }
        }
        for name in change.comparison.trunks.added.iter().filter(|name| here(name)) {
            self.start_trunk(name, ctx);
        }
        for trunk in self.trunks.values() {
            trunk.tell(Adopted(change.generation.clone()));
        }
    }

    fn adopt_groups(&mut self, change: &Change, ctx: &Context<Self>) {
        let here = self.here();
        let groups = &change.comparison.registration_groups;
        for name in groups.removed.iter().chain(&groups.changed).filter(|name| here(name)) {
            if let Some(group) = self.groups.remove(name) {
                let stays = groups.changed.contains(name);
                group.tell(Part { next: stays.then(|| change.generation.clone()) });
            }
            self.forget_fault(ActorKind::RegistrationGroup, name);
        }
        for name in groups.added.iter().chain(&groups.changed).filter(|name| here(name)) {
            self.start_group(name, ctx);
        }
        for group in self.groups.values() {
            group.tell(Adopted(change.generation.clone()));
        }
    }

    /// Whether what has this name lives on this shard.
    fn here(&self) -> impl Fn(&Arc<str>) -> bool + use<> {
        let env = self.env.clone();
        move |name| env.directory().home(name) == env.shard()
    }

    /// One that rests after a fault does not come back as it was.
    fn forget_fault(&mut self, kind: ActorKind, name: &Arc<str>) {
        self.resting.retain(|(_, of, resting)| (*of, resting) != (kind, name));
        self.failures.remove(&(kind, name.clone()));
    }
}

impl Handler<Told<Adopt>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<Adopt>, ctx: &mut Context<Self>) {
        let Adopt { change, done } = told.0;
        self.adopt(&change, ctx);
        // Whoever asked may have given up waiting.
        let _ = done.send(self.env.shard());
    }
}

/// Which listeners there are, and which of them are heard, has changed.
pub struct Hear;

impl Handler<Told<Hear>> for Shard {
    type Result = ();
    fn handle(&mut self, _: Told<Hear>, _: &mut Context<Self>) {
        self.env.listen();
    }
}
