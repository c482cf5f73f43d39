use proptest::prelude::*;

use super::proxy::{MOST_FAILED, REST};
use super::*;

fn addr(n: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5070 + n))
}

/// A trunk and what its last input made it do.
struct Rig {
    health: TrunkHealth,
    out: Vec<Output>,
    now: Instant,
}

impl Rig {
    fn new(interval_s: Option<u64>) -> Rig {
        let health =
            TrunkHealth::new(&[addr(0), addr(1)], interval_s.map(Duration::from_secs), 7, Instant(0));
        Rig { health, out: Vec::new(), now: Instant(0) }
    }

    fn feed(&mut self, input: Input) -> &[Output] {
        self.out.clear();
        self.health.handle(&input, self.now, &mut self.out);
        &self.out
    }

    fn seen(&mut self, seen: Seen) {
        self.feed(Input::Seen(addr(0), seen));
    }

    fn state(&self) -> State {
        self.health.state(addr(0))
    }

    fn cause(&self) -> Option<Cause> {
        let cause = |o: &Output| if let Output::Changed { cause, .. } = o { Some(*cause) } else { None };
        self.out.iter().rev().find_map(cause)
    }

    /// Moves the clock on, answering OPTIONS by `answer`. Says each change of the first proxy, with how long it took.
    fn run(&mut self, within: Duration, answer: impl Fn(SocketAddr) -> Qualified) -> Vec<(u64, State)> {
        let (begin, end) = (self.now, self.now + within);
        let mut changes = Vec::new();
        while let Some(at) = self.health.deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            let mut due = self.feed(Input::Timeout).to_vec();
            for output in due.clone() {
                if let Output::Qualify { proxy, number } = output {
                    due.extend_from_slice(self.feed(Input::Qualified(number, answer(proxy))));
                }
            }
            for output in due {
                if let Output::Changed { proxy, state, .. } = output
                    && proxy == addr(0)
                {
                    changes.push((self.now.since(begin).as_secs(), state));
                }
            }
        }
        self.now = end;
        changes
    }
}

const WELL: Qualified = Qualified::Answered(None);
/// An answer comes within this.
const QUICK: Duration = Duration::from_millis(3);

#[test]
fn one_that_is_asked_goes_down_after_two_silences_and_comes_back_once_it_has_answered_for_a_while() {
    let mut rig = Rig::new(Some(30));
    assert_eq!(rig.run(Duration::from_secs(60), |_| WELL), [(0, State::Up)]);
    let silent = |proxy| if proxy == addr(0) { Qualified::Silent } else { WELL };
    let changes = rig.run(Duration::from_secs(60), silent);
    assert_eq!(changes.iter().map(|c| c.1).collect::<Vec<_>>(), [State::Degraded, State::Down]);
    assert_eq!(changes[1].0 - changes[0].0, 2, "asked sooner once it was silent");
    let changes = rig.run(Duration::from_secs(60), |_| WELL);
    assert_eq!(changes.iter().map(|c| c.1).collect::<Vec<_>>(), [State::Degraded, State::Up]);
    assert!((2..=6).contains(&(changes[1].0 - changes[0].0)), "{changes:?}");
    assert_eq!(rig.health.state(addr(1)), State::Up, "the other was never touched");
}

#[test]
fn one_lost_answer_is_forgiven_and_a_refusal_is_not() {
    let mut rig = Rig::new(Some(30));
    rig.run(Duration::from_secs(3), |_| WELL);
    rig.now = rig.health.deadline().unwrap();
    let asked = rig.feed(Input::Timeout).to_vec();
    let number = |n: usize| match asked[n] {
        Output::Qualify { proxy, number } => (proxy, number),
        other => panic!("{other:?}"),
    };
    let (proxy, first) = number(0);
    // The other may have been asked at the same time.
    for other in 1..asked.len() {
        rig.feed(Input::Qualified(number(other).1, WELL));
    }
    rig.feed(Input::Qualified(first, Qualified::Silent));
    assert_eq!(rig.health.state(proxy), State::Degraded);
    rig.feed(Input::Qualified(first, Qualified::Silent));
    assert_eq!(rig.health.state(proxy), State::Degraded, "the same OPTIONS count once");
    rig.run(Duration::from_secs(10), |_| WELL);
    assert_eq!(rig.health.state(proxy), State::Up);
    rig.run(Duration::from_secs(40), |_| Qualified::Unreachable);
    assert_eq!((rig.state(), rig.health.state(addr(1))), (State::Down, State::Down));
}

#[test]
fn one_that_flickers_must_answer_for_longer_each_time() {
    let mut rig = Rig::new(Some(30));
    rig.run(Duration::from_secs(3), |_| WELL);
    let mut waits = Vec::new();
    for _ in 0..9 {
        rig.seen(Seen::Unreachable);
        assert_eq!((rig.state(), rig.cause()), (State::Down, Some(Cause::Unreachable)));
        let changes = rig.run(Duration::from_secs(150), |_| WELL);
        let (degraded, up) = (changes[0], changes[1]);
        assert_eq!((degraded.1, up.1), (State::Degraded, State::Up));
        waits.push(up.0 - degraded.0);
    }
    assert!(waits.is_sorted() && waits[0] <= 6 && waits[3] >= 30 && waits[8] == 120, "{waits:?}");
    rig.run(Duration::from_secs(400), |_| WELL);
    rig.seen(Seen::Unreachable);
    let changes = rig.run(Duration::from_secs(60), |_| WELL);
    assert!(changes[1].0 - changes[0].0 <= 6, "it had been steady: {changes:?}");
}

#[test]
fn one_that_is_not_asked_is_tried_by_one_call_after_its_rest() {
    let mut rig = Rig::new(None);
    assert_eq!(rig.health.deadline(), None, "no OPTIONS, nothing to do");
    rig.seen(Seen::Silent);
    assert_eq!((rig.state(), rig.cause()), (State::Down, Some(Cause::Silent)));
    rig.seen(Seen::Silent);
    assert_eq!((rig.out.len(), rig.health.deadline()), (0, Some(Instant(0).roughly_after(REST))));
    for rest in [30, 60, 120, 240, 300, 300] {
        assert_eq!(rig.health.deadline(), Some(rig.now.roughly_after(Duration::from_secs(rest))));
        rig.now = rig.health.deadline().unwrap();
        assert_eq!(rig.feed(Input::Timeout), [Output::Trial(addr(0))]);
        rig.seen(Seen::Silent);
        rig.seen(Seen::Silent);
        assert!(rig.out.is_empty() && rig.state() == State::Down);
    }
    rig.now = rig.health.deadline().unwrap();
    rig.feed(Input::Timeout);
    assert_eq!(rig.health.deadline(), Some(rig.now.roughly_after(Duration::from_secs(60))));
    rig.now = rig.health.deadline().unwrap();
    assert_eq!(rig.feed(Input::Timeout), [Output::Trial(addr(0))], "nothing was heard of the first");
    rig.seen(Seen::Answered);
    assert_eq!((rig.state(), rig.cause()), (State::Up, Some(Cause::Answered)));
    assert_eq!(rig.health.deadline(), None);
}

#[test]
fn calls_that_fail_one_after_the_other_degrade_it_until_it_has_rested() {
    let mut rig = Rig::new(None);
    let failed = |taken| Seen::Failed { status: Some(500), taken };
    for call in 0..MOST_FAILED * 3 {
        // Every third call between them is taken.
        rig.seen(failed(u64::from(call / 3)));
    }
    assert_eq!(rig.state(), State::Up);
    for _ in 0..MOST_FAILED {
        rig.seen(failed(9));
    }
    assert_eq!((rig.state(), rig.cause()), (State::Degraded, Some(Cause::Failing(500))));
    rig.seen(Seen::Answered);
    assert_eq!(rig.state(), State::Degraded, "that it answers was never in doubt");
    assert_eq!(rig.run(REST + Duration::from_secs(1), |_| WELL), [(30, State::Up)]);
    for _ in 0..MOST_FAILED {
        rig.seen(Seen::Failed { status: None, taken: 9 });
    }
    assert_eq!(rig.cause(), Some(Cause::Stalling));
}

#[test]
fn retry_after_rests_it_for_as_long_as_it_says() {
    for interval in [None, Some(5)] {
        let mut rig = Rig::new(interval);
        rig.run(Duration::from_secs(3), |_| WELL);
        rig.seen(Seen::Busy(Duration::from_secs(20)));
        assert_eq!((rig.state(), rig.cause()), (State::Degraded, Some(Cause::RetryAfter(20))));
        rig.seen(Seen::Busy(Duration::from_secs(10)));
        assert_eq!(rig.run(Duration::from_secs(60), |_| WELL), [(20, State::Up)]);
        rig.seen(Seen::Busy(Duration::ZERO));
        assert_eq!(rig.state(), State::Up);
        rig.seen(Seen::Busy(Duration::from_secs(1 << 40)));
        assert_eq!(rig.run(Duration::from_secs(4000), |_| WELL), [(3600, State::Up)], "an hour is the most");
    }
    let mut rig = Rig::new(Some(5));
    let busy = |_| Qualified::Answered(Some(Duration::from_secs(30)));
    assert_eq!(rig.run(Duration::from_secs(3), busy)[1].1, State::Degraded, "OPTIONS may say so too");
}

#[test]
fn what_is_known_of_a_proxy_survives_a_change_of_the_list() {
    let mut rig = Rig::new(None);
    rig.seen(Seen::Unreachable);
    rig.feed(Input::Proxies(vec![addr(2), addr(0), addr(2)]));
    assert_eq!((rig.state(), rig.health.state(addr(2))), (State::Down, State::Unknown));
    rig.feed(Input::Seen(addr(1), Seen::Unreachable));
    assert!(rig.out.is_empty(), "it is a proxy no longer");
}

#[test]
fn options_that_nobody_tells_the_end_of_do_not_end_the_asking() {
    let mut rig = Rig::new(Some(30));
    let lost = |rig: &mut Rig| {
        rig.now = rig.health.deadline().unwrap();
        rig.feed(Input::Timeout).to_vec()
    };
    for _ in 0..2 {
        assert!(matches!(lost(&mut rig)[..], [Output::Qualify { .. }]));
    }
    let changed = lost(&mut rig);
    assert!(matches!(changed[..], [Output::Changed { state: State::Degraded, .. }]), "{changed:?}");
}

/// When each of so many trunks sends OPTIONS to its proxy, which answers at once: in order, from when they do not follow their start any more.
fn asked(trunks: u64, interval: Duration, within: Duration) -> Vec<(Instant, u64)> {
    let begin = Instant(0) + interval * 40;
    let new = |chance| TrunkHealth::new(&[addr(0)], Some(interval), chance, Instant(0));
    let mut trunks: Vec<TrunkHealth> = (0..trunks).map(new).collect();
    let (mut asked, mut out) = (Vec::new(), Vec::new());
    loop {
        let due = (0_u64..).zip(&mut trunks).filter_map(|(n, trunk)| Some((trunk.deadline()?, n, trunk)));
        let (now, n, trunk) = due.min_by_key(|(at, ..)| *at).unwrap();
        if now > begin + within {
            return asked;
        }
        trunk.handle(&Input::Timeout, now, &mut out);
        for output in out.split_off(0) {
            if let Output::Qualify { number, .. } = output {
                asked.extend((now >= begin).then_some((now, n)));
                trunk.handle(&Input::Qualified(number, WELL), now + QUICK, &mut out);
            }
        }
    }
}

#[test]
fn the_options_of_many_trunks_leave_several_at_a_time_and_are_spread_nevertheless() {
    let asked = asked(300, Duration::from_secs(30), Duration::from_secs(60));
    assert!((570..630).contains(&asked.len()), "{} in two intervals", asked.len());
    let together: Vec<usize> = asked.chunk_by(|a, b| a.0 == b.0).map(<[_]>::len).collect();
    assert!(together.len() <= 60_000 / 262 + 1, "woken {} times", together.len());
    assert!(together.iter().all(|count| *count < 20), "{together:?}");
}

#[test]
fn a_trunk_is_asked_as_often_as_it_is_set_to() {
    for seconds in [1, 2, 5, 30] {
        let interval = Duration::from_secs(seconds);
        let asked = asked(1, interval, interval * 200);
        for pair in asked.windows(2) {
            let between = pair[1].0.since(pair[0].0);
            assert!(
                between >= interval.mul_f64(0.9) && between <= interval.mul_f64(1.1 * 17.0 / 16.0) + QUICK,
                "{between:?}"
            );
        }
        assert!((180..=210).contains(&asked.len()), "{} times in 200 intervals of {seconds} s", asked.len());
    }
}

fn anything() -> impl Strategy<Value = Input> {
    let seen = prop_oneof![
        Just(Seen::Answered),
        (proptest::option::of(500..600_u16), 0..3_u64)
            .prop_map(|(status, taken)| Seen::Failed { status, taken }),
        (0..100_u64).prop_map(|s| Seen::Busy(Duration::from_secs(s))),
        Just(Seen::Silent),
        Just(Seen::Unreachable),
    ];
    let qualified = prop_oneof![Just(WELL), Just(Qualified::Silent), Just(Qualified::Unreachable)];
    prop_oneof![
        (0..3_u16, seen).prop_map(|(n, seen)| Input::Seen(addr(n), seen)),
        (0..20_u32, qualified).prop_map(|(number, what)| Input::Qualified(number, what)),
        proptest::collection::vec(0..3_u16, 0..3)
            .prop_map(|list| Input::Proxies(list.into_iter().map(addr).collect())),
        Just(Input::Timeout),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_it_comes_back_when_all_is_well_again(
        inputs in proptest::collection::vec((anything(), 0..40_u64), 0..60), asked in any::<bool>(),
    ) {
        let mut rig = Rig::new(asked.then_some(10));
        for (input, seconds) in inputs {
            rig.now = rig.now + Duration::from_secs(seconds);
            rig.feed(input);
        }
        rig.feed(Input::Proxies(vec![addr(0)]));
        // A call that tries it is answered.
        for _ in 0..20 {
            rig.run(Duration::from_secs(400), |_| WELL);
            if !asked {
                rig.seen(Seen::Answered);
            }
        }
        prop_assert_eq!(rig.state(), State::Up);
    }
}
