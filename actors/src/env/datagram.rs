//! What comes from the network.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tandem_protocol::flow::{Flow, ListenerId};
use tandem_protocol::time::UnixMillis;
use tokio::sync::oneshot;

/// A message that a listener received, as a datagram or framed out of a stream.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// The listener and the sender.
    pub flow: Flow,
    /// What it holds.
    pub bytes: Bytes,
    /// When it came, by the wall clock, if it is known: one datagram of those that are read together says it for all.
    pub(crate) arrived: Option<UnixMillis>,
    /// Gone with the last message of a piece of a stream: its reader waits for that.
    pub(crate) undone: Option<Arc<oneshot::Sender<()>>>,
}

impl Datagram {
    /// A datagram from `remote` to `listener`.
    pub fn new(listener: ListenerId, remote: SocketAddr, bytes: Bytes) -> Datagram {
        Datagram::by(Flow::to(listener, remote), bytes)
    }

    /// What came by a flow.
    pub fn by(flow: Flow, bytes: Bytes) -> Datagram {
        Datagram { flow, bytes, arrived: None, undone: None }
    }
}
