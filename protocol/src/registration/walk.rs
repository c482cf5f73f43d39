//! Which server a REGISTER goes to: the registrar's in turn (RFC 3263 §4.3), and where they redirect to (RFC 3261 §8.1.3.4).

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::interface::Place;
use crate::flow::Transport;
use crate::message::Uri;
use crate::time::Instant;

/// Redirections that one attempt follows.
const MAX_REDIRECTIONS: usize = 5;
/// The longest rest that a server may ask for.
const MAX_REST: Duration = Duration::from_secs(86_400);

/// A server that is asked after the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rest {
    server: SocketAddr,
    until: Instant,
    /// It has asked for it (Retry-After): until then it is not asked at all if nobody else is there.
    asked: bool,
}

/// The servers of one registration, and how far the present attempt has got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Walk {
    servers: Vec<SocketAddr>,
    rests: Vec<Rest>,
    /// Whom the present attempt has still to ask, the last first.
    untried: Vec<Place>,
    /// Where redirections of the present attempt have led: each once.
    visited: Vec<String>,
    at: Option<Place>,
}

impl Walk {
    /// The registrar is here; what is known of those that stay is kept.
    pub(super) fn set_servers(&mut self, servers: Vec<SocketAddr>) {
        self.rests.retain(|rest| servers.contains(&rest.server));
        self.untried.retain(|place| place.uri.is_some() || servers.contains(&place.to));
        self.servers = servers;
    }

    /// Begins an attempt: those that rest come after the others, in their order.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Place> {
        self.rests.retain(|rest| rest.until > now);
        let resting = |server: &SocketAddr| self.rests.iter().any(|rest| rest.server == *server);
        let mut order = self.servers.clone();
        order.sort_by_key(resting);
        self.untried = order.into_iter().rev().map(|to| Place { to, uri: None }).collect();
        self.visited.clear();
        self.next()
    }

    /// Whom the present attempt asks next.
    pub(super) fn next(&mut self) -> Option<Place> {
        self.at = self.untried.pop();
        self.at.clone()
    }

    /// Asks one in particular, and nobody else.
    pub(super) fn only(&mut self, place: Place) {
        self.untried.clear();
        self.at = Some(place);
    }

    /// Whom the present attempt asks now.
    pub(super) fn at(&self) -> Option<&Place> {
        self.at.as_ref()
    }

    /// Whom else the present attempt may ask, in order.
    pub(super) fn untried(&self) -> impl Iterator<Item = SocketAddr> {
        self.untried.iter().rev().filter(|place| place.uri.is_none()).map(|place| place.to)
    }

    /// Addresses of the server that is asked have raced: `won` is where it is asked. One that was only slower may still be.
    pub(super) fn raced(&mut self, won: Option<SocketAddr>, failed: &[SocketAddr]) {
        let Some(at) = &mut self.at else { return };
        let began = at.to;
        let now = won.unwrap_or(began);
        at.to = now;
        self.untried.retain(|place| place.uri.is_some() || place.to != now && !failed.contains(&place.to));
        if began != now && !failed.contains(&began) {
            self.untried.insert(0, Place { to: began, uri: None });
        }
    }

    /// Whether the present attempt has somebody else to ask.
    pub(super) fn has_more(&self) -> bool {
        !self.untried.is_empty()
    }

    /// The one that is asked has failed: it rests, for as long as it asks for.
    pub(super) fn failed(&mut self, now: Instant, rest: Duration, asked: Option<Duration>) {
        let Some(server) = self.at.as_ref().map(|place| place.to) else { return };
        self.rests.retain(|rest| rest.server != server);
        let until = now + asked.map_or(rest, |asked| asked.min(MAX_REST).max(rest));
        self.rests.push(Rest { server, until, asked: asked.is_some() });
    }

    /// When the first of them may be asked again, if every one has asked for rest.
    pub(super) fn all_rest_until(&self) -> Option<Instant> {
        let of = |server: &SocketAddr| self.rests.iter().find(|r| r.asked && r.server == *server);
        let ends: Option<Vec<Instant>> = self.servers.iter().map(|s| of(s).map(|rest| rest.until)).collect();
        ends?.into_iter().min()
    }

    /// Follows a redirection to those of its contacts that can be followed: at an address, by our transport, not asked before.
    /// `None`: none can.
    pub(super) fn redirected(&mut self, contacts: &[String], transport: Transport) -> Option<Place> {
        let mut places = Vec::new();
        for contact in contacts {
            if self.visited.len() >= MAX_REDIRECTIONS || self.visited.contains(contact) {
                continue;
            }
            let Some(to) = address(contact, transport) else { continue };
            self.visited.push(contact.clone());
            places.push(Place { to, uri: Some(contact.clone()) });
        }
        if places.is_empty() {
            return None;
        }
        self.untried.extend(places.into_iter().rev());
        self.next()
    }
}

/// The address of a contact, if we speak its transport.
fn address(contact: &str, transport: Transport) -> Option<SocketAddr> {
    let uri = Uri::parse(contact).ok()?;
    let other = |asked: &str| !asked.eq_ignore_ascii_case(transport.as_str());
    uri.socket_addr().filter(|_| uri.scheme == "sip" && !uri.param("transport").is_some_and(other))
}
