//! Several branches of one INVITE (RFC 3261 §13.2.2.4): one 2xx is kept, every other is acknowledged and ended.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::caller::sdp_of;
use super::{Dialog, LegEvent, Output, Phase};
use crate::message::{Header, Message};

/// How many branches of an INVITE are told apart; further answers are left alone.
const MOST_BRANCHES: usize = 16;
const ELSEWHERE: &str = "SIP;cause=200;text=\"answered elsewhere\"";

/// The branches of our INVITE.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Forks {
    /// The answers in unreliable provisional responses: the peer's tag and the last.
    early: Vec<(String, Bytes)>,
    /// The tags of all branches that have answered provisionally. A dialog that has not been answered is in no checkpoint.
    #[serde(skip)]
    proceeding: Proceeding,
    /// The tags of branches whose 2xx was not kept.
    ended: Vec<String>,
    /// Our INVITE left the offer to the callee: every 2xx to it has one.
    pub(super) offered_by_peer: bool,
}

/// Tags of branches. What no checkpoint has is not shown: a dialog that is restored is to look as it was.
#[derive(Clone, Default)]
struct Proceeding(Vec<Box<str>>);

impl fmt::Debug for Proceeding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl Forks {
    /// A provisional response of the branch with that tag: there is an early dialog (§12.1).
    pub(super) fn proceeds(&mut self, tag: Option<&str>) {
        let Some(tag) = tag else { return };
        if self.proceeding.0.len() < MOST_BRANCHES && !self.is_proceeding(tag) {
            self.proceeding.0.push(tag.into());
        }
    }

    /// Whether the branch with that tag is an early dialog.
    pub(super) fn is_proceeding(&self, tag: &str) -> bool {
        self.proceeding.0.iter().any(|known| **known == *tag)
    }

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
        self.proceeding.0.retain(|known| **known != *tag);
    }

    /// We have ended the branch with that tag by BYE.
    pub(super) fn has_ended(&self, tag: Option<&str>) -> bool {
        tag.is_some_and(|tag| self.ended.iter().any(|ended| ended == tag))
    }

    /// The branch with that tag has answered: the other early dialogs are over without a word (§13.2.2.4). Its early
    /// session description counts if the 2xx repeats none (§13.2.1).
    pub(super) fn settle(&mut self, tag: Option<&str>) -> Option<Bytes> {
        self.proceeding = Proceeding::default();
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
