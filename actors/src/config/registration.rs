//! Accounts of ours at other servers.

use std::sync::Arc;
use std::time::Duration;

use tandem_protocol::dialog::Credentials;
use tandem_protocol::proxy_list::Proxy;
use tandem_protocol::transaction::Timers;

use super::NamedProxy;

/// Registrations with one provider in the order they are preferred: the next is used when one fails.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistrationGroup {
    /// Its name.
    pub name: Arc<str>,
    /// Its registrations.
    pub registrations: Vec<Registration>,
    /// Whether a call to the account is taken from whoever knows the Contact that was registered; else it must come from one of the
    /// registrars, or from what is the trunk's.
    pub calls_from_anyone: bool,
    /// How many of them hold at once; at least one.
    pub active: usize,
    /// How long one that has failed must hold again before it is used in place of a later one.
    pub return_after: Duration,
    /// The first wait after a failure, before doubling.
    pub base_retry: Duration,
    /// The longest wait after a failure.
    pub max_retry: Duration,
    /// Whether it unregisters when the process ends.
    pub unregister_on_stop: bool,
}

/// One registration.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// What it is at, as the settings call it.
    pub label: Arc<str>,
    /// The trunk by which calls to the account come, and calls of the account leave.
    pub trunk: Option<Arc<str>>,
    /// The place of the listener it registers from.
    pub listener: u16,
    /// Where REGISTERs are sent, in order of preference: what the settings give an address of.
    pub proxies: Vec<Proxy>,
    /// What DNS must find.
    pub named: Vec<NamedProxy>,
    /// The domain of the account, as the host of a URI.
    pub domain: String,
    /// The user of the account, and what answers challenges.
    pub credentials: Credentials,
    /// The binding's life to ask for.
    pub expires: Duration,
    /// What the dial plan is asked for when the account is called; `None`: whom To names.
    pub number: Option<String>,
    /// Timers of its REGISTERs.
    pub timers: Timers,
}
