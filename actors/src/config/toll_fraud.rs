//! What keeps a stolen password, or an open door, from becoming a bill.

use tandem_protocol::toll_fraud::{International, Thresholds};

/// What counts as international, and from when on a rise of calls is sudden.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TollFraud {
    /// The numbers that are international.
    pub international: International,
    /// When a station suddenly has too many outside calls.
    pub stations: Thresholds,
    /// When a trunk has.
    pub trunks: Thresholds,
    /// Whether a station that suddenly has too many gets no more of them until it no longer has; a trunk always does.
    pub block: bool,
}

impl TollFraud {
    /// True if outside calls are like any other.
    pub fn is_off(&self) -> bool {
        self.international.is_empty() && self.stations.is_off() && self.trunks.is_off()
    }
}

/// What a station may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StationToll {
    /// New calls it may make in a minute; 0: any number.
    pub max_new_calls_per_min: u32,
    /// Whether it may dial international numbers.
    pub international: bool,
}
