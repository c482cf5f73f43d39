//! Session descriptions (RFC 8866, with the RFC 4566 forms phones still send).
//!
//! Reading is tolerant of what does no harm (bare line feeds, a missing `s=` or `t=`, unknown lines, lines out
//! of order) and strict about what decides where packets go (`v=`, `o=`, `c=`, `m=`). Every line that is not
//! understood is counted in [`SessionDescription::skipped_lines`]. What is understood is kept and printed again.

mod media;
pub mod negotiate;
mod parse;
mod print;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use media::{MediaDescription, RtcpAttribute, RtpMap};

/// The longest description that is read, in bytes.
pub const MAX_BYTES: usize = 65_536;
/// The most lines that are read.
pub const MAX_LINES: usize = 2_048;
/// The most media descriptions that are read.
pub const MAX_MEDIA: usize = 64;

/// Why a session description cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// The body is longer than [`MAX_BYTES`].
    #[error("session description of {0} bytes is longer than {MAX_BYTES}")]
    TooLong(usize),
    /// The body has more than [`MAX_LINES`] lines.
    #[error("session description has more than {MAX_LINES} lines")]
    TooManyLines,
    /// The body has more than [`MAX_MEDIA`] `m=` lines.
    #[error("session description has more than {MAX_MEDIA} media descriptions")]
    TooManyMedia,
    /// The first line is not `v=0`.
    #[error("session description does not begin with v=0")]
    BadVersion,
    /// There is no `o=` line.
    #[error("session description has no o= line")]
    MissingOrigin,
    /// A line that decides where packets go cannot be read.
    #[error("line {line}: malformed {kind}= line")]
    Malformed {
        /// The number of the line, from 1.
        line: usize,
        /// The letter of the line.
        kind: char,
    },
}

/// An address as `c=`, `o=` and `a=rtcp` write it: `IN IP4 192.0.2.1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetAddress {
    /// A literal address.
    Ip(IpAddr),
    /// A host name, which a sans-IO layer cannot resolve.
    Name {
        /// The name as written.
        name: String,
        /// Whether the line says `IP6`.
        v6: bool,
    },
}

impl NetAddress {
    /// The literal address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Name { .. } => None,
        }
    }
}

impl From<IpAddr> for NetAddress {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

/// The `o=` line (RFC 8866 §5.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The user, `-` if there is none to tell.
    pub username: String,
    /// The session's id: digits, kept as text because some phones send more than 64 bits.
    pub session_id: String,
    /// The version, which grows by one with every change of the description (RFC 3264 §8).
    pub version: u64,
    /// The originating host.
    pub addr: NetAddress,
}

/// A `c=` line (RFC 8866 §5.7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Where media is received.
    pub addr: NetAddress,
    /// What follows a slash (multicast TTL and count), without the slash.
    pub suffix: Option<String>,
}

impl From<IpAddr> for Connection {
    fn from(ip: IpAddr) -> Self {
        Self { addr: ip.into(), suffix: None }
    }
}

/// A `b=` line (RFC 8866 §5.8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// `AS`, `CT`, `TIAS`, `RS`, `RR`.
    pub kind: String,
    /// In the unit of the kind: kbit/s for `AS` and `CT`, bit/s for the others.
    pub value: u64,
}

/// A `t=` line with its `r=` lines (RFC 8866 §5.9, §5.10).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Seconds since 1900, 0 for none.
    pub start: u64,
    /// Seconds since 1900, 0 for none.
    pub stop: u64,
    /// The `r=` values as written.
    pub repeats: Vec<String>,
}

/// A line that is kept and printed again but means nothing to us (`i=`, `u=`, `e=`, `p=`, `z=`, `k=`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherLine {
    /// The letter of the line.
    pub kind: char,
    /// What follows `=`.
    pub value: String,
}

/// An `a=` line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// What precedes the colon.
    pub name: String,
    /// What follows the colon, `None` for a flag.
    pub value: Option<String>,
}

impl Attribute {
    /// An attribute without value, as `a=sendrecv`.
    pub fn flag(name: impl Into<String>) -> Self {
        Self { name: name.into(), value: None }
    }

    /// An attribute with a value, as `a=ptime:20`.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: Some(value.into()) }
    }

    /// Whether this is the attribute `name`, in any case of letters.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Which way media flows, seen from the side that wrote the description (RFC 8866 §6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Both ways; the default.
    #[default]
    SendRecv,
    /// The writer only sends: it holds the other side.
    SendOnly,
    /// The writer only receives.
    RecvOnly,
    /// Neither way.
    Inactive,
}

impl Direction {
    /// From its two halves.
    pub fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Whether the writer sends.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the writer receives.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same flow seen from the other side, which is the widest direction an answer may have (RFC 3264 §6.1).
    pub fn reverse(self) -> Self {
        Self::new(self.receives(), self.sends())
    }

    /// What both allow.
    pub fn restrict(self, other: Self) -> Self {
        Self::new(self.sends() && other.sends(), self.receives() && other.receives())
    }

    /// The attribute's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// Reads an attribute's name, in any case of letters.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|d| name.eq_ignore_ascii_case(d.as_str()))
    }
}

/// A session description (RFC 8866).
///
/// [`parse`](Self::parse) reads one, `Display` prints one with CRLF line ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDescription {
    /// `o=`.
    pub origin: Origin,
    /// `s=`, `-` when it was missing or empty.
    pub session_name: String,
    /// The session-level `c=`, the default of every media description.
    pub connection: Option<Connection>,
    /// Session-level `b=`.
    pub bandwidths: Vec<Bandwidth>,
    /// `t=` and `r=`; never empty after reading.
    pub times: Vec<Timing>,
    /// Session-level lines without meaning to us.
    pub other: Vec<OtherLine>,
    /// Session-level `a=`.
    pub attributes: Vec<Attribute>,
    /// The `m=` sections, in order: their place is their identity (RFC 3264 §8).
    pub media: Vec<MediaDescription>,
    /// How many lines were not understood and left out.
    pub skipped_lines: usize,
}

impl SessionDescription {
    /// An empty description from an origin: no media, `t=0 0`.
    pub fn new(origin: Origin) -> Self {
        Self {
            origin,
            session_name: "-".to_owned(),
            connection: None,
            bandwidths: Vec::new(),
            times: vec![Timing::default()],
            other: Vec::new(),
            attributes: Vec::new(),
            media: Vec::new(),
            skipped_lines: 0,
        }
    }

    /// Reads a body of type `application/sdp`.
    ///
    /// Bytes that are not UTF-8 are replaced, because free text (`s=`, `i=`) is Latin-1 in some phones.
    ///
    /// # Errors
    /// [`SdpError`] for what exceeds a limit or would leave it unclear where packets go.
    pub fn parse(body: &[u8]) -> Result<Self, SdpError> {
        parse::parse(body)
    }

    /// The session-level attribute `name`.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.is(name))
    }

    /// The `c=` that holds for `media`.
    pub fn connection_of<'a>(&'a self, media: &'a MediaDescription) -> Option<&'a Connection> {
        media.connection.as_ref().or(self.connection.as_ref())
    }

    /// Whether `media` is held in the RFC 2543 way, by the unspecified address (RFC 3264 §8.4).
    pub fn is_held_by_address(&self, media: &MediaDescription) -> bool {
        self.connection_of(media).and_then(|c| c.addr.ip()).is_some_and(|ip| ip.is_unspecified())
    }

    /// The direction of `media` as its writer means it.
    ///
    /// The media-level attribute, else the session-level one, else both ways. The unspecified address (an
    /// RFC 2543 hold) takes away what the writer would receive: `sendrecv` becomes `sendonly` and `recvonly`
    /// becomes `inactive`.
    pub fn direction(&self, media: &MediaDescription) -> Direction {
        let written = [&media.attributes, &self.attributes]
            .into_iter()
            .find_map(|list| list.iter().find_map(|a| Direction::from_name(&a.name)))
            .unwrap_or_default();
        if self.is_held_by_address(media) { written.restrict(Direction::SendOnly) } else { written }
    }

    /// Where the writer of `media` receives RTP; `None` if the stream is refused (port 0), has no `c=`, or its
    /// address is a name. A held stream gives the unspecified address; nothing may be sent there.
    pub fn effective_rtp_addr(&self, media: &MediaDescription) -> Option<SocketAddr> {
        if media.port == 0 {
            return None;
        }
        Some(SocketAddr::new(self.connection_of(media)?.addr.ip()?, media.port))
    }

    /// Where the writer of `media` receives RTCP when it is not multiplexed: `a=rtcp` (RFC 3605), else the port
    /// after RTP (RFC 3550 §11). `None` as for [`effective_rtp_addr`](Self::effective_rtp_addr), and for RTP
    /// port 65535 without `a=rtcp`.
    ///
    /// `a=rtcp-mux` does not change this: until both sides have agreed on it RTCP has its own port (RFC 5761
    /// §5.1.1), and we never agree to it.
    pub fn rtcp_addr(&self, media: &MediaDescription) -> Option<SocketAddr> {
        let rtp = self.effective_rtp_addr(media)?;
        match media.rtcp() {
            Some(rtcp) => {
                let ip = rtcp.addr.map_or(Some(rtp.ip()), |a| a.ip())?;
                Some(SocketAddr::new(ip, rtcp.port))
            }
            None => Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?)),
        }
    }
}
