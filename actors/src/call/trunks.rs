//! A call's way over trunks: the place it has at one, and what it tells of those that did not take it.

use std::net::SocketAddr;
use std::time::Duration;

use actix::prelude::*;
use tandem_protocol::b2bua::{Input, LegId, Target, TrunkAttempt};
use tandem_protocol::proxy_list::{Attempt, Outcome};
use tandem_protocol::time::Now;
use tandem_protocol::trunk_health::{Seen, State};

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

/// The proxy that a leg was to begin with wants fewer calls, and does not get this one.
pub(super) struct Spared(pub(super) LegId);

impl Handler<Told<Spared>> for CallActor {
    type Result = ();
    fn handle(&mut self, told: Told<Spared>, ctx: &mut Context<Self>) {
        self.feed(&Input::Spared(told.0.0), ctx);
    }
}

impl CallActor {
    /// True if this call is to be kept from a proxy, which wants fewer of them (RFC 7339 §7); never one to an emergency number.
    pub(super) fn spares(&self, target: &Target, now: Now) -> bool {
        let Some(trunk) = target.trunk.as_deref().and_then(|name| self.env.directory().trunk(name)) else {
            return false;
        };
        if self.info.emergency || !trunk.config.rules.overload_control {
            return false;
        }
        let percent = self.env.directory().overload_control.percent(target.flow, now.mono);
        percent > 0 && self.env.random() % 100 < u64::from(percent)
    }

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
        let seat = self.env.seat();
        let place =
            if self.info.emergency { Ok(entry.emergency_permit(seat)) } else { entry.permit(seat, now.mono) };
        let why = match place {
            Ok(place) => {
                self.place = Some(place);
                let entry = entry.clone();
                self.charge(&outbound, &entry, now);
                return Some(outbound);
            }
            Err(why) => why.as_str(),
        };
        tracing::info!(call = %self.id, trunk = name, why, "the trunk has no place for another call");
        entry.metrics.failover_limit.increment(1);
        let event = Event::new(now.wall, EventKind::TrunkAttempt, why).of(&self.id);
        self.events.push(event.with("trunk", name.to_owned()));
        None
    }

    /// A trunk takes none of the caller's codecs: nobody there was asked.
    pub(super) fn passed_over(&mut self, trunk: String, now: Now) {
        const WHY: &str = "no common codec";
        tracing::info!(call = %self.id, trunk, why = WHY, "the trunk takes none of the caller's codecs");
        let event = Event::new(now.wall, EventKind::TrunkAttempt, WHY).of(&self.id);
        self.events.push(event.with("trunk", trunk));
    }

    /// A proxy did not take the call: the trunk learns it, the log tells it.
    pub(super) fn attempt_failed(
        &mut self,
        attempt: &TrunkAttempt,
        (retry_after, goes_on): (Option<u32>, bool),
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
                Outcome::Shed => entry.metrics.failover_overload.increment(1),
            }
        }
        let busy = retry_after.map(|seconds| Duration::from_secs(seconds.into()));
        self.report(&trunk, tried, busy, now);
    }

    /// Tells the trunk what an attempt has shown of its proxy, unless that is no news.
    fn report(&self, trunk: &str, tried: Attempt, busy: Option<Duration>, now: Now) {
        let Some(entry) = self.env.directory().trunk(trunk) else { return };
        let Some(proxy) = entry.proxy(tried.proxy) else { return };
        let failed = |status| Seen::Failed { status, taken: proxy.taken() };
        let seen = match (tried.cause, busy) {
            (Outcome::Cancelled | Outcome::Shed, _) => return,
            (Outcome::Status(503), Some(rest)) => Seen::Busy(rest),
            (Outcome::Status(status @ 500..=599), _) => failed(Some(status)),
            (Outcome::Status(_), _) if proxy.state() == State::Up => return,
            (Outcome::Status(_), _) => Seen::Answered,
            (Outcome::NoProgress, _) => failed(None),
            // It was silent once: but others have heard from it since.
            (Outcome::Timeout, _) if proxy.was_alive_after(now.mono - Duration::from_millis(tried.ms)) => {
                failed(None)
            }
            (Outcome::Timeout, _) => Seen::Silent,
            (Outcome::TransportError, _) => Seen::Unreachable,
        };
        self.shard.tell(TrunkReport { trunk: entry.config.name.clone(), proxy: tried.proxy, seen });
    }

    /// The proxy of a leg that was given up wants no calls: others are to know.
    pub(super) fn proxy_is_busy(&self, leg: LegId, seconds: u32) {
        let leg = self.legs.iter().find(|known| known.id == leg);
        let Some((trunk, proxy)) = leg.and_then(|leg| leg.proxy.as_deref()) else { return };
        let Some(entry) = self.env.directory().trunk(trunk) else { return };
        let seen = Seen::Busy(Duration::from_secs(seconds.into()));
        self.shard.tell(TrunkReport { trunk: entry.config.name.clone(), proxy: *proxy, seen });
    }

    /// A proxy has taken the call: its trunk learns it if it believed otherwise. Given back for the event.
    pub(super) fn note_answering_proxy(&self, now: Now) -> Option<(String, SocketAddr)> {
        let attempt = self.shell.machine().attempts().last()?;
        let tried = attempt.tried?;
        if let Some(proxy) = self.env.directory().trunk(&attempt.trunk).and_then(|t| t.proxy(tried.proxy)) {
            proxy.note_taken(now.mono);
        }
        self.report(&attempt.trunk, tried, None, now);
        Some((attempt.trunk.clone(), tried.proxy))
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
        Outcome::Shed => "overload".to_owned(),
    }
}
