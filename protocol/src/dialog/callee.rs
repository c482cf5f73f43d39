//! Our side as the callee: the peer's INVITE until our final response is acknowledged (RFC 3261 §13.3).

use std::sync::Arc;

use bytes::Bytes;

use super::caller::sdp_of;
use super::offer_answer::Answer;
use super::{
    Body, Dialog, EndedBy, Input, LegEvent, LocalSide, Output, Pending, Phase, Routing, ServerTransactionId,
    Unacknowledged,
};
use crate::flow::Flow;
use crate::message::{Builder, Header, Message, Method, reason_phrase, response_to};
use crate::time::Now;

/// What we accept within a dialog.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, MESSAGE";
/// The extensions we have in every dialog.
pub const SUPPORTED: &str = "100rel";
/// The extension we have where session timers are on (RFC 4028); whoever requires it gets none where they are off.
const TIMER: &str = "timer";

/// The extension we have for those who may replace a call (RFC 3891).
pub(super) const REPLACES: &str = "replaces";
/// [`SUPPORTED`] for them.
pub const SUPPORTED_WITH_REPLACES: &str = "100rel, replaces";

/// Whether a Require may ask for an option of ours (RFC 3261 §8.2.2.3).
pub fn is_supported(option: &str) -> bool {
    SUPPORTED.split(',').chain([TIMER, REPLACES]).any(|known| known.trim().eq_ignore_ascii_case(option))
}

impl Dialog {
    /// A dialog for an INVITE of the peer that waits in `transaction`. `local_tag` must be unique in the engine.
    pub fn incoming(
        transaction: ServerTransactionId,
        invite: Message,
        source: Flow,
        local_tag: String,
        local: Arc<LocalSide>,
        routing: Routing,
    ) -> Dialog {
        let local_party = [invite.header(Header::To).unwrap_or_default(), ";tag=", &local_tag].concat();
        let mut dialog = Dialog::new(local, routing, source, invite.call_id(), &local_tag, local_party);
        dialog.remote_party = invite.header(Header::From).unwrap_or_default().to_owned();
        dialog.remote_tag = invite.from_tag().map(str::to_owned);
        dialog.route_set = invite.values(Header::RecordRoute).map(str::to_owned).collect();
        dialog.remote_cseq = Some(invite.cseq());
        dialog.invited = true;
        dialog.refresh_target(&invite);
        dialog.note_allow(&invite);
        dialog.timer.asked(transaction, &invite);
        dialog.in_force.peer_offers(sdp_of(&invite));
        dialog.phase = Phase::Incoming(Pending { transaction, request: invite, source });
        dialog
    }

    pub(super) fn respond(
        &self,
        pending: &Pending,
        status: u16,
        sdp: Option<&Bytes>,
        extra: &[(Header, &str)],
    ) -> Output {
        let mut message = self.response_head(pending, status);
        if status < 300 {
            message.texts(Header::Contact, &[&self.local.contact]);
            message.own(Header::Allow, &[ALLOW]);
        }
        if (200..300).contains(&status)
            && matches!(pending.request.method(), Method::Invite | Method::Options)
        {
            message.own(Header::Supported, &[self.supported()]);
        }
        if (200..300).contains(&status) {
            self.timer.write_answer_headers(pending.transaction, &mut message);
        }
        for (header, value) in extra {
            message.texts(*header, &[value]);
        }
        let body = sdp.map(|sdp| ("application/sdp", sdp.as_ref()));
        Output::Respond {
            transaction: pending.transaction,
            status,
            message: message.finish(body),
            to: pending.source,
        }
    }

    /// The extensions that the peer is told of.
    pub(super) fn supported(&self) -> &'static str {
        if self.replaces { SUPPORTED_WITH_REPLACES } else { SUPPORTED }
    }

    fn response_head(&self, pending: &Pending, status: u16) -> Builder {
        let (request, source) = (&pending.request, Some(pending.source.remote));
        response_to(request, source, status, reason_phrase(status), Some(&self.local_tag))
    }

    /// Responds to a request that neither makes nor changes a session.
    pub(super) fn respond_with(&self, pending: &Pending, status: u16, body: Option<&Body>) -> Output {
        let message = self.response_head(pending, status);
        let body = body.map(|body| (body.content_type.as_str(), body.bytes.as_ref()));
        let (transaction, to) = (pending.transaction, pending.source);
        Output::Respond { transaction, status, message: message.finish(body), to }
    }

    /// The 500 to a request within the dialog that has brought it to an end: nobody else will answer it.
    pub fn refuse_after_fault(&self, input: &Input) -> Option<Output> {
        let Input::Request { transaction: Some(transaction), request, source } = input else { return None };
        let pending = Pending { transaction: *transaction, request: request.clone(), source: *source };
        Some(self.respond(&pending, 500, None, &[]))
    }

    pub(super) fn prepare_answer(&mut self, sdp: &Bytes, out: &mut Vec<Output>) {
        let Phase::Incoming(pending) = &self.phase else { return };
        // What a reliable response has said is not said again; if it no longer holds, an offer follows.
        let settled = self.session.reliable.settled();
        let previewed = self.session.previewed.take();
        let told = self.session.told.take().filter(|_| settled).or(previewed);
        if told.is_some_and(|told| told != sdp) {
            // Where the INVITE has no offer this is one.
            let offers = sdp_of(&pending.request).is_none();
            self.session.overtaken = Some((sdp.clone(), offers));
        }
        let sdp = Some(sdp).filter(|_| !settled);
        if let Output::Respond { message, .. } = self.respond(pending, 200, sdp, &[]) {
            let answer = Answer::new(pending, sdp, message);
            self.phase = Phase::AnswerHeld(pending.clone(), answer);
            out.push(Output::Up(LegEvent::AnswerReady));
        }
    }

    /// The held 200 with the description that only a reliable response was to say, which nobody has acknowledged and no later process
    /// repeats.
    pub(super) fn unheard_answer(&self, pending: &Pending) -> Option<Answer> {
        let told = self.in_force.told().filter(|_| self.session.reliable.is_unheard())?;
        match self.respond(pending, 200, Some(told), &[]) {
            Output::Respond { message, .. } => Some(Answer::new(pending, Some(told), message)),
            Output::Request { .. }
            | Output::Ack { .. }
            | Output::Up(_)
            | Output::Challenged { .. }
            | Output::Finished => None,
        }
    }

    pub(super) fn send_answer(&mut self, now: Now, out: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::AnswerHeld(..)) || self.session.reliable.holds_answer() {
            return;
        }
        self.session.reliable.answered();
        if let Phase::AnswerHeld(pending, answer) = std::mem::replace(&mut self.phase, Phase::Confirmed) {
            self.answer_until_acknowledged(&pending, answer, now, out);
        }
    }

    /// Sends a 2xx to an INVITE and keeps repeating it until the ACK comes.
    pub(super) fn answer_until_acknowledged(
        &mut self,
        pending: &Pending,
        answer: Answer,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let t1 = self.local.timers.t1;
        let Answer { message, offer } = answer;
        self.unacknowledged = Some(Box::new(Unacknowledged {
            transaction: pending.transaction,
            message: message.clone(),
            to: pending.source,
            cseq: pending.request.cseq(),
            offer,
            interval: t1,
            next: now.mono + t1,
            give_up: now.mono + t1 * 64,
        }));
        out.push(Output::Respond {
            transaction: pending.transaction,
            status: 200,
            message,
            to: pending.source,
        });
    }

    pub(super) fn repeat_answer(&mut self, now: Now, out: &mut Vec<Output>) {
        let t2 = self.local.timers.t2;
        let Some(answer) = &mut self.unacknowledged else { return };
        if answer.give_up <= now.mono {
            // §13.3.1.4: the session has not been agreed; end it.
            self.unacknowledged = None;
            self.hanging_up = None;
            out.push(Output::Up(LegEvent::Ended { by: EndedBy::NoAck }));
            self.bye(Some("SIP;cause=408;text=\"ACK missing\""), out);
        } else if answer.next <= now.mono {
            answer.interval = (answer.interval * 2).min(t2);
            answer.next = now.mono + answer.interval;
            out.push(Output::Respond {
                transaction: answer.transaction,
                status: 200,
                message: answer.message.clone(),
                to: answer.to,
            });
        }
    }

    /// An ACK within the dialog: the peer's, by all that names one (§12).
    pub(super) fn ack(&mut self, ack: &Message, now: Now, out: &mut Vec<Output>) {
        if ack.from_tag() != self.remote_tag.as_deref() || ack.call_id() != self.call_id {
            return;
        }
        let Some(answered) = self.unacknowledged.take_if(|answer| answer.cseq == ack.cseq()) else { return };
        if let Some(reason) = self.hanging_up.take() {
            self.bye(reason.as_deref(), out);
        } else if !answered.offer || self.answer_in_ack(ack, out) {
            self.after_ack(now, out);
        }
    }

    /// The peer cancels an INVITE. Too late once the 200 has left: he will get it, and send a BYE if he wants to (§9.2).
    pub(super) fn cancelled(
        &mut self,
        transaction: ServerTransactionId,
        reason: Option<&str>,
        out: &mut Vec<Output>,
    ) {
        if let Some(pending) = self.reoffered.take_if(|pending| pending.transaction == transaction) {
            self.reinvite_cancelled(&pending, reason, out);
        } else if matches!(&self.phase, Phase::Incoming(p) | Phase::AnswerHeld(p, _) if p.transaction == transaction)
        {
            self.caller_gives_up(reason, out);
        }
    }

    /// The caller does not wait for an answer any longer.
    pub(super) fn caller_gives_up(&mut self, reason: Option<&str>, out: &mut Vec<Output>) {
        if let Phase::Incoming(pending) | Phase::AnswerHeld(pending, _) = &self.phase {
            out.push(self.respond(pending, 487, None, &[]));
            self.answer_is_unsent(487, out);
            self.refuse_what_is_open(out);
            self.phase = Phase::Ended;
            out.extend(reason.map(|reason| Output::Up(LegEvent::Reason(reason.to_owned()))));
            out.push(Output::Up(LegEvent::Cancelled));
            out.push(Output::Finished);
        }
    }

    /// Hands the caller a redirection (RFC 3261 §21.3).
    pub(super) fn redirect_caller(&mut self, status: u16, contacts: &[String], out: &mut Vec<Output>) {
        if let Phase::Incoming(pending) | Phase::AnswerHeld(pending, _) = &self.phase {
            let contacts: Vec<String> = contacts.iter().map(|contact| format!("<{contact}>")).collect();
            let extra: Vec<(Header, &str)> =
                contacts.iter().map(|contact| (Header::Contact, contact.as_str())).collect();
            out.push(self.respond(pending, status, None, &extra));
            self.finish(EndedBy::Us, out);
        }
    }

    pub(super) fn refuse_caller(&mut self, status: u16, reason: Option<&str>, out: &mut Vec<Output>) {
        if let Phase::Incoming(pending) | Phase::AnswerHeld(pending, _) = &self.phase {
            let extra = match reason {
                Some(reason) => vec![(Header::Reason, reason)],
                None => vec![],
            };
            out.push(self.respond(pending, status, None, &extra));
            self.answer_is_unsent(status, out);
            self.finish(EndedBy::Us, out);
        }
    }
}
