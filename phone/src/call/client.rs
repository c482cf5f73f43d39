//! What a call does with the responses to its own requests.

use std::time::Duration;

use crate::api::{CallState, Event};
use crate::endpoint::Endpoint;
use crate::sdp::{Audio, Sdp};
use crate::timer::Timer;
use crate::transaction::{Owner, Role};
use crate::wire::Response;

use super::Call;
use super::session_timer::with_fields;

impl Call {
    /// A response to a request of this call.
    pub(crate) fn on_response(
        &mut self,
        ep: &mut Endpoint,
        now: Duration,
        tx: u64,
        role: Role,
        response: &Response,
    ) {
        if !(self.hung_up && role == Role::Invite)
            && let Some(mut again) = ep.answer_challenge(tx, response)
        {
            self.dialog.renumber(&mut again);
            let new = ep.send(now, again, Owner::Call(self.handle, role));
            if self.inviting == Some(tx) {
                self.inviting = Some(new);
                self.proceeding = false;
            }
            return;
        }
        match role {
            Role::Invite => self.on_invite_response(ep, now, tx, response),
            Role::ReInvite => self.on_reinvite_response(ep, now, tx, response),
            Role::Bye => self.on_bye_response(ep, response.status),
            Role::Cancel if response.status == 481 => ep.protocol("the CANCEL of a pending INVITE got 481"),
            Role::Update => self.on_update_response(ep, now, tx, response),
            Role::Prack => self.on_prack_response(ep, tx, response),
            Role::Refresh => self.on_refresh_response(ep, now, tx, response),
            Role::LowCseq if (200..300).contains(&response.status) => {
                ep.protocol(format!("a request with a low CSeq got {}", response.status));
            }
            Role::Cancel | Role::Info | Role::LowCseq => {}
        }
    }

    fn on_invite_response(&mut self, ep: &mut Endpoint, now: Duration, tx: u64, response: &Response) {
        if self.inviting != Some(tx) {
            return;
        }
        match response.status {
            ..200 => self.on_provisional(ep, now, tx, response),
            200..300 => {
                self.inviting = None;
                self.on_answer(ep, now, tx, response);
            }
            422 if !self.hung_up && self.raises_interval(ep, tx, response) => {
                let Some(again) = ep.request(tx).cloned() else { return };
                let mut again = with_fields(again, self.timer_fields(ep));
                self.dialog.renumber(&mut again);
                self.inviting = Some(ep.send(now, again, Owner::Call(self.handle, Role::Invite)));
                self.proceeding = false;
            }
            status => {
                self.inviting = None;
                if self.hung_up {
                    return self.end(ep, true, Some(status), "cancelled");
                }
                self.close(ep, Event::Failed { call: self.handle, status });
            }
        }
    }

    fn on_provisional(&mut self, ep: &mut Endpoint, now: Duration, tx: u64, response: &Response) {
        let first = !std::mem::replace(&mut self.proceeding, true);
        let settled = self.agreed_early().is_some();
        if self.acknowledge_early(ep, now, tx, response) {
            return;
        }
        if self.hung_up {
            if first {
                self.cancel(ep, now);
            }
            return;
        }
        if response.status > 100 && response.head.to.tag.is_none() {
            ep.protocol(format!("response {} to INVITE without a To tag", response.status));
        }
        if response.status == 180 && !self.ringing_told {
            self.ringing_told = true;
            self.state = CallState::Ringing;
            ep.events.push_back(Event::Ringing { call: self.handle });
        }
        if response.body.is_empty() || self.early_told || !response.head.is_sdp() {
            return;
        }
        if settled || self.agreed_early().is_some() {
            return;
        }
        if let Some((_, audio)) = self.read_sdp(ep, &response.body) {
            self.early_told = true;
            let (call, remote_media, codec) = (self.handle, audio.address, audio.codec);
            ep.events.push_back(Event::EarlyMedia { call, remote_media, codec });
        }
    }

    /// The 2xx to our first INVITE.
    fn on_answer(&mut self, ep: &mut Endpoint, now: Duration, tx: u64, response: &Response) {
        if response.head.contact().is_none() {
            ep.protocol("the 2xx to an INVITE has no Contact");
        }
        if response.head.to.tag.is_none() {
            ep.protocol("the 2xx to an INVITE has no To tag");
        }
        let early = self.early.agreed_in(response.head.to.tag.as_deref());
        self.dialog.learn(response);
        self.timer_granted(ep, now, tx, response);
        if early.is_some() && !response.body.is_empty() {
            ep.protocol("the 2xx has SDP after the answer in a reliable response");
        }
        let agreed = if early.is_some() { None } else { self.read_sdp(ep, &response.body) };
        self.acknowledge(ep, tx, agreed.as_ref());
        ep.timers.cancel(Timer::CancelGiveUp(self.handle));
        ep.timers.cancel(Timer::RingLimit(self.handle));
        self.state = CallState::Established;
        if self.hung_up {
            return self.bye(ep, now, "hung up while the answer came");
        }
        match early.or(agreed.map(|(_, audio)| audio)) {
            Some(audio) => {
                self.tell_answered(ep, audio);
                self.next(ep, now);
            }
            None => {
                ep.protocol("the 2xx to an INVITE has no SDP that answers the offer");
                self.bye(ep, now, "no usable SDP in the answer");
            }
        }
    }

    /// The ACK of a 2xx; it answers the offer of the 2xx if the INVITE had none (RFC 3261 section 13.2.2.4).
    fn acknowledge(&mut self, ep: &mut Endpoint, tx: u64, agreed: Option<&(Sdp, Audio)>) {
        if std::mem::take(&mut self.withholds_ack) {
            return;
        }
        if let Some(invite) = ep.request(tx).cloned() {
            let mut ack = self.dialog.ack(ep, &invite);
            if let Some((sdp, audio)) = agreed.filter(|_| invite.body.is_none()) {
                let direction = self.wanted_direction().limited_by(audio.direction);
                ack.body = self.local.answer(sdp, &ep.config.codecs, direction);
            }
            ep.send_ack(Some(tx), &ack);
        }
    }

    fn on_reinvite_response(&mut self, ep: &mut Endpoint, now: Duration, tx: u64, response: &Response) {
        if response.status < 200 {
            return self.reinvite_proceeds(ep, now, tx);
        }
        if self.inviting == Some(tx) {
            self.inviting = None;
            ep.timers.cancel(Timer::CancelGiveUp(self.handle));
        }
        let mut agreed = None;
        if (200..300).contains(&response.status) {
            self.timer_granted(ep, now, tx, response);
            // RFC 3261 section 14.1: acknowledged even when a BYE is already out.
            self.dialog.refresh_target(&response.head);
            agreed = self.read_sdp(ep, &response.body);
            self.acknowledge(ep, tx, agreed.as_ref());
        }
        if self.state != CallState::Established {
            return;
        }
        match response.status {
            200..300 => match agreed {
                Some((_, audio)) => self.tell_changed(ep, audio),
                None => {
                    ep.protocol("the 2xx to a re-INVITE has no SDP that answers the offer");
                    self.bye(ep, now, "no usable SDP in the answer to a re-INVITE");
                }
            },
            491 if !self.reinvite.unwanted => self.retry_after_glare(ep, now),
            422 if self.raises_interval(ep, tx, response) => self.reinvite_wanted = true,
            // RFC 3261 section 12.2.1.2: the peer does not know the dialog.
            status @ (408 | 481) => {
                ep.events.push_back(Event::ReInviteFailed { call: self.handle, status });
                self.bye(ep, now, "the peer lost the dialog");
            }
            status => ep.events.push_back(Event::ReInviteFailed { call: self.handle, status }),
        }
        self.next(ep, now);
    }

    /// RFC 3261 section 14.1: the owner of the Call-ID waits 2.1 to 4 s, the other one up to 2 s, in steps
    /// of 10 ms.
    fn retry_after_glare(&mut self, ep: &mut Endpoint, now: Duration) {
        let ms = if self.outgoing { 2100 + 10 * ep.rng.below(191) } else { 10 * ep.rng.below(201) };
        ep.timers.set(Timer::ReInvite(self.handle), now + Duration::from_millis(ms));
    }

    /// The wait after a 491 is over.
    pub(crate) fn on_reinvite_timer(&mut self, ep: &mut Endpoint, now: Duration) {
        self.reinvite_wanted = true;
        self.next(ep, now);
    }

    fn on_bye_response(&mut self, ep: &mut Endpoint, status: u16) {
        if status >= 200 {
            let reason = self.bye_reason.clone().unwrap_or_default();
            self.end(ep, true, Some(status), &reason);
        }
    }

    /// A request of this call got no final response (Timers B and F).
    pub(crate) fn on_timeout(&mut self, ep: &mut Endpoint, now: Duration, tx: u64, role: Role) {
        match role {
            Role::Invite => {
                self.inviting = None;
                if self.hung_up {
                    return self.end(ep, true, Some(408), "cancelled before anybody answered");
                }
                self.close(ep, Event::Failed { call: self.handle, status: 408 });
            }
            Role::ReInvite => {
                self.inviting = None;
                if self.state == CallState::Established {
                    self.bye(ep, now, "a re-INVITE was not answered");
                }
            }
            Role::Update => {
                self.updating = None;
                if self.state == CallState::Established {
                    self.bye(ep, now, "an UPDATE was not answered");
                }
            }
            Role::Bye => self.end(ep, true, None, "the BYE was not answered"),
            Role::Prack => self.on_prack_timeout(tx),
            Role::Refresh => self.on_refresh_timeout(ep, now),
            // The INVITE's own end, or CancelGiveUp, decides.
            Role::Cancel | Role::Info | Role::LowCseq => {}
        }
    }
}
