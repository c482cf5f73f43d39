//! From a new INVITE to a call: who calls, may he, where does it go, by which ports.

mod account;
pub(crate) mod check;
mod codecs;
mod identify;
mod outbound;
mod refused;
mod replaces;
mod route;
mod rules;
mod secure;
mod toll_fraud;
mod unmanaged;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tandem_protocol::b2bua::{Call, Destination, MediaPlan, Sdp};
use tandem_protocol::dialog::LocalSide;
use tandem_protocol::flow::{Flow, Transport};
use tandem_protocol::message::feedback::ASKING;
use tandem_protocol::message::{Header, Message, Uri};
use tandem_protocol::number_rules;
use tandem_protocol::sdp::negotiate::LocalMedia;
use tandem_protocol::time::{Instant, UnixMillis};

use crate::call::{Media, Outbound};
use crate::config::{Listener, MediaAddress, MediaPath, Redirect, Trunk, TrunkRules};
use crate::directory::{Permit, StationEntry, TrunkEntry};
use crate::env::Env;
use crate::media_pool::leases::Leases;
use crate::media_pool::order::Lease;
use crate::metrics::Refusal;

pub(crate) use account::LINE;
pub(crate) use codecs::codecs_of;
pub(crate) use outbound::{Party, elsewhere, outbound};
pub(crate) use route::{Route, route};
pub(crate) use rules::{Besides, besides_calls};

pub(crate) use identify::{Caller, credentials, identify, verify_presented};
pub(crate) use refused::Refused;
pub use replaces::Asks;
pub(crate) use replaces::{Towards, replaces, towards};
pub(crate) use secure::{is_sips, secure_side};
pub(crate) use toll_fraud::{Outside, forwards, outside_at};

/// A call within the engine; its printed form is the call id of log, events, CDR and API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallKey(pub u64);

/// What is known of a call from its INVITE on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) id: Arc<str>,
    pub(crate) key: CallKey,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) trunk: Option<String>,
    /// Why it goes where it goes.
    pub(crate) route: String,
    pub(crate) started_at: UnixMillis,
    #[serde(skip)]
    pub(crate) started_mono: Instant,
    pub(crate) answered_at: Option<UnixMillis>,
    pub(crate) unprotected: bool,
    /// An emergency call by the dial plan.
    pub(crate) emergency: bool,
}

/// An INVITE that becomes a call.
pub(crate) struct Admitted {
    pub(crate) info: Info,
    pub(crate) machine: Call,
    pub(crate) outbound: Vec<Outbound>,
    pub(crate) media: Media,
    pub(crate) permits: Vec<Permit>,
    /// How our side appears to the caller.
    pub(crate) towards: Towards,
}

/// How our side appears to a trunk: with its timers, with offers where it wants them, and asking for feedback if it is to.
pub(crate) fn as_trunk_wants(trunk: &Trunk, side: LocalSide) -> LocalSide {
    let TrunkRules { reinvite_delay, reinvite_delayed, overload_control, accept, .. } = trunk.rules;
    let via = if overload_control { side.via + ASKING } else { side.via };
    let replaces = accept.replaces;
    LocalSide { via, timers: trunk.timers, reinvite_delay, reinvite_delayed, replaces, ..side }
}

/// How our side appears on a listener.
pub(crate) fn local_side(listener: &Listener) -> LocalSide {
    let Listener { external, transport, timers, session, .. } = listener;
    let contact = match transport {
        // What a URI without the parameter means (RFC 3261 §19.1.2).
        Transport::Udp => format!("<sip:{external}>"),
        Transport::Tcp | Transport::Tls => format!("<sip:{external};transport={}>", transport.as_str()),
    };
    // By TLS whoever we connect to may use the connection too, for he knows our certificate (RFC 5923).
    let alias = if transport.is_secure() { ";alias" } else { "" };
    let via = format!("SIP/2.0/{} {external}{alias}", transport.via());
    LocalSide {
        via,
        contact,
        timers: *timers,
        session: *session,
        reinvite_delay: None,
        reinvite_delayed: false,
        // A station may replace a call of its own.
        replaces: true,
    }
}

/// Who is called.
#[derive(Clone, Default)]
pub(crate) enum Callee {
    /// Nobody who could say anything.
    #[default]
    Nobody,
    /// A station.
    Station(Arc<StationEntry>),
    /// A trunk.
    Trunk(Arc<TrunkEntry>),
}

impl Callee {
    /// What a redirection by it does.
    pub(crate) fn redirect(&self) -> Redirect {
        match self {
            Callee::Nobody => Redirect::Follow,
            Callee::Station(station) => station.config.rules.redirect,
            Callee::Trunk(trunk) => trunk.config.redirect,
        }
    }

    /// As one who dials.
    pub(crate) fn dialler(&self) -> Option<Caller> {
        match self {
            Callee::Nobody => None,
            Callee::Station(station) => Some(Caller::Station(station.clone())),
            Callee::Trunk(trunk) => Some(Caller::Trunk(trunk.clone())),
        }
    }

    /// The trunk it is.
    pub(crate) fn trunk(&self) -> Option<&Arc<TrunkEntry>> {
        match self {
            Callee::Trunk(trunk) => Some(trunk),
            Callee::Nobody | Callee::Station(_) => None,
        }
    }
}

impl std::fmt::Display for Callee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Callee::Nobody => f.write_str("nobody"),
            Callee::Station(station) => write!(f, "station:{}", station.config.name),
            Callee::Trunk(trunk) => write!(f, "trunk:{}", trunk.config.name),
        }
    }
}

/// Admits an INVITE of a known caller: routes it, takes permits and ports, builds its call.
pub(crate) fn admit(
    env: &Env,
    leases: &mut Leases,
    invite: &Message,
    flow: Flow,
    caller: &Caller,
) -> Result<Admitted, Refused> {
    let (bypass, record) = match caller {
        Caller::Station(station) => (station.config.rules.media, station.config.rules.record),
        Caller::Trunk(trunk) => (trunk.config.media, trunk.config.record),
    };
    let uri = Uri::parse(invite.request_uri()).map_err(|_| Refused::new(416, Refusal::Malformed))?;
    let asked = || uri.dialled().map_or_else(|| uri.host.to_owned(), |user| user.into_owned());
    let dialled = account::dialled(env, invite, flow, &uri).unwrap_or_else(asked);
    let dialled = rules::number_in(caller, number_rules::Party::Called, dialled);
    let mut route = route(env, Some(caller), &dialled, uri.is_sips());
    if route.insecure {
        return Err(secure::refused(&route.why));
    }
    if env.directory().draining() && !route.emergency {
        return Err(Refused::new(503, Refusal::Draining));
    }
    if matches!(route.destination, Destination::Trunk { .. })
        && route.number == dialled
        && check::has_been_here(env.config(), invite)
    {
        // What we would send is what we sent: it only goes round (RFC 3261 §16.3 step 4).
        return Err(Refused::new(482, Refusal::Loop));
    }
    let mut permits = Vec::with_capacity(2);
    match (caller.permit(route.emergency, env.seat(), env.now().mono), caller) {
        (Ok(place), _) => permits.push(place),
        (Err(why), Caller::Station(station)) => route = toll_fraud::no_place(env, station, why, &route),
        (Err(_), Caller::Trunk(_)) => return Err(Refused::new(503, Refusal::Limit)),
    }
    permits.extend(route.permit.take());
    let record = record || route.record;
    // Ends of different address families reach each other through us only (RFC 6157).
    let here = flow.remote.ip().to_canonical();
    let apart = route.signalling.iter().any(|there| there.to_canonical().is_ipv4() != here.is_ipv4());
    let anchored = record || apart || bypass == MediaPath::Anchored || !route.bypass;
    let (media, plan) = take_ports(env, leases, &route, flow, anchored, record)?;
    let offer = codecs::accepted(caller, invite.session_description().unwrap_or_default());
    let sdp = match offer.and_then(|offer| Sdp::new(offer, &plan, env.random() >> 1)) {
        Ok(sdp) => sdp,
        Err(refusal) => {
            leases.returned(env, media.into_unused());
            let warning = refusal.warning_value("tandem");
            let refused = Refused::new(refusal.status(), Refusal::Media);
            return Err(warning.into_iter().fold(refused, |r, w| r.with(Header::Warning, w)));
        }
    };
    let party = Arc::new(outbound::party(env, invite, caller, flow.listener));
    let outbound = outbound::outbound(env, &party, &route);
    let info = info(env, caller, &party, dialled, &route);
    let reliable = [Header::Supported, Header::Require].into_iter().any(|h| invite.has_token(h, "100rel"));
    let delayed = !route.trunks.is_empty() && route.trunks.iter().all(|trunk| trunk.config.media_delayed);
    let machine =
        Call::new(route.destination, plan, sdp).caller_takes_reliable(reliable).media_delayed(delayed);
    let machine = machine.with_codecs(caller.codecs().clone(), codecs_of(env, &outbound));
    let towards = towards(env, invite, flow, caller);
    Ok(Admitted { info, machine, outbound, media, permits, towards })
}

/// Refuses an INVITE whose session interval is too small (RFC 4028 §9).
pub(crate) fn interval(env: &Env, invite: &Message, flow: Flow) -> Result<(), Refused> {
    match env.local_side(flow.listener).session.refuses(invite) {
        Some(min_se) => {
            Err(Refused::new(422, Refusal::SessionInterval).with(Header::MinSe, min_se.to_string()))
        }
        None => Ok(()),
    }
}

/// The ports a call needs: none, one pair (a service) or two of one worker.
fn take_ports(
    env: &Env,
    leases: &mut Leases,
    route: &Route,
    flow: Flow,
    anchored: bool,
    record: bool,
) -> Result<(Media, MediaPlan), Refused> {
    let no_port = || Refused::new(503, Refusal::NoPort);
    let media = &env.config().media;
    let caller_ip = flow.remote.ip();
    let callee_ip = route.signalling.first().copied().unwrap_or(caller_ip);
    let (towards_caller, towards_callee) = (media.towards(caller_ip), media.towards(callee_ip));
    let local = |own: MediaAddress, lease: Lease| LocalMedia::from((own.told, lease.rtp.port()));
    match (&route.destination, route.service) {
        (Destination::Refused { .. }, _) => Ok((Media::none(), MediaPlan::Bypass)),
        (_, Some(kind)) => {
            let lease = leases.take_one(env, towards_caller.bound).ok_or_else(no_port)?;
            let plan = MediaPlan::Service { caller: local(towards_caller, lease) };
            Ok((Media::service((lease, caller_ip), kind), plan))
        }
        (_, None) if anchored => {
            let addresses = [towards_caller.bound, towards_callee.bound];
            // Nobody knows yet where a hunt or a redirection ends.
            let elsewhere = media.addresses().find(|own| *own != towards_callee);
            let (a, b, c) =
                leases.take_for_call(env, addresses, elsewhere.map(|own| own.bound)).ok_or_else(no_port)?;
            let (caller, callee) = (local(towards_caller, a), local(towards_callee, b));
            let other = elsewhere.zip(c).map(|(own, lease)| local(own, lease));
            let plan = MediaPlan::Anchored { caller, callee, other };
            Ok((Media::relay((a, caller_ip), (b, callee_ip), c, record), plan))
        }
        (_, None) => Ok((Media::none(), MediaPlan::Bypass)),
    }
}

fn info(env: &Env, caller: &Caller, party: &Party, dialled: String, route: &Route) -> Info {
    let key = CallKey(env.random() >> 1);
    let from = match caller {
        Caller::Station(station) => station.config.name.to_string(),
        Caller::Trunk(_) => party.number().to_owned(),
    };
    let now = env.now();
    Info {
        id: env.shared().names.call_id(env.shard(), key.0),
        key,
        from,
        to: dialled,
        trunk: route.trunks.first().map(|t| t.config.name.to_string()),
        route: route.why.clone(),
        started_at: now.wall,
        started_mono: now.mono,
        answered_at: None,
        unprotected: false,
        emergency: route.emergency,
    }
}

fn caller_number(invite: &Message) -> String {
    let user = invite.from().parsed_uri().ok().and_then(|uri| uri.dialled().map(|u| u.into_owned()));
    user.unwrap_or_else(|| "anonymous".to_owned())
}
