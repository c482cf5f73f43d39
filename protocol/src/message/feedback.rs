//! Overload feedback in responses (RFC 7339 §4): an upstream server that asks for it in its Via is told which share of its new
//! requests it should keep to itself. We are both: told by those we send to, and telling those who send to us.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::address::Via;
use super::syntax::{params, split, trim};
use crate::time::UnixMillis;

/// How long feedback holds (§4.3): its default, and a response to whatever comes renews it.
pub const VALIDITY: Duration = Duration::from_millis(500);
const VIA: &[u8] = b"Via: ";
/// What asks for it, after the sent-by of a Via of ours (§4.1, §4.2): by the algorithm that everybody has.
pub const ASKING: &str = ";oc;oc-algo=\"loss\"";

/// The place of feedback among all that a server gives (§4.4): whole seconds and hundred-thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sequence(u64, u32);

impl Sequence {
    fn parse(text: &str) -> Option<Sequence> {
        const PLACES: usize = 5;
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
        };
        let fits = digits(whole, 12) && digits(part, PLACES);
        fits.then(|| Some(Sequence(whole.parse().ok()?, format!("{part:0<PLACES$}").parse().ok()?)))?
    }
}

/// What a server that we send to says in a response (§4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// The percentage of new requests that it wants less of.
    pub percent: u8,
    /// How long that holds; zero: it wants nothing any more (§4.3).
    pub validity: Duration,
    /// Its place among all that the server says; one that gives none is taken as it comes.
    pub sequence: Option<Sequence>,
}

impl Feedback {
    /// What the topmost Via of a response says; `None`: nothing, or nothing that can be obeyed.
    pub fn of(via: &Via<'_>) -> Option<Feedback> {
        if !may_have_oc(via.params) {
            return None;
        }
        let percent = via.param("oc").filter(|value| !value.is_empty())?;
        let percent = percent.parse().ok().filter(|percent| *percent <= 100)?;
        let algorithm = via.param("oc-algo").map(|value| value.trim_matches('"'));
        if algorithm.is_some_and(|algorithm| !algorithm.eq_ignore_ascii_case("loss")) {
            return None;
        }
        let validity = match via.param("oc-validity") {
            Some(ms) => Duration::from_millis(ms.parse().ok()?),
            None => VALIDITY,
        };
        let sequence = via.param("oc-seq").and_then(Sequence::parse);
        Some(Feedback { percent, validity, sequence })
    }
}

/// Whether the sender of a request with this topmost Via asks for feedback (§5.1), by the algorithm that everybody has.
pub fn is_asked_for(via: &Via<'_>) -> bool {
    may_have_oc(via.params) && via.param("oc") == Some("")
}

/// False for the parameters of nearly every Via, which is seen without taking them apart.
fn may_have_oc(params: &str) -> bool {
    let begins = |at: usize| {
        let name = params.as_bytes()[at + 1..].trim_ascii_start();
        name.get(..2).is_some_and(|name| name.eq_ignore_ascii_case(b"oc"))
    };
    memchr::memchr_iter(b';', params.as_bytes()).any(begins)
}

/// A response as it was written, with the share of new requests (0 to 1) that is to be kept from us. `now` orders feedback that comes
/// in disorder.
pub fn with_feedback(response: Bytes, share: f64, now: UnixMillis) -> Bytes {
    let Some(line) = top_via(&response) else { return response };
    let Ok(text) = std::str::from_utf8(&response[line.clone()]) else { return response };
    let Some(top) = split(text, b',').next() else { return response };
    let Ok(via) = Via::parse(top) else { return response };
    let mut told = trim(&top[..top.len() - via.params.len()]).to_owned();
    let ours = ["oc", "oc-algo", "oc-validity", "oc-seq"];
    for (name, value) in
        params(via.params).filter(|(name, _)| !ours.iter().any(|o| o.eq_ignore_ascii_case(name)))
    {
        told.extend([";", name]);
        told.extend(value.into_iter().flat_map(|value| ["=", value]));
    }
    let percent = (share.clamp(0.0, 1.0) * 100.0).round();
    let (seconds, millis) = (now.0 / 1000, now.0 % 1000);
    told.push_str(&format!(
        ";oc={percent};oc-algo=\"loss\";oc-validity={};oc-seq={seconds}.{millis:03}",
        VALIDITY.as_millis()
    ));
    let (before, after) = (&response[..line.start], &response[line.start + top.len()..]);
    [before, told.as_bytes(), after].concat().into()
}

/// Where the first Via line's values are in a response of ours, whose headers are never folded.
fn top_via(response: &[u8]) -> Option<std::ops::Range<usize>> {
    let status_line = response.windows(2).position(|two| two == b"\r\n")? + 2;
    let start = response[status_line..].starts_with(VIA).then_some(status_line + VIA.len())?;
    let length = response[start..].windows(2).position(|two| two == b"\r\n")?;
    Some(start..start + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Limits, Message, response_to};

    const NOW: UnixMillis = UnixMillis(1_282_321_615_782);

    fn request(via: &str) -> Message {
        let text = format!(
            "INVITE sip:a@b SIP/2.0\r\nVia: {via}\r\nVia: SIP/2.0/UDP z;branch=z9hG4bK2;oc\r\nFrom: <sip:c@d>;tag=1\r\nTo: <sip:a@b>\r\n\
             Call-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n"
        );
        Message::parse(text.into(), &Limits::default()).unwrap()
    }

    fn told(via: &str, share: f64) -> String {
        let request = request(via);
        let source = Some(([192, 0, 2, 1], 5070).into());
        let response = response_to(&request, source, 503, "Service Unavailable", Some("t")).finish(None);
        let response = Message::parse(with_feedback(response, share, NOW), &Limits::default()).unwrap();
        assert_eq!(
            response.headers(crate::message::Header::Via).nth(1),
            Some("SIP/2.0/UDP z;branch=z9hG4bK2;oc")
        );
        response.headers(crate::message::Header::Via).next().unwrap().to_owned()
    }

    #[test]
    fn who_asks_is_told_in_the_topmost_via_and_the_rest_stays() {
        assert_eq!(
            told(
                "SIP/2.0/UDP p1.example.net;branch=z9hG4bK1;received=192.0.2.111;oc;oc-algo=\"loss,A\";rport",
                0.204
            ),
            "SIP/2.0/UDP p1.example.net;branch=z9hG4bK1;received=192.0.2.1;rport=5070;oc=20;oc-algo=\"loss\";\
             oc-validity=500;oc-seq=1282321615.782"
        );
        assert_eq!(
            told("SIP/2.0/UDP 192.0.2.1:5070;oc;branch=z9hG4bK1, SIP/2.0/TCP q;branch=z9hG4bKq", 1.0),
            "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1;oc=100;oc-algo=\"loss\";oc-validity=500;oc-seq=1282321615.782, \
             SIP/2.0/TCP q;branch=z9hG4bKq"
        );
    }

    #[test]
    fn what_a_server_says_is_read_and_what_cannot_be_obeyed_is_nothing() {
        let read = |params: &str| Feedback::of(&Via::parse(&format!("SIP/2.0/TCP a{params}")).unwrap());
        let said =
            read(";branch=z9hG4bK1;oc=20;oc-algo=\"loss\";oc-validity=1500;oc-seq=1282321615.78").unwrap();
        assert_eq!((said.percent, said.validity), (20, Duration::from_millis(1500)));
        assert_eq!(said.sequence, Some(Sequence(1_282_321_615, 78_000)));
        let later = read(";oc=0;oc-seq=1282321615.8").unwrap();
        assert_eq!((later.percent, later.validity), (0, VALIDITY));
        assert!(later.sequence > said.sequence, "it is a fraction, not a number of its own");
        assert_eq!(read(";oc=7;oc-validity=0").map(|said| said.validity), Some(Duration::ZERO));
        assert_eq!(read(";oc=7;oc-seq=x").map(|said| said.sequence), Some(None));
        for none in [
            ";oc",
            ";oc=",
            ";oc=101",
            ";oc=-1",
            ";oc=x",
            ";oc=20;oc-algo=\"rate\"",
            ";oc=2;oc-validity=-1",
            "",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn what_we_write_ourselves_we_understand_and_what_we_ask_with_asks() {
        let via = told("SIP/2.0/UDP 192.0.2.1:5070;oc;branch=z9hG4bK1, SIP/2.0/TCP q;branch=z9hG4bKq", 0.35);
        let said = Feedback::of(&Via::parse(via.split(", ").next().unwrap()).unwrap()).unwrap();
        assert_eq!((said.percent, said.validity), (35, VALIDITY));
        let asking = format!("SIP/2.0/UDP 192.0.2.9:5060{ASKING};branch=z9hG4bK1");
        assert!(is_asked_for(&Via::parse(&asking).unwrap()));
        assert_eq!(Feedback::of(&Via::parse(&asking).unwrap()), None);
    }

    #[test]
    fn only_oc_without_a_value_asks() {
        let asks = |params: &str| is_asked_for(&Via::parse(&format!("SIP/2.0/UDP a{params}")).unwrap());
        assert!(asks(";oc") && asks(";branch=z9hG4bK1;oc;oc-algo=\"loss\"") && asks(";OC"));
        assert!(!asks(";oc=20") && !asks(";ocean") && !asks(";branch=z9hG4bKoc") && !asks(""));
    }
}
