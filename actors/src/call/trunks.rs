//! A call's way over trunks: the place it has at one, and what it tells of those that did not take it.

use actix::prelude::*;
use tandem_protocol::b2bua::{Input, LegId, TrunkAttempt};
use tandem_protocol::proxy_list::Outcome;
use tandem_protocol::time::Now;

use super::{CallActor, Outbound};
use crate::env::{Tell, Told};
use crate::events::{Event, EventKind};
use crate::shard::TrunkReport;

/// The trunk of a leg that was to begin has as many calls as it may.
pub(super) struct NoPlace(pub(super) LegId);

impl Handler<Told<NoPlace>> for CallActor {
    type Result = ();
    fn handle(&mut self, told: Told<NoPlace>, ctx: &mut Context<Self>) {
        self.feed(&Input::NoPlace(told.0.0), ctx);
    }
}

impl CallActor {
    /// How an INVITE by this trunk leaves; `None` if the trunk has no place for the call. The place it had at another is given back.
    pub(super) fn enter(&mut self, trunk: Option<&str>, now: Now) -> Option<Outbound> {
        let same = self.outbound.iter().find(|o| o.trunk.as_deref() == trunk);
        // A place that is no trunk's, in a call that began by trunks: it is shown what the first of them is.
        let outbound = same.or_else(|| self.outbound.first().filter(|_| trunk.is_none())).cloned()?;
        let Some(name) = trunk else { return Some(outbound) };
        if self.place.is_some() && self.info.trunk.as_deref() == Some(name) {
            return Some(outbound);
        }
        self.place = None;
        self.info.trunk = Some(name.to_owned());
        let entry = self.env.directory().trunk(name)?;
        self.place = if self.info.emergency { Some(entry.emergency_permit()) } else { entry.permit() };
        if self.place.is_some() {
            return Some(outbound);
        }
        tracing::info!(call = %self.id, trunk = name, "the trunk has max_calls calls");
        entry.metrics.failover_limit.increment(1);
        let event = Event::new(now.wall, EventKind::TrunkAttempt, "limit").of(&self.id);
        self.events.push(event.with("trunk", name.to_owned()));
        None
    }

    /// A proxy did not take the call: the trunk learns it, the log tells it.
    pub(super) fn attempt_failed(
        &mut self,
        attempt: &TrunkAttempt,
        (_retry_after, goes_on): (Option<u32>, bool),
        now: Now,
    ) {
        let Some(tried) = attempt.tried else { return };
        let (trunk, cause) = (attempt.trunk.clone(), cause_of(tried.cause));
        tracing::info!(call = %self.id, trunk, proxy = %tried.proxy, cause, ms = tried.ms, "the proxy did not take the call");
        let event = Event::new(now.wall, EventKind::TrunkAttempt, cause).of(&self.id);
        let event = event.with("trunk", trunk.clone()).with("proxy", tried.proxy.to_string());
        self.events.push(self.with_sip_call_id(event.with("ms", tried.ms as i64), self.legs.last()));
        if let Some(entry) = self.env.directory().trunk(&trunk) {
            match tried.cause {
                Outcome::Cancelled => {}
                _ if !goes_on => {}
                Outcome::Timeout => entry.metrics.failover_timeout.increment(1),
                Outcome::NoProgress => entry.metrics.failover_progress.increment(1),
                Outcome::TransportError => entry.metrics.failover_transport.increment(1),
                Outcome::Status(_) => entry.metrics.failover_status.increment(1),
            }
            let dead = matches!(tried.cause, Outcome::Timeout | Outcome::TransportError);
            let trunk = entry.config.name.clone();
            self.shard.tell(TrunkReport { trunk, proxy: tried.proxy, up: !dead });
        }
    }

    /// A proxy that was down and has taken a call is up again; one that is up is left in peace.
    pub(super) fn note_answering_proxy(&self) {
        let Some(attempt) = self.shell.machine().attempts().last() else { return };
        let Some(entry) = self.env.directory().trunk(&attempt.trunk) else { return };
        if let Some(tried) = attempt.tried
            && !entry.is_up(tried.proxy)
        {
            self.shard.tell(TrunkReport { trunk: entry.config.name.clone(), proxy: tried.proxy, up: true });
        }
    }
}

/// The cause of an attempt as the CDR writes it.
pub(super) fn cause_of(outcome: Outcome) -> String {
    match outcome {
        Outcome::Status(200..=299) => "answered".to_owned(),
        Outcome::Status(status) => status.to_string(),
        Outcome::Timeout => "timeout".to_owned(),
        Outcome::TransportError => "transport".to_owned(),
        Outcome::NoProgress => "progress_timeout".to_owned(),
        Outcome::Cancelled => "cancelled".to_owned(),
    }
}
