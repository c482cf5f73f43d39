//! `[dial_plan]`.

use serde::{Deserialize, Serialize};

use super::{Selection, internal};
use crate::settings::values::{NumberMask, Target, number_mask, target};

/// Which number leads where, for whom.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DialPlan {
    /// The partitions besides `internal`.
    pub partition: Vec<Partition>,
    /// What callers may dial.
    pub calling_search_space: Vec<CallingSearchSpace>,
    /// Numbers that lead somewhere, besides the extensions.
    pub pattern: Vec<Pattern>,
    /// Route groups in the order they are tried.
    pub route_list: Vec<RouteList>,
    /// Trunks that stand for each other.
    pub route_group: Vec<RouteGroup>,
}

/// A set of patterns that a caller sees or does not see.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Its name.
    pub name: String,
}

/// The partitions a caller sees.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CallingSearchSpace {
    /// Its name.
    pub name: String,
    /// The partitions; between equally good matches the earlier one wins.
    pub partitions: Vec<String>,
    /// The most calls at once of each of its stations; `None`: that of `[toll_fraud]`.
    #[serde(default)]
    pub max_calls: Option<u32>,
    /// The most new calls in a minute of each of its stations; `None`: that of `[toll_fraud]`.
    #[serde(default)]
    pub max_new_calls_per_min: Option<u32>,
    /// Whether its stations may dial international numbers; `None`: as `[toll_fraud]` says.
    #[serde(default)]
    pub international: Option<bool>,
}

/// A pattern of numbers and where they lead.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// The numbers that match.
    pub pattern: String,
    /// The partition it is in.
    #[serde(default = "internal")]
    pub partition: String,
    /// Where a match leads.
    #[serde(deserialize_with = "target", serialize_with = "crate::settings::shown::target")]
    pub target: Target,
    /// How many leading characters are removed; `None`: those before the dot of the pattern.
    #[serde(default)]
    pub strip: Option<u32>,
    /// What is put before what is left.
    #[serde(default)]
    pub prefix: String,
    /// What the far end sees of the caller's number.
    #[serde(default, deserialize_with = "number_mask")]
    pub calling_party_mask: Option<NumberMask>,
    /// What is put before the caller's number, after the mask.
    #[serde(default)]
    pub calling_party_prefix: String,
    /// Whether these are emergency calls.
    #[serde(default)]
    pub emergency: bool,
}

/// Route groups in the order they are tried.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteList {
    /// Its name.
    pub name: String,
    /// The groups in order.
    pub groups: Vec<String>,
    /// Whether calls may leave by it.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

/// Trunks that stand for each other.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteGroup {
    /// Its name.
    pub name: String,
    /// The trunks in order.
    pub trunks: Vec<String>,
    /// How a trunk is chosen.
    #[serde(default)]
    pub selection: Selection,
}
