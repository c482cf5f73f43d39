//! What SIP counts on the wire: messages by method and transport, connections.

use metrics::{Counter, Gauge};
use tandem_protocol::flow::Transport;
use tandem_protocol::message::Method;

use super::{Describe, Registry};

const METHODS: [Method; 15] = [
    Method::Invite,
    Method::Ack,
    Method::Bye,
    Method::Cancel,
    Method::Options,
    Method::Register,
    Method::Info,
    Method::Update,
    Method::Prack,
    Method::Refer,
    Method::Notify,
    Method::Subscribe,
    Method::Message,
    Method::Publish,
    Method::Other,
];

/// Messages by direction, transport and method.
pub(super) struct Messages {
    received: [Vec<Counter>; Transport::ALL.len()],
    sent: [Vec<Counter>; Transport::ALL.len()],
}

impl Messages {
    pub(super) fn new(registry: &Registry) -> Messages {
        let counters = |direction: &str| {
            Transport::ALL.map(|transport| {
                let counter = |method: &Method| {
                    let labels = [
                        ("direction", direction.to_owned()),
                        ("method", method.as_str().to_owned()),
                        ("transport", transport.as_str().to_owned()),
                    ];
                    registry.counter("tandem_sip_messages_total", &labels)
                };
                METHODS.iter().map(counter).collect()
            })
        };
        Messages { received: counters("in"), sent: counters("out") }
    }

    pub(super) fn received(&self, method: Method, transport: Transport) -> &Counter {
        &self.received[transport.place()][method as usize]
    }

    pub(super) fn sent(&self, method: Method, transport: Transport) -> &Counter {
        &self.sent[transport.place()][method as usize]
    }
}

/// Why a connection was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The listener has as many as it may.
    Limit,
    /// Its source has as many as it may.
    SourceLimit,
    /// The operating system refused it: no descriptors left, for example.
    System,
}

impl Refused {
    const ALL: [Refused; 3] = [Refused::Limit, Refused::SourceLimit, Refused::System];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::Limit => "limit",
            Refused::SourceLimit => "source_limit",
            Refused::System => "system",
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer closed it.
    Peer,
    /// It broke.
    Broken,
    /// Nothing went over it for too long.
    Idle,
    /// A message took too long to come.
    Slow,
    /// What came was no SIP, too large, or of unknown length.
    Malformed,
    /// The peer did not read.
    Backlog,
    /// It could not be opened.
    Unreachable,
    /// The TLS handshake failed of one that we have opened.
    Handshake,
    /// The settings have its listener no longer, and no call uses that any more.
    Unheard,
    /// The peer was asked whether it is there and did not say so (RFC 5626 §4.4.1).
    NoPong,
}

impl Closed {
    const ALL: [Closed; 10] = [
        Closed::Peer,
        Closed::Broken,
        Closed::Idle,
        Closed::Slow,
        Closed::Malformed,
        Closed::Backlog,
        Closed::Unreachable,
        Closed::Handshake,
        Closed::Unheard,
        Closed::NoPong,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Closed::Peer => "peer",
            Closed::Broken => "broken",
            Closed::Idle => "idle",
            Closed::Slow => "slow",
            Closed::Malformed => "malformed",
            Closed::Backlog => "backlog",
            Closed::Unreachable => "unreachable",
            Closed::Handshake => "handshake",
            Closed::Unheard => "unheard",
            Closed::NoPong => "no_pong",
        }
    }
}

/// What the connections of one transport count.
pub struct ConnectionMetrics {
    /// Connections that exist now, those that are being opened included.
    pub active: Gauge,
    refused: [Counter; Refused::ALL.len()],
    closed: [Counter; Closed::ALL.len()],
}

impl ConnectionMetrics {
    pub(super) fn new(registry: &Registry, transport: Transport) -> ConnectionMetrics {
        let counter = |name, key, value: &str| {
            let labels = [("transport", transport.as_str().to_owned()), (key, value.to_owned())];
            registry.counter(name, &labels)
        };
        ConnectionMetrics {
            active: registry
                .gauge("tandem_sip_connections_active", &[("transport", transport.as_str().to_owned())]),
            refused: Refused::ALL
                .map(|why| counter("tandem_sip_connections_refused_total", "reason", why.as_str())),
            closed: Closed::ALL
                .map(|why| counter("tandem_sip_connections_closed_total", "cause", why.as_str())),
        }
    }

    /// Counts a connection that was not taken.
    pub fn refuse(&self, why: Refused) {
        self.refused[why as usize].increment(1);
    }

    /// Counts a connection that ended.
    pub fn close(&self, why: Closed) {
        self.closed[why as usize].increment(1);
    }
}

pub(super) fn describe(registry: &Registry) {
    let counter = |name, text| registry.describe(Describe::Counter, name, None, text);
    counter("tandem_sip_messages_total", "SIP messages by direction, method and transport");
    counter("tandem_sip_connections_refused_total", "SIP connections that were not taken, by reason");
    counter("tandem_sip_connections_closed_total", "SIP connections that ended, by cause");
    registry.describe(
        Describe::Gauge,
        "tandem_sip_connections_active",
        None,
        "SIP connections that exist now",
    );
}
