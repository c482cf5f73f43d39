//! The stations of a shard that are registered: kept reachable in turn, and told when their bindings expire.
//!
//! A station that is registered and rests has eight bytes here. All are looked at once in a round, a part in each step, and only those
//! whose bindings end before they are looked at again have a time of their own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tandem_protocol::time::{Instant, Now, UnixMillis};

use super::Shard;
use crate::directory::{Standing, StationEntry};
use crate::env::{Leftover, Told};
use crate::station;

/// Stations are looked at in this many parts, so that keep-alives do not go out in one burst.
const PARTS: usize = 25;
/// A round without keep-alives.
const ROUND: Duration = Duration::from_secs(25);
/// A step may come so much later than it should.
const LATE: Duration = Duration::from_secs(5);

/// The stations that are registered.
#[derive(Default)]
pub(super) struct RegisteredStations {
    /// Each in the part that its name gives it. One that is registered no longer goes when its turn comes.
    parts: [Vec<Arc<Standing>>; PARTS],
    /// When bindings end that do so within a round or so. What was refreshed since has its time still.
    expiries: BTreeSet<(UnixMillis, Arc<str>)>,
    turn: usize,
    /// `None` while there is nobody to look at.
    next_step: Option<Instant>,
    keeps_alive: bool,
    round: Duration,
}

impl RegisteredStations {
    /// Begins a round. Keep-alives are sent each `keepalive`, unless that is zero.
    pub(super) fn begin(&mut self, keepalive: Duration, now: Instant) {
        self.keeps_alive = !keepalive.is_zero();
        self.round = if self.keeps_alive { keepalive } else { ROUND };
        self.next_step = self.is_anybody_listed().then(|| now + self.step());
    }

    fn is_anybody_listed(&self) -> bool {
        self.parts.iter().any(|part| !part.is_empty())
    }

    fn step(&self) -> Duration {
        self.round / PARTS as u32
    }

    /// A station of which nobody knows here yet.
    pub(super) fn forget(&mut self, station: &StationEntry) {
        station.standing().listed.store(false, Ordering::Relaxed);
    }

    /// A station's first binding ends at `first`, if it has bindings. True if there may be something to do earlier for it.
    pub(super) fn set(&mut self, station: &StationEntry, first: Option<UnixMillis>, now: Now) -> bool {
        let (standing, Some(first)) = (station.standing(), first) else { return false };
        let began = self.next_step.is_none();
        // Only this shard writes it.
        if !standing.listed.load(Ordering::Relaxed) {
            standing.listed.store(true, Ordering::Relaxed);
            self.parts[station::token(&standing.name) as usize % PARTS].push(standing.clone());
            let step = self.step();
            self.next_step.get_or_insert(now.mono + step);
        }
        self.expect(&standing.name, first, now.wall) || (began && self.next_step.is_some())
    }

    /// Notes the end of a binding if it comes before the station is looked at again.
    fn expect(&mut self, name: &Arc<str>, first: UnixMillis, now: UnixMillis) -> bool {
        let soon = now.0 + (self.round + LATE).as_millis() as u64;
        first.0 <= soon && self.expiries.insert((first, name.clone()))
    }

    /// When there is something to do.
    pub(super) fn deadline(&self, now: Now) -> Option<Instant> {
        let expiry = self.expiries.first();
        let expiry = expiry.map(|(at, _)| now.mono + Duration::from_millis(at.0.saturating_sub(now.wall.0)));
        self.next_step.into_iter().chain(expiry).min()
    }

    /// A station whose binding was to end by now.
    fn take_due(&mut self, now: UnixMillis) -> Option<Arc<str>> {
        let due = self.expiries.first().is_some_and(|(at, _)| *at <= now);
        due.then(|| self.expiries.pop_first()).flatten().map(|(_, name)| name)
    }

    /// Looks at the part whose turn it is, if its time has come: `keep_alive` is told each living binding's way.
    fn look(&mut self, now: Now, mut keep_alive: impl FnMut(tandem_protocol::flow::Flow)) {
        let Some(at) = self.next_step.filter(|at| *at <= now.mono) else { return };
        self.next_step = Some(at + self.step());
        self.turn = (self.turn + 1) % PARTS;
        let mut part = std::mem::take(&mut self.parts[self.turn]);
        part.retain(|standing| {
            let Some(kept) = standing.bindings() else {
                standing.listed.store(false, Ordering::Relaxed);
                return false;
            };
            if self.keeps_alive {
                let living = kept.iter().filter(|binding| binding.expires_at > now.wall);
                living.for_each(|binding| keep_alive(binding.source));
            }
            self.expect(&standing.name, kept.first_expiry(), now.wall);
            true
        });
        self.parts[self.turn] = part;
        if !self.is_anybody_listed() {
            self.next_step = None;
        }
    }
}

/// A station's bindings have changed.
pub(crate) struct BindingsChanged(pub(crate) Arc<StationEntry>);

impl Shard {
    pub(super) fn bindings_changed(&mut self, entry: &StationEntry) {
        let kept = entry.kept();
        self.flows.set(&entry.config.name, kept.as_deref());
        if self.registered.set(entry, kept.map(|kept| kept.first_expiry()), self.env.now()) {
            self.rearm();
        }
    }

    pub(super) fn expire_bindings(&mut self, ctx: &Context<Self>) {
        let now = self.env.now().wall;
        while let Some(name) = self.registered.take_due(now) {
            let kept = self.env.directory().station(&name).and_then(|station| station.kept());
            // It may have been refreshed.
            if kept.is_some_and(|kept| kept.first_expiry() <= now) {
                self.tell_station(&name, station::Expire, ctx);
            }
        }
    }

    /// Sends a CRLF to the bindings whose turn it is (RFC 5626 §4.4.1's form, to keep NAT bindings open).
    pub(super) fn keep_alive(&mut self) {
        let Shard { registered, env, .. } = self;
        registered.look(env.now(), |flow| {
            let _ = env.transmit(flow, Bytes::from_static(b"\r\n\r\n"), Leftover::Dropped);
        });
    }
}

impl Handler<Told<BindingsChanged>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<BindingsChanged>, _: &mut Context<Self>) {
        self.bindings_changed(&told.0.0);
    }
}
