//! What a call is told, and what it wants done.

use std::net::SocketAddr;

use bytes::Bytes;

use super::{CALLER, Ended, LegId, Newcomer, Reroute, Side, Succession, Target, TrunkAttempt};
use crate::dialog::{Command, LegEvent};
use crate::sdp::negotiate::AudioView;

/// What happens to a call.
#[derive(Clone, Debug)]
pub enum Input {
    /// The call may begin.
    Begin,
    /// A leg says something.
    Leg(LegId, LegEvent),
    /// A leg's actor is gone, whatever it said last.
    LegGone(LegId),
    /// A leg cannot begin: its trunk has as many calls as it may.
    NoPlace(LegId),
    /// A leg does not begin: its proxy wants fewer calls (RFC 7339).
    Spared(LegId),
    /// Several addresses of the proxy that a leg was to begin with have raced (RFC 8305).
    Raced {
        /// The leg.
        leg: LegId,
        /// The address that it begins with now; `None`: none could be reached, and its failure follows.
        won: Option<SocketAddr>,
        /// Those that could not be reached.
        failed: Vec<SocketAddr>,
    },
    /// The checkpoint of the answer is committed, or could not be.
    Committed(bool),
    /// The answer to [`Output::Redirected`].
    Rerouted {
        /// The status that was asked about.
        status: u16,
        /// Where the call goes.
        reroute: Reroute,
    },
    /// Somebody is to take a leg's place (RFC 3891).
    Replace(Box<Newcomer>),
    /// A side has sent no RTP for too long.
    Silent(Side),
    /// A side's media could not begin, or is lost for good.
    MediaLost,
    /// An operator ends the call.
    HangUp,
    /// [`super::Call::deadline`] has passed.
    Timeout,
}

impl Input {
    /// False for news that leaves a call as it is: its checkpoint holds as before.
    pub fn alters(&self) -> bool {
        // A newcomer's has it take the place that it waits for.
        !matches!(self, Input::Leg(CALLER, LegEvent::AnswerReady))
    }
}

/// What a call wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Begin a leg with an INVITE.
    Invite {
        /// The new leg.
        leg: LegId,
        /// Where it goes.
        target: Target,
        /// The offer; empty to ask for one.
        sdp: Bytes,
        /// Whether provisional responses may be reliable.
        reliable: bool,
    },
    /// Tell a leg.
    Tell(LegId, Command),
    /// What the callee's media session hears and sends is this leg's from now on.
    Towards(LegId),
    /// The media session of a side has a new peer.
    Media {
        /// Which side.
        side: Side,
        /// What its peer's session description says; `None` if it has no stream that packets can be sent to.
        view: Option<AudioView>,
        /// True while either side holds: silence is no fault then.
        held: bool,
    },
    /// Commit a checkpoint of the call and its legs, then say [`Input::Committed`].
    Commit,
    /// Renew the checkpoint; nobody waits.
    Refresh,
    /// The callee is alerting (told once).
    Ringing,
    /// Both sides are connected.
    Answered {
        /// False if the answer left before its checkpoint was committed.
        protected: bool,
    },
    /// They are not, after all: the caller has not got his 200 and is told something else.
    AnswerUnsent,
    /// The hunt has failed, but a redirection names further contacts: [`Input::Rerouted`] says where they lead.
    Redirected {
        /// How it has failed: a 3xx, or what became of an earlier contact.
        status: u16,
        /// The contacts' URIs, the best first.
        contacts: Vec<String>,
        /// True if the contacts are the present callee's, false if they are left over from an earlier redirection.
        fresh: bool,
        /// True if the call has been redirected often enough: it may only be passed to the caller.
        exhausted: bool,
    },
    /// A trunk was passed over, as it takes none of the caller's codecs.
    NoCodec {
        /// Its name.
        trunk: String,
    },
    /// A trunk or one of its proxies was tried without success.
    AttemptFailed {
        /// Which, and what came of it.
        attempt: TrunkAttempt,
        /// The seconds for which the proxy wants no calls (RFC 3261 §21.5.4); never the caller's affair.
        retry_after: Option<u32>,
        /// Whether another proxy or trunk is tried now.
        goes_on: bool,
    },
    /// The proxy of a leg that nobody waits for any more wants no calls for so many seconds (RFC 3261 §21.5.4).
    ProxyBusy(LegId, u32),
    /// A side's place is another leg's from now on; the checkpoint that is committed next says so.
    Replaced {
        /// Which side.
        side: Side,
        /// Whose leg.
        by: LegId,
    },
    /// What became of a newcomer, told once.
    Succession(LegId, Succession),
    /// The call is over; every leg has ended.
    Over(Ended),
}
