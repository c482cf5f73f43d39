//! What a registration is told to do, what it is told, and what it wants done.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flow::Transport;
use crate::time::UnixMillis;

/// What one registration registers, and how patiently. `Debug` hides the password; serialisation keeps it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationSettings {
    /// The Request-URI, which the digest protects.
    pub uri: String,
    /// How SIP is carried there; a redirection to another transport is not followed.
    pub transport: Transport,
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
    /// The back-off after credentials were refused: asking often only locks the account.
    pub refused_retry: Duration,
    /// A server that has failed is asked after the others for this long.
    pub rest: Duration,
}

impl fmt::Debug for RegistrationSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationSettings")
            .field("uri", &self.uri)
            .field("transport", &self.transport)
            .field("username", &self.username)
            .field("expires", &self.expires)
            .field("base_retry", &self.base_retry)
            .field("max_retry", &self.max_retry)
            .field("refused_retry", &self.refused_retry)
            .field("rest", &self.rest)
            .finish_non_exhaustive()
    }
}

impl RegistrationSettings {
    /// Over UDP with an interval of an hour and the back-off of RFC 5626 §4.5: 30 s doubling up to 30 min.
    pub fn new(uri: impl Into<String>, username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            transport: Transport::Udp,
            username: username.into(),
            password: password.into(),
            expires: 3_600,
            base_retry: Duration::from_secs(30),
            max_retry: Duration::from_secs(1_800),
            refused_retry: Duration::from_secs(1_800),
            rest: Duration::from_secs(60),
        }
    }
}

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Not started, or stopped.
    Idle,
    /// Not registered yet; the deadline is the first REGISTER.
    Waiting,
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
            State::Waiting => "waiting",
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
    #[error("the registrar's challenge cannot be answered: {0}")]
    Unanswerable(String),
    /// 494: the registrar wants a security agreement (RFC 3329), of which we know none.
    #[error("the registrar wants a security agreement (494), which is not spoken here")]
    SecurityAgreement,
    /// A redirection that leads nowhere: to a name, by another transport, in a circle, or one too many.
    #[error("the registrar redirects with {0} to nothing that can be followed")]
    Redirected(u16),
    /// No response (Timer F) or no transport.
    #[error("the registrar does not answer")]
    NoResponse,
    /// No address of the registrar is known.
    #[error("the registrar's address is not known")]
    NoServer,
    /// The registrar granted no time.
    #[error("the registrar granted no time")]
    NothingGranted,
    /// [`Input::Stop`].
    #[error("stopped")]
    Stopped,
    /// The connection is gone by which the registrar reached us (RFC 5626 §4.5).
    #[error("the connection to the registrar has ended, and with it its way to us")]
    FlowFailed,
}

impl DownCause {
    /// The kinds of cause, as metrics name them.
    pub const KINDS: [&'static str; 7] =
        ["status", "credentials", "challenge", "redirect", "no_response", "not_found", "flow"];

    /// Its kind; `None` for a stop, which is no failure.
    pub fn kind(&self) -> Option<&'static str> {
        match self {
            DownCause::Status(_) | DownCause::NothingGranted => Some("status"),
            DownCause::Rejected => Some("credentials"),
            DownCause::Unanswerable(_) | DownCause::SecurityAgreement => Some("challenge"),
            DownCause::Redirected(_) => Some("redirect"),
            DownCause::NoResponse => Some("no_response"),
            DownCause::NoServer => Some("not_found"),
            DownCause::FlowFailed => Some("flow"),
            DownCause::Stopped => None,
        }
    }
}

/// A final or provisional response to a REGISTER.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The CSeq number, which says what it answers.
    pub cseq: u32,
    /// The seconds granted to our contact: its `expires` parameter, else the `Expires` header.
    pub expires: Option<u32>,
    /// Every `WWW-Authenticate` value of a 401, every `Proxy-Authenticate` value of a 407.
    pub challenges: Vec<String>,
    /// `Min-Expires` of a 423, in seconds.
    pub min_expires: Option<u32>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    /// The URIs of the contacts of a 3xx, those of the highest q first.
    pub contacts: Vec<String>,
    /// `Service-Route` of a 2xx (RFC 3608), in order.
    pub service_route: Vec<String>,
}

/// What happens to a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Register at some time within this; zero: now, also to try again at once.
    Start {
        /// How long the first REGISTER may wait, so that not all registrations of a process start at once.
        within: Duration,
    },
    /// Unregister.
    Stop,
    /// Where the registrar is: its addresses in the order they are to be asked.
    Servers(Vec<SocketAddr>),
    /// A response to a REGISTER.
    Response(Response),
    /// The REGISTER of this CSeq number found no answer (Timer F) or no transport.
    NoResponse {
        /// The CSeq number.
        cseq: u32,
    },
    /// The REGISTER of this CSeq number went to another address of its server than it was to, or to none (RFC 8305).
    Raced {
        /// The CSeq number.
        cseq: u32,
        /// Where it went; `None`: nowhere, and [`Input::NoResponse`] follows.
        won: Option<SocketAddr>,
        /// Where it could not go: nobody there is asked again in this attempt.
        failed: Vec<SocketAddr>,
    },
    /// The connection is gone by which it was registered, and by which alone the registrar reaches us (RFC 5626 §4.5).
    FlowFailed,
}

/// What a registration wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Send a REGISTER in a new transaction, with the Call-ID of all the others.
    Send(Box<Request>),
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

/// What differs from one REGISTER to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Where it is sent.
    pub to: SocketAddr,
    /// Its Request-URI.
    pub uri: String,
    /// Its CSeq number.
    pub cseq: u32,
    /// Its interval in seconds; 0 unregisters.
    pub expires: u32,
    /// Whether somebody else is asked if nobody answers: then it need not be waited for as long.
    pub others: bool,
    /// The value of its `Authorization`.
    pub authorization: Option<String>,
    /// The value of its `Proxy-Authorization`.
    pub proxy_authorization: Option<String>,
}

/// What must outlive the process: without it each restart would register anew, and the registrar would take an older CSeq for a
/// repetition (RFC 3261 §10.3 step 7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The CSeq number of the last REGISTER.
    pub cseq: u32,
    /// What the registrar last granted, if that was not given up since.
    pub granted: Option<Granted>,
}

/// A binding of ours at a registrar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Since when we are registered without a break.
    pub since: UnixMillis,
    /// When it ends unless it is refreshed.
    pub until: UnixMillis,
    /// When it is refreshed.
    pub refresh_at: UnixMillis,
    /// By which way requests of the account go (RFC 3608).
    pub service_route: Vec<String>,
    /// Which server granted it.
    pub at: Place,
}

/// Whom a REGISTER is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The address.
    pub to: SocketAddr,
    /// The Request-URI of a redirection that led there; `None`: that of the settings.
    pub uri: Option<String>,
}
