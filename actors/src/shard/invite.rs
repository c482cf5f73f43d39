//! A new INVITE: checked, identified, admitted, and given to a call of its own.

use actix::prelude::*;
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Header, Message, Method, Replaces};

use super::Shard;
use crate::call::{CallActor, Caller as CallerLeg, Setup};
use crate::calls::{Admitted, Asks, Refused, Towards, admit, check, identify, interval, replaces};
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
        if let Some(Ok(Some(named))) = invite.header(Header::Replaces).map(|_| Replaces::of(invite))
            && flow.connection.is_none()
            && self.may_be_restored(Some(&named.to_tag), flow)
        {
            // The dialog may be back in a moment, and so is the INVITE.
            self.env.metrics().refuse(Refusal::Starting);
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
        let known = caller.and_then(|caller| {
            let replaces = check::acceptable(invite, self.env.config().transport(flow.listener))
                .and_then(|()| interval(&self.env, invite, flow))
                .and_then(|()| replaces(&self.env, &caller, invite));
            replaces.map(|replaces| (caller, replaces)).map_err(Refused::for_known)
        });
        let admitted = match known {
            Ok((caller, Some(replaces))) => {
                return self.seek(Asks { invite: invite.clone(), flow, caller, replaces });
            }
            Ok((caller, None)) => {
                admit(&self.env, &mut self.leases, invite, flow, &caller).map_err(Refused::for_known)
            }
            Err(refused) => Err(refused),
        };
        match admitted {
            Ok(admitted) => self.start_call(invite, flow, admitted, ctx),
            Err(refused) => self.refuse(invite, flow, &refused),
        }
    }

    /// Whether the same INVITE has come before, perhaps by another way.
    pub(super) fn is_merged(&self, request: &Message) -> bool {
        let key = merge_key(self.env.shared(), request.call_id(), request.from_tag(), request.cseq());
        request.method() == Method::Invite && self.merges.contains_key(&key)
    }

    fn start_call(&mut self, invite: &Message, flow: Flow, admitted: Admitted, ctx: &mut Context<Self>) {
        let transaction = self.endpoint().accept(invite, flow);
        let Admitted { info, machine, outbound, media, permits, towards } = admitted;
        let Towards { routing, local, account } = towards;
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
        let setup = Setup { key, info, machine, outbound, caller, media, permits, replaced: None };
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
