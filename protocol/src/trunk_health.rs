//! Which proxies of a trunk are up, by what calls have seen of them.
//!
//! A proxy that did not answer is down; one that answers, or has rested for [`REST`], is up again. A down proxy is tried
//! last, never skipped ([`crate::proxy_list`]).

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// A proxy that was down gets its place in the order back after this long.
pub const REST: Duration = Duration::from_secs(30);

/// What happens to a trunk's proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A proxy answered.
    Answered(SocketAddr),
    /// A proxy was silent, or could not be reached.
    Silent(SocketAddr),
    /// [`TrunkHealth::deadline`] has passed.
    Timeout,
}

/// A proxy's state has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which.
    pub proxy: SocketAddr,
    /// Whether it is up now.
    pub up: bool,
    /// Why.
    pub reason: &'static str,
}

/// The proxies of one trunk that are down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkHealth {
    down: Vec<(SocketAddr, Instant)>,
}

impl TrunkHealth {
    /// Takes one input at `now`, pushing what has changed to `out`.
    pub fn handle(&mut self, input: Input, now: Instant, out: &mut Vec<Changed>) {
        match input {
            Input::Answered(proxy) => {
                let before = self.down.len();
                self.down.retain(|(p, _)| *p != proxy);
                if self.down.len() < before {
                    out.push(Changed { proxy, up: true, reason: "it answered" });
                }
            }
            Input::Silent(proxy) => {
                if let Some((_, until)) = self.down.iter_mut().find(|(p, _)| *p == proxy) {
                    *until = now + REST;
                } else {
                    self.down.push((proxy, now + REST));
                    out.push(Changed { proxy, up: false, reason: "it did not answer" });
                }
            }
            Input::Timeout => {
                for (proxy, _) in self.down.extract_if(.., |(_, until)| *until <= now) {
                    out.push(Changed { proxy, up: true, reason: "it has rested" });
                }
            }
        }
    }

    /// When the first proxy has rested.
    pub fn deadline(&self) -> Option<Instant> {
        self.down.iter().map(|(_, until)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant(s * 1_000_000)
    }

    #[test]
    fn a_silent_proxy_is_down_once_and_up_again_after_its_rest() {
        let proxy: SocketAddr = "127.0.0.1:5070".parse().unwrap();
        let mut health = TrunkHealth::default();
        let mut out = Vec::new();
        health.handle(Input::Silent(proxy), at(0), &mut out);
        health.handle(Input::Silent(proxy), at(10), &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(health.deadline(), Some(at(40)));
        health.handle(Input::Timeout, at(30), &mut out);
        assert_eq!(out.len(), 1);
        health.handle(Input::Timeout, at(40), &mut out);
        assert!(out[1].up);
        assert_eq!(health.deadline(), None);
    }

    #[test]
    fn an_answer_brings_it_back_at_once() {
        let proxy: SocketAddr = "127.0.0.1:5070".parse().unwrap();
        let mut health = TrunkHealth::default();
        let mut out = Vec::new();
        health.handle(Input::Answered(proxy), at(0), &mut out);
        assert!(out.is_empty());
        health.handle(Input::Silent(proxy), at(0), &mut out);
        health.handle(Input::Answered(proxy), at(1), &mut out);
        assert_eq!(out.iter().map(|c| c.up).collect::<Vec<_>>(), vec![false, true]);
    }
}
