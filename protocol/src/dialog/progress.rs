//! Asking for more time (RFC 3261 §13.3.1.1): a proxy gives up an INVITE of which it has heard nothing for three minutes, so
//! whoever waits for a person says so again each minute. What went reliably has arrived and is not repeated (RFC 3262 §3).

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Dialog, Output, Pending, Phase};
use crate::time::{Instant, Now};

const EACH: Duration = Duration::from_secs(60);

/// What the peer was last told of the progress of its INVITE or re-INVITE.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    said: Option<(u16, Option<Bytes>)>,
    again_at: Option<Instant>,
}

impl Progress {
    /// An unreliable provisional response leaves.
    pub(super) fn said(&mut self, status: u16, sdp: Option<&Bytes>, now: Now) {
        self.said = Some((status, sdp.cloned()));
        self.again_at = Some(now.mono + EACH);
    }

    /// A re-INVITE goes to the other side to answer.
    pub(super) fn begins(&mut self, now: Now) {
        self.said(183, None, now);
    }

    /// Nothing is to be repeated.
    pub(super) fn ends(&mut self) {
        *self = Progress::default();
    }
}

impl Dialog {
    /// The INVITE or re-INVITE whose sender waits.
    fn waiting(&self) -> Option<&Pending> {
        match &self.phase {
            Phase::Incoming(pending) => Some(pending),
            Phase::Confirmed => self.reoffered.as_deref(),
            Phase::AnswerHeld(..) | Phase::Calling(_) | Phase::Closing | Phase::Ended => None,
        }
    }

    /// When it is said again.
    pub(super) fn progress_deadline(&self) -> Option<Instant> {
        self.progress.again_at.filter(|_| self.waiting().is_some())
    }

    /// Says it again if it is due.
    pub(super) fn repeat_progress(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.progress_deadline().is_none_or(|at| at > now.mono) {
            return;
        }
        let again = self.waiting().zip(self.progress.said.as_ref());
        let again = again.map(|(pending, (status, sdp))| self.respond(pending, *status, sdp.as_ref(), &[]));
        self.progress.again_at = again.is_some().then(|| now.mono + EACH);
        out.extend(again);
    }
}
