//! The back-to-back user agent: one call, its legs, and the bridge between them (RFC 7092).
//!
//! Verbs: [`Call::new`] is given who calls, where it goes and how media runs; [`Call::handle`] takes what the legs, the store and the
//! operator say, and pushes [`Output`]s; [`Call::deadline`] says when it wants to be told the time. A leg is a dialog
//! with a number: 0 is the caller, the others are callees in the order of their INVITEs.
//!
//! ```text
//!            Begin                 a callee's 200          committed, or 100 ms
//! (new) ──────────────► Hunting ───────────────► Committing ─────────────────► Up
//!                          │                         │                          │
//!                          │ caller gone, all failed,│ either side gone         │ BYE, silence,
//!                          │ time-out, operator      │                          │ operator
//!                          ▼                         ▼                          ▼
//!                       Clearing ◄───────────────────┴──────────────────────────┘
//!                          │ every leg gone
//!                          ▼
//!                        Over
//! ```

mod answer;
mod clear;
mod codecs;
mod early;
mod fork;
mod hunt;
#[cfg(test)]
mod hunt_tests;
mod info;
mod interface;
mod media;
mod redirect;
mod reoffer;
mod replaces;
mod route_list;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dialog::{EndedBy, LegEvent, Routing};
use crate::flow::Flow;
use crate::time::{Instant, Now, UnixMillis};

use reoffer::Means;

pub use clear::{Cause, Ended, Side};
pub use codecs::CalleeCodecs;
pub use fork::{Branch, Fork};
pub use interface::{Input, Output};
pub use media::{MediaPlan, Sdp};
pub use redirect::Reroute;
pub use replaces::{Newcomer, Succession};
pub use route_list::{TrunkAttempt, TrunkChoice, TrunkHunt};

/// An answer waits this long for its checkpoint, and no longer: a slow disk never costs a call.
pub const COMMIT_PATIENCE: Duration = Duration::from_millis(100);
/// A callee that only rings is given up after this long whatever the settings say (RFC 3261 Timer C).
pub const LONGEST_RING: Duration = Duration::from_secs(180);
/// Legs that have not ended this long after they were told to are given up: twice the longest transaction.
const CLEARING_PATIENCE: Duration = Duration::from_secs(70);

/// A leg's number within its call; 0 is the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LegId(pub u8);

/// The caller's leg.
pub const CALLER: LegId = LegId(0);

/// One place an INVITE can go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The Request-URI.
    pub request_uri: String,
    /// The path to it.
    pub flow: Flow,
    /// A Route set for the INVITE.
    pub route: Vec<String>,
    /// Where requests within the dialog go.
    pub routing: Routing,
    /// The trunk it is reached by, if any.
    pub trunk: Option<String>,
}

/// Where a call goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Destination {
    /// A station: its contacts ring, the first that answers has the call.
    Station {
        /// Its bindings, or its connection address.
        contacts: Fork,
        /// How long it rings.
        ring_timeout: Duration,
    },
    /// One trunk after the other, and of each one proxy after the other.
    Trunk {
        /// The trunks.
        hunt: TrunkHunt,
        /// How long it may take until somebody answers; at most [`LONGEST_RING`].
        ring_timeout: Duration,
    },
    /// A service of ours, which answers at once.
    Service,
    /// Nowhere: the caller gets this status.
    Refused {
        /// 400 to 699.
        status: u16,
        /// Why, for the record.
        cause: Cause,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Leg {
    id: LegId,
    gone: bool,
    /// Told to end; nothing it says any more makes it the callee.
    ending: bool,
    /// Where it was called.
    at: Option<IpAddr>,
}

impl Leg {
    fn new(id: LegId, at: Option<IpAddr>) -> Leg {
        Leg { id, gone: false, ending: false, at }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    New,
    Hunting,
    Committing,
    Up,
    Clearing,
    Over,
}

/// One call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    phase: Phase,
    destination: Destination,
    media: MediaPlan,
    sdp: Sdp,
    legs: Vec<Leg>,
    /// The leg the caller talks to.
    callee: Option<LegId>,
    rang: bool,
    /// When hunting, committing or clearing has taken too long.
    deadline: Option<Instant>,
    /// The best refusal so far, while others still ring.
    refusal: Option<u16>,
    /// Where redirections have led it.
    detours: redirect::Detours,
    /// A 3xx has come whose contacts are not tried yet.
    redirected: bool,
    /// The callee whose early session the caller has been told of.
    early: Option<LegId>,
    /// The caller takes reliable provisional responses.
    caller_takes_reliable: bool,
    /// Callees are asked for the offer.
    delayed: bool,
    /// The caller, who offered nothing, has answered an offer of ours.
    caller_answered: bool,
    /// The offer that waits for an answer.
    reoffer: Option<Box<reoffer::Reoffer>>,
    answered_at: Option<UnixMillis>,
    /// Why the side that ends the call does so (RFC 3326).
    reason: Option<String>,
    /// How the call ends, once that is decided.
    verdict: Option<Ended>,
    /// What each side may say of its media.
    codecs: codecs::Codecs,
    // What is newer than the format before stands at the end: see [`Call::FORMER_LACKS`].
    /// The leg of the caller, or of who has taken his place.
    caller: LegId,
    /// The legs whose place others have taken, and their sides.
    former: Vec<(LegId, Side)>,
    /// Somebody is about to take a leg's place.
    replacement: Option<Box<replaces::Replacement>>,
}

impl Call {
    /// What a checkpoint of the format before ends without, as `postcard` writes it: nobody took a leg's place.
    pub const FORMER_LACKS: &[u8] = &[0, 0, 0];

    /// A call whose caller (leg 0) waits for an answer to `offer`.
    pub fn new(destination: Destination, media: MediaPlan, sdp: Sdp) -> Call {
        Call {
            phase: Phase::New,
            destination,
            media,
            sdp,
            legs: vec![Leg::new(CALLER, None)],
            callee: None,
            rang: false,
            deadline: None,
            refusal: None,
            detours: redirect::Detours::default(),
            redirected: false,
            early: None,
            caller_takes_reliable: false,
            delayed: false,
            caller_answered: false,
            reoffer: None,
            answered_at: None,
            reason: None,
            verdict: None,
            codecs: codecs::Codecs::default(),
            caller: CALLER,
            former: Vec::new(),
            replacement: None,
        }
    }

    /// The same, with a caller that takes reliable provisional responses (RFC 3262).
    pub fn caller_takes_reliable(self, takes: bool) -> Call {
        Call { caller_takes_reliable: takes, ..self }
    }

    /// The same, whose INVITEs leave without an offer: the callee makes it (delayed media).
    pub fn media_delayed(self, delayed: bool) -> Call {
        Call { delayed, ..self }
    }

    /// A call in set-up whose state was lost: every leg in `legs` is told to end, the caller with 500. The trunks and proxies that it
    /// had tried are kept for its record.
    pub fn after_fault(legs: &[LegId], tried: &[TrunkAttempt], now: Now, out: &mut Vec<Output>) -> Call {
        let destination = match tried {
            [] => Destination::Refused { status: 500, cause: Cause::Fault },
            tried => {
                Destination::Trunk { hunt: TrunkHunt::ended(tried.to_vec()), ring_timeout: LONGEST_RING }
            }
        };
        let mut call = Call::new(destination, MediaPlan::Bypass, Sdp::none());
        call.legs = legs.iter().map(|id| Leg::new(*id, None)).collect();
        call.clear(Cause::Fault, Side::Engine, 500, now, out);
        call
    }

    /// A call that is over and was nobody's.
    pub fn over() -> Call {
        let refused = Destination::Refused { status: 500, cause: Cause::Fault };
        Call { phase: Phase::Over, ..Call::new(refused, MediaPlan::Bypass, Sdp::none()) }
    }

    /// Handles one input at `now`, pushing what is to be done to `out`.
    pub fn handle(&mut self, input: &Input, now: Now, out: &mut Vec<Output>) {
        match input {
            Input::Begin => self.begin(now, out),
            Input::Leg(leg, event) => self.leg_event(*leg, event, now, out),
            Input::LegGone(leg) => {
                if self.leg(*leg).is_some_and(|leg| !leg.gone) {
                    self.leg_ended(*leg, EndedBy::Fault, now, out);
                }
            }
            Input::NoPlace(leg) => self.trunk_full(*leg, now, out),
            Input::Spared(leg) => self.proxy_spared(*leg, now, out),
            Input::Raced { leg, won, failed } => self.raced(*leg, *won, failed),
            Input::Committed(committed) => self.committed(*committed, now, out),
            Input::Rerouted { status, reroute } => self.rerouted(*status, reroute, now, out),
            Input::Silent(_) => {
                if self.phase == Phase::Up {
                    self.clear(Cause::RtpTimeout, Side::Engine, 500, now, out);
                }
            }
            Input::MediaLost => self.clear(Cause::Fault, Side::Engine, 500, now, out),
            Input::HangUp => self.clear(Cause::Operator, Side::Operator, 503, now, out),
            Input::Replace(newcomer) => self.replace(newcomer, now, out),
            Input::Timeout => self.timeout(now, out),
        }
        self.go_on_replacing(now, out);
    }

    fn leg_says(&mut self, leg: LegId, event: &LegEvent, now: Now, out: &mut Vec<Output>) {
        match event {
            LegEvent::Progress { status, sdp } => self.callee_progress(leg, *status, sdp.as_ref(), out),
            LegEvent::EarlySession { status, sdp } => self.callee_early_session(leg, *status, sdp, out),
            LegEvent::Answered { sdp } => self.callee_answered(leg, sdp, now, out),
            LegEvent::AnsweredWithOffer { sdp } => self.callee_answered_with_offer(leg, sdp, now, out),
            LegEvent::Failed { status, unanswered, retry_after, .. } => {
                self.callee_failed(leg, (*status, *retry_after), *unanswered, now, out);
            }
            LegEvent::NoProgress => self.callee_stalls(leg, now, out),
            LegEvent::AnswerReady => self.answer_ready(leg, now, out),
            LegEvent::AnswerUnsent { status } => self.answer_unsent(leg, *status, out),
            LegEvent::Cancelled => self.caller_cancelled(leg, now, out),
            LegEvent::Reoffer { sdp } => self.leg_offers(leg, sdp, Means::Invite, out),
            LegEvent::Update { sdp } => self.leg_offers(leg, sdp, Means::Update, out),
            LegEvent::Prack { sdp } => self.leg_offers(leg, sdp, Means::Prack, out),
            LegEvent::OfferWanted => self.offer_wanted(leg, out),
            LegEvent::Offered { sdp } => self.solicited_offer(leg, sdp, now, out),
            LegEvent::ReofferAnswered { sdp } => self.reoffer_answered(leg, sdp, now, out),
            LegEvent::Refreshed { sdp } => self.session_refreshed(leg, sdp, out),
            LegEvent::ReofferCancelled { reason } => self.reoffer_cancelled(leg, reason.as_deref(), out),
            LegEvent::Unwanted { told, offered } => self.offer_again(leg, told, offered, out),
            LegEvent::AnsweredTooLate { heard } => self.answered_too_late(leg, heard, out),
            LegEvent::EarlyEnded => self.callee_early_ended(leg, now, out),
            LegEvent::ReofferRefused { status } => self.reoffer_refused(leg, *status, now, out),
            LegEvent::Asked { id, method, body } => self.leg_asks(leg, *id, *method, body.as_ref(), out),
            LegEvent::AskedAnswered { id, status, body } => {
                self.leg_responds(leg, *id, *status, body.as_ref(), out);
            }
            LegEvent::Redirected { contacts } => self.leg_redirects(leg, contacts),
            LegEvent::Reason(reason) => self.leg_says_why(leg, reason),
            LegEvent::Ended { by } => self.leg_ended(leg, *by, now, out),
        }
    }

    fn timeout(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.deadline.is_none_or(|at| at > now.mono) {
            return;
        }
        self.deadline = None;
        match self.phase {
            Phase::Hunting => self.hunted_in_vain(now, out),
            Phase::Committing => self.committed(false, now, out),
            Phase::Clearing => self.give_legs_up(out),
            Phase::Up => self.newcomer_committed(false, out),
            Phase::New | Phase::Over => {}
        }
    }

    fn leg(&self, id: LegId) -> Option<&Leg> {
        self.legs.iter().find(|leg| leg.id == id)
    }

    fn leg_mut(&mut self, id: LegId) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.id == id)
    }

    /// When the call wants to be told the time.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// True while both sides are connected.
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// True once the call waits only for its legs to end.
    pub fn is_clearing(&self) -> bool {
        matches!(self.phase, Phase::Clearing | Phase::Over)
    }

    /// The leg the caller talks to, once it has answered.
    pub fn callee(&self) -> Option<LegId> {
        self.callee
    }

    /// The state's name, for people.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::New => "new",
            Phase::Hunting if self.rang => "ringing",
            Phase::Hunting => "hunting",
            Phase::Committing => "answering",
            Phase::Up => "up",
            Phase::Clearing => "clearing",
            Phase::Over => "over",
        }
    }

    /// When it was answered.
    pub fn answered_at(&self) -> Option<UnixMillis> {
        self.answered_at
    }

    /// The trunks and proxies tried so far.
    pub fn attempts(&self) -> &[TrunkAttempt] {
        match &self.destination {
            Destination::Trunk { hunt, .. } => hunt.attempts(),
            Destination::Station { .. } | Destination::Service | Destination::Refused { .. } => &[],
        }
    }

    /// True once the call is worth rebuilding after a fault: from the answer on. Before, it is ended with 500.
    pub fn is_kept(&self) -> bool {
        match self.phase {
            Phase::Committing | Phase::Up | Phase::Clearing | Phase::Over => true,
            Phase::New | Phase::Hunting => false,
        }
    }

    /// True while both sides are, or are about to be, connected: what the store keeps over a restart.
    pub fn is_answered(&self) -> bool {
        matches!(self.phase, Phase::Committing | Phase::Up)
    }

    /// The call as it goes on after a restart of the process: connected, also when the answer was just about to leave; what
    /// was under way is not.
    pub fn restore(mut stored: Call) -> Call {
        stored.phase = Phase::Up;
        stored.deadline = None;
        stored.reoffer = stored.reoffer.filter(|reoffer| reoffer.outlives_restart());
        stored.forget_replacing();
        let (caller, callee) = (stored.caller, stored.callee);
        stored.legs.retain(|leg| leg.id == caller || Some(leg.id) == callee);
        stored
    }
}
