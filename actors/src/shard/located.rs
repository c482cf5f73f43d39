//! What DNS has found for the trunks that live here.

use std::sync::Arc;

use tandem_protocol::dns::Located;

use super::Shard;

/// Where a named proxy of a trunk is.
pub struct ProxyLocated {
    /// The trunk.
    pub trunk: Arc<str>,
    /// The proxy's place among those of the trunk that are named.
    pub place: usize,
    /// Where it is.
    pub located: Arc<Located>,
}

impl Shard {
    /// A name of a trunk has been looked up: the trunk's proxies are others, or the same.
    pub(super) fn located(&mut self, found: ProxyLocated) {
        let Some(entry) = self.env.directory().trunk(&found.trunk) else { return };
        let proxies = entry.locate(found.place, found.located);
        if !entry.has_exactly(&proxies) {
            self.trunk_proxies(&found.trunk, proxies);
        }
    }
}
