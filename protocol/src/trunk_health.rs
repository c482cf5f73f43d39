//! Which proxies of a trunk are up: by OPTIONS that are sent to them (qualify), and by what calls have seen of them.
//!
//! Verbs: [`TrunkHealth::handle`] takes what calls and OPTIONS have shown and pushes [`Output`]s; [`TrunkHealth::deadline`] says when it
//! wants [`Input::Timeout`]. The figure of one proxy is in `proxy.rs`. What is believed here only orders the proxies of a call
//! ([`crate::proxy_list`]): none is ever skipped, and calls that are up know nothing of it.
//!
//! A trunk whose proxies are not asked by OPTIONS finds out by calls alone whether one that was down has come back: once it has rested,
//! one call (a trial) begins with it, while all others go on trying it last.

mod proxy;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Instant;
use proxy::Proxy;

/// What is believed of a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nothing yet: it has its place in the order as if it were up.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It answers, but not as it should, wants to be left alone for a while, or has not answered for long: tried after those that are up.
    Degraded,
    /// It does not answer: tried last.
    Down,
}

impl State {
    /// The name in the API, in events and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Up => "up",
            State::Degraded => "degraded",
            State::Down => "down",
        }
    }

    /// Lower ones are tried first.
    pub fn rank(self) -> u8 {
        match self {
            State::Unknown | State::Up => 0,
            State::Degraded => 1,
            State::Down => 2,
        }
    }
}

/// Why a proxy's state has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It has answered.
    Answered,
    /// It has answered for long enough since it was down or did not answer.
    Steady,
    /// It has been left alone for long enough.
    Rested,
    /// An INVITE got no response at all.
    Silent,
    /// A request could not be sent: refused, or no connection came about.
    Unreachable,
    /// OPTIONS got no response.
    Unqualified,
    /// Calls failed one after the other, the last with this status.
    Failing(u16),
    /// Calls failed one after the other, the last for want of a response in time.
    Stalling,
    /// It has asked not to be called for so many seconds (503 with Retry-After).
    RetryAfter(u64),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Answered => f.write_str("it answered"),
            Cause::Steady => f.write_str("it answers steadily"),
            Cause::Rested => f.write_str("it has rested"),
            Cause::Silent => f.write_str("no response to an INVITE"),
            Cause::Unreachable => f.write_str("it cannot be reached"),
            Cause::Unqualified => f.write_str("no response to OPTIONS"),
            Cause::Failing(status) => write!(f, "calls fail one after the other, the last with {status}"),
            Cause::Stalling => f.write_str("calls fail one after the other, the last for want of a response"),
            Cause::RetryAfter(seconds) => write!(f, "it wants no calls for {seconds} s"),
        }
    }
}

/// What a call has seen of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Any response that says no more than that it is there.
    Answered,
    /// A 5xx; or, for one that answers otherwise, nothing in time (`None`).
    Failed {
        /// The status.
        status: Option<u16>,
        /// How many calls it has taken so far, for who wants to know whether it took any since.
        taken: u64,
    },
    /// 503 with Retry-After.
    Busy(Duration),
    /// Nothing.
    Silent,
    /// The request could not be sent.
    Unreachable,
}

/// What came of OPTIONS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qualified {
    /// A response, whatever it says; with the Retry-After of a 503.
    Answered(Option<Duration>),
    /// Nothing.
    Silent,
    /// They could not be sent.
    Unreachable,
}

/// What happens to a trunk's proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// These are the proxies from now on. What is known of those that stay is kept.
    Proxies(Vec<SocketAddr>),
    /// A call has seen something of one.
    Seen(SocketAddr, Seen),
    /// What came of [`Output::Qualify`].
    Qualified(u32, Qualified),
    /// [`TrunkHealth::deadline`] has passed.
    Timeout,
}

/// What a trunk's health wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A proxy's state has changed.
    Changed {
        /// Which.
        proxy: SocketAddr,
        /// What it is now.
        state: State,
        /// Why.
        cause: Cause,
    },
    /// One call may begin with this proxy, though it is down.
    Trial(SocketAddr),
    /// Send OPTIONS.
    Qualify {
        /// Where.
        proxy: SocketAddr,
        /// Names them for [`Input::Qualified`]; rises, and is never 0.
        number: u32,
    },
}

/// The proxies of one trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkHealth {
    proxies: Vec<Proxy>,
    /// How often a proxy that is up gets OPTIONS; `None`: never.
    interval: Option<Duration>,
    sent: u32,
    /// What spreads OPTIONS over time.
    chance: u64,
}

/// The first OPTIONS leave within this time after the start, not all at once.
const FIRST_WITHIN: Duration = Duration::from_secs(2);

impl TrunkHealth {
    /// Proxies of which nothing is known, to be asked by OPTIONS every `interval` if there is one. `chance` is any number, better
    /// another for each trunk.
    pub fn new(proxies: &[SocketAddr], interval: Option<Duration>, chance: u64, now: Instant) -> TrunkHealth {
        let mut health = TrunkHealth { proxies: Vec::new(), interval, sent: 0, chance };
        health.set_proxies(proxies, now);
        health
    }

    /// Takes one input at `now`, pushing what is to be done to `out`.
    pub fn handle(&mut self, input: &Input, now: Instant, out: &mut Vec<Output>) {
        match input {
            Input::Proxies(proxies) => self.set_proxies(proxies, now),
            Input::Seen(address, seen) => {
                if let Some(proxy) = self.proxies.iter_mut().find(|p| p.address == *address) {
                    proxy.seen(*seen, now, out);
                }
            }
            Input::Qualified(number, qualified) => {
                let jitter = self.jitter();
                if let Some(proxy) = self.proxies.iter_mut().find(|p| p.is_asked(*number)) {
                    proxy.qualified(*qualified, jitter, now, out);
                }
            }
            Input::Timeout => self.timeout(now, out),
        }
    }

    /// When it wants to be told the time.
    pub fn deadline(&self) -> Option<Instant> {
        self.proxies.iter().filter_map(Proxy::deadline).min()
    }

    /// What is believed of a proxy; nothing is known of one that is not ours.
    pub fn state(&self, address: SocketAddr) -> State {
        self.proxies.iter().find(|p| p.address == address).map_or(State::Unknown, |p| p.state)
    }

    /// Whom these OPTIONS under way ask.
    pub fn asked(&self, number: u32) -> Option<SocketAddr> {
        self.proxies.iter().find(|p| p.is_asked(number)).map(|p| p.address)
    }

    fn set_proxies(&mut self, addresses: &[SocketAddr], now: Instant) {
        let mut known = std::mem::take(&mut self.proxies);
        for address in addresses {
            if self.proxies.iter().any(|p| p.address == *address) {
                continue;
            }
            let proxy = match known.iter().position(|p| p.address == *address) {
                Some(place) => known.swap_remove(place),
                None => {
                    let first = self.interval.map(|i| i.min(FIRST_WITHIN).mul_f64(self.jitter()));
                    Proxy::new(*address, self.interval, first.map(|wait| now + wait))
                }
            };
            self.proxies.push(proxy);
        }
    }

    fn timeout(&mut self, now: Instant, out: &mut Vec<Output>) {
        for place in 0..self.proxies.len() {
            let jitter = self.jitter();
            let proxy = &mut self.proxies[place];
            proxy.timeout(jitter, now, out);
            if proxy.is_to_be_asked(now) {
                // 0 would be a CSeq that some do not take; that it wraps nobody lives to see.
                self.sent = self.sent.wrapping_add(1).max(1);
                proxy.asked(self.sent, now);
                out.push(Output::Qualify { proxy: proxy.address, number: self.sent });
            }
        }
    }

    /// From 0 to 1 (splitmix64).
    fn jitter(&mut self) -> f64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
