//! Calls that leave by trunks: one, those of a route group, or those of the groups of a route list.

use std::sync::Arc;

use tandem_protocol::b2bua::{Cause, Destination, TrunkChoice, TrunkHunt};
use tandem_protocol::message::escape_user;
use tandem_protocol::number_rules::Party;
use tandem_protocol::proxy_list::{ProxyWalk, Selection};

use super::{Route, TRUNK_RING, Wanted};
use crate::calls::{rules, toll_fraud};
use crate::config::MediaPath;
use crate::directory::TrunkEntry;
use crate::env::Env;

pub(super) fn to_trunk(env: &Env, name: &str, wanted: Wanted<'_>) -> Route {
    match env.directory().trunk(name) {
        Some(trunk) => by(env, vec![trunk.clone()], wanted),
        None => Route::refused(404, Cause::NotFound, format!("{}, which does not exist", wanted.why)),
    }
}

pub(super) fn to_group(env: &Env, name: &str, wanted: Wanted<'_>) -> Route {
    by(env, group(env, name), wanted)
}

pub(super) fn to_list(env: &Env, name: &str, wanted: Wanted<'_>) -> Route {
    let Some(list) = env.config().route_lists.iter().find(|l| l.name == name) else {
        return Route::refused(404, Cause::NotFound, format!("{}, which does not exist", wanted.why));
    };
    if !list.enabled {
        return Route::refused(503, Cause::Failed, format!("{}, which is disabled", wanted.why));
    }
    by(env, list.groups.iter().flat_map(|name| group(env, name)).collect(), wanted)
}

/// The trunks of a group, in the order of this call.
fn group(env: &Env, name: &str) -> Vec<Arc<TrunkEntry>> {
    let Some(group) = env.config().route_groups.iter().find(|g| *g.name == *name) else { return Vec::new() };
    let trunks = group.trunks.iter().filter_map(|trunk| env.directory().trunk(trunk).cloned());
    let mut trunks: Vec<_> = trunks.collect();
    match group.selection {
        Selection::Priority => {}
        Selection::RoundRobin { .. } => {
            let first = env.directory().turn_of_group(name).checked_rem(trunks.len()).unwrap_or(0);
            trunks.rotate_left(first);
        }
    }
    trunks
}

/// By `trunks` in this order, but those whose best proxy is believed to be degraded or down after others: the belief may be old.
fn by(env: &Env, mut trunks: Vec<Arc<TrunkEntry>>, wanted: Wanted<'_>) -> Route {
    if trunks.len() > 1 {
        let mut seen = Vec::new();
        trunks.retain(|trunk| {
            let new = !seen.contains(&trunk.config.name);
            seen.push(trunk.config.name.clone());
            new
        });
        trunks.sort_by_key(|trunk| trunk.rank());
    }
    if trunks.is_empty() {
        return Route::refused(503, Cause::Failed, format!("{}, which has no trunk", wanted.why));
    }
    if wanted.secure {
        let by = |trunk: &TrunkEntry| env.config().transport(env.config().listener_id(trunk.config.listener));
        trunks.retain(|trunk| by(trunk).is_secure());
        if trunks.is_empty() {
            return Route::insecure(&wanted.why);
        }
    }
    let outside = match toll_fraud::outside(env, &trunks, &wanted) {
        Ok(outside) => outside,
        Err(barred) => return barred.into(),
    };
    if !wanted.emergency && trunks.iter().all(|trunk| trunk.is_full()) {
        // Refused before it costs a port; a place that is taken meanwhile is missed when the call gets there.
        return Route::refused(503, Cause::Limit, format!("{}, which has max_calls calls", wanted.why));
    }
    let number = |trunk: &TrunkEntry| match wanted.inside {
        true => wanted.number.to_owned(),
        false => rules::number_out(trunk, Party::Called, wanted.number.to_owned()),
    };
    let choices = trunks.iter().map(|trunk| TrunkChoice {
        trunk: trunk.config.name.to_string(),
        listener: env.config().listener_id(trunk.config.listener),
        user: escape_user(&number(trunk)).into_owned(),
        sips: wanted.secure,
        // An emergency call begins with what is surely there.
        walk: walk(env, trunk, !wanted.emergency),
        hosts: trunk.places().hosts(),
    });
    let destination =
        Destination::Trunk { hunt: TrunkHunt::new(choices.collect()), ring_timeout: TRUNK_RING };
    Route {
        signalling: trunks.iter().filter_map(|t| t.first_proxy()).map(|proxy| proxy.ip()).collect(),
        bypass: trunks.iter().all(|trunk| trunk.config.media == MediaPath::Bypass),
        record: trunks.iter().any(|trunk| trunk.config.record),
        trunks,
        outside,
        ..Route::to(destination, wanted.why, wanted.number)
    }
}

fn walk(env: &Env, trunk: &TrunkEntry, may_try: bool) -> ProxyWalk {
    let selection = match trunk.config.selection {
        Selection::Priority => Selection::Priority,
        Selection::RoundRobin { .. } => Selection::RoundRobin { offset: trunk.turn() },
    };
    let (health, selection) = trunk.order(may_try, selection, &mut || env.random());
    ProxyWalk::new(&health, selection, trunk.config.retryable.clone())
}
