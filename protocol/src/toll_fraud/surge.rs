//! A sudden rise of calls, or of the time they take, beside what is usual for whoever makes them.
//!
//! What is counted is the last hour, in twelve parts that move on every five minutes, so that a burst is seen at its first call too
//! many, wherever the hour of the clock begins. What is *usual* is learned once an hour: it follows a rise by an eighth of it an hour, and
//! forgets one with a half-life of a week, so that neither a night nor a weekend makes Monday morning suspicious. An hour that was
//! suspicious teaches no more than the limit that it broke: who steals must not teach us that stealing is usual.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// What the hour moves on by.
const PART: Duration = Duration::from_secs(300);
/// The parts of an hour.
const PARTS: usize = 12;
/// Which share of a rise becomes usual in an hour.
const RISE: f32 = 0.125;
/// Hours in which half of what was usual is forgotten.
const HALF_LIFE_H: f32 = 168.0;
/// So many parts are walked one by one after a time in which nothing was told; of what came before them nothing is left but time.
const WALKED: u64 = 4 * PARTS as u64;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Measure {
    /// New calls in an hour.
    Calls,
    /// Minutes of answered calls in an hour.
    Minutes,
    /// New international calls in an hour.
    InternationalCalls,
    /// Minutes of answered international calls in an hour.
    InternationalMinutes,
}

impl Measure {
    /// Every measure, in its order.
    pub const ALL: [Measure; 4] =
        [Measure::Calls, Measure::Minutes, Measure::InternationalCalls, Measure::InternationalMinutes];

    /// The name in metrics and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Measure::Calls => "calls",
            Measure::Minutes => "minutes",
            Measure::InternationalCalls => "international_calls",
            Measure::InternationalMinutes => "international_minutes",
        }
    }

    /// What it is, for people.
    pub fn words(self) -> &'static str {
        match self {
            Measure::Calls => "calls to the outside",
            Measure::Minutes => "minutes of calls to the outside",
            Measure::InternationalCalls => "international calls",
            Measure::InternationalMinutes => "minutes of international calls",
        }
    }

    /// Whether it counts international calls alone.
    pub fn is_international(self) -> bool {
        matches!(self, Measure::InternationalCalls | Measure::InternationalMinutes)
    }

    /// What one of it counts in: a call, or the seconds of a minute.
    fn unit(self) -> f32 {
        match self {
            Measure::Calls | Measure::InternationalCalls => 1.0,
            Measure::Minutes | Measure::InternationalMinutes => 60.0,
        }
    }
}

/// From when on a rise is sudden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// How many times what is usual.
    pub factor: u32,
    /// What is never too much in an hour, for each of [`Measure::ALL`]: calls, or minutes. 0: it is not looked at.
    pub least: [u32; 4],
}

impl Thresholds {
    /// True if nothing is looked at.
    pub fn is_off(&self) -> bool {
        self.least == [0; 4]
    }
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Of what.
    pub measure: Measure,
    /// True if there is suddenly more than `limit`, false if there no longer is.
    pub sudden: bool,
    /// How much there is in the last hour.
    pub count: u32,
    /// How much an hour usually has.
    pub usual: u32,
    /// More than this is too much.
    pub limit: u32,
}

/// What is usual, as it outlives the process: for each of [`Measure::ALL`], in calls or seconds an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Past(pub [f32; 4]);

impl Past {
    /// What is left of it after a time without calls.
    pub fn faded(self, time: Duration) -> Past {
        let hours = time.as_secs_f32() / 3600.0;
        Past(self.0.map(|usual| usual * 0.5f32.powf(hours / HALF_LIFE_H)))
    }
}

/// One measure: calls, or seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Series {
    parts: [f32; PARTS],
    usual: f32,
    sudden: bool,
}

impl Series {
    fn hour(&self) -> f32 {
        self.parts.iter().sum()
    }

    fn limit(&self, factor: u32, least: f32) -> f32 {
        (self.usual * factor as f32).max(least)
    }

    /// An hour has passed.
    fn learn(&mut self, factor: u32, least: f32) {
        let limit = if least > 0.0 { self.limit(factor, least) } else { f32::INFINITY };
        let hour = self.hour().min(limit);
        let share = if hour > self.usual { RISE } else { 1.0 - 0.5f32.powf(1.0 / HALF_LIFE_H) };
        self.usual += (hour - self.usual) * share;
    }
}

/// The outside calls of one station, or those by one trunk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Surge {
    /// Up to when answered calls have been counted.
    at: Instant,
    /// Answered calls, and the international ones among them.
    up: [u32; 2],
    series: [Series; 4],
}

impl Surge {
    /// One that has seen no calls yet, and has this past.
    pub fn new(past: Past, now: Instant) -> Surge {
        let series = past.0.map(|usual| Series { usual: usual.max(0.0), ..Series::default() });
        Surge { at: now, up: [0; 2], series }
    }

    /// A call begins.
    pub fn begin(&mut self, international: bool, now: Instant, limits: &Thresholds) -> Vec<Change> {
        self.advance(now, limits);
        let place = self.place();
        for (series, measure) in self.series.iter_mut().zip(Measure::ALL) {
            let counts = match measure {
                Measure::Calls => true,
                Measure::InternationalCalls => international,
                Measure::Minutes | Measure::InternationalMinutes => false,
            };
            if let Some(part) = series.parts.get_mut(place).filter(|_| counts) {
                *part += 1.0;
            }
        }
        self.judge(limits)
    }

    /// It is answered: from now on its time counts.
    pub fn answer(&mut self, international: bool, now: Instant, limits: &Thresholds) -> Vec<Change> {
        self.advance(now, limits);
        self.up[0] = self.up[0].saturating_add(1);
        self.up[1] = self.up[1].saturating_add(international.into());
        self.judge(limits)
    }

    /// An answered call is over.
    pub fn end(&mut self, international: bool, now: Instant, limits: &Thresholds) -> Vec<Change> {
        self.advance(now, limits);
        self.drop_call(international);
        self.judge(limits)
    }

    /// An answered call is over, and nobody knows since when: what it has cost since this was last told the time is not counted.
    pub fn drop_call(&mut self, international: bool) {
        self.up[0] = self.up[0].saturating_sub(1);
        self.up[1] = self.up[1].saturating_sub(international.into());
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, limits: &Thresholds) -> Vec<Change> {
        self.advance(now, limits);
        self.judge(limits)
    }

    /// Somebody has looked at it: what the last hour held counts no more; what is usual stays as it is.
    pub fn clear(&mut self, now: Instant, limits: &Thresholds) -> Vec<Change> {
        self.advance(now, limits);
        for series in &mut self.series {
            series.parts = [0.0; PARTS];
        }
        self.judge(limits)
    }

    /// What there is suddenly too much of.
    pub fn sudden(&self) -> impl Iterator<Item = Measure> + '_ {
        self.series.iter().zip(Measure::ALL).filter(|(series, _)| series.sudden).map(|(_, measure)| measure)
    }

    /// Answered calls now.
    pub fn calls_up(&self) -> u32 {
        self.up[0]
    }

    /// What is usual, to be kept.
    pub fn past(&self) -> Past {
        Past(self.series.map(|series| series.usual))
    }

    /// True if there is nothing in its hour and no call is up.
    pub fn is_quiet(&self) -> bool {
        self.up[0] == 0 && self.series.iter().all(|series| series.hour() == 0.0 && !series.sudden)
    }

    fn number(at: Instant) -> u64 {
        at.0 / PART.as_micros() as u64
    }

    fn place(&self) -> usize {
        (Surge::number(self.at) % PARTS as u64) as usize
    }

    /// Counts what answered calls have taken until now, part by part.
    fn advance(&mut self, now: Instant, limits: &Thresholds) {
        let behind = Surge::number(now).saturating_sub(Surge::number(self.at));
        if behind > WALKED {
            self.skip(behind - WALKED);
        }
        while self.at < now {
            let ends = Instant((Surge::number(self.at) + 1) * PART.as_micros() as u64);
            let until = ends.min(now);
            self.count(until.since(self.at));
            self.at = until;
            if until == ends {
                self.turn(limits);
            }
        }
    }

    /// Answered calls have gone on for so long, all within one part.
    fn count(&mut self, time: Duration) {
        let place = self.place();
        let [calls, international] = self.up.map(|calls| calls as f32 * time.as_secs_f32());
        for (series, measure) in self.series.iter_mut().zip(Measure::ALL) {
            let seconds = match measure {
                Measure::Minutes => calls,
                Measure::InternationalMinutes => international,
                Measure::Calls | Measure::InternationalCalls => continue,
            };
            if let Some(part) = series.parts.get_mut(place) {
                *part += seconds;
            }
        }
    }

    /// A part begins, in the place of that of an hour ago.
    fn turn(&mut self, limits: &Thresholds) {
        let place = self.place();
        for ((series, measure), least) in self.series.iter_mut().zip(Measure::ALL).zip(limits.least) {
            if place == 0 {
                series.learn(limits.factor, least as f32 * measure.unit());
            }
            if let Some(part) = series.parts.get_mut(place) {
                *part = 0.0;
            }
        }
    }

    /// So many parts have passed of which nothing was told: what is usual fades as if nobody had called.
    fn skip(&mut self, parts: u64) {
        let time = PART * parts.min(u64::from(u32::MAX)) as u32;
        let Past(faded) = self.past().faded(time);
        for (series, usual) in self.series.iter_mut().zip(faded) {
            *series = Series { usual, sudden: series.sudden, ..Series::default() };
        }
        self.at = self.at + time;
    }

    fn judge(&mut self, limits: &Thresholds) -> Vec<Change> {
        let mut changes = Vec::new();
        for ((series, measure), least) in self.series.iter_mut().zip(Measure::ALL).zip(limits.least) {
            let hour = series.hour();
            let limit = series.limit(limits.factor, least as f32 * measure.unit());
            let sudden = least > 0 && hour > limit;
            if sudden != series.sudden {
                series.sudden = sudden;
                let [count, usual, limit] = [hour, series.usual, limit].map(|n| (n / measure.unit()) as u32);
                changes.push(Change { measure, sudden, count, usual, limit });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Thresholds = Thresholds { factor: 4, least: [60, 180, 10, 60] };

    fn at(minutes: u64) -> Instant {
        Instant(minutes * 60_000_000)
    }

    fn surge() -> Surge {
        Surge::new(Past::default(), at(0))
    }

    /// Calls of `long` minutes, each answered at once, spread over the hour that begins at `hour`.
    fn hour_of(surge: &mut Surge, hour: u64, calls: u64, international: bool) -> Vec<Change> {
        let mut changes = Vec::new();
        for call in 0..calls {
            let now = Instant(at(hour * 60).0 + call * 3_600_000_000 / calls);
            changes.extend(surge.begin(international, now, &LIMITS));
        }
        changes
    }

    fn raised(changes: &[Change]) -> Vec<Measure> {
        changes.iter().filter(|change| change.sudden).map(|change| change.measure).collect()
    }

    #[test]
    fn the_first_call_too_many_of_a_burst_is_sudden_and_an_hour_later_it_is_over() {
        let mut surge = surge();
        for call in 0..10 {
            assert_eq!(surge.begin(true, at(57 + call), &LIMITS), [], "{call}");
        }
        let change =
            Change { measure: Measure::InternationalCalls, sudden: true, count: 11, usual: 0, limit: 10 };
        assert_eq!(surge.begin(true, at(67), &LIMITS), [change], "wherever the clock's hour begins");
        assert_eq!(surge.sudden().collect::<Vec<_>>(), [Measure::InternationalCalls]);
        assert_eq!(surge.begin(true, at(68), &LIMITS), [], "it is told once");
        assert_eq!(surge.tick(at(110), &LIMITS), []);
        let over = surge.tick(at(130), &LIMITS);
        assert_eq!(over.len(), 1, "{over:?}");
        assert!(!over[0].sudden && surge.sudden().next().is_none());
        surge.tick(at(200), &LIMITS);
        assert!(surge.is_quiet());
    }

    #[test]
    fn what_was_usual_for_weeks_is_not_sudden_on_a_monday_and_four_times_as_much_is() {
        let mut surge = surge();
        let day = |surge: &mut Surge, day: u64, calls: u64| {
            let mut changes = Vec::new();
            for hour in 8..18 {
                changes.extend(hour_of(surge, day * 24 + hour, calls, false));
            }
            changes
        };
        // The office opens with 40 calls an hour and grows to 100.
        for (number, calls) in [(0, 40), (1, 50), (2, 60), (3, 80), (4, 100), (7, 100), (8, 100), (9, 110)] {
            assert_eq!(day(&mut surge, number, calls), [], "day {number}");
        }
        // A holiday of ten days later.
        let changes = day(&mut surge, 19, 100);
        assert_eq!(changes, []);
        let changes = hour_of(&mut surge, 20 * 24 + 3, 600, false);
        assert_eq!(raised(&changes), [Measure::Calls], "at night, four times what is usual: {changes:?}");
        let change = changes[0];
        assert!(change.usual > 50 && change.limit > 200 && change.count > change.limit, "{change:?}");
    }

    #[test]
    fn a_call_that_never_ends_is_found_by_its_minutes_without_any_further_call() {
        let mut surge = surge();
        surge.begin(true, at(0), &LIMITS);
        assert_eq!(surge.answer(true, at(0), &LIMITS), []);
        assert_eq!(surge.begin(true, at(10), &LIMITS), []);
        assert_eq!(surge.answer(true, at(10), &LIMITS), []);
        assert_eq!(surge.tick(at(34), &LIMITS), [], "34 and 24 minutes");
        let changes = surge.tick(at(36), &LIMITS);
        assert_eq!(raised(&changes), [Measure::InternationalMinutes], "{changes:?}");
        assert_eq!((changes[0].count, changes[0].limit), (62, 60));
        surge.end(true, at(40), &LIMITS);
        surge.end(true, at(40), &LIMITS);
        let changes = surge.tick(at(120), &LIMITS);
        assert!(changes.len() == 1 && !changes[0].sudden, "{changes:?}");
        assert!(surge.is_quiet());
    }

    #[test]
    fn who_steals_does_not_teach_that_stealing_is_usual() {
        let mut surge = surge();
        let mut alarms = 0;
        for hour in 0..6 {
            alarms += raised(&hour_of(&mut surge, hour, 1_000, true)).len();
        }
        assert!(alarms >= 2, "calls and international calls: {alarms}");
        let Past([_, _, usual, _]) = surge.past();
        assert!(usual < 40.0, "six hours of 1000 calls: {usual}");
        assert_eq!(surge.sudden().count(), 2, "it is still sudden after six hours");
    }

    #[test]
    fn a_past_that_is_kept_spares_a_busy_trunk_an_alarm_after_a_restart() {
        let busy = Past([0.0, 0.0, 100.0, 0.0]);
        let mut surge = Surge::new(busy, at(0));
        assert_eq!(raised(&hour_of(&mut surge, 0, 300, true)), [Measure::Calls]);
        assert!((100.0..130.0).contains(&surge.past().0[2]), "{:?}", surge.past());
        assert_eq!(busy.faded(Duration::from_secs(7 * 86_400)).0[2].round(), 50.0);
        // A year of silence leaves next to nothing of it, and takes no time to walk.
        surge.tick(at(60 * 24 * 365), &LIMITS);
        assert!(surge.past().0[2] < 1.0 && surge.is_quiet(), "{:?}", surge.past());
    }

    #[test]
    fn what_is_not_looked_at_is_never_sudden() {
        let mut surge = surge();
        let limits = Thresholds { factor: 4, least: [0, 0, 5, 0] };
        assert!(Thresholds::default().is_off() && !limits.is_off());
        let mut changes = Vec::new();
        for call in 0..100 {
            changes.extend(surge.begin(call % 2 == 0, at(1), &limits));
        }
        assert_eq!(raised(&changes), [Measure::InternationalCalls]);
        let changes = surge.tick(at(2), &Thresholds::default());
        assert!(changes.len() == 1 && !changes[0].sudden, "switched off by a reload: {changes:?}");
    }

    #[test]
    fn a_call_whose_end_nobody_saw_counts_no_further() {
        let mut surge = surge();
        surge.answer(true, at(0), &LIMITS);
        surge.drop_call(true);
        surge.drop_call(true);
        assert_eq!(surge.tick(at(300), &LIMITS), []);
        assert!(surge.is_quiet());
    }

    #[test]
    fn what_has_been_looked_at_counts_no_more_and_a_new_burst_is_told_again() {
        let mut surge = surge();
        let usual = surge.past();
        assert_eq!(hour_of(&mut surge, 0, 11, true).len(), 1);
        let ended = surge.clear(at(60), &LIMITS);
        assert_eq!(
            ended.iter().map(|c| (c.measure, c.sudden, c.count)).collect::<Vec<_>>(),
            [(Measure::InternationalCalls, false, 0)]
        );
        assert!(surge.sudden().next().is_none() && surge.past().0[0] >= usual.0[0]);
        assert_eq!(surge.clear(at(60), &LIMITS), []);
        assert_eq!((0..11).map(|_| surge.begin(true, at(61), &LIMITS).len()).sum::<usize>(), 1);
    }
}
