//! What happens between the answer and the end: re-INVITE (RFC 3261 §14), BYE (§15), everything refused plainly.

use bytes::Bytes;

use super::callee::ALLOW;
use super::caller::sdp_of;
use super::{Dialog, EndedBy, LegEvent, Output, Pending, Phase};
use crate::message::{Builder, Header, Message, Method, reason_of};
use crate::time::Now;

impl Dialog {
    /// A request of the peer within the dialog.
    pub(super) fn request(&mut self, pending: Pending, now: Now, out: &mut Vec<Output>) {
        let request = &pending.request;
        if request.from_tag() != self.remote_tag.as_deref() || request.call_id() != self.call_id {
            out.push(self.respond(&pending, 481, None, &[]));
            return;
        }
        if self.is_over() && request.method() != Method::Bye {
            out.push(self.respond(&pending, 481, None, &[]));
            return;
        }
        let in_order = self.remote_cseq.is_none_or(|last| request.cseq() > last);
        if !in_order {
            // §12.2.2: out of order.
            out.push(self.respond(&pending, 500, None, &[(Header::Warning, "399 tandem \"CSeq too low\"")]));
            return;
        }
        self.remote_cseq = Some(request.cseq());
        if self.refuses_interval(&pending, out) {
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
            Method::Subscribe | Method::Notify => out.push(self.respond(&pending, 489, None, &[])),
            Method::Ack | Method::Cancel => {}
            Method::Info | Method::Message => self.peer_asks(pending, out),
            // §21.5.2: a method that nobody here knows, as against one that is not for a dialog.
            Method::Other => out.push(self.respond(&pending, 501, None, &[(Header::Allow, ALLOW)])),
            Method::Register | Method::Update | Method::Prack | Method::Publish => {
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
        } else if !matches!(self.phase, Phase::Confirmed) || self.reoffered.is_some() {
            // §14.2: an earlier INVITE has not been answered yet.
            out.push(self.respond(&pending, 500, None, &[(Header::RetryAfter, "3")]));
        } else if self.reoffering.is_some() {
            out.push(self.respond(&pending, 491, None, &[]));
        } else if let Some(sdp) = sdp_of(&pending.request) {
            self.refresh_target(&pending.request);
            self.flow = pending.source;
            let unchanged = self.unchanged(&pending.request, &sdp);
            self.reoffered = Some(pending);
            match unchanged {
                Some(told) => self.answer_reoffer(&told, now, out),
                None => out.push(Output::Up(LegEvent::Reoffer { sdp })),
            }
        } else {
            out.push(self.respond(
                &pending,
                488,
                None,
                &[(Header::Warning, "304 tandem \"an offer is required\"")],
            ));
        }
    }

    fn peer_hangs_up(&mut self, bye: &Pending, out: &mut Vec<Output>) {
        let reason = reason_of(&bye.request);
        match &self.phase {
            // §15.1.2 with §15: a caller may end an early dialog by BYE.
            Phase::Incoming(_) | Phase::AnswerHeld(..) => {
                out.push(self.respond(bye, 200, None, &[]));
                self.cancelled(reason.as_deref(), out);
            }
            Phase::Confirmed => {
                if let Some(pending) = self.reoffered.take() {
                    out.push(self.respond(&pending, 487, None, &[]));
                }
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

    pub(super) fn reoffer(&mut self, sdp: &Bytes, out: &mut Vec<Output>) {
        let free = self.reoffering.is_none() && self.reoffered.is_none() && self.unacknowledged.is_none();
        if !self.is_established() || !free {
            out.push(Output::Up(LegEvent::ReofferRefused { status: 491 }));
            return;
        }
        let cseq = self.in_dialog_request(Method::Invite, Some(sdp), &[], out);
        self.reoffering = Some(cseq);
        self.in_force.offered = Some(sdp.clone());
    }

    pub(super) fn reoffer_response(&mut self, response: &Message, out: &mut Vec<Output>) {
        match response.status() {
            ..=199 => {}
            200..=299 => {
                self.reoffering = None;
                self.refresh_target(response);
                self.acknowledge(response.cseq(), out);
                let offered = self.in_force.offered.take();
                self.in_force.agree(offered, sdp_of(response));
                match sdp_of(response) {
                    Some(sdp) => out.push(Output::Up(LegEvent::ReofferAnswered { sdp })),
                    None => out.push(Output::Up(LegEvent::ReofferRefused { status: 502 })),
                }
            }
            status @ (408 | 481) => {
                // §12.2.1.2: the peer has lost the dialog.
                self.reoffering = None;
                out.push(Output::Up(LegEvent::ReofferRefused { status }));
                self.finish(EndedBy::Lost, out);
            }
            status => {
                self.reoffering = None;
                out.push(Output::Up(LegEvent::ReofferRefused { status }));
            }
        }
    }

    pub(super) fn answer_reoffer(&mut self, sdp: &Bytes, now: Now, out: &mut Vec<Output>) {
        if let Some(pending) = self.reoffered.take()
            && let Output::Respond { message, .. } = self.respond(&pending, 200, Some(sdp), &[])
        {
            self.in_force.agree(Some(sdp.clone()), sdp_of(&pending.request));
            self.answer_until_acknowledged(&pending, message, now, out);
        }
    }

    pub(super) fn refuse_reoffer(&mut self, status: u16, out: &mut Vec<Output>) {
        if let Some(pending) = self.reoffered.take() {
            out.push(self.respond(&pending, status, None, &[]));
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
        if let Some(pending) = self.reoffered.take() {
            out.push(self.respond(&pending, 487, None, &[]));
        }
        self.unacknowledged = None;
        self.phase = Phase::Closing;
        let reason: Vec<(Header, &str)> = reason.map(|r| (Header::Reason, r)).into_iter().collect();
        self.in_dialog_request(Method::Bye, None, &reason, out);
    }

    /// The ACK of a 2xx to the INVITE numbered `cseq`.
    pub(super) fn acknowledge(&mut self, cseq: u32, out: &mut Vec<Output>) {
        let branch = self.next_branch();
        let (uri, routes) = self.request_line();
        let mut message = Builder::request("ACK", &uri);
        self.request_head(&mut message, "ACK", cseq, &branch, 70);
        for route in &routes {
            message.header(Header::Route, route);
        }
        out.push(Output::Ack { message: message.finish(None), to: self.next_hop() });
    }
}
