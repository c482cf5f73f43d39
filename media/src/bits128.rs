//! Serialises 128 bits as two numbers of 64: tagged and flattened serde types cannot carry a `u128`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) fn serialize<S: Serializer>(bits: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    ((bits >> 64) as u64, *bits as u64).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    let (high, low) = <(u64, u64)>::deserialize(deserializer)?;
    Ok(u128::from(high) << 64 | u128::from(low))
}
