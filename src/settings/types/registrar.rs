//! `[registrar]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What devices that register are granted.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registrar {
    /// The shortest interval of a registration, in seconds; less is refused with 423 (RFC 3261 §10.3).
    pub min_expires_s: u32,
    /// The longest interval of a registration, in seconds; more is shortened.
    pub max_expires_s: u32,
    /// The interval of a registration that asks for none, in seconds.
    pub default_expires_s: u32,
    /// Whether a `Path` is taken from a device that does not say that it knows it (RFC 3327 §5.3).
    pub accept_path_without_support: bool,
}

impl Default for Registrar {
    fn default() -> Self {
        Self {
            min_expires_s: 60,
            max_expires_s: 86_400,
            default_expires_s: 3_600,
            accept_path_without_support: false,
        }
    }
}

impl Registrar {
    /// The shortest interval.
    pub fn min_expires(&self) -> Duration {
        Duration::from_secs(self.min_expires_s.into())
    }

    /// The longest interval.
    pub fn max_expires(&self) -> Duration {
        Duration::from_secs(self.max_expires_s.into())
    }

    /// The interval of a registration that asks for none.
    pub fn default_expires(&self) -> Duration {
        Duration::from_secs(self.default_expires_s.into())
    }
}
