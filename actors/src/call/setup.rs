//! What a call begins with.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tandem_protocol::b2bua::{Call, LegId};
use tandem_protocol::dialog::Credentials;
use tandem_protocol::transaction::Timers;

use super::{Media, Replaced};
use crate::calls::{CallKey, Callee, Info, Outside, Party};
use crate::dialog::Origin;
use crate::directory::Permit;

/// How INVITEs of this call leave.
#[derive(Clone)]
pub(crate) struct Outbound {
    /// The trunk they leave by, if any.
    pub(crate) trunk: Option<Arc<str>>,
    /// From, without a tag.
    pub(crate) from: String,
    /// To.
    pub(crate) to: String,
    /// The caller's Max-Forwards, less one.
    pub(crate) max_forwards: u8,
    /// The INVITE's timers.
    pub(crate) timers: Timers,
    /// By which way it goes on from a proxy of the trunk (RFC 3608).
    pub(crate) route: Vec<String>,
    /// How long whoever is called may say nothing further after 100; `None`: as long as the call lasts.
    pub(crate) progress: Option<Duration>,
    /// Answers a challenge.
    pub(crate) credentials: Option<Credentials>,
    /// Who the caller is said to be (RFC 3325).
    pub(crate) headers: Vec<(String, String)>,
    /// Who calls, for INVITEs to others than these.
    pub(crate) party: Arc<Party>,
    /// Who is called.
    pub(crate) callee: Callee,
    /// It leads to the outside: whom it is counted for.
    pub(crate) outside: Option<Outside>,
}

/// What the caller's leg begins with.
pub(crate) enum Caller {
    /// His INVITE.
    Invite { origin: Origin, call_id: String },
    /// Checkpoints of both legs.
    Restored(Vec<(LegId, Bytes, String)>),
}

/// Everything a call begins with.
pub(crate) struct Setup {
    pub(crate) key: CallKey,
    pub(crate) info: Info,
    pub(crate) machine: Call,
    pub(crate) outbound: Vec<Outbound>,
    pub(crate) caller: Caller,
    pub(crate) media: Media,
    pub(crate) permits: Vec<Permit>,
    /// Others than those it began with have its sides.
    pub(crate) replaced: Option<Replaced>,
}
