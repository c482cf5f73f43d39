use std::time::Duration;

use tandem_protocol::dns::{Family, Server, Target};
use tandem_protocol::flow::Transport;
use tandem_protocol::proxy_list::RetryableCodes;
use tandem_protocol::time::Instant;
use tandem_protocol::transaction::Timers;

use super::*;
use crate::config::{MediaPath, NamedProxy, Redirect};
use crate::metrics::{Metrics, Registry};

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 5060))
}

/// A trunk with these addresses, and a name after so many of them each.
fn trunk(proxies: &[u8], named: &[(usize, &str)]) -> Trunk {
    let target = |host| Target::new(host, None, Transport::Udp, Family::V4);
    Trunk {
        name: "t".into(),
        listener: 0,
        proxies: proxies.iter().map(|last| address(*last)).collect(),
        named: named.iter().map(|(after, host)| NamedProxy { after: *after, target: target(host) }).collect(),
        accept_from: Vec::new(),
        calling_search_space: None,
        selection: Selection::Priority,
        timers: Timers::new(Duration::from_millis(500), Duration::from_secs(4)),
        retryable: RetryableCodes::default(),
        max_calls: 0,
        media: MediaPath::Anchored,
        media_delayed: false,
        record: false,
        trusted: false,
        redirect: Redirect::default(),
        redirect_to: Vec::new(),
        calling_party_mask: None,
        credentials: None,
    }
}

/// Servers in the order of their priorities, each with its weight and address.
fn located(servers: &[(u16, u16, u8)]) -> Arc<Located> {
    let server = |(priority, weight, last): &(u16, u16, u8)| Server {
        name: format!("s{last}").into(),
        priority: *priority,
        weight: *weight,
        transport: Transport::Udp,
        addresses: vec![address(*last)],
    };
    let servers = servers.iter().map(server).collect();
    Arc::new(Located { servers, because: None, until: Instant(0) })
}

fn metrics() -> TrunkMetrics {
    Metrics::new(Registry::new(Arc::new(metrics::NoopRecorder))).trunk("t")
}

fn listed(proxies: &Proxies) -> Vec<SocketAddr> {
    proxies.list().map(|proxy| proxy.address).collect()
}

fn ordered(proxies: &Proxies, turn: Option<usize>) -> Vec<u8> {
    let (health, _) = proxies.order(turn, &mut || 0);
    let last = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    };
    health.iter().map(|health| last(health.proxy.ip())).collect()
}

#[test]
fn what_is_found_stands_where_the_name_stands() {
    let (config, metrics) = (trunk(&[1, 2], &[(1, "a"), (1, "b"), (2, "c")]), metrics());
    let proxies = Proxies::new(&config, &metrics);
    assert_eq!(listed(&proxies), [address(1), address(2)]);
    let proxies = proxies.with(2, located(&[(1, 0, 30)]), &config, &metrics);
    let proxies = proxies.with(1, located(&[(1, 0, 20), (2, 0, 1)]), &config, &metrics);
    let proxies = proxies.with(0, located(&[(1, 0, 10)]), &config, &metrics);
    assert_eq!(listed(&proxies), [1, 10, 20, 2, 30].map(address), "each address once");
    assert_eq!(ordered(&proxies, None), [1, 10, 20, 1, 2, 30]);
    let hosts: Vec<String> = proxies.hosts().into_iter().map(|(_, host)| host).collect();
    assert_eq!(hosts, ["a", "b", "b", "c"]);
    let beyond = proxies.with(9, located(&[(1, 0, 99)]), &config, &metrics);
    assert_eq!(listed(&beyond), listed(&proxies), "a place that the settings do not have");
}

#[test]
fn an_address_that_stays_keeps_its_health_and_a_new_one_is_up() {
    let (config, metrics) = (trunk(&[], &[(0, "a")]), metrics());
    let proxies =
        Proxies::new(&config, &metrics).with(0, located(&[(1, 0, 1), (2, 0, 2)]), &config, &metrics);
    assert!(proxies.get(address(1)).unwrap().set_up(false));
    let next = proxies.with(0, located(&[(1, 0, 1), (2, 0, 3)]), &config, &metrics);
    let health: Vec<bool> = next.list().map(Proxy::is_up).collect();
    assert_eq!((listed(&next), health), (vec![address(1), address(3)], vec![false, true]));
    // Whoever still has the list of before notes the health of the same proxy.
    assert!(proxies.get(address(1)).unwrap().set_up(true));
    assert!(next.get(address(1)).unwrap().is_up());
}

#[test]
fn entries_take_turns_whatever_stands_at_them_and_one_that_is_down_comes_last() {
    let (config, metrics) = (trunk(&[1, 2], &[(1, "a")]), metrics());
    let proxies =
        Proxies::new(&config, &metrics).with(0, located(&[(1, 0, 10), (2, 0, 11)]), &config, &metrics);
    let turns: Vec<_> = (0..4).map(|turn| ordered(&proxies, Some(turn))).collect();
    assert_eq!(turns, [[1, 10, 11, 2], [10, 11, 2, 1], [2, 1, 10, 11], [1, 10, 11, 2]]);
    proxies.get(address(1)).unwrap().set_up(false);
    let turns: Vec<_> = (0..3).map(|turn| ordered(&proxies, Some(turn))).collect();
    assert_eq!(turns, [[10, 11, 2, 1], [2, 10, 11, 1], [10, 11, 2, 1]]);
}

#[test]
fn a_domain_that_changes_its_addresses_for_ever_makes_a_bounded_number_of_gauges() {
    let (config, metrics) = (trunk(&[], &[(0, "a")]), metrics());
    let mut proxies = Proxies::new(&config, &metrics);
    for last in 0..200 {
        proxies = proxies.with(0, located(&[(1, 0, last)]), &config, &metrics);
    }
    assert_eq!(proxies.labels.len(), GAUGES + 1);
    assert_eq!(proxies.labels.last().map(String::as_str), Some(OTHERS));
}
