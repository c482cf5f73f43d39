//! Connections to a server that has several addresses: they race (RFC 8305), and who waits is told which has won.
//!
//! An attempt has succeeded when SIP can go over it: for TLS after the handshake, so that an address where nobody shakes hands, or
//! somebody else than the server, loses to one where the server is.
#![allow(clippy::disallowed_methods)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tandem_protocol::flow::ListenerId;
use tandem_protocol::happy_eyeballs::{Input, Output, Race, interleave};
use tandem_protocol::time;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Streams;
use super::open::{Attempt, Connected};
use crate::env::Waiter;
use crate::metrics::Refused;

/// So long an address that was slower than another of its server, or could not be reached, comes after those that were not (RFC 8305 §4:
/// what is known of earlier attempts may order the next).
const REMEMBERED: Duration = Duration::from_secs(600);
/// So many of them are remembered on each shard.
const MOST_REMEMBERED: usize = 1000;

type Place = (ListenerId, SocketAddr);
/// A listener, and the addresses that race, in their own order.
type Field = (ListenerId, Vec<SocketAddr>);

/// The races of one shard.
#[derive(Default)]
pub(super) struct Races {
    /// Who waits for each: whoever wants the same waits for the same.
    waiting: RefCell<BTreeMap<Field, Vec<Waiter>>>,
    /// Who has lost one, and when.
    slow: RefCell<BTreeMap<Place, Instant>>,
}

impl Races {
    fn is_slow(&self, place: Place) -> bool {
        self.slow.borrow().get(&place).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn note_slow(&self, place: Place) {
        let mut slow = self.slow.borrow_mut();
        if slow.len() >= MOST_REMEMBERED {
            slow.retain(|_, at| at.elapsed() < REMEMBERED);
        }
        if slow.len() < MOST_REMEMBERED || slow.contains_key(&place) {
            slow.insert(place, Instant::now());
        }
    }

    fn note_fast(&self, place: Place) {
        self.slow.borrow_mut().remove(&place);
    }
}

/// What came of one attempt.
enum Ended {
    /// There was a connection already.
    There,
    Connected(Connected),
    Failed,
}

/// A race as its task has it.
struct Course {
    from: Place,
    /// When it began: the clock of its machine.
    began: Instant,
    within: Duration,
    attempts: JoinSet<(SocketAddr, Ended)>,
}

impl Course {
    fn now(&self) -> time::Instant {
        time::Instant::default() + self.began.elapsed()
    }

    fn begin(&mut self, streams: &Rc<Streams>, to: SocketAddr) {
        let (streams, from, until) = (streams.clone(), self.from, self.began + self.within);
        self.attempts.spawn_local(async move {
            if streams.has_connection(from.0, to) {
                return (to, Ended::There);
            }
            let secure = streams.secure(from.0, to);
            let ended = match streams.attempt(Attempt { from, remote: to, secure, until }).await {
                Ok(connected) => Ended::Connected(connected),
                Err(why) => {
                    streams.metrics(from.0).close(why);
                    Ended::Failed
                }
            };
            (to, ended)
        });
    }
}

impl Streams {
    /// A race among the addresses of one server, `to` and others; see [`crate::env::Seams::race`].
    pub(crate) fn race(
        self: &Rc<Self>,
        listener: ListenerId,
        (first, others): (SocketAddr, &[SocketAddr]),
        within: Duration,
        waiter: Waiter,
    ) -> Option<SocketAddr> {
        let Some(ear) = self.ears.of(listener) else { return Some(first) };
        let (listener, local) = (ear.listener.id, ear.listener.address);
        let mut order: Vec<SocketAddr> = std::iter::once(first).chain(others.iter().copied()).collect();
        order.retain(|to| to.is_ipv4() == local.is_ipv4());
        order.sort_by_key(|to| self.races.is_slow((listener, *to)));
        let order = interleave(&order);
        let Some(best) = order.first().copied().filter(|_| order.len() > 1) else { return Some(first) };
        if self.has_connection(listener, best) {
            return Some(best);
        }
        if self.opened.borrow().len() >= ear.door.limits().connections {
            self.metrics(listener).refuse(Refused::Limit);
            waiter.tell(None, &[]);
            return None;
        }
        let mut same = order.clone();
        same.sort_unstable();
        let key = (listener, same);
        let mut waiting = self.races.waiting.borrow_mut();
        if let Some(waiters) = waiting.get_mut(&key) {
            waiters.push(waiter);
            return None;
        }
        waiting.insert(key.clone(), vec![waiter]);
        drop(waiting);
        let streams = self.clone();
        let (began, attempts) = (Instant::now(), JoinSet::new());
        let course = Course { from: (listener, local), began, within, attempts };
        actix::spawn(async move { streams.run_race(course, order, key).await });
        None
    }

    /// True if there is a connection to `remote` that we have opened.
    fn has_connection(&self, listener: ListenerId, remote: SocketAddr) -> bool {
        let expected = self.secure(listener, remote).map(|(_, expected)| expected);
        self.opened(listener, remote, expected.as_ref()).is_some_and(|wire| wire.is_up())
    }

    async fn run_race(self: &Rc<Self>, mut course: Course, order: Vec<SocketAddr>, key: Field) {
        let mut out = Vec::new();
        let mut race = Race::begin(order, course.within, course.now(), &mut out);
        let mut winner = None;
        let won = loop {
            let mut over = None;
            for output in out.drain(..) {
                match output {
                    Output::Connect(to) => course.begin(self, to),
                    Output::Won(address) => over = Some(Some(address)),
                    Output::Lost => over = Some(None),
                }
            }
            if let Some(won) = over {
                break won;
            }
            let next_at = race.deadline().map(|at| course.began + at.since(time::Instant::default()));
            let input = tokio::select! {
                biased;
                Some(ended) = course.attempts.join_next() => match ended {
                    Ok((to, Ended::There)) => Input::Succeeded(to),
                    Ok((to, Ended::Connected(connected))) => {
                        winner = Some(connected);
                        Input::Succeeded(to)
                    }
                    Ok((to, Ended::Failed)) => Input::Failed(to),
                    // None is ended before the race is.
                    Err(_) => continue,
                },
                () = sleep_until(next_at.unwrap_or(course.began)), if next_at.is_some() => Input::Timeout,
                else => break None,
            };
            race.handle(input, course.now(), &mut out);
        };
        // Whoever was slower is closed before anything is said to him.
        course.attempts.abort_all();
        self.race_over(&race, (course.from.0, won), winner, key);
    }

    /// Tells who waits, by when messages can leave by the connection that has won.
    fn race_over(
        self: &Rc<Self>,
        race: &Race,
        (listener, won): (ListenerId, Option<SocketAddr>),
        winner: Option<Connected>,
        key: Field,
    ) {
        for slower in race.failed().iter().chain(race.running()) {
            self.races.note_slow((listener, *slower));
        }
        tracing::debug!(?won, failed = ?race.failed(), slower = ?race.running(), "addresses of a server have raced");
        if let Some(remote) = won {
            self.races.note_fast((listener, remote));
            if let Some(connected) = winner {
                let expected = self.secure(listener, remote).map(|(_, expected)| expected);
                let wire = self.insert_opened(listener, remote, expected);
                wire.come_about();
                let streams = self.clone();
                actix::spawn(async move { streams.run_opened(connected, &wire).await });
            }
        }
        for waiter in self.races.waiting.borrow_mut().remove(&key).unwrap_or_default() {
            waiter.tell(won, race.failed());
        }
    }
}
