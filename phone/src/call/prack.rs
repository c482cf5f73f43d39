//! Reliable provisional responses (RFC 3262): ours, one at a time, and the peer's.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{CallState, Event};
use crate::endpoint::Endpoint;
use crate::manners::Reliability;
use crate::sdp::{Audio, Sdp};
use crate::timer::Timer;
use crate::transaction::{Owner, Role};
use crate::wire::{Reply, Request, Response};

use super::Call;

/// Our provisional responses to the peer's INVITE.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Server {
    /// The caller has RFC 3262, and so have we.
    supported: bool,
    /// One of both wants each provisional response reliable.
    required: bool,
    rseq: u32,
    open: Option<Open>,
    /// Further ones, and whether they are to bring a description.
    waiting: VecDeque<(u16, bool)>,
    /// A description of ours has gone reliably.
    settled: bool,
    /// What the peer is to be sent, once offer and answer are exchanged.
    agreed: Option<Audio>,
    /// The script has answered; the 200 waits for a PRACK.
    answers: bool,
}

/// A provisional response that goes out again until its PRACK comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Open {
    to: SocketAddr,
    bytes: Vec<u8>,
    described: bool,
    offered: bool,
    interval: Duration,
}

impl Server {
    /// As the peer's INVITE has it.
    pub(super) fn of(ep: &Endpoint, invite: &Request) -> Server {
        let ours = ep.config.manners.reliable;
        let supported = ours != Reliability::None && invite.head.can("100rel");
        let required = supported && (ours == Reliability::Required || invite.head.requires("100rel"));
        Server { supported, required, ..Server::default() }
    }

    /// The first exchange is over, and the peer has said so.
    pub(super) fn agreed(&self) -> Option<Audio> {
        self.agreed.filter(|_| self.open.as_ref().is_none_or(|open| !open.described))
    }

    /// An offer of ours waits for its PRACK.
    pub(super) fn offers(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.offered)
    }
}

/// The peer's provisional responses to our INVITE.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Client {
    /// The last RSeq of each early dialog, by its tag.
    last: BTreeMap<String, u32>,
    /// The early dialog whose first exchange is over.
    agreed: Option<(String, Audio)>,
    /// Our PRACKs without a final response, and whether they offer.
    open: BTreeMap<u64, bool>,
}

impl Client {
    /// What was agreed in the early dialog with this tag.
    pub(super) fn agreed_in(&self, tag: Option<&str>) -> Option<Audio> {
        self.agreed.as_ref().filter(|(known, _)| Some(known.as_str()) == tag).map(|(_, audio)| *audio)
    }

    /// A PRACK of ours has no final response.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    pub(super) fn offers(&self) -> bool {
        self.open.values().any(|offers| *offers)
    }
}

/// The header fields that tell of RFC 3262 in our first INVITE.
pub(super) fn request_fields(ep: &Endpoint) -> Vec<(String, String)> {
    let field = |name: &str| vec![(name.to_owned(), "100rel".to_owned())];
    match ep.config.manners.reliable {
        Reliability::None => Vec::new(),
        Reliability::Supported => field("Supported"),
        Reliability::Required => [field("Supported"), field("Require")].concat(),
    }
}

impl Call {
    /// The script wants a 183.
    pub(crate) fn progress(&mut self, ep: &mut Endpoint, now: Duration) {
        self.provisional(ep, now, 183, true);
    }

    /// Says a provisional response, with a description if there is one to say.
    pub(super) fn provisional(&mut self, ep: &mut Endpoint, now: Duration, status: u16, described: bool) {
        let Some((tx, offer)) = self.invited.clone() else { return };
        if self.reliable.answers {
            return;
        }
        let asks = offer.is_empty();
        // Section 5: the first reliable one makes the offer that the INVITE asks for.
        let first = self.reliable.required && asks;
        let described = (described || first) && !self.reliable.settled;
        if self.reliable.required || self.reliable.supported && described {
            self.reliable.settled |= described;
            self.reliable.waiting.push_back((status, described));
            return self.next_reliable(ep, now);
        }
        let contact = ep.contact();
        let tag = self.dialog.local_tag.clone();
        let mut reply = Reply::new(status, &tag).contact(&contact, ep.allow());
        if described && !asks {
            let codecs = ep.config.codecs.clone();
            if let Some((sdp, audio)) = self.read_sdp(ep, &offer) {
                let direction = self.wanted_direction().limited_by(audio.direction);
                reply = reply.sdp(self.local.answer(&sdp, &codecs, direction).unwrap_or_default());
            }
        }
        ep.respond(now, tx, reply);
    }

    fn next_reliable(&mut self, ep: &mut Endpoint, now: Duration) {
        let Some((tx, offer)) = self.invited.clone().filter(|_| self.reliable.open.is_none()) else { return };
        let Some((status, described)) = self.reliable.waiting.pop_front() else { return };
        self.reliable.rseq = match self.reliable.rseq {
            0 => 1 + ep.rng.below((1 << 31) - 1) as u32,
            last => last + 1,
        };
        let fields = vec![
            ("Require".to_owned(), "100rel".to_owned()),
            ("RSeq".to_owned(), self.reliable.rseq.to_string()),
        ];
        let contact = ep.contact();
        let tag = self.dialog.local_tag.clone();
        let mut reply = Reply::new(status, &tag).contact(&contact, ep.allow()).extra(fields);
        let codecs = ep.config.codecs.clone();
        let offered = described && offer.is_empty();
        if offered {
            reply = reply.sdp(self.local.offer(&codecs, self.wanted_direction()));
        } else if described && let Some((sdp, audio)) = self.read_sdp(ep, &offer) {
            let direction = self.wanted_direction().limited_by(audio.direction);
            reply = reply.sdp(self.local.answer(&sdp, &codecs, direction).unwrap_or_default());
            self.agree_early(ep, audio);
        }
        let interval = ep.config.t1;
        if let Some((to, bytes)) = ep.respond(now, tx, reply) {
            self.reliable.open = Some(Open { to, bytes, described, offered, interval });
            ep.timers.set(Timer::ResendReliable(self.handle), now + interval);
            ep.timers.set(Timer::PrackMissing(self.handle), now + interval * 64);
        }
    }

    /// Section 3: after T1, 2 T1, 4 T1 and so on.
    pub(crate) fn on_resend_reliable(&mut self, ep: &mut Endpoint, now: Duration) {
        let Some(open) = &mut self.reliable.open else { return };
        open.interval *= 2;
        ep.outbox.push_back((open.to, open.bytes.clone()));
        ep.timers.set(Timer::ResendReliable(self.handle), now + open.interval);
    }

    /// Section 3: no PRACK for 64*T1, so the INVITE is refused.
    pub(crate) fn on_prack_missing(&mut self, ep: &mut Endpoint, now: Duration) {
        ep.protocol_of(&self.dialog.call_id, "PRACK missing: a reliable response was never acknowledged");
        self.reject(ep, now, 504);
    }

    /// A 2xx that the script wants waits while a description of ours is not acknowledged (section 3); true if so.
    pub(super) fn holds_answer(&mut self, ep: &mut Endpoint) -> bool {
        self.reliable.answers = self.reliable.open.as_ref().is_some_and(|open| open.described);
        if !self.reliable.answers {
            // Its PRACK may still come.
            ep.timers.cancel(Timer::ResendReliable(self.handle));
            ep.timers.cancel(Timer::PrackMissing(self.handle));
            self.reliable.waiting.clear();
        }
        self.reliable.answers
    }

    /// The peer's PRACK.
    pub(super) fn on_prack(&mut self, ep: &mut Endpoint, now: Duration, tx: u64, prack: &Request) {
        let tag = self.dialog.local_tag.clone();
        let rack = format!("{} {} INVITE", self.reliable.rseq, self.invite_cseq);
        let named =
            prack.head.other("RAck").map(|rack| rack.split_whitespace().collect::<Vec<_>>().join(" "));
        let meant = named.as_ref() == Some(&rack);
        let Some(open) = self.reliable.open.take_if(|_| meant) else {
            ep.protocol(format!("a PRACK names no response that waits for one: {named:?}"));
            ep.respond(now, tx, Reply::new(481, &tag));
            return;
        };
        ep.timers.cancel(Timer::ResendReliable(self.handle));
        ep.timers.cancel(Timer::PrackMissing(self.handle));
        let agreed = self.read_sdp(ep, &prack.body);
        let mut reply = Reply::new(200, &tag);
        match agreed {
            Some((_, audio)) if open.offered => self.agree_early(ep, audio),
            Some((sdp, audio)) => {
                let direction = self.wanted_direction().limited_by(audio.direction);
                let answer = self.local.answer(&sdp, &ep.config.codecs, direction);
                reply = reply.sdp(answer.unwrap_or_default());
                self.agree_early(ep, audio);
            }
            None if open.offered => {
                ep.protocol("the PRACK has no SDP that answers the offer of the reliable response");
                ep.respond(now, tx, Reply::new(400, &tag));
                return self.reject(ep, now, 488);
            }
            None => {}
        }
        ep.respond(now, tx, reply);
        if std::mem::take(&mut self.reliable.answers) {
            self.answer(ep, now);
        } else {
            self.next_reliable(ep, now);
        }
    }

    /// What an early dialog has agreed to, or changed.
    pub(super) fn agree_early(&mut self, ep: &mut Endpoint, audio: Audio) {
        if self.outgoing {
            if let Some(tag) = self.dialog.remote_tag.clone() {
                self.early.agreed = Some((tag, audio));
            }
        } else {
            self.reliable.agreed = Some(audio);
        }
        self.agreed_media = Some(self.local.described());
        let (call, remote_media, codec) = (self.handle, audio.address, audio.codec);
        ep.events.push_back(Event::EarlyMedia { call, remote_media, codec });
    }

    /// What is agreed before the answer, if this is before it and it is.
    pub(super) fn agreed_early(&self) -> Option<Audio> {
        match self.state {
            CallState::Calling | CallState::Ringing => {
                self.early.agreed_in(self.dialog.remote_tag.as_deref())
            }
            CallState::Incoming => self.reliable.agreed(),
            CallState::Answered | CallState::Established | CallState::Ending | CallState::Ended => None,
        }
    }

    /// Acknowledges a provisional response if it is a reliable one (section 4); true if it is nothing new.
    pub(super) fn acknowledge_early(
        &mut self,
        ep: &mut Endpoint,
        now: Duration,
        tx: u64,
        response: &Response,
    ) -> bool {
        let head = &response.head;
        let rseq = head.other("RSeq").filter(|_| head.requires("100rel"));
        let (Some(rseq), Some(tag)) = (rseq, head.to.tag.clone()) else { return false };
        let rseq: u32 = rseq.parse().unwrap_or(0);
        if ep.config.manners.reliable == Reliability::None || !(1..1 << 31).contains(&rseq) {
            ep.protocol(format!("a reliable response that was not asked for, or with RSeq {rseq}"));
            return true;
        }
        match self.early.last.get(&tag) {
            Some(last) if rseq <= *last => return true,
            Some(last) if rseq > last + 1 => {
                ep.protocol(format!("RSeq skips from {last} to {rseq}"));
                return true;
            }
            Some(_) | None => {}
        }
        let first = self.early.last.insert(tag.clone(), rseq).is_none();
        let Some(invite) = ep.request(tx).cloned() else { return true };
        let mut prack = self.dialog.request_within(ep, response, "PRACK");
        prack.extra.push(("RAck".to_owned(), format!("{rseq} {} INVITE", invite.cseq)));
        let described = if head.is_sdp() { self.read_sdp(ep, &response.body) } else { None };
        let settled = self.early.agreed_in(Some(&tag)).is_some();
        match described {
            Some(_) if settled => ep.protocol("SDP in a reliable response after the answer"),
            Some((sdp, audio)) => {
                if invite.body.is_none() {
                    let direction = self.wanted_direction().limited_by(audio.direction);
                    prack.body = self.local.answer(&sdp, &ep.config.codecs, direction);
                } else if ep.config.manners.offers_in_prack && !self.hung_up {
                    prack.body = Some(self.local.offer(&ep.config.codecs, self.wanted_direction()));
                }
                self.agree_early(ep, audio);
            }
            None if first && invite.body.is_none() => {
                ep.protocol("the first reliable response to an INVITE without offer makes none");
            }
            None => {}
        }
        let offers = prack.body.is_some() && invite.body.is_some();
        let tx = ep.send(now, prack, Owner::Call(self.handle, Role::Prack));
        self.early.open.insert(tx, offers);
        false
    }

    pub(super) fn on_prack_response(&mut self, ep: &mut Endpoint, tx: u64, response: &Response) {
        if response.status < 200 {
            return;
        }
        let Some(offered) = self.early.open.remove(&tx) else { return };
        let pending = matches!(self.state, CallState::Calling | CallState::Ringing);
        match response.status {
            200..300 if offered => match self.read_sdp(ep, &response.body) {
                Some((_, audio)) if pending => self.agree_early(ep, audio),
                Some((_, audio)) if self.state == CallState::Established => self.tell_changed(ep, audio),
                Some(_) => {}
                None if Sdp::parse(&response.body).is_some() => {
                    ep.protocol("the 2xx to a PRACK refuses all that is offered");
                }
                None => ep.protocol("the 2xx to a PRACK has no SDP that answers the offer"),
            },
            200..300 => {}
            status if pending && !self.hung_up => ep.protocol(format!("a PRACK got {status}")),
            _ => {}
        }
    }

    /// A PRACK of ours got no answer at all.
    pub(super) fn on_prack_timeout(&mut self, tx: u64) {
        self.early.open.remove(&tx);
    }
}
