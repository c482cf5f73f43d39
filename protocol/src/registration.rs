//! One outbound registration: a REGISTER that is kept alive (RFC 3261 §10.2).
//!
//! ```text
//!          Start             2xx
//!   Idle --------> Registering --------> Registered --refresh--> Registering
//!    ^  \          ^    |  ^ 401/407 answered, 423 obeyed, 3xx followed,
//!    |   Waiting --+    |  | the next server after silence or 5xx
//!    |                  |  +--+ stays, with a new Send
//!    | Stop             | anything else, nobody left to ask
//!    +-- Unregistering  Failed --back-off--> Registering
//! ```
//!
//! The machine writes no message: an [`Output::Send`] says what differs from one REGISTER to the next. It is
//! driven by [`Registration::handle`] and by [`Registration::handle_timeout`] when
//! [`Registration::deadline`] has come. [`RegistrationGroup`] makes several stand for each other.

mod auth;
mod group;
mod interface;
#[cfg(test)]
mod tests;
mod walk;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{Instant, Now, UnixMillis};

use auth::Authorizer;
use walk::Walk;

pub use group::{GroupInput, GroupOutput, GroupSettings, RegistrationGroup};
pub use interface::{
    DownCause, Granted, Input, Kept, Output, Place, RegistrationSettings, Request, Response, State,
};

/// The longest interval a 423 may force on us, in seconds.
const MAX_FORCED_EXPIRES: u32 = 7 * 86_400;
/// The least wait between two attempts, whatever the reason for haste.
const LEAST_RETRY: Duration = Duration::from_secs(5);

/// One outbound registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    settings: RegistrationSettings,
    state: State,
    cseq: u32,
    /// The interval asked for: that of the settings, or what a 423 forced.
    asked: u32,
    /// Whether a 423 was obeyed in the present attempt.
    lengthened: bool,
    failures: u32,
    deadline: Option<Instant>,
    auth: Authorizer,
    walk: Walk,
    granted: Option<Granted>,
    /// Registered, and no refresh has failed since.
    up: bool,
    /// It failed only because no address was known.
    unplaced: bool,
}

impl Registration {
    /// A registration at rest whose first REGISTER has the CSeq number `first_cseq` (below 2^31).
    pub fn new(settings: RegistrationSettings, first_cseq: u32) -> Self {
        let asked = settings.expires;
        Self {
            settings,
            state: State::Idle,
            cseq: first_cseq.saturating_sub(1),
            asked,
            lengthened: false,
            failures: 0,
            deadline: None,
            auth: Authorizer::default(),
            walk: Walk::default(),
            granted: None,
            up: false,
            unplaced: false,
        }
    }

    /// The registration of a process before this one. If it still holds it goes on as it was: what was due meanwhile comes at some
    /// time before half of what is left has passed.
    pub fn resume(settings: RegistrationSettings, kept: &Kept, now: Now, random: u64) -> Self {
        let mut resumed = Self::new(settings, kept.cseq.saturating_add(1));
        resumed.granted = kept.granted.clone().filter(|granted| granted.until > now.wall);
        if let Some(granted) = &resumed.granted {
            let left = |at: UnixMillis| Duration::from_millis(at.0.saturating_sub(now.wall.0));
            let due = left(granted.refresh_at);
            let due = if due.is_zero() { up_to(left(granted.until) / 2, random) } else { due };
            resumed.state = State::Registered;
            resumed.up = true;
            resumed.deadline = Some(now.mono + due);
        }
        resumed
    }

    /// The same, which registers again at some time within this if it holds: the connections of the process before are gone.
    #[must_use]
    pub fn renewed_within(mut self, within: Duration, now: Now, random: u64) -> Self {
        if self.state == State::Registered {
            let at = now.mono + up_to(within, random);
            self.deadline = self.deadline.map(|deadline| deadline.min(at));
        }
        self
    }

    /// What must outlive the process.
    pub fn kept(&self) -> Kept {
        Kept { cseq: self.cseq, granted: self.granted.clone() }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// What the registrar last granted; it may have ended since.
    pub fn granted(&self) -> Option<&Granted> {
        self.granted.as_ref()
    }

    /// Registered, and no refresh has failed since.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Whether nothing has failed since it was started, or since it was last registered.
    pub fn is_promising(&self) -> bool {
        self.failures == 0 && self.state != State::Idle && self.state != State::Unregistering
    }

    /// Whom else its present attempt may ask, in order.
    pub fn untried(&self) -> impl Iterator<Item = SocketAddr> {
        self.walk.untried()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes an input. `random` is a fresh random number, for the back-off and the client nonce.
    ///
    /// An input that does not fit the state (a response to nothing) changes nothing.
    pub fn handle(&mut self, now: Now, input: Input, random: u64) -> Vec<Output> {
        match input {
            Input::Start { within } => self.start(now, within, random),
            Input::Stop => self.stop(random),
            Input::Servers(servers) => {
                let found = !servers.is_empty();
                self.walk.set_servers(servers);
                if self.unplaced && found && self.state == State::Failed {
                    return self.begin(now, random);
                }
                Vec::new()
            }
            Input::Response(response) if response.cseq == self.cseq => match self.state {
                State::Registering | State::Challenged => self.on_response(now, &response, random),
                State::Unregistering => self.on_unregistered(&response, random),
                State::Idle | State::Waiting | State::Registered | State::Failed => Vec::new(),
            },
            Input::NoResponse { cseq } if cseq == self.cseq => match self.state {
                State::Registering | State::Challenged => {
                    self.go_on(now, DownCause::NoResponse, None, random)
                }
                State::Unregistering => self.rest(),
                State::Idle | State::Waiting | State::Registered | State::Failed => Vec::new(),
            },
            Input::Raced { cseq, won, failed } => {
                if cseq == self.cseq {
                    self.walk.raced(won, &failed);
                }
                Vec::new()
            }
            // The registrar cannot call us; after a while that chance spreads it gets a new way to us.
            Input::FlowFailed if self.state == State::Registered => {
                self.fail(now, DownCause::FlowFailed, random)
            }
            Input::Response(_) | Input::NoResponse { .. } | Input::FlowFailed => Vec::new(),
        }
    }

    /// Refreshes, or tries again; does nothing before the deadline.
    pub fn handle_timeout(&mut self, now: Now, random: u64) -> Vec<Output> {
        if self.deadline.is_none_or(|deadline| now.mono < deadline) {
            return Vec::new();
        }
        self.deadline = None;
        match self.state {
            State::Waiting | State::Registered | State::Failed => self.begin(now, random),
            State::Idle | State::Registering | State::Challenged | State::Unregistering => Vec::new(),
        }
    }

    fn start(&mut self, now: Now, within: Duration, random: u64) -> Vec<Output> {
        match self.state {
            State::Idle if !within.is_zero() => {
                self.state = State::Waiting;
                self.deadline = Some(now.mono + up_to(within, random));
                Vec::new()
            }
            State::Idle | State::Waiting | State::Failed | State::Registered => self.begin(now, random),
            State::Registering | State::Challenged | State::Unregistering => Vec::new(),
        }
    }

    fn begin(&mut self, now: Now, random: u64) -> Vec<Output> {
        self.lengthened = false;
        self.auth.begin();
        if self.walk.begin(now.mono).is_none() {
            return self.fail(now, DownCause::NoServer, random);
        }
        self.state = State::Registering;
        self.unplaced = false;
        self.send(self.asked, random)
    }

    fn send(&mut self, expires: u32, random: u64) -> Vec<Output> {
        self.deadline = None;
        let Some(place) = self.walk.at().cloned() else { return Vec::new() };
        self.cseq = self.cseq.saturating_add(1);
        let uri = place.uri.unwrap_or_else(|| self.settings.uri.clone());
        let (authorization, proxy_authorization) = self.auth.headers(&self.settings, &uri, random);
        vec![Output::Send(Box::new(Request {
            to: place.to,
            uri,
            cseq: self.cseq,
            expires,
            others: self.walk.has_more(),
            authorization,
            proxy_authorization,
        }))]
    }

    fn stop(&mut self, random: u64) -> Vec<Output> {
        match self.state {
            State::Registered | State::Registering | State::Challenged => {
                let bound = self.granted.as_ref().map(|granted| granted.at.clone());
                if let Some(place) = bound.or_else(|| self.walk.at().cloned()) {
                    self.walk.only(place);
                }
                self.state = State::Unregistering;
                self.auth.begin();
                self.unbound();
                let mut outputs = vec![Output::Down { cause: DownCause::Stopped }];
                outputs.extend(self.send(0, random));
                outputs
            }
            State::Failed | State::Waiting => self.rest(),
            State::Idle | State::Unregistering => Vec::new(),
        }
    }

    fn unbound(&mut self) {
        self.granted = None;
        self.up = false;
    }

    fn rest(&mut self) -> Vec<Output> {
        self.state = State::Idle;
        self.deadline = None;
        self.failures = 0;
        self.unbound();
        Vec::new()
    }

    fn on_response(&mut self, now: Now, response: &Response, random: u64) -> Vec<Output> {
        match response.status {
            0..=199 => Vec::new(),
            200..=299 => self.on_success(now, response, random),
            300..=399 => {
                let status = response.status;
                match self.walk.redirected(&response.contacts, self.settings.transport) {
                    Some(_) => self.ask_anew(random),
                    None => self.fail(now, DownCause::Redirected(status), random),
                }
            }
            401 | 407 => match self.auth.learn(&self.settings, response) {
                Ok(()) => {
                    self.state = State::Challenged;
                    self.send(self.asked, random)
                }
                Err(cause) => self.fail(now, cause, random),
            },
            423 => self.on_too_brief(now, response, random),
            494 => self.fail(now, DownCause::SecurityAgreement, random),
            // What is wrong with this server need not be wrong with the next (RFC 3263 §4.3).
            status @ (408 | 500..=599) => {
                self.go_on(now, DownCause::Status(status), response.retry_after, random)
            }
            status => {
                if let Some(seconds) = response.retry_after {
                    self.walk.failed(now.mono, self.settings.rest, Some(Duration::from_secs(seconds.into())));
                }
                self.fail(now, DownCause::Status(status), random)
            }
        }
    }

    /// Another server is asked the same, with nothing known of its nonces.
    fn ask_anew(&mut self, random: u64) -> Vec<Output> {
        self.state = State::Registering;
        self.lengthened = false;
        self.auth = Authorizer::default();
        self.send(self.asked, random)
    }

    /// The server that is asked has failed: the next one, if there is any.
    fn go_on(&mut self, now: Now, cause: DownCause, retry_after: Option<u32>, random: u64) -> Vec<Output> {
        let asked = retry_after.map(|seconds| Duration::from_secs(seconds.into()));
        self.walk.failed(now.mono, self.settings.rest, asked);
        match self.walk.next() {
            Some(_) => self.ask_anew(random),
            None => self.fail(now, cause, random),
        }
    }

    fn on_too_brief(&mut self, now: Now, response: &Response, random: u64) -> Vec<Output> {
        let longer = response.min_expires.filter(|m| *m > self.asked && *m <= MAX_FORCED_EXPIRES);
        match longer {
            Some(min_expires) if !self.lengthened => {
                self.lengthened = true;
                self.asked = min_expires;
                self.send(self.asked, random)
            }
            Some(_) | None => self.fail(now, DownCause::Status(423), random),
        }
    }

    fn on_success(&mut self, now: Now, response: &Response, random: u64) -> Vec<Output> {
        let expires = response.expires.unwrap_or(self.asked);
        let place = self.walk.at().cloned().filter(|_| expires > 0);
        let Some(at) = place else { return self.fail(now, DownCause::NothingGranted, random) };
        let refresh = refresh_after(expires, random);
        let later = |wait: Duration| UnixMillis(now.wall.0.saturating_add(wait.as_millis() as u64));
        let since = self.granted.as_ref().filter(|_| self.up).map_or(now.wall, |granted| granted.since);
        self.granted = Some(Granted {
            since,
            until: later(Duration::from_secs(expires.into())),
            refresh_at: later(refresh),
            service_route: response.service_route.clone(),
            at,
        });
        self.state = State::Registered;
        self.up = true;
        self.failures = 0;
        self.deadline = Some(now.mono.roughly_after(refresh));
        vec![Output::Up { expires }]
    }

    fn on_unregistered(&mut self, response: &Response, random: u64) -> Vec<Output> {
        match response.status {
            0..=199 => Vec::new(),
            401 | 407 if self.auth.learn(&self.settings, response).is_ok() => self.send(0, random),
            _ => self.rest(),
        }
    }

    fn fail(&mut self, now: Now, cause: DownCause, random: u64) -> Vec<Output> {
        self.state = State::Failed;
        self.failures = self.failures.saturating_add(1);
        self.unplaced = cause == DownCause::NoServer;
        self.up = false;
        let refused = || jitter(self.settings.refused_retry, random);
        let (wait, holds) = match &cause {
            DownCause::Rejected | DownCause::Unanswerable(_) | DownCause::SecurityAgreement => {
                (refused(), false)
            }
            DownCause::Status(status @ 400..=499) => (jitter(self.back_off(), random), *status == 408),
            DownCause::Status(_) | DownCause::NoResponse | DownCause::NoServer | DownCause::FlowFailed => {
                (self.before_it_ends(now, jitter(self.back_off(), random)), true)
            }
            DownCause::Redirected(_) | DownCause::NothingGranted | DownCause::Stopped => {
                (jitter(self.back_off(), random), false)
            }
        };
        if !holds {
            self.granted = None;
        }
        let at = now.mono + wait;
        self.deadline = Some(self.walk.all_rest_until().map_or(at, |rested| rested.max(at)));
        vec![Output::Down { cause }]
    }

    /// A wait that ends while the binding that could not be refreshed still holds, if there is time for that.
    fn before_it_ends(&self, now: Now, wait: Duration) -> Duration {
        let left = self.granted.as_ref().map(|granted| granted.until.0.saturating_sub(now.wall.0));
        match left.map(|left| Duration::from_millis(left / 2)) {
            Some(half) if half >= LEAST_RETRY => wait.min(half),
            Some(_) | None => wait,
        }
    }

    /// RFC 5626 §4.5: the base doubled for each failure in a row, up to the limit.
    fn back_off(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.settings.base_retry.saturating_mul(factor).min(self.settings.max_retry)
    }
}

/// RFC 5626 §4.5: somewhere between half of it and all of it, so that a registrar's return is not a stampede.
fn jitter(wait: Duration, random: u64) -> Duration {
    let half = wait / 2;
    half + up_to(half, random)
}

/// Somewhere within `range`.
fn up_to(range: Duration, random: u64) -> Duration {
    let range = u64::try_from(range.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
    Duration::from_micros(random % range)
}

/// When to refresh: at nine tenths of the interval, and 32 s (a whole Timer F) before its end where that is earlier, but not before
/// its half; up to a tenth of that sooner, so that those who registered together do not refresh together.
fn refresh_after(expires: u32, random: u64) -> Duration {
    let expires = Duration::from_secs(u64::from(expires));
    let early = (expires / 10 * 9).min(expires.saturating_sub(Duration::from_secs(32)));
    let latest = early.max(expires / 2);
    latest - up_to(latest / 10, random)
}
