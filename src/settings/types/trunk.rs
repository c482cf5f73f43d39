//! `[[trunk]]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HeaderRule, Listen, MediaPath, NumberRule, TimerPreset, Transport};
use crate::settings::values::{CodeRange, Codec, HostPort, NumberMask, Secret, Source, number_mask};

/// How the next of several is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// The first that is up, in the order of the list.
    #[default]
    Priority,
    /// Each in turn.
    RoundRobin,
}

/// Whether an outbound INVITE, or a re-INVITE, carries an offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaTiming {
    /// The offer is in the INVITE (early offer).
    #[default]
    Normal,
    /// The offer is in the answer to it (delayed offer, RFC 3261 §13.2.1).
    Delayed,
}

/// What a redirection (3xx) does to a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Redirect {
    /// The call goes on to its contacts.
    #[default]
    Follow,
    /// The caller gets it.
    Pass,
}

/// Whether media is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Srtp {
    /// RTP only.
    #[default]
    Off,
    /// SRTP is offered, RTP is accepted.
    Offered,
    /// SRTP only.
    Required,
}

/// A line to another SIP server.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// What the dial plan, logs and metrics call it.
    pub name: String,
    /// The listener it is bound to; `None`: the first of its transport.
    #[serde(default)]
    pub listen: Option<String>,
    /// How SIP is carried; `None`: as its listener does.
    #[serde(default)]
    pub transport: Option<Transport>,
    /// Where its calls are sent.
    #[serde(default)]
    pub proxies: Vec<HostPort>,
    /// The share of each proxy in the calls, in their order; one that has none has 1.
    #[serde(default)]
    pub weights: Vec<u16>,
    /// Where its calls are sent, by DNS (RFC 3263), instead of `proxies`.
    #[serde(default)]
    pub domain: Option<String>,
    /// Whom the certificates of its far end are for; empty: for `domain`, or for the names and addresses in `proxies`.
    #[serde(default)]
    pub certificate_names: Vec<String>,
    /// Where its calls come from, besides its proxies.
    #[serde(default)]
    pub accept_from: Vec<Source>,
    /// What its callers may dial; `None`: the partition `internal` only.
    #[serde(default)]
    pub calling_search_space: Option<String>,
    /// The site it belongs to.
    #[serde(default)]
    pub location: Option<String>,
    /// How a proxy is chosen.
    #[serde(default)]
    pub selection: Selection,
    /// RFC 3261 T1 in milliseconds; `None`: its listener's.
    #[serde(default)]
    pub t1_ms: Option<u32>,
    /// RFC 3261 T2 in milliseconds; `None`: its listener's.
    #[serde(default)]
    pub t2_ms: Option<u32>,
    /// How long a proxy may be silent, in milliseconds; see [`timers`](Self::timers).
    #[serde(default)]
    pub connect_timeout_ms: Option<u32>,
    /// How long a proxy may send nothing after 100, in milliseconds; see [`timers`](Self::timers).
    #[serde(default = "ten_thousand")]
    pub progress_timeout_ms: u32,
    /// The most retransmissions of a request that is no INVITE; see [`timers`](Self::timers).
    #[serde(default)]
    pub max_packet_retries: Option<u32>,
    /// The most retransmissions of an INVITE; see [`timers`](Self::timers).
    #[serde(default)]
    pub max_invite_retries: Option<u32>,
    /// The wait before a re-INVITE that crossed another is sent again, in milliseconds; `None`: as RFC 3261 §14.1 says.
    #[serde(default)]
    pub reinvite_delay_ms: Option<u32>,
    /// The set of timers that it has where it says none itself.
    #[serde(default)]
    pub timer_preset: Option<TimerPreset>,
    /// The answers after which the next proxy is tried.
    #[serde(default = "retryable")]
    pub retryable_codes: Vec<CodeRange>,
    /// The interval of OPTIONS to its proxies, in seconds; see [`qualify_interval`](Self::qualify_interval).
    #[serde(default)]
    pub qualify_interval_s: u32,
    /// The most calls at once; 0 is no limit.
    #[serde(default)]
    pub max_calls: u32,
    /// How many of `max_calls` only emergency calls may have.
    #[serde(default)]
    pub emergency_channels: u32,
    /// The most new calls within any second; 0 is no limit.
    #[serde(default)]
    pub max_new_calls_per_s: u32,
    /// Whether its proxies are asked what they can take, and heeded (RFC 7339).
    #[serde(default = "yes")]
    pub overload_control: bool,
    /// Whether its callers may dial international numbers, and redirections by it lead to them.
    #[serde(default)]
    pub international: bool,
    /// Whether it belongs to the trust domain of RFC 3325.
    #[serde(default)]
    pub trusted: bool,
    /// What a redirection by it does to a call.
    #[serde(default)]
    pub redirect: Redirect,
    /// Addresses besides our own that a followed redirection may lead to.
    #[serde(default)]
    pub redirect_to: Vec<Source>,
    /// What its far end sees of the caller's number.
    #[serde(default, deserialize_with = "number_mask")]
    pub calling_party_mask: Option<NumberMask>,
    /// What becomes of numbers that cross it: the first rule that fits.
    #[serde(default)]
    pub number_rules: Vec<NumberRule>,
    /// Headers that are written into INVITEs.
    #[serde(default)]
    pub header_rules: Vec<HeaderRule>,
    /// Whether its Diversion is believed (RFC 5806).
    #[serde(default)]
    pub diversion_in: bool,
    /// Whether it is told who has diverted a call, by Diversion.
    #[serde(default)]
    pub diversion_out: bool,
    /// Whether its History-Info is believed (RFC 7044).
    #[serde(default)]
    pub history_info_in: bool,
    /// Whether it is told the history of a call, by History-Info.
    #[serde(default)]
    pub history_info_out: bool,
    /// Whether it may subscribe to presence (RFC 3856).
    #[serde(default)]
    pub accept_presence: bool,
    /// Whether it may send REFER outside a dialog (RFC 3515).
    #[serde(default)]
    pub accept_refer: bool,
    /// Whether it may send NOTIFY without a subscription.
    #[serde(default)]
    pub accept_unsolicited_notify: bool,
    /// Whether its INVITEs may replace a call (RFC 3891).
    #[serde(default)]
    pub accept_replaces: bool,
    /// The codecs offered, best first; empty: those of its location.
    #[serde(default)]
    pub codecs: Vec<Codec>,
    /// Whether its audio crosses the engine.
    #[serde(default)]
    pub media: MediaPath,
    /// Whether an outbound INVITE carries an offer.
    #[serde(default)]
    pub media_timing: MediaTiming,
    /// Whether a re-INVITE to it carries an offer.
    #[serde(default)]
    pub reinvite_media_timing: MediaTiming,
    /// Whether media is encrypted.
    #[serde(default)]
    pub srtp: Srtp,
    /// The DSCP of its SIP packets (RFC 2474), from 0 to 63; `None`: as the system does.
    #[serde(default)]
    pub dscp: Option<u8>,
    /// The user that answers its digest challenges.
    #[serde(default)]
    pub username: Option<String>,
    /// The password that answers its digest challenges.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Whether its calls are recorded.
    #[serde(default)]
    pub record: bool,
}

/// The timers of a trunk as they apply, its listener and transport taken into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrunkTimers {
    /// RFC 3261 T1.
    pub t1: Duration,
    /// RFC 3261 T2.
    pub t2: Duration,
    /// How long a proxy may send nothing at all before the next is tried: 3.5 s, over TLS 2 s.
    pub connect_timeout: Duration,
    /// How long a proxy may send nothing further after 100 before the next is tried.
    pub progress_timeout: Duration,
    /// The most retransmissions of a request that is no INVITE: 10, over TLS 4.
    pub max_packet_retries: u32,
    /// The most retransmissions of an INVITE: 6, over TLS 3.
    pub max_invite_retries: u32,
    /// The wait before a re-INVITE that crossed another is sent again; `None`: as RFC 3261 §14.1 says.
    pub reinvite_delay: Option<Duration>,
}

impl Trunk {
    /// The timers, with `listen` the listener it is bound to.
    pub fn timers(&self, listen: &Listen) -> TrunkTimers {
        let milliseconds = |value: u32| Duration::from_millis(value.into());
        let secure = self.transport.unwrap_or(listen.transport).is_secure();
        let of_transport = if secure { TimerPreset::Tls } else { TimerPreset::Unsecured };
        let figures = self.timer_preset.unwrap_or(of_transport).figures();
        // Only who names a set wants all of it: else T1 and T2 are the listener's.
        let named = self.timer_preset.map(|_| figures);
        TrunkTimers {
            t1: self.t1_ms.map_or_else(|| named.map_or_else(|| listen.t1(), |n| n.t1), milliseconds),
            t2: self.t2_ms.map_or_else(|| named.map_or_else(|| listen.t2(), |n| n.t2), milliseconds),
            connect_timeout: self.connect_timeout_ms.map_or(figures.connect_timeout, milliseconds),
            progress_timeout: milliseconds(self.progress_timeout_ms),
            max_packet_retries: self.max_packet_retries.unwrap_or(figures.max_packet_retries),
            max_invite_retries: self.max_invite_retries.unwrap_or(figures.max_invite_retries),
            reinvite_delay: self.reinvite_delay_ms.map(milliseconds).or(named.map(|n| n.reinvite_delay)),
        }
    }

    /// Whether an answer with `code` makes a call try the next proxy.
    pub fn is_retryable(&self, code: u16) -> bool {
        self.retryable_codes.iter().any(|range| range.contains(code))
    }

    /// The interval of OPTIONS to its proxies; `None`: none are sent.
    pub fn qualify_interval(&self) -> Option<Duration> {
        (self.qualify_interval_s > 0).then(|| Duration::from_secs(self.qualify_interval_s.into()))
    }
}

fn yes() -> bool {
    true
}

fn ten_thousand() -> u32 {
    10_000
}

fn retryable() -> Vec<CodeRange> {
    vec![CodeRange { first: 480, last: 480 }, CodeRange { first: 500, last: 599 }]
}
