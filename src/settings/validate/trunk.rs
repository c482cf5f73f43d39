//! `[[trunk]]`.

use std::collections::BTreeMap;

use super::network::{check_codecs, check_timers};
use super::{Findings, Names, item, trunk_rules};
use crate::settings::problem::KeyPath;
use crate::settings::types::{Selection, Trunk};
use crate::settings::values::is_host;
use crate::settings::{Settings, unbuilt};

pub(super) fn check(settings: &Settings, names: &Names, findings: &mut Findings<'_>) {
    for (index, trunk) in settings.trunk.iter().enumerate() {
        let path = item("trunk", index);
        check_references(&path, trunk, names, findings);
        check_listener(&path, trunk, settings, findings);
        check_destination(&path, trunk, findings);
        check_families(&path, trunk, settings, findings);
        check_bounds(&path, trunk, findings);
        check_shares(&path, trunk, findings);
        trunk_rules::check(&path, trunk, findings);
        check_credential(&path, trunk.username.as_ref(), trunk.password.is_some(), findings);
        check_codecs(&path.key("codecs"), &trunk.codecs, findings);
    }
    check_origins(settings, findings);
}

fn check_references(path: &KeyPath, trunk: &Trunk, names: &Names, findings: &mut Findings<'_>) {
    let search_space = trunk.calling_search_space.as_ref();
    findings.refers_if_set(&path.key("calling_search_space"), search_space, &names.search_space);
    findings.refers_if_set(&path.key("location"), trunk.location.as_ref(), &names.location);
    findings.refers_if_set(&path.key("listen"), trunk.listen.as_ref(), &names.listen);
}

fn check_listener(path: &KeyPath, trunk: &Trunk, settings: &Settings, findings: &mut Findings<'_>) {
    let Some(transport) = trunk.transport else { return };
    match (&trunk.listen, settings.listener_of(trunk)) {
        (Some(_), Some(listen)) if listen.transport != transport => {
            let allowed = format!("{:?}, as its listener {:?}", listen.transport.name(), listen.name);
            findings.unfit(&path.key("transport"), transport.name(), allowed);
        }
        // One that is not built cannot be listened on; that it has no effect is said elsewhere.
        (None, None) if unbuilt::TRANSPORTS.contains(&transport) => {
            findings.unfit(&path.key("transport"), transport.name(), "a transport that a listener carries");
        }
        (Some(_) | None, Some(_) | None) => {}
    }
}

fn check_destination(path: &KeyPath, trunk: &Trunk, findings: &mut Findings<'_>) {
    match (&trunk.domain, trunk.proxies.is_empty()) {
        (None, true) => findings.error(path, "found neither proxies nor domain; allowed: one of them"),
        (Some(_), false) => findings.error(path, "found proxies and domain; allowed: one of them"),
        (Some(domain), true) if !is_host(domain) => {
            findings.unfit(&path.key("domain"), domain, "a host name without a port");
        }
        (Some(_), true) | (None, false) => {}
    }
    for (index, proxy) in trunk.proxies.iter().enumerate() {
        if trunk.proxies[..index].contains(proxy) {
            findings.unfit(&path.key("proxies").index(index), proxy.to_string(), "each proxy once");
        }
    }
}

/// Weights are for proxies that share the calls; channels kept are some of those there are.
fn check_shares(path: &KeyPath, trunk: &Trunk, findings: &mut Findings<'_>) {
    let weights = path.key("weights");
    if trunk.weights.len() > trunk.proxies.len() {
        let allowed = format!("at most {}, one for each proxy", trunk.proxies.len());
        findings.unfit(&weights, trunk.weights.len().to_string(), allowed);
    }
    if !trunk.weights.is_empty() && trunk.selection == Selection::Priority {
        findings.warn(&weights, "has no effect with `selection` \"priority\", only with \"round_robin\"");
    }
    for (index, weight) in trunk.weights.iter().enumerate() {
        findings.within(&weights.index(index), u32::from(*weight), 1..=1_000, "shares");
    }
    let kept = trunk.emergency_channels;
    if kept > 0 && kept >= trunk.max_calls {
        let allowed = match trunk.max_calls {
            0 => "only with `max_calls`".to_owned(),
            most => format!("less than max_calls, {most}"),
        };
        findings.unfit(&path.key("emergency_channels"), kept.to_string(), allowed);
    }
}

/// An IPv6 socket of ours hears and reaches IPv6 only.
fn check_families(path: &KeyPath, trunk: &Trunk, settings: &Settings, findings: &mut Findings<'_>) {
    let Some(listen) = settings.listener_of(trunk) else { return };
    for (index, proxy) in trunk.proxies.iter().enumerate() {
        if proxy.ip().is_some_and(|ip| !listen.reaches(ip)) {
            let family = if listen.address.0.is_ipv4() { "IPv4" } else { "IPv6" };
            let allowed = format!("an {family} address, as that of its listener {:?}", listen.name);
            findings.unfit(&path.key("proxies").index(index), proxy.to_string(), allowed);
        }
    }
}

fn check_bounds(path: &KeyPath, trunk: &Trunk, findings: &mut Findings<'_>) {
    check_timers(path, trunk.t1_ms, trunk.t2_ms, findings);
    let mut within = |key: &'static str, value: Option<u32>, allowed, unit| {
        if let Some(value) = value {
            findings.within(&path.key(key), value, allowed, unit);
        }
    };
    within("connect_timeout_ms", trunk.connect_timeout_ms, 100..=60_000, "milliseconds");
    within("progress_timeout_ms", Some(trunk.progress_timeout_ms), 100..=300_000, "milliseconds");
    within("max_packet_retries", trunk.max_packet_retries, 0..=32, "retransmissions");
    within("max_invite_retries", trunk.max_invite_retries, 0..=32, "retransmissions");
    within("reinvite_delay_ms", trunk.reinvite_delay_ms, 0..=60_000, "milliseconds");
    within("qualify_interval_s", Some(trunk.qualify_interval_s), 0..=86_400, "seconds, 0 is off");
    within("max_new_calls_per_s", Some(trunk.max_new_calls_per_s), 0..=10_000, "calls, 0 is no limit");
    within("dscp", trunk.dscp.map(u32::from), 0..=63, "RFC 2474");
}

pub(super) fn check_credential(
    path: &KeyPath,
    username: Option<&String>,
    has_password: bool,
    findings: &mut Findings<'_>,
) {
    match (username, has_password) {
        (Some(_), false) => findings.error(&path.key("password"), "is missing; `username` needs it"),
        (None, true) => findings.error(&path.key("username"), "is missing; `password` needs it"),
        (Some(username), true) if username.is_empty() => {
            findings.unfit(&path.key("username"), username, "a name that is not empty");
        }
        (Some(_), true) | (None, false) => {}
    }
}

/// Two trunks with the same source cannot be told apart.
fn check_origins(settings: &Settings, findings: &mut Findings<'_>) {
    let mut known: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    for (trunk_index, trunk) in settings.trunk.iter().enumerate() {
        let path = item("trunk", trunk_index);
        let proxies = trunk.proxies.iter().map(ToString::to_string).map(|text| ("proxies", text));
        let sources = trunk.accept_from.iter().map(|source| {
            let port = source.port.map(|port| format!(":{port}")).unwrap_or_default();
            ("accept_from", format!("{}{port}", source.network))
        });
        let proxies = proxies.enumerate().collect::<Vec<_>>();
        for (index, (key, origin)) in proxies.into_iter().chain(sources.enumerate()) {
            match known.get(&origin) {
                Some((other, name)) if *other != trunk_index => {
                    let text =
                        format!("trunk {name:?} names {origin} too, and takes the requests from there");
                    findings.warn(&path.key(key).index(index), text);
                }
                Some(_) => {}
                None => {
                    known.insert(origin, (trunk_index, &trunk.name));
                }
            }
        }
    }
}
