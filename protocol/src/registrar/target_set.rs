//! Whom a call to an address-of-record rings, and in which order (RFC 3261 §16.5, RFC 5626 §5.3).

use super::{Binding, Bindings};
use crate::time::UnixMillis;

/// The ways to one device, the one to be used first.
pub type Flows<'a> = Vec<&'a Binding>;

/// The devices that are registered at `now`, in groups of equal q, the most wanted first. The bindings are given in the order of
/// their refresh, the oldest first.
///
/// Bindings of one instance with a `reg-id` are ways to one device; the one refreshed last is the best known to work, and its q is
/// the device's.
pub fn target_set(bindings: &[Binding], now: UnixMillis) -> Vec<Vec<Flows<'_>>> {
    let mut devices: Vec<Flows<'_>> = Vec::new();
    // From the newest: the first binding of a device is the one to be used.
    for binding in bindings.iter().rev().filter(|b| b.expires_at > now) {
        let known = devices.iter_mut().find(|flows| flows.iter().any(|b| same_device(b, binding)));
        match known {
            Some(flows) => flows.push(binding),
            None => devices.push(vec![binding]),
        }
    }
    devices.reverse();
    let q = |flows: &Flows<'_>| flows.first().map_or(0, |b| b.q);
    devices.sort_by_key(|flows| std::cmp::Reverse(q(flows)));
    devices.chunk_by(|a, b| q(a) == q(b)).map(<[_]>::to_vec).collect()
}

fn same_device(a: &Binding, b: &Binding) -> bool {
    a.is_outbound() && b.is_outbound() && a.instance == b.instance
}

impl Binding {
    /// Whether it is one flow of a device that may have several (RFC 5626).
    pub fn is_outbound(&self) -> bool {
        self.instance.is_some() && self.reg_id.is_some()
    }
}

impl Bindings {
    /// [`target_set`] of these bindings.
    pub fn target_set(&self, now: UnixMillis) -> Vec<Vec<Flows<'_>>> {
        target_set(self.list(), now)
    }
}
