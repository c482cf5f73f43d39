//! The dial plan on the wire: who reaches what, over which trunks, shown as whom.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::SocketAddr;

use common::engine::{station, stations};
use common::{Engine, Leg, Msg, Ua, sdp};

/// Trunks by name, each with one proxy at this port of {peer}.
fn trunks(list: &[(&str, u16)]) -> String {
    list.iter()
        .map(|(name, port)| format!("[[trunk]]\nname = \"{name}\"\nproxies = [\"{{peer}}:{port}\"]\n"))
        .collect()
}

fn pattern(text: &str, keys: &str) -> String {
    format!("[[dial_plan.pattern]]\npattern = \"{text}\"\n{keys}\n")
}

fn group(name: &str, keys: &str) -> String {
    format!("[[dial_plan.route_group]]\nname = \"{name}\"\n{keys}\n")
}

fn server(engine: &Engine, port: u16) -> Ua {
    Ua::on(engine, "proxy", SocketAddr::from((engine.peer(), port)))
}

/// Refuses the INVITE that comes.
fn refuse(ua: &Ua, status: &str) -> Msg {
    let invite = ua.request("INVITE");
    ua.respond(&invite, status, "no", "", "");
    ua.request("ACK");
    invite
}

fn call(caller: &Ua, number: &str) -> Leg {
    caller.call(number, &sdp(caller.local(), "0"))
}

/// The status that `caller` gets when he dials a number nobody takes.
fn dialled(caller: &Ua, number: &str) -> Option<u16> {
    let leg = call(caller, number);
    caller.refused(&leg).status()
}

/// Takes the call that comes, and hangs up once the caller has it.
fn take(ua: &Ua, caller: &Ua, leg: &mut Leg) -> Msg {
    let invite = ua.request("INVITE");
    let mut own = ua.answer(&invite, &sdp(ua.local(), "0"));
    caller.established(leg);
    ua.next(&mut own, "BYE", "", "");
    caller.respond(&caller.request("BYE"), "200 OK", "", "", "");
    ua.response("BYE", 200);
    invite
}

fn attempts(cdr: &serde_json::Value) -> Vec<(&str, &str)> {
    let list = cdr["attempts"].as_array().unwrap();
    list.iter().map(|a| (a["trunk"].as_str().unwrap(), a["cause"].as_str().unwrap())).collect()
}

#[test]
fn seven_trunks_are_tried_in_the_order_of_the_list_until_one_takes_the_call() {
    let names = ["t1", "t2", "t3", "t4", "t5", "t6", "t7"];
    let list: Vec<(&str, u16)> = names.iter().copied().zip(5071..).collect();
    let engine = Engine::start(&format!(
        "{}{}{}{}[[dial_plan.route_list]]\nname = \"out\"\ngroups = [\"near\", \"far\"]\n{}",
        stations(&["1001"]),
        trunks(&list),
        group("near", "trunks = [\"t3\", \"t1\", \"t2\"]"),
        group("far", "trunks = [\"t1\", \"t4\", \"t5\", \"t6\", \"t7\"]"),
        pattern("9.X!", "target = \"route_list:out\"")
    ));
    let servers: Vec<Ua> = list.iter().map(|(_, port)| server(&engine, *port)).collect();
    let caller = Ua::new(&engine, "1001");
    let mut leg = call(&caller, "9555123");
    for place in [2, 0, 1, 3, 4, 5] {
        let invite = refuse(&servers[place], "503 Service Unavailable");
        assert!(invite.uri().starts_with("sip:555123@"), "{invite:?}");
    }
    take(&servers[6], &caller, &mut leg);
    let cdr = engine.cdr("normal", 200, "callee");
    let order = ["t3", "t1", "t2", "t4", "t5", "t6"].map(|trunk| (trunk, "503"));
    assert_eq!(attempts(&cdr), [&order[..], &[("t7", "answered")]].concat(), "t1 is tried once: {cdr:#}");
    assert_eq!(cdr["trunk"], "t7");
    engine.quiet();
    engine.counts("tandem_trunk_calls_active", &[], 0.0);
}

#[test]
fn an_answer_that_is_not_retryable_is_the_callers_whatever_trunks_are_left() {
    let engine = Engine::start(&format!(
        "{}{}{}{}",
        stations(&["1001"]),
        trunks(&[("a", 5071), ("b", 5072)]),
        group("out", "trunks = [\"a\", \"b\"]"),
        pattern("9.X!", "target = \"route_group:out\"")
    ));
    let a = server(&engine, 5071);
    let caller = Ua::new(&engine, "1001");
    let leg = call(&caller, "9555123");
    refuse(&a, "404 Not Found");
    assert_eq!(caller.refused(&leg).status(), Some(404));
    assert_eq!(attempts(&engine.cdr("rejected", 404, "callee")), [("a", "404")]);
}

/// Two trunks of a group, the first with a place for one call; 8 leads there as an emergency call, 9 as any other.
fn limited(selection: &str) -> (Engine, Ua, Ua) {
    let engine = Engine::start(&format!(
        "{}{}max_calls = 1\n{}{}{}{}",
        stations(&["1001", "1002"]),
        trunks(&[("a", 5071)]),
        trunks(&[("b", 5072)]),
        group("out", &format!("trunks = [\"a\", \"b\"]\nselection = \"{selection}\"")),
        pattern("9.X!", "target = \"route_group:out\""),
        pattern("8.X!", "target = \"trunk:a\"\nemergency = true"),
    ));
    let (a, b) = (server(&engine, 5071), server(&engine, 5072));
    (engine, a, b)
}

#[test]
fn a_trunk_that_is_full_is_passed_over_and_told() {
    let (engine, a, b) = limited("priority");
    let (first, second) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002"));
    let mut leg = call(&first, "9123");
    a.answer(&a.request("INVITE"), &sdp(a.local(), "0"));
    first.established(&mut leg);
    let mut other = call(&second, "9124");
    take(&b, &second, &mut other);
    let cdr = engine.cdr("normal", 200, "callee");
    assert_eq!(attempts(&cdr), [("a", "limit"), ("b", "answered")], "{cdr:#}");
    engine.counts("tandem_trunk_failovers_total", &[("trunk", "a"), ("cause", "limit")], 1.0);
}

#[test]
fn an_emergency_call_is_marked_and_no_limit_refuses_it() {
    let (engine, a, _b) = limited("priority");
    let (first, second) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002"));
    let mut leg = call(&first, "9123");
    a.answer(&a.request("INVITE"), &sdp(a.local(), "0"));
    first.established(&mut leg);
    let mut other = call(&second, "8112");
    take(&a, &second, &mut other);
    let cdr = engine.cdr("normal", 200, "callee");
    assert_eq!((cdr["to"].as_str(), cdr["emergency"].as_bool()), (Some("8112"), Some(true)), "{cdr:#}");
    let why = engine.api("GET", &format!("/api/v1/calls/{}/why", cdr["call_id"].as_str().unwrap()));
    assert!(why.to_string().contains("an emergency call"), "{why:#}");
    let ordinary = call(&first, "8112");
    assert!(a.request("INVITE").uri().starts_with("sip:112@"), "again, with the trunk full");
    first.cancel(&ordinary);
}

#[test]
fn an_emergency_call_is_taken_while_draining() {
    let (engine, a, _b) = limited("priority");
    engine.ask("POST", "/api/v1/drain", "{\"on\": true}");
    let caller = Ua::new(&engine, "1001");
    let ordinary = caller.call("9123", &sdp(caller.local(), "0"));
    assert_eq!(caller.refused(&ordinary).status(), Some(503));
    let mut leg = call(&caller, "8112");
    take(&a, &caller, &mut leg);
    engine.cdr("normal", 200, "callee");
    engine.counts("tandem_invites_refused_total", &[("reason", "draining")], 1.0);
}

#[test]
fn the_trunks_of_a_group_take_turns() {
    let (engine, a, b) = limited("round_robin");
    let caller = Ua::new(&engine, "1001");
    for server in [&a, &b, &a] {
        let leg = call(&caller, "9123");
        refuse(server, "486 Busy Here");
        assert_eq!(caller.refused(&leg).status(), Some(486));
        engine.counts("tandem_trunk_calls_active", &[], 0.0);
    }
    engine.wait_cdrs(3);
}

#[test]
fn a_route_list_that_is_disabled_takes_no_call() {
    let engine = Engine::start(&format!(
        "{}{}{}[[dial_plan.route_list]]\nname = \"out\"\ngroups = [\"g\"]\nenabled = false\n{}",
        stations(&["1001"]),
        trunks(&[("a", 5071)]),
        group("g", "trunks = [\"a\"]"),
        pattern("9.X!", "target = \"route_list:out\"")
    ));
    assert_eq!(dialled(&Ua::new(&engine, "1001"), "9123"), Some(503));
    engine.cdr("failed", 503, "engine");
}

#[test]
fn a_number_of_any_length_goes_out_at_once_with_a_final_hash_or_without() {
    let engine = Engine::start(&format!(
        "{}{}{}",
        stations(&["1001"]),
        trunks(&[("a", 5071)]),
        pattern("X!#", "target = \"trunk:a\"")
    ));
    let (a, caller) = (server(&engine, 5071), Ua::new(&engine, "1001"));
    for number in ["2345", "2345678", "23456789012"] {
        for dialled in [number.to_owned(), format!("{number}%23")] {
            let leg = call(&caller, &dialled);
            let invite = refuse(&a, "486 Busy Here");
            assert!(invite.uri().starts_with(&format!("sip:{number}@")), "{dialled}: {invite:?}");
            assert_eq!(caller.refused(&leg).status(), Some(486));
        }
    }
}

#[test]
fn only_whose_search_space_has_the_partition_reaches_what_is_in_it() {
    let engine = Engine::start(&format!(
        "{}{}{}{}{}",
        station("1001", "calling_search_space = \"everyone\""),
        station("1002", "calling_search_space = \"assistant\""),
        station("1003", "partition = \"managers\""),
        "[[dial_plan.partition]]\nname = \"managers\"\n[[dial_plan.partition]]\nname = \"front\"\n\
         [[dial_plan.calling_search_space]]\nname = \"everyone\"\npartitions = [\"front\", \"internal\"]\n\
         [[dial_plan.calling_search_space]]\nname = \"assistant\"\npartitions = [\"managers\", \"front\", \"internal\"]\n",
        pattern("1003", "partition = \"front\"\ntarget = \"station:1002\"")
    ));
    let (other, assistant) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let manager = Ua::new(&engine, "1003").registered();
    let leg = call(&other, "1003");
    refuse(&assistant, "486 Busy Here");
    assert_eq!(other.refused(&leg).status(), Some(486), "who dials the manager gets the assistant");
    let leg = call(&assistant, "1003");
    refuse(&manager, "603 Decline");
    assert_eq!(assistant.refused(&leg).status(), Some(603), "the assistant gets the manager");
    assert_eq!(dialled(&manager, "1003"), Some(404), "a partition is not its own search space");
}

#[test]
fn a_user_is_reached_at_the_default_station_and_shows_the_outbound_number() {
    let engine = Engine::start(&format!(
        "{}{}[[user]]\nname = \"ann\"\nextension = \"2001\"\ndefault_station = \"1002\"\noutbound_ani = \"+15550100\"\n\
         [[user]]\nname = \"bo\"\nextension = \"2002\"\n{}{}{}",
        station("1001", "external_number_mask = \"+4989555XXXX\""),
        station("1002", "external_number_mask = \"+4989555XXXX\""),
        trunks(&[("a", 5071)]),
        pattern("9.X!", "target = \"trunk:a\""),
        pattern("8.X!", "target = \"trunk:a\"\ncalling_party_mask = \"40XX\"\ncalling_party_prefix = \"0\""),
    ));
    let (a, caller, ann) =
        (server(&engine, 5071), Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let leg = call(&caller, "2001");
    let invite = refuse(&ann, "486 Busy Here");
    assert!(invite.header("From").contains("<sip:1001@"), "inside, the extension is shown: {invite:?}");
    assert_eq!(caller.refused(&leg).status(), Some(486));
    assert_eq!(dialled(&caller, "2002"), Some(480), "nobody is where bo could be");
    for (ua, number, shown) in [
        (&caller, "9123", "<sip:+49895551001@"),
        (&ann, "9123", "<sip:+15550100@"),
        (&caller, "8123", "<sip:04001@"),
    ] {
        let leg = call(ua, number);
        let invite = refuse(&a, "486 Busy Here");
        assert!(invite.header("From").contains(shown), "{shown}: {invite:?}");
        assert_eq!(ua.refused(&leg).status(), Some(486));
    }
}

/// A station at {peer}:5080 that never registers, and one behind the proxies {peer}:5071 and 5072 of a trunk.
const UNMANAGED: &str = r#"
[[station]]
name = "door"
extension = "3001"
connection_address = "gate@{peer}:5080"
[[station]]
name = "desk"
extension = "3002"
connection_address = "7002"
identify_by_user_only = true
[[trunk]]
name = "pbx"
proxies = ["{peer}:5071", "{peer}:5072"]
calling_search_space = "outside"
[[dial_plan.partition]]
name = "public"
[[dial_plan.calling_search_space]]
name = "outside"
partitions = ["public"]
"#;

#[test]
fn a_station_that_never_registers_is_called_at_its_address_and_known_by_it() {
    let engine = Engine::start(&format!("{UNMANAGED}{}", stations(&["1001"])));
    let (door, caller) = (server(&engine, 5080), Ua::new(&engine, "1001").registered());
    let mut leg = call(&caller, "3001");
    let invite = take(&door, &caller, &mut leg);
    assert_eq!(invite.uri(), format!("sip:gate@{}:5080", engine.peer()));
    // It calls without a challenge, as itself: by its user or extension, from its own address.
    for from in ["gate", "3001"] {
        let mut leg = door.leg("1001");
        leg.local = leg.local.replace("proxy", from);
        door.next(&mut leg, "INVITE", "", &sdp(door.local(), "0"));
        let invite = refuse(&caller, "486 Busy Here");
        assert!(invite.header("From").contains("<sip:3001@"), "{invite:?}");
        assert_eq!(door.refused(&leg).status(), Some(486));
    }
    let cdrs = engine.wait_cdrs(3);
    let refused: Vec<_> = cdrs.iter().filter(|cdr| cdr["cause"] == "busy").collect();
    assert!(refused.len() == 2 && refused.iter().all(|cdr| cdr["from"] == "door"), "{cdrs:#?}");
    // Another address that says the same is a stranger.
    let thief = server(&engine, 5081);
    let mut leg = thief.leg("1001");
    leg.local = leg.local.replace("proxy", "gate");
    thief.next(&mut leg, "INVITE", "", &sdp(thief.local(), "0"));
    assert_eq!(thief.refused(&leg).status(), Some(401));
}

#[test]
fn a_station_behind_a_trunk_is_called_by_its_proxies_and_known_by_its_user() {
    let engine = Engine::start(&format!("{UNMANAGED}{}", stations(&["1001"])));
    let (first, second) = (server(&engine, 5071), server(&engine, 5072));
    let caller = Ua::new(&engine, "1001").registered();
    let mut leg = call(&caller, "3002");
    let invite = refuse(&first, "503 Service Unavailable");
    assert!(invite.uri().starts_with("sip:7002@"), "{invite:?}");
    assert!(invite.header("From").contains("<sip:1001@"), "one of ours is shown the extension: {invite:?}");
    take(&second, &caller, &mut leg);
    let cdr = engine.cdr("normal", 200, "callee");
    assert_eq!(attempts(&cdr), [("pbx", "503"), ("pbx", "answered")]);
    // It reaches the inside whatever host it names, and another caller of the same trunk does not.
    let from = |ua: &Ua, user: &str, host: &str| {
        let mut leg = ua.leg("1001");
        leg.local = format!("<sip:{user}@{host}>;tag=t");
        ua.next(&mut leg, "INVITE", "", &sdp(ua.local(), "0"));
        leg
    };
    for (ua, host) in [(&first, "node-a.example"), (&second, "node-b.example")] {
        let leg = from(ua, "7002", host);
        refuse(&caller, "486 Busy Here");
        assert_eq!(ua.refused(&leg).status(), Some(486), "{host}");
    }
    let leg = from(&first, "7003", "node-a.example");
    assert_eq!(first.refused(&leg).status(), Some(404));
}

#[test]
fn a_registered_station_is_called_where_it_is_registered_and_not_at_its_address() {
    let engine = Engine::start(&format!(
        "{}{}",
        station("1001", ""),
        station("1002", "connection_address = \"{peer}:5080\"")
    ));
    let (caller, fixed) = (Ua::new(&engine, "1001"), server(&engine, 5080));
    let leg = call(&caller, "1002");
    refuse(&fixed, "486 Busy Here");
    assert_eq!(caller.refused(&leg).status(), Some(486));
    let phone = Ua::new(&engine, "1002").registered();
    let leg = call(&caller, "1002");
    refuse(&phone, "603 Decline");
    assert_eq!(caller.refused(&leg).status(), Some(603));
    // It has a password: its address alone proves nothing.
    let mut leg = fixed.leg("1001");
    leg.local = leg.local.replace("proxy", "1002");
    fixed.next(&mut leg, "INVITE", "", &sdp(fixed.local(), "0"));
    assert_eq!(fixed.refused(&leg).status(), Some(401));
}

#[test]
fn a_station_known_by_its_user_only_proves_itself_whatever_host_it_names() {
    let engine =
        Engine::start(&format!("{}{}", station("1001", "identify_by_user_only = true"), station("1002", "")));
    let callee = Ua::new(&engine, "1002").registered();
    for (user, expected) in [("1001", Some(486)), ("1002", Some(401))] {
        let mut caller = Ua::new(&engine, user);
        caller.server = engine.sip;
        let mut leg = caller.leg("1002");
        leg.local = format!("<sip:{user}@elsewhere.example>;tag=x{user}");
        let body = sdp(caller.local(), "0");
        caller.next(&mut leg, "INVITE", "", &body);
        let challenge = caller.refused(&leg);
        let challenge = common::digest::Challenge::parse(challenge.header("WWW-Authenticate"));
        let answer = challenge.answer(user, &caller.password, "INVITE", &leg.target, 1);
        caller.next(&mut leg, "INVITE", &format!("Authorization: {answer}\r\n"), &body);
        if expected == Some(486) {
            refuse(&callee, "486 Busy Here");
        }
        assert_eq!(caller.refused(&leg).status(), expected, "{user}");
    }
}

#[test]
fn route_says_step_by_step_where_a_number_goes() {
    let engine = Engine::prepare(
        &format!(
            "{}{}{}[[dial_plan.route_list]]\nname = \"out\"\ngroups = [\"g\"]\n{}{}",
            station("1001", "external_number_mask = \"+4989555XXXX\"\ninternational = true\nmax_calls = 2")
                + &station("1002", ""),
            trunks(&[("a", 5071), ("b", 5072)]),
            group("g", "trunks = [\"b\", \"a\"]"),
            pattern("9.X!", "target = \"route_list:out\"\nprefix = \"00\""),
            pattern("9.5!", "target = \"trunk:a\""),
        ),
        &[],
    );
    let dials = |from: &str, digits: &str| {
        let output = engine.command(&["route", "--from", from, digits]).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let said = |digits: &str| dials("1001", digits);
    let (ok, text) = said("9666");
    assert!(ok, "{text}");
    for step in [
        "internal / 9.5! (1.1e62 strings): does not match",
        "internal / 9.X! (1.1e63 strings): matches: chosen",
        "without the first 1 (before the dot): 666",
        "with the prefix 00: 00666",
        "goes to route_list:out as 00666",
        "1. trunk b by listener udp",
        "2. trunk a by listener udp",
        "the caller is shown as +49895551001 (external_number_mask +4989555XXXX)",
        "the caller's calls: at most 2 at once, else 503",
        "00666 is international (it begins with 00): the caller may dial it",
    ] {
        assert!(text.contains(step), "{step}: {text}");
    }
    let (_, text) = said("9555");
    assert!(text.contains("9.X! (1.1e63 strings): matches, but another matches fewer strings"), "{text}");
    assert!(text.contains("goes to trunk:a as 555"), "{text}");
    assert!(!text.contains("is international"), "{text}");
    let (ok, text) = dials("1002", "9666");
    assert!(!ok && text.contains("00666 is international (it begins with 00): refused with 403"), "{text}");
}

#[test]
fn check_finds_a_number_that_goes_round() {
    let checked = |patterns: &str| {
        let engine = Engine::prepare(
            &format!(
                "{}[[trunk]]\nname = \"hairpin\"\nproxies = [\"{{ip}}:5060\"]\n{}{patterns}",
                stations(&["1001"]),
                group("g", "trunks = [\"hairpin\"]"),
            ),
            &[],
        );
        let output = engine.command(&["check"]).output().unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    };
    let (ok, text) = checked(&pattern("9XX", "target = \"route_group:g\""));
    assert!(
        !ok && text.contains(
            "dial_plan.pattern[0].target: leads round: 900 is dialled, trunk \"hairpin\" sends it as 900"
        ),
        "{text}"
    );
    let (ok, text) = checked(&pattern("9.1001", "target = \"trunk:hairpin\""));
    assert!(ok && text.contains("trunk[0].proxies[0]: is a listener of ours"), "it comes back once: {text}");
}

#[test]
fn a_number_is_dialled_in_whatever_form_its_uri_has() {
    let engine =
        Engine::start(&(trunks(&[("in", 5090), ("out", 5070)]) + &pattern("9.X!", "target = \"trunk:out\"")));
    let (caller, proxy) = (server(&engine, 5090), server(&engine, 5070));
    let ip = engine.sip.ip();
    for (uri, status) in [
        (format!("SIP:9555123@{ip}"), 486),
        ("tel:9-(555)-1.23".to_owned(), 486),
        ("TEL:9555123;phone-context=example.com".to_owned(), 486),
        (format!("sip:9-555-123;phone-context=a@{ip};user=phone"), 486),
        (format!("sip:9-555-123@{ip}"), 404),
    ] {
        let mut leg = caller.leg("x");
        leg.target.clone_from(&uri);
        leg.local = format!("<tel:+49-89-{}>;tag={}", 1234, common::ua::token());
        caller.next(&mut leg, "INVITE", "", &sdp(caller.local(), "0"));
        if status == 486 {
            let invite = refuse(&proxy, "486 Busy Here");
            assert_eq!(invite.uri(), format!("sip:555123@{}", proxy.local()), "{uri}");
            assert!(invite.header("From").contains("sip:+49891234@"), "{invite:?}");
        }
        assert_eq!(caller.refused(&leg).status(), Some(status), "{uri}");
    }
}
