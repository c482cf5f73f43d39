//! What the dialogs of a call tell it.

use actix::prelude::*;
use tandem_protocol::b2bua::{Input, LegId};

use super::CallActor;
use crate::dialog::{FromLeg, LegDown};
use crate::env::Told;

impl Handler<Told<FromLeg>> for CallActor {
    type Result = ();
    fn handle(&mut self, told: Told<FromLeg>, ctx: &mut Context<Self>) {
        let FromLeg { leg, events, frozen, down } = told.0;
        if let Some(known) = self.legs.iter_mut().find(|l| l.id == leg) {
            known.frozen.replace(frozen);
        }
        // A call that is ending is in the store as it was: a restart would ask its peers what they know, and end it anew.
        if events.is_empty() && self.shell.machine().is_answered() {
            self.refresh();
        }
        for event in events {
            self.feed(&Input::Leg(leg, event), ctx);
        }
        // By what it said last the call may be over.
        if down && ctx.state() == ActorState::Running {
            self.leg_down(leg, ctx);
        }
    }
}

impl CallActor {
    fn leg_down(&mut self, leg: LegId, ctx: &mut Context<Self>) {
        if let Some(known) = self.legs.iter_mut().find(|l| l.id == leg) {
            known.dialog = None;
        }
        self.feed(&Input::LegGone(leg), ctx);
    }
}

impl Handler<Told<LegDown>> for CallActor {
    type Result = ();
    fn handle(&mut self, told: Told<LegDown>, ctx: &mut Context<Self>) {
        self.leg_down(told.0.0, ctx);
    }
}
