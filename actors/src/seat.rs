//! A shard's seat: what tells a shard that is in charge from one that was fenced, and what the one that was fenced had of others.
//!
//! A shard whose thread is stuck cannot be stopped, only kept from doing anything when it comes to life again. So every way out of its
//! actors ([`crate::env`]) asks the seat, which is fenced once and for ever; the shard that follows has another seat, of the next epoch.
//! What the engine shares among its shards (places of `max_calls`, gauges, places at the door of a listener) is given back for a shard that is fenced by
//! whoever fences it, once: what its thread gives back later counts for nothing.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use metrics::Gauge;
use tandem_protocol::flow::{ConnectionId, Flow};

use crate::config::Uses;
use crate::directory::{StationEntry, TrunkEntry, Watched};
use crate::env::Shared;
use crate::metrics::{ActorKind, Metrics};
use crate::sip::tcp::Door;

/// A share that is closed is far below all that can be counted.
const CLOSED: i64 = i64::MIN / 2;
/// So often, and after such rests, a thread that is in the middle of lending is waited for.
const TRIES: u32 = 100;
const TRY_AGAIN: Duration = Duration::from_millis(1);

/// What one shard has added to a figure that all share.
#[derive(Debug, Default)]
struct Share(AtomicI64);

impl Share {
    /// Adds to it; false if it is closed: then the figure must stay as it is.
    fn add(&self, count: i64) -> bool {
        self.0.fetch_add(count, Ordering::Relaxed) > CLOSED / 2
    }

    /// Closes it; what there was.
    fn close(&self) -> i64 {
        let share = self.0.swap(CLOSED, Ordering::Relaxed);
        if share > CLOSED / 2 { share } else { 0 }
    }
}

/// A gauge to which each shard adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Calls that exist.
    Calls,
    /// Transactions that exist.
    Transactions,
    /// Free media ports.
    FreePorts,
    /// Connections by TCP.
    Tcp,
    /// Connections by TLS.
    Tls,
}

impl Figure {
    const ALL: [Figure; 5] =
        [Figure::Calls, Figure::Transactions, Figure::FreePorts, Figure::Tcp, Figure::Tls];

    fn gauge(self, metrics: &Metrics) -> &Gauge {
        match self {
            Figure::Calls => &metrics.calls_active,
            Figure::Transactions => &metrics.transactions_active,
            Figure::FreePorts => &metrics.media_ports_free,
            Figure::Tcp => &metrics.connections(tandem_protocol::flow::Transport::Tcp).active,
            Figure::Tls => &metrics.connections(tandem_protocol::flow::Transport::Tls).active,
        }
    }
}

/// What a shard has of others, until it is given back. A call has several: they are kept small.
pub(crate) enum Loan {
    /// A place for a call of a station.
    Station(Arc<StationEntry>),
    /// A place for a call of a trunk.
    Trunk(Arc<TrunkEntry>),
    /// An answered call to the outside, international or not, that is counted for somebody.
    Outside(Arc<Watched>, bool),
    /// A place for a connection of this source at a listener.
    Guest(Arc<Door>, Box<IpAddr>),
    /// A place for a TLS handshake there.
    Handshake(Arc<Door>),
    /// A leg that is reached by a listener.
    Leg(Uses),
    /// A connection: nothing goes by it any more without its shard.
    Connection(ConnectionId),
    /// Its socket.
    Stream(RawFd),
    /// Calls that are about to be restored, counted as one until then: nobody is to believe meanwhile that there are none.
    Expected(Arc<Shared>),
    /// An INVITE that has no final response yet, and by which flow that goes.
    Invite(Box<(Bytes, Flow)>),
}

impl Loan {
    fn give_back(&self) {
        match self {
            Loan::Station(station) => station.give_back(),
            Loan::Trunk(trunk) => trunk.give_back(),
            Loan::Outside(watched, international) => watched.drop_call(*international),
            Loan::Guest(door, source) => door.leave(**source),
            Loan::Handshake(door) => door.shaken(),
            Loan::Leg(uses) => uses.leave(),
            Loan::Expected(shared) => shared.census.leave(ActorKind::Call, 1),
            Loan::Connection(_) | Loan::Stream(_) | Loan::Invite(_) => {}
        }
    }
}

#[derive(Default)]
struct Loans {
    places: Vec<Option<Loan>>,
    free: Vec<u32>,
}

/// A loan; given back when dropped, unless its shard was fenced.
pub(crate) struct Hold {
    seat: Arc<Seat>,
    place: u32,
}

impl Hold {
    /// Ends the loan without giving it back: whoever calls does that otherwise. False if the shard was fenced: then it was given back.
    pub(crate) fn settle(self) -> bool {
        self.seat.end_loan(self.place).is_some()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(loan) = self.seat.end_loan(self.place) {
            loan.give_back();
        }
    }
}

/// What a shard that was fenced has left, beyond what was given back.
#[derive(Default)]
pub(crate) struct Remains {
    /// Requests that nobody has answered.
    pub(crate) invites: Vec<(Bytes, Flow)>,
    /// Connections that have ended with it.
    pub(crate) connections: Vec<ConnectionId>,
}

/// The seat.
pub struct Seat {
    epoch: u32,
    fenced: AtomicBool,
    /// It has started.
    begun: AtomicBool,
    /// Rises while its thread gets on.
    beats: AtomicU64,
    /// Where Linux tells of its thread.
    thread: OnceLock<PathBuf>,
    alive: [Share; ActorKind::ALL.len()],
    figures: [Share; Figure::ALL.len()],
    /// `None`: fenced, and everything given back. No other thread takes the lock before that.
    loans: Mutex<Option<Loans>>,
}

impl Default for Seat {
    fn default() -> Seat {
        Seat::of_epoch(0)
    }
}

impl Seat {
    fn of_epoch(epoch: u32) -> Seat {
        Seat {
            epoch,
            fenced: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            beats: AtomicU64::new(0),
            thread: OnceLock::new(),
            alive: Default::default(),
            figures: Default::default(),
            loans: Mutex::new(Some(Loans::default())),
        }
    }

    /// The seat of the shard that follows.
    pub fn next(&self) -> Seat {
        Seat::of_epoch(self.epoch + 1)
    }

    /// How many shards have been fenced in this place before.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether it is fenced.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    /// The shard in it may do nothing any more.
    pub fn fence(&self) {
        self.fenced.store(true, Ordering::Release);
    }

    /// Returns if the seat is not fenced. A thread whose seat is fenced never does: nothing that it would still do could be right, and to end its
    /// actors would be to act.
    pub(crate) fn halt_if_fenced(&self) {
        if self.is_fenced() {
            tracing::warn!(
                epoch = self.epoch,
                "the thread of a fenced shard has come to life; it is put to sleep for good"
            );
            loop {
                #[allow(clippy::disallowed_methods)]
                std::thread::park();
            }
        }
    }

    /// Its thread gets on.
    pub(crate) fn beat(&self) {
        // Only its own thread writes.
        self.beats.store(self.beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Rises while its thread gets on.
    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Its shard has started.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Whether its shard has started.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Its thread is this one.
    pub(crate) fn sit_down(&self) {
        if let Ok(thread) = std::fs::read_link("/proc/thread-self") {
            // It is said once.
            let _ = self.thread.set(PathBuf::from("/proc").join(thread).join("schedstat"));
        }
    }

    /// Where Linux tells how long its thread has run, and waited to.
    pub(crate) fn schedstat(&self) -> Option<&PathBuf> {
        self.thread.get()
    }

    /// An actor of this kind lives, or lives no longer; false if nobody is to count it.
    pub(crate) fn count_actor(&self, kind: ActorKind, count: i64) -> bool {
        self.alive[kind as usize].add(count)
    }

    /// Adds to a gauge.
    pub(crate) fn count(&self, metrics: &Metrics, figure: Figure, count: i64) {
        if self.figures[figure as usize].add(count) {
            figure.gauge(metrics).increment(count as f64);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Loans>> {
        self.loans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it given back when the hold ends, or the shard is fenced.
    pub(crate) fn lend(self: &Arc<Self>, loan: Loan) -> Hold {
        let mut loans = self.lock();
        let Some(open) = loans.as_mut() else {
            drop(loans);
            loan.give_back();
            return Hold { seat: self.clone(), place: u32::MAX };
        };
        let place = match open.free.pop() {
            Some(place) => place,
            None => {
                open.places.push(None);
                (open.places.len() - 1) as u32
            }
        };
        if let Some(empty) = open.places.get_mut(place as usize) {
            *empty = Some(loan);
        }
        drop(loans);
        Hold { seat: self.clone(), place }
    }

    /// The loan in this place, which is free from now on.
    fn end_loan(&self, place: u32) -> Option<Loan> {
        let mut loans = self.lock();
        let open = loans.as_mut()?;
        let loan = open.places.get_mut(place as usize)?.take()?;
        open.free.push(place);
        Some(loan)
    }

    /// Gives back what a fenced shard had, and ends its connections; what is left is somebody else's to do.
    pub(crate) fn settle(&self, shared: &Shared) -> Remains {
        for kind in ActorKind::ALL {
            shared.census.leave(kind, self.alive[kind as usize].close());
        }
        for figure in Figure::ALL {
            let share = self.figures[figure as usize].close();
            figure.gauge(&shared.metrics).decrement(share as f64);
        }
        let mut remains = Remains::default();
        let Some(loans) = self.take_loans() else { return remains };
        for loan in loans.places.into_iter().flatten() {
            loan.give_back();
            match loan {
                Loan::Connection(connection) => remains.connections.push(connection),
                Loan::Invite(invite) => remains.invites.push(*invite),
                Loan::Stream(_)
                | Loan::Station(_)
                | Loan::Trunk(_)
                | Loan::Outside(..)
                | Loan::Guest(..)
                | Loan::Expected(_)
                | Loan::Leg(_)
                | Loan::Handshake(_) => {}
            }
        }
        remains
    }

    /// All loans. A thread that is stuck in the middle of lending, which no fault of ours can bring about, keeps them.
    fn take_loans(&self) -> Option<Loans> {
        for _ in 0..TRIES {
            let mut loans = match self.loans.try_lock() {
                Ok(loans) => loans,
                Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(std::sync::TryLockError::WouldBlock) => {
                    #[allow(clippy::disallowed_methods)]
                    std::thread::sleep(TRY_AGAIN);
                    continue;
                }
            };
            if let Some(open) = loans.as_ref() {
                for stream in open.places.iter().flatten().filter_map(Loan::stream) {
                    // Under the lock it cannot be closed, so it is still this one.
                    let _ = nix::sys::socket::shutdown(stream, nix::sys::socket::Shutdown::Both);
                }
            }
            return loans.take();
        }
        tracing::error!(
            epoch = self.epoch,
            "a fenced shard keeps its places: its thread stands in the middle of taking one"
        );
        None
    }
}

impl Loan {
    fn stream(&self) -> Option<RawFd> {
        match self {
            Loan::Stream(socket) => Some(*socket),
            Loan::Station(_)
            | Loan::Trunk(_)
            | Loan::Outside(..)
            | Loan::Guest(..)
            | Loan::Handshake(_)
            | Loan::Leg(_)
            | Loan::Connection(_)
            | Loan::Expected(_)
            | Loan::Invite(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StreamLimits;

    fn door() -> Arc<Door> {
        Door::new(StreamLimits { handshakes: 3, ..StreamLimits::default() })
    }

    /// How many handshakes there is room for.
    fn room(door: &Arc<Door>) -> usize {
        let seat = Arc::default();
        let places: Vec<_> = (0..10).map_while(|_| door.shake(&seat)).collect();
        places.len()
    }

    #[test]
    fn a_loan_is_small() {
        assert!(std::mem::size_of::<Option<Loan>>() <= 24);
    }

    #[test]
    fn a_loan_is_given_back_once_by_whoever_is_first() {
        let (door, seat) = (door(), Arc::<Seat>::default());
        let (first, second) = (door.shake(&seat), door.shake(&seat));
        assert_eq!(room(&door), 1);
        drop(first);
        assert_eq!(room(&door), 2);
        let loans = seat.take_loans().unwrap();
        loans.places.iter().flatten().for_each(Loan::give_back);
        assert_eq!(room(&door), 3);
        drop(second);
        assert_eq!(room(&door), 3, "whose shard was fenced gives nothing back");
        let late = door.shake(&seat);
        assert_eq!(room(&door), 3, "nor does it take anything");
        drop(late);
        assert_eq!(room(&door), 3);
        assert!(seat.take_loans().is_none());
    }

    #[test]
    fn a_place_that_is_free_again_is_used_again() {
        let seat = Arc::<Seat>::default();
        for _ in 0..100 {
            let pair = [seat.lend(Loan::Stream(-1)), seat.lend(Loan::Stream(-1))];
            drop(pair);
        }
        assert_eq!(seat.lock().as_ref().unwrap().places.len(), 2);
    }

    #[test]
    fn a_share_that_is_closed_counts_nothing_more() {
        let share = Share::default();
        assert!(share.add(5) && share.add(-2));
        assert_eq!(share.close(), 3);
        assert!(!share.add(-3) && !share.add(1));
        assert_eq!(share.close(), 0);
        assert!(!share.add(1));
    }
}
