//! The walk over a trunk's proxies for one call.
//!
//! Each proxy is tried once, in the trunk's order, until one answers for good. A proxy that is believed down is
//! tried last and never skipped: the belief may be old, and a call with nothing left to try is lost anyway. Among proxies that are
//! believed alike a lower priority goes first, and those of equal priority share the calls by weight (RFC 2782's words for both).

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::time::Instant;
use crate::trunk_health::State;

/// In which order proxies are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selection {
    /// As configured.
    Priority,
    /// Of equal priority, beginning with a different one for each call, and more often with one of more weight.
    RoundRobin {
        /// Counts the trunk's calls: in as many as all weights together, each begins as often as its own says.
        offset: usize,
    },
}

/// One of a trunk's proxies, from the settings or from DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// Its address.
    pub address: SocketAddr,
    /// Lower goes first.
    pub priority: u16,
    /// Its share of the calls among those of its priority; 0 only counts if all are 0.
    pub weight: u16,
}

impl Proxy {
    /// A proxy like every other.
    pub fn new(address: SocketAddr) -> Proxy {
        Proxy { address, priority: 0, weight: 1 }
    }
}

/// A proxy as the trunk sees it when the call begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyHealth {
    /// Which.
    pub proxy: Proxy,
    /// What the trunk believes of it.
    pub state: State,
}

impl ProxyHealth {
    /// A proxy of which nothing bad is known.
    pub fn up(address: SocketAddr) -> ProxyHealth {
        ProxyHealth { proxy: Proxy::new(address), state: State::Up }
    }

    /// Those with the same are equals.
    fn standing(&self) -> (u8, u16) {
        (self.state.rank(), self.proxy.priority)
    }
}

/// The final statuses after which the next proxy is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryableCodes {
    ranges: Vec<(u16, u16)>,
}

/// A code or range that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a status from 300 to 699 nor a range of them such as \"500-599\"")]
pub struct BadRetryableCode(pub String);

impl Default for RetryableCodes {
    /// 480 and 500 to 599.
    fn default() -> Self {
        Self { ranges: vec![(480, 480), (500, 599)] }
    }
}

impl RetryableCodes {
    /// Reads `["480", "500-599"]`.
    ///
    /// # Errors
    /// [`BadRetryableCode`] names the first that cannot be read.
    pub fn parse<S: AsRef<str>>(codes: &[S]) -> Result<Self, BadRetryableCode> {
        let read = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let code = |t: &str| t.trim().parse().ok().filter(|c| (300..700).contains(c));
            code(first).zip(code(last)).filter(|(first, last)| first <= last)
        };
        let ranges = codes.iter().map(|c| read(c.as_ref()).ok_or(BadRetryableCode(c.as_ref().to_owned())));
        Ok(Self { ranges: ranges.collect::<Result<_, _>>()? })
    }

    /// Whether the next proxy is tried after this final status.
    pub fn contains(&self, status: u16) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A response with this status.
    Status(u16),
    /// No response in time.
    Timeout,
    /// It could not be sent: refused, or no connection came about in time.
    TransportError,
    /// 100 and then nothing further in time.
    NoProgress,
    /// The caller gave up.
    Cancelled,
    /// It was not asked: it wants fewer calls (RFC 7339), and this one was kept from it.
    Shed,
}

impl Outcome {
    /// True if somebody was waited for in vain.
    pub fn is_silence(self) -> bool {
        matches!(self, Outcome::Timeout | Outcome::NoProgress)
    }
}

/// Why the walk ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailCause {
    /// A proxy answered with a status that is not retryable.
    Refused,
    /// Every proxy failed.
    Exhausted,
    /// The trunk has no proxy.
    NoProxy,
    /// The caller gave up.
    Cancelled,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Next {
    /// Send the INVITE there.
    Try(SocketAddr),
    /// The response was provisional: go on waiting.
    Wait,
    /// The call is answered.
    Answered,
    /// Give the caller this status.
    Fail {
        /// The status.
        status: u16,
        /// Why.
        cause: FailCause,
    },
}

/// An attempt as the CDR tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Where it went.
    pub proxy: SocketAddr,
    /// What became of it.
    pub cause: Outcome,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// One attempt under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    proxy: SocketAddr,
    since: Instant,
}

/// The walk of one call over one trunk's proxies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyWalk {
    /// What is left to try, the next one last.
    left: Vec<SocketAddr>,
    current: Option<Trial>,
    retryable: RetryableCodes,
    attempts: Vec<Attempt>,
}

impl ProxyWalk {
    /// A walk over `proxies`, given in the order of the configuration.
    pub fn new(proxies: &[ProxyHealth], selection: Selection, retryable: RetryableCodes) -> Self {
        let mut order: Vec<ProxyHealth> = Vec::with_capacity(proxies.len());
        for proxy in proxies {
            if !order.iter().any(|seen| seen.proxy.address == proxy.proxy.address) {
                order.push(*proxy);
            }
        }
        // Sorted first, then rotated: else the one after a proxy that is down would get the calls of both.
        order.sort_by_key(ProxyHealth::standing);
        if let Selection::RoundRobin { offset } = selection {
            for equals in order.chunk_by_mut(|a, b| a.standing() == b.standing()) {
                let first = whose_turn(equals, offset);
                equals.rotate_left(first);
            }
        }
        let left = order.iter().rev().map(|p| p.proxy.address).collect();
        Self { left, current: None, retryable, attempts: Vec::new() }
    }

    /// Begins with the first proxy. Once; later proxies come from [`on_outcome`](Self::on_outcome).
    pub fn next(&mut self, now: Instant) -> Next {
        if self.current.is_some() { Next::Wait } else { self.advance(now) }
    }

    /// Where the attempt under way went.
    pub fn current(&self) -> Option<SocketAddr> {
        self.current.map(|trial| trial.proxy)
    }

    /// What is left to try after the attempt under way, in order.
    pub fn left(&self) -> impl Iterator<Item = SocketAddr> {
        self.left.iter().rev().copied()
    }

    /// The attempt under way was a race among addresses of one server (RFC 8305). `won`: the one that it goes on with. Those that have
    /// failed are not tried again; one that was only slower is, when nobody else is left.
    pub fn raced(&mut self, won: Option<SocketAddr>, failed: &[SocketAddr]) {
        let Some(trial) = &mut self.current else { return };
        let began = trial.proxy;
        trial.proxy = won.unwrap_or(began);
        let now = trial.proxy;
        self.left.retain(|proxy| *proxy != now && !failed.contains(proxy));
        if began != now && !failed.contains(&began) {
            self.left.insert(0, began);
        }
    }

    /// The attempts that ended, in order.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Takes the outcome of the attempt under way. Without one nothing is recorded and only
    /// [`Outcome::Cancelled`] has an effect: it ends the walk.
    pub fn on_outcome(&mut self, now: Instant, outcome: Outcome) -> Next {
        if matches!(outcome, Outcome::Status(0..200)) {
            return Next::Wait;
        }
        if let Some(Trial { proxy, since }) = self.current.take() {
            let ms = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
            self.attempts.push(Attempt { proxy, cause: outcome, ms });
        } else if outcome != Outcome::Cancelled {
            return Next::Wait;
        }
        match outcome {
            Outcome::Status(200..300) => self.end(Next::Answered),
            Outcome::Status(status) if !self.retryable.contains(status) => {
                self.end(Next::Fail { status, cause: FailCause::Refused })
            }
            Outcome::Cancelled => self.end(Next::Fail { status: 487, cause: FailCause::Cancelled }),
            Outcome::Status(_)
            | Outcome::Timeout
            | Outcome::TransportError
            | Outcome::NoProgress
            | Outcome::Shed => self.advance(now),
        }
    }

    fn end(&mut self, next: Next) -> Next {
        self.left.clear();
        next
    }

    fn advance(&mut self, now: Instant) -> Next {
        match self.left.pop() {
            Some(proxy) => {
                self.current = Some(Trial { proxy, since: now });
                Next::Try(proxy)
            }
            None if self.attempts.is_empty() => Next::Fail { status: 503, cause: FailCause::NoProxy },
            None => Next::Fail { status: self.final_status(), cause: FailCause::Exhausted },
        }
    }

    /// The last status a proxy gave says most; without any, 504 if one was reached but silent, else 503.
    fn final_status(&self) -> u16 {
        let given = self.attempts.iter().rev().find_map(|attempt| match attempt.cause {
            Outcome::Status(status) => Some(status),
            Outcome::Timeout
            | Outcome::TransportError
            | Outcome::NoProgress
            | Outcome::Cancelled
            | Outcome::Shed => None,
        });
        let silent = self.attempts.iter().any(|attempt| attempt.cause.is_silence());
        given.unwrap_or(if silent { 504 } else { 503 })
    }
}

/// The place of the one among equals that the call with number `offset` begins with.
pub fn whose_turn(equals: &[ProxyHealth], offset: usize) -> usize {
    let weights = || equals.iter().map(|p| usize::from(p.proxy.weight));
    let (total, most) = (weights().sum::<usize>(), weights().max().unwrap_or(0));
    if total == 0 || weights().all(|weight| weight == most) {
        return offset.checked_rem(equals.len()).unwrap_or(0);
    }
    // Each place is met once in `total` calls, and neighbouring places in calls far apart: no proxy gets its share in one burst.
    let mut stride = (total * 618 / 1000).max(1);
    while gcd(stride, total) != 1 {
        stride += 1;
    }
    let mut place = (offset % total) * stride % total;
    weights().position(|weight| place.checked_sub(weight).map(|left| place = left).is_none()).unwrap_or(0)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
