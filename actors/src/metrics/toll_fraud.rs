//! What limits and rules against toll fraud refuse, and what they find suspicious.

use metrics::{Counter, Gauge};
use tandem_protocol::toll_fraud::Measure;

use super::{Describe, Registry};

/// Why a station's call, or one it forwards, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TollRefusal {
    /// It has as many calls as it may.
    MaxCalls,
    /// It has begun as many within a minute as it may.
    NewCalls,
    /// An international number, for one who may not dial any; a trunk's call too.
    International,
    /// It has suddenly had too many.
    Alarm,
}

impl TollRefusal {
    const ALL: [TollRefusal; 4] =
        [TollRefusal::MaxCalls, TollRefusal::NewCalls, TollRefusal::International, TollRefusal::Alarm];

    fn as_str(self) -> &'static str {
        match self {
            TollRefusal::MaxCalls => "max_calls",
            TollRefusal::NewCalls => "new_calls",
            TollRefusal::International => "international",
            TollRefusal::Alarm => "alarm",
        }
    }
}

/// What alarms of one kind of owner count.
struct Alarms {
    active: Gauge,
    begun: [Counter; Measure::ALL.len()],
}

/// What limits and rules against toll fraud count.
pub struct TollMetrics {
    refused: [Counter; TollRefusal::ALL.len()],
    stations: Alarms,
    trunks: Alarms,
}

impl TollMetrics {
    /// Every handle; they exist from now on.
    pub fn new(registry: &Registry) -> TollMetrics {
        use Describe::{Counter, Gauge};
        registry.describe(
            Counter,
            "tandem_toll_refused_total",
            None,
            "Calls that a station, or for `international` a trunk, may not make or forward, by reason",
        );
        registry.describe(
            Gauge,
            "tandem_toll_alarms_active",
            None,
            "Measures by which stations, or trunks, suddenly have too many calls to the outside",
        );
        registry.describe(Counter, "tandem_toll_alarms_total", None, "How often that has begun, by measure");
        let alarms = |who: &str| {
            let begun = |measure: Measure| {
                let labels = [("who", who.to_owned()), ("measure", measure.as_str().to_owned())];
                registry.counter("tandem_toll_alarms_total", &labels)
            };
            Alarms {
                active: registry.gauge("tandem_toll_alarms_active", &[("who", who.to_owned())]),
                begun: Measure::ALL.map(begun),
            }
        };
        let refused = |why: TollRefusal| {
            registry.counter("tandem_toll_refused_total", &[("reason", why.as_str().to_owned())])
        };
        TollMetrics {
            refused: TollRefusal::ALL.map(refused),
            stations: alarms("station"),
            trunks: alarms("trunk"),
        }
    }

    /// Counts a refused call.
    pub fn refuse(&self, why: TollRefusal) {
        self.refused[why as usize].increment(1);
    }

    fn of(&self, of_a_trunk: bool) -> &Alarms {
        if of_a_trunk { &self.trunks } else { &self.stations }
    }

    /// There is suddenly too much.
    pub fn raised(&self, of_a_trunk: bool, measure: Measure) {
        let alarms = self.of(of_a_trunk);
        alarms.active.increment(1.0);
        alarms.begun[measure as usize].increment(1);
    }

    /// There no longer is.
    pub fn ended(&self, of_a_trunk: bool) {
        self.of(of_a_trunk).active.decrement(1.0);
    }
}
