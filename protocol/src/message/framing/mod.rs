//! What must be known of a datagram before it is worth parsing: where it goes, and whether it is a keep-alive; and where the
//! messages of a byte stream begin and end ([`stream`]).

pub mod stream;

use super::address::NameAddr;
use super::syntax::{param, trim_bytes};

/// Whether the datagram is a keep-alive: nothing but CR, LF and NUL (RFC 5626 section 3.5.1, and what telephones send).
pub fn is_keepalive(datagram: &[u8]) -> bool {
    datagram.iter().all(|b| matches!(b, b'\r' | b'\n' | 0))
}

/// The Call-ID, found without parsing; `None` for a keep-alive or anything that has no such header.
///
/// For a message that parses it is what [`Message::call_id`](super::Message::call_id) gives.
pub fn peek_call_id(datagram: &[u8]) -> Option<&[u8]> {
    header(datagram, b"call-id", b'i').filter(|value| !value.is_empty())
}

/// The tag of the To header, found without parsing.
///
/// For a message that parses it is what [`Message::to_tag`](super::Message::to_tag) gives.
pub fn peek_to_tag(datagram: &[u8]) -> Option<&[u8]> {
    let value = std::str::from_utf8(header(datagram, b"to", b't')?).ok()?;
    let params = value.get(params_start(value.as_bytes())?..)?;
    param(params, "tag").map(str::as_bytes).filter(|tag| !tag.is_empty())
}

/// The user whom a REGISTER is for, found without parsing; `None` for another request, and for a user that is written with escapes.
pub fn peek_registered_user(datagram: &[u8]) -> Option<&str> {
    if !datagram.starts_with(b"REGISTER ") {
        return None;
    }
    let value = std::str::from_utf8(header(datagram, b"to", b't')?).ok()?;
    let uri = NameAddr::split(value).ok()?.0.uri;
    let (scheme, rest) = uri.split_once(':')?;
    let user = rest.split_once('@')?.0.split(':').next()?;
    let sip = scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips");
    Some(user).filter(|user| sip && !user.is_empty() && !user.contains('%'))
}

/// Where the header parameters of an address start: after the angle brackets, or else at the first `;`.
fn params_start(value: &[u8]) -> Option<usize> {
    let name = if value.first() == Some(&b'"') { super::syntax::closing_quote(value, 0)? + 1 } else { 0 };
    let at = name + memchr::memchr2(b'<', b';', value.get(name..)?)?;
    if value[at] == b';' { Some(at) } else { Some(at + memchr::memchr(b'>', &value[at..])? + 1) }
}

/// The value of the first header of that name, its folds left in, trimmed.
fn header<'a>(datagram: &'a [u8], name: &[u8], compact: u8) -> Option<&'a [u8]> {
    headers(datagram, name, compact, Some)
}

/// Goes through the values of the headers of that name until `found` gives something.
fn headers<'a, T>(
    datagram: &'a [u8],
    name: &[u8],
    compact: u8,
    mut found: impl FnMut(&'a [u8]) -> Option<T>,
) -> Option<T> {
    let start = datagram.iter().position(|b| !matches!(b, b'\r' | b'\n'))?;
    for end in memchr::memchr_iter(b'\n', &datagram[start..]) {
        let line = &datagram[start + end + 1..];
        match line.first()? {
            b'\n' => return None,
            b'\r' if line.get(1) == Some(&b'\n') => return None,
            first if first | 0x20 != name[0] && first | 0x20 != compact => {}
            _ => {
                if let Some(result) = value_of(line, name, compact).and_then(&mut found) {
                    return Some(result);
                }
            }
        }
    }
    None
}

fn value_of<'a>(line: &'a [u8], name: &[u8], compact: u8) -> Option<&'a [u8]> {
    let long = line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let name_len = if long { name.len() } else { 1 };
    if !long && line[0] | 0x20 != compact {
        return None;
    }
    let blanks = line[name_len..].iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let value = line[name_len + blanks..].strip_prefix(b":")?;
    let mut end = 0;
    loop {
        end += memchr::memchr(b'\n', &value[end..])?;
        if !matches!(value.get(end + 1), Some(b' ' | b'\t')) {
            return Some(trim_bytes(&value[..end]));
        }
        end += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_tells_whom_it_is_for() {
        let user = |start: &str, to: &str| {
            let text = format!("{start} sip:a SIP/2.0\r\nFrom: <sip:x@a>\r\n{to}\r\n\r\n");
            peek_registered_user(text.as_bytes()).map(str::to_owned)
        };
        for to in
            ["To: <sip:u1@a>", "t: sip:u1:secret@a;x=1", "To: \"a <b\" <SIPS:u1@a;p>;q", "To:\r\n <sip:u1@a>"]
        {
            assert_eq!(user("REGISTER", to).as_deref(), Some("u1"), "{to}");
        }
        assert_eq!(user("INVITE", "To: <sip:u1@a>"), None);
        for to in ["To: <sip:a>", "To: <sip:u%31@a>", "To: <tel:u1@a>", "To: <sip:@a>", "Subject: x"] {
            assert_eq!(user("REGISTER", to), None, "{to}");
        }
    }

    #[test]
    fn the_call_id_is_found_under_both_names_and_in_any_case() {
        for name in ["Call-ID: ", "call-id:", "CALL-ID :\t", "i: ", "I:", "Call-ID:\r\n  "] {
            let datagram =
                format!("\r\nBYE sip:a SIP/2.0\r\nCall-IDs: no\r\n{name}abc@x \r\nTo: <sip:b>\r\n\r\n");
            assert_eq!(peek_call_id(datagram.as_bytes()), Some(&b"abc@x"[..]), "{name}");
        }
    }

    #[test]
    fn nothing_is_found_in_the_body_or_the_start_line() {
        assert_eq!(peek_call_id(b"i: 1\r\nTo: x\r\n\r\ni: 2\r\n"), None);
        assert_eq!(peek_call_id(b"i: 1\nTo: x\n\ni: 2\n"), None);
        assert_eq!(peek_call_id(b"OPTIONS sip:a SIP/2.0\r\nCall-ID: cut off"), None);
        assert_eq!(peek_call_id(b"OPTIONS sip:a SIP/2.0\r\nCall-ID:\r\n\r\n"), None);
        for garbage in [&b""[..], b"\r\n\r\n", b"\0\0", b"\x80\x01abc", b"\ni", b"a\ncall-id"] {
            assert_eq!(peek_call_id(garbage), None);
            assert_eq!(peek_to_tag(garbage), None);
        }
    }

    #[test]
    fn the_to_tag_is_the_headers_and_not_the_uris() {
        let tag = |to: &str| {
            let datagram = format!("BYE sip:a SIP/2.0\r\nFrom: <sip:f>;tag=f\r\n{to}\r\n\r\n");
            peek_to_tag(datagram.as_bytes()).map(|tag| String::from_utf8(tag.to_vec()).unwrap())
        };
        assert_eq!(tag("To: \"a;tag=no <\\\"\" <sip:b;tag=uri>;x;TAG = yes"), Some("yes".into()));
        assert_eq!(tag("t: sip:b;tag=yes"), Some("yes".into()));
        assert_eq!(tag("TO:\r\n sip:b ;\r\n tag  = yes"), Some("yes".into()));
        assert_eq!(tag("To: <sip:b;tag=uri>"), None);
        assert_eq!(tag("To: <sip:b;tag=uri"), None);
        assert_eq!(tag("To: \"b <sip:b>;tag=x"), None);
        assert_eq!(tag("To: <sip:b>;tag="), None);
        assert_eq!(tag("Token: <sip:b>;tag=x"), None);
    }

    #[test]
    fn a_keepalive_is_only_line_ends_and_nul() {
        for keepalive in [&b""[..], b"\r\n", b"\r\n\r\n", b"\0\0\0\0"] {
            assert!(is_keepalive(keepalive));
        }
        assert!(!is_keepalive(b"\r\nA"));
    }
}
