//! Which codecs a trunk or a station may use: its own, else those of its site.

use tandem_protocol::sdp::negotiate::CodecList;

use crate::settings::{Codec, Settings};

/// `own`, or what `location` has if those are none.
pub(super) fn codecs(settings: &Settings, own: &[Codec], location: Option<&String>) -> CodecList {
    let site = location.and_then(|name| settings.location.iter().find(|site| site.name == *name));
    let chosen = if own.is_empty() { site.map_or(own, |site| &site.codecs) } else { own };
    CodecList::new(chosen.iter().map(|codec| codec.name().to_owned()))
}
