//! An INVITE that is to take the place of a dialog of this shard's (RFC 3891 §3).

use std::collections::VecDeque;
use std::time::Duration;

use actix::prelude::*;
use tandem_protocol::dialog::{Irreplaceable, ServerTransactionId};
use tandem_protocol::message::{Message, Replaces};
use tandem_protocol::time::Instant;

use super::{LinkMessage, Shard};
use crate::calls::{Asks, Refused};
use crate::env::{Env, Shared, Tell, Told};
use crate::ids::ShardId;
use crate::metrics::Refusal;
use crate::sip::stateless::Answer;

/// For so long a dialog that has ended is known to have been there: what names it was under way.
const REMEMBERED: Duration = Duration::from_secs(32);
/// More are forgotten, the oldest first.
const MOST_REMEMBERED: usize = 8_192;

/// Somebody asks a dialog for its peer's place, within a transaction of his own.
pub(crate) struct Seeks {
    pub(crate) asks: Box<Asks>,
    pub(crate) transaction: ServerTransactionId,
}

/// He does not get it, and no leg was made of his INVITE.
pub(crate) struct Declined {
    pub(crate) seeks: Seeks,
    pub(crate) refused: Refused,
}

impl Declined {
    /// For what its dialog says.
    pub(crate) fn because(seeks: Seeks, why: Irreplaceable) -> Declined {
        let refusal = match why {
            Irreplaceable::Other | Irreplaceable::NotOurs | Irreplaceable::Ended => Refusal::NoDialog,
            Irreplaceable::NotEarly => Refusal::NotAllowed,
        };
        Declined { seeks, refused: Refused::new(why.status(), refusal) }
    }
}

/// Names a dialog that has ended.
pub(crate) fn name_of(shared: &Shared, call_id: &str, local_tag: &str, remote_tag: Option<&str>) -> u64 {
    crate::map::hash(shared.placement_key, &(call_id, local_tag, remote_tag.unwrap_or("0")))
}

/// The dialogs that have ended of late.
#[derive(Default)]
pub(super) struct Ended(VecDeque<(Instant, u64)>);

impl Ended {
    pub(super) fn note(&mut self, name: u64, now: Instant) {
        while self.0.front().is_some_and(|(at, _)| now.since(*at) > REMEMBERED) {
            self.0.pop_front();
        }
        if self.0.len() == MOST_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((now, name));
    }

    fn knows(&self, name: u64, now: Instant) -> bool {
        self.0.iter().any(|(at, known)| *known == name && now.since(*at) <= REMEMBERED)
    }
}

impl Shard {
    /// Takes an INVITE to the shard of the dialog that it names. What follows on it comes here all the same, and is sent after it.
    pub(super) fn seek(&mut self, asks: Asks) {
        let shards = self.env.directory().shards().max(1);
        let home = self.env.shared().names.shard_of(asks.replaces.to_tag.as_bytes());
        let home = home.map_or(self.env.shard(), |shard| ShardId(shard.0 % shards));
        if home == self.env.shard() {
            return self.seek_here(asks);
        }
        self.moved.goes_to(super::moved::key_of(self.env.shared(), asks.invite.call_id()), home);
        self.env.link(home, LinkMessage::Seek(Box::new(asks)));
    }

    /// The same where the dialog is.
    pub(super) fn seek_here(&mut self, asks: Asks) {
        let transaction = self.endpoint().accept(&asks.invite, asks.flow);
        let dialog = self.dialogs.get(&*asks.replaces.to_tag).map(|known| known.dialog.clone());
        let seeks = Seeks { asks: Box::new(asks), transaction };
        if let Some(dialog) = dialog {
            return dialog.tell(seeks);
        }
        let Replaces { call_id, to_tag, from_tag, .. } = &seeks.asks.replaces;
        let name = name_of(self.env.shared(), call_id, to_tag, Some(from_tag));
        let was = self.ended.knows(name, self.env.now().mono);
        let why = if was { Irreplaceable::Ended } else { Irreplaceable::Other };
        self.decline(&Declined::because(seeks, why));
    }

    fn decline(&mut self, declined: &Declined) {
        let Declined { seeks: Seeks { asks, transaction }, refused } = declined;
        let metrics = self.env.metrics();
        metrics.refuse(refused.why);
        let counter = match refused.status {
            481 => &metrics.replaces.no_dialog,
            486 => &metrics.replaces.not_early,
            603 => &metrics.replaces.ended,
            403 => &metrics.replaces.not_allowed,
            _ => &metrics.replaces.refused,
        };
        counter.increment(1);
        let (status, replaces) = (refused.status, &asks.replaces.call_id);
        tracing::info!(peer = %asks.flow.remote, sip_call_id = asks.invite.call_id(), replaces, status, "an INVITE does not get the place it asks for");
        let headers = refused.headers();
        let answer = Answer { status, phrase: refused.phrase, headers: &headers };
        let response = answer.write(&asks.invite, asks.flow.remote);
        let to = asks.flow.answering(&asks.invite.via());
        self.endpoint().respond(*transaction, status, response, to);
        self.release_guest(&asks.invite);
    }

    /// Nothing came of an INVITE that may belong to another shard.
    fn release_guest(&self, invite: &Message) {
        if let Some((home, key)) = super::moved::guest(&self.env, invite.call_id()) {
            self.env.link(home, LinkMessage::Leaves(key));
        }
    }
}

impl Handler<Told<Declined>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<Declined>, _: &mut Context<Self>) {
        self.decline(&told.0);
    }
}

/// The name of a dialog, for when it has ended.
pub(crate) fn name_here(env: &Env, dialog: &tandem_protocol::dialog::Dialog) -> u64 {
    name_of(env.shared(), dialog.call_id(), dialog.local_tag(), dialog.remote_tag())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialog_is_known_to_have_ended_for_a_while_and_not_for_ever() {
        let at = |seconds: u64| Instant(seconds * 1_000_000);
        let mut ended = Ended::default();
        ended.note(1, at(10));
        assert!(ended.knows(1, at(42)) && !ended.knows(2, at(42)));
        assert!(!ended.knows(1, at(43)));
        for name in 2..=MOST_REMEMBERED as u64 + 1 {
            ended.note(name, at(20));
        }
        assert!(!ended.knows(1, at(20)) && ended.knows(2, at(20)));
        ended.note(1, at(60));
        assert_eq!(ended.0.len(), 1, "what is old goes");
    }
}
