//! Checks that reach beyond one key: bounds, names that must exist, things that must differ.

mod dial_plan;
mod dns;
mod loops;
mod network;
mod overload;
mod pattern;
mod registrar;
mod registration;
mod station;
mod tls;
mod toll_fraud;
mod trunk;
mod trunk_rules;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;

use super::Settings;
use super::decode::Repairs;
use super::problem::{KeyPath, Places, Problem};

/// Checks the whole of the settings.
pub(super) fn validate(settings: &Settings, findings: &mut Findings<'_>) {
    let names = Names::of(settings, findings);
    network::check(settings, &names, findings);
    tls::check(settings, findings);
    station::check(settings, &names, findings);
    trunk::check(settings, &names, findings);
    registration::check(settings, &names, findings);
    dns::check(settings, findings);
    overload::check(settings, findings);
    registrar::check(settings, findings);
    dial_plan::check(settings, &names, findings);
    toll_fraud::check(settings, findings);
    loops::check(settings, findings);
}

/// The errors and warnings found so far.
#[derive(Debug)]
pub(super) struct Findings<'a> {
    pub(super) places: &'a Places<'a>,
    repairs: &'a Repairs,
    errors: Vec<Problem>,
    faults: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(places: &'a Places, repairs: &'a Repairs) -> Self {
        Self { places, repairs, errors: Vec::new(), faults: Vec::new(), warnings: Vec::new() }
    }

    /// The errors, the faults and the warnings, the latter two sorted by place.
    pub(super) fn finish(mut self) -> (Vec<Problem>, Vec<Problem>, Vec<Problem>) {
        for list in [&mut self.faults, &mut self.warnings] {
            list.sort();
            list.dedup();
        }
        (self.errors, self.faults, self.warnings)
    }

    /// Notes an error, unless it only follows from one that reading the key already found.
    fn error(&mut self, path: &KeyPath, text: impl Into<String>) {
        let key = self.repairs.written(path);
        if !self.repairs.covers(&key) {
            self.errors.push(Problem { place: self.places.locate(&key), key, text: text.into() });
        }
    }

    fn unfit(&mut self, path: &KeyPath, found: impl Debug, allowed: impl Display) {
        self.error(path, format!("found {found:?}; allowed: {allowed}"));
    }

    /// Notes what keeps a part from working, and must not keep the whole from starting.
    fn fault(&mut self, path: &KeyPath, text: impl Into<String>) {
        let key = self.repairs.written(path);
        self.faults.push(Problem { place: self.places.locate(&key), key, text: text.into() });
    }

    fn warn(&mut self, path: &KeyPath, text: impl Into<String>) {
        let key = self.repairs.written(path);
        self.warn_at(key, text);
    }

    /// Notes a warning for a path of the source.
    pub(super) fn warn_at(&mut self, key: KeyPath, text: impl Into<String>) {
        self.warnings.push(Problem { place: self.places.locate(&key), key, text: text.into() });
    }

    fn within(&mut self, path: &KeyPath, value: impl Into<u64>, allowed: RangeInclusive<u64>, unit: &str) {
        let value = value.into();
        if !allowed.contains(&value) {
            let unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
            self.unfit(path, value, format!("{} to {}{unit}", allowed.start(), allowed.end()));
        }
    }

    /// Checks that `name` is one of `known`.
    fn refers(&mut self, path: &KeyPath, name: &str, known: &Known) {
        if known.names.contains(name) || self.repairs.lost_a_name(&KeyPath::root().key(known.list)) {
            return;
        }
        let mut all: Vec<String> = known.names.iter().map(|name| format!("{name:?}")).collect();
        all.sort();
        let what = known.what;
        let allowed = match all.len() {
            0 => format!("the name of a {what}, but there is none"),
            1..=12 => format!("the name of a {what}: {}", all.join(", ")),
            _ => format!("the name of a {what}{}", nearest(name, &known.names)),
        };
        self.unfit(path, name, allowed);
    }

    fn refers_if_set(&mut self, path: &KeyPath, name: Option<&String>, known: &Known) {
        if let Some(name) = name {
            self.refers(path, name, known);
        }
    }
}

fn nearest(name: &str, known: &HashSet<String>) -> String {
    let near = known.iter().min_by_key(|other| (strsim::damerau_levenshtein(name, other), *other));
    near.map(|other| format!(", perhaps {other:?}")).unwrap_or_default()
}

/// The names in one list.
#[derive(Debug)]
struct Known {
    list: &'static str,
    what: &'static str,
    names: HashSet<String>,
}

/// The names that other keys can refer to.
#[derive(Debug)]
struct Names {
    listen: Known,
    media_pool: Known,
    location: Known,
    station: Known,
    user: Known,
    trunk: Known,
    service: Known,
    partition: Known,
    search_space: Known,
    route_list: Known,
    route_group: Known,
}

impl Names {
    /// Collects the names of each list and checks each for form and for being used once.
    fn of(settings: &Settings, findings: &mut Findings<'_>) -> Self {
        macro_rules! known {
            ($list:literal, $what:literal, $entries:expr) => {{
                let names: Vec<&str> = $entries.iter().map(|entry| entry.name.as_str()).collect();
                check_names(&KeyPath::root().key($list), &names, findings);
                let names = names.into_iter().map(str::to_owned).collect();
                Known { list: $list, what: $what, names }
            }};
        }
        let plan = &settings.dial_plan;
        let mut partition = known!("dial_plan.partition", "partition", plan.partition);
        partition.names.insert(super::INTERNAL_PARTITION.to_owned());
        known!("registration_group", "registration group", settings.registration_group);
        Self {
            listen: known!("listen", "listener", settings.listen),
            media_pool: known!("media_pool", "media pool", settings.media_pool),
            location: known!("location", "location", settings.location),
            station: known!("station", "station", settings.station),
            user: known!("user", "user", settings.user),
            trunk: known!("trunk", "trunk", settings.trunk),
            service: known!("service", "service", settings.service),
            partition,
            search_space: known!(
                "dial_plan.calling_search_space",
                "calling search space",
                plan.calling_search_space
            ),
            route_list: known!("dial_plan.route_list", "route list", plan.route_list),
            route_group: known!("dial_plan.route_group", "route group", plan.route_group),
        }
    }
}

fn check_names(list: &KeyPath, names: &[&str], findings: &mut Findings<'_>) {
    let path = |index| list.index(index).key("name");
    let mut first: HashMap<&str, usize> = HashMap::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        check_name(|| path(index), name, findings);
        match first.entry(name) {
            Entry::Occupied(other) if !name.is_empty() => {
                let other = findings.repairs.written(&path(*other.get()));
                findings.unfit(&path(index), name, format!("a name of its own; {other} has this one"));
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => {
                free.insert(index);
            }
        }
    }
}

/// `path` is where it stands: asked for a complaint only, of which there is none in thousands of names.
fn check_name(path: impl FnOnce() -> KeyPath, name: &str, findings: &mut Findings<'_>) {
    let bad = |c: char| c.is_whitespace() || c.is_control() || ":/\\\"<>@;,?".contains(c);
    if name.is_empty() || name.len() > 64 || name.contains(bad) {
        let allowed =
            "1 to 64 bytes without white space, control characters and any of : / \\ \" < > @ ; , ?";
        findings.unfit(&path(), name, allowed);
    }
}

/// `list[0].key`, for a list at the top.
fn item(list: &'static str, index: usize) -> KeyPath {
    KeyPath::root().key(list).index(index)
}
