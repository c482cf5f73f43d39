//! What connections bring besides messages: their end, streams that cannot be read on, and messages of other shards to send.

use actix::prelude::*;
use bytes::Bytes;
use tandem_protocol::flow::{ConnectionId, Flow};
use tandem_protocol::message::framing::stream::FrameError;

use super::{LinkMessage, Shard};
use crate::env::{Leftover, Tell, Told, Unsent};
use crate::ids::ShardId;
use crate::registration_group::FlowEnded;

/// What a connection of this shard tells.
pub enum FromStream {
    /// It has ended, or brings nothing more.
    Gone {
        /// Which.
        connection: ConnectionId,
        /// Whether it had come about before.
        was_up: bool,
        /// Whether it has brought a message: only then other shards can have used it.
        brought: bool,
    },
    /// It has ended before these could leave, which shall not be lost with it.
    Undelivered {
        /// By which they were to leave.
        flow: Flow,
        /// The messages, oldest first.
        messages: Vec<Bytes>,
    },
    /// Where its next message begins is not known any more: what can be answered is, then it is closed.
    Fault {
        /// Which.
        flow: Flow,
        /// Why.
        error: FrameError,
    },
}

impl Shard {
    /// Sends for another shard by a connection of ours; that shard hears if it is gone.
    pub(super) fn send_for(&mut self, flow: Flow, message: Bytes, leftover: Leftover, from: ShardId) {
        if self.env.transmit(flow, message.clone(), leftover) != Err(Unsent::Unreachable) {
            return;
        }
        match (leftover, flow.connection) {
            (Leftover::HandedBack, _) => self.endpoint().send_elsewhere(flow, &message),
            (Leftover::Dropped, Some(connection)) => {
                self.env.link(from, LinkMessage::Gone { connection, was_up: true });
            }
            (Leftover::Dropped, None) => {}
        }
    }
}

impl Handler<Told<FromStream>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<FromStream>, _: &mut Context<Self>) {
        match told.0 {
            FromStream::Gone { connection, was_up, brought } => {
                self.endpoint().connection_gone(connection, was_up);
                if connection.is_ours() && was_up {
                    self.groups.values().for_each(|group| group.tell(FlowEnded(connection)));
                }
                if !brought {
                    return;
                }
                // Dialogs of every shard may have been using it; our own stations hear of it after what it has brought them.
                let shards = self.env.directory().shards();
                for shard in (0..shards).map(ShardId) {
                    self.env.link(shard, LinkMessage::Gone { connection, was_up });
                }
            }
            FromStream::Undelivered { flow, messages } => {
                for message in &messages {
                    self.endpoint().send_elsewhere(flow, message);
                }
            }
            FromStream::Fault { flow, error } => {
                self.endpoint().stream_fault(flow, &error);
                if let Some(connection) = flow.connection {
                    self.env.close(connection);
                }
            }
        }
    }
}
