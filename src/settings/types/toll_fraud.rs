//! `[toll_fraud]`.

use serde::{Deserialize, Serialize};

/// What is done about a station that suddenly has too many calls to the outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlarmAction {
    /// It is told; the calls go on.
    #[default]
    Alarm,
    /// It is told, and the station gets no more of them until it no longer has too many.
    Block,
}

/// What keeps a stolen password, or an open door, from becoming a bill.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TollFraud {
    /// How numbers begin that are international.
    pub international_prefixes: Vec<String>,
    /// How those among them begin that are not.
    pub national_prefixes: Vec<String>,
    /// Whether stations may dial international numbers that have no say of their own.
    pub international: bool,
    /// The most calls at once of stations that have no say of their own; 0 is no limit.
    pub max_calls: u32,
    /// The most new calls in a minute of stations that have no say of their own; 0 is no limit.
    pub max_new_calls_per_min: u32,
    /// What is done about a station that suddenly has too many calls.
    pub alarm_action: AlarmAction,
    /// How many times what is usual is too much.
    pub alarm_factor: u32,
    /// Calls of a station to the outside that are never too many, in an hour; 0: they are not looked at.
    pub alarm_station_calls_per_h: u32,
    /// The same in minutes of answered calls.
    pub alarm_station_minutes_per_h: u32,
    /// The same of international calls.
    pub alarm_station_international_calls_per_h: u32,
    /// The same in minutes of them.
    pub alarm_station_international_minutes_per_h: u32,
    /// Calls that leave by a trunk that are never too many, in an hour; 0: they are not looked at.
    pub alarm_trunk_calls_per_h: u32,
    /// The same in minutes of answered calls.
    pub alarm_trunk_minutes_per_h: u32,
    /// The same of international calls.
    pub alarm_trunk_international_calls_per_h: u32,
    /// The same in minutes of them.
    pub alarm_trunk_international_minutes_per_h: u32,
}

impl Default for TollFraud {
    fn default() -> Self {
        Self {
            international_prefixes: ["+", "00", "011"].map(str::to_owned).into(),
            national_prefixes: Vec::new(),
            international: false,
            max_calls: 0,
            max_new_calls_per_min: 0,
            alarm_action: AlarmAction::Alarm,
            alarm_factor: 4,
            alarm_station_calls_per_h: 60,
            alarm_station_minutes_per_h: 240,
            alarm_station_international_calls_per_h: 10,
            alarm_station_international_minutes_per_h: 60,
            alarm_trunk_calls_per_h: 1000,
            alarm_trunk_minutes_per_h: 3000,
            alarm_trunk_international_calls_per_h: 100,
            alarm_trunk_international_minutes_per_h: 300,
        }
    }
}

impl TollFraud {
    /// What is never too much of a station's in an hour: calls, minutes, international calls, minutes of those.
    pub fn station_alarms(&self) -> [u32; 4] {
        [
            self.alarm_station_calls_per_h,
            self.alarm_station_minutes_per_h,
            self.alarm_station_international_calls_per_h,
            self.alarm_station_international_minutes_per_h,
        ]
    }

    /// The same of a trunk's.
    pub fn trunk_alarms(&self) -> [u32; 4] {
        [
            self.alarm_trunk_calls_per_h,
            self.alarm_trunk_minutes_per_h,
            self.alarm_trunk_international_calls_per_h,
            self.alarm_trunk_international_minutes_per_h,
        ]
    }
}
