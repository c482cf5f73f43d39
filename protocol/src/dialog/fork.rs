//! Several branches of one INVITE (RFC 3261 §13.2.2.4): one 2xx is kept, every other is acknowledged and ended; so is one that
//! nobody waits for any more.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::caller::sdp_of;
use super::{Dialog, LegEvent, LocalSide, Output, Phase, Routing};
use crate::flow::Flow;
use crate::message::{Header, Message, Method, NameAddr, Via};

/// How many branches of an INVITE are told apart; further answers are left alone.
const MOST_BRANCHES: usize = 16;
const ELSEWHERE: &str = "SIP;cause=200;text=\"answered elsewhere\"";

/// The branches of our INVITE.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Forks {
    /// The answers in unreliable provisional responses: the peer's tag and the last.
    early: Vec<(String, Bytes)>,
    /// The tags of branches whose 2xx was not kept.
    ended: Vec<String>,
    /// Our INVITE left the offer to the callee: every 2xx to it has one.
    pub(super) offered_by_peer: bool,
}

impl Forks {
    /// A provisional response of the branch with that tag carried `sdp`.
    pub(super) fn note_early(&mut self, tag: Option<&str>, sdp: &Bytes) {
        let Some(tag) = tag else { return };
        match self.early.iter_mut().find(|(known, _)| known == tag) {
            Some((_, known)) => *known = sdp.clone(),
            None => {
                if self.early.len() == MOST_BRANCHES {
                    self.early.remove(0);
                }
                self.early.push((tag.to_owned(), sdp.clone()));
            }
        }
    }

    /// The branch with that tag is over.
    fn forget(&mut self, tag: &str) {
        self.early.retain(|(known, _)| known != tag);
    }

    /// We have ended the branch with that tag by BYE.
    pub(super) fn has_ended(&self, tag: Option<&str>) -> bool {
        tag.is_some_and(|tag| self.ended.iter().any(|ended| ended == tag))
    }

    /// The branch with that tag has answered: the other early dialogs are over without a word (§13.2.2.4). Its early
    /// session description counts if the 2xx repeats none (§13.2.1).
    pub(super) fn settle(&mut self, tag: Option<&str>) -> Option<Bytes> {
        let early = std::mem::take(&mut self.early);
        early.into_iter().find(|(known, _)| Some(known.as_str()) == tag).map(|(_, sdp)| sdp)
    }
}

impl Dialog {
    /// RFC 6228: a proxy says by 199 that one of its branches has failed, while others may still answer. That branch's early dialog is
    /// over; it is no news for a caller, whose own early dialog is with us and goes on.
    pub(super) fn early_dialog_over(&mut self, response: &Message, offered: bool, out: &mut Vec<Output>) {
        if sdp_of(response).is_none() {
            // One that comes reliably, which it need not, wants its PRACK.
            self.early_response(response, offered, out);
        }
        let Some(tag) = response.to_tag() else { return };
        self.forks.forget(tag);
        let Some(at) = self.session.early.iter().position(|early| early.tag == tag) else { return };
        let early = self.session.early.remove(at);
        self.drop_update_of(|from| from == Some(tag), out);
        self.drop_proposal_within(tag, out);
        let owed = self.session.owed.take_if(|owed| owed.is_prack_of(tag));
        if early.session.is_some() || owed.is_some() {
            out.push(Output::Up(LegEvent::EarlyEnded));
        }
    }

    /// Answers an UPDATE that waits for the call, if its early dialog is over: at once, and the call need not answer it any more.
    pub(super) fn drop_update_of(&mut self, is_over: impl Fn(Option<&str>) -> bool, out: &mut Vec<Output>) {
        let over = self.session.updated.take_if(|updated| is_over(updated.0.request.from_tag()));
        if let Some((pending, _)) = over.map(|over| *over) {
            out.push(self.respond(&pending, 481, None, &[]));
            self.in_force.we_refuse();
            out.push(Output::Up(LegEvent::ReofferCancelled { reason: None }));
        }
    }

    /// A 2xx of another branch makes a dialog of its own, which is ended; one that is repeated has lost its ACK.
    pub(super) fn end_other_branch(&mut self, response: &Message, out: &mut Vec<Output>) {
        let Some(tag) = response.to_tag() else { return };
        let known = self.forks.has_ended(Some(tag));
        if !known && self.forks.ended.len() == MOST_BRANCHES {
            // No call is answered so often: whoever invents branches gets no requests for them.
            return;
        }
        let mut other = self.clone();
        // The peer's re-INVITE is the kept branch's: it is not this BYE that ends it.
        other.reoffered = None;
        other.session = super::offer_answer::Session::default();
        other.become_dialog_of(response);
        if self.forks.offered_by_peer
            && let Some(offer) = sdp_of(response)
        {
            other.refuse_offer_in_ack(response.cseq(), &offer);
        }
        other.acknowledge(response.cseq(), out);
        if !known {
            self.forks.ended.push(tag.to_owned());
            other.bye(Some(ELSEWHERE), out);
            self.account.note_lost(tag, other.next_hop(), &mut other.account);
        }
        // Another branch, or this one's 2xx again, must not find our Via branches used, nor our own requests the BYE's number.
        self.sent = other.sent;
        self.local_cseq = other.local_cseq;
    }

    /// What a 2xx to our INVITE says of its dialog (§12.1.2).
    pub(super) fn become_dialog_of(&mut self, response: &Message) {
        self.remote_tag = response.to_tag().map(str::to_owned);
        self.remote_party = response.header(Header::To).unwrap_or_default().to_owned();
        self.route_set = response.values(Header::RecordRoute).map(str::to_owned).collect();
        self.route_set.reverse();
        self.refresh_target(response);
        self.phase = Phase::Confirmed;
    }
}

/// Acknowledges and ends a 2xx to an INVITE that no dialog knows: its dialog is long over, or ended with the process that
/// sent the INVITE. Everything needed is in the response, whose copies all have the same end, byte for byte. `local` is the
/// side of the listener that it came to, and only a response to a request of that side counts: its only Via must be ours, with
/// the branch that [`Dialog`] makes of the From tag. Both requests go to `source`, never to an address that the response names.
pub fn end_stray_answer(response: &Message, source: Flow, local: Arc<LocalSide>) -> Vec<Output> {
    let mut out = Vec::new();
    let Some((local_tag, remote_tag)) = response.from_tag().zip(response.to_tag()) else { return out };
    let answer = response.method() == Method::Invite && (200..300).contains(&response.status());
    if !answer || !is_of_ours(response, local_tag, &local) || response.cseq() > u32::MAX / 4 {
        return out;
    }
    let local_party = response.header(Header::From).unwrap_or_default().to_owned();
    let mut dialog = Dialog::new(local, Routing::Flow, source, response.call_id(), local_tag, local_party);
    // Above whatever PRACK or UPDATE has had in its early dialog.
    dialog.local_cseq = response.cseq() + super::RESTORED_CSEQ_GAP;
    // A branch of its own for each dialog, the same for each copy.
    dialog.sent =
        remote_tag.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193)) >> 1;
    // Without a Contact, which a 2xx must have, there is only the address in To.
    dialog.remote_target = NameAddr::parse(response.header(Header::To).unwrap_or_default())
        .map(|to| to.uri.to_owned())
        .unwrap_or_default();
    dialog.become_dialog_of(response);
    if dialog.remote_target.is_empty() {
        return out;
    }
    dialog.acknowledge(response.cseq(), &mut out);
    dialog.bye(Some("SIP;cause=481;text=\"nobody waits for this answer\""), &mut out);
    out
}

fn is_of_ours(response: &Message, local_tag: &str, local: &LocalSide) -> bool {
    let via = response.via();
    let Ok(ours) = Via::parse(&local.via) else { return false };
    let branch = via.branch().and_then(|branch| branch.strip_prefix("z9hG4bK")?.strip_prefix(local_tag));
    let count = response.values(Header::Via).count();
    count == 1 && (via.host, via.port) == (ours.host, ours.port) && branch.is_some_and(|n| n.starts_with('.'))
}
