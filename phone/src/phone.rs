//! The phone itself: sorts what comes in, and runs its calls and its registration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rsip::headers as h;
use rsip::headers::untyped::UntypedHeader;
use serde::{Deserialize, Serialize};

use crate::api::{AutoAnswer, CallHandle, CallState, Command, Event, PhoneConfig};
use crate::call::{Call, refusal_of_interval, refusal_of_offer};
use crate::dialog::Dialog;
use crate::endpoint::{Endpoint, Input};
use crate::manners::Reliability;
use crate::registration::Registration;
use crate::request::Outgoing;
use crate::timer::Timer;
use crate::transaction::Owner;
use crate::wire::{Reply, Request, Response};

/// A SIP phone without sockets and clocks.
///
/// Input: [`command`](Phone::command), [`receive`](Phone::receive) and
/// [`handle_timeout`](Phone::handle_timeout), each with the time since an epoch of the caller's. Output,
/// to be drained after each input: [`poll_transmit`](Phone::poll_transmit),
/// [`poll_event`](Phone::poll_event), and [`poll_timeout`](Phone::poll_timeout) for the time of the next
/// `handle_timeout`. The same inputs and seed give the same outputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Phone {
    ep: Endpoint,
    calls: BTreeMap<CallHandle, Call>,
    /// Calls by [`Dialog::key`].
    dialogs: BTreeMap<String, CallHandle>,
    registration: Registration,
}

impl Phone {
    /// A phone that does nothing until it is told to, or called.
    pub fn new(mut config: PhoneConfig) -> Phone {
        // With no time between retransmissions a phone would send for ever.
        config.t1 = config.t1.max(Duration::from_millis(1));
        Phone {
            ep: Endpoint::new(config),
            calls: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            registration: Registration::default(),
        }
    }

    /// How this phone was set up.
    pub fn config(&self) -> &PhoneConfig {
        &self.ep.config
    }

    /// Does what the script says; a command about a call that is over, or not in the right state, does
    /// nothing. Gives the handle of a dialled call.
    pub fn command(&mut self, now: Duration, command: Command) -> Option<CallHandle> {
        match command {
            Command::Register => self.registration.want(&mut self.ep, now, true),
            Command::Unregister => self.registration.want(&mut self.ep, now, false),
            Command::Dial { number } => return Some(self.dial(now, &number, true)),
            Command::DialWithoutOffer { number } => return Some(self.dial(now, &number, false)),
            Command::Answer(handle) => self.with_twin(handle, |call, ep| call.answer(ep, now)),
            Command::Reject(handle, status) => {
                self.with_twin(handle, |call, ep| call.reject(ep, now, status));
            }
            Command::Redirect { call, number } => {
                self.with_twin(call, |call, ep| call.redirect(ep, now, &number));
            }
            Command::Hangup(handle) => {
                let rings = self.calls.get(&handle).is_some_and(|call| call.state == CallState::Incoming);
                if rings {
                    self.with_twin(handle, |call, ep| call.hang_up(ep, now));
                } else {
                    self.with(handle, |call, ep| call.hang_up(ep, now));
                }
            }
            Command::Hold(handle) => self.with(handle, |call, ep| call.reoffer(ep, now, Some(true))),
            Command::Retrieve(handle) => self.with(handle, |call, ep| call.reoffer(ep, now, Some(false))),
            Command::ReInvite(handle) => self.with(handle, |call, ep| call.reoffer(ep, now, None)),
            Command::Move { call, media } => self.with(call, |call, ep| call.move_media(ep, now, media)),
            Command::ReInviteWithoutOffer(handle) => {
                self.with(handle, |call, ep| call.ask_for_offer(ep, now));
            }
            Command::Update(handle) => self.with(handle, |call, ep| call.update(ep, now)),
            Command::Progress(handle) => self.with(handle, |call, ep| call.progress(ep, now)),
            Command::CancelReInvite(handle) => self.with(handle, |call, ep| call.cancel_reinvite(ep, now)),
            Command::WithholdAck(handle) => self.with(handle, |call, _| call.withholds_ack = true),
            Command::LowCseq(handle) => self.with(handle, |call, ep| call.ask_too_late(ep, now)),
            Command::Neglect(handle) => self.with(handle, |call, ep| call.neglect(ep)),
            Command::Info(handle) => self.with(handle, |call, ep| call.info(ep, now)),
            Command::Fork(handle) => self.fork(now, handle),
            Command::Defy(handle) => self.with(handle, |call, _| call.defies = true),
            Command::Restart => self.restart(),
            Command::Options => self.options(now),
        }
        None
    }

    fn dial(&mut self, now: Duration, number: &str, offer: bool) -> CallHandle {
        let handle = CallHandle(self.ep.fresh_id());
        let call = Call::dial(&mut self.ep, now, handle, number, offer);
        self.add(handle, call);
        handle
    }

    fn restart(&mut self) {
        for (handle, call) in std::mem::take(&mut self.calls) {
            if !call.is_told() {
                let reason = "the phone was switched off".to_owned();
                let ended = Event::Ended { call: handle, by_us: false, status: None, reason };
                self.ep.events.push_back(ended);
            }
        }
        self.dialogs.clear();
        self.registration = Registration::default();
        self.ep.restart();
    }

    /// A second phone behind ours gets the same INVITE.
    fn fork(&mut self, now: Duration, handle: CallHandle) {
        let Some(call) = self.calls.get(&handle) else { return };
        let twin = CallHandle(self.ep.fresh_id());
        if let Some(second) = call.branch(&mut self.ep, now, twin) {
            self.add(twin, second);
        }
    }

    /// Runs `f` on a call and on the branch that was forked from it while nobody has answered.
    fn with_twin(&mut self, handle: CallHandle, f: impl Fn(&mut Call, &mut Endpoint)) {
        let is_twin = |call: &Call| call.twin_of == Some(handle) && call.state == CallState::Incoming;
        let twin = self.calls.iter().find(|(_, call)| is_twin(call)).map(|(handle, _)| *handle);
        self.with(handle, &f);
        if let Some(twin) = twin {
            self.with(twin, &f);
        }
    }

    /// Calls that begin from now on receive their media at `media`; those under way stay where they are.
    pub fn set_media(&mut self, media: SocketAddr) {
        self.ep.config.media = media;
    }

    /// Where a call receives its media, as its ends have last agreed.
    pub fn media_of(&self, call: CallHandle) -> Option<SocketAddr> {
        self.calls.get(&call).map(Call::media)
    }

    /// Takes a datagram; anything unreadable is an [`Event::Protocol`].
    pub fn receive(&mut self, now: Duration, from: SocketAddr, datagram: &[u8]) {
        match self.ep.receive(now, from, datagram) {
            Input::Absorbed => {}
            Input::Request(tx, request) => self.on_request(now, tx, &request),
            Input::Ack(ack) => {
                if let Some(handle) = self.call_of(&ack) {
                    self.with(handle, |call, ep| call.on_ack(ep, now, &ack));
                }
            }
            Input::Response(tx, owner, response) => self.on_response(now, tx, owner, &response),
            Input::Fork(invite, response) => self.on_fork(now, &invite, &response),
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(timer) = self.ep.timers.pop_due(now) {
            match timer {
                Timer::ClientRetransmit(tx) => self.ep.on_client_retransmit(now, tx),
                Timer::ServerRetransmit(tx) => self.ep.on_server_retransmit(now, tx),
                Timer::ServerEnd(tx) => self.ep.on_server_end(tx),
                Timer::ClientEnd(tx) => {
                    if let Some((owner, method)) = self.ep.on_client_end(tx) {
                        self.on_transaction_timeout(now, tx, owner, method);
                    }
                }
                Timer::Ring(call) => self.with(call, |call, ep| call.on_ring_timer(ep, now)),
                Timer::Answer(call) => self.with(call, |call, ep| call.answer(ep, now)),
                Timer::Resend2xx(call, cseq) => {
                    self.with(call, |call, ep| call.on_resend_timer(ep, now, cseq));
                }
                Timer::AckMissing(call, cseq) => {
                    self.with(call, |call, ep| call.on_ack_missing(ep, now, cseq));
                }
                Timer::CancelGiveUp(call) => self.with(call, |call, ep| call.on_cancel_give_up(ep, now)),
                Timer::RingLimit(call) => self.with(call, |call, ep| call.on_ring_limit(ep, now)),
                Timer::ReInvite(call) => self.with(call, |call, ep| call.on_reinvite_timer(ep, now)),
                Timer::ResendReliable(call) => {
                    self.with(call, |call, ep| call.on_resend_reliable(ep, now));
                }
                Timer::PrackMissing(call) => self.with(call, |call, ep| call.on_prack_missing(ep, now)),
                Timer::Refresh(call) => self.with(call, |call, ep| call.on_refresh_timer(ep, now)),
                Timer::SessionExpires(call) => self.with(call, |call, ep| call.on_session_expired(ep, now)),
                Timer::Ponder(call) => self.with(call, |call, ep| call.on_ponder_timer(ep, now)),
                Timer::Register => self.registration.on_timer(&mut self.ep, now),
            }
        }
    }

    /// When [`handle_timeout`](Phone::handle_timeout) is next wanted.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.ep.timers.next()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.ep.outbox.pop_front()
    }

    /// The next thing to tell the script.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.ep.events.pop_front()
    }

    /// The calls that are not over.
    pub fn calls(&self) -> impl Iterator<Item = (CallHandle, CallState)> {
        let live = self.calls.iter().filter(|(_, call)| call.state != CallState::Ended);
        live.map(|(handle, call)| (*handle, call.state))
    }

    /// Whether there is no call, no transaction and no timer but the one of the registration.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
            && self.ep.is_empty()
            && self.registration.is_idle()
            && self.ep.timers.only_registration()
    }

    fn add(&mut self, handle: CallHandle, call: Call) {
        let key = Dialog::key(&call.dialog.call_id, &call.dialog.local_tag);
        self.dialogs.insert(key, handle);
        self.calls.insert(handle, call);
        self.sweep(handle);
    }

    /// Runs `f` on a call, and forgets the call when nothing is left of it.
    fn with(&mut self, handle: CallHandle, f: impl FnOnce(&mut Call, &mut Endpoint)) {
        if let Some(call) = self.calls.get_mut(&handle) {
            f(call, &mut self.ep);
            self.sweep(handle);
        }
    }

    fn sweep(&mut self, handle: CallHandle) {
        if self.calls.get(&handle).is_some_and(|call| call.is_finished(&self.ep))
            && let Some(call) = self.calls.remove(&handle)
        {
            self.dialogs.remove(&Dialog::key(&call.dialog.call_id, &call.dialog.local_tag));
        }
    }

    /// The call whose dialog a request belongs to.
    fn call_of(&self, request: &Request) -> Option<CallHandle> {
        let key = Dialog::key(&request.head.call_id, request.head.to.tag.as_deref()?);
        let handle = *self.dialogs.get(&key)?;
        let known = &self.calls.get(&handle)?.dialog.remote_tag;
        // Before our INVITE has any answer with a tag, every peer is the right one.
        (known.is_none() || *known == request.head.from.tag).then_some(handle)
    }

    fn on_request(&mut self, now: Duration, tx: u64, request: &Request) {
        if request.method == "CANCEL" {
            return self.on_cancel(now, tx, request);
        }
        let tag = self.ep.rng.token();
        let required: Vec<String> =
            request.head.required().into_iter().filter(|option| !self.ep.supports(option)).collect();
        if !required.is_empty() {
            let unsupported = h::Unsupported::new(required.join(", "));
            self.ep.respond(now, tx, Reply::new(420, &tag).with(unsupported));
            return;
        }
        // RFC 3261 section 12.2.2: whatever is asked within a dialog that is not there is answered 481, below.
        let within = request.head.to.tag.is_some();
        let call = self.call_of(request).and_then(|handle| self.calls.get(&handle));
        let known = call.is_some_and(|call| call.state != CallState::Ended);
        if request.method == "OPTIONS" && (known || !within) {
            let reply = Reply::new(200, &tag).contact(&self.ep.contact(), self.ep.allow());
            self.ep.respond(now, tx, reply.with(h::Accept::new("application/sdp")));
            return;
        }
        if within {
            match self.call_of(request).filter(|_| request.method != "OPTIONS") {
                Some(handle) => self.with(handle, |call, ep| call.on_request(ep, now, tx, request)),
                None => {
                    self.ep.respond(now, tx, Reply::new(481, &tag));
                }
            }
            return;
        }
        match request.method.as_str() {
            "INVITE" => self.on_invite(now, tx, request, &tag),
            "BYE" => {
                self.ep.respond(now, tx, Reply::new(481, &tag));
            }
            _ => {
                self.ep.respond(now, tx, Reply::new(405, &tag).with(h::Allow::new(self.ep.allow())));
            }
        }
    }

    fn on_invite(&mut self, now: Duration, tx: u64, invite: &Request, tag: &str) {
        if self.ep.config.auto == AutoAnswer::Ignore {
            return self.ep.ignore(tx);
        }
        let merged = self.calls.values().any(|call| call.is_merged(invite));
        let without = self.ep.config.manners.reliable == Reliability::Required && !invite.head.can("100rel");
        let refusal = match (merged, without) {
            (true, _) => Some(482),
            // RFC 3262 section 3: whoever wants all his responses acknowledged says so.
            (false, true) => {
                let reply = Reply::new(421, tag).with(h::Require::new("100rel"));
                self.ep.respond(now, tx, reply);
                return;
            }
            (false, false) => refusal_of_offer(&self.ep, invite),
        };
        if let Some(reply) = refusal_of_interval(&self.ep, &invite.head, tag) {
            self.ep.respond(now, tx, reply);
            return;
        }
        if let Some(status) = refusal {
            self.ep.respond(now, tx, Reply::new(status, tag));
            return;
        }
        if invite.head.contact().is_none() {
            self.ep.protocol("an INVITE has no Contact");
        }
        let handle = CallHandle(self.ep.fresh_id());
        let call = Call::invited(&mut self.ep, now, handle, tx, invite);
        self.add(handle, call);
    }

    fn on_cancel(&mut self, now: Duration, tx: u64, cancel: &Request) {
        let tag = self.ep.rng.token();
        let Some(invite) = self.ep.cancelled_invite(cancel) else {
            self.ep.respond(now, tx, Reply::new(481, &tag));
            return;
        };
        let meant = self.calls.iter().find(|(_, call)| call.is_invited_by(invite) && call.twin_of.is_none());
        let handle = meant.map(|(handle, _)| *handle);
        // RFC 3261 section 9.2: the To tag of the 200 should be that of the INVITE's response.
        let call = handle.and_then(|handle| self.calls.get(&handle));
        let tag = call.map_or(tag, |call| call.dialog.local_tag.clone());
        self.ep.respond(now, tx, Reply::new(200, &tag));
        if let Some(handle) = handle {
            self.with_twin(handle, |call, ep| call.on_cancel(ep, now, invite));
        }
    }

    fn on_response(&mut self, now: Duration, tx: u64, owner: Owner, response: &Response) {
        match owner {
            Owner::Call(handle, role) => {
                self.with(handle, |call, ep| call.on_response(ep, now, tx, role, response));
            }
            Owner::Registration => self.registration.on_response(&mut self.ep, now, tx, response),
            Owner::Options => {
                if let Some(mut again) = self.ep.answer_challenge(tx, response) {
                    again.cseq += 1;
                    self.ep.send(now, again, Owner::Options);
                } else if response.status >= 200 {
                    self.ep.events.push_back(Event::OptionsAnswered { status: response.status });
                }
            }
            Owner::Stray => {}
        }
    }

    fn on_transaction_timeout(&mut self, now: Duration, tx: u64, owner: Owner, method: String) {
        let call = match owner {
            Owner::Call(handle, _) => Some(handle),
            Owner::Registration | Owner::Options | Owner::Stray => None,
        };
        self.ep.events.push_back(Event::Timeout { call, method });
        match owner {
            Owner::Call(handle, role) => self.with(handle, |call, ep| call.on_timeout(ep, now, tx, role)),
            Owner::Registration => self.registration.on_timeout(&mut self.ep, now),
            Owner::Options | Owner::Stray => {}
        }
    }

    /// A 2xx of another dialog: acknowledged and ended at once, RFC 3261 section 13.2.2.4.
    fn on_fork(&mut self, now: Duration, invite: &Outgoing, response: &Response) {
        self.ep.protocol("two final answers to INVITE: a second 2xx, of another dialog");
        let Some(tag) = &response.head.from.tag else { return };
        let key = Dialog::key(&response.head.call_id, tag);
        let Some(call) = self.dialogs.get(&key).and_then(|handle| self.calls.get(handle)) else { return };
        let mut other = call.dialog.fork(response);
        let ack = other.ack(&self.ep, invite);
        self.ep.send_ack(None, &ack);
        let bye = other.request(&self.ep, "BYE");
        self.ep.send(now, bye, Owner::Stray);
    }

    fn options(&mut self, now: Duration) {
        let identity = self.ep.identity();
        let request = Outgoing {
            method: "OPTIONS".into(),
            uri: format!("sip:{}", self.ep.config.domain),
            to_addr: self.ep.config.server,
            from: format!("{identity};tag={}", self.ep.rng.token()),
            to: format!("<sip:{}>", self.ep.config.domain),
            call_id: self.ep.rng.token(),
            cseq: 1,
            routes: Vec::new(),
            contact: Some(self.ep.contact()),
            expires: None,
            extra: Vec::new(),
            body: None,
            credentials: Vec::new(),
            challenged: [0, 0],
        };
        self.ep.send(now, request, Owner::Options);
    }
}
