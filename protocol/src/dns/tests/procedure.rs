//! RFC 3263 §4.

use super::*;

/// Goes through the procedure to its end; what was asked in each round, and the result.
fn find(target: &Target, zone: &Zone) -> (Vec<Vec<String>>, Vec<Server>, Option<Because>) {
    let mut known: BTreeMap<Query, Answer> = BTreeMap::new();
    let mut rounds = Vec::new();
    for _ in 0..8 {
        let found = locate(target, &|query| known.get(query));
        match found.step {
            Step::Ask(queries) => {
                assert!(!queries.is_empty(), "it waits for nothing");
                assert!(queries.iter().all(|query| !known.contains_key(query)), "asked twice: {queries:?}");
                rounds.push(queries.iter().map(ToString::to_string).collect());
                known.extend(queries.into_iter().map(|query| (query.clone(), zone.answer(&query))));
            }
            Step::Done { servers, because } => return (rounds, servers, because),
        }
    }
    panic!("it does not end: {rounds:?}");
}

fn udp(host: &str) -> Target {
    Target::new(host, None, Transport::Udp, Family::V4)
}

fn ordered(servers: &[Server]) -> Vec<String> {
    servers.iter().flat_map(|server| &server.addresses).map(ToString::to_string).collect()
}

#[test]
fn an_address_needs_no_dns() {
    let (asked, servers, because) = find(&udp("192.0.2.1"), &Zone::default());
    assert_eq!((asked.len(), ordered(&servers), because), (0, vec!["192.0.2.1:5060".to_owned()], None));
    let v6 = Target::new("2001:db8::1", Some(5070), Transport::Tcp, Family::V6);
    assert_eq!(ordered(&find(&v6, &Zone::default()).1), ["[2001:db8::1]:5070"]);
}

#[test]
fn a_named_port_skips_naptr_and_srv() {
    let zone = Zone::default()
        .naptr("example.net", &[(1, 1, "s", "SIP+D2U", "_sip._udp.example.net")])
        .srv("_sip._udp.example.net", &[(1, 0, 5061, "other.example.net")])
        .a("example.net", &["192.0.2.7", "192.0.2.8", "192.0.2.7"]);
    let target = Target::new("Example.NET.", Some(5080), Transport::Udp, Family::V4);
    let (asked, servers, _) = find(&target, &zone);
    assert_eq!(asked, [["example.net A"]]);
    assert_eq!(ordered(&servers), ["192.0.2.7:5080", "192.0.2.8:5080"], "each address once");
}

#[test]
fn naptr_names_the_service_and_its_transport() {
    let zone = Zone::default()
        .naptr(
            "example.net",
            &[
                (20, 1, "s", "SIP+D2U", "_late._udp.example.net"),
                (10, 30, "s", "sip+d2u", "_third._udp.example.net"),
                (10, 20, "S", "SIP+D2U", "_second._udp.example.net"),
                (10, 10, "s", "SIP+D2T", "_tcp.example.net"),
                (5, 1, "u", "E2U+sip", "_enum.example.net"),
                (5, 2, "a", "SIP+D2U", "host.example.net"),
            ],
        )
        .srv("_second._udp.example.net", &[(1, 0, 5070, "a.example.net")])
        .srv("_tcp.example.net", &[(1, 0, 5071, "a.example.net")])
        .a("a.example.net", &["192.0.2.1"]);
    let (asked, servers, _) = find(&udp("example.net"), &zone);
    assert_eq!(asked[0], ["example.net NAPTR"]);
    assert_eq!(ordered(&servers), ["192.0.2.1:5070"], "by preference, of our transports only");
    let both = Target { transports: vec![Transport::Udp, Transport::Tcp], ..udp("example.net") };
    let (_, servers, _) = find(&both, &zone);
    assert_eq!(
        (ordered(&servers), servers[0].transport),
        (vec!["192.0.2.1:5071".to_owned()], Transport::Tcp),
        "what the domain prefers, not what we do"
    );
}

#[test]
fn a_named_transport_leaves_naptr_unasked() {
    let zone = Zone::default()
        .naptr("example.net", &[(1, 1, "s", "SIP+D2T", "_elsewhere.example.net")])
        .srv("_sip._tcp.example.net", &[(1, 0, 5070, "a.example.net")])
        .a("a.example.net", &["192.0.2.1"]);
    let target = Target::new("example.net", None, Transport::Tcp, Family::V4).with_transport_named();
    let (asked, servers, _) = find(&target, &zone);
    assert_eq!(asked, [["_sip._tcp.example.net SRV"], ["a.example.net A"]]);
    assert_eq!(ordered(&servers), ["192.0.2.1:5070"]);
}

#[test]
fn a_target_of_tls_has_services_and_a_port_of_its_own() {
    let tls = |port| Target::new("example.net", port, Transport::Tls, Family::V4);
    let zone = Zone::default()
        .naptr(
            "example.net",
            &[(1, 1, "s", "SIP+D2T", "_plain.example.net"), (2, 1, "s", "SIPS+D2T", "_secure.example.net")],
        )
        .srv("_secure.example.net", &[(1, 0, 5071, "a.example.net")])
        .srv("_sips._tcp.example.net", &[(1, 0, 5072, "a.example.net")])
        .a("a.example.net", &["192.0.2.1"])
        .a("example.net", &["192.0.2.2"]);
    assert_eq!(ordered(&find(&tls(None), &zone).1), ["192.0.2.1:5071"]);
    assert_eq!(ordered(&find(&tls(None).with_transport_named(), &zone).1), ["192.0.2.1:5072"]);
    assert_eq!(ordered(&find(&tls(Some(5070)), &zone).1), ["192.0.2.2:5070"]);
    let alone = Zone::default().a("example.net", &["192.0.2.2"]);
    assert_eq!(ordered(&find(&tls(None), &alone).1), ["192.0.2.2:5061"]);
}

#[test]
fn without_naptr_srv_is_asked_for_each_transport_and_ours_is_preferred() {
    let target = Target { transports: vec![Transport::Udp, Transport::Tcp], ..udp("example.net") };
    let only_tcp = Zone::default()
        .srv("_sip._tcp.example.net", &[(1, 0, 5070, "a.example.net")])
        .a("a.example.net", &["192.0.2.1"]);
    let (asked, servers, _) = find(&target, &only_tcp);
    assert_eq!(asked[1], ["_sip._tcp.example.net SRV", "_sip._udp.example.net SRV"], "at once");
    assert_eq!(servers[0].transport, Transport::Tcp);
    let both = only_tcp.srv("_sip._udp.example.net", &[(1, 0, 5071, "a.example.net")]);
    let (_, servers, _) = find(&target, &both);
    assert_eq!((servers[0].transport, ordered(&servers)), (Transport::Udp, vec!["192.0.2.1:5071".into()]));
}

#[test]
fn srv_gives_servers_by_priority_each_with_its_port_and_addresses() {
    let zone = Zone::default()
        .srv(
            "_sip._udp.example.net",
            &[
                (20, 0, 5080, "backup.example.net"),
                (10, 60, 5070, "one.example.net"),
                (10, 40, 5071, "Two.Example.net."),
                (10, 1, 5072, "gone.example.net"),
                (30, 0, 5090, "192.0.2.99"),
            ],
        )
        .a("one.example.net", &["192.0.2.1", "192.0.2.11"])
        .a("two.example.net", &["192.0.2.2"])
        .a("backup.example.net", &["192.0.2.3"]);
    let (asked, servers, because) = find(&udp("example.net"), &zone);
    assert_eq!(asked.len(), 3, "NAPTR, SRV, every address at once: {asked:?}");
    let shown: Vec<_> = servers.iter().map(|s| (s.priority, s.weight, &*s.name)).collect();
    assert_eq!(
        shown,
        [
            (10, 60, "one.example.net"),
            (10, 40, "two.example.net"),
            (20, 0, "backup.example.net"),
            (30, 0, "192.0.2.99")
        ]
    );
    assert_eq!(
        ordered(&servers),
        ["192.0.2.1:5070", "192.0.2.11:5070", "192.0.2.2:5071", "192.0.2.3:5080", "192.0.2.99:5090"]
    );
    assert_eq!(because, None, "a server without addresses is passed over");
}

#[test]
fn without_srv_the_name_itself_is_asked_for() {
    let (asked, servers, _) = find(&udp("example.net"), &Zone::default().a("example.net", &["192.0.2.1"]));
    assert_eq!(asked, [["example.net NAPTR"], ["_sip._udp.example.net SRV"], ["example.net A"]]);
    assert_eq!(ordered(&servers), ["192.0.2.1:5060"]);
}

#[test]
fn a_domain_that_offers_no_sip_is_not_called_at_its_address() {
    let zone =
        Zone::default().srv("_sip._udp.example.net", &[(0, 0, 0, ".")]).a("example.net", &["192.0.2.1"]);
    let (_, servers, because) = find(&udp("example.net"), &zone);
    assert_eq!((servers.len(), because.unwrap().trouble), (0, Trouble::NotOffered));
}

#[test]
fn srv_that_nobody_answers_does_not_send_calls_to_the_address_of_the_domain() {
    let zone =
        Zone::default().failing("_sip._udp.example.net", RecordType::Srv).a("example.net", &["192.0.2.1"]);
    let (_, servers, because) = find(&udp("example.net"), &zone);
    let because = because.unwrap();
    assert_eq!((servers.len(), because.trouble), (0, Trouble::Unreachable));
    assert_eq!(because.to_string(), "_sip._udp.example.net SRV: timeout");
}

#[test]
fn a_server_that_does_not_know_naptr_is_asked_for_srv() {
    let zone = Zone::default()
        .failing("example.net", RecordType::Naptr)
        .srv("_sip._udp.example.net", &[(1, 0, 5070, "a.example.net")])
        .a("a.example.net", &["192.0.2.1"]);
    assert_eq!(ordered(&find(&udp("example.net"), &zone).1), ["192.0.2.1:5070"]);
}

#[test]
fn one_server_whose_address_nobody_knows_is_told_and_the_others_are_used() {
    let zone = Zone::default()
        .srv("_sip._udp.example.net", &[(1, 0, 5070, "a.example.net"), (2, 0, 5070, "b.example.net")])
        .failing("a.example.net", RecordType::A)
        .a("b.example.net", &["192.0.2.2"]);
    let (_, servers, because) = find(&udp("example.net"), &zone);
    assert_eq!(ordered(&servers), ["192.0.2.2:5070"]);
    assert_eq!(
        because.map(|b| (b.trouble, b.query.to_string())),
        Some((Trouble::Unreachable, "a.example.net A".to_owned()))
    );
}

#[test]
fn a_name_that_does_not_exist_is_told() {
    let (_, servers, because) = find(&udp("example.net"), &Zone::default());
    assert!(servers.is_empty());
    assert_eq!(because.unwrap().to_string(), "example.net A: there is no such name (NXDOMAIN)");
}

#[test]
fn the_family_of_the_listener_decides_which_addresses_are_asked_for() {
    let target = Target::new("example.net", Some(5060), Transport::Udp, Family::V6);
    let v6 = vec![Record::Address("2001:db8::1".parse().unwrap())];
    let zone = Zone::default().records("example.net", RecordType::Aaaa, v6).a("example.net", &["192.0.2.1"]);
    let (asked, servers, _) = find(&target, &zone);
    assert_eq!(
        (asked, ordered(&servers)),
        (vec![vec!["example.net AAAA".to_owned()]], vec!["[2001:db8::1]:5060".to_owned()])
    );
}

#[test]
fn a_target_is_printed_as_it_is_written() {
    assert_eq!(
        Target::new("pbx.example", Some(5070), Transport::Udp, Family::V4).to_string(),
        "pbx.example:5070"
    );
    assert_eq!(udp("pbx.example").to_string(), "pbx.example");
    assert_eq!(
        Target::new("2001:db8::1", Some(1), Transport::Udp, Family::V6).to_string(),
        "[2001:db8::1]:1"
    );
}

/// Records that a zone may hold, sound or not.
fn any_record() -> impl Strategy<Value = Record> {
    let name = || prop::sample::select(vec!["a.x", "b.x", "c.x", ".", "", "192.0.2.5", "_sip._udp.x"]);
    let text = || prop::sample::select(vec!["s", "a", "u", "SIP+D2U", "SIP+D2T", ""]);
    let ip = prop::sample::select(vec!["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    prop_oneof![
        (0..4_u16, 0..3_u16, 0..3_u16, name()).prop_map(|(priority, weight, port, target)| {
            Record::Srv(Srv { priority, weight, port, target: target.to_owned() })
        }),
        (0..3_u16, 0..3_u16, text(), text(), name()).prop_map(
            |(order, preference, flags, service, replacement)| Record::Naptr(Naptr {
                order,
                preference,
                flags: flags.to_owned(),
                service: service.to_owned(),
                regexp: String::new(),
                replacement: replacement.to_owned(),
            })
        ),
        ip.prop_map(|ip| Record::Address(ip.parse::<IpAddr>().unwrap())),
    ]
}

fn any_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => prop::collection::vec(any_record(), 0..40).prop_map(|records| Answer::Records { records, ttl: TTL }),
        1 => Just(Answer::Absent { how: Absence::NoData, ttl: None }),
        1 => Just(Answer::Failed { why: "x".to_owned() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_zone_holds_the_procedure_ends_with_bounded_servers_or_a_reason(
        answers in prop::collection::vec(any_answer(), 40),
        port in prop::option::of(1..9_u16),
        named in any::<bool>(),
        v6 in any::<bool>(),
    ) {
        let kinds = [RecordType::Naptr, RecordType::Srv, RecordType::A, RecordType::Aaaa];
        let names = ["x", "_sip._udp.x", "_sip._tcp.x", "a.x", "b.x", "c.x", "192.0.2.5", "", "192.0.2.1", "2"];
        let queries = names.iter().flat_map(|name| kinds.iter().map(|kind| Query::new(name, *kind)));
        let zone = Zone(queries.zip(answers).collect());
        let target = Target {
            transports: vec![Transport::Tcp, Transport::Udp],
            transport_named: named,
            ..Target::new("x", port, Transport::Udp, if v6 { Family::V6 } else { Family::V4 })
        };
        let (_, servers, because) = find(&target, &zone);
        prop_assert!(!servers.is_empty() || because.is_some());
        prop_assert!(servers.len() <= MAX_SERVERS);
        prop_assert!(servers.is_sorted_by_key(|server| server.priority));
        for server in &servers {
            prop_assert!((1..=MAX_ADDRESSES).contains(&server.addresses.len()));
        }
    }
}
