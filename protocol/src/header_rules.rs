//! Headers that a trunk's INVITEs get from what the caller's INVITE says: a declarative replacement of normalisation scripts. A rule
//! that fails leaves its header out and nothing else.
//!
//! The text of a rule is literal but for places in braces: `{Call-Info;x-cisco-loc-name}` is a parameter of the first value of
//! that header that has it, `{Call-Info}` the whole first value, and what stands after `|` is taken where there is none:
//! `{Call-Info;x-cisco-loc-name|unknown}`. A parameter's quotes are taken off. `{{` and `}}` are braces.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::message::{Header, Message};
use crate::number_rules::Direction;

/// Headers by which a message is understood or led: no rule may write them.
const OURS: &[Header] = &[
    Header::Via,
    Header::From,
    Header::To,
    Header::CallId,
    Header::CSeq,
    Header::Contact,
    Header::MaxForwards,
    Header::Route,
    Header::RecordRoute,
    Header::ContentType,
    Header::ContentLength,
    Header::ContentEncoding,
    Header::Authorization,
    Header::ProxyAuthorization,
    Header::Allow,
    Header::Supported,
    Header::Require,
    Header::ProxyRequire,
    Header::SessionExpires,
    Header::MinSe,
    Header::Replaces,
    Header::Join,
    Header::RAck,
    Header::RSeq,
    Header::Path,
    Header::ServiceRoute,
    Header::PAssertedIdentity,
    Header::Privacy,
];
/// The longest value that a rule writes, in bytes.
const MAX_VALUE: usize = 1024;

/// A rule that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// The header's name is no token (RFC 3261 §25.1).
    #[error("{0:?} is no name of a header")]
    Name(String),
    /// The header is one that the engine writes.
    #[error("{0} is written by the engine")]
    Ours(String),
    /// A brace without its other, or nothing between them.
    #[error("{0:?} has a brace that is not closed, or nothing in it; a brace itself is written twice")]
    Braces(String),
    /// A character that no header's value has.
    #[error("{0:?} has a line end or another control character")]
    Control(String),
}

/// Why a rule wrote nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleFailure {
    /// What it takes its value from is not there.
    #[error("the INVITE has no {0}")]
    Missing(String),
    /// The value would be too long.
    #[error("its value would be longer than {MAX_VALUE} bytes")]
    TooLong,
    /// The value would have a character that no header's value has.
    #[error("its value would have a control character")]
    Control,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Piece {
    Text(String),
    From { header: String, param: Option<String>, otherwise: Option<String> },
}

/// The text of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template(Vec<Piece>);

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderRule {
    /// Whether it is for calls that come by the trunk, wherever they go, or that leave by it.
    pub direction: Direction,
    /// The header that is written.
    pub header: String,
    /// Its value.
    pub value: Template,
}

impl HeaderRule {
    /// A rule.
    ///
    /// # Errors
    /// The header's name is none, or not for rules to write.
    pub fn new(direction: Direction, header: &str, value: Template) -> Result<HeaderRule, BadRule> {
        if !is_token(header) {
            return Err(BadRule::Name(header.to_owned()));
        }
        if OURS.contains(&Header::parse(header)) {
            return Err(BadRule::Ours(header.to_owned()));
        }
        Ok(HeaderRule { direction, header: header.to_owned(), value })
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\t')
}

impl FromStr for Template {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Template, BadRule> {
        if !is_plain(text) {
            return Err(BadRule::Control(text.to_owned()));
        }
        let bad = || BadRule::Braces(text.to_owned());
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if from.starts_with("{{") || from.starts_with("}}") {
                literal.push_str(&from[..1]);
                rest = &from[2..];
                continue;
            }
            let (place, after) = from.strip_prefix('{').and_then(|f| f.split_once('}')).ok_or_else(bad)?;
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(place_of(place).ok_or_else(bad)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Template(pieces))
    }
}

fn place_of(place: &str) -> Option<Piece> {
    let (from, otherwise) = match place.split_once('|') {
        Some((from, otherwise)) => (from, Some(otherwise.to_owned())),
        None => (place, None),
    };
    let (header, param) = match from.split_once(';') {
        Some((header, param)) => (header, Some(param.to_owned())),
        None => (from, None),
    };
    let well = is_token(header) && param.as_deref().is_none_or(is_token);
    well.then(|| Piece::From { header: header.to_owned(), param, otherwise })
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Piece::Text(text) => f.write_str(text),
            Piece::From { header, param: Some(param), .. } => write!(f, "{header} with {param}"),
            Piece::From { header, param: None, .. } => f.write_str(header),
        }
    }
}

impl Template {
    /// The text, with what `invite` says in its places.
    ///
    /// # Errors
    /// See [`RuleFailure`].
    pub fn fill(&self, invite: &Message) -> Result<String, RuleFailure> {
        let mut value = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => value.push_str(text),
                Piece::From { header, param, otherwise } => {
                    let found = find(invite, header, param.as_deref()).or_else(|| otherwise.clone());
                    value.push_str(&found.ok_or_else(|| RuleFailure::Missing(piece.to_string()))?);
                }
            }
            if value.len() > MAX_VALUE {
                return Err(RuleFailure::TooLong);
            }
        }
        if is_plain(&value) { Ok(value) } else { Err(RuleFailure::Control) }
    }
}

/// A header's first value, or the first parameter of this name that one of its values has.
fn find(invite: &Message, name: &str, param: Option<&str>) -> Option<String> {
    let header = Header::parse(name);
    let mut values: Vec<&str> = match header {
        Header::Other => invite.other(name).collect(),
        known if param.is_some() => invite.values(known).collect(),
        known => invite.headers(known).collect(),
    };
    match param {
        None => values.drain(..).next().map(str::to_owned),
        Some(param) => values.into_iter().find_map(|value| parameter(value, param)),
    }
}

/// A parameter of a value: what stands between `;`, outside quotes and angle brackets.
fn parameter(value: &str, name: &str) -> Option<String> {
    let (mut quoted, mut escaped, mut bracketed, mut start) = (false, false, false, None);
    let mut params: Vec<&str> = Vec::new();
    for (at, c) in value.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => bracketed = true,
            '>' if !quoted => bracketed = false,
            ';' if !quoted && !bracketed => {
                params.extend(start.and_then(|start| value.get(start..at)));
                start = Some(at + 1);
            }
            _ => {}
        }
    }
    params.extend(start.and_then(|start| value.get(start..)));
    params.into_iter().find_map(|param| {
        let (key, text) = param.split_once('=').unwrap_or((param, ""));
        key.trim().eq_ignore_ascii_case(name).then(|| unquoted(text.trim()))
    })
}

fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut chars = inner.chars();
    let mut plain = String::with_capacity(inner.len());
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::sample;

    fn invite(headers: &[(&str, &str)]) -> Message {
        sample::invite("sip:b@example.com", headers.iter().copied())
    }

    fn filled(template: &str, headers: &[(&str, &str)]) -> Result<String, RuleFailure> {
        template.parse::<Template>().unwrap().fill(&invite(headers))
    }

    const CRN: &str = "2000;loc={Call-Info;x-cisco-loc-name}";

    #[test]
    fn a_parameter_of_call_info_becomes_part_of_another_header() {
        let info = "<urn:x-cisco-remotecc:callinfo;x-cisco-loc-name=not>; security=Unknown; x-cisco-loc-name=\"Site; 1\"";
        assert_eq!(filled(CRN, &[("Call-Info", info)]).unwrap(), "2000;loc=Site; 1");
        let two = "<http://a/photo.jpg>;purpose=icon, <urn:b>;X-Cisco-Loc-Name=Hub_None";
        assert_eq!(filled(CRN, &[("Call-Info", two)]).unwrap(), "2000;loc=Hub_None");
        assert_eq!(filled("{{{X-A|}}}", &[("X-A", "1, 2")]).unwrap(), "{1, 2}");
    }

    #[test]
    fn what_is_missing_is_said_or_has_its_otherwise() {
        let missing = |what: &str| Err(RuleFailure::Missing(what.to_owned()));
        assert_eq!(filled(CRN, &[]), missing("Call-Info with x-cisco-loc-name"));
        assert_eq!(
            filled(CRN, &[("Call-Info", "<urn:a>;purpose=icon")]),
            missing("Call-Info with x-cisco-loc-name")
        );
        assert_eq!(filled("{Call-Info;loc|none}", &[]).unwrap(), "none");
        assert_eq!(filled("{X-None}", &[]), missing("X-None"));
        let long = "y".repeat(2000);
        assert_eq!(filled("{X-A}", &[("X-A", &long)]), Err(RuleFailure::TooLong));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let template = |text: &str| text.parse::<Template>();
        for text in ["{", "}", "{}", "{Call-Info", "a}b", "{Call-Info;}", "{a b}"] {
            assert_eq!(template(text), Err(BadRule::Braces(text.to_owned())), "{text}");
        }
        assert!(matches!(template("a\r\nX: 1"), Err(BadRule::Control(_))));
        let rule = |name: &str| HeaderRule::new(Direction::Out, name, template("x").unwrap());
        assert!(matches!(rule("To"), Err(BadRule::Ours(_))));
        assert!(matches!(rule("f"), Err(BadRule::Ours(_))));
        assert!(matches!(rule("x y"), Err(BadRule::Name(_))));
        assert!(rule("x-inin-crn").is_ok() && rule("Subject").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_value_and_no_template_can_do_harm(template in ".{0,60}", value in "[ -~]{0,200}") {
            if let Ok(template) = template.parse::<Template>() {
                let _ = template.fill(&invite(&[("X-A", "1")]));
            }
            let value = value.trim();
            if let Ok(written) = filled("{X-A;loc|n}{X-A;b|n}", &[("X-A", value)]) {
                proptest::prop_assert!(is_plain(&written));
            }
        }
    }
}
