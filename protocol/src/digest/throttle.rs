//! Guessing passwords is made slow, and nothing else is.
//!
//! Failures are counted for each pair of source and user. The first [`FREE`] cost nothing: a phone may have an old
//! password, a person mistypes. Each further one doubles the delay in which no guess from that source for that user is
//! judged, the right one neither; so a guesser learns nothing from trying faster. An attempt within the delay
//! is not counted and does not prolong it: no account is ever locked, and a phone whose password is put right gets in
//! within [`LONGEST`].
//!
//! Whoever tries many users once each is slowed by how many *different* users failed from his source.
//!
//! # What an attacker can do to the table
//!
//! It is fixed in size and keyed, so he cannot aim at a place in it. An entry gives way to another only if it is
//! forgotten or has failed less often; so he cannot have himself forgotten by failing often elsewhere. A table that is full
//! forgets, and never delays anyone who has not failed. Only sources that have proved to be where they say may be
//! counted (by a nonce sent there: [`NonceSigner`](super::NonceSigner)), or one could have others delayed.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Instant;

/// Failures of one user at one source that cost nothing.
pub const FREE: u32 = 3;
/// Different users that may fail at one source before the source is slowed.
pub const FREE_USERS: u32 = 8;
/// The first delay; each further failure doubles it.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// No delay is longer.
pub const LONGEST: Duration = Duration::from_secs(256);
/// Failures are forgotten this long after the last delay has ended.
pub const FORGET: Duration = Duration::from_secs(3_600);

const BUCKET_SLOTS: usize = 8;
/// A count goes no higher, and is one of the 16 bits beside the time.
const MOST: u32 = 0xffff;
/// With so many of the 64 bits set, a user that seems known may well be new.
const CROWDED: u32 = 32;
const TIME_BITS: u32 = 48;

/// Who tries to authenticate.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Where he is.
    pub source: IpAddr,
    /// Who he says he is: the user name of the credentials.
    pub user: &'a str,
}

/// The failures of pairs of source and user, and of sources, shared by all threads.
pub struct Throttle {
    key: [u8; 16],
    pairs: Table,
    sources: Table,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("slots", &self.pairs.slots()).finish_non_exhaustive()
    }
}

/// The part of an address that one subscriber has: IPv4 all of it, IPv6 the /64.
pub fn subscriber(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
    }
}

impl Throttle {
    /// A table of at least `slots` pairs, and as many sources (each rounded up to a power of two, 24 bytes each).
    pub fn new(key: [u8; 16], slots: usize) -> Throttle {
        Throttle { key, pairs: Table::new(slots), sources: Table::new(slots) }
    }

    /// How long no guess of this user from this source is judged; zero: judge.
    pub fn pair_delay(&self, attempt: Attempt<'_>, now: Instant) -> Duration {
        self.pairs.delay(self.pair(attempt), now)
    }

    /// How long no guess from this source is judged, whoever it is for; zero: judge.
    pub fn source_delay(&self, source: IpAddr, now: Instant) -> Duration {
        self.sources.delay(self.source(source), now)
    }

    /// Counts a failure, and returns how long the pair is delayed by it.
    pub fn failed(&self, attempt: Attempt<'_>, now: Instant) -> Duration {
        self.sources.user_failed(self.source(attempt.source), self.hash(&attempt.user), now);
        self.pair_failed(attempt, now)
    }

    /// Counts a failure for the pair alone, while its source is delayed already.
    pub fn pair_failed(&self, attempt: Attempt<'_>, now: Instant) -> Duration {
        self.pairs.failed(self.pair(attempt), now)
    }

    /// Forgets the failures of a pair: it has proved itself. Those of the source stay, or whoever has one account could
    /// go on trying others.
    pub fn succeeded(&self, attempt: Attempt<'_>) {
        self.pairs.forget(self.pair(attempt));
    }

    fn pair(&self, attempt: Attempt<'_>) -> u64 {
        self.hash(&(subscriber(attempt.source), attempt.user))
    }

    fn source(&self, source: IpAddr) -> u64 {
        self.hash(&subscriber(source))
    }

    /// SipHash, whose key an attacker does not know; never 0, which marks an empty slot, nor 1, which marks one in change.
    fn hash(&self, what: &impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.key);
        what.hash(&mut hasher);
        hasher.finish().max(2)
    }
}

/// The delay after so many failures beyond the free ones.
fn delay_after(beyond: u32) -> Duration {
    match beyond {
        0 => Duration::ZERO,
        _ => SHORTEST.saturating_mul(1 << (beyond - 1).min(16)).min(LONGEST),
    }
}

struct Table {
    buckets: Box<[[Slot; BUCKET_SLOTS]]>,
}

/// `state` is the count in the upper 16 bits and, in milliseconds, the end of the delay in the lower 48.
#[derive(Default)]
struct Slot {
    key: AtomicU64,
    state: AtomicU64,
    users: AtomicU64,
}

#[derive(Clone, Copy)]
struct State {
    count: u32,
    until_ms: u64,
}

impl State {
    fn unpack(word: u64) -> State {
        State { count: (word >> TIME_BITS) as u32, until_ms: word & ((1 << TIME_BITS) - 1) }
    }

    fn pack(self) -> u64 {
        (u64::from(self.count.min(MOST)) << TIME_BITS) | (self.until_ms & ((1 << TIME_BITS) - 1))
    }

    fn forgotten(self, now_ms: u64) -> bool {
        self.until_ms.saturating_add(FORGET.as_millis() as u64) <= now_ms
    }

    fn left(self, now_ms: u64) -> Duration {
        Duration::from_millis(self.until_ms.saturating_sub(now_ms))
    }

    /// After one failure more, of which `free` cost nothing.
    fn after(self, free: u32, now_ms: u64) -> State {
        let count = if self.forgotten(now_ms) { 1 } else { (self.count + 1).min(MOST) };
        State::delayed(count, free, now_ms)
    }

    fn delayed(count: u32, free: u32, now_ms: u64) -> State {
        let delay = delay_after(count.saturating_sub(free));
        State { count, until_ms: now_ms + delay.as_millis() as u64 }
    }
}

fn millis(now: Instant) -> u64 {
    // Not 0, so that a state is never the empty word.
    (now.0 / 1_000).max(1)
}

impl Table {
    fn new(slots: usize) -> Table {
        let buckets = slots.div_ceil(BUCKET_SLOTS).max(1).next_power_of_two();
        Table { buckets: (0..buckets).map(|_| Default::default()).collect() }
    }

    fn slots(&self) -> usize {
        self.buckets.len() * BUCKET_SLOTS
    }

    fn bucket(&self, key: u64) -> &[Slot; BUCKET_SLOTS] {
        &self.buckets[(key >> 16) as usize & (self.buckets.len() - 1)]
    }

    fn find(&self, key: u64) -> Option<&Slot> {
        self.bucket(key).iter().find(|slot| slot.key.load(Ordering::Acquire) == key)
    }

    fn delay(&self, key: u64, now: Instant) -> Duration {
        self.find(key).map_or(Duration::ZERO, |slot| slot.state().left(millis(now)))
    }

    fn forget(&self, key: u64) {
        if let Some(slot) = self.find(key) {
            slot.state.store(0, Ordering::Release);
        }
    }

    fn failed(&self, key: u64, now: Instant) -> Duration {
        let now_ms = millis(now);
        match self.find(key) {
            Some(slot) => slot.change(|state| state.after(FREE, now_ms)).left(now_ms),
            None => {
                self.insert(key, 0, now_ms);
                Duration::ZERO
            }
        }
    }

    /// A failure at a source; `user` is the hash of the user's name.
    fn user_failed(&self, key: u64, user: u64, now: Instant) {
        let (now_ms, bit) = (millis(now), 1 << (user % 64));
        let Some(slot) = self.find(key) else { return self.insert(key, bit, now_ms) };
        if slot.state().forgotten(now_ms) {
            slot.users.store(bit, Ordering::Release);
            slot.change(|_| State::delayed(1, FREE_USERS, now_ms));
            return;
        }
        let before = slot.users.fetch_or(bit, Ordering::AcqRel);
        if before & bit == 0 || before.count_ones() >= CROWDED {
            slot.change(|state| state.after(FREE_USERS, now_ms));
        }
    }

    /// Takes a slot that is empty, forgotten, or has the fewest failures. A failure that finds none because another thread
    /// changes it at this instant is not counted.
    fn insert(&self, key: u64, users: u64, now_ms: u64) {
        let rank = |slot: &&Slot| {
            let state = slot.state();
            if state.forgotten(now_ms) { (0, 0) } else { (state.count, state.until_ms) }
        };
        let Some(slot) = self.bucket(key).iter().min_by_key(rank) else { return };
        let old = slot.key.load(Ordering::Acquire);
        if old == 1 || slot.key.compare_exchange(old, 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        slot.users.store(users, Ordering::Release);
        slot.state.store(State { count: 1, until_ms: now_ms }.pack(), Ordering::Release);
        slot.key.store(key, Ordering::Release);
    }
}

impl Slot {
    fn state(&self) -> State {
        State::unpack(self.state.load(Ordering::Acquire))
    }

    fn change(&self, change: impl Fn(State) -> State) -> State {
        let mut old = self.state.load(Ordering::Acquire);
        loop {
            let new = change(State::unpack(old));
            match self.state.compare_exchange_weak(old, new.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return new,
                Err(seen) => old = seen,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn throttle(slots: usize) -> Throttle {
        Throttle::new([7; 16], slots)
    }

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000)
    }

    fn as_user(user: &str) -> Attempt<'_> {
        Attempt { source: HERE, user }
    }

    /// Fails as often as it is judged, once a second; returns how often that was.
    fn guess(throttle: &Throttle, attempt: Attempt<'_>, seconds: u64) -> u32 {
        let mut judged = 0;
        for second in (0..seconds).map(at) {
            if throttle.pair_delay(attempt, second).is_zero() {
                throttle.failed(attempt, second);
                judged += 1;
            }
        }
        judged
    }

    #[test]
    fn the_first_failures_are_free_and_each_further_one_doubles_the_delay() {
        let throttle = throttle(64);
        let delays: Vec<u64> =
            (0..14).map(|n| throttle.failed(as_user("1001"), at(n * 300)).as_secs()).collect();
        assert_eq!(delays, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
    }

    #[test]
    fn an_attempt_within_the_delay_is_not_judged_and_does_not_prolong_it() {
        let throttle = throttle(64);
        for _ in 0..6 {
            throttle.failed(as_user("1001"), at(10));
        }
        for second in 10..14 {
            assert_eq!(throttle.pair_delay(as_user("1001"), at(second)), Duration::from_secs(14 - second));
        }
        assert_eq!(throttle.pair_delay(as_user("1001"), at(14)), Duration::ZERO);
    }

    #[test]
    fn a_day_of_guessing_at_full_speed_is_a_few_hundred_guesses() {
        let guesses = guess(&throttle(64), as_user("1001"), 86_400);
        assert!((300..400).contains(&guesses), "{guesses}");
    }

    #[test]
    fn another_user_and_another_source_are_never_delayed() {
        let throttle = throttle(64);
        guess(&throttle, as_user("1001"), 1_000);
        assert!(!throttle.pair_delay(as_user("1001"), at(0)).is_zero());
        assert!(throttle.pair_delay(as_user("1002"), at(0)).is_zero());
        let elsewhere = Attempt { source: "192.0.2.2".parse().unwrap(), user: "1001" };
        assert!(throttle.pair_delay(elsewhere, at(0)).is_zero());
        assert!(throttle.source_delay(HERE, at(0)).is_zero(), "one user, however often, is one user");
    }

    #[test]
    fn a_source_is_slowed_by_how_many_different_users_fail() {
        let throttle = throttle(64);
        let mut tried = 0;
        for second in (0..600).map(at) {
            if throttle.source_delay(HERE, second).is_zero() {
                throttle.failed(as_user(&format!("user {tried}")), second);
                tried += 1;
            }
        }
        assert!((FREE_USERS + 4..32).contains(&tried), "{tried}");
        assert!(throttle.source_delay("192.0.2.2".parse().unwrap(), at(0)).is_zero());
    }

    #[test]
    fn a_source_whose_bits_are_all_taken_stays_slow() {
        let throttle = throttle(64);
        for n in 0..2_000_u64 {
            throttle.failed(as_user(&n.to_string()), at(1));
        }
        let later = at(1 + LONGEST.as_secs());
        assert!(throttle.source_delay(HERE, later).is_zero());
        throttle.failed(as_user("one more"), later);
        assert_eq!(throttle.source_delay(HERE, later), LONGEST);
    }

    #[test]
    fn success_forgives_the_pair_and_not_the_source() {
        let throttle = throttle(64);
        for n in 0..40 {
            throttle.failed(as_user(&n.to_string()), at(1));
        }
        for _ in 0..9 {
            throttle.failed(as_user("0"), at(1));
        }
        throttle.succeeded(as_user("0"));
        assert!(throttle.pair_delay(as_user("0"), at(1)).is_zero());
        assert!(throttle.failed(as_user("0"), at(2)).is_zero(), "it begins anew");
        assert!(!throttle.source_delay(HERE, at(1)).is_zero());
    }

    #[test]
    fn failures_are_forgotten_in_time() {
        let throttle = throttle(64);
        for _ in 0..6 {
            throttle.failed(as_user("1001"), at(10));
        }
        assert!(throttle.failed(as_user("1001"), at(14 + FORGET.as_secs())).is_zero());
    }

    #[test]
    fn an_offender_is_not_forgotten_by_filling_the_table() {
        let throttle = throttle(64);
        for _ in 0..12 {
            throttle.failed(as_user("1001"), at(1));
        }
        for n in 0..100_000_u32 {
            let source = IpAddr::V4((0x0a00_0000 + n).into());
            throttle.failed(Attempt { source, user: "1001" }, at(1));
        }
        assert!(!throttle.pair_delay(as_user("1001"), at(2)).is_zero());
        let honest = Attempt { source: "203.0.113.9".parse().unwrap(), user: "1002" };
        assert!(throttle.pair_delay(honest, at(2)).is_zero(), "a full table delays nobody else");
        assert!(throttle.source_delay(honest.source, at(2)).is_zero());
    }

    #[test]
    fn the_hosts_of_one_ipv6_subscriber_are_one_source() {
        let throttle = throttle(64);
        for n in 0..8_u16 {
            let source = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 7, n, 0, 0, n));
            throttle.failed(Attempt { source, user: "1001" }, at(1));
        }
        let mine = |text: &str| Attempt { source: text.parse().unwrap(), user: "1001" };
        assert!(!throttle.pair_delay(mine("2001:db8:0:7::1"), at(1)).is_zero());
        assert!(throttle.pair_delay(mine("2001:db8:0:8::1"), at(1)).is_zero());
        throttle.failed(mine("::ffff:192.0.2.1"), at(1));
        assert_eq!(subscriber("::ffff:192.0.2.1".parse().unwrap()), HERE);
    }

    #[test]
    fn threads_that_fail_at_once_are_all_counted() {
        let throttle = throttle(64);
        throttle.failed(as_user("1001"), at(1));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..3 {
                        throttle.failed(as_user("1001"), at(1));
                    }
                });
            }
        });
        assert_eq!(throttle.pair_delay(as_user("1001"), at(1)), LONGEST, "13 failures");
    }
}
