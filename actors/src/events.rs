//! Numbered events: what happened, to which call, why.
//!
//! Actors write [`Event`]s without a number; the store's writer numbers them at commit, so the order of the log
//! is the order of its commits and a reader that has seen number `n` never meets a smaller new one.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use smallvec::SmallVec;
use tandem_protocol::time::UnixMillis;

/// What kind of thing happened. The wire names are stable: readers select by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum EventKind {
    /// An authenticated, admitted INVITE became a call.
    #[serde(rename = "call.started")]
    CallStarted,
    /// The far end is alerting.
    #[serde(rename = "call.ringing")]
    CallRinging,
    /// Both sides are connected.
    #[serde(rename = "call.answered")]
    CallAnswered,
    /// Somebody has taken the place of a side of the call (RFC 3891), or has asked for it in vain.
    #[serde(rename = "call.replaced")]
    CallReplaced,
    /// The call is over; `reason` is the CDR's cause.
    #[serde(rename = "call.ended")]
    CallEnded,
    /// The dial plan chose a target.
    #[serde(rename = "route.decided")]
    RouteDecided,
    /// A trunk's proxy was tried.
    #[serde(rename = "trunk.attempt")]
    TrunkAttempt,
    /// A trunk's proxy changed between up and down.
    #[serde(rename = "trunk.state")]
    TrunkState,
    /// A binding was made, refreshed, removed or has expired, or an outbound registration changed.
    #[serde(rename = "registration")]
    Registration,
    /// An actor panicked and was rebuilt, or was ended.
    #[serde(rename = "actor.restarted")]
    ActorRestarted,
    /// A media session refused, lost or missed packets.
    #[serde(rename = "media.fault")]
    MediaFault,
    /// A recording began, ended or failed.
    #[serde(rename = "recording")]
    Recording,
    /// A station or trunk suddenly has too many calls to the outside, or no longer has.
    #[serde(rename = "toll.alarm")]
    TollAlarm,
    /// The settings were reloaded, or a reload was refused.
    #[serde(rename = "settings")]
    Settings,
}

impl EventKind {
    /// The name in the log and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::CallStarted => "call.started",
            EventKind::CallRinging => "call.ringing",
            EventKind::CallAnswered => "call.answered",
            EventKind::CallReplaced => "call.replaced",
            EventKind::CallEnded => "call.ended",
            EventKind::RouteDecided => "route.decided",
            EventKind::TrunkAttempt => "trunk.attempt",
            EventKind::TrunkState => "trunk.state",
            EventKind::Registration => "registration",
            EventKind::ActorRestarted => "actor.restarted",
            EventKind::MediaFault => "media.fault",
            EventKind::Recording => "recording",
            EventKind::TollAlarm => "toll.alarm",
            EventKind::Settings => "settings",
        }
    }
}

/// One fact of an event's `data`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Field {
    /// Text.
    Text(Cow<'static, str>),
    /// A number; its unit is in the fact's name.
    Number(i64),
}

impl From<&'static str> for Field {
    fn from(v: &'static str) -> Self {
        Field::Text(Cow::Borrowed(v))
    }
}
impl From<String> for Field {
    fn from(v: String) -> Self {
        Field::Text(Cow::Owned(v))
    }
}
impl From<i64> for Field {
    fn from(v: i64) -> Self {
        Field::Number(v)
    }
}

/// An event before the writer has numbered it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When it happened.
    pub time: UnixMillis,
    /// The call it happened to, if any.
    pub call_id: Option<Arc<str>>,
    /// What happened.
    pub kind: EventKind,
    /// Why, in words for the person on call.
    pub reason: Cow<'static, str>,
    /// The facts, by name.
    pub data: SmallVec<[(&'static str, Field); 4]>,
}

impl Event {
    /// An event with no facts yet.
    pub fn new(time: UnixMillis, kind: EventKind, reason: impl Into<Cow<'static, str>>) -> Event {
        Event { time, call_id: None, kind, reason: reason.into(), data: SmallVec::new() }
    }

    /// Names the call it happened to.
    #[must_use]
    pub fn of(mut self, call_id: &Arc<str>) -> Event {
        self.call_id = Some(call_id.clone());
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Field>) -> Event {
        self.data.push((name, value.into()));
        self
    }
}
