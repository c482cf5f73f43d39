//! What a call may cost: the limits of whoever dials, and whether he may dial international numbers.

use std::fmt::Write as _;

use super::Outgoing;
use crate::settings::Trunk;
use crate::wiring;

/// What the caller may have, if anything limits him.
pub(super) fn limits(call: &Outgoing<'_>, text: &mut String) {
    let Some(station) = call.caller.station.filter(|_| !call.emergency) else { return };
    let limits = [
        (call.settings.max_calls_of(station), "at once"),
        (call.settings.max_new_calls_per_min_of(station), "new ones a minute"),
    ];
    let limits = limits.iter().filter(|(most, _)| *most > 0).map(|(most, of)| format!("{most} {of}"));
    let limits: Vec<String> = limits.collect();
    if !limits.is_empty() {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "  the caller's calls: at most {}, else 503", limits.join(" and "));
    }
}

/// Whether the call may leave by these trunks (group, trunk); says so if its number is international.
pub(super) fn may_leave(call: &Outgoing<'_>, members: &[(&str, &str)], text: &mut String) -> bool {
    if call.emergency {
        return true;
    }
    let numbers = wiring::international(call.settings);
    let trunk =
        |(_, name): &(&str, &str)| call.settings.trunk.iter().find(|trunk: &&Trunk| trunk.name == *name);
    let made = members.iter().filter_map(trunk).map(|trunk| wiring::called_by(trunk, call.number));
    let mut all = std::iter::once(call.number.to_owned()).chain(made);
    let Some((number, prefix)) = all.find_map(|number| {
        let prefix = numbers.prefix_of(&number)?.to_owned();
        Some((number, prefix))
    }) else {
        return true;
    };
    let may = match (call.caller.station, call.caller.trunk) {
        (Some(station), _) => call.settings.may_dial_international(station),
        (None, trunk) => trunk.is_some_and(|trunk| trunk.international),
    };
    let verdict = match (may, call.caller.trunk) {
        (true, _) => "the caller may dial it",
        (false, Some(_)) => {
            "refused with 403, for callers on that trunk may not dial it (trunk.international)"
        }
        (false, None) => {
            "refused with 403, for the caller may not dial it (station.international, that of its calling search space, \
             toll_fraud.international)"
        }
    };
    let _ = writeln!(text, "  {number} is international (it begins with {prefix}): {verdict}");
    may
}
