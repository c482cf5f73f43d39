//! Where a dialled number leads: what the dial plan says, and what there is of it right now.

use std::net::IpAddr;
use std::sync::Arc;

use tandem_protocol::b2bua::{Cause, Destination, Target};
use tandem_protocol::dial_plan;
use tandem_protocol::dialog::Routing;
use tandem_protocol::message::escape_user;
use tandem_protocol::proxy_list::{ProxyHealth, ProxyWalk, Selection};

use crate::config::{MediaPath, ServiceKind};
use crate::directory::{Permit, TrunkEntry};
use crate::env::Env;

/// Where a dialled number leads, before media is decided.
pub(super) struct Route {
    pub(super) destination: Destination,
    pub(super) trunk: Option<Arc<TrunkEntry>>,
    pub(super) service: Option<ServiceKind>,
    /// False if either end wants its media through us.
    pub(super) bypass: bool,
    pub(super) record: bool,
    /// Where the callee's signalling comes from.
    pub(super) signalling: Option<IpAddr>,
    pub(super) permit: Option<Permit>,
    pub(super) why: String,
    pub(super) number: String,
}

impl Route {
    fn refused(status: u16, cause: Cause, why: String) -> Route {
        Route {
            destination: Destination::Refused { status, cause },
            trunk: None,
            service: None,
            bypass: true,
            record: false,
            signalling: None,
            permit: None,
            why,
            number: String::new(),
        }
    }
}

pub(super) fn route(env: &Env, css: Option<&str>, dialled: &str) -> Route {
    let plan = &env.config().dial_plan;
    let Some(found) = plan.lookup(css, dialled) else {
        let space = css.unwrap_or("internal");
        return Route::refused(404, Cause::NotFound, format!("no pattern of {space} matches {dialled}"));
    };
    let why =
        format!("{} in {} leads to {}", found.pattern.pattern, found.pattern.partition, found.pattern.target);
    match &found.pattern.target {
        dial_plan::Target::Station(name) => to_station(env, name, &found.number_out, why),
        dial_plan::Target::Trunk(name) => to_trunk(env, name, &found.number_out, why),
        dial_plan::Target::Service(name) => to_service(env, name, why),
        dial_plan::Target::Reject(status) => Route::refused(*status, Cause::Rejected, why),
        dial_plan::Target::User(_) | dial_plan::Target::RouteGroup(_) | dial_plan::Target::RouteList(_) => {
            Route::refused(501, Cause::NotFound, format!("{why}, a kind that is not built yet"))
        }
    }
}

fn to_station(env: &Env, name: &str, number: &str, why: String) -> Route {
    let Some(station) = env.directory().station(name) else {
        return Route::refused(404, Cause::NotFound, format!("{why}, which does not exist"));
    };
    let now = env.now().wall;
    let bindings = station.bindings();
    let mut current: Vec<_> = bindings.iter().filter(|b| b.expires_at > now).collect();
    current.sort_by_key(|b| std::cmp::Reverse(b.q));
    if current.is_empty() {
        return Route::refused(480, Cause::NotRegistered, format!("{why}, which is not registered"));
    }
    let Some(permit) = station.permit() else {
        return Route::refused(486, Cause::Limit, format!("{why}, which has max_calls calls"));
    };
    let contacts: Vec<Target> = current
        .iter()
        .map(|b| Target {
            request_uri: b.contact.clone(),
            flow: b.source,
            route: b.path.clone(),
            routing: Routing::Flow,
        })
        .collect();
    Route {
        signalling: contacts.first().map(|c| c.flow.remote.ip()),
        destination: Destination::Station { contacts, ring_timeout: station.config.ring_timeout },
        trunk: None,
        service: None,
        bypass: station.config.media == MediaPath::Bypass,
        record: station.config.record,
        permit: Some(permit),
        why,
        number: number.to_owned(),
    }
}

fn to_trunk(env: &Env, name: &str, number: &str, why: String) -> Route {
    let Some(trunk) = env.directory().trunk(name) else {
        return Route::refused(404, Cause::NotFound, format!("{why}, which does not exist"));
    };
    let Some(permit) = trunk.permit() else {
        return Route::refused(503, Cause::Limit, format!("{why}, which has max_calls calls"));
    };
    let health: Vec<ProxyHealth> = trunk
        .config
        .proxies
        .iter()
        .zip(trunk.health())
        .map(|(proxy, up)| ProxyHealth { proxy: *proxy, up })
        .collect();
    let selection = match trunk.config.selection {
        Selection::Priority => Selection::Priority,
        Selection::RoundRobin { .. } => Selection::RoundRobin { offset: trunk.turn() },
    };
    let walk = ProxyWalk::new(&health, selection, trunk.config.retryable.clone());
    Route {
        signalling: trunk.config.proxies.first().map(|p| p.ip()),
        destination: Destination::Trunk {
            walk,
            listener: trunk.config.listener,
            user: escape_user(number).into_owned(),
        },
        service: None,
        bypass: trunk.config.media == MediaPath::Bypass,
        record: trunk.config.record,
        trunk: Some(trunk.clone()),
        permit: Some(permit),
        why,
        number: number.to_owned(),
    }
}

fn to_service(env: &Env, name: &str, why: String) -> Route {
    let Some(service) = env.config().services.iter().find(|s| s.name == name) else {
        return Route::refused(404, Cause::NotFound, format!("{why}, which does not exist"));
    };
    Route {
        destination: Destination::Service,
        trunk: None,
        service: Some(service.kind),
        bypass: false,
        record: false,
        signalling: None,
        permit: None,
        why,
        number: name.to_owned(),
    }
}
