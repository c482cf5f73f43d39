//! Who sends a request, and what every INVITE must have before anyone is asked that.

use std::sync::Arc;

use tandem_protocol::digest::{
    Algorithm, Credentials as Presented, Server, Verdict, authenticate, www_authenticate,
};
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Header, Message, Uri};

use crate::directory::{StationEntry, TrunkEntry};
use crate::env::Env;
use crate::metrics::Refusal;

/// Who calls.
pub(crate) enum Caller {
    /// A station that has proved who it is.
    Station(Arc<StationEntry>),
    /// A trunk, known by its address.
    Trunk(Arc<TrunkEntry>),
}

/// An INVITE that does not become a call.
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(Header, String)>,
    pub(crate) why: Refusal,
}

impl Refused {
    pub(super) fn new(status: u16, why: Refusal) -> Refused {
        Refused { status, headers: Vec::new(), why }
    }

    pub(crate) fn headers(&self) -> Vec<(Header, &str)> {
        self.headers.iter().map(|(header, value)| (*header, value.as_str())).collect()
    }

    pub(super) fn with(mut self, header: Header, value: impl Into<String>) -> Refused {
        self.headers.push((header, value.into()));
        self
    }
}

/// Checks what every INVITE must have, before anyone is asked who he is.
pub(crate) fn check(invite: &Message) -> Result<(), Refused> {
    let uri = Uri::parse(invite.request_uri()).map_err(|_| Refused::new(416, Refusal::Malformed))?;
    if !matches!(uri.scheme, "sip" | "tel") {
        return Err(Refused::new(416, Refusal::Unsupported));
    }
    match invite.max_forwards() {
        Some(Ok(0)) => return Err(Refused::new(483, Refusal::Loop)),
        Some(Err(_)) => return Err(Refused::new(400, Refusal::Malformed)),
        Some(Ok(_)) | None => {}
    }
    let required: Vec<&str> = invite.values(Header::Require).collect();
    if !required.is_empty() {
        return Err(Refused::new(420, Refusal::Unsupported).with(Header::Unsupported, required.join(", ")));
    }
    if invite.body().is_empty() {
        let text = "304 tandem \"an INVITE without an offer is not supported\"";
        return Err(Refused::new(488, Refusal::Media).with(Header::Warning, text));
    }
    let kind = invite.header(Header::ContentType).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/sdp") {
        return Err(Refused::new(415, Refusal::Media).with(Header::Accept, "application/sdp"));
    }
    Ok(())
}

/// The station a request claims to be from: a From whose user is a station and whose host is ours.
fn claimed_station<'a>(env: &'a Env, request: &Message) -> Option<&'a Arc<StationEntry>> {
    let uri = request.from().parsed_uri().ok()?;
    if !env.directory().is_ours(uri.host) {
        return None;
    }
    env.directory().station_of_user(&uri.user_unescaped()?)
}

/// A challenge in each algorithm the station can answer, the strongest first (RFC 8760 §2.4).
fn challenge(env: &Env, station: Option<&StationEntry>, stale: bool) -> Refused {
    let nonce = env.directory().nonces.challenge(env.now().wall, env.random());
    let both = [Algorithm::Sha256, Algorithm::Md5];
    let algorithms =
        station.and_then(|s| s.config.secret.as_ref()).map_or(&both[..], |secret| secret.algorithms());
    let mut refused = Refused::new(401, Refusal::Unauthorized);
    for algorithm in algorithms {
        let value = www_authenticate(&env.config().realm, &nonce, *algorithm, stale);
        refused.headers.push((Header::WwwAuthenticate, value));
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
    let known = station.map(Arc::as_ref);
    let Some(value) = request.header(Header::Authorization) else { return Err(challenge(env, known, false)) };
    let Ok(presented) = Presented::parse(value) else { return Err(challenge(env, known, false)) };
    let ours = known.filter(|s| presented.username == *s.config.name);
    let server = Server {
        realm: &env.config().realm,
        signer: &env.directory().nonces,
        windows: &env.directory().windows,
    };
    let secret = ours.and_then(|s| s.config.secret.as_ref());
    match authenticate(server, env.now().wall, &presented, request.method_name(), request.body(), secret) {
        Verdict::Accepted => Ok(()),
        Verdict::Challenge { stale, wrong } => {
            if wrong {
                env.metrics().auth_failures.increment(1);
                tracing::warn!(peer = %flow.remote, user = presented.username, method = request.method_name(), "authentication failed");
            }
            Err(challenge(env, known, stale))
        }
        Verdict::Overloaded => Err(Refused::new(503, Refusal::Limit)),
    }
}

/// Says who calls, or why he must prove it first.
pub(crate) fn identify(env: &Env, invite: &Message, flow: Flow) -> Result<Caller, Refused> {
    if let Some(station) = claimed_station(env, invite) {
        verify(env, invite, flow, Some(station))?;
        return Ok(Caller::Station(station.clone()));
    }
    match env.directory().trunk_of_source(flow.remote) {
        Some(trunk) => Ok(Caller::Trunk(trunk.clone())),
        // Whoever is asked for, a stranger learns nothing but that he is one.
        None => verify(env, invite, flow, None).and(Err(challenge(env, None, false))),
    }
}
