//! `[overload]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What happens while more comes than can be done.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overload {
    /// How long a message may wait before new work is refused, in milliseconds; 0 refuses nothing.
    pub target_delay_ms: u32,
    /// Who is refused is asked to come again after this, in seconds.
    pub retry_after_s: u32,
}

impl Default for Overload {
    fn default() -> Self {
        Self { target_delay_ms: 100, retry_after_s: 3 }
    }
}

impl Overload {
    /// How long a message may wait before new work is refused.
    pub fn target_delay(&self) -> Duration {
        Duration::from_millis(self.target_delay_ms.into())
    }

    /// When who is refused is asked to come again.
    pub fn retry_after(&self) -> Duration {
        Duration::from_secs(self.retry_after_s.into())
    }
}
