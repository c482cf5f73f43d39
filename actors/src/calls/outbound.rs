//! How the INVITEs of a call appear to those they go to: From, To, identity, timers and credentials, for each trunk it may leave by.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tandem_protocol::dial_plan::NumberMask;
use tandem_protocol::diversion::History;
use tandem_protocol::flow::ListenerId;
use tandem_protocol::identity::{ANONYMOUS, Identity};
use tandem_protocol::message::{Header, Message, escape_user};
use tandem_protocol::number_rules::{self, Direction};
use tandem_protocol::transaction::Timers;

use super::route::Route;
use super::secure::is_sips;
use super::{Callee, Caller, caller_number, rules};
use crate::call::Outbound;
use crate::directory::TrunkEntry;
use crate::env::Env;

/// Who calls, for whomever he comes to be connected with.
#[derive(Clone)]
pub(crate) struct Party {
    caller: Caller,
    /// See [`Party::number`].
    number: String,
    /// The display name, escaped as it came.
    display: Option<String>,
    identity: Identity,
    /// By whom his call has been diverted.
    history: History,
    /// What he asked for, for rules that read it.
    invite: Message,
    /// His Max-Forwards, less one.
    max_forwards: u8,
    /// The listener his INVITE came to.
    listener: ListenerId,
    /// He has asked for a `sips` URI.
    pub(crate) secure: bool,
}

/// Who sent this INVITE: a station is what the settings say, whatever it says of itself; a trunk's caller is believed if the trunk is.
pub(super) fn party(env: &Env, invite: &Message, caller: &Caller, listener: ListenerId) -> Party {
    let display = invite.from().display.map(str::to_owned);
    let identity = match caller {
        Caller::Station(station) => {
            let domain = env.config().domains.first().map_or(&*env.config().node, String::as_str);
            let name = display.as_ref().map(|d| format!("\"{d}\" ")).unwrap_or_default();
            let number = escape_user(&station.config.extension);
            Identity::of_station(invite, format!("{name}<sip:{number}@{domain}>"))
        }
        Caller::Trunk(trunk) if trunk.config.trusted => Identity::of_trusted(invite),
        Caller::Trunk(_) => Identity::of_stranger(invite),
    };
    let believed = match caller {
        Caller::Station(_) => (false, false),
        Caller::Trunk(trunk) => (trunk.config.rules.diversion_in, trunk.config.rules.history_info_in),
    };
    Party {
        caller: caller.clone(),
        number: rules::number_in(caller, number_rules::Party::Calling, caller_number(invite)),
        history: History::of(invite, believed),
        invite: invite.clone(),
        display,
        identity,
        max_forwards: invite.max_forwards().and_then(Result::ok).unwrap_or(70).saturating_sub(1),
        listener,
        secure: is_sips(invite.request_uri()),
    }
}

impl Party {
    /// The number in his INVITE, as the rules of his trunk leave it.
    pub(super) fn number(&self) -> &str {
        &self.number
    }

    /// The same once `number` has diverted his call with this status.
    pub(crate) fn diverted(&self, number: &str, status: u16) -> Party {
        Party { history: self.history.diverted(number, status), ..self.clone() }
    }
}

/// One for each trunk of the route in order; for a route without trunks a single one.
pub(crate) fn outbound(env: &Env, party: &Arc<Party>, route: &Route) -> Vec<Outbound> {
    let of = |trunk: Option<&Arc<TrunkEntry>>| one(env, party, route, trunk);
    if route.trunks.is_empty() { vec![of(None)] } else { route.trunks.iter().map(|t| of(Some(t))).collect() }
}

/// To an address that `trunk` may redirect to: by its listener and with its timers, but neither its credentials nor its trust are
/// for whoever is there.
pub(crate) fn elsewhere(
    env: &Env,
    party: &Arc<Party>,
    route: &Route,
    trunk: &Arc<TrunkEntry>,
    address: SocketAddr,
) -> Outbound {
    Outbound {
        trunk: Some(trunk.config.name.clone()),
        to: format!("<sip:{}@{address}>", escape_user(&route.number)),
        timers: trunk.config.timers,
        progress: Some(trunk.config.progress_timeout),
        callee: Callee::Trunk(trunk.clone()),
        outside: route.outside.clone(),
        ..one(env, party, route, None)
    }
}

fn one(env: &Env, party: &Arc<Party>, route: &Route, trunk: Option<&Arc<TrunkEntry>>) -> Outbound {
    let config = env.config();
    let listener = trunk.map_or(party.listener, |t| config.listener_id(t.config.listener));
    let ours = config.listener(listener);
    let host = ours.map_or_else(String::new, |l| l.external.as_str().to_owned());
    let own_host = host.clone();
    let display = party.display.as_ref().map(|d| ["\"", d, "\" "].concat()).unwrap_or_default();
    let number = number(party, route, trunk);
    let (from_host, to_host) = match trunk {
        Some(trunk) => (host, trunk.places().domain().unwrap_or_default()),
        None => {
            let domain = config.domains.first().map_or(host, |domain| uri_host(domain));
            (domain.clone(), domain)
        }
    };
    let timers = trunk.map_or_else(|| ours.map_or_else(Timers::default, |l| l.timers), |t| t.config.timers);
    // Stations are outside the trust domain: what From says is all they learn.
    let presented = party.identity.towards(trunk.is_some_and(|t| t.config.trusted));
    let from = match presented.anonymous {
        true => ANONYMOUS.to_owned(),
        false => [&display, "<sip:", &escape_user(&number), "@", &from_host, ">"].concat(),
    };
    let called = trunk.filter(|_| !route.inside).map_or_else(
        || route.number.clone(),
        |trunk| rules::number_out(trunk, number_rules::Party::Called, route.number.clone()),
    );
    let to = ["<sip:", &escape_user(&called), "@", &to_host, ">"].concat();
    let headers = headers(party, trunk, presented.headers, (&own_host, &to));
    Outbound {
        trunk: trunk.map(|t| t.config.name.clone()),
        from,
        to,
        max_forwards: party.max_forwards,
        timers,
        progress: trunk.map(|t| t.config.progress_timeout),
        route: trunk.map(|t| env.directory().service_route(&t.config.name)).unwrap_or_default(),
        credentials: trunk.and_then(|t| t.config.credentials.clone()),
        headers,
        party: party.clone(),
        outside: trunk.and_then(|_| route.outside.clone()),
        callee: match (&route.station, trunk) {
            (Some(station), _) => Callee::Station(station.clone()),
            (None, Some(trunk)) => Callee::Trunk(trunk.clone()),
            (None, None) => Callee::Nobody,
        },
    }
}

/// Who the caller is said to be, by whom his call was diverted, and what the rules of both trunks write.
fn headers(
    party: &Party,
    trunk: Option<&Arc<TrunkEntry>>,
    presented: Vec<(Header, String)>,
    (host, to): (&str, &str),
) -> Vec<(String, String)> {
    let named = |header: Header, value: String| (header.name().to_owned(), value);
    let mut headers: Vec<(String, String)> =
        presented.into_iter().map(|(header, value)| named(header, value)).collect();
    if let Some(trunk) = trunk {
        let rules = &trunk.config.rules;
        if rules.diversion_out {
            headers.extend(party.history.diversions(host).into_iter().map(|v| named(Header::Diversion, v)));
        }
        if rules.history_info_out {
            let entries = party.history.entries(host, to).into_iter();
            headers.extend(entries.map(|value| named(Header::HistoryInfo, value)));
        }
    }
    if let Caller::Trunk(by) = &party.caller {
        rules::write_headers(by, Direction::In, &party.invite, &mut headers);
    }
    if let Some(trunk) = trunk {
        rules::write_headers(trunk, Direction::Out, &party.invite, &mut headers);
    }
    headers
}

/// A domain as the host of a URI: an IPv6 address is written in brackets (RFC 3261 §25.1).
fn uri_host(domain: &str) -> String {
    if domain.parse::<Ipv6Addr>().is_ok() { format!("[{domain}]") } else { domain.to_owned() }
}

/// The caller's number as the far end sees it: a station's extension; on a trunk what its user or its external number mask makes of
/// that; then what the pattern says; last what the trunk says.
fn number(party: &Party, route: &Route, trunk: Option<&Arc<TrunkEntry>>) -> String {
    let own = match &party.caller {
        Caller::Station(station) => {
            let config = &station.config;
            let external = || match (&config.rules.outbound_ani, &config.rules.external_number_mask) {
                (Some(ani), _) => ani.clone(),
                (None, mask) => masked(mask.as_ref(), config.extension.to_string()),
            };
            // A station that is reached by a trunk is one of ours all the same, and is shown the extension.
            if trunk.is_some() && !route.inside { external() } else { config.extension.to_string() }
        }
        Caller::Trunk(_) => party.number.clone(),
    };
    let shown = route.calling.apply(&own);
    let Some(trunk) = trunk.filter(|_| !route.inside) else { return shown };
    let shown = masked(trunk.config.calling_party_mask.as_ref(), shown);
    rules::number_out(trunk, number_rules::Party::Calling, shown)
}

fn masked(mask: Option<&NumberMask>, number: String) -> String {
    mask.map(|mask| mask.apply(&number)).unwrap_or(number)
}
