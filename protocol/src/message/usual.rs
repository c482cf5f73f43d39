//! Addresses and Vias as nearly every message has them, read in one pass. What looks otherwise is left to those who know the whole
//! grammar ([`super::address`], [`super::uri`]): they would read what is read here alike.

use super::address::{NameAddr, Via};
use super::syntax::{HOST, TOKEN, USER, VALUE, is, run, short_run, trim};
use super::uri::Uri;

/// The `host` and `port` that a text begins with, and their length; `None` for an IPv6 address, and for white space within.
fn host_port(s: &str) -> Option<(&str, Option<u16>, usize)> {
    let bytes = s.as_bytes();
    let len = short_run(bytes, HOST);
    if len == 0 {
        return None;
    }
    match bytes.get(len) {
        Some(b':') => {
            let (mut port, mut at) = (0_u32, len + 1);
            for digit in
                bytes[at..].iter().map(|b| b.wrapping_sub(b'0')).take_while(|digit| *digit <= 9).take(6)
            {
                port = port * 10 + u32::from(digit);
                at += 1;
            }
            let port = u16::try_from(port).ok().filter(|_| at > len + 1)?;
            Some((&s[..len], Some(port), at))
        }
        Some(b' ' | b'\t' | b'\r' | b'\n') => None,
        Some(_) | None => Some((&s[..len], None, len)),
    }
}

/// The `sip` URI that a text begins with, and its length: at most a user, a host and a port. What follows must be looked at.
fn uri(s: &str) -> Option<(Uri<'_>, usize)> {
    let rest = s.strip_prefix("sip:")?;
    let len = short_run(rest.as_bytes(), USER);
    let (user, start) = match rest.as_bytes().get(len) {
        Some(b'@') if len > 0 => (Some(&rest[..len]), len + 1),
        _ => (None, 0),
    };
    let (host, port, len) = host_port(&rest[start..])?;
    Some((Uri { scheme: "sip", user, host, port, ..Uri::default() }, "sip:".len() + start + len))
}

/// All of a text that is a `sip` URI without password, parameters and headers.
pub(super) fn whole_uri(s: &str) -> Option<Uri<'_>> {
    uri(s).filter(|(_, len)| *len == s.len()).map(|(uri, _)| uri)
}

/// All of a trimmed value like `name <sip:user@host:port>;tag=x`, of which name, user, port and tag may be missing; beside it the tag.
pub(super) fn address(value: &str) -> Option<(NameAddr<'_>, Option<&str>)> {
    let bytes = value.as_bytes();
    let mut open = 0;
    while *bytes.get(open)? != b'<' {
        if !is(bytes[open], TOKEN) && bytes[open] != b' ' {
            return None;
        }
        open += 1;
    }
    let display = if open == 0 { None } else { Some(trim(&value[..open])).filter(|name| !name.is_empty()) };
    let (_, len) = uri(&value[open + 1..])?;
    let close = open + 1 + len;
    if bytes.get(close) != Some(&b'>') {
        return None;
    }
    let (uri, params) = (&value[open + 1..close], &value[close + 1..]);
    let tag = match params {
        "" => None,
        _ => {
            let tag = params.strip_prefix(";tag=")?;
            Some(tag).filter(|tag| run(tag.as_bytes(), VALUE) == tag.len())
        }
    };
    if tag.is_none() && !params.is_empty() {
        return None;
    }
    Some((NameAddr { display, uri, params }, tag))
}

/// All of a trimmed Via whose parameters stand without quotes and white space; beside it the branch.
pub(super) fn via(value: &str) -> Option<(Via<'_>, Option<&str>)> {
    let rest = value.strip_prefix("SIP/2.0/")?;
    let len = short_run(rest.as_bytes(), TOKEN);
    let (transport, rest) = rest.split_at(len);
    let sent_by = rest.strip_prefix(' ').filter(|_| len > 0)?;
    let (host, port, len) = host_port(sent_by)?;
    let params = &sent_by[len..];
    let bytes = params.as_bytes();
    let (mut at, mut branch) = (0, None);
    while at < bytes.len() {
        if bytes[at] != b';' {
            return None;
        }
        let name = at + 1;
        at = name + short_run(&bytes[name..], TOKEN);
        if at == name {
            return None;
        }
        let name = &bytes[name..at];
        let mut value = at..at;
        if bytes.get(at) == Some(&b'=') {
            value = at + 1..at + 1 + run(&bytes[at + 1..], VALUE);
            at = value.end;
        }
        if branch.is_none() && name.len() == "branch".len() && name.eq_ignore_ascii_case(b"branch") {
            branch = Some(&params[value]);
        }
    }
    Some((Via { transport, host, port, params }, branch))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAILS: [&str; 14] = [
        "",
        ";tag=a",
        ";tag=",
        ";tag=a;x",
        ";TAG=a",
        "; tag=a",
        ";tag=\"a\"",
        ";x",
        ";x=y;branch=b",
        ";branch=b;branch=c",
        ";Branch",
        " ",
        "@x",
        ">",
    ];
    const HOSTS: [&str; 16] = [
        "h",
        "h:5060",
        "192.0.2.1:65535",
        "192.0.2.1:65536",
        "h:",
        "[::1]:5060",
        "h :5060",
        "h: 5060",
        "a_b",
        "",
        "u@h",
        "u:p@h",
        "u@h:1@x",
        "%41@h",
        "u#@h;lr",
        "u;x=y?z@h:0001",
    ];

    #[test]
    fn addresses_are_read_as_the_whole_grammar_reads_them() {
        let mut read = 0;
        for name in ["", "n", "a b ", "\"q\" ", "\u{e9} ", "a;b", "a\t", " "] {
            for scheme in ["sip:", "SIP:", "sips:", "tel:", ""] {
                for (host, tail) in HOSTS.iter().flat_map(|host| TAILS.map(|tail| (host, tail))) {
                    let value = format!("{name}<{scheme}{host}>{tail}");
                    let value = trim(&value);
                    let Some(quick) = address(value) else { continue };
                    read += 1;
                    assert_eq!(NameAddr::read(value), Ok(quick), "{value}");
                    assert!(Uri::read(quick.0.uri).is_ok(), "{value}");
                }
            }
        }
        assert!(read > 20, "{read}");
    }

    #[test]
    fn uris_are_read_as_the_whole_grammar_reads_them() {
        let mut read = 0;
        for (host, tail) in HOSTS.iter().flat_map(|host| TAILS.map(|tail| (host, tail))) {
            let text = format!("sip:{host}{tail}");
            let Some(quick) = whole_uri(&text) else { continue };
            read += 1;
            assert_eq!(Uri::read(&text), Ok(quick), "{text}");
        }
        assert!(read > 5, "{read}");
    }

    #[test]
    fn vias_are_read_as_the_whole_grammar_reads_them() {
        let mut read = 0;
        for protocol in
            ["SIP/2.0/UDP ", "SIP/2.0/UDP", "SIP/2.0/ ", "SIP/2.0/TLS  ", "SIP / 2.0/UDP ", "sip/2.0/UDP "]
        {
            for (host, tail) in HOSTS.iter().flat_map(|host| TAILS.map(|tail| (host, tail))) {
                let text = format!("{protocol}{host}{tail}");
                let text = trim(&text);
                let Some(quick) = via(text) else { continue };
                read += 1;
                assert_eq!(Via::read(text), Ok(quick), "{text}");
            }
        }
        assert!(read > 20, "{read}");
    }
}
