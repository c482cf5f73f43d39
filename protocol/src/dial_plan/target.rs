//! Where a matching call goes: `kind:name`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The target of a pattern, written `kind:name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// A station.
    Station(Arc<str>),
    /// A user, who is reached at a station.
    User(Arc<str>),
    /// A trunk.
    Trunk(Arc<str>),
    /// A route group: trunks in order.
    RouteGroup(Arc<str>),
    /// A route list: route groups in order.
    RouteList(Arc<str>),
    /// A service of our own: echo, a tone.
    Service(Arc<str>),
    /// Refuse the call with this status, 400 to 699.
    Reject(u16),
}

/// A target that is not `kind:name`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found {0:?}; allowed: {forms}", forms = Target::FORMS)]
pub struct BadTarget(pub String);

impl Target {
    /// What can be written, in words.
    pub const FORMS: &'static str = "\"station:NAME\", \"user:NAME\", \"trunk:NAME\", \"route_group:NAME\", \
        \"route_list:NAME\", \"service:NAME\" or \"reject:CODE\" with a code from 400 to 699";

    /// The kind as written.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Station(_) => "station",
            Self::User(_) => "user",
            Self::Trunk(_) => "trunk",
            Self::RouteGroup(_) => "route_group",
            Self::RouteList(_) => "route_list",
            Self::Service(_) => "service",
            Self::Reject(_) => "reject",
        }
    }

    /// The name, for the kinds that have one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Station(name)
            | Self::User(name)
            | Self::Trunk(name)
            | Self::RouteGroup(name)
            | Self::RouteList(name)
            | Self::Service(name) => Some(name),
            Self::Reject(_) => None,
        }
    }
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget(text.to_owned());
        let (kind, name) = text.split_once(':').ok_or_else(bad)?;
        let name = name.trim();
        let owned = || if name.is_empty() { Err(bad()) } else { Ok(name.into()) };
        Ok(match kind.trim() {
            "station" => Self::Station(owned()?),
            "user" => Self::User(owned()?),
            "trunk" => Self::Trunk(owned()?),
            "route_group" => Self::RouteGroup(owned()?),
            "route_list" => Self::RouteList(owned()?),
            "service" => Self::Service(owned()?),
            "reject" => Self::Reject(name.parse().ok().filter(|c| (400..700).contains(c)).ok_or_else(bad)?),
            _ => return Err(bad()),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reject(code) => write!(f, "reject:{code}"),
            other => write!(f, "{}:{}", other.kind(), other.name().unwrap_or_default()),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = BadTarget;
    fn try_from(text: String) -> Result<Self, BadTarget> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}
