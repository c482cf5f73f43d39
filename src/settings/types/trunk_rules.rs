//! What a trunk changes of the calls that cross it, and the named sets of its timers.

use std::time::Duration;

use serde::Deserialize;

/// A set of timers by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimerPreset {
    /// For UDP and TCP: T1 500 ms, T2 4 s, connect 3.5 s, 10 and 6 retransmissions, re-INVITE 750 ms.
    Unsecured,
    /// For TLS: T1 500 ms, T2 1 s, connect 2 s, 4 and 3 retransmissions, re-INVITE 750 ms.
    Tls,
}

/// The figures of a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerFigures {
    /// RFC 3261 T1.
    pub t1: Duration,
    /// RFC 3261 T2.
    pub t2: Duration,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// The most retransmissions of a request that is no INVITE.
    pub max_packet_retries: u32,
    /// The most retransmissions of an INVITE.
    pub max_invite_retries: u32,
    /// The wait before a re-INVITE that crossed another is sent again.
    pub reinvite_delay: Duration,
}

impl TimerPreset {
    /// Its figures.
    pub fn figures(self) -> TimerFigures {
        let ms = Duration::from_millis;
        let (t2, connect, max_packet_retries, max_invite_retries) = match self {
            TimerPreset::Unsecured => (4000, 3500, 10, 6),
            TimerPreset::Tls => (1000, 2000, 4, 3),
        };
        TimerFigures {
            t1: ms(500),
            t2: ms(t2),
            connect_timeout: ms(connect),
            max_packet_retries,
            max_invite_retries,
            reinvite_delay: ms(750),
        }
    }
}

/// Which calls of a trunk a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleDirection {
    /// Those that come by it.
    In,
    /// Those that leave by it.
    Out,
}

/// Whose number a rule changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleParty {
    /// Who is called.
    Called,
    /// Who calls.
    Calling,
}

/// A rule for numbers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberRule {
    /// Which calls.
    pub direction: RuleDirection,
    /// Whose number.
    pub party: RuleParty,
    /// How a number begins that it fits.
    #[serde(default)]
    pub begins: String,
    /// How long a number is that it fits; `None`: of any length.
    #[serde(default)]
    pub length: Option<u32>,
    /// How many characters are taken away in front.
    #[serde(default)]
    pub strip: u32,
    /// What is put in their place.
    #[serde(default)]
    pub prefix: String,
}

/// A rule that writes a header.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderRule {
    /// Which calls.
    pub direction: RuleDirection,
    /// The header.
    pub header: String,
    /// Its value, with what the caller's INVITE says in the places in braces.
    pub value: String,
}
