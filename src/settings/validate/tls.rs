//! The certificates of `[[listen]]`, and the names of `trunk.certificate_names`: what peers would refuse is better known before.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::Timestamp;
use tandem_actors::sip::tls::{Facts, Tls};

use super::{Findings, item};
use crate::settings::Settings;
use crate::settings::problem::KeyPath;
use crate::settings::types::{Listen, Trunk};
use crate::settings::values::is_host;

/// A certificate that ends within so many seconds wants to be renewed: two weeks.
const SOON_S: i64 = 14 * 86_400;

pub(super) fn check(settings: &Settings, findings: &mut Findings<'_>) {
    for (index, listen) in settings.listen.iter().enumerate() {
        check_listen(&item("listen", index), listen, settings, findings);
    }
    for (index, trunk) in settings.trunk.iter().enumerate() {
        check_trunk(&item("trunk", index), trunk, settings, findings);
    }
}

fn check_listen(path: &KeyPath, listen: &Listen, settings: &Settings, findings: &mut Findings<'_>) {
    let Some(files) = listen.tls_files() else {
        if !listen.transport.is_secure() {
            say_useless(path, listen, findings);
        }
        return;
    };
    let file = files.certificate.display().to_string();
    check_secrecy(path, &files.private_key, findings);
    match Tls::load(files) {
        Ok(tls) => {
            let path = path.key("certificate");
            check_validity(&path, &file, &tls.facts(), findings);
            check_names(&path, &file, &tls.facts(), listen, settings, findings);
        }
        Err(error) => findings.error(&path.key(error.key()), error.to_string()),
    }
}

/// Whoever can read the key can be us.
fn check_secrecy(path: &KeyPath, key: &Path, findings: &mut Findings<'_>) {
    let anybody = std::fs::metadata(key).is_ok_and(|file| file.permissions().mode() & 0o004 != 0);
    if anybody {
        findings.warn(
            &path.key("private_key"),
            format!("{}: everybody on this machine can read it", key.display()),
        );
    }
}

/// What is meant for TLS does nothing elsewhere, which somebody may not have meant.
fn say_useless(path: &KeyPath, listen: &Listen, findings: &mut Findings<'_>) {
    let set = [
        ("certificate", listen.certificate.is_some()),
        ("private_key", listen.private_key.is_some()),
        ("client_ca", listen.client_ca.is_some()),
        ("server_ca", listen.server_ca.is_some()),
    ];
    for (key, _) in set.iter().filter(|(_, is_set)| *is_set) {
        findings.warn(&path.key(key), format!("has no effect on a {} listener", listen.transport));
    }
}

fn check_validity(path: &KeyPath, file: &str, facts: &Facts, findings: &mut Findings<'_>) {
    let now = Timestamp::now().as_second();
    let second = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    let said = |at: i64| Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string());
    let (from, to) = (second(facts.not_before_s), second(facts.not_after_s));
    if to <= now {
        findings.fault(path, format!("{file}: has expired on {}; every peer refuses it", said(to)));
    } else if from > now {
        findings.fault(
            path,
            format!("{file}: is good only from {}; until then every peer refuses it", said(from)),
        );
    } else if to - now < SOON_S {
        findings.warn(path, format!("{file}: expires on {}", said(to)));
    }
}

/// Peers look for the name that they have asked for.
fn check_names(
    path: &KeyPath,
    file: &str,
    facts: &Facts,
    listen: &Listen,
    settings: &Settings,
    findings: &mut Findings<'_>,
) {
    let external = listen.external_address.as_ref().map(|address| address.host.clone());
    let own = listen.address.0.ip();
    let own = (!own.is_unspecified()).then(|| own.to_string());
    let ours: Vec<String> = settings.node.domains.iter().cloned().chain(external).chain(own).collect();
    if !ours.is_empty() && !ours.iter().any(|name| facts.names.include(name)) {
        let text = format!(
            "{file}: is for {}, and for none of {}: a peer that asks for one of these refuses it",
            facts.names,
            ours.join(", ")
        );
        findings.warn(path, text);
    }
}

fn check_trunk(path: &KeyPath, trunk: &Trunk, settings: &Settings, findings: &mut Findings<'_>) {
    let path = path.key("certificate_names");
    for (index, name) in trunk.certificate_names.iter().enumerate() {
        if !is_host(name) {
            findings.unfit(&path.index(index), name, "a host name or IP address without a port or wildcard");
        }
    }
    let secure = settings.listener_of(trunk).is_some_and(|listen| listen.transport.is_secure());
    if !trunk.certificate_names.is_empty() && !secure {
        findings.warn(&path, "has no effect on a trunk that is not over TLS");
    }
}
