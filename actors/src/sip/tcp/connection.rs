//! The task of a connection: what comes is framed and handed to the shard, what waits in its [`Wire`] leaves.
#![allow(clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use smallvec::SmallVec;
use tandem_protocol::message::framing::stream::{Frame, FrameError, Framer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::wire::Wire;
use crate::env::{Datagram, Tell};
use crate::metrics::Closed;
use crate::shard::{Datagrams, FromStream, Shard};
use crate::sip::tls::refusal_of_peer;

/// A peer that does not take a single message in this time is cut off.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// So long the last answer may take to reach a peer whose connection we end.
const LINGER: Duration = Duration::from_secs(1);
/// A peer that sends more than this meanwhile does not want it.
const HEEDLESS: usize = 262_144;
/// Pieces of a stream of whose messages some may wait for their shards while more is read.
const AHEAD: usize = 16;
/// So long a peer that sends nothing more is waited for with its answers: as long as a transaction may take (64·T1). A later one
/// goes by a new connection (RFC 3261 §18.2.2).
const HALF_CLOSED: Duration = Duration::from_secs(32);

/// Carries SIP over a stream until it ends, and says why it did. `accepted`: the peer has opened it, and must say
/// something soon.
pub(super) async fn carry<S>(stream: S, wire: &Wire, shard: &Addr<Shard>, accepted: bool) -> Closed
where
    S: AsyncRead + AsyncWrite,
{
    let (reader, mut writer) = tokio::io::split(stream);
    wire.touch();
    let why = tokio::select! {
        biased;
        why = wire.cut_off() => why,
        why = wire.dead() => why,
        why = write(&mut writer, wire) => why,
        why = read(reader, wire, shard, accepted) => why,
    };
    if why == Closed::Peer && wire.is_unproved() {
        prove(&mut writer, wire).await;
    }
    why
}

/// A peer that sends nothing more may have gone altogether. Then what was written meanwhile is answered by a reset, after which nothing
/// more can be written: a line end between messages says nothing else (RFC 3261 §7.5).
async fn prove<S: AsyncWrite>(writer: &mut WriteHalf<S>, wire: &Wire) {
    tokio::time::sleep(LINGER).await;
    if matches!(timeout(LINGER, writer.write_all(b"\r\n")).await, Ok(Ok(()))) {
        wire.proved();
    }
}

async fn write<S: AsyncWrite>(writer: &mut WriteHalf<S>, wire: &Wire) -> Closed {
    loop {
        let Some(message) = wire.next() else {
            if wire.closing().is_some() {
                break;
            }
            wire.wake.notified().await;
            continue;
        };
        match timeout(WRITE_PATIENCE, deliver(writer, &message)).await {
            Ok(Ok(())) => wire.left(),
            Ok(Err(_)) => return Closed::Broken,
            Err(_) => return Closed::Backlog,
        }
    }
    // The peer reads the last answer to its end only if nothing of what it sent is unread: the reader sees to that.
    let _ = timeout(LINGER, writer.shutdown()).await;
    tokio::time::sleep(LINGER).await;
    wire.closing().unwrap_or(Closed::Peer)
}

/// Hands a message to the network: TLS keeps what it has sealed until it is told not to.
async fn deliver<S: AsyncWrite>(writer: &mut WriteHalf<S>, message: &[u8]) -> io::Result<()> {
    writer.write_all(message).await?;
    writer.flush().await
}

/// Pieces of the stream whose messages have been handed on and not all been dealt with, oldest first.
///
/// A message may go on to another thread's shard, so to have handed it on says nothing. Without this bound one peer could fill
/// the way there, and what does not fit is lost for good: a stream repeats nothing.
#[derive(Default)]
struct Undone(VecDeque<oneshot::Receiver<()>>);

impl Undone {
    /// What each message of the next piece is to hold until it has been dealt with.
    fn next(&mut self) -> Arc<oneshot::Sender<()>> {
        let (held, dealt_with) = oneshot::channel();
        self.0.push_back(dealt_with);
        Arc::new(held)
    }

    /// Waits until there is room for another piece.
    async fn room(&mut self) {
        while self.0.len() >= AHEAD
            && let Some(oldest) = self.0.front_mut()
        {
            // Nothing is ever sent: that it was dropped says enough.
            let _ = oldest.await;
            self.0.pop_front();
        }
    }
}

/// What the reader waits for, and until when.
struct Patience {
    /// The first message must be there by then.
    first: Option<Instant>,
    /// The message that has begun must be whole by then.
    whole: Option<Instant>,
}

impl Patience {
    fn deadline(&self, wire: &Wire) -> (Instant, Closed) {
        let idle = (wire.idle_at(), Closed::Idle);
        let slow = self.whole.into_iter().chain(self.first).min();
        match slow {
            Some(at) if at < idle.0 => (at, Closed::Slow),
            Some(_) | None => idle,
        }
    }
}

async fn read<S: AsyncRead>(
    mut reader: ReadHalf<S>,
    wire: &Wire,
    shard: &Addr<Shard>,
    accepted: bool,
) -> Closed {
    let mut framer = Framer::new(wire.max_bytes);
    let mut patience =
        Patience { first: accepted.then(|| Instant::now() + wire.limits.message), whole: None };
    let mut undone = Undone::default();
    loop {
        let (deadline, why) = patience.deadline(wire);
        match timeout_at(deadline, reader.read_buf(framer.room())).await {
            Ok(Ok(0)) => return pay(wire, shard).await,
            Ok(Ok(_)) => wire.touch(),
            // Many close a connection without ending TLS first. Nothing can be cut off unseen: each message says how long it is.
            Ok(Err(why)) if why.kind() == io::ErrorKind::UnexpectedEof => return pay(wire, shard).await,
            Ok(Err(why)) => return broken(wire, &why),
            // Something may have gone out meanwhile.
            Err(_) if patience.deadline(wire).0 > Instant::now() => continue,
            Err(_) => return why,
        }
        if wire.closing().is_some() {
            // What still comes is read and thrown away.
            framer = Framer::new(wire.max_bytes);
            continue;
        }
        if let Err(error) = take(&mut framer, wire, shard, &mut patience, &mut undone) {
            shard.tell(FromStream::Fault { flow: wire.flow, error });
            return drain(reader, wire).await;
        }
        // The shard has its turn before more is read.
        tokio::task::yield_now().await;
        undone.room().await;
    }
}

/// Something else than the peer's decision to close has ended a connection, or a decision that it gives a reason for.
fn broken(wire: &Wire, why: &io::Error) -> Closed {
    let peer = wire.flow.remote;
    match refusal_of_peer(why) {
        // With TLS 1.3 this comes after the handshake, if it is our certificate that the peer refuses.
        Some(alert) if !wire.has_brought() => {
            tracing::warn!(%peer, alert = ?alert, "the peer ends TLS and says why: is it our certificate?");
        }
        Some(_) | None => tracing::debug!(%peer, %why, "a connection broke"),
    }
    Closed::Broken
}

/// The peer sends nothing more. Its answers still leave; for everything else the connection has ended.
async fn pay(wire: &Wire, shard: &Addr<Shard>) -> Closed {
    if wire.half_close() {
        if let Some(connection) = wire.flow.connection {
            shard.tell(FromStream::Gone { connection, was_up: true, brought: true });
        }
        // What is not answered by then goes another way.
        let _ = timeout(HALF_CLOSED, wire.paid()).await;
    }
    wire.closing().unwrap_or(Closed::Peer)
}

/// Hands on what has come whole.
fn take(
    framer: &mut Framer,
    wire: &Wire,
    shard: &Addr<Shard>,
    patience: &mut Patience,
    undone: &mut Undone,
) -> Result<(), FrameError> {
    let mut batch = SmallVec::<[Datagram; 16]>::new();
    let result = loop {
        match framer.poll_frame() {
            Ok(Some(Frame::Message(bytes))) => {
                wire.take(&bytes);
                batch.push(Datagram::by(wire.flow, bytes));
            }
            Ok(Some(Frame::Ping)) => wire.pong(),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if !batch.is_empty() {
        (patience.first, patience.whole) = (None, None);
        let held = undone.next();
        batch.iter_mut().for_each(|message| message.undone = Some(held.clone()));
        shard.tell(Datagrams(batch));
    }
    match (framer.is_partial(), patience.whole) {
        (true, None) => patience.whole = Some(Instant::now() + wire.limits.message),
        (false, _) => patience.whole = None,
        (true, Some(_)) => {}
    }
    result
}

/// Reads on without heed while the shard's last answer leaves.
async fn drain<S: AsyncRead>(mut reader: ReadHalf<S>, wire: &Wire) -> Closed {
    let mut piece = [0; 4096];
    let mut read = 0;
    let until = Instant::now() + LINGER;
    while read < HEEDLESS {
        match timeout_at(until, reader.read(&mut piece)).await {
            Ok(Ok(n)) if n > 0 => read += n,
            Ok(Ok(_) | Err(_)) | Err(_) => break,
        }
    }
    wire.closing().unwrap_or(Closed::Malformed)
}
