//! `[registrar]`.

use super::Findings;
use crate::settings::Settings;
use crate::settings::problem::KeyPath;

pub(super) fn check(settings: &Settings, findings: &mut Findings<'_>) {
    let path = KeyPath::root().key("registrar");
    let registrar = &settings.registrar;
    let (min, max) = (registrar.min_expires_s, registrar.max_expires_s);
    findings.within(&path.key("min_expires_s"), min, 1..=3_600, "seconds");
    // RFC 3261 §10.3: less than an hour must not be refused as too brief by less than what we grant.
    findings.within(
        &path.key("max_expires_s"),
        max,
        u64::from(min.max(60))..=604_800,
        "seconds, min_expires_s at least",
    );
    if (min..=max).contains(&registrar.default_expires_s) || min > max {
        return;
    }
    let allowed = format!("{min} to {max} (seconds, min_expires_s to max_expires_s)");
    findings.unfit(&path.key("default_expires_s"), registrar.default_expires_s, allowed);
}
