//! Sessions in which somebody else takes the place of one side (RFC 3891): the other side's session goes on, and with it the number and
//! the kinds of its streams (RFC 3264 §8), whatever the newcomer has.

use bytes::Bytes;

use super::NegotiationError;
use crate::sdp::{MediaDescription, SessionDescription};

/// A newcomer's offer as whoever was `told` another description before can have it: with a refused line for each stream that the newcomer
/// has not. `None`: it fits as it is.
///
/// # Errors
/// It cannot be read, or has a stream of another kind where there is one already.
pub fn succeeding_offer(offer: &Bytes, told: Option<&Bytes>) -> Result<Option<Bytes>, NegotiationError> {
    let Some(told) = told.and_then(|told| SessionDescription::parse(told).ok()) else { return Ok(None) };
    let mut description = SessionDescription::parse(offer)?;
    // §8.2: the place of a stream that was refused may be used for another kind.
    let fits =
        |(before, now): (&MediaDescription, &MediaDescription)| before.port == 0 || before.kind == now.kind;
    if !told.media.iter().zip(&description.media).all(fits) {
        return Err(NegotiationError::NoAudio);
    }
    if told.media.len() <= description.media.len() {
        return Ok(None);
    }
    let missing = told.media.iter().skip(description.media.len());
    let missing: Vec<MediaDescription> =
        missing.map(|m| MediaDescription::new(&m.kind, 0, &m.protocol, m.formats.clone())).collect();
    description.media.extend(missing);
    Ok(Some(Bytes::from(description.to_string())))
}

/// The answer to such an offer as the newcomer can have it: with a line for each of its own offer, and no other (RFC 3264 §6). `None`:
/// it fits as it is.
///
/// # Errors
/// One of the two cannot be read.
pub fn succeeding_answer(offer: &Bytes, answer: &Bytes) -> Result<Option<Bytes>, NegotiationError> {
    let offer = SessionDescription::parse(offer)?;
    let mut answer = SessionDescription::parse(answer)?;
    if offer.media.len() == answer.media.len() {
        return Ok(None);
    }
    answer.media.truncate(offer.media.len());
    let missing = offer.media.iter().skip(answer.media.len());
    let missing: Vec<MediaDescription> =
        missing.map(|m| MediaDescription::new(&m.kind, 0, &m.protocol, m.formats.clone())).collect();
    answer.media.extend(missing);
    Ok(Some(Bytes::from(answer.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sdp(lines: &[&str]) -> Bytes {
        let lines: String = lines.iter().map(|line| format!("m={line}\r\n")).collect();
        Bytes::from(format!("v=0\r\no=- 1 1 IN IP4 h\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n{lines}"))
    }

    const AUDIO: &str = "audio 4000 RTP/AVP 0";
    const VIDEO: &str = "video 4002 RTP/AVP 96";
    const REFUSED: &str = "video 0 RTP/AVP 96";

    #[test]
    fn a_session_keeps_its_streams_when_somebody_with_fewer_takes_the_other_side() {
        let told = sdp(&[AUDIO, VIDEO]);
        assert_eq!(succeeding_offer(&sdp(&[AUDIO]), Some(&told)), Ok(Some(sdp(&[AUDIO, REFUSED]))));
        for offer in [sdp(&[AUDIO, REFUSED]), sdp(&[AUDIO, VIDEO, AUDIO])] {
            assert_eq!(succeeding_offer(&offer, Some(&told)), Ok(None));
        }
        assert_eq!(succeeding_offer(&sdp(&[VIDEO]), Some(&told)), Err(NegotiationError::NoAudio));
        // The place of a refused stream may be another's.
        assert_eq!(succeeding_offer(&sdp(&[AUDIO, AUDIO]), Some(&sdp(&[AUDIO, REFUSED]))), Ok(None));
        assert_eq!(succeeding_offer(&sdp(&[AUDIO]), None), Ok(None));
    }

    #[test]
    fn a_newcomer_gets_an_answer_for_each_of_its_own_streams_and_no_other() {
        let answer = sdp(&[AUDIO, REFUSED]);
        assert_eq!(succeeding_answer(&sdp(&[AUDIO]), &answer), Ok(Some(sdp(&[AUDIO]))));
        assert_eq!(succeeding_answer(&sdp(&[AUDIO, VIDEO]), &answer), Ok(None));
        assert_eq!(
            succeeding_answer(&sdp(&[AUDIO, VIDEO]), &sdp(&[AUDIO])),
            Ok(Some(sdp(&[AUDIO, REFUSED])))
        );
    }
}
