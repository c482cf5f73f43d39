//! SIP messages: a zero-copy parser and a builder (RFC 3261 sections 7, 20 and 25).
//!
//! [`Message::parse`] keeps the datagram and remembers offsets; what it returns are views of it. It checks what
//! every user depends on: the start line, the topmost Via, From, To, Call-ID, CSeq and Content-Length, and
//! that those stand once. Every other header is read when it is asked for.

mod address;
mod body;
pub mod build;
pub mod feedback;
pub mod framing;
pub mod header;
mod malformed;
pub mod method;
mod number;
mod parse;
mod reason;
mod replaces;
#[cfg(test)]
pub(crate) mod sample;
mod stamp;
mod syntax;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod torture;
pub mod uri;
mod usual;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

pub use address::{Contacts, NameAddr, Via};
pub use body::{ACCEPT, NotUnderstood};
pub use build::{Builder, bad_request, reason_phrase, response_to, stamp_via};
pub use framing::{is_keepalive, peek_call_id, peek_registered_user, peek_to_tag};
pub use header::Header;
pub use malformed::{Answerable, BadHeader, BadUri, Malformed, MalformedKind};
pub use method::Method;
pub use reason::reason_of;
pub use replaces::{BadReplaces, Replaces};
pub use uri::{Uri, escape_user};

/// How much of a message is accepted. More than that is refused with 513.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of the whole message.
    pub max_bytes: usize,
    /// Bytes of the start line, and of one header with its folds.
    pub max_header_line: usize,
    /// Header lines, folds not counted.
    pub max_headers: usize,
    /// Via values.
    pub max_vias: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_bytes: 65_535, max_header_line: 8192, max_headers: 256, max_vias: 70 }
    }
}

impl Limits {
    /// For a message of our own, or one that was accepted before, under limits that are no longer known.
    pub const NONE: Limits = Limits {
        max_bytes: usize::MAX,
        max_header_line: usize::MAX,
        max_headers: usize::MAX,
        max_vias: usize::MAX,
    };
}

/// A parsed SIP message. A clone shares the bytes and the offsets.
///
/// It is serialised as its bytes, and parsed again when it is deserialised.
#[derive(Clone)]
pub struct Message {
    inner: Arc<Inner>,
}

struct Inner {
    raw: Bytes,
    parts: parse::Parts,
}

impl Message {
    /// Parses a whole datagram. Line ends before the start line are skipped. The body is as long as
    /// Content-Length says, or all that is left if it says nothing; bytes after it are ignored (RFC 3261 section 18.3).
    ///
    /// # Errors
    /// [`Malformed`], with what is needed to answer it where that could be read.
    pub fn parse(datagram: Bytes, limits: &Limits) -> Result<Message, Malformed> {
        match parse::read(&datagram, limits) {
            Ok(parts) => Ok(Message { inner: Arc::new(Inner { raw: datagram, parts }) }),
            Err(why) => Err(Malformed { why, answer: malformed::answerable(&datagram, limits) }),
        }
    }

    fn head(&self) -> &str {
        &self.inner.parts.head
    }

    fn checked(&self, address: parse::Span) -> NameAddr<'_> {
        // Checked when the message was parsed, so the default is never seen.
        NameAddr::split(address.of(self.head())).map(|(address, _)| address).unwrap_or_default()
    }

    /// The datagram as it was received, folds and surplus bytes included.
    pub fn raw(&self) -> &Bytes {
        &self.inner.raw
    }

    /// Whether it is a request and not a response.
    pub fn is_request(&self) -> bool {
        self.inner.parts.status == 0
    }

    /// The method of a request; of a response that of its CSeq.
    pub fn method(&self) -> Method {
        self.inner.parts.method
    }

    /// The name of the [method](Message::method) as it was sent.
    pub fn method_name(&self) -> &str {
        self.inner.parts.method_name.of(self.head())
    }

    /// The Request-URI, which [`Uri::parse`] accepts; "" for a response.
    pub fn request_uri(&self) -> &str {
        self.inner.parts.uri.of(self.head())
    }

    /// The status code, 100 to 699; 0 for a request.
    pub fn status(&self) -> u16 {
        self.inner.parts.status
    }

    /// The reason phrase; "" for a request.
    pub fn reason(&self) -> &str {
        self.inner.parts.reason.of(self.head())
    }

    /// The first line of that header, trimmed; a fold has become spaces.
    pub fn header(&self, h: Header) -> Option<&str> {
        self.headers(h).next()
    }

    /// Every line of that header, trimmed. For [`Header::Other`]: every line of an unknown name.
    pub fn headers(&self, h: Header) -> impl Iterator<Item = &str> {
        let head = self.head();
        self.inner.parts.lines.iter().filter(move |line| line.header == h).map(move |line| line.value(head))
    }

    /// Every value of that header: its lines split at the commas outside quotes and angle brackets, trimmed, empty ones dropped.
    ///
    /// Not for headers in which a comma does not separate values: challenges, credentials, `Date`.
    pub fn values(&self, h: Header) -> impl Iterator<Item = &str> {
        self.headers(h).flat_map(|line| syntax::split(line, b',')).filter(|value| !value.is_empty())
    }

    /// Every line of the header of that name, known or not, without regard to case; compact forms are the same name.
    pub fn other<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        let head = self.head();
        let wanted = Header::parse(name);
        let long = header::long_name(name);
        let is_it = move |line: &&parse::Line| {
            line.header == wanted
                && (wanted != Header::Other || header::long_name(line.name(head)).eq_ignore_ascii_case(long))
        };
        self.inner.parts.lines.iter().filter(is_it).map(move |line| line.value(head))
    }

    /// Every header line in order.
    fn lines(&self) -> impl Iterator<Item = (Header, &str)> {
        let head = self.head();
        self.inner.parts.lines.iter().map(move |line| (line.header, line.value(head)))
    }

    /// The values of From, To and Call-ID.
    fn names(&self) -> (&str, &str, &str) {
        let (head, parts) = (self.head(), &self.inner.parts);
        (parts.from.of(head), parts.to.of(head), parts.call_id.of(head))
    }

    /// Every header line in order: (name as sent, value).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let head = self.head();
        self.inner.parts.lines.iter().map(move |line| (line.name(head), line.value(head)))
    }

    /// The Call-ID; never empty.
    pub fn call_id(&self) -> &str {
        self.inner.parts.call_id.of(self.head())
    }

    /// The sequence number of the CSeq, below 2^31.
    pub fn cseq(&self) -> u32 {
        self.inner.parts.cseq
    }

    /// The From header.
    pub fn from(&self) -> NameAddr<'_> {
        self.checked(self.inner.parts.from)
    }

    /// The To header.
    pub fn to(&self) -> NameAddr<'_> {
        self.checked(self.inner.parts.to)
    }

    /// The tag of the From header. A client of RFC 2543 sends none.
    pub fn from_tag(&self) -> Option<&str> {
        self.found(self.inner.parts.from_tag)
    }

    /// The tag of the To header.
    pub fn to_tag(&self) -> Option<&str> {
        self.found(self.inner.parts.to_tag)
    }

    /// The branch of the topmost Via, if it is there and not empty.
    pub fn branch(&self) -> Option<&str> {
        self.found(self.inner.parts.branch)
    }

    /// [`Message::branch`], if it names the transaction on its own; see [`Via::unique_branch`].
    pub fn unique_branch(&self) -> Option<&str> {
        self.branch().filter(|branch| address::is_unique(branch))
    }

    /// What was found when the message was parsed; an empty place is none.
    fn found(&self, place: parse::Span) -> Option<&str> {
        Some(place.of(self.head())).filter(|text| !text.is_empty())
    }

    /// The topmost Via value.
    pub fn via(&self) -> Via<'_> {
        self.inner.parts.via_parts.view(self.head())
    }

    /// The topmost Via value as it was sent.
    fn top_via(&self) -> &str {
        self.inner.parts.via.of(self.head())
    }

    /// The Contact headers.
    ///
    /// # Errors
    /// If one does not fit the grammar, or `*` is not alone.
    pub fn contacts(&self) -> Result<Contacts<'_>, BadHeader> {
        let mut list = SmallVec::new();
        let mut star = false;
        for value in self.values(Header::Contact) {
            if star || (value == "*" && !list.is_empty()) {
                return Err(BadHeader::Star);
            }
            if value == "*" {
                star = true;
            } else {
                list.push(NameAddr::parse(value)?);
            }
        }
        match (star, list.is_empty()) {
            (true, _) => Ok(Contacts::Star),
            (false, true) => Ok(Contacts::None),
            (false, false) => Ok(Contacts::List(list)),
        }
    }

    /// Max-Forwards, if it is there.
    ///
    /// # Errors
    /// [`BadHeader::Number`] if it is not a number from 0 to 255 (RFC 3261 section 20.22).
    pub fn max_forwards(&self) -> Option<Result<u8, BadHeader>> {
        let value = self.header(Header::MaxForwards)?;
        let number = syntax::decimal(value).and_then(|n| u8::try_from(n).ok());
        Some(number.ok_or(BadHeader::Number))
    }

    /// Retry-After, in seconds, without its comment and parameters; `None` if it is not there or no number.
    pub fn retry_after(&self) -> Option<u32> {
        let digits = self.header(Header::RetryAfter)?.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    }

    /// Expires, in seconds; `None` if it is not there or not a number below 2^32.
    pub fn expires(&self) -> Option<u32> {
        syntax::decimal(self.header(Header::Expires)?).and_then(|n| u32::try_from(n).ok())
    }

    /// The body; its bytes are not checked.
    pub fn body(&self) -> &[u8] {
        let parts = &self.inner.parts;
        &self.inner.raw[parts.body_start..parts.body_end]
    }

    /// The body as a share of the datagram.
    pub fn body_bytes(&self) -> Bytes {
        let parts = &self.inner.parts;
        self.inner.raw.slice(parts.body_start..parts.body_end)
    }

    /// Whether the comma list of that header (`Supported`, `Require`, `Allow`, ...) holds the token, without regard to case.
    pub fn has_token(&self, h: Header, token: &str) -> bool {
        self.values(h).any(|value| value.eq_ignore_ascii_case(token))
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Message").field(&self.inner.raw).finish()
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.inner.raw == other.inner.raw
    }
}

impl Eq for Message {}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.inner.raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Message, D::Error> {
        let raw = Bytes::deserialize(deserializer)?;
        Message::parse(raw, &Limits::NONE).map_err(serde::de::Error::custom)
    }
}
