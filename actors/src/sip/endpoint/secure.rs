//! A request for a `sips` URI goes by TLS or not at all (RFC 3261 §26.2.2, RFC 5630).

use bytes::Bytes;
use tandem_protocol::flow::{Flow, ListenerId};
use tandem_protocol::message::{Limits, Message};

use super::transport::{Hop, next_hop};
use super::{Endpoint, Outgoing};
use crate::env::Unsent;

/// Whether a message is a request for a `sips` URI.
fn is_for_sips(message: &[u8]) -> bool {
    // Asked of every message that leaves, so nothing is parsed: a response has a status there.
    let method = message.iter().position(|b| *b == b' ').unwrap_or(message.len());
    message.get(method + 1..method + 6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"sips:"))
}

impl Endpoint {
    /// False if the message must go by TLS, and this is another way.
    pub(super) fn may_go(&self, flow: Flow, message: &[u8]) -> bool {
        self.transport(flow).is_secure() || !is_for_sips(message)
    }

    /// By TLS to the host that a request for a `sips` URI was to go to otherwise, if it names an address there.
    pub(super) fn secure_instead(&self, out: &Outgoing) -> Option<Hop> {
        let request = Message::parse(out.message.clone(), &Limits::NONE).ok()?;
        let remote = next_hop(&request).filter(|named| named.ip() == out.to.remote.ip())?;
        let config = self.env.config();
        let fits =
            |id: &&ListenerId| config.listener(**id).is_some_and(|l| l.address.is_ipv4() == remote.is_ipv4());
        let listener = self.secure_listeners.iter().find(fits)?;
        let message = self.via_of(&out.message, out.to.listener, *listener)?;
        Some(Hop { flow: Flow::to(*listener, remote), message, fallback: None })
    }

    /// Refuses to send a message by a way that it must not take.
    pub(super) fn guard(&self, flow: Flow, message: &Bytes) -> Result<(), Unsent> {
        if self.may_go(flow, message) {
            return Ok(());
        }
        tracing::warn!(peer = %flow.remote, "a request for a sips URI was not sent: there is no way by TLS");
        Err(Unsent::Unreachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_of_a_request_is_told_and_nothing_else_counts() {
        for yes in ["INVITE sips:a@b SIP/2.0\r\n", "BYE SIPS:192.0.2.1 SIP/2.0\r\n"] {
            assert!(is_for_sips(yes.as_bytes()), "{yes}");
        }
        for no in [
            "INVITE sip:sips:a@b SIP/2.0\r\n",
            "SIP/2.0 200 sips:\r\n",
            "\r\n\r\n",
            "ACK sip:a SIP/2.0\r\nTo: sips:a",
        ] {
            assert!(!is_for_sips(no.as_bytes()), "{no}");
        }
    }
}
