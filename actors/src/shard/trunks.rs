//! What a shard hands to the trunks that live on it: what calls saw of proxies, and which proxies there are.

use std::net::SocketAddr;
use std::sync::Arc;

use actix::prelude::*;
use tandem_protocol::proxy_list::Proxy;
use tandem_protocol::trunk_health::Seen;

use super::{LinkMessage, Shard};
use crate::env::{Tell, Told};
use crate::trunk::{Proxies, Restrained};

/// What a call saw of a proxy.
#[derive(Clone, Debug)]
pub struct TrunkReport {
    /// The trunk.
    pub trunk: Arc<str>,
    /// The proxy.
    pub proxy: SocketAddr,
    /// What it saw.
    pub seen: Seen,
}

impl Shard {
    pub(super) fn trunk_report(&mut self, report: TrunkReport) {
        let home = self.env.directory().home(&report.trunk);
        if home != self.env.shard() {
            self.env.link(home, LinkMessage::Trunk(report));
        } else if let Some(trunk) = self.trunks.get(&report.trunk) {
            trunk.tell(report);
        }
    }

    /// A proxy of a trunk that lives here wants another share of its calls.
    pub(super) fn trunk_restrained(&mut self, trunk: &str, proxy: SocketAddr) {
        if let Some(trunk) = self.trunks.get(trunk) {
            trunk.tell(Restrained(proxy));
        }
    }

    /// A trunk has other proxies. While its actor rests, calls go to them all the same.
    pub(super) fn trunk_proxies(&mut self, trunk: &str, proxies: Vec<Proxy>) {
        if let Some(actor) = self.trunks.get(trunk) {
            actor.tell(Proxies(proxies));
        } else if let Some(entry) = self.env.directory().trunk(trunk) {
            entry.set_proxies(&proxies, self.env.metrics());
        }
    }
}

impl Handler<Told<TrunkReport>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<TrunkReport>, _: &mut Context<Self>) {
        self.trunk_report(told.0);
    }
}
