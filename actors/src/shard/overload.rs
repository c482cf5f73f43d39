//! More comes than this shard can do: new work is refused, what is under way and emergency calls are served.
//!
//! Nothing of what is refused is kept, and nobody is identified for it: a stranger learns only that there is much to do.

use std::time::Duration;

use actix::prelude::*;
use tandem_protocol::message::{Header, Message, Uri};
use tandem_protocol::overload;
use tandem_protocol::time::{Instant, UnixMillis};

use super::Shard;
use crate::calls::Refused;
use crate::env::{Env, Told};
use crate::metrics::{OverloadMetrics, Refusal};

/// So long one who was refused is refused again, unless more is taken by then: what he sends anew in this time is the same attempt.
const ATTEMPT: u64 = 4;
/// How often the share is looked at while nothing comes.
const LOOK: Duration = Duration::from_secs(1);
/// So long a shard that follows a stuck one may take to do what waited for that.
const BACKLOG: Duration = Duration::from_secs(1);
/// The end is told only when nothing was refused for so long.
const OVER_AFTER: Duration = Duration::from_secs(5);

/// Whether new work is refused.
pub(super) struct Overload {
    machine: overload::Overload,
    /// What came before waited for a shard that was stuck, or not there yet, or behind what did: that is no measure of what comes.
    since: UnixMillis,
    metrics: OverloadMetrics,
    refusing: Option<Refusing>,
    /// When it is looked at again though nothing comes: else a share would be shown, and told, of what is long over.
    look_at: Option<Instant>,
}

/// So many datagrams have found no room in a socket's buffer, and are lost.
pub struct Overflowed(pub u32);

/// What is told of a time in which new work is refused.
struct Refusing {
    since: Instant,
    last: Instant,
    refused: u64,
}

impl Overload {
    pub(super) fn new(env: &Env) -> Overload {
        let machine = overload::Overload::new(env.config().overload.target, env.now().mono);
        let metrics = env.metrics().overload(env.shard());
        // A shard before this one may have shown something else.
        metrics.show(machine.share(), machine.delay());
        let backlog = if env.seat().epoch() > 0 { BACKLOG } else { Duration::ZERO };
        let since = UnixMillis(env.now().wall.0 + backlog.as_millis() as u64);
        Overload { machine, since, metrics, refusing: None, look_at: None }
    }

    /// What is taken now came at `arrived`. True if the share that is refused may have changed.
    fn took(&mut self, env: &Env, arrived: UnixMillis) -> bool {
        if arrived < self.since {
            return false;
        }
        let now = env.now();
        let wait = Duration::from_millis(now.wall.0.saturating_sub(arrived.0));
        let changed = self.machine.waited(wait, now.mono);
        if changed {
            self.show(env, now.mono);
        }
        changed
    }

    /// Shows the share, and tells when it is over.
    fn show(&mut self, env: &Env, now: Instant) {
        self.metrics.show(self.machine.share(), self.machine.delay());
        let over = |refusing: &mut Refusing| now.since(refusing.last) >= OVER_AFTER;
        if let Some(Refusing { since, last, refused }) = self.refusing.take_if(over) {
            let seconds = last.since(since).as_secs();
            tracing::info!(
                shard = env.shard().0,
                refused,
                seconds,
                "the overload is over: everything is taken again"
            );
        }
        let any = self.machine.share() > 0.0 || self.refusing.is_some();
        self.look_at = any.then(|| now + LOOK);
    }

    fn refused(&mut self, env: &Env) {
        let now = env.now().mono;
        let refusing = self.refusing.get_or_insert_with(|| {
            let percent = (self.machine.share() * 100.0).ceil();
            tracing::warn!(
                shard = env.shard().0,
                percent,
                "more comes than can be done: new calls are refused with 503, emergency calls and calls that are up are served; \
                 see tandem_invites_refused_total{{reason=\"overload\"}} and who sends so much"
            );
            Refusing { since: now, last: now, refused: 0 }
        });
        refusing.last = now;
        refusing.refused += 1;
    }
}

impl Shard {
    /// Notes how long a message has waited; peers that ask for it are told what comes of that.
    pub(super) fn took(&mut self, arrived: UnixMillis) {
        let looked_after = self.overload.look_at.is_some();
        if self.overload.took(&self.env, arrived) {
            self.endpoint().overloaded(self.overload.machine.share());
            if !looked_after && self.overload.look_at.is_some() {
                self.rearm();
            }
        }
    }

    /// When the share is to be looked at though nothing comes.
    pub(super) fn overload_deadline(&self) -> Option<Instant> {
        self.overload.look_at
    }

    /// Time has passed.
    pub(super) fn look_at_overload(&mut self) {
        let now = self.env.now().mono;
        if self.overload.look_at.is_some_and(|at| at <= now) {
            self.overload.machine.idle(now);
            self.overload.show(&self.env, now);
            self.endpoint().overloaded(self.overload.machine.share());
        }
    }

    /// The settings may have another target.
    pub(super) fn adopt_overload(&mut self) {
        self.overload.machine.aim(self.env.config().overload.target);
    }

    /// Refuses a new INVITE, if it must be.
    pub(super) fn sheds_call(&mut self, invite: &Message) -> Option<Refused> {
        let draw = self.draw(invite.call_id())?;
        if !self.overload.machine.refuses_call(draw) || self.may_be_emergency(invite) {
            return None;
        }
        Some(self.shed(draw))
    }

    /// Refuses a REGISTER, if it must be.
    pub(super) fn sheds_registration(&mut self, register: &Message) -> Option<Refused> {
        let draw = self.draw(register.call_id())?;
        self.overload.machine.refuses_registration(draw).then(|| self.shed(draw))
    }

    /// The place of an attempt among all: the same for whatever it is repeated by, and nobody outside can foresee it.
    fn draw(&self, call_id: &str) -> Option<u32> {
        let now = self.env.now().mono;
        let attempt = now.0 / Duration::from_secs(ATTEMPT).as_micros() as u64;
        let drawn = || (crate::map::hash(self.env.shared().placement_key, &(call_id, attempt)) >> 32) as u32;
        (self.overload.machine.share() > 0.0).then(drawn)
    }

    fn may_be_emergency(&self, invite: &Message) -> bool {
        let plan = &self.env.config().dial_plan;
        let Ok(uri) = Uri::parse(invite.request_uri()) else { return false };
        uri.dialled().is_some_and(|dialled| plan.may_be_emergency(&dialled))
    }

    fn shed(&mut self, draw: u32) -> Refused {
        self.overload.refused(&self.env);
        let base = self.env.config().overload.retry_after.as_secs().max(1);
        // Not all at once.
        let after = base + u64::from(draw) % (base + 1);
        Refused::new(503, Refusal::Overload).with(Header::RetryAfter, after.to_string())
    }
}

impl Handler<Told<Overflowed>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<Overflowed>, _: &mut Context<Self>) {
        self.env.metrics().sip_overflowed.increment(told.0.0.into());
        self.overload.machine.overflowed();
    }
}
