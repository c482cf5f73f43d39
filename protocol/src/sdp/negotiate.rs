//! Offer and answer (RFC 3264) as a back-to-back user agent needs them.
//!
//! Four jobs: carry one leg's description to the other leg ([`relay_offer`], [`relay_answer`]), speak for a
//! service of our own ([`answer_service`], [`service_offer`]), let two offers answer each other ([`cross_answers`]), and tell the media session of a leg what was
//! agreed ([`media_view`]). Before all of them comes what a side may use at all ([`within_codecs`]).

mod carried;
mod codecs;
mod relay;
mod service;
mod succession;
#[cfg(test)]
mod tests;
mod two_offers;

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Direction, MediaDescription, Origin, SdpError, SessionDescription};
use crate::fnv::fnv1a;

pub use codecs::{CodecList, Role, within_codecs};
pub use relay::{relay_answer, relay_offer};
pub use service::{ChosenCodec, answer_service, service_offer};
pub use succession::{succeeding_answer, succeeding_offer};
pub use two_offers::cross_answers;

/// Why an offer or answer cannot be used, with the status that says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// The body is not `application/sdp`: 415.
    #[error("body type {0:?} is not application/sdp")]
    UnsupportedType(String),
    /// The body cannot be read: 400.
    #[error(transparent)]
    Malformed(#[from] SdpError),
    /// The audio has no `c=` line: 400.
    #[error("the audio has no c= line")]
    NoConnection,
    /// The audio's address is a name, which cannot be resolved here: 488.
    #[error("the audio's address is not a literal IP address")]
    UnusableAddress,
    /// Audio is offered over SRTP alone: 488.
    #[error("audio is offered over {0} only")]
    UnsupportedTransport(String),
    /// No audio is offered: 488.
    #[error("no audio is offered")]
    NoAudio,
    /// No codec is common: 488.
    #[error("no common audio codec")]
    NoCommonCodec,
}

impl NegotiationError {
    /// The status to answer the request with.
    pub fn status(&self) -> u16 {
        match self {
            Self::UnsupportedType(_) => 415,
            Self::Malformed(_) | Self::NoConnection => 400,
            Self::UnusableAddress | Self::UnsupportedTransport(_) | Self::NoAudio | Self::NoCommonCodec => {
                488
            }
        }
    }

    /// The warning code and its text (RFC 3261 §20.43).
    pub fn warning(&self) -> Option<(u16, &'static str)> {
        match self {
            Self::UnsupportedType(_) => None,
            Self::Malformed(_) | Self::NoConnection => Some((399, "Malformed session description")),
            Self::UnusableAddress => Some((301, "Incompatible network address formats")),
            Self::UnsupportedTransport(_) => Some((302, "Incompatible transport protocol")),
            Self::NoAudio => Some((304, "Media type not available")),
            Self::NoCommonCodec => Some((305, "Incompatible media format")),
        }
    }

    /// The value of a `Warning` header; `agent` is the host that warns.
    pub fn warning_value(&self, agent: &str) -> Option<String> {
        self.warning().map(|(code, text)| format!("{code} {agent} \"{text}\""))
    }
}

/// Reads the body of a message, given its `Content-Type`.
///
/// # Errors
/// [`NegotiationError::UnsupportedType`] and [`NegotiationError::Malformed`].
pub fn read_body(content_type: &str, body: &[u8]) -> Result<SessionDescription, NegotiationError> {
    if !is_sdp(content_type) {
        return Err(NegotiationError::UnsupportedType(media_type(content_type).to_owned()));
    }
    Ok(SessionDescription::parse(body)?)
}

/// Whether a `Content-Type` says that the body is a session description.
pub fn is_sdp(content_type: &str) -> bool {
    media_type(content_type).eq_ignore_ascii_case("application/sdp")
}

/// The type without its parameters.
fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Our ports for one leg's audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalMedia {
    /// The address we tell.
    pub addr: IpAddr,
    /// The RTP port.
    pub rtp: u16,
    /// The RTCP port; `a=rtcp` is written when it is not the one after RTP.
    pub rtcp: u16,
}

impl From<(IpAddr, u16)> for LocalMedia {
    /// RTP at the port, RTCP at the next.
    fn from((addr, rtp): (IpAddr, u16)) -> Self {
        Self { addr, rtp, rtcp: rtp.saturating_add(1) }
    }
}

impl LocalMedia {
    fn rtcp_attribute(&self) -> Option<super::Attribute> {
        (self.rtp.checked_add(1) != Some(self.rtcp))
            .then(|| super::Attribute::new("rtcp", self.rtcp.to_string()))
    }
}

/// What we told one leg: keeps its `o=` line ours and its version monotonic (RFC 3264 §8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegDescription {
    session_id: u64,
    version: u64,
    addr: IpAddr,
    /// A hash of what was last told, less its `o=` line.
    last: Option<u64>,
    /// In whose name: who described himself first, where descriptions of others cross as they are.
    name: Option<carried::Name>,
}

impl LegDescription {
    /// A leg that was told nothing yet.
    ///
    /// `session_id` must be new for each leg (RFC 8866 §5.2); it is cut to 63 bits because some phones read it
    /// as a signed number. `addr` is the host named in `o=`.
    pub fn new(session_id: u64, addr: IpAddr) -> Self {
        Self { session_id: session_id & (u64::MAX >> 1), version: 0, addr, last: None, name: None }
    }

    /// Another leg at the same address that was told nothing yet.
    pub fn anew(&self, session_id: u64) -> Self {
        Self::new(session_id, self.addr)
    }

    /// The host that `o=` names is `addr` from now on.
    pub fn moves_to(&mut self, addr: IpAddr) {
        self.addr = addr;
    }

    /// The session id in our `o=` line.
    pub fn session_id(&self) -> u64 {
        self.session_id
    }

    /// The version last told; 0 before the first description.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The `o=` line at the present version.
    pub fn origin(&self) -> Origin {
        Origin {
            username: "-".to_owned(),
            session_id: self.session_id.to_string(),
            version: self.version,
            addr: self.addr.into(),
        }
    }

    /// Writes `description` with this leg's `o=` line; the version grows by one if the rest differs from the last.
    pub fn stamp(&mut self, mut description: SessionDescription) -> Bytes {
        description.origin = Origin { version: self.version + 1, ..self.origin() };
        let mut text = description.to_string();
        // The first two lines are v= and o=.
        let rest = text.match_indices('\n').nth(1).map_or(text.len(), |(end, _)| end + 1);
        let hash = fnv1a(text[rest..].bytes());
        if self.last == Some(hash) {
            text.replace_range(..rest, &format!("v=0\r\no={}\r\n", self.origin()));
        } else {
            self.version += 1;
            self.last = Some(hash);
        }
        Bytes::from(text)
    }
}

/// What the media session of a leg needs to know of its peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioView {
    /// Where the peer receives RTP. Unspecified (`0.0.0.0`) while it holds in the RFC 2543 way; then
    /// `direction` does not receive, and nothing is to be sent.
    pub rtp: SocketAddr,
    /// Where the peer receives RTCP.
    pub rtcp: SocketAddr,
    /// The payload types, in the peer's order.
    pub formats: Vec<u8>,
    /// The name of the first voice codec (`PCMU`), empty if its payload type is not described.
    pub codec: String,
    /// The payload type of that codec.
    pub payload_type: u8,
    /// Its RTP clock in Hz.
    pub clock_rate: u32,
    /// The payload type of telephone events, if offered.
    pub telephone_event: Option<u8>,
    /// Milliseconds of audio a packet should hold, if the peer says.
    pub ptime: Option<u32>,
    /// Which way media flows, seen from the peer.
    pub direction: Direction,
}

/// The first audio line that carries plain RTP and is not refused.
fn active_audio(sd: &SessionDescription) -> Option<(usize, &MediaDescription)> {
    sd.media.iter().enumerate().find(|(_, m)| m.is_audio() && m.is_plain_rtp() && m.port != 0)
}

/// What `sd` says of its audio: `None` if it has none, or none that packets can be sent to.
pub fn media_view(sd: &SessionDescription) -> Option<AudioView> {
    let (_, media) = active_audio(sd)?;
    let formats: Vec<u8> = media.payload_types().collect();
    let voice = |pt: &u8| media.rtpmap(*pt).is_none_or(|map| map.is_voice());
    let payload_type = formats.iter().copied().find(voice).or(formats.first().copied())?;
    let map = media.rtpmap(payload_type);
    let clock_rate = map.as_ref().map_or(8_000, |m| m.clock_rate);
    Some(AudioView {
        rtp: sd.effective_rtp_addr(media)?,
        rtcp: sd.rtcp_addr(media)?,
        telephone_event: media.telephone_event(clock_rate),
        codec: map.map(|m| m.name).unwrap_or_default(),
        payload_type,
        clock_rate,
        ptime: media.ptime(),
        direction: sd.direction(media),
        formats,
    })
}
