//! Why a message was refused, and what can still be said to its sender.

use super::Limits;
use super::header::Header;
use super::syntax::{head_len, is_token, trim, unfold};

/// Why a URI was refused (RFC 3261 section 19.1, RFC 3986).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUri {
    /// There is no scheme, or nothing after it.
    #[error("no scheme")]
    Scheme,
    /// A character that must be escaped, or an escape that is not `%` and two hexadecimal digits.
    #[error("character not allowed")]
    Character,
    /// The user part is empty or has a character that is not allowed there.
    #[error("bad user part")]
    User,
    /// The host or the port.
    #[error("bad host or port")]
    Host,
    /// Header components where none are allowed, as in a Request-URI.
    #[error("header components not allowed")]
    Headers,
}

/// Why a header value was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// A quoted string does not end.
    #[error("unclosed quote")]
    UnclosedQuote,
    /// A `<` has no `>`, or the other way round.
    #[error("unclosed angle bracket")]
    UnclosedBracket,
    /// An unquoted display name has characters that need quotes.
    #[error("bad display name")]
    DisplayName,
    /// A parameter is empty, has a bad name or a bad value.
    #[error("bad parameter")]
    Parameter,
    /// The URI.
    #[error("bad URI: {0}")]
    Uri(#[from] BadUri),
    /// `*` together with other values (RFC 3261 section 20.10).
    #[error("'*' is not alone")]
    Star,
    /// Not a number, or one out of range.
    #[error("bad number")]
    Number,
    /// The method of a CSeq.
    #[error("bad method")]
    Method,
    /// The protocol of a Via is not SIP/2.0 over something.
    #[error("bad sent-protocol")]
    SentProtocol,
    /// The host or port of a Via.
    #[error("bad sent-by")]
    SentBy,
    /// The value is empty, or has characters not allowed in it.
    #[error("bad value")]
    Value,
}

/// What was wrong with a datagram.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedKind {
    /// Nothing but line ends.
    #[error("empty")]
    Empty,
    /// More bytes than [`Limits::max_bytes`].
    #[error("message of {0} bytes is too large")]
    TooLarge(usize),
    /// A header line, folds included, or the start line is longer than [`Limits::max_header_line`].
    #[error("header line too long")]
    LineTooLong,
    /// More header lines than [`Limits::max_headers`].
    #[error("too many header lines")]
    TooManyHeaders,
    /// More Via values than [`Limits::max_vias`].
    #[error("too many Via values")]
    TooManyVias,
    /// No empty line after the headers.
    #[error("header section does not end")]
    Unterminated,
    /// The header section is not UTF-8.
    #[error("headers are not UTF-8")]
    Encoding,
    /// Neither a Request-Line nor a Status-Line.
    #[error("bad start line")]
    StartLine,
    /// A SIP version other than 2.0.
    #[error("SIP version not supported")]
    Version,
    /// A status code other than 100 to 699.
    #[error("bad status code")]
    StatusCode,
    /// The Request-URI.
    #[error("bad Request-URI: {0}")]
    RequestUri(BadUri),
    /// A line that is not `name: value`, or has a carriage return within.
    #[error("bad header line")]
    HeaderLine,
    /// A mandatory header is not there.
    #[error("missing {}", .0.name())]
    Missing(Header),
    /// A header that may appear once appears again.
    #[error("repeated {}", .0.name())]
    Repeated(Header),
    /// The value of a header that every message depends on.
    #[error("bad {}: {why}", .header.name())]
    Header {
        /// Which header.
        header: Header,
        /// What is wrong with it.
        why: BadHeader,
    },
    /// The method of the CSeq is not that of the request.
    #[error("CSeq method differs from the request's")]
    MethodMismatch,
    /// Content-Length is more than the datagram holds (RFC 3261 section 18.3).
    #[error("Content-Length is larger than the body")]
    Truncated,
}

/// A datagram that is not a SIP message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Malformed {
    /// What was wrong.
    pub why: MalformedKind,
    /// What a response needs, if it is a request of which that much could be read. An ACK must not be answered.
    pub answer: Option<Box<Answerable>>,
}

impl Malformed {
    /// The status to answer: 513 if a limit was passed, 505 for another version, else 400 (RFC 3261 section 21).
    pub fn status(&self) -> u16 {
        match self.why {
            MalformedKind::TooLarge(_)
            | MalformedKind::LineTooLong
            | MalformedKind::TooManyHeaders
            | MalformedKind::TooManyVias => 513,
            MalformedKind::Version => 505,
            MalformedKind::Empty
            | MalformedKind::Unterminated
            | MalformedKind::Encoding
            | MalformedKind::StartLine
            | MalformedKind::StatusCode
            | MalformedKind::RequestUri(_)
            | MalformedKind::HeaderLine
            | MalformedKind::Missing(_)
            | MalformedKind::Repeated(_)
            | MalformedKind::Header { .. }
            | MalformedKind::MethodMismatch
            | MalformedKind::Truncated => 400,
        }
    }
}

/// The headers that a response copies (RFC 3261 section 8.2.6.2), taken from a malformed request as they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answerable {
    /// Every Via line, in order.
    pub via: Vec<String>,
    /// The first From line.
    pub from: String,
    /// The first To line.
    pub to: String,
    /// The first Call-ID line.
    pub call_id: String,
    /// The first CSeq line.
    pub cseq: String,
    /// Always true: a response is never answered.
    pub is_request: bool,
    /// The method of the start line.
    pub method_name: String,
}

/// Reads what it can of a datagram that was refused; at most `limits` of it.
pub(super) fn answerable(datagram: &[u8], limits: &Limits) -> Option<Box<Answerable>> {
    let cut = datagram.len() > limits.max_bytes;
    let datagram = &datagram[..datagram.len().min(limits.max_bytes)];
    let start = datagram.iter().position(|b| !matches!(b, b'\r' | b'\n'))?;
    let message = &datagram[start..];
    // Of a header section that was cut, a Via could be missing, and the answer would go astray.
    let len = head_len(message).or((!cut).then_some(message.len()))?;
    let head = unfold(&message[..len]);
    let mut lines = head.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));

    let first = std::str::from_utf8(lines.next()?).ok()?;
    let method_name = first.split([' ', '\t']).next().filter(|method| is_token(method))?;
    let (mut via, mut from, mut to, mut call_id, mut cseq) = (Vec::new(), None, None, None, None);
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let header = Header::from_bytes(super::syntax::trim_bytes(&line[..colon]));
        let place = match header {
            Header::Via => {
                // All of them, however many: the answer finds its way back by them, and is no longer than what it answers.
                via.push(text(&line[colon + 1..], limits)?);
                continue;
            }
            Header::From => &mut from,
            Header::To => &mut to,
            Header::CallId => &mut call_id,
            Header::CSeq => &mut cseq,
            _ => continue,
        };
        if place.is_none() {
            *place = Some(text(&line[colon + 1..], limits)?);
        }
    }
    if via.is_empty() {
        return None;
    }
    Some(Box::new(Answerable {
        via,
        from: from?,
        to: to?,
        call_id: call_id?,
        cseq: cseq?,
        is_request: true,
        method_name: method_name.to_owned(),
    }))
}

fn text(value: &[u8], limits: &Limits) -> Option<String> {
    let value = trim(std::str::from_utf8(value).ok()?);
    (!value.is_empty() && value.len() <= limits.max_header_line).then(|| value.to_owned())
}
