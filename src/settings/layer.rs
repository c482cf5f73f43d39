//! One layer of the settings: a TOML text or the environment, as values `config` can merge, with
//! the place of every key.

use std::ffi::OsString;

use config::{Map, Source, Value, ValueKind};
use toml::Spanned;
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
    /// Where each key was set, and whether it replaces all that an earlier layer had there.
    pub(super) places: Vec<(KeyPath, Place, bool)>,
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
        let mut reader = Reader::new(text, &place);
        for error in errors {
            let place = reader.place_of(error.span().map_or(0, |span| span.start));
            let text = format!("not valid TOML: {}", error.message().trim());
            reader.layer.problems.push(Problem { place, key: KeyPath::root(), text });
        }
        reader.layer.table = reader.table(table.get_ref(), &KeyPath::root());
        reader.layer
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
                self.places.push((path, place, true));
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
    let value = DeValue::parse(text).ok()?;
    let mut reader = Reader::new(text, &|_| Place::BuiltIn);
    Some(reader.value(value.get_ref(), &KeyPath::root()))
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

/// Turns TOML values into those of `config`, noting places on the way.
struct Reader<'a> {
    /// The offset of the first byte of each line.
    line_starts: Vec<usize>,
    place: &'a dyn Fn(usize) -> Place,
    layer: Layer,
}

impl<'a> Reader<'a> {
    fn new(text: &str, place: &'a dyn Fn(usize) -> Place) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(ends.map(|(end, _)| end + 1)).collect();
        Self { line_starts, place, layer: Layer::default() }
    }

    fn place_of(&self, offset: usize) -> Place {
        (self.place)(self.line_starts.partition_point(|start| *start <= offset))
    }

    fn note(&mut self, path: &KeyPath, offset: usize, value: &DeValue<'_>) {
        let place = self.place_of(offset);
        let replaces = !matches!(value, DeValue::Table(_));
        self.layer.places.push((path.clone(), place, replaces));
    }

    fn table(&mut self, table: &DeTable<'_>, path: &KeyPath) -> Map<String, Value> {
        let mut entries = Map::new();
        for (key, value) in table {
            let path = path.raw_key(key.get_ref());
            self.note(&path, key.span().start, value.get_ref());
            let value = self.value(value.get_ref(), &path);
            entries.insert(key.get_ref().to_string(), value);
        }
        entries
    }

    fn value(&mut self, value: &DeValue<'_>, path: &KeyPath) -> Value {
        let kind = match value {
            DeValue::String(text) => ValueKind::String(text.to_string()),
            DeValue::Integer(number) => integer(number.as_str(), number.radix()),
            DeValue::Float(number) => number.as_str().parse().map_or_else(|_| text(number), ValueKind::Float),
            DeValue::Boolean(value) => ValueKind::Boolean(*value),
            DeValue::Datetime(time) => text(time),
            DeValue::Array(items) => {
                let items: Vec<&Spanned<DeValue<'_>>> = items.iter().collect();
                ValueKind::Array(items.iter().enumerate().map(|(n, item)| self.item(item, path, n)).collect())
            }
            DeValue::Table(table) => ValueKind::Table(self.table(table, path)),
        };
        Value::new(None, kind)
    }

    fn item(&mut self, item: &Spanned<DeValue<'_>>, list: &KeyPath, index: usize) -> Value {
        let path = list.index(index);
        self.note(&path, item.span().start, item.get_ref());
        self.value(item.get_ref(), &path)
    }
}

/// A number that no key can hold stays a text, so that the complaint can show it.
fn integer(digits: &str, radix: u32) -> ValueKind {
    i64::from_str_radix(digits, radix).map_or_else(|_| ValueKind::String(digits.to_owned()), ValueKind::I64)
}

fn text(value: &impl ToString) -> ValueKind {
    ValueKind::String(value.to_string())
}
