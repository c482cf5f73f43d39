//! REGISTER: verified where it arrived, carried to the station's shard, answered where it arrived (RFC 3261 §10.3).

use std::sync::Arc;

use bytes::Bytes;
use tandem_protocol::decimal::{Decimal, push_hex};
use tandem_protocol::dialog::ServerTransactionId;
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Builder, Header, Message, NameAddr, reason_phrase, response_to};
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

/// A REGISTER that has been carried out, or not, and its answer: for the shard where its transaction is.
pub struct RegisterDone {
    transaction: ServerTransactionId,
    flow: Flow,
    status: u16,
    response: Bytes,
}

impl RegisterDone {
    /// What came of it, and what is registered at `now`.
    pub(crate) fn of(
        register: &Register,
        result: Result<&[Binding], RegisterError>,
        now: UnixMillis,
    ) -> RegisterDone {
        let status = result.map_or_else(|error| error.status(), |_| 200);
        RegisterDone::written(register, status, |response| match result {
            Ok(bindings) => registrar::grant(response, &register.request, &register.update, bindings, now),
            Err(error) => {
                if let Some(min) = error.min_expires() {
                    response.texts(Header::MinExpires, &[Decimal::of(min.into()).as_str()]);
                }
            }
        })
    }

    /// Nobody can say what is to become of it: a fault has ended the station's actor, too much waited to tell it, or there is no such
    /// station any more.
    pub(crate) fn of_none(register: &Register) -> RegisterDone {
        RegisterDone::written(register, 500, |_| {})
    }

    fn written(register: &Register, status: u16, more: impl FnOnce(&mut Builder)) -> RegisterDone {
        let Register { transaction, flow, request, .. } = register;
        let mut tag = "r".to_owned();
        push_hex(&mut tag, transaction.0, 1);
        let mut response = response_to(request, Some(flow.remote), status, reason_phrase(status), Some(&tag));
        more(&mut response);
        RegisterDone { transaction: *transaction, flow: *flow, status, response: response.finish(None) }
    }

    /// Answers it in its transaction.
    pub(crate) fn answer(self, endpoint: &mut Endpoint) {
        endpoint.respond(self.transaction, self.status, self.response, self.flow);
    }

    #[cfg(test)]
    pub(crate) fn told(&self) -> (ServerTransactionId, u16) {
        (self.transaction, self.status)
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
    // Before the credentials are judged, which uses their nonce count up: what is malformed stays so when it comes again.
    check::well_formed(request)?;
    let asked = registrar::look(request, registrar.accept_path);
    if matches!(asked, Err(BadRegister::Malformed)) {
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
    let asked = asked.map_err(|bad| refuse(&bad).for_known())?;
    let own = station.filter(|station| claimed.is_some_and(|c| c.config.name == station.config.name));
    let Some(station) = own else {
        tracing::warn!(peer = %flow.remote, aor = request.to().uri, "registration for another's address-of-record refused");
        return Err(Refused::new(403, Refusal::Unauthorized).for_known());
    };
    let seconds = |d: std::time::Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
    let limits = Limits {
        min_expires: seconds(registrar.min_expires),
        max_expires: seconds(registrar.max_expires),
        default_expires: seconds(registrar.default_expires),
        max_contacts: station.config.rules.max_contacts,
    };
    let update = asked.update(flow.answering(&request.via()), limits);
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
