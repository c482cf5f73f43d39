use proptest::prelude::*;

use super::*;

fn proxy(n: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5_070 + n))
}

fn proxies(up: &[bool]) -> Vec<ProxyHealth> {
    let state = |up: &bool| if *up { State::Up } else { State::Down };
    up.iter().zip(0..).map(|(up, n)| ProxyHealth { state: state(up), ..ProxyHealth::up(proxy(n)) }).collect()
}

fn walk(up: &[bool], selection: Selection) -> ProxyWalk {
    ProxyWalk::new(&proxies(up), selection, RetryableCodes::default())
}

fn ms(ms: u64) -> Instant {
    Instant(ms * 1_000)
}

/// The order in which the proxies are tried if none answers.
fn order(mut walk: ProxyWalk) -> Vec<SocketAddr> {
    let mut tried = Vec::new();
    let mut next = walk.next(ms(0));
    while let Next::Try(proxy) = next {
        tried.push(proxy);
        next = walk.on_outcome(ms(0), Outcome::Timeout);
    }
    tried
}

#[test]
fn retryable_codes_lead_on_and_others_end_the_walk() {
    let mut walk = walk(&[true, true, true], Selection::Priority);
    assert_eq!(walk.next(ms(0)), Next::Try(proxy(0)));
    assert_eq!(walk.next(ms(0)), Next::Wait, "one attempt at a time");
    assert_eq!(walk.on_outcome(ms(5), Outcome::Status(183)), Next::Wait);
    assert_eq!(walk.on_outcome(ms(10), Outcome::Status(480)), Next::Try(proxy(1)));
    assert_eq!(walk.on_outcome(ms(30), Outcome::TransportError), Next::Try(proxy(2)));
    assert_eq!(walk.current(), Some(proxy(2)));
    let end = Next::Fail { status: 486, cause: FailCause::Refused };
    assert_eq!(walk.on_outcome(ms(1_030), Outcome::Status(486)), end);
    let attempt = |n, cause, ms| Attempt { proxy: proxy(n), cause, ms };
    assert_eq!(
        walk.attempts(),
        [
            attempt(0, Outcome::Status(480), 10),
            attempt(1, Outcome::TransportError, 20),
            attempt(2, Outcome::Status(486), 1_000),
        ]
    );
    assert_eq!(walk.on_outcome(ms(2_000), Outcome::Status(200)), Next::Wait, "nothing was under way");
    assert_eq!(walk.attempts().len(), 3);
}

#[test]
fn an_answer_ends_the_walk() {
    let mut walk = walk(&[true, true], Selection::Priority);
    walk.next(ms(0));
    assert_eq!(walk.on_outcome(ms(1), Outcome::Status(200)), Next::Answered);
    assert_eq!(walk.attempts()[0].cause, Outcome::Status(200));
}

#[test]
fn a_cancelled_call_tries_no_other_proxy() {
    let mut walk = walk(&[true, true], Selection::Priority);
    let cancelled = Next::Fail { status: 487, cause: FailCause::Cancelled };
    walk.next(ms(0));
    assert_eq!(walk.on_outcome(ms(1), Outcome::Cancelled), cancelled);
    assert!(matches!(walk.next(ms(1)), Next::Fail { .. }));
}

#[test]
fn the_end_of_the_walk_has_the_status_that_says_most() {
    let ended = |outcomes: &[Outcome]| {
        let mut walk = walk(&vec![true; outcomes.len()], Selection::Priority);
        let mut next = walk.next(ms(0));
        for outcome in outcomes {
            next = walk.on_outcome(ms(0), *outcome);
        }
        next
    };
    let exhausted = |status| Next::Fail { status, cause: FailCause::Exhausted };
    assert_eq!(ended(&[Outcome::Timeout, Outcome::Status(480), Outcome::TransportError]), exhausted(480));
    assert_eq!(ended(&[Outcome::Status(500), Outcome::Status(599)]), exhausted(599));
    assert_eq!(ended(&[Outcome::TransportError, Outcome::Timeout, Outcome::TransportError]), exhausted(504));
    assert_eq!(ended(&[Outcome::TransportError]), exhausted(503));
    assert_eq!(ended(&[]), Next::Fail { status: 503, cause: FailCause::NoProxy });
}

#[test]
fn a_proxy_that_is_down_is_tried_last() {
    assert_eq!(order(walk(&[false, true, true], Selection::Priority)), [proxy(1), proxy(2), proxy(0)]);
    let round = |offset| order(walk(&[true, false, true, true], Selection::RoundRobin { offset }));
    assert_eq!(round(0), [proxy(0), proxy(2), proxy(3), proxy(1)]);
    assert_eq!(round(1), [proxy(2), proxy(3), proxy(0), proxy(1)]);
    assert_eq!(round(5), [proxy(3), proxy(0), proxy(2), proxy(1)]);
    assert_eq!(order(walk(&[false, false], Selection::RoundRobin { offset: 1 })), [proxy(1), proxy(0)]);
}

#[test]
fn degraded_ones_come_between_and_a_lower_priority_goes_first_among_equals() {
    let listed =
        |n, priority, state| ProxyHealth { proxy: Proxy { priority, ..Proxy::new(proxy(n)) }, state };
    let proxies = [
        listed(0, 1, State::Down),
        listed(1, 2, State::Unknown),
        listed(2, 1, State::Up),
        listed(3, 1, State::Degraded),
        listed(4, 1, State::Up),
    ];
    let walk = |selection| order(ProxyWalk::new(&proxies, selection, RetryableCodes::default()));
    assert_eq!(walk(Selection::Priority), [2, 4, 1, 3, 0].map(proxy));
    assert_eq!(walk(Selection::RoundRobin { offset: 1 }), [4, 2, 1, 3, 0].map(proxy));
}

#[test]
fn calls_are_shared_by_weight_and_never_in_one_burst() {
    let weights = [5, 1, 2];
    let proxies: Vec<_> = weights
        .iter()
        .zip(0..)
        .map(|(weight, n)| ProxyHealth {
            proxy: Proxy { weight: *weight, ..Proxy::new(proxy(n)) },
            state: State::Up,
        })
        .collect();
    let first = |offset| {
        order(ProxyWalk::new(&proxies, Selection::RoundRobin { offset }, RetryableCodes::default()))[0]
    };
    let begun: Vec<SocketAddr> = (0..800).map(first).collect();
    for (weight, n) in weights.iter().zip(0..) {
        let count = begun.iter().filter(|p| **p == proxy(n)).count();
        assert_eq!(count, usize::from(*weight) * 100);
    }
    let longest = begun.chunk_by(|a, b| a == b).map(<[_]>::len).max();
    assert!(longest <= Some(3), "{longest:?}");
}

#[test]
fn codes_are_read_as_in_the_settings() {
    let codes = RetryableCodes::parse(&["480", "500-599"]).unwrap();
    assert_eq!(codes, RetryableCodes::default());
    for (status, retryable) in
        [(480, true), (500, true), (599, true), (404, false), (486, false), (603, false)]
    {
        assert_eq!(codes.contains(status), retryable, "{status}");
    }
    for bad in ["", "x", "200", "599-500", "500-", "500-700", "-"] {
        assert_eq!(RetryableCodes::parse(&["480", bad]), Err(BadRetryableCode(bad.to_owned())));
    }
    assert!(!RetryableCodes::parse::<&str>(&[]).unwrap().contains(503));
}

proptest! {
    #[test]
    fn every_proxy_is_tried_once_the_healthy_first(
        up in proptest::collection::vec(any::<bool>(), 0..8), offset in any::<usize>(), round in any::<bool>(),
    ) {
        let selection = if round { Selection::RoundRobin { offset } } else { Selection::Priority };
        let tried = order(walk(&up, selection));
        let health: Vec<bool> = tried.iter().map(|p| up[usize::from(p.port() - 5_070)]).collect();
        prop_assert!(health.is_sorted_by_key(|up| !up));
        let mut sorted = tried.clone();
        sorted.sort();
        let all: Vec<_> = proxies(&up).iter().map(|p| p.proxy.address).collect();
        prop_assert_eq!(sorted, all);
    }
}

#[test]
fn a_race_goes_on_with_its_winner_and_leaves_out_only_who_failed() {
    let begun = |n: usize| {
        let mut walk = walk(&vec![true; n], Selection::Priority);
        walk.next(ms(0));
        walk
    };
    let mut refused = begun(4);
    refused.raced(Some(proxy(2)), &[proxy(0)]);
    assert_eq!(refused.current(), Some(proxy(2)));
    assert_eq!(refused.left().collect::<Vec<_>>(), [proxy(1), proxy(3)]);
    let next = refused.on_outcome(ms(9), Outcome::Status(503));
    assert_eq!(next, Next::Try(proxy(1)));
    assert_eq!(refused.attempts(), [Attempt { proxy: proxy(2), cause: Outcome::Status(503), ms: 9 }]);
    let mut slow = begun(3);
    slow.raced(Some(proxy(1)), &[]);
    assert_eq!(slow.left().collect::<Vec<_>>(), [proxy(2), proxy(0)], "it may have been slow by chance");
    let mut lost = begun(3);
    lost.raced(None, &[proxy(0), proxy(1)]);
    assert_eq!(lost.current(), Some(proxy(0)));
    assert_eq!(lost.on_outcome(ms(9), Outcome::TransportError), Next::Try(proxy(2)));
    assert_eq!(lost.attempts().len(), 1, "a race is one attempt");
}
