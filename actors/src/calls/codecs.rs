//! Which codecs a caller, and those a call may go to, may use.

use bytes::Bytes;
use tandem_protocol::b2bua::CalleeCodecs;
use tandem_protocol::sdp::negotiate::{CodecList, NegotiationError, Role, within_codecs};

use super::Callee;
use super::identify::Caller;
use crate::call::Outbound;
use crate::env::Env;

impl Caller {
    /// The codecs that he may use.
    pub(crate) fn codecs(&self) -> &CodecList {
        match self {
            Caller::Station(station) => &station.config.rules.codecs,
            Caller::Trunk(trunk) => &trunk.config.codecs,
        }
    }
}

/// A caller's offer, less the codecs that he may not use.
pub(super) fn accepted(caller: &Caller, offer: Bytes) -> Result<Bytes, NegotiationError> {
    let less = within_codecs(&offer, Role::Offer, caller.codecs(), &CodecList::ANY)?;
    Ok(less.unwrap_or(offer))
}

/// The codecs of those a call may go to. A station behind a trunk has its own, if its site says so, else the trunk's.
pub(crate) fn codecs_of(env: &Env, outbound: &[Outbound]) -> CalleeCodecs {
    let of = |outbound: &Outbound| {
        let own = match &outbound.callee {
            Callee::Station(station) => Some(&station.config.rules.codecs),
            Callee::Trunk(_) | Callee::Nobody => None,
        };
        let trunk = outbound.trunk.as_deref().and_then(|name| env.directory().trunk(name));
        let own = own.filter(|list| !list.is_any());
        own.or(trunk.map(|trunk| &trunk.config.codecs)).cloned().unwrap_or_default()
    };
    let named = |outbound: &Outbound| (outbound.trunk.as_deref().map(str::to_owned), of(outbound));
    outbound.iter().map(named).filter(|(_, list)| !list.is_any()).collect()
}
