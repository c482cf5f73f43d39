//! `[dial_plan]`, and every number that can be dialled.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use tandem_protocol::dial_plan::{PatternKey, is_dialable};

use super::pattern::{extension, pattern};
use super::{Findings, Known, Names, item};
use crate::settings::problem::KeyPath;
use crate::settings::types::{Pattern, RouteList};
use crate::settings::values::{InvalidValue, Target};
use crate::settings::{INTERNAL_PARTITION, Settings};

pub(super) fn check(settings: &Settings, names: &Names, findings: &mut Findings<'_>) {
    let path = KeyPath::root().key("dial_plan");
    let plan = &settings.dial_plan;
    check_numbers(settings, findings);
    for (index, entry) in plan.pattern.iter().enumerate() {
        check_entry(&path.key("pattern").index(index), entry, names, findings);
    }
    for (index, space) in plan.calling_search_space.iter().enumerate() {
        let path = path.key("calling_search_space").index(index).key("partitions");
        check_list(&path, &space.partitions, &names.partition, findings);
    }
    for (index, list) in plan.route_list.iter().enumerate() {
        let path = path.key("route_list").index(index).key("groups");
        check_list(&path, &list.groups, &names.route_group, findings);
        check_twice(&path, list, settings, findings);
    }
    for (index, group) in plan.route_group.iter().enumerate() {
        let path = path.key("route_group").index(index).key("trunks");
        check_list(&path, &group.trunks, &names.trunk, findings);
    }
    for (index, partition) in plan.partition.iter().enumerate() {
        let seen = plan.calling_search_space.iter().any(|space| space.partitions.contains(&partition.name));
        if !seen && partition.name != INTERNAL_PARTITION {
            let text = "is in no calling search space, so nobody can dial what is in it";
            findings.warn(&path.key("partition").index(index), text);
        }
    }
}

/// The names of a list must exist, each once, and there must be one.
fn check_list(path: &KeyPath, names: &[String], known: &Known, findings: &mut Findings<'_>) {
    let what = known.what;
    if names.is_empty() {
        findings.error(path, format!("found []; allowed: the name of at least one {what}"));
    }
    for (index, name) in names.iter().enumerate() {
        let path = path.index(index);
        findings.refers(&path, name, known);
        if names[..index].contains(name) {
            findings.unfit(&path, name, format!("each {what} once"));
        }
    }
}

/// Every extension and pattern must be one, and lead to one place in its partition.
fn check_numbers(settings: &Settings, findings: &mut Findings<'_>) {
    // With thousands of stations most of a reload's time is here: a path is made for a complaint only.
    let mut numbers: Vec<(Place, &str, &str, Reader)> = Vec::new();
    for (index, station) in settings.station.iter().enumerate() {
        let place = ("station", index, "extension");
        numbers.push((place, &station.partition, &station.extension, extension));
    }
    for (index, user) in settings.user.iter().enumerate() {
        let place = ("user", index, "extension");
        numbers.push((place, INTERNAL_PARTITION, &user.extension, extension));
    }
    for (index, service) in settings.service.iter().enumerate() {
        let place = ("service", index, "extension");
        numbers.push((place, INTERNAL_PARTITION, &service.extension, extension));
    }
    for (index, entry) in settings.dial_plan.pattern.iter().enumerate() {
        let place = ("dial_plan.pattern", index, "pattern");
        numbers.push((place, &entry.partition, &entry.pattern, pattern));
    }
    let path = |(list, index, key): Place| item(list, index).key(key);
    let mut first: HashMap<(&str, PatternKey), Place> = HashMap::with_capacity(numbers.len());
    for (place, partition, number, read) in numbers {
        let key = match read(number) {
            Ok(key) => key,
            Err(invalid) => {
                findings.unfit(&path(place), number, invalid.allowed);
                continue;
            }
        };
        match first.entry((partition, key)) {
            Entry::Occupied(other) => {
                let other = findings.repairs.written(&path(*other.get()));
                let allowed = format!("a number of its own in partition {partition:?}; {other} has this one");
                findings.unfit(&path(place), number, allowed);
            }
            Entry::Vacant(free) => {
                free.insert(place);
            }
        }
    }
}

/// List, index and key.
type Place = (&'static str, usize, &'static str);

/// Reads a pattern or an extension.
type Reader = fn(&str) -> Result<PatternKey, InvalidValue>;

/// A trunk that two groups of a list have is tried only where it comes first.
fn check_twice(path: &KeyPath, list: &RouteList, settings: &Settings, findings: &mut Findings<'_>) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (index, name) in list.groups.iter().enumerate() {
        let Some(group) = settings.dial_plan.route_group.iter().find(|g| g.name == *name) else { continue };
        for trunk in &group.trunks {
            match seen.get(trunk.as_str()) {
                Some(first) if first != name => {
                    let text =
                        format!("has trunk {trunk:?}, which {first:?} has too: it is tried once, there");
                    findings.warn(&path.index(index), text);
                }
                Some(_) => {}
                None => {
                    seen.insert(trunk, name);
                }
            }
        }
    }
}

fn check_entry(path: &KeyPath, entry: &Pattern, names: &Names, findings: &mut Findings<'_>) {
    findings.refers(&path.key("partition"), &entry.partition, &names.partition);
    let target = path.key("target");
    match &entry.target {
        Target::Station(name) => findings.refers(&target, name, &names.station),
        Target::User(name) => findings.refers(&target, name, &names.user),
        Target::Trunk(name) => findings.refers(&target, name, &names.trunk),
        Target::RouteGroup(name) => findings.refers(&target, name, &names.route_group),
        Target::RouteList(name) => findings.refers(&target, name, &names.route_list),
        Target::Service(name) => findings.refers(&target, name, &names.service),
        Target::Reject(_) => {}
    }
    if let Some(strip) = entry.strip {
        findings.within(&path.key("strip"), strip, 0..=32, "characters");
    }
    for (key, prefix) in [("prefix", &entry.prefix), ("calling_party_prefix", &entry.calling_party_prefix)] {
        if !prefix.is_empty() && !is_dialable(prefix) && prefix != "+" {
            findings.unfit(&path.key(key), prefix, "digits, * and #, with or without + before them");
        }
    }
}
