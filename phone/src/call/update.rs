//! UPDATE within an established call, RFC 3311.

use std::time::Duration;

use rsip::headers as h;
use rsip::headers::untyped::UntypedHeader;

use crate::api::{CallState, Event};
use crate::endpoint::Endpoint;
use crate::transaction::{Owner, Role};
use crate::wire::{Reply, Request, Response};

use super::{Call, refusal_of_offer};

impl Call {
    /// An offer of ours, or our wish for one, is not answered.
    pub(super) fn offer_is_open(&self) -> bool {
        self.inviting.is_some() || self.updating.is_some() || self.unacked.values().any(|u| u.offered)
    }

    /// The script wants an UPDATE sent.
    pub(crate) fn update(&mut self, ep: &mut Endpoint, now: Duration) {
        let open = self.offer_is_open() || !self.unacked.is_empty();
        if self.state != CallState::Established || self.hung_up || open {
            return;
        }
        let mut update = self.dialog.request(ep, "UPDATE");
        update.body = Some(self.local.offer(&ep.config.codecs, self.wanted_direction()));
        self.updating = Some(ep.send(now, update, Owner::Call(self.handle, Role::Update)));
    }

    pub(super) fn on_update_response(
        &mut self,
        ep: &mut Endpoint,
        now: Duration,
        tx: u64,
        response: &Response,
    ) {
        if response.status < 200 || self.updating != Some(tx) {
            return;
        }
        self.updating = None;
        if self.state != CallState::Established {
            return;
        }
        match response.status {
            200..300 => {
                self.dialog.refresh_target(&response.head);
                match self.read_sdp(ep, &response.body) {
                    Some((_, audio)) => self.tell_changed(ep, audio),
                    None => {
                        ep.protocol("the 2xx to an UPDATE has no SDP that answers the offer");
                        self.bye(ep, now, "no usable SDP in the answer to an UPDATE");
                    }
                }
            }
            // RFC 3261 section 12.2.1.2: the peer does not know the dialog.
            status @ (408 | 481) => {
                ep.events.push_back(Event::ReInviteFailed { call: self.handle, status });
                self.bye(ep, now, "the peer lost the dialog");
            }
            status => ep.events.push_back(Event::ReInviteFailed { call: self.handle, status }),
        }
        self.next(ep, now);
    }

    /// The peer's UPDATE, RFC 3311 section 5.2; one without a body only refreshes the session.
    pub(super) fn on_update(&mut self, ep: &mut Endpoint, now: Duration, tx: u64, update: &Request) {
        let tag = self.dialog.local_tag.clone();
        let refusal = match self.state {
            CallState::Ending | CallState::Ended => Some(481),
            CallState::Calling | CallState::Ringing | CallState::Incoming => Some(500),
            CallState::Answered | CallState::Established if update.body.is_empty() => None,
            CallState::Answered | CallState::Established if self.offer_is_open() => Some(491),
            CallState::Answered | CallState::Established => refusal_of_offer(ep, update),
        };
        if let Some(status) = refusal {
            let mut reply = Reply::new(status, &tag);
            if status == 500 {
                reply = reply.with(h::RetryAfter::new(ep.rng.below(11).to_string()));
            }
            ep.respond(now, tx, reply);
            return;
        }
        self.dialog.refresh_target(&update.head);
        let contact = ep.contact();
        let mut reply = Reply::new(200, &tag).contact(&contact);
        let agreed = if update.body.is_empty() { None } else { self.read_sdp(ep, &update.body) };
        if let Some((sdp, audio)) = &agreed {
            let direction = self.wanted_direction().limited_by(audio.direction);
            let answer = self.local.answer(sdp, &ep.config.codecs, direction);
            reply = reply.sdp(answer.unwrap_or_default());
        }
        ep.respond(now, tx, reply);
        if let Some((_, audio)) = agreed {
            self.tell_changed(ep, audio);
        }
    }
}
