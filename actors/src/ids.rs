//! Names the engine makes: Call-IDs, tags and call ids. Node and shard are part of each, so that whatever comes back finds its shard.

use std::sync::Arc;

/// A shard's place, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ShardId(pub u16);

/// Makes and reads names of one node.
#[derive(Clone, Debug)]
pub struct Names {
    node: u16,
}

const LENGTH: usize = 1 + 4 + 2 + 16;

/// The last hexadecimal digits of a number, as many as there is room for.
fn put_hex(room: &mut [u8], mut number: u64) {
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789abcdef"[number as usize & 15];
        number >>= 4;
    }
}

/// Letters and digits are UTF-8.
fn text(name: &[u8]) -> &str {
    std::str::from_utf8(name).unwrap_or_default()
}

impl Names {
    /// Names of the node called `node`.
    pub fn new(node: &str) -> Names {
        let hash = tandem_protocol::fnv::fnv1a(node.bytes());
        Names { node: (hash ^ (hash >> 32)) as u16 }
    }

    /// A new name on `shard`: `t`, four hex digits of the node, two of the shard, sixteen of `random`.
    pub fn make(&self, shard: ShardId, random: u64) -> String {
        let mut name = [b't'; LENGTH];
        put_hex(&mut name[1..5], self.node.into());
        put_hex(&mut name[5..7], shard.0.into());
        put_hex(&mut name[7..], random);
        text(&name).to_owned()
    }

    /// A new call id, by which log, events, CDR and API know a call.
    pub fn call_id(&self, shard: ShardId, random: u64) -> Arc<str> {
        let mut id = [b'c'; LENGTH - 4];
        put_hex(&mut id[1..3], shard.0.into());
        put_hex(&mut id[3..], random);
        Arc::from(text(&id))
    }

    /// The shard a name of ours was made on; `None` for names of others.
    pub fn shard_of(&self, name: &[u8]) -> Option<ShardId> {
        if name.len() != LENGTH || name.first() != Some(&b't') {
            return None;
        }
        let text = std::str::from_utf8(name).ok()?;
        if u16::from_str_radix(text.get(1..5)?, 16).ok()? != self.node {
            return None;
        }
        u16::from_str_radix(text.get(5..7)?, 16).ok().map(ShardId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_shard_and_a_strangers_does_not() {
        let names = Names::new("a");
        let name = names.make(ShardId(3), 0xfeed);
        assert_eq!(names.shard_of(name.as_bytes()), Some(ShardId(3)));
        assert_eq!(Names::new("b").shard_of(name.as_bytes()), None);
        assert_eq!(names.shard_of(b"t00zz"), None);
        assert_eq!(names.shard_of("t\u{e9}\u{e9}00112233445566778899".as_bytes()), None);
    }
}
