//! What calls may cost.

use tandem_actors::config::{StationToll, TollFraud};
use tandem_protocol::toll_fraud::{International, Thresholds};

use crate::settings::{AlarmAction, Settings, Station};

pub(super) fn toll_fraud(settings: &Settings) -> TollFraud {
    let toll = &settings.toll_fraud;
    let alarms = |least| Thresholds { factor: toll.alarm_factor, least };
    TollFraud {
        international: international(settings),
        stations: alarms(toll.station_alarms()),
        trunks: alarms(toll.trunk_alarms()),
        block: toll.alarm_action == AlarmAction::Block,
    }
}

/// Which numbers are international.
pub fn international(settings: &Settings) -> International {
    let toll = &settings.toll_fraud;
    International::new(toll.international_prefixes.clone(), toll.national_prefixes.clone())
}

pub(super) fn of_station(settings: &Settings, station: &Station) -> StationToll {
    StationToll {
        max_new_calls_per_min: settings.max_new_calls_per_min_of(station),
        international: settings.may_dial_international(station),
    }
}
