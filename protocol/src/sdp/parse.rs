//! Reads a session description, line by line.

use std::net::IpAddr;

use super::{
    Attribute, Bandwidth, Connection, MAX_BYTES, MAX_LINES, MAX_MEDIA, MediaDescription, NetAddress, Origin,
    OtherLine, SdpError, SessionDescription, Timing,
};

/// What of a session description was read so far.
struct Reader {
    origin: Option<Origin>,
    rest: SessionDescription,
    named: bool,
    times: Vec<Timing>,
    line: usize,
}

pub(super) fn parse(body: &[u8]) -> Result<SessionDescription, SdpError> {
    if body.len() > MAX_BYTES {
        return Err(SdpError::TooLong(body.len()));
    }
    let text = String::from_utf8_lossy(body);
    let blank = Origin {
        username: String::new(),
        session_id: String::new(),
        version: 0,
        addr: IpAddr::from([0, 0, 0, 0]).into(),
    };
    let mut reader = Reader {
        origin: None,
        rest: SessionDescription::new(blank),
        named: false,
        times: Vec::new(),
        line: 0,
    };
    for line in lines(&text).map(str::trim_end).filter(|l| !l.is_empty()) {
        reader.line += 1;
        if reader.line > MAX_LINES {
            return Err(SdpError::TooManyLines);
        }
        let split = line.split_at_checked(2).filter(|(key, _)| key.ends_with('=') && !line.contains('\0'));
        let read = match split {
            Some((key, value)) => reader.read(char::from(key.as_bytes()[0]), value.trim_start())?,
            None if reader.line == 1 => return Err(SdpError::BadVersion),
            None => false,
        };
        if !read {
            reader.rest.skipped_lines += 1;
        }
    }
    reader.finish()
}

/// A lone CR ends a line too: no value can then carry a line end into what we print.
fn lines(mut rest: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = memchr::memchr2(b'\r', b'\n', rest.as_bytes());
        let (line, after) = match end {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, ""),
        };
        rest = after;
        (end.is_some() || !line.is_empty()).then_some(line)
    })
}

impl Reader {
    /// Whether the line was understood and its place is right.
    fn read(&mut self, kind: char, value: &str) -> Result<bool, SdpError> {
        if self.line == 1 {
            return if kind == 'v' && value == "0" { Ok(true) } else { Err(SdpError::BadVersion) };
        }
        let malformed = SdpError::Malformed { line: self.line, kind };
        match kind {
            'm' => {
                if self.rest.media.len() == MAX_MEDIA {
                    return Err(SdpError::TooManyMedia);
                }
                self.rest.media.push(media_line(value).ok_or(malformed)?);
            }
            'c' => return self.connection(connection(value).ok_or(malformed)?),
            'o' if self.in_session() && self.origin.is_none() => {
                self.origin = Some(origin(value).ok_or(malformed)?);
            }
            's' if self.in_session() && !self.named => {
                self.named = true;
                if !value.is_empty() {
                    self.rest.session_name = value.to_owned();
                }
            }
            'a' | 'b' | 'i' | 'k' => return Ok(self.either_level(kind, value)),
            't' if self.in_session() => match timing(value) {
                Some(time) => self.times.push(time),
                None => return Ok(false),
            },
            'r' if self.in_session() => match self.times.last_mut() {
                Some(time) => time.repeats.push(value.to_owned()),
                None => return Ok(false),
            },
            'u' | 'e' | 'p' | 'z' if self.in_session() => {
                self.rest.other.push(OtherLine { kind, value: value.to_owned() });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn in_session(&self) -> bool {
        self.rest.media.is_empty()
    }

    fn connection(&mut self, connection: Connection) -> Result<bool, SdpError> {
        let slot = match self.rest.media.last_mut() {
            Some(media) => &mut media.connection,
            None => &mut self.rest.connection,
        };
        // More than one is legal for layered multicast only; the first is the one that counts.
        let first = slot.is_none();
        slot.get_or_insert(connection);
        Ok(first)
    }

    fn either_level(&mut self, kind: char, value: &str) -> bool {
        let (attributes, bandwidths, other) = match self.rest.media.last_mut() {
            Some(m) => (&mut m.attributes, &mut m.bandwidths, &mut m.other),
            None => (&mut self.rest.attributes, &mut self.rest.bandwidths, &mut self.rest.other),
        };
        match kind {
            'a' => attribute(value).map(|a| attributes.push(a)).is_some(),
            'b' => bandwidth(value).map(|b| bandwidths.push(b)).is_some(),
            _ => {
                other.push(OtherLine { kind, value: value.to_owned() });
                true
            }
        }
    }

    fn finish(self) -> Result<SessionDescription, SdpError> {
        let mut session = self.rest;
        if self.line == 0 {
            return Err(SdpError::BadVersion);
        }
        session.origin = self.origin.ok_or(SdpError::MissingOrigin)?;
        if !self.times.is_empty() {
            session.times = self.times;
        }
        Ok(session)
    }
}

fn origin(value: &str) -> Option<Origin> {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    // A user name with spaces is forbidden and sent nevertheless: the last five fields are fixed.
    let (username, [session_id, version, net, family, host]) = match words.as_slice() {
        [name @ .., a, b, c, d, e] => (name, [a, b, c, d, e]),
        _ => return None,
    };
    Some(Origin {
        username: if username.is_empty() { "-".to_owned() } else { username.join("_") },
        session_id: (*session_id).to_owned(),
        // Digits beyond 64 bits are sent, and only ever compared.
        version: version.bytes().all(|b| b.is_ascii_digit()).then(|| version.parse().unwrap_or(u64::MAX))?,
        addr: net_address(net, family, host)?,
    })
}

/// Reads `IN IP4 host`; the literal decides the family when both are given and differ.
pub(super) fn net_address(net: &str, family: &str, host: &str) -> Option<NetAddress> {
    let v6 = family.eq_ignore_ascii_case("IP6");
    if !net.eq_ignore_ascii_case("IN") || !(v6 || family.eq_ignore_ascii_case("IP4")) || host.is_empty() {
        return None;
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(NetAddress::Ip(ip));
    }
    let legal = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    legal.then(|| NetAddress::Name { name: host.to_owned(), v6 })
}

fn connection(value: &str) -> Option<Connection> {
    let mut words = value.split_ascii_whitespace();
    let (net, family, host) = (words.next()?, words.next()?, words.next()?);
    let (host, suffix) = match host.split_once('/') {
        Some((host, suffix)) => (host, Some(suffix.to_owned())),
        None => (host, None),
    };
    Some(Connection { addr: net_address(net, family, host)?, suffix })
}

fn media_line(value: &str) -> Option<MediaDescription> {
    let mut words = value.split_ascii_whitespace();
    let (kind, port, protocol) = (words.next()?, words.next()?, words.next()?);
    let (port, port_count) = match port.split_once('/') {
        Some((port, count)) => (port, count.parse().ok().filter(|c| *c > 0)?),
        None => (port, 1),
    };
    let formats = words.map(str::to_owned).collect();
    let mut media = MediaDescription::new(kind, port.parse().ok()?, protocol, formats);
    media.port_count = port_count;
    Some(media)
}

fn attribute(value: &str) -> Option<Attribute> {
    let (name, value) = match value.split_once(':') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (value, None),
    };
    (!name.is_empty()).then(|| Attribute { name: name.to_owned(), value: value.map(str::to_owned) })
}

fn bandwidth(value: &str) -> Option<Bandwidth> {
    let (kind, value) = value.split_once(':')?;
    let kind = kind.trim();
    let value = value.trim().parse().ok()?;
    (!kind.is_empty()).then(|| Bandwidth { kind: kind.to_owned(), value })
}

fn timing(value: &str) -> Option<Timing> {
    let mut words = value.split_ascii_whitespace();
    let (start, stop) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Timing { start, stop, repeats: Vec::new() })
}
