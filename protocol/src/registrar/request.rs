//! Reading a REGISTER: what it asks for, and what of it we cannot do (RFC 3261 §10.3, RFC 3327 §5.3, RFC 5626 §6).

use super::{ContactSet, ContactUpdate, Limits, Update};
use crate::flow::Flow;
use crate::message::{Contacts, Header, Message, NameAddr, Uri};

/// The extensions a REGISTER may require of us.
const SUPPORTED: [&str; 2] = ["path", "outbound"];

/// What a malformed `expires` counts as, in seconds (RFC 3261 §20.10).
const MALFORMED_EXPIRES: u32 = 3_600;

/// Why a REGISTER is refused before anyone asks whose it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRegister {
    /// It cannot be read.
    #[error("malformed REGISTER")]
    Malformed,
    /// It needs extensions that we do not have, or has a `Path` that its sender does not know of (RFC 3327 §5.3).
    #[error("bad extension: {0}")]
    BadExtension(String),
    /// The device wants outbound, and the proxy next to it does not know it (RFC 5626 §6).
    #[error("the first hop lacks outbound support")]
    FirstHopLacksOutbound,
}

impl BadRegister {
    /// The status to answer with.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::BadExtension(_) => 420,
            Self::FirstHopLacksOutbound => 439,
        }
    }

    /// The value of `Unsupported`, for 420.
    pub fn unsupported(&self) -> Option<&str> {
        match self {
            Self::BadExtension(extensions) => Some(extensions),
            Self::Malformed | Self::FirstHopLacksOutbound => None,
        }
    }
}

/// Reads a REGISTER that came by `source`. With `accept_path` a `Path` is taken from a device that does not say it knows it.
///
/// # Errors
/// [`BadRegister`].
pub fn read(
    request: &Message,
    source: Flow,
    limits: Limits,
    accept_path: bool,
) -> Result<Update, BadRegister> {
    let foreign: Vec<&str> = request
        .values(Header::Require)
        .filter(|required| !SUPPORTED.iter().any(|ours| ours.eq_ignore_ascii_case(required)))
        .collect();
    if !foreign.is_empty() {
        return Err(BadRegister::BadExtension(foreign.join(", ")));
    }
    let path: Vec<String> = request.values(Header::Path).map(route).collect::<Result<_, _>>()?;
    if !path.is_empty() && !accept_path && !request.has_token(Header::Supported, "path") {
        return Err(BadRegister::BadExtension("path".to_owned()));
    }
    let knows_outbound = request.has_token(Header::Supported, "outbound");
    let contacts = contacts(request, knows_outbound)?;
    let outbound = match &contacts {
        ContactSet::List(list) => list.iter().any(|c| c.instance.is_some() && c.reg_id.is_some()),
        ContactSet::Query | ContactSet::Star => false,
    };
    if outbound && request.values(Header::Via).nth(1).is_some() && !path.last().is_some_and(|p| has_ob(p)) {
        return Err(BadRegister::FirstHopLacksOutbound);
    }
    Ok(Update {
        call_id: request.call_id().to_owned(),
        cseq: request.cseq(),
        contacts,
        default_expires: request
            .header(Header::Expires)
            .map(|_| request.expires().unwrap_or(MALFORMED_EXPIRES)),
        source,
        path,
        user_agent: request.header(Header::UserAgent).map(str::to_owned),
        outbound,
        limits,
    })
}

/// A `Path` value as the `Route` it becomes.
fn route(value: &str) -> Result<String, BadRegister> {
    let address = NameAddr::parse(value).map_err(|_| BadRegister::Malformed)?;
    let uri = address.parsed_uri().map_err(|_| BadRegister::Malformed)?;
    // A display name says nothing, and must not be carried about.
    let sip = matches!(uri.scheme, "sip" | "sips");
    if sip { Ok(format!("<{}>{}", address.uri, address.params)) } else { Err(BadRegister::Malformed) }
}

fn has_ob(route: &str) -> bool {
    let address = NameAddr::parse(route).ok();
    address.and_then(|address| Uri::parse(address.uri).ok()?.param("ob").map(drop)).is_some()
}

fn contacts(request: &Message, knows_outbound: bool) -> Result<ContactSet, BadRegister> {
    let list = match request.contacts().map_err(|_| BadRegister::Malformed)? {
        Contacts::None => return Ok(ContactSet::Query),
        Contacts::Star => return Ok(ContactSet::Star),
        Contacts::List(list) => list,
    };
    let list: Vec<ContactUpdate> =
        list.iter().map(|c| contact(c, knows_outbound)).collect::<Result<_, _>>()?;
    // RFC 5626 §4.2: a request sets up one flow; several contacts of one would all be the same way back.
    let flows = list.iter().filter(|c| c.instance.is_some() && c.reg_id.is_some() && c.expires != Some(0));
    if flows.count() > 1 { Err(BadRegister::Malformed) } else { Ok(ContactSet::List(list)) }
}

fn contact(contact: &NameAddr<'_>, knows_outbound: bool) -> Result<ContactUpdate, BadRegister> {
    let instance = contact.param("+sip.instance").filter(|value| !value.is_empty()).map(str::to_owned);
    // RFC 5626 §6: without an instance, or from a device that does not know outbound, a reg-id means nothing.
    let reg_id = match contact.param("reg-id").filter(|_| knows_outbound && instance.is_some()) {
        Some(value) => Some(value.parse().ok().filter(|id| *id > 0).ok_or(BadRegister::Malformed)?),
        None => None,
    };
    Ok(ContactUpdate {
        uri: contact.uri.to_owned(),
        expires: contact.param("expires").map(|value| value.parse().unwrap_or(MALFORMED_EXPIRES)),
        q: contact.param("q").map_or(Some(1_000), qvalue).ok_or(BadRegister::Malformed)?,
        instance,
        reg_id,
    })
}

/// `0` to `1` with at most three decimals, in thousandths (RFC 3261 §25.1, `qvalue`).
fn qvalue(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = decimals.len() <= 3 && decimals.bytes().all(|b| b.is_ascii_digit());
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok().filter(|_| digits)?;
    match (whole, thousandths) {
        ("0" | "", _) if !text.is_empty() && text != "." => Some(thousandths),
        ("1", 0) => Some(1_000),
        _ => None,
    }
}
