//! Somebody takes the place of a leg (RFC 3891): whether he may, whom the call then counts for, and what is written of it.

use std::net::IpAddr;
use std::sync::Arc;

use actix::prelude::*;
use serde::{Deserialize, Serialize};
use tandem_protocol::b2bua::{Input, LegId, Newcomer, Side, Succession};
use tandem_protocol::dialog::Replaceable;
use tandem_protocol::time::{Now, UnixMillis};

use super::CallActor;
use crate::calls::{Asks, Caller, Refused, Towards, towards};
use crate::cdr::Replacement;
use crate::dialog::Origin;
use crate::directory::Permit;
use crate::env::{Tell, Told};
use crate::events::{Event, EventKind};
use crate::metrics::Refusal;
use crate::shard::{Declined, Seeks};

/// Who has taken the place of a side of the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) side: Side,
    /// `station:1001` or `trunk:carrier`.
    pub(crate) by: String,
    /// The number or name in his From.
    pub(crate) from: String,
    pub(crate) at: UnixMillis,
}

/// What has become of a call's sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replaced {
    /// The trunk the call came by: its place may be another's now.
    pub(crate) from_trunk: Option<Arc<str>>,
    /// In order.
    pub(crate) taken: Vec<Taken>,
}

impl Replaced {
    fn records(&self) -> Vec<Replacement> {
        let record = |taken: &Taken| Replacement {
            side: taken.side.as_str().to_owned(),
            by: taken.by.clone(),
            from: taken.from.clone(),
            time: taken.at,
        };
        self.taken.iter().map(record).collect()
    }
}

/// Who waits for a leg's place.
pub(super) struct Waiting {
    leg: LegId,
    by: String,
    from: String,
    at: IpAddr,
    /// `None`: the one that the side has is his.
    permit: Option<Permit>,
}

/// A dialog of the call may be replaced, and somebody asks for it.
pub(crate) struct ReplaceLeg {
    pub(crate) leg: LegId,
    pub(crate) state: Replaceable,
    pub(crate) seeks: Seeks,
}

impl Handler<Told<ReplaceLeg>> for CallActor {
    type Result = ();
    fn handle(&mut self, told: Told<ReplaceLeg>, ctx: &mut Context<Self>) {
        let ReplaceLeg { leg, state, seeks } = told.0;
        match self.may_replace(leg, &seeks.asks) {
            Ok((newcomer, permit)) => self.replace_leg((leg, newcomer), state, seeks, permit, ctx),
            Err(refused) => self.shard.tell(Declined { seeks, refused }),
        }
    }
}

impl CallActor {
    /// Who has taken the places of its sides, if anybody has.
    pub(super) fn replacements(&self) -> Option<&Replaced> {
        self.rare.as_ref()?.replaced.as_ref()
    }

    /// The same for the CDR.
    pub(super) fn replacement_records(&self) -> Vec<Replacement> {
        self.replacements().map(Replaced::records).unwrap_or_default()
    }

    /// The number of the newcomer's leg, and his place if he needs one. A trunk that may replace calls may replace any; a station its own,
    /// which is to be at another of its devices (RFC 3891 §3: whoever is authenticated as the one who is replaced).
    fn may_replace(&self, leg: LegId, asks: &Asks) -> Result<(LegId, Option<Permit>), Refused> {
        if self.rare.as_ref().is_some_and(|rare| rare.waiting.is_some()) {
            return Err(Refused::new(491, Refusal::NotAllowed));
        }
        let limit = || Refused::new(503, Refusal::Limit);
        let newcomer = self.shell.machine().next_leg().ok_or_else(limit)?;
        let present =
            self.permit_of(if leg == self.shell.machine().caller() { Side::Caller } else { Side::Callee });
        match &asks.caller {
            Caller::Station(station) => {
                let own = present.is_some_and(|permit| permit.is_of_station(&station.config.name));
                if own { Ok((newcomer, None)) } else { Err(Refused::new(403, Refusal::NotAllowed)) }
            }
            Caller::Trunk(trunk) => {
                if present.and_then(Permit::trunk).is_some_and(|own| own == trunk.config.name) {
                    return Ok((newcomer, None));
                }
                let seat = self.env.seat();
                let permit = if self.info.emergency {
                    Some(trunk.emergency_permit(seat))
                } else {
                    trunk.permit_again(seat)
                };
                Ok((newcomer, Some(permit.ok_or_else(limit)?)))
            }
        }
    }

    /// The place that a side of the call has.
    fn permit_of(&self, side: Side) -> Option<&Permit> {
        match side {
            Side::Caller => self.permits.first(),
            Side::Callee | Side::Engine | Side::Operator => self.place.as_ref().or(self.permits.get(1)),
        }
    }

    fn replace_leg(
        &mut self,
        (leg, newcomer): (LegId, LegId),
        state: Replaceable,
        seeks: Seeks,
        permit: Option<Permit>,
        ctx: &mut Context<Self>,
    ) {
        let Seeks { asks, transaction } = seeks;
        let Asks { invite, flow, caller, .. } = *asks;
        let Towards { routing, local, account } = towards(&self.env, &invite, flow, &caller);
        let at = flow.remote.ip();
        let by = match &caller {
            Caller::Station(station) => format!("station:{}", station.config.name),
            Caller::Trunk(trunk) => format!("trunk:{}", trunk.config.name),
        };
        let from =
            invite.from().parsed_uri().ok().and_then(|uri| uri.dialled().map(|user| user.into_owned()));
        let input = Newcomer {
            leg: newcomer,
            replaced: leg,
            early: state == Replaceable::Early,
            offer: invite.session_description().unwrap_or_default(),
            codecs: caller.codecs().clone(),
            at,
            session_id: self.env.random() >> 1,
        };
        let waiting = Waiting { leg: newcomer, by, from: from.unwrap_or_default(), at, permit };
        self.rare.get_or_insert_default().waiting = Some(waiting);
        self.media.knows(newcomer, at);
        let call_id = invite.call_id().to_owned();
        let source = flow.answering(&invite.via());
        let tag = self.env.name();
        let origin = Origin::Incoming { transaction, invite, source, tag, local, routing, account };
        self.start_leg(newcomer, origin, (call_id, None), ctx);
        self.feed(&Input::Replace(Box::new(input)), ctx);
    }

    /// A side's place is the newcomer's; the checkpoint that follows says so.
    pub(super) fn replaced(&mut self, side: Side, by: LegId, now: Now) {
        let Some(rare) = self.rare.as_deref_mut() else { return };
        let Some(waiting) = rare.waiting.as_mut().filter(|waiting| waiting.leg == by) else { return };
        self.media.signals_from(side, waiting.at);
        let taken = Taken { side, by: waiting.by.clone(), from: waiting.from.clone(), at: now.wall };
        if let Some(permit) = waiting.permit.take() {
            match side {
                Side::Caller if self.permits.is_empty() => self.permits.push(permit),
                Side::Caller => self.permits[0] = permit,
                Side::Callee | Side::Engine | Side::Operator => {
                    self.place = None;
                    self.permits.truncate(1);
                    self.permits.push(permit);
                }
            }
        }
        let from_trunk = self.from_trunk.clone();
        let replaced = rare.replaced.get_or_insert_with(|| Replaced { from_trunk, taken: Vec::new() });
        replaced.taken.push(taken);
    }

    /// What became of the newcomer.
    pub(super) fn succession(&mut self, leg: LegId, became: Succession, now: Now) {
        let Some(rare) = self.rare.as_deref_mut() else { return };
        let Some(waiting) = rare.waiting.take_if(|waiting| waiting.leg == leg) else { return };
        let taken = rare.replaced.as_ref().and_then(|replaced| replaced.taken.last());
        let side = taken.map(|taken| taken.side);
        let metrics = &self.env.metrics().replaces;
        let (counter, outcome) = match became {
            Succession::Done { .. } => (&metrics.done, "somebody has taken a side's place"),
            Succession::Refused(603) => (&metrics.ended, "the leg had ended"),
            Succession::Refused(_) => (&metrics.refused, "somebody was refused a side's place"),
            Succession::Cancelled => (&metrics.cancelled, "somebody has not waited for a side's place"),
            Succession::CallEnded => (&metrics.ended, "the call ended before somebody had a side's place"),
        };
        counter.increment(1);
        let mut event = Event::new(now.wall, EventKind::CallReplaced, outcome).of(&self.id);
        event = event.with("by", waiting.by.clone()).with("from", waiting.from.clone());
        let status = match became {
            Succession::Done { protected } => {
                if !protected {
                    self.info.unprotected = true;
                    self.env.metrics().unprotected_answers.increment(1);
                    tracing::warn!(call = %self.id, "answered before the checkpoint was committed: a restart would lose this call");
                }
                200
            }
            Succession::Refused(status) => status,
            Succession::Cancelled => 487,
            Succession::CallEnded => 603,
        };
        tracing::info!(call = %self.id, by = waiting.by, from = waiting.from, status, "{outcome}");
        if matches!(became, Succession::Done { .. }) {
            event = event.with("side", side.map_or("", Side::as_str));
        }
        let of_leg = self.legs.iter().find(|known| known.id == leg);
        let event = self.with_sip_call_id(event.with("sip_status", i64::from(status)), of_leg);
        self.events.push(event);
    }
}
