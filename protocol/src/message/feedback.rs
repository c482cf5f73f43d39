//! Overload feedback in responses (RFC 7339 §4): an upstream server that asks for it in its Via is told which share of its new
//! requests it should keep to itself.

use std::time::Duration;

use bytes::Bytes;

use super::address::Via;
use super::syntax::{params, split, trim};
use crate::time::UnixMillis;

/// How long feedback holds (§4.3): its default, and a response to whatever comes renews it.
pub const VALIDITY: Duration = Duration::from_millis(500);
const VIA: &[u8] = b"Via: ";

/// Whether the sender of a request with this topmost Via asks for feedback (§5.1), by the algorithm that everybody has.
pub fn is_asked_for(via: &Via<'_>) -> bool {
    via.param("oc") == Some("")
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
    fn only_oc_without_a_value_asks() {
        let asks = |params: &str| is_asked_for(&Via::parse(&format!("SIP/2.0/UDP a{params}")).unwrap());
        assert!(asks(";oc") && asks(";branch=z9hG4bK1;oc;oc-algo=\"loss\"") && asks(";OC"));
        assert!(!asks(";oc=20") && !asks(";ocean") && !asks(";branch=z9hG4bKoc") && !asks(""));
    }
}
