//! `[[station]]`, `[[user]]` and `[[service]]`.

use tandem_protocol::dial_plan::is_dialable;

use super::{Findings, Names, item};
use crate::settings::Settings;
use crate::settings::problem::KeyPath;
use crate::settings::types::{Credential, Station};
use crate::settings::values::{ConnectionAddress, DigestAlgorithm, Secret};

pub(super) fn check(settings: &Settings, names: &Names, findings: &mut Findings<'_>) {
    for (index, station) in settings.station.iter().enumerate() {
        let path = item("station", index);
        check_references(&path, station, names, findings);
        check_credential(&path, station, findings);
        check_algorithm(&path, station, &settings.node.digest_algorithms, findings);
        check_bounds(&path, station, findings);
        check_connection(&path, station, settings, findings);
    }
    for (index, user) in settings.user.iter().enumerate() {
        let path = item("user", index);
        let station = user.default_station.as_ref();
        findings.refers_if_set(&path.key("default_station"), station, &names.station);
        findings.within(&path.key("alert_timeout_s"), user.alert_timeout_s, 1..=3600, "seconds");
        if let Some(ani) = &user.outbound_ani
            && !is_dialable(ani)
        {
            findings.unfit(&path.key("outbound_ani"), ani, "digits, * and #, with or without + before them");
        }
    }
}

fn check_references(path: &KeyPath, station: &Station, names: &Names, findings: &mut Findings<'_>) {
    let search_space = station.calling_search_space.as_ref();
    findings.refers(&path.key("partition"), &station.partition, &names.partition);
    findings.refers_if_set(&path.key("calling_search_space"), search_space, &names.search_space);
    findings.refers_if_set(&path.key("location"), station.location.as_ref(), &names.location);
    findings.refers_if_set(&path.key("trunk"), station.trunk.as_ref(), &names.trunk);
}

fn check_connection(path: &KeyPath, station: &Station, settings: &Settings, findings: &mut Findings<'_>) {
    let address = path.key("connection_address");
    match (&station.connection_address, &station.trunk) {
        (Some(ConnectionAddress { host: None, .. }), None) if settings.trunk.len() != 1 => {
            let count = settings.trunk.len();
            findings.error(
                &address,
                format!("found a user alone, no `trunk` and {count} trunks; allowed: a host too, or `trunk`"),
            );
        }
        (Some(ConnectionAddress { host: None, .. }), _) | (None, None) => {}
        (Some(ConnectionAddress { host: Some(host), .. }), trunk) => {
            if trunk.is_some() {
                findings.error(
                    &path.key("trunk"),
                    "found with a host in connection_address; allowed: only with a user alone",
                );
            }
            if host.ip().is_none() {
                findings.warn(&address, "a host name is not looked up yet: the station is not reached there");
            }
        }
        (None, Some(_)) => findings.error(
            &path.key("trunk"),
            "found without connection_address; allowed: only with a user alone there",
        ),
    }
}

fn check_credential(path: &KeyPath, station: &Station, findings: &mut Findings<'_>) {
    let given: Vec<(&str, &Secret)> = [
        ("password", station.password.as_ref()),
        ("ha1_md5", station.ha1_md5.as_ref()),
        ("ha1_sha256", station.ha1_sha256.as_ref()),
    ]
    .into_iter()
    .filter_map(|(key, secret)| secret.map(|secret| (key, secret)))
    .collect();
    let keys: Vec<&str> = given.iter().map(|(key, _)| *key).collect();
    match given[..] {
        [] if station.connection_address.is_none() => {
            let text = "has no password, ha1_md5, ha1_sha256 or connection_address: \
                        it can neither register nor be reached";
            findings.warn(path, text);
        }
        [] | [_] => {}
        [_, ..] => {
            let text = format!(
                "found {}; allowed: exactly one of password, ha1_md5 and ha1_sha256",
                keys.join(" and ")
            );
            findings.error(path, text);
        }
    }
    for (key, secret) in given {
        let (fits, allowed) = match key {
            "ha1_md5" => (is_hex(secret.reveal(), 32), "32 hexadecimal digits"),
            "ha1_sha256" => (is_hex(secret.reveal(), 64), "64 hexadecimal digits"),
            _ => (!secret.reveal().is_empty(), "a password that is not empty"),
        };
        if !fits {
            findings.error(&path.key(key), format!("found a value that is not shown; allowed: {allowed}"));
        }
    }
}

/// Everybody is challenged alike, so what is stored of a station must fit what is asked for.
fn check_algorithm(
    path: &KeyPath,
    station: &Station,
    challenged: &[DigestAlgorithm],
    findings: &mut Findings<'_>,
) {
    let (key, own, name) = match station.credential() {
        Some(Credential::Ha1Md5(ha1)) if is_hex(ha1.reveal(), 32) => ("ha1_md5", DigestAlgorithm::Md5, "MD5"),
        Some(Credential::Ha1Sha256(ha1)) if is_hex(ha1.reveal(), 64) => {
            ("ha1_sha256", DigestAlgorithm::Sha256, "SHA-256")
        }
        Some(Credential::Ha1Md5(_) | Credential::Ha1Sha256(_) | Credential::Password(_)) | None => return,
    };
    if !challenged.contains(&own) {
        let text =
            format!("it can never be verified; allowed: only if node.digest_algorithms holds \"{name}\"");
        findings.error(&path.key(key), text);
    } else if challenged.first() != Some(&own) {
        let text = format!(
            "only a phone that passes over what stands before \"{name}\" in node.digest_algorithms can register"
        );
        findings.warn(&path.key(key), text);
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn check_bounds(path: &KeyPath, station: &Station, findings: &mut Findings<'_>) {
    findings.within(&path.key("max_contacts"), station.max_contacts, 1..=100, "contacts");
    findings.within(&path.key("ring_timeout_s"), station.ring_timeout_s, 1..=3600, "seconds");
    let ring = u64::from(station.ring_timeout_s.max(1));
    findings.within(&path.key("fork_timeout_s"), station.fork_timeout_s, 0..=3600, "seconds");
    if u64::from(station.fork_timeout_s) >= ring && station.fork_timeout_s != 20 {
        findings.warn(
            &path.key("fork_timeout_s"),
            "is not below ring_timeout_s: contacts of a lower q ring only if others fail",
        );
    }
    let interval = station.qualify_interval_s;
    findings.within(&path.key("qualify_interval_s"), interval, 0..=86_400, "seconds, 0 is off");
}
