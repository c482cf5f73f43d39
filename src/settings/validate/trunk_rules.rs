//! The rules of `[[trunk]]` for numbers and headers.

use tandem_protocol::header_rules::{HeaderRule, Template};
use tandem_protocol::number_rules::Direction;

use super::Findings;
use crate::settings::problem::KeyPath;
use crate::settings::types::{NumberRule, Trunk};

pub(super) fn check(path: &KeyPath, trunk: &Trunk, findings: &mut Findings<'_>) {
    for (index, rule) in trunk.number_rules.iter().enumerate() {
        check_numbers(&path.key("number_rules").index(index), rule, findings);
    }
    for (index, rule) in trunk.header_rules.iter().enumerate() {
        let path = path.key("header_rules").index(index);
        let template = rule.value.parse::<Template>();
        let template = template.unwrap_or_else(|bad| {
            findings.error(
                &path.key("value"),
                format!("{bad}; allowed: text with places as {{Header;parameter|otherwise}}"),
            );
            Template::default()
        });
        // What it is for does not matter here.
        if let Err(bad) = HeaderRule::new(Direction::Out, &rule.header, template) {
            findings.error(
                &path.key("header"),
                format!("{bad}; allowed: a header that the engine does not write itself"),
            );
        }
    }
}

fn check_numbers(path: &KeyPath, rule: &NumberRule, findings: &mut Findings<'_>) {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'*' | b'#'));
    for (key, text) in [("begins", &rule.begins), ("prefix", &rule.prefix)] {
        if text.len() > 32 || !digits(text.strip_prefix('+').unwrap_or(text)) {
            findings.unfit(&path.key(key), text, "up to 32 digits, * and #, after + or not");
        }
    }
    findings.within(&path.key("strip"), rule.strip, 0..=32, "characters");
    if let Some(length) = rule.length {
        findings.within(&path.key("length"), length, 1..=64, "characters");
    }
    if rule.strip == 0 && rule.prefix.is_empty() {
        findings.warn(path, "changes nothing: it only keeps later rules from numbers that it fits");
    }
}
