//! The end of a call: every leg is told, every leg is waited for.

use serde::{Deserialize, Serialize};

use super::replaces::DECLINED;
use super::{CALLER, CLEARING_PATIENCE, Call, LegId, Output, Phase};
use crate::dialog::{Command, EndedBy};
use crate::time::{Now, UnixMillis};

/// A side of the call, and who else may end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// The caller.
    Caller,
    /// The callee.
    Callee,
    /// We ourselves.
    Engine,
    /// Somebody at the API.
    Operator,
}

impl Side {
    /// The name in the CDR.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Caller => "caller",
            Side::Callee => "callee",
            Side::Engine => "engine",
            Side::Operator => "operator",
        }
    }
}

/// Why a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Answered, and hung up by one side.
    Normal,
    /// 486 or 600.
    Busy,
    /// Rang in vain.
    NoAnswer,
    /// The caller hung up before the answer.
    Abandoned,
    /// Refused by the callee.
    Rejected,
    /// The callee's redirection was handed to the caller.
    Redirected,
    /// Refused by a server, or no server answered.
    Failed,
    /// Nothing by that number.
    NotFound,
    /// The station has no binding.
    NotRegistered,
    /// No common media.
    Media,
    /// A limit of the callee's.
    Limit,
    /// No RTP for too long.
    RtpTimeout,
    /// The answer was never acknowledged.
    NoAck,
    /// The peer has lost the dialog.
    Lost,
    /// Nobody refreshed the session (RFC 4028).
    SessionExpired,
    /// A fault of ours.
    Fault,
    /// Ended at the API.
    Operator,
    /// Found unfinished after a restart.
    Restart,
    /// An international number, for one who may not dial any.
    International,
    /// Whoever pays for it has suddenly had so many calls that they may be somebody else's.
    TollAlarm,
    /// Every proxy that was left wants fewer calls (RFC 7339).
    Overload,
}

impl Cause {
    /// The name in the CDR.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Normal => "normal",
            Cause::Busy => "busy",
            Cause::NoAnswer => "no_answer",
            Cause::Abandoned => "abandoned",
            Cause::Rejected => "rejected",
            Cause::Redirected => "redirected",
            Cause::Failed => "failed",
            Cause::NotFound => "not_found",
            Cause::NotRegistered => "not_registered",
            Cause::Media => "media",
            Cause::Limit => "limit",
            Cause::RtpTimeout => "rtp_timeout",
            Cause::NoAck => "no_ack",
            Cause::Lost => "lost",
            Cause::SessionExpired => "session_expired",
            Cause::Fault => "fault",
            Cause::Operator => "operator",
            Cause::Restart => "restart",
            Cause::International => "international",
            Cause::TollAlarm => "toll_alarm",
            Cause::Overload => "overload",
        }
    }

    /// The result as the metrics count it, for a call that was not answered.
    pub fn result(self) -> &'static str {
        match self {
            Cause::Busy => "busy",
            Cause::NoAnswer | Cause::NotRegistered => "no_answer",
            Cause::Abandoned => "abandoned",
            Cause::Rejected
            | Cause::Redirected
            | Cause::NotFound
            | Cause::Media
            | Cause::Limit
            | Cause::International
            | Cause::TollAlarm
            | Cause::Overload
            | Cause::Operator => "rejected",
            Cause::Normal
            | Cause::Failed
            | Cause::RtpTimeout
            | Cause::NoAck
            | Cause::Lost
            | Cause::SessionExpired
            | Cause::Fault
            | Cause::Restart => "failed",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Why.
    pub cause: Cause,
    /// By whom.
    pub by: Side,
    /// The final status of the caller's INVITE.
    pub status: u16,
    /// When that was decided.
    pub at: UnixMillis,
}

impl Call {
    /// Ends the call. The first verdict stays; `status` goes to a caller that has no answer yet.
    pub(super) fn clear(&mut self, cause: Cause, by: Side, status: u16, now: Now, out: &mut Vec<Output>) {
        if self.verdict.is_some() {
            return;
        }
        let answered = self.phase == Phase::Up && self.answered_at.is_some();
        let final_status = if answered { 200 } else { status };
        self.verdict = Some(Ended { cause, by, status: final_status, at: now.wall });
        self.abandon_attempt(now, out);
        self.phase = Phase::Clearing;
        self.deadline = Some(now.mono + CLEARING_PATIENCE);
        self.reoffer = None;
        let newcomer = self.end_replacing(out);
        if !answered {
            self.answered_at = None;
        }
        let said = self.reason.take();
        let reason = match cause {
            Cause::RtpTimeout => Some("SIP;cause=408;text=\"no RTP\""),
            Cause::Operator => Some("SIP;cause=503;text=\"ended by an operator\""),
            Cause::SessionExpired => Some("SIP;cause=408;text=\"session timer expired\""),
            Cause::Media => Some("SIP;cause=488;text=\"no session agreed\""),
            Cause::Fault => Some("SIP;cause=500;text=\"internal fault\""),
            // A response may have the causes of Q.850 (RFC 6432), here those that RFC 3398 §7.2.4.1 and §8.2.6.1 have for its status.
            Cause::Limit if status == 503 => Some("Q.850;cause=34;text=\"call limit reached\""),
            Cause::Overload => Some("Q.850;cause=42;text=\"the far end is overloaded\""),
            Cause::International => Some("Q.850;cause=21;text=\"international calls are not allowed\""),
            Cause::TollAlarm => Some("Q.850;cause=21;text=\"too many calls of late\""),
            _ => said.as_deref(),
        };
        let legs: Vec<LegId> = self.legs.iter().filter(|leg| !leg.gone).map(|leg| leg.id).collect();
        for leg in legs {
            self.tell_to_end(leg, if newcomer == Some(leg) { DECLINED } else { status }, reason, out);
        }
        self.over_if_clear(now, out);
    }

    pub(super) fn tell_to_end(
        &mut self,
        leg: LegId,
        status: u16,
        reason: Option<&str>,
        out: &mut Vec<Output>,
    ) {
        if let Some(leg) = self.leg_mut(leg) {
            leg.ending = true;
        }
        out.push(Output::Tell(leg, Command::End { status, reason: reason.map(str::to_owned) }));
    }

    /// Why a side is about to end the call: the other side is told (RFC 3326 §2).
    pub(super) fn leg_says_why(&mut self, leg: LegId, reason: &str) {
        if self.is_connected(leg) {
            self.reason = Some(reason.to_owned());
        }
    }

    pub(super) fn caller_cancelled(&mut self, leg: LegId, now: Now, out: &mut Vec<Output>) {
        if self.is_newcomer(leg) {
            return self.newcomer_gone(leg, now, out);
        }
        if leg != CALLER {
            // Who has taken a place, and has not waited for his 200: as if it had crossed his CANCEL.
            return self.leg_ended(leg, EndedBy::Peer, now, out);
        }
        if let Some(leg) = self.leg_mut(leg) {
            leg.gone = true;
        }
        self.clear(Cause::Abandoned, Side::Caller, 487, now, out);
        self.over_if_clear(now, out);
    }

    /// A leg's dialog is over.
    pub(super) fn leg_ended(&mut self, leg: LegId, by: EndedBy, now: Now, out: &mut Vec<Output>) {
        if self.is_newcomer(leg) {
            return self.newcomer_gone(leg, now, out);
        }
        if self.verdict.is_none() && self.replaced_has_left(leg, by) {
            return;
        }
        let concerns = self.is_connected(leg);
        if self.verdict.is_none() && !concerns {
            self.callee_failed(leg, (500, None), None, now, out);
            return self.over_if_clear(now, out);
        }
        match self.leg_mut(leg) {
            Some(leg) if !leg.gone => leg.gone = true,
            // It has said so before: that it failed, or why it would end.
            Some(_) | None => return self.over_if_clear(now, out),
        }
        if self.verdict.is_none() {
            let (cause, side) = self.verdict_of(leg, by);
            // A 2xx that is never acknowledged has left; what was to go before it has not been, and ends the INVITE.
            let status = match by {
                EndedBy::Fault => 500,
                EndedBy::NoAck if self.answered_at.is_none() => 504,
                EndedBy::NoAck
                | EndedBy::Peer
                | EndedBy::Us
                | EndedBy::NoSession
                | EndedBy::Lost
                | EndedBy::SessionExpired => 480,
            };
            self.clear(cause, side, status, now, out);
        }
        self.over_if_clear(now, out);
    }

    /// Why a call ends whose leg has ended so, and by whom.
    pub(super) fn verdict_of(&self, leg: LegId, by: EndedBy) -> (Cause, Side) {
        match by {
            EndedBy::Peer => (Cause::Normal, self.side(leg)),
            EndedBy::Us => (Cause::Fault, Side::Engine),
            EndedBy::NoAck => (Cause::NoAck, Side::Engine),
            EndedBy::NoSession => (Cause::Media, Side::Engine),
            EndedBy::Lost => (Cause::Lost, self.side(leg)),
            EndedBy::SessionExpired => (Cause::SessionExpired, self.side(leg)),
            EndedBy::Fault => (Cause::Fault, Side::Engine),
        }
    }

    pub(super) fn over_if_clear(&mut self, _now: Now, out: &mut Vec<Output>) {
        if self.phase == Phase::Clearing
            && self.legs.iter().all(|leg| leg.gone)
            && let Some(verdict) = self.verdict
        {
            self.phase = Phase::Over;
            self.deadline = None;
            out.push(Output::Over(verdict));
        }
    }

    /// Legs that never said they had ended are not waited for any longer.
    pub(super) fn give_legs_up(&mut self, out: &mut Vec<Output>) {
        for leg in &mut self.legs {
            leg.gone = true;
        }
        self.over_if_clear(Now::default(), out);
    }
}
