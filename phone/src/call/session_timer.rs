//! Session timers, RFC 4028.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::CallState;
use crate::endpoint::Endpoint;
use crate::manners::Refresher;
use crate::request::Outgoing;
use crate::timer::Timer;
use crate::transaction::{Owner, Role};
use crate::wire::{Head, Reply, Request, Response};

use super::Call;

/// The shortest interval that anybody may ask for (section 5).
const SHORTEST: u32 = 90;
/// After a refresh that met something else.
const AGAIN: Duration = Duration::from_secs(3);

/// The session timer of a call.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct SessionTimer {
    /// The largest Min-SE that a 422 has named.
    min_se: u32,
    running: Option<Running>,
    /// Our UPDATE that only refreshes.
    refreshing: Option<u64>,
    /// The peer does not take UPDATE.
    by_invite: bool,
    /// What the 2xx to a request of the peer's says, by its transaction.
    asked: BTreeMap<u64, Option<Running>>,
    /// This end's timer has died.
    neglected: bool,
}

/// A session that must be refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Running {
    interval: u32,
    /// We refresh it.
    ours: bool,
}

/// Session-Expires: the interval, and the refresher if it is named.
fn session_expires(head: &Head) -> Option<(u32, Option<Refresher>)> {
    let value = head.other("Session-Expires")?;
    let mut parts = value.split(';').map(str::trim);
    let interval = parts.next()?.parse().ok()?;
    let refresher = parts.find_map(|part| match part.to_ascii_lowercase().as_str() {
        "refresher=uac" => Some(Refresher::Uac),
        "refresher=uas" => Some(Refresher::Uas),
        _ => None,
    });
    Some((interval, refresher))
}

fn min_se(head: &Head) -> Option<u32> {
    head.other("Min-SE")?.split(';').next()?.trim().parse().ok()
}

/// The 422 that an INVITE or UPDATE must get whose interval is too small (section 9).
pub(crate) fn refusal_of_interval<'a>(ep: &Endpoint, head: &Head, tag: &'a str) -> Option<Reply<'a>> {
    let ours = ep.config.manners.timer?;
    let (asked, _) = session_expires(head)?;
    let refused = head.can("timer") && asked < ours.min_se;
    let field = ("Min-SE".to_owned(), ours.min_se.to_string());
    refused.then(|| Reply::new(422, tag).extra(vec![field]))
}

impl Call {
    /// What an INVITE or UPDATE of ours says of the session's timer (sections 7.1 and 7.4).
    pub(super) fn timer_fields(&self, ep: &Endpoint) -> Vec<(String, String)> {
        let Some(wanted) = ep.config.manners.timer else { return Vec::new() };
        let timer = &self.session_timer;
        let floor = wanted.min_se.max(timer.min_se).max(SHORTEST);
        let interval = timer.running.map_or(wanted.interval, |running| running.interval).max(floor);
        let refresher = match timer.running {
            Some(Running { ours: true, .. }) => Some(Refresher::Uac),
            Some(Running { ours: false, .. }) => Some(Refresher::Uas),
            None => wanted.refresher,
        };
        let refresher = refresher.map_or(String::new(), |who| format!(";refresher={}", who.name()));
        let mut fields = vec![
            ("Supported".to_owned(), "timer".to_owned()),
            ("Session-Expires".to_owned(), format!("{interval}{refresher}")),
        ];
        if floor > SHORTEST {
            fields.push(("Min-SE".to_owned(), floor.to_string()));
        }
        fields
    }

    /// An INVITE or UPDATE of the peer's waits for our answer: what that will say (section 9).
    pub(super) fn timer_asked(&mut self, ep: &Endpoint, tx: u64, request: &Request) {
        let Some(wanted) = ep.config.manners.timer else { return };
        let head = &request.head;
        let (knows, asked) = (head.can("timer"), session_expires(head));
        let floor = wanted.min_se.max(min_se(head).unwrap_or(0)).max(SHORTEST);
        let longest = wanted.interval.max(floor);
        let interval = asked.map_or(longest, |(interval, _)| interval.min(longest));
        let ours = match asked.and_then(|(_, refresher)| refresher) {
            _ if !knows => true,
            Some(refresher) => refresher == Refresher::Uas,
            None => self.session_timer.running.map_or(wanted.refresher == Some(Refresher::Uas), |r| r.ours),
        };
        // A proxy's interval that is too small for us, and nobody who could raise it.
        let usable = knows || asked.is_none_or(|(interval, _)| interval >= floor);
        self.session_timer.asked.insert(tx, usable.then_some(Running { interval, ours }));
    }

    /// What our 2xx says of the timer that it starts.
    pub(super) fn timer_answer(
        &mut self,
        ep: &mut Endpoint,
        now: Duration,
        tx: u64,
    ) -> Vec<(String, String)> {
        let Some(terms) = self.session_timer.asked.remove(&tx) else { return Vec::new() };
        self.run_timer(ep, now, terms);
        let Some(Running { interval, ours }) = terms else { return Vec::new() };
        let refresher = if ours { Refresher::Uas } else { Refresher::Uac };
        let mut fields = vec![
            ("Supported".to_owned(), "timer".to_owned()),
            ("Session-Expires".to_owned(), format!("{interval};refresher={}", refresher.name())),
        ];
        if !ours {
            fields.push(("Require".to_owned(), "timer".to_owned()));
        }
        fields
    }

    /// A 2xx to an INVITE or UPDATE of ours: what it says is judged by section 9, and starts the timer (section 7.2).
    pub(super) fn timer_granted(&mut self, ep: &mut Endpoint, now: Duration, tx: u64, response: &Response) {
        let head = &response.head;
        let granted = session_expires(head);
        let Some(wanted) = ep.config.manners.timer else {
            if granted.is_some_and(|(_, refresher)| refresher != Some(Refresher::Uas)) {
                ep.protocol("session timer: we are to refresh, and have never said that we can");
            }
            return;
        };
        let asked = ep
            .request(tx)
            .and_then(|request| request.extra("Session-Expires")?.split(';').next()?.parse::<u32>().ok());
        let asked = asked.unwrap_or(wanted.interval);
        if let Some((interval, refresher)) = granted {
            let floor = wanted.min_se.max(self.session_timer.min_se).max(SHORTEST);
            if interval > asked || interval < floor {
                ep.protocol(format!(
                    "session timer: {interval} s granted, {asked} asked for, at least {floor}"
                ));
            }
            if refresher.is_none() {
                ep.protocol("session timer: a 2xx says not who refreshes");
            }
            if refresher == Some(Refresher::Uac) && !head.requires("timer") {
                ep.protocol("session timer: a 2xx has us refresh, and no Require");
            }
        }
        let terms = granted
            .map(|(interval, refresher)| Running { interval, ours: refresher != Some(Refresher::Uas) });
        self.run_timer(ep, now, terms);
    }

    /// Takes the Min-SE of a 422; true if the request may be sent again (section 7.3).
    pub(super) fn raises_interval(&mut self, ep: &mut Endpoint, tx: u64, response: &Response) -> bool {
        let asked: u32 = ep
            .request(tx)
            .and_then(|request| request.extra("Session-Expires")?.split(';').next()?.parse().ok())
            .unwrap_or(0);
        let Some(min_se) = min_se(&response.head) else {
            ep.protocol("session timer: a 422 without Min-SE");
            return false;
        };
        if min_se <= asked {
            ep.protocol(format!("session timer: 422 to {asked} s, and Min-SE is {min_se}"));
            return false;
        }
        self.session_timer.min_se = min_se;
        true
    }

    fn run_timer(&mut self, ep: &mut Endpoint, now: Duration, terms: Option<Running>) {
        self.session_timer.running = terms;
        let (refresh, expires) = (Timer::Refresh(self.handle), Timer::SessionExpires(self.handle));
        ep.timers.cancel(refresh);
        ep.timers.cancel(expires);
        let Some(Running { interval, ours }) = terms.filter(|_| !self.session_timer.neglected) else {
            return;
        };
        if ours {
            ep.timers.set(refresh, now + Duration::from_secs(u64::from(interval) / 2));
        }
        // Section 10.
        let left = interval - (interval / 3).min(32);
        ep.timers.set(expires, now + Duration::from_secs(left.into()));
    }

    /// This end's timer dies.
    pub(crate) fn neglect(&mut self, ep: &mut Endpoint) {
        self.session_timer.neglected = true;
        ep.timers.cancel(Timer::Refresh(self.handle));
        ep.timers.cancel(Timer::SessionExpires(self.handle));
    }

    /// Time to refresh.
    pub(crate) fn on_refresh_timer(&mut self, ep: &mut Endpoint, now: Duration) {
        let Some(wanted) = ep.config.manners.timer else { return };
        if self.hung_up || !matches!(self.state, CallState::Answered | CallState::Established) {
            return;
        }
        // Until a 2xx sets it anew.
        ep.timers.set(Timer::Refresh(self.handle), now + AGAIN);
        let busy = self.our_offer_is_open() || self.their_offer_is_open() || !self.unacked.is_empty();
        if busy || self.state != CallState::Established || self.session_timer.refreshing.is_some() {
            return;
        }
        if !wanted.by_update || self.session_timer.by_invite {
            return self.reoffer(ep, now, None);
        }
        let mut update = self.dialog.request(ep, "UPDATE");
        update.extra = self.timer_fields(ep);
        let tx = ep.send(now, update, Owner::Call(self.handle, Role::Refresh));
        self.session_timer.refreshing = Some(tx);
    }

    pub(super) fn on_refresh_response(
        &mut self,
        ep: &mut Endpoint,
        now: Duration,
        tx: u64,
        response: &Response,
    ) {
        if response.status < 200 || self.session_timer.refreshing.take_if(|open| *open == tx).is_none() {
            return;
        }
        if self.state != CallState::Established {
            return;
        }
        match response.status {
            200..300 => {
                self.dialog.refresh_target(&response.head);
                self.timer_granted(ep, now, tx, response);
            }
            422 if self.raises_interval(ep, tx, response) => {
                ep.timers.set(Timer::Refresh(self.handle), now);
            }
            408 | 481 => self.bye(ep, now, "the peer lost the dialog"),
            405 | 501 => self.session_timer.by_invite = true,
            _ => {}
        }
    }

    /// Our refresh got no answer at all.
    pub(super) fn on_refresh_timeout(&mut self, ep: &mut Endpoint, now: Duration) {
        self.session_timer.refreshing = None;
        if self.state == CallState::Established {
            self.bye(ep, now, "a refresh was not answered");
        }
    }

    /// Section 10: nobody has refreshed the session.
    pub(crate) fn on_session_expired(&mut self, ep: &mut Endpoint, now: Duration) {
        let Some(running) = self.session_timer.running.take() else { return };
        if self.hung_up || !matches!(self.state, CallState::Answered | CallState::Established) {
            return;
        }
        let who = if running.ours { "us" } else { "the peer" };
        ep.protocol_of(&self.dialog.call_id, format!("session timer: not refreshed in time by {who}"));
        self.hung_up = true;
        self.bye(ep, now, "session timer expired");
    }
}

/// The same request with what the timer says now.
pub(super) fn with_fields(mut request: Outgoing, fields: Vec<(String, String)>) -> Outgoing {
    let of_timer = |(name, value): &(String, String)| {
        matches!(name.as_str(), "Session-Expires" | "Min-SE") || name == "Supported" && value == "timer"
    };
    request.extra.retain(|field| !of_timer(field));
    request.extra.extend(fields);
    request
}
