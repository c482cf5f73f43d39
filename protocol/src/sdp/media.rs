//! One `m=` section and the attributes whose values we read.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Attribute, Bandwidth, Connection, NetAddress, OtherLine};

/// A media description: an `m=` line and what follows it (RFC 8866 §5.14).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaDescription {
    /// `audio`, `video`, `image` ...
    pub kind: String,
    /// The transport port; 0 refuses or ends the stream (RFC 3264 §6).
    pub port: u16,
    /// The number of ports; 1 unless the line has a slash.
    pub port_count: u16,
    /// `RTP/AVP`, `RTP/SAVP`, `udptl` ...
    pub protocol: String,
    /// Payload types for RTP, in order of preference; anything for other protocols.
    pub formats: Vec<String>,
    /// The media-level `c=`.
    pub connection: Option<Connection>,
    /// Media-level `b=`.
    pub bandwidths: Vec<Bandwidth>,
    /// Media-level lines without meaning to us.
    pub other: Vec<OtherLine>,
    /// Media-level `a=`.
    pub attributes: Vec<Attribute>,
}

/// What a payload type carries: `a=rtpmap` (RFC 8866 §6.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtpMap {
    /// The encoding's name; names compare without regard to case.
    pub name: String,
    /// The RTP clock, in Hz.
    pub clock_rate: u32,
    /// Audio channels; 1 unless written.
    pub channels: u8,
}

impl RtpMap {
    fn new(name: &str, clock_rate: u32) -> Self {
        Self { name: name.to_owned(), clock_rate, channels: 1 }
    }

    /// Reads `PCMU/8000` or `opus/48000/2`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('/');
        let name = parts.next().filter(|n| !n.is_empty())?.to_owned();
        let clock_rate = parts.next()?.trim().parse().ok()?;
        let channels = parts.next().map_or(Some(1), |c| c.trim().parse().ok())?;
        Some(Self { name, clock_rate, channels })
    }

    /// The audio payload types that need no `a=rtpmap` (RFC 3551 §6).
    pub fn static_audio(payload_type: u8) -> Option<Self> {
        Some(match payload_type {
            0 => Self::new("PCMU", 8_000),
            3 => Self::new("GSM", 8_000),
            4 => Self::new("G723", 8_000),
            5 => Self::new("DVI4", 8_000),
            6 => Self::new("DVI4", 16_000),
            7 => Self::new("LPC", 8_000),
            8 => Self::new("PCMA", 8_000),
            // RFC 3551 §4.5.2: the clock of G.722 is 8000 by a historical error.
            9 => Self::new("G722", 8_000),
            10 => Self { name: "L16".to_owned(), clock_rate: 44_100, channels: 2 },
            11 => Self::new("L16", 44_100),
            12 => Self::new("QCELP", 8_000),
            13 => Self::new("CN", 8_000),
            14 => Self::new("MPA", 90_000),
            15 => Self::new("G728", 8_000),
            16 => Self::new("DVI4", 11_025),
            17 => Self::new("DVI4", 22_050),
            18 => Self::new("G729", 8_000),
            _ => return None,
        })
    }

    /// Whether this is the encoding `name`.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether it carries speech: neither telephone events nor comfort noise nor redundancy alone.
    pub fn is_voice(&self) -> bool {
        !["telephone-event", "tone", "CN", "red"].into_iter().any(|n| self.is(n))
    }
}

impl fmt::Display for RtpMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.clock_rate)?;
        if self.channels > 1 { write!(f, "/{}", self.channels) } else { Ok(()) }
    }
}

/// `a=rtcp:53020 IN IP4 192.0.2.1` (RFC 3605).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtcpAttribute {
    /// The RTCP port.
    pub port: u16,
    /// The RTCP address if it is not that of RTP.
    pub addr: Option<NetAddress>,
}

impl MediaDescription {
    /// A media description without attributes.
    pub fn new(kind: &str, port: u16, protocol: &str, formats: Vec<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            port,
            port_count: 1,
            protocol: protocol.to_owned(),
            formats,
            connection: None,
            bandwidths: Vec::new(),
            other: Vec::new(),
            attributes: Vec::new(),
        }
    }

    /// The attribute `name`.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.is(name))
    }

    /// The values of every attribute `name`.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.attributes.iter().filter(move |a| a.is(name)).filter_map(|a| a.value.as_deref())
    }

    /// The formats that are payload types, in order.
    pub fn payload_types(&self) -> impl Iterator<Item = u8> {
        self.formats.iter().filter_map(|f| f.parse().ok()).filter(|pt| *pt < 128)
    }

    /// What `payload_type` carries: its `a=rtpmap`, else its static meaning (RFC 3551) on an audio line.
    pub fn rtpmap(&self, payload_type: u8) -> Option<RtpMap> {
        self.value_for(payload_type, "rtpmap")
            .and_then(RtpMap::parse)
            .or_else(|| if self.is_audio() { RtpMap::static_audio(payload_type) } else { None })
    }

    /// The `a=fmtp` parameters of `payload_type`.
    pub fn fmtp(&self, payload_type: u8) -> Option<&str> {
        self.value_for(payload_type, "fmtp")
    }

    fn value_for(&self, payload_type: u8, name: &str) -> Option<&str> {
        self.attributes.iter().filter(|a| a.is(name)).find_map(|a| {
            let (pt, rest) = a.value.as_deref()?.split_once([' ', '\t'])?;
            (pt.parse() == Ok(payload_type)).then(|| rest.trim())
        })
    }

    /// The payload type of telephone events (RFC 4733) at `clock_rate` Hz, else at any clock rate.
    pub fn telephone_event(&self, clock_rate: u32) -> Option<u8> {
        let events: Vec<(u8, u32)> = self
            .payload_types()
            .filter_map(|pt| Some((pt, self.rtpmap(pt)?)))
            .filter(|(_, map)| map.is("telephone-event"))
            .map(|(pt, map)| (pt, map.clock_rate))
            .collect();
        events.iter().find(|(_, rate)| *rate == clock_rate).or(events.first()).map(|(pt, _)| *pt)
    }

    /// `a=rtcp` (RFC 3605), if it can be read.
    pub fn rtcp(&self) -> Option<RtcpAttribute> {
        let value = self.attribute("rtcp")?.value.as_deref()?;
        let mut words = value.split_ascii_whitespace();
        let port = words.next()?.parse().ok().filter(|p| *p != 0)?;
        let rest: Vec<&str> = words.collect();
        let addr = match rest.as_slice() {
            [] => None,
            [net, family, host] => Some(super::parse::net_address(net, family, host)?),
            _ => return None,
        };
        Some(RtcpAttribute { port, addr })
    }

    /// Whether `a=rtcp-mux` is offered or agreed (RFC 5761).
    pub fn rtcp_mux(&self) -> bool {
        self.attribute("rtcp-mux").is_some()
    }

    /// `a=ptime`: how many milliseconds of audio a packet should hold.
    pub fn ptime(&self) -> Option<u32> {
        // RFC 8866 allows a fraction ("ptime:2.5"); whole milliseconds are all that we act on.
        let value = self.attribute("ptime")?.value.as_deref()?;
        value.split('.').next()?.trim().parse().ok().filter(|p| (1..=1_000).contains(p))
    }

    /// Whether this is an audio line.
    pub fn is_audio(&self) -> bool {
        self.kind.eq_ignore_ascii_case("audio")
    }

    /// Whether its transport is plain RTP (`RTP/AVP`, `RTP/AVPF`).
    pub fn is_plain_rtp(&self) -> bool {
        ["RTP/AVP", "RTP/AVPF"].into_iter().any(|p| self.protocol.eq_ignore_ascii_case(p))
    }

    /// Whether its transport is SRTP in any form (`RTP/SAVP`, `UDP/TLS/RTP/SAVPF` ...).
    pub fn is_secure_rtp(&self) -> bool {
        let protocol = self.protocol.to_ascii_uppercase();
        protocol.ends_with("RTP/SAVP") || protocol.ends_with("RTP/SAVPF")
    }

    /// Keeps these payload types, in this order, and what describes them.
    pub(super) fn keep_formats(&mut self, kept: &[u8]) {
        self.attributes.retain(|attribute| describes_kept(attribute, kept));
        self.formats = kept.iter().map(u8::to_string).collect();
    }
}

/// Whether an attribute that describes one payload type describes one that is kept.
fn describes_kept(attribute: &Attribute, kept: &[u8]) -> bool {
    if !["rtpmap", "fmtp", "rtcp-fb"].into_iter().any(|name| attribute.is(name)) {
        return true;
    }
    let format = attribute.value.as_deref().and_then(|v| v.split_ascii_whitespace().next());
    format.is_none_or(|f| f == "*" || f.parse().is_ok_and(|pt| kept.contains(&pt)))
}
