//! The dialogs of a shard: requests within them, and what their actors send.

use actix::prelude::*;
use tandem_protocol::dialog::Input;
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Message, Method};

use super::{KnownDialog, LinkMessage, Shard};
use crate::calls::{Refused, check};
use crate::dialog::{DialogActor, DialogDown, DialogUp};
use crate::env::{Tell, Told};
use crate::metrics::Refusal;
use crate::owner::{Address, Owner, WeakAddress};

impl Shard {
    /// True for a datagram within a dialog of ours while those of the process before, or of the shard before, are still being rebuilt.
    pub(super) fn may_be_restored(&self, local_tag: Option<&str>, flow: Flow) -> bool {
        let ours = local_tag.is_some_and(|tag| self.env.shared().names.shard_of(tag.as_bytes()).is_some());
        // No connection outlives its process.
        let may_be = flow.connection.is_none() || self.env.seat().epoch() > 0;
        ours && may_be && self.restoring_until.is_some_and(|until| self.env.now().mono < until)
    }

    pub(super) fn dialog_of(&self, request: &Message) -> Option<&Address<DialogActor>> {
        Some(&self.dialogs.get(request.to_tag()?)?.dialog)
    }

    pub(super) fn in_dialog(&mut self, request: Message, flow: Flow) {
        let Some(dialog) = self.dialog_of(&request).cloned() else {
            if self.may_be_restored(request.to_tag(), flow) {
                if self.env.seat().epoch() > 0 {
                    return self.await_dialog(request, flow);
                }
                self.env.metrics().refuse_request(request.method(), Refusal::Starting);
                return;
            }
            if let Some(response) = self.late_pracks.answer(&request, flow, self.env.now().mono) {
                return self.endpoint().respond_once(&request, flow, 200, response);
            }
            return self.refuse(&request, flow, &Refused::new(481, Refusal::NoDialog));
        };
        if let Err(refused) = check::within_dialog(&request) {
            return self.refuse(&request, flow, &refused.for_known());
        }
        let transaction = self.endpoint().accept(&request, flow);
        if request.method() == Method::Invite {
            // It hears of a CANCEL of the re-INVITE.
            self.endpoint().own(transaction, Owner::Dialog(WeakAddress::of(&dialog)));
        }
        let source = flow.answering(&request.via());
        dialog.tell(Input::Request { transaction: Some(transaction), request, source });
    }
}

impl Handler<Told<DialogUp>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<DialogUp>, _: &mut Context<Self>) {
        let DialogUp { tag, dialog, merge_key, invite, restored, guest } = told.0;
        if let Some(transaction) = invite {
            self.endpoint().own(transaction, Owner::Dialog(WeakAddress::of(&dialog)));
        }
        if let Some(key) = merge_key {
            self.merges.insert(key, tag.clone());
        }
        if let Some(guest) = guest {
            self.guests.insert(tag.clone(), guest);
        }
        self.dialogs.insert(tag.clone(), KnownDialog { dialog, merge_key, restored });
        if restored {
            self.dialog_is_back(&tag);
        }
    }
}

impl Handler<Told<DialogDown>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<DialogDown>, _: &mut Context<Self>) {
        let DialogDown { tag, awaited, name } = told.0;
        let known = self.dialogs.remove(&tag);
        if known.is_some() {
            self.ended.note(name, self.env.now().mono);
        }
        if let Some((home, key)) = self.guests.remove(&tag) {
            self.env.link(home, LinkMessage::Leaves(key));
        }
        if let Some(prack) = awaited {
            self.late_pracks.expect(tag, prack, self.env.now().mono);
        }
        if let Some(key) = known.and_then(|known| known.merge_key) {
            self.merges.remove(&key);
        }
    }
}
