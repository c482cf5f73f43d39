//! What happens between the answer and the end: re-INVITE (RFC 3261 §14), BYE (§15), everything refused plainly.

use super::callee::{ALLOW, is_supported};
use super::caller::sdp_of;
use super::offer_answer::{Owed, Proposal};
use super::{Dialog, EndedBy, LegEvent, Output, Pending, Phase};
use crate::message::{Builder, Header, Message, Method, reason_of};
use crate::time::Now;

impl Dialog {
    /// A request of the peer within the dialog.
    pub(super) fn request(&mut self, pending: Pending, now: Now, out: &mut Vec<Output>) {
        let request = &pending.request;
        let early = self.early_dialog_of(request);
        let known = early.is_some() || request.from_tag() == self.remote_tag.as_deref();
        if !known || request.call_id() != self.call_id {
            // BYE crossed BYE, as in the dialog that was kept.
            let crossed = request.method() == Method::Bye && self.forks.has_ended(request.from_tag());
            out.push(self.respond(&pending, if crossed { 200 } else { 481 }, None, &[]));
            return;
        }
        if self.is_over() && request.method() != Method::Bye {
            out.push(self.respond(&pending, 481, None, &[]));
            return;
        }
        let last = early.map_or(&mut self.remote_cseq, |at| &mut self.session.early[at].remote_cseq);
        let in_order = last.is_none_or(|last| request.cseq() > last);
        if !in_order {
            // §12.2.2: out of order.
            out.push(self.respond(&pending, 500, None, &[(Header::Warning, "399 tandem \"CSeq too low\"")]));
            return;
        }
        *last = Some(request.cseq());
        let unknown: Vec<&str> =
            request.values(Header::Require).filter(|option| !is_supported(option)).collect();
        if !unknown.is_empty() {
            let unknown = unknown.join(", ");
            out.push(self.respond(&pending, 420, None, &[(Header::Unsupported, &unknown)]));
            return;
        }
        if self.refuses_body(&pending, out) || self.refuses_interval(&pending, out) {
            return;
        }
        let request = &pending.request;
        match request.method() {
            Method::Invite => self.peer_reoffers(pending, now, out),
            Method::Bye => self.peer_hangs_up(&pending, out),
            Method::Options => {
                out.push(self.respond(&pending, 200, None, &[(Header::Accept, "application/sdp")]))
            }
            Method::Refer => out.push(self.respond(&pending, 603, None, &[])),
            // RFC 6665 §8.2.1: with the packages that are known, of which there is none.
            Method::Subscribe => out.push(self.respond(&pending, 489, None, &[(Header::AllowEvents, "")])),
            // RFC 6665 §4.1.3: there is no subscription.
            Method::Notify => out.push(self.respond(&pending, 481, None, &[])),
            Method::Ack | Method::Cancel => {}
            Method::Update => self.peer_updates(pending, now, out),
            Method::Prack => self.peer_pracks(pending, now, out),
            Method::Info | Method::Message => self.peer_asks(pending, out),
            // §21.5.2: a method that nobody here knows, as against one that is not for a dialog.
            Method::Other => out.push(self.respond(&pending, 501, None, &[(Header::Allow, ALLOW)])),
            Method::Register | Method::Publish => {
                out.push(self.respond(&pending, 405, None, &[(Header::Allow, ALLOW)]))
            }
        }
    }

    fn peer_reoffers(&mut self, pending: Pending, now: Now, out: &mut Vec<Output>) {
        if self.hanging_up.is_some() {
            // Whoever sends it has our 200, acknowledged or not: now he can be told.
            out.push(self.respond(&pending, 487, None, &[]));
            self.unacknowledged = None;
            let reason = self.hanging_up.take().flatten();
            self.bye(reason.as_deref(), out);
        } else if matches!(self.phase, Phase::Closing) {
            out.push(self.respond(&pending, 481, None, &[]));
        } else if !matches!(self.phase, Phase::Confirmed) || self.their_offer_is_open() {
            // §14.2: an earlier INVITE, or another offer (RFC 6337 §3.2), has not been answered yet.
            let soon = self.soon();
            out.push(self.respond(&pending, 500, None, &[(Header::RetryAfter, &soon)]));
        } else {
            self.yield_to_peer(out);
            if self.our_offer_is_open(None) {
                out.push(self.respond(&pending, 491, None, &[]));
                return;
            }
            self.refresh_target(&pending.request);
            self.note_allow(&pending.request);
            self.flow = pending.source;
            let offer = sdp_of(&pending.request);
            let unchanged = offer.as_ref().and_then(|offer| self.unchanged(&pending.request, offer));
            self.reoffered = Some(Box::new(pending));
            self.progress.begins(now);
            if let Some(told) = unchanged {
                return self.answer_reoffer(&told, now, out);
            }
            let event = match offer {
                Some(sdp) => LegEvent::Reoffer { sdp },
                None => LegEvent::OfferWanted,
            };
            out.push(Output::Up(event));
        }
    }

    /// The early dialog of our INVITE that a request belongs to (§12.2.2).
    fn early_dialog_of(&self, request: &Message) -> Option<usize> {
        match &self.phase {
            Phase::Calling(_) => {
                self.session.early.iter().position(|early| Some(early.tag.as_str()) == request.from_tag())
            }
            Phase::Incoming(_) | Phase::AnswerHeld(..) | Phase::Confirmed | Phase::Closing | Phase::Ended => {
                None
            }
        }
    }

    fn peer_hangs_up(&mut self, bye: &Pending, out: &mut Vec<Output>) {
        let reason = reason_of(&bye.request);
        match &self.phase {
            // §15.1.2 with §15: a caller may end an early dialog by BYE.
            Phase::Incoming(_) | Phase::AnswerHeld(..) => {
                out.push(self.respond(bye, 200, None, &[]));
                self.caller_gives_up(reason.as_deref(), out);
            }
            Phase::Confirmed => {
                self.refuse_what_is_open(out);
                out.push(self.respond(bye, 200, None, &[]));
                out.extend(reason.map(|reason| Output::Up(LegEvent::Reason(reason))));
                self.finish(EndedBy::Peer, out);
            }
            // BYE crossed BYE: the peer has ended it too, whether or not he answers ours.
            Phase::Closing => {
                out.push(self.respond(bye, 200, None, &[]));
                self.finish(EndedBy::Us, out);
            }
            Phase::Ended => out.push(self.respond(bye, 200, None, &[])),
            Phase::Calling(_) => out.push(self.respond(bye, 481, None, &[])),
        }
    }

    /// The peer's response to our re-INVITE.
    pub(super) fn reoffer_response(&mut self, response: &Message, now: Now, out: &mut Vec<Output>) {
        if self.session.proposal.as_ref().is_some_and(Proposal::is_withdrawn) {
            return self.withdrawn_response(response, out);
        }
        match response.status() {
            ..=199 => {}
            200..=299 => {
                self.refresh_target(response);
                self.note_allow(response);
                self.reoffer_accepted(response, out);
            }
            491 => self.proposal_met_glare(now, out),
            422 if self.is_established() && self.timer.too_brief(response) => self.send_proposal(out),
            status @ (408 | 481) => {
                // §12.2.1.2: the peer has lost the dialog.
                self.proposal_refused(status, out);
                self.finish(EndedBy::Lost, out);
            }
            status => self.proposal_refused(self.as_refused(status, response.cseq()), out),
        }
    }

    fn reoffer_accepted(&mut self, response: &Message, out: &mut Vec<Output>) {
        let asked = self.session.solicited == Some(response.cseq());
        let ours = self.session.proposal.as_ref().map(|proposal| proposal.sdp.clone());
        match (sdp_of(response), ours) {
            (Some(offer), Some(None)) => {
                self.reoffering = None;
                self.session.proposal = None;
                self.session.owed = Some(Owed::Ack { cseq: response.cseq(), offer: offer.clone() });
                out.push(Output::Up(LegEvent::Offered { sdp: offer }));
            }
            (Some(offer), Some(Some(ours))) if asked => self.meet_offer(response.cseq(), &ours, &offer, out),
            (Some(offer), None) if asked => {
                // Asked for before our BYE: it is refused in the ACK, as an offer must not stay open (§13.2.1).
                self.reoffering = None;
                self.refuse_offer_in_ack(response.cseq(), &offer);
                self.acknowledge(response.cseq(), out);
            }
            (Some(sdp), _) => {
                self.acknowledge(response.cseq(), out);
                self.proposal_answered(sdp, out);
            }
            (None, _) => {
                self.acknowledge(response.cseq(), out);
                self.proposal_refused(502, out);
            }
        }
    }

    /// Ends the leg by what its phase has.
    pub(super) fn end(&mut self, status: u16, reason: Option<&str>, now: Now, out: &mut Vec<Output>) {
        match &self.phase {
            Phase::Incoming(_) | Phase::AnswerHeld(..) => self.refuse_caller(status, reason, out),
            Phase::Calling(_) => self.cancel(reason, now, out),
            // §15: no BYE before the ACK of our 200, or its end; a caller that has lost the 200 would not know what it ends.
            Phase::Confirmed if self.unacknowledged.is_some() => {
                self.hanging_up.get_or_insert(reason.map(str::to_owned));
            }
            Phase::Confirmed => self.bye(reason, out),
            Phase::Closing | Phase::Ended => {}
        }
    }

    pub(super) fn bye(&mut self, reason: Option<&str>, out: &mut Vec<Output>) {
        if !self.is_established() {
            return;
        }
        self.refuse_what_is_open(out);
        self.acknowledge_in_vain(out);
        self.unacknowledged = None;
        self.phase = Phase::Closing;
        let reason: Vec<(Header, &str)> = reason.map(|r| (Header::Reason, r)).into_iter().collect();
        self.in_dialog_request(Method::Bye, None, &reason, out);
    }

    /// Only our own BYE ends the dialog: one that ended another branch of the same INVITE has the same tag of ours, and another number.
    /// Whichever tag the peer puts into its answer, nobody waits for another.
    pub(super) fn bye_answered(&mut self, cseq: u32, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Closing) && self.bye == Some(cseq) {
            self.finish(EndedBy::Us, out);
        }
    }

    /// The ACK of a 2xx to the INVITE numbered `cseq`.
    pub(super) fn acknowledge(&mut self, cseq: u32, out: &mut Vec<Output>) {
        let branch = self.next_branch();
        let (uri, routes) = self.request_line();
        let mut message = Builder::request("ACK", uri);
        self.request_head(&mut message, "ACK", cseq, &branch, 70);
        for route in &routes {
            message.texts(Header::Route, &[route]);
        }
        let answer = self.session.acknowledged.as_ref().filter(|(answered, _)| *answered == cseq);
        let body = answer.map(|(_, sdp)| ("application/sdp", sdp.as_ref()));
        out.push(Output::Ack { message: message.finish(body), to: self.next_hop() });
    }

    /// A 2xx whose ACK waits for the answer to its offer.
    pub(super) fn owes_ack(&self, invite: u32) -> bool {
        matches!(&self.session.owed, Some(Owed::Ack { cseq, .. }) if *cseq == invite)
    }
}
