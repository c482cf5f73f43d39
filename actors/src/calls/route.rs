//! Where a dialled number leads: what the dial plan says, and what there is of it right now.

mod trunks;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tandem_protocol::b2bua::{Branch, Cause, Destination, Fork, LONGEST_RING, Target};
use tandem_protocol::dial_plan::{self, CallingTransform};
use tandem_protocol::dialog::Routing;
use tandem_protocol::flow::{Flow, Transport};
use tandem_protocol::message::escape_user;
use tandem_protocol::registrar::{Binding, target_set};

use super::Caller;
use super::secure::goes_secure;
use super::toll_fraud::Outside;
use crate::config::{ConnectedAt, Connection, MediaPath, ServiceKind};
use crate::directory::{Permit, StationEntry, TrunkEntry};
use crate::env::Env;

/// Where a dialled number leads, before media is decided.
pub(crate) struct Route {
    pub(crate) destination: Destination,
    /// The trunks it may leave by, in order.
    pub(super) trunks: Vec<Arc<TrunkEntry>>,
    /// The station it leads to.
    pub(super) station: Option<Arc<StationEntry>>,
    pub(crate) service: Option<ServiceKind>,
    /// False if either end wants its media through us.
    pub(super) bypass: bool,
    pub(super) record: bool,
    /// Where the callees' signalling may come from, the first to be called at the front.
    pub(crate) signalling: Vec<IpAddr>,
    pub(crate) permit: Option<Permit>,
    pub(crate) why: String,
    pub(super) number: String,
    /// What the pattern does to the caller's number.
    pub(super) calling: CallingTransform,
    /// Whether it leads to one of ours, though it may be by a trunk.
    pub(super) inside: bool,
    pub(crate) emergency: bool,
    /// It leads to the outside: whom it is counted for.
    pub(crate) outside: Option<Outside>,
    /// It must go by TLS, and no way by TLS leads there.
    pub(super) insecure: bool,
}

impl Route {
    pub(crate) fn to(destination: Destination, why: String, number: &str) -> Route {
        Route {
            destination,
            trunks: Vec::new(),
            station: None,
            service: None,
            bypass: true,
            record: false,
            signalling: Vec::new(),
            permit: None,
            why,
            number: number.to_owned(),
            calling: CallingTransform::default(),
            inside: false,
            emergency: false,
            outside: None,
            insecure: false,
        }
    }

    /// It must go by TLS, and there is no such way.
    fn insecure(why: &str) -> Route {
        let why = format!("{why}, where no way by TLS leads");
        Route { insecure: true, ..Route::refused(480, Cause::NotRegistered, why) }
    }

    pub(super) fn refused(status: u16, cause: Cause, why: String) -> Route {
        Route::to(Destination::Refused { status, cause }, why, "")
    }
}

/// What was asked for, and by which words of the dial plan.
pub(super) struct Wanted<'a> {
    pub(super) number: &'a str,
    /// Who dials it.
    pub(super) dialler: Option<&'a Caller>,
    pub(super) emergency: bool,
    /// Only by TLS.
    pub(super) secure: bool,
    pub(super) why: String,
    /// It leads to one of ours.
    pub(super) inside: bool,
}

/// Where a number leads for one who dials it; nobody may dial what the partition `internal` holds. `secure`: it was asked for by a `sips` URI.
pub(crate) fn route(env: &Env, dialler: Option<&Caller>, dialled: &str, secure: bool) -> Route {
    let css = dialler.and_then(Caller::calling_search_space);
    let plan = &env.config().dial_plan;
    let Some(found) = plan.lookup(css, dialled) else {
        let space = css.unwrap_or("internal");
        return Route::refused(404, Cause::NotFound, format!("no pattern of {space} matches {dialled}"));
    };
    let pattern = found.pattern;
    let mark = if pattern.emergency { ", an emergency call" } else { "" };
    let why = format!("{} in {} leads to {}{mark}", pattern.pattern, pattern.partition, pattern.target);
    let (number, emergency) = (&found.number_out, pattern.emergency);
    let wanted = Wanted { number, dialler, emergency, secure, why, inside: false };
    let route = match pattern.target {
        dial_plan::Target::Station(name) => to_station(env, name, None, wanted),
        dial_plan::Target::User(name) => to_user(env, name, wanted),
        dial_plan::Target::Trunk(name) => trunks::to_trunk(env, name, wanted),
        dial_plan::Target::RouteGroup(name) => trunks::to_group(env, name, wanted),
        dial_plan::Target::RouteList(name) => trunks::to_list(env, name, wanted),
        dial_plan::Target::Service(name) => to_service(env, name, wanted),
        dial_plan::Target::Reject(status) => Route::refused(*status, Cause::Rejected, wanted.why),
    };
    Route { calling: pattern.calling.clone(), emergency: pattern.emergency, ..route }
}

/// A person is reached at the station they are logged in at: for now that is always their default station.
fn to_user(env: &Env, name: &str, wanted: Wanted<'_>) -> Route {
    let Some(user) = env.config().users.iter().find(|u| u.name == name) else {
        return Route::refused(404, Cause::NotFound, format!("{}, which does not exist", wanted.why));
    };
    match &user.default_station {
        Some(station) => {
            let why = format!("{}, who is at station:{station}", wanted.why);
            to_station(env, station, Some(user.alert_timeout), Wanted { why, ..wanted })
        }
        None => Route::refused(480, Cause::NotRegistered, format!("{}, who has no station", wanted.why)),
    }
}

fn to_station(env: &Env, name: &str, ring_timeout: Option<Duration>, wanted: Wanted<'_>) -> Route {
    let Some(station) = env.directory().station(name) else {
        return Route::refused(404, Cause::NotFound, format!("{}, which does not exist", wanted.why));
    };
    let ring_timeout = ring_timeout.unwrap_or(station.config.rules.ring_timeout);
    let bindings = station.bindings();
    let mut groups = target_set(&bindings, env.now().wall);
    if wanted.secure && !groups.is_empty() {
        groups = only_secure(env, groups);
        if groups.is_empty() {
            return Route::insecure(&wanted.why);
        }
    }
    if !groups.is_empty() {
        let device = |flows: &Vec<&Binding>| Branch { flows: flows.iter().map(|b| contact(b)).collect() };
        let groups = groups.iter().map(|devices| devices.iter().map(device).collect()).collect();
        let contacts = Fork::new(groups, station.config.rules.fork_timeout);
        return ring(env, station, contacts, ring_timeout, wanted);
    }
    match station.config.connection.as_deref() {
        // An address is one of datagrams.
        Some(Connection { at: ConnectedAt::Address(_), .. }) if wanted.secure => Route::insecure(&wanted.why),
        Some(Connection { user, at: ConnectedAt::Address(at) }) => {
            let Some(target) = connected(env, user, *at) else {
                return Route::refused(
                    480,
                    Cause::NotRegistered,
                    format!("{}, which no listener reaches", wanted.why),
                );
            };
            let why = format!("{}, which is at {at}", wanted.why);
            ring(env, station, Fork::parallel(vec![target]), ring_timeout, Wanted { why, ..wanted })
        }
        Some(Connection { user, at: ConnectedAt::Trunk(trunk) }) => {
            let permit = match place(env, station, wanted.emergency) {
                Some(permit) => permit,
                None => return full(wanted.why),
            };
            let why = format!("{}, which is behind trunk:{trunk}", wanted.why);
            let by = trunks::to_trunk(env, trunk, Wanted { number: user, why, inside: true, ..wanted });
            let destination = match by.destination {
                Destination::Trunk { hunt, .. } => Destination::Trunk { hunt, ring_timeout },
                other => other,
            };
            let bypass = by.bypass && station.config.rules.media == MediaPath::Bypass;
            let record = by.record || station.config.rules.record;
            let station = Some(station.clone());
            Route { destination, station, permit: Some(permit), bypass, record, inside: true, ..by }
        }
        None => Route::refused(480, Cause::NotRegistered, format!("{}, which is not registered", wanted.why)),
    }
}

/// The flows among these that are by TLS.
fn only_secure<'a>(env: &Env, groups: Vec<Vec<Vec<&'a Binding>>>) -> Vec<Vec<Vec<&'a Binding>>> {
    let device = |mut flows: Vec<&'a Binding>| {
        flows.retain(|binding| goes_secure(env, binding));
        (!flows.is_empty()).then_some(flows)
    };
    let group =
        |devices: Vec<Vec<&'a Binding>>| -> Vec<_> { devices.into_iter().filter_map(device).collect() };
    groups.into_iter().map(group).filter(|devices| !devices.is_empty()).collect()
}

fn full(why: String) -> Route {
    Route::refused(486, Cause::Limit, format!("{why}, which has max_calls calls"))
}

fn place(env: &Env, station: &Arc<StationEntry>, emergency: bool) -> Option<Permit> {
    let seat = env.seat();
    if emergency { Some(station.emergency_permit(seat)) } else { station.permit(seat) }
}

fn ring(
    env: &Env,
    station: &Arc<StationEntry>,
    contacts: Fork,
    ring_timeout: Duration,
    wanted: Wanted<'_>,
) -> Route {
    let Some(permit) = place(env, station, wanted.emergency) else { return full(wanted.why) };
    let signalling = contacts.ways().map(|contact| contact.flow.remote.ip()).collect();
    Route {
        signalling,
        bypass: station.config.rules.media == MediaPath::Bypass,
        record: station.config.rules.record,
        permit: Some(permit),
        station: Some(station.clone()),
        inside: true,
        ..Route::to(Destination::Station { contacts, ring_timeout }, wanted.why, wanted.number)
    }
}

fn contact(binding: &Binding) -> Target {
    Target {
        request_uri: binding.contact.clone(),
        flow: binding.source,
        route: binding.path.clone(),
        routing: Routing::Flow,
        trunk: None,
    }
}

/// A station at an address of its own, by the first listener of that address's family.
fn connected(env: &Env, user: &str, at: std::net::SocketAddr) -> Option<Target> {
    let listeners = &env.config().listeners;
    // An address is one of datagrams: a stream's ports say nothing.
    let fits =
        |l: &&crate::config::Listener| l.address.is_ipv4() == at.is_ipv4() && l.transport == Transport::Udp;
    let listener = listeners.iter().find(fits)?.id;
    Some(Target {
        request_uri: format!("sip:{}@{at}", escape_user(user)),
        flow: Flow::to(listener, at),
        route: Vec::new(),
        routing: Routing::Target,
        trunk: None,
    })
}

fn to_service(env: &Env, name: &str, wanted: Wanted<'_>) -> Route {
    let Some(service) = env.config().services.iter().find(|s| s.name == name) else {
        return Route::refused(404, Cause::NotFound, format!("{}, which does not exist", wanted.why));
    };
    Route { service: Some(service.kind), bypass: false, ..Route::to(Destination::Service, wanted.why, name) }
}

/// How long a call by a trunk may take until somebody answers.
const TRUNK_RING: Duration = LONGEST_RING;
