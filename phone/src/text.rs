//! The few pieces of SIP grammar that `rsip` 0.4 misreads without saying so.
//!
//! Its typed headers take `sip:john.doe@host` for a host, drop a Via's parameters from the first one that is
//! not a token (`received=[::1]`), know one challenge parameter order only and no comma-joined lists with
//! quoted commas. The phone therefore reads header *values* with these functions and leaves framing, header
//! names and printing to `rsip`.

/// Splits `value` at `separator` where it stands outside quotes and outside `<...>`.
pub(crate) fn split(value: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped, mut angle) = (false, false, false);
    for (at, c) in value.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        match c {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => angle = true,
            '>' if !quoted => angle = false,
            _ if c == separator && !quoted && !angle => {
                parts.push(value[start..at].trim());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(value[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

/// The value of parameter `name` among `;`-separated parts: `Some("")` for a parameter without a value.
pub(crate) fn param<'a>(parts: &[&'a str], name: &str) -> Option<&'a str> {
    parts.iter().find_map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A From, To, Contact or Route value, RFC 3261 section 20.10.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameAddr {
    /// The URI, without angle brackets.
    pub(crate) uri: String,
    /// The tag parameter.
    pub(crate) tag: Option<String>,
    /// The expires parameter, seconds.
    pub(crate) expires: Option<u32>,
}

/// Reads one name-addr or addr-spec; `None` when there is no URI in it.
pub(crate) fn name_addr(value: &str) -> Option<NameAddr> {
    let parts = split(value, ';');
    let first = parts.first()?;
    // Without angle brackets the parameters are the header's, not the URI's.
    let uri = match (first.rfind('<'), first.rfind('>')) {
        (Some(open), Some(close)) if open < close => &first[open + 1..close],
        (None, None) => first,
        _ => return None,
    };
    if !uri.contains(':') {
        return None;
    }
    let rest = &parts[1..];
    Some(NameAddr {
        uri: uri.trim().to_owned(),
        tag: param(rest, "tag").filter(|tag| !tag.is_empty()).map(str::to_owned),
        expires: param(rest, "expires").and_then(|seconds| seconds.parse().ok()),
    })
}

/// The user part of a SIP or tel URI, without password; empty when there is none.
pub(crate) fn uri_user(uri: &str) -> &str {
    let Some((scheme, rest)) = uri.split_once(':') else { return "" };
    let user = match rest.rsplit_once('@') {
        Some((user, _)) => user,
        None if scheme.eq_ignore_ascii_case("tel") => rest,
        None => return "",
    };
    user.split([':', ';']).next().unwrap_or("")
}

/// The host and port of a SIP URI, without user and parameters.
pub(crate) fn uri_host_port(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    host.split([';', '?']).next().unwrap_or("")
}

/// Reads `host[:port]` where the host is an IP address; the port is 5060 when absent.
pub(crate) fn socket_addr(host_port: &str) -> Option<std::net::SocketAddr> {
    if let Ok(addr) = host_port.parse() {
        return Some(addr);
    }
    let ip = host_port.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(std::net::SocketAddr::new(ip, 5060))
}

/// Takes the quotes off a quoted string, and its escapes.
pub(crate) fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_in_the_user_part_stays_in_the_user_part() {
        let from = name_addr("\"Doe; John\" <sip:john.doe@example.com;user=phone>;tag=x").unwrap();
        assert_eq!(from.uri, "sip:john.doe@example.com;user=phone");
        assert_eq!(from.tag.as_deref(), Some("x"));
        assert_eq!(uri_user(&from.uri), "john.doe");
        assert_eq!(uri_host_port(&from.uri), "example.com");
    }

    #[test]
    fn a_comma_in_quotes_or_brackets_does_not_split_a_list() {
        let list = "\"a, \\\"b\" <sip:a,b@h>, <sip:c@h;lr>";
        assert_eq!(split(list, ','), ["\"a, \\\"b\" <sip:a,b@h>", "<sip:c@h;lr>"]);
    }

    #[test]
    fn an_address_without_brackets_keeps_its_parameters_for_the_header() {
        let to = name_addr("sip:9@h;tag=t;expires=30").unwrap();
        assert_eq!((to.uri.as_str(), to.tag.as_deref(), to.expires), ("sip:9@h", Some("t"), Some(30)));
    }

    #[test]
    fn hosts_are_addresses_with_the_default_port_of_sip() {
        assert_eq!(socket_addr("127.0.0.1"), Some(([127, 0, 0, 1], 5060).into()));
        assert_eq!(socket_addr("[::1]:5070"), "[::1]:5070".parse().ok());
        assert_eq!(socket_addr("[::1]"), "[::1]:5060".parse().ok());
        assert_eq!(socket_addr("example.com"), None);
        assert_eq!(unquote("\"a\\\"b\""), "a\"b");
    }
}
