//! How connections come about: TCP from a listener's own address, and the TLS handshake of those that have one.
#![allow(clippy::disallowed_methods)]

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tandem_protocol::flow::ListenerId;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsStream;

use super::door::Door;
use super::tracked::Tracked;
use super::wire::Wire;
use super::{Streams, tune};
use crate::metrics::{Closed, Handshake};
use crate::sip::tls::{Expected, Tls, failed_because};

async fn open_from(local: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if !local.ip().is_unspecified() {
        socket.bind(SocketAddr::new(local.ip(), 0))?;
    }
    let stream = socket.connect(remote).await?;
    tune(&stream);
    Ok(stream)
}

/// A connection that is to be opened.
pub(super) struct Attempt {
    /// The listener, and its address.
    pub(super) from: (ListenerId, SocketAddr),
    pub(super) remote: SocketAddr,
    /// By TLS, to a server that proves to be this one.
    pub(super) secure: Option<(Arc<Tls>, Expected)>,
    /// When it is given up, with all that belongs to it.
    pub(super) until: Instant,
}

/// One that has come about.
pub(super) enum Connected {
    Plain(Tracked),
    Secure(Box<TlsStream<Tracked>>),
}

impl Streams {
    /// Opens the connection of a wire, and carries it until it ends.
    pub(super) async fn open(self: &Rc<Self>, attempt: Attempt, wire: &Rc<Wire>) {
        match self.attempt(attempt).await {
            Ok(connected) => self.run_opened(connected, wire).await,
            Err(why) => self.remove(wire, why, false),
        }
    }

    /// Carries a connection that we have opened until it ends.
    pub(super) async fn run_opened(&self, connected: Connected, wire: &Rc<Wire>) {
        match connected {
            Connected::Plain(stream) => self.run(stream, wire, false).await,
            Connected::Secure(stream) => self.run(stream, wire, false).await,
        }
    }

    /// Opens a connection, its handshake included.
    pub(super) async fn attempt(&self, attempt: Attempt) -> Result<Connected, Closed> {
        let Attempt { from: (listener, local), remote, secure, until } = attempt;
        let stream = match timeout_at(until, open_from(local, remote)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => {
                tracing::debug!(peer = %remote, %why, "no connection");
                return Err(Closed::Unreachable);
            }
            Err(_) => return Err(Closed::Unreachable),
        };
        self.mark(&stream, listener, remote);
        let stream = Tracked::new(stream, &self.seat);
        let Some((tls, expected)) = secure else {
            self.shared.current().directory.stream_peers.note(remote.ip());
            return Ok(Connected::Plain(stream));
        };
        let whom = expected.to_string();
        let (result, why) = match timeout_at(until, tls.open(stream, remote.ip(), expected)).await {
            Ok(Ok(stream)) => {
                self.shaken(listener, remote, &whom, (Handshake::Ok, String::new()));
                return Ok(Connected::Secure(Box::new(stream)));
            }
            Ok(Err(why)) => (failed_because(&why), why.to_string()),
            Err(_) => (Handshake::Timeout, "it took too long".to_owned()),
        };
        self.shaken(listener, remote, &whom, (result, why));
        Err(Closed::Handshake)
    }

    /// Counts a handshake with a server, and logs it if it ended otherwise than the one before: a trunk that is down is tried often.
    fn shaken(
        &self,
        listener: ListenerId,
        remote: SocketAddr,
        expected: &str,
        (result, why): (Handshake, String),
    ) {
        self.shared.metrics.tls.handshake(true, result);
        let mut failing = self.failing.borrow_mut();
        let before = match result {
            Handshake::Ok => failing.remove(&(listener, remote)),
            _ if failing.len() >= MOST_FAILING && !failing.contains_key(&(listener, remote)) => None,
            _ => failing.insert((listener, remote), result),
        };
        match (result, before) {
            (Handshake::Ok, Some(_)) => {
                tracing::info!(peer = %remote, expected, "TLS to this server comes about again");
            }
            (Handshake::Ok, None) => {}
            (result, Some(before)) if before == result => {
                tracing::debug!(peer = %remote, expected, cause = result.as_str(), why, "no TLS to this server");
            }
            (result, _) => {
                let cause = result.as_str();
                let advice = result.advice();
                tracing::warn!(peer = %remote, expected, cause, why, advice, "no TLS to this server");
            }
        }
    }

    /// The handshake of a connection that a peer has opened, then the connection until it ends.
    pub(super) async fn accept_secure(
        self: &Rc<Self>,
        tls: &Tls,
        door: &Arc<Door>,
        stream: Tracked,
        (remote, listener): (SocketAddr, ListenerId),
    ) {
        let metrics = &self.shared.metrics.tls;
        let Some(shaking) = door.shake(&self.seat) else {
            metrics.handshake(false, Handshake::Limit);
            tracing::debug!(peer = %remote, "a connection was refused: too many TLS handshakes at once");
            return;
        };
        let (result, why) = match timeout(door.limits().handshake, tls.accept(stream)).await {
            Ok(Ok((stream, peer))) => {
                drop(shaking);
                metrics.handshake(false, Handshake::Ok);
                let wire = self.insert(listener, remote, false);
                if let (Some(connection), Some(peer)) = (wire.flow.connection, peer) {
                    self.shared.current().directory.secure_peers.note(connection, peer);
                }
                return self.run(stream, &wire, true).await;
            }
            Ok(Err(why)) => (failed_because(&why), why.to_string()),
            Err(_) => (Handshake::Timeout, "it took too long".to_owned()),
        };
        metrics.handshake(false, result);
        match result {
            // Who only looks whether somebody is there says nothing of us.
            Handshake::Closed => tracing::debug!(peer = %remote, why, "a TLS handshake was given up"),
            _ => {
                let cause = result.as_str();
                tracing::info!(peer = %remote, cause, why, "no TLS with a peer that has connected");
            }
        }
    }
}

/// Servers whose last failure is remembered, on each shard.
const MOST_FAILING: usize = 1000;
