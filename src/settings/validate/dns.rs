//! `[dns]`.

use super::Findings;
use crate::settings::Settings;
use crate::settings::problem::KeyPath;

pub(super) fn check(settings: &Settings, findings: &mut Findings<'_>) {
    let path = KeyPath::root().key("dns");
    let dns = &settings.dns;
    for (index, server) in dns.servers.iter().enumerate() {
        let path = path.key("servers").index(index);
        if server.ip().is_none() {
            findings.unfit(
                &path,
                server.to_string(),
                "an IP address with or without a port, as \"192.0.2.53\"",
            );
        } else if dns.servers[..index].contains(server) {
            findings.unfit(&path, server.to_string(), "each server once");
        }
    }
    if dns.servers.len() > MOST {
        findings.error(
            &path.key("servers"),
            format!("found {}; allowed: {MOST} servers at most", dns.servers.len()),
        );
    }
    let mut within =
        |key: &'static str, value: u32, allowed, unit| findings.within(&path.key(key), value, allowed, unit);
    within("timeout_ms", dns.timeout_ms, 50..=30_000, "milliseconds");
    within("attempts", dns.attempts, 1..=10, "times each server is asked");
    within("min_ttl_s", dns.min_ttl_s, 1..=3600, "seconds");
    let lowest = u64::from(dns.min_ttl_s.clamp(1, 3600));
    within("max_ttl_s", dns.max_ttl_s, lowest..=604_800, "seconds, not less than min_ttl_s");
    within("max_negative_ttl_s", dns.max_negative_ttl_s, lowest..=10_800, "seconds, not less than min_ttl_s");
    within("max_stale_s", dns.max_stale_s, 0..=604_800, "seconds, 0 is never");
}

/// More than this are not asked.
const MOST: usize = 8;
