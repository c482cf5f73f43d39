//! From merged values to typed settings, collecting every error instead of only the first.
//!
//! `serde` gives up at the first error. So [`decode`] notes it, hides the value it complained of,
//! and reads again, until nothing is left to complain of. A missing key is filled with an empty
//! value for the same reason. What comes out is only good for finding further errors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use config::{Value, ValueKind};
use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::problem::{KeyPath, Step};

/// Rounds after which the rest of a hopeless file is left unread.
const MOST_ERRORS: usize = 200;

/// Keys whose values are never printed.
const SECRETS: [&str; 4] = ["password", "ha1_md5", "ha1_sha256", "tokens"];

/// The result of [`decode`].
#[derive(Debug)]
pub(super) struct Decoded<T> {
    /// The value: whole if `errors` is empty; otherwise good for finding further errors only, and
    /// `None` if too little could be read even for that.
    pub(super) value: Option<T>,
    /// Every error with the path of its key.
    pub(super) errors: Vec<(KeyPath, String)>,
    /// How `value` differs from what was written.
    pub(super) repairs: Repairs,
}

/// Reads `value` as a `T`.
pub(super) fn decode<T: DeserializeOwned>(value: &Value) -> Decoded<T> {
    let mut repairs = Repairs::default();
    let mut errors = Vec::new();
    while errors.len() < MOST_ERRORS {
        let node = Node { value, path: KeyPath::root(), repairs: &repairs };
        let refusal = match T::deserialize(node) {
            Ok(value) => return Decoded { value: Some(value), errors, repairs },
            Err(refusal) => refusal,
        };
        let path = refusal.path.as_deref().cloned().unwrap_or_default();
        let changed = if let Some(owner) = repairs.fill_that_failed(&path) {
            repairs.hidden.insert(owner)
        } else {
            // A value that is hidden by now is missing, or its list too short, only for that reason.
            if !repairs.covers(&refusal.key_path()) {
                errors.push((refusal.key_path(), refusal.text(value)));
            }
            match refusal.complaint {
                Complaint::Missing(field) => repairs.filled.entry(path).or_default().insert(field),
                Complaint::UnknownKey { .. } | Complaint::Unfit { .. } | Complaint::Other(_) => {
                    repairs.hidden.insert(path)
                }
            }
        };
        if !changed {
            break;
        }
    }
    errors.push((KeyPath::root(), "there are further errors, which are not shown".to_owned()));
    Decoded { value: None, errors, repairs }
}

/// The keys of the table that `T` is read from, in the order of its fields.
#[cfg(test)]
pub(super) fn keys_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let nothing = Value::new(None, ValueKind::Table([(String::new(), Value::from(0))].into_iter().collect()));
    let repairs = Repairs::default();
    let node = Node { value: &nothing, path: KeyPath::root(), repairs: &repairs };
    match T::deserialize(node).map_err(|refusal| refusal.complaint) {
        Err(Complaint::UnknownKey { known, .. }) => known,
        Err(_) | Ok(_) => &[],
    }
}

/// What is changed in the next reading so that it gets further than the last.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Values that are passed over.
    hidden: BTreeSet<KeyPath>,
    /// Missing keys that are given an empty value, by the table they are missing in.
    filled: BTreeMap<KeyPath, BTreeSet<&'static str>>,
}

impl Repairs {
    /// The table to hide if `path` is a key that was filled and whose empty value will not do.
    fn fill_that_failed(&self, path: &KeyPath) -> Option<KeyPath> {
        let owner = path.parent()?;
        self.is_filled(path).then_some(owner)
    }

    fn is_filled(&self, path: &KeyPath) -> bool {
        let fields = path.parent().and_then(|owner| self.filled.get(&owner));
        fields.zip(path.last_key()).is_some_and(|(fields, key)| fields.contains(key))
    }

    /// The path in the source of what is at `path` in the repaired value: hidden items of a list
    /// move the later ones.
    pub(super) fn written(&self, path: &KeyPath) -> KeyPath {
        let mut written = KeyPath::root();
        for step in path.steps() {
            written = match step {
                Step::Key(key) => written.raw_key(key),
                Step::Index(index) => {
                    let mut shown =
                        (0..).map(|n| written.index(n)).filter(|item| !self.hidden.contains(item));
                    shown.nth(*index).unwrap_or_else(|| written.index(*index))
                }
            };
        }
        written
    }

    /// Whether the value read is not all that the source says.
    pub(super) fn any(&self) -> bool {
        !self.hidden.is_empty() || !self.filled.is_empty()
    }

    /// Whether what the source says at `path`, or within it, was already complained of.
    pub(super) fn covers(&self, path: &KeyPath) -> bool {
        let touches = |hidden: &KeyPath| path.is_within(hidden) || hidden.is_within(path);
        self.is_filled(path) || self.hidden.iter().any(touches)
    }

    /// Whether a name of `list` was lost: then a reference into it may be right after all. An
    /// unknown section may have been meant for any list.
    pub(super) fn lost_a_name(&self, list: &KeyPath) -> bool {
        let is_section = |path: &KeyPath| path.parent().is_some_and(|parent| list.is_within(&parent));
        let names = |path: &KeyPath| path.last_key().is_none_or(|key| key == "name");
        let lost = |path: &KeyPath| path.is_within(list) && names(path) || is_section(path);
        let filled =
            |(path, keys): (&KeyPath, &BTreeSet<&str>)| path.is_within(list) && keys.contains("name");
        self.hidden.iter().any(lost) || self.filled.iter().any(filled)
    }
}

#[derive(Debug)]
enum Complaint {
    UnknownKey { key: String, known: &'static [&'static str] },
    Missing(&'static str),
    Unfit { allowed: String },
    Other(String),
}

/// Why a value was refused, and its path once it is known.
#[derive(Debug)]
pub(super) struct Refusal {
    complaint: Complaint,
    path: Option<Box<KeyPath>>,
}

impl Refusal {
    fn new(complaint: Complaint) -> Self {
        Self { complaint, path: None }
    }

    fn unfit(allowed: impl Into<String>) -> Self {
        Self::new(Complaint::Unfit { allowed: allowed.into() })
    }

    /// Gives the path if no deeper value has.
    fn at(mut self, path: &KeyPath) -> Self {
        if self.path.is_none() {
            self.path = Some(Box::new(match &self.complaint {
                Complaint::UnknownKey { key, .. } => path.raw_key(key),
                Complaint::Missing(_) | Complaint::Unfit { .. } | Complaint::Other(_) => path.clone(),
            }));
        }
        self
    }

    /// The key to print: a missing one is named too.
    fn key_path(&self) -> KeyPath {
        let path = self.path.as_deref().cloned().unwrap_or_default();
        match &self.complaint {
            Complaint::Missing(field) => path.raw_key(field),
            Complaint::UnknownKey { .. } | Complaint::Unfit { .. } | Complaint::Other(_) => path,
        }
    }

    fn text(&self, root: &Value) -> String {
        match &self.complaint {
            Complaint::UnknownKey { key, known } => unknown_key(key, known),
            Complaint::Missing(_) => "is missing and has no default".to_owned(),
            Complaint::Unfit { allowed } => {
                format!("found {}; allowed: {allowed}", found(root, &self.key_path()))
            }
            Complaint::Other(text) => text.clone(),
        }
    }
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&key.to_lowercase(), name), name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3);
    let hint = nearest.map(|(_, name)| format!("did you mean `{name}`? ")).unwrap_or_default();
    format!("unknown key; {hint}allowed here: {}", known.join(", "))
}

fn found(root: &Value, path: &KeyPath) -> String {
    if path.nearest_key().is_some_and(|key| SECRETS.contains(&key)) {
        return "a value that is not shown".to_owned();
    }
    lookup(root, path).map_or_else(|| "nothing".to_owned(), show)
}

pub(super) fn lookup<'a>(root: &'a Value, path: &KeyPath) -> Option<&'a Value> {
    let Some(parent) = path.parent() else { return Some(root) };
    match (&lookup(root, &parent)?.kind, path.steps().last()?) {
        (ValueKind::Table(table), Step::Key(key)) => table.get(&**key),
        (ValueKind::Array(items), Step::Index(index)) => items.get(*index),
        _ => None,
    }
}

/// A value as it would be written in a settings file; tables only by their kind.
fn show(value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Boolean(value) => value.to_string(),
        ValueKind::I64(value) => value.to_string(),
        ValueKind::I128(value) => value.to_string(),
        ValueKind::U64(value) => value.to_string(),
        ValueKind::U128(value) => value.to_string(),
        ValueKind::Float(value) => value.to_string(),
        ValueKind::String(value) => format!("{value:?}"),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(items) => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
        }
    }
}

/// What serde expects, in words an operator knows.
fn plain(expected: &dyn fmt::Display) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number from 0".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "a borrowed string" => "a text in quotes".to_owned(),
        "a sequence" => "a list, as [...]".to_owned(),
        _ => expected,
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.complaint)
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(msg: T) -> Self {
        Self::new(Complaint::Other(msg.to_string()))
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::unfit(plain(&expected))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::unfit(plain(&expected))
    }

    fn invalid_length(_: usize, expected: &dyn de::Expected) -> Self {
        Self::unfit(plain(&expected))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::unfit(one_of(expected))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::new(Complaint::UnknownKey { key: field.to_owned(), known })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Complaint::Missing(field))
    }
}

fn one_of(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    quoted.join(" or ")
}

/// A value to read, with its path.
struct Node<'a> {
    value: &'a Value,
    path: KeyPath,
    repairs: &'a Repairs,
}

impl<'a> Node<'a> {
    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.value.kind {
            ValueKind::Nil => visitor.visit_unit(),
            ValueKind::Boolean(value) => visitor.visit_bool(*value),
            ValueKind::I64(value) => visitor.visit_i64(*value),
            ValueKind::I128(value) => visitor.visit_i128(*value),
            ValueKind::U64(value) => visitor.visit_u64(*value),
            ValueKind::U128(value) => visitor.visit_u128(*value),
            ValueKind::Float(value) => visitor.visit_f64(*value),
            ValueKind::String(value) => visitor.visit_str(value),
            ValueKind::Array(items) => {
                visitor.visit_seq(Items { items: items.iter().enumerate(), node: self })
            }
            ValueKind::Table(_) => visitor.visit_map(self.entries()?),
        }
    }

    fn entries(&self) -> Result<Entries<'a>, Refusal> {
        let ValueKind::Table(table) = &self.value.kind else {
            return Err(Refusal::unfit("a table"));
        };
        let repairs = self.repairs;
        let written = table
            .iter()
            .filter(|(key, _)| !repairs.hidden.contains(&self.path.raw_key(key)))
            .map(|(key, value)| (key.as_str(), Some(value)));
        let filled = repairs.filled.get(&self.path).into_iter().flatten().map(|key| (*key, None));
        let mut left: Vec<_> = written.chain(filled).collect();
        left.sort_unstable_by(|a, b| b.0.cmp(a.0));
        Ok(Entries { left, next: None, path: self.path.clone(), repairs })
    }
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let path = self.path.clone();
        self.visit(visitor).map_err(|refusal| refusal.at(&path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let path = self.path.clone();
        self.entries().and_then(|entries| visitor.visit_map(entries)).map_err(|refusal| refusal.at(&path))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let read = match &self.value.kind {
            ValueKind::String(value) => {
                let value: StrDeserializer<'_, Refusal> = value.as_str().into_deserializer();
                visitor.visit_enum(value)
            }
            _ => Err(Refusal::unfit(one_of(variants))),
        };
        read.map_err(|refusal| refusal.at(&self.path))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// The keys of a table that are left to read, last first. `None` is a filled key.
struct Entries<'a> {
    left: Vec<(&'a str, Option<&'a Value>)>,
    next: Option<(&'a str, Option<&'a Value>)>,
    path: KeyPath,
    repairs: &'a Repairs,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        self.next = self.left.pop();
        let Some((key, _)) = self.next else { return Ok(None) };
        let key: StrDeserializer<'_, Refusal> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let Some((key, value)) = self.next.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let path = self.path.raw_key(key);
        match value {
            Some(value) => seed.deserialize(Node { value, path: path.clone(), repairs: self.repairs }),
            None => seed.deserialize(Fill),
        }
        .map_err(|refusal| refusal.at(&path))
    }
}

/// The items of a list that are left to read.
struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
    node: Node<'a>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        for (index, value) in self.items.by_ref() {
            let path = self.node.path.index(index);
            if self.node.repairs.hidden.contains(&path) {
                continue;
            }
            let node = Node { value, path: path.clone(), repairs: self.node.repairs };
            return seed.deserialize(node).map(Some).map_err(|refusal| refusal.at(&path));
        }
        Ok(None)
    }
}

/// Stands for a missing key, once that has been noted.
struct Fill;

impl<'de> Deserializer<'de> for Fill {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_str("")
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let nothing: SeqDeserializer<_, Refusal> = SeqDeserializer::new(std::iter::empty::<u8>());
        visitor.visit_seq(nothing)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let first: StrDeserializer<'_, Refusal> = variants.first().copied().unwrap_or("").into_deserializer();
        visitor.visit_enum(first)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct tuple tuple_struct map struct identifier ignored_any
    }
}
