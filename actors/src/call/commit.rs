//! What the store keeps of a call: when it is written, and from what.

use bytes::Bytes;

use super::{CallActor, Counted, RecordView};
use crate::store::{Batch, Bucket, Ticket, Urgency, Write};

impl CallActor {
    /// Commits the checkpoint of the answer; the shard brings the news back.
    pub(super) fn commit(&mut self) {
        self.media.watch(&self.env, self.key);
        let mut batch = Batch::new(Urgency::Urgent);
        batch.ticket = Some(Ticket { shard: self.env.shard().0, token: self.key.0 });
        self.put_record(&mut batch);
        batch.events = std::mem::take(&mut self.events);
        self.env.submit(batch);
    }

    /// Renews the checkpoint; nobody waits.
    pub(super) fn refresh(&mut self) {
        let mut batch = Batch::new(Urgency::Lazy);
        self.put_record(&mut batch);
        batch.events = std::mem::take(&mut self.events);
        self.env.submit(batch);
    }

    pub(super) fn put_record(&mut self, batch: &mut Batch) {
        // The machine as it is after this input.
        let answered = self.shell.machine().is_answered();
        let call = if answered { self.shell.frozen().cloned() } else { None };
        let (caller, callee) = (self.shell.machine().caller(), self.shell.machine().callee());
        let legs = self
            .legs
            .iter()
            .filter(|leg| leg.id == caller || Some(leg.id) == callee)
            .filter_map(|leg| Some((leg.id, leg.frozen.borrow().clone()?, &*leg.call_id)))
            .collect();
        // What a restart finds is a call that was answered, whether or not this process has got to say so.
        let said = std::mem::replace(&mut self.info.answered_at, self.shell.machine().answered_at());
        let counted = self.permits.iter().chain(&self.place).map(Counted::of).collect();
        let (media, replaced) = (self.media.saved(), self.replacements());
        let record = RecordView { info: &self.info, call, legs, media, counted, replaced };
        let value = record.freeze();
        self.info.answered_at = said;
        batch.writes.extend(value.map(|value| self.write(Some(value))));
    }

    pub(super) fn write(&self, value: Option<Bytes>) -> Write {
        Write { bucket: Bucket::Calls, key: self.id.to_string(), value, expect: None }
    }
}
