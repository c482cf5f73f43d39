//! One connection: what comes is framed and handed to the shard, what goes waits in a bounded queue.
#![allow(clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use bytes::Bytes;
use smallvec::SmallVec;
use tandem_protocol::flow::Flow;
use tandem_protocol::message::framing::stream::{Frame, FrameError, Framer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::StreamLimits;
use crate::env::{Datagram, Tell, Unsent};
use crate::metrics::Closed;
use crate::shard::{Datagrams, FromStream, Shard};

/// A peer that does not take a single message in this time is cut off.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// So long the last answer may take to reach a peer whose connection we end.
const LINGER: Duration = Duration::from_secs(1);
/// A peer that sends more than this meanwhile does not want it.
const HEEDLESS: usize = 262_144;
/// Pieces of a stream of whose messages some may wait for their shards while more is read.
const AHEAD: usize = 16;
/// RFC 5626 §3.5.1: what answers a ping.
const PONG: Bytes = Bytes::from_static(b"\r\n");

/// The near end of a connection, shared by its task and the table.
pub(super) struct Wire {
    pub(super) flow: Flow,
    limits: StreamLimits,
    /// The largest message that is taken.
    max_bytes: usize,
    queue: RefCell<VecDeque<Bytes>>,
    queued: Cell<usize>,
    /// Something was queued, or it shall be closed.
    wake: Notify,
    /// It shall end now.
    cut: Notify,
    closing: Cell<Option<Closed>>,
    /// When something last went over it.
    active: Cell<Instant>,
}

impl Wire {
    pub(super) fn new(flow: Flow, limits: StreamLimits, max_bytes: usize) -> Rc<Wire> {
        Rc::new(Wire {
            flow,
            limits,
            max_bytes,
            queue: RefCell::default(),
            queued: Cell::new(0),
            wake: Notify::new(),
            cut: Notify::new(),
            closing: Cell::new(None),
            active: Cell::new(Instant::now()),
        })
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    /// Queues a message. A peer that lets too much wait is cut off.
    pub(super) fn send(&self, message: Bytes) -> Result<(), Unsent> {
        if self.is_closing() {
            return Err(Unsent::Unreachable);
        }
        let queued = self.queued.get() + message.len();
        if queued > self.limits.send_queue {
            self.closing.set(Some(Closed::Backlog));
            self.cut.notify_one();
            return Err(Unsent::Unreachable);
        }
        self.queued.set(queued);
        self.queue.borrow_mut().push_back(message);
        self.wake.notify_one();
        Ok(())
    }

    /// Ends it once what is queued has gone.
    pub(super) fn close(&self, why: Closed) {
        if !self.is_closing() {
            self.closing.set(Some(why));
            self.wake.notify_one();
        }
    }

    async fn cut_off(&self) -> Closed {
        self.cut.notified().await;
        self.closing.get().unwrap_or(Closed::Backlog)
    }
}

/// Carries SIP over a stream until it ends, and says why it did. `accepted`: the peer has opened it, and must say
/// something soon.
pub(super) async fn carry<S>(stream: S, wire: &Wire, shard: &Addr<Shard>, accepted: bool) -> Closed
where
    S: AsyncRead + AsyncWrite,
{
    let (reader, writer) = tokio::io::split(stream);
    wire.active.set(Instant::now());
    tokio::select! {
        biased;
        why = wire.cut_off() => why,
        why = write(writer, wire) => why,
        why = read(reader, wire, shard, accepted) => why,
    }
}

async fn write<S: AsyncWrite>(mut writer: WriteHalf<S>, wire: &Wire) -> Closed {
    loop {
        let next = wire.queue.borrow_mut().pop_front();
        let Some(message) = next else {
            if wire.is_closing() {
                break;
            }
            wire.wake.notified().await;
            continue;
        };
        match timeout(WRITE_PATIENCE, writer.write_all(&message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Closed::Broken,
            Err(_) => return Closed::Backlog,
        }
        wire.queued.set(wire.queued.get() - message.len());
        wire.active.set(Instant::now());
    }
    // The peer reads the last answer to its end only if nothing of what it sent is unread: the reader sees to that.
    let _ = timeout(LINGER, writer.shutdown()).await;
    tokio::time::sleep(LINGER).await;
    wire.closing.get().unwrap_or(Closed::Peer)
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
        let idle = (wire.active.get() + wire.limits.idle, Closed::Idle);
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
            Ok(Ok(0)) => return wire.closing.get().unwrap_or(Closed::Peer),
            Ok(Ok(_)) => wire.active.set(Instant::now()),
            Ok(Err(_)) => return Closed::Broken,
            // Something may have gone out meanwhile.
            Err(_) if patience.deadline(wire).0 > Instant::now() => continue,
            Err(_) => return why,
        }
        if wire.is_closing() {
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
            Ok(Some(Frame::Message(bytes))) => batch.push(Datagram::by(wire.flow, bytes)),
            Ok(Some(Frame::Ping)) => {
                // One answer is enough for all pings that it has not waited for.
                if wire.queue.borrow().is_empty() {
                    let _ = wire.send(PONG);
                }
            }
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
    wire.closing.get().unwrap_or(Closed::Malformed)
}
