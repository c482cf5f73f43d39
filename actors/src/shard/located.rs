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
    /// The shard publishes it, not the trunk's actor: that one may rest after a fault, and a name is told once in its time to
    /// live.
    pub(super) fn located(&mut self, found: ProxyLocated) {
        let (config, directory) = (self.env.config(), self.env.directory());
        let Some(entry) = directory.trunk(&found.trunk) else { return };
        if config.transport(config.listener_id(entry.config.listener)).is_reliable() {
            found.located.addresses().for_each(|address| directory.stream_peers.note(address.ip()));
        }
        entry.locate(found.place, found.located);
    }
}
