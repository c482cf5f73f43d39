//! `[[registration_group]]`.

use tandem_actors::registration_group::MAX_REGISTRATIONS;

use super::trunk::check_credential;
use super::{Findings, Names, item};
use crate::settings::Settings;
use crate::settings::problem::KeyPath;
use crate::settings::types::{Registration, RegistrationGroup};
use crate::settings::values::is_host;

pub(super) fn check(settings: &Settings, names: &Names, findings: &mut Findings<'_>) {
    for (index, group) in settings.registration_group.iter().enumerate() {
        let path = item("registration_group", index);
        check_group(&path, group, names, findings);
        for (index, registration) in group.registrations.iter().enumerate() {
            let path = path.key("registrations").index(index);
            check_place(&path, registration, names, findings);
            check_keys(&path, registration, findings);
            check_account(&path, registration, settings, findings);
            check_listener(&path, registration, settings, findings);
            if registration.number.is_some() && registration.trunk.is_none() && group.trunk.is_none() {
                let text = "has no effect: calls to the account have no trunk; set `trunk` of the group";
                findings.warn(&path.key("number"), text);
            }
        }
    }
}

fn check_group(path: &KeyPath, group: &RegistrationGroup, names: &Names, findings: &mut Findings<'_>) {
    let registrations = path.key("registrations");
    let count = group.registrations.len();
    match count {
        0 => findings.error(&registrations, "found []; allowed: at least one registration"),
        1..=MAX_REGISTRATIONS => {
            findings.within(&path.key("active"), group.active, 1..=count as u64, "registrations");
        }
        _ => findings.unfit(&registrations, count, format!("at most {MAX_REGISTRATIONS} registrations")),
    }
    findings.refers_if_set(&path.key("trunk"), group.trunk.as_ref(), &names.trunk);
    findings.within(&path.key("return_after_s"), group.return_after_s, 0..=86_400, "seconds");
    findings.within(&path.key("retry_s"), group.retry_s, 1..=3_600, "seconds");
    let least = u64::from(group.retry_s).min(86_400);
    findings.within(
        &path.key("max_retry_s"),
        group.max_retry_s,
        least..=86_400,
        "seconds, not less than retry_s",
    );
}

fn check_place(path: &KeyPath, entry: &Registration, names: &Names, findings: &mut Findings<'_>) {
    let given: Vec<&str> = [
        ("trunk", entry.trunk.is_some()),
        ("address", entry.address.is_some()),
        ("proxy", entry.proxy.is_some()),
        ("domain", entry.domain.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, is_given)| is_given.then_some(key))
    .collect();
    if given.len() != 1 {
        let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
        findings
            .error(path, format!("found {found}; allowed: exactly one of trunk, address, proxy and domain"));
    }
    findings.refers_if_set(&path.key("trunk"), entry.trunk.as_ref(), &names.trunk);
    for (key, host) in [("domain", &entry.domain), ("account_domain", &entry.account_domain)] {
        if let Some(host) = host.as_ref().filter(|host| !is_host(host)) {
            findings.unfit(&path.key(key), host, "a host name without a port");
        }
    }
}

fn check_keys(path: &KeyPath, entry: &Registration, findings: &mut Findings<'_>) {
    if entry.trunk.is_some() && entry.transport.is_some() {
        findings
            .error(&path.key("transport"), "found with `trunk`; allowed: only without, the trunk says it");
    }
    if entry.alternate_address.is_some() && entry.proxy.is_none() {
        findings.error(&path.key("alternate_address"), "found without `proxy`; allowed: only with it");
    }
    if let Some(number) = entry.number.as_ref().filter(|number| !is_number(number)) {
        findings.unfit(&path.key("number"), number, "digits, * and #, after + or not");
    }
    findings.within(&path.key("expires_s"), entry.expires_s, 60..=604_800, "seconds");
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'*' | b'#'))
}

/// What is registered is a user.
fn check_account(path: &KeyPath, entry: &Registration, settings: &Settings, findings: &mut Findings<'_>) {
    let own = (entry.username.as_ref(), entry.password.is_some());
    check_credential(path, own.0, own.1, findings);
    let trunk = settings.trunk_of_registration(entry);
    let of_trunk = trunk.is_some_and(|trunk| trunk.username.is_some());
    // That its trunk does not exist is said elsewhere.
    let unknown = entry.trunk.is_some() && trunk.is_none();
    if own == (None, false) && !of_trunk && !unknown {
        let from = if entry.trunk.is_some() { "; the trunk has none either" } else { "" };
        findings.error(&path.key("username"), format!("is missing{from}; allowed: the user of the account"));
    }
}

fn check_listener(path: &KeyPath, entry: &Registration, settings: &Settings, findings: &mut Findings<'_>) {
    if entry.trunk.is_none() && settings.listener_of_registration(entry).is_none() {
        let transport = entry.transport.map_or("udp", |transport| transport.name());
        let allowed = "a transport that a listener of the server's address family carries";
        findings.unfit(&path.key("transport"), transport, allowed);
    }
}
