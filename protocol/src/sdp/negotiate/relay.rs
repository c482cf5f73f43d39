//! Carries a description from one leg to the other.

use bytes::Bytes;

use super::codecs::keep;
use super::{LegDescription, LocalMedia, NegotiationError, active_audio};
use crate::sdp::{Attribute, Direction, MediaDescription, SessionDescription};

/// Attributes that name addresses, keys or identities of the far leg, which end at an anchored leg.
const HOP_ATTRIBUTES: [&str; 31] = [
    "alt",
    "bundle-only",
    "candidate",
    "connection",
    "crypto",
    "dtls-id",
    "end-of-candidates",
    "fingerprint",
    "group",
    "ice-lite",
    "ice-mismatch",
    "ice-options",
    "ice-pacing",
    "ice-pwd",
    "ice-ufrag",
    "ice2",
    "identity",
    "key-mgmt",
    "mid",
    "msid",
    "msid-semantic",
    "remote-candidates",
    "rtcp",
    "rtcp-mux",
    "rtcp-mux-only",
    "setup",
    "ssrc",
    "ssrc-group",
    "tcap",
    "tls-id",
    "zrtp-hash",
];

fn ends_here(attribute: &Attribute) -> bool {
    HOP_ATTRIBUTES.iter().any(|name| attribute.is(name))
}

fn is_direction(attribute: &Attribute) -> bool {
    Direction::from_name(&attribute.name).is_some()
}

/// Rewrites an offer received on one leg for the other.
///
/// With `anchor` media crosses us: connection and ports become ours, the direction is written out (an RFC 2543
/// hold crosses as `sendonly`), lines about ICE, DTLS and SRTP keys are removed, the first plain-RTP audio line
/// is kept and every other line keeps its place with port 0. Without `anchor` media goes past us and only `o=`
/// changes.
///
/// `codecs` filters and orders the voice codecs by name, the most wanted first; telephone events and comfort
/// noise go with whatever remains. `None` keeps every format, because a relay decodes none.
///
/// An offer whose lines all have port 0, or that has none, crosses as it is: it ends the media, not the call.
///
/// # Errors
/// [`NegotiationError`], with the status to answer the offerer.
pub fn relay_offer(
    offer: &SessionDescription,
    leg: &mut LegDescription,
    anchor: Option<LocalMedia>,
    codecs: Option<&[String]>,
) -> Result<Bytes, NegotiationError> {
    let relayed = match anchor {
        Some(local) => anchored(offer, local, codecs)?,
        None => bypassed(offer, codecs)?,
    };
    Ok(leg.stamp(relayed))
}

/// Rewrites an answer received on one leg for the leg whose `offer` it answers.
///
/// As [`relay_offer`]; moreover the answer gets exactly the offer's lines (RFC 3264 §6): missing ones are
/// refused with port 0, lines too many are dropped.
///
/// # Errors
/// [`NegotiationError`] if the answer cannot be used; the call then fails with its status.
pub fn relay_answer(
    offer: &SessionDescription,
    answer: &SessionDescription,
    leg: &mut LegDescription,
    anchor: Option<LocalMedia>,
    codecs: Option<&[String]>,
) -> Result<Bytes, NegotiationError> {
    let mut relayed = match anchor {
        Some(local) => anchored(answer, local, codecs)?,
        None => bypassed(answer, codecs)?,
    };
    relayed.media.truncate(offer.media.len());
    if anchor.is_some() {
        for (media, offered) in relayed.media.iter_mut().zip(&offer.media) {
            narrow(media, offer.direction(offered).reverse());
        }
    }
    let missing = offer.media.iter().skip(relayed.media.len()).map(refused);
    relayed.media.extend(missing);
    Ok(leg.stamp(relayed))
}

/// RFC 3264 §6.1: an answer flows no way that the offer does not leave it. A phone that answers a hold with `sendrecv` would
/// otherwise take the holder's streams for its own.
fn narrow(media: &mut MediaDescription, widest: Direction) {
    for attribute in &mut media.attributes {
        if let Some(direction) = Direction::from_name(&attribute.name) {
            *attribute = Attribute::flag(direction.restrict(widest).as_str());
        }
    }
}

fn bypassed(
    sd: &SessionDescription,
    codecs: Option<&[String]>,
) -> Result<SessionDescription, NegotiationError> {
    let mut relayed = sd.clone();
    relayed.skipped_lines = 0;
    if let Some(codecs) = codecs {
        for media in relayed.media.iter_mut().filter(|m| m.is_audio() && m.port != 0) {
            restrict(media, codecs)?;
        }
    }
    Ok(relayed)
}

fn anchored(
    sd: &SessionDescription,
    local: LocalMedia,
    codecs: Option<&[String]>,
) -> Result<SessionDescription, NegotiationError> {
    let chosen = choose_audio(sd)?;
    let mut relayed = sd.clone();
    relayed.skipped_lines = 0;
    relayed.session_name = "-".to_owned();
    relayed.connection = Some(local.addr.into());
    relayed.other.clear();
    relayed.attributes.retain(|a| !ends_here(a) && !is_direction(a));
    relayed.media = sd.media.iter().map(refused).collect();
    if let Some(index) = chosen {
        let source = &sd.media[index];
        if sd.connection_of(source).is_none() {
            return Err(NegotiationError::NoConnection);
        }
        if sd.effective_rtp_addr(source).is_none() || sd.rtcp_addr(source).is_none() {
            return Err(NegotiationError::UnusableAddress);
        }
        relayed.media[index] = anchored_audio(source, sd.direction(source), local, codecs)?;
    }
    Ok(relayed)
}

/// The place of the audio line we relay; `None` if nothing is active.
fn choose_audio(sd: &SessionDescription) -> Result<Option<usize>, NegotiationError> {
    if let Some((index, _)) = active_audio(sd) {
        return Ok(Some(index));
    }
    let mut active = sd.media.iter().filter(|m| m.port != 0).peekable();
    if active.peek().is_none() {
        return Ok(None);
    }
    match active.find(|m| m.is_audio()) {
        Some(audio) => Err(NegotiationError::UnsupportedTransport(audio.protocol.clone())),
        None => Err(NegotiationError::NoAudio),
    }
}

fn anchored_audio(
    source: &MediaDescription,
    direction: Direction,
    local: LocalMedia,
    codecs: Option<&[String]>,
) -> Result<MediaDescription, NegotiationError> {
    let mut media = source.clone();
    media.connection = None;
    media.port = local.rtp;
    media.port_count = 1;
    media.other.clear();
    media.attributes.retain(|a| !ends_here(a) && !is_direction(a));
    if let Some(codecs) = codecs {
        restrict(&mut media, codecs)?;
    }
    media.attributes.extend(local.rtcp_attribute());
    media.attributes.push(Attribute::flag(direction.as_str()));
    Ok(media)
}

/// The line as it is refused: same kind, transport and formats, port 0 (RFC 3264 §6).
fn refused(media: &MediaDescription) -> MediaDescription {
    MediaDescription::new(&media.kind, 0, &media.protocol, media.formats.clone())
}

/// Keeps the voice codecs that `codecs` names, in its order, and what accompanies them.
fn restrict(media: &mut MediaDescription, codecs: &[String]) -> Result<(), NegotiationError> {
    let known: Vec<(u8, crate::sdp::RtpMap)> =
        media.payload_types().filter_map(|pt| Some((pt, media.rtpmap(pt)?))).collect();
    let named = |name| known.iter().filter(move |(_, map)| map.is_voice() && map.is(name));
    let kept: Vec<(u8, u32)> =
        codecs.iter().flat_map(|name| named(name.as_str())).map(|(pt, map)| (*pt, map.clock_rate)).collect();
    if kept.is_empty() {
        return Err(NegotiationError::NoCommonCodec);
    }
    keep(media, &kept);
    Ok(())
}
