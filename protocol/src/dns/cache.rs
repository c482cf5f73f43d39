//! Answers, and how long each is good: RFC 1035 §3.2.1, RFC 2308 for what is not there, RFC 8767 for what outlives its time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Answer, Because, Query, Trouble};
use crate::time::Instant;

/// How long an absence holds that came without an SOA, which RFC 2308 §5 would not keep at all: else each call for it would be
/// asked of servers that are set up badly.
const NO_SOA: Duration = Duration::from_secs(30);

/// What the settings say of the life of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// No answer is asked for again sooner.
    pub min_ttl: Duration,
    /// Every answer is asked for again after this.
    pub max_ttl: Duration,
    /// So is every absence (RFC 2308 §5: one to three hours).
    pub max_negative_ttl: Duration,
    /// How long an answer is used beyond its time to live while no server answers (RFC 8767: one to three days).
    pub max_stale: Duration,
    /// The wait after the first failure; it doubles with each.
    pub min_retry: Duration,
    /// The longest such wait (RFC 8767 §5: 30 s).
    pub max_retry: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(3600),
            max_negative_ttl: Duration::from_secs(3600),
            max_stale: Duration::from_secs(86_400),
            min_retry: Duration::from_secs(1),
            max_retry: Duration::from_secs(30),
        }
    }
}

/// What is known of one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// What was said last; `None`: nothing was yet.
    answer: Option<Answer>,
    /// When it came.
    at: Instant,
    /// When its own time ends.
    fresh_until: Instant,
    /// When it is asked again: then, or later while nobody answers.
    good_until: Instant,
    /// What the servers that do not answer do instead, and how often they did.
    failure: Option<(String, u32)>,
    /// The question is on its way.
    asked: bool,
}

/// The answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cache {
    bounds: Bounds,
    entries: BTreeMap<Query, Entry>,
}

impl Cache {
    pub(super) fn new(bounds: Bounds) -> Cache {
        Cache { bounds, entries: BTreeMap::new() }
    }

    /// The answer, if it is good, or has come since `begun`: a walk may take longer than an answer lives, and must end.
    pub(super) fn get(&self, query: &Query, begun: Instant, now: Instant) -> Option<&Answer> {
        let entry = self.entries.get(query)?;
        let good = !entry.asked && (entry.good_until > now || entry.at >= begun);
        entry.answer.as_ref().filter(|_| good)
    }

    /// Notes that an answer is wanted; true if it must be asked for, false if it is on its way.
    pub(super) fn ask(&mut self, query: &Query, now: Instant) -> bool {
        let entry = self.entries.entry(query.clone()).or_insert(Entry {
            answer: None,
            at: now,
            fresh_until: now,
            good_until: now,
            failure: None,
            asked: false,
        });
        !std::mem::replace(&mut entry.asked, true)
    }

    /// Keeps what was said. What nobody asked for is dropped.
    pub(super) fn keep(&mut self, query: &Query, answer: &Answer, now: Instant) {
        let bounds = self.bounds;
        let Some(entry) = self.entries.get_mut(query).filter(|entry| entry.asked) else { return };
        entry.asked = false;
        entry.at = now;
        let ttl = match answer {
            Answer::Records { ttl, .. } => (*ttl).min(bounds.max_ttl),
            Answer::Absent { ttl, .. } => ttl.unwrap_or(NO_SOA).min(bounds.max_negative_ttl),
            Answer::Failed { why } => return entry.fail(why, &bounds, now),
        };
        entry.answer = Some(answer.clone());
        entry.failure = None;
        entry.fresh_until = now + ttl.max(bounds.min_ttl);
        entry.good_until = entry.fresh_until;
    }

    /// When the first of these answers is asked for again.
    pub(super) fn good_until(&self, queries: &[Query]) -> Option<Instant> {
        queries.iter().filter_map(|query| self.entries.get(query)).map(|entry| entry.good_until).min()
    }

    /// Which of these answers lives beyond its time, and why.
    pub(super) fn stale(&self, queries: &[Query]) -> Option<Because> {
        queries.iter().find_map(|query| {
            let entry = self.entries.get(query)?;
            let (why, _) = entry.failure.as_ref()?;
            let has_answer = !matches!(entry.answer, None | Some(Answer::Failed { .. }));
            has_answer.then(|| Because { trouble: Trouble::Stale, query: query.clone(), why: why.clone() })
        })
    }

    /// Nothing is on its way any more.
    pub(super) fn nothing_asked(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.asked = false);
    }

    /// Forgets what is neither wanted nor on its way.
    pub(super) fn retain(&mut self, wanted: &BTreeSet<&Query>) {
        self.entries.retain(|query, entry| entry.asked || wanted.contains(query));
    }

    /// How many answers there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Entry {
    /// Nobody could say: the last answer is used for so much longer, and the next attempt waits.
    fn fail(&mut self, why: &str, bounds: &Bounds, now: Instant) {
        let count = self.failure.as_ref().map_or(0, |(_, count)| *count);
        self.failure = Some((why.to_owned(), count.saturating_add(1)));
        let wait = bounds.min_retry * 2u32.saturating_pow(count.min(16));
        self.good_until = now + wait.min(bounds.max_retry).max(bounds.min_ttl);
        let known = !matches!(self.answer, None | Some(Answer::Failed { .. }));
        if !known || now.since(self.fresh_until) >= bounds.max_stale {
            self.answer = Some(Answer::Failed { why: why.to_owned() });
        }
    }
}
