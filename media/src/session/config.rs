//! What the signalling tells a leg.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::tone::TonePreset;

/// How far a leg may learn a source that its SDP does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Learn {
    /// Not at all: only the address that the SDP names.
    Off,
    /// Another port of the SDP's IP, or of the IP the signalling comes from.
    #[default]
    SameIp,
    /// Any address. For peers behind NATs whose media and signalling leave by different addresses; anyone
    /// who finds the port can then take over a silent leg.
    Any,
}

/// The direction of the media from our point of view (RFC 3264 §6.1): the mirror image of the peer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// We send and receive.
    #[default]
    SendRecv,
    /// We only send: the peer is held.
    SendOnly,
    /// We only receive: the peer holds us.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// Whether we may send.
    pub const fn sends(self) -> bool {
        match self {
            Direction::SendRecv | Direction::SendOnly => true,
            Direction::RecvOnly | Direction::Inactive => false,
        }
    }

    /// Whether we take what is sent to us.
    pub const fn receives(self) -> bool {
        match self {
            Direction::SendRecv | Direction::RecvOnly => true,
            Direction::SendOnly | Direction::Inactive => false,
        }
    }
}

/// What a leg does with its media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// What arrives goes to the other leg.
    #[default]
    Relay,
    /// What arrives goes back.
    Echo,
    /// What arrives is counted and dropped; a tone is sent.
    Tone(TonePreset),
}

/// The agreed media of one leg.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionConfig {
    /// Where the leg's SDP says it receives RTP; `None` while no SDP has come. An unspecified IP (the hold of
    /// RFC 2543) or port 0 says that nothing is to be sent.
    pub remote_rtp: Option<SocketAddr>,
    /// Where it receives RTCP (RFC 3605, or the next port). The same as `remote_rtp`: both on one port
    /// (RFC 5761). `None`: the port after that of `remote_rtp`.
    pub remote_rtcp: Option<SocketAddr>,
    /// Where the leg's signalling comes from.
    pub signalling_ip: IpAddr,
    /// How far another source may be learned.
    pub learn: Learn,
    /// From our point of view.
    pub direction: Direction,
    /// The agreed codec, as far as the engine knows it. A tone needs it.
    pub codec: Option<Codec>,
    /// The payload types that may arrive, 0 to 127; empty is any. `telephone_event` need not be among them.
    pub payload_types: Vec<u8>,
    /// The payload type of telephone events (RFC 4733) that arrive.
    pub telephone_event: Option<u8>,
    /// What the leg does.
    pub mode: Mode,
    /// Silence after which [`Session::timed_out`](super::Session::timed_out) is true; `None`: never.
    pub rtp_timeout: Option<Duration>,
}

impl Clone for SessionConfig {
    fn clone(&self) -> SessionConfig {
        let mut copy = SessionConfig::new(self.signalling_ip);
        copy.clone_from(self);
        copy
    }

    /// Allocates nothing where as many payload types are agreed.
    fn clone_from(&mut self, source: &SessionConfig) {
        let SessionConfig {
            remote_rtp,
            remote_rtcp,
            signalling_ip,
            learn,
            direction,
            codec,
            payload_types,
            telephone_event,
            mode,
            rtp_timeout,
        } = source;
        self.payload_types.clone_from(payload_types);
        (self.remote_rtp, self.remote_rtcp, self.signalling_ip) = (*remote_rtp, *remote_rtcp, *signalling_ip);
        (self.learn, self.direction, self.codec, self.mode) = (*learn, *direction, *codec, *mode);
        (self.telephone_event, self.rtp_timeout) = (*telephone_event, *rtp_timeout);
    }
}

impl SessionConfig {
    /// A leg that relays, of which nothing is known but where its signalling comes from: no address, any
    /// payload type, [`Learn::SameIp`], both directions, no time-out.
    pub fn new(signalling_ip: IpAddr) -> SessionConfig {
        SessionConfig {
            remote_rtp: None,
            remote_rtcp: None,
            signalling_ip,
            learn: Learn::default(),
            direction: Direction::default(),
            codec: None,
            payload_types: Vec::new(),
            telephone_event: None,
            mode: Mode::default(),
            rtp_timeout: None,
        }
    }

    /// Whether RTP and RTCP share a port.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.remote_rtp.is_some() && self.remote_rtp == self.remote_rtcp
    }

    /// Where RTCP goes if nothing is learned.
    pub(super) fn named_rtcp(&self) -> Option<SocketAddr> {
        self.remote_rtcp.or_else(|| {
            let rtp = self.remote_rtp?;
            Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?))
        })
    }

    /// The accepted payload types as bits.
    pub(super) fn accepted(&self) -> u128 {
        if self.payload_types.is_empty() {
            return u128::MAX;
        }
        let all = self.payload_types.iter().chain(self.telephone_event.as_ref());
        all.filter(|&&payload_type| payload_type < 128)
            .fold(0, |bits, &payload_type| bits | 1 << payload_type)
    }
}
