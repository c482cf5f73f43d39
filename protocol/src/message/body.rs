//! What a body is: a session description, one that has it as a part (RFC 5621, RFC 2046 §5.1), or something that is not understood
//! (RFC 3261 §8.2.3). Carriers put what the session description is not, as ISUP or a place (RFC 6442), beside it.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use super::syntax::{param, split, trim};
use super::{Header, Message};

/// The types of bodies that are understood, as `Accept` says them.
pub const ACCEPT: &str = "application/sdp, multipart/mixed, multipart/alternative";
/// Parts of a body; one with more is not read.
const MOST_PARTS: usize = 16;
/// RFC 2046 §5.1.1: the longest boundary.
const LONGEST_BOUNDARY: usize = 70;

/// Why a body is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUnderstood {
    /// It is, or a part of it that must be understood is, of another type: 415 with `Accept`.
    #[error("the type of the body is not understood")]
    Type,
    /// It is encoded: 415 with `Accept-Encoding`.
    #[error("the coding of the body is not understood")]
    Coding,
    /// Its parts cannot be told from each other: 400.
    #[error("the parts of the body are malformed")]
    Malformed,
}

/// A body or a part of one, as its headers describe it.
struct Part<'a> {
    /// The value of Content-Type.
    kind: Cow<'a, str>,
    /// It is as it was written.
    plain: bool,
    /// It may be left unread (`handling=optional`).
    optional: bool,
    at: Range<usize>,
}

impl Part<'_> {
    fn media_type(&self) -> &str {
        let end = memchr::memchr(b';', self.kind.as_bytes()).unwrap_or(self.kind.len());
        trim(&self.kind[..end])
    }

    fn is(&self, media_type: &str) -> bool {
        let own = self.media_type();
        own == media_type || own.eq_ignore_ascii_case(media_type)
    }

    fn is_sdp(&self) -> bool {
        self.plain && self.is("application/sdp")
    }

    fn has_parts(&self) -> bool {
        self.plain && (self.is("multipart/mixed") || self.is("multipart/alternative"))
    }

    /// The parts of a multipart body.
    fn parts<'b>(&self, body: &'b [u8]) -> Result<Vec<Part<'b>>, NotUnderstood> {
        let params = self.kind.split_once(';').map_or("", |(_, params)| params);
        let boundary = param(params, "boundary").filter(|b| (1..=LONGEST_BOUNDARY).contains(&b.len()));
        parts(body, boundary.ok_or(NotUnderstood::Malformed)?)
    }

    fn understood(&self, body: &[u8]) -> Result<(), NotUnderstood> {
        if self.is_sdp() || self.optional {
            return Ok(());
        }
        if self.has_parts() {
            let parts = self.parts(body)?;
            // Of alternatives one is enough.
            let alternative = self.is("multipart/alternative");
            let well = |part: &Part<'_>| part.is_sdp() || (part.optional && !alternative);
            let fits = if alternative { parts.iter().any(well) } else { parts.iter().all(well) };
            return if fits { Ok(()) } else { Err(NotUnderstood::Type) };
        }
        Err(if self.plain { NotUnderstood::Type } else { NotUnderstood::Coding })
    }
}

impl Message {
    fn whole(&self) -> Part<'_> {
        let (mut kind, mut disposition, mut plain) = (None, None, true);
        for line in &self.inner.parts.lines {
            let value = || line.value(self.head());
            match line.header {
                Header::ContentType => kind = kind.or_else(|| Some(value())),
                Header::ContentDisposition => disposition = disposition.or_else(|| Some(value())),
                Header::ContentEncoding => {
                    plain &= codings(value()).all(|c| c.eq_ignore_ascii_case("identity"))
                }
                _ => {}
            }
        }
        Part {
            kind: Cow::Borrowed(kind.unwrap_or_default()),
            plain,
            optional: disposition.is_some_and(is_optional),
            at: 0..self.body().len(),
        }
    }

    /// Whether the body is understood, or need not be.
    ///
    /// # Errors
    /// [`NotUnderstood`]; the request is refused with 415 or 400.
    pub fn understood(&self) -> Result<(), NotUnderstood> {
        if self.body().is_empty() || self.inner.parts.is_sdp {
            Ok(())
        } else {
            self.whole().understood(self.body())
        }
    }

    /// The session description that the body is or has. One that is encoded is none.
    pub fn session_description(&self) -> Option<Bytes> {
        let body = self.body();
        if body.is_empty() {
            return None;
        }
        if self.inner.parts.is_sdp {
            return Some(self.body_bytes());
        }
        let whole = self.whole();
        if whole.is_sdp() {
            Some(self.body_bytes())
        } else if whole.has_parts() {
            let sdp = whole.parts(body).ok()?.into_iter().find(Part::is_sdp)?;
            Some(self.body_bytes().slice(sdp.at)).filter(|sdp| !sdp.is_empty())
        } else {
            None
        }
    }
}

/// The values of a Content-Encoding line.
fn codings(line: &str) -> impl Iterator<Item = &str> {
    split(line, b',').filter(|value| !value.is_empty())
}

/// `handling` of Content-Disposition (RFC 3261 §20.11): `required` unless it says otherwise.
fn is_optional(disposition: &str) -> bool {
    let params = disposition.split_once(';').map_or("", |(_, params)| params);
    param(params, "handling").is_some_and(|handling| handling.eq_ignore_ascii_case("optional"))
}

/// RFC 2046 §5.1.1: each part stands between two lines that begin with `--` and the boundary; the last of these ends with `--`.
fn parts<'b>(body: &'b [u8], boundary: &str) -> Result<Vec<Part<'b>>, NotUnderstood> {
    let delimiter = ["--", boundary].concat();
    let (mut parts, mut begin, mut at) = (Vec::new(), None, 0);
    while at < body.len() {
        let end = body[at..].iter().position(|b| *b == b'\n').map_or(body.len(), |length| at + length + 1);
        let rest = body[at..end].strip_prefix(delimiter.as_bytes());
        let closes = rest.is_some_and(|rest| rest.starts_with(b"--"));
        let rest = rest.map(|rest| &rest[if closes { 2 } else { 0 }..]);
        // What follows the boundary in its line may be white space only: else it is the beginning of a longer one.
        if rest.is_some_and(|rest| rest.iter().all(u8::is_ascii_whitespace)) {
            if let Some(begin) = begin {
                if parts.len() == MOST_PARTS {
                    return Err(NotUnderstood::Malformed);
                }
                parts.push(part(body, begin, without_line_end(body, begin, at)));
            }
            if closes {
                return Ok(parts);
            }
            begin = Some(end);
        }
        at = end;
    }
    Err(NotUnderstood::Malformed)
}

/// The end of what stands before a boundary's line; the line end before that is the boundary's.
fn without_line_end(body: &[u8], begin: usize, at: usize) -> usize {
    let text = &body[begin..at];
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    begin + text.strip_suffix(b"\r").unwrap_or(text).len()
}

/// One part: headers, an empty line, and what they describe.
fn part(body: &[u8], begin: usize, end: usize) -> Part<'_> {
    let mut part = Part { kind: Cow::Borrowed("text/plain"), plain: true, optional: false, at: end..end };
    let mut at = begin;
    let mut header: Option<(&[u8], Cow<'_, str>)> = None;
    while at < end {
        let next = body[at..end].iter().position(|b| *b == b'\n').map_or(end, |length| at + length + 1);
        let line = &body[at..next];
        at = next;
        if let (Some((_, value)), Some(b' ' | b'\t')) = (&mut header, line.first()) {
            value.to_mut().push_str(&String::from_utf8_lossy(line));
            continue;
        }
        if let Some((name, value)) = header.take() {
            part.describe(name, value);
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            part.at = at..end;
            return part;
        }
        if let Some(colon) = line.iter().position(|b| *b == b':') {
            header = Some((&line[..colon], String::from_utf8_lossy(&line[colon + 1..])));
        }
    }
    if let Some((name, value)) = header {
        part.describe(name, value);
    }
    part
}

impl<'a> Part<'a> {
    fn describe(&mut self, name: &[u8], value: Cow<'a, str>) {
        let name = name.trim_ascii();
        let text = trim(&value);
        let is_one_of = |known: &[&str]| known.iter().any(|known| text.eq_ignore_ascii_case(known));
        if name.eq_ignore_ascii_case(b"Content-Type") || name.eq_ignore_ascii_case(b"c") {
            self.kind = value;
        } else if name.eq_ignore_ascii_case(b"Content-Disposition") {
            self.optional = is_optional(text);
        } else if name.eq_ignore_ascii_case(b"Content-Encoding") || name.eq_ignore_ascii_case(b"e") {
            self.plain &= is_one_of(&["identity"]);
        } else if name.eq_ignore_ascii_case(b"Content-Transfer-Encoding") {
            self.plain &= is_one_of(&["7bit", "8bit", "binary"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::*;

    fn message(headers: &str, body: &str) -> Message {
        let text = format!(
            "INVITE sip:b@b SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@a>;tag=1\r\nTo: <sip:b@b>\r\n\
             Call-ID: c\r\nCSeq: 1 INVITE\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Message::parse(Bytes::from(text), &Limits::default()).unwrap()
    }

    fn mixed(kind: &str, body: &str) -> (Result<(), NotUnderstood>, Option<String>) {
        let message = message(&format!("Content-Type: multipart/{kind}\r\n"), body);
        let sdp = message.session_description().map(|sdp| String::from_utf8(sdp.to_vec()).unwrap());
        (message.understood(), sdp)
    }

    const SDP: &str = "Content-Type: application/sdp\r\n\r\nv=0\r\ns=-\r\n";
    const OTHER: &str = "Content-Type: application/isup;version=x\r\n";

    #[test]
    fn the_description_is_found_beside_what_may_be_left_unread() {
        let optional = "Content-Disposition: signal;\r\n handling=optional\r\n";
        let body = format!(
            "preamble\r\n--b\r\n{OTHER}{optional}\r\n\x01\x02--b?\r\n--b\r\n{SDP}\r\n--b--\r\nepilogue"
        );
        assert_eq!(mixed("mixed;boundary=b", &body), (Ok(()), Some("v=0\r\ns=-\r\n".to_owned())));
        assert_eq!(mixed("MIXED ; Boundary=\"b\"", &body).0, Ok(()));
        let required = body.replace("optional", "required");
        assert_eq!(mixed("mixed;boundary=b", &required).0, Err(NotUnderstood::Type));
        assert_eq!(mixed("alternative;boundary=b", &required), (Ok(()), Some("v=0\r\ns=-\r\n".to_owned())));
        assert_eq!(mixed("related;boundary=b", &body), (Err(NotUnderstood::Type), None));
        // Nothing but what may be left unread: as if there were no body.
        let none = format!("--b\r\n{OTHER}{optional}\r\nx\r\n--b--");
        assert_eq!(mixed("mixed;boundary=b", &none), (Ok(()), None));
        assert_eq!(mixed("alternative;boundary=b", &none), (Err(NotUnderstood::Type), None));
    }

    #[test]
    fn parts_that_cannot_be_told_apart_are_malformed() {
        let whole = format!("--b\r\n{SDP}\r\n--b--\r\n");
        for (kind, body) in [
            ("mixed", whole.clone()),
            ("mixed;boundary=\"\"", whole.clone()),
            ("mixed;boundary=c", whole.clone()),
            ("mixed;boundary=b", whole.replace("--b--", "--b")),
            ("mixed;boundary=b", "--b\r\n\r\n".repeat(40) + "--b--"),
        ] {
            assert_eq!(mixed(kind, &body), (Err(NotUnderstood::Malformed), None), "{kind} {body}");
        }
        let long = "b".repeat(71);
        let body = whole.replace("--b", &format!("--{long}"));
        assert_eq!(mixed(&format!("mixed;boundary={long}"), &body).0, Err(NotUnderstood::Malformed));
    }

    #[test]
    fn an_encoded_description_is_none() {
        for coding in ["Content-Transfer-Encoding: base64", "Content-Encoding: gzip", "e: gzip"] {
            let body = format!("--b\r\n{coding}\r\n{SDP}\r\n--b--");
            assert_eq!(mixed("mixed;boundary=b", &body), (Err(NotUnderstood::Type), None), "{coding}");
        }
        let body = format!("--b\r\nContent-Transfer-Encoding: 8BIT\r\n{SDP}\r\n--b--");
        assert!(mixed("mixed;boundary=b", &body).1.is_some());
        let whole = message("Content-Type: application/sdp\r\nContent-Encoding: gzip\r\n", "x");
        assert_eq!((whole.understood(), whole.session_description()), (Err(NotUnderstood::Coding), None));
    }

    #[test]
    fn a_body_of_another_type_may_be_left_unread_if_it_says_so() {
        let kind = "Content-Type: text/html\r\n";
        assert_eq!(message(kind, "x").understood(), Err(NotUnderstood::Type));
        assert_eq!(message("", "x").understood(), Err(NotUnderstood::Type));
        let optional = message(&format!("{kind}Content-Disposition: alert;handling=optional\r\n"), "x");
        assert_eq!((optional.understood(), optional.session_description()), (Ok(()), None));
        assert_eq!(message(kind, "").understood(), Ok(()));
    }
}
