//! Bindings as they lie in a serialised form, of which nothing is copied.

use serde::Deserialize;

use super::Binding;
use crate::flow::{ConnectionId, Flow};
use crate::time::UnixMillis;

/// A [`Binding`] in its serialised form: the same fields in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BindingRef<'a> {
    /// See [`Binding::contact`].
    pub contact: &'a str,
    /// See [`Binding::call_id`].
    pub call_id: &'a str,
    /// See [`Binding::cseq`].
    pub cseq: u32,
    /// See [`Binding::expires_at`].
    pub expires_at: UnixMillis,
    /// See [`Binding::q`].
    pub q: u16,
    /// See [`Binding::source`].
    pub source: Flow,
    /// See [`Binding::path`].
    #[serde(borrow)]
    pub path: Vec<&'a str>,
    /// See [`Binding::instance`].
    pub instance: Option<&'a str>,
    /// See [`Binding::reg_id`].
    pub reg_id: Option<u32>,
    /// See [`Binding::user_agent`].
    pub user_agent: Option<&'a str>,
}

impl BindingRef<'_> {
    /// The same, to keep.
    pub fn to_owned(&self) -> Binding {
        Binding {
            contact: self.contact.to_owned(),
            call_id: self.call_id.to_owned(),
            cseq: self.cseq,
            expires_at: self.expires_at,
            q: self.q,
            source: self.source,
            path: self.path.iter().map(|route| (*route).to_owned()).collect(),
            instance: self.instance.map(str::to_owned),
            reg_id: self.reg_id,
            user_agent: self.user_agent.map(str::to_owned),
        }
    }

    /// Whether `binding` is found at the same place by the same way.
    pub fn leads_where(&self, binding: &Binding) -> bool {
        self.contact == binding.contact && self.source == binding.source && self.path == binding.path
    }

    /// The connection by which a device keeps its flow (RFC 5626).
    pub fn kept_flow(&self) -> Option<ConnectionId> {
        self.source.connection.filter(|_| self.instance.is_some() && self.reg_id.is_some())
    }
}
