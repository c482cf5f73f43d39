//! What is written about a call: its events, and its record when it is over.

use std::time::Duration;

use actix::prelude::*;
use serde_json::json;
use tandem_protocol::b2bua;
use tandem_protocol::decimal::socket_addr;
use tandem_protocol::time::Now;

use super::trunks::cause_of;
use super::{CallActor, Leg};
use crate::cdr::{Attempt, Cdr};
use crate::env::Tell;
use crate::events::{Event, EventKind};
use crate::shard::Returned;
use crate::store::{Batch, Urgency};

/// How long media reports are waited for: a stalled worker must not keep a call.
const REPORT_PATIENCE: Duration = Duration::from_secs(2);

impl CallActor {
    /// Its state as the API shows it.
    pub(super) fn describe(&self) -> serde_json::Value {
        let call = self.shell.machine();
        let call_ids: Vec<&str> = self.legs.iter().map(|leg| &*leg.call_id).collect();
        let living =
            self.legs.iter().filter(|leg| leg.dialog.as_ref().is_some_and(|dialog| dialog.connected()));
        let dialogs: Vec<String> = living.map(|leg| format!("dialog:{}/{}", self.id, leg.id.0)).collect();
        let session = |(side, worker): (usize, u16)| json!({"id": format!("media_session:{}/{side}", self.id), "worker": worker});
        json!({
            "call_id": &*self.id,
            "state": call.state(),
            "from": self.info.from,
            "to": self.info.to,
            "trunk": self.info.trunk,
            "emergency": self.info.emergency,
            "replaced": self.replacement_records(),
            "start": self.info.started_at.0,
            "answer": self.info.answered_at.map(|at| at.0),
            "media": self.media.kind(),
            "recording": self.media.recording(),
            "legs": self.legs.len(),
            "dialogs": dialogs,
            "media_sessions": self.media.open_sides().map(session).collect::<Vec<_>>(),
            "sip_call_ids": call_ids,
            "shard": self.env.shard().0,
        })
    }

    /// The first events of a call, and its record as an attempt in progress.
    pub(super) fn started_events(&mut self, now: Now) {
        tracing::debug!(call = %self.id, from = self.info.from, to = self.info.to, route = self.info.route, "call started");
        let started = Event::new(now.wall, EventKind::CallStarted, "an INVITE was admitted").of(&self.id);
        let started = started.with("from", self.info.from.clone()).with("to", self.info.to.clone());
        self.events.push(self.with_sip_call_id(started, self.legs.first()));
        let decided = Event::new(now.wall, EventKind::RouteDecided, self.info.route.clone()).of(&self.id);
        let decided = decided.with("media", self.media.kind());
        let emergency = self.info.emergency;
        self.events.push(if emergency { decided.with("emergency", "yes") } else { decided });
        let mut batch = Batch::new(Urgency::Lazy);
        self.put_record(&mut batch);
        batch.events = std::mem::take(&mut self.events);
        self.env.submit(batch);
    }

    /// The event with the SIP Call-ID of a leg, by which `why` finds its messages once the call has ended.
    pub(super) fn with_sip_call_id(&self, event: Event, leg: Option<&Leg>) -> Event {
        match leg {
            Some(leg) => event.with("sip_call_id", leg.call_id.to_string()),
            None => event,
        }
    }

    /// Every leg has ended, so others may have its places; media ends too, and its counts are waited for.
    pub(super) fn over(&mut self, ended: b2bua::Ended, now: Now, ctx: &mut Context<Self>) {
        self.permits.clear();
        self.place = None;
        self.charge_ended(now);
        if self.media.close(&self.env, self.key) {
            self.ended = Some(Box::new((ended, now.mono + REPORT_PATIENCE)));
        } else {
            self.close(ended, now, ctx);
        }
    }

    pub(super) fn close_if_reported(&mut self, now: Now, ctx: &mut Context<Self>) {
        if let Some((ended, _)) = self.ended.as_deref().copied()
            && !self.media.outstanding()
        {
            self.close(ended, now, ctx);
        }
    }

    /// Writes the record and ends the actor.
    pub(super) fn close(&mut self, ended: b2bua::Ended, now: Now, ctx: &mut Context<Self>) {
        self.ended = None;
        let cdr = self.cdr(ended);
        let result = if self.info.answered_at.is_some() { "answered" } else { ended.cause.result() };
        self.env.metrics().call_ended(result);
        for leg in &cdr.legs {
            self.env.metrics().rtp_jitter.record(f64::from(leg.jitter_ms) / 1000.0);
            self.env.metrics().rtp_lost.increment(leg.lost.max(0) as u64);
        }
        let (cause, by) = (ended.cause.as_str(), ended.by.as_str());
        tracing::info!(call = %self.id, cause, ended_by = by, status = cdr.sip_status, duration_s = cdr.duration_s, "call ended");
        let event = Event::new(now.wall, EventKind::CallEnded, cause).of(&self.id);
        let event = event.with("ended_by", by).with("sip_status", i64::from(cdr.sip_status));
        // All of them, so that the messages of an ended call are found by its last event alone.
        let call_ids: Vec<&str> = self.legs.iter().map(|leg| &*leg.call_id).collect();
        self.events.push(event.with("sip_call_ids", call_ids.join(" ")));
        let mut batch = Batch::new(Urgency::Lazy);
        batch.writes.push(self.write(None));
        batch.events = std::mem::take(&mut self.events);
        batch.cdrs.push(cdr);
        self.env.submit(batch);
        let unused = self.media.unused();
        if !unused.is_empty() {
            self.shard.tell(Returned(unused));
        }
        ctx.stop();
    }

    fn cdr(&self, ended: b2bua::Ended) -> Cdr {
        let call = self.shell.machine();
        let answer = self.info.answered_at;
        let last_proxy = call.attempts().last().and_then(|last| last.tried).is_some();
        let attempts: Vec<Attempt> = call
            .attempts()
            .iter()
            .map(|a| Attempt {
                trunk: a.trunk.clone(),
                proxy: a.tried.map_or_else(String::new, |tried| socket_addr(tried.proxy)),
                cause: a.tried.map_or_else(|| "limit".to_owned(), |tried| cause_of(tried.cause)),
                ms: a.tried.map_or(0, |tried| tried.ms),
            })
            .collect();
        Cdr {
            call_id: self.id.to_string(),
            segment: 1,
            from: self.info.from.clone(),
            from_trunk: self.from_trunk.as_deref().map(str::to_owned),
            to: self.info.to.clone(),
            trunk: self.info.trunk.clone(),
            proxy: attempts
                .last()
                .filter(|last| answer.is_some() && last_proxy && last.cause == "answered")
                .map(|last| last.proxy.clone()),
            start: self.info.started_at,
            answer,
            end: ended.at,
            duration_s: answer.map_or(0.0, |at| ended.at.0.saturating_sub(at.0) as f64 / 1000.0),
            cause: ended.cause.as_str().to_owned(),
            // A caller who was answered has his 200, whatever came later.
            sip_status: if answer.is_some() { 200 } else { ended.status },
            ended_by: ended.by.as_str().to_owned(),
            attempts,
            legs: self.media.reports(),
            replaced: self.replacement_records(),
            unprotected: self.info.unprotected,
            emergency: self.info.emergency,
            recording: self.media.recording().map(str::to_owned),
        }
    }
}
