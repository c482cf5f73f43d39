//! What follows from a change of a station's bindings, whoever has made it: everybody may know, the store keeps it, an event tells of it.

use std::net::SocketAddr;

use bytes::Bytes;
use tandem_protocol::registrar::{Binding, BindingRef};
use tandem_protocol::time::UnixMillis;

use crate::directory::StationEntry;
use crate::env::Env;
use crate::events::{Event, EventKind};
use crate::store::{Batch, Bucket, Ticket, Urgency, Write};

/// The bindings of a station as a change has left them.
pub(super) struct Changed<'a> {
    pub(super) env: &'a Env,
    pub(super) entry: &'a StationEntry,
    pub(super) bindings: &'a [Binding],
    /// Their stored form.
    pub(super) frozen: Option<&'a Bytes>,
}

impl Changed<'_> {
    /// Lets everybody know them; false if the shard was fenced, whose word counts no more.
    pub(super) fn publish(&self) -> bool {
        if self.env.is_fenced() {
            return false;
        }
        let before = self.entry.binding_count();
        self.entry.publish_frozen(self.frozen, self.bindings);
        let after = self.frozen.map_or(0, |_| self.bindings.len());
        if after != before {
            self.env.metrics().registrations_active.increment(after as f64 - before as f64);
        }
        true
    }

    /// A REGISTER from `source` has made them of those before: it is logged and has its event. Its answer waits for the ticket
    /// with this number.
    pub(super) fn registered(
        &self,
        before: &[BindingRef<'_>],
        source: SocketAddr,
        now: UnixMillis,
        ticket: u64,
    ) {
        let after = self.bindings.len();
        let name = &self.entry.config.name;
        if is_refresh(before, self.bindings) {
            tracing::debug!(station = %name, bindings = after, %source, "registered again");
        } else {
            tracing::info!(station = %name, bindings = after, %source, "registered");
        }
        let reason = if after < before.len() { "removed" } else { "registered" };
        self.save(self.event(now, reason), Some(ticket));
    }

    /// Bindings were removed, not by a REGISTER.
    pub(super) fn removed(&self, removed: usize, why: &'static str, now: UnixMillis) {
        tracing::info!(station = %self.entry.config.name, removed, why, "bindings removed");
        self.save(self.event(now, why), None);
    }

    fn event(&self, now: UnixMillis, reason: &'static str) -> Event {
        let name = self.entry.config.name.to_string();
        let event = Event::new(now, EventKind::Registration, reason).with("station", name);
        event.with("bindings", self.bindings.len() as i64)
    }

    /// Has the store keep them: soon, if somebody waits for the ticket.
    fn save(&self, event: Event, ticket: Option<u64>) {
        let urgency = if ticket.is_some() { Urgency::Urgent } else { Urgency::Lazy };
        let value = self.frozen.filter(|_| !self.bindings.is_empty()).cloned();
        let key = self.entry.config.name.to_string();
        let mut batch = Batch::new(urgency);
        batch.writes = vec![Write { bucket: Bucket::Bindings, key, value, expect: None }];
        batch.events = vec![event];
        batch.ticket = ticket.map(|token| Ticket { shard: self.env.shard().0, token });
        self.env.submit(batch);
    }
}

/// True if a REGISTER has changed neither where the station is found nor by which way.
fn is_refresh(before: &[BindingRef<'_>], after: &[Binding]) -> bool {
    before.len() == after.len() && after.iter().all(|new| before.iter().any(|old| old.leads_where(new)))
}
