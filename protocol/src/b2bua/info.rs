//! INFO and MESSAGE across the bridge (RFC 6086, RFC 3428): asked of the other leg's peer, whose answer comes back.

use super::{Call, LegId, MediaPlan, Output, Phase};
use crate::dialog::{Body, Command};
use crate::message::Method;

impl Call {
    pub(super) fn leg_asks(
        &mut self,
        leg: LegId,
        id: u32,
        method: Method,
        body: Option<&Body>,
        out: &mut Vec<Output>,
    ) {
        let answer = |status| Output::Tell(leg, Command::AnswerAsked { id, status, body: None });
        if matches!(self.media, MediaPlan::Service { .. }) {
            // A service understands no body. Without one an INFO only asks whether the dialog is there.
            let status = if body.is_none() && method == Method::Info { 200 } else { 415 };
            out.push(answer(status));
            return;
        }
        match self.across(leg).filter(|_| self.phase == Phase::Up) {
            Some(other) => out.push(Output::Tell(other, Command::Ask { id, method, body: body.cloned() })),
            None => out.push(answer(480)),
        }
    }

    pub(super) fn leg_responds(
        &mut self,
        leg: LegId,
        id: u32,
        status: u16,
        body: Option<&Body>,
        out: &mut Vec<Output>,
    ) {
        if let Some(asker) = self.across(leg) {
            out.push(Output::Tell(asker, Command::AnswerAsked { id, status, body: body.cloned() }));
        }
    }
}
