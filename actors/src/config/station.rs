//! What a station is told to be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tandem_protocol::dial_plan::NumberMask;
use tandem_protocol::digest::Secret;
use tandem_protocol::sdp::negotiate::CodecList;

use super::{MediaPath, Redirect, StationToll};

/// Where a station is reached that does not register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The user it is asked for.
    pub user: String,
    /// Where.
    pub at: ConnectedAt,
}

/// The place of a [`Connection`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectedAt {
    /// An address of its own.
    Address(SocketAddr),
    /// The proxies of a trunk.
    Trunk(Arc<str>),
}

/// One station. There may be a million: what few differ in is in the rules, which they share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its name, which is its digest user name and the user of its AOR.
    pub name: Arc<str>,
    /// Its number.
    pub extension: Box<str>,
    /// How it proves who it is; `None`: it cannot register or call.
    pub secret: Option<Secret>,
    /// Where it is reached while it is not registered.
    pub connection: Option<Box<Connection>>,
    /// How it is treated.
    pub rules: Arc<StationRules>,
}

/// How stations are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationRules {
    /// Whose numbers it may dial; `None`: partition `internal`.
    pub calling_search_space: Option<String>,
    /// Whether its media crosses the engine.
    pub media: MediaPath,
    /// The codecs that it may use.
    pub codecs: CodecList,
    /// Whether its calls are recorded.
    pub record: bool,
    /// What a redirection by it does.
    pub redirect: Redirect,
    /// How long it rings.
    pub ring_timeout: Duration,
    /// How long contacts of one q ring before those of the next lower do; zero: until they have failed.
    pub fork_timeout: Duration,
    /// Whether the user part of From alone identifies it, whatever the host.
    pub identify_by_user_only: bool,
    /// The whole number that trunks show for its calls: the `outbound_ani` of its user.
    pub outbound_ani: Option<String>,
    /// What trunks show for its calls otherwise.
    pub external_number_mask: Option<NumberMask>,
    /// How many bindings it may have; the oldest goes.
    pub max_contacts: usize,
    /// Concurrent calls it may have; 0: any number.
    pub max_calls: u32,
    /// What it may cost.
    pub toll: StationToll,
}
