//! The end of a group's actor by other settings: what they have no longer is unregistered, and the rest is left to whoever comes after.

use actix::prelude::*;
use tandem_protocol::registration::{GroupInput, State};

use super::kept::account;
use super::{GroupActor, Part};
use crate::env::Told;
use crate::generation::Generation;

/// What is left to do.
pub(super) struct Parting {
    /// The places of what is given up.
    leaves: Vec<usize>,
    /// Another actor has the group, and says what there is to say of it.
    pub(super) replaced: bool,
    /// It stays until its last REGISTER is answered, though nobody else has its address any more.
    _stay: Addr<GroupActor>,
}

impl GroupActor {
    /// Whether what a registration does is this actor's affair.
    pub(super) fn is_own(&self, place: usize) -> bool {
        self.parting.as_ref().is_none_or(|parting| parting.leaves.contains(&place))
    }

    /// True once all that was to be given up has been.
    pub(super) fn has_parted(&self) -> bool {
        let Some(parting) = &self.parting else { return false };
        let mut all = self.shell.machine().registrations().enumerate();
        all.all(|(place, registration)| {
            !parting.leaves.contains(&place) || registration.state() == State::Idle
        })
    }

    /// The registrations that `next` has no longer, or by another listener: the binding names that.
    fn given_up(&self, next: &Generation) -> Vec<usize> {
        let Some(group) = next.registration_group(&self.entry.config.name) else {
            return (0..self.lines.len()).collect();
        };
        let stays = |place: &usize| {
            let Some(own) = self.entry.config.registrations.get(*place) else { return true };
            let by = self.env.config().listener_id(own.listener);
            group
                .registrations
                .iter()
                .any(|other| account(other) == account(own) && next.config.listener_id(other.listener) == by)
        };
        (0..self.lines.len()).filter(|place| !stays(place)).collect()
    }
}

impl Handler<Told<Part>> for GroupActor {
    type Result = ();
    fn handle(&mut self, told: Told<Part>, ctx: &mut Context<Self>) {
        let next = told.0.next;
        let leaves = match &next {
            Some(next) => self.given_up(next),
            None => (0..self.lines.len()).collect(),
        };
        self.parting = Some(Parting { leaves, replaced: next.is_some(), _stay: ctx.address() });
        self.feed(GroupInput::Stop, ctx);
    }
}
