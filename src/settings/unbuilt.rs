//! What settings may say already though nothing heeds it yet.
//!
//! A part that gets built removes its line here; nothing else in the settings changes.

use config::{Value, ValueKind};

use super::problem::{KeyPath, Place};
use super::types::Transport;
use super::validate::Findings;

/// The transports that can be listened on. A listener of another is refused.
pub(super) const TRANSPORTS: &[Transport] = &[Transport::Udp, Transport::Tcp, Transport::Tls];

/// Keys and sections without effect. With a value, only that value is.
const WITHOUT_EFFECT: &[(&str, Option<&str>)] = &[
    ("media_pool", None),
    ("location.media_pool", None),
    ("station.auto_answer", None),
    ("station.qualify_interval_s", None),
    ("trunk.transport", Some("ws")),
    ("trunk.transport", Some("wss")),
    ("trunk.srtp", Some("offered")),
    ("trunk.srtp", Some("required")),
];

/// Switches that let something in which is not built yet, and how it is refused then.
const LETS_IN: &[(&str, &str)] = &[
    ("trunk.accept_presence", "there is no presence yet, so that its SUBSCRIBE is refused with 489"),
    ("trunk.accept_refer", "REFER outside a dialog does nothing yet and is refused with 603"),
];

/// Every key of the tables above, for the test that proves each to exist.
#[cfg(test)]
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    WITHOUT_EFFECT.iter().map(|(key, _)| *key).chain(LETS_IN.iter().map(|(key, _)| *key))
}

/// Warns of every key that was set by a file or a variable and has no effect, or less than it says.
pub(super) fn warn(merged: &Value, findings: &mut Findings<'_>) {
    for (key, only) in WITHOUT_EFFECT {
        warn_of(key, merged, findings, &|value| match (only, value) {
            (Some(only), ValueKind::String(value)) if value == only => {
                Some(format!("{only:?} is accepted but has no effect yet"))
            }
            (None, kind) if is_set(kind) => Some(format!("`{key}` is accepted but has no effect yet")),
            (Some(_) | None, _) => None,
        });
    }
    for (key, text) in LETS_IN {
        warn_of(key, merged, findings, &|value| is_set(value).then(|| (*text).to_owned()));
    }
}

/// Says `text` of each value of a key that has not been so from the start.
fn warn_of(
    key: &str,
    merged: &Value,
    findings: &mut Findings<'_>,
    text: &dyn Fn(&ValueKind) -> Option<String>,
) {
    let steps: Vec<&str> = key.split('.').collect();
    each(merged, &steps, &KeyPath::root(), &mut |path, value| {
        if let Some(text) = text(value).filter(|_| findings.places.locate(path) != Place::BuiltIn) {
            findings.warn_at(path.clone(), text);
        }
    });
}

/// Every value of a key, given by its steps without the places in lists on its way.
fn each(value: &Value, steps: &[&str], path: &KeyPath, found: &mut impl FnMut(&KeyPath, &ValueKind)) {
    match (&value.kind, steps) {
        (kind, []) => found(path, kind),
        (ValueKind::Table(table), [step, rest @ ..]) => {
            if let Some(value) = table.get(*step) {
                each(value, rest, &path.raw_key(step), found);
            }
        }
        (ValueKind::Array(items), _) => {
            let has = |item: &Value| match (&item.kind, steps) {
                (ValueKind::Table(table), [step, ..]) => table.contains_key(*step),
                (_, _) => true,
            };
            for (n, item) in items.iter().enumerate().filter(|(_, item)| has(item)) {
                each(item, steps, &path.index(n), found);
            }
        }
        (_, _) => {}
    }
}

/// Whether a value asks for something, rather than saying that nothing is wanted.
fn is_set(kind: &ValueKind) -> bool {
    match kind {
        ValueKind::Nil | ValueKind::Boolean(false) | ValueKind::I64(0) => false,
        ValueKind::String(text) => !text.is_empty(),
        ValueKind::Array(items) => !items.is_empty(),
        ValueKind::Boolean(true)
        | ValueKind::I64(_)
        | ValueKind::I128(_)
        | ValueKind::U64(_)
        | ValueKind::U128(_)
        | ValueKind::Float(_)
        | ValueKind::Table(_) => true,
    }
}
