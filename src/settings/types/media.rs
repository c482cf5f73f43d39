//! `[media]`, `[[media_pool]]` and `[[location]]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::settings::values::{Codec, Ip, PortRange};

/// Whether audio crosses the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaPath {
    /// Audio crosses the engine.
    #[default]
    Anchored,
    /// Audio goes from end to end where nothing needs it here.
    Bypass,
}

/// Audio.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// The local addresses of RTP; empty: the one the call's signalling uses.
    pub addresses: Vec<Ip>,
    /// What SDP says instead of the local address, if there is a NAT between.
    pub external_address: Option<Ip>,
    /// The UDP ports of RTP and RTCP, leased in pairs.
    pub ports: PortRange,
    /// The threads that carry packets; 0 is one for each core.
    pub workers: u32,
    /// Where recordings go; see [`Settings::recording_dir`](crate::settings::Settings::recording_dir).
    pub recording_dir: Option<PathBuf>,
    /// How long a leg may send nothing, in seconds; see [`rtp_timeout`](Self::rtp_timeout).
    pub rtp_timeout_s: u32,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            external_address: None,
            ports: PortRange { first: 20000, last: 39999 },
            workers: 0,
            recording_dir: None,
            rtp_timeout_s: 60,
        }
    }
}

impl Media {
    /// How long a leg may send no packet before its call is ended; `None`: for ever.
    pub fn rtp_timeout(&self) -> Option<Duration> {
        (self.rtp_timeout_s > 0).then(|| Duration::from_secs(self.rtp_timeout_s.into()))
    }
}

/// Local addresses of RTP that locations choose by name.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MediaPool {
    /// What locations call it.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<Ip>,
}

/// A site: which codecs are used there and which addresses carry its audio.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// What stations and trunks call it.
    pub name: String,
    /// The codecs offered, best first; empty: those of the engine.
    #[serde(default)]
    pub codecs: Vec<Codec>,
    /// The media pool its audio goes through; `None`: `[media]`.
    #[serde(default)]
    pub media_pool: Option<String>,
}
