//! By which way a message leaves, and by which other one when that is gone (RFC 3261 §18).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tandem_protocol::dialog::NoAnswer;
use tandem_protocol::flow::{ConnectionId, Flow, ListenerId, Transport};
use tandem_protocol::message::framing::stream::FrameError;
use tandem_protocol::message::{Header, Limits, Message, Method, NameAddr, Uri, bad_request};

use super::{Endpoint, Outgoing};
use crate::env::{Leftover, Unsent};
use crate::sip::icmp::Undelivered;
use crate::sip::stateless::Answer;

/// RFC 3261 §18.1.1: a larger request is better not sent as a datagram.
const LARGEST_FOR_DATAGRAM: usize = 1300;
/// How long a stream is waited for before the datagram is sent after all.
const TRY_STREAM: Duration = Duration::from_millis(500);

/// The way a request takes.
pub(super) struct Hop {
    pub(super) flow: Flow,
    pub(super) message: Bytes,
    /// The datagram to send when the stream does not come about.
    pub(super) fallback: Option<(Flow, Bytes)>,
}

impl Endpoint {
    pub(super) fn transport(&self, flow: Flow) -> Transport {
        self.env.config().transport(flow.listener)
    }

    /// The way of a request. The transport that was configured wins, unless a stream is known to do better.
    pub(super) fn hop(&self, out: &Outgoing) -> Hop {
        let plain = || Hop { flow: out.to, message: out.message.clone(), fallback: None };
        if out.method == Method::Cancel
            && let Some(hop) = self.hop_of_invite(out)
        {
            return hop;
        }
        if !self.may_go(out.to, &out.message) {
            return self.secure_instead(out).unwrap_or_else(plain);
        }
        if self.stream_listeners.is_empty() || self.transport(out.to).is_reliable() {
            return plain();
        }
        self.stream_instead(out).unwrap_or_else(plain)
    }

    /// A CANCEL goes where its INVITE went (§9.1).
    fn hop_of_invite(&self, out: &Outgoing) -> Option<Hop> {
        let invite = self.client_names.get(&self.client_name(&out.branch, Method::Invite))?;
        let flow = self.clients.get(invite)?.flow;
        let message = self.via_of(&out.message, out.to.listener, flow.listener)?;
        Some(Hop { flow, message, fallback: None })
    }

    /// A stream, if the request is large and the peer known to take streams, or if its URI asks for one.
    fn stream_instead(&self, out: &Outgoing) -> Option<Hop> {
        let large = out.message.len() > LARGEST_FOR_DATAGRAM;
        let remote = if large && self.env.directory().stream_peers.knows(out.to.remote.ip()) {
            out.to.remote
        } else {
            stream_uri(&out.message).filter(|named| named.ip() == out.to.remote.ip())?
        };
        let config = self.env.config();
        let ours = config.listener(out.to.listener)?.address;
        let address = |id: &&ListenerId| config.listener(**id).map(|l| l.address);
        let fits = |id: &&ListenerId| address(id).is_some_and(|at| at.is_ipv4() == remote.is_ipv4());
        let same_host = |id: &&ListenerId| address(id).is_some_and(|at| at.ip() == ours.ip());
        let listener = self
            .stream_listeners
            .iter()
            .find(|id| same_host(id) && fits(id))
            .or_else(|| self.stream_listeners.iter().find(fits))?;
        let message = self.via_of(&out.message, out.to.listener, *listener)?;
        let flow = self.env.connect(*listener, remote, TRY_STREAM).ok()?;
        Some(Hop { flow, message, fallback: Some((out.to, out.message.clone())) })
    }

    /// A request of listener `from` with the Via of listener `to`.
    pub(super) fn via_of(&self, message: &Bytes, from: ListenerId, to: ListenerId) -> Option<Bytes> {
        if from == to {
            return Some(message.clone());
        }
        let config = self.env.config();
        let via = |id: ListenerId| {
            let listener = config.listener(id)?;
            Some(format!("Via: SIP/2.0/{} {};", listener.transport.via(), listener.external))
        };
        let (old, new) = (via(from)?, via(to)?);
        let at = message.windows(old.len()).position(|window| window == old.as_bytes())?;
        let mut changed = BytesMut::with_capacity(message.len() + new.len());
        changed.put_slice(&message[..at]);
        changed.put_slice(new.as_bytes());
        changed.put_slice(&message[at + old.len()..]);
        Some(changed.freeze())
    }

    /// Where a message can go whose connection is gone: a response to the sent-by of its Via (§18.2.2), a request to its next hop
    /// (§8.1.2), by a new connection. Only to the host that had the old one: what a peer writes into a Contact or a Via shall
    /// not make us knock at others' doors.
    fn elsewhere(&self, flow: Flow, message: &Bytes) -> Option<Flow> {
        flow.connection?;
        let message = Message::parse(message.clone(), &Limits::NONE).ok()?;
        let named = if message.is_request() { next_hop(&message)? } else { sent_by(&message)? };
        (named.ip() == flow.remote.ip()).then(|| Flow::to(flow.listener, named))
    }

    /// Sends by `flow`, or elsewhere if its connection is gone; says by which.
    pub(super) fn transmit_or_elsewhere(
        &mut self,
        flow: Flow,
        message: &Bytes,
        method: Method,
        (leftover, connect): (Leftover, Option<Duration>),
    ) -> Result<Flow, Unsent> {
        match self.transmit_within(flow, message, method, (leftover, connect)) {
            Err(Unsent::Unreachable) => {
                let other = self.elsewhere(flow, message).ok_or(Unsent::Unreachable)?;
                // Once: a peer that ends each connection is not followed from one to the next.
                self.transmit_within(other, message, method, (Leftover::Dropped, connect))
            }
            sent => sent,
        }
    }

    /// Sends a response or ACK, whose connection is gone, elsewhere: once, for nobody waits for it here.
    pub(crate) fn send_elsewhere(&mut self, flow: Flow, message: &Bytes) {
        let sent = self.elsewhere(flow, message).map(|other| {
            tracing::debug!(peer = %flow.remote, to = %other.remote, "a message takes another way than its connection");
            self.guard(other, message)?;
            self.env.transmit(other, message.clone(), Leftover::Dropped)
        });
        if !matches!(sent, Some(Ok(_))) {
            tracing::debug!(peer = %flow.remote, "a message was lost with its connection");
        }
    }

    /// Answers, as far as it can be, what made a stream unreadable.
    pub(crate) fn stream_fault(&mut self, flow: Flow, error: &FrameError) {
        self.env.metrics().sip_dropped.increment(1);
        tracing::debug!(peer = %flow.remote, why = %error, "a stream cannot be read any further");
        let Some((head, status)) = error.answer() else { return };
        let reason = error.to_string();
        let response = match Message::parse(head.clone(), &self.limits(flow.listener)) {
            Ok(message) if message.is_request() && message.method() != Method::Ack => {
                Answer::new(status, &[]).write(&message, flow.remote)
            }
            Ok(_) => return,
            Err(malformed) => match &malformed.answer {
                Some(request) if request.is_request && request.method_name != "ACK" => {
                    bad_request(request, flow.remote, status, &reason)
                }
                Some(_) | None => return,
            },
        };
        self.post_here(flow, &response, Method::Other);
    }

    /// A connection has ended: what was asked over it and not answered goes another way, or its owner hears at once (§18.4).
    ///
    /// An INVITE that has had a provisional response goes on: its final one can come by a new connection (§18.2.2).
    pub(crate) fn connection_gone(&mut self, connection: ConnectionId, was_up: bool) {
        let asked: Vec<u64> =
            self.by_connection.range((connection, 0)..=(connection, u64::MAX)).map(|(_, id)| *id).collect();
        for id in asked {
            self.by_connection.remove(&(connection, id));
            self.client_cut_off(id, was_up);
        }
    }

    /// A datagram of ours came to nobody (§18.4). Within a dialog it is sent again all the same: a peer that restarts shall not
    /// cost its calls.
    pub(crate) fn not_delivered(&mut self, error: &Undelivered) {
        let id = error
            .request()
            .and_then(|(branch, method)| self.client_names.get(&self.client_name(branch, method)).copied());
        let Some((id, client)) = id.and_then(|id| Some((id, self.clients.get(&id)?))) else { return };
        let went_there = client.flow.connection.is_none() && client.flow.remote == error.remote;
        let begins = client.request.as_ref().is_some_and(is_outside_dialogs);
        if went_there && begins && client.machine.is_unanswered() {
            self.give_up(id, NoAnswer::Transport);
        }
    }

    fn client_cut_off(&mut self, id: u64, was_up: bool) {
        let now = self.env.now().mono;
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some(request) = client.request.clone().filter(|_| client.machine.is_unanswered()) else { return };
        let (method, connect) = (client.method, client.timers.connect);
        let other = if let Some((flow, datagram)) = client.fallback.take() {
            client.begin_anew(now, datagram);
            if !was_up {
                self.env.directory().stream_peers.forget(flow.remote.ip());
            }
            Some(flow)
        } else if was_up && !std::mem::replace(&mut client.moved, true) {
            // It may have been closed just as we used it: once more, by a new one.
            let asked = client.asked;
            if asked.connection.is_none() { Some(asked) } else { self.elsewhere(asked, &request) }
        } else {
            None
        };
        let request = self.clients.get(&id).and_then(|client| client.request.clone());
        let how = (Leftover::Dropped, connect);
        match other.zip(request).map(|(flow, request)| self.transmit_within(flow, &request, method, how)) {
            Some(Ok(flow)) => self.went_by(id, flow),
            // As good as lost on the way; the timer sees to it.
            Some(Err(Unsent::Full)) => self.arm_client(id),
            Some(Err(Unsent::Unreachable)) | None => self.give_up(id, NoAnswer::Transport),
        }
    }

    /// Notes by which flow a request went.
    pub(super) fn went_by(&mut self, id: u64, flow: Flow) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.flow = flow;
            if let Some(connection) = flow.connection {
                self.by_connection.insert((connection, id));
            }
        }
        self.arm_client(id);
    }

    /// A transaction is over: its connection's end does not concern it.
    pub(super) fn forget_flow(&mut self, id: u64, flow: Flow) {
        if let Some(connection) = flow.connection {
            self.by_connection.remove(&(connection, id));
        }
    }
}

fn is_outside_dialogs(request: &Bytes) -> bool {
    Message::parse(request.clone(), &Limits::NONE).is_ok_and(|request| request.to_tag().is_none())
}

/// The address that the Request-URI names, if it asks for a stream and nothing is between.
fn stream_uri(message: &Bytes) -> Option<SocketAddr> {
    let line = message.split(|b| *b == b'\r').next()?;
    let uri = Uri::parse(std::str::from_utf8(line).ok()?.split(' ').nth(1)?).ok()?;
    let asks = uri.param("transport").is_some_and(|t| t.eq_ignore_ascii_case(Transport::Tcp.as_str()));
    let routed = || message.windows(8).any(|window| window.eq_ignore_ascii_case(b"\r\nRoute:"));
    uri.socket_addr().filter(|_| asks && !routed())
}

/// The first Route, else the Request-URI (§8.1.2), if it is an address and does not ask for datagrams.
pub(super) fn next_hop(request: &Message) -> Option<SocketAddr> {
    let route = request.values(Header::Route).next().map(|route| NameAddr::parse(route).map(|name| name.uri));
    let uri = Uri::parse(route.transpose().ok()?.unwrap_or(request.request_uri())).ok()?;
    let datagrams = uri.param("transport").is_some_and(|t| t.eq_ignore_ascii_case(Transport::Udp.as_str()));
    uri.socket_addr().filter(|_| !datagrams)
}

/// §18.2.2: where a response goes whose connection is gone. `None` for a peer behind a NAT, which sees another address than we do:
/// only the connection that it has opened leads to it.
fn sent_by(response: &Message) -> Option<SocketAddr> {
    let via = response.via();
    let address = |host: &str| host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    let (host, received) = (address(via.host), via.received().and_then(address));
    if let (Some(host), Some(received)) = (host, received)
        && host != received
    {
        return None;
    }
    Some(SocketAddr::new(received.or(host)?, via.sent_by_port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_finds_another_way_to_a_host_that_names_itself_and_none_to_one_behind_a_nat() {
        let sent_by = |via: &str| {
            let text = format!(
                "SIP/2.0 486 Busy Here\r\nVia: SIP/2.0/TCP {via};branch=z9hG4bK1\r\nFrom: <sip:a@a>;tag=1\r\n\
                 To: <sip:b@b>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
            );
            sent_by(&Message::parse(text.into(), &Limits::NONE).unwrap()).map(|to| to.to_string())
        };
        let known = |to: &str| Some(to.to_owned());
        assert_eq!(sent_by("192.0.2.1:5070"), known("192.0.2.1:5070"));
        assert_eq!(sent_by("192.0.2.1;rport=40000;received=192.0.2.1"), known("192.0.2.1:5060"));
        assert_eq!(sent_by("phone.example:5070;received=192.0.2.1"), known("192.0.2.1:5070"));
        assert_eq!(sent_by("[2001:db8::1]:5070;received=2001:db8::1"), known("[2001:db8::1]:5070"));
        assert_eq!(
            sent_by("10.0.0.7:5070;rport=40000;received=192.0.2.1"),
            None,
            "the NAT's port is the flow's"
        );
        assert_eq!(sent_by("phone.example"), None);
    }
}
