//! What DNS has found for the trunks and registration groups that live here.

use std::sync::Arc;

use tandem_protocol::dns::Located;

use super::Shard;
use crate::env::Tell;
use crate::registration_group::ServersFound;

/// Who names a server that DNS must find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A trunk, as a proxy.
    Trunk(Arc<str>),
    /// A registration group: the registration at this place.
    Registration(Arc<str>, usize),
}

impl Named {
    /// The name of the trunk or group.
    pub fn name(&self) -> &str {
        match self {
            Named::Trunk(name) | Named::Registration(name, _) => name,
        }
    }
}

/// Where a named server is.
pub struct ProxyLocated {
    /// Whose it is.
    pub of: Named,
    /// Its place among those that are named there.
    pub place: usize,
    /// Where it is.
    pub located: Arc<Located>,
}

impl Shard {
    /// A name has been looked up: the proxies of its trunk, or the servers of its registration, are others, or the same.
    pub(super) fn located(&mut self, found: ProxyLocated) {
        let directory = self.env.directory();
        match found.of {
            Named::Trunk(name) => {
                let Some(entry) = directory.trunk(&name) else { return };
                let proxies = entry.locate(found.place, found.located);
                if !entry.has_exactly(&proxies) {
                    self.trunk_proxies(&name, proxies);
                }
            }
            Named::Registration(name, registration) => {
                let Some(entry) = directory.registration(&name) else { return };
                entry.locate(registration, found.place, found.located);
                if let Some(group) = self.groups.get(&name) {
                    group.tell(ServersFound);
                }
            }
        }
    }
}
