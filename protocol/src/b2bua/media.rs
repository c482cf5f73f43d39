//! The session descriptions of a call: what each side is told of the other.

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Side;
use super::codecs::Codecs;
use crate::sdp::negotiate::{
    AudioView, LegDescription, LocalMedia, NegotiationError, answer_service, cross_answers, media_view,
    relay_answer, relay_offer, service_offer,
};
use crate::sdp::{Direction, SessionDescription};

/// The codecs our own services speak.
const SERVICE_CODECS: [&str; 2] = ["PCMU", "PCMA"];
/// The codecs we offer a callee for a caller that has offered nothing, those that nearly every phone has first.
const RELAY_CODECS: [&str; 4] = ["PCMU", "PCMA", "G722", "G729"];

/// How media runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediaPlan {
    /// From endpoint to endpoint: session descriptions cross unchanged.
    Bypass,
    /// Through us, by these ports.
    Anchored {
        /// Towards the caller.
        caller: LocalMedia,
        /// Towards the callee.
        callee: LocalMedia,
        /// Towards one of the other address family, if there are ports for it (RFC 6157).
        other: Option<LocalMedia>,
    },
    /// To a service of ours.
    Service {
        /// Towards the caller.
        caller: LocalMedia,
    },
}

impl MediaPlan {
    /// The callee is at `peer` from now on: true if he is to be told another address than the one before.
    fn turn_to(&mut self, peer: IpAddr) -> bool {
        let MediaPlan::Anchored { callee, other: Some(other), .. } = self else { return false };
        let turns = callee.addr.is_ipv4() != peer.is_ipv4() && other.addr.is_ipv4() == peer.is_ipv4();
        if turns {
            std::mem::swap(callee, other);
        }
        turns
    }
}

/// The session descriptions of both sides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sdp {
    /// The caller's INVITE has no offer.
    offerless: bool,
    /// The caller's offer, as it came and as it reads, until the answer.
    caller_offer: Bytes,
    caller: Option<Box<SessionDescription>>,
    to_caller: LegDescription,
    to_callee: LegDescription,
    /// The first offer to the callee, until it is sent.
    first_offer: Option<Bytes>,
    /// What the callee, and the caller, last said of themselves before the answer.
    callee_said: Option<Bytes>,
    caller_said: Option<Bytes>,
    /// The direction each side last asked for.
    caller_direction: Direction,
    callee_direction: Direction,
}

impl Sdp {
    /// The descriptions of a call whose caller offers `offer`, or nothing if it is empty. `session_id` must be new for each call.
    ///
    /// # Errors
    /// The offer cannot be read, or has nothing that the plan can use.
    pub fn new(offer: Bytes, plan: &MediaPlan, session_id: u64) -> Result<Sdp, NegotiationError> {
        let (caller_addr, callee_addr, read) = match plan {
            MediaPlan::Bypass => (None, None, false),
            MediaPlan::Anchored { caller, callee, .. } => (Some(caller.addr), Some(callee.addr), true),
            MediaPlan::Service { caller } => (Some(caller.addr), None, true),
        };
        let read = read && !offer.is_empty();
        let parsed = if read { Some(Box::new(SessionDescription::parse(&offer)?)) } else { None };
        let any = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let mut sdp = Sdp {
            offerless: offer.is_empty(),
            caller_offer: offer,
            caller: parsed,
            to_caller: LegDescription::new(session_id, caller_addr.unwrap_or(any)),
            to_callee: LegDescription::new(session_id ^ 1, callee_addr.unwrap_or(any)),
            first_offer: None,
            callee_said: None,
            caller_said: None,
            caller_direction: Direction::SendRecv,
            callee_direction: Direction::SendRecv,
        };
        match plan {
            MediaPlan::Bypass => {}
            MediaPlan::Anchored { .. } => {
                sdp.first_offer = Some(sdp.offer_to_callee(plan, &Codecs::default())?);
            }
            MediaPlan::Service { .. } if sdp.is_offerless() => {
                drop(sdp.clone().service_offer(plan, &Codecs::default())?);
            }
            MediaPlan::Service { .. } => drop(sdp.clone().answer_as_service(plan)?),
        }
        Ok(sdp)
    }

    /// No descriptions: for a call that only ends.
    pub fn none() -> Sdp {
        let any = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        Sdp {
            offerless: true,
            caller_offer: Bytes::new(),
            caller: None,
            to_caller: LegDescription::new(0, any),
            to_callee: LegDescription::new(1, any),
            first_offer: None,
            callee_said: None,
            caller_said: None,
            caller_direction: Direction::SendRecv,
            callee_direction: Direction::SendRecv,
        }
    }

    /// What is said to this side is said to another peer from now on; what the one before was told is given back.
    pub(super) fn anew(&mut self, side: Side, session_id: u64) -> LegDescription {
        let leg = self.to(side);
        let next = leg.anew(session_id);
        std::mem::replace(leg, next)
    }

    /// What is said to this side is said to the peer from before.
    pub(super) fn put_back(&mut self, side: Side, told: LegDescription) {
        *self.to(side) = told;
    }

    fn to(&mut self, side: Side) -> &mut LegDescription {
        match side {
            Side::Caller => &mut self.to_caller,
            Side::Callee | Side::Engine | Side::Operator => &mut self.to_callee,
        }
    }

    /// What is said to the callee is for one at `peer` from now on.
    pub(super) fn turn_to(&mut self, plan: &mut MediaPlan, peer: IpAddr) {
        if plan.turn_to(peer)
            && let MediaPlan::Anchored { callee, .. } = plan
        {
            self.to_callee.moves_to(callee.addr);
            self.first_offer = None;
        }
    }

    /// True if the caller's INVITE has no offer.
    pub(super) fn is_offerless(&self) -> bool {
        self.offerless
    }

    pub(super) fn held(&self) -> bool {
        self.caller_direction != Direction::SendRecv || self.callee_direction != Direction::SendRecv
    }

    /// What the caller's media session needs to know, if there is one.
    pub(super) fn caller_view(&mut self, plan: &MediaPlan) -> Option<(AudioView, Side)> {
        if matches!(plan, MediaPlan::Bypass) {
            return None;
        }
        let view = media_view(self.caller.as_ref()?)?;
        self.caller_direction = view.direction;
        Some((view, Side::Caller))
    }

    /// The caller's offer as the callee gets it; ours if there is none and media crosses us, else nothing.
    pub(super) fn offer_to_callee(
        &mut self,
        plan: &MediaPlan,
        codecs: &Codecs,
    ) -> Result<Bytes, NegotiationError> {
        let first = self.first_offer.take();
        if codecs.are_any()
            && let Some(offer) = first
        {
            return Ok(offer);
        }
        let less = codecs.for_callee(&self.caller_offer)?;
        match (plan, &self.caller) {
            (MediaPlan::Anchored { callee, .. }, Some(offer)) => {
                let less = less.map(|offer| SessionDescription::parse(&offer)).transpose()?;
                let offer = less.as_ref().unwrap_or(offer);
                relay_offer(offer, &mut self.to_callee, Some(*callee), None)
            }
            (MediaPlan::Anchored { callee, .. }, None) => {
                service_offer(&mut self.to_callee, *callee, &codecs.ours(Side::Callee, &RELAY_CODECS))
            }
            (MediaPlan::Bypass | MediaPlan::Service { .. }, _) => {
                Ok(self.to_callee.carry(less.as_ref().unwrap_or(&self.caller_offer)))
            }
        }
    }

    /// The callee's answer as the caller gets it, and what the callee's media session needs to know. A caller that has
    /// offered nothing gets it as an offer, of the codec that the callee will send: two answers that differ would leave each
    /// side sending what the other does not take.
    pub(super) fn answer_to_caller(
        &mut self,
        plan: &MediaPlan,
        answer: &Bytes,
    ) -> Result<(Bytes, Option<AudioView>), NegotiationError> {
        self.callee_said = Some(answer.clone());
        let MediaPlan::Anchored { caller, .. } = plan else {
            return Ok((self.to_caller.carry(answer), None));
        };
        let answer = SessionDescription::parse(answer)?;
        let view = media_view(&answer);
        let relayed = match &self.caller {
            Some(offer) => relay_answer(offer, &answer, &mut self.to_caller, Some(*caller), None)?,
            None => {
                let codec = view.as_ref().ok_or(NegotiationError::NoAudio)?.codec.clone();
                let only = [codec];
                let codecs = (!only[0].is_empty()).then_some(&only[..]);
                relay_offer(&answer, &mut self.to_caller, Some(*caller), codecs)?
            }
        };
        if let Some(view) = &view {
            self.callee_direction = view.direction;
        }
        Ok((relayed, view))
    }

    /// The caller's offer and the callee's as answers to each other.
    pub(super) fn cross_answers(
        &mut self,
        plan: &MediaPlan,
        offer: &Bytes,
    ) -> Result<Crossed, NegotiationError> {
        let (near, far) = (SessionDescription::parse(&self.caller_offer)?, SessionDescription::parse(offer)?);
        let (from_caller, from_callee) = cross_answers(&near, &far)?;
        let (caller_view, callee_view) = (media_view(&from_caller), media_view(&from_callee));
        let (to_callee, to_caller) = match plan {
            MediaPlan::Anchored { caller, callee, .. } => (
                relay_answer(&far, &from_caller, &mut self.to_callee, Some(*callee), None)?,
                relay_answer(&near, &from_callee, &mut self.to_caller, Some(*caller), None)?,
            ),
            MediaPlan::Bypass | MediaPlan::Service { .. } => {
                let (to_callee, to_caller) = (from_caller.to_string(), from_callee.to_string());
                (self.to_callee.carry(&Bytes::from(to_callee)), self.to_caller.carry(&Bytes::from(to_caller)))
            }
        };
        Ok(Crossed { to_callee, to_caller, caller_view, callee_view })
    }

    /// What the answer to an offer of our own says.
    pub(super) fn view_of_answer(&self, answer: &Bytes) -> Result<AudioView, NegotiationError> {
        media_view(&SessionDescription::parse(answer)?).ok_or(NegotiationError::NoAudio)
    }

    /// Our service's own offer.
    pub(super) fn service_offer(
        &mut self,
        plan: &MediaPlan,
        codecs: &Codecs,
    ) -> Result<Bytes, NegotiationError> {
        let MediaPlan::Service { caller } = plan else { return Err(NegotiationError::NoAudio) };
        service_offer(&mut self.to_caller, *caller, &codecs.ours(Side::Caller, &SERVICE_CODECS))
    }

    /// The session as it is, as an answer to a new offer of `to`: for one that cannot be carried across now.
    pub(super) fn present_answer(&mut self, to: Side, plan: &MediaPlan, offer: &Bytes) -> Option<Bytes> {
        let said = match to {
            Side::Caller => self.callee_said.clone(),
            Side::Callee | Side::Engine | Side::Operator => self.caller_said.clone(),
        }?;
        let parsed = SessionDescription::parse(offer).ok()?;
        let carried = self.carry_answer(to, plan, Some(&parsed), &said).ok()?;
        Some(carried.sdp)
    }

    /// After the answer nobody asks for it any more, and neither memory nor a checkpoint need carry it.
    pub(super) fn forget_what_was_said(&mut self) {
        self.caller_offer = Bytes::new();
        self.caller = None;
        self.first_offer = None;
        self.callee_said = None;
        self.caller_said = None;
    }

    /// Keeps what a side says of itself in an early session.
    pub(super) fn note_said(&mut self, by: Side, sdp: &Bytes) {
        match by {
            Side::Caller => self.caller_said = Some(sdp.clone()),
            Side::Callee | Side::Engine | Side::Operator => self.callee_said = Some(sdp.clone()),
        }
    }

    pub(super) fn answer_as_service(&mut self, plan: &MediaPlan) -> Result<(Bytes, u8), NegotiationError> {
        let (MediaPlan::Service { caller }, Some(offer)) = (plan, &self.caller) else {
            return Err(NegotiationError::NoCommonCodec);
        };
        let (answer, chosen) = answer_service(offer, &mut self.to_caller, *caller, &SERVICE_CODECS)?;
        Ok((answer, chosen.payload_type))
    }

    /// A side's new offer as the other gets it.
    pub(super) fn carry_offer(
        &mut self,
        from: Side,
        plan: &MediaPlan,
        offer: &Bytes,
    ) -> Result<Carried, NegotiationError> {
        let MediaPlan::Anchored { caller, callee, .. } = plan else {
            let leg = match from {
                Side::Caller => &mut self.to_callee,
                Side::Callee | Side::Engine | Side::Operator => &mut self.to_caller,
            };
            return Ok(Carried { sdp: leg.carry(offer), offer: None, view: None });
        };
        let parsed = SessionDescription::parse(offer)?;
        let (leg, local) = match from {
            Side::Caller => (&mut self.to_callee, *callee),
            Side::Callee | Side::Engine | Side::Operator => (&mut self.to_caller, *caller),
        };
        let relayed = relay_offer(&parsed, leg, Some(local), None)?;
        let view = media_view(&parsed);
        Ok(Carried { sdp: relayed, offer: Some(parsed), view })
    }

    /// What a side was `told`, to be said again after it has accepted something else: a change, so with a new version (RFC 3264 §8).
    pub(super) fn again(&mut self, side: Side, plan: &MediaPlan, told: &Bytes) -> Option<Bytes> {
        let leg = self.to(side);
        let parsed = SessionDescription::parse(told).ok()?;
        Some(if matches!(plan, MediaPlan::Bypass) { leg.carry(told) } else { leg.stamp(parsed) })
    }

    /// The answer to a new offer of `to`, as `to` gets it.
    pub(super) fn carry_answer(
        &mut self,
        to: Side,
        plan: &MediaPlan,
        offer: Option<&SessionDescription>,
        answer: &Bytes,
    ) -> Result<Carried, NegotiationError> {
        let leg = self.to(to);
        let (MediaPlan::Anchored { caller, callee, .. }, Some(offer)) = (plan, offer) else {
            return Ok(Carried { sdp: leg.carry(answer), offer: None, view: None });
        };
        let parsed = SessionDescription::parse(answer)?;
        let local = match to {
            Side::Caller => *caller,
            Side::Callee | Side::Engine | Side::Operator => *callee,
        };
        let relayed = relay_answer(offer, &parsed, leg, Some(local), None)?;
        let view = media_view(&parsed);
        Ok(Carried { sdp: relayed, offer: None, view })
    }

    /// Our service's answer to a new offer of the caller.
    pub(super) fn service_reanswer(
        &mut self,
        plan: &MediaPlan,
        offer: &Bytes,
    ) -> Result<Carried, NegotiationError> {
        let parsed = SessionDescription::parse(offer)?;
        let view = media_view(&parsed);
        self.caller = Some(Box::new(parsed));
        let answer = self.answer_as_service(plan);
        self.caller = None;
        Ok(Carried { sdp: answer?.0, offer: None, view })
    }

    /// Notes the direction a side now asks for.
    pub(super) fn note_direction(&mut self, side: Side, direction: Direction) {
        match side {
            Side::Caller => self.caller_direction = direction,
            Side::Callee | Side::Engine | Side::Operator => self.callee_direction = direction,
        }
    }
}

/// Two offers that have answered each other.
pub(super) struct Crossed {
    pub(super) to_callee: Bytes,
    pub(super) to_caller: Bytes,
    pub(super) caller_view: Option<AudioView>,
    pub(super) callee_view: Option<AudioView>,
}

/// A description on its way to the other side.
pub(super) struct Carried {
    /// As the other side gets it.
    pub(super) sdp: Bytes,
    /// As it came, if it is an offer whose answer must fit it.
    pub(super) offer: Option<SessionDescription>,
    /// What it says of its sender's media.
    pub(super) view: Option<AudioView>,
}
