//! Watches over the shards from a thread of its own: one that gives no sign of life is fenced, and another has its place.
//!
//! Any of a shard's actors that asks for the time gives such a sign, and each shard is poked twice a second, so that an idle one
//! gives it too. A shard with much to do is slow to take the poke and gets on nevertheless. What is held against a shard is only time in which this
//! thread woke when it should, and in which the shard's own thread was not kept waiting for a processor: a process that was stopped, a
//! machine that slept or has too much to do are no faults of a shard.
#![allow(clippy::disallowed_methods)]

use std::io;
use std::path::Path;
use std::time::Duration;

use actix::Arbiter;
use tokio::time::{Instant, MissedTickBehavior};

use super::root::Root;
use crate::engine::{Abandoned, Engine, WeakEngine};
use crate::metrics::ActorKind;
use crate::shard::LinkMessage;

/// How often it is looked.
const PACE: Duration = Duration::from_millis(500);
/// A look that comes later than this after its time says nothing of the shards.
const LATE: Duration = Duration::from_millis(250);
/// A shard that has given no sign of life at so many looks in a row is fenced: it was silent for 2 s.
const LOOKS: u32 = 4;
/// The same for one that starts, which has all its stations to look at.
const LOOKS_AT_START: u32 = 60;

/// How long a thread has run, and how long it has waited for a processor, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scheduled {
    ran: u64,
    waited: u64,
}

impl Scheduled {
    fn of(schedstat: &Path) -> Option<Scheduled> {
        let text = std::fs::read_to_string(schedstat).ok()?;
        let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().ok());
        Some(Scheduled { ran: numbers.next()??, waited: numbers.next()?? })
    }

    /// Whether the thread wanted to run since, and hardly could.
    fn was_starved_since(self, before: Scheduled) -> bool {
        let of = |time: Duration| time.as_nanos() as u64;
        let (ran, waited) = (self.ran.saturating_sub(before.ran), self.waited.saturating_sub(before.waited));
        waited > of(PACE) / 2 && ran < of(PACE) / 5
    }
}

/// What is known of one shard's life.
#[derive(Clone, Copy, Debug, Default)]
struct Pulse {
    beats: u64,
    silent: u32,
    scheduled: Option<Scheduled>,
}

impl Pulse {
    /// Looks. True if the shard has been silent for too long.
    fn look(
        &mut self,
        beats: u64,
        in_time: bool,
        looks: u32,
        scheduled: impl FnOnce() -> Option<Scheduled>,
    ) -> bool {
        if beats != self.beats {
            *self = Pulse { beats, ..Pulse::default() };
            return false;
        }
        // Asked only of a shard that is silent.
        let now = scheduled();
        let starved = now.zip(self.scheduled).is_some_and(|(now, before)| now.was_starved_since(before));
        self.scheduled = now;
        if in_time && !starved {
            self.silent += 1;
        }
        self.silent >= looks
    }
}

/// Watches until the engine is gone.
///
/// # Errors
/// There is no thread.
pub(super) fn start(root: Root, engine: &Engine) -> io::Result<()> {
    let engine = engine.downgrade();
    Arbiter::try_new()?.spawn(watch(root, engine));
    Ok(())
}

async fn watch(mut root: Root, engine: WeakEngine) {
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pulses = vec![Pulse::default(); root.chairs.len()];
    let mut abandoned = Abandoned::default();
    let mut last = Instant::now();
    loop {
        ticks.tick().await;
        let Some(engine) = engine.upgrade() else { return };
        let in_time = last.elapsed() < PACE + LATE;
        last = Instant::now();
        for (place, pulse) in pulses.iter_mut().enumerate() {
            if is_stuck(&root, place, pulse, in_time) && !abandoned.unreplaced {
                abandon(&mut root, place, &mut abandoned, &engine);
                *pulse = Pulse::default();
            }
            if let Some(chair) = root.chairs.get(place) {
                root.links.send(chair.shard, LinkMessage::Poke);
            }
        }
        root.shared.metrics.looks.increment(1);
    }
}

fn is_stuck(root: &Root, place: usize, pulse: &mut Pulse, in_time: bool) -> bool {
    let Some(chair) = root.chairs.get(place) else { return false };
    let looks = if chair.seat.has_begun() { LOOKS } else { LOOKS_AT_START };
    pulse.look(chair.seat.beats(), in_time, looks, || {
        chair.seat.schedstat().and_then(|path| Scheduled::of(path))
    })
}

/// Gives a thread up, and has another take its shard's place.
fn abandon(root: &mut Root, place: usize, abandoned: &mut Abandoned, engine: &Engine) {
    let Some(shard) = root.chairs.get(place).map(|chair| chair.shard) else { return };
    abandoned.threads += 1;
    let threads = abandoned.threads;
    tracing::error!(
        shard = shard.0,
        abandoned = threads,
        "a shard gives no sign of life: it is fenced and its thread abandoned; another takes over its calls. Please report it, with what \
         the log says before"
    );
    root.shared.metrics.restarted(ActorKind::Shard);
    root.shared.metrics.shards_abandoned.set(f64::from(threads));
    root.shared.census.restarted(ActorKind::Shard);
    if let Err(why) = root.replace(shard, engine) {
        tracing::error!(shard = shard.0, %why, "its place stays empty, so the process must end");
        abandoned.unreplaced = true;
    }
    engine.tell_abandoned(*abandoned);
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: Scheduled = Scheduled { ran: 0, waited: 0 };

    /// How many looks it takes to find a shard stuck that gives no sign of life.
    fn found_after(in_time: impl Fn(u32) -> bool, scheduled: impl Fn(u64) -> Scheduled) -> Option<u32> {
        let mut pulse = Pulse::default();
        assert!(!pulse.look(7, true, LOOKS, || None));
        (1..100).find(|look| pulse.look(7, in_time(*look), LOOKS, || Some(scheduled(u64::from(*look)))))
    }

    #[test]
    fn a_shard_that_is_silent_for_two_seconds_is_found() {
        assert_eq!(found_after(|_| true, |_| RUNS), Some(4));
        let busy = |look| Scheduled { ran: look * 500_000_000, waited: 0 };
        assert_eq!(found_after(|_| true, busy), Some(4), "one that turns round and round too");
    }

    #[test]
    fn a_shard_that_gets_on_is_never_found_however_slow_it_is() {
        let mut pulse = Pulse::default();
        let stuck = (1..100_u64).find(|look| pulse.look(look / 3, true, LOOKS, || Some(RUNS)));
        assert_eq!(stuck, None);
    }

    #[test]
    fn time_in_which_nobody_ran_is_not_counted() {
        assert_eq!(found_after(|look| look > 10, |_| RUNS), Some(14), "the process was stopped");
        assert_eq!(found_after(|_| false, |_| RUNS), None);
        let starved = |look: u64| Scheduled { ran: look.min(20), waited: look.min(20) * 400_000_000 };
        assert_eq!(found_after(|_| true, starved), Some(23), "others had the processors");
    }

    #[test]
    fn linux_tells_how_a_thread_was_scheduled() {
        let seat = crate::seat::Seat::default();
        seat.sit_down();
        // Some kernels count nothing and say 0.
        assert!(seat.schedstat().is_some_and(|path| Scheduled::of(path).is_some()));
    }
}
