//! How much new work is refused while more comes than can be done.
//!
//! The rule is PIE's (RFC 8033): the share that is refused grows with how long what is taken has waited, and with how that grows, so
//! that the wait settles at a target instead of at whatever the buffers hold. What a refusal costs is small beside a call, so work
//! that is under way goes on. Upstream servers that ask for it are told the share (RFC 7339).

use std::time::Duration;

use crate::time::Instant;

/// How often the share is thought over (RFC 8033 §4.2, T_UPDATE).
const UPDATE: Duration = Duration::from_millis(15);
/// A burst of this length is taken whole (§4.4, MAX_BURST).
const LONGEST_BURST: Duration = Duration::from_millis(150);
/// Of each second above the target (§4.2, alpha).
const ALPHA: f64 = 0.125;
/// Of each second that the wait has grown (§4.2, beta).
const BETA: f64 = 1.25;
/// However soon a buffer overflows, waits shorter than half of this are none: clocks tell them in milliseconds.
const LEAST_ROOM: Duration = Duration::from_millis(4);
/// How fast it is forgotten by how long a wait a buffer overflowed, a second.
const ROOM_GROWS: f64 = 1.1;
/// Below these shares the steps are so many times smaller (§4.2).
const FINE: [(f64, f64); 6] =
    [(1e-6, 2048.0), (1e-5, 512.0), (1e-4, 128.0), (1e-3, 32.0), (1e-2, 8.0), (0.1, 2.0)];
/// From this share on it grows by no more than that at once (§4.2).
const LARGE: (f64, f64) = (0.1, 0.02);
/// Who waits longer than so many targets, and than the longest burst, and has done so for an update, is in trouble: nearly all that is new
/// is refused until the wait is shorter. What piles up while the machine stands still is worked off sooner than that. The share alone would take a second to get there (§4.2), and in that time the socket's buffer overflows and loses what
/// belongs to calls that are up.
const TROUBLE: u32 = 2;
/// What is left of the share after an update without any wait (§4.2).
const DECAY: f64 = 0.98;
/// A share that has become this small is none.
const NIL: f64 = 1e-6;
/// Some of what is new is always taken: else nothing would show that things are better.
const MOST: f64 = 0.99;
/// After so many updates in which nothing came the share is nil.
const FORGOTTEN: u64 = 1000;

/// The share of new work that is refused.
#[derive(Clone, Debug)]
pub struct Overload {
    target: Duration,
    share: f64,
    /// The shortest wait since the last update: what came to an empty queue shows that none stands.
    shortest: Option<Duration>,
    /// The longest since then, which is what the buffer holds if it has overflowed.
    longest: Duration,
    overflowed: bool,
    /// At this wait the buffer was full.
    room: Option<Duration>,
    before: Duration,
    /// How long what is being taken has waited.
    last: Duration,
    burst: Duration,
    updated: Instant,
}

impl Overload {
    /// Nothing is refused yet. `target`: the wait that is kept to; zero refuses nothing, ever.
    pub fn new(target: Duration, now: Instant) -> Overload {
        Overload {
            target,
            share: 0.0,
            shortest: None,
            longest: Duration::ZERO,
            overflowed: false,
            room: None,
            before: Duration::ZERO,
            last: Duration::ZERO,
            burst: LONGEST_BURST,
            updated: now,
        }
    }

    /// Nothing has come for a while, or what came has not waited: the share falls by that too. Said each second, it is nil within
    /// a quarter of a minute.
    pub fn idle(&mut self, now: Instant) {
        self.waited(Duration::ZERO, now);
    }

    /// Another target.
    pub fn aim(&mut self, target: Duration) {
        self.target = target;
        if target.is_zero() {
            self.share = 0.0;
        }
    }

    /// Something was lost before it could be taken, since there was no room for it.
    pub fn overflowed(&mut self) {
        self.overflowed = true;
    }

    /// What is taken now has waited so long. True if the share has been thought over.
    pub fn waited(&mut self, wait: Duration, now: Instant) -> bool {
        let elapsed = now.since(self.updated);
        self.last = wait;
        self.longest = self.longest.max(wait);
        if self.target.is_zero() || elapsed < UPDATE {
            self.shortest = Some(self.shortest.map_or(wait, |shortest| shortest.min(wait)));
            return false;
        }
        self.update(self.shortest.unwrap_or(wait));
        // Nothing came since: nothing has waited either.
        let missed = (elapsed.as_micros() / UPDATE.as_micros()) as u64 - 1;
        if missed >= FORGOTTEN {
            self.share = 0.0;
        } else if missed > 0 && wait < UPDATE {
            self.share *= DECAY.powi(missed as i32);
            if self.share < NIL {
                self.share = 0.0;
            }
        }
        self.remember(elapsed);
        self.updated = now;
        self.shortest = Some(wait);
        self.longest = wait;
        true
    }

    /// How long what was taken before the last update had to wait at least.
    pub fn delay(&self) -> Duration {
        self.before
    }

    /// What the buffer is known to hold: as long as it has not overflowed again, more and more.
    fn remember(&mut self, elapsed: Duration) {
        if std::mem::take(&mut self.overflowed) {
            self.room = Some(self.longest.max(LEAST_ROOM));
        } else if let Some(room) = self.room {
            let grown = room.mul_f64(ROOM_GROWS.powf(elapsed.as_secs_f64().min(60.0)));
            self.room = Some(grown).filter(|room| *room / 2 < self.target);
        }
    }

    /// The wait that is kept to.
    fn aim_at(&self) -> Duration {
        self.room.map_or(self.target, |room| self.target.min(room / 2))
    }

    fn update(&mut self, wait: Duration) {
        let seconds = |d: Duration| d.as_secs_f64();
        let target = self.aim_at();
        let mut step =
            ALPHA * (seconds(wait) - seconds(target)) + BETA * (seconds(wait) - seconds(self.before));
        if let Some((_, finer)) = FINE.iter().find(|(below, _)| self.share < *below) {
            step /= finer;
        }
        if self.share >= LARGE.0 {
            step = step.min(LARGE.1);
        }
        if self.troubled(wait) || self.overflowed {
            step = step.max(LARGE.1);
        }
        self.share = (self.share + step).clamp(0.0, MOST);
        let calm = wait < target / 2 && self.before < target / 2 && !self.overflowed;
        if wait < Duration::from_millis(1) && self.before < Duration::from_millis(1) {
            self.share *= DECAY;
            if self.share < NIL {
                self.share = 0.0;
            }
        }
        self.burst = if self.share < NIL && calm { LONGEST_BURST } else { self.burst.saturating_sub(UPDATE) };
        self.before = wait;
    }

    fn troubled(&self, wait: Duration) -> bool {
        !self.target.is_zero() && wait > LONGEST_BURST.max(self.target * TROUBLE)
    }

    /// The share of new calls that is refused, from 0 to 1.
    pub fn share(&self) -> f64 {
        if self.troubled(self.last.min(self.before)) {
            MOST
        } else if self.burst.is_zero() {
            self.share
        } else {
            0.0
        }
    }

    /// Whether a new call is refused, of all whose `draw` is even over its range.
    pub fn refuses_call(&self, draw: u32) -> bool {
        f64::from(draw) < self.share() * f64::from(u32::MAX)
    }

    /// The same of a registration: it costs less than a call, and without it calls are lost later, so only what calls cannot make up
    /// for is taken from them.
    pub fn refuses_registration(&self, draw: u32) -> bool {
        f64::from(draw) < (2.0 * self.share() - 1.0) * f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(50);
    const MS: u64 = 1000;

    /// A queue that does `capacity` pieces of work a second; a call that is refused costs a twentieth of one.
    struct Queue {
        overload: Overload,
        now: u64,
        /// Microseconds of work that wait.
        backlog: f64,
        /// What is lost for want of room is not kept: so much work may wait.
        room: f64,
        lost: u64,
        draw: u32,
    }

    impl Queue {
        fn new() -> Queue {
            let overload = Overload::new(TARGET, Instant(0));
            Queue { overload, now: 0, backlog: 0.0, room: f64::MAX, lost: 0, draw: 1 }
        }

        /// So many seconds with so many calls a second; says how many were taken of each second, and the longest wait of the last.
        fn run(&mut self, seconds: u64, calls: u64, cost: f64) -> (Vec<u64>, Duration) {
            let (mut taken, mut longest) = (Vec::new(), 0.0_f64);
            for second in 0..seconds {
                let mut of_second = 0;
                for _ in 0..calls {
                    let step = 1e6 / calls as f64;
                    self.now += step as u64;
                    self.backlog = (self.backlog - step).max(0.0);
                    if self.backlog > self.room {
                        self.overload.overflowed();
                        self.lost += 1;
                        continue;
                    }
                    self.overload.waited(Duration::from_micros(self.backlog as u64), Instant(self.now));
                    self.draw = self.draw.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                    let refused = self.overload.refuses_call(self.draw);
                    of_second += u64::from(!refused);
                    self.backlog += if refused { cost / 20.0 } else { cost };
                    if second + 1 == seconds {
                        longest = longest.max(self.backlog);
                    }
                }
                taken.push(of_second);
            }
            (taken, Duration::from_micros(longest as u64))
        }
    }

    #[test]
    fn what_can_be_done_is_taken_whole() {
        let mut queue = Queue::new();
        assert_eq!(queue.run(5, 900, 1000.0).0, [900; 5]);
        assert!(queue.overload.share() < 1e-9);
    }

    #[test]
    fn of_three_times_as_much_nearly_as_much_is_done_as_can_be_and_nobody_waits_long() {
        let mut queue = Queue::new();
        let (taken, longest) = queue.run(20, 3000, 1000.0);
        // What refusing 2,100 costs leaves 895.
        assert!(taken[10..].iter().all(|of_second| (800..=1000).contains(of_second)), "{taken:?}");
        assert!(longest < Duration::from_millis(250), "{longest:?}");
    }

    #[test]
    fn a_buffer_that_holds_less_than_the_target_hardly_overflows() {
        let mut queue = Queue::new();
        queue.room = 15.0 * MS as f64;
        queue.run(10, 3000, 1000.0);
        queue.lost = 0;
        let (taken, _) = queue.run(20, 3000, 1000.0);
        assert!(queue.lost < 60 * 20, "{} of 60000 lost", queue.lost);
        assert!(taken.iter().all(|of_second| (750..=1000).contains(of_second)), "{taken:?}");
        // It is forgotten: a larger buffer, or work that is done faster, gets its time back.
        queue.room = f64::MAX;
        queue.run(60, 500, 1000.0);
        assert_eq!(queue.overload.aim_at(), TARGET);
    }

    #[test]
    fn a_burst_is_taken_whole() {
        let mut queue = Queue::new();
        queue.run(1, 100, 1000.0);
        let taken: u64 = (0..100).map(|_| u64::from(!queue.overload.refuses_call(0))).sum();
        assert_eq!(taken, 100);
        // Two hundred in a tenth of a second.
        for _ in 0..200 {
            queue.now += 500;
            queue.backlog += 500.0;
            queue.overload.waited(Duration::from_micros(queue.backlog as u64), Instant(queue.now));
            assert!(!queue.overload.refuses_call(0));
        }
    }

    #[test]
    fn at_the_onset_nobody_waits_longer_than_in_trouble() {
        let mut queue = Queue::new();
        for _ in 0..3 {
            let (_, longest) = queue.run(1, 4000, 1000.0);
            // And what comes in two updates.
            assert!(longest < LONGEST_BURST + 2 * 3 * UPDATE, "{longest:?}");
        }
    }

    #[test]
    fn what_has_waited_while_the_machine_stood_still_is_taken() {
        let mut queue = Queue::new();
        queue.run(1, 100, 1000.0);
        // Of 400 ms a second: each has waited less than the one before, and all are done within a few milliseconds.
        for n in 0..40 {
            queue.now += 100;
            let wait = Duration::from_millis(400 - 10 * n);
            queue.overload.waited(wait, Instant(queue.now));
            assert!(!queue.overload.refuses_call(0), "{n}");
        }
    }

    #[test]
    fn once_it_is_over_everything_is_taken_within_five_seconds() {
        let mut queue = Queue::new();
        queue.run(10, 3000, 1000.0);
        let (taken, _) = queue.run(8, 500, 1000.0);
        assert_eq!(taken[5..], [500, 500, 500], "{taken:?}");
        // Or nothing comes at all, and time alone tells.
        queue.run(10, 3000, 1000.0);
        let shares: Vec<f64> = (0..20)
            .map(|_| {
                queue.now += 1000 * MS;
                queue.overload.idle(Instant(queue.now));
                queue.overload.share()
            })
            .collect();
        assert!(shares[0] > 0.0 && shares[4] < 0.01 && shares[19] <= 0.0, "{shares:?}");
        queue.backlog = 0.0;
        queue.run(10, 3000, 1000.0);
        queue.now += 10_000 * MS;
        queue.overload.waited(Duration::ZERO, Instant(queue.now));
        assert!(queue.overload.share() < 0.01, "{}", queue.overload.share());
    }

    #[test]
    fn registrations_are_refused_after_calls() {
        let mut queue = Queue::new();
        queue.run(5, 1400, 1000.0);
        assert!((0.05..0.5).contains(&queue.overload.share()), "{}", queue.overload.share());
        assert!(queue.overload.refuses_call(0) && !queue.overload.refuses_registration(0));
    }

    #[test]
    fn without_a_target_nothing_is_refused() {
        let mut overload = Overload::new(Duration::ZERO, Instant(0));
        for n in 1..1000 {
            overload.waited(Duration::from_secs(5), Instant(n * 20 * MS));
        }
        assert!(overload.share() <= 0.0 && !overload.refuses_call(0));
    }
}
