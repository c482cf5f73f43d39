//! A shard takes the place of one that was fenced: its calls, and what it has left unanswered.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tandem_protocol::flow::{ConnectionId, Flow};
use tandem_protocol::message::{Limits, Message};
use tandem_protocol::time::Now;

use super::Shard;
use super::restore::{RESTORING, Restore, Restored, read_records_of};
use crate::call::CallRecord;
use crate::calls::CallKey;
use crate::env::{Shared, Told};
use crate::ids::ShardId;
use crate::media_pool::order::MediaOrder;
use crate::metrics::ActorKind;
use crate::seat::{Hold, Loan, Remains, Seat};
use crate::sip::stateless::Answer;

/// So long the store may take to tell of the calls. Until then nobody is told that his call is not there.
const EXPECTED_WITHIN: Duration = Duration::from_secs(30);

/// What is left of a shard that was fenced.
pub struct Estate {
    /// Connections that have ended with it.
    pub connections: Vec<ConnectionId>,
    /// INVITEs that it had not answered, and by which flows the answers go.
    invites: Vec<(Bytes, Flow)>,
    /// Calls that may be among what it has left.
    expected: Hold,
}

impl Estate {
    /// Fences the shard in `seat`. From then on the net, the store and media refuse it; what it had of others is given back. `next` is the seat of the
    /// shard that follows.
    pub fn of(shared: &Arc<Shared>, seat: &Seat, next: &Arc<Seat>) -> Estate {
        seat.fence();
        shared.census.leave(ActorKind::Call, -1);
        let expected = next.lend(Loan::Expected(shared.clone()));
        let Remains { invites, connections } = seat.settle(shared);
        let peers = &shared.current().directory.secure_peers;
        connections.iter().for_each(|connection| peers.forget(*connection));
        Estate { connections, invites, expected }
    }
}

/// What a shard takes over from one that was fenced.
pub struct Succession {
    /// Its calls that were answered.
    restore: Restore,
    invites: Vec<(Bytes, Flow)>,
    /// Held until the calls are there.
    expected: Hold,
}

impl Succession {
    /// Reads what the store has of its calls, and closes its attempts. What it gave to the store must be committed.
    pub fn of(shared: &Shared, shard: ShardId, estate: Estate, now: Now) -> (Succession, Restored) {
        let Estate { invites, expected, connections: _ } = estate;
        let (restore, restored) = read_records_of(shared, shard, now).unwrap_or_else(|why| {
            tracing::error!(shard = shard.0, %why, "the calls of a fenced shard cannot be read; they are lost");
            (Restore::default(), Restored::default())
        });
        (Succession { restore, invites, expected }, restored)
    }
}

impl Shard {
    /// Begins where another was, if one was.
    pub(super) fn succeed_another(&mut self) {
        if self.env.seat().epoch() == 0 {
            return;
        }
        // Its calls come in a moment.
        self.restoring_until = Some(self.env.now().mono + EXPECTED_WITHIN);
        let env = self.env.clone();
        let here = |name: &str| env.directory().home(name) == env.shard();
        for station in env.directory().stations().filter(|station| here(&station.config.name)) {
            self.flows.set(&station.config.name, station.kept().as_deref());
        }
        self.take_over_tolls();
    }

    /// The calls go on by the sessions that they have; those of calls that do not go on end.
    fn keep_media(&self, records: &[CallRecord]) {
        let mut calls: Vec<CallKey> =
            self.calls.keys().copied().chain(records.iter().map(|r| r.info.key)).collect();
        calls.sort_unstable();
        let sides = records.iter().flat_map(|record| &record.media.sides);
        let mut ports: Vec<SocketAddr> = sides.map(|side| side.lease.rtp).collect();
        ports.sort_unstable();
        let (calls, ports): (Arc<[CallKey]>, Arc<[SocketAddr]>) = (calls.into(), ports.into());
        for worker in 0..self.env.config().media.workers.max(1) {
            let order =
                MediaOrder::Keep { shard: self.env.shard(), calls: calls.clone(), ports: ports.clone() };
            self.env.media(worker, order);
        }
    }

    /// Whoever has had a 100 does not ask again, so that he would wait for ever.
    fn answer_left(&mut self, invites: Vec<(Bytes, Flow)>, records: &[CallRecord]) {
        let legs = records.iter().flat_map(|record| &record.legs);
        let restored: BTreeSet<String> = legs.map(|(_, _, call_id)| call_id.clone()).collect();
        for (request, flow) in invites {
            let Ok(invite) = Message::parse(request, &Limits::NONE) else { continue };
            // A call that was answered repeats that by itself.
            if invite.to_tag().is_some() || !restored.contains(invite.call_id()) {
                self.endpoint().reply_once(&invite, flow, Answer::new(500, &[]));
            }
        }
    }
}

impl Handler<Told<Succession>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<Succession>, ctx: &mut Context<Self>) {
        let Succession { restore, invites, expected } = told.0;
        self.restoring_until = Some(self.env.now().mono + RESTORING);
        self.awaited.until = self.restoring_until;
        self.rearm();
        self.answer_left(invites, &restore.records);
        self.keep_media(&restore.records);
        self.restore_all(restore, ctx);
        drop(expected);
    }
}
