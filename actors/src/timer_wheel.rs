//! One hashed timer wheel a shard: arming is a push, re-arming later is a store, cancelling is a store.
//!
//! A timer per entity inside the actor runtime costs a scan of all of them on every message; here ten thousand armed
//! timers cost nothing until they are due. Deadlines are kept to [`TICK`]; a timer never fires early.

use std::time::Duration;

use tandem_protocol::time::Instant;

/// The precision of the wheel.
pub const TICK: Duration = Duration::from_millis(5);
/// A sweep that comes so late finds a shard that stood still.
const STOOD_STILL: Duration = Duration::from_millis(100);
const SLOTS: usize = 8192;
/// Room for more entries is given back once its slot is swept.
const MOST_SPARE: usize = 64;
const TICK_US: u64 = TICK.as_micros() as u64;

/// Names a timer in its wheel; stays valid until [`TimerWheel::remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

/// Stands for no deadline and for no tick: a call has some ten timers, so that they are kept small.
const NONE: u64 = u64::MAX;

#[derive(Debug)]
struct Timer<K> {
    key: Option<K>,
    generation: u32,
    /// When it shall fire; [`NONE`] while disarmed.
    deadline: u64,
    /// The tick whose slot holds its live entry; [`NONE`] if none does.
    queued: u64,
}

/// A wheel of timers, each with a key that says whose it is.
#[derive(Debug)]
pub struct TimerWheel<K> {
    timers: Vec<Timer<K>>,
    free: Vec<u32>,
    /// Timers, each with the low bits of its tick: an entry of another tick is not its live one.
    slots: Vec<Vec<(u32, u32)>>,
    occupied: Vec<u64>,
    /// The room of a slot that was swept, for the next one that is used.
    spare: Vec<(u32, u32)>,
    /// The first tick not yet swept.
    next_tick: u64,
    armed: usize,
    /// The last sweep was put off.
    was_put_off: bool,
}

impl<K: Clone> TimerWheel<K> {
    /// An empty wheel that begins at `now`.
    pub fn new(now: Instant) -> TimerWheel<K> {
        TimerWheel {
            timers: Vec::new(),
            free: Vec::new(),
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: vec![0; SLOTS / 64],
            spare: Vec::new(),
            next_tick: now.0 / TICK_US,
            armed: 0,
            was_put_off: false,
        }
    }

    /// A new, disarmed timer of `key`.
    pub fn insert(&mut self, key: K) -> TimerId {
        if let Some(index) = self.free.pop() {
            let timer = &mut self.timers[index as usize];
            timer.key = Some(key);
            return TimerId { index, generation: timer.generation };
        }
        self.timers.push(Timer { key: Some(key), generation: 0, deadline: NONE, queued: NONE });
        TimerId { index: (self.timers.len() - 1) as u32, generation: 0 }
    }

    fn live(&mut self, id: TimerId) -> Option<&mut Timer<K>> {
        self.timers.get_mut(id.index as usize).filter(|t| t.generation == id.generation && t.key.is_some())
    }

    /// Arms, re-arms or (with `None`) disarms a timer. A removed timer is left alone. Returns for when the wheel was to be swept for
    /// it, if that is earlier than is needed now.
    pub fn arm(&mut self, id: TimerId, deadline: Option<Instant>) -> Option<Instant> {
        let first = self.next_tick;
        let timer = self.live(id)?;
        let was = timer.deadline != NONE;
        timer.deadline = deadline.map_or(NONE, |at| at.0);
        let mut push = None;
        let tick = deadline.map_or(NONE, |at| at.0.div_ceil(TICK_US).max(first));
        // Nothing is later than no tick.
        if tick < timer.queued {
            timer.queued = tick;
            push = Some(tick);
        }
        let too_early = (timer.queued < tick).then(|| Instant(timer.queued * TICK_US));
        match (was, deadline.is_some()) {
            (false, true) => self.armed += 1,
            (true, false) => self.armed -= 1,
            _ => {}
        }
        if let Some(tick) = push {
            self.push(id.index, tick);
        }
        too_early
    }

    /// Forgets a timer.
    pub fn remove(&mut self, id: TimerId) {
        let Some(timer) = self.live(id) else { return };
        let was = std::mem::replace(&mut timer.deadline, NONE) != NONE;
        timer.key = None;
        timer.queued = NONE;
        timer.generation = timer.generation.wrapping_add(1);
        self.free.push(id.index);
        self.armed -= usize::from(was);
    }

    fn push(&mut self, index: u32, tick: u64) {
        let slot = (tick % SLOTS as u64) as usize;
        let entries = &mut self.slots[slot];
        if entries.capacity() == 0 {
            std::mem::swap(entries, &mut self.spare);
        }
        entries.push((index, tick as u32));
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// How many timers are armed.
    pub fn armed(&self) -> usize {
        self.armed
    }

    /// How many timers exist, armed or not.
    pub fn len(&self) -> usize {
        self.timers.len() - self.free.len()
    }

    /// True if no timer exists.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the wheel next wants to be swept: when the earliest deadline is, or once a turn of the wheel before it.
    pub fn next_wake(&mut self) -> Option<Instant> {
        if self.armed == 0 {
            return None;
        }
        let mut next = self.next_tick;
        loop {
            let tick = self.occupied_from(next)?;
            if self.is_due_in(tick) || tick >= self.next_tick + SLOTS as u64 {
                return Some(Instant(tick * TICK_US));
            }
            self.tidy(tick);
            next = tick + 1;
        }
    }

    /// True if a timer is due in the tick's slot, in whatever turn.
    fn is_due_in(&self, tick: u64) -> bool {
        self.slots[(tick % SLOTS as u64) as usize].iter().any(|(index, entry)| {
            let timer = &self.timers[*index as usize];
            timer.queued != NONE
                && timer.queued as u32 == *entry
                && timer.deadline != NONE
                && timer.deadline.div_ceil(TICK_US) <= timer.queued
        })
    }

    /// Drops what a slot has of timers that are armed no more, and moves to its place what is due later.
    fn tidy(&mut self, tick: u64) {
        let slot = (tick % SLOTS as u64) as usize;
        let entries = std::mem::take(&mut self.slots[slot]);
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        for (index, entry) in entries {
            let timer = &mut self.timers[index as usize];
            if timer.queued == NONE || timer.queued as u32 != entry {
                continue;
            }
            timer.queued = if timer.deadline == NONE { NONE } else { timer.deadline.div_ceil(TICK_US) };
            if timer.queued != NONE {
                let due = timer.queued;
                self.push(index, due);
            }
        }
    }

    /// The first tick at or after this one, of the next [`SLOTS`], whose slot holds an entry.
    fn occupied_from(&self, tick: u64) -> Option<u64> {
        let start = (tick % SLOTS as u64) as usize;
        let words = self.occupied.len();
        for step in 0..=words {
            let word = (start / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == words {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                return Some(tick + ((slot + SLOTS - start) % SLOTS) as u64);
            }
        }
        None
    }

    /// When to sweep instead of `now`, if the shard has stood still meanwhile, and for how long it has: what has come in that time is to be
    /// taken before what became due in it, or an answer would be missed that was there in time. A sweep is put off once, by a [`TICK`].
    pub fn put_off(&mut self, now: Instant) -> Option<(Instant, Duration)> {
        let late = self.next_wake().map_or(Duration::ZERO, |wanted| now.since(wanted));
        self.was_put_off = late >= STOOD_STILL && !self.was_put_off;
        self.was_put_off.then(|| (now + TICK, late))
    }

    /// Takes the keys of all timers due at `now`, in the order of their ticks, and disarms them.
    pub fn sweep(&mut self, now: Instant, due: &mut Vec<K>) {
        let last = now.0 / TICK_US;
        if last < self.next_tick {
            return;
        }
        let ticks = (last - self.next_tick + 1).min(SLOTS as u64);
        let first = self.next_tick;
        self.next_tick = last + 1;
        let mut next = first;
        while let Some(tick) = self.occupied_from(next).filter(|tick| *tick < first + ticks) {
            next = tick + 1;
            let slot = (tick % SLOTS as u64) as usize;
            let mut entries = std::mem::take(&mut self.slots[slot]);
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            for (index, entry) in entries.drain(..) {
                self.visit(index, entry, last, due);
            }
            if self.spare.capacity() == 0 && entries.capacity() <= MOST_SPARE {
                self.spare = entries;
            }
        }
    }

    fn visit(&mut self, index: u32, entry: u32, last: u64, due: &mut Vec<K>) {
        let timer = &mut self.timers[index as usize];
        let queued = timer.queued;
        if queued == NONE || queued as u32 != entry {
            return;
        }
        if queued > last {
            self.push(index, queued);
            return;
        }
        timer.queued = NONE;
        if timer.deadline == NONE {
            return;
        }
        let tick = timer.deadline.div_ceil(TICK_US);
        if tick > last {
            timer.queued = tick;
            self.push(index, tick);
            return;
        }
        timer.deadline = NONE;
        self.armed -= 1;
        due.extend(timer.key.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    fn due(wheel: &mut TimerWheel<u32>, ms: u64) -> Vec<u32> {
        let mut out = Vec::new();
        wheel.sweep(at(ms), &mut out);
        out
    }

    #[test]
    fn fires_once_and_never_early() {
        let mut wheel = TimerWheel::new(at(0));
        let id = wheel.insert(7);
        wheel.arm(id, Some(at(101)));
        assert!(due(&mut wheel, 100).is_empty());
        assert_eq!(due(&mut wheel, 105), vec![7]);
        assert!(due(&mut wheel, 500).is_empty());
        assert_eq!(wheel.armed(), 0);
    }

    #[test]
    fn the_last_arming_counts() {
        let mut wheel = TimerWheel::new(at(0));
        let id = wheel.insert(1);
        wheel.arm(id, Some(at(50)));
        wheel.arm(id, Some(at(900)));
        assert!(due(&mut wheel, 500).is_empty());
        wheel.arm(id, Some(at(600)));
        assert_eq!(due(&mut wheel, 600), vec![1]);
        wheel.arm(id, Some(at(700)));
        wheel.arm(id, None);
        assert!(due(&mut wheel, 5000).is_empty());
    }

    #[test]
    fn a_deadline_beyond_one_turn_waits_for_its_turn() {
        let mut wheel = TimerWheel::new(at(0));
        let id = wheel.insert(1);
        wheel.arm(id, Some(at(3_600_000)));
        let mut t = 0;
        while let Some(wake) = wheel.next_wake() {
            assert!(wake.0 <= at(3_600_000).0 && wake.0 / 1000 >= t, "woken at {wake:?} after {t}");
            t = wake.0 / 1000;
            if !due(&mut wheel, t).is_empty() {
                assert_eq!(t, 3_600_000);
                return;
            }
        }
        panic!("never fired");
    }

    #[test]
    fn a_removed_timers_place_is_used_again_and_its_old_name_is_dead() {
        let mut wheel = TimerWheel::new(at(0));
        let old = wheel.insert(1);
        wheel.arm(old, Some(at(10)));
        wheel.remove(old);
        let new = wheel.insert(2);
        wheel.arm(old, Some(at(10)));
        assert!(due(&mut wheel, 20).is_empty());
        wheel.arm(new, Some(at(30)));
        assert_eq!(due(&mut wheel, 30), vec![2]);
        wheel.remove(new);
        assert!(wheel.is_empty());
    }

    #[test]
    fn nobody_is_woken_for_a_timer_that_was_disarmed_or_is_due_later() {
        let mut wheel = TimerWheel::new(at(0));
        let (first, second) = (wheel.insert(1), wheel.insert(2));
        assert_eq!(wheel.arm(first, Some(at(500))), None);
        assert_eq!(wheel.arm(second, Some(at(700))), None);
        assert_eq!(wheel.next_wake(), Some(at(500)));
        assert_eq!(wheel.arm(first, Some(at(5_000))), Some(at(500)), "nothing is to be done then");
        assert_eq!(wheel.next_wake(), Some(at(700)));
        assert_eq!(wheel.arm(second, None), Some(at(700)));
        assert_eq!(wheel.next_wake(), Some(at(5_000)));
        assert_eq!(wheel.arm(first, Some(at(600))), None, "earlier again");
        assert_eq!(wheel.next_wake(), Some(at(600)));
        assert!(due(&mut wheel, 595).is_empty());
        assert_eq!(due(&mut wheel, 600), vec![1]);
        assert_eq!(wheel.next_wake(), None);
    }

    #[test]
    fn a_late_sweep_is_put_off_once_for_what_came_meanwhile() {
        let mut wheel = TimerWheel::new(at(0));
        let id = wheel.insert(1);
        wheel.arm(id, Some(at(50)));
        assert_eq!(wheel.put_off(at(149)), None);
        assert_eq!(wheel.put_off(at(150)), Some((at(155), Duration::from_millis(100))));
        assert_eq!(wheel.put_off(at(155)), None);
        assert_eq!(due(&mut wheel, 155), vec![1]);
        assert_eq!(wheel.put_off(at(900)), None, "nothing is due");
        wheel.arm(id, Some(at(1_000)));
        assert_eq!(wheel.put_off(at(1_200)), Some((at(1_205), Duration::from_millis(200))), "another");
    }

    #[test]
    fn a_long_jump_finds_everything_that_came_due() {
        let mut wheel = TimerWheel::new(at(0));
        for n in 0..1000u32 {
            let id = wheel.insert(n);
            wheel.arm(id, Some(at(u64::from(n) * 100)));
        }
        let mut got = due(&mut wheel, 1_000_000);
        got.sort_unstable();
        assert_eq!(got, (0..1000).collect::<Vec<_>>());
    }
}
