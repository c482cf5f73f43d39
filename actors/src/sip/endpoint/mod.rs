//! The transactions of one shard: values in a table, not actors.
//!
//! The endpoint parses what comes, finds its transaction, absorbs retransmissions, and says what is new. It knows who owns a
//! transaction only by a weak address: an owner that has ended simply hears nothing any more.

mod client;
mod name;
mod secure;
mod server;
mod transport;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tandem_protocol::flow::{ConnectionId, Flow, ListenerId, Transport};
use tandem_protocol::message::framing::is_keepalive;
use tandem_protocol::message::{Limits, Malformed, Message, Method, bad_request};
use tandem_protocol::transaction::Timers;

use self::client::Client;
use self::name::Name;
use self::server::Server;
use super::trace::{Direction, Trace};
use crate::env::{Datagram, Env, Leftover, Unsent};
use crate::map::Map;

/// An answer of so many bytes is no use to who wants a third party flooded.
const SHORT_ANSWER: usize = 300;

/// Names a transaction for its timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionKey {
    /// One that we answer.
    Server(u64),
    /// One that we began.
    Client(u64),
}

/// What a datagram turned out to be, if it is nobody's yet.
pub(crate) enum New {
    /// A request outside all transactions. It has none until [`Endpoint::accept`] makes one.
    Request(Message, Flow),
    /// An ACK that belongs to no transaction: for a dialog.
    Ack(Message, Flow),
    /// A 2xx to an INVITE that nobody waits for: for a dialog, or to be ended.
    Answer(Message, Flow),
}

/// A request to send in a new client transaction.
pub(crate) struct Outgoing {
    pub(crate) message: Bytes,
    pub(crate) method: Method,
    pub(crate) branch: String,
    pub(crate) cseq: u32,
    pub(crate) to: Flow,
    pub(crate) timers: Timers,
}

/// The transaction table of a shard.
pub(crate) struct Endpoint {
    env: Env,
    // In boxes: a table that has grown stays as large as it was at its fullest.
    servers: Map<u64, Box<Server>>,
    server_names: Map<Name, u64>,
    clients: Map<u64, Box<Client>>,
    client_names: Map<Name, u64>,
    names_key: u64,
    /// Which requests went by which connection.
    by_connection: BTreeSet<(ConnectionId, u64)>,
    /// The listeners of TCP.
    stream_listeners: Vec<ListenerId>,
    /// The listeners of TLS.
    secure_listeners: Vec<ListenerId>,
    next: u64,
    /// The share of new requests that we want less of.
    overload: f64,
    trace: Trace,
}

impl Endpoint {
    pub(crate) fn new(env: Env) -> Endpoint {
        let trace = Trace::new(env.config().sip_trace_bytes);
        // Unpredictable, so that a checkpoint of an earlier process cannot name a transaction of this one.
        let next = env.random() & 0x0000_ffff_ffff_0000;
        let key = env.random();
        let of = |transport| {
            env.config().listeners.iter().filter(move |l| l.transport == transport).map(|l| l.id).collect()
        };
        let (stream_listeners, secure_listeners) = (of(Transport::Tcp), of(Transport::Tls));
        Endpoint {
            env,
            servers: crate::map::new(key),
            server_names: crate::map::new(key ^ 1),
            clients: crate::map::new(key ^ 2),
            client_names: crate::map::new(key ^ 3),
            names_key: key ^ 4,
            by_connection: BTreeSet::new(),
            stream_listeners,
            secure_listeners,
            next,
            overload: 0.0,
            trace,
        }
    }

    /// The settings of `env` hold for transactions that begin from now on.
    pub(crate) fn adopt(&mut self, env: &Env) {
        self.env = env.clone();
    }

    /// Who asks for it is told from now on to keep this share of new requests to himself.
    pub(crate) fn overloaded(&mut self, share: f64) {
        self.overload = share;
    }

    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// How many transactions there are.
    pub(crate) fn len(&self) -> usize {
        self.servers.len() + self.clients.len()
    }

    fn timers(&self, listener: ListenerId) -> Timers {
        self.env.config().listener(listener).map_or_else(Timers::default, |l| l.timers)
    }

    fn limits(&self, listener: ListenerId) -> Limits {
        self.env.config().listener(listener).map_or_else(Limits::default, |l| l.limits)
    }

    /// Takes a datagram; what is new is handed back.
    pub(crate) fn receive(&mut self, datagram: &Datagram) -> Option<New> {
        if is_keepalive(&datagram.bytes) {
            return None;
        }
        let limits = self.limits(datagram.flow.listener);
        let message = match Message::parse(datagram.bytes.clone(), &limits) {
            Ok(message) => message,
            Err(malformed) => {
                self.refuse_malformed(&malformed, datagram);
                return None;
            }
        };
        self.env.metrics().message_in(message.method(), self.transport(datagram.flow));
        if self.transport(datagram.flow) == Transport::Tcp {
            self.env.directory().stream_peers.note(datagram.flow.remote.ip());
        }
        if let Some(connection) = datagram.flow.connection.filter(|id| !id.is_ours())
            && message.is_request()
            && self.transport(datagram.flow).is_secure()
        {
            let Flow { listener, remote, .. } = datagram.flow;
            self.env.directory().secure_peers.note_via(listener, remote, connection, &message.via());
        }
        self.trace.keep(self.env.now().wall, Direction::In, datagram.flow, &datagram.bytes);
        if message.is_request() {
            self.receive_request(message, datagram.flow)
        } else {
            self.receive_response(message, datagram.flow)
        }
    }

    fn refuse_malformed(&mut self, malformed: &Malformed, datagram: &Datagram) {
        let flow = datagram.flow;
        self.env.metrics().sip_dropped.increment(1);
        tracing::debug!(peer = %flow.remote, why = %malformed, "not SIP");
        if let Some(answerable) = &malformed.answer
            && answerable.is_request
            && answerable.method_name != "ACK"
        {
            let method = Method::parse(&answerable.method_name);
            self.env.metrics().refuse_request(method, crate::metrics::Refusal::Malformed);
            let reason = malformed.to_string();
            let answer = bad_request(answerable, flow.remote, malformed.status(), &reason);
            // A datagram's source may be forged: it draws no answer much larger than itself.
            let most = (datagram.bytes.len() * 3 / 2).max(SHORT_ANSWER);
            if flow.connection.is_some() || answer.len() <= most {
                self.post_here(flow, &answer, Method::Other);
            }
        }
    }

    /// Sends an answer of which nothing is kept, by the way its request came or not at all: a stranger must not have us open
    /// connections.
    fn post_here(&mut self, flow: Flow, message: &Bytes, method: Method) {
        if let Err(why) = self.transmit(flow, message, method, Leftover::Dropped) {
            tracing::debug!(peer = %flow.remote, %why, "an answer was not sent");
        }
    }

    /// Sends a response of a transaction, or an ACK: no transaction of ours repeats it on a stream, so if it must arrive it does
    /// not end with its connection. A provisional one must if a PRACK is waited for: each repetition would end where the first did, and the
    /// answer waits behind it.
    fn post(&mut self, flow: Flow, message: &Bytes, method: Method) {
        // What leaves as a datagram is never left over: it is not searched.
        let dropped = self.transport(flow).is_reliable() && is_news(message);
        let leftover = if dropped { Leftover::Dropped } else { Leftover::HandedBack };
        if let Err(why) = self.transmit_or_elsewhere(flow, message, method, (leftover, None)) {
            tracing::debug!(peer = %flow.remote, %why, "a message was not sent");
        }
    }

    fn transmit(
        &mut self,
        flow: Flow,
        message: &Bytes,
        method: Method,
        leftover: Leftover,
    ) -> Result<Flow, Unsent> {
        self.transmit_within(flow, message, method, (leftover, None))
    }

    /// The same; a connection that must be opened has `connect` to come about, else what its listener says.
    fn transmit_within(
        &mut self,
        flow: Flow,
        message: &Bytes,
        method: Method,
        (leftover, connect): (Leftover, Option<Duration>),
    ) -> Result<Flow, Unsent> {
        self.guard(flow, message)?;
        self.env.metrics().message_out(method, self.transport(flow));
        self.trace.keep(self.env.now().wall, Direction::Out, flow, message);
        self.env.transmit_within(flow, message.clone(), leftover, connect)
    }

    /// A transaction's deadline has passed.
    pub(crate) fn timeout(&mut self, key: TransactionKey) {
        match key {
            TransactionKey::Server(id) => self.server_timeout(id),
            TransactionKey::Client(id) => self.client_timeout(id),
        }
    }
}

/// A provisional response of ours that needs no PRACK (RFC 3262 §3).
fn is_news(message: &[u8]) -> bool {
    const RSEQ: &[u8] = b"\r\nRSeq: ";
    message.starts_with(b"SIP/2.0 1") && !message.windows(RSEQ.len()).any(|bytes| bytes == RSEQ)
}
