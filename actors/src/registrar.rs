//! REGISTER: verified where it arrived, carried to the station's shard, answered where it arrived (RFC 3261 §10.3).

use std::sync::Arc;

use tandem_protocol::dialog::ServerTransactionId;
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Contacts, Header, Message, NameAddr, reason_phrase, response_to};
use tandem_protocol::registrar::{Binding, ContactSet, ContactUpdate, Limits, RegisterError, Update};
use tandem_protocol::time::UnixMillis;

use crate::calls::{Refused, check, verify};
use crate::env::Env;
use crate::ids::ShardId;
use crate::metrics::Refusal;
use crate::sip::endpoint::Endpoint;

/// A verified REGISTER on its way to the station.
pub struct Register {
    pub(crate) station: Arc<str>,
    pub(crate) update: Update,
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
    pub(crate) now: UnixMillis,
    /// `None` if a fault has ended the station's actor.
    pub(crate) result: Option<Result<Vec<Binding>, RegisterError>>,
}

/// A REGISTER whose sender has proved who he is.
pub(crate) struct Accepted {
    pub(crate) station: Arc<str>,
    pub(crate) update: Update,
}

/// Reads and verifies a REGISTER.
pub(crate) fn receive(env: &Env, request: &Message, flow: Flow) -> Result<Accepted, Refused> {
    let to = request.to().parsed_uri().ok();
    let user = to.as_ref().and_then(|uri| uri.user_unescaped());
    let ours = to.as_ref().is_some_and(|uri| env.directory().is_ours(uri.host));
    let station = user.filter(|_| ours).and_then(|user| env.directory().station_of_user(&user));
    // Before the credentials are judged, which uses their nonce count up: what is malformed stays so when it comes again.
    check::well_formed(request)?;
    let contacts = contacts(request)?;
    verify(env, request, flow, station)?;
    check::acceptable(request).map_err(Refused::for_known)?;
    let Some(station) = station else { return Err(Refused::new(404, Refusal::NotFound)) };
    let registrar = env.config().registrar;
    let seconds = |d: std::time::Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
    let limits = Limits {
        min_expires: seconds(registrar.min_expires),
        max_expires: seconds(registrar.max_expires),
        default_expires: seconds(registrar.default_expires),
        max_contacts: station.config.max_contacts,
    };
    let update = Update {
        call_id: request.call_id().to_owned(),
        cseq: request.cseq(),
        contacts,
        default_expires: request.expires(),
        source: flow,
        path: request.values(Header::Path).map(str::to_owned).collect(),
        user_agent: request.header(Header::UserAgent).map(str::to_owned),
        limits,
    };
    Ok(Accepted { station: station.config.name.clone(), update })
}

fn contacts(request: &Message) -> Result<ContactSet, Refused> {
    match request.contacts().map_err(|_| Refused::bad("Bad Contact"))? {
        Contacts::None => Ok(ContactSet::Query),
        Contacts::Star => Ok(ContactSet::Star),
        Contacts::List(list) => Ok(ContactSet::List(list.iter().map(contact).collect())),
    }
}

fn contact(contact: &NameAddr<'_>) -> ContactUpdate {
    let mut update = ContactUpdate::new(contact.uri);
    update.expires = contact.param("expires").and_then(|v| v.parse().ok());
    if let Some(q) = contact.param("q").and_then(|v| v.parse::<f32>().ok()) {
        update.q = (q.clamp(0.0, 1.0) * 1000.0) as u16;
    }
    update.instance = contact.param("+sip.instance").map(str::to_owned);
    update.reg_id = contact.param("reg-id").and_then(|v| v.parse().ok());
    update
}

/// Answers a REGISTER in its transaction.
pub(crate) fn answer(endpoint: &mut Endpoint, done: &RegisterDone) {
    let status = match &done.result {
        Some(Ok(_)) => 200,
        Some(Err(error)) => error.status(),
        None => 500,
    };
    let tag = format!("r{:x}", done.transaction.0);
    let mut response =
        response_to(&done.request, Some(done.flow.remote), status, reason_phrase(status), Some(&tag));
    match &done.result {
        Some(Ok(bindings)) => {
            for binding in bindings {
                let expires = binding.expires_in(done.now);
                response.header(Header::Contact, format_args!("<{}>;expires={expires}", binding.contact));
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
