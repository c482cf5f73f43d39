//! Dialogs that live on another shard than their Call-ID says: whoever has taken the place of a dialog there chose that Call-ID himself, and
//! a restart with fewer shards brings calls together. What comes for them comes to the shard of the Call-ID, which sends it after them.

use std::collections::VecDeque;
use std::time::Duration;

use tandem_protocol::message::Method;
use tandem_protocol::message::framing::peek_call_id;
use tandem_protocol::time::Instant;

use super::{LinkMessage, Shard, place_call_id};
use crate::env::{Datagram, Env, Shared};
use crate::ids::ShardId;
use crate::map::Map;
use crate::sip::endpoint::New;

/// What is repeated after a dialog's end still finds its transaction there.
const LINGER: Duration = Duration::from_secs(40);

/// Where each of them lives, by [`key_of`] its Call-ID.
pub(super) struct Moved {
    to: Map<u64, ShardId>,
    /// Those that have ended, and until when they are kept.
    ended: VecDeque<(Instant, u64)>,
}

/// What a Call-ID is known by; nobody outside can foresee it.
pub(super) fn key_of(shared: &Shared, call_id: &str) -> u64 {
    crate::map::hash(shared.placement_key ^ 1, &call_id.as_bytes())
}

/// The shard that a Call-ID belongs to and what it is known by there, if that is not this one.
pub(crate) fn guest(env: &Env, call_id: &str) -> Option<(ShardId, u64)> {
    if env.directory().shards() <= 1 {
        return None;
    }
    let home = place_call_id(env.shared(), env.directory(), call_id.as_bytes());
    (home != env.shard()).then(|| (home, key_of(env.shared(), call_id)))
}

impl Moved {
    pub(super) fn new(key: u64) -> Moved {
        Moved { to: crate::map::new(key), ended: VecDeque::new() }
    }

    /// What comes with this Call-ID goes there from now on.
    pub(super) fn goes_to(&mut self, key: u64, shard: ShardId) {
        self.ended.retain(|(_, ended)| *ended != key);
        self.to.insert(key, shard);
    }

    /// Its dialog has ended.
    fn leaves(&mut self, key: u64, now: Instant) {
        self.expire(now);
        if self.to.contains_key(&key) && !self.has_ended(key) {
            self.ended.push_back((now + LINGER, key));
        }
    }

    fn has_ended(&self, key: u64) -> bool {
        self.ended.iter().any(|(_, ended)| *ended == key)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, key)) = self.ended.pop_front_if(|(until, _)| *until <= now) {
            self.to.remove(&key);
        }
    }

    /// Where what has this Call-ID goes.
    fn find(&mut self, key: u64, now: Instant) -> Option<ShardId> {
        self.expire(now);
        self.to.get(&key).copied()
    }
}

impl Shard {
    /// Sends a message after the dialog that has moved, if it is one's.
    pub(super) fn follows(&mut self, datagram: &Datagram) -> bool {
        if self.moved.to.is_empty() {
            return false;
        }
        let Some(call_id) = peek_call_id(&datagram.bytes).and_then(|id| std::str::from_utf8(id).ok()) else {
            return false;
        };
        let key = key_of(self.env.shared(), call_id);
        let Some(to) = self.moved.find(key, self.env.now().mono) else { return false };
        let Datagram { flow, bytes, .. } = datagram;
        self.env.link(to, LinkMessage::Follows(Datagram::by(*flow, bytes.clone())));
        true
    }

    /// A message that was sent after a dialog here.
    pub(super) fn follower(&mut self, datagram: Datagram, ctx: &mut actix::Context<Shard>) {
        let new = self.endpoint().receive(&datagram);
        if let Some(New::Request(request, _)) = &new
            && request.to_tag().is_none()
            && !self.is_merged(request)
            && let Some((home, _)) = guest(&self.env, request.call_id())
            && request.method() != Method::Ack
        {
            // Something new with the same Call-ID: that is for the shard where it belongs.
            return self.env.link(home, LinkMessage::Stays(datagram));
        }
        self.act_on(new, ctx);
    }

    /// A message that has nothing to do with the dialog that has moved.
    pub(super) fn stays(&mut self, datagram: &Datagram, ctx: &mut actix::Context<Shard>) {
        if let Some(call_id) = peek_call_id(&datagram.bytes).and_then(|id| std::str::from_utf8(id).ok()) {
            let key = key_of(self.env.shared(), call_id);
            if self.moved.has_ended(key) {
                self.moved.ended.retain(|(_, ended)| *ended != key);
                self.moved.to.remove(&key);
            }
        }
        let new = self.endpoint().receive(datagram);
        self.act_on(new, ctx);
    }

    /// A dialog that lived elsewhere has ended.
    pub(super) fn moved_leaves(&mut self, key: u64) {
        self.moved.leaves(key, self.env.now().mono);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_moved_is_found_until_a_while_after_its_end() {
        let at = |seconds: u64| Instant(seconds * 1_000_000);
        let mut moved = Moved::new(7);
        moved.goes_to(1, ShardId(3));
        moved.leaves(2, at(1));
        assert_eq!((moved.find(1, at(1_000_000)), moved.find(2, at(1))), (Some(ShardId(3)), None));
        moved.leaves(1, at(10));
        moved.leaves(1, at(11));
        assert_eq!(moved.find(1, at(49)), Some(ShardId(3)));
        // The same Call-ID once more.
        moved.goes_to(1, ShardId(4));
        assert_eq!(moved.find(1, at(90)), Some(ShardId(4)));
        moved.leaves(1, at(100));
        assert_eq!(moved.find(1, at(140)), None);
        assert!(moved.to.is_empty() && moved.ended.is_empty());
    }
}
