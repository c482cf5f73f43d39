//! `[overload]`.

use super::Findings;
use crate::settings::Settings;
use crate::settings::problem::KeyPath;

pub(super) fn check(settings: &Settings, findings: &mut Findings<'_>) {
    let path = KeyPath::root().key("overload");
    let overload = &settings.overload;
    let delay = path.key("target_delay_ms");
    // Beyond T1 everybody sends again what only waits.
    findings.within(&delay, overload.target_delay_ms, 0..=400, "milliseconds, 0 refuses nothing");
    findings.within(&path.key("retry_after_s"), overload.retry_after_s, 1..=3600, "seconds");
}
