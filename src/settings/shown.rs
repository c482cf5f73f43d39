//! How values are shown where two settings are compared: as the text that a file has for them, secrets excepted.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::OnceLock;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::values::{
    BindAddress, CodeRange, Codec, ConnectionAddress, DigestAlgorithm, HostPort, Ip, PortRange, Secret,
    Source,
};

/// What a secret's form begins with.
const SECRET: &str = "\u{0}secret ";

/// A form that only tells whether two secrets are the same, and only within this process.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        static KEY: OnceLock<RandomState> = OnceLock::new();
        let hash = KEY.get_or_init(RandomState::new).hash_one(self.reveal());
        serializer.collect_str(&format_args!("{SECRET}{hash:x}"))
    }
}

impl Serialize for BindAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for Ip {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for HostPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.port, self.network.addr().is_ipv6()) {
            (None, _) => serializer.collect_str(&self.network),
            (Some(port), true) => serializer.collect_str(&format_args!("[{}]:{port}", self.network)),
            (Some(port), false) => serializer.collect_str(&format_args!("{}:{port}", self.network)),
        }
    }
}

impl Serialize for CodeRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last {
            serializer.collect_str(&self.first)
        } else {
            serializer.collect_str(&format_args!("{}-{}", self.first, self.last))
        }
    }
}

impl Serialize for ConnectionAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (user, host) = (self.user.as_deref(), self.host.as_ref());
        match (user, host) {
            (Some(user), Some(host)) => serializer.collect_str(&format_args!("{user}@{host}")),
            (user, host) => {
                let host = host.map(ToString::to_string);
                serializer.serialize_str(user.or(host.as_deref()).unwrap_or_default())
            }
        }
    }
}

impl Serialize for Codec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Serialize for DigestAlgorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        })
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.first, self.last].serialize(serializer)
    }
}

/// A target of the dial plan as a file has it.
pub(super) fn target<S: Serializer>(
    target: &super::values::Target,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(target)
}

/// A value for people: `not set`, `(a secret)`, else as a file has it.
struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("not set"),
            Value::String(text) if text.starts_with(SECRET) => f.write_str("(a secret)"),
            Value::Array(list) if list.iter().any(|v| v.as_str().is_some_and(|v| v.starts_with(SECRET))) => {
                f.write_str("(secrets)")
            }
            other => write!(f, "{other}"),
        }
    }
}

/// One key that two settings have otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyChange {
    /// The key, within whatever has changed.
    pub key: String,
    /// What it was, for people.
    pub from: String,
    /// What it is.
    pub to: String,
}

/// The keys that `before` and `after` have otherwise, in the order of their names.
pub fn changed_keys<T: Serialize>(before: &T, after: &T) -> Vec<KeyChange> {
    // A settings type always has a form: its keys are texts.
    let form = |value: &T| serde_json::to_value(value).unwrap_or_default();
    let (before, after) = (form(before), form(after));
    let (Value::Object(before), Value::Object(after)) = (&before, &after) else { return Vec::new() };
    let differing = before.iter().filter_map(|(key, was)| {
        let is = after.get(key).unwrap_or(&Value::Null);
        let (from, to) = (Shown(was).to_string(), Shown(is).to_string());
        (was != is).then(|| KeyChange { key: key.clone(), from, to })
    });
    differing.collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, Station, Trunk};
    use super::*;

    fn trunk(more: &str) -> Trunk {
        let text = format!("[[trunk]]\nname = \"a\"\nproxies = [\"127.0.0.1:5070\"]\n{more}");
        Settings::load_from(Some(("test", &text)), []).unwrap().settings.trunk.remove(0)
    }

    #[test]
    fn changed_keys_are_shown_as_a_file_has_them_and_secrets_are_not() {
        let before = trunk("max_calls = 3\nusername = \"u\"\npassword = \"geheim\"\n");
        let after = trunk(
            "username = \"u\"\npassword = \"anders\"\nretryable_codes = [\"480\", \"500-599\", \"404\"]\n\
             accept_from = [\"10.0.0.0/8\", \"192.0.2.1:5070\"]\n",
        );
        let shown: Vec<String> = changed_keys(&before, &after)
            .into_iter()
            .map(|change| format!("{}: {} -> {}", change.key, change.from, change.to))
            .collect();
        assert_eq!(
            shown,
            [
                "accept_from: [] -> [\"10.0.0.0/8\",\"192.0.2.1/32:5070\"]",
                "max_calls: 3 -> 0",
                "password: (a secret) -> (a secret)",
                "retryable_codes: [\"480\",\"500-599\"] -> [\"480\",\"500-599\",\"404\"]",
            ]
        );
        assert!(changed_keys(&after, &after.clone()).is_empty());
    }

    #[test]
    fn no_form_of_the_settings_tells_a_secret() {
        let text = "[http]\ntokens = [\"geheim\"]\n[[station]]\nname = \"a\"\nextension = \"1\"\npassword = \"geheim\"\n";
        let settings = Settings::load_from(Some(("test", text)), []).unwrap().settings;
        assert!(!serde_json::to_string(&settings).unwrap().contains("geheim"));
        let mut other: Station = settings.station[0].clone();
        other.password = Some(Secret::from("other".to_owned()));
        let changes = changed_keys(&settings.station[0], &other);
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].from.as_str(), changes[0].to.as_str()), ("(a secret)", "(a secret)"));
    }
}
