//! Descriptions that cross as they are: media goes past us. To the one who gets them they are all one session's, whoever made them,
//! so their `o=` line keeps its name, and its version grows as RFC 3264 §8 wants it: after a fork or a second proxy has answered, and
//! after an exchange that was undone.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::LegDescription;
use crate::fnv::fnv1a;

/// An `o=` line less its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name {
    /// User and session id.
    session: Bytes,
    /// Network type, address type and address.
    host: Bytes,
}

/// Where a description has its `o=` line, and what it says.
struct Found<'a> {
    start: usize,
    end: usize,
    session: &'a [u8],
    version: u64,
    host: &'a [u8],
}

fn find(text: &[u8]) -> Option<Found<'_>> {
    let start = memchr::memchr_iter(b'\n', text).find(|at| text[at + 1..].starts_with(b"o="))? + 3;
    let end = start + memchr::memchr2(b'\r', b'\n', &text[start..])?;
    let line = &text[start..end];
    let mut spaces = memchr::memchr_iter(b' ', line);
    let (_, before, after) = (spaces.next()?, spaces.next()?, spaces.next()?);
    let version = std::str::from_utf8(&line[before + 1..after]).ok()?.parse().ok()?;
    Some(Found { start, end, session: &line[..before], version, host: &line[after + 1..] })
}

impl LegDescription {
    /// What another has described, as this leg is told: the very same unless its `o=` line must change. What has none that can be read
    /// crosses as it is.
    pub fn carry(&mut self, text: &Bytes) -> Bytes {
        let Some(found) = find(text) else { return text.clone() };
        let hash = fnv1a(text[found.end..].iter().copied());
        let Some(name) = &self.name else {
            // Copies: the text is a whole datagram's.
            let (session, host) = (Bytes::copy_from_slice(found.session), Bytes::copy_from_slice(found.host));
            self.name = Some(Name { session, host });
            (self.version, self.last) = (found.version, Some(hash));
            return text.clone();
        };
        let own = *name.session == *found.session && *name.host == *found.host;
        if self.last != Some(hash) {
            let next = self.version.saturating_add(1);
            self.version = if own { next.max(found.version) } else { next };
            self.last = Some(hash);
        }
        if own && self.version == found.version {
            return text.clone();
        }
        let version = self.version.to_string();
        let mut told = BytesMut::with_capacity(text.len() + 48);
        told.put_slice(&text[..found.start]);
        for part in [&name.session, b" ".as_slice(), version.as_bytes(), b" ", &name.host, &text[found.end..]]
        {
            told.put_slice(part);
        }
        told.freeze()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn leg() -> LegDescription {
        LegDescription::new(7, IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    fn sdp(origin: &str, port: u16) -> Bytes {
        Bytes::from(format!("v=0\r\no={origin}\r\ns=-\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"))
    }

    #[test]
    fn what_one_peer_says_crosses_as_it_is() {
        let mut leg = leg();
        for (version, port) in [(3, 10), (3, 10), (4, 12), (9, 14)] {
            let said = sdp(&format!("a 1 {version} IN IP4 h"), port);
            assert_eq!(leg.carry(&said), said);
        }
    }

    #[test]
    fn another_peers_description_goes_on_in_the_name_of_the_first() {
        let mut leg = leg();
        leg.carry(&sdp("a 1 3 IN IP4 h", 10));
        assert_eq!(leg.carry(&sdp("b 2 77 IN IP4 g", 20)), sdp("a 1 4 IN IP4 h", 20));
        assert_eq!(leg.carry(&sdp("b 2 77 IN IP4 g", 20)), sdp("a 1 4 IN IP4 h", 20));
        assert_eq!(leg.carry(&sdp("a 1 3 IN IP4 h", 10)), sdp("a 1 5 IN IP4 h", 10));
    }

    #[test]
    fn what_is_said_again_after_a_change_has_a_new_version_and_what_follows_a_newer_one() {
        let mut leg = leg();
        let first = sdp("a 1 1 IN IP4 h", 10);
        leg.carry(&first);
        leg.carry(&sdp("a 1 2 IN IP4 h", 12));
        assert_eq!(leg.carry(&first), sdp("a 1 3 IN IP4 h", 10));
        // The peer knows nothing of that: its own next version is 3, too.
        assert_eq!(leg.carry(&sdp("a 1 3 IN IP4 h", 14)), sdp("a 1 4 IN IP4 h", 14));
    }

    #[test]
    fn what_has_no_origin_that_can_be_read_crosses_as_it_is() {
        let mut leg = leg();
        for said in ["", "v=0\r\n", "v=0\r\no=a 1\r\n", "v=0\r\no=a 1 x IN IP4 h\r\n"] {
            let said = Bytes::from(said);
            assert_eq!(leg.carry(&said), said);
        }
    }
}
