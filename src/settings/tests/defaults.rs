//! `config/default.toml` says what the code does.

use std::collections::BTreeSet;

use config::{Config, Value, ValueKind};
use serde::de::DeserializeOwned;

use super::*;
use crate::settings::decode::{decode, keys_of};
use crate::settings::layer::Layer;

/// One documented key: the prose above it and the line itself without the `#`.
struct Entry {
    section: String,
    key: String,
    prose: String,
    line: String,
    commented: bool,
}

fn entries() -> Vec<Entry> {
    let (mut entries, mut section, mut prose) = (Vec::new(), String::new(), String::new());
    for line in DEFAULT_TOML.lines() {
        let (commented, code) = match line.strip_prefix('#') {
            Some(text) if text.is_empty() || text.starts_with(' ') => {
                prose.push_str(text);
                continue;
            }
            Some(code) => (true, code),
            None => (false, line),
        };
        if code.starts_with('[') {
            code.trim_matches(['[', ']']).clone_into(&mut section);
        } else if let Some((key, _)) = code.split_once(" = ") {
            entries.push(Entry {
                section: section.clone(),
                key: key.to_owned(),
                prose: prose.clone(),
                line: code.to_owned(),
                commented,
            });
        }
        prose.clear();
    }
    entries
}

fn read(text: &str) -> Value {
    let layer = Layer::from_toml(text, |_| Place::BuiltIn);
    assert_eq!(layer.problems, [], "{text}");
    Config::builder().add_source(layer).build().unwrap().cache
}

/// Every section with its keys, and what reading one alone, beside the required keys, gives.
struct Section {
    keys: &'static [&'static str],
    same_without: fn(&str, &str) -> bool,
}

fn section_of<T: DeserializeOwned + PartialEq>() -> Section {
    fn of<T: DeserializeOwned>(text: &str) -> T {
        let decoded = decode::<T>(&read(text));
        assert_eq!(decoded.errors, [], "{text}");
        decoded.value.unwrap()
    }
    let same_without =
        |required: &str, line: &str| of::<T>(required) == of::<T>(&format!("{required}\n{line}"));
    Section { keys: keys_of::<T>(), same_without }
}

fn sections() -> Vec<(&'static str, Section)> {
    vec![
        ("node", section_of::<Node>()),
        ("listen", section_of::<Listen>()),
        ("http", section_of::<Http>()),
        ("media", section_of::<Media>()),
        ("media_pool", section_of::<MediaPool>()),
        ("location", section_of::<Location>()),
        ("registrar", section_of::<Registrar>()),
        ("dns", section_of::<Dns>()),
        ("overload", section_of::<Overload>()),
        ("toll_fraud", section_of::<TollFraud>()),
        ("station", section_of::<Station>()),
        ("user", section_of::<User>()),
        ("trunk", section_of::<Trunk>()),
        ("registration_group", section_of::<RegistrationGroup>()),
        ("service", section_of::<Service>()),
        ("dial_plan", section_of::<DialPlan>()),
        ("dial_plan.partition", section_of::<Partition>()),
        ("dial_plan.calling_search_space", section_of::<CallingSearchSpace>()),
        ("dial_plan.pattern", section_of::<Pattern>()),
        ("dial_plan.route_list", section_of::<RouteList>()),
        ("dial_plan.route_group", section_of::<RouteGroup>()),
    ]
}

#[test]
fn every_key_of_the_code_is_documented_and_no_other() {
    let documented: BTreeSet<String> =
        entries().iter().map(|entry| format!("{}.{}", entry.section, entry.key)).collect();
    let mut known = BTreeSet::new();
    for (section, Section { keys, .. }) in sections() {
        assert!(!keys.is_empty(), "{section}");
        known.extend(keys.iter().map(|key| format!("{section}.{key}")));
    }
    // The lists of the dial plan are sections of their own.
    let lists: BTreeSet<String> = sections().iter().map(|(section, _)| (*section).to_owned()).collect();
    let known: BTreeSet<String> = known.difference(&lists).cloned().collect();
    assert_eq!(documented, known);
    let top: BTreeSet<&str> = keys_of::<Settings>().iter().copied().collect();
    let sections: BTreeSet<&str> =
        lists.iter().map(String::as_str).filter(|section| !section.contains('.')).collect();
    assert_eq!(top, sections);
}

#[test]
fn every_key_of_a_registration_is_documented() {
    let entry = entries().into_iter().find(|entry| entry.key == "registrations").unwrap();
    for key in keys_of::<Registration>() {
        assert!(entry.prose.contains(key), "{key}");
    }
}

#[test]
fn every_key_tells_its_default() {
    for entry in entries() {
        assert!(entry.prose.contains("Default: "), "{}.{}", entry.section, entry.key);
    }
}

#[test]
fn every_default_shown_is_the_one_of_the_code() {
    let sections = sections();
    let entries = entries();
    let mut compared = 0;
    for entry in entries.iter().filter(|entry| entry.prose.contains("Default: as shown")) {
        let (_, section) = sections.iter().find(|(name, _)| *name == entry.section).unwrap();
        let required: Vec<&str> = entries
            .iter()
            .filter(|other| {
                other.section == entry.section && other.prose.contains("Default: none, required.")
            })
            .map(|other| other.line.as_str())
            .collect();
        assert!(
            (section.same_without)(&required.join("\n"), &entry.line),
            "{}: {}",
            entry.section,
            entry.line
        );
        compared += 1;
    }
    assert!(compared > 30, "only {compared} defaults were found");
}

#[test]
fn what_is_set_by_the_file_as_compiled_in_is_what_the_code_defaults_to() {
    for entry in entries().iter().filter(|entry| !entry.commented) {
        assert!(entry.prose.contains("Default: as shown"), "{}", entry.line);
    }
    let decoded = decode::<Settings>(&read(DEFAULT_TOML));
    assert_eq!(decoded.errors, []);
    assert_eq!(decoded.value, Some(Settings::default()));
}

#[test]
fn every_example_line_can_be_used_at_once() {
    // Alternatives of each other: only the first of each may stay.
    let alternatives = ["#ha1_md5", "#ha1_sha256", "#domain = ", "#trunk = "];
    let text: Vec<String> = DEFAULT_TOML
        .lines()
        .filter(|line| !alternatives.iter().any(|start| line.starts_with(start)))
        .map(|line| match line.strip_prefix('#') {
            Some(code) if !code.is_empty() && !code.starts_with(' ') => code.to_owned(),
            Some(_) | None => line.to_owned(),
        })
        .collect();
    // The one name that the examples refer to and do not define.
    let search_space =
        "[[dial_plan.calling_search_space]]\nname = \"from-carrier\"\npartitions = [\"internal\"]";
    let text = format!("{}\n{search_space}", text.join("\n"));
    if let Err(error) = load(&text) {
        panic!("{error}");
    }
}

#[test]
fn the_known_keys_of_a_value_without_a_table_are_none() {
    assert!(matches!(read("a = 1").kind, ValueKind::Table(_)));
    assert!(keys_of::<u16>().is_empty());
}
