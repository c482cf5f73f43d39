//! Refreshing the session (RFC 4028 §7.4, §10): what a dialog does when its session timer says so.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::caller::sdp_of;
use super::session_timer::Due;
use super::{Command, Dialog, EndedBy, LegEvent, Output, Pending};
use crate::message::{Header, Message, Method};
use crate::time::Now;

/// The session descriptions in force, to be said again as they are: an unchanged one asks for nothing (RFC 3264 §8). They are
/// known from what the call commands and is told, whatever message carries them. What is in force for the length of a call is a
/// copy: a share would keep the whole message that it came in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct InForce {
    /// Ours, as the peer has it.
    told: Option<Bytes>,
    /// What ours was before the peer accepted our last offer, while nothing has followed on that.
    before: Option<Bytes>,
    /// The peer's.
    heard: Option<Bytes>,
    /// Ours that waits for the peer's answer.
    offered: Option<Bytes>,
    /// The peer's that waits for our answer.
    asked: Option<Bytes>,
}

impl InForce {
    /// The peer offers a session.
    pub(super) fn peer_offers(&mut self, sdp: Option<Bytes>) {
        self.asked = sdp;
    }

    /// We offer a session; an empty one asks for an offer.
    pub(super) fn we_offer(&mut self, sdp: &Bytes) {
        self.offered = Some(sdp.clone()).filter(|sdp| !sdp.is_empty());
    }

    /// What the peer was told last.
    pub(super) fn told(&self) -> Option<&Bytes> {
        self.told.as_ref()
    }

    /// We answer the peer's offer, or say again what is in force.
    pub(super) fn we_answer(&mut self, sdp: &Bytes) {
        self.before = None;
        self.told = Some(copy(sdp));
        if let Some(asked) = self.asked.take() {
            self.heard = Some(copy(&asked));
        }
    }

    /// We refuse the peer's offer.
    pub(super) fn we_refuse(&mut self) {
        self.asked = None;
    }

    /// Our offer is void: the session stays as it was.
    pub(super) fn offer_is_void(&mut self) {
        self.offered = None;
    }

    /// Our offer holds, whatever has become of whoever made it.
    pub(super) fn offer_is_accepted(&mut self) {
        if let Some(offered) = self.offered.take() {
            self.before = self.told.replace(copy(&offered));
        }
    }

    /// The peer's own description.
    pub(super) fn heard(&self) -> Option<&Bytes> {
        self.heard.as_ref()
    }

    /// What the peer was told before it accepted our last offer, and that offer: if it is to be undone.
    pub(super) fn undo(&mut self) -> Option<(Bytes, Bytes)> {
        self.before.take().zip(self.told.clone())
    }

    /// What the peer was told before our last offer, and that offer, if there is both.
    pub(super) fn taken_back(&self) -> Option<(Bytes, Bytes)> {
        self.told.clone().zip(self.offered.clone())
    }

    /// What the call wants said.
    pub(super) fn command(&mut self, command: &Command) {
        match command {
            Command::EarlySession { sdp, .. }
            | Command::PrepareAnswer { sdp }
            | Command::Acknowledge { sdp } => self.we_answer(sdp),
            Command::Reoffer { sdp } | Command::Update { sdp } => self.we_offer(sdp),
            Command::RefuseReoffer { .. } => self.we_refuse(),
            // One that comes too late changes nothing: it is noted where it takes effect.
            Command::AnswerReoffer { .. }
            | Command::CancelReoffer { .. }
            | Command::Progress { .. }
            | Command::Solicit
            // Noted when it is known what it says.
            | Command::Succeed { .. }
            | Command::SendAnswer
            | Command::Redirect { .. }
            | Command::Ask { .. }
            | Command::AnswerAsked { .. }
            | Command::End { .. } => {}
        }
    }

    /// What the call is told.
    fn event(&mut self, event: &LegEvent) {
        match event {
            LegEvent::Reoffer { sdp }
            | LegEvent::Update { sdp }
            | LegEvent::Prack { sdp }
            | LegEvent::Offered { sdp }
            | LegEvent::AnsweredWithOffer { sdp } => self.peer_offers(Some(sdp.clone())),
            LegEvent::Answered { sdp } | LegEvent::ReofferAnswered { sdp } => {
                self.offer_is_accepted();
                self.heard = Some(copy(sdp));
            }
            // The answer to our offer, or an offer that our PRACK answers.
            LegEvent::EarlySession { sdp, .. } if self.offered.is_some() => {
                self.offer_is_accepted();
                self.heard = Some(copy(sdp));
            }
            LegEvent::EarlySession { sdp, .. } => self.peer_offers(Some(sdp.clone())),
            LegEvent::Refreshed { sdp } => self.heard = Some(copy(sdp)),
            LegEvent::ReofferRefused { .. } => {
                self.offered = None;
                self.before = None;
            }
            LegEvent::Progress { .. }
            | LegEvent::Failed { .. }
            | LegEvent::AnswerReady
            | LegEvent::AnswerUnsent { .. }
            | LegEvent::Cancelled
            | LegEvent::ReofferCancelled { .. }
            | LegEvent::Unwanted { .. }
            | LegEvent::AnsweredTooLate { .. }
            | LegEvent::EarlyEnded
            | LegEvent::OfferWanted
            | LegEvent::Asked { .. }
            | LegEvent::AskedAnswered { .. }
            | LegEvent::NoProgress
            | LegEvent::Redirected { .. }
            | LegEvent::Reason(_)
            | LegEvent::Ended { .. } => {}
        }
    }
}

fn copy(sdp: &Bytes) -> Bytes {
    Bytes::copy_from_slice(sdp)
}

impl Dialog {
    /// Follows what was just said: a 2xx to an INVITE or UPDATE of the peer's starts its session's time.
    pub(super) fn note_outputs(&mut self, said: &[Output], now: Now) {
        for output in said {
            match output {
                Output::Respond { transaction, status, .. } => {
                    self.timer.answered(*transaction, *status, now.mono);
                }
                Output::Up(event) => self.in_force.event(event),
                Output::Request { .. }
                | Output::Ack { .. }
                | Output::Challenged { .. }
                | Output::Finished => {}
            }
        }
    }

    /// True if the peer's INVITE or UPDATE was refused because its interval is too small (§9).
    pub(super) fn refuses_interval(&mut self, pending: &Pending, out: &mut Vec<Output>) -> bool {
        let request = &pending.request;
        if !matches!(request.method(), Method::Invite | Method::Update) {
            return false;
        }
        if let Some(min_se) = self.local.session.refuses(request) {
            out.push(self.respond(pending, 422, None, &[(Header::MinSe, &min_se.to_string())]));
            return true;
        }
        self.timer.asked(pending.transaction, request);
        false
    }

    /// A re-INVITE that only refreshes the session, and says what is in force already, is answered here with this: the other side
    /// need not hear of it.
    pub(super) fn unchanged(&self, reinvite: &Message, offer: &Bytes) -> Option<Bytes> {
        let refresh = reinvite.header(Header::SessionExpires).is_some();
        let unchanged = refresh && self.in_force.heard.as_ref() == Some(offer);
        self.in_force.told.clone().filter(|_| unchanged)
    }

    pub(super) fn session_due(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.is_established() {
            return;
        }
        match self.timer.due(now.mono) {
            Due::Nothing => {}
            Due::Refresh => self.refresh(now, out),
            Due::Probe => {
                self.in_dialog_request(Method::Options, None, &[], out);
            }
            Due::Expired => {
                out.push(Output::Up(LegEvent::Ended { by: EndedBy::SessionExpired }));
                self.hanging_up = None;
                self.bye(Some("SIP;cause=408;text=\"session timer expired\""), out);
            }
        }
    }

    /// By UPDATE without a description if the peer takes it, else by a re-INVITE with the one it knows (§7.4).
    fn refresh(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.is_established() {
            // A response to an earlier refresh has come after our BYE.
            return;
        }
        let busy = self.our_offer_is_open(None)
            || self.their_offer_is_open()
            || self.session.proposal.is_some()
            || self.unacknowledged.is_some();
        let told = self.in_force.told.clone();
        if busy || self.hanging_up.is_some() || (told.is_none() && !self.session.allows_update) {
            // A re-INVITE that is under way refreshes the session if it succeeds.
            self.timer.postpone(busy, now.mono);
        } else if self.session.allows_update {
            let cseq = self.in_dialog_request(Method::Update, None, &[], out);
            self.timer.refreshing = Some(cseq);
        } else {
            let cseq = self.send_reinvite(told.as_ref(), out);
            self.timer.refreshing = Some(cseq);
        }
    }

    /// The peer's response to our refresh. A 2xx has been noted by the session timer already.
    pub(super) fn refresh_response(&mut self, response: &Message, now: Now, out: &mut Vec<Output>) {
        let (status, cseq) = (response.status(), response.cseq());
        if status < 200 {
            return;
        }
        self.timer.refreshing = None;
        self.reoffering.take_if(|reoffering| *reoffering == cseq);
        match status {
            200..=299 => {
                self.refresh_target(response);
                match sdp_of(response).filter(|_| response.method() == Method::Invite) {
                    Some(offer) if self.session.solicited == Some(cseq) => {
                        self.answer_unwanted_offer(cseq, &offer, out);
                    }
                    sdp if response.method() == Method::Invite => {
                        self.acknowledge(cseq, out);
                        out.extend(sdp.and_then(|sdp| self.news(sdp)));
                    }
                    Some(_) | None => {}
                }
            }
            408 | 481 => self.finish(EndedBy::Lost, out),
            422 if self.timer.too_brief(response) => self.refresh(now, out),
            405 | 501 if response.method() == Method::Update => {
                // It does not take UPDATE after all, whatever its Allow says.
                self.session.allows_update = false;
                self.refresh(now, out);
            }
            status => self.timer.postpone(status == 491, now.mono),
        }
    }

    /// What the call is to hear of an answer that it does not wait for: the peer may take the occasion to change its side.
    pub(super) fn news(&self, sdp: Bytes) -> Option<Output> {
        let differs = self.in_force.heard.as_ref() != Some(&sdp);
        differs.then_some(Output::Up(LegEvent::Refreshed { sdp }))
    }

    /// Our refresh was not answered at all (§10).
    pub(super) fn refresh_unanswered(&mut self, cseq: u32, now: Now, out: &mut Vec<Output>) {
        self.timer.refreshing = None;
        if self.is_cancelling(cseq) && self.reoffering == Some(cseq) {
            // It was cancelled because nobody decided on it, not because nobody is there.
            self.reoffering = None;
            self.timer.postpone(false, now.mono);
            return;
        }
        self.reoffering.take_if(|reoffering| *reoffering == cseq);
        if self.is_established() {
            self.lose("SIP;cause=408;text=\"refresh unanswered\"", out);
        }
    }
}
