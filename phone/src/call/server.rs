//! What a call does with the peer's requests.

use std::time::Duration;

use rsip::headers as h;
use rsip::headers::untyped::UntypedHeader;

use crate::api::{AutoAnswer, CallHandle, CallState, Event};
use crate::dialog::Dialog;
use crate::endpoint::Endpoint;
use crate::sdp::Sdp;
use crate::text;
use crate::timer::{RING_LIMIT, T2, Timer};
use crate::wire::{Reply, Request};

use super::{Call, Unacked, refusal_of_interval};

/// The status that refuses the body of an INVITE, if it must be refused; no body is an INVITE without offer.
pub(crate) fn refusal_of_offer(ep: &Endpoint, invite: &Request) -> Option<u16> {
    if invite.body.is_empty() {
        return None;
    }
    if !invite.head.is_sdp() {
        return Some(415);
    }
    match Sdp::parse(&invite.body) {
        None => Some(400),
        Some(sdp) => sdp.audio(&ep.config.codecs).is_none().then_some(488),
    }
}

/// Refuses a re-INVITE or UPDATE; one that a 500 puts off may come again within ten seconds (RFC 3261 §14.2, RFC 3311 §5.2).
pub(super) fn refuse_offer(ep: &mut Endpoint, now: Duration, tx: u64, reply: Reply) {
    let put_off = reply.status == 500;
    let reply = if put_off { reply.with(h::RetryAfter::new(ep.rng.below(11).to_string())) } else { reply };
    ep.respond(now, tx, reply);
}

impl Call {
    /// A new call from outside, whose offer is known to be acceptable.
    pub(crate) fn invited(
        ep: &mut Endpoint,
        now: Duration,
        handle: CallHandle,
        tx: u64,
        invite: &Request,
    ) -> Call {
        let dialog = Dialog::called(ep, invite);
        let mut call = Call::new(ep, handle, dialog, false);
        call.invited = Some((tx, invite.body.clone()));
        call.invite_cseq = invite.head.cseq;
        call.reliable = super::prack::Server::of(ep, invite);
        call.timer_asked(ep, tx, invite);
        // The caller may be gone without a CANCEL that came through; it gives up first if it is not.
        ep.timers.set(Timer::RingLimit(handle), now + RING_LIMIT + ep.config.t1 * 64);
        let from = text::uri_user(&invite.head.from.uri).to_owned();
        let number = text::uri_user(&invite.uri).to_owned();
        ep.events.push_back(Event::Incoming { call: handle, from, number });
        match ep.config.auto {
            AutoAnswer::Manual => call.on_ring_timer(ep, now),
            AutoAnswer::After { ring, .. } if ring.is_zero() => call.on_ring_timer(ep, now),
            AutoAnswer::After { ring, .. } => {
                ep.respond(now, tx, Reply::new(100, ""));
                ep.timers.set(Timer::Ring(handle), now + ring);
            }
            AutoAnswer::Reject(status) => call.reject(ep, now, status),
            // The phone drops such an INVITE before there is a call.
            AutoAnswer::Ignore => {}
        }
        call
    }

    /// Time to ring.
    pub(crate) fn on_ring_timer(&mut self, ep: &mut Endpoint, now: Duration) {
        if self.invited.is_none() {
            return;
        }
        self.provisional(ep, now, 180, false);
        if let AutoAnswer::After { answer, .. } = ep.config.auto {
            ep.timers.set(Timer::Answer(self.handle), now + answer);
        }
    }

    /// Answers an incoming call.
    pub(crate) fn answer(&mut self, ep: &mut Endpoint, now: Duration) {
        if self.state != CallState::Incoming {
            return;
        }
        if self.holds_answer(ep) {
            return;
        }
        let settled = self.reliable.agreed();
        let Some((tx, body)) = self.invited.take() else { return };
        ep.timers.cancel(Timer::RingLimit(self.handle));
        ep.timers.cancel(Timer::Ring(self.handle));
        ep.timers.cancel(Timer::Answer(self.handle));
        self.state = CallState::Answered;
        let cseq = self.invite_cseq;
        if let Some(audio) = settled {
            // RFC 6337 section 3.1.1: what is agreed is not said again.
            self.accept_with(ep, now, tx, cseq, None, false);
            self.tell_answered(ep, audio);
        } else if let Some(audio) = self.accept(ep, now, tx, cseq, &body) {
            self.tell_answered(ep, audio);
        }
    }

    /// Sends the 200 to an INVITE and keeps sending it until the ACK; gives the media if the INVITE had an
    /// offer, which must be acceptable.
    pub(super) fn accept(
        &mut self,
        ep: &mut Endpoint,
        now: Duration,
        tx: u64,
        cseq: u32,
        offer: &[u8],
    ) -> Option<crate::sdp::Audio> {
        let codecs = ep.config.codecs.clone();
        let agreed = if offer.is_empty() { None } else { self.read_sdp(ep, offer) };
        let body = match &agreed {
            Some((sdp, audio)) => {
                let direction = self.wanted_direction().limited_by(audio.direction);
                self.local.answer(sdp, &codecs, direction)
            }
            None => Some(self.local.offer(&codecs, self.wanted_direction())),
        };
        self.accept_with(ep, now, tx, cseq, Some(body.unwrap_or_default()), agreed.is_none());
        agreed.map(|(_, audio)| audio)
    }

    /// Sends a 200 with this description.
    fn accept_with(
        &mut self,
        ep: &mut Endpoint,
        now: Duration,
        tx: u64,
        cseq: u32,
        body: Option<String>,
        offered: bool,
    ) {
        let fields = self.timer_answer(ep, now, tx);
        let contact = ep.contact();
        let mut reply = Reply::new(200, &self.dialog.local_tag).contact(&contact, ep.allow()).extra(fields);
        if let Some(body) = body {
            reply = reply.sdp(body);
        }
        let interval = ep.config.t1;
        if let Some((to, bytes)) = ep.respond(now, tx, reply) {
            self.unacked.insert(cseq, Unacked { to, bytes, interval, offered });
            ep.timers.set(Timer::Resend2xx(self.handle, cseq), now + interval);
            ep.timers.set(Timer::AckMissing(self.handle, cseq), now + interval * 64);
        }
    }

    /// RFC 3261 section 13.3.1.4: the 2xx again.
    pub(crate) fn on_resend_timer(&mut self, ep: &mut Endpoint, now: Duration, cseq: u32) {
        let Some(unacked) = self.unacked.get_mut(&cseq) else { return };
        unacked.interval = (unacked.interval * 2).min(T2);
        ep.outbox.push_back((unacked.to, unacked.bytes.clone()));
        ep.timers.set(Timer::Resend2xx(self.handle, cseq), now + unacked.interval);
    }

    /// RFC 3261 section 13.3.1.4: no ACK for 64*T1, so the session ends.
    pub(crate) fn on_ack_missing(&mut self, ep: &mut Endpoint, now: Duration, cseq: u32) {
        let what = format!("ACK missing: the 200 to INVITE {cseq} was never acknowledged");
        ep.protocol_of(&self.dialog.call_id, what);
        self.bye(ep, now, "ACK missing");
    }

    /// The ACK of a 2xx.
    pub(crate) fn on_ack(&mut self, ep: &mut Endpoint, now: Duration, ack: &Request) {
        let cseq = ack.head.cseq;
        let Some(unacked) = self.unacked.remove(&cseq) else { return };
        ep.timers.cancel(Timer::Resend2xx(self.handle, cseq));
        ep.timers.cancel(Timer::AckMissing(self.handle, cseq));
        let first = self.state == CallState::Answered;
        if first {
            self.state = CallState::Established;
        }
        if unacked.offered {
            match self.read_sdp(ep, &ack.body) {
                Some((_, audio)) if first => self.tell_answered(ep, audio),
                Some((_, audio)) => self.tell_changed(ep, audio),
                None => {
                    // Whoever ends the call at once refuses every stream.
                    if Sdp::parse(&ack.body).is_none() {
                        ep.protocol("the ACK has no SDP that answers the offer of the 200");
                    }
                    return self.bye(ep, now, "no usable SDP in the ACK");
                }
            }
        }
        self.next(ep, now);
    }

    /// A CANCEL for the INVITE of transaction `tx`.
    pub(crate) fn on_cancel(&mut self, ep: &mut Endpoint, now: Duration, tx: u64) {
        if self.ponders_over(tx) {
            return self.refuse_pondered(ep, now);
        }
        if self.defies {
            return;
        }
        if self.invited.take_if(|(pending, _)| *pending == tx).is_some() {
            ep.respond(now, tx, Reply::new(487, &self.dialog.local_tag));
            self.end(ep, false, Some(487), "cancelled by the caller");
        }
    }

    /// Whether this is the call of the INVITE with transaction `tx`.
    pub(crate) fn is_invited_by(&self, tx: u64) -> bool {
        self.invited.as_ref().is_some_and(|(pending, _)| *pending == tx) || self.ponders_over(tx)
    }

    /// A request within the dialog, ACK and CANCEL apart.
    pub(crate) fn on_request(&mut self, ep: &mut Endpoint, now: Duration, tx: u64, request: &Request) {
        let tag = self.dialog.local_tag.clone();
        let cseq = request.head.cseq;
        if let Some(last) = self.dialog.remote_cseq
            && cseq <= last
        {
            ep.protocol(format!("CSeq backwards: {} {cseq} after {last}", request.method));
            ep.respond(now, tx, Reply::new(500, &tag));
            return;
        }
        self.dialog.remote_cseq = Some(cseq);
        match request.method.as_str() {
            "BYE" => self.on_bye(ep, now, tx),
            "INVITE" => self.on_reinvite(ep, now, tx, request),
            "UPDATE" if ep.config.manners.updates => self.on_update(ep, now, tx, request),
            "PRACK" => self.on_prack(ep, now, tx, request),
            "INFO" => {
                let known = !matches!(self.state, CallState::Ending | CallState::Ended);
                ep.respond(now, tx, Reply::new(if known { 200 } else { 481 }, &tag));
            }
            _ => {
                let allow = h::Allow::new(ep.allow());
                ep.respond(now, tx, Reply::new(405, &tag).with(allow));
            }
        }
    }

    fn on_bye(&mut self, ep: &mut Endpoint, now: Duration, tx: u64) {
        let tag = self.dialog.local_tag.clone();
        ep.respond(now, tx, Reply::new(200, &tag));
        // RFC 3261 section 15.1.2: requests of this dialog that still wait get 487.
        if let Some((pending, _)) = self.invited.take() {
            ep.respond(now, pending, Reply::new(487, &tag));
        }
        self.refuse_pondered(ep, now);
        // The first INVITE was accepted, or there would be no BYE: every copy of its 2xx was lost.
        if self.outgoing
            && self.remote.is_none()
            && let Some(pending) = self.inviting.take()
        {
            ep.forget_client(pending);
        }
        self.guard_inviting(ep, now);
        self.end(ep, self.bye_reason.is_some(), None, "the peer hung up");
    }

    fn on_reinvite(&mut self, ep: &mut Endpoint, now: Duration, tx: u64, invite: &Request) {
        let tag = self.dialog.local_tag.clone();
        if let Some(reply) = refusal_of_interval(ep, &invite.head, &tag) {
            ep.respond(now, tx, reply);
            return;
        }
        // RFC 3261 section 14.2; an offer of ours in a 200 without ACK is one under way, too.
        let ours = self.our_offer_is_open();
        let theirs = self.their_offer_is_open();
        let refusal = match self.state {
            CallState::Ending | CallState::Ended => Some(481),
            CallState::Calling | CallState::Ringing => Some(491),
            CallState::Incoming => Some(500),
            CallState::Answered | CallState::Established if ours => Some(491),
            CallState::Answered | CallState::Established if theirs => Some(500),
            CallState::Answered | CallState::Established => refusal_of_offer(ep, invite),
        };
        if let Some(status) = refusal {
            refuse_offer(ep, now, tx, Reply::new(status, &tag));
            return;
        }
        self.dialog.refresh_target(&invite.head);
        self.timer_asked(ep, tx, invite);
        self.take_reinvite(ep, now, tx, invite);
    }
}
