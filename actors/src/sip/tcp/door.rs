//! How many connections a listener has, and how many each source: one count for all shards.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::StreamLimits;
use crate::metrics::Refused;
use crate::seat::{Hold, Loan, Seat};

/// A listener's count. It is asked once a connection, never on the way of a message.
pub struct Door {
    limits: StreamLimits,
    inside: Mutex<Inside>,
    /// TLS handshakes under way.
    handshakes: AtomicUsize,
}

#[derive(Default)]
struct Inside {
    all: usize,
    /// Only sources that have any.
    per_source: BTreeMap<IpAddr, usize>,
}

/// A connection that is counted until this is dropped, or its shard is fenced.
pub(super) struct Guest(#[allow(dead_code, reason = "its end is what counts")] Hold);

/// One customer: an IPv4 address, or the /64 that a host with IPv6 can number at will.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
    }
}

impl Door {
    /// Lets in as many as `limits` say.
    pub fn new(limits: StreamLimits) -> Arc<Door> {
        Arc::new(Door { limits, inside: Mutex::default(), handshakes: AtomicUsize::new(0) })
    }

    pub(super) fn limits(&self) -> StreamLimits {
        self.limits
    }

    pub(super) fn enter(self: &Arc<Door>, seat: &Arc<Seat>, ip: IpAddr) -> Result<Guest, Refused> {
        let source = source_of(ip);
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.all >= self.limits.connections {
            return Err(Refused::Limit);
        }
        let count = inside.per_source.entry(source).or_default();
        if *count >= self.limits.connections_per_source {
            return Err(Refused::SourceLimit);
        }
        *count += 1;
        inside.all += 1;
        drop(inside);
        Ok(Guest(seat.lend(Loan::Guest(self.clone(), Box::new(source)))))
    }

    /// A connection of this source has ended.
    pub(crate) fn leave(&self, source: IpAddr) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.all -= 1;
        if let Some(count) = inside.per_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                inside.per_source.remove(&source);
            }
        }
    }
}

/// A handshake that is counted until this is dropped, or its shard is fenced.
pub(crate) struct Shaking(#[allow(dead_code, reason = "its end is what counts")] Hold);

impl Door {
    /// A place for a handshake, which costs as much as a hundred messages; `None`: there are as many as there may be.
    pub(crate) fn shake(self: &Arc<Door>, seat: &Arc<Seat>) -> Option<Shaking> {
        let most = self.limits.handshakes;
        let taken = self
            .handshakes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < most).then_some(n + 1));
        taken.ok().map(|_| Shaking(seat.lend(Loan::Handshake(self.clone()))))
    }

    /// A handshake is over.
    pub(crate) fn shaken(&self) {
        self.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(connections: usize, connections_per_source: usize) -> Arc<Door> {
        Door::new(StreamLimits { connections, connections_per_source, ..StreamLimits::default() })
    }

    #[test]
    fn a_source_has_its_share_and_no_more_until_it_leaves() {
        let door = door(10, 2);
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let seat = Arc::default();
        let first = door.enter(&seat, one).ok();
        let _second = door.enter(&seat, one).ok();
        assert_eq!(door.enter(&seat, one).err(), Some(Refused::SourceLimit));
        assert!(door.enter(&seat, two).is_ok(), "another source is not held up");
        drop(first);
        assert!(door.enter(&seat, one).is_ok());
    }

    #[test]
    fn the_listener_has_its_limit_over_all_sources() {
        let door = door(2, 2);
        let seat = Arc::default();
        let _guests: Vec<Guest> =
            (1..3).filter_map(|n| door.enter(&seat, [192, 0, 2, n].into()).ok()).collect();
        assert_eq!(door.enter(&seat, [192, 0, 2, 3].into()).err(), Some(Refused::Limit));
    }

    #[test]
    fn so_many_handshakes_are_under_way_at_once() {
        let door = Door::new(StreamLimits { handshakes: 2, ..StreamLimits::default() });
        let seat = Arc::default();
        let first = door.shake(&seat);
        let second = door.shake(&seat);
        assert!(first.is_some() && second.is_some() && door.shake(&seat).is_none());
        drop(first);
        assert!(door.shake(&seat).is_some());
    }

    #[test]
    fn a_64_of_ipv6_is_one_source() {
        let door = door(10, 1);
        let seat = Arc::default();
        let _guest = door.enter(&seat, "2001:db8::1".parse().unwrap()).ok();
        assert_eq!(door.enter(&seat, "2001:db8::ffff:2".parse().unwrap()).err(), Some(Refused::SourceLimit));
        assert!(door.enter(&seat, "2001:db8:0:1::1".parse().unwrap()).is_ok());
    }
}
