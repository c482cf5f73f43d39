//! One call of a phone: its dialog, its offer/answer and what is under way.
//!
//! [`client`] handles what we ask, [`server`] what we are asked; this file holds the state, the script's
//! commands and the ways a call ends.

mod client;
mod prack;
mod reinvite;
mod server;
mod session_timer;
mod update;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use server::refusal_of_offer;
use server::refuse_offer;
pub(crate) use session_timer::refusal_of_interval;

use crate::api::{CallHandle, CallState, Event};
use crate::dialog::Dialog;
use crate::endpoint::Endpoint;
use crate::sdp::{Audio, Direction, LocalSdp, RemoteSdp, Sdp};
use crate::timer::{RING_LIMIT, Timer};
use crate::transaction::{Owner, Role};
use crate::wire::{Reply, Request};

/// A 2xx of ours that waits for its ACK.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unacked {
    to: SocketAddr,
    bytes: Vec<u8>,
    interval: Duration,
    /// The 2xx carried our offer: the ACK carries the answer.
    offered: bool,
}

/// A call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    handle: CallHandle,
    pub(crate) state: CallState,
    /// We sent the first INVITE, hence own the Call-ID (RFC 3261 section 14.1).
    outgoing: bool,
    pub(crate) dialog: Dialog,
    local: LocalSdp,
    remote_sdp: RemoteSdp,
    /// What the peer described last and we agreed to.
    remote: Option<Audio>,
    /// Where we receive media since then.
    agreed_media: Option<SocketAddr>,
    /// The script wants the peer held.
    holding: bool,
    /// Our INVITE or re-INVITE without a final response.
    inviting: Option<u64>,
    /// Our re-INVITE, while it may have to be taken back.
    reinvite: reinvite::Reinvite,
    /// The INVITE that we have not answered, and its body.
    invited: Option<(u64, Vec<u8>)>,
    /// Its CSeq.
    invite_cseq: u32,
    /// The peer's re-INVITE that is thought about.
    pondered: Option<reinvite::Pondered>,
    /// Our reliable provisional responses, and the peer's.
    reliable: prack::Server,
    early: prack::Client,
    session_timer: session_timer::SessionTimer,
    /// The next 2xx of the peer's gets no ACK.
    pub(crate) withholds_ack: bool,
    /// 2xx of ours without ACK, by CSeq.
    unacked: BTreeMap<u32, Unacked>,
    /// A provisional response has come: CANCEL may be sent.
    proceeding: bool,
    ringing_told: bool,
    early_told: bool,
    /// The script hung up; the message that says so may have to wait.
    hung_up: bool,
    /// A re-INVITE that waits for the end of another INVITE.
    reinvite_wanted: bool,
    /// The peer's `Ended` or `Failed` has been told.
    told: bool,
    /// What the end is told with when our BYE is answered.
    bye_reason: Option<String>,
    /// The next re-INVITE leaves the offer to the peer.
    without_offer: bool,
    /// Our UPDATE without a final response.
    updating: Option<u64>,
    /// It rings on after a CANCEL.
    pub(crate) defies: bool,
    /// The call whose INVITE was forked to this one.
    pub(crate) twin_of: Option<CallHandle>,
}

impl Call {
    fn new(ep: &mut Endpoint, handle: CallHandle, dialog: Dialog, outgoing: bool) -> Call {
        let session = ep.rng.next();
        Call {
            handle,
            state: if outgoing { CallState::Calling } else { CallState::Incoming },
            outgoing,
            dialog,
            local: LocalSdp::new(ep.config.media, session),
            remote_sdp: RemoteSdp::default(),
            remote: None,
            agreed_media: None,
            holding: false,
            inviting: None,
            reinvite: reinvite::Reinvite::default(),
            invited: None,
            invite_cseq: 0,
            pondered: None,
            reliable: prack::Server::default(),
            early: prack::Client::default(),
            session_timer: session_timer::SessionTimer::default(),
            withholds_ack: false,
            unacked: BTreeMap::new(),
            proceeding: false,
            ringing_told: false,
            early_told: false,
            hung_up: false,
            reinvite_wanted: false,
            told: false,
            bye_reason: None,
            without_offer: false,
            updating: None,
            defies: false,
            twin_of: None,
        }
    }

    /// Calls `number`.
    pub(crate) fn dial(
        ep: &mut Endpoint,
        now: Duration,
        handle: CallHandle,
        number: &str,
        offer: bool,
    ) -> Call {
        let uri = format!("sip:{number}@{}", ep.config.domain);
        let dialog = Dialog::calling(ep, &uri);
        let mut call = Call::new(ep, handle, dialog, true);
        let mut invite = call.dialog.request(ep, "INVITE");
        invite.to_addr = ep.config.server;
        invite.body = offer.then(|| call.local.offer(&ep.config.codecs, Direction::SendRecv));
        invite.extra = prack::request_fields(ep);
        invite.extra.extend(call.timer_fields(ep));
        call.inviting = Some(ep.send(now, invite, Owner::Call(handle, Role::Invite)));
        ep.timers.set(Timer::RingLimit(handle), now + RING_LIMIT);
        call
    }

    /// The same call at another phone, which rings; none once it is answered.
    pub(crate) fn branch(&self, ep: &mut Endpoint, now: Duration, handle: CallHandle) -> Option<Call> {
        if self.state != CallState::Incoming || self.twin_of.is_some() {
            return None;
        }
        // The other phone has no RFC 3262.
        let reliable = prack::Server::default();
        let mut twin = Call { handle, twin_of: Some(self.handle), reliable, ..self.clone() };
        twin.dialog.rename(&ep.rng.token());
        ep.timers.set(Timer::RingLimit(handle), now + RING_LIMIT + ep.config.t1 * 64);
        twin.on_ring_timer(ep, now);
        Some(twin)
    }

    /// Whether its end has been told.
    pub(crate) fn is_told(&self) -> bool {
        self.told
    }

    /// Whether nothing about this call is left to do.
    pub(crate) fn is_finished(&self, ep: &Endpoint) -> bool {
        self.state == CallState::Ended && self.inviting.is_none_or(|tx| !ep.is_open(tx))
    }

    /// The script hangs up.
    pub(crate) fn hang_up(&mut self, ep: &mut Endpoint, now: Duration) {
        if self.hung_up {
            return;
        }
        match self.state {
            CallState::Calling | CallState::Ringing => {
                self.hung_up = true;
                self.state = CallState::Ending;
                if self.proceeding {
                    self.cancel(ep, now);
                }
            }
            CallState::Incoming => self.reject(ep, now, 486),
            // RFC 3261 section 15: the callee's BYE waits for the ACK.
            CallState::Answered => self.hung_up = true,
            CallState::Established => {
                self.hung_up = true;
                self.bye(ep, now, "hung up");
            }
            CallState::Ending | CallState::Ended => {}
        }
    }

    /// The script refuses an incoming call.
    pub(crate) fn reject(&mut self, ep: &mut Endpoint, now: Duration, status: u16) {
        let Some((tx, _)) = self.invited.take() else { return };
        let status = if (300..700).contains(&status) { status } else { 603 };
        ep.respond(now, tx, Reply::new(status, &self.dialog.local_tag));
        self.end(ep, true, Some(status), "refused");
    }

    /// The script sends the caller to another number.
    pub(crate) fn redirect(&mut self, ep: &mut Endpoint, now: Duration, number: &str) {
        let Some((tx, _)) = self.invited.take() else { return };
        let contact = format!("<sip:{number}@{}>", ep.config.domain);
        ep.respond(now, tx, Reply::new(302, &self.dialog.local_tag).contact(&contact, ep.allow()));
        self.end(ep, true, Some(302), "redirected");
    }

    /// The script wants another hold state, or the same one offered again.
    pub(crate) fn reoffer(&mut self, ep: &mut Endpoint, now: Duration, holding: Option<bool>) {
        if !matches!(self.state, CallState::Answered | CallState::Established) || self.hung_up {
            return;
        }
        self.holding = holding.unwrap_or(self.holding);
        self.reinvite_wanted = true;
        self.next(ep, now);
    }

    /// The script wants the peer to offer again.
    pub(crate) fn ask_for_offer(&mut self, ep: &mut Endpoint, now: Duration) {
        self.without_offer = true;
        self.reoffer(ep, now, None);
    }

    /// The script wants an INFO sent.
    pub(crate) fn info(&mut self, ep: &mut Endpoint, now: Duration) {
        if self.state == CallState::Established && !self.hung_up {
            let info = self.dialog.request(ep, "INFO");
            ep.send(now, info, Owner::Call(self.handle, Role::Info));
        }
    }

    /// Where it receives its media, as last agreed.
    pub(crate) fn media(&self) -> SocketAddr {
        self.agreed_media.unwrap_or_else(|| self.local.media())
    }

    /// The script wants its media elsewhere.
    pub(crate) fn move_media(&mut self, ep: &mut Endpoint, now: Duration, media: SocketAddr) {
        if matches!(self.state, CallState::Answered | CallState::Established) && !self.hung_up {
            self.local.move_to(media);
            self.reoffer(ep, now, None);
        }
    }

    /// Nobody answered and nobody refused for [`RING_LIMIT`].
    pub(crate) fn on_ring_limit(&mut self, ep: &mut Endpoint, now: Duration) {
        match self.state {
            CallState::Calling | CallState::Ringing => self.hang_up(ep, now),
            CallState::Incoming => self.reject(ep, now, 480),
            CallState::Answered | CallState::Established | CallState::Ending | CallState::Ended => {}
        }
    }

    /// The direction that we offer: what the script wants.
    fn wanted_direction(&self) -> Direction {
        if self.holding { Direction::SendOnly } else { Direction::SendRecv }
    }

    /// Starts what waited: a BYE, else a re-INVITE, if no INVITE is under way in either direction.
    fn next(&mut self, ep: &mut Endpoint, now: Duration) {
        if self.state != CallState::Established || !self.unacked.is_empty() {
            return;
        }
        if self.hung_up {
            return self.bye(ep, now, "hung up");
        }
        // After a 491 the timer decides when.
        let waits = ep.timers.is_set(Timer::ReInvite(self.handle)) || self.pondered.is_some();
        if !self.reinvite_wanted || self.inviting.is_some() || self.updating.is_some() || waits {
            return;
        }
        self.reinvite_wanted = false;
        let mut invite = self.dialog.request(ep, "INVITE");
        let without_offer = std::mem::take(&mut self.without_offer);
        let direction = self.wanted_direction();
        invite.body = (!without_offer).then(|| self.local.offer(&ep.config.codecs, direction));
        invite.extra = self.timer_fields(ep);
        self.reinvite = reinvite::Reinvite::default();
        self.inviting = Some(ep.send(now, invite, Owner::Call(self.handle, Role::ReInvite)));
    }

    fn cancel(&mut self, ep: &mut Endpoint, now: Duration) {
        let Some(tx) = self.inviting else { return };
        ep.send_cancel(now, tx, Owner::Call(self.handle, Role::Cancel));
        ep.timers.set(Timer::CancelGiveUp(self.handle), now + ep.config.t1 * 64);
    }

    /// RFC 3261 section 9.1: no final response to a cancelled INVITE.
    pub(crate) fn on_cancel_give_up(&mut self, ep: &mut Endpoint, now: Duration) {
        let Some(tx) = self.inviting.take() else { return };
        ep.forget_client(tx);
        let what = "no final response to an INVITE that was cancelled or whose call ended";
        ep.protocol_of(&self.dialog.call_id, what);
        if self.state == CallState::Established {
            // A re-INVITE: it counts as cancelled.
            return self.next(ep, now);
        }
        self.end(ep, true, None, "cancelled, without a final response");
    }

    fn bye(&mut self, ep: &mut Endpoint, now: Duration, reason: &str) {
        if self.bye_reason.is_some() || self.state == CallState::Ended {
            return;
        }
        self.bye_reason = Some(reason.to_owned());
        self.state = CallState::Ending;
        self.stop_2xx(ep);
        self.refuse_pondered(ep, now);
        self.guard_inviting(ep, now);
        let bye = self.dialog.request(ep, "BYE");
        ep.send(now, bye, Owner::Call(self.handle, Role::Bye));
    }

    /// A re-INVITE under way when the call ends must not wait for its final response for ever.
    fn guard_inviting(&mut self, ep: &mut Endpoint, now: Duration) {
        if self.inviting.is_some() {
            ep.timers.set(Timer::CancelGiveUp(self.handle), now + ep.config.t1 * 64);
        }
    }

    /// The call is over: said once, and nothing of it is waited for any more.
    fn end(&mut self, ep: &mut Endpoint, by_us: bool, status: Option<u16>, reason: &str) {
        let call = self.handle;
        self.close(ep, Event::Ended { call, by_us, status, reason: reason.to_owned() });
    }

    fn close(&mut self, ep: &mut Endpoint, event: Event) {
        self.state = CallState::Ended;
        self.stop_2xx(ep);
        for timer in [
            Timer::Ring(self.handle),
            Timer::Answer(self.handle),
            Timer::RingLimit(self.handle),
            Timer::ReInvite(self.handle),
            Timer::ResendReliable(self.handle),
            Timer::PrackMissing(self.handle),
            Timer::Refresh(self.handle),
            Timer::SessionExpires(self.handle),
            Timer::Ponder(self.handle),
        ] {
            ep.timers.cancel(timer);
        }
        if self.inviting.is_none() {
            ep.timers.cancel(Timer::CancelGiveUp(self.handle));
        }
        if !self.told {
            self.told = true;
            ep.events.push_back(event);
        }
    }

    fn stop_2xx(&mut self, ep: &mut Endpoint) {
        for cseq in std::mem::take(&mut self.unacked).into_keys() {
            ep.timers.cancel(Timer::Resend2xx(self.handle, cseq));
            ep.timers.cancel(Timer::AckMissing(self.handle, cseq));
        }
    }

    /// Reads a description of the peer and notes faults of its o= line.
    fn read_sdp(&mut self, ep: &mut Endpoint, body: &[u8]) -> Option<(Sdp, Audio)> {
        let sdp = Sdp::parse(body)?;
        if let Some(fault) = self.remote_sdp.note(&sdp, body) {
            ep.protocol(fault);
        }
        let audio = sdp.audio(&ep.config.codecs)?;
        Some((sdp, audio))
    }

    /// The call has its first agreed media.
    fn tell_answered(&mut self, ep: &mut Endpoint, audio: Audio) {
        self.agreed_media = Some(self.local.described());
        self.remote = Some(audio);
        let (call, remote_media, codec) = (self.handle, audio.address, audio.codec);
        ep.events.push_back(Event::Answered { call, remote_media, codec });
    }

    /// An exchange after the first changed, or confirmed, the media.
    fn tell_changed(&mut self, ep: &mut Endpoint, audio: Audio) {
        if self.agreed_early().is_some() {
            return self.agree_early(ep, audio);
        }
        self.agreed_media = Some(self.local.described());
        self.remote = Some(audio);
        let direction = self.wanted_direction().limited_by(audio.direction);
        let (call, remote_media, codec) = (self.handle, audio.address, audio.codec);
        ep.events.push_back(Event::MediaChanged { call, remote_media, codec, direction });
    }

    /// Whether this request opens the dialog that this call is already in, by another path (RFC 3261
    /// section 8.2.2.2).
    pub(crate) fn is_merged(&self, request: &Request) -> bool {
        !self.outgoing
            && self.dialog.call_id == request.head.call_id
            && self.dialog.remote_tag == request.head.from.tag
            && self.invite_cseq == request.head.cseq
    }
}
