//! The stations and trunks whose calls to the outside are watched: what their hour holds changes with time alone.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tandem_protocol::time::Instant;
use tandem_protocol::toll_fraud::Past;

use super::Shard;
use crate::directory::{Watched, Who};
use crate::env::Told;
use crate::store::{Batch, Urgency};
use crate::toll_fraud::{forget, keep, limits, tell};

/// Each is looked at once in so many steps of [`STEP`].
const STEPS: usize = 60;
const STEP: Duration = Duration::from_secs(1);

/// One has had its first call to the outside.
pub(crate) struct Watch(pub(crate) Arc<Watched>);

/// Those whose first such call was here.
#[derive(Default)]
pub(super) struct TollWatch {
    list: Vec<(Arc<Watched>, Past)>,
    turn: usize,
    pub(super) next: Option<Instant>,
}

impl Shard {
    /// Looks at those whose turn it is.
    pub(super) fn watch_tolls(&mut self) {
        let now = self.env.now();
        let Some(_) = self.tolls.next.filter(|at| *at <= now.mono) else { return };
        self.tolls.next = Some(now.mono + STEP);
        self.tolls.turn = (self.tolls.turn + 1) % STEPS;
        let mut batch = Batch::new(Urgency::Lazy);
        for (watched, kept) in self.tolls.list.iter_mut().skip(self.tolls.turn).step_by(STEPS) {
            let changes = watched.tick(now.mono, limits(&self.env, &watched.who));
            batch.events.extend(tell(&self.env, &watched.who, &changes, now));
            let past = watched.past();
            if past != *kept {
                // Once an hour: more often nothing is learned.
                *kept = past;
                batch.writes.extend(keep(&watched.who, past, now));
            }
        }
        if !batch.events.is_empty() || !batch.writes.is_empty() {
            self.env.submit(batch);
        }
        if self.tolls.turn == 0 {
            self.forget_tolls();
        }
    }

    /// Takes over those that the shard before has looked at, as far as they are configured.
    pub(super) fn take_over_tolls(&mut self) {
        let directory = self.env.directory();
        let stations = directory.stations().filter_map(|station| station.watched());
        let watched = stations.chain(directory.trunks().filter_map(|trunk| trunk.toll.watched()));
        let here: Vec<_> = watched.filter(|watched| watched.home() == self.env.shard()).cloned().collect();
        for watched in here {
            self.look_after(watched);
        }
    }

    fn look_after(&mut self, watched: Arc<Watched>) {
        let past = watched.past();
        self.tolls.list.push((watched, past));
        if self.tolls.next.is_none() {
            self.tolls.next = Some(self.env.now().mono + STEP);
            self.rearm();
        }
    }

    /// Whom no settings and no call know any more is held here alone.
    fn forget_tolls(&mut self) {
        let env = self.env.clone();
        self.tolls.list.retain(|(watched, _)| {
            let known = Arc::strong_count(watched) > 1;
            if !known {
                forget(&env, watched);
            }
            known
        });
        if self.tolls.list.is_empty() {
            self.tolls.next = None;
        }
    }
}

impl Shard {
    /// An operator has looked at the calls of this one. Of what there was suddenly too much; `None`: nobody is called that.
    pub(super) fn clear_toll_alarms(&self, who: &Who) -> Option<Vec<&'static str>> {
        let directory = self.env.directory();
        let watched = match who {
            Who::Station(name) => directory.station(name)?.watched().cloned(),
            Who::Trunk(name) => directory.trunk(name)?.toll.watched().cloned(),
        };
        let now = self.env.now();
        let Some(watched) = watched else { return Some(Vec::new()) };
        let changes = watched.clear(now.mono, limits(&self.env, who));
        let mut batch = Batch::new(Urgency::Lazy);
        batch.events.extend(tell(&self.env, who, &changes, now));
        if !batch.events.is_empty() {
            self.env.submit(batch);
        }
        Some(changes.iter().filter(|change| !change.sudden).map(|change| change.measure.as_str()).collect())
    }
}

impl Handler<Told<Watch>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<Watch>, _: &mut Context<Self>) {
        self.look_after(told.0.0);
    }
}
