//! Character classes and the scanners that the views share (RFC 3261 section 25).
//!
//! Every function is linear in its input and allocates nothing, except [`unfold`].

use super::malformed::BadHeader;

pub(super) const TOKEN: u8 = 1;
pub(super) const URI: u8 = 2;
pub(super) const HOST: u8 = 4;
pub(super) const USER: u8 = 8;
pub(super) const VALUE: u8 = 16;
/// What a URI may hold, without the two characters that need a look.
pub(super) const PLAIN: u8 = 32;
/// What a line may hold: no line end and no NUL.
pub(super) const LINE: u8 = 64;

const CLASS: [u8; 256] = classes();

const fn mark(mut table: [u8; 256], chars: &[u8], class: u8) -> [u8; 256] {
    let mut i = 0;
    while i < chars.len() {
        table[chars[i] as usize] |= class;
        i += 1;
    }
    table
}

const fn classes() -> [u8; 256] {
    let mut t = [0u8; 256];
    let mut c = 0x21;
    while c < 0x7f {
        t[c] = URI | VALUE | PLAIN;
        if (c as u8).is_ascii_alphanumeric() {
            t[c] |= TOKEN | HOST | USER;
        }
        c += 1;
    }
    t = mark(t, b"-.!%*_+`'~", TOKEN);
    t = mark(t, b"-._", HOST);
    t = mark(t, b"-_.!~*'()&=+$,;?/", USER);
    let mut c = 0;
    while c < 256 {
        if matches!(c as u8, b'<' | b'>' | b'"') {
            t[c] &= !(URI | VALUE | PLAIN);
        }
        if matches!(c as u8, b',' | b';') {
            t[c] &= !VALUE;
        }
        if matches!(c as u8, b'@' | b'%') {
            t[c] &= !PLAIN;
        }
        if !matches!(c as u8, b'\r' | b'\n' | 0) {
            t[c] |= LINE;
        }
        c += 1;
    }
    t
}

pub(super) fn is(byte: u8, class: u8) -> bool {
    CLASS[byte as usize] & class != 0
}

pub(super) fn all(s: &[u8], class: u8) -> bool {
    run(s, class) == s.len()
}

/// How many characters of one class `s` begins with.
pub(super) fn run(s: &[u8], class: u8) -> usize {
    let mut len = 0;
    // Eight with one branch: what is scanned is nearly always all of its class.
    while let Some(eight) = s.get(len..len + 8)
        && eight.iter().fold(class, |all, b| all & CLASS[usize::from(*b)]) != 0
    {
        len += 8;
    }
    while s.get(len).is_some_and(|&b| is(b, class)) {
        len += 1;
    }
    len
}

/// As [`run`], where it is short.
pub(super) fn short_run(s: &[u8], class: u8) -> usize {
    s.iter().position(|b| !is(*b, class)).unwrap_or(s.len())
}

/// Where the first CR or LF is.
///
/// Lines are short: a look at eight characters at a time finds their end for less than it takes to begin a vector search.
pub(super) fn first_line_end(s: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let (eights, _) = s.as_chunks::<8>();
    let mut at = 0;
    for eight in eights {
        let eight = u64::from_le_bytes(*eight);
        // What is below 0x10, and perhaps what follows on such a character: a control character is nearly always the end.
        if (eight.wrapping_sub(LOW * 0x10) & !eight & HIGH) != 0
            && let Some(end) = s[at..at + 8].iter().position(|b| matches!(b, b'\r' | b'\n'))
        {
            return Some(at + end);
        }
        at += 8;
    }
    s[at..].iter().position(|b| matches!(b, b'\r' | b'\n')).map(|end| at + end)
}

pub(super) fn is_token(s: &str) -> bool {
    !s.is_empty() && all(s.as_bytes(), TOKEN)
}

const fn is_lws(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

/// Removes linear white space at both ends.
pub(super) fn trim(s: &str) -> &str {
    let keep = s.bytes().rposition(|b| !is_lws(b)).map_or(0, |last| last + 1);
    trim_start(&s[..keep])
}

pub(super) fn trim_start(s: &str) -> &str {
    &s[skip_lws(s.as_bytes(), 0)..]
}

pub(super) fn trim_bytes(mut s: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = s
        && is_lws(*first)
    {
        s = rest;
    }
    while let [rest @ .., last] = s
        && is_lws(*last)
    {
        s = rest;
    }
    s
}

/// A number of decimal digits only; `None` if there is another character, no digit, or an overflow.
pub(super) fn decimal(s: &str) -> Option<u64> {
    if s.is_empty() {
        return None;
    }
    s.bytes().try_fold(0_u64, |number, b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 { None } else { number.checked_mul(10)?.checked_add(digit.into()) }
    })
}

/// The index of the quote that closes the string opened at `s[open]`; a backslash escapes one character.
pub(super) fn closing_quote(s: &[u8], open: usize) -> Option<usize> {
    let mut i = open + 1;
    loop {
        match s.get(i)? {
            b'"' => return Some(i),
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
}

/// The index of the first `separator` at or after `from` that is outside quotes and angle brackets.
///
/// What an unclosed quote or bracket encloses runs to the end.
fn next_separator(s: &[u8], from: usize, separator: u8) -> Option<usize> {
    let first = from + memchr::memchr(separator, &s[from..])?;
    // Nearly always: nothing before it opens.
    let mut i = match memchr::memchr2(b'"', b'<', &s[from..first]) {
        None => return Some(first),
        Some(opens) => from + opens,
    };
    while i < s.len() {
        match s[i] {
            b'"' => i = closing_quote(s, i)?,
            b'<' => i += s[i..].iter().position(|&b| b == b'>')?,
            b if b == separator => return Some(i),
            _ => {}
        }
        i += 1;
    }
    None
}

/// Splits at a separator outside quotes and angle brackets; items are trimmed, empty ones are kept.
#[derive(Clone, Debug)]
pub(super) struct Split<'a> {
    rest: Option<&'a str>,
    separator: u8,
}

pub(super) fn split(s: &str, separator: u8) -> Split<'_> {
    Split { rest: Some(s), separator }
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let s = self.rest?;
        let item = match next_separator(s.as_bytes(), 0, self.separator) {
            Some(at) => {
                self.rest = Some(&s[at + 1..]);
                &s[..at]
            }
            None => {
                self.rest = None;
                s
            }
        };
        Some(trim(item))
    }
}

/// The parameters of `;a=b;c`: (name, value), both trimmed; a flag has no value.
pub(super) fn params(raw: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    split(raw, b';').filter(|item| !item.is_empty()).map(name_and_value)
}

/// One parameter, which is trimmed.
pub(super) fn name_and_value(item: &str) -> (&str, Option<&str>) {
    match item.bytes().position(|b| b == b'=') {
        Some(eq) => (trim(&item[..eq]), Some(trim(&item[eq + 1..]))),
        None => (item, None),
    }
}

/// The value of a parameter: "" for a flag, without its quotes if it is a quoted string.
pub(super) fn param<'a>(raw: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = params(raw).find(|(n, _)| n.eq_ignore_ascii_case(name))?;
    let value = value.unwrap_or("");
    Some(value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value))
}

/// Checks header parameters (`*( SEMI generic-param )`); white space around `;` and `=` is allowed. Gives the value of the parameter of
/// that name on the way, as [`param`] does.
pub(super) fn check_params_for<'a>(raw: &'a str, wanted: &str) -> Result<Option<&'a str>, BadHeader> {
    let s = raw.as_bytes();
    let (mut at, mut found) = (0, None);
    while at < s.len() {
        if s[at] != b';' {
            return Err(BadHeader::Parameter);
        }
        let name = skip_lws(s, at + 1);
        // Names are short.
        let mut name_end = name;
        while s.get(name_end).is_some_and(|&b| is(b, TOKEN)) {
            name_end += 1;
        }
        if name_end == name {
            return Err(BadHeader::Parameter);
        }
        at = skip_lws(s, name_end);
        let mut value = "";
        if s.get(at) == Some(&b'=') {
            at = skip_lws(s, at + 1);
            if s.get(at) == Some(&b'"') {
                let end = closing_quote(s, at).ok_or(BadHeader::UnclosedQuote)?;
                value = &raw[at + 1..end];
                at = end + 1;
            } else {
                let end = skip_class(s, at, VALUE);
                value = &raw[at..end];
                at = end;
            }
            at = skip_lws(s, at);
        }
        if found.is_none() && raw[name..name_end].eq_ignore_ascii_case(wanted) {
            found = Some(value);
        }
    }
    Ok(found)
}

fn skip_class(s: &[u8], from: usize, class: u8) -> usize {
    from + run(&s[from..], class)
}

fn skip_lws(s: &[u8], mut from: usize) -> usize {
    while s.get(from).is_some_and(|&b| is_lws(b)) {
        from += 1;
    }
    from
}

/// `host [":" port]` at the start of a text, and what follows; an IPv6 reference loses its brackets.
pub(super) fn host_port(s: &str) -> Option<(&str, Option<u16>, &str)> {
    let (host, rest) = if let Some(inner) = s.strip_prefix('[') {
        let (address, rest) = inner.split_once(']')?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        (address, rest)
    } else {
        s.split_at(skip_class(s.as_bytes(), 0, HOST))
    };
    if host.is_empty() {
        return None;
    }
    let Some(port) = trim_start(rest).strip_prefix(':') else {
        return Some((host, None, rest));
    };
    let port = trim_start(port);
    let (mut number, mut digits) = (0u16, 0);
    while let Some(digit) = port.as_bytes().get(digits).filter(|b| b.is_ascii_digit()) {
        number = number.checked_mul(10)?.checked_add(u16::from(digit - b'0'))?;
        digits += 1;
    }
    (digits > 0).then(|| (host, Some(number), &port[digits..]))
}

/// The length of the header section, its empty line included; `None` if it does not end.
pub(super) fn head_len(s: &[u8]) -> Option<usize> {
    let mut line = 0;
    loop {
        let end = line + memchr::memchr(b'\n', &s[line..])?;
        if matches!(&s[line..end], b"" | b"\r") {
            return Some(end + 1);
        }
        line = end + 1;
    }
}

/// A copy in which each folded line end has become spaces (RFC 3261 section 7.3.1). Offsets stay what they were.
pub(super) fn unfold(head: &[u8]) -> Vec<u8> {
    let mut copy = head.to_vec();
    for at in memchr::memchr_iter(b'\n', head) {
        if matches!(head.get(at + 1), Some(b' ' | b'\t')) {
            copy[at] = b' ';
            if at > 0 && head[at - 1] == b'\r' {
                copy[at - 1] = b' ';
            }
        }
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_line_is_found_wherever_it_is_and_whatever_else_stands_there() {
        let others = [b'a', b' ', b'\t', 0x00, 0x0e, 0x0f, 0x10, 0x7f, 0x80, 0x8d, 0xff];
        for (len, end) in (0..40).flat_map(|len| (0..=len).map(move |end| (len, end))) {
            for (other, last) in others.iter().flat_map(|other| [b'\r', b'\n'].map(|last| (*other, last))) {
                let mut text = vec![other; len];
                assert_eq!(first_line_end(&text), None);
                if let Some(place) = text.get_mut(end) {
                    *place = last;
                    assert_eq!(first_line_end(&text), Some(end), "{text:?}");
                }
            }
        }
    }
}
