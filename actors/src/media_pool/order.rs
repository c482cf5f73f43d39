//! What shards tell media workers, and what they hear back.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tandem_media::session::{Report, SessionConfig};

use crate::calls::CallKey;
use crate::ids::ShardId;
use crate::seat::Seat;
use crate::shell::Injection;

/// A bound pair of sockets (RTP on an even port, RTCP on the next) that a shard may give to a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The worker that owns the sockets.
    pub worker: u16,
    /// The RTP socket's own address.
    pub rtp: SocketAddr,
}

/// One media session: a leg of a call. 0 is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId {
    /// The call.
    pub call: CallKey,
    /// The leg's media side within the call.
    pub side: u8,
}

/// What a shard tells a media worker.
#[derive(Clone, Debug)]
pub enum MediaOrder {
    /// Bind up to `pairs` more and lease them to `shard`; answered by [`MediaEvent::Granted`], with fewer if ports run out.
    Grow {
        /// Who gets them.
        shard: ShardId,
        /// Where they are bound.
        address: IpAddr,
        /// How many.
        pairs: u16,
    },
    /// Begin a session on a lease. The pair is bound now if it is not (a call restored after a restart).
    Open {
        /// Its name.
        session: SessionId,
        /// Its sockets.
        lease: Lease,
        /// Its rules.
        config: Box<SessionConfig>,
        /// The shard of its call.
        shard: ShardId,
        /// The session whose packets it sends and that sends its packets (relay).
        peer: Option<SessionId>,
    },
    /// Change a session's rules (answer, re-INVITE); its counts go on.
    Configure {
        /// Which.
        session: SessionId,
        /// Its new rules.
        config: Box<SessionConfig>,
    },
    /// Record side 0 on the left and side 1 on the right, until the first of them closes.
    Record {
        /// The call.
        call: CallKey,
        /// The shard of the call.
        shard: ShardId,
        /// The file.
        path: PathBuf,
    },
    /// End a session: answered by [`MediaEvent::Closed`]. Its sockets rest 2 s, are drained and leased to the shard again.
    Close {
        /// Which.
        session: SessionId,
    },
    /// A shard follows one that was fenced: what that had leased and not used is set aside. Answered by [`MediaEvent::Reclaimed`].
    Reclaim {
        /// Which shard.
        shard: ShardId,
    },
    /// Of the sessions of a shard only those of these calls go on: the others' calls ended with the shard before. Of what was set aside these
    /// ports are the calls', and the others are free.
    Keep {
        /// Which shard.
        shard: ShardId,
        /// The calls, in their order.
        calls: Arc<[CallKey]>,
        /// RTP ports of their leases, in their order.
        ports: Arc<[SocketAddr]>,
    },
    /// Make a session's machine panic.
    InjectSession(SessionId, Injection),
    /// Make the worker itself panic.
    InjectWorker,
}

/// An order of a shard, refused if that was fenced before it is taken.
pub struct Ordered {
    /// The order.
    pub order: MediaOrder,
    /// Who gives it.
    pub by: Arc<Seat>,
}

/// What a media worker tells a shard.
#[derive(Clone, Debug)]
pub enum MediaEvent {
    /// Pairs newly bound for the shard, in answer to [`MediaOrder::Grow`]; empty: no port is left.
    Granted {
        /// By which worker.
        worker: u16,
        /// Where they are bound.
        address: IpAddr,
        /// The pairs.
        pairs: Vec<Lease>,
    },
    /// Pairs that closed sessions had, rested and drained.
    Returned(Vec<Lease>),
    /// What was told before of pairs was for the shard that was fenced.
    Reclaimed {
        /// By which worker.
        worker: u16,
    },
    /// A session heard nothing for its time-out.
    Silent(SessionId),
    /// A session has ended.
    Closed {
        /// Which.
        session: SessionId,
        /// What it counted.
        report: Box<Report>,
    },
    /// A session could not begin: its ports are in use by somebody else.
    Refused {
        /// Which.
        session: SessionId,
        /// Why.
        why: String,
    },
    /// A session's machine panicked and was re-made.
    Restarted {
        /// Which.
        session: SessionId,
        /// What the panic said.
        panic: String,
    },
    /// A recording died.
    RecordingFailed {
        /// The call.
        call: CallKey,
        /// Why.
        why: String,
    },
}
