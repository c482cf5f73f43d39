//! SIP, SIPS and tel URIs (RFC 3261 section 19.1, RFC 3966).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;

pub use super::address::{Contacts, NameAddr, Via};
pub use super::malformed::BadUri;
use super::syntax::{PLAIN, USER, all, host_port, is, params, run};
use super::usual;

/// A view of a URI. Nothing is unescaped.
///
/// Of a `tel` URI the number is the `user`; of any other scheme than `sip`, `sips` and `tel` all that
/// follows the scheme is the `host`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uri<'a> {
    /// "sip", "sips" and "tel" in lower case; another as written.
    pub scheme: &'a str,
    /// The user, escaped, without the password.
    pub user: Option<&'a str>,
    /// The password, escaped.
    pub password: Option<&'a str>,
    /// The host; an IPv6 address is without brackets.
    pub host: &'a str,
    /// The port, if one is written.
    pub port: Option<u16>,
    /// The URI parameters, raw, from their first `;` on; "" if there are none.
    pub params: &'a str,
    /// The header components, raw, without the `?`; "" if there are none.
    pub headers: &'a str,
}

impl Uri<'_> {
    /// Reads a URI that stands alone, without angle brackets and white space around it.
    ///
    /// # Errors
    /// If it is not a URI, or a `sip` or `sips` URI that does not fit the grammar. `#` in a user part is let
    /// through, because telephones send it in feature codes.
    pub fn parse(s: &str) -> Result<Uri<'_>, BadUri> {
        usual::whole_uri(s).map_or_else(|| Uri::read(s), Ok)
    }

    /// The same by the whole grammar.
    pub(super) fn read(s: &str) -> Result<Uri<'_>, BadUri> {
        if let Some(rest) = s.strip_prefix("sip:").filter(|rest| !rest.is_empty()) {
            return parse_sip("sip", rest);
        }
        let colon = s.bytes().position(|b| b == b':').ok_or(BadUri::Scheme)?;
        let (scheme, rest) = (known_scheme(&s[..colon]), &s[colon + 1..]);
        if rest.is_empty() {
            return Err(BadUri::Scheme);
        }
        if matches!(scheme, "sip" | "sips") {
            return parse_sip(scheme, rest);
        }
        check_scheme(scheme)?;
        check_characters(rest.as_bytes())?;
        if scheme == "tel" {
            let (number, params) = rest.split_at(memchr::memchr(b';', rest.as_bytes()).unwrap_or(rest.len()));
            if number.is_empty() {
                return Err(BadUri::User);
            }
            return Ok(Uri { scheme, user: Some(number), params, ..Uri::default() });
        }
        Ok(Uri { scheme, host: rest, ..Uri::default() })
    }
}

/// RFC 3986 §3.1: a scheme has no case. One that is known is as its standard writes it.
fn known_scheme(scheme: &str) -> &str {
    ["sip", "sips", "tel"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known)).unwrap_or(scheme)
}

fn check_scheme(scheme: &str) -> Result<(), BadUri> {
    let bytes = scheme.as_bytes();
    let tail = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    match bytes {
        [first, rest @ ..] if first.is_ascii_alphabetic() && rest.iter().all(tail) => Ok(()),
        _ => Err(BadUri::Scheme),
    }
}

/// Checks that every character may stand in a URI and every escape is whole; gives the place of the first `@`, and of the last.
fn check_characters(s: &[u8]) -> Result<Option<(usize, usize)>, BadUri> {
    let mut ats = None;
    let mut at = 0;
    loop {
        at += run(&s[at..], PLAIN);
        match s.get(at) {
            None => return Ok(ats),
            Some(b'@') => ats = Some((ats.map_or(at, |(first, _)| first), at)),
            Some(b'%') if escaped(s, at).is_some() => {}
            Some(_) => return Err(BadUri::Character),
        }
        at += 1;
    }
}

fn parse_sip<'a>(scheme: &'a str, rest: &'a str) -> Result<Uri<'a>, BadUri> {
    // The user part may hold ';' and '?', but nothing after it may hold an unescaped '@'.
    let (user, password, repeated, rest) = match check_characters(rest.as_bytes())? {
        None => (None, None, false, rest),
        Some((first, last)) => {
            let (user, password) = user_info(&rest[..first])?;
            (Some(user), password, first < last, &rest[first + 1..])
        }
    };
    let (host, port, rest) = host_port(rest).ok_or(BadUri::Host)?;
    let (params, headers) = match rest.bytes().position(|b| b == b'?') {
        Some(mark) => (&rest[..mark], &rest[mark + 1..]),
        None => (rest, ""),
    };
    if !params.is_empty() && !params.starts_with(';') {
        return Err(BadUri::Host);
    }
    if repeated {
        return Err(BadUri::Character);
    }
    Ok(Uri { scheme, user, password, host, port, params, headers })
}

fn user_info(s: &str) -> Result<(&str, Option<&str>), BadUri> {
    // Without a password or an escape.
    if !s.is_empty() && all(s.as_bytes(), USER) {
        return Ok((s, None));
    }
    let fits = |s: &str| s.bytes().all(|b| is(b, USER) || matches!(b, b'%' | b'#'));
    let (user, password) = match s.bytes().position(|b| b == b':') {
        Some(colon) => (&s[..colon], Some(&s[colon + 1..])),
        None => (s, None),
    };
    if user.is_empty() || !fits(user) || !password.is_none_or(fits) {
        return Err(BadUri::User);
    }
    Ok((user, password))
}

impl<'a> Uri<'a> {
    /// The value of a URI parameter, by name without regard to case; "" for one without a value.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        let is_it = |n: &str| {
            n.eq_ignore_ascii_case(name) || (n.contains('%') && normal_lower(n).eq(normal_lower(name)))
        };
        params(self.params).find(|(n, _)| is_it(n)).map(|(_, value)| value.unwrap_or(""))
    }

    /// The user with its escapes replaced. Escaped bytes that are not UTF-8 become U+FFFD.
    pub fn user_unescaped(&self) -> Option<Cow<'a, str>> {
        self.user.map(unescape)
    }

    fn is_sip_or_sips(&self) -> bool {
        self.scheme == "sip" || self.is_sips()
    }

    /// Whether the scheme is `sips`.
    pub fn is_sips(&self) -> bool {
        self.scheme == "sips"
    }

    /// Where to send, if the host is an IP address. The default port is 5060, over TLS 5061 (RFC 3261 section 19.1.2).
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let host: IpAddr = self.host.parse().ok()?;
        let tls = || self.param("transport").is_some_and(|t| t.eq_ignore_ascii_case("tls"));
        let port = self.port.unwrap_or_else(|| if self.is_sips() || tls() { 5061 } else { 5060 });
        Some(SocketAddr::new(host, port))
    }

    /// Whether both name the same resource (RFC 3261 section 19.1.4; `tel`: RFC 3966 section 5).
    pub fn same_as(&self, other: &Uri<'_>) -> bool {
        if !self.scheme.eq_ignore_ascii_case(other.scheme) {
            return false;
        }
        if self.scheme == "tel" {
            return dialled(self.user).eq(dialled(other.user))
                && same_params(self.params, other.params, |_| true);
        }
        if !self.is_sip_or_sips() {
            return self.host == other.host;
        }
        same_text(self.user, other.user)
            && same_text(self.password, other.password)
            && same_host(self.host, other.host)
            && self.port == other.port
            && same_params(self.params, other.params, never_ignored)
            && same_headers(self.headers, other.headers)
    }
}

impl fmt::Display for Uri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme)?;
        if let Some(user) = self.user {
            f.write_str(user)?;
            if let Some(password) = self.password {
                write!(f, ":{password}")?;
            }
            if !self.host.is_empty() {
                f.write_str("@")?;
            }
        }
        write_host(f, self.host, self.is_sip_or_sips())?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(self.params)?;
        if !self.headers.is_empty() {
            write!(f, "?{}", self.headers)?;
        }
        Ok(())
    }
}

/// Writes a host, an IPv6 address in brackets; `hierarchical` is false where the host is opaque text.
pub(super) fn write_host(f: &mut fmt::Formatter<'_>, host: &str, hierarchical: bool) -> fmt::Result {
    if hierarchical && host.contains(':') { write!(f, "[{host}]") } else { f.write_str(host) }
}

fn same_host(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
        || (a.contains(':') && matches!((a.parse::<IpAddr>(), b.parse::<IpAddr>()), (Ok(a), Ok(b)) if a == b))
}

/// The number of a `tel` URI without its visual separators.
fn dialled(number: Option<&str>) -> impl Iterator<Item = u8> + '_ {
    let bytes = number.unwrap_or("").bytes();
    bytes.filter(|b| !b"-.()".contains(b)).map(|b| b.to_ascii_lowercase())
}

/// The parameters that make a difference even when only one of the URIs has them.
fn never_ignored(name: &str) -> bool {
    // RFC 3261 does not name `transport` in this rule, but its examples treat it so.
    ["user", "ttl", "method", "maddr", "transport"].iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// The bytes of an escaped text such that equivalent texts give equal sequences: an escape counts as its
/// character, unless that character is reserved.
fn normal(s: &str) -> impl Iterator<Item = (bool, u8)> + '_ {
    let bytes = s.as_bytes();
    let mut i = 0;
    std::iter::from_fn(move || {
        let byte = *bytes.get(i)?;
        if byte == b'%'
            && let Some(decoded) = escaped(bytes, i)
        {
            i += 3;
            return Some((b";/?:@&=+$,".contains(&decoded), decoded));
        }
        i += 1;
        Some((false, byte))
    })
}

fn normal_lower(s: &str) -> impl Iterator<Item = (bool, u8)> + '_ {
    normal(s).map(|(reserved, byte)| (reserved, byte.to_ascii_lowercase()))
}

fn escaped(s: &[u8], at: usize) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let (high, low) = (digit(*s.get(at + 1)?)?, digit(*s.get(at + 2)?)?);
    u8::try_from(high * 16 + low).ok()
}

fn same_text(a: Option<&str>, b: Option<&str>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a == b || normal(a).eq(normal(b)),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

type Pairs<'a> = SmallVec<[(&'a str, &'a str); 8]>;

/// Walks two sorted lists: `decide` gets each pair that is in both (a and b) or in one only, until it says no.
fn merge(
    a: &Pairs<'_>,
    b: &Pairs<'_>,
    mut decide: impl FnMut(&str, Option<&str>, Option<&str>) -> bool,
) -> bool {
    let (mut i, mut j) = (0, 0);
    loop {
        let order = match (a.get(i), b.get(j)) {
            (None, None) => return true,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(x), Some(y)) => normal_lower(x.0).cmp(normal_lower(y.0)),
        };
        let go_on = match order {
            Ordering::Less => decide(a[i].0, Some(a[i].1), None),
            Ordering::Greater => decide(b[j].0, None, Some(b[j].1)),
            Ordering::Equal => decide(a[i].0, Some(a[i].1), Some(b[j].1)),
        };
        if !go_on {
            return false;
        }
        i += usize::from(order != Ordering::Greater);
        j += usize::from(order != Ordering::Less);
    }
}

fn same_params(a: &str, b: &str, counts: impl Fn(&str) -> bool) -> bool {
    // Sorting keeps a hostile list of thousands of parameters from costing its square.
    let sorted = |raw| {
        let mut list: Pairs<'_> = params(raw).map(|(name, value)| (name, value.unwrap_or(""))).collect();
        list.sort_by(|x, y| normal_lower(x.0).cmp(normal_lower(y.0)));
        list
    };
    merge(&sorted(a), &sorted(b), |name, a, b| match (a, b) {
        (Some(a), Some(b)) => normal_lower(a).eq(normal_lower(b)),
        (Some(_), None) | (None, Some(_)) => !counts(name),
        (None, None) => true,
    })
}

fn same_headers(a: &str, b: &str) -> bool {
    let sorted = |raw| {
        let mut list = header_pairs(raw);
        list.sort_by(|x, y| {
            normal_lower(x.0).cmp(normal_lower(y.0)).then_with(|| normal(x.1).cmp(normal(y.1)))
        });
        list
    };
    a == b
        || merge(
            &sorted(a),
            &sorted(b),
            |_, a, b| matches!((a, b), (Some(a), Some(b)) if normal(a).eq(normal(b))),
        )
}

fn header_pairs(raw: &str) -> Pairs<'_> {
    raw.split('&').filter(|h| !h.is_empty()).map(|h| h.split_once('=').unwrap_or((h, ""))).collect()
}

fn unescape(s: &str) -> Cow<'_, str> {
    if !s.contains('%') {
        return Cow::Borrowed(s);
    }
    let bytes = s.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        match (bytes[i] == b'%').then(|| escaped(bytes, i)).flatten() {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// Escapes what may not stand in the user part of a SIP URI (RFC 3261 section 25.1, `user`).
pub fn escape_user(user: &str) -> Cow<'_, str> {
    if all(user.as_bytes(), USER) {
        return Cow::Borrowed(user);
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(user.len() + 8);
    for byte in user.bytes() {
        if is(byte, USER) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
