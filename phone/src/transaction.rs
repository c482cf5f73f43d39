//! The transaction machines of RFC 3261 section 17 on UDP, with the Accepted states of RFC 6026.
//!
//! Each function mirrors a figure of the RFC: it is given an input and says what to do. Timers are set by
//! [`crate::endpoint`], which owns the table of transactions.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::CallHandle;
use crate::request::Outgoing;
use crate::timer::{T2, T4};
use crate::wire::ReplyBase;

/// What a request of a call was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    Invite,
    ReInvite,
    Cancel,
    Bye,
    Info,
    Update,
    Prack,
    /// An UPDATE that only refreshes the session.
    Refresh,
    /// A request that must be refused for its CSeq.
    LowCseq,
}

/// Who gets a client transaction's responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Owner {
    Call(CallHandle, Role),
    Registration,
    Options,
    /// A BYE for a dialog that is not kept: its answer interests nobody.
    Stray,
}

/// States of figures 5 and 6; a non-INVITE transaction calls the first one Trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ClientState {
    Calling,
    Proceeding,
    Completed,
    Accepted,
}

/// A client transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) key: String,
    pub(crate) branch: String,
    pub(crate) request: Outgoing,
    pub(crate) bytes: Vec<u8>,
    pub(crate) owner: Owner,
    pub(crate) state: ClientState,
    pub(crate) interval: Duration,
    /// The ACK to send again for each retransmitted final response.
    pub(crate) ack: Option<(SocketAddr, Vec<u8>)>,
    /// The final response's status and To tag.
    pub(crate) answer: Option<(u16, Option<String>)>,
}

/// What a response means to a client transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientStep {
    /// Provisional, to be passed on.
    Provisional,
    /// The first final response, to be passed on.
    Final,
    /// The final response again: send the ACK again if there is one.
    Repeated,
    /// A 2xx of another dialog after the first one (a fork).
    Fork,
    /// A different final response, which no server may send.
    Contradiction,
    /// A provisional response after the final one: reordered, dropped.
    Late,
}

impl Client {
    pub(crate) fn is_invite(&self) -> bool {
        self.request.method == "INVITE"
    }

    /// Takes a response, RFC 3261 figures 5 and 6.
    pub(crate) fn on_response(&mut self, status: u16, to_tag: Option<&str>) -> ClientStep {
        match self.state {
            ClientState::Calling | ClientState::Proceeding if status < 200 => {
                self.state = ClientState::Proceeding;
                ClientStep::Provisional
            }
            ClientState::Calling | ClientState::Proceeding => {
                let accepted = self.is_invite() && status < 300;
                self.state = if accepted { ClientState::Accepted } else { ClientState::Completed };
                self.answer = Some((status, to_tag.map(str::to_owned)));
                ClientStep::Final
            }
            ClientState::Completed | ClientState::Accepted if status < 200 => ClientStep::Late,
            ClientState::Completed | ClientState::Accepted => {
                let Some((first, first_tag)) = &self.answer else { return ClientStep::Late };
                let same_tag = first_tag.as_deref() == to_tag;
                if *first == status && same_tag {
                    ClientStep::Repeated
                } else if self.state == ClientState::Accepted && status < 300 && !same_tag {
                    ClientStep::Fork
                } else {
                    ClientStep::Contradiction
                }
            }
        }
    }

    /// Timers A and E: the interval after this retransmission; `None` when there is nothing to send.
    pub(crate) fn on_retransmit(&mut self) -> Option<Duration> {
        match (self.state, self.is_invite()) {
            (ClientState::Calling, true) => self.interval *= 2,
            (ClientState::Calling, false) => self.interval = (self.interval * 2).min(T2),
            (ClientState::Proceeding, false) => self.interval = T2,
            (ClientState::Proceeding, true) | (ClientState::Completed | ClientState::Accepted, _) => {
                return None;
            }
        }
        Some(self.interval)
    }

    /// How long the transaction absorbs after its final response: Timers D, M and K.
    pub(crate) fn linger(&self, t1: Duration) -> Duration {
        if self.is_invite() { t1 * 64 } else { T4 }
    }
}

/// States of figures 7 and 8; a non-INVITE transaction has no Confirmed and no Accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ServerState {
    Proceeding,
    Completed,
    Confirmed,
    Accepted,
}

/// A server transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) key: String,
    pub(crate) base: ReplyBase,
    pub(crate) invite: bool,
    pub(crate) state: ServerState,
    /// The last response, sent again for each retransmitted request.
    pub(crate) last: Option<Vec<u8>>,
    pub(crate) interval: Duration,
}

/// What the transaction's user sent, and what it needs of timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerStep {
    /// No timer.
    Nothing,
    /// Timers G and H.
    AwaitAck,
    /// Timer J or L.
    Linger,
}

impl Server {
    /// The user answers, RFC 3261 figures 7 and 8.
    pub(crate) fn on_answer(&mut self, status: u16) -> ServerStep {
        if status < 200 {
            return ServerStep::Nothing;
        }
        if self.invite && status < 300 {
            self.state = ServerState::Accepted;
            return ServerStep::Linger;
        }
        self.state = ServerState::Completed;
        if self.invite { ServerStep::AwaitAck } else { ServerStep::Linger }
    }

    /// The request came again: what to send.
    pub(crate) fn on_repeat(&self) -> Option<&[u8]> {
        match self.state {
            ServerState::Proceeding | ServerState::Completed => self.last.as_deref(),
            // RFC 6026 section 7.1: the 2xx is the user's to repeat.
            ServerState::Confirmed | ServerState::Accepted => None,
        }
    }

    /// Timer G: the interval after this retransmission.
    pub(crate) fn on_retransmit(&mut self) -> Option<Duration> {
        if self.state != ServerState::Completed || !self.invite {
            return None;
        }
        self.interval = (self.interval * 2).min(T2);
        Some(self.interval)
    }
}
