//! REGISTER: verified where it arrived, carried to the station's shard, answered where it arrived (RFC 3261 §10.3).

use std::sync::Arc;

use tandem_protocol::decimal::push_hex;
use tandem_protocol::dialog::ServerTransactionId;
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Header, Message, NameAddr, reason_phrase, response_to};
use tandem_protocol::registrar::{self, BadRegister, Binding, Limits, RegisterError, Update};
use tandem_protocol::time::UnixMillis;

use crate::calls::{Refused, check, credentials, is_sips, verify_presented};
use crate::env::Env;
use crate::ids::ShardId;
use crate::metrics::Refusal;
use crate::sip::endpoint::Endpoint;

/// A verified REGISTER on its way to the station.
pub struct Register {
    pub(crate) station: Arc<str>,
    pub(crate) update: Arc<Update>,
    pub(crate) shard: ShardId,
    pub(crate) transaction: ServerTransactionId,
    pub(crate) flow: Flow,
    pub(crate) request: Message,
}

/// What the station made of it.
pub struct RegisterDone {
    pub(crate) transaction: ServerTransactionId,
    pub(crate) flow: Flow,
    pub(crate) request: Message,
    pub(crate) update: Arc<Update>,
    pub(crate) now: UnixMillis,
    /// `None` if a fault has ended the station's actor, if too much waited to tell it, or if there is no such station any more.
    pub(crate) result: Option<Result<Vec<Binding>, RegisterError>>,
}

impl RegisterDone {
    /// Nobody can say what is to become of it.
    pub(crate) fn of_none(register: Register, now: UnixMillis) -> RegisterDone {
        let Register { transaction, flow, request, update, .. } = register;
        RegisterDone { transaction, flow, request, update, now, result: None }
    }
}

/// A REGISTER whose sender has proved who he is.
pub(crate) struct Accepted {
    pub(crate) station: Arc<str>,
    pub(crate) update: Update,
}

/// Reads and verifies a REGISTER.
pub(crate) fn receive(env: &Env, request: &Message, flow: Flow) -> Result<Accepted, Refused> {
    let registrar = env.config().registrar;
    let seconds = |d: std::time::Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
    let limits = Limits {
        min_expires: seconds(registrar.min_expires),
        max_expires: seconds(registrar.max_expires),
        default_expires: seconds(registrar.default_expires),
        max_contacts: Limits::default().max_contacts,
    };
    // Before the credentials are judged, which uses their nonce count up: what is malformed stays so when it comes again.
    check::well_formed(request)?;
    let read = registrar::read(request, flow.answering(&request.via()), limits, registrar.accept_path);
    if matches!(read, Err(BadRegister::Malformed)) {
        return Err(Refused::bad("Bad Contact"));
    }
    let to = request.to().parsed_uri().ok();
    let user = to.as_ref().and_then(|uri| uri.user_unescaped());
    let ours = to.as_ref().is_some_and(|uri| env.directory().is_ours(uri.host));
    let station = user.filter(|_| ours).and_then(|user| env.directory().station_of_user(&user));
    // Who he says he is must be proved first; only then whether the address-of-record is his (RFC 3261 §10.3 steps 3 to 5).
    let presented = credentials(request, &env.config().realm);
    let named = presented.as_ref().and_then(|presented| env.directory().station(&presented.username));
    let claimed = named.or(station);
    verify_presented(env, request, flow, presented, claimed)?;
    let transport = env.config().transport(flow.listener);
    check::acceptable(request, transport).map_err(Refused::for_known)?;
    if !transport.is_secure() && request.values(Header::Contact).any(has_sips) {
        // Calls to it could not go by the way it has come (RFC 5630 §5.1.1).
        return Err(Refused::bad("SIPS Contact Needs TLS").for_known());
    }
    let mut update = read.map_err(|bad| refuse(&bad).for_known())?;
    let own = station.filter(|station| claimed.is_some_and(|c| c.config.name == station.config.name));
    let Some(station) = own else {
        tracing::warn!(peer = %flow.remote, aor = request.to().uri, "registration for another's address-of-record refused");
        return Err(Refused::new(403, Refusal::Unauthorized).for_known());
    };
    update.limits.max_contacts = station.config.rules.max_contacts;
    Ok(Accepted { station: station.config.name.clone(), update })
}

fn has_sips(contact: &str) -> bool {
    NameAddr::parse(contact).is_ok_and(|contact| is_sips(contact.uri))
}

fn refuse(bad: &BadRegister) -> Refused {
    let unsupported = bad.unsupported().map(|extensions| (Header::Unsupported, extensions.to_owned()));
    let why = match bad {
        BadRegister::Malformed => Refusal::Malformed,
        BadRegister::BadExtension(_) | BadRegister::FirstHopLacksOutbound => Refusal::Unsupported,
    };
    Refused { headers: unsupported.into_iter().collect(), ..Refused::new(bad.status(), why) }
}

/// Answers a REGISTER in its transaction.
pub(crate) fn answer(endpoint: &mut Endpoint, done: &RegisterDone) {
    let status = match &done.result {
        Some(Ok(_)) => 200,
        Some(Err(error)) => error.status(),
        None => 500,
    };
    let mut tag = "r".to_owned();
    push_hex(&mut tag, done.transaction.0, 1);
    let mut response =
        response_to(&done.request, Some(done.flow.remote), status, reason_phrase(status), Some(&tag));
    match &done.result {
        Some(Ok(bindings)) => {
            for (header, value) in registrar::granted_headers(&done.request, &done.update, bindings, done.now)
            {
                response.header(header, value);
            }
        }
        None => {}
        Some(Err(error)) => {
            if let Some(min) = error.min_expires() {
                response.header(Header::MinExpires, min);
            }
        }
    }
    endpoint.respond(done.transaction, status, response.finish(None), done.flow);
}
