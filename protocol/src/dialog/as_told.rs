//! Answers that nobody on the other side is asked for (RFC 3264 §6): the session as it is, or none.

use bytes::Bytes;

use crate::sdp::{MediaDescription, SessionDescription};

/// The description that refuses every stream of `offer` (RFC 3264 §6). Its origin follows on what the peer was `told` last (§8).
pub(super) fn refusal_of(offer: &Bytes, told: Option<&Bytes>) -> Option<Bytes> {
    let mut refusal = SessionDescription::parse(offer).ok()?;
    for media in &mut refusal.media {
        media.port = 0;
    }
    if let Some(told) = told.and_then(|told| SessionDescription::parse(told).ok()) {
        refusal.origin = told.origin;
        // A peer's own, where media goes past us: it may be any number.
        refusal.origin.version = refusal.origin.version.saturating_add(1);
    }
    Some(Bytes::from(refusal.to_string()))
}

/// The answer to `offer` that changes as little as can be: each stream as the peer was `told` last, if it can still be so, else
/// refused. For an offer that nobody on the other side is asked about.
pub(super) fn answer_as_told(offer: &Bytes, told: Option<&Bytes>) -> Option<Bytes> {
    let Some((told, before)) = told.and_then(|told| Some((told, SessionDescription::parse(told).ok()?)))
    else {
        return refusal_of(offer, told);
    };
    let offer = SessionDescription::parse(offer).ok()?;
    let stream = |(place, offered): (usize, &MediaDescription)| {
        let fits = |told: &&MediaDescription| {
            offered.port != 0
                && told.kind == offered.kind
                && told.protocol == offered.protocol
                && told.formats.iter().any(|format| offered.formats.contains(format))
        };
        let told = before.media.get(place).filter(fits).cloned();
        told.unwrap_or_else(|| MediaDescription { port: 0, ..offered.clone() })
    };
    let mut answer = before.clone();
    answer.media = offer.media.iter().enumerate().map(stream).collect();
    if answer.media == before.media {
        return Some(told.clone());
    }
    answer.origin.version = answer.origin.version.saturating_add(1);
    Some(Bytes::from(answer.to_string()))
}
