//! Proxies that want fewer calls (RFC 7339): calls heed the directory's word; what is told of it here is for people.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use actix::prelude::*;
use tandem_protocol::flow::Flow;
use tandem_protocol::time::{Instant, Now};

use super::TrunkActor;
use crate::env::Told;
use crate::events::{Event, EventKind};
use crate::store::{Batch, Urgency};

/// A proxy wants another share of the calls than before.
pub(crate) struct Restrained(pub(crate) SocketAddr);

/// The proxies that want fewer calls, each with when that is looked at again.
#[derive(Default)]
pub(super) struct Restraints(BTreeMap<SocketAddr, Instant>);

impl Restraints {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }
}

impl TrunkActor {
    /// Looks after those that an actor before this one, which a fault has ended, has told of.
    pub(super) fn resume_restraints(&mut self) {
        let now = self.env.now().mono;
        let told = self.entry.proxies();
        let told = told.iter().filter(|entry| entry.restrained() > 0);
        self.restrained.0.extend(told.map(|entry| (entry.proxy.address, now)));
    }

    /// Time has passed: some may want nothing any more.
    pub(super) fn look_at_restraints(&mut self) {
        let now = self.env.now();
        let due: Vec<SocketAddr> =
            self.restrained.0.iter().filter(|(_, at)| **at <= now.mono).map(|(proxy, _)| *proxy).collect();
        for proxy in due {
            self.look_at_restraint(proxy, now);
        }
    }

    fn look_at_restraint(&mut self, proxy: SocketAddr, now: Now) {
        let control = &self.env.directory().overload_control;
        let to = Flow::to(self.env.config().listener_id(self.entry.config.listener), proxy);
        let heeded = self.entry.config.rules.overload_control;
        let percent = if heeded { control.percent(to, now.mono) } else { 0 };
        let until = control.until(to).filter(|until| percent > 0 && *until > now.mono);
        match until {
            Some(until) => self.restrained.0.insert(proxy, until),
            None => self.restrained.0.remove(&proxy),
        };
        let Some(entry) = self.entry.proxy(proxy) else { return };
        let before = entry.restrain(percent);
        // In between it may say another number with each response.
        if (before == 0) != (percent == 0) {
            self.tell_restraint(proxy, percent, now);
        }
    }

    fn tell_restraint(&self, proxy: SocketAddr, percent: u8, now: Now) {
        let trunk = self.entry.config.name.to_string();
        let reason = match percent {
            0 => "it takes all calls again".to_owned(),
            percent => format!("it is overloaded and wants {percent} % fewer calls"),
        };
        if percent > 0 {
            tracing::warn!(trunk, %proxy, percent, "a proxy is overloaded: so many of the new calls are kept from it");
        } else {
            tracing::info!(trunk, %proxy, "a proxy is not overloaded any more");
        }
        let event = Event::new(now.wall, EventKind::TrunkState, reason).with("trunk", trunk);
        let event = event.with("proxy", proxy.to_string()).with("overload_percent", i64::from(percent));
        let mut batch = Batch::new(Urgency::Lazy);
        batch.events.push(event);
        self.env.submit(batch);
    }
}

impl Handler<Told<Restrained>> for TrunkActor {
    type Result = ();
    fn handle(&mut self, told: Told<Restrained>, _: &mut Context<Self>) {
        let now = self.env.now();
        self.look_at_restraint(told.0.0, now);
        self.arm();
    }
}
