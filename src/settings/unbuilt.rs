//! What settings may say already though nothing heeds it yet.
//!
//! A part that gets built removes its line here; nothing else in the settings changes.

use config::{Value, ValueKind};

use super::decode::lookup;
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
    ("trunk.accept_replaces", "no call can be replaced yet: an INVITE that names one is refused with 420"),
];

/// Every key of the tables above, for the test that proves each to exist.
#[cfg(test)]
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    WITHOUT_EFFECT.iter().map(|(key, _)| *key).chain(LETS_IN.iter().map(|(key, _)| *key))
}

/// Warns of every key that was set by a file or a variable and has no effect.
pub(super) fn warn(merged: &Value, findings: &mut Findings<'_>) {
    let mut warnings = Vec::new();
    let all = WITHOUT_EFFECT.iter().map(|(key, _)| *key).chain(LETS_IN.iter().map(|(key, _)| *key));
    let names: Vec<&str> = all.filter_map(|key| key.rsplit('.').next()).collect();
    for path in findings.places.chosen(&names) {
        let pattern = path.pattern();
        let Some(value) = lookup(merged, path) else { continue };
        for (key, only) in WITHOUT_EFFECT.iter().filter(|(key, _)| *key == pattern) {
            match (only, &value.kind) {
                (Some(only), ValueKind::String(value)) if value == only => {
                    warnings.push((path.clone(), format!("{only:?} is accepted but has no effect yet")));
                }
                (None, kind) if is_set(kind) => {
                    let text = format!("`{key}` is accepted but has no effect yet");
                    warnings.push((path.clone(), text));
                }
                (Some(_) | None, _) => {}
            }
        }
        let lets_in = LETS_IN.iter().filter(|(key, _)| *key == pattern && is_set(&value.kind));
        warnings.extend(lets_in.map(|(_, text)| (path.clone(), (*text).to_owned())));
    }
    for (path, text) in warnings {
        findings.warn_at(path, text);
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
