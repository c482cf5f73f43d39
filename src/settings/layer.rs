//! One layer of the settings: a TOML text or the environment, as values `config` can merge, and the place of every key of a text.

use std::ffi::OsString;

use config::{Map, Source, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::Settings;
use super::decode::decode;
use super::problem::{KeyPath, Place, Problem};

/// What an environment variable must begin with to be a setting.
const PREFIX: &str = "TANDEM__";

/// The keys of one source.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    table: Map<String, Value>,
    /// The variables that say something, if it is the environment: the key of each, and where it is.
    pub(super) variables: Vec<(KeyPath, Place)>,
    /// What could not be read at all.
    pub(super) problems: Vec<Problem>,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.table.clone())
    }
}

impl Layer {
    /// Reads a TOML text. `place` gives the place of a line of it, counted from 1.
    pub(super) fn from_toml(text: &str, place: impl Fn(usize) -> Place) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut layer = Self { table: entries(table.get_ref()), ..Self::default() };
        if !errors.is_empty() {
            let lines = Lines::new(text);
            for error in errors {
                let place = place(lines.of(error.span().map_or(0, |span| span.start)));
                let text = format!("not valid TOML: {}", error.message().trim());
                layer.problems.push(Problem { place, key: KeyPath::root(), text });
            }
        }
        layer
    }

    /// Reads the variables named `TANDEM__SECTION__KEY`; the rest of the environment is not ours.
    ///
    /// A value is read as the text it is, else as TOML (`8080`, `[20000, 20999]`,
    /// `[{ name = "a" }]`), else as a list divided by commas: the first that fits the key.
    pub(super) fn from_environment(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut layer = Self::default();
        let mut ours: Vec<(String, OsString)> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        ours.sort();
        for (name, value) in ours {
            let Some(value) = value.to_str() else {
                let text = "is not UTF-8".to_owned();
                layer.problems.push(Problem { place: Place::Environment(name), key: KeyPath::root(), text });
                continue;
            };
            layer.add_variable(&name, value);
        }
        layer
    }

    fn add_variable(&mut self, name: &str, value: &str) {
        let place = Place::Environment(name.to_owned());
        let lower = name[PREFIX.len()..].to_lowercase();
        let steps: Vec<&str> = lower.split("__").collect();
        let path = steps.iter().fold(KeyPath::root(), |path, step| path.raw_key(step));
        let mut refused = None;
        for candidate in candidates(value) {
            let nested = steps.iter().rev().fold(candidate.clone(), |value, step| {
                Value::new(None, ValueKind::Table([((*step).to_owned(), value)].into_iter().collect()))
            });
            let errors = decode::<Settings>(&nested).errors;
            if errors.is_empty() {
                insert(&mut self.table, &steps, candidate);
                self.variables.push((path, place));
                return;
            }
            // A value that is TOML was most likely meant as TOML, and its complaint tells more.
            refused = Some(errors);
        }
        for (key, text) in refused.unwrap_or_default() {
            self.problems.push(Problem { place: place.clone(), key, text });
        }
    }
}

/// The ways to read the value of a variable, in the order they are tried.
fn candidates(text: &str) -> Vec<Value> {
    let string = |text: &str| Value::new(None, ValueKind::String(text.to_owned()));
    let mut ways = vec![string(text)];
    let comma_list = || {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let items = items.map(|item| toml_value(item).unwrap_or_else(|| string(item)));
        Value::new(None, ValueKind::Array(items.collect()))
    };
    match toml_value(text) {
        Some(value) => {
            if !matches!(value.kind, ValueKind::Array(_) | ValueKind::Table(_)) {
                ways.push(comma_list());
            }
            ways.push(value);
        }
        None => {
            ways.push(comma_list());
            ways.push(string(text));
        }
    }
    ways
}

fn toml_value(text: &str) -> Option<Value> {
    DeValue::parse(text).ok().map(|parsed| value(parsed.get_ref()))
}

fn insert(table: &mut Map<String, Value>, steps: &[&str], value: Value) {
    let Some((first, rest)) = steps.split_first() else { return };
    if rest.is_empty() {
        table.insert((*first).to_owned(), value);
        return;
    }
    let inner =
        table.entry((*first).to_owned()).or_insert_with(|| Value::new(None, ValueKind::Table(Map::new())));
    if let ValueKind::Table(inner) = &mut inner.kind {
        insert(inner, rest, value);
    }
}

fn entries(table: &DeTable<'_>) -> Map<String, Value> {
    table.iter().map(|(key, item)| (key.get_ref().to_string(), value(item.get_ref()))).collect()
}

fn value(value_of_toml: &DeValue<'_>) -> Value {
    let kind = match value_of_toml {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Integer(number) => integer(number.as_str(), number.radix()),
        DeValue::Float(number) => number.as_str().parse().map_or_else(|_| text(number), ValueKind::Float),
        DeValue::Boolean(value) => ValueKind::Boolean(*value),
        DeValue::Datetime(time) => text(time),
        DeValue::Array(items) => ValueKind::Array(items.iter().map(|item| value(item.get_ref())).collect()),
        DeValue::Table(table) => ValueKind::Table(entries(table)),
    };
    Value::new(None, kind)
}

/// Where each key of a TOML text stands: its path, its line, counted from 1, and whether it replaces all that an earlier layer had there.
pub(super) fn places(text: &str) -> Vec<(KeyPath, usize, bool)> {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut reader = PlaceReader { lines: Lines::new(text), places: Vec::new() };
    reader.table(table.get_ref(), &KeyPath::root());
    reader.places
}

/// The offset of the first byte of each line.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(ends.map(|(end, _)| end + 1)).collect())
    }

    fn of(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}

struct PlaceReader {
    lines: Lines,
    places: Vec<(KeyPath, usize, bool)>,
}

impl PlaceReader {
    fn table(&mut self, table: &DeTable<'_>, path: &KeyPath) {
        for (key, value) in table {
            self.item(path.raw_key(key.get_ref()), key.span().start, value.get_ref());
        }
    }

    fn item(&mut self, path: KeyPath, offset: usize, value: &DeValue<'_>) {
        let line = self.lines.of(offset);
        self.places.push((path.clone(), line, !matches!(value, DeValue::Table(_))));
        match value {
            DeValue::Table(table) => self.table(table, &path),
            DeValue::Array(items) => {
                for (n, item) in items.iter().enumerate() {
                    self.item(path.index(n), item.span().start, item.get_ref());
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }
}

/// A number that no key can hold stays a text, so that the complaint can show it.
fn integer(digits: &str, radix: u32) -> ValueKind {
    i64::from_str_radix(digits, radix).map_or_else(|_| ValueKind::String(digits.to_owned()), ValueKind::I64)
}

fn text(value: &impl ToString) -> ValueKind {
    ValueKind::String(value.to_string())
}
