//! One outbound registration: a REGISTER that is kept alive (RFC 3261 §10.2).
//!
//! ```text
//!            Start                  2xx
//!   Idle ----------> Registering ----------> Registered --refresh--> Registering
//!    ^               ^    |  ^ 401/407 answered, 423 obeyed
//!    |               |    +--+ stays, with a new Send
//!    |               |    | anything else, Timer F, transport error
//!    | Stop          |    v
//!    +-- Unregistering  Failed --back-off--> Registering
//! ```
//!
//! The machine writes no message: an [`Output::Send`] says what differs from one REGISTER to the next. It is
//! driven by [`Registration::handle`] and by [`Registration::handle_timeout`] when
//! [`Registration::deadline`] has come.

mod auth;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{Instant, Now};

use auth::Authorizer;

/// What one registration registers, and how patiently. `Debug` hides the password; serialisation keeps it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationSettings {
    /// The Request-URI, which the digest protects.
    pub uri: String,
    /// The user of the digest.
    pub username: String,
    /// Its password.
    pub password: String,
    /// The interval asked for, in seconds.
    pub expires: u32,
    /// The first back-off, before doubling (RFC 5626 §4.5).
    pub base_retry: Duration,
    /// The longest back-off.
    pub max_retry: Duration,
}

impl fmt::Debug for RegistrationSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationSettings")
            .field("uri", &self.uri)
            .field("username", &self.username)
            .field("expires", &self.expires)
            .field("base_retry", &self.base_retry)
            .field("max_retry", &self.max_retry)
            .finish_non_exhaustive()
    }
}

impl RegistrationSettings {
    /// With an interval of an hour and the back-off of RFC 5626 §4.5: 30 s doubling up to 30 min.
    pub fn new(uri: impl Into<String>, username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            username: username.into(),
            password: password.into(),
            expires: 3_600,
            base_retry: Duration::from_secs(30),
            max_retry: Duration::from_secs(1_800),
        }
    }
}

/// The longest interval a 423 may force on us, in seconds.
const MAX_FORCED_EXPIRES: u32 = 7 * 86_400;

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Not started, or stopped.
    Idle,
    /// A REGISTER is under way.
    Registering,
    /// A REGISTER with an answer to a challenge is under way.
    Challenged,
    /// Registered; the deadline is the refresh.
    Registered,
    /// Not registered; the deadline is the next attempt.
    Failed,
    /// A REGISTER with `Expires: 0` is under way.
    Unregistering,
}

impl State {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Registering => "registering",
            State::Challenged => "challenged",
            State::Registered => "registered",
            State::Failed => "failed",
            State::Unregistering => "unregistering",
        }
    }
}

/// Why a registration is down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DownCause {
    /// This final status.
    #[error("the registrar answered {0}")]
    Status(u16),
    /// Our answer to the challenge was refused.
    #[error("the registrar refuses our credentials")]
    Rejected,
    /// The challenge cannot be answered: no credentials, or nothing in it that we support.
    #[error("the registrar's challenge cannot be answered")]
    Unanswerable,
    /// No response (Timer F) or no transport.
    #[error("the registrar does not answer")]
    NoResponse,
    /// The registrar granted no time.
    #[error("the registrar granted no time")]
    NothingGranted,
    /// [`Input::Stop`].
    #[error("stopped")]
    Stopped,
}

/// A final or provisional response to the REGISTER under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The seconds granted to our contact: its `expires` parameter, else the `Expires` header.
    pub expires: Option<u32>,
    /// Every `WWW-Authenticate` value of a 401, every `Proxy-Authenticate` value of a 407.
    pub challenges: Vec<String>,
    /// `Min-Expires` of a 423, in seconds.
    pub min_expires: Option<u32>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

/// What happens to a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Register, now; also to try again at once.
    Start,
    /// Unregister.
    Stop,
    /// A response to the REGISTER under way.
    Response(Response),
    /// The REGISTER under way found no answer (Timer F) or no transport.
    NoResponse,
}

/// What a registration wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Send a REGISTER in a new transaction, with the Call-ID of all the others.
    Send {
        /// Its CSeq number.
        cseq: u32,
        /// Its interval in seconds; 0 unregisters.
        expires: u32,
        /// The value of its `Authorization`.
        authorization: Option<String>,
        /// The value of its `Proxy-Authorization`.
        proxy_authorization: Option<String>,
    },
    /// Registered, for this many seconds. Also after each refresh.
    Up {
        /// The seconds granted.
        expires: u32,
    },
    /// Not registered, or not to be relied upon: a refresh failed.
    Down {
        /// Why.
        cause: DownCause,
    },
}

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
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
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
            Input::Start => match self.state {
                State::Idle | State::Failed | State::Registered => self.begin(random),
                State::Registering | State::Challenged | State::Unregistering => Vec::new(),
            },
            Input::Stop => self.stop(random),
            Input::Response(response) => match self.state {
                State::Registering | State::Challenged => self.on_response(now, &response, random),
                State::Unregistering => self.on_unregistered(&response, random),
                State::Idle | State::Registered | State::Failed => Vec::new(),
            },
            Input::NoResponse => match self.state {
                State::Registering | State::Challenged => self.fail(now, DownCause::NoResponse, None, random),
                State::Unregistering => self.rest(),
                State::Idle | State::Registered | State::Failed => Vec::new(),
            },
        }
    }

    /// Refreshes, or tries again; does nothing before the deadline.
    pub fn handle_timeout(&mut self, now: Now, random: u64) -> Vec<Output> {
        if self.deadline.is_none_or(|deadline| now.mono < deadline) {
            return Vec::new();
        }
        self.deadline = None;
        match self.state {
            State::Registered | State::Failed => self.begin(random),
            State::Idle | State::Registering | State::Challenged | State::Unregistering => Vec::new(),
        }
    }

    fn begin(&mut self, random: u64) -> Vec<Output> {
        self.state = State::Registering;
        self.lengthened = false;
        self.auth.begin();
        self.send(self.asked, random)
    }

    fn send(&mut self, expires: u32, random: u64) -> Vec<Output> {
        self.deadline = None;
        self.cseq = self.cseq.saturating_add(1);
        let (authorization, proxy_authorization) = self.auth.headers(&self.settings, random);
        vec![Output::Send { cseq: self.cseq, expires, authorization, proxy_authorization }]
    }

    fn stop(&mut self, random: u64) -> Vec<Output> {
        match self.state {
            State::Registered | State::Registering | State::Challenged => {
                self.state = State::Unregistering;
                self.auth.begin();
                let mut outputs = vec![Output::Down { cause: DownCause::Stopped }];
                outputs.extend(self.send(0, random));
                outputs
            }
            State::Failed => self.rest(),
            State::Idle | State::Unregistering => Vec::new(),
        }
    }

    fn rest(&mut self) -> Vec<Output> {
        self.state = State::Idle;
        self.deadline = None;
        Vec::new()
    }

    fn on_response(&mut self, now: Now, response: &Response, random: u64) -> Vec<Output> {
        match response.status {
            0..200 => Vec::new(),
            200..300 => self.on_success(now, response, random),
            401 | 407 => match self.auth.learn(&self.settings, response) {
                Ok(()) => {
                    self.state = State::Challenged;
                    self.send(self.asked, random)
                }
                Err(cause) => self.fail(now, cause, None, random),
            },
            423 => self.on_too_brief(now, response, random),
            status => self.fail(now, DownCause::Status(status), response.retry_after, random),
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
            Some(_) | None => self.fail(now, DownCause::Status(423), response.retry_after, random),
        }
    }

    fn on_success(&mut self, now: Now, response: &Response, random: u64) -> Vec<Output> {
        let expires = response.expires.unwrap_or(self.asked);
        if expires == 0 {
            return self.fail(now, DownCause::NothingGranted, response.retry_after, random);
        }
        self.state = State::Registered;
        self.failures = 0;
        self.deadline = Some(now.mono + refresh_after(expires));
        vec![Output::Up { expires }]
    }

    fn on_unregistered(&mut self, response: &Response, random: u64) -> Vec<Output> {
        match response.status {
            0..200 => Vec::new(),
            401 | 407 if self.auth.learn(&self.settings, response).is_ok() => self.send(0, random),
            _ => self.rest(),
        }
    }

    fn fail(&mut self, now: Now, cause: DownCause, retry_after: Option<u32>, random: u64) -> Vec<Output> {
        self.state = State::Failed;
        self.failures = self.failures.saturating_add(1);
        let wait = match cause {
            // A wrong password does not become right: asking often only locks the account.
            DownCause::Rejected | DownCause::Unanswerable => jitter(self.settings.max_retry, random),
            DownCause::Status(_) | DownCause::NoResponse | DownCause::NothingGranted | DownCause::Stopped => {
                jitter(self.back_off(), random)
            }
        };
        let asked = Duration::from_secs(u64::from(retry_after.unwrap_or(0))).min(Duration::from_secs(86_400));
        self.deadline = Some(now.mono + wait.max(asked));
        vec![Output::Down { cause }]
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
    let range = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
    half + Duration::from_micros(random % range)
}

/// When to refresh: at nine tenths of the interval, and 32 s (a whole Timer F) before its end where that is
/// earlier, but not before its half.
fn refresh_after(expires: u32) -> Duration {
    let expires = Duration::from_secs(u64::from(expires));
    let early = (expires / 10 * 9).min(expires.saturating_sub(Duration::from_secs(32)));
    early.max(expires / 2)
}
