//! Which codecs each side of a call may use: those of its trunk, or of its site.
//!
//! Whatever a leg says of its media is looked at here, before anything else is, so that no later exchange brings in what the first did
//! not allow. What is offered to a callee is as its own trunk wants it: that differs from trunk to trunk of a hunt.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::reoffer::{Means, Reply};
use super::{Call, Cause, Destination, LegId, Output, Side};
use crate::dialog::{Command, LegEvent};
use crate::sdp::negotiate::{CodecList, NegotiationError, Role, within_codecs};
use crate::time::Now;

/// The codecs of those a call may go to, by the trunk that leads there.
pub type CalleeCodecs = Vec<(Option<String>, CodecList)>;

/// The codecs of a call's sides.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Codecs {
    caller: CodecList,
    /// Of the callee, or of whoever is asked now.
    callee: CodecList,
    /// Of whom it may still be asked: nobody, once there is a checkpoint.
    #[serde(skip)]
    callees: CalleeCodecs,
}

impl Codecs {
    pub(super) fn new(caller: CodecList, callees: CalleeCodecs) -> Codecs {
        Codecs { caller, callee: CodecList::ANY, callees }
    }

    /// The call goes elsewhere.
    pub(super) fn lead_to(&mut self, callees: CalleeCodecs) {
        self.callees = callees;
    }

    /// Whoever this trunk leads to is asked now.
    pub(super) fn turn_to(&mut self, trunk: Option<&str>) {
        let found = self.callees.iter().find(|(of, _)| of.as_deref() == trunk);
        self.callee = found.map(|(_, list)| list.clone()).unwrap_or_default();
    }

    /// Nobody else is asked any more.
    pub(super) fn settle(&mut self) {
        self.callees = Vec::new();
    }

    /// True if both sides may use every codec.
    pub(super) fn are_any(&self) -> bool {
        self.caller.is_any() && self.callee.is_any()
    }

    /// What this side may use.
    pub(super) fn of(&self, side: Side) -> &CodecList {
        match side {
            Side::Caller => &self.caller,
            Side::Callee | Side::Engine | Side::Operator => &self.callee,
        }
    }

    /// Somebody else is at this side; what was there is given back.
    pub(super) fn replace(&mut self, side: Side, list: CodecList) -> CodecList {
        match side {
            Side::Caller => std::mem::replace(&mut self.caller, list),
            Side::Callee | Side::Engine | Side::Operator => std::mem::replace(&mut self.callee, list),
        }
    }

    /// Of our own codecs those that may be offered to this side.
    pub(super) fn ours<'a>(&self, to: Side, ours: &[&'a str]) -> Vec<&'a str> {
        match to {
            Side::Caller => self.caller.choose(&CodecList::ANY, ours),
            Side::Callee | Side::Engine | Side::Operator => self.callee.choose(&self.caller, ours),
        }
    }

    /// The caller's offer, which has come through his own list, as the present callee may have it.
    pub(super) fn for_callee(&self, offer: &Bytes) -> Result<Option<Bytes>, NegotiationError> {
        within_codecs(offer, Role::Offer, &CodecList::ANY, &self.callee)
    }

    fn from(&self, side: Side, sdp: &Bytes, role: Role) -> Result<Option<Bytes>, NegotiationError> {
        let other = if side == Side::Caller { Side::Callee } else { Side::Caller };
        within_codecs(sdp, role, self.of(side), self.of(other))
    }
}

impl Call {
    /// The same call, whose caller may use these codecs, and those it may go to these.
    pub fn with_codecs(self, caller: CodecList, callees: CalleeCodecs) -> Call {
        Call { codecs: Codecs::new(caller, callees), ..self }
    }

    /// A leg says something; of its media what both sides may use is heard.
    pub(super) fn leg_event(&mut self, leg: LegId, event: &LegEvent, now: Now, out: &mut Vec<Output>) {
        if self.codecs.are_any() {
            return self.leg_says(leg, event, now, out);
        }
        match self.less_codecs(leg, event) {
            Ok(None) => self.leg_says(leg, event, now, out),
            Ok(Some(less)) => self.leg_says(leg, &less, now, out),
            Err(why) => self.no_codec_left(leg, event, why.status(), now, out),
        }
    }

    /// What a leg says, less the codecs that its side or the other may not use; `None`: it is as it came.
    ///
    /// # Errors
    /// It cannot be read, or nothing is left of it.
    fn less_codecs(&self, leg: LegId, event: &LegEvent) -> Result<Option<LegEvent>, NegotiationError> {
        let of = |sdp: &Bytes, role| self.codecs.from(self.side(leg), sdp, role);
        let early = if self.callee_offers() { Role::Offer } else { Role::Answer };
        Ok(match event {
            LegEvent::Progress { status, sdp: Some(sdp) } => {
                of(sdp, early)?.map(|sdp| LegEvent::Progress { status: *status, sdp: Some(sdp) })
            }
            LegEvent::EarlySession { status, sdp } => {
                of(sdp, early)?.map(|sdp| LegEvent::EarlySession { status: *status, sdp })
            }
            LegEvent::Answered { sdp } => of(sdp, Role::Answer)?.map(|sdp| LegEvent::Answered { sdp }),
            LegEvent::AnsweredWithOffer { sdp } => {
                of(sdp, Role::Offer)?.map(|sdp| LegEvent::AnsweredWithOffer { sdp })
            }
            LegEvent::Reoffer { sdp } => of(sdp, Role::Offer)?.map(|sdp| LegEvent::Reoffer { sdp }),
            LegEvent::Update { sdp } => of(sdp, Role::Offer)?.map(|sdp| LegEvent::Update { sdp }),
            LegEvent::Prack { sdp } => of(sdp, Role::Offer)?.map(|sdp| LegEvent::Prack { sdp }),
            LegEvent::Offered { sdp } => of(sdp, Role::Offer)?.map(|sdp| LegEvent::Offered { sdp }),
            LegEvent::ReofferAnswered { sdp } => {
                of(sdp, Role::Answer)?.map(|sdp| LegEvent::ReofferAnswered { sdp })
            }
            LegEvent::Refreshed { sdp } => of(sdp, Role::Answer)?.map(|sdp| LegEvent::Refreshed { sdp }),
            LegEvent::Progress { sdp: None, .. }
            | LegEvent::Failed { .. }
            | LegEvent::AnswerReady
            | LegEvent::AnswerUnsent { .. }
            | LegEvent::Cancelled
            | LegEvent::OfferWanted
            | LegEvent::ReofferCancelled { .. }
            | LegEvent::Unwanted { .. }
            | LegEvent::AnsweredTooLate { .. }
            | LegEvent::EarlyEnded
            | LegEvent::ReofferRefused { .. }
            | LegEvent::Asked { .. }
            | LegEvent::AskedAnswered { .. }
            | LegEvent::NoProgress
            | LegEvent::Redirected { .. }
            | LegEvent::Reason(_)
            | LegEvent::Ended { .. } => None,
        })
    }

    /// A leg says nothing of its media that both sides may use: an offer is refused and the session stays as it is, an answer ends
    /// what it answers.
    fn no_codec_left(&mut self, leg: LegId, event: &LegEvent, status: u16, now: Now, out: &mut Vec<Output>) {
        match event {
            LegEvent::Progress { status, .. } | LegEvent::EarlySession { status, .. } => {
                self.callee_progress(leg, *status, None, out);
            }
            LegEvent::Answered { .. } | LegEvent::AnsweredWithOffer { .. } => {
                if self.choose(leg, now, out) {
                    self.clear(Cause::Media, Side::Engine, status, now, out);
                }
            }
            LegEvent::Reoffer { sdp } => self.refuse_offer(leg, sdp, Means::Invite, status, out),
            LegEvent::Update { sdp } => self.refuse_offer(leg, sdp, Means::Update, status, out),
            LegEvent::Prack { sdp } => self.refuse_offer(leg, sdp, Means::Prack, status, out),
            LegEvent::Offered { .. } => {
                let asked = self.reoffer.take_if(|open| open.to == leg && open.reply == Reply::Solicited);
                if asked.as_ref().is_some_and(|asked| self.is_newcomer(asked.from)) {
                    return self.refuse_newcomer(status, now, out);
                }
                out.extend(asked.map(|asked| Output::Tell(asked.from, Command::RefuseReoffer { status })));
                // Its ACK says that the session stays as it is.
                out.push(Output::Tell(leg, Command::CancelReoffer { reason: None }));
            }
            LegEvent::ReofferAnswered { .. } => self.answer_unusable(leg, status, now, out),
            LegEvent::Refreshed { .. }
            | LegEvent::Failed { .. }
            | LegEvent::AnswerReady
            | LegEvent::AnswerUnsent { .. }
            | LegEvent::Cancelled
            | LegEvent::OfferWanted
            | LegEvent::ReofferCancelled { .. }
            | LegEvent::Unwanted { .. }
            | LegEvent::AnsweredTooLate { .. }
            | LegEvent::EarlyEnded
            | LegEvent::ReofferRefused { .. }
            | LegEvent::Asked { .. }
            | LegEvent::AskedAnswered { .. }
            | LegEvent::NoProgress
            | LegEvent::Redirected { .. }
            | LegEvent::Reason(_)
            | LegEvent::Ended { .. } => {}
        }
    }

    /// The trunk under way takes none of the caller's codecs: the next one is asked.
    pub(super) fn trunk_without_codec(&mut self, now: Now, out: &mut Vec<Output>) {
        let Destination::Trunk { hunt, .. } = &mut self.destination else { return };
        let passed = hunt.current().map(|choice| choice.trunk.clone());
        let next = hunt.pass_over(now.mono);
        out.extend(passed.map(|trunk| Output::NoCodec { trunk }));
        self.hunt_on(next, now, out);
    }
}
