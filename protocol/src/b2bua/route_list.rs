//! The hunt of one call over the trunks of a route list, and over the proxies of each.
//!
//! Route lists and route groups are flat by the time a call hunts: an order of trunks, each once, so that no configuration makes a
//! hunt go round. A trunk is left for the next when all its proxies failed in a way its `retryable_codes` allow, or when it has no
//! place for another call; any other answer is the call's answer.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::decimal::socket_addr;
use crate::flow::ListenerId;
use crate::proxy_list::{Attempt, FailCause, Next, Outcome, ProxyWalk};
use crate::time::Instant;

/// One trunk that a call may leave by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkChoice {
    /// Its name.
    pub trunk: String,
    /// The listener it leaves by.
    pub listener: ListenerId,
    /// The number it is asked for, already escaped.
    pub user: String,
    /// It is asked for by a `sips` URI.
    pub sips: bool,
    /// The walk over its proxies.
    pub walk: ProxyWalk,
    /// The proxies that DNS has found, each with the host that was looked for: their requests are for that one (RFC 3263 §4).
    pub hosts: Vec<(SocketAddr, String)>,
}

impl TrunkChoice {
    /// The Request-URI of an INVITE to `proxy`.
    pub(super) fn request_uri(&self, proxy: SocketAddr) -> String {
        let scheme = if self.sips { "sips:" } else { "sip:" };
        match self.hosts.iter().find(|(address, _)| *address == proxy) {
            Some((_, host)) => [scheme, &self.user, "@", host].concat(),
            None => [scheme, &self.user, "@", &socket_addr(proxy)].concat(),
        }
    }
}

/// What came of a trunk or of one of its proxies, as the CDR tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkAttempt {
    /// The trunk.
    pub trunk: String,
    /// The try of one proxy; `None`: the trunk had as many calls as it may, so that none was tried.
    pub tried: Option<Attempt>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HuntNext {
    /// Send the INVITE to a proxy of [`TrunkHunt::current`].
    Try(SocketAddr),
    /// Go on waiting.
    Wait,
    /// Give the caller this status.
    Fail {
        /// The status.
        status: u16,
        /// Why no proxy has been asked, if none has.
        unasked: Option<Unasked>,
    },
    /// Nobody was asked: no trunk takes a codec that the caller offers.
    Unfit,
}

/// Why a hunt has come to its end without asking anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unasked {
    /// Every trunk has as many calls as it may.
    Limit,
    /// A proxy wants fewer calls (RFC 7339).
    Overload,
}

/// The hunt of one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkHunt {
    /// The trunk that is tried, then those that are left, the next one last.
    left: Vec<TrunkChoice>,
    current: Option<TrunkChoice>,
    attempts: Vec<TrunkAttempt>,
}

impl TrunkHunt {
    /// A hunt over `trunks`, in this order; one named again is not tried again.
    pub fn new(trunks: Vec<TrunkChoice>) -> TrunkHunt {
        let mut left = trunks;
        if left.len() > 1 {
            let mut seen = BTreeSet::new();
            left.retain(|choice| seen.insert(choice.trunk.clone()));
            left.reverse();
        }
        TrunkHunt { left, current: None, attempts: Vec::new() }
    }

    /// The hunt of a call that tries no more.
    pub(super) fn ended(attempts: Vec<TrunkAttempt>) -> TrunkHunt {
        TrunkHunt { left: Vec::new(), current: None, attempts }
    }

    /// Every trunk not tried yet and the one that is, in order.
    pub fn trunks(&self) -> impl Iterator<Item = &TrunkChoice> {
        self.current.iter().chain(self.left.iter().rev())
    }

    /// What was tried and what came of it, in order.
    pub fn attempts(&self) -> &[TrunkAttempt] {
        &self.attempts
    }

    /// The trunk under way.
    pub(super) fn current(&self) -> Option<&TrunkChoice> {
        self.current.as_ref()
    }

    /// Whether a proxy has been asked and has not answered for good.
    pub(super) fn is_trying(&self) -> bool {
        self.current.as_ref().is_some_and(|choice| choice.walk.current().is_some())
    }

    /// The addresses that the trunk under way would try next, in order.
    pub(super) fn left(&self) -> impl Iterator<Item = SocketAddr> {
        self.current.iter().flat_map(|choice| choice.walk.left())
    }

    /// See [`ProxyWalk::raced`].
    pub(super) fn raced(&mut self, won: Option<SocketAddr>, failed: &[SocketAddr]) {
        if let Some(choice) = &mut self.current {
            choice.walk.raced(won, failed);
        }
    }

    /// Begins with the first trunk.
    pub(super) fn begin(&mut self, now: Instant) -> HuntNext {
        if self.current.is_some() { HuntNext::Wait } else { self.next_trunk(now) }
    }

    /// The trunk under way has no place for the call; its proxy was never asked.
    pub(super) fn no_place(&mut self, now: Instant) -> HuntNext {
        let Some(full) = self.current.take() else { return HuntNext::Wait };
        self.attempts.push(TrunkAttempt { trunk: full.trunk, tried: None });
        self.next_trunk(now)
    }

    /// The trunk under way takes nothing that could be offered; its proxy was never asked.
    pub(super) fn pass_over(&mut self, now: Instant) -> HuntNext {
        if self.current.take().is_none() {
            return HuntNext::Wait;
        }
        match self.next_trunk(now) {
            HuntNext::Fail { .. } if self.attempts.is_empty() => HuntNext::Unfit,
            next => next,
        }
    }

    /// Takes the outcome of the attempt under way.
    pub(super) fn on_outcome(&mut self, now: Instant, outcome: Outcome) -> HuntNext {
        let Some(choice) = &mut self.current else { return HuntNext::Wait };
        let before = choice.walk.attempts().len();
        let next = choice.walk.on_outcome(now, outcome);
        if let Some(tried) = choice.walk.attempts().get(before) {
            self.attempts.push(TrunkAttempt { trunk: choice.trunk.clone(), tried: Some(*tried) });
        }
        self.follow(next, now)
    }

    fn follow(&mut self, next: Next, now: Instant) -> HuntNext {
        match next {
            Next::Try(proxy) => HuntNext::Try(proxy),
            Next::Wait => HuntNext::Wait,
            Next::Answered => {
                self.left.clear();
                HuntNext::Wait
            }
            Next::Fail { cause: FailCause::Exhausted | FailCause::NoProxy, .. } => {
                self.current = None;
                self.next_trunk(now)
            }
            Next::Fail { status, cause: FailCause::Refused | FailCause::Cancelled } => {
                self.left.clear();
                HuntNext::Fail { status, unasked: None }
            }
        }
    }

    fn next_trunk(&mut self, now: Instant) -> HuntNext {
        match self.left.pop() {
            Some(mut choice) => {
                let next = choice.walk.next(now);
                self.current = Some(choice);
                self.follow(next, now)
            }
            None => self.exhausted(),
        }
    }

    /// The last status that a proxy gave says most; without any, 504 if one was reached but silent, else 503.
    fn exhausted(&self) -> HuntNext {
        let causes = || self.attempts.iter().rev().filter_map(|a| a.tried.map(|tried| tried.cause));
        let given = causes().find_map(|cause| match cause {
            Outcome::Status(status) => Some(status),
            Outcome::Timeout
            | Outcome::TransportError
            | Outcome::NoProgress
            | Outcome::Cancelled
            | Outcome::Shed => None,
        });
        let silent = causes().any(Outcome::is_silence);
        let status = given.unwrap_or(if silent { 504 } else { 503 });
        let shed = causes().any(|cause| cause == Outcome::Shed);
        let unasked = match self.attempts.is_empty() || causes().any(|cause| cause != Outcome::Shed) {
            true => None,
            false if shed => Some(Unasked::Overload),
            false => Some(Unasked::Limit),
        };
        HuntNext::Fail { status, unasked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy_list::{ProxyHealth, RetryableCodes, Selection};

    const T0: Instant = Instant(0);

    fn proxy(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn choice(trunk: &str, ports: &[u16]) -> TrunkChoice {
        let proxies: Vec<_> = ports.iter().map(|p| ProxyHealth::up(proxy(*p))).collect();
        let walk = ProxyWalk::new(&proxies, Selection::Priority, RetryableCodes::default());
        TrunkChoice {
            trunk: trunk.to_owned(),
            listener: ListenerId::default(),
            user: "1".to_owned(),
            sips: false,
            walk,
            hosts: Vec::new(),
        }
    }

    fn told(hunt: &TrunkHunt) -> Vec<(&str, Option<Outcome>)> {
        hunt.attempts().iter().map(|a| (a.trunk.as_str(), a.tried.map(|tried| tried.cause))).collect()
    }

    #[test]
    fn each_proxy_of_each_trunk_is_tried_once_in_order() {
        let mut hunt = TrunkHunt::new(vec![choice("a", &[1, 2]), choice("b", &[3]), choice("a", &[1, 2])]);
        assert_eq!(hunt.begin(T0), HuntNext::Try(proxy(1)));
        assert_eq!(hunt.on_outcome(T0, Outcome::Status(180)), HuntNext::Wait);
        assert_eq!(hunt.on_outcome(T0, Outcome::Status(503)), HuntNext::Try(proxy(2)));
        assert_eq!(hunt.on_outcome(T0, Outcome::Timeout), HuntNext::Try(proxy(3)));
        assert_eq!(hunt.current().map(|c| c.trunk.as_str()), Some("b"));
        assert_eq!(
            hunt.on_outcome(T0, Outcome::TransportError),
            HuntNext::Fail { status: 503, unasked: None }
        );
        let causes = [("a", Outcome::Status(503)), ("a", Outcome::Timeout), ("b", Outcome::TransportError)];
        assert_eq!(told(&hunt), causes.map(|(trunk, cause)| (trunk, Some(cause))));
    }

    #[test]
    fn a_proxy_that_was_found_by_name_is_sent_requests_for_that_name() {
        let mut found = choice("a", &[1, 2]);
        found.hosts.push((proxy(2), "example.net".to_owned()));
        assert_eq!(found.request_uri(proxy(1)), "sip:1@192.0.2.1:1");
        assert_eq!(found.request_uri(proxy(2)), "sip:1@example.net");
    }

    #[test]
    fn a_full_trunk_is_passed_over_and_told() {
        let mut hunt = TrunkHunt::new(vec![choice("a", &[1]), choice("b", &[]), choice("c", &[3])]);
        assert_eq!(hunt.begin(T0), HuntNext::Try(proxy(1)));
        assert_eq!(hunt.no_place(T0), HuntNext::Try(proxy(3)), "b has no proxy");
        assert_eq!(hunt.on_outcome(T0, Outcome::Status(200)), HuntNext::Wait);
        assert_eq!(told(&hunt), [("a", None), ("c", Some(Outcome::Status(200)))]);
        let mut full = TrunkHunt::new(vec![choice("a", &[1]), choice("b", &[2])]);
        full.begin(T0);
        assert_eq!(full.no_place(T0), HuntNext::Try(proxy(2)));
        assert_eq!(full.no_place(T0), HuntNext::Fail { status: 503, unasked: Some(Unasked::Limit) });
        assert_eq!(full.no_place(T0), HuntNext::Wait);
    }

    #[test]
    fn a_proxy_that_wants_fewer_calls_is_passed_over_and_is_to_blame_only_if_nobody_was_asked() {
        let mut hunt = TrunkHunt::new(vec![choice("a", &[1, 2]), choice("b", &[3])]);
        hunt.begin(T0);
        assert_eq!(hunt.on_outcome(T0, Outcome::Shed), HuntNext::Try(proxy(2)));
        assert_eq!(hunt.on_outcome(T0, Outcome::Shed), HuntNext::Try(proxy(3)));
        let mut all = hunt.clone();
        assert_eq!(all.no_place(T0), HuntNext::Fail { status: 503, unasked: Some(Unasked::Overload) });
        assert_eq!(hunt.on_outcome(T0, Outcome::Timeout), HuntNext::Fail { status: 504, unasked: None });
        assert_eq!(told(&hunt)[..2], [("a", Some(Outcome::Shed)); 2]);
    }

    #[test]
    fn an_answer_that_is_not_retryable_ends_the_hunt() {
        let mut hunt = TrunkHunt::new(vec![choice("a", &[1]), choice("b", &[2])]);
        hunt.begin(T0);
        assert_eq!(hunt.on_outcome(T0, Outcome::Status(486)), HuntNext::Fail { status: 486, unasked: None });
        assert_eq!(hunt.trunks().count(), 1);
        let mut none = TrunkHunt::new(Vec::new());
        assert_eq!(none.begin(T0), HuntNext::Fail { status: 503, unasked: None });
    }
}
