//! `[[registration_group]]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Transport;
use crate::settings::values::{HostPort, Secret};

/// From where calls to an account come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallsFrom {
    /// The account's registrars, and whoever is the trunk by its settings.
    #[default]
    Registrar,
    /// Whoever knows the Contact that was registered.
    Anyone,
}

/// Registrations of ours at other servers, in order: the next is used when one fails.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrationGroup {
    /// Its name.
    pub name: String,
    /// The registrations in order.
    pub registrations: Vec<Registration>,
    /// The trunk by which calls to the account come and its own leave; `None`: the one that a registration is at.
    #[serde(default)]
    pub trunk: Option<String>,
    /// From where calls to the account are taken.
    #[serde(default)]
    pub calls_from: CallsFrom,
    /// How many of them hold at once.
    #[serde(default = "one")]
    pub active: u32,
    /// How long one that has failed must hold again before it is used in place of a later one, in seconds; see
    /// [`return_after`](Self::return_after).
    #[serde(default = "sixty")]
    pub return_after_s: u32,
    /// The first wait after a failure, before doubling, in seconds; see [`retry`](Self::retry).
    #[serde(default = "thirty")]
    pub retry_s: u32,
    /// The longest wait after a failure, in seconds.
    #[serde(default = "three_hundred")]
    pub max_retry_s: u32,
    /// Whether it unregisters when the daemon ends.
    #[serde(default = "yes")]
    pub unregister_on_stop: bool,
}

impl RegistrationGroup {
    /// How long one that has failed must hold again before it is used in place of a later one.
    pub fn return_after(&self) -> Duration {
        Duration::from_secs(self.return_after_s.into())
    }

    /// The first and the longest wait after a failure.
    pub fn retry(&self) -> (Duration, Duration) {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        (seconds(self.retry_s), seconds(self.max_retry_s))
    }
}

/// One registration: at exactly one of a trunk, an address, a proxy or a domain.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// A trunk, whose proxies, transport and credentials are used.
    #[serde(default)]
    pub trunk: Option<String>,
    /// A registrar.
    #[serde(default)]
    pub address: Option<HostPort>,
    /// A proxy that a REGISTER is sent through.
    #[serde(default)]
    pub proxy: Option<HostPort>,
    /// A domain whose registrar DNS tells (RFC 3263).
    #[serde(default)]
    pub domain: Option<String>,
    /// How SIP is carried; not with `trunk`, which says it. `None`: UDP.
    #[serde(default)]
    pub transport: Option<Transport>,
    /// Another address of `proxy`, for a site that cannot reach the first.
    #[serde(default)]
    pub alternate_address: Option<HostPort>,
    /// The user that is registered; `None`: the trunk's.
    #[serde(default)]
    pub username: Option<String>,
    /// The password that answers challenges; `None`: the trunk's.
    #[serde(default)]
    pub password: Option<Secret>,
    /// The domain of the account; `None`: where it is at.
    #[serde(default)]
    pub account_domain: Option<String>,
    /// What the dial plan is asked for when the account is called; `None`: whom To names.
    #[serde(default)]
    pub number: Option<String>,
    /// How long a registration is asked to hold, in seconds; see [`expires`](Self::expires).
    #[serde(default = "an_hour")]
    pub expires_s: u32,
}

impl Registration {
    /// How long a registration is asked to hold.
    pub fn expires(&self) -> Duration {
        Duration::from_secs(self.expires_s.into())
    }
}

fn an_hour() -> u32 {
    3600
}

fn one() -> u32 {
    1
}

fn thirty() -> u32 {
    30
}

fn sixty() -> u32 {
    60
}

fn three_hundred() -> u32 {
    300
}

fn yes() -> bool {
    true
}
