//! What everyone may know of our registrations at providers.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tandem_protocol::registration::State;
use tandem_protocol::time::UnixMillis;

use crate::config::RegistrationGroup;

/// Where a registration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationStatus {
    /// Its state; also while it is refreshed it holds until it expires.
    pub state: State,
    /// When what the registrar last granted ends; `None`: it has granted nothing, or has refused since.
    pub expires_at: Option<UnixMillis>,
    /// When and why it was last lost or refused. It stays once that is over.
    pub last_failure: Option<(UnixMillis, String)>,
}

/// One registration group.
pub struct RegistrationEntry {
    /// Its settings.
    pub config: RegistrationGroup,
    status: ArcSwap<RegistrationStatus>,
}

impl RegistrationEntry {
    pub(super) fn new(config: &RegistrationGroup) -> RegistrationEntry {
        let status = RegistrationStatus { state: State::Idle, expires_at: None, last_failure: None };
        RegistrationEntry { config: config.clone(), status: ArcSwap::from_pointee(status) }
    }

    /// Where it stands now.
    pub fn status(&self) -> Arc<RegistrationStatus> {
        self.status.load_full()
    }

    /// Publishes where it stands. Only its actor may.
    pub fn publish(&self, status: RegistrationStatus) {
        self.status.store(Arc::new(status));
    }
}
