//! Whom a leg listens to: the address its SDP names, and what it may learn while that is silent.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::Learn;

/// What a source is to the leg at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The SDP names it.
    Named,
    /// It was learned and still is.
    Learned,
    /// It may be learned now.
    Candidate,
    /// To be refused.
    Foreign,
}

/// The rule, for the RTP or the RTCP of one leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    named: Option<SocketAddr>,
    signalling_ip: IpAddr,
    learn: Learn,
    /// How long an address must not have spoken to count as silent.
    patience: Duration,
    learned: Option<SocketAddr>,
    // Since when it was named, or when it spoke last.
    named_at: Duration,
    learned_at: Duration,
}

impl Source {
    pub(super) fn new(
        named: Option<SocketAddr>,
        signalling_ip: IpAddr,
        learn: Learn,
        patience: Duration,
        now: Duration,
    ) -> Source {
        Source {
            named: named.filter(is_usable),
            signalling_ip,
            learn,
            patience,
            learned: None,
            named_at: now,
            learned_at: now,
        }
    }

    /// Takes over a new description. The same address keeps its clock and what was learned in its place.
    pub(super) fn rename(
        &mut self,
        named: Option<SocketAddr>,
        signalling_ip: IpAddr,
        learn: Learn,
        now: Duration,
    ) {
        let named = named.filter(is_usable);
        // Before the first SDP a leg may learn at once; that address is kept when the SDP confirms its IP.
        if named != self.named {
            self.learned = self.learned.filter(|learned| self.named.is_none() && Some(*learned) != named);
            self.named_at = now;
        }
        (self.named, self.signalling_ip, self.learn) = (named, signalling_ip, learn);
        self.learned = self.learned.filter(|learned| self.may_learn(*learned));
    }

    /// Starts the clocks anew, after a restart whose clock has another epoch.
    pub(super) fn restart_clocks(&mut self, now: Duration) {
        (self.named_at, self.learned_at) = (now, now);
    }

    #[inline]
    pub(super) fn standing(&self, now: Duration, from: SocketAddr) -> Standing {
        if self.named.is_some_and(|named| same(named, from)) {
            return Standing::Named;
        }
        if self.learned.is_some_and(|learned| same(learned, from)) {
            return Standing::Learned;
        }
        if self.may_learn(from) && self.is_silent(now) { Standing::Candidate } else { Standing::Foreign }
    }

    /// A valid packet came from a source of this standing.
    #[inline]
    pub(super) fn spoke(&mut self, now: Duration, from: SocketAddr, standing: Standing) {
        match standing {
            Standing::Named => {
                self.learned = None;
                self.named_at = now;
            }
            Standing::Learned => self.learned_at = now,
            Standing::Candidate => {
                self.learned = Some(from);
                self.learned_at = now;
            }
            Standing::Foreign => {}
        }
    }

    /// Where to send: to whom we listen.
    pub(super) fn current(&self) -> Option<SocketAddr> {
        self.learned.or(self.named)
    }

    pub(super) fn learned(&self) -> Option<SocketAddr> {
        self.learned
    }

    /// Neither the named address nor a learned one has spoken of late. An address that was never named has
    /// nobody to protect.
    fn is_silent(&self, now: Duration) -> bool {
        let quiet = |since: Duration| now.saturating_sub(since) >= self.patience;
        (self.named.is_none() || quiet(self.named_at)) && (self.learned.is_none() || quiet(self.learned_at))
    }

    fn may_learn(&self, from: SocketAddr) -> bool {
        let ip = from.ip().to_canonical();
        let is = |other: IpAddr| other.to_canonical() == ip;
        match self.learn {
            Learn::Off => false,
            Learn::SameIp => is(self.signalling_ip) || self.named.is_some_and(|named| is(named.ip())),
            Learn::Any => true,
        }
    }
}

/// Whether packets can be sent to an address.
pub(super) fn is_usable(address: &SocketAddr) -> bool {
    !address.ip().is_unspecified() && address.port() != 0
}

/// Equality that sees through IPv4-mapped IPv6 addresses, as a dual-stack socket reports them.
#[inline]
fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().to_canonical() == b.ip().to_canonical())
}
