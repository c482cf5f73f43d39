//! Which codecs cross from one leg to the other: those that both may use, the most wanted first.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::NegotiationError;
use crate::sdp::{MediaDescription, RtpMap, SessionDescription};

/// The voice codecs that one side of a call may use, by their names in SDP, the most wanted first; or any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecList(Option<Arc<[String]>>);

impl CodecList {
    /// Every codec.
    pub const ANY: CodecList = CodecList(None);

    /// These, the most wanted first; any, if there are none.
    pub fn new(names: impl IntoIterator<Item = String>) -> CodecList {
        let names: Arc<[String]> = names.into_iter().collect();
        CodecList(Some(names).filter(|names| !names.is_empty()))
    }

    /// True if it leaves out none.
    pub fn is_any(&self) -> bool {
        self.0.is_none()
    }

    /// How much a codec is wanted, less the lower it is; `None`: it may not be used.
    fn place(&self, name: &str) -> Option<usize> {
        match &self.0 {
            None => Some(0),
            Some(names) => names.iter().position(|known| known.eq_ignore_ascii_case(name)),
        }
    }

    /// Of these codecs of ours those that it and `other` allow; the order is its own, else that of `other`, else ours.
    pub fn choose<'a>(&self, other: &CodecList, ours: &[&'a str]) -> Vec<&'a str> {
        let mut chosen: Vec<(usize, usize, &str)> =
            ours.iter().filter_map(|name| Some((self.place(name)?, other.place(name)?, *name))).collect();
        chosen.sort_by_key(|(own, others, _)| (*own, *others));
        chosen.into_iter().map(|(.., name)| name).collect()
    }
}

/// What is said to whom: it decides in which order the codecs stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The order is the wish of whoever is offered it (RFC 3264 §5.1).
    Offer,
    /// The order is as it came (RFC 3264 §6.1).
    Answer,
}

/// What one side says of itself, with those of its codecs alone that `from`, its own list, and `to`, that of who hears it, both
/// allow; `None` if that is all of them in the order they have. Telephone events and comfort noise go with whatever remains. An audio line
/// of which nothing remains is refused with port 0.
///
/// # Errors
/// [`NegotiationError::NoCommonCodec`] if nothing remains of any audio line, and [`NegotiationError::Malformed`].
pub fn within_codecs(
    text: &Bytes,
    role: Role,
    from: &CodecList,
    to: &CodecList,
) -> Result<Option<Bytes>, NegotiationError> {
    if text.is_empty() || (from.is_any() && to.is_any()) {
        return Ok(None);
    }
    let mut description = SessionDescription::parse(text)?;
    let (mut changed, mut active, mut left) = (false, 0, 0);
    for media in description.media.iter_mut().filter(|media| media.is_audio() && media.port != 0) {
        active += 1;
        match voices(media, role, from, to) {
            Kept::All => left += 1,
            Kept::Some(voices) => {
                keep(media, &voices);
                changed = true;
                left += 1;
            }
            Kept::None => {
                media.port = 0;
                changed = true;
            }
        }
    }
    if active > 0 && left == 0 {
        return Err(NegotiationError::NoCommonCodec);
    }
    if !changed {
        return Ok(None);
    }
    description.skipped_lines = 0;
    Ok(Some(Bytes::from(description.to_string())))
}

/// Which voice codecs remain of a line.
enum Kept {
    /// All, in the order they have.
    All,
    /// These payload types with their clocks.
    Some(Vec<(u8, u32)>),
    /// None.
    None,
}

fn voices(media: &MediaDescription, role: Role, from: &CodecList, to: &CodecList) -> Kept {
    // What a payload type without a meaning carries nobody can say: it is no codec of any list.
    let all: Vec<(u8, Option<RtpMap>)> = media.payload_types().map(|pt| (pt, media.rtpmap(pt))).collect();
    let mut kept: Vec<(usize, u8, u32)> = Vec::with_capacity(all.len());
    let mut spoken = 0;
    for (pt, map) in &all {
        if map.as_ref().is_some_and(|map| !map.is_voice()) {
            continue;
        }
        spoken += 1;
        let Some(map) = map else { continue };
        if let (Some(own), Some(others)) = (from.place(&map.name), to.place(&map.name)) {
            kept.push((if to.is_any() { own } else { others }, *pt, map.clock_rate));
        }
    }
    if kept.is_empty() {
        return Kept::None;
    }
    let before: Vec<u8> = kept.iter().map(|(_, pt, _)| *pt).collect();
    if role == Role::Offer {
        // Those of one name, as G.722.1 at two rates, stay as they are.
        kept.sort_by_key(|(place, ..)| *place);
    }
    let same = kept.len() == spoken && kept.iter().map(|(_, pt, _)| *pt).eq(before);
    if same { Kept::All } else { Kept::Some(kept.into_iter().map(|(_, pt, clock)| (pt, clock)).collect()) }
}

/// Keeps these payload types of a line, in this order, and what accompanies them.
pub(super) fn keep(media: &mut MediaDescription, voices: &[(u8, u32)]) {
    let mut kept: Vec<u8> = Vec::with_capacity(voices.len() + 2);
    for (pt, _) in voices {
        if !kept.contains(pt) {
            kept.push(*pt);
        }
    }
    // Events and comfort noise share the clock of the voice they replace (RFC 4733 §2.1, RFC 3389 §4).
    let fits = |map: &RtpMap| {
        (map.is("telephone-event") || map.is("CN"))
            && voices.iter().any(|(_, clock)| *clock == map.clock_rate)
    };
    for pt in media.payload_types().filter(|pt| media.rtpmap(*pt).is_some_and(|map| fits(&map))) {
        if !kept.contains(&pt) {
            kept.push(pt);
        }
    }
    media.keep_formats(&kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n\
                         m=audio 4000 RTP/AVP 0 96 8 18 97 101\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\n\
                         a=rtpmap:101 telephone-event/8000\r\na=sendonly\r\n";

    fn list(names: &str) -> CodecList {
        CodecList::new(names.split_whitespace().map(str::to_owned))
    }

    fn filtered(role: Role, from: &str, to: &str) -> Result<Option<String>, NegotiationError> {
        let text = Bytes::from_static(OFFER.as_bytes());
        let filtered = within_codecs(&text, role, &list(from), &list(to))?;
        Ok(filtered.map(|text| String::from_utf8(text.to_vec()).unwrap()))
    }

    fn formats(role: Role, from: &str, to: &str) -> String {
        let text = filtered(role, from, to).unwrap().unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix("m=audio 4000 RTP/AVP "))
            .unwrap_or_default()
            .to_owned()
    }

    #[test]
    fn of_an_offer_what_both_may_use_is_left_in_the_order_of_who_is_offered_it() {
        assert_eq!(formats(Role::Offer, "", "pcma PCMU"), "8 0 101");
        assert_eq!(formats(Role::Offer, "PCMA PCMU G729", ""), "8 0 18 101");
        assert_eq!(formats(Role::Offer, "PCMU G729 PCMA", "G729 opus PCMU"), "18 0 101");
        // Events have the clock of a voice that is gone.
        assert_eq!(formats(Role::Offer, "OPUS", ""), "96");
    }

    #[test]
    fn an_answer_keeps_its_order_and_a_list_that_changes_nothing_changes_nothing() {
        assert_eq!(formats(Role::Answer, "PCMA PCMU", "G729 PCMA PCMU"), "0 8 101");
        assert_eq!(filtered(Role::Answer, "", ""), Ok(None));
        let known = OFFER.replace(" 97 ", " ");
        let all = list("G729 PCMA opus PCMU");
        assert_eq!(within_codecs(&known.into(), Role::Answer, &all, &CodecList::ANY), Ok(None));
    }

    #[test]
    fn what_describes_a_codec_goes_and_stays_with_it_and_all_else_stays() {
        let text = filtered(Role::Offer, "", "PCMA").unwrap().unwrap();
        assert!(!text.contains("opus") && !text.contains("useinbandfec"), "{text}");
        for line in ["o=- 1 1 IN IP4 10.0.0.1", "a=rtpmap:101 telephone-event/8000", "a=sendonly"] {
            assert!(text.contains(&format!("{line}\r\n")), "{line} {text}");
        }
    }

    #[test]
    fn where_nothing_is_left_there_is_no_common_codec_and_a_line_of_several_is_refused() {
        assert_eq!(filtered(Role::Offer, "PCMU", "PCMA"), Err(NegotiationError::NoCommonCodec));
        assert_eq!(filtered(Role::Answer, "L16", ""), Err(NegotiationError::NoCommonCodec));
        let two = format!("{OFFER}m=audio 4002 RTP/SAVP 9\r\n");
        let text = within_codecs(&two.into(), Role::Offer, &list("PCMU"), &CodecList::ANY).unwrap().unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(
            text.contains("m=audio 4000 RTP/AVP 0 101\r\n") && text.contains("m=audio 0 RTP/SAVP 9\r\n"),
            "{text}"
        );
        // Whoever ends the media offers nothing that could be chosen from.
        let ended = OFFER.replace("audio 4000", "audio 0");
        assert_eq!(within_codecs(&ended.into(), Role::Offer, &list("L16"), &CodecList::ANY), Ok(None));
        let broken = Bytes::from_static(b"hello");
        assert!(within_codecs(&broken, Role::Offer, &list("PCMU"), &CodecList::ANY).is_err());
        assert_eq!(within_codecs(&broken, Role::Offer, &CodecList::ANY, &CodecList::ANY), Ok(None));
    }

    #[test]
    fn of_our_own_codecs_both_lists_choose() {
        const OURS: [&str; 3] = ["PCMU", "PCMA", "G722"];
        assert_eq!(CodecList::ANY.choose(&CodecList::ANY, &OURS), OURS);
        assert_eq!(list("G722 G729 PCMA").choose(&CodecList::ANY, &OURS), ["G722", "PCMA"]);
        assert_eq!(CodecList::ANY.choose(&list("PCMA PCMU"), &OURS), ["PCMA", "PCMU"]);
        assert_eq!(list("PCMU PCMA").choose(&list("PCMA G722"), &OURS), ["PCMA"]);
        assert!(list("opus").choose(&CodecList::ANY, &OURS).is_empty());
    }
}
