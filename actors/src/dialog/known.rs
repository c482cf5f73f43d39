//! What a dialog tells its shard of itself.

use std::sync::Arc;

use tandem_protocol::dialog::{AwaitedPrack, ServerTransactionId};

use super::DialogActor;
use crate::ids::ShardId;
use crate::owner::Address;

/// A dialog has an address: requests with its tag go there.
pub(crate) struct DialogUp {
    pub(crate) tag: Arc<str>,
    pub(crate) dialog: Address<DialogActor>,
    /// Identifies the INVITE that made it, if it was the peer's.
    pub(crate) merge_key: Option<u64>,
    /// The transaction of that INVITE: the dialog hears of its CANCEL.
    pub(crate) invite: Option<ServerTransactionId>,
    pub(crate) restored: bool,
    /// The shard that its Call-ID belongs to, if that is another, and what it is known by there.
    pub(crate) guest: Option<(ShardId, u64)>,
}

/// A dialog is over: its tag means nothing any more.
pub(crate) struct DialogDown {
    pub(crate) tag: Arc<str>,
    /// That of its reliable response that nobody has acknowledged.
    pub(crate) awaited: Option<AwaitedPrack>,
    /// Names it for a while, to those who ask for its place.
    pub(crate) name: u64,
}
