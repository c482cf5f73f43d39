//! REGISTERs for stations that live here. One that has an actor is told; for one that rests the shard carries it out, and holds the
//! answer until the store has committed.

use std::sync::Arc;

use actix::prelude::*;

use super::{LinkMessage, Shard};
use crate::directory::StationEntry;
use crate::env::Env;
use crate::ids::ShardId;
use crate::metrics::ActorKind;
use crate::registrar::{Register, RegisterDone};
use crate::shard::NamedDown;
use crate::station::at_rest::{self, Done};
use crate::station::{self, COMMIT_PATIENCE, Commits, Place};

/// An answer that waits for its commit.
struct Held {
    station: Arc<str>,
    /// Where the REGISTER came.
    shard: ShardId,
    done: RegisterDone,
}

/// The answers that wait.
pub(super) struct Registering(Commits<Held>);

impl Registering {
    pub(super) fn new(env: &Env) -> Registering {
        Registering(Commits::new(env.random() as Place))
    }

    /// Whether a ticket with this token, its place taken out, is of these: no station is without a name.
    pub(super) fn is_its(token: u64) -> bool {
        token == station::token("")
    }

    /// When the first has waited too long.
    pub(super) fn deadline(&self) -> Option<tandem_protocol::time::Instant> {
        self.0.deadline()
    }
}

impl Shard {
    pub(super) fn register_here(&mut self, register: Register, ctx: &Context<Self>) {
        if let Some(connection) = register.flow.connection.filter(|_| register.update.outbound) {
            self.flows.expect(&register.station, connection);
        }
        let name = register.station.clone();
        let entry = self.env.directory().station(&name).cloned();
        match entry {
            Some(entry) if !self.stations.contains_key(&name) => self.register_at_rest(register, &entry, ctx),
            None if !self.stations.contains_key(&name) => {
                // It was verified under settings that have just been replaced.
                self.registered(register.shard, RegisterDone::of_none(&register));
            }
            Some(_) | None => {
                self.tell_station(&name, register, ctx);
            }
        }
    }

    fn register_at_rest(&mut self, register: Register, entry: &Arc<StationEntry>, ctx: &Context<Self>) {
        let ticket = station::token("") | u64::from(self.registering.0.next());
        match at_rest::register(&self.env, entry, &register, ticket) {
            Ok(Done::Unchanged(done)) => self.registered(register.shard, done),
            Ok(Done::Changed(done)) => {
                self.bindings_changed(entry);
                let Register { station, shard, .. } = register;
                let first = self.registering.deadline().is_none();
                let until = self.env.now().mono + COMMIT_PATIENCE;
                self.registering.0.push(Held { station, shard, done }, until);
                if first {
                    self.rearm();
                }
            }
            Err(panic) => {
                // An actor takes it once more, and counts how often that happens.
                NamedDown::note_rebuilt(&self.env, ActorKind::Station, &register.station, &panic);
                let name = register.station.clone();
                self.tell_station(&name, register, ctx);
            }
        }
    }

    /// Answers a REGISTER where it came.
    fn registered(&mut self, shard: ShardId, done: RegisterDone) {
        if shard == self.env.shard() {
            done.answer(&mut self.endpoint());
        } else {
            self.env.link(shard, LinkMessage::RegisterDone(Box::new(done)));
        }
    }

    /// The store has committed the REGISTER at this place, or could not.
    pub(super) fn register_committed(&mut self, place: Place, well: bool) {
        let held = self.registering.0.committed(place);
        if !well {
            let station = held.as_ref().map(|held| &*held.station);
            tracing::error!(station, "the binding could not be stored; it is kept in memory");
        }
        if let Some(Held { shard, done, .. }) = held {
            self.registered(shard, done);
        }
    }

    /// Answers what has waited too long for the store.
    pub(super) fn answer_overdue(&mut self) {
        let now = self.env.now().mono;
        while let Some(Held { station, shard, done }) = self.registering.0.overdue(now) {
            tracing::error!(%station, "the store is slow: a REGISTER was answered before its commit");
            self.registered(shard, done);
        }
    }
}
