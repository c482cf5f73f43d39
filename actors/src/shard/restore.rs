//! After a restart: established calls are rebuilt from their checkpoints, attempts get the record they never had.

use std::time::Duration;

use actix::prelude::*;
use tandem_protocol::b2bua::{CALLER, Call};
use tandem_protocol::time::{Now, UnixMillis};

use super::{Shard, parse_call_id};
use crate::call::{CallActor, CallRecord, Caller, Counted, Media, Setup};
use crate::cdr::Cdr;
use crate::directory::Directory;
use crate::env::{Shared, Told};
use crate::events::{Event, EventKind};
use crate::ids::ShardId;
use crate::shell::Machine;
use crate::store::{Batch, Bucket, StoreFault, Urgency, Write};

/// For so long after the start a request within a dialog that has not come back yet is not answered: it comes again, and a
/// 481 would end a call that is there.
pub(super) const RESTORING: Duration = Duration::from_secs(2);

/// The cause of attempts that were cut off by the end of their process.
const RESTART: &str = "restart";
/// The same by the end of their shard.
const STALL: &str = "stall";

/// The calls that one shard takes over from the process before, or from the shard before.
#[derive(Default)]
pub struct Restore(pub(crate) Vec<CallRecord>);

/// What was found in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Established calls, rebuilt.
    pub calls: usize,
    /// Attempts that were in progress, closed with cause `restart`.
    pub attempts: usize,
    /// Records that could not be read.
    pub damaged: usize,
}

/// What the process before has left in the store.
#[derive(Default)]
pub struct Found {
    /// Which shard takes which calls.
    pub shards: Vec<(ShardId, Restore)>,
    /// The RTP ports of those calls, which nobody else may get.
    pub ports: Vec<u16>,
    /// How much there was.
    pub restored: Restored,
}

/// Reads the records of calls, closes the attempts, and says which shard takes which call.
///
/// # Errors
/// The store cannot be read.
pub fn read_records(shared: &Shared, now: Now) -> Result<Found, StoreFault> {
    let current = shared.current();
    let directory = &current.directory;
    let mut per_shard: Vec<Vec<CallRecord>> = (0..directory.shards()).map(|_| Vec::new()).collect();
    let mut ports = Vec::new();
    let mut found = Restored::default();
    for entry in shared.store.scan(Bucket::Calls)? {
        let Some(record) = CallRecord::thaw(&entry.value) else {
            found.damaged += 1;
            tracing::error!(
                call = entry.key,
                "the record of a call cannot be read and is dropped; it has no CDR"
            );
            forget(shared, entry.key);
            continue;
        };
        let unreadable = record.call.as_ref().is_some_and(|frozen| Call::thaw(frozen).is_none());
        found.damaged += usize::from(unreadable);
        if record.call.is_none() || unreadable {
            found.attempts += 1;
            close_attempt(
                shared,
                &record,
                entry.key,
                (RESTART, "an attempt was cut off by a restart"),
                now.wall,
            );
            continue;
        }
        found.calls += 1;
        ports.extend(record.media.sides.iter().map(|side| side.lease.rtp.port()));
        let shard = place_of(shared, directory, &record);
        if let Some(shard) = per_shard.get_mut(usize::from(shard.0)) {
            shard.push(record);
        }
    }
    let shards = per_shard.into_iter().enumerate().map(|(n, records)| (ShardId(n as u16), Restore(records)));
    Ok(Found { shards: shards.collect(), ports, restored: found })
}

/// Where a call goes on.
fn place_of(shared: &Shared, directory: &Directory, record: &CallRecord) -> ShardId {
    let caller = record.legs.iter().find(|(leg, ..)| *leg == CALLER);
    caller.map_or(ShardId(0), |(_, _, id)| super::place_call_id(shared, directory, id.as_bytes()))
}

/// Reads the records of the calls of a shard that was fenced, and closes its attempts. What it has given to the store must be committed.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn read_records_of(
    shared: &Shared,
    shard: ShardId,
    now: Now,
) -> Result<(Restore, Restored), StoreFault> {
    let current = shared.current();
    let (mut records, mut found) = (Vec::new(), Restored::default());
    for entry in shared.store.scan(Bucket::Calls)? {
        // Attempts are all of this process, whose names say where they were made.
        let made_here = parse_call_id(&entry.key).is_some_and(|(made, _)| made == shard);
        let Some(record) = CallRecord::thaw(&entry.value) else { continue };
        let well = record.call.as_ref().is_some_and(|frozen| Call::thaw(frozen).is_some());
        if well && place_of(shared, &current.directory, &record) == shard {
            found.calls += 1;
            records.push(record);
        } else if !well && made_here {
            found.damaged += usize::from(record.call.is_some());
            found.attempts += 1;
            close_attempt(
                shared,
                &record,
                entry.key,
                (STALL, "an attempt was cut off with its shard"),
                now.wall,
            );
        }
    }
    Ok((Restore(records), found))
}

fn forget(shared: &Shared, key: String) {
    let mut batch = Batch::new(Urgency::Lazy);
    batch.writes.push(Write { bucket: Bucket::Calls, key, value: None, expect: None });
    shared.store.submit(batch);
}

fn close_attempt(
    shared: &Shared,
    record: &CallRecord,
    key: String,
    (cause, words): (&'static str, &str),
    now: UnixMillis,
) {
    let info = &record.info;
    tracing::warn!(call = %info.id, from = info.from, to = info.to, cause, "{words}");
    let mut batch = Batch::new(Urgency::Urgent);
    batch.writes.push(Write { bucket: Bucket::Calls, key, value: None, expect: None });
    batch.events.push(Event::new(now, EventKind::CallEnded, cause).of(&info.id));
    batch.cdrs.push(Cdr {
        call_id: info.id.to_string(),
        segment: 1,
        from: info.from.clone(),
        from_trunk: record.counted.first().and_then(Counted::trunk),
        to: info.to.clone(),
        trunk: info.trunk.clone(),
        start: info.started_at,
        end: now,
        cause: cause.to_owned(),
        ended_by: "engine".to_owned(),
        ..Cdr::default()
    });
    shared.store.submit(batch);
}

impl Shard {
    pub(super) fn restore_all(&mut self, records: Vec<CallRecord>, ctx: &Context<Self>) {
        for record in records {
            self.restore(record, ctx);
        }
    }

    fn restore(&mut self, record: CallRecord, ctx: &Context<Self>) {
        let Some(stored) = record.call.as_ref().and_then(Call::thaw) else { return };
        let machine = Call::restore(stored);
        let key = record.info.key;
        // It counts against the limits it counted against before.
        let permits =
            record.counted.iter().filter_map(|c| c.permit(self.env.directory(), self.env.seat())).collect();
        let setup = Setup {
            key,
            machine,
            outbound: Vec::new(),
            caller: Caller::Restored(record.legs),
            media: Media::restored(record.media),
            permits,
            info: record.info,
        };
        let me = self.me.get_or_share(ctx);
        let call = CallActor::launch(&self.env, me, setup);
        self.calls.insert(key, call);
    }
}

impl Handler<Told<Restore>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<Restore>, ctx: &mut Context<Self>) {
        if !told.0.0.is_empty() {
            self.restoring_until = Some(self.env.now().mono + RESTORING);
        }
        self.restore_all(told.0.0, ctx);
    }
}
