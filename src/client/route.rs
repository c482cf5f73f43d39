//! `tandem route --from A DIGITS`: where dialled digits lead, by the settings alone.

mod toll;

use std::fmt::Write as _;
use std::io::{self, Write};

use tandem_protocol::dial_plan::{CallingTransform, DialPlan, Target};

use super::ClientError;
use crate::settings::{RouteList, Selection, Settings, Station, Trunk};
use crate::wiring;

/// Explains where `digits` lead when `from` dials them, by `plan`, which is that of `settings`. True if the call would be
/// sent somewhere; false if it would be refused, or if nobody is called `from`.
///
/// # Errors
/// The answer cannot be written.
pub fn route(
    settings: &Settings,
    plan: &DialPlan,
    from: &str,
    digits: &str,
    out: &mut dyn Write,
) -> Result<bool, ClientError> {
    let Some(caller) = caller(settings, from) else {
        unknown(settings, from, out)?;
        return Ok(false);
    };
    writeln!(out, "{} dials {digits}", caller.what)?;
    let decision = plan.route(caller.css, digits);
    out.write_all(decision.explain().as_bytes())?;
    let (Some(target), Some(pattern)) = (decision.target, decision.matched) else { return Ok(false) };
    let call = Outgoing {
        settings,
        caller: &caller,
        calling: pattern.calling,
        number: &decision.number_out,
        emergency: pattern.emergency,
    };
    let mut text = String::new();
    toll::limits(&call, &mut text);
    let routed = describe(&call, target, &mut text);
    out.write_all(text.as_bytes())?;
    Ok(routed)
}

struct Caller<'a> {
    what: String,
    css: Option<&'a str>,
    /// The station, if he is one.
    station: Option<&'a Station>,
    /// The trunk that he comes by otherwise.
    trunk: Option<&'a Trunk>,
}

/// A call that the dial plan has let through.
struct Outgoing<'a> {
    settings: &'a Settings,
    caller: &'a Caller<'a>,
    /// What the pattern does to the caller's number.
    calling: &'a CallingTransform,
    /// The number as the pattern has made it.
    number: &'a str,
    emergency: bool,
}

fn caller<'a>(settings: &'a Settings, from: &str) -> Option<Caller<'a>> {
    // A name goes before an extension, as when a request arrives.
    let named = settings.station.iter().find(|station| station.name == from);
    let station = named.or_else(|| settings.station.iter().find(|station| station.extension == from));
    let of_station = |s: &'a Station, who: String| Caller {
        what: format!("{who}station {:?} (extension {})", s.name, s.extension),
        css: s.calling_search_space.as_deref(),
        station: Some(s),
        trunk: None,
    };
    let by_user = || {
        let user = settings.user.iter().find(|user| user.name == from || user.extension == from)?;
        let station = settings.station.iter().find(|s| Some(&s.name) == user.default_station.as_ref())?;
        Some(of_station(station, format!("user {:?} at ", user.name)))
    };
    let by_trunk = || {
        let trunk = settings.trunk.iter().find(|trunk| trunk.name == from)?;
        let what = format!("a caller on trunk {:?}", trunk.name);
        Some(Caller { what, css: trunk.calling_search_space.as_deref(), station: None, trunk: Some(trunk) })
    };
    station.map(|s| of_station(s, String::new())).or_else(by_user).or_else(by_trunk)
}

fn unknown(settings: &Settings, from: &str, out: &mut dyn Write) -> io::Result<()> {
    let stations = settings.station.iter().map(|station| station.name.as_str());
    let users = settings.user.iter().map(|user| user.name.as_str());
    let trunks = settings.trunk.iter().map(|trunk| trunk.name.as_str());
    let names: Vec<&str> = stations.chain(users).chain(trunks).collect();
    writeln!(out, "no station, extension, user or trunk is called {from:?}")?;
    match names.is_empty() {
        true => writeln!(out, "the settings have none; name a file with --config"),
        false => writeln!(out, "there are: {}", names.join(", ")),
    }
}

/// What the target is, by the settings. True if somebody would be called.
fn describe(call: &Outgoing<'_>, target: &Target, text: &mut String) -> bool {
    let plan = &call.settings.dial_plan;
    match target {
        Target::Station(name) => station(call, name, None, text),
        Target::User(name) => user(call, name, text),
        Target::Trunk(name) => outside(call, &[("", name)], "  ", text),
        Target::RouteGroup(name) => {
            let Some(group) = plan.route_group.iter().find(|group| group.name == **name) else {
                return false;
            };
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "  route group {name}, {}:", order(group.selection));
            let members: Vec<(&str, &str)> = group.trunks.iter().map(|t| ("", t.as_str())).collect();
            outside(call, &members, "    ", text)
        }
        Target::RouteList(name) => {
            let list = plan.route_list.iter().find(|list| list.name == **name);
            list.is_some_and(|list| route_list(call, list, text))
        }
        Target::Service(name) => {
            if let Some(service) = call.settings.service.iter().find(|service| service.name == **name) {
                let _ = writeln!(text, "  service {name}: {:?}, answered by the engine itself", service.kind);
            }
            true
        }
        Target::Reject(status) => {
            let _ = writeln!(text, "  the call is refused with SIP {status}");
            false
        }
    }
}

fn user(call: &Outgoing<'_>, name: &str, text: &mut String) -> bool {
    let Some(user) = call.settings.user.iter().find(|user| user.name == name) else { return false };
    match &user.default_station {
        Some(default_station) => {
            let _ = writeln!(text, "  user {name}: at station {default_station}");
            station(call, default_station, Some(user.alert_timeout_s), text)
        }
        None => {
            let _ = writeln!(text, "  user {name}: has no default_station: 480");
            false
        }
    }
}

fn station(call: &Outgoing<'_>, name: &str, alert_timeout_s: Option<u32>, text: &mut String) -> bool {
    let Some(station) = call.settings.station.iter().find(|s| s.name == name) else { return false };
    let seconds = alert_timeout_s.unwrap_or(station.ring_timeout_s);
    let _ = writeln!(text, "  station {name}: rings {seconds} s where it is registered (`tandem stations`)");
    if let Some(address) = &station.connection_address {
        let user = address.user.clone().unwrap_or_else(|| wiring::number_of(station));
        match (&address.host, wiring::trunk_of_station(call.settings, station)) {
            (Some(host), _) => {
                let _ = writeln!(text, "  where it is not: sip:{user}@{host}");
            }
            (None, Some(by)) => {
                let _ = writeln!(text, "  where it is not: user {user} at");
                trunks(call, &[("", &by.name)], "    ", text);
            }
            (None, None) => {}
        }
    }
    shown(call, None, "  ", text);
    true
}

fn order(selection: Selection) -> &'static str {
    match selection {
        Selection::Priority => "the first that is up",
        Selection::RoundRobin => "each in turn",
    }
}

fn route_list(call: &Outgoing<'_>, list: &RouteList, text: &mut String) -> bool {
    let name = &list.name;
    if !list.enabled {
        let _ = writeln!(text, "  route list {name} is disabled: 503");
        return false;
    }
    let _ = writeln!(text, "  route list {name}, in this order:");
    let groups = &call.settings.dial_plan.route_group;
    let mut members = Vec::new();
    for group in list.groups.iter().filter_map(|name| groups.iter().find(|group| group.name == *name)) {
        let _ = writeln!(
            text,
            "    route group {}, {}: {}",
            group.name,
            order(group.selection),
            group.trunks.join(", ")
        );
        members.extend(group.trunks.iter().map(|trunk| (group.name.as_str(), trunk.as_str())));
    }
    outside(call, &members, "    ", text)
}

/// The trunks of a call to the outside, and whether it may go there.
fn outside(call: &Outgoing<'_>, members: &[(&str, &str)], indent: &str, text: &mut String) -> bool {
    let routed = trunks(call, members, indent, text);
    toll::may_leave(call, members, text) && routed
}

/// The trunks of a hunt (group, trunk) with what they are sent.
fn trunks(call: &Outgoing<'_>, members: &[(&str, &str)], indent: &str, text: &mut String) -> bool {
    let mut tried: Vec<&str> = Vec::new();
    for (group, name) in members {
        let Some(trunk) = call.settings.trunk.iter().find(|trunk| trunk.name == *name) else { continue };
        if tried.contains(name) {
            let _ = writeln!(text, "{indent}trunk {name} of {group} is not tried again");
            continue;
        }
        tried.push(name);
        let listener = call.settings.listener_of(trunk).map_or("none", |listen| listen.name.as_str());
        let proxies: Vec<String> = trunk.proxies.iter().map(ToString::to_string).collect();
        let to = match &trunk.domain {
            Some(domain) => format!("domain {domain}"),
            None => format!("{}, {}", proxies.join(", "), order(trunk.selection)),
        };
        let place = if members.len() > 1 { format!("{}. ", tried.len()) } else { String::new() };
        let limit =
            if trunk.max_calls > 0 { format!(", at most {} calls", trunk.max_calls) } else { String::new() };
        let _ = writeln!(text, "{indent}{place}trunk {name} by listener {listener}: {to}{limit}");
        shown(call, Some(trunk), &format!("{indent}  "), text);
    }
    !tried.is_empty()
}

/// What the far end sees of the caller's number, step by step, where anything changes it.
fn shown(call: &Outgoing<'_>, trunk: Option<&Trunk>, indent: &str, text: &mut String) {
    let own = call.caller.station.map(wiring::number_of);
    let mut number = own.clone().unwrap_or_else(|| "the caller's number".to_owned());
    let mut steps = Vec::new();
    if let (Some(station), Some(_)) = (call.caller.station, trunk) {
        match (wiring::outbound_ani(call.settings, station), &station.external_number_mask) {
            (Some(ani), _) => {
                number = ani.to_owned();
                steps.push("outbound_ani".to_owned());
            }
            (None, Some(mask)) => {
                number = mask.apply(&number);
                steps.push(format!("external_number_mask {mask}"));
            }
            (None, None) => {}
        }
    }
    if !call.calling.is_none() {
        let mask = call.calling.mask.as_ref().map(|mask| format!("calling_party_mask {mask} of the pattern"));
        let prefix = Some(&call.calling.prefix).filter(|prefix| !prefix.is_empty());
        steps.extend(mask.into_iter().chain(prefix.map(|prefix| format!("calling_party_prefix {prefix}"))));
        number = call.calling.apply(&number);
    }
    if let Some(mask) = trunk.and_then(|trunk| trunk.calling_party_mask.as_ref()) {
        number = mask.apply(&number);
        steps.push(format!("calling_party_mask {mask} of the trunk"));
    }
    match (own.is_some(), steps.is_empty()) {
        (_, true) => {}
        (true, false) => {
            let _ = writeln!(text, "{indent}the caller is shown as {number} ({})", steps.join(", "));
        }
        (false, false) => {
            let _ = writeln!(text, "{indent}the caller's number goes through {}", steps.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFICE: &str = r#"
        [[station]]
        name = "alice"
        extension = "1001"
        password = "secret-of-alice"
        calling_search_space = "office"
        [[station]]
        name = "bob"
        extension = "1002"
        password = "secret-of-bob"
        [[user]]
        name = "ann"
        extension = "2001"
        default_station = "bob"
        outbound_ani = "+15550100"
        alert_timeout_s = 25
        [[trunk]]
        name = "b"
        proxies = ["127.0.0.1:5072"]
        max_calls = 30
        calling_party_mask = "49895XXXX"
        [[trunk]]
        name = "a"
        proxies = ["127.0.0.1:5070", "127.0.0.1:5071"]
        [[dial_plan.partition]]
        name = "outside"
        [[dial_plan.calling_search_space]]
        name = "office"
        partitions = ["internal", "outside"]
        [[dial_plan.route_group]]
        name = "out"
        trunks = ["a"]
        [[dial_plan.pattern]]
        pattern = "9.X!"
        partition = "outside"
        target = "route_group:out"
        [[dial_plan.route_group]]
        name = "spare"
        trunks = ["b", "a"]
        [[dial_plan.route_list]]
        name = "all"
        groups = ["out", "spare"]
        [[dial_plan.route_list]]
        name = "off"
        groups = ["out"]
        enabled = false
        [[dial_plan.pattern]]
        pattern = "8.!#"
        target = "route_list:all"
        prefix = "00"
        calling_party_prefix = "9"
        emergency = true
        [[dial_plan.pattern]]
        pattern = "7!"
        target = "route_list:off"
        [[dial_plan.pattern]]
        pattern = "90"
        partition = "outside"
        target = "reject:403"
    "#;

    fn routed(from: &str, digits: &str) -> (bool, String) {
        let settings = Settings::load_from(Some(("office.toml", OFFICE)), []).unwrap().settings;
        let plan = crate::wiring::dial_plan(&settings).unwrap();
        let mut out = Vec::new();
        let routed = route(&settings, &plan, from, digits, &mut out).unwrap();
        (routed, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_call_out_names_the_proxies_it_would_try() {
        for from in ["alice", "1001"] {
            let (ok, text) = routed(from, "9555123");
            assert!(ok, "{text}");
            assert!(text.starts_with("station \"alice\" (extension 1001) dials 9555123\n"), "{text}");
            assert!(text.contains("goes to route_group:out as 555123\n"), "{text}");
            assert!(text.contains("\n  outside / 9.X! (1.1e63 strings): matches: chosen\n"), "{text}");
            assert!(text.contains("\n  without the first 1 (before the dot): 555123\n"), "{text}");
            let trunk = "    trunk a by listener udp: 127.0.0.1:5070, 127.0.0.1:5071, the first that is up\n";
            assert!(text.ends_with(trunk), "{text}");
        }
    }

    #[test]
    fn a_route_list_is_told_trunk_by_trunk_with_what_each_shows() {
        let (ok, text) = routed("ann", "8555#");
        assert!(ok, "{text}");
        let told = "goes to route_list:all as 00555, an emergency call\n  \
            route list all, in this order:\n    \
            route group out, the first that is up: a\n    \
            route group spare, the first that is up: b, a\n    \
            1. trunk a by listener udp: 127.0.0.1:5070, 127.0.0.1:5071, the first that is up\n      \
            the caller is shown as 915550100 (outbound_ani, calling_party_prefix 9)\n    \
            2. trunk b by listener udp: 127.0.0.1:5072, the first that is up, at most 30 calls\n      \
            the caller is shown as 498950100 (outbound_ani, calling_party_prefix 9, calling_party_mask 49895XXXX of the trunk)\n    \
            trunk a of spare is not tried again\n";
        assert!(text.ends_with(told), "{text}");
        assert!(text.starts_with("user \"ann\" at station \"bob\" (extension 1002) dials 8555#\n"), "{text}");
        let (ok, text) = routed("bob", "71");
        assert!(!ok && text.ends_with("  route list off is disabled: 503\n"), "{text}");
    }

    #[test]
    fn a_user_is_reached_at_the_default_station() {
        let (ok, text) = routed("alice", "2001");
        let told = "  user ann: at station bob\n  station bob: rings 25 s where it is registered (`tandem stations`)\n";
        assert!(ok && text.ends_with(told), "{text}");
    }

    #[test]
    fn who_may_not_dial_out_gets_no_route() {
        let (ok, text) = routed("bob", "9555123");
        assert!(!ok);
        assert!(text.ends_with("no pattern matches: 404\n"), "{text}");
        let (ok, text) = routed("a", "9555123");
        assert!(!ok);
        assert!(text.starts_with("a caller on trunk \"a\" dials"), "{text}");
    }

    #[test]
    fn extensions_and_services_are_routes_too() {
        let (ok, text) = routed("bob", "1001");
        assert!(
            ok && text.ends_with("  station alice: rings 60 s where it is registered (`tandem stations`)\n"),
            "{text}"
        );
        let (ok, text) = routed("bob", "*43");
        assert!(ok && text.contains("answered by the engine itself"), "{text}");
    }

    #[test]
    fn a_refusal_is_no_route() {
        let (ok, text) = routed("alice", "90");
        assert!(!ok && text.ends_with("  the call is refused with SIP 403\n"), "{text}");
    }

    #[test]
    fn a_caller_that_is_not_there_is_answered_with_those_that_are() {
        let (ok, text) = routed("carol", "1001");
        assert!(!ok);
        assert_eq!(
            text,
            "no station, extension, user or trunk is called \"carol\"\nthere are: alice, bob, ann, b, a\n"
        );
    }
}
