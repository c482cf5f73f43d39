//! `[node]` and `[http]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::settings::values::{BindAddress, DigestAlgorithm, Secret};

/// The process as a whole.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// The name of this node in logs, metrics and the cluster.
    pub name: String,
    /// The directory of everything that must last: store, CDRs, token, recordings.
    pub data_dir: PathBuf,
    /// Host names that are ours in a request, besides every address listened on.
    pub domains: Vec<String>,
    /// The realm of digest challenges (RFC 3261 §22.1); see [`Settings::realm`](crate::settings::Settings::realm).
    pub realm: Option<String>,
    /// What requests are challenged with, whoever sends them: the preferred first (RFC 8760 §2.4).
    pub digest_algorithms: Vec<DigestAlgorithm>,
    /// The SIP messages kept for `tandem why --sip`, in MiB for each shard; the oldest go first.
    pub sip_trace_mb: u32,
    /// The threads that carry calls; 0 is one for each core.
    pub shards: u32,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: "tandem".to_owned(),
            data_dir: PathBuf::from("data"),
            domains: Vec::new(),
            realm: None,
            digest_algorithms: vec![DigestAlgorithm::Md5],
            sip_trace_mb: 8,
            shards: 0,
        }
    }
}

impl Node {
    /// The size of one shard's ring of SIP messages, in bytes.
    pub fn sip_trace_bytes(&self) -> usize {
        usize::try_from(self.sip_trace_mb).unwrap_or(usize::MAX).saturating_mul(1024 * 1024)
    }
}

/// The HTTP surface: metrics, health, API and events.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where it listens.
    pub address: BindAddress,
    /// The bearer tokens the API accepts; empty: the one of [`token`](crate::settings::token).
    pub tokens: Vec<Secret>,
}

impl Default for Http {
    fn default() -> Self {
        Self { address: BindAddress(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))), tokens: Vec::new() }
    }
}
