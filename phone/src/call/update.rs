//! UPDATE within an established call, RFC 3311.

use std::time::Duration;

use crate::api::{CallState, Event};
use crate::endpoint::Endpoint;
use crate::transaction::{Owner, Role};
use crate::wire::{Reply, Request, Response};

use super::{Call, refusal_of_interval, refusal_of_offer, refuse_offer};

impl Call {
    /// An offer of ours, or our wish for one, is not answered.
    pub(super) fn our_offer_is_open(&self) -> bool {
        let agreed = self.agreed_early().is_some();
        // Until the offer that an INVITE asks for is made, it counts as open.
        let asked = self.invited.as_ref().is_some_and(|(_, offer)| offer.is_empty()) && !agreed;
        let in_response = self.unacked.values().any(|u| u.offered) || self.reliable.offers();
        let inviting = self.inviting.is_some() && !agreed;
        inviting || self.updating.is_some() || in_response || self.early.offers() || asked
    }

    /// An offer of the peer's is not answered.
    pub(super) fn their_offer_is_open(&self) -> bool {
        let invited = self.invited.as_ref().is_some_and(|(_, offer)| !offer.is_empty());
        self.pondered.is_some() || invited && self.agreed_early().is_none()
    }

    /// The script wants an UPDATE sent.
    pub(crate) fn update(&mut self, ep: &mut Endpoint, now: Duration) {
        let open = self.our_offer_is_open() || self.their_offer_is_open() || !self.unacked.is_empty();
        // A PRACK that is overtaken would be out of order (RFC 3261 section 12.2.2).
        let open = open || self.early.is_open();
        let possible = self.state == CallState::Established || self.agreed_early().is_some();
        if !possible || self.hung_up || open || !ep.config.manners.updates {
            return;
        }
        let mut update = self.dialog.request(ep, "UPDATE");
        update.body = Some(self.local.offer(&ep.config.codecs, self.wanted_direction()));
        update.extra = self.timer_fields(ep);
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
        if (200..300).contains(&response.status) {
            self.timer_granted(ep, now, tx, response);
        }
        let early = self.agreed_early().is_some();
        if self.state != CallState::Established && !early {
            return;
        }
        match response.status {
            200..300 => {
                self.dialog.refresh_target(&response.head);
                match self.read_sdp(ep, &response.body) {
                    Some((_, audio)) => self.tell_changed(ep, audio),
                    None => {
                        ep.protocol("the 2xx to an UPDATE has no SDP that answers the offer");
                        if !early {
                            self.bye(ep, now, "no usable SDP in the answer to an UPDATE");
                        }
                    }
                }
            }
            422 if self.raises_interval(ep, tx, response) => return self.update(ep, now),
            // RFC 3261 section 12.2.1.2: the peer does not know the dialog.
            status @ (408 | 481) if !early => {
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
        if let Some(reply) = refusal_of_interval(ep, &update.head, &tag) {
            ep.respond(now, tx, reply);
            return;
        }
        let refusal = match self.state {
            CallState::Ending | CallState::Ended => Some(481),
            CallState::Calling
            | CallState::Ringing
            | CallState::Incoming
            | CallState::Answered
            | CallState::Established => match () {
                () if update.body.is_empty() => None,
                () if self.our_offer_is_open() => Some(491),
                () if self.their_offer_is_open() => Some(500),
                () => refusal_of_offer(ep, update),
            },
        };
        if let Some(status) = refusal {
            refuse_offer(ep, now, tx, Reply::new(status, &tag));
            return;
        }
        self.dialog.refresh_target(&update.head);
        self.timer_asked(ep, tx, update);
        let fields = self.timer_answer(ep, now, tx);
        let contact = ep.contact();
        let mut reply = Reply::new(200, &tag).contact(&contact, ep.allow()).extra(fields);
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
