//! A REGISTER to a server with several addresses, over a stream: it goes by the first connection that comes about (RFC 8305).

use std::net::SocketAddr;

use actix::prelude::*;
use tandem_protocol::registration::{GroupInput, Request};

use super::GroupActor;
use crate::env::{Raced, Told, Waiter};

/// REGISTERs that wait for a connection, at the places of their registrations.
#[derive(Default)]
pub(super) struct Racing(Vec<(usize, Request)>);

impl Racing {
    fn take(&mut self, place: usize, cseq: u32) -> Option<Request> {
        let at = self.0.iter().position(|(p, request)| *p == place && request.cseq == cseq)?;
        Some(self.0.swap_remove(at).1)
    }
}

impl GroupActor {
    /// Sends a REGISTER, once it is known to which address of its server.
    pub(super) fn register(&mut self, place: usize, request: &Request, ctx: &mut Context<Self>) {
        // Whatever waited before is of no interest any more.
        self.racing.0.retain(|(waits, _)| *waits != place);
        let Some(config) = self.entry.config.registrations.get(place) else { return };
        let listener = self.env.config().listener_id(config.listener);
        let untried: Vec<SocketAddr> = match self.shell.machine().registrations().nth(place) {
            Some(registration) if listener.transport().is_reliable() => registration.untried().collect(),
            Some(_) | None => Vec::new(),
        };
        let mut others = self.entry.addresses_beside(place, request.to);
        others.retain(|other| untried.contains(other));
        let within = config.timers.connect;
        let waiter = Waiter { owner: ctx.address().downgrade().recipient(), number: request.cseq };
        match self.env.race(listener, (request.to, &others), within, waiter) {
            Some(address) => self.go_on(place, request, Some(address), Vec::new(), ctx),
            None => self.racing.0.push((place, request.clone())),
        }
    }

    fn go_on(
        &mut self,
        place: usize,
        request: &Request,
        won: Option<SocketAddr>,
        failed: Vec<SocketAddr>,
        ctx: &mut Context<Self>,
    ) {
        let cseq = request.cseq;
        if won != Some(request.to) || !failed.is_empty() {
            self.feed(GroupInput::Raced { place, cseq, won, failed }, ctx);
        }
        match won {
            Some(to) => self.send(place, &Request { to, ..request.clone() }, ctx),
            None => self.feed(GroupInput::NoResponse(place, cseq), ctx),
        }
    }
}

impl Handler<Told<Raced>> for GroupActor {
    type Result = ();
    fn handle(&mut self, told: Told<Raced>, ctx: &mut Context<Self>) {
        let Raced { number, won, failed } = told.0;
        let place = super::place_of(number);
        if let Some(request) = self.racing.take(place, number) {
            self.go_on(place, &request, won, failed, ctx);
        }
    }
}
