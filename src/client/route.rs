//! `tandem route --from A DIGITS`: where dialled digits lead, by the settings alone.

use std::fmt::Write as _;
use std::io::{self, Write};

use tandem_protocol::dial_plan::{DialPlan, Target};

use super::ClientError;
use crate::settings::{RouteGroup, Selection, Settings, Trunk};

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
    let Some(target) = decision.target else { return Ok(false) };
    out.write_all(describe(settings, target).as_bytes())?;
    Ok(!matches!(target, Target::Reject(_)))
}

struct Caller<'a> {
    what: String,
    css: Option<&'a str>,
}

fn caller<'a>(settings: &'a Settings, from: &str) -> Option<Caller<'a>> {
    // A name goes before an extension, as when a request arrives.
    let named = settings.station.iter().find(|station| station.name == from);
    let station = named.or_else(|| settings.station.iter().find(|station| station.extension == from));
    let station = station.map(|s| Caller {
        what: format!("station {:?} (extension {})", s.name, s.extension),
        css: s.calling_search_space.as_deref(),
    });
    station.or_else(|| {
        let trunk = settings.trunk.iter().find(|trunk| trunk.name == from)?;
        let what = format!("a caller on trunk {:?}", trunk.name);
        Some(Caller { what, css: trunk.calling_search_space.as_deref() })
    })
}

fn unknown(settings: &Settings, from: &str, out: &mut dyn Write) -> io::Result<()> {
    let stations = settings.station.iter().map(|station| station.name.as_str());
    let names: Vec<&str> = stations.chain(settings.trunk.iter().map(|trunk| trunk.name.as_str())).collect();
    writeln!(out, "no station, extension or trunk is called {from:?}")?;
    match names.is_empty() {
        true => writeln!(out, "the settings have none; name a file with --config"),
        false => writeln!(out, "there are: {}", names.join(", ")),
    }
}

/// What the target is, by the settings.
fn describe(settings: &Settings, target: &Target) -> String {
    let mut text = String::new();
    match target {
        Target::Station(name) => {
            if let Some(s) = settings.station.iter().find(|s| s.name == *name) {
                // Writing to a String cannot fail, here and below.
                let _ = writeln!(
                    text,
                    "  station {name}: rings {} s where it is registered (`tandem stations`)",
                    s.ring_timeout_s
                );
            }
        }
        Target::User(name) => {
            let user = settings.user.iter().find(|user| user.name == *name);
            let station = user.and_then(|user| user.default_station.as_deref()).unwrap_or("none");
            let _ = writeln!(text, "  user {name}: default station {station}");
        }
        Target::Trunk(name) => trunk(settings, name, "  ", &mut text),
        Target::RouteGroup(name) => group(settings, name, "  ", &mut text),
        Target::RouteList(name) => {
            let list = settings.dial_plan.route_list.iter().find(|list| list.name == *name);
            let _ = writeln!(text, "  route list {name}, in this order:");
            for name in list.map(|list| list.groups.as_slice()).unwrap_or_default() {
                group(settings, name, "    ", &mut text);
            }
        }
        Target::Service(name) => {
            if let Some(service) = settings.service.iter().find(|service| service.name == *name) {
                let _ = writeln!(text, "  service {name}: {:?}, answered by the engine itself", service.kind);
            }
        }
        Target::Reject(status) => {
            let _ = writeln!(text, "  the call is refused with SIP {status}");
        }
    }
    text
}

fn order(selection: Selection) -> &'static str {
    match selection {
        Selection::Priority => "the first that is up",
        Selection::RoundRobin => "each in turn",
    }
}

fn group(settings: &Settings, name: &str, indent: &str, text: &mut String) {
    let group: Option<&RouteGroup> = settings.dial_plan.route_group.iter().find(|group| group.name == name);
    let Some(group) = group else { return };
    let _ = writeln!(text, "{indent}route group {name}, {}:", order(group.selection));
    for name in &group.trunks {
        trunk(settings, name, &format!("{indent}  "), text);
    }
}

fn trunk(settings: &Settings, name: &str, indent: &str, text: &mut String) {
    let found: Option<&Trunk> = settings.trunk.iter().find(|trunk| trunk.name == name);
    let Some(found) = found else { return };
    let listener = settings.listener_of(found).map_or("none", |listen| listen.name.as_str());
    let proxies: Vec<String> = found.proxies.iter().map(ToString::to_string).collect();
    let to = match &found.domain {
        Some(domain) => format!("domain {domain}"),
        None => format!("{}, {}", proxies.join(", "), order(found.selection)),
    };
    let _ = writeln!(text, "{indent}trunk {name} by listener {listener}: {to}");
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
            let trunk = "    trunk a by listener udp: 127.0.0.1:5070, 127.0.0.1:5071, the first that is up\n";
            assert!(text.ends_with(trunk), "{text}");
        }
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
        assert_eq!(text, "no station, extension or trunk is called \"carol\"\nthere are: alice, bob, a\n");
    }
}
