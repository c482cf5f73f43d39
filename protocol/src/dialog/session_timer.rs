//! Session timers (RFC 4028): both sides know that the other is still there, and a session that nobody refreshes is ended.
//!
//! Verbs: [`SessionTimer::write_request_headers`] and [`SessionTimer::write_answer_headers`] say what an INVITE or UPDATE and its 2xx carry;
//! [`SessionTimer::asked`] and [`SessionTimer::answered`] follow the peer's requests, [`SessionTimer::accepted`] and
//! [`SessionTimer::too_brief`] the responses to ours; [`SessionTimer::due`] says what is to be done now.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ServerTransactionId;
use crate::decimal::Decimal;
use crate::message::{Builder, Header, Message};
use crate::time::Instant;

/// The shortest interval that the RFC allows (§5).
pub const SHORTEST_INTERVAL: Duration = Duration::from_secs(90);
/// A peer that wants its sessions refreshed less often than once a day is not believed.
const LONGEST_MIN_SE: Duration = Duration::from_secs(86_400);
/// How often a request is repeated with a longer interval.
const MOST_RAISES: u8 = 3;
/// After a refresh that met a request of the peer, and at least after any that failed.
const AFTER_GLARE: Duration = Duration::from_secs(3);

/// What we want of session timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPolicy {
    /// The interval we ask for, and the longest we accept; zero: we have no session timers.
    pub interval: Duration,
    /// The shortest we accept, at least [`SHORTEST_INTERVAL`].
    pub min_se: Duration,
}

impl SessionPolicy {
    /// The Min-SE of the 422 that an INVITE or UPDATE must get whose interval is too small (§9). One whose sender knows no
    /// session timers was given its interval by a proxy and is not refused.
    pub fn refuses(&self, request: &Message) -> Option<u64> {
        let (interval, _) = session_expires(request)?;
        let refused = !self.interval.is_zero() && supports_timer(request) && interval < self.floor();
        refused.then(|| self.floor().as_secs())
    }

    fn floor(&self) -> Duration {
        self.min_se.max(SHORTEST_INTERVAL)
    }
}

/// Who refreshes the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Refresher {
    Us,
    Peer,
}

/// What the answer to a request of the peer's says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Terms {
    interval: Duration,
    refresher: Refresher,
}

/// A session that must be refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Running {
    terms: Terms,
    /// When we refresh it; `None`: the peer does, or our refresh is under way.
    refresh_at: Option<Instant>,
    /// When it is given up.
    end_at: Instant,
}

/// What a session timer wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Refresh the session.
    Refresh,
    /// Nobody has refreshed it (§10): end it.
    Expired,
    /// Nobody has to refresh it: ask the peer whether it still knows the dialog.
    Probe,
}

/// The session timer of one dialog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SessionTimer {
    policy: SessionPolicy,
    /// The largest Min-SE that a 422 has named.
    min_se: Duration,
    raises: u8,
    running: Option<Running>,
    /// When a peer that has no session timer is asked whether it is still there: else a call whose both ends have gone, and
    /// whose media does not cross us, would never end.
    probe_at: Option<Instant>,
    /// The peer's INVITE or UPDATE that has no final response yet, and what its 2xx says.
    asked: Option<(ServerTransactionId, Option<Terms>)>,
    /// The CSeq of our refresh that waits for the peer.
    pub(super) refreshing: Option<u32>,
}

impl SessionTimer {
    pub(super) fn new(policy: SessionPolicy) -> SessionTimer {
        SessionTimer {
            policy,
            min_se: Duration::ZERO,
            raises: 0,
            running: None,
            probe_at: None,
            asked: None,
            refreshing: None,
        }
    }

    fn is_off(&self) -> bool {
        self.policy.interval.is_zero()
    }

    /// Writes what an INVITE or UPDATE of ours carries (§7.1, §7.4).
    pub(super) fn write_request_headers(&self, message: &mut Builder) {
        if self.is_off() {
            return;
        }
        let floor = self.policy.floor().max(self.min_se);
        let interval = self.running.map_or(self.policy.interval, |running| running.terms.interval).max(floor);
        let refresher = match self.running.map(|running| running.terms.refresher) {
            Some(Refresher::Us) => ";refresher=uac",
            Some(Refresher::Peer) => ";refresher=uas",
            None => "",
        };
        message.own(Header::Supported, &["timer"]);
        message.own(Header::SessionExpires, &[Decimal::of(interval.as_secs()).as_str(), refresher]);
        if floor > SHORTEST_INTERVAL {
            message.own(Header::MinSe, &[Decimal::of(floor.as_secs()).as_str()]);
        }
    }

    /// An INVITE or UPDATE of the peer's waits in `transaction`.
    pub(super) fn asked(&mut self, transaction: ServerTransactionId, request: &Message) {
        // One that comes while another waits is refused.
        if self.asked.is_none() {
            self.asked = Some((transaction, self.terms_for(request)));
        }
    }

    /// §9 with table 2: the interval is never longer than asked for and never shorter than the request's Min-SE; a peer that knows
    /// session timers refreshes unless it says otherwise, for one that does not we do.
    fn terms_for(&self, request: &Message) -> Option<Terms> {
        let (supported, asked) = (supports_timer(request), session_expires(request));
        let too_small = asked.is_some_and(|(interval, _)| interval < self.policy.floor());
        if self.is_off() || (!supported && (asked.is_none() || too_small)) {
            return None;
        }
        let floor =
            seconds(request, Header::MinSe).unwrap_or_default().min(LONGEST_MIN_SE).max(self.policy.floor());
        let ours = self.policy.interval.max(floor);
        let interval = asked.map_or(ours, |(interval, _)| interval.min(ours));
        let refresher = match asked.and_then(|(_, refresher)| refresher) {
            _ if !supported => Refresher::Us,
            Some(Role::Uac) => Refresher::Peer,
            Some(Role::Uas) => Refresher::Us,
            None => self.running.map_or(Refresher::Peer, |running| running.terms.refresher),
        };
        Some(Terms { interval, refresher })
    }

    /// Writes what the 2xx in `transaction` carries.
    pub(super) fn write_answer_headers(&self, transaction: ServerTransactionId, message: &mut Builder) {
        let Some((_, Some(terms))) = self.asked.filter(|(asked, _)| *asked == transaction) else { return };
        let refresher = match terms.refresher {
            Refresher::Peer => {
                message.own(Header::Require, &["timer"]);
                ";refresher=uac"
            }
            Refresher::Us => ";refresher=uas",
        };
        message.own(Header::Supported, &["timer"]);
        message.own(Header::SessionExpires, &[Decimal::of(terms.interval.as_secs()).as_str(), refresher]);
    }

    /// The peer's request was answered with `status`.
    pub(super) fn answered(&mut self, transaction: ServerTransactionId, status: u16, now: Instant) {
        if status < 200 {
            return;
        }
        if let Some((_, terms)) = self.asked.take_if(|(asked, _)| *asked == transaction)
            && status < 300
        {
            self.run(terms, now);
        }
    }

    /// The first 2xx to an INVITE or UPDATE of ours (§7.2): whichever comes last holds, and an INVITE may be accepted after an UPDATE
    /// that was sent later. Without Session-Expires the session needs no refresh any more.
    pub(super) fn accepted(&mut self, response: &Message, now: Instant) {
        if self.is_off() {
            return;
        }
        self.refreshing.take_if(|cseq| *cseq == response.cseq());
        let terms = session_expires(response).map(|(interval, refresher)| Terms {
            // Never longer than we asked for (§8.1), or nobody would look after the session.
            interval: interval.max(SHORTEST_INTERVAL).min(self.longest()),
            refresher: match refresher {
                Some(Role::Uas) => Refresher::Peer,
                Some(Role::Uac) | None => Refresher::Us,
            },
        });
        self.run(terms, now);
    }

    /// The longest interval we have asked for.
    fn longest(&self) -> Duration {
        self.policy.interval.max(self.policy.floor()).max(self.min_se)
    }

    /// A 422 to a request of ours: true if it may be sent again, with what the peer wants (§7.3).
    pub(super) fn too_brief(&mut self, response: &Message) -> bool {
        let Some(min_se) = seconds(response, Header::MinSe) else { return false };
        let raised = !self.is_off() && self.raises < MOST_RAISES && min_se <= LONGEST_MIN_SE;
        if raised {
            self.raises += 1;
            self.min_se = self.min_se.max(min_se);
        }
        raised
    }

    fn run(&mut self, terms: Option<Terms>, now: Instant) {
        self.probe_at = (terms.is_none() && !self.is_off()).then(|| now + self.policy.interval / 2);
        self.running = terms.map(|terms| {
            let patience = Duration::from_secs(32).min(terms.interval / 3);
            let refresh_at = match terms.refresher {
                Refresher::Us => Some(now + terms.interval / 2),
                Refresher::Peer => None,
            };
            Running { terms, refresh_at, end_at: now + (terms.interval - patience) }
        });
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let Some(running) = &self.running else { return self.probe_at };
        Some(running.refresh_at.map_or(running.end_at, |at| at.min(running.end_at)))
    }

    /// What is due. A refresh is due once, until [`SessionTimer::postpone`].
    pub(super) fn due(&mut self, now: Instant) -> Due {
        let Some(running) = &mut self.running else {
            let due = self.probe_at.is_some_and(|at| at <= now);
            if due {
                self.probe_at = Some(now + self.policy.interval / 2);
            }
            return if due { Due::Probe } else { Due::Nothing };
        };
        if running.end_at <= now {
            self.running = None;
            Due::Expired
        } else if running.refresh_at.take_if(|at| *at <= now).is_some() {
            Due::Refresh
        } else {
            Due::Nothing
        }
    }

    /// The refresh could not be made: another is made after a while, before the session is given up.
    pub(super) fn postpone(&mut self, glare: bool, now: Instant) {
        self.refreshing = None;
        if let Some(running) = &mut self.running {
            let left = running.end_at.since(now);
            running.refresh_at = Some(now + if glare { AFTER_GLARE } else { (left / 2).max(AFTER_GLARE) });
        }
    }

    /// After a restart of the process nobody knows when the session was refreshed last: if that is ours to do it is done
    /// `soon`, else the peer has another interval to do it.
    pub(super) fn restore(&mut self, now: Instant, soon: Duration) {
        self.refreshing = None;
        let waiting = self.asked.take().and_then(|(_, terms)| terms);
        let terms = self.running.map(|running| running.terms).or(waiting);
        self.run(terms, now);
        if let Some(running) = &mut self.running {
            running.refresh_at = running.refresh_at.map(|_| now + soon);
        }
    }
}

/// The refresher parameter (§4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Uac,
    Uas,
}

/// Session-Expires: the interval, and the refresher if it is named.
fn session_expires(message: &Message) -> Option<(Duration, Option<Role>)> {
    let value = message.header(Header::SessionExpires)?;
    let interval = seconds(message, Header::SessionExpires)?;
    let refresher = value.split(';').skip(1).find_map(|param| {
        let (name, value) = param.split_once('=')?;
        let value = value.trim();
        match name.trim().eq_ignore_ascii_case("refresher") {
            true if value.eq_ignore_ascii_case("uac") => Some(Role::Uac),
            true if value.eq_ignore_ascii_case("uas") => Some(Role::Uas),
            _ => None,
        }
    });
    Some((interval, refresher))
}

/// The delta-seconds that a header begins with.
fn seconds(message: &Message, header: Header) -> Option<Duration> {
    let value = message.header(header)?.split(';').next()?.trim();
    value.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()))
}

fn supports_timer(message: &Message) -> bool {
    message.has_token(Header::Supported, "timer") || message.has_token(Header::Require, "timer")
}
