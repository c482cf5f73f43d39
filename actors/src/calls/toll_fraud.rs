//! What a call may cost, and whom: limits of stations, international numbers, and who has suddenly had too many calls.
//!
//! Whoever dials pays, and so does whoever forwards a call; emergency calls are free of all of this.

use std::fmt;
use std::sync::Arc;

use tandem_protocol::b2bua::Cause;
use tandem_protocol::number_rules::Party;

use super::identify::Caller;
use super::route::{Route, Wanted};
use super::rules;
use crate::directory::{NoPlace, StationEntry, TrunkEntry};
use crate::env::Env;
use crate::metrics::TollRefusal;

/// An outside call, as it is counted.
#[derive(Clone)]
pub(crate) struct Outside {
    /// Who has dialled it, or forwarded it there.
    pub(crate) payer: Option<Caller>,
    pub(crate) international: bool,
}

/// A call that whoever dials it may not make.
pub(crate) struct Barred {
    cause: Cause,
    why: String,
}

impl From<Barred> for Route {
    /// 403: nobody should try again (RFC 3261 §21.4.4).
    fn from(barred: Barred) -> Route {
        Route::refused(403, barred.cause, barred.why)
    }
}

impl Caller {
    /// Whose numbers it may dial.
    pub(crate) fn calling_search_space(&self) -> Option<&str> {
        match self {
            Caller::Station(station) => station.config.rules.calling_search_space.as_deref(),
            Caller::Trunk(trunk) => trunk.config.calling_search_space.as_deref(),
        }
    }

    fn may_dial_international(&self) -> bool {
        match self {
            Caller::Station(station) => station.config.rules.toll.international,
            Caller::Trunk(trunk) => trunk.config.rules.international,
        }
    }

    /// Whether it gets no more calls of this kind for now.
    fn is_blocked(&self, international: bool) -> bool {
        match self {
            Caller::Station(station) => station.is_sudden(international),
            // It stands for many, who are not to pay for one.
            Caller::Trunk(_) => false,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Station(station) => write!(f, "station:{}", station.config.name),
            Caller::Trunk(trunk) => write!(f, "trunk:{}", trunk.config.name),
        }
    }
}

/// What becomes of a call that would leave by one of `trunks`: `None` if nobody counts it.
pub(super) fn outside(
    env: &Env,
    trunks: &[Arc<TrunkEntry>],
    wanted: &Wanted<'_>,
) -> Result<Option<Outside>, Barred> {
    let config = &env.config().toll_fraud;
    if wanted.inside || wanted.emergency || config.is_off() {
        return Ok(None);
    }
    let international = prefix(env, trunks, wanted.number);
    if let Some(prefix) = &international
        && !wanted.dialler.is_some_and(Caller::may_dial_international)
    {
        env.metrics().toll.refuse(TollRefusal::International);
        let (why, number, who) = (&wanted.why, wanted.number, by(wanted.dialler));
        let why = format!(
            "{why}, where {number} is international (it begins with {prefix}), which {who} may not dial"
        );
        return Err(Barred { cause: Cause::International, why });
    }
    let international = international.is_some();
    if config.block && wanted.dialler.is_some_and(|dialler| dialler.is_blocked(international)) {
        env.metrics().toll.refuse(TollRefusal::Alarm);
        let (why, who) = (&wanted.why, by(wanted.dialler));
        let why = format!("{why}, but {who} has suddenly had too many such calls (toll_fraud.alarm_action)");
        return Err(Barred { cause: Cause::TollAlarm, why });
    }
    Ok(Some(Outside { payer: wanted.dialler.cloned(), international }))
}

/// The same for a call that a trunk sends on to an address by itself.
pub(crate) fn outside_at(
    env: &Env,
    trunk: &Arc<TrunkEntry>,
    number: &str,
    why: &str,
) -> Result<Option<Outside>, Barred> {
    let dialler = Caller::Trunk(trunk.clone());
    let (dialler, why) = (Some(&dialler), why.to_owned());
    let wanted = Wanted { number, dialler, emergency: false, secure: false, why, inside: false };
    outside(env, std::slice::from_ref(trunk), &wanted)
}

fn by(dialler: Option<&Caller>) -> String {
    dialler.map_or_else(|| "whoever forwards it".to_owned(), ToString::to_string)
}

/// By which prefix a number is international: as the dial plan has it, or as the rules of a trunk make it.
fn prefix(env: &Env, trunks: &[Arc<TrunkEntry>], number: &str) -> Option<String> {
    let numbers = &env.config().toll_fraud.international;
    if let Some(prefix) = numbers.prefix_of(number) {
        return Some(prefix.to_owned());
    }
    let ruled = trunks.iter().filter(|trunk| !trunk.config.rules.numbers.is_empty());
    ruled.into_iter().find_map(|trunk| {
        let number = rules::number_out(trunk, Party::Called, number.to_owned());
        numbers.prefix_of(&number).map(str::to_owned)
    })
}

/// Where the call of a station goes that has no place for it: nowhere.
pub(super) fn no_place(env: &Env, station: &StationEntry, why: NoPlace, route: &Route) -> Route {
    let (refusal, limit) = match why {
        NoPlace::Calls => {
            (TollRefusal::MaxCalls, format!("max_calls, {}, calls already", station.config.rules.max_calls))
        }
        NoPlace::Rate => {
            let most = station.config.rules.toll.max_new_calls_per_min;
            (TollRefusal::NewCalls, format!("begun max_new_calls_per_min, {most}, calls"))
        }
    };
    env.metrics().toll.refuse(refusal);
    let why = format!("{}; but the caller, station:{}, has {limit}", route.why, station.config.name);
    Route::refused(503, Cause::Limit, why)
}

/// A call that is forwarded to the outside is one more new call of the station that forwards it.
///
/// # Errors
/// It has begun as many as it may: why the call does not go there.
pub(crate) fn forwards(env: &Env, route: &Route) -> Result<(), String> {
    let Some(Caller::Station(station)) = route.outside.as_ref().and_then(|outside| outside.payer.as_ref())
    else {
        return Ok(());
    };
    let most = station.config.rules.toll.max_new_calls_per_min;
    if station.take_new_call(env.now().mono) {
        return Ok(());
    }
    env.metrics().toll.refuse(TollRefusal::NewCalls);
    Err(format!(
        "{}, but station:{} has begun max_new_calls_per_min, {most}, calls",
        route.why, station.config.name
    ))
}
