//! `[toll_fraud]`, and what stations and search spaces say otherwise.

use super::Findings;
use crate::settings::Settings;
use crate::settings::problem::KeyPath;

/// More calls in a minute, or in an hour, are no limit.
const MOST: u64 = 1_000_000;

pub(super) fn check(settings: &Settings, findings: &mut Findings<'_>) {
    let path = KeyPath::root().key("toll_fraud");
    let toll = &settings.toll_fraud;
    check_prefixes(&path.key("international_prefixes"), &toll.international_prefixes, findings);
    check_prefixes(&path.key("national_prefixes"), &toll.national_prefixes, findings);
    for (index, prefix) in toll.national_prefixes.iter().enumerate() {
        let path = path.key("national_prefixes").index(index);
        if toll.international_prefixes.contains(prefix) {
            findings.unfit(&path, prefix, "a prefix that is not in international_prefixes too");
        } else if !toll.international_prefixes.iter().any(|longer| prefix.starts_with(longer.as_str())) {
            findings.warn(&path, "has no effect: none of international_prefixes is the beginning of it");
        }
    }
    findings.within(&path.key("alarm_factor"), toll.alarm_factor, 2..=1_000, "times");
    check_rate(&path, toll.max_new_calls_per_min, findings);
    let stations = ["calls", "minutes", "international_calls", "international_minutes"];
    for (who, alarms) in [("station", toll.station_alarms()), ("trunk", toll.trunk_alarms())] {
        for (what, least) in stations.into_iter().zip(alarms) {
            let unit = "an hour, 0 is off";
            findings.within(&path.raw_key(&format!("alarm_{who}_{what}_per_h")), least, 0..=MOST, unit);
        }
    }
    for (index, space) in settings.dial_plan.calling_search_space.iter().enumerate() {
        let path = KeyPath::root().key("dial_plan.calling_search_space").index(index);
        check_rate(&path, space.max_new_calls_per_min.unwrap_or_default(), findings);
    }
    for (index, station) in settings.station.iter().enumerate() {
        let path = super::item("station", index);
        check_rate(&path, station.max_new_calls_per_min.unwrap_or_default(), findings);
    }
}

fn check_rate(path: &KeyPath, per_min: u32, findings: &mut Findings<'_>) {
    findings.within(&path.key("max_new_calls_per_min"), per_min, 0..=MOST, "calls, 0 is no limit");
}

fn check_prefixes(path: &KeyPath, prefixes: &[String], findings: &mut Findings<'_>) {
    for (index, prefix) in prefixes.iter().enumerate() {
        let digits = prefix.strip_prefix('+').unwrap_or(prefix);
        let well = digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'*' | b'#'));
        if prefix.is_empty() || prefix.len() > 16 || !well {
            findings.unfit(&path.index(index), prefix, "1 to 16 digits, * and #, after + or not");
        }
    }
}
