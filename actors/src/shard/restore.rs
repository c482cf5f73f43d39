//! After a restart: established calls are rebuilt from their checkpoints, attempts get the record they never had.

use std::time::Duration;

use actix::prelude::*;
use tandem_protocol::b2bua::Call;
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

/// What one shard takes over from the process before, or from the shard before.
#[derive(Default)]
pub struct Restore {
    /// Its calls.
    pub(crate) records: Vec<CallRecord>,
    /// The legs of others' calls whose Call-IDs belong to it: what they are known by, and where they live.
    pub(crate) moved: Vec<(u64, ShardId)>,
}

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
    let mut per_shard: Vec<Restore> = (0..directory.shards()).map(|_| Restore::default()).collect();
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
        let shard = place_of(directory, &record);
        for (home, key) in moved_legs(shared, directory, &record) {
            if let Some(home) = per_shard.get_mut(usize::from(home.0)) {
                home.moved.push((key, shard));
            }
        }
        if let Some(shard) = per_shard.get_mut(usize::from(shard.0)) {
            shard.records.push(record);
        }
    }
    let shards = per_shard.into_iter().enumerate().map(|(n, restore)| (ShardId(n as u16), restore));
    Ok(Found { shards: shards.collect(), ports, restored: found })
}

/// Where a call goes on: on the shard that its id names, whoever has its sides by now.
fn place_of(directory: &Directory, record: &CallRecord) -> ShardId {
    let made = parse_call_id(&record.info.id).map_or(0, |(shard, _)| shard.0);
    ShardId(made % directory.shards().max(1))
}

/// The legs whose Call-IDs belong to other shards: to which, and what they are known by there.
fn moved_legs<'a>(
    shared: &'a Shared,
    directory: &'a Directory,
    record: &'a CallRecord,
) -> impl Iterator<Item = (ShardId, u64)> + 'a {
    let lives = place_of(directory, record);
    let home = move |id: &str| super::place_call_id(shared, directory, id.as_bytes());
    let elsewhere = record.legs.iter().map(move |(_, _, id)| (home(id), super::moved::key_of(shared, id)));
    elsewhere.filter(move |(home, _)| *home != lives)
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
    let (mut restore, mut found) = (Restore::default(), Restored::default());
    for entry in shared.store.scan(Bucket::Calls)? {
        // Attempts are all of this process, whose names say where they were made.
        let made_here = parse_call_id(&entry.key).is_some_and(|(made, _)| made == shard);
        let Some(record) = CallRecord::thaw(&entry.value) else { continue };
        let well = record.call.as_ref().is_some_and(|frozen| Call::thaw(frozen).is_some());
        let lives = place_of(&current.directory, &record);
        if well && lives == shard {
            found.calls += 1;
            restore.records.push(record);
        } else if well {
            let moved = moved_legs(shared, &current.directory, &record).filter(|(home, _)| *home == shard);
            restore.moved.extend(moved.map(|(_, key)| (key, lives)));
        } else if made_here {
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
    Ok((restore, found))
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
    pub(super) fn restore_all(&mut self, restore: Restore, ctx: &Context<Self>) {
        for (key, lives) in restore.moved {
            self.moved.goes_to(key, lives);
        }
        for record in restore.records {
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
            replaced: record.replaced,
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
        if !told.0.records.is_empty() || !told.0.moved.is_empty() {
            self.restoring_until = Some(self.env.now().mono + RESTORING);
        }
        self.restore_all(told.0, ctx);
    }
}
