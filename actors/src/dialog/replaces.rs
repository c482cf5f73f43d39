//! Somebody asks for the place of a dialog's peer (RFC 3891 §3).

use actix::prelude::*;

use super::DialogActor;
use crate::call::ReplaceLeg;
use crate::env::{Tell, Told};
use crate::shard::{Declined, Seeks};

impl Handler<Told<Seeks>> for DialogActor {
    type Result = ();
    fn handle(&mut self, told: Told<Seeks>, _: &mut Context<Self>) {
        let seeks = told.0;
        match self.shell.machine().replaceable(&seeks.asks.replaces) {
            Ok(state) => self.call.tell(ReplaceLeg { leg: self.leg, state, seeks }),
            Err(why) => self.shard.tell(Declined::because(seeks, why)),
        }
    }
}
