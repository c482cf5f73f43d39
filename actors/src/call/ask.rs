//! What the API asks of a call.

use actix::prelude::*;
use tandem_protocol::b2bua::{Input, LegId};

use super::CallActor;
use crate::env::{Tell, Told};
use crate::shell::Injection;

/// What may be asked of a call from outside.
pub(crate) enum AskCall {
    /// Its state, as JSON.
    Describe(tokio::sync::mpsc::UnboundedSender<serde_json::Value>),
    /// End it.
    HangUp,
    /// Make a machine panic: the call's, or a leg's.
    Inject(Option<LegId>, Injection),
    /// Make a media session's machine panic.
    InjectSession(u8, Injection),
}

impl Handler<Told<AskCall>> for CallActor {
    type Result = ();
    fn handle(&mut self, told: Told<AskCall>, ctx: &mut Context<Self>) {
        match told.0 {
            AskCall::Describe(reply) => {
                let _ = reply.send(self.describe());
                // Whoever lists all calls does not keep them awake.
                self.shell.sleep(self.env.now());
            }
            AskCall::HangUp => self.feed(&Input::HangUp, ctx),
            AskCall::Inject(None, injection) => {
                self.shell.inject(injection);
                self.feed(&Input::Timeout, ctx);
            }
            AskCall::Inject(Some(leg), injection) => {
                if let Some(dialog) = self.dialog(leg) {
                    dialog.tell(injection);
                }
            }
            AskCall::InjectSession(side, injection) => {
                self.media.inject(&self.env, self.key, side, injection)
            }
        }
    }
}
