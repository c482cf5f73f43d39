//! FNV-1a: a hash that is the same in every process and release, for names that outlive both. It keeps nobody out: what strangers
//! choose needs a key.

/// FNV-1a in 64 bits.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    fnv1a_keyed(0, bytes)
}

/// The same from a starting point that `key` moves.
pub fn fnv1a_keyed(key: u64, bytes: impl IntoIterator<Item = u8>) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ key;
    bytes.into_iter().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_values_are_met() {
        assert_eq!(fnv1a(*b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(*b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(*b"foobar"), 0x8594_4171_f739_67e8);
        assert_ne!(fnv1a_keyed(1, *b"a"), fnv1a(*b"a"));
    }
}
