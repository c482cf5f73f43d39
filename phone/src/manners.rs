//! What a phone has beyond RFC 3261.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a phone goes about what not every phone has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manners {
    /// Reliable provisional responses, RFC 3262.
    pub reliable: Reliability,
    /// Its PRACK makes an offer again where it owes no answer (RFC 3262 section 5).
    pub offers_in_prack: bool,
    /// Session timers, RFC 4028; `None`: it has none.
    pub timer: Option<SessionTimers>,
    /// It takes UPDATE (RFC 3311), and says so.
    pub updates: bool,
    /// How long it thinks about a re-INVITE before it answers; zero: not at all.
    pub ponders: Duration,
}

impl Default for Manners {
    /// A phone that has UPDATE and nothing else.
    fn default() -> Manners {
        Manners {
            reliable: Reliability::None,
            offers_in_prack: false,
            timer: None,
            updates: true,
            ponders: Duration::ZERO,
        }
    }
}

/// What a phone makes of RFC 3262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reliability {
    /// It has never heard of it.
    #[default]
    None,
    /// It says that it has it, and uses it for what carries a description.
    Supported,
    /// It requires it of whoever it calls, and of whoever calls it.
    Required,
}

/// What a phone wants of session timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTimers {
    /// The interval that it asks for, and the longest that it grants, seconds; at least 90.
    pub interval: u32,
    /// The shortest that it takes, seconds; at least 90.
    pub min_se: u32,
    /// Who is to refresh, where the phone has a say.
    pub refresher: Option<Refresher>,
    /// It refreshes by UPDATE without a description where the peer takes that, else by re-INVITE.
    pub by_update: bool,
}

/// Who refreshes, RFC 4028 section 4: the sender of the request or of its 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refresher {
    /// Whoever sends the request.
    Uac,
    /// Whoever answers it.
    Uas,
}

impl Refresher {
    /// As the parameter of Session-Expires has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Refresher::Uac => "uac",
            Refresher::Uas => "uas",
        }
    }
}
