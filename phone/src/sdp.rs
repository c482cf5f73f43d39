//! As much SDP (RFC 8866) and offer/answer (RFC 3264) as one G.711 audio stream needs.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A stream's direction as the one who states it sees it, RFC 8866 section 6.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Media flows both ways.
    SendRecv,
    /// The one who states it sends and does not listen: hold.
    SendOnly,
    /// The one who states it listens and does not send: the answer to a hold.
    RecvOnly,
    /// Nothing flows.
    Inactive,
}

impl Direction {
    fn attribute(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    fn from_attribute(name: &str) -> Option<Direction> {
        let all = [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive];
        all.into_iter().find(|direction| direction.attribute() == name)
    }

    /// Whether the one who states it sends.
    pub fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// Whether the one who states it listens.
    pub fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    /// The direction with these two halves.
    pub fn of(sends: bool, receives: bool) -> Direction {
        match (sends, receives) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    /// What is left of `self` when the peer states `peer`, RFC 3264 section 6.1.
    pub fn limited_by(self, peer: Direction) -> Direction {
        Direction::of(self.sends() && peer.receives(), self.receives() && peer.sends())
    }
}

/// The identity and version of a description, the o= line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// User, session id, network type, address type and address.
    pub(crate) session: String,
    pub(crate) version: u64,
}

/// One m= line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MediaLine {
    kind: String,
    port: u16,
    protocol: String,
    formats: String,
    connection: Option<IpAddr>,
    direction: Option<Direction>,
}

/// A received description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sdp {
    pub(crate) origin: Origin,
    connection: Option<IpAddr>,
    direction: Option<Direction>,
    media: Vec<MediaLine>,
}

/// The audio stream that the phone would use of a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Audio {
    /// Where the peer wants its media; port 0 is a refused stream.
    pub(crate) address: SocketAddr,
    pub(crate) codec: u8,
    /// The peer's direction.
    pub(crate) direction: Direction,
}

impl Sdp {
    /// Reads a description; `None` if a line that must be there is missing or unreadable.
    pub(crate) fn parse(body: &[u8]) -> Option<Sdp> {
        let body = std::str::from_utf8(body).ok()?;
        let mut lines = body.lines();
        if lines.next()?.trim_end() != "v=0" {
            return None;
        }
        let (mut origin, mut connection, mut direction) = (None, None, None);
        let mut media: Vec<MediaLine> = Vec::new();
        for line in lines {
            let (kind, value) = line.trim_end().split_once('=')?;
            match kind {
                "o" => origin = Some(parse_origin(value)?),
                "c" => {
                    let address = Some(parse_connection(value)?);
                    *media.last_mut().map_or(&mut connection, |m| &mut m.connection) = address;
                }
                "m" => media.push(parse_media(value)?),
                "a" => {
                    if let Some(found) = Direction::from_attribute(value) {
                        *media.last_mut().map_or(&mut direction, |m| &mut m.direction) = Some(found);
                    }
                }
                _ => {}
            }
        }
        Some(Sdp { origin: origin?, connection, direction, media })
    }

    /// The first audio stream that is not refused and has one of `codecs` (static payload types).
    pub(crate) fn audio(&self, codecs: &[u8]) -> Option<Audio> {
        let index = self.audio_index(codecs)?;
        let line = self.media.get(index)?;
        let codec = line.common_codec(codecs)?;
        let ip = line.connection.or(self.connection)?;
        let stated = line.direction.or(self.direction).unwrap_or(Direction::SendRecv);
        // The old way to hold, RFC 3264 section 8.4: an unspecified address receives nothing.
        let direction = if ip.is_unspecified() { Direction::of(stated.sends(), false) } else { stated };
        Some(Audio { address: SocketAddr::new(ip, line.port), codec, direction })
    }

    fn audio_index(&self, codecs: &[u8]) -> Option<usize> {
        self.media.iter().position(|line| line.common_codec(codecs).is_some())
    }

    /// The m= lines of an answer to this offer: audio accepted, every other one refused, order kept
    /// (RFC 3264 section 6). `None` if nothing can be accepted.
    fn answer_media(&self, media: SocketAddr, codecs: &[u8], direction: Direction) -> Option<String> {
        let accepted = self.audio_index(codecs)?;
        let mut out = String::new();
        for (index, line) in self.media.iter().enumerate() {
            if index == accepted {
                out.push_str(&audio_lines(media.port(), &[line.common_codec(codecs)?], direction));
            } else {
                let _ = write!(out, "m={} 0 {} {}\r\n", line.kind, line.protocol, line.formats);
            }
        }
        Some(out)
    }
}

impl MediaLine {
    fn common_codec(&self, codecs: &[u8]) -> Option<u8> {
        if self.kind != "audio" || self.port == 0 || self.protocol != "RTP/AVP" {
            return None;
        }
        self.formats.split(' ').filter_map(|format| format.parse().ok()).find(|pt| codecs.contains(pt))
    }
}

fn parse_origin(value: &str) -> Option<Origin> {
    let words: Vec<&str> = value.split(' ').collect();
    let [user, session, version, net, kind, address] = words[..] else { return None };
    Some(Origin {
        session: format!("{user} {session} {net} {kind} {address}"),
        version: version.parse().ok()?,
    })
}

fn parse_connection(value: &str) -> Option<IpAddr> {
    let address = value.strip_prefix("IN IP4 ").or_else(|| value.strip_prefix("IN IP6 "))?;
    address.split('/').next()?.trim().parse().ok()
}

fn parse_media(value: &str) -> Option<MediaLine> {
    let mut words = value.splitn(4, ' ');
    let (kind, port, protocol) = (words.next()?, words.next()?, words.next()?);
    Some(MediaLine {
        kind: kind.to_owned(),
        port: port.split('/').next()?.parse().ok()?,
        protocol: protocol.to_owned(),
        formats: words.next()?.to_owned(),
        connection: None,
        direction: None,
    })
}

fn audio_lines(port: u16, codecs: &[u8], direction: Direction) -> String {
    let formats: Vec<String> = codecs.iter().map(u8::to_string).collect();
    let mut out = format!("m=audio {port} RTP/AVP {}\r\n", formats.join(" "));
    for codec in codecs {
        let name = match codec {
            0 => "PCMU/8000",
            8 => "PCMA/8000",
            9 => "G722/8000",
            _ => continue,
        };
        let _ = write!(out, "a=rtpmap:{codec} {name}\r\n");
    }
    let _ = write!(out, "a=ptime:20\r\na={}\r\n", direction.attribute());
    out
}

/// Our side of a session: what was last sent, so that the version grows exactly when the content changes
/// (RFC 3264 section 8).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LocalSdp {
    media: SocketAddr,
    id: u64,
    version: u64,
    /// What the last description said after its o= line.
    last: Option<String>,
    /// Where the last description has media received.
    described: SocketAddr,
}

impl LocalSdp {
    pub(crate) fn new(media: SocketAddr, id: u64) -> LocalSdp {
        // RFC 8866 section 5.2 wants a number; 63 bits fit every reader.
        LocalSdp { media, id: id >> 1, version: 1, last: None, described: media }
    }

    /// Where it says that media is received.
    pub(crate) fn media(&self) -> SocketAddr {
        self.media
    }

    /// Where the last description has media received.
    pub(crate) fn described(&self) -> SocketAddr {
        self.described
    }

    /// Descriptions from now on name another address.
    pub(crate) fn move_to(&mut self, media: SocketAddr) {
        self.media = media;
    }

    /// An offer of one audio stream with `codecs` in order of preference.
    pub(crate) fn offer(&mut self, codecs: &[u8], direction: Direction) -> String {
        let media = audio_lines(self.media.port(), codecs, direction);
        self.print(&media)
    }

    /// An answer to `offer`; `None` if it has no audio stream that the phone can take.
    pub(crate) fn answer(&mut self, offer: &Sdp, codecs: &[u8], direction: Direction) -> Option<String> {
        let media = offer.answer_media(self.media, codecs, direction)?;
        Some(self.print(&media))
    }

    fn print(&mut self, media: &str) -> String {
        let ip = self.media.ip();
        let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
        let rest = format!("s=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n{media}");
        if self.last.as_ref().is_some_and(|last| *last != rest) {
            self.version += 1;
        }
        let out = format!("v=0\r\no=- {} {} IN {family} {ip}\r\n{rest}", self.id, self.version);
        self.last = Some(rest);
        self.described = self.media;
        out
    }
}

/// What the peer described last, to notice a version that does not follow RFC 3264 section 8.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RemoteSdp {
    last: Option<(Origin, Vec<u8>)>,
}

impl RemoteSdp {
    /// Takes note of a description; says what is wrong with its o= line, if anything.
    pub(crate) fn note(&mut self, sdp: &Sdp, body: &[u8]) -> Option<String> {
        let fault = self.last.as_ref().and_then(|(origin, last)| {
            let now = &sdp.origin;
            if now.session != origin.session {
                Some(format!("SDP origin changed from \"{}\" to \"{}\"", origin.session, now.session))
            } else if now.version < origin.version {
                Some(format!("SDP version went back from {} to {}", origin.version, now.version))
            } else if now.version == origin.version && last != body {
                Some(format!("SDP changed without a new version (still {})", now.version))
            } else {
                None
            }
        });
        self.last = Some((sdp.origin.clone(), body.to_vec()));
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> LocalSdp {
        LocalSdp::new(([127, 0, 0, 1], 4000).into(), 77)
    }

    #[test]
    fn an_offer_is_read_back_as_it_was_meant() {
        let offer = local().offer(&[0, 8], Direction::SendOnly);
        let sdp = Sdp::parse(offer.as_bytes()).unwrap();
        let audio = sdp.audio(&[8, 0]).unwrap();
        assert_eq!(audio.address, ([127, 0, 0, 1], 4000).into());
        assert_eq!((audio.codec, audio.direction), (0, Direction::SendOnly));
        assert!(sdp.audio(&[18]).is_none());
    }

    #[test]
    fn an_answer_keeps_the_order_of_lines_and_refuses_what_is_not_audio() {
        let offer = "v=0\r\no=a 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n\
                     m=video 5000 RTP/AVP 31\r\nm=audio 5002 RTP/AVP 18 8 0\r\na=inactive\r\n";
        let sdp = Sdp::parse(offer.as_bytes()).unwrap();
        let answer = local().answer(&sdp, &[0, 8], Direction::Inactive).unwrap();
        let lines: Vec<&str> = answer.lines().filter(|line| line.starts_with("m=")).collect();
        assert_eq!(lines, ["m=video 0 RTP/AVP 31", "m=audio 4000 RTP/AVP 8"]);
        assert_eq!(sdp.audio(&[0, 8]).unwrap().direction, Direction::Inactive);
    }

    #[test]
    fn the_version_grows_by_one_exactly_when_the_description_changes() {
        let mut local = local();
        let version = |body: String| Sdp::parse(body.as_bytes()).unwrap().origin.version;
        assert_eq!(version(local.offer(&[0], Direction::SendRecv)), 1);
        assert_eq!(version(local.offer(&[0], Direction::SendRecv)), 1);
        assert_eq!(version(local.offer(&[0], Direction::SendOnly)), 2);
    }

    #[test]
    fn a_peer_that_breaks_the_version_rule_is_noticed() {
        let body = |id: u32, version: u32, port: u16| {
            format!("v=0\r\no=- {id} {version} IN IP4 127.0.0.1\r\ns=-\r\nm=audio {port} RTP/AVP 0\r\n")
        };
        let mut remote = RemoteSdp::default();
        let mut note = |text: String| {
            remote.note(&Sdp::parse(text.as_bytes()).unwrap(), text.as_bytes()).unwrap_or_default()
        };
        assert_eq!(note(body(1, 5, 10)), "");
        assert_eq!(note(body(1, 5, 10)), "");
        assert_eq!(note(body(1, 6, 12)), "");
        assert!(note(body(1, 6, 14)).contains("without a new version"));
        assert!(note(body(1, 2, 14)).contains("went back"));
        assert!(note(body(2, 3, 14)).contains("origin changed"));
    }

    #[test]
    fn an_unspecified_connection_address_is_an_old_hold() {
        let body = "v=0\r\no=- 1 1 IN IP4 h\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nm=audio 10 RTP/AVP 0\r\n";
        let audio = Sdp::parse(body.as_bytes()).unwrap().audio(&[0]).unwrap();
        assert_eq!(audio.direction, Direction::SendOnly);
    }

    #[test]
    fn a_hold_is_answered_with_what_is_left() {
        use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
        assert_eq!(SendRecv.limited_by(SendOnly), RecvOnly);
        assert_eq!(SendRecv.limited_by(RecvOnly), SendOnly);
        assert_eq!(SendOnly.limited_by(SendOnly), Inactive);
        assert_eq!(SendOnly.limited_by(SendRecv), SendOnly);
    }
}
