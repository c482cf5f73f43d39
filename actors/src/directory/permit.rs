//! A place for one call among those that a station or a trunk may have.

use std::sync::Arc;

use super::{StationEntry, TrunkEntry};
use crate::seat::{Hold, Loan, Seat};

/// Whose place a call has.
pub enum PlaceOf {
    /// A station's.
    Station(Arc<StationEntry>),
    /// A trunk's.
    Trunk(Arc<TrunkEntry>),
}

/// A place for one call; given back when dropped, or when the call's shard is fenced.
pub struct Permit {
    of: PlaceOf,
    _hold: Hold,
}

impl Permit {
    pub(super) fn of_station(station: &Arc<StationEntry>, seat: &Arc<Seat>) -> Permit {
        let hold = seat.lend(Loan::Station(station.clone()));
        Permit { of: PlaceOf::Station(station.clone()), _hold: hold }
    }

    pub(super) fn of_trunk(trunk: &Arc<TrunkEntry>, seat: &Arc<Seat>) -> Permit {
        let hold = seat.lend(Loan::Trunk(trunk.clone()));
        Permit { of: PlaceOf::Trunk(trunk.clone()), _hold: hold }
    }

    /// Whose place it is.
    pub fn of(&self) -> &PlaceOf {
        &self.of
    }

    /// Whether it is this station's.
    pub fn is_of_station(&self, name: &str) -> bool {
        match &self.of {
            PlaceOf::Station(station) => *station.config.name == *name,
            PlaceOf::Trunk(_) => false,
        }
    }

    /// The trunk whose place it is.
    pub fn trunk(&self) -> Option<Arc<str>> {
        match &self.of {
            PlaceOf::Station(_) => None,
            PlaceOf::Trunk(trunk) => Some(trunk.config.name.clone()),
        }
    }
}
