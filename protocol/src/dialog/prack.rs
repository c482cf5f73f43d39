//! Reliable provisional responses (RFC 3262), hop by hop: ours to the peer's INVITE, and the peer's to ours.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::as_told::{answer_as_told, refusal_of};
use super::caller::sdp_of;
use super::late_prack::AwaitedPrack;
use super::offer_answer::Owed;
use super::{Dialog, EndedBy, LegEvent, Output, Pending, Phase, ServerTransactionId};
use crate::flow::Flow;
use crate::message::{Contacts, Header, Message, Method};
use crate::time::{Instant, Now};

/// Early dialogs of one INVITE that are kept; more forks than that get no PRACK.
const MOST_EARLY: usize = 16;
/// Provisional responses that wait for the PRACK of an earlier one; more are left out, being news of no weight.
const MOST_WAITING: usize = 8;

/// Reliable responses that are taken in one early dialog: one each six seconds of the longest ringing. A callee that sends more
/// gets no PRACK, and gives up.
const MOST_RELIABLE: u8 = 32;

/// Our provisional responses, one at a time (§3).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Server {
    /// The RSeq of the last one.
    rseq: u32,
    open: Option<Box<Unacknowledged>>,
    waiting: VecDeque<(u16, Option<Bytes>)>,
    /// A description of ours has gone reliably.
    settled: bool,
    /// ... and, if it was an offer, has been answered.
    agreed: bool,
    /// The 200 may leave as soon as the open response is acknowledged.
    release: bool,
}

/// A provisional response that is repeated until its PRACK comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unacknowledged {
    transaction: ServerTransactionId,
    message: Bytes,
    status: u16,
    to: Flow,
    cseq: u32,
    has_sdp: bool,
    offer: bool,
    interval: Duration,
    next: Instant,
    give_up: Instant,
}

impl Server {
    /// The answer to the INVITE's offer, or the offer it asks for, has gone reliably.
    pub(super) fn settled(&self) -> bool {
        self.settled && !self.is_unsaid()
    }

    /// The first exchange is complete, and the peer has said so.
    pub(super) fn agreed(&self) -> bool {
        self.agreed && !self.is_unsaid() && self.open.as_ref().is_none_or(|open| !open.has_sdp)
    }

    /// A description of ours has gone reliably, and the peer has not said that it is there.
    pub(super) fn is_unheard(&self) -> bool {
        self.settled() && self.open.as_ref().is_some_and(|open| open.has_sdp)
    }

    /// The description still waits for the PRACK of an earlier response; a 200 that overtakes it says it.
    fn is_unsaid(&self) -> bool {
        self.waiting.iter().any(|(_, sdp)| sdp.is_some())
    }

    /// The RSeq of the last response.
    #[cfg(test)]
    pub(super) fn last(&self) -> u32 {
        self.rseq
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.next.min(open.give_up))
    }

    /// The 200 leaves: the open response is repeated no more, but its PRACK may still come.
    pub(super) fn answered(&mut self) {
        self.waiting = VecDeque::new();
        if let Some(open) = &mut self.open {
            open.message = Bytes::new();
        }
    }

    /// §3: a 2xx waits while a response with a description is unacknowledged.
    pub(super) fn holds_answer(&mut self) -> bool {
        self.release = self.open.as_ref().is_some_and(|open| open.has_sdp);
        self.release
    }
}

/// One early dialog of our INVITE (RFC 3261 §12.1.2): every fork has its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Early {
    pub(super) tag: String,
    /// How requests of ours reach it; known once one may be sent.
    path: Option<Box<Path>>,
    pub(super) remote_cseq: Option<u32>,
    /// The last RSeq taken; 0 before the first.
    rseq: u32,
    /// How many reliable responses were taken.
    taken: u8,
    /// The peer's description, once offer and answer have been exchanged.
    pub(super) session: Option<Bytes>,
}

/// What a response says of its early dialog (RFC 3261 §12.1.2).
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Path {
    party: String,
    target: String,
    route_set: Vec<String>,
}

impl Early {
    fn take(&mut self, rseq: u32) {
        self.rseq = rseq;
        self.taken += 1;
    }
}

impl Dialog {
    /// Our reliable response that the peer has not acknowledged: its PRACK may come after any final response, too (§3).
    pub fn awaited_prack(&self) -> Option<AwaitedPrack> {
        let open = self.session.reliable.open.as_ref()?;
        let told = self.in_force.told().or(self.session.told.as_ref()).cloned();
        let (call_id, remote_tag) = (self.call_id.to_string(), self.remote_tag.clone());
        let rack = (self.session.reliable.rseq, open.cseq);
        Some(AwaitedPrack { call_id, remote_tag, rack, offered: open.offer, told })
    }

    /// Sends a provisional response, reliably if the peer requires it, or supports it and `settled` says that `sdp` will hold.
    pub(super) fn provisional(
        &mut self,
        status: u16,
        sdp: Option<&Bytes>,
        settled: bool,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let Phase::Incoming(pending) = &self.phase else { return };
        let invite = &pending.request;
        let required = invite.has_token(Header::Require, "100rel");
        let supported = required || invite.has_token(Header::Supported, "100rel");
        let asks_for_offer = sdp_of(invite).is_none();
        // RFC 6337 §3.1.1: after the answer no further description follows in responses to the INVITE.
        let sdp = sdp.filter(|_| !self.session.reliable.settled);
        let reliable = required || (supported && settled && sdp.is_some());
        if !reliable {
            // An unreliable response cannot carry an offer (RFC 3261 §13.2.1).
            let sdp = sdp.filter(|_| !asks_for_offer);
            if let Some(sdp) = sdp {
                self.session.previewed.get_or_insert(sdp.clone());
            }
            let Phase::Incoming(pending) = &self.phase else { return };
            out.push(self.respond(pending, status, sdp, &[]));
            self.progress.said(status, sdp, now);
            return;
        }
        if asks_for_offer && sdp.is_none() && !self.session.reliable.settled {
            // §5: the first reliable response must bring the offer. Until there is one the 100 has to do.
            return;
        }
        if sdp.is_some() {
            self.session.reliable.settled = true;
            self.session.reliable.agreed = !asks_for_offer;
            self.session.told = sdp.cloned();
        }
        if self.session.reliable.open.is_some() {
            let waiting = &mut self.session.reliable.waiting;
            if waiting.len() < MOST_WAITING || sdp.is_some() {
                waiting.push_back((status, sdp.cloned()));
            }
            return;
        }
        self.send_reliably(status, sdp, now, out);
    }

    fn send_reliably(&mut self, status: u16, sdp: Option<&Bytes>, now: Now, out: &mut Vec<Output>) {
        let (Phase::Incoming(pending) | Phase::AnswerHeld(pending, _)) = &self.phase else { return };
        // §3: the first RSeq is anywhere in the lower half of its range.
        let rseq = match self.session.reliable.rseq {
            0 => (self.chance() as u32 >> 2) + 1,
            last => last + 1,
        };
        let number = rseq.to_string();
        let extra = [(Header::Require, "100rel"), (Header::RSeq, number.as_str())];
        let output = self.respond(pending, status, sdp, &extra);
        let Output::Respond { transaction, message, to, .. } = &output else { return };
        let t1 = self.local.timers.t1;
        let open = Unacknowledged {
            transaction: *transaction,
            message: message.clone(),
            status,
            to: *to,
            cseq: pending.request.cseq(),
            has_sdp: sdp.is_some(),
            offer: sdp.is_some() && sdp_of(&pending.request).is_none(),
            interval: t1,
            next: now.mono + t1,
            give_up: now.mono + t1 * 64,
        };
        self.progress.ends();
        self.session.reliable.rseq = rseq;
        self.session.reliable.open = Some(Box::new(open));
        out.push(output);
    }

    /// §3: repeated after T1, 2 T1, 4 T1 ... up to 64 T1; then the INVITE is refused.
    pub(super) fn repeat_provisional(&mut self, now: Now, out: &mut Vec<Output>) {
        let (Phase::Incoming(pending) | Phase::AnswerHeld(pending, _)) = &self.phase else { return };
        let pending = pending.clone();
        let Some(open) = &mut self.session.reliable.open else { return };
        if open.give_up <= now.mono {
            let warning = "399 tandem \"a reliable provisional response was not acknowledged\"";
            out.push(self.respond(&pending, 504, None, &[(Header::Warning, warning)]));
            self.session.reliable.open = None;
            self.answer_is_unsent(504, out);
            self.finish(EndedBy::NoAck, out);
        } else if open.next <= now.mono {
            open.interval *= 2;
            open.next = now.mono + open.interval;
            out.push(Output::Respond {
                transaction: open.transaction,
                status: open.status,
                message: open.message.clone(),
                to: open.to,
            });
        }
    }

    /// A 200 that waits for a PRACK gives way to another final response.
    pub(super) fn answer_is_unsent(&mut self, status: u16, out: &mut Vec<Output>) {
        if std::mem::take(&mut self.session.reliable.release) && matches!(self.phase, Phase::AnswerHeld(..)) {
            out.push(Output::Up(LegEvent::AnswerUnsent { status }));
        }
    }

    /// The peer's PRACK (§3): it names the response by RAck, and may carry an answer or a new offer (§5).
    pub(super) fn peer_pracks(&mut self, pending: Pending, now: Now, out: &mut Vec<Output>) {
        let Some(rack) = pending.request.header(Header::RAck).and_then(rack_of) else {
            let warning = [(Header::Warning, "399 tandem \"RAck missing or malformed\"")];
            out.push(self.respond(&pending, 400, None, &warning));
            return;
        };
        let server = &mut self.session.reliable;
        let last = server.rseq;
        let Some(open) = server.open.take_if(|open| rack == (last, open.cseq)) else {
            out.push(self.respond(&pending, 481, None, &[]));
            return;
        };
        match (open.offer, sdp_of(&pending.request)) {
            (true, Some(sdp)) => {
                self.session.reliable.agreed = true;
                out.push(self.respond(&pending, 200, None, &[]));
                out.push(Output::Up(LegEvent::ReofferAnswered { sdp }));
            }
            (true, None) => {
                let warning = [(Header::Warning, "399 tandem \"no answer in PRACK\"")];
                out.push(self.respond(&pending, 400, None, &warning));
                if let Phase::Incoming(invite) | Phase::AnswerHeld(invite, _) = &self.phase {
                    out.push(self.respond(invite, 488, None, &warning));
                }
                self.finish(EndedBy::NoSession, out);
                return;
            }
            (false, Some(sdp)) if !self.their_offer_is_open() && !self.our_offer_is_open(None) => {
                self.session.updated = Some(Box::new((pending, Some(now.mono + self.local.timers.t1 * 32))));
                out.push(Output::Up(LegEvent::Prack { sdp }));
            }
            (false, Some(_)) => self.answer_prack_as_told(&pending, out),
            (false, None) => out.push(self.respond(&pending, 200, None, &[])),
        }
        self.after_prack(now, out);
    }

    /// §3: a PRACK that is expected gets a 2xx whatever it offers. What cannot go to the other side now is answered with the session
    /// as it is (RFC 6337 §3.3).
    pub(super) fn answer_prack_as_told(&mut self, pending: &Pending, out: &mut Vec<Output>) {
        let told = self.in_force.told().or(self.session.told.as_ref());
        let offer = sdp_of(&pending.request);
        let answer = offer.as_ref().and_then(|offer| answer_as_told(offer, told));
        if let Some(answer) = &answer {
            self.in_force.peer_offers(offer);
            self.in_force.we_answer(answer);
        }
        out.push(self.respond(pending, 200, answer.as_ref(), &[]));
    }

    /// Whoever has our CANCEL may still ask for a PRACK (§4), which says nothing but that his response has come.
    pub(super) fn acknowledge_in_passing(
        &mut self,
        response: &Message,
        offered: bool,
        out: &mut Vec<Output>,
    ) {
        self.early_response(response, offered, out);
        self.prack_in_vain(None, out);
    }

    /// Acknowledges an offer in a reliable response that nobody will answer any more, with every stream refused; not that of the early
    /// dialog `kept`.
    pub(super) fn prack_in_vain(&mut self, kept: Option<&str>, out: &mut Vec<Output>) {
        let lost = |owed: &mut Owed| matches!(owed, Owed::Prack { tag, .. } if Some(tag.as_str()) != kept);
        if let Some(Owed::Prack { tag, rack, offer }) = self.session.owed.take_if(lost) {
            let refusal = refusal_of(&offer, self.in_force.told());
            self.prack(&tag, &rack, refusal.as_ref().map(|refusal| (refusal, offer.clone())), out);
        }
    }

    fn after_prack(&mut self, now: Now, out: &mut Vec<Output>) {
        if std::mem::take(&mut self.session.reliable.release) {
            self.send_answer(now, out);
        } else if matches!(self.phase, Phase::Incoming(_))
            && let Some((status, sdp)) = self.session.reliable.waiting.pop_front()
        {
            self.send_reliably(status, sdp.as_ref(), now, out);
        }
    }

    /// A provisional response to our INVITE: its early dialog is noted, and a reliable one acknowledged, if it is the next.
    /// What the call is to hear of it, if anything.
    pub(super) fn early_response(
        &mut self,
        response: &Message,
        offered: bool,
        out: &mut Vec<Output>,
    ) -> Option<LegEvent> {
        let status = response.status();
        let sdp = sdp_of(response);
        let unreliable = LegEvent::Progress { status, sdp: sdp.clone().filter(|_| offered) };
        let Some(tag) = response.to_tag() else { return Some(unreliable) };
        let rseq = response.header(Header::RSeq).and_then(|rseq| rseq.trim().parse::<u32>().ok());
        let rseq = rseq.filter(|_| response.has_token(Header::Require, "100rel"));
        self.note_allow(response);
        if rseq == Some(0) {
            // §7.1: there is no such RSeq, and its copies could not be told from each other.
            return None;
        }
        if rseq.is_none() && !self.session.allows_update {
            // No request will be sent or taken in this early dialog.
            return Some(unreliable);
        }
        let Some(at) = self.early_of(tag) else { return Some(unreliable) };
        let Some(rseq) = rseq else { return Some(unreliable) };
        self.learn_path(at, response);
        let early = self.session.early.get_mut(at)?;
        let next = early.rseq == 0 || Some(rseq) == early.rseq.checked_add(1);
        if !next || early.taken >= MOST_RELIABLE {
            // §4: one that comes again, or too early, is neither acknowledged nor heard.
            return None;
        }
        let first = early.session.is_none();
        let rack = format!("{rseq} {} INVITE", response.cseq());
        match sdp.filter(|_| first) {
            Some(sdp) if offered => {
                early.take(rseq);
                early.session = Some(sdp.clone());
                self.prack(tag, &rack, None, out);
                Some(LegEvent::EarlySession { status, sdp })
            }
            // Two forks that offer at once cannot both be answered: the second gets no PRACK and gives up.
            Some(_) if self.session.owed.is_some() => None,
            Some(offer) => {
                early.take(rseq);
                self.session.owed = Some(Owed::Prack { tag: tag.to_owned(), rack, offer: offer.clone() });
                Some(LegEvent::EarlySession { status, sdp: offer })
            }
            None => {
                early.take(rseq);
                self.prack(tag, &rack, None, out);
                Some(LegEvent::Progress { status, sdp: None })
            }
        }
    }

    /// The place of the early dialog `tag`, made if it is new.
    fn early_of(&mut self, tag: &str) -> Option<usize> {
        let known = self.session.early.iter().position(|early| early.tag == tag);
        if known.is_some() || self.session.early.len() >= MOST_EARLY {
            return known;
        }
        self.session.early.push(Early {
            tag: tag.to_owned(),
            path: None,
            remote_cseq: None,
            rseq: 0,
            taken: 0,
            session: None,
        });
        Some(self.session.early.len() - 1)
    }

    /// A response that wants a PRACK says how to reach its early dialog; the first of them holds.
    fn learn_path(&mut self, at: usize, response: &Message) {
        let Some(early) = self.session.early.get_mut(at).filter(|early| early.path.is_none()) else { return };
        let mut route_set: Vec<String> = response.values(Header::RecordRoute).map(str::to_owned).collect();
        route_set.reverse();
        early.path = Some(Box::new(Path {
            party: response.header(Header::To).unwrap_or_default().to_owned(),
            target: contact_of(response).unwrap_or_else(|| self.remote_target.clone()),
            route_set,
        }));
    }

    /// RFC 3311 §5.2: the peer's UPDATE refreshes the target of its early dialog.
    pub(super) fn refresh_early_target(&mut self, update: &Message) {
        let path = self.early_mut(update.from_tag()).and_then(|early| early.path.as_mut());
        if let Some((path, contact)) = path.zip(contact_of(update)) {
            path.target = contact;
        }
    }

    /// Acknowledges a reliable response in its early dialog, with the answer to its offer if it had one.
    pub(super) fn prack(
        &mut self,
        tag: &str,
        rack: &str,
        answer: Option<(&Bytes, Bytes)>,
        out: &mut Vec<Output>,
    ) {
        let Some(at) = self.session.early.iter().position(|early| early.tag == tag) else { return };
        let sdp = answer.map(|(sdp, offer)| {
            self.session.early[at].session = Some(offer);
            sdp.clone()
        });
        let mut cseq = None;
        self.within_early(at, |dialog| {
            cseq = Some(dialog.in_dialog_request(Method::Prack, sdp.as_ref(), &[(Header::RAck, rack)], out));
        });
        self.session.pracking = cseq.or(self.session.pracking);
    }

    /// Our PRACK has a final response, or will get none: an offer of ours need not wait for it any longer.
    pub(super) fn prack_answered(&mut self, cseq: u32, out: &mut Vec<Output>) {
        let last = self.session.pracking.take_if(|pracking| *pracking == cseq).is_some();
        let waits = self.session.proposal.as_ref().is_some_and(|proposal| !proposal.waits());
        let open = self.session.updating.is_some() || self.reoffering.is_some();
        if last && waits && !open && (self.is_established() || matches!(self.phase, Phase::Calling(_))) {
            self.send_proposal(out);
        }
    }

    /// Does something as if the early dialog were the dialog.
    pub(super) fn within_early(&mut self, at: usize, act: impl FnOnce(&mut Dialog)) {
        let Some(path) = self.session.early.get(at).and_then(|early| early.path.clone()) else { return };
        let party = std::mem::replace(&mut self.remote_party, path.party);
        let target = std::mem::replace(&mut self.remote_target, path.target);
        let route_set = std::mem::replace(&mut self.route_set, path.route_set);
        act(self);
        self.remote_party = party;
        self.remote_target = target;
        self.route_set = route_set;
    }
}

fn contact_of(message: &Message) -> Option<String> {
    match message.contacts() {
        Ok(Contacts::List(contacts)) => contacts.first().map(|contact| contact.uri.to_owned()),
        Ok(Contacts::None | Contacts::Star) | Err(_) => None,
    }
}

/// RAck (§7.2): the RSeq, and the CSeq number of the INVITE. `None` if it cannot be read.
pub fn rack_of(value: &str) -> Option<(u32, u32)> {
    let mut words = value.split_ascii_whitespace();
    let rack = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (words.next() == Some("INVITE") && words.next().is_none()).then_some(rack)
}
