//! What may happen to a re-INVITE beside its final response: it is cancelled (RFC 3261 section 9.1), or somebody thinks about it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::CallState;
use crate::endpoint::Endpoint;
use crate::timer::Timer;
use crate::transaction::{Owner, Role};
use crate::wire::{Reply, Request};

use super::Call;

/// Our re-INVITE without a final response.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reinvite {
    /// A provisional response has come.
    proceeding: bool,
    /// It is to be cancelled.
    pub(super) unwanted: bool,
    cancelled: bool,
}

/// The peer's re-INVITE that has no final response yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pondered {
    tx: u64,
    cseq: u32,
    offer: Vec<u8>,
}

impl Call {
    /// The script takes our re-INVITE back.
    pub(crate) fn cancel_reinvite(&mut self, ep: &mut Endpoint, now: Duration) {
        if self.state == CallState::Established && self.inviting.is_some() {
            self.reinvite.unwanted = true;
            self.cancel_unwanted(ep, now);
        }
    }

    /// A provisional response to our re-INVITE.
    pub(super) fn reinvite_proceeds(&mut self, ep: &mut Endpoint, now: Duration, tx: u64) {
        if self.inviting == Some(tx) {
            self.reinvite.proceeding = true;
            self.cancel_unwanted(ep, now);
        }
    }

    fn cancel_unwanted(&mut self, ep: &mut Endpoint, now: Duration) {
        let Reinvite { proceeding, unwanted, cancelled } = self.reinvite;
        if proceeding && unwanted && !cancelled && self.state == CallState::Established {
            self.reinvite.cancelled = true;
            self.cancel(ep, now);
        }
    }

    /// The peer's re-INVITE is answered now, or after a while.
    pub(super) fn take_reinvite(&mut self, ep: &mut Endpoint, now: Duration, tx: u64, invite: &Request) {
        let (cseq, offer) = (invite.head.cseq, invite.body.clone());
        self.pondered = Some(Pondered { tx, cseq, offer });
        let ponders = ep.config.manners.ponders;
        if ponders.is_zero() {
            return self.on_ponder_timer(ep, now);
        }
        ep.respond(now, tx, Reply::new(100, ""));
        ep.timers.set(Timer::Ponder(self.handle), now + ponders);
    }

    /// It has been thought about.
    pub(crate) fn on_ponder_timer(&mut self, ep: &mut Endpoint, now: Duration) {
        let Some(Pondered { tx, cseq, offer }) = self.pondered.take() else { return };
        if let Some(audio) = self.accept(ep, now, tx, cseq, &offer) {
            self.tell_changed(ep, audio);
        }
    }

    /// The peer's re-INVITE gets 487: its sender has taken it back, or the call is over.
    pub(super) fn refuse_pondered(&mut self, ep: &mut Endpoint, now: Duration) {
        let Some(Pondered { tx, .. }) = self.pondered.take() else { return };
        ep.timers.cancel(Timer::Ponder(self.handle));
        let tag = self.dialog.local_tag.clone();
        ep.respond(now, tx, Reply::new(487, &tag));
    }

    /// Whether `tx` has the peer's re-INVITE that is thought about.
    pub(super) fn ponders_over(&self, tx: u64) -> bool {
        self.pondered.as_ref().is_some_and(|pondered| pondered.tx == tx)
    }

    /// The script asks something whose CSeq is used up.
    pub(crate) fn ask_too_late(&mut self, ep: &mut Endpoint, now: Duration) {
        if self.state != CallState::Established {
            return;
        }
        if let Some(info) = self.dialog.request_too_late(ep, "INFO") {
            ep.send(now, info, Owner::Call(self.handle, Role::LowCseq));
        }
    }
}
