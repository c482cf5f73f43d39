//! Call detail records: one for each call attempt that passed authentication and admission.

use serde::{Deserialize, Serialize};
use tandem_protocol::time::UnixMillis;

/// One try of one proxy of a trunk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The trunk.
    #[serde(default)]
    pub trunk: String,
    /// The proxy's address; empty if the trunk had no place for the call, so that none was tried.
    pub proxy: String,
    /// How it ended: a SIP status, `timeout`, `transport`, `cancelled`, `answered`, or `limit` if the trunk has `max_calls` calls.
    pub cause: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// What one leg's media session counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LegMedia {
    /// The codec's name, e.g. `PCMU`.
    pub codec: String,
    /// RTP packets sent to the leg.
    pub tx: u64,
    /// RTP packets received from the leg.
    pub rx: u64,
    /// Packets that never came (RFC 3550 A.3).
    pub lost: i64,
    /// Interarrival jitter in milliseconds (RFC 3550 A.8).
    pub jitter_ms: f32,
    /// Estimated mean opinion score, 1 to 4.5 (E-model).
    pub mos: f32,
}

/// Somebody took the place of a side of the call (RFC 3891).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Replacement {
    /// Whose place: `caller` or `callee`.
    pub side: String,
    /// Who is there since: `station:NAME` or `trunk:NAME`.
    pub by: String,
    /// The user of his From.
    pub from: String,
    /// When his INVITE was accepted.
    pub time: UnixMillis,
}

/// A call detail record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cdr {
    /// The engine's own id of the call, the same in log, events and API.
    pub call_id: String,
    /// Counts the records of one call, from 1.
    pub segment: u32,
    /// The caller: a station's name or the caller number.
    pub from: String,
    /// The trunk the call came by, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_trunk: Option<String>,
    /// What was dialled.
    pub to: String,
    /// The trunk the call left by, if any.
    pub trunk: Option<String>,
    /// The proxy of that trunk that took it.
    pub proxy: Option<String>,
    /// When the INVITE was admitted.
    pub start: UnixMillis,
    /// When it was answered.
    pub answer: Option<UnixMillis>,
    /// When it ended.
    pub end: UnixMillis,
    /// Seconds from answer to end, with milliseconds.
    pub duration_s: f64,
    /// Why it ended: `normal`, `busy`, `no_answer`, `abandoned`, `rejected`, `rtp_timeout`, `fault`, `restart` ...
    pub cause: String,
    /// The final status the caller's INVITE got; 0 if the caller never got one.
    pub sip_status: u16,
    /// Who ended it: `caller`, `callee`, `engine` or `operator`.
    pub ended_by: String,
    /// The trunks and proxies tried, in order.
    pub attempts: Vec<Attempt>,
    /// Media of each leg, the caller's first.
    pub legs: Vec<LegMedia>,
    /// Who has taken the place of a side, in order; `from` and `to` are as the call began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<Replacement>,
    /// True when the answer left before its checkpoint was committed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unprotected: bool,
    /// True for an emergency call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emergency: bool,
    /// Where the recording is, if the call was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
}
