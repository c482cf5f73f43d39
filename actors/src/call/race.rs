//! A leg to a proxy with several addresses, over a stream: first it is found out which of them there is a connection to (RFC 8305).
//!
//! The INVITE is written when that is known, for what it says depends on where it goes.

use std::net::SocketAddr;

use actix::prelude::*;
use bytes::Bytes;
use tandem_protocol::b2bua::{Input, LegId, Target};
use tandem_protocol::dialog::{Command, LegEvent, NoAnswer};
use tandem_protocol::trunk_health::Seen;

use super::{CallActor, Outbound};
use crate::dialog::LegDown;
use crate::env::{Raced, Tell, Told, Waiter};
use crate::shard::TrunkReport;

/// What a leg begins with.
pub(super) struct Begins {
    pub(super) leg: LegId,
    pub(super) target: Target,
    pub(super) outbound: Outbound,
    /// The offer, and whether provisional responses may be reliable.
    pub(super) sdp: (Bytes, bool),
}

/// Legs that wait for a connection.
#[derive(Default)]
pub(super) struct Racing(Vec<Begins>);

impl Racing {
    fn take(&mut self, leg: LegId) -> Option<Begins> {
        let place = self.0.iter().position(|waits| waits.leg == leg)?;
        Some(self.0.swap_remove(place))
    }

    /// Nobody waits any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl CallActor {
    /// Has the addresses of a proxy race, if it has several; gives back a leg that may begin now.
    pub(super) fn race(&mut self, begins: Begins, ctx: &mut Context<Self>) -> Option<Begins> {
        let to = begins.target.flow;
        if !to.listener.transport().is_reliable() {
            return Some(begins);
        }
        let trunk = begins.target.trunk.as_deref().and_then(|name| self.env.directory().trunk(name));
        let mut others = trunk.map(|trunk| trunk.addresses_beside(to.remote)).unwrap_or_default();
        if others.is_empty() {
            return Some(begins);
        }
        // In the order of this call, without those that it has tried before.
        let left: Vec<SocketAddr> = self.shell.machine().left_to_try().collect();
        others.retain(|other| left.contains(other));
        others.sort_by_key(|other| left.iter().position(|address| address == other));
        let owner = ctx.address().downgrade().recipient();
        let waiter = Waiter { owner, number: begins.leg.0.into() };
        let within = begins.outbound.timers.connect;
        match self.env.race(to.listener, (to.remote, &others), within, waiter) {
            Some(address) if address == to.remote => Some(begins),
            Some(address) => {
                ctx.address().tell(Raced {
                    number: begins.leg.0.into(),
                    won: Some(address),
                    failed: Vec::new(),
                });
                self.racing.0.push(begins);
                None
            }
            None => {
                self.racing.0.push(begins);
                None
            }
        }
    }

    /// A leg that waits for a connection shall end: it has not begun.
    pub(super) fn withdraw(&mut self, leg: LegId, command: &Command, ctx: &Context<Self>) {
        if matches!(command, Command::End { .. }) && self.racing.take(leg).is_some() {
            ctx.address().tell(LegDown(leg));
        }
    }

    /// None of a proxy's addresses can be reached: its trunk learns it of those that the attempt's record does not name.
    fn report_unreachable(&self, begins: &Begins, failed: &[SocketAddr]) {
        let Some(trunk) = begins.outbound.trunk.clone() else { return };
        for proxy in failed.iter().filter(|proxy| **proxy != begins.target.flow.remote) {
            let (trunk, seen) = (trunk.clone(), Seen::Unreachable);
            self.shard.tell(TrunkReport { trunk, proxy: *proxy, seen });
        }
    }
}

impl Handler<Told<Raced>> for CallActor {
    type Result = ();
    fn handle(&mut self, told: Told<Raced>, ctx: &mut Context<Self>) {
        let Raced { number, won, failed } = told.0;
        let Some(leg) = u8::try_from(number).ok().map(LegId) else { return };
        let Some(mut begins) = self.racing.take(leg) else { return };
        self.feed(&Input::Raced { leg, won, failed: failed.clone() }, ctx);
        match won {
            Some(address) => {
                begins.target.flow.remote = address;
                self.begin_leg(begins, ctx);
            }
            None => {
                self.report_unreachable(&begins, &failed);
                let event = LegEvent::Failed {
                    status: 503,
                    reason: "no connection".to_owned(),
                    retry_after: None,
                    unanswered: Some(NoAnswer::Transport),
                };
                self.feed(&Input::Leg(leg, event), ctx);
            }
        }
    }
}
