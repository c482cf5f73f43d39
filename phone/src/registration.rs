//! The phone's registration: RFC 3261 section 10, one binding, one REGISTER at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::Event;
use crate::endpoint::Endpoint;
use crate::request::Outgoing;
use crate::timer::Timer;
use crate::transaction::Owner;
use crate::wire::{self, Response};

/// What the script wants of the registration, and what is being asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Registration {
    call_id: String,
    tag: String,
    cseq: u32,
    /// Seconds to ask for: the setting, or what a 423 demanded.
    expires: u32,
    /// Whether the script wants to be registered; absent before its first word.
    wanted: Option<bool>,
    /// The REGISTER under way and whether it registers.
    running: Option<(u64, bool)>,
}

impl Registration {
    /// The script wants to be registered, or not to be.
    pub(crate) fn want(&mut self, ep: &mut Endpoint, now: Duration, registered: bool) {
        self.wanted = Some(registered);
        ep.timers.cancel(Timer::Register);
        if self.running.is_none() {
            self.start(ep, now);
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// Time to register again.
    pub(crate) fn on_timer(&mut self, ep: &mut Endpoint, now: Duration) {
        if self.running.is_none() && self.wanted == Some(true) {
            self.start(ep, now);
        }
    }

    fn start(&mut self, ep: &mut Endpoint, now: Duration) {
        let Some(registers) = self.wanted else { return };
        if self.call_id.is_empty() {
            self.call_id = ep.rng.token();
            self.expires = ep.config.expires;
        }
        self.tag = ep.rng.token();
        self.cseq += 1;
        let identity = ep.identity();
        let request = Outgoing {
            method: "REGISTER".into(),
            uri: format!("sip:{}", ep.config.domain),
            to_addr: ep.config.server,
            from: format!("{identity};tag={}", self.tag),
            to: identity,
            call_id: self.call_id.clone(),
            cseq: self.cseq,
            routes: Vec::new(),
            contact: Some(ep.contact()),
            expires: Some(if registers { self.expires } else { 0 }),
            extra: Vec::new(),
            body: None,
            credentials: Vec::new(),
            challenged: [0, 0],
        };
        let tx = ep.send(now, request, Owner::Registration);
        self.running = Some((tx, registers));
    }

    /// A response to a REGISTER.
    pub(crate) fn on_response(&mut self, ep: &mut Endpoint, now: Duration, tx: u64, response: &Response) {
        let Some((running, registers)) = self.running else { return };
        if running != tx || response.status < 200 {
            return;
        }
        if let Some(mut again) = ep.answer_challenge(tx, response) {
            self.cseq += 1;
            again.cseq = self.cseq;
            self.running = Some((ep.send(now, again, Owner::Registration), registers));
            return;
        }
        self.running = None;
        match response.status {
            200..300 if registers => self.on_accepted(ep, now, response),
            200..300 => ep.events.push_back(Event::Unregistered),
            423 => {
                let minimum = response.head.number(wire::min_expires).unwrap_or(0);
                if registers && minimum > self.expires {
                    self.expires = minimum;
                    return self.start(ep, now);
                }
                self.fail(ep, now, 423, None);
            }
            status => self.fail(ep, now, status, response.head.number(wire::retry_after)),
        }
        self.follow_wish(ep, now, registers);
    }

    /// Nobody answered the REGISTER.
    pub(crate) fn on_timeout(&mut self, ep: &mut Endpoint, now: Duration) {
        let Some((_, registers)) = self.running.take() else { return };
        self.fail(ep, now, 408, None);
        self.follow_wish(ep, now, registers);
    }

    fn on_accepted(&mut self, ep: &mut Endpoint, now: Duration, response: &Response) {
        let ours = ep.contact();
        let ours = ours.trim_matches(['<', '>']);
        let contacts = response.head.contacts();
        // Some registrars add parameters to the URI that they were given.
        let binding = contacts.iter().find(|c| c.uri.split(';').next() == ours.split(';').next());
        if binding.is_none() {
            ep.protocol("the 200 to REGISTER does not list our Contact");
        }
        let granted = binding
            .and_then(|contact| contact.expires)
            .or_else(|| response.head.number(wire::expires))
            .unwrap_or(self.expires);
        ep.events.push_back(Event::Registered { expires: granted });
        // A quarter of the time is left for retransmissions and a second try.
        ep.timers.set(Timer::Register, now + Duration::from_secs(u64::from(granted.max(4))) * 3 / 4);
    }

    fn fail(&mut self, ep: &mut Endpoint, now: Duration, status: u16, retry_after: Option<u32>) {
        ep.events.push_back(Event::RegistrationFailed { status });
        if self.wanted == Some(true) && (status == 408 || status >= 500) {
            let pause = retry_after.map_or(ep.config.t1 * 60, |seconds| Duration::from_secs(seconds.into()));
            ep.timers.set(Timer::Register, now + pause);
        }
    }

    /// The script changed its mind while a REGISTER was under way.
    fn follow_wish(&mut self, ep: &mut Endpoint, now: Duration, registered: bool) {
        if self.running.is_none() && self.wanted == Some(!registered) {
            ep.timers.cancel(Timer::Register);
            self.start(ep, now);
        }
    }
}
