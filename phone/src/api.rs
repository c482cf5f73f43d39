//! What a script says to a phone and hears from it.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::manners::Manners;
use crate::sdp::Direction;

/// A call of one phone; never used again for another call of that phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallHandle(pub u64);

/// Who a phone is and how it behaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PhoneConfig {
    /// The user part of its address of record.
    pub user: String,
    /// The digest user name; `user` if absent.
    pub auth_user: Option<String>,
    /// The digest password; without one a challenge is a failure.
    pub password: Option<String>,
    /// The host part of its address of record and of every number it dials.
    pub domain: String,
    /// The display name in From.
    pub display: Option<String>,
    /// Its signalling address: Via and Contact.
    pub local: SocketAddr,
    /// What carries its messages.
    pub transport: Transport,
    /// The RTP address in its SDP.
    pub media: SocketAddr,
    /// Where requests outside dialogs are sent.
    pub server: SocketAddr,
    /// The source of tags, branches, Call-IDs and random delays: the same seed gives the same messages.
    pub seed: u64,
    /// The registration time asked for, seconds.
    pub expires: u32,
    /// What it does with an incoming call.
    pub auto: AutoAnswer,
    /// Timer T1, RFC 3261 section 17.1.1.1: 500 ms unless the network is known.
    pub t1: Duration,
    /// Static RTP payload types it can use, in order of preference (0 PCMU, 8 PCMA).
    pub codecs: Vec<u8>,
    /// What it has beyond RFC 3261, and how it uses that.
    pub manners: Manners,
}

/// What carries the messages of a phone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// Datagrams.
    #[default]
    Udp,
    /// Streams: nothing is repeated but the 2xx of an INVITE (RFC 3261 sections 13.3.1.4 and 17.1.1.2).
    Tcp,
}

impl Transport {
    /// As a Via has it.
    pub(crate) fn via(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        }
    }
}

/// What a phone does with an incoming call by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AutoAnswer {
    /// Rings at once and waits for [`Command::Answer`] or [`Command::Reject`].
    Manual,
    /// Rings `ring` after the INVITE and answers `answer` after that.
    After {
        /// From INVITE to 180.
        ring: Duration,
        /// From 180 to 200.
        answer: Duration,
    },
    /// Refuses at once with this status (300 to 699; anything else is sent as 603).
    Reject(u16),
    /// Never answers anything to an INVITE, as a phone that is switched off.
    Ignore,
}

/// What a script tells a phone to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Register, and keep the registration fresh.
    Register,
    /// Remove the registration.
    Unregister,
    /// Call a number of the phone's domain.
    Dial {
        /// The user part of the Request-URI.
        number: String,
    },
    /// Call a number of the phone's domain and leave the offer to the other end (RFC 3261 section 13.2.1).
    DialWithoutOffer {
        /// The user part of the Request-URI.
        number: String,
    },
    /// Answer an incoming call.
    Answer(CallHandle),
    /// Refuse an incoming call with this status (300 to 699; anything else is sent as 603).
    Reject(CallHandle, u16),
    /// Refuse an incoming call with 302: it is to go on to another number of the phone's domain (RFC 3261 section 8.1.3.4).
    Redirect {
        /// The call.
        call: CallHandle,
        /// The user part of the Contact.
        number: String,
    },
    /// End a call in whatever state: CANCEL, 486 or BYE; a 200 that crosses the CANCEL is acknowledged and
    /// ended with BYE.
    Hangup(CallHandle),
    /// Hold: a re-INVITE with `sendonly`.
    Hold(CallHandle),
    /// End the hold: a re-INVITE with `sendrecv`.
    Retrieve(CallHandle),
    /// A re-INVITE that changes nothing.
    ReInvite(CallHandle),
    /// Receive media at another address from now on: a re-INVITE that says so.
    Move {
        /// The call.
        call: CallHandle,
        /// Where it is to hear from now on.
        media: SocketAddr,
    },
    /// A re-INVITE that leaves the offer to the peer.
    ReInviteWithoutOffer(CallHandle),
    /// An UPDATE that offers the same again (RFC 3311), in an early dialog too once its first offer is answered; nothing while another
    /// offer is open.
    Update(CallHandle),
    /// Say 183 with a session description before answering: reliably if both ends can (RFC 3262), else as a preview, which an INVITE
    /// without offer cannot have.
    Progress(CallHandle),
    /// CANCEL our re-INVITE that has no final response; as soon as it has a provisional one.
    CancelReInvite(CallHandle),
    /// Never acknowledge the next 2xx to an INVITE of ours, however often it comes.
    WithholdAck(CallHandle),
    /// Ask INFO within the call with a CSeq that is used up, which must be refused (RFC 3261 section 12.2.2).
    LowCseq(CallHandle),
    /// Neither refresh the session any more nor end it when nobody does (RFC 4028): the timer of this end has died.
    Neglect(CallHandle),
    /// INFO within the call (RFC 6086), without a body.
    Info(CallHandle),
    /// Behave as a proxy that forks an incoming call to a second phone, which rings and does whatever is done with the
    /// first: both answer, with different To tags. Nothing is told about the second one.
    Fork(CallHandle),
    /// Ring on after a CANCEL: whoever answers then is too late.
    Defy(CallHandle),
    /// Be switched off and on again: calls, transactions and the registration are forgotten without a word. Each call is
    /// told as ended.
    Restart,
    /// Ask the server for its capabilities.
    Options,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallState {
    /// Our INVITE is out.
    Calling,
    /// The other end rings.
    Ringing,
    /// We are being called and have not answered.
    Incoming,
    /// We answered and wait for the ACK.
    Answered,
    /// Both ends agree that there is a call.
    Established,
    /// A CANCEL or BYE of ours waits for its end.
    Ending,
    /// Over; kept until its last transaction has its final response.
    Ended,
}

/// What happened. Each call ends with exactly one [`Event::Ended`] or [`Event::Failed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The registrar accepted, for so many seconds. Sent again at each refresh.
    Registered {
        /// Seconds granted.
        expires: u32,
    },
    /// The registrar refused, or (408) did not answer. Server errors and silence are tried again by themselves.
    RegistrationFailed {
        /// The final status.
        status: u16,
    },
    /// The registration is removed.
    Unregistered,
    /// Somebody calls.
    Incoming {
        /// The new call.
        call: CallHandle,
        /// The user part of From.
        from: String,
        /// The user part of the Request-URI.
        number: String,
    },
    /// The other end rings.
    Ringing {
        /// The call.
        call: CallHandle,
    },
    /// A provisional response carried SDP.
    EarlyMedia {
        /// The call.
        call: CallHandle,
        /// Where the peer wants media.
        remote_media: SocketAddr,
        /// The payload type in use.
        codec: u8,
    },
    /// The call is answered, by us or by the other end, and the media is known.
    Answered {
        /// The call.
        call: CallHandle,
        /// Where the peer wants media.
        remote_media: SocketAddr,
        /// The payload type in use.
        codec: u8,
    },
    /// A re-INVITE, of either end, was accepted.
    MediaChanged {
        /// The call.
        call: CallHandle,
        /// Where the peer wants media.
        remote_media: SocketAddr,
        /// The payload type in use.
        codec: u8,
        /// What we may do now: [`Direction::RecvOnly`] when the peer holds us.
        direction: Direction,
    },
    /// Our re-INVITE was refused; the call goes on as before.
    ReInviteFailed {
        /// The call.
        call: CallHandle,
        /// Its final status.
        status: u16,
    },
    /// The call is over.
    Ended {
        /// The call.
        call: CallHandle,
        /// Whether this phone ended it.
        by_us: bool,
        /// The final status of the cancelled or refused INVITE, or of our BYE; absent when the peer sent BYE.
        status: Option<u16>,
        /// Why, in words.
        reason: String,
    },
    /// Our call was refused, or (408) nobody answered the INVITE.
    Failed {
        /// The call.
        call: CallHandle,
        /// The final status.
        status: u16,
    },
    /// The server answered our OPTIONS.
    OptionsAnswered {
        /// Its final status.
        status: u16,
    },
    /// A request got no final response in time (Timers B and F).
    Timeout {
        /// The call it belonged to, if any.
        call: Option<CallHandle>,
        /// The method.
        method: String,
    },
    /// The peer did something that the RFCs do not allow, or that only loss and reordering can explain.
    Protocol {
        /// What, in words.
        what: String,
        /// The Call-ID of what is complained of, if no message has just brought it.
        call_id: Option<String>,
    },
}
