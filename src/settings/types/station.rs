//! `[[station]]`, `[[user]]` and `[[service]]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{MediaPath, Redirect, internal};
use crate::settings::values::{ConnectionAddress, NumberMask, Secret, number_mask};

/// A device that registers, or is reached at a fixed address.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Station {
    /// Its name, which is also the user of its address of record and of its digest.
    pub name: String,
    /// The number it is dialled by.
    pub extension: String,
    /// The password of its digest in clear; see [`credential`](Self::credential).
    #[serde(default)]
    pub password: Option<Secret>,
    /// MD5 of `name:realm:password` in hexadecimal (RFC 7616 §3.4.2).
    #[serde(default)]
    pub ha1_md5: Option<Secret>,
    /// SHA-256 of `name:realm:password` in hexadecimal (RFC 7616 §3.4.2).
    #[serde(default)]
    pub ha1_sha256: Option<Secret>,
    /// The partition its extension is in.
    #[serde(default = "internal")]
    pub partition: String,
    /// What it may dial; `None`: the partition `internal` only.
    #[serde(default)]
    pub calling_search_space: Option<String>,
    /// The site it stands at.
    #[serde(default)]
    pub location: Option<String>,
    /// Whether its audio crosses the engine.
    #[serde(default)]
    pub media: MediaPath,
    /// The most contacts registered at once; a further one replaces the oldest.
    #[serde(default = "ten")]
    pub max_contacts: u32,
    /// Where a device that never registers is reached: `[user@]host[:port]`, or a user alone.
    #[serde(default)]
    pub connection_address: Option<ConnectionAddress>,
    /// The trunk whose proxies complete a connection address that is a user alone; `None`: the only trunk there is.
    #[serde(default)]
    pub trunk: Option<String>,
    /// Whether the user part of From alone identifies it, whatever the host.
    #[serde(default)]
    pub identify_by_user_only: bool,
    /// Whether the device is asked to answer by itself (RFC 5373).
    #[serde(default)]
    pub auto_answer: bool,
    /// Whether its calls are recorded.
    #[serde(default)]
    pub record: bool,
    /// What a redirection by it does to a call.
    #[serde(default)]
    pub redirect: Redirect,
    /// How long a call rings at it, in seconds; see [`ring_timeout`](Self::ring_timeout).
    #[serde(default = "sixty")]
    pub ring_timeout_s: u32,
    /// How long contacts of one q ring before those of the next lower do, in seconds; see
    /// [`fork_timeout`](Self::fork_timeout).
    #[serde(default = "twenty")]
    pub fork_timeout_s: u32,
    /// What trunks show as the number of its calls.
    #[serde(default, deserialize_with = "number_mask")]
    pub external_number_mask: Option<NumberMask>,
    /// The interval of OPTIONS to its contacts, in seconds; see [`qualify_interval`](Self::qualify_interval).
    #[serde(default)]
    pub qualify_interval_s: u32,
    /// The most calls at once; 0 is no limit, `None` that of its calling search space or of `[toll_fraud]`.
    #[serde(default)]
    pub max_calls: Option<u32>,
    /// The most new calls in a minute; 0 is no limit, `None` as above.
    #[serde(default)]
    pub max_new_calls_per_min: Option<u32>,
    /// Whether it may dial international numbers; `None` as above.
    #[serde(default)]
    pub international: Option<bool>,
}

/// What a station proves its name with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// The password in clear.
    Password(&'a Secret),
    /// H(A1) for MD5, in hexadecimal as it was written.
    Ha1Md5(&'a Secret),
    /// H(A1) for SHA-256, in hexadecimal as it was written.
    Ha1Sha256(&'a Secret),
}

impl Station {
    /// The one credential that validation allows; `None`: the station cannot register.
    pub fn credential(&self) -> Option<Credential<'_>> {
        let password = self.password.as_ref().map(Credential::Password);
        let md5 = self.ha1_md5.as_ref().map(Credential::Ha1Md5);
        let sha256 = self.ha1_sha256.as_ref().map(Credential::Ha1Sha256);
        password.or(md5).or(sha256)
    }

    /// How long a call rings at it before it counts as unanswered.
    pub fn ring_timeout(&self) -> Duration {
        Duration::from_secs(self.ring_timeout_s.into())
    }

    /// How long contacts of one q ring before those of the next lower do; zero: until they have failed.
    pub fn fork_timeout(&self) -> Duration {
        Duration::from_secs(self.fork_timeout_s.into())
    }

    /// The interval of OPTIONS to its contacts; `None`: none are sent.
    pub fn qualify_interval(&self) -> Option<Duration> {
        (self.qualify_interval_s > 0).then(|| Duration::from_secs(self.qualify_interval_s.into()))
    }
}

fn ten() -> u32 {
    10
}

fn twenty() -> u32 {
    20
}

fn sixty() -> u32 {
    60
}

/// A person, who is reached at the station they are logged in at.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Their name.
    pub name: String,
    /// The number they are dialled by, in the partition `internal`.
    pub extension: String,
    /// The station that rings when they are logged in nowhere.
    #[serde(default)]
    pub default_station: Option<String>,
    /// The number shown to the far end of their outbound calls.
    #[serde(default)]
    pub outbound_ani: Option<String>,
    /// How long a call rings for them, in seconds; see [`alert_timeout`](Self::alert_timeout).
    #[serde(default = "sixty")]
    pub alert_timeout_s: u32,
}

impl User {
    /// How long a call rings for them before it counts as unanswered.
    pub fn alert_timeout(&self) -> Duration {
        Duration::from_secs(self.alert_timeout_s.into())
    }
}

/// What a service does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// Sends the caller's audio back.
    Echo,
    /// Plays a steady test tone.
    Tone,
}

/// Something of the engine's own that can be dialled.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What the dial plan calls it.
    pub name: String,
    /// What it does.
    pub kind: ServiceKind,
    /// The number it is dialled by, in the partition `internal`.
    pub extension: String,
}

impl Service {
    /// The services that exist unless a settings file has one of the same name.
    pub(crate) fn built_in() -> [Self; 2] {
        let service = |name: &str, kind, extension: &str| Self {
            name: name.to_owned(),
            kind,
            extension: extension.to_owned(),
        };
        [service("echo", ServiceKind::Echo, "*43"), service("tone", ServiceKind::Tone, "*44")]
    }
}
