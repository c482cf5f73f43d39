//! How a leg begins with an INVITE of ours.

use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;
use tandem_protocol::b2bua::{LegId, Target};
use tandem_protocol::dialog::InviteSpec;
use tandem_protocol::time::Now;

use super::{CallActor, race, trunks};
use crate::calls::is_sips;
use crate::dialog::Origin;
use crate::env::Tell;

impl CallActor {
    /// Begins a leg, unless its proxy is spared the call or its trunk has no place for it.
    pub(super) fn invite(
        &mut self,
        leg: LegId,
        target: Target,
        (sdp, reliable): (Bytes, bool),
        now: Now,
        ctx: &mut Context<Self>,
    ) {
        if self.spares(&target, now) {
            ctx.address().tell(trunks::Spared(leg));
            return;
        }
        let Some(outbound) = self.enter(target.trunk.as_deref(), now) else {
            ctx.address().tell(trunks::NoPlace(leg));
            return;
        };
        let begins = race::Begins { leg, target, outbound, sdp: (sdp, reliable) };
        if let Some(begins) = self.race(begins, ctx) {
            self.begin_leg(begins, ctx);
        }
    }

    /// Sends a leg's INVITE.
    pub(super) fn begin_leg(&mut self, begins: race::Begins, ctx: &mut Context<Self>) {
        let race::Begins { leg, target, outbound, sdp: (sdp, reliable) } = begins;
        let outbound_trunk = outbound.trunk.clone();
        self.media.asks(&self.env, self.key, leg, target.flow.remote.ip());
        self.media.open_relay(&self.env, self.key);
        let spec = InviteSpec {
            request_uri: target.request_uri,
            from: outbound.from,
            to: outbound.to,
            call_id: self.env.name(),
            local_tag: self.env.name(),
            flow: target.flow,
            routing: target.routing,
            route: if target.route.is_empty() { outbound.route } else { target.route },
            sdp,
            reliable,
            max_forwards: outbound.max_forwards,
            headers: outbound.headers,
            timers: outbound.timers,
            // An address that a trunk redirects to has the trunk's name, but not its credentials.
            account: outbound.credentials.as_ref().and(outbound.trunk.as_deref()).map(str::to_owned),
            credentials: outbound.credentials,
            progress: outbound.progress,
        };
        let call_id = spec.call_id.clone();
        let sips = is_sips(&spec.request_uri);
        let proxy = outbound_trunk.clone().map(|trunk| Box::new((trunk, target.flow.remote)));
        let trunk = outbound_trunk.and_then(|name| self.env.directory().trunk(&name).cloned());
        let local = match trunk {
            Some(trunk) => self.env.local_side_of(&trunk, target.flow.listener, sips),
            None => self.env.local_side_for(target.flow.listener, sips),
        };
        let origin = Origin::Calling { spec: Arc::new(spec), local, last: None };
        self.start_leg(leg, origin, (call_id, proxy), ctx);
    }
}
