//! What the actors count, by kind.

use super::{Describe, Registry};

/// The kinds of actor, for restarts and shed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A shard.
    Shard,
    /// A call.
    Call,
    /// A dialog.
    Dialog,
    /// A station.
    Station,
    /// A trunk.
    Trunk,
    /// A registration group.
    RegistrationGroup,
    /// A media session.
    MediaSession,
    /// A media worker.
    MediaWorker,
}

impl ActorKind {
    /// Every kind.
    pub const ALL: [ActorKind; 8] = [
        ActorKind::Shard,
        ActorKind::Call,
        ActorKind::Dialog,
        ActorKind::Station,
        ActorKind::Trunk,
        ActorKind::RegistrationGroup,
        ActorKind::MediaSession,
        ActorKind::MediaWorker,
    ];

    /// The label's value, and the first part of an actor's id in the supervision tree.
    pub fn as_str(self) -> &'static str {
        match self {
            ActorKind::Shard => "shard",
            ActorKind::Call => "call",
            ActorKind::Dialog => "dialog",
            ActorKind::Station => "station",
            ActorKind::Trunk => "trunk",
            ActorKind::RegistrationGroup => "registration_group",
            ActorKind::MediaSession => "media_session",
            ActorKind::MediaWorker => "media_worker",
        }
    }
}

pub(super) fn describe(registry: &Registry) {
    use Describe::{Counter, Gauge};
    registry.describe(Counter, "tandem_actor_restarts_total", None, "Actors rebuilt after a fault, by kind");
    registry.describe(
        Counter,
        "tandem_mailbox_shed_total",
        None,
        "Messages refused by a bound, by kind of actor",
    );
    registry.describe(
        Gauge,
        "tandem_shards_abandoned",
        None,
        "Threads of shards that were stuck and were given up; another has the place of each",
    );
    registry.describe(Counter, "tandem_shard_crossings_total", None, "Messages from one shard to another");
    registry.describe(
        Counter,
        "tandem_shard_standstills_total",
        None,
        "Times that a shard stood still for 100 ms or more, and its timers were late",
    );
    registry.describe(
        Counter,
        "tandem_shard_looks_total",
        None,
        "Times that it was looked whether all shards get on: twice a second",
    );
}
