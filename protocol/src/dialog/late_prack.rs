//! The PRACK that comes when its dialog is over (RFC 3262 §3).

use bytes::Bytes;

use super::as_told::refusal_of;
use super::caller::sdp_of;
use super::prack::rack_of;
use crate::message::{Header, Message, Method};

/// The PRACK that may still come to a dialog which is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwaitedPrack {
    /// The Call-ID of its dialog.
    pub call_id: String,
    /// The peer's tag.
    pub remote_tag: Option<String>,
    /// RSeq and CSeq of the response that it is for.
    pub rack: (u32, u32),
    /// That response made an offer: what the PRACK says is the answer.
    pub offered: bool,
    /// What the peer was told last.
    pub told: Option<Bytes>,
}

impl AwaitedPrack {
    /// True if this request with our tag is that PRACK: all that names the dialog is right (RFC 3261 §12), and so is what it acknowledges.
    pub fn is(&self, request: &Message) -> bool {
        request.method() == Method::Prack
            && request.call_id() == self.call_id
            && request.from_tag() == self.remote_tag.as_deref()
            && request.header(Header::RAck).and_then(rack_of) == Some(self.rack)
    }

    /// What the 2xx must say (§5: an offer in a PRACK has its answer there): there is no session any more, and so no stream.
    pub fn answer(&self, prack: &Message) -> Option<Bytes> {
        let offer = sdp_of(prack).filter(|_| !self.offered)?;
        refusal_of(&offer, self.told.as_ref())
    }
}
