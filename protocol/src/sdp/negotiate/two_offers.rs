//! Two offers that meet in us: each becomes the answer to the other.

use super::{NegotiationError, active_audio};
use crate::sdp::{Attribute, Direction, MediaDescription, RtpMap, SessionDescription};

/// Both sides have offered, because one of them was asked to (delayed media, RFC 3264 §5): what each then gets as its answer.
///
/// Gives `caller` as an answer to `callee`, and `callee` as an answer to `caller`. A relay neither decodes nor renumbers, so a
/// format is common only if its payload type means the same on both sides; of the common voice codecs the one that `callee`
/// likes best is kept, that no side sends what the other does not expect. Every line but the audio is refused.
///
/// # Errors
/// [`NegotiationError::NoAudio`] and [`NegotiationError::NoCommonCodec`].
pub fn cross_answers(
    caller: &SessionDescription,
    callee: &SessionDescription,
) -> Result<(SessionDescription, SessionDescription), NegotiationError> {
    let (near, near_audio) = active_audio(caller).ok_or(NegotiationError::NoAudio)?;
    let (far, far_audio) = active_audio(callee).ok_or(NegotiationError::NoAudio)?;
    let kept = common_formats(far_audio, near_audio)?;
    Ok((answer(callee, far, caller, near_audio, &kept), answer(caller, near, callee, far_audio, &kept)))
}

fn common_formats(first: &MediaDescription, second: &MediaDescription) -> Result<Vec<u8>, NegotiationError> {
    let same = |pt: u8| -> Option<(u8, RtpMap)> {
        let map = first.rtpmap(pt)?;
        let other = second.payload_types().find(|other| *other == pt).and_then(|pt| second.rtpmap(pt))?;
        let agree =
            map.is(&other.name) && map.clock_rate == other.clock_rate && map.channels == other.channels;
        agree.then_some((pt, map))
    };
    let common: Vec<(u8, RtpMap)> = first.payload_types().filter_map(same).collect();
    let (voice, voice_map) =
        common.iter().find(|(_, map)| map.is_voice()).ok_or(NegotiationError::NoCommonCodec)?;
    // RFC 4733 §2.1: events share the clock of their voice.
    let companions =
        common.iter().filter(|(_, map)| !map.is_voice() && map.clock_rate == voice_map.clock_rate);
    Ok(std::iter::once(*voice).chain(companions.map(|(pt, _)| *pt)).collect())
}

/// `own` as the answer to `offer`, whose audio is its line `place`.
fn answer(
    offer: &SessionDescription,
    place: usize,
    own: &SessionDescription,
    audio: &MediaDescription,
    kept: &[u8],
) -> SessionDescription {
    let widest = offer.media.get(place).map_or(Direction::Inactive, |line| offer.direction(line).reverse());
    let direction = own.direction(audio).restrict(widest);
    let mut audio = audio.clone();
    audio.keep_formats(kept);
    audio.attributes.retain(|attribute| Direction::from_name(&attribute.name).is_none());
    audio.attributes.push(Attribute::flag(direction.as_str()));
    let mut answer = own.clone();
    answer.skipped_lines = 0;
    answer.media = offer
        .media
        .iter()
        .map(|media| MediaDescription::new(&media.kind, 0, &media.protocol, media.formats.clone()))
        .collect();
    if let Some(line) = answer.media.get_mut(place) {
        audio.protocol.clone_from(&line.protocol);
        *line = audio;
    }
    answer
}
