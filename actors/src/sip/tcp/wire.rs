//! The near end of a connection, shared by its task and the table of connections: what waits to leave, and what is owed.
#![allow(clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tandem_protocol::flow::Flow;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::StreamLimits;
use crate::env::{Leftover, Unsent};
use crate::metrics::Closed;
use crate::seat::Hold;

/// RFC 5626 §3.5.1: what answers a ping.
const PONG: Bytes = Bytes::from_static(b"\r\n");
/// RFC 5626 §3.5.1: what asks whether a peer is still there.
const PING: Bytes = Bytes::from_static(b"\r\n\r\n");
/// RFC 5626 §4.4.1: so long it has to say so.
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// A request whose success shows that its sender is somebody we know: who registers or calls was asked to prove it.
const PROOFS: [&[u8]; 3] = [b"REGISTER", b"INVITE", b"SUBSCRIBE"];

/// A message that waits to leave.
struct Queued {
    message: Bytes,
    leftover: Leftover,
}

/// What left longer ago than this has been read, or the connection has been found broken since.
const UNPROVED: Duration = Duration::from_secs(1);
/// So many messages are remembered that may not have been read.
const MAX_UNPROVED: usize = 32;

/// The near end.
pub(super) struct Wire {
    pub(super) flow: Flow,
    pub(super) limits: StreamLimits,
    /// The largest message that is taken.
    pub(super) max_bytes: usize,
    /// The first stays until it has left whole.
    queue: RefCell<VecDeque<Queued>>,
    queued: Cell<usize>,
    /// Something was queued, or it shall be closed.
    pub(super) wake: Notify,
    /// It shall end now.
    cut: Notify,
    closing: Cell<Option<Closed>>,
    /// When something last went over it, and when it was last a message.
    active: Cell<Instant>,
    /// When something last came.
    heard: Cell<Instant>,
    spoken: Cell<Instant>,
    /// We have opened it, or its peer has proved who it is.
    known: Cell<bool>,
    /// There is a connection.
    up: Cell<bool>,
    /// The peer has been asked whether it is there.
    pinged: Notify,
    /// It has brought a message.
    brought: Cell<bool>,
    /// Requests that it has brought and that have no final response yet. One that is repeated may count too little, one that is
    /// never answered too much: it only says whether a peer that sends nothing more is worth waiting for, and that is bounded.
    owed: Cell<u32>,
    /// All that was owed has left.
    paid: Notify,
    /// The peer sends nothing more.
    half_closed: Cell<bool>,
    /// What has left a moment ago, or since the peer sends nothing more: it may have met one that has gone altogether.
    unproved: RefCell<VecDeque<(Instant, Bytes)>>,
    /// Whoever fences its shard hears that it has ended.
    _hold: Hold,
}

impl Wire {
    /// `ours`: we open it.
    pub(super) fn new(
        flow: Flow,
        (limits, max_bytes): (StreamLimits, usize),
        ours: bool,
        hold: Hold,
    ) -> Rc<Wire> {
        let now = Instant::now();
        Rc::new(Wire {
            flow,
            limits,
            max_bytes,
            queue: RefCell::default(),
            queued: Cell::new(0),
            wake: Notify::new(),
            cut: Notify::new(),
            closing: Cell::new(None),
            active: Cell::new(now),
            heard: Cell::new(now),
            spoken: Cell::new(now),
            known: Cell::new(ours),
            up: Cell::new(false),
            pinged: Notify::new(),
            brought: Cell::new(false),
            owed: Cell::new(0),
            paid: Notify::new(),
            half_closed: Cell::new(false),
            unproved: RefCell::default(),
            _hold: hold,
        })
    }

    pub(super) fn closing(&self) -> Option<Closed> {
        self.closing.get()
    }

    /// True while requests may leave by it: their answers must have a way back.
    pub(super) fn is_whole(&self) -> bool {
        self.closing.get().is_none() && !self.half_closed.get()
    }

    /// It is a connection from now on.
    pub(super) fn come_about(&self) {
        self.up.set(true);
    }

    /// True once it is a connection.
    pub(super) fn is_up(&self) -> bool {
        self.up.get()
    }

    pub(super) fn has_brought(&self) -> bool {
        self.brought.get()
    }

    /// Queues a message. A peer that lets too much wait is cut off.
    pub(super) fn send(&self, message: Bytes, leftover: Leftover) -> Result<(), Unsent> {
        if self.closing.get().is_some() || self.half_closed.get() && status_of(&message).is_none() {
            return Err(Unsent::Unreachable);
        }
        let queued = self.queued.get() + message.len();
        if queued > self.limits.send_queue {
            self.closing.set(Some(Closed::Backlog));
            self.cut.notify_one();
            return Err(Unsent::Unreachable);
        }
        self.queued.set(queued);
        self.queue.borrow_mut().push_back(Queued { message, leftover });
        self.wake.notify_one();
        Ok(())
    }

    /// Answers a ping. One answer is enough for all pings that it has not waited for.
    pub(super) fn pong(&self) {
        if self.queue.borrow().is_empty() {
            let _ = self.send(PONG, Leftover::Dropped);
        }
    }

    /// Asks the peer whether it is there.
    pub(super) fn ping(&self) {
        if self.send(PING, Leftover::Dropped).is_ok() {
            self.pinged.notify_one();
        }
    }

    /// Ends when the peer has been asked and nothing has come from it in time.
    pub(super) async fn dead(&self) -> Closed {
        loop {
            self.pinged.notified().await;
            let asked = Instant::now();
            tokio::time::sleep(PONG_WITHIN).await;
            if self.heard.get() < asked {
                return Closed::NoPong;
            }
        }
    }

    /// Ends it once what is queued has gone.
    pub(super) fn close(&self, why: Closed) {
        if self.closing.get().is_none() {
            self.closing.set(Some(why));
            self.wake.notify_one();
        }
    }

    pub(super) async fn cut_off(&self) -> Closed {
        self.cut.notified().await;
        self.closing.get().unwrap_or(Closed::Backlog)
    }

    /// What is to leave next. It stays queued until [`Wire::left`].
    pub(super) fn next(&self) -> Option<Bytes> {
        self.queue.borrow().front().map(|queued| queued.message.clone())
    }

    /// The first of the queue has left.
    pub(super) fn left(&self) {
        let Some(Queued { message, leftover }) = self.queue.borrow_mut().pop_front() else { return };
        self.queued.set(self.queued.get().saturating_sub(message.len()));
        let now = Instant::now();
        self.active.set(now);
        if message.iter().any(|b| !matches!(b, b'\r' | b'\n')) {
            self.spoken.set(now);
        }
        if let Some(status) = status_of(&message).filter(|status| *status >= 200) {
            self.owed.set(self.owed.get().saturating_sub(1));
            if status < 300 && !self.known.get() {
                self.known.set(proves(&message));
            }
        }
        if leftover == Leftover::HandedBack {
            self.forget_old(now);
            self.unproved.borrow_mut().push_back((now, message));
        }
        if self.owed.get() == 0 {
            self.paid.notify_one();
        }
    }

    /// Bytes have come.
    pub(super) fn touch(&self) {
        self.active.set(Instant::now());
        self.heard.set(Instant::now());
    }

    /// A message has come.
    pub(super) fn take(&self, message: &[u8]) {
        self.spoken.set(Instant::now());
        self.brought.set(true);
        if status_of(message).is_none() && !message.starts_with(b"ACK ") {
            self.owed.set(self.owed.get().saturating_add(1));
        }
    }

    /// When it has been idle for too long, as it is now. To a stranger pings do not count: they would keep a place for ever.
    pub(super) fn idle_at(&self) -> Instant {
        let since = if self.known.get() { &self.active } else { &self.spoken };
        since.get() + self.limits.idle
    }

    /// A peer that is there has read by now what left so long ago.
    fn forget_old(&self, now: Instant) {
        let mut unproved = self.unproved.borrow_mut();
        let is_old = |(at, _): &(Instant, Bytes)| !self.half_closed.get() && *at + UNPROVED < now;
        while unproved.len() >= MAX_UNPROVED || unproved.front().is_some_and(is_old) {
            unproved.pop_front();
        }
    }

    /// The peer sends nothing more. True if it still waits for answers, which alone may leave from now on.
    pub(super) fn half_close(&self) -> bool {
        self.forget_old(Instant::now());
        let waits = self.owed.get() > 0 && self.closing.get().is_none();
        self.half_closed.set(waits);
        waits
    }

    /// Everything owed has left.
    pub(super) async fn paid(&self) {
        while self.owed.get() > 0 {
            self.paid.notified().await;
        }
    }

    /// True if the peer may not have taken all that has left.
    pub(super) fn is_unproved(&self) -> bool {
        !self.unproved.borrow().is_empty()
    }

    /// The peer has taken what has left.
    pub(super) fn proved(&self) {
        self.unproved.borrow_mut().clear();
    }

    /// At its end: what did not reach the peer and shall not be lost with it, oldest first.
    pub(super) fn leftover(&self, why: Closed) -> Vec<Bytes> {
        let unproved = self.unproved.take();
        let ended_by_peer = matches!(why, Closed::Peer | Closed::Broken);
        let lost = unproved.into_iter().filter(|_| ended_by_peer).map(|(_, message)| message);
        let waiting = self.queue.take().into_iter();
        let handed_back = waiting.filter(|queued| queued.leftover == Leftover::HandedBack);
        lost.chain(handed_back.map(|queued| queued.message)).collect()
    }
}

/// The status of a response; `None` for a request or a line end.
fn status_of(message: &[u8]) -> Option<u16> {
    let status = message.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
    std::str::from_utf8(status).ok()?.parse().ok()
}

/// True for a response to a request of [`PROOFS`], in the form in which we write it.
fn proves(response: &[u8]) -> bool {
    const CSEQ: &[u8] = b"\r\nCSeq: ";
    let Some(at) = response.windows(CSEQ.len()).position(|window| window == CSEQ) else { return false };
    let line = response[at + CSEQ.len()..].split(|b| *b == b'\r').next().unwrap_or_default();
    PROOFS.iter().any(|method| line.ends_with(method))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tandem_protocol::flow::{ConnectionId, ListenerId};

    use super::*;
    use crate::seat::{Loan, Seat};

    fn wire() -> Rc<Wire> {
        let flow = Flow::to(ListenerId::default(), ([192, 0, 2, 1], 5060).into());
        let id = ConnectionId { shard: 0, generation: 1 };
        let hold = Arc::<Seat>::default().lend(Loan::Connection(id));
        Wire::new(flow, (StreamLimits::default(), 65_535), false, hold)
    }

    fn response(status: u16, method: &str) -> Bytes {
        format!("SIP/2.0 {status} X\r\nVia: SIP/2.0/TCP a\r\nCSeq: 7 {method}\r\n\r\n").into()
    }

    fn leave(wire: &Wire, message: Bytes, leftover: Leftover) {
        wire.send(message, leftover).unwrap();
        wire.left();
    }

    #[test]
    fn a_peer_that_sends_nothing_more_is_waited_for_until_each_request_has_its_final_response() {
        let wire = wire();
        wire.take(b"INVITE sip:a SIP/2.0\r\n\r\n");
        wire.take(b"ACK sip:a SIP/2.0\r\n\r\n");
        wire.take(b"SIP/2.0 200 OK\r\n\r\n");
        assert!(wire.half_close());
        assert_eq!(
            wire.send(Bytes::from_static(b"BYE sip:b SIP/2.0\r\n\r\n"), Leftover::Dropped),
            Err(Unsent::Unreachable)
        );
        leave(&wire, response(180, "INVITE"), Leftover::Dropped);
        assert_eq!(wire.owed.get(), 1);
        leave(&wire, response(486, "INVITE"), Leftover::HandedBack);
        assert_eq!(wire.owed.get(), 0);
        assert_eq!(
            wire.leftover(Closed::Peer),
            [response(486, "INVITE")],
            "it is not known to have been read"
        );
    }

    #[test]
    fn a_peer_that_waits_for_nothing_is_not_waited_for() {
        let wire = wire();
        wire.take(b"OPTIONS sip:a SIP/2.0\r\n\r\n");
        leave(&wire, response(200, "OPTIONS"), Leftover::Dropped);
        assert!(!wire.half_close() && wire.is_whole());
    }

    #[test]
    fn only_what_shall_be_handed_back_is_left_over() {
        let wire = wire();
        wire.send(response(200, "OPTIONS"), Leftover::Dropped).unwrap();
        wire.send(response(486, "INVITE"), Leftover::HandedBack).unwrap();
        assert_eq!(wire.leftover(Closed::Backlog), [response(486, "INVITE")]);
    }

    #[test]
    fn a_success_that_needs_credentials_makes_a_peer_known_and_nothing_else_does() {
        let wire = wire();
        for (status, method) in [(401, "REGISTER"), (200, "OPTIONS"), (200, "CANCEL"), (180, "INVITE")] {
            leave(&wire, response(status, method), Leftover::Dropped);
            assert!(!wire.known.get(), "{status} {method}");
        }
        leave(&wire, response(200, "REGISTER"), Leftover::HandedBack);
        assert!(wire.known.get());
    }
}
