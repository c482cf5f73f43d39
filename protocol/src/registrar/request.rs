//! Reading a REGISTER: what it asks for, and what of it we cannot do (RFC 3261 §10.3, RFC 3327 §5.3, RFC 5626 §6).

use smallvec::SmallVec;

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

/// What a REGISTER asks for, as it stands in it.
pub struct Asked<'a> {
    request: &'a Message,
    contacts: Set<'a>,
    path: Vec<String>,
    outbound: bool,
}

/// The contacts.
enum Set<'a> {
    Query,
    Star,
    List(SmallVec<[Contact<'a>; 1]>),
}

/// One of them.
struct Contact<'a> {
    uri: &'a str,
    expires: Option<u32>,
    q: u16,
    instance: Option<&'a str>,
    reg_id: Option<u32>,
}

impl Contact<'_> {
    fn is_flow(&self) -> bool {
        self.instance.is_some() && self.reg_id.is_some()
    }

    fn to_owned(&self) -> ContactUpdate {
        let Contact { uri, expires, q, instance, reg_id } = *self;
        ContactUpdate { uri: uri.to_owned(), expires, q, instance: instance.map(str::to_owned), reg_id }
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
    Ok(look(request, accept_path)?.update(source, limits))
}

/// Reads a REGISTER and copies nothing of it: it may be nobody's.
///
/// # Errors
/// As [`read`].
pub fn look(request: &Message, accept_path: bool) -> Result<Asked<'_>, BadRegister> {
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
    let contacts = contacts(request)?;
    let outbound = match &contacts {
        Set::List(list) => list.iter().any(Contact::is_flow),
        Set::Query | Set::Star => false,
    };
    if outbound && request.values(Header::Via).nth(1).is_some() && !path.last().is_some_and(|p| has_ob(p)) {
        return Err(BadRegister::FirstHopLacksOutbound);
    }
    Ok(Asked { request, contacts, path, outbound })
}

impl Asked<'_> {
    /// What it asks for, having come by `source`.
    pub fn update(self, source: Flow, limits: Limits) -> Update {
        let Asked { request, contacts, path, outbound } = self;
        Update {
            call_id: request.call_id().to_owned(),
            cseq: request.cseq(),
            contacts: match contacts {
                Set::Query => ContactSet::Query,
                Set::Star => ContactSet::Star,
                Set::List(list) => ContactSet::List(list.iter().map(Contact::to_owned).collect()),
            },
            default_expires: request
                .header(Header::Expires)
                .map(|_| request.expires().unwrap_or(MALFORMED_EXPIRES)),
            source,
            path,
            user_agent: request.header(Header::UserAgent).map(str::to_owned),
            outbound,
            limits,
        }
    }
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

fn contacts(request: &Message) -> Result<Set<'_>, BadRegister> {
    let list = match request.contacts().map_err(|_| BadRegister::Malformed)? {
        Contacts::None => return Ok(Set::Query),
        Contacts::Star => return Ok(Set::Star),
        Contacts::List(list) => list,
    };
    let list: SmallVec<[Contact<'_>; 1]> =
        list.iter().map(|address| contact(request, address)).collect::<Result<_, _>>()?;
    // RFC 5626 §4.2: a request sets up one flow; several contacts of one would all be the same way back.
    let flows = list.iter().filter(|contact| contact.is_flow() && contact.expires != Some(0));
    if flows.count() > 1 { Err(BadRegister::Malformed) } else { Ok(Set::List(list)) }
}

fn contact<'a>(request: &Message, address: &NameAddr<'a>) -> Result<Contact<'a>, BadRegister> {
    let plain = Contact { uri: address.uri, expires: None, q: 1_000, instance: None, reg_id: None };
    if address.params.is_empty() {
        return Ok(plain);
    }
    let instance = address.param("+sip.instance").filter(|value| !value.is_empty());
    // RFC 5626 §6: without an instance, or from a device that does not know outbound, a reg-id means nothing.
    let knows_outbound = || request.has_token(Header::Supported, "outbound");
    let reg_id = match address.param("reg-id").filter(|_| instance.is_some() && knows_outbound()) {
        Some(value) => Some(value.parse().ok().filter(|id| *id > 0).ok_or(BadRegister::Malformed)?),
        None => None,
    };
    Ok(Contact {
        expires: address.param("expires").map(|value| value.parse().unwrap_or(MALFORMED_EXPIRES)),
        q: address.param("q").map_or(Some(1_000), qvalue).ok_or(BadRegister::Malformed)?,
        instance,
        reg_id,
        ..plain
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
