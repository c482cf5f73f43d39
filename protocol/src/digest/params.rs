//! The parameter lists of challenges and credentials (RFC 7235 §2.1).

use std::borrow::Cow;

use super::DigestError;

/// The longest credentials that are read, in bytes.
pub(super) const MAX_CREDENTIALS: usize = 8_192;
/// The longest challenges: the answer repeats what is in one and still has to be read.
pub(super) const MAX_CHALLENGE: usize = MAX_CREDENTIALS / 2;
/// The most parameters that one challenge may have.
const MAX_PARAMS: usize = 32;
/// As many as credentials have.
const USUAL_PARAMS: usize = 10;

/// One scheme with its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scheme<'a> {
    pub(super) name: &'a str,
    params: Vec<(&'a str, Cow<'a, str>)>,
}

impl<'a> Scheme<'a> {
    pub(super) fn is_digest(&self) -> bool {
        self.name.eq_ignore_ascii_case("digest")
    }

    /// The value of a parameter, by name without regard to case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_ref())
    }

    pub(super) fn need(&self, name: &'static str) -> Result<&str, DigestError> {
        self.get(name).ok_or(DigestError::Missing(name))
    }

    /// The value of a parameter, which is asked for once.
    pub(super) fn take(&mut self, name: &'static str) -> Result<Cow<'a, str>, DigestError> {
        let param = self.params.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name));
        param.map(|(_, value)| std::mem::take(value)).ok_or(DigestError::Missing(name))
    }

    fn push(&mut self, name: &'a str, value: Cow<'a, str>) -> Result<(), DigestError> {
        if self.get(name).is_some() {
            return Err(DigestError::Duplicate(name.to_ascii_lowercase()));
        }
        if self.params.len() == MAX_PARAMS {
            return Err(DigestError::Malformed);
        }
        self.params.push((name, value));
        Ok(())
    }
}

/// `text` as a quoted string.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    if !text.bytes().any(|b| matches!(b, b'\r' | b'\n' | b'"' | b'\\')) {
        quoted.push_str(text);
        quoted.push('"');
        return quoted;
    }
    for c in text.chars().filter(|c| !matches!(c, '\r' | '\n')) {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// Reads every scheme of a header value: `Digest a=b, c="d", Basic realm="x"`.
///
/// # Errors
/// It is no such list, or longer than `max_bytes`.
pub(super) fn schemes(value: &str, max_bytes: usize) -> Result<Vec<Scheme<'_>>, DigestError> {
    if value.len() > max_bytes {
        return Err(DigestError::Malformed);
    }
    let mut found: Vec<Scheme<'_>> = Vec::new();
    let mut rest = skip(value, is_separator);
    while !rest.is_empty() {
        let (word, after) = token(rest)?;
        let tail = skip(after, is_space);
        if let Some(value) = tail.strip_prefix('=') {
            let (value, after) = parameter_value(skip(value, is_space))?;
            found.last_mut().ok_or(DigestError::OtherScheme)?.push(word, value)?;
            rest = skip(after, is_space);
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(DigestError::Malformed);
            }
        } else if found.len() < MAX_PARAMS {
            found.push(Scheme { name: word, params: Vec::with_capacity(USUAL_PARAMS) });
            rest = tail;
        } else {
            return Err(DigestError::Malformed);
        }
        rest = skip(rest, is_separator);
    }
    Ok(found)
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_separator(b: u8) -> bool {
    is_space(b) || b == b','
}

/// What follows the characters of one kind, all of ASCII, that a text begins with.
fn skip(text: &str, kind: impl Fn(u8) -> bool) -> &str {
    let len = text.bytes().position(|b| !kind(b)).unwrap_or(text.len());
    &text[len..]
}

fn token(text: &str) -> Result<(&str, &str), DigestError> {
    let ends = |b: u8| is_separator(b) || matches!(b, b'=' | b'"');
    let end = text.bytes().position(ends).unwrap_or(text.len());
    if end == 0 { Err(DigestError::Malformed) } else { Ok(text.split_at(end)) }
}

fn parameter_value(text: &str) -> Result<(Cow<'_, str>, &str), DigestError> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Some clients send an empty value; an unquoted one may hold '=' (a base64 nonce).
        let end = text.bytes().position(|b| is_separator(b) || b == b'"').unwrap_or(text.len());
        return Ok((Cow::Borrowed(&text[..end]), &text[end..]));
    };
    match memchr::memchr2(b'"', b'\\', quoted.as_bytes()) {
        Some(end) if quoted.as_bytes()[end] == b'"' => {
            Ok((Cow::Borrowed(&quoted[..end]), &quoted[end + 1..]))
        }
        Some(_) => escaped_value(quoted),
        None => Err(DigestError::Malformed),
    }
}

/// A quoted string with escapes, from its first character on.
fn escaped_value(quoted: &str) -> Result<(Cow<'_, str>, &str), DigestError> {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Ok((Cow::Owned(value), &quoted[index + 1..])),
            '\\' => value.push(chars.next().ok_or(DigestError::Malformed)?.1),
            _ => value.push(c),
        }
    }
    Err(DigestError::Malformed)
}
