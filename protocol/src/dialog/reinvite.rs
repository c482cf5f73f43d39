//! Our re-INVITE on its way (RFC 3261 §14.1): how long a peer may think about it, and how it is taken back by CANCEL (§9.1).
//!
//! A peer that says nothing has lost the dialog. One that has said something is there, and may ask a person first: it has three
//! minutes from its last 1xx (Timer C, §16.6), and then its re-INVITE is cancelled and the session stays as it was.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::as_told::answer_as_told;
use super::caller::sdp_of;
use super::offer_answer::Owed;
use super::{Dialog, EndedBy, LegEvent, Output, Pending};
use crate::flow::Flow;
use crate::message::{Builder, Header, Limits, Message, Method};
use crate::time::{Instant, Now};

/// Timer C: more than three minutes since the last provisional response (§16.6 step 11).
const TIMER_C: Duration = Duration::from_secs(181);
const NO_ANSWER: &str = "SIP;cause=408;text=\"re-INVITE unanswered\"";

/// Our last re-INVITE, while it has no final response.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reinvite {
    cseq: u32,
    /// As it was sent: its CANCEL repeats what it says.
    request: Bytes,
    branch: String,
    to: Flow,
    /// The peer has it: only now may it be cancelled.
    proceeding: bool,
    /// It is to be cancelled, for this reason.
    cancel: Option<Option<String>>,
    cancelled: bool,
    /// When Timer C fires.
    give_up_at: Option<Instant>,
}

impl Reinvite {
    /// A re-INVITE that is sent now.
    pub(super) fn new(cseq: u32, request: Bytes, branch: String, to: Flow) -> Reinvite {
        let (proceeding, cancel, cancelled, give_up_at) = (false, None, false, None);
        Reinvite { cseq, request, branch, to, proceeding, cancel, cancelled, give_up_at }
    }

    /// §9.1: the CANCEL has the INVITE's Request-URI, Via, From, To, Call-ID, CSeq number and Route.
    fn cancel_message(&self, reason: Option<&str>) -> Option<Bytes> {
        let invite = Message::parse(self.request.clone(), &Limits::NONE).ok()?;
        let mut cancel = Builder::request("CANCEL", invite.request_uri());
        cancel.header(Header::Via, invite.header(Header::Via)?);
        cancel.header(Header::MaxForwards, 70);
        cancel.header(Header::From, invite.header(Header::From)?);
        cancel.header(Header::To, invite.header(Header::To)?);
        cancel.header(Header::CallId, invite.call_id());
        cancel.header(Header::CSeq, format_args!("{} CANCEL", self.cseq));
        for route in invite.headers(Header::Route) {
            cancel.header(Header::Route, route);
        }
        if let Some(reason) = reason {
            cancel.header(Header::Reason, reason);
        }
        Some(cancel.finish(None))
    }
}

impl Dialog {
    /// Our re-INVITE, if it is still open.
    fn open_reinvite(&mut self) -> Option<&mut Reinvite> {
        let open = self.reoffering;
        self.reinvite.as_deref_mut().filter(|reinvite| Some(reinvite.cseq) == open)
    }

    /// When Timer C fires.
    pub(super) fn reinvite_deadline(&self) -> Option<Instant> {
        let reinvite = self.reinvite.as_deref()?;
        reinvite.give_up_at.filter(|_| self.reoffering == Some(reinvite.cseq))
    }

    /// Our re-INVITE is to be taken back, or has been.
    pub(super) fn is_cancelling(&self, cseq: u32) -> bool {
        self.reinvite.as_deref().is_some_and(|reinvite| reinvite.cseq == cseq && reinvite.cancel.is_some())
    }

    /// A provisional response to our re-INVITE: the peer is there, and has Timer C's time again (§16.7 step 2).
    pub(super) fn reinvite_proceeds(&mut self, status: u16, now: Now, out: &mut Vec<Output>) {
        let Some(reinvite) = self.open_reinvite() else { return };
        if !std::mem::replace(&mut reinvite.proceeding, true) || status > 100 {
            reinvite.give_up_at = (!reinvite.cancelled).then(|| now.mono + TIMER_C);
        }
        self.send_reinvite_cancel(out);
    }

    /// Timer C.
    pub(super) fn reinvite_timeout(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.reinvite_deadline().is_some_and(|at| at <= now.mono) {
            self.cancel_reinvite(Some(NO_ANSWER), out);
        }
    }

    fn cancel_reinvite(&mut self, reason: Option<&str>, out: &mut Vec<Output>) {
        if let Some(reinvite) = self.open_reinvite() {
            reinvite.cancel.get_or_insert(reason.map(str::to_owned));
            self.send_reinvite_cancel(out);
        }
    }

    fn send_reinvite_cancel(&mut self, out: &mut Vec<Output>) {
        let timers = self.local.timers;
        let Some(reinvite) = self.open_reinvite().filter(|r| r.proceeding && !r.cancelled) else { return };
        let Some(reason) = &reinvite.cancel else { return };
        let Some(message) = reinvite.cancel_message(reason.as_deref()) else { return };
        reinvite.cancelled = true;
        reinvite.give_up_at = None;
        let (branch, to, cseq) = (reinvite.branch.clone(), reinvite.to, reinvite.cseq);
        out.push(Output::Request { message, method: Method::Cancel, branch, cseq, to, timers });
    }

    /// Whoever asked for our offer, or for one of the peer's, has taken that back.
    pub(super) fn withdraw_offer(&mut self, reason: Option<&str>, out: &mut Vec<Output>) {
        if let Some(Owed::Ack { cseq, offer }) =
            self.session.owed.take_if(|owed| matches!(owed, Owed::Ack { .. }))
        {
            // The peer has made the offer just now: it gets the session as it is.
            self.answer_unwanted_offer(cseq, &offer, out);
            return;
        }
        let Some(proposal) = &mut self.session.proposal else {
            // The peer has accepted it just now.
            if let Some((told, offered)) = self.in_force.undo().filter(|_| self.is_established()) {
                out.push(Output::Up(LegEvent::Unwanted { told, offered }));
            }
            return;
        };
        if proposal.waits() {
            self.session.proposal = None;
            self.in_force.offer_is_void();
            return;
        }
        proposal.withdraw();
        // An UPDATE cannot be cancelled: its answer is soon here, and nobody hears of it.
        self.cancel_reinvite(reason, out);
    }

    /// The final response to a re-INVITE that nobody wants any more.
    pub(super) fn withdrawn_response(&mut self, response: &Message, out: &mut Vec<Output>) {
        let (status, cseq) = (response.status(), response.cseq());
        let solicited = self.session.solicited == Some(cseq);
        self.session.proposal = None;
        self.reoffering = None;
        match status {
            200..=299 => {
                self.refresh_target(response);
                self.note_allow(response);
                match sdp_of(response) {
                    Some(offer) if solicited => self.answer_unwanted_offer(cseq, &offer, out),
                    answer => {
                        self.acknowledge(cseq, out);
                        if let Some((told, offered)) = self.in_force.taken_back().filter(|_| answer.is_some())
                        {
                            out.push(Output::Up(LegEvent::Unwanted { told, offered }));
                        }
                    }
                }
            }
            // §12.2.1.2: the peer has lost the dialog.
            408 | 481 => self.finish(EndedBy::Lost, out),
            _ => {}
        }
        self.in_force.offer_is_void();
    }

    /// An offer that nobody asks for any more is answered by the session as it is.
    pub(super) fn answer_unwanted_offer(&mut self, cseq: u32, offer: &Bytes, out: &mut Vec<Output>) {
        self.session.acknowledged = answer_as_told(offer, self.in_force.told()).map(|sdp| (cseq, sdp));
        self.acknowledge(cseq, out);
        out.extend(self.news(offer.clone()));
    }

    /// A 2xx to an INVITE that waits for none: its ACK was lost, or it is a re-INVITE that counted as unsent (§8.1.3.1) and has come all
    /// the same. One that asked for an offer owes it the answer.
    pub(super) fn acknowledge_again(&mut self, response: &Message, out: &mut Vec<Output>) {
        let cseq = response.cseq();
        let answered = self.session.acknowledged.as_ref().is_some_and(|(known, _)| *known == cseq);
        match sdp_of(response).filter(|_| self.session.solicited == Some(cseq) && !answered) {
            Some(offer) if self.is_established() => self.answer_unwanted_offer(cseq, &offer, out),
            Some(offer) => {
                self.refuse_offer_in_ack(cseq, &offer);
                self.acknowledge(cseq, out);
            }
            None => self.acknowledge(cseq, out),
        }
        self.accepted_unsent(response, out);
    }

    /// The peer accepts an offer that counted as unsent: it is to be undone, as whoever made it was told that it failed.
    pub(super) fn accepted_unsent(&mut self, response: &Message, out: &mut Vec<Output>) {
        let Some((_, offered)) = self.session.unsent.take_if(|(cseq, _)| *cseq == response.cseq()) else {
            return;
        };
        let accepted = (200..300).contains(&response.status()) && sdp_of(response).is_some();
        let told = self.in_force.told().filter(|_| accepted && self.is_established()).cloned();
        out.extend(told.map(|told| Output::Up(LegEvent::Unwanted { told, offered })));
    }

    /// Our re-INVITE has got no final response.
    pub(super) fn reinvite_unanswered(&mut self, cseq: u32, out: &mut Vec<Output>) {
        let cancelled = self.is_cancelling(cseq) && self.open_reinvite().is_some_and(|r| r.cancelled);
        if cancelled {
            // §9.1: 64*T1 after the CANCEL it counts as cancelled. The peer is there: the dialog goes on.
            self.reinvite_refused(408, out);
            return;
        }
        // §12.2.1.2: a request within a dialog that times out ends the dialog.
        self.proposal_refused(408, out);
        self.lose(NO_ANSWER, out);
    }

    fn reinvite_refused(&mut self, status: u16, out: &mut Vec<Output>) {
        self.proposal_refused(status, out);
        self.in_force.offer_is_void();
    }

    /// The status that whoever asked for our re-INVITE is to hear: that we have cancelled it ourselves is none.
    pub(super) fn as_refused(&self, status: u16, cseq: u32) -> u16 {
        if status == 487 && self.is_cancelling(cseq) { 408 } else { status }
    }

    /// The peer takes its re-INVITE back (§9.2): it is answered, and nothing has changed.
    pub(super) fn reinvite_cancelled(
        &mut self,
        pending: &Pending,
        reason: Option<&str>,
        out: &mut Vec<Output>,
    ) {
        out.push(self.respond(pending, 487, None, &[]));
        self.in_force.we_refuse();
        out.push(Output::Up(LegEvent::ReofferCancelled { reason: reason.map(str::to_owned) }));
    }
}
