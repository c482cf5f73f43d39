//! A new INVITE: checked, identified, admitted, and given to a call of its own.

use actix::prelude::*;
use tandem_protocol::flow::Flow;
use tandem_protocol::message::Message;

use super::Shard;
use crate::call::{CallActor, Caller as CallerLeg, Setup};
use crate::calls::{Admitted, Refused, admit, check, identify};
use crate::dialog::Origin;
use crate::env::Shared;
use crate::metrics::Refusal;
use crate::sip::stateless::Answer;

impl Shard {
    pub(super) fn invite(&mut self, invite: &Message, flow: Flow, ctx: &mut Context<Self>) {
        if !self.leases.primed() {
            // A moment after the start nobody can say yet whether there is a port. The INVITE comes again (Timer A).
            self.env.metrics().refuse(Refusal::Starting);
            if self.env.config().transport(flow.listener).is_reliable() {
                // By a stream it does not.
                self.endpoint().reply(invite, flow, Answer::new(503, &[]));
            }
            return;
        }
        let merge_key = merge_key(self.env.shared(), invite.call_id(), invite.from_tag(), invite.cseq());
        if let Some(known) = self.merges.get(&merge_key).and_then(|tag| self.dialogs.get(tag)) {
            // The same INVITE by another way (§8.2.2.2); after a restart its dialog is there but its transaction is not,
            // and the dialog repeats the answer by itself.
            if !known.restored {
                self.refuse(invite, flow, &Refused::new(482, Refusal::Loop));
            }
            return;
        }
        if let Some(refused) = self.sheds_call(invite) {
            return self.refuse(invite, flow, &refused);
        }
        let caller = check::well_formed(invite).and_then(|()| identify(&self.env, invite, flow));
        let admitted = caller.and_then(|caller| {
            let admitted = check::acceptable(invite, self.env.config().transport(flow.listener))
                .and_then(|()| admit(&self.env, &mut self.leases, invite, flow, &caller));
            admitted.map_err(Refused::for_known)
        });
        match admitted {
            Ok(admitted) => self.start_call(invite, flow, admitted, ctx),
            Err(refused) => self.refuse(invite, flow, &refused),
        }
    }

    fn start_call(&mut self, invite: &Message, flow: Flow, admitted: Admitted, ctx: &mut Context<Self>) {
        let transaction = self.endpoint().accept(invite, flow);
        let Admitted { info, machine, outbound, media, permits, routing, local, account } = admitted;
        let key = info.key;
        let origin = Origin::Incoming {
            transaction,
            invite: invite.clone(),
            source: flow.answering(&invite.via()),
            tag: self.env.name(),
            local,
            routing,
            account,
        };
        let caller = CallerLeg::Invite { origin, call_id: invite.call_id().to_owned() };
        let setup = Setup { key, info, machine, outbound, caller, media, permits };
        let me = self.me.get_or_share(ctx);
        let call = CallActor::launch(&self.env, me, setup);
        self.calls.insert(key, call);
    }
}

/// What makes two INVITEs the same, as a number that nobody outside can foresee: kept as text for each call it would take a good deal
/// of what a call takes.
pub(crate) fn merge_key(shared: &Shared, call_id: &str, from_tag: Option<&str>, cseq: u32) -> u64 {
    crate::map::hash(shared.placement_key, &(call_id, from_tag.unwrap_or(""), cseq))
}
