//! Whether two contact URIs are the same one (RFC 3261 §19.1.4), on their text.

/// A SIP URI cut into what is compared.
struct Parts<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    host_port: &'a str,
    params: Vec<(&'a str, &'a str)>,
    headers: &'a str,
}

/// Parameters that must be absent from both or equal in both; others count only where both have them.
const STRICT: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];

fn cut(uri: &str) -> Parts<'_> {
    let (scheme, rest) = uri.split_once(':').unwrap_or(("", uri));
    let (rest, headers) = rest.split_once('?').unwrap_or((rest, ""));
    // A user part may hold ';' and '?' unescaped, so the '@' is looked for in everything before the headers.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    let mut pieces = rest.split(';');
    let host_port = pieces.next().unwrap_or_default();
    let params = pieces.map(|p| p.split_once('=').unwrap_or((p, ""))).collect();
    Parts { scheme, user, host_port, params, headers }
}

/// Undoes the escapes, so that `%61` and `a` are one. What is no escape stays.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    while let [first, rest @ ..] = bytes {
        let escaped = match rest {
            [high, low, ..] if *first == b'%' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                plain.push(high << 4 | low);
                bytes = &rest[2..];
            }
            None => {
                plain.push(*first);
                bytes = rest;
            }
        }
    }
    plain
}

fn param<'a>(parts: &Parts<'a>, name: &str) -> Option<&'a str> {
    parts.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

fn same_headers(a: &str, b: &str) -> bool {
    let sorted = |text: &str| {
        let mut headers: Vec<Vec<u8>> = text.split('&').map(|h| unescape(h).to_ascii_lowercase()).collect();
        headers.sort_unstable();
        headers
    };
    sorted(a) == sorted(b)
}

/// Whether two URIs are the same contact: user by case, scheme, host and parameters not, and a port written is
/// not a port left out (RFC 3261 §19.1.4).
pub fn same_contact(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let (a, b) = (cut(a), cut(b));
    let equal = |x: &str, y: &str| unescape(x).eq_ignore_ascii_case(&unescape(y));
    let strict = STRICT.iter().all(|name| match (param(&a, name), param(&b, name)) {
        (None, None) => true,
        (Some(x), Some(y)) => equal(x, y),
        (Some(_), None) | (None, Some(_)) => false,
    });
    let shared = || a.params.iter().all(|(name, x)| param(&b, name).is_none_or(|y| equal(x, y)));
    a.scheme.eq_ignore_ascii_case(b.scheme)
        && a.user.map(unescape) == b.user.map(unescape)
        && a.host_port.eq_ignore_ascii_case(b.host_port)
        && strict
        && shared()
        && same_headers(a.headers, b.headers)
}
