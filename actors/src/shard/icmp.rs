//! Requests that came to nobody, as ICMP tells.

use actix::prelude::*;

use super::{LinkMessage, Shard};
use crate::env::Told;
use crate::ids::ShardId;
use crate::sip::icmp::Undelivered;

/// The kernel gives an error to any shard's socket of the listener, not to the one that sent.
pub struct NotDelivered(pub Undelivered);

impl Shard {
    /// Whose request it was hears of it: the Via branch names the shard.
    pub(super) fn not_delivered(&mut self, error: Undelivered) {
        let home = error.request().and_then(|(branch, _)| {
            let tag = branch.strip_prefix("z9hG4bK")?.split('.').next()?;
            self.env.shared().names.shard_of(tag.as_bytes())
        });
        let Some(home) = home.map(|shard| ShardId(shard.0 % self.env.directory().shards().max(1))) else {
            return;
        };
        if home == self.env.shard() {
            self.endpoint().not_delivered(&error);
        } else {
            self.env.link(home, LinkMessage::NotDelivered(Box::new(error)));
        }
    }
}

impl Handler<Told<NotDelivered>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<NotDelivered>, _: &mut Context<Self>) {
        self.not_delivered(told.0.0);
    }
}
