//! What a dialog is told, what it tells its call, and what it asks of the endpoint.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Body, Credentials, SessionPolicy};
use crate::flow::Flow;
use crate::message::{Message, Method};
use crate::transaction::Timers;

/// Names a server transaction of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerTransactionId(pub u64);

/// How our side appears in messages of one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSide {
    /// `SIP/2.0/UDP host:port`, the fixed part of our Via.
    pub via: String,
    /// `<sip:host:port>`, our Contact.
    pub contact: String,
    /// The listener's T1 and T2.
    pub timers: Timers,
    /// Session timers (RFC 4028).
    pub session: SessionPolicy,
    /// How long after a 491 a re-INVITE is sent again; `None`: as RFC 3261 §14.1 says.
    pub reinvite_delay: Option<Duration>,
    /// Whether re-INVITEs leave the offer to the peer (delayed media). A dialog keeps what it began with by itself.
    #[serde(skip)]
    pub reinvite_delayed: bool,
    /// Whether the peer may replace a call (RFC 3891), and is told so. A dialog keeps what it began with by itself.
    #[serde(skip)]
    pub replaces: bool,
}

/// Where requests within a dialog go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Routing {
    /// To the address the peer's signalling comes from, whatever its Contact says: the peer may be behind NAT.
    Flow,
    /// To the first Route or the remote target (§12.2.1.1); to the flow when that names no address.
    Target,
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoAnswer {
    /// Timer B or F ran out.
    Timeout,
    /// It could not be sent.
    Transport,
}

/// What happens to a dialog.
#[derive(Clone, Debug)]
pub enum Input {
    /// A request of the peer within the dialog.
    Request {
        /// The transaction to answer in; `None` for an ACK.
        transaction: Option<ServerTransactionId>,
        /// The request.
        request: Message,
        /// Where it came from.
        source: Flow,
    },
    /// A response to a request of ours.
    Response(Message),
    /// A request of ours got no answer.
    Unanswered {
        /// Which method.
        method: Method,
        /// Its CSeq number.
        cseq: u32,
        /// Why.
        why: NoAnswer,
    },
    /// A CANCEL matched the INVITE that began this dialog, or a re-INVITE.
    Cancelled {
        /// That of the INVITE.
        transaction: ServerTransactionId,
        /// Its Reason (RFC 3326).
        reason: Option<String>,
    },
    /// The answer to [`Output::Challenged`].
    Credentials {
        /// What the settings have; `None`: nothing.
        credentials: Option<Credentials>,
        /// The response that asks for them.
        challenge: Message,
    },
    /// The call wants something.
    Command(Command),
    /// [`Dialog::deadline`](super::Dialog::deadline) has passed.
    Timeout,
}

/// What the call can ask of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Tell the caller of progress: 180 or 183, with a session description for early media.
    Progress {
        /// 101 to 199.
        status: u16,
        /// Early media.
        sdp: Option<Bytes>,
    },
    /// The same, with a description that holds: the answer to the INVITE's offer, or the offer that it asks for. It goes
    /// reliably if the caller can (RFC 3262), and then its PRACK answers an offer.
    EarlySession {
        /// 101 to 199.
        status: u16,
        /// The answer or offer.
        sdp: Bytes,
    },
    /// Make the 200 ready, but hold it until [`Command::SendAnswer`]: the checkpoint that includes it comes first.
    PrepareAnswer {
        /// The answer to the INVITE's offer, or the offer that it asks for.
        sdp: Bytes,
    },
    /// Let the prepared 200 go.
    SendAnswer,
    /// Offer the peer a new session (re-INVITE).
    Reoffer {
        /// The offer.
        sdp: Bytes,
    },
    /// Offer the peer a new session by UPDATE (RFC 3311); by re-INVITE if it does not take UPDATE and the dialog is confirmed.
    Update {
        /// The offer.
        sdp: Bytes,
    },
    /// Offer the peer the session of somebody who takes the place of whoever was at the other side (re-INVITE, RFC 3891).
    Succeed {
        /// The newcomer's offer.
        sdp: Bytes,
    },
    /// Ask the peer for an offer: a re-INVITE without one.
    Solicit,
    /// Send the ACK or PRACK of the response that carried the peer's offer.
    Acknowledge {
        /// The answer.
        sdp: Bytes,
    },
    /// Answer the peer's re-INVITE, UPDATE or PRACK; with an offer if the re-INVITE asks for one.
    AnswerReoffer {
        /// The answer.
        sdp: Bytes,
    },
    /// Take back [`Command::Reoffer`], [`Command::Update`] or [`Command::Solicit`], whose outcome is of no interest any more: by
    /// CANCEL if it is a re-INVITE that the peer has not answered.
    CancelReoffer {
        /// A Reason header's value (RFC 3326).
        reason: Option<String>,
    },
    /// Refuse the peer's re-INVITE or UPDATE; the session stays as it was.
    RefuseReoffer {
        /// The status to answer.
        status: u16,
    },
    /// Hand the caller a redirection.
    Redirect {
        /// 300 to 399.
        status: u16,
        /// The contacts' URIs.
        contacts: Vec<String>,
    },
    /// Ask the peer what the other leg's peer asks: INFO or MESSAGE.
    Ask {
        /// Names the request to whom [`LegEvent::AskedAnswered`] goes.
        id: u32,
        /// INFO or MESSAGE.
        method: Method,
        /// Its body.
        body: Option<Body>,
    },
    /// The other leg's answer to [`LegEvent::Asked`].
    AnswerAsked {
        /// Which one.
        id: u32,
        /// 200 to 699.
        status: u16,
        /// Its body.
        body: Option<Body>,
    },
    /// End the leg by whatever its phase has: a final response, a CANCEL, or a BYE.
    End {
        /// The final response, if the leg is an unanswered caller.
        status: u16,
        /// A Reason header's value (RFC 3326), or the text after `Warning: 399`.
        reason: Option<String>,
    },
}

/// What a leg tells its call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LegEvent {
    /// The callee is alerting, or sends early media.
    Progress {
        /// 101 to 199.
        status: u16,
        /// Early media.
        sdp: Option<Bytes>,
    },
    /// A reliable provisional response: the answer to our offer, which is acknowledged already, or the offer that our INVITE
    /// asks for, whose PRACK waits for [`Command::Acknowledge`].
    EarlySession {
        /// 101 to 199.
        status: u16,
        /// The answer or offer.
        sdp: Bytes,
    },
    /// The callee answered; the ACK has been sent.
    Answered {
        /// The answer to our offer; or what an early exchange has agreed.
        sdp: Bytes,
    },
    /// The callee answered an INVITE without offer by one of his own; the ACK waits for [`Command::Acknowledge`].
    AnsweredWithOffer {
        /// The offer.
        sdp: Bytes,
    },
    /// The INVITE came to nothing.
    Failed {
        /// The final status; 408 for silence, 503 for a transport that failed.
        status: u16,
        /// The reason phrase, or what went wrong.
        reason: String,
        /// Seconds of Retry-After, if the peer sent one.
        retry_after: Option<u32>,
        /// Why there was no response, if there was none.
        unanswered: Option<NoAnswer>,
    },
    /// The 200 is ready and held.
    AnswerReady,
    /// The 200 that was to leave once a reliable response was acknowledged never will: the peer gets another final response.
    AnswerUnsent {
        /// Which.
        status: u16,
    },
    /// The caller gave up before the answer.
    Cancelled,
    /// The peer offers a new session by re-INVITE.
    Reoffer {
        /// The offer.
        sdp: Bytes,
    },
    /// The peer offers a new session by UPDATE, before or after the answer to the INVITE.
    Update {
        /// The offer.
        sdp: Bytes,
    },
    /// The peer offers a new session in a PRACK, which cannot well be refused (RFC 6337 §3.3).
    Prack {
        /// The offer.
        sdp: Bytes,
    },
    /// The peer's re-INVITE asks for an offer; [`Command::AnswerReoffer`] takes it there.
    OfferWanted,
    /// The peer made the offer that [`Command::Solicit`] asked for; the ACK waits for [`Command::Acknowledge`].
    Offered {
        /// The offer.
        sdp: Bytes,
    },
    /// The peer answered our offer: in a 2xx, in its ACK or in its PRACK.
    ReofferAnswered {
        /// The answer.
        sdp: Bytes,
    },
    /// The peer answered what nobody but the dialog has offered, to refresh the session, with another description than before.
    Refreshed {
        /// The description.
        sdp: Bytes,
    },
    /// The peer has taken back its re-INVITE, or its UPDATE is void: no answer is wanted any more, and nothing has changed.
    ReofferCancelled {
        /// The CANCEL's Reason (RFC 3326).
        reason: Option<String>,
    },
    /// The peer has accepted an offer after it was taken back: it is to be offered again what it had been told before.
    Unwanted {
        /// What it had been told.
        told: Bytes,
        /// What it has accepted.
        offered: Bytes,
    },
    /// [`Command::AnswerReoffer`] came when the peer had been answered otherwise: its session is as it was.
    AnsweredTooLate {
        /// The peer's description.
        heard: Bytes,
    },
    /// The early session of the callee is over, though its INVITE is not (RFC 6228).
    EarlyEnded,
    /// The peer refused our new offer; the session stays as it was.
    ReofferRefused {
        /// Its status.
        status: u16,
    },
    /// The peer sends a request that is the other leg's to answer.
    Asked {
        /// Names it.
        id: u32,
        /// INFO or MESSAGE.
        method: Method,
        /// Its body.
        body: Option<Body>,
    },
    /// The peer's answer to [`Command::Ask`].
    AskedAnswered {
        /// Which one.
        id: u32,
        /// 200 to 699; 408 for silence.
        status: u16,
        /// Its body.
        body: Option<Body>,
    },
    /// The peer has taken our INVITE with 100 and then said nothing for [`InviteSpec::progress`](super::InviteSpec::progress);
    /// the INVITE is cancelled, and how that ends is told as usual.
    NoProgress,
    /// The callee redirects; [`LegEvent::Failed`] with a 3xx follows.
    Redirected {
        /// The contacts' URIs, those of the highest q first.
        contacts: Vec<String>,
    },
    /// Why the peer is about to end the leg (RFC 3326): [`LegEvent::Cancelled`] or [`LegEvent::Ended`] follows.
    Reason(String),
    /// The dialog is over.
    Ended {
        /// Who ended it and how.
        by: EndedBy,
    },
}

/// How a dialog came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndedBy {
    /// The peer's BYE.
    Peer,
    /// We were told to end it.
    Us,
    /// Our 200 was never acknowledged.
    NoAck,
    /// The peer does not know the dialog any more (481 or 408 to a request within it, §12.2.1.2).
    Lost,
    /// Nobody refreshed the session (RFC 4028 §10).
    SessionExpired,
    /// The peer did not answer our offer where it had to.
    NoSession,
    /// Its state could not be kept.
    Fault,
}

/// What a dialog asks of the endpoint and of its call.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a request in a new client transaction.
    Request {
        /// The whole message.
        message: Bytes,
        /// Its method.
        method: Method,
        /// The branch of its Via.
        branch: String,
        /// Its CSeq number.
        cseq: u32,
        /// Where to.
        to: Flow,
        /// The transaction's timers.
        timers: Timers,
    },
    /// Send an ACK for a 2xx: outside every transaction.
    Ack {
        /// The whole message.
        message: Bytes,
        /// Where to.
        to: Flow,
    },
    /// Respond in a server transaction; if it is gone, send the bytes to `to`.
    Respond {
        /// The transaction.
        transaction: ServerTransactionId,
        /// The response's status.
        status: u16,
        /// The whole message.
        message: Bytes,
        /// Where the request came from.
        to: Flow,
    },
    /// A peer asks who we are, and the credentials are not here: [`Input::Credentials`] brings them.
    Challenged {
        /// Their name in the settings.
        account: String,
        /// The 401 or 407.
        response: Message,
    },
    /// Tell the call.
    Up(LegEvent),
    /// Nothing more will come of this dialog.
    Finished,
}
