//! Where a redirection leads: to numbers of ours that the one who redirects may dial, to addresses that its trunk's settings name,
//! and to nobody else. Otherwise whoever can answer a call could have it forwarded at our cost.

use std::net::SocketAddr;
use std::sync::Arc;

use actix::prelude::*;
use tandem_protocol::b2bua::{Destination, Input, LONGEST_RING, Reroute, TrunkChoice, TrunkHunt};
use tandem_protocol::message::{Uri, escape_user};
use tandem_protocol::proxy_list::{ProxyHealth, ProxyWalk, Selection};
use tandem_protocol::time::Now;

use super::{CallActor, Outbound};
use crate::calls::{
    Callee, Caller, Party, Route, codecs_of, elsewhere, forwards, outbound, outside_at, route,
};
use crate::config::Redirect;
use crate::directory::TrunkEntry;
use crate::events::{Event, EventKind};

/// A redirection that the call has followed or may follow.
#[derive(Clone, Default)]
pub(super) struct Diversion {
    /// Who named the contacts that are left.
    by: Callee,
    /// Who calls, with the diversion that this is.
    party: Option<Arc<Party>>,
    /// Numbers and addresses that the call has been at.
    visited: Vec<String>,
}

impl CallActor {
    /// The callee redirects the call, or a contact of an earlier redirection has failed.
    pub(super) fn redirected(
        &mut self,
        (status, fresh, exhausted): (u16, bool, bool),
        contacts: Vec<String>,
        now: Now,
        ctx: &mut Context<Self>,
    ) {
        let by = fresh.then(|| self.callee());
        let diversion = &mut self.rare.get_or_insert_default().diversion;
        if diversion.visited.is_empty() {
            diversion.visited.push(self.info.to.clone());
        }
        if let Some(by) = by {
            diversion.by = by;
            let place = diversion.visited.last().cloned().unwrap_or_default();
            let number = place.split('@').next().unwrap_or_default();
            let party = self.outbound.first().map(|outbound| outbound.party.diverted(number, status));
            diversion.party = party.map(Arc::new);
        }
        let reroute = if fresh && diversion.by.redirect() == Redirect::Pass {
            self.note_diversion(now, status, "is handed to the caller", &contacts.join(", "));
            Reroute::Pass(contacts)
        } else if exhausted {
            self.note_diversion(now, status, "is one too many", &contacts.join(", "));
            Reroute::Nowhere
        } else {
            self.first_that_leads(status, contacts, now)
        };
        self.feed(&Input::Rerouted { status, reroute }, ctx);
    }

    fn first_that_leads(&mut self, status: u16, contacts: Vec<String>, now: Now) -> Reroute {
        let mut contacts = contacts.into_iter();
        while let Some(contact) = contacts.next() {
            match self.lead(&contact) {
                Ok((route, outbound)) => {
                    self.note_diversion(now, status, &route.why, &contact);
                    let destination = Box::new(self.go(route, outbound));
                    let codecs = codecs_of(&self.env, &self.outbound);
                    return Reroute::To { destination, rest: contacts.collect(), codecs };
                }
                Err(why) => self.note_diversion(now, status, &why, &contact),
            }
        }
        Reroute::Nowhere
    }

    /// The route to a contact, or why there is none.
    fn lead(&mut self, contact: &str) -> Result<(Route, Vec<Outbound>), String> {
        let uri = Uri::parse(contact).map_err(|_| "is no address".to_owned())?;
        let diversion = self.rare.as_deref().map(|rare| rare.diversion.clone());
        let Some(Diversion { by, party: Some(party), .. }) = diversion else {
            return Err("comes too late".to_owned());
        };
        let number = uri.dialled().map_or_else(|| uri.host.to_owned(), |user| user.into_owned());
        // Who has asked for a `sips` URI is not sent on to less (RFC 5630 §5.1).
        let sips = party.secure || uri.is_sips();
        let (place, (found, outbound)) = match uri.scheme {
            "tel" => (number.clone(), self.dialled(&by, &party, &number, sips)),
            "sip" | "sips" if self.is_here(&uri) => {
                (number.clone(), self.dialled(&by, &party, &number, sips))
            }
            "sip" | "sips" => {
                let address = uri.socket_addr().ok_or("is not at an address of ours")?;
                let trunk = by.trunk().filter(|t| t.config.redirect_to.iter().any(|s| s.contains(address)));
                let trunk = trunk.ok_or("is at an address that nobody allows")?;
                let config = self.env.config();
                if sips && !config.transport(config.listener_id(trunk.config.listener)).is_secure() {
                    return Err("must be reached by TLS, which its trunk does not speak".to_owned());
                }
                (format!("{number}@{address}"), self.at_address(trunk, address, &party, (&number, sips)))
            }
            _ => return Err("has a scheme that is not spoken here".to_owned()),
        };
        let diversion = &mut self.rare.get_or_insert_default().diversion;
        if diversion.visited.contains(&place) {
            return Err("has been tried already".to_owned());
        }
        diversion.visited.push(place);
        match (&found.destination, found.service) {
            (Destination::Refused { status, .. }, _) => Err(format!("{} ({status})", found.why)),
            // Its media would need other ports than the call has.
            (Destination::Service, _) | (_, Some(_)) => {
                Err(format!("{}, which takes no diverted calls", found.why))
            }
            (Destination::Station { .. } | Destination::Trunk { .. }, None) => {
                forwards(&self.env, &found)?;
                Ok((found, outbound))
            }
        }
    }

    /// Whoever redirects a call dials for himself.
    fn dialled(&self, by: &Callee, party: &Arc<Party>, number: &str, sips: bool) -> (Route, Vec<Outbound>) {
        let route = route(&self.env, by.dialler().as_ref(), number, sips);
        let outbound = outbound(&self.env, party, &route);
        (route, outbound)
    }

    /// To an address by the listener of the trunk that may redirect there, where the call takes a place as any other.
    fn at_address(
        &self,
        trunk: &Arc<TrunkEntry>,
        address: SocketAddr,
        party: &Arc<Party>,
        (number, sips): (&str, bool),
    ) -> (Route, Vec<Outbound>) {
        let health = [ProxyHealth::up(address)];
        let choice = TrunkChoice {
            trunk: trunk.config.name.to_string(),
            listener: self.env.config().listener_id(trunk.config.listener),
            user: escape_user(number).into_owned(),
            sips,
            walk: ProxyWalk::new(&health, Selection::Priority, trunk.config.retryable.clone()),
            hosts: Vec::new(),
        };
        let destination =
            Destination::Trunk { hunt: TrunkHunt::new(vec![choice]), ring_timeout: LONGEST_RING };
        let why = format!("leads to {address}, which its trunk allows");
        let outside = match outside_at(&self.env, trunk, number, &why) {
            Ok(outside) => outside,
            Err(barred) => return (barred.into(), Vec::new()),
        };
        let mut route = Route::to(destination, why, number);
        route.outside = outside;
        route.signalling = vec![address.ip()];
        let outbound = vec![elsewhere(&self.env, party, &route, trunk, address)];
        (route, outbound)
    }

    /// Who is being called.
    fn callee(&self) -> Callee {
        let by = self.outbound.iter().find(|outbound| outbound.trunk == self.trunk_of_callee());
        by.or(self.outbound.first()).map(|outbound| outbound.callee.clone()).unwrap_or_default()
    }

    fn trunk_of_callee(&self) -> Option<Arc<str>> {
        self.info.trunk.as_deref().map(Arc::from)
    }

    /// True for an address of ours: the host of a domain, and if it names a port, one of our listeners.
    fn is_here(&self, uri: &Uri<'_>) -> bool {
        let listeners = &self.env.config().listeners;
        let ours = |port| listeners.iter().any(|l| l.external.port() == port || l.address.port() == port);
        self.env.directory().is_ours(uri.host) && uri.port.is_none_or(ours)
    }

    /// The call is another's from now on: its limits, its timers, its name in the record.
    fn go(&mut self, mut route: Route, outbound: Vec<Outbound>) -> Destination {
        // The caller's permit is the first. Whoever redirected has the call no longer, unless he pays for it.
        let given_back = self.permits.split_off(self.permits.len().min(1));
        let payer = route.outside.as_ref().and_then(|outside| outside.payer.clone());
        self.permits.extend(given_back.into_iter().find(|permit| match &payer {
            Some(Caller::Station(station)) => permit.is_of_station(&station.config.name),
            Some(Caller::Trunk(_)) | None => false,
        }));
        self.permits.extend(route.permit.take());
        self.charge_anew();
        self.place = None;
        self.info.trunk = None;
        self.info.emergency |= route.emergency;
        self.outbound = outbound;
        self.info.route = format!("{}; redirected: {}", self.info.route, route.why);
        route.destination
    }

    fn note_diversion(&mut self, now: Now, status: u16, what: &str, contact: &str) {
        let by = self.rare.as_ref().map(|rare| rare.diversion.by.to_string()).unwrap_or_default();
        tracing::info!(call = %self.id, status, by, contact, what, "redirected");
        let reason = format!("{status} of {by} to {contact}: {what}");
        let event = Event::new(now.wall, EventKind::RouteDecided, reason).of(&self.id);
        self.events.push(event.with("redirected_by", by).with("contact", contact.to_owned()));
    }
}
