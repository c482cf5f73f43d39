//! Speaks for a service of our own: echo, tones, announcements.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{LegDescription, LocalMedia, NegotiationError, active_audio};
use crate::sdp::{Attribute, Direction, MediaDescription, RtpMap, SessionDescription};

/// The payload type of telephone events in our own offers.
const TELEPHONE_EVENT: u8 = 101;
/// Digits, `*`, `#`, A to D: the events that we act on (RFC 4733 §3.2).
const DTMF_EVENTS: &str = "0-15";
const PTIME_MS: u32 = 20;

/// What an answer of ours agreed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenCodec {
    /// The payload type both sides send.
    pub payload_type: u8,
    /// The codec's name, as in `supported`.
    pub name: String,
    /// The RTP clock in Hz.
    pub clock_rate: u32,
    /// The payload type of telephone events, if the offer had them.
    pub telephone_event: Option<u8>,
    /// Our direction: what the offer leaves us.
    pub direction: Direction,
}

/// Answers an offer for a service that decodes `supported` (names of codecs: `PCMU`, `PCMA`).
///
/// The first codec of the offer that is supported is chosen (RFC 3264 §6.1: the offerer's order counts), the
/// direction is the offer's reversed, which answers each form of hold: `sendonly` and `c=0.0.0.0` with
/// `recvonly`, `inactive` with `inactive`. Every line but the chosen audio is refused with port 0.
///
/// # Errors
/// [`NegotiationError`], with the status to answer the offerer.
pub fn answer_service(
    offer: &SessionDescription,
    leg: &mut LegDescription,
    local: LocalMedia,
    supported: &[&str],
) -> Result<(Bytes, ChosenCodec), NegotiationError> {
    let (index, source) = active_audio(offer).ok_or_else(|| why_no_audio(offer))?;
    if offer.connection_of(source).is_none() {
        return Err(NegotiationError::NoConnection);
    }
    if offer.effective_rtp_addr(source).is_none() || offer.rtcp_addr(source).is_none() {
        return Err(NegotiationError::UnusableAddress);
    }
    let chosen = choose_codec(offer, source, supported)?;
    let mut answer = SessionDescription::new(leg.origin());
    answer.connection = Some(local.addr.into());
    // RFC 3264 §6: the t= line of an answer equals that of its offer.
    answer.times.clone_from(&offer.times);
    answer.media = offer
        .media
        .iter()
        .map(|m| MediaDescription::new(&m.kind, 0, &m.protocol, m.formats.clone()))
        .collect();
    let map = RtpMap { name: chosen.name.clone(), clock_rate: chosen.clock_rate, channels: 1 };
    let voice = [(chosen.payload_type, map)];
    answer.media[index] = audio(&source.protocol, local, &voice, chosen.telephone_event, chosen.direction);
    Ok((leg.stamp(answer), chosen))
}

/// Offers a service's own audio, for an INVITE that came without an offer. Of `supported`, those with a static
/// payload type (RFC 3551) are offered, in order, and telephone events.
///
/// # Errors
/// [`NegotiationError::NoCommonCodec`] if none of `supported` has a static payload type.
pub fn service_offer(
    leg: &mut LegDescription,
    local: LocalMedia,
    supported: &[&str],
) -> Result<Bytes, NegotiationError> {
    let voice: Vec<(u8, RtpMap)> = supported.iter().filter_map(|name| static_payload(name)).collect();
    if voice.is_empty() {
        return Err(NegotiationError::NoCommonCodec);
    }
    let mut offer = SessionDescription::new(leg.origin());
    offer.connection = Some(local.addr.into());
    offer.media = vec![audio("RTP/AVP", local, &voice, Some(TELEPHONE_EVENT), Direction::SendRecv)];
    Ok(leg.stamp(offer))
}

fn why_no_audio(offer: &SessionDescription) -> NegotiationError {
    match offer.media.iter().find(|m| m.is_audio() && m.port != 0) {
        Some(audio) => NegotiationError::UnsupportedTransport(audio.protocol.clone()),
        None => NegotiationError::NoAudio,
    }
}

fn static_payload(name: &str) -> Option<(u8, RtpMap)> {
    (0..96).find_map(|pt| RtpMap::static_audio(pt).filter(|m| m.is(name) && m.is_voice()).map(|m| (pt, m)))
}

fn choose_codec(
    offer: &SessionDescription,
    source: &MediaDescription,
    supported: &[&str],
) -> Result<ChosenCodec, NegotiationError> {
    let (payload_type, map, name) = source
        .payload_types()
        .filter_map(|pt| Some((pt, source.rtpmap(pt)?)))
        .find_map(|(pt, map)| {
            // A service decodes the usual form of a codec: mono, at the clock its static payload type has.
            let usual = map.channels == 1
                && static_payload(&map.name).is_none_or(|(_, usual)| usual.clock_rate == map.clock_rate);
            let name = supported.iter().find(|name| map.is_voice() && map.is(name) && usual)?;
            Some((pt, map, (*name).to_owned()))
        })
        .ok_or(NegotiationError::NoCommonCodec)?;
    Ok(ChosenCodec {
        payload_type,
        name,
        clock_rate: map.clock_rate,
        // RFC 4733 §2.1: events share the clock of the voice; at another clock they are left out.
        telephone_event: source
            .telephone_event(map.clock_rate)
            .filter(|pt| source.rtpmap(*pt).is_some_and(|event| event.clock_rate == map.clock_rate)),
        direction: offer.direction(source).reverse(),
    })
}

fn audio(
    protocol: &str,
    local: LocalMedia,
    voice: &[(u8, RtpMap)],
    telephone_event: Option<u8>,
    direction: Direction,
) -> MediaDescription {
    let payload_types = voice.iter().map(|(pt, _)| *pt).chain(telephone_event);
    let formats = payload_types.map(|pt| pt.to_string()).collect();
    let mut media = MediaDescription::new("audio", local.rtp, protocol, formats);
    let maps = voice.iter().map(|(pt, map)| Attribute::new("rtpmap", format!("{pt} {map}")));
    media.attributes.extend(maps);
    if let Some(pt) = telephone_event {
        let clock_rate = voice.first().map_or(8_000, |(_, map)| map.clock_rate);
        media.attributes.push(Attribute::new("rtpmap", format!("{pt} telephone-event/{clock_rate}")));
        media.attributes.push(Attribute::new("fmtp", format!("{pt} {DTMF_EVENTS}")));
    }
    media.attributes.push(Attribute::new("ptime", PTIME_MS.to_string()));
    media.attributes.extend(local.rtcp_attribute());
    media.attributes.push(Attribute::flag(direction.as_str()));
    media
}
