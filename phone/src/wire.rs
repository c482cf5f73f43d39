//! Messages in and out: `rsip` frames, names and prints them, [`crate::text`] reads the values.

use std::net::SocketAddr;

use rsip::headers::untyped::UntypedHeader;
use rsip::{Header, Headers, SipMessage};
use serde::{Deserialize, Serialize};

use crate::text::{self, NameAddr};

/// Why a datagram is not a SIP message that the phone can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("no blank line ends the header")]
    NoBlankLine,
    #[error("{0}")]
    Syntax(String),
    #[error("{0} is missing or unreadable")]
    Header(&'static str),
    #[error("Content-Length is {announced}, the body has {present} bytes")]
    Truncated { announced: usize, present: usize },
}

/// A received request or response.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Request(Request),
    Response(Response),
}

/// A received request; the method and URI are text, as `rsip` refuses methods that it does not know.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

/// A received response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

/// The header fields that every message must have, and all others as `rsip` holds them.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// Via values, topmost first, one element each.
    pub(crate) vias: Vec<String>,
    pub(crate) from: NameAddr,
    /// The From value as it came, to be copied into responses.
    pub(crate) from_text: String,
    pub(crate) to: NameAddr,
    pub(crate) to_text: String,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    /// The method named by CSeq.
    pub(crate) cseq_method: String,
    pub(crate) headers: Headers,
}

impl Head {
    /// The branch of the topmost Via.
    pub(crate) fn branch(&self) -> &str {
        self.vias.first().and_then(|via| text::param(&text::split(via, ';'), "branch")).unwrap_or("")
    }

    /// The sent-by (host and port) of the topmost Via.
    pub(crate) fn sent_by(&self) -> &str {
        let via = self.vias.first().map_or("", String::as_str);
        via.split(';').next().and_then(|start| start.split_whitespace().last()).unwrap_or("")
    }

    /// The elements of every field that `pick` accepts, comma-joined lists taken apart.
    pub(crate) fn list(&self, pick: fn(&Header) -> Option<&str>) -> Vec<String> {
        let values = self.headers.iter().filter_map(pick);
        values.flat_map(|value| text::split(value, ',')).map(str::to_owned).collect()
    }

    /// The first Contact.
    pub(crate) fn contact(&self) -> Option<NameAddr> {
        self.contacts().into_iter().next()
    }

    /// Every readable Contact.
    pub(crate) fn contacts(&self) -> Vec<NameAddr> {
        let pick = |header: &Header| match header {
            Header::Contact(contact) => Some(contact.value().to_owned()),
            _ => None,
        };
        let values: Vec<String> = self.headers.iter().filter_map(pick).collect();
        values.iter().flat_map(|value| text::split(value, ',')).filter_map(text::name_addr).collect()
    }

    /// Record-Route values in the order they appear.
    pub(crate) fn record_routes(&self) -> Vec<String> {
        self.list(|header| match header {
            Header::RecordRoute(value) => Some(value.value()),
            _ => None,
        })
    }

    /// Option tags of Require.
    pub(crate) fn required(&self) -> Vec<String> {
        self.list(|header| match header {
            Header::Require(value) => Some(value.value()),
            _ => None,
        })
    }

    /// Option tags of Supported and Require.
    pub(crate) fn can(&self, option: &str) -> bool {
        let supported = self.list(|header| match header {
            Header::Supported(value) => Some(value.value()),
            _ => None,
        });
        let mut known = supported.iter().chain(&self.required()).cloned().collect::<Vec<_>>().into_iter();
        known.any(|known| known.eq_ignore_ascii_case(option))
    }

    /// Whether Require has this option.
    pub(crate) fn requires(&self, option: &str) -> bool {
        self.required().iter().any(|known| known.eq_ignore_ascii_case(option))
    }

    /// The value of a field that `rsip` has no name for.
    pub(crate) fn other(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|header| match header {
            Header::Other(known, value) if known.eq_ignore_ascii_case(name) => Some(value.trim()),
            _ => None,
        })
    }

    /// The challenges of a 401 (`proxy` false) or a 407 (`proxy` true).
    pub(crate) fn challenges(&self, proxy: bool) -> Vec<&str> {
        let values = self.headers.iter().filter_map(|header| match header {
            Header::WwwAuthenticate(value) if !proxy => Some(value.value()),
            Header::ProxyAuthenticate(value) if proxy => Some(value.value()),
            _ => None,
        });
        values.collect()
    }

    /// A numeric field: Expires, Min-Expires or Retry-After, read up to the first non-digit.
    pub(crate) fn number(&self, pick: fn(&Header) -> Option<&str>) -> Option<u32> {
        let value = self.headers.iter().find_map(pick)?.trim();
        let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        value[..end].parse().ok()
    }

    /// Whether the body is SDP: a message without Content-Type is taken for it, as no other body is used.
    pub(crate) fn is_sdp(&self) -> bool {
        let kind = self.headers.iter().find_map(|header| match header {
            Header::ContentType(value) => Some(value.value()),
            _ => None,
        });
        kind.is_none_or(|kind| {
            kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/sdp")
        })
    }
}

/// Picks Expires for [`Head::number`].
pub(crate) fn expires(header: &Header) -> Option<&str> {
    match header {
        Header::Expires(value) => Some(value.value()),
        _ => None,
    }
}

/// Picks Min-Expires for [`Head::number`].
pub(crate) fn min_expires(header: &Header) -> Option<&str> {
    match header {
        Header::MinExpires(value) => Some(value.value()),
        _ => None,
    }
}

/// Picks Retry-After for [`Head::number`].
pub(crate) fn retry_after(header: &Header) -> Option<&str> {
    match header {
        Header::RetryAfter(value) => Some(value.value()),
        _ => None,
    }
}

/// Reads a datagram.
pub(crate) fn parse(datagram: &[u8]) -> Result<Message, WireError> {
    // Without a blank line rsip takes the first header for all of them and the rest for the body.
    let blank = datagram.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(blank) = blank else { return Err(WireError::NoBlankLine) };
    let line_end = datagram.windows(2).position(|window| window == b"\r\n").unwrap_or(blank);
    if line_end == blank {
        return Err(WireError::Syntax("no header field".into()));
    }
    let line = std::str::from_utf8(&datagram[..line_end])
        .map_err(|_| WireError::Syntax("the start line is not UTF-8".into()))?;
    let syntax = |error: rsip::Error| WireError::Syntax(error.to_string());

    if line.starts_with("SIP/") {
        let SipMessage::Response(response) = SipMessage::try_from(datagram).map_err(syntax)? else {
            return Err(WireError::Syntax(format!("not a status line: {line}")));
        };
        let status = response.status_code.code();
        if !(100..700).contains(&status) {
            return Err(WireError::Syntax(format!("not a SIP status: {line}")));
        }
        let (head, body) = finish(response.headers, response.body)?;
        return Ok(Message::Response(Response { status, head, body }));
    }

    let mut words = line.split(' ');
    let (Some(method), Some(uri), Some("SIP/2.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(WireError::Syntax(format!("not a request line: {line}")));
    };
    // rsip refuses unknown methods (which must be answered 405) and IPv6 and tel URIs, and takes
    // `john.doe@host` for a host: it gets a line that it reads well, and the two words are kept as text.
    let mut plain = b"OPTIONS sip:h SIP/2.0".to_vec();
    plain.extend_from_slice(&datagram[line_end..]);
    let SipMessage::Request(request) = SipMessage::try_from(plain).map_err(syntax)? else {
        return Err(WireError::Syntax(format!("not a request line: {line}")));
    };
    let (head, body) = finish(request.headers, request.body)?;
    if head.cseq_method != method {
        return Err(WireError::Header("CSeq"));
    }
    Ok(Message::Request(Request { method: method.to_owned(), uri: uri.to_owned(), head, body }))
}

fn finish(headers: Headers, mut body: Vec<u8>) -> Result<(Head, Vec<u8>), WireError> {
    let headers: Headers = headers.into_iter().map(expand_compact).collect::<Vec<_>>().into();
    let head = head(headers)?;
    let announced = head.number(|header| match header {
        Header::ContentLength(value) => Some(value.value()),
        _ => None,
    });
    if let Some(announced) = announced {
        let announced = announced as usize;
        if announced > body.len() {
            return Err(WireError::Truncated { announced, present: body.len() });
        }
        // RFC 3261 section 18.3: what follows the body in a datagram is discarded.
        body.truncate(announced);
    }
    Ok((head, body))
}

/// rsip leaves compact names (RFC 3261 section 7.3.3) among the unknown headers.
fn expand_compact(header: Header) -> Header {
    use rsip::headers as h;
    let Header::Other(name, value) = header else { return header };
    match name.to_ascii_lowercase().as_str() {
        "v" => h::Via::new(value).into(),
        "f" => h::From::new(value).into(),
        "t" => h::To::new(value).into(),
        "i" => h::CallId::new(value).into(),
        "m" => h::Contact::new(value).into(),
        "l" => h::ContentLength::new(value).into(),
        "c" => h::ContentType::new(value).into(),
        "k" => h::Supported::new(value).into(),
        "x" => Header::Other("Session-Expires".into(), value),
        _ => Header::Other(name, value),
    }
}

fn head(headers: Headers) -> Result<Head, WireError> {
    let (mut vias, mut from_text, mut to_text, mut call_id, mut cseq) = (Vec::new(), None, None, None, None);
    for header in headers.iter() {
        match header {
            Header::Via(value) => vias.extend(text::split(value.value(), ',').into_iter().map(str::to_owned)),
            Header::From(value) => from_text = Some(value.value().to_owned()),
            Header::To(value) => to_text = Some(value.value().to_owned()),
            Header::CallId(value) => call_id = Some(value.value().trim().to_owned()),
            Header::CSeq(value) => cseq = Some(value.value().to_owned()),
            _ => {}
        }
    }
    let from_text = from_text.ok_or(WireError::Header("From"))?;
    let to_text = to_text.ok_or(WireError::Header("To"))?;
    let cseq = cseq.ok_or(WireError::Header("CSeq"))?;
    let (number, cseq_method) =
        cseq.trim().split_once(char::is_whitespace).ok_or(WireError::Header("CSeq"))?;
    if vias.is_empty() {
        return Err(WireError::Header("Via"));
    }
    Ok(Head {
        from: text::name_addr(&from_text).ok_or(WireError::Header("From"))?,
        to: text::name_addr(&to_text).ok_or(WireError::Header("To"))?,
        call_id: call_id.filter(|id| !id.is_empty()).ok_or(WireError::Header("Call-ID"))?,
        cseq: number.parse().map_err(|_| WireError::Header("CSeq"))?,
        cseq_method: cseq_method.trim().to_owned(),
        vias,
        from_text,
        to_text,
        headers,
    })
}

/// Where the response to a request goes, RFC 3261 section 18.2.2 and RFC 3581 section 4.
pub(crate) fn response_address(head: &Head, source: SocketAddr) -> SocketAddr {
    let via = head.vias.first().map_or("", String::as_str);
    if text::param(&text::split(via, ';'), "rport").is_some() {
        return source;
    }
    let port = text::socket_addr(head.sent_by()).map_or_else(
        || head.sent_by().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(5060),
        |addr| addr.port(),
    );
    SocketAddr::new(source.ip(), port)
}

/// The topmost Via with `received` and `rport` filled in, RFC 3581 section 4.
pub(crate) fn stamped_via(via: &str, source: SocketAddr) -> String {
    let parts = text::split(via, ';');
    let asked = text::param(&parts, "rport").is_some();
    let mut out = String::with_capacity(via.len() + 40);
    for (index, part) in parts.iter().enumerate() {
        let name = part.split('=').next().unwrap_or("").trim();
        if index > 0 && (name.eq_ignore_ascii_case("rport") || name.eq_ignore_ascii_case("received")) {
            continue;
        }
        if index > 0 {
            out.push(';');
        }
        out.push_str(part);
    }
    if asked {
        out.push_str(&format!(";received={};rport={}", source.ip(), source.port()));
    } else if !out.contains(&source.ip().to_string()) {
        out.push_str(&format!(";received={}", source.ip()));
    }
    out
}

/// A URI for rsip to print: parsed when rsip reads it soundly, else carried as it stands.
pub(crate) fn uri(value: &str) -> rsip::Uri {
    if let Ok(uri) = rsip::Uri::try_from(value)
        && uri.to_string() == value
    {
        return uri;
    }
    let (scheme, rest) = match value.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("sips") => (rsip::Scheme::Sips, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("sip") => (rsip::Scheme::Sip, rest),
        Some(_) | None => (rsip::Scheme::Sip, value),
    };
    rsip::Uri {
        scheme: Some(scheme),
        host_with_port: rsip::Host::Domain(rest.into()).into(),
        ..rsip::Uri::default()
    }
}

/// What a response copies from its request, RFC 3261 section 8.2.6, kept as text so that it lasts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReplyBase {
    vias: Vec<String>,
    from: String,
    to: String,
    has_tag: bool,
    pub(crate) call_id: String,
    cseq: String,
    record_routes: Vec<String>,
    /// Where it goes.
    pub(crate) to_addr: SocketAddr,
}

impl ReplyBase {
    pub(crate) fn new(head: &Head, source: SocketAddr) -> ReplyBase {
        let mut vias = head.vias.clone();
        if let Some(top) = vias.first_mut() {
            *top = stamped_via(top, source);
        }
        ReplyBase {
            vias,
            from: head.from_text.clone(),
            to: head.to_text.clone(),
            has_tag: head.to.tag.is_some(),
            call_id: head.call_id.clone(),
            cseq: format!("{} {}", head.cseq, head.cseq_method),
            record_routes: head.record_routes(),
            to_addr: response_address(head, source),
        }
    }
}

/// A response before it is printed.
pub(crate) struct Reply<'a> {
    pub(crate) status: u16,
    /// Added to To where the request had no tag; a 100 gets none.
    tag: &'a str,
    headers: Vec<Header>,
    body: Vec<u8>,
}

impl<'a> Reply<'a> {
    /// A reply without body.
    pub(crate) fn new(status: u16, tag: &'a str) -> Reply<'a> {
        Reply { status, tag, headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header field.
    pub(crate) fn with(mut self, header: impl Into<Header>) -> Reply<'a> {
        self.headers.push(header.into());
        self
    }

    /// Adds Contact and Allow, as a response that makes or keeps a dialog needs them.
    pub(crate) fn contact(self, contact: &str, allow: &str) -> Reply<'a> {
        use rsip::headers as h;
        self.with(h::Contact::new(contact)).with(h::Allow::new(allow))
    }

    /// Adds header fields that `rsip` has no name for.
    pub(crate) fn extra(mut self, fields: Vec<(String, String)>) -> Reply<'a> {
        self.headers.extend(fields.into_iter().map(|(name, value)| Header::Other(name, value)));
        self
    }

    /// Adds an SDP body.
    pub(crate) fn sdp(mut self, body: String) -> Reply<'a> {
        self.body = body.into_bytes();
        self.with(rsip::headers::ContentType::new("application/sdp"))
    }

    /// The bytes to send.
    pub(crate) fn print(self, base: &ReplyBase) -> Vec<u8> {
        use rsip::headers as h;
        let mut headers = Headers::default();
        headers.extend(base.vias.iter().map(|via| h::Via::new(via.clone()).into()).collect());
        if self.status > 100 && self.status < 300 {
            let routes = base.record_routes.iter();
            headers.extend(routes.map(|route| h::RecordRoute::new(route.clone()).into()).collect());
        }
        headers.push(h::From::new(base.from.clone()).into());
        let add_tag = !base.has_tag && self.status > 100;
        let tag = if add_tag { format!(";tag={}", self.tag) } else { String::new() };
        headers.push(h::To::new(format!("{}{tag}", base.to)).into());
        headers.push(h::CallId::new(base.call_id.clone()).into());
        headers.push(h::CSeq::new(base.cseq.clone()).into());
        headers.extend(self.headers);
        headers.push(h::ContentLength::from(self.body.len() as u32).into());
        let response = rsip::Response {
            // rsip prints its own names for the statuses it knows: "486 BusyHere".
            status_code: rsip::StatusCode::Other(self.status, reason(self.status).into()),
            version: rsip::Version::V2,
            headers,
            body: self.body,
        };
        response.into()
    }
}

/// The reason phrase of a status, RFC 3261 section 21.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        183 => "Session Progress",
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        415 => "Unsupported Media Type",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        _ => match status / 100 {
            1 => "Progress",
            2 => "Success",
            3 => "Redirection",
            4 => "Client Error",
            5 => "Server Error",
            _ => "Global Error",
        },
    }
}
