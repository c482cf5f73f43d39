//! How the INVITEs of a call appear to those they go to: From, To, timers and credentials, for each trunk it may leave by.

use std::net::Ipv6Addr;
use std::sync::Arc;

use tandem_protocol::dial_plan::NumberMask;
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Message, escape_user};
use tandem_protocol::transaction::Timers;

use super::route::Route;
use super::{Caller, caller_number};
use crate::call::Outbound;
use crate::directory::TrunkEntry;
use crate::env::Env;

/// One for each trunk of the route in order; for a route without trunks a single one.
pub(super) fn outbound(
    env: &Env,
    invite: &Message,
    caller: &Caller,
    route: &Route,
    flow: Flow,
) -> Vec<Outbound> {
    let of = |trunk: Option<&Arc<TrunkEntry>>| one(env, invite, caller, route, flow, trunk);
    if route.trunks.is_empty() { vec![of(None)] } else { route.trunks.iter().map(|t| of(Some(t))).collect() }
}

fn one(
    env: &Env,
    invite: &Message,
    caller: &Caller,
    route: &Route,
    flow: Flow,
    trunk: Option<&Arc<TrunkEntry>>,
) -> Outbound {
    let config = env.config();
    let listener = trunk.map_or(flow.listener, |t| t.config.listener);
    let ours = config.listeners.get(usize::from(listener));
    let host = ours.map_or_else(String::new, |l| l.external.to_string());
    let display = invite.from().display.map(|d| format!("\"{d}\" ")).unwrap_or_default();
    let number = number(caller, invite, route, trunk);
    let domain = config.domains.first().map_or_else(|| host.clone(), |domain| uri_host(domain));
    let (from_host, to_host) = match trunk {
        Some(trunk) => (host, trunk.config.proxies.first().map_or_else(String::new, ToString::to_string)),
        None => (domain.clone(), domain),
    };
    let timers = trunk.map_or_else(|| ours.map_or_else(Timers::default, |l| l.timers), |t| t.config.timers);
    Outbound {
        trunk: trunk.map(|t| t.config.name.clone()),
        from: format!("{display}<sip:{}@{from_host}>", escape_user(&number)),
        to: format!("<sip:{}@{to_host}>", escape_user(&route.number)),
        max_forwards: invite.max_forwards().and_then(Result::ok).unwrap_or(70).saturating_sub(1),
        timers,
        credentials: trunk.and_then(|t| t.config.credentials.clone()),
    }
}

/// A domain as the host of a URI: an IPv6 address is written in brackets (RFC 3261 §25.1).
fn uri_host(domain: &str) -> String {
    if domain.parse::<Ipv6Addr>().is_ok() { format!("[{domain}]") } else { domain.to_owned() }
}

/// The caller's number as the far end sees it: a station's extension; on a trunk what its user or its external number mask makes of
/// that; then what the pattern says; last what the trunk says.
fn number(caller: &Caller, invite: &Message, route: &Route, trunk: Option<&Arc<TrunkEntry>>) -> String {
    let own = match caller {
        Caller::Station(station) => {
            let config = &station.config;
            let external = || match (&config.outbound_ani, &config.external_number_mask) {
                (Some(ani), _) => ani.clone(),
                (None, mask) => masked(mask.as_ref(), config.extension.clone()),
            };
            // A station that is reached by a trunk is one of ours all the same, and is shown the extension.
            if trunk.is_some() && !route.inside { external() } else { config.extension.clone() }
        }
        Caller::Trunk(_) => caller_number(invite),
    };
    let shown = route.calling.apply(&own);
    masked(trunk.filter(|_| !route.inside).and_then(|t| t.config.calling_party_mask.as_ref()), shown)
}

fn masked(mask: Option<&NumberMask>, number: String) -> String {
    mask.map(|mask| mask.apply(&number)).unwrap_or(number)
}
