//! What crosses from one shard, from the store or from media to a shard.

use bytes::Bytes;
use tandem_protocol::flow::{ConnectionId, Flow};

use super::{ProxyLocated, TrunkReport};
use crate::env::{Datagram, Leftover};
use crate::ids::ShardId;
use crate::media_pool::order::MediaEvent;
use crate::registrar::{Register, RegisterDone};
use crate::sip::icmp::Undelivered;

/// What crosses from one shard, from the store or from media to a shard.
pub enum LinkMessage {
    /// A datagram that another shard's socket received.
    Datagram(Datagram),
    /// A message to send by a connection of the receiving shard.
    Send {
        /// The connection.
        flow: Flow,
        /// The message.
        message: Bytes,
        /// What becomes of it if the connection is gone.
        leftover: Leftover,
        /// Who hears if it is gone.
        from: ShardId,
    },
    /// A connection of another shard has ended, or had ended already. `was_up`: it had come about before.
    Gone {
        /// Which.
        connection: ConnectionId,
        /// Whether it had come about.
        was_up: bool,
    },
    /// A request of the receiving shard that came to nobody.
    NotDelivered(Box<Undelivered>),
    /// Tickets of committed batches: the token, and whether it was committed.
    Committed(Vec<(u64, bool)>),
    /// A verified REGISTER, for the station's shard.
    Register(Box<Register>),
    /// Its answer, for the shard it came to.
    RegisterDone(Box<RegisterDone>),
    /// A media worker's news.
    Media(MediaEvent),
    /// What a call saw of a proxy, for the trunk's shard.
    Trunk(TrunkReport),
    /// What DNS has found for a named proxy of a trunk that lives here.
    Located(ProxyLocated),
}
