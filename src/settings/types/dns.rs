//! `[dns]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::settings::values::HostPort;

/// Whom the names of `trunk.proxies` and `trunk.domain` are asked of, and how long answers are good.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// The servers in order; empty: those of /etc/resolv.conf.
    pub servers: Vec<HostPort>,
    /// How long one server is waited for, in milliseconds.
    pub timeout_ms: u32,
    /// How often each server is asked before a question is given up for a while.
    pub attempts: u32,
    /// No answer is asked for again sooner, in seconds.
    pub min_ttl_s: u32,
    /// Every answer is asked for again after this, in seconds.
    pub max_ttl_s: u32,
    /// So is the answer that there is none (RFC 2308), in seconds.
    pub max_negative_ttl_s: u32,
    /// How long an answer is used beyond its time to live while no server answers (RFC 8767), in seconds.
    pub max_stale_s: u32,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout_ms: 2000,
            attempts: 2,
            min_ttl_s: 1,
            max_ttl_s: 3600,
            max_negative_ttl_s: 3600,
            max_stale_s: 86_400,
        }
    }
}

impl Dns {
    /// How long one server is waited for.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }
}
