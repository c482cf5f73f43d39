//! What a reload changes, for people and programs.

use std::fmt::{self, Write as _};

use serde::Serialize;
use tandem_actors::generation::{Comparison, Differences, Generation};

use crate::settings::{KeyChange, Pattern, Settings, changed_keys};

/// So many changes have a line each; the rest is counted.
const MOST_LINES: usize = 200;

/// What happens to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It comes.
    Added,
    /// It is set otherwise.
    Changed,
    /// It goes.
    Removed,
    /// The same ones stand in another order.
    Reordered,
}

impl Action {
    fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Changed | Self::Reordered => '~',
            Self::Removed => '-',
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What kind of thing, as the settings call it: `station`, `trunk`, `dial_plan.pattern` ...
    pub kind: &'static str,
    /// Its name; empty for a section, or where the order of all of a kind has changed.
    pub name: String,
    /// What happens to it.
    pub action: Action,
    /// Its keys that change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyChange>,
    /// What else follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
}

/// Everything that a reload changes, and what it cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What comes into force.
    pub changes: Vec<Item>,
    /// What waits for a restart.
    pub needs_restart: Vec<KeyChange>,
    /// What an operator should know of the settings.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The way from the settings in force, `before` with all their stations in `running`, to `after`.
    pub(super) fn new(
        (before, running): (&Settings, &Generation),
        after: &Settings,
        comparison: &Comparison,
    ) -> Plan {
        let mut changes = Vec::new();
        sections(before, after, &mut changes);
        stations((before, running), after, &comparison.stations, &mut changes);
        let listeners = changes.len();
        listed("listen", &before.listen, &after.listen, |l| l.name.clone(), &mut changes);
        for item in &mut changes[listeners..] {
            item.effect = listener_effect(item, running);
        }
        listed("media_pool", &before.media_pool, &after.media_pool, |m| m.name.clone(), &mut changes);
        listed("location", &before.location, &after.location, |l| l.name.clone(), &mut changes);
        listed("user", &before.user, &after.user, |u| u.name.clone(), &mut changes);
        let trunks = changes.len();
        listed("trunk", &before.trunk, &after.trunk, |t| t.name.clone(), &mut changes);
        for item in &mut changes[trunks..] {
            item.effect = trunk_effect(item, running);
        }
        let groups = (&before.registration_group, &after.registration_group);
        listed("registration_group", groups.0, groups.1, |g| g.name.clone(), &mut changes);
        listed("service", &before.service, &after.service, |s| s.name.clone(), &mut changes);
        dial_plan(before, after, &mut changes);
        if comparison.dial_plan && changes.is_empty() {
            let effect = Some("numbers or partitions of imported stations".to_owned());
            let name = String::new();
            changes.push(Item { kind: "dial_plan", name, action: Action::Changed, keys: Vec::new(), effect });
        }
        Plan { changes, needs_restart: Vec::new(), warnings: Vec::new() }
    }

    /// True if nothing comes into force.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

fn sections(before: &Settings, after: &Settings, changes: &mut Vec<Item>) {
    let mut section = |kind, keys: Vec<KeyChange>| {
        if !keys.is_empty() {
            changes.push(Item { kind, name: String::new(), action: Action::Changed, keys, effect: None });
        }
    };
    section("node", changed_keys(&before.node, &after.node));
    section("http", changed_keys(&before.http, &after.http));
    section("media", changed_keys(&before.media, &after.media));
    section("registrar", changed_keys(&before.registrar, &after.registrar));
    section("toll_fraud", changed_keys(&before.toll_fraud, &after.toll_fraud));
    section("dns", changed_keys(&before.dns, &after.dns));
}

/// Those of the file with the keys that change, those of the store by name.
fn stations(
    (before, running): (&Settings, &Generation),
    after: &Settings,
    differences: &Differences,
    changes: &mut Vec<Item>,
) {
    let (mut in_file, kind) = (Vec::new(), "station");
    listed(kind, &before.station, &after.station, |s| s.name.clone(), &mut in_file);
    let mut changed: Vec<Item> = in_file
        .into_iter()
        .filter(|item| matches!(item.action, Action::Changed | Action::Reordered))
        .collect();
    let known = |name: &str, items: &[Item]| items.iter().any(|item| item.name == name);
    for name in &differences.changed {
        if !known(name, &changed) {
            let (name, keys) = (name.to_string(), Vec::new());
            changed.push(Item { kind, name, action: Action::Changed, keys, effect: None });
        }
    }
    changes.append(&mut changed);
    let item = |name: &str, action, effect| {
        let name = name.to_owned();
        Item { kind, name, action, keys: Vec::new(), effect }
    };
    changes.extend(differences.added.iter().map(|name| item(name, Action::Added, None)));
    changes.extend(differences.removed.iter().map(|name| {
        let effect = running.directory.station(name).and_then(|station| {
            let parts = [
                counted(station.binding_count(), "binding ends", "bindings end"),
                counted(station.calls() as usize, "call goes on", "calls go on"),
            ];
            joined(parts)
        });
        item(name, Action::Removed, effect)
    }));
}

fn listener_effect(item: &Item, running: &Generation) -> Option<String> {
    let leaves = match item.action {
        Action::Removed => true,
        Action::Changed => {
            item.keys.iter().any(|change| ["transport", "address"].contains(&change.key.as_str()))
        }
        Action::Added | Action::Reordered => false,
    };
    let listener = running.config.listeners.iter().find(|listener| listener.name == item.name);
    let legs = listener.filter(|_| leaves)?.uses.count();
    counted(legs, "leg of a call goes on there", "legs of calls go on there")
}

fn trunk_effect(item: &Item, running: &Generation) -> Option<String> {
    let calls = running.directory.trunk(&item.name)?.calls.taken() as usize;
    match item.action {
        Action::Removed => counted(calls, "call goes on", "calls go on"),
        Action::Changed => counted(calls, "call keeps its settings", "calls keep their settings"),
        Action::Added | Action::Reordered => None,
    }
}

fn counted(count: usize, one: &str, many: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {many}")),
    }
}

fn joined(parts: [Option<String>; 2]) -> Option<String> {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn dial_plan(before: &Settings, after: &Settings, changes: &mut Vec<Item>) {
    let (before, after) = (&before.dial_plan, &after.dial_plan);
    listed("dial_plan.partition", &before.partition, &after.partition, |p| p.name.clone(), changes);
    let spaces = (&before.calling_search_space, &after.calling_search_space);
    listed("dial_plan.calling_search_space", spaces.0, spaces.1, |c| c.name.clone(), changes);
    let place = |p: &Pattern| format!("{}/{}", p.partition, p.pattern);
    listed("dial_plan.pattern", &before.pattern, &after.pattern, place, changes);
    listed("dial_plan.route_list", &before.route_list, &after.route_list, |r| r.name.clone(), changes);
    listed("dial_plan.route_group", &before.route_group, &after.route_group, |r| r.name.clone(), changes);
}

/// What differs in a list of named things.
fn listed<T: Serialize + PartialEq>(
    kind: &'static str,
    before: &[T],
    after: &[T],
    name: impl Fn(&T) -> String,
    changes: &mut Vec<Item>,
) {
    if before == after {
        return;
    }
    let by_name = |list: &'_ [T]| -> Vec<String> { list.iter().map(&name).collect() };
    let (old_names, new_names) = (by_name(before), by_name(after));
    let places = |names: &[String]| -> std::collections::BTreeMap<String, usize> {
        names.iter().cloned().enumerate().map(|(place, name)| (name, place)).collect()
    };
    let (old_places, new_places) = (places(&old_names), places(&new_names));
    let first = changes.len();
    let item = |name: &String, action, keys| Item { kind, name: name.clone(), action, keys, effect: None };
    for (name, place) in &new_places {
        match old_places.get(name) {
            None => changes.push(item(name, Action::Added, Vec::new())),
            Some(old) if before[*old] != after[*place] => {
                changes.push(item(name, Action::Changed, changed_keys(&before[*old], &after[*place])));
            }
            Some(_) => {}
        }
    }
    for name in old_places.keys().filter(|name| !new_places.contains_key(*name)) {
        changes.push(item(name, Action::Removed, Vec::new()));
    }
    if changes.len() == first && old_names != new_names {
        changes.push(item(&String::new(), Action::Reordered, Vec::new()));
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.sign(), self.kind)?;
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        for (n, KeyChange { key, from, to }) in self.keys.iter().enumerate() {
            let comma = if n == 0 { ":" } else { "," };
            // A secret is another, and more is not said.
            if from == to { write!(f, "{comma} {key}")? } else { write!(f, "{comma} {key} {from} -> {to}")? }
        }
        match (self.action, &self.effect) {
            (Action::Reordered, _) => f.write_str(" in another order"),
            (_, Some(effect)) => write!(f, " ({effect})"),
            (_, None) => Ok(()),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in self.changes.iter().take(MOST_LINES) {
            writeln!(f, "{item}")?;
        }
        if self.changes.len() > MOST_LINES {
            writeln!(f, "and {} more changes", self.changes.len() - MOST_LINES)?;
        }
        for KeyChange { key, from, to } in &self.needs_restart {
            writeln!(f, "! {key} {from} -> {to}: needs a restart, and stays as it is until then")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

impl Plan {
    /// The plan in few words, for the log.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let mut counts: std::collections::BTreeMap<(&str, char), usize> = std::collections::BTreeMap::new();
        for item in &self.changes {
            *counts.entry((item.kind, item.action.sign())).or_default() += 1;
        }
        for ((kind, sign), count) in counts {
            let space = if text.is_empty() { "" } else { " " };
            // Writing to a String cannot fail.
            let _ = write!(text, "{space}{sign}{count} {kind}");
        }
        text
    }
}
