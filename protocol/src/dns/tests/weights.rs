//! RFC 2782: the order of servers.

use super::*;
use crate::fnv::fnv1a;

/// Even bits from a seed.
fn chance(seed: u64) -> impl FnMut() -> u64 {
    let mut count = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    move || {
        // splitmix64.
        count = count.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = count;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn server(number: u8, priority: u16, weight: u16) -> Server {
    Server {
        name: Arc::from(format!("s{number}")),
        priority,
        weight,
        transport: Transport::Udp,
        addresses: vec![SocketAddr::from(([192, 0, 2, number], 5060))],
    }
}

/// How often each server was the first, of `rounds`.
fn firsts(servers: &[Server], rounds: u64) -> Vec<f64> {
    let mut chance = chance(fnv1a(*b"weights"));
    let mut counts = vec![0_u32; servers.len()];
    for _ in 0..rounds {
        let first = order(servers, &mut chance)[0];
        let place = servers.iter().position(|s| s.addresses.contains(&first)).unwrap();
        counts[place] += 1;
    }
    counts.iter().map(|count| f64::from(*count) / rounds as f64).collect()
}

#[test]
fn the_first_server_is_drawn_by_weight() {
    let servers = [server(1, 1, 60), server(2, 1, 30), server(3, 1, 10), server(4, 2, 500)];
    let shares = firsts(&servers, 100_000);
    for (share, expected) in shares.iter().zip([0.6, 0.3, 0.1, 0.0]) {
        // Five standard deviations, and the one in 101 that RFC 2782's inclusive draw gives to the first.
        assert!((share - expected).abs() < 0.008 + 0.01 * expected, "{shares:?}");
    }
}

#[test]
fn servers_without_weight_are_equal_among_themselves_and_rare_beside_others() {
    let shares = firsts(&[server(1, 1, 0), server(2, 1, 0), server(3, 1, 0), server(4, 1, 0)], 40_000);
    assert!(shares.iter().all(|share| (share - 0.25).abs() < 0.012), "{shares:?}");
    let shares = firsts(&[server(1, 1, 0), server(2, 1, 99)], 40_000);
    assert!((shares[0] - 0.01).abs() < 0.003, "{shares:?}");
}

#[test]
fn the_addresses_of_one_server_share_its_calls() {
    let mut one = server(1, 1, 0);
    one.addresses.push(SocketAddr::from(([192, 0, 2, 9], 5060)));
    let mut chance = chance(7);
    let first = (0..10_000).filter(|_| order(&[one.clone()], &mut chance)[0] == one.addresses[0]).count();
    assert!((4_700..5_300).contains(&first), "{first}");
}

proptest! {
    #[test]
    fn an_order_has_each_address_once_and_no_priority_before_a_lower_one(
        specs in prop::collection::vec((0..4_u16, prop::option::of(any::<u16>()), 1..4_usize), 0..20),
        seed in any::<u64>(),
    ) {
        let servers: Vec<Server> = specs.iter().enumerate().map(|(n, (priority, weight, count))| {
            let mut server = server(n as u8, *priority, weight.unwrap_or(0));
            server.addresses = (0..*count).map(|k| SocketAddr::from(([10, 0, n as u8, k as u8], 1))).collect();
            server
        }).collect();
        let drawn = order(&servers, &mut chance(seed));
        let place = |address: &SocketAddr| servers.iter().find(|s| s.addresses.contains(address)).unwrap();
        prop_assert!(drawn.is_sorted_by_key(|address| place(address).priority));
        let mut sorted = drawn.clone();
        sorted.sort();
        sorted.dedup();
        prop_assert_eq!(sorted.len(), drawn.len());
        prop_assert_eq!(drawn.len(), servers.iter().map(|s| s.addresses.len()).sum::<usize>());
        // Even the hardest chance ends, and the same chance gives the same order.
        prop_assert_eq!(&drawn, &order(&servers, &mut chance(seed)));
        prop_assert_eq!(order(&servers, &mut || u64::MAX).len(), drawn.len());
        prop_assert_eq!(order(&servers, &mut || 0).len(), drawn.len());
    }
}
