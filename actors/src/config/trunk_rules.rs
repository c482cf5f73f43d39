//! What a trunk changes of the calls that cross it, and what it may ask for besides calls.

use std::time::Duration;

use tandem_protocol::header_rules::HeaderRule;
use tandem_protocol::number_rules::NumberRule;

/// What a trunk changes of the calls that cross it, and what it may ask for besides calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrunkRules {
    /// Numbers.
    pub numbers: Vec<NumberRule>,
    /// Headers.
    pub headers: Vec<HeaderRule>,
    /// Whether its Diversion is believed (RFC 5806).
    pub diversion_in: bool,
    /// Whether it is told who has diverted a call, by Diversion.
    pub diversion_out: bool,
    /// Whether its History-Info is believed (RFC 7044).
    pub history_info_in: bool,
    /// Whether it is told the history of a call, by History-Info.
    pub history_info_out: bool,
    /// What it may ask for besides calls.
    pub accept: Accept,
    /// The wait before a re-INVITE that crossed another is sent again; `None`: as RFC 3261 §14.1 says.
    pub reinvite_delay: Option<Duration>,
    /// Whether re-INVITEs to it leave without an offer, for it to make it.
    pub reinvite_delayed: bool,
    /// Whether its callers may dial international numbers, and redirections by it lead to them.
    pub international: bool,
    /// Whether its proxies are asked what they can take, and heeded (RFC 7339).
    pub overload_control: bool,
    /// The DSCP of SIP packets to it (RFC 2474); `None`: as the system does.
    pub dscp: Option<u8>,
}

/// What a trunk may ask for besides calls; each is refused plainly where it may not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// Subscriptions to presence (RFC 3856).
    pub presence: bool,
    /// REFER outside a dialog (RFC 3515).
    pub refer: bool,
    /// NOTIFY that nobody has subscribed to.
    pub unsolicited_notify: bool,
    /// INVITEs that take the place of a call (RFC 3891).
    pub replaces: bool,
}
