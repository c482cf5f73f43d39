//! Delayed media within the dialog (RFC 3261 §14.1, RFC 3264 §5): our re-INVITE leaves the offer to the peer, and our ACK answers it.
//!
//! Whoever wants the session changed has said how. That meets what the peer offers as two offers of an INVITE do: each becomes the
//! answer to the other. To the call it is as if the peer had answered.

use bytes::Bytes;

use super::{Dialog, Output};
use crate::message::Method;
use crate::sdp::SessionDescription;
use crate::sdp::negotiate::{NegotiationError, cross_answers};

/// What the peer is told in our ACK, and what it says in answer to what it never saw.
struct Met {
    told: Bytes,
    heard: Bytes,
}

fn meet(ours: &Bytes, theirs: &Bytes) -> Result<Met, NegotiationError> {
    let (ours, theirs) = (SessionDescription::parse(ours)?, SessionDescription::parse(theirs)?);
    let (told, heard) = cross_answers(&ours, &theirs)?;
    Ok(Met { told: Bytes::from(told.to_string()), heard: Bytes::from(heard.to_string()) })
}

impl Dialog {
    /// Sends a re-INVITE with this offer, or with none if there is none or the peer is to make it; its CSeq.
    pub(super) fn send_reinvite(&mut self, sdp: Option<&Bytes>, out: &mut Vec<Output>) -> u32 {
        let offer = sdp.filter(|_| !self.delayed);
        let cseq = self.in_dialog_request(Method::Invite, offer, &[], out);
        self.reoffering = Some(cseq);
        self.session.solicited = offer.is_none().then_some(cseq);
        cseq
    }

    /// The peer's offer in the 2xx to a re-INVITE that kept ours back. Where the two do not fit the peer gets the session as it is,
    /// for its offer cannot be refused any more (RFC 3261 §13.2.1), and whoever wanted it changed is told.
    pub(super) fn meet_offer(&mut self, cseq: u32, ours: &Bytes, offer: &Bytes, out: &mut Vec<Output>) {
        self.reoffering = None;
        match meet(ours, offer) {
            Ok(Met { told, heard }) => {
                self.session.acknowledged = Some((cseq, told.clone()));
                self.acknowledge(cseq, out);
                self.in_force.we_offer(&told);
                self.proposal_answered(heard, out);
            }
            Err(why) => {
                self.answer_unwanted_offer(cseq, offer, out);
                self.in_force.offer_is_void();
                self.proposal_refused(why.status(), out);
            }
        }
    }
}
