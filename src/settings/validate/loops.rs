//! The dial plan as a whole: whether it can be built, and whether a call goes round in it.

use std::net::{IpAddr, SocketAddr};

use tandem_protocol::dial_plan::{DialPlan, Loop, Return};

use super::{Findings, item};
use crate::settings::Settings;
use crate::settings::problem::KeyPath;
use crate::settings::types::Trunk;
use crate::settings::values::{HostPort, Target};
use crate::wiring;

pub(super) fn check(settings: &Settings, findings: &mut Findings<'_>) {
    if !findings.errors.is_empty() || findings.repairs.any() {
        // What follows from a fault that was told already would only confuse.
        return;
    }
    let root = KeyPath::root().key("dial_plan");
    // Without a way back there is no loop, and each extension for itself has been looked at.
    let returns_by_any = settings.trunk.iter().any(|trunk| leads_back(settings, trunk));
    let built = match returns_by_any {
        true => wiring::build_dial_plan(settings),
        false => DialPlan::new(wiring::own_patterns(settings)),
    };
    let plan = match built {
        Ok(plan) => plan,
        Err(errors) => {
            errors.iter().for_each(|error| findings.error(&root, error.to_string()));
            return;
        }
    };
    for (index, trunk) in settings.trunk.iter().enumerate() {
        if let Some(place) = trunk.proxies.iter().position(|_| leads_back(settings, trunk)) {
            let text = "is a listener of ours: calls by this trunk come back to us";
            findings.warn(&item("trunk", index).key("proxies").index(place), text);
        }
    }
    for found in plan.loops(&|target| returns(settings, target)) {
        let path = match settings.dial_plan.pattern.get(found.pattern) {
            Some(_) => root.key("pattern").index(found.pattern).key("target"),
            None => root.clone(),
        };
        findings.error(&path, explained(&found));
    }
}

fn explained(found: &Loop) -> String {
    let hops: Vec<String> = found
        .hops
        .iter()
        .take(4)
        .map(|(trunk, number)| format!("trunk {trunk:?} sends it as {number}"))
        .collect();
    format!(
        "leads round: {} is dialled, {}, and it is back; allowed: a plan in which no number comes back to a trunk \
         that leads to a listener of ours",
        found.dialled,
        hops.join(", ")
    )
}

/// The trunks of a target by which a call comes back to us, each with what it may dial then.
fn returns(settings: &Settings, target: &Target) -> Vec<Return> {
    trunks(settings, target)
        .into_iter()
        .filter_map(|name| settings.trunk.iter().find(|trunk| trunk.name == name))
        .filter(|trunk| leads_back(settings, trunk))
        .map(|trunk| Return { trunk: trunk.name.clone(), css: trunk.calling_search_space.clone() })
        .collect()
}

/// The trunks that a target may leave by.
fn trunks<'a>(settings: &'a Settings, target: &'a Target) -> Vec<&'a str> {
    let plan = &settings.dial_plan;
    let group = |name: &str| plan.route_group.iter().find(|g| g.name == name).into_iter();
    let in_group =
        |name: &str| group(name).flat_map(|g| g.trunks.iter().map(String::as_str)).collect::<Vec<_>>();
    match target {
        Target::Trunk(name) => vec![name],
        Target::RouteGroup(name) => in_group(name),
        Target::RouteList(name) => {
            let lists = plan.route_list.iter().filter(|list| list.name == **name && list.enabled);
            lists.flat_map(|list| list.groups.iter().flat_map(|g| in_group(g))).collect()
        }
        // A station that is reached by a trunk gets its own number there, not the one that was dialled.
        Target::Station(_) | Target::User(_) | Target::Service(_) | Target::Reject(_) => Vec::new(),
    }
}

/// Whether a proxy of the trunk is one of our own listeners.
fn leads_back(settings: &Settings, trunk: &Trunk) -> bool {
    let transport =
        trunk.transport.or_else(|| Some(settings.listener_of(trunk)?.transport)).unwrap_or_default();
    let port = |proxy: &HostPort| proxy.port.unwrap_or_else(|| transport.default_port());
    let addresses = trunk.proxies.iter().filter_map(|p| Some(SocketAddr::new(p.ip()?, port(p))));
    addresses.into_iter().any(|proxy| is_ours(settings, proxy))
}

fn is_ours(settings: &Settings, proxy: SocketAddr) -> bool {
    settings.listen.iter().any(|listen| {
        let own = listen.address.0;
        let same_host = own.ip() == proxy.ip() || (own.ip().is_unspecified() && is_loopback(proxy.ip()));
        let told = listen.external_address.as_ref();
        let told = told.and_then(|t| Some(SocketAddr::new(t.ip()?, t.port.unwrap_or(own.port()))));
        (own.port() != 0 && own.port() == proxy.port() && same_host) || told == Some(proxy)
    })
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
