//! INVITEs that are to take the place of a dialog (RFC 3891).

use metrics::Counter;

use super::{Describe, Registry};

const NAME: &str = "tandem_replaces_total";

/// What became of them.
pub struct ReplacesMetrics {
    /// The newcomer has the place.
    pub done: Counter,
    /// 481: no such dialog, or an early one that its peer began.
    pub no_dialog: Counter,
    /// 603: it has ended.
    pub ended: Counter,
    /// 486: it was confirmed already.
    pub not_early: Counter,
    /// 403: somebody else's.
    pub not_allowed: Counter,
    /// The remaining side, or what the newcomer offers, did not allow it; or a limit.
    pub refused: Counter,
    /// The newcomer has not waited.
    pub cancelled: Counter,
}

impl ReplacesMetrics {
    pub(super) fn new(registry: &Registry) -> ReplacesMetrics {
        let of = |result: &str| registry.counter(NAME, &[("result", result.to_owned())]);
        ReplacesMetrics {
            done: of("done"),
            no_dialog: of("no_dialog"),
            ended: of("ended"),
            not_early: of("not_early"),
            not_allowed: of("not_allowed"),
            refused: of("refused"),
            cancelled: of("cancelled"),
        }
    }
}

pub(super) fn describe(registry: &Registry) {
    let text = "INVITEs that were to take the place of a dialog (Replaces), by what became of them";
    registry.describe(Describe::Counter, NAME, None, text);
}
