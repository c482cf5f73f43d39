//! Whom a call to the outside is counted for, from its INVITE to its end.

use std::sync::Arc;

use smallvec::SmallVec;
use tandem_protocol::time::Now;

use super::{CallActor, Outbound};
use crate::calls::{Caller, Outside};
use crate::directory::{Step, Toll, TrunkEntry, Watched, Who};
use crate::env::Tell;
use crate::seat::{Hold, Loan};
use crate::shard::Watch;
use crate::toll_fraud::{limits, tell};

/// For whom a call is counted: whoever dialled it, or forwarded it there, and the trunk it leaves by.
#[derive(Default)]
pub(super) struct Charged {
    payer: Option<Arc<Watched>>,
    trunk: Option<Arc<Watched>>,
    international: bool,
    /// While it is answered. Should its actor or its shard fail, nobody says that it is over.
    answered: SmallVec<[Hold; 2]>,
}

impl Charged {
    fn each(&self) -> SmallVec<[Arc<Watched>; 2]> {
        self.payer.iter().chain(&self.trunk).cloned().collect()
    }
}

impl CallActor {
    /// The call leaves by a trunk.
    pub(super) fn charge(&mut self, outbound: &Outbound, trunk: &Arc<TrunkEntry>, now: Now) {
        let Some(Outside { payer, international }) = &outbound.outside else { return };
        self.charged.international = *international;
        if self.charged.payer.is_none() {
            self.charged.payer = payer.as_ref().and_then(|payer| match payer {
                Caller::Station(station) => {
                    self.watch(station.toll(), || Who::Station(station.config.name.clone()), now)
                }
                Caller::Trunk(trunk) => {
                    self.watch(&trunk.toll, || Who::Trunk(trunk.config.name.clone()), now)
                }
            });
            self.count(self.charged.payer.clone(), Step::Begun, now);
        }
        let by = self.watch(&trunk.toll, || Who::Trunk(trunk.config.name.clone()), now);
        let same = by.as_ref().zip(self.charged.payer.as_ref()).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
        self.charged.trunk = by.filter(|_| !same);
        self.count(self.charged.trunk.clone(), Step::Begun, now);
    }

    /// `None` if nothing of it is looked at.
    fn watch(&self, toll: &Toll, who: impl FnOnce() -> Who, now: Now) -> Option<Arc<Watched>> {
        let who = who();
        if limits(&self.env, &who).is_off() {
            return None;
        }
        let (watched, first) = toll.watch(|| who, now.mono);
        if first {
            watched.live_on(self.env.shard());
            self.shard.tell(Watch(watched.clone()));
        }
        Some(watched.clone())
    }

    fn count(&mut self, watched: Option<Arc<Watched>>, step: Step, now: Now) {
        let Some(watched) = watched else { return };
        let limits = limits(&self.env, &watched.who);
        let changes = watched.count(step, self.charged.international, now.mono, limits);
        if !changes.is_empty() {
            let events = tell(&self.env, &watched.who, &changes, now);
            self.events.extend(events.into_iter().map(|event| event.of(&self.id)));
        }
    }

    /// The call is answered.
    pub(super) fn charge_answered(&mut self, now: Now) {
        for watched in self.charged.each() {
            self.count(Some(watched.clone()), Step::Answered, now);
            let loan = Loan::Outside(watched, self.charged.international);
            self.charged.answered.push(self.env.seat().lend(loan));
        }
    }

    /// The call is over.
    pub(super) fn charge_ended(&mut self, now: Now) {
        let answered = std::mem::take(&mut self.charged.answered);
        for (watched, hold) in self.charged.each().into_iter().zip(answered) {
            if hold.settle() {
                self.count(Some(watched), Step::Ended, now);
            }
        }
        self.charged = Charged::default();
    }

    /// Somebody else has forwarded the call: whatever comes of that is counted for him.
    pub(super) fn charge_anew(&mut self) {
        self.charged = Charged::default();
    }
}
