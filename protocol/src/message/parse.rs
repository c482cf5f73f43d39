//! From a datagram to offsets: one pass over the header lines, then the checks that every user depends on.

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

use super::Limits;
use super::address::{NameAddr, Via};
use super::header::Header;
use super::malformed::{BadHeader, BadUri, MalformedKind};
use super::method::Method;
use super::syntax::{
    TOKEN, all, decimal, first_line_end, head_len, is_token, split, trim, trim_start, unfold,
};
use super::uri::Uri;

/// What an offset can hold: small offsets keep the table of lines small, and no header section comes near it.
const MAX_HEAD: usize = u16::MAX as usize;

/// A range of the header section.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    start: u16,
    end: u16,
}

impl Span {
    fn new(start: usize, end: usize) -> Span {
        // Cannot truncate: `scan` refuses a header section beyond MAX_HEAD.
        Span { start: start as u16, end: end as u16 }
    }

    /// The place of a part of `head`, which must be one.
    fn within(head: &str, part: &str) -> Span {
        // The distance of their addresses is its offset.
        let start = part.as_ptr().addr() - head.as_ptr().addr();
        Span::new(start, start + part.len())
    }

    pub(super) fn of(self, head: &str) -> &str {
        &head[usize::from(self.start)..usize::from(self.end)]
    }
}

/// Where the parts of a Via are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ViaParts {
    transport: Span,
    host: Span,
    port: Option<u16>,
    params: Span,
}

impl ViaParts {
    fn of(head: &str, via: Via<'_>) -> ViaParts {
        let at = |part| Span::within(head, part);
        ViaParts { transport: at(via.transport), host: at(via.host), port: via.port, params: at(via.params) }
    }

    pub(super) fn view(self, head: &str) -> Via<'_> {
        let of = |part: Span| part.of(head);
        Via { transport: of(self.transport), host: of(self.host), port: self.port, params: of(self.params) }
    }
}

/// One header line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) header: Header,
    name_len: u16,
    name_start: u16,
    value: Span,
}

impl Line {
    pub(super) fn name(self, head: &str) -> &str {
        let start = usize::from(self.name_start);
        &head[start..start + usize::from(self.name_len)]
    }

    pub(super) fn value(self, head: &str) -> &str {
        self.value.of(head)
    }
}

/// As many lines as nearly every message has, so that they need no allocation of their own.
pub(super) type Lines = SmallVec<[Line; 24]>;

/// A parsed message without its bytes.
pub(super) struct Parts {
    pub(super) head: ByteString,
    pub(super) lines: Lines,
    pub(super) method: Method,
    pub(super) method_name: Span,
    pub(super) uri: Span,
    pub(super) status: u16,
    pub(super) reason: Span,
    pub(super) from: Span,
    pub(super) to: Span,
    pub(super) call_id: Span,
    pub(super) via: Span,
    /// The parts of the topmost Via, for it is asked for several times.
    pub(super) via_parts: ViaParts,
    /// The tag of From and of To, and the branch of the topmost Via; empty where there is none.
    pub(super) from_tag: Span,
    pub(super) to_tag: Span,
    pub(super) branch: Span,
    pub(super) cseq: u32,
    /// The headers say plainly that the body is a session description and nothing else.
    pub(super) is_sdp: bool,
    pub(super) body_start: usize,
    pub(super) body_end: usize,
}

pub(super) fn read(datagram: &Bytes, limits: &Limits) -> Result<Parts, MalformedKind> {
    if datagram.len() > limits.max_bytes {
        return Err(MalformedKind::TooLarge(datagram.len()));
    }
    let start = datagram.iter().position(|b| !matches!(b, b'\r' | b'\n')).ok_or(MalformedKind::Empty)?;
    let mut lines = Lines::new();
    let message = &datagram[start..];
    let (head, scanned) = match scan(message, limits, &mut lines)? {
        Some(scanned) => (datagram.slice(start..start + scanned.head_len), scanned),
        None => {
            let len = head_len(message).ok_or(MalformedKind::Unterminated)?;
            if folds_a_name(&message[..len]) {
                return Err(MalformedKind::HeaderLine);
            }
            let copy = Bytes::from(unfold(&message[..len]));
            lines.clear();
            let scanned = scan(&copy, limits, &mut lines)?.ok_or(MalformedKind::HeaderLine)?;
            (copy.slice(..scanned.head_len), scanned)
        }
    };
    let head = ByteString::try_from(head).map_err(|_| MalformedKind::Encoding)?;
    let line = &head[..scanned.start_line];
    let start_line = start_line(line)?;
    let singles = Singles::collect(&head, &lines, limits)?;
    let body_start = start + scanned.head_len;
    let mut parts = Parts {
        method: start_line.method,
        method_name: start_line.method_name,
        uri: start_line.uri,
        status: start_line.status,
        reason: start_line.reason,
        from: singles.from.ok_or(MalformedKind::Missing(Header::From))?,
        to: singles.to.ok_or(MalformedKind::Missing(Header::To))?,
        call_id: singles.call_id.ok_or(MalformedKind::Missing(Header::CallId))?,
        via: singles.via.ok_or(MalformedKind::Missing(Header::Via))?,
        via_parts: ViaParts::default(),
        from_tag: Span::default(),
        to_tag: Span::default(),
        branch: Span::default(),
        cseq: 0,
        is_sdp: singles.content_type.is_some_and(|kind| kind.of(&head) == "application/sdp")
            && !singles.encoded,
        body_start,
        body_end: datagram.len(),
        head,
        lines,
    };
    parts.check_addresses()?;
    parts.check_call_id()?;
    parts.read_cseq(singles.cseq.ok_or(MalformedKind::Missing(Header::CSeq))?)?;
    if let Some(length) = singles.content_length {
        let length = bad(Header::ContentLength, number(length.of(&parts.head)))?;
        let end = usize::try_from(length).ok().and_then(|n| body_start.checked_add(n));
        parts.body_end = end.filter(|&end| end <= datagram.len()).ok_or(MalformedKind::Truncated)?;
    }
    Ok(parts)
}

struct Scanned {
    start_line: usize,
    head_len: usize,
}

/// Finds the lines; `None` if one is folded, in which case the header section must be unfolded first.
fn scan(message: &[u8], limits: &Limits, lines: &mut Lines) -> Result<Option<Scanned>, MalformedKind> {
    let start_line = line_end(message, 0)?;
    if start_line.0 > limits.max_header_line.min(MAX_HEAD) {
        return Err(MalformedKind::LineTooLong);
    }
    let mut at = start_line.1;
    if matches!(message.get(at), Some(b' ' | b'\t')) {
        return Err(MalformedKind::StartLine);
    }
    loop {
        let (end, next) = line_end(message, at)?;
        if next > MAX_HEAD {
            return Err(MalformedKind::TooLarge(message.len()));
        }
        if end == at {
            return Ok(Some(Scanned { start_line: start_line.0, head_len: next }));
        }
        if matches!(message.get(next), Some(b' ' | b'\t')) {
            return Ok(None);
        }
        if end - at > limits.max_header_line {
            return Err(MalformedKind::LineTooLong);
        }
        if lines.len() == limits.max_headers {
            return Err(MalformedKind::TooManyHeaders);
        }
        lines.push(header_line(message, at, end)?);
        at = next;
    }
}

/// Whether a header is folded before its colon, where no line may end (HCOLON, RFC 3261 section 25.1). Who looks for the
/// Call-ID without parsing would not find it.
fn folds_a_name(head: &[u8]) -> bool {
    let mut named = true;
    head.split(|&b| b == b'\n').skip(1).any(|line| {
        let continues = matches!(line.first(), Some(b' ' | b'\t'));
        if !continues {
            named = memchr::memchr(b':', line).is_some();
        }
        continues && !named
    })
}

/// Where the line that starts at `at` ends and where the next one starts. A bare LF ends a line too; a bare CR never does.
fn line_end(message: &[u8], at: usize) -> Result<(usize, usize), MalformedKind> {
    let end = at + first_line_end(&message[at..]).ok_or(MalformedKind::Unterminated)?;
    match (message[end], message.get(end + 1)) {
        (b'\n', _) => Ok((end, end + 1)),
        (_, Some(b'\n')) => Ok((end, end + 2)),
        (_, None) => Err(MalformedKind::Unterminated),
        (_, Some(_)) => Err(MalformedKind::HeaderLine),
    }
}

fn header_line(message: &[u8], at: usize, end: usize) -> Result<Line, MalformedKind> {
    let is_space = |b: u8| matches!(b, b' ' | b'\t');
    let line = &message[at..end];
    let colon = line.iter().position(|&b| b == b':').ok_or(MalformedKind::HeaderLine)?;
    let mut name = &line[..colon];
    while let [rest @ .., last] = name
        && is_space(*last)
    {
        name = rest;
    }
    let header = Header::from_bytes(name);
    // A known name needs no look at its characters.
    if header == Header::Other && (name.is_empty() || !all(name, TOKEN)) {
        return Err(MalformedKind::HeaderLine);
    }
    let mut value = (colon + 1, line.len());
    while value.0 < value.1 && is_space(line[value.0]) {
        value.0 += 1;
    }
    while value.0 < value.1 && is_space(line[value.1 - 1]) {
        value.1 -= 1;
    }
    Ok(Line {
        header,
        name_len: name.len() as u16,
        name_start: at as u16,
        value: Span::new(at + value.0, at + value.1),
    })
}

struct StartLine {
    method: Method,
    method_name: Span,
    uri: Span,
    status: u16,
    reason: Span,
}

fn start_line(line: &str) -> Result<StartLine, MalformedKind> {
    if line.get(..4).is_some_and(|s| s.eq_ignore_ascii_case("SIP/")) {
        status_line(line)
    } else {
        request_line(line)
    }
}

fn request_line(line: &str) -> Result<StartLine, MalformedKind> {
    let bytes = line.as_bytes();
    let method_end = memchr::memchr(b' ', bytes).ok_or(MalformedKind::StartLine)?;
    let uri_start = method_end + 1;
    let uri_end = uri_start + memchr::memchr(b' ', &bytes[uri_start..]).ok_or(MalformedKind::StartLine)?;
    let (method, uri, version) = (&line[..method_end], &line[uri_start..uri_end], &line[uri_end + 1..]);
    if !is_token(method) || uri.is_empty() {
        return Err(MalformedKind::StartLine);
    }
    check_version(version)?;
    let parsed = Uri::parse(uri).map_err(MalformedKind::RequestUri)?;
    if !parsed.headers.is_empty() {
        return Err(MalformedKind::RequestUri(BadUri::Headers));
    }
    Ok(StartLine {
        method: Method::parse(method),
        method_name: Span::new(0, method_end),
        uri: Span::new(uri_start, uri_end),
        status: 0,
        reason: Span::default(),
    })
}

fn check_version(version: &str) -> Result<(), MalformedKind> {
    if version.eq_ignore_ascii_case("SIP/2.0") {
        return Ok(());
    }
    let numbers = version
        .get(..4)
        .filter(|s| s.eq_ignore_ascii_case("SIP/"))
        .and_then(|_| version[4..].split_once('.'));
    match numbers {
        Some((major, minor)) if decimal(major).is_some() && decimal(minor).is_some() => {
            Err(MalformedKind::Version)
        }
        _ => Err(MalformedKind::StartLine),
    }
}

fn status_line(line: &str) -> Result<StartLine, MalformedKind> {
    let version_end = memchr::memchr(b' ', line.as_bytes()).ok_or(MalformedKind::StartLine)?;
    check_version(&line[..version_end])?;
    let rest = &line[version_end + 1..];
    // The space before an empty reason phrase is mandatory, but is often left out.
    let code_len = memchr::memchr(b' ', rest.as_bytes()).unwrap_or(rest.len());
    let status = decimal(&rest[..code_len])
        .filter(|code| code_len == 3 && (100..700).contains(code))
        .and_then(|code| u16::try_from(code).ok())
        .ok_or(MalformedKind::StatusCode)?;
    let reason_start = (version_end + 1 + code_len + 1).min(line.len());
    Ok(StartLine {
        method: Method::Other,
        method_name: Span::default(),
        uri: Span::default(),
        status,
        reason: Span::new(reason_start, line.len()),
    })
}

/// The values of the headers that may appear once, and the topmost Via.
#[derive(Default)]
struct Singles {
    from: Option<Span>,
    to: Option<Span>,
    call_id: Option<Span>,
    cseq: Option<Span>,
    max_forwards: Option<Span>,
    content_length: Option<Span>,
    /// The first of them.
    content_type: Option<Span>,
    encoded: bool,
    via: Option<Span>,
}

impl Singles {
    fn collect(head: &str, lines: &Lines, limits: &Limits) -> Result<Singles, MalformedKind> {
        let mut singles = Singles::default();
        let mut vias = 0;
        for line in lines {
            let place = match line.header {
                Header::From => &mut singles.from,
                Header::To => &mut singles.to,
                Header::CallId => &mut singles.call_id,
                Header::CSeq => &mut singles.cseq,
                Header::MaxForwards => &mut singles.max_forwards,
                Header::ContentLength => &mut singles.content_length,
                Header::ContentType => {
                    singles.content_type.get_or_insert(line.value);
                    continue;
                }
                Header::ContentEncoding => {
                    singles.encoded = true;
                    continue;
                }
                Header::Via => {
                    vias += singles.add_via(head, line.value);
                    if vias > limits.max_vias {
                        return Err(MalformedKind::TooManyVias);
                    }
                    continue;
                }
                _ => continue,
            };
            if place.replace(line.value).is_some() {
                return Err(MalformedKind::Repeated(line.header));
            }
        }
        Ok(singles)
    }

    /// Counts the values of a Via line and keeps the first of all.
    fn add_via(&mut self, head: &str, value: Span) -> usize {
        let text = value.of(head);
        if memchr::memchr(b',', text.as_bytes()).is_none() {
            self.via.get_or_insert(value);
            return usize::from(!text.is_empty());
        }
        let mut count = 0;
        for item in split(text, b',') {
            self.via.get_or_insert(Span::within(head, item));
            count += usize::from(!item.is_empty());
        }
        count
    }
}

fn bad<T>(header: Header, result: Result<T, BadHeader>) -> Result<T, MalformedKind> {
    result.map_err(|why| MalformedKind::Header { header, why })
}

fn number(text: &str) -> Result<u64, BadHeader> {
    decimal(text).ok_or(BadHeader::Number)
}

impl Parts {
    fn check_addresses(&mut self) -> Result<(), MalformedKind> {
        self.from_tag = self.check_address(Header::From, self.from)?;
        self.to_tag = self.check_address(Header::To, self.to)?;
        let (via, branch) = bad(Header::Via, Via::check(self.via.of(&self.head)))?;
        self.via_parts = ViaParts::of(&self.head, via);
        let branch = branch.filter(|branch| !branch.is_empty());
        self.branch = branch.map(|branch| Span::within(&self.head, branch)).unwrap_or_default();
        Ok(())
    }

    /// Checks From or To and finds its tag.
    fn check_address(&self, header: Header, span: Span) -> Result<Span, MalformedKind> {
        let (_, tag) = bad(header, NameAddr::parse_with_uri(span.of(&self.head)))?;
        match tag {
            // An answer adds a tag to a To that has none, and cannot to one that has half of one.
            Some("") => bad(header, Err(BadHeader::Parameter)),
            Some(tag) => Ok(Span::within(&self.head, tag)),
            None => Ok(Span::default()),
        }
    }

    fn check_call_id(&self) -> Result<(), MalformedKind> {
        let call_id = self.call_id.of(&self.head);
        let fits = !call_id.is_empty() && call_id.bytes().all(|b| b.is_ascii_graphic());
        bad(Header::CallId, if fits { Ok(()) } else { Err(BadHeader::Value) })
    }

    /// Reads the CSeq, which must fit the request, or gives a response its method (RFC 3261 section 20.16).
    fn read_cseq(&mut self, span: Span) -> Result<(), MalformedKind> {
        let text = span.of(&self.head);
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let sequence = bad(Header::CSeq, number(&text[..digits]))?;
        let sequence = u32::try_from(sequence).ok().filter(|&n| n < 1 << 31);
        self.cseq = bad(Header::CSeq, sequence.ok_or(BadHeader::Number))?;
        let method = trim_start(&text[digits..]);
        if method.len() == text.len() - digits || !is_token(trim(method)) {
            return bad(Header::CSeq, Err(BadHeader::Method));
        }
        if self.status == 0 {
            return if method == self.method_name.of(&self.head) {
                Ok(())
            } else {
                Err(MalformedKind::MethodMismatch)
            };
        }
        self.method = Method::parse(method);
        self.method_name = Span { start: span.end - method.len() as u16, end: span.end };
        Ok(())
    }
}
