//! Which shard a message belongs to (a first guess: see `moved.rs`).

use tandem_protocol::fnv::fnv1a_keyed;
use tandem_protocol::message::framing::{peek_call_id, peek_registered_user};

use crate::directory::Directory;
use crate::env::Shared;
use crate::ids::ShardId;

/// The shard a datagram belongs to: where the Call-ID was made if we made it, else where its hash says. A REGISTER belongs where its
/// station lives, so that it crosses once and not for each of its steps; so does one for a station that does not exist.
pub fn place(shared: &Shared, directory: &Directory, bytes: &[u8]) -> Option<ShardId> {
    if let Some(user) = peek_registered_user(bytes) {
        let station = directory.station_of_user(user);
        return Some(directory.home(station.map_or(user, |station| &station.config.name)));
    }
    let call_id = peek_call_id(bytes)?;
    Some(place_call_id(shared, directory, call_id))
}

/// The shard a Call-ID belongs to.
pub(super) fn place_call_id(shared: &Shared, directory: &Directory, call_id: &[u8]) -> ShardId {
    let shards = u64::from(directory.shards().max(1));
    if let Some(shard) = shared.names.shard_of(call_id) {
        return ShardId((u64::from(shard.0) % shards) as u16);
    }
    let hash = fnv1a_keyed(shared.placement_key, call_id.iter().copied());
    ShardId(((hash ^ (hash >> 32)) % shards) as u16)
}
