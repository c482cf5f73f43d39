//! Which calls of before would go elsewhere under other settings: a dial plan tried on real calls before it is in force.
//!
//! A call is known by its CDR: who called (a station, or by which trunk), and what was dialled. Both settings are asked where that leads: the
//! target of the dial plan, the trunks in their order, or the refusal. Who is registered where, and which proxy is up, is left out: that
//! differs from one moment to the next under the same settings.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tandem_actors::config::EngineConfig;
use tandem_actors::config::{Station, Trunk};
use tandem_actors::generation::Generation;
use tandem_protocol::dial_plan::Target;
use tandem_protocol::number_rules::{Direction, Party, apply};

/// So many calls are told one by one.
const MOST_TOLD: usize = 1000;
/// So many calls that were not alike are remembered, however many there are.
const MOST_KNOWN: usize = 10_000;

/// One set of settings, asked where calls lead.
pub struct Plan<'a> {
    config: &'a EngineConfig,
    stations: BTreeMap<&'a str, &'a Station>,
}

/// What is read of a CDR.
#[derive(Clone, Debug, Deserialize)]
struct Call {
    call_id: String,
    start: String,
    from: String,
    #[serde(default)]
    from_trunk: Option<String>,
    to: String,
}

/// Who called, by which trunk, and what was dialled.
type Asked = (String, Option<String>, String);
/// Where that leads by the settings before and after.
type Ways = (String, String);

/// A call that would go elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its id, for `tandem why`.
    pub call_id: String,
    /// When it began (RFC 3339).
    pub start: String,
    /// Who called: a station, or a number and the trunk it came by.
    pub from: String,
    /// What was dialled.
    pub to: String,
    /// Where that leads by the settings before.
    pub before: String,
    /// Where it leads by those after.
    pub after: String,
}

/// Every call that would go elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rerouted {
    /// How many calls were looked at.
    pub calls: usize,
    /// How many of them would go elsewhere.
    pub differ: usize,
    /// Lines that are no CDR.
    pub unreadable: usize,
    /// Those that differ, the first ones if there are very many.
    pub differences: Vec<Difference>,
}

impl<'a> Plan<'a> {
    /// Settings that are not in force.
    pub fn of(config: &'a EngineConfig) -> Plan<'a> {
        let stations = config.stations.iter().map(|s| (&*s.name, s));
        Plan { config, stations: stations.collect() }
    }

    /// Settings that are.
    pub fn in_force(generation: &'a Generation) -> Plan<'a> {
        let stations = generation.directory.stations();
        let stations = stations.map(|s| (&*s.config.name, &s.config));
        Plan { config: &generation.config, stations: stations.collect() }
    }

    /// Where a call of this caller leads, for people.
    fn leads(&self, from: &str, from_trunk: Option<&str>, dialled: &str) -> String {
        let trunk = from_trunk.and_then(|name| self.config.trunks.iter().find(|t| &*t.name == name));
        let (space, international) = match (from_trunk, trunk, self.stations.get(from)) {
            (Some(_), Some(trunk), _) => (trunk.calling_search_space.as_deref(), trunk.rules.international),
            (Some(name), None, _) => return format!("refused: there is no trunk {name}"),
            (None, _, Some(s)) => (s.rules.calling_search_space.as_deref(), s.rules.toll.international),
            (None, _, None) => return format!("refused: there is no station {from}"),
        };
        let Some(found) = self.config.dial_plan.lookup(space, dialled) else {
            return "404: no pattern matches".to_owned();
        };
        let (target, number) = (&found.pattern.target, &found.number_out);
        let refused = !international && !found.pattern.emergency;
        let trunks = |trunks: Vec<&str>| match refused && self.is_international(number, &trunks) {
            true => format!("403: {target} as {number}, which is international"),
            false => format!("{target} as {number} by {}", trunks.join(", ")),
        };
        let there = match target {
            Target::Station(name) if !self.stations.contains_key(&**name) => {
                "404: no such station".to_owned()
            }
            Target::Station(_) | Target::Service(_) => target.to_string(),
            Target::User(name) => {
                let user = self.config.users.iter().find(|user| user.name == **name);
                match user.and_then(|user| user.default_station.as_deref()) {
                    Some(station) => format!("{target} at station:{station}"),
                    None => format!("480: {target} has no station"),
                }
            }
            Target::Trunk(name) => trunks(vec![name]),
            Target::RouteGroup(name) => trunks(self.group(name)),
            Target::RouteList(name) => {
                match self.config.route_lists.iter().find(|list| list.name == **name) {
                    Some(list) if list.enabled => {
                        let mut all = Vec::new();
                        for trunk in list.groups.iter().flat_map(|group| self.group(group)) {
                            if !all.contains(&trunk) {
                                all.push(trunk);
                            }
                        }
                        trunks(all)
                    }
                    Some(_) | None => format!("503: {target} is disabled"),
                }
            }
            Target::Reject(status) => format!("{status}: rejected"),
        };
        if found.pattern.emergency { format!("{there}, an emergency call") } else { there }
    }

    /// Whether a number is, as the dial plan has it or as one of these trunks makes it.
    fn is_international(&self, number: &str, trunks: &[&str]) -> bool {
        let numbers = &self.config.toll_fraud.international;
        let made =
            |trunk: &Trunk| apply(&trunk.rules.numbers, Direction::Out, Party::Called, number.to_owned());
        let mut by = self.config.trunks.iter().filter(|trunk| trunks.contains(&&*trunk.name));
        numbers.prefix_of(number).is_some() || by.any(|trunk| numbers.prefix_of(&made(trunk)).is_some())
    }

    fn group(&self, name: &str) -> Vec<&'a str> {
        let group = self.config.route_groups.iter().find(|group| &*group.name == name);
        group.map(|group| group.trunks.iter().map(AsRef::as_ref).collect()).unwrap_or_default()
    }
}

/// Asks both plans for every call in `files` that began after `since`.
///
/// # Errors
/// A file cannot be read.
pub fn compare(
    before: &Plan<'_>,
    after: &Plan<'_>,
    files: &[PathBuf],
    since: Option<SystemTime>,
) -> io::Result<Rerouted> {
    let mut found = Rerouted::default();
    // Most calls are alike: each way is asked for once.
    let mut known: BTreeMap<Asked, Option<Ways>> = BTreeMap::new();
    for file in files {
        for line in BufReader::new(File::open(file)?).lines() {
            let line = line?;
            let Ok(call) = serde_json::from_str::<Call>(&line) else {
                found.unreadable += usize::from(!line.trim().is_empty());
                continue;
            };
            let begun = humantime::parse_rfc3339(&call.start).ok();
            if since.is_some_and(|since| begun.is_none_or(|begun| begun < since)) {
                continue;
            }
            found.calls += 1;
            let Call { call_id, start, from, from_trunk, to } = call;
            if known.len() >= MOST_KNOWN {
                known.clear();
            }
            let ways = known.entry((from.clone(), from_trunk.clone(), to.clone())).or_insert_with(|| {
                let leads = |plan: &Plan<'_>| plan.leads(&from, from_trunk.as_deref(), &to);
                let (before, after) = (leads(before), leads(after));
                (before != after).then_some((before, after))
            });
            let Some((before, after)) = ways.clone() else { continue };
            found.differ += 1;
            if found.differences.len() < MOST_TOLD {
                let from = from_trunk.map_or(from.clone(), |trunk| format!("{from} by {trunk}"));
                found.differences.push(Difference { call_id, start, from, to, before, after });
            }
        }
    }
    Ok(found)
}

/// The files of CDRs in a data directory that may hold calls since then, the oldest first.
pub fn files(data_dir: &Path, since: SystemTime) -> Vec<PathBuf> {
    let mut files: Vec<(SystemTime, PathBuf)> = fs::read_dir(data_dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().starts_with("cdr.jsonl"))
        .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())))
        .filter(|(written, _)| *written >= since)
        .collect();
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}

/// So many hours ago.
pub fn hours_ago(now: SystemTime, hours: u32) -> SystemTime {
    now.checked_sub(Duration::from_secs(u64::from(hours) * 3600)).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl fmt::Display for Rerouted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Difference { call_id, start, from, to, before, after } in &self.differences {
            writeln!(f, "{start} {call_id} {from} -> {to}: {before} -> {after}")?;
        }
        if self.differ > self.differences.len() {
            writeln!(f, "and {} more calls", self.differ - self.differences.len())?;
        }
        if self.unreadable > 0 {
            let lines = if self.unreadable == 1 { "line is" } else { "lines are" };
            writeln!(f, "{} {lines} no CDR", self.unreadable)?;
        }
        let would = if self.differ == 1 { "1 call would" } else { &format!("{} calls would", self.differ) };
        writeln!(f, "{would} go elsewhere, of {} looked at", self.calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use crate::wiring;

    const BEFORE: &str = r#"
        station = [
            { name = "1001", extension = "1001", password = "x" },
            { name = "1002", extension = "1002", password = "x" },
        ]
        trunk = [{ name = "a", proxies = ["127.0.0.1:5070"] }, { name = "b", proxies = ["127.0.0.1:5071"] }]
        [dial_plan]
        route_group = [{ name = "out", trunks = ["a", "b"] }]
        pattern = [{ pattern = "9.X!", target = "route_group:out" }, { pattern = "80", target = "trunk:a" }]
    "#;

    fn config(text: &str) -> EngineConfig {
        let settings = Settings::load_from(Some(("test", text)), []).unwrap().settings;
        wiring::engine_config(&settings, &["127.0.0.1:5060".parse().unwrap()], false).unwrap()
    }

    fn cdr(id: &str, start: &str, from: &str, trunk: &str, to: &str) -> String {
        let trunk = if trunk.is_empty() { String::new() } else { format!("\"from_trunk\": \"{trunk}\", ") };
        format!(
            "{{\"call_id\": \"{id}\", \"start\": \"{start}\", \"from\": \"{from}\", {trunk}\"to\": \"{to}\", \"cause\": \"normal\"}}\n"
        )
    }

    #[test]
    fn only_calls_that_would_go_elsewhere_are_told_with_both_ways_and_the_count() {
        let after = BEFORE
            .replace("trunks = [\"a\", \"b\"]", "trunks = [\"b\", \"a\"]")
            .replace("name = \"1002\"", "name = \"1003\"")
            .replace("target = \"trunk:a\"", "target = \"reject:403\"");
        let (before, after) = (config(BEFORE), config(&after));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cdr.jsonl");
        let day = "2026-07-01T10:00:00.000Z";
        let text = [
            cdr("c1", day, "1001", "", "9555"),
            cdr("c2", day, "1001", "", "1001"),
            cdr("c3", day, "1001", "", "80"),
            cdr("c4", day, "1002", "", "1001"),
            cdr("c5", day, "5550100", "a", "1001"),
            cdr("c6", day, "5550100", "a", "9555"),
            cdr("c7", "2026-06-01T10:00:00.000Z", "1001", "", "9555"),
            "{\"call_id\": \"half".to_owned(),
        ];
        std::fs::write(&file, text.concat()).unwrap();
        let since = humantime::parse_rfc3339("2026-06-30T10:00:00Z").unwrap();
        let found =
            compare(&Plan::of(&before), &Plan::of(&after), std::slice::from_ref(&file), Some(since)).unwrap();
        let told = found.to_string();
        assert_eq!(
            told,
            "2026-07-01T10:00:00.000Z c1 1001 -> 9555: route_group:out as 555 by a, b -> route_group:out as 555 by b, a\n\
             2026-07-01T10:00:00.000Z c3 1001 -> 80: trunk:a as 80 by a -> 403: rejected\n\
             2026-07-01T10:00:00.000Z c4 1002 -> 1001: station:1001 -> refused: there is no station 1002\n\
             2026-07-01T10:00:00.000Z c6 5550100 by a -> 9555: route_group:out as 555 by a, b -> route_group:out as 555 by b, a\n\
             1 line is no CDR\n\
             4 calls would go elsewhere, of 6 looked at\n"
        );
        let same = compare(&Plan::of(&before), &Plan::of(&before), &[file], None).unwrap();
        assert_eq!((same.calls, same.differ), (7, 0));
    }

    #[test]
    fn more_calls_than_are_remembered_are_all_counted() {
        let after = BEFORE.replace("trunks = [\"a\", \"b\"]", "trunks = [\"b\", \"a\"]");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cdr.jsonl");
        let count = 2 * MOST_KNOWN + 1;
        let lines = (0..count).map(|n| cdr("c", "2026-07-01T10:00:00Z", "1001", "", &format!("91{n:05}")));
        std::fs::write(&file, lines.collect::<String>()).unwrap();
        let (before, after) = (config(BEFORE), config(&after));
        let found = compare(&Plan::of(&before), &Plan::of(&after), &[file], None).unwrap();
        assert_eq!((found.calls, found.differ, found.differences.len()), (count, count, MOST_TOLD));
    }
}
