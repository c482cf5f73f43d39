//! The order in which servers are tried: RFC 2782.

use std::net::SocketAddr;

use super::Server;

/// The addresses of `servers` in the order that one call tries them: the lowest priority first, among servers of one priority
/// by chance with their weights as odds, and the addresses of one server from a place that chance decides.
/// `chance` gives 64 even bits.
pub fn order(servers: &[Server], chance: &mut dyn FnMut() -> u64) -> Vec<SocketAddr> {
    let mut sorted: Vec<&Server> = servers.iter().collect();
    sorted.sort_by_key(|server| server.priority);
    let mut order = Vec::new();
    for group in sorted.chunk_by(|a, b| a.priority == b.priority) {
        for server in draw(group, chance) {
            let first = below(server.addresses.len() as u64, chance) as usize;
            let (before, after) = server.addresses.split_at(first);
            order.extend(after.iter().chain(before));
        }
    }
    order
}

/// The servers of one priority (RFC 2782, "Weight").
fn draw<'a>(group: &[&'a Server], chance: &mut dyn FnMut() -> u64) -> Vec<&'a Server> {
    // Those without weight stand first, so that they have a small chance beside those with one; among themselves their
    // order is open, and chance makes them equal.
    let (mut left, weighty): (Vec<&Server>, Vec<&Server>) = group.iter().partition(|s| s.weight == 0);
    for last in (1..left.len()).rev() {
        left.swap(last, below(last as u64 + 1, chance) as usize);
    }
    left.extend(weighty);
    let mut drawn = Vec::with_capacity(left.len());
    while left.len() > 1 {
        let sum: u64 = left.iter().map(|server| u64::from(server.weight)).sum();
        let pick = below(sum + 1, chance);
        let mut running = 0;
        let place = left.iter().position(|server| {
            running += u64::from(server.weight);
            running >= pick
        });
        drawn.push(left.remove(place.unwrap_or(0)));
    }
    drawn.extend(left);
    drawn
}

/// A number below `bound`; 0 if that is 0 or 1.
fn below(bound: u64, chance: &mut dyn FnMut() -> u64) -> u64 {
    if bound < 2 {
        return 0;
    }
    ((u128::from(chance()) * u128::from(bound)) >> 64) as u64
}
