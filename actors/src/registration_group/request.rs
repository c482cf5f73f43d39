//! The REGISTER of one registration (RFC 3261 §10.2), and what is read of its responses.

use std::sync::Arc;

use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Builder, Contacts, Header, Message, Method, NameAddr, escape_user};
use tandem_protocol::registration::{Request, Response};
use tandem_protocol::transaction::Timers;

use super::flow::FlowNames;
use crate::calls::LINE;
use crate::config::Registration;
use crate::env::Env;
use crate::sip::endpoint::Outgoing;

/// A REGISTER that somebody else could answer is given up after so many T1: four retransmissions.
const IMPATIENT_T1: u32 = 16;

/// By which names a registration is known.
pub(super) struct Line {
    pub(super) call_id: String,
    /// The tag of its From.
    pub(super) tag: String,
    /// What names it in its Contact. Only the registrar learns it, and whoever has a call for the account from there.
    pub(super) token: Arc<str>,
    /// Its Contact, with the token.
    pub(super) contact: String,
}

impl Line {
    pub(super) fn new(env: &Env, config: &Registration, token: Arc<str>) -> Line {
        let local = env.local_side(env.config().listener_id(config.listener));
        let user = escape_user(&config.credentials.username);
        let contact = local.contact.replacen("sip:", &format!("sip:{user}@"), 1);
        let contact = contact.replacen('>', &format!(";{LINE}={token}>"), 1);
        Line { call_id: env.name(), tag: env.name(), token, contact }
    }

    /// The message that the machine wants sent.
    pub(super) fn register(
        &self,
        env: &Env,
        config: &Registration,
        request: &Request,
        flow: &FlowNames,
    ) -> Outgoing {
        let listener = env.config().listener_id(config.listener);
        let local = env.local_side(listener);
        let branch = format!("z9hG4bK{}.{:x}", self.tag, request.cseq);
        let account = format!("<sip:{}@{}>", escape_user(&config.credentials.username), config.domain);
        let mut message = Builder::request("REGISTER", &request.uri);
        message.header(Header::Via, format_args!("{};branch={branch};rport", local.via));
        message.header(Header::MaxForwards, 70);
        message.header(Header::From, format_args!("{account};tag={}", self.tag));
        message.header(Header::To, &account);
        message.header(Header::CallId, &self.call_id);
        message.header(Header::CSeq, format_args!("{} REGISTER", request.cseq));
        if listener.transport().is_reliable() {
            message.header(Header::Contact, format_args!("{}{}", self.contact, flow.params()));
            message.header(Header::Supported, "path, outbound");
        } else {
            message.header(Header::Contact, &self.contact);
        }
        message.header(Header::Expires, request.expires);
        if let Some(value) = &request.authorization {
            message.header(Header::Authorization, value);
        }
        if let Some(value) = &request.proxy_authorization {
            message.header(Header::ProxyAuthorization, value);
        }
        let give_up = config.timers.t1 * IMPATIENT_T1;
        let patient = Timers::new(config.timers.t1, config.timers.t2).give_up;
        Outgoing {
            message: message.finish(None),
            method: Method::Register,
            branch,
            cseq: request.cseq,
            to: Flow::to(listener, request.to),
            timers: Timers { give_up: if request.others { give_up } else { patient }, ..config.timers },
        }
    }

    /// What a final response says.
    pub(super) fn response(&self, response: &Message) -> Response {
        let challenge = match response.status() {
            401 => Header::WwwAuthenticate,
            _ => Header::ProxyAuthenticate,
        };
        let number = |header| {
            let digits = response.header(header)?.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        };
        let (mut contacts, mut expires) = (Vec::new(), response.expires());
        if let Ok(Contacts::List(list)) = response.contacts() {
            let granted = self.own(&list).and_then(|own| own.param("expires")?.parse().ok());
            expires = granted.or(expires);
            contacts = by_q(&list);
        }
        Response {
            status: response.status(),
            cseq: response.cseq(),
            expires,
            challenges: response.headers(challenge).map(str::to_owned).collect(),
            min_expires: number(Header::MinExpires),
            retry_after: response.retry_after(),
            contacts: if (300..400).contains(&response.status()) { contacts } else { Vec::new() },
            service_route: response.values(Header::ServiceRoute).map(str::to_owned).collect(),
        }
    }

    /// Our binding among all those of the account: the one with our token, or, from a registrar that keeps no parameters, the one
    /// at our address.
    fn own<'a>(&self, list: &'a [NameAddr<'a>]) -> Option<&'a NameAddr<'a>> {
        let token = |contact: &&NameAddr<'_>| {
            contact.parsed_uri().is_ok_and(|uri| uri.param(LINE) == Some(&*self.token))
        };
        let ours = NameAddr::parse(&self.contact).ok()?.parsed_uri().ok()?;
        let address = |contact: &&NameAddr<'_>| {
            let uri = contact.parsed_uri();
            uri.is_ok_and(|uri| (uri.user, uri.host, uri.port) == (ours.user, ours.host, ours.port))
        };
        list.iter().find(token).or_else(|| list.iter().find(address))
    }
}

/// The URIs of contacts, those of the highest q first (RFC 3261 §20.10); without one it counts as 1.
fn by_q(list: &[NameAddr<'_>]) -> Vec<String> {
    let q = |contact: &NameAddr<'_>| contact.param("q").and_then(|q| q.parse().ok()).unwrap_or(1.0_f32);
    let mut contacts: Vec<(f32, &str)> = list.iter().map(|contact| (q(contact), contact.uri)).collect();
    contacts.sort_by(|a, b| b.0.total_cmp(&a.0));
    contacts.into_iter().map(|(_, uri)| uri.to_owned()).collect()
}
