//! Who sends a request. Whoever is asked for, a stranger learns nothing but that he is one.

use std::sync::Arc;

use tandem_protocol::digest::{Credentials, Presented, Server, Verdict, authenticate, www_authenticate};
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Header, Message, Uri};
use tandem_protocol::time::Instant;

use super::refused::Refused;
use super::{account, unmanaged};
use crate::directory::{KeptBindings, NoPlace, Permit, StationEntry, TrunkEntry};
use crate::env::Env;
use crate::metrics::Refusal;
use crate::seat::Seat;

/// Credentials of other realms that may stand beside ours.
const MAX_CREDENTIALS: usize = 8;

/// Who calls.
#[derive(Clone)]
pub(crate) enum Caller {
    /// A station that has proved who it is.
    Station(Arc<StationEntry>),
    /// A trunk, known by its address, its certificate, or an account of ours there.
    Trunk(Arc<TrunkEntry>),
}

impl Caller {
    /// A place for his call, unless he has as many as he may; an emergency call always has one.
    pub(super) fn permit(&self, emergency: bool, seat: &Arc<Seat>, now: Instant) -> Result<Permit, NoPlace> {
        match self {
            Caller::Station(station) if emergency => Ok(station.emergency_permit(seat)),
            Caller::Station(station) => station.call_permit(seat, now),
            Caller::Trunk(trunk) if emergency => Ok(trunk.emergency_permit(seat)),
            Caller::Trunk(trunk) => trunk.permit(seat, now),
        }
    }
}

/// Says who sends a request, or why he must prove it first.
pub(crate) fn identify(env: &Env, request: &Message, flow: Flow) -> Result<Caller, Refused> {
    if let Some(station) = unmanaged::station(env, request, flow) {
        return Ok(Caller::Station(station.clone()));
    }
    // A certificate that the settings name says more than any From. One that is a proxy's by its address or domain alone does not:
    // stations may be behind it.
    let proved = env.directory().trunk_of_certificate(flow);
    if let Some(trunk) = proved.filter(|trunk| !trunk.config.certificate_names.is_empty()) {
        return Ok(Caller::Trunk(trunk.clone()));
    }
    // Both are looked for in any case: how long it takes tells nobody which of them exists.
    let account = account::called(env, request, flow).map(|account| account.trunk);
    let of_source = || env.directory().trunk_of_source(flow, env.config().transport(flow.listener)).cloned();
    // An account says more than a source: a provider has one address for all of its accounts.
    let trunk = account.or_else(of_source);
    let station = claimed_station(env, request, trunk.is_some());
    match (station, trunk) {
        (Some(station), _) => {
            verify(env, request, flow, Some(station))?;
            Ok(Caller::Station(station.clone()))
        }
        (None, Some(trunk)) => Ok(Caller::Trunk(trunk)),
        (None, None) => verify(env, request, flow, None).and_then(|()| Err(challenge(env, flow, false))),
    }
}

/// The station a request claims to be from: a From whose user is a station and whose host is ours, or does not matter for this
/// station. From a trunk a host that is not ours makes it only a caller's number.
fn claimed_station<'a>(env: &'a Env, request: &Message, from_trunk: bool) -> Option<&'a Arc<StationEntry>> {
    let uri = request.from().parsed_uri().ok()?;
    let ours = env.directory().is_ours(uri.host);
    let station = env.directory().station_of_user(&uri.user_unescaped()?);
    station.filter(|station| ours || (station.config.rules.identify_by_user_only && !from_trunk))
}

/// A challenge in each algorithm of the realm: the same to everybody, or it would tell which users exist.
fn challenge(env: &Env, flow: Flow, stale: bool) -> Refused {
    let nonce = env.directory().nonces.challenge(env.now().wall, env.random(), flow.remote.ip());
    let mut refused = Refused::new(401, Refusal::Unauthorized);
    for algorithm in &env.config().digest_algorithms {
        let value = www_authenticate(&env.config().realm, &nonce, *algorithm, stale);
        refused = refused.with(Header::WwwAuthenticate, value);
    }
    refused
}

/// Proves that a request is from `station`: RFC 3261 §22, RFC 7616.
pub(crate) fn verify(
    env: &Env,
    request: &Message,
    flow: Flow,
    station: Option<&Arc<StationEntry>>,
) -> Result<(), Refused> {
    verify_presented(env, request, flow, credentials(request, &env.config().realm), station)
}

/// The same, with the credentials that the request has, if it has any.
pub(crate) fn verify_presented(
    env: &Env,
    request: &Message,
    flow: Flow,
    credentials: Option<Credentials<'_>>,
    station: Option<&Arc<StationEntry>>,
) -> Result<(), Refused> {
    let realm = &env.config().realm;
    let Some(credentials) = credentials else { return Err(challenge(env, flow, false)) };
    if !protects(&credentials, request) {
        return Err(Refused::bad("Digest URI Is Another"));
    }
    let directory = env.directory();
    let server = Server {
        realm,
        signer: &directory.nonces,
        windows: &directory.windows,
        throttle: &directory.throttle,
    };
    // Whether there is such a station matters last: until then all is looked at alike.
    let looked_at = station.or_else(|| directory.stand_in());
    let is_it = looked_at.is_some_and(|s| credentials.username == *s.config.name) && station.is_some();
    let secret = looked_at.filter(|_| is_it).and_then(|s| s.config.secret.as_ref());
    let presented = Presented {
        credentials: &credentials,
        method: request.method_name(),
        body: request.body(),
        source: flow.remote.ip(),
    };
    let known_source = || is_known(env, flow, looked_at, is_it);
    match authenticate(server, env.now(), presented, secret, known_source) {
        Verdict::Accepted => Ok(()),
        Verdict::Stale => Err(challenge(env, flow, true)),
        Verdict::Wrong => {
            env.metrics().auth_failures.increment(1);
            // `config/fail2ban` reads this line. The source is proved: it has received our nonce.
            tracing::warn!(
                target: "tandem::security",
                peer = %flow.remote,
                method = request.method_name(),
                user = &*credentials.username,
                "authentication failed"
            );
            Err(challenge(env, flow, false))
        }
        Verdict::Throttled => {
            env.metrics().auth_throttled.increment(1);
            tracing::debug!(peer = %flow.remote, user = &*credentials.username, "too many guesses: not judged");
            Err(challenge(env, flow, false))
        }
    }
}

/// The credentials for our realm, or the first that can be read.
pub(crate) fn credentials<'a>(request: &'a Message, realm: &str) -> Option<Credentials<'a>> {
    let mut first = None;
    let headers = request.headers(Header::Authorization).take(MAX_CREDENTIALS);
    for credentials in headers.filter_map(|value| Credentials::parse(value).ok()) {
        if credentials.realm == realm {
            return Some(credentials);
        }
        first.get_or_insert(credentials);
    }
    first
}

/// Whether credentials are for this request and not for one to somebody else (RFC 7616 §3.4.6). Hosts and parameters differ
/// where a proxy has been, and many clients name the domain alone; the user differs only if it is another request.
fn protects(credentials: &Credentials<'_>, request: &Message) -> bool {
    let Ok(signed) = Uri::parse(&credentials.uri) else { return false };
    let Some(user) = signed.user_unescaped() else { return true };
    Uri::parse(request.request_uri()).is_ok_and(|uri| uri.user_unescaped() == Some(user))
}

/// Whether a source is known by other means than these credentials: a trunk's, or where the station is registered from. Others
/// who fail there do not slow it.
fn is_known(env: &Env, flow: Flow, looked_at: Option<&Arc<StationEntry>>, is_it: bool) -> bool {
    let now = env.now().wall;
    let here = |kept: &KeptBindings| {
        kept.iter().any(|b| b.expires_at > now && b.source.remote.ip() == flow.remote.ip())
    };
    let registered = looked_at.and_then(|station| station.kept()).is_some_and(|kept| here(&kept)) && is_it;
    let trunk = env.directory().trunk_of_source(flow, env.config().transport(flow.listener)).is_some();
    registered || trunk
}
