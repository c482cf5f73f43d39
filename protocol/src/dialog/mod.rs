//! One SIP dialog (RFC 3261 §12) and the INVITE that makes it, from either side.
//!
//! Verbs: [`Dialog::incoming`] and [`Dialog::calling`] begin one; [`Dialog::handle`] takes what came from the peer, what the call
//! commands and the passing of time, and pushes [`Output`]s; [`Dialog::deadline`] says when it wants to be told the time;
//! an established dialog is carried over a panic as it is, and over a restart by [`Dialog::restore`].
//!
//! A 2xx is retransmitted here until its ACK comes (§13.3.1.4), and acknowledged here each time it comes (§13.2.2.4): the
//! transactions of RFC 6026 leave both to their user.

mod as_told;
mod callee;
mod caller;
mod challenge;
mod delayed;
mod established;
mod fork;
mod info;
mod interface;
mod late_prack;
mod offer_answer;
mod prack;
mod progress;
mod refresh;
mod reinvite;
mod replaces;
mod request;
mod session_timer;
mod stray;
#[cfg(test)]
mod tests;
mod update;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::flow::{Flow, ListenerId};
use crate::message::{Message, Method};
use crate::time::{Instant, Now};

pub use callee::{ALLOW, SUPPORTED, SUPPORTED_WITH_REPLACES, is_supported};
pub use caller::{Credentials, InviteSpec};
pub use info::Body;
pub use interface::{
    Command, EndedBy, Input, LegEvent, LocalSide, NoAnswer, Output, Routing, ServerTransactionId,
};
pub use late_prack::AwaitedPrack;
pub use offer_answer::glare_back_off;
pub use prack::rack_of;
pub use replaces::{Irreplaceable, Replaceable};
pub use session_timer::{SHORTEST_INTERVAL, SessionPolicy};
pub use stray::end_stray_response;

/// How many requests a restored dialog skips, so that its CSeq is above whatever it sent after its last checkpoint.
const RESTORED_CSEQ_GAP: u32 = 100;
/// A restored dialog is left alone for so long, then asked for within half a minute.
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// The time over which restored dialogs are asked for.
const PROBE_SPREAD: Duration = Duration::from_secs(15);

/// A server transaction that waits for our answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pending {
    transaction: ServerTransactionId,
    request: Message,
    source: Flow,
}

/// A 2xx that is repeated until its ACK comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unacknowledged {
    transaction: ServerTransactionId,
    message: Bytes,
    to: Flow,
    cseq: u32,
    /// It carries an offer: the ACK must carry the answer.
    offer: bool,
    interval: Duration,
    next: Instant,
    give_up: Instant,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Phase {
    /// An INVITE of the peer waits for our final response.
    Incoming(Pending),
    /// The 200 is written and held.
    AnswerHeld(Pending, offer_answer::Answer),
    /// Our INVITE waits for its final response.
    Calling(Box<caller::Calling>),
    /// Both sides have agreed.
    Confirmed,
    /// Our BYE waits for its answer.
    Closing,
    /// Over.
    Ended,
}

/// One SIP dialog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dialog {
    phase: Phase,
    local: Arc<LocalSide>,
    routing: Routing,
    flow: Flow,
    call_id: String,
    local_tag: String,
    /// Our From (or To) value with its tag.
    local_party: String,
    /// The peer's To (or From) value, with its tag once known.
    remote_party: String,
    remote_tag: Option<String>,
    remote_target: String,
    route_set: Vec<String>,
    local_cseq: u32,
    remote_cseq: Option<u32>,
    /// True if the peer's INVITE made this dialog.
    invited: bool,
    /// Requests sent so far: makes branches unique within the dialog.
    sent: u32,
    // In boxes: what is not there most of the time shall not take room in every dialog.
    unacknowledged: Option<Box<Unacknowledged>>,
    /// The peer's re-INVITE that waits for the call's answer.
    reoffered: Option<Box<Pending>>,
    /// The CSeq of our re-INVITE that waits for the peer.
    reoffering: Option<u32>,
    reinvite: Option<Box<reinvite::Reinvite>>,
    progress: progress::Progress,
    session: offer_answer::Session,
    /// We hang up, for this reason, as soon as our 200 is acknowledged (§15).
    hanging_up: Option<Option<String>>,
    /// The CSeq of the BYE by which we have hung up.
    bye: Option<u32>,
    /// When a restored dialog asks its peer whether he still knows it.
    probe_at: Option<Instant>,
    /// The branches of our INVITE.
    forks: fork::Forks,
    /// Requests that are the other leg's to answer.
    carried: info::Carried,
    timer: session_timer::SessionTimer,
    in_force: refresh::InForce,
    account: challenge::Account,
    /// Our re-INVITEs leave the offer to the peer.
    delayed: bool,
    // What is newer than the format before stands at the end: see [`Dialog::FORMER_LACKS`].
    /// The peer may replace a call (RFC 3891), and is told so.
    replaces: bool,
}

impl Dialog {
    /// What a checkpoint of the format before ends without, as `postcard` writes it: nobody was told that he may replace a call.
    pub const FORMER_LACKS: &[u8] = &[0];

    /// A dialog that has not begun.
    fn new(
        local: Arc<LocalSide>,
        routing: Routing,
        flow: Flow,
        call_id: &str,
        local_tag: &str,
        local_party: String,
    ) -> Dialog {
        Dialog {
            phase: Phase::Ended,
            session: offer_answer::Session::default(),
            timer: session_timer::SessionTimer::new(local.session),
            in_force: refresh::InForce::default(),
            delayed: local.reinvite_delayed,
            replaces: local.replaces,
            local,
            routing,
            flow,
            call_id: call_id.to_owned(),
            local_tag: local_tag.to_owned(),
            local_party,
            remote_party: String::new(),
            remote_tag: None,
            remote_target: String::new(),
            route_set: Vec::new(),
            local_cseq: 0,
            remote_cseq: None,
            invited: false,
            sent: 0,
            unacknowledged: None,
            reoffered: None,
            reoffering: None,
            reinvite: None,
            progress: progress::Progress::default(),
            hanging_up: None,
            bye: None,
            probe_at: None,
            forks: fork::Forks::default(),
            carried: info::Carried::default(),
            account: challenge::Account::default(),
        }
    }

    /// The tag that names this dialog on our side.
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// The Call-ID.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Where the peer's signalling comes from.
    pub fn flow(&self) -> Flow {
        self.flow
    }

    /// The From tag and CSeq of the peer's INVITE that made this dialog, if it was the peer's.
    pub fn peers_invite(&self) -> Option<(Option<&str>, u32)> {
        let callee = self.invited;
        self.remote_cseq.filter(|_| callee).map(|cseq| (self.remote_tag.as_deref(), cseq))
    }

    /// True once both sides have agreed, until a BYE.
    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Confirmed)
    }

    /// True once nothing more will happen.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Handles one input at `now`, pushing what is to be done to `out`.
    pub fn handle(&mut self, input: &Input, now: Now, out: &mut Vec<Output>) {
        let before = out.len();
        if let Input::Command(command) = input {
            self.in_force.command(command);
        }
        self.dispatch(input, now, out);
        self.note_outputs(&out[before..], now);
        self.offer_what_has_changed(out);
        if self.reoffering.is_none() {
            self.reinvite = None;
        }
    }

    fn dispatch(&mut self, input: &Input, now: Now, out: &mut Vec<Output>) {
        match input {
            Input::Request { transaction, request, source } => match transaction {
                Some(id) => {
                    let pending = Pending { transaction: *id, request: request.clone(), source: *source };
                    self.request(pending, now, out);
                }
                None => self.ack(request, now, out),
            },
            Input::Response(response) => self.response(response, now, out),
            // The INVITE that it takes back has the same number, and is given up in its own time (§9.1).
            Input::Unanswered { method: Method::Cancel, .. } => {}
            Input::Unanswered { method, cseq, why: NoAnswer::Transport } if self.is_established() => {
                self.unsent(*method, *cseq, now, out);
            }
            Input::Unanswered { cseq, .. } if self.timer.refreshing == Some(*cseq) => {
                self.refresh_unanswered(*cseq, now, out);
            }
            Input::Unanswered { method, cseq, why } => self.unanswered(*method, *cseq, *why, out),
            Input::Cancelled { transaction, reason } => self.cancelled(*transaction, reason.as_deref(), out),
            Input::Credentials { credentials, challenge } => {
                self.take_credentials(credentials.as_ref(), challenge, now, out);
            }
            Input::Command(command) => self.command(command, now, out),
            Input::Timeout => self.timeout(now, out),
        }
    }

    fn command(&mut self, command: &Command, now: Now, out: &mut Vec<Output>) {
        match command {
            Command::Progress { status, sdp } => self.provisional(*status, sdp.as_ref(), false, now, out),
            Command::EarlySession { status, sdp } => self.provisional(*status, Some(sdp), true, now, out),
            Command::PrepareAnswer { sdp } => self.prepare_answer(sdp, out),
            Command::SendAnswer => self.send_answer(now, out),
            Command::Reoffer { sdp } => self.reoffer(Some(sdp), out),
            Command::Update { sdp } => self.update(sdp, out),
            Command::Succeed { sdp } => self.succeed(sdp, out),
            Command::Solicit => self.reoffer(None, out),
            Command::Acknowledge { sdp } => self.acknowledge_with(sdp, out),
            Command::AnswerReoffer { sdp } => self.answer_reoffer(sdp, now, out),
            Command::CancelReoffer { reason } => self.withdraw_offer(reason.as_deref(), out),
            Command::RefuseReoffer { status } => self.refuse_reoffer(*status, out),
            Command::Redirect { status, contacts } => self.redirect_caller(*status, contacts, out),
            Command::Ask { id, method, body } => self.ask(*id, *method, body.as_ref(), out),
            Command::AnswerAsked { id, status, body } => self.answer_asked(*id, *status, body.as_ref(), out),
            Command::End { status, reason } => self.end(*status, reason.as_deref(), now, out),
        }
    }

    fn response(&mut self, response: &Message, now: Now, out: &mut Vec<Output>) {
        if matches!(response.status(), 401 | 407) && self.answer_challenge(response, out) {
            return;
        }
        self.settle_account(response);
        if response.method() == Method::Invite
            && response.status() < 200
            && self.reoffering == Some(response.cseq())
        {
            return self.reinvite_proceeds(response.status(), now, out);
        }
        let refresh = matches!(response.method(), Method::Invite | Method::Update);
        if refresh && self.timer.refreshing == Some(response.cseq()) {
            if (200..300).contains(&response.status()) {
                self.timer.accepted(response, now.mono);
            }
            return self.refresh_response(response, now, out);
        }
        let open = [self.reoffering, self.session.updating].contains(&Some(response.cseq()));
        if refresh && open && (200..300).contains(&response.status()) {
            self.timer.accepted(response, now.mono);
        }
        match response.method() {
            Method::Invite => match self.phase {
                Phase::Calling(_) => self.invite_response(response, now, out),
                Phase::Confirmed | Phase::Closing | Phase::Ended => {
                    self.late_invite_response(response, now, out);
                }
                Phase::Incoming(_) | Phase::AnswerHeld(..) => {}
            },
            Method::Bye if response.status() >= 200 => {
                self.bye_answered(response.cseq(), out);
            }
            Method::Info | Method::Message if response.status() >= 200 => self.asked_response(response, out),
            Method::Update => self.update_response(response, now, out),
            Method::Prack if response.status() >= 200 => self.prack_answered(response.cseq(), out),
            // Any other answer to our OPTIONS, a refusal too, comes from somebody who knows the dialog.
            Method::Options if self.is_established() && matches!(response.status(), 408 | 481) => {
                self.finish(EndedBy::Lost, out);
            }
            _ => {}
        }
    }

    /// False for a response of another branch of our INVITE.
    fn is_from_peer(&self, response: &Message) -> bool {
        self.remote_tag.is_none() || response.to_tag() == self.remote_tag.as_deref()
    }

    fn unanswered(&mut self, method: Method, cseq: u32, why: NoAnswer, out: &mut Vec<Output>) {
        match method {
            Method::Invite if matches!(self.phase, Phase::Calling(_)) => self.invite_unanswered(why, out),
            Method::Invite if self.reoffering == Some(cseq) => self.reinvite_unanswered(cseq, out),
            Method::Options if self.is_established() => {
                self.lose("SIP;cause=408;text=\"OPTIONS unanswered\"", out);
            }
            Method::Bye => self.bye_answered(cseq, out),
            Method::Info | Method::Message => self.asked_unanswered(cseq, out),
            Method::Update => self.update_unanswered(cseq, out),
            Method::Prack => self.prack_answered(cseq, out),
            _ => {}
        }
    }

    /// The peer is silent: the call ends now, the dialog when its BYE is answered or given up.
    fn lose(&mut self, reason: &str, out: &mut Vec<Output>) {
        // A request that is given up after our BYE, or after the end, is no news.
        if self.is_established() {
            out.push(Output::Up(LegEvent::Ended { by: EndedBy::Lost }));
            self.bye(Some(reason), out);
        }
    }

    fn finish(&mut self, by: EndedBy, out: &mut Vec<Output>) {
        if !self.is_over() {
            // What the peer asked and nobody will answer any more would keep its transaction for ever.
            self.refuse_what_is_open(out);
            self.phase = Phase::Ended;
            self.unacknowledged = None;
            self.drop_asked(out);
            self.session.owed = None;
            out.push(Output::Up(LegEvent::Ended { by }));
            out.push(Output::Finished);
        }
    }

    /// When the dialog wants to be told the time.
    pub fn deadline(&self) -> Option<Instant> {
        let repeat = self.unacknowledged.as_ref().map(|u| u.next.min(u.give_up));
        match &self.phase {
            Phase::Calling(calling) => calling.deadline().into_iter().chain(self.session_deadline()).min(),
            Phase::Confirmed => {
                let timers = [
                    self.probe_at,
                    self.timer.deadline(),
                    self.session_deadline(),
                    self.reinvite_deadline(),
                    self.progress_deadline(),
                ];
                repeat.into_iter().chain(timers.into_iter().flatten()).min()
            }
            Phase::Incoming(_) | Phase::AnswerHeld(..) => {
                self.session_deadline().into_iter().chain(self.progress_deadline()).min()
            }
            Phase::Closing | Phase::Ended => None,
        }
    }

    fn timeout(&mut self, now: Now, out: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Closing | Phase::Ended) {
            self.session_timeout(now, out);
            self.repeat_progress(now, out);
            self.reinvite_timeout(now, out);
        }
        if let Phase::Calling(_) = &self.phase {
            return self.invite_timeout(now, out);
        }
        if self.is_established() && self.probe_at.is_some_and(|at| at <= now.mono) {
            self.probe_at = None;
            self.in_dialog_request(Method::Options, None, &[], out);
        }
        self.repeat_answer(now, out);
        self.session_due(now, out);
    }

    /// True while the dialog is worth rebuilding after a fault: from our held 200, or the peer's, until its end. Before, it is
    /// ended.
    pub fn is_kept(&self) -> bool {
        match &self.phase {
            Phase::AnswerHeld(..) | Phase::Confirmed | Phase::Closing => true,
            Phase::Incoming(_) | Phase::Calling(_) | Phase::Ended => false,
        }
    }

    /// True while nothing is expected of either side: established, and our 200 acknowledged.
    pub fn rests(&self) -> bool {
        self.is_established() && self.unacknowledged.is_none()
    }

    /// True in a state that a checkpoint holds in full, and in which the dialog may stay for long.
    pub fn may_sleep(&self) -> bool {
        self.rests() && self.account.is_saved()
    }

    /// A dialog that is over and was nobody's.
    pub fn ended() -> Dialog {
        let flow = Flow::to(ListenerId::default(), ([0, 0, 0, 0], 0).into());
        Dialog::new(Arc::default(), Routing::Flow, flow, "", "", String::new())
    }

    /// True if a checkpoint that was made when [`Dialog::requests_sent`] was `kept` is out of date by that alone: after a restart the
    /// numbers of requests would soon be used again.
    pub fn has_outrun(&self, kept: u32) -> bool {
        self.sent.saturating_sub(kept) >= RESTORED_CSEQ_GAP / 2
    }

    /// How many messages of ours have had a branch, and at most one CSeq each.
    pub fn requests_sent(&self) -> u32 {
        self.sent
    }

    /// The dialog as it goes on after a restart of the process: established, with a 200 that was about to leave counted as
    /// sent. Its clock starts anew: a 200 not yet acknowledged is repeated at once. The peer may have ended the dialog just
    /// before the process did, or while it was down, so he is asked for it by an OPTIONS (§11.2) within half a minute.
    pub fn restore(mut stored: Dialog, now: Now) -> Dialog {
        let t1 = stored.local.timers.t1;
        if let Phase::AnswerHeld(pending, answer) = &stored.phase {
            let (pending, answer) =
                (pending.clone(), stored.unheard_answer(pending).unwrap_or(answer.clone()));
            stored.unacknowledged = Some(Box::new(Unacknowledged {
                transaction: pending.transaction,
                message: answer.message.clone(),
                to: pending.source,
                cseq: pending.request.cseq(),
                offer: answer.offer,
                interval: t1,
                next: now.mono,
                give_up: now.mono,
            }));
        }
        stored.phase = Phase::Confirmed;
        stored.reoffered = None;
        stored.reoffering = None;
        stored.reinvite = None;
        stored.carried = info::Carried::default();
        stored.session.restore();
        stored.local_cseq += RESTORED_CSEQ_GAP;
        stored.sent += RESTORED_CSEQ_GAP;
        // Not all at once: a restart finds many dialogs.
        let spread = stored.local_tag.bytes().fold(0_u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        let spread = Duration::from_micros(spread % PROBE_SPREAD.as_micros() as u64);
        stored.probe_at = Some(now.mono + PROBE_AFTER + spread);
        stored.timer.restore(now.mono, PROBE_AFTER + spread);
        if let Some(answer) = &mut stored.unacknowledged {
            answer.interval = t1;
            answer.next = now.mono;
            answer.give_up = now.mono + t1 * 64;
        }
        stored
    }
}
