//! Addresses in headers: `From`, `To`, `Contact`, `Route` (RFC 3261 section 20.10) and `Via` (section 20.42).

use std::borrow::Cow;
use std::fmt;

use smallvec::SmallVec;

use super::malformed::{BadHeader, BadUri};
use super::syntax::{TOKEN, URI, all};
use super::syntax::{check_params_for, closing_quote, host_port, is, param, run, trim, trim_start};
use super::uri::{Uri, write_host};
use super::usual;

/// A view of a `name-addr` or `addr-spec` with its header parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The display name without its quotes; escapes within are left (see [`NameAddr::display_unescaped`]).
    pub display: Option<&'a str>,
    /// The URI as written, without angle brackets. Its characters are checked, its grammar is not.
    pub uri: &'a str,
    /// The header parameters, raw, from their first `;` on; "" if there are none.
    pub params: &'a str,
}

impl NameAddr<'_> {
    /// Reads one value. Without angle brackets what follows a `;` belongs to the header (RFC 3261 section 20.10).
    ///
    /// # Errors
    /// If the value does not fit the grammar. An unquoted display name may hold non-ASCII letters, which
    /// the grammar refuses and telephones send.
    pub fn parse(value: &str) -> Result<NameAddr<'_>, BadHeader> {
        let value = trim(value);
        if let Some((address, _)) = usual::address(value) {
            return Ok(address);
        }
        let (address, _) = NameAddr::read(value)?;
        check_uri(address.uri)?;
        Ok(address)
    }

    /// As [`NameAddr::parse`], of a trimmed value, and with its URI checked as [`Uri::parse`] does. Beside it the `tag`, which may be "".
    pub(super) fn parse_with_uri(value: &str) -> Result<(NameAddr<'_>, Option<&str>), BadHeader> {
        if let Some(read) = usual::address(value) {
            return Ok(read);
        }
        let read = NameAddr::read(value)?;
        read.0.parsed_uri().map_err(BadHeader::Uri)?;
        Ok(read)
    }

    /// Reads a trimmed value by the whole grammar but its URI's: not even the characters of that are checked. Beside it the `tag`.
    pub(super) fn read(value: &str) -> Result<(NameAddr<'_>, Option<&str>), BadHeader> {
        let (address, bracketed) = NameAddr::split(value)?;
        if let Some(display) = address.display
            && !value.starts_with('"')
            && !display.bytes().all(|b| is(b, TOKEN) || b >= 0x80 || matches!(b, b' ' | b'\t'))
        {
            return Err(BadHeader::DisplayName);
        }
        // Section 20.10: a URI with a comma or question mark must stand in angle brackets.
        if !bracketed && address.uri.bytes().any(|b| matches!(b, b',' | b'?')) {
            return Err(BadHeader::Uri(BadUri::Character));
        }
        let tag = check_params_for(address.params, "tag")?;
        Ok((address, tag))
    }

    /// Finds the parts of a trimmed value, and whether the URI stands in angle brackets, without a look inside them.
    pub(super) fn split(value: &str) -> Result<(NameAddr<'_>, bool), BadHeader> {
        let bytes = value.as_bytes();
        let (display, open) = if bytes.first() == Some(&b'"') {
            let end = closing_quote(bytes, 0).ok_or(BadHeader::UnclosedQuote)?;
            let rest = trim_start(&value[end + 1..]);
            if !rest.starts_with('<') {
                return Err(BadHeader::UnclosedBracket);
            }
            (Some(&value[1..end]), value.len() - rest.len())
        } else {
            match bytes.iter().position(|b| matches!(b, b'<' | b';')) {
                Some(at) if bytes[at] == b'<' => (Some(trim(&value[..at])).filter(|d| !d.is_empty()), at),
                at => {
                    let (uri, params) = value.split_at(at.unwrap_or(value.len()));
                    return Ok((NameAddr { display: None, uri: trim(uri), params }, false));
                }
            }
        };
        let after = &value[open + 1..];
        let close = memchr::memchr(b'>', after.as_bytes()).ok_or(BadHeader::UnclosedBracket)?;
        let (uri, params) = (&after[..close], trim_start(&after[close + 1..]));
        Ok((NameAddr { display, uri, params }, true))
    }
}

fn check_uri(uri: &str) -> Result<(), BadHeader> {
    if !all(uri.as_bytes(), URI) {
        return Err(BadHeader::Uri(BadUri::Character));
    }
    match memchr::memchr(b':', uri.as_bytes()) {
        Some(colon) if colon > 0 && colon + 1 < uri.len() => Ok(()),
        _ => Err(BadHeader::Uri(BadUri::Scheme)),
    }
}

impl<'a> NameAddr<'a> {
    /// The value of a header parameter, by name without regard to case; "" for one without a value.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        param(self.params, name)
    }

    /// The `tag` parameter, if it is there and not empty.
    pub fn tag(&self) -> Option<&'a str> {
        self.param("tag").filter(|tag| !tag.is_empty())
    }

    /// The URI, read.
    ///
    /// # Errors
    /// As [`Uri::parse`].
    pub fn parsed_uri(&self) -> Result<Uri<'a>, BadUri> {
        Uri::parse(self.uri)
    }

    /// The display name with its backslash escapes replaced.
    pub fn display_unescaped(&self) -> Option<Cow<'a, str>> {
        let raw = self.display?;
        if !raw.contains('\\') {
            return Some(Cow::Borrowed(raw));
        }
        let mut out = String::with_capacity(raw.len());
        let mut chars = raw.chars();
        while let Some(c) = chars.next() {
            out.extend(if c == '\\' { chars.next() } else { Some(c) });
        }
        Some(Cow::Owned(out))
    }
}

impl fmt::Display for NameAddr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(display) = self.display {
            write!(f, "\"{display}\" ")?;
        }
        write!(f, "<{}>{}", self.uri, self.params)
    }
}

/// What the Contact headers of a message say (RFC 3261 section 20.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contacts<'a> {
    /// There are none.
    None,
    /// `*`: every binding, in a REGISTER that removes them (RFC 3261 section 10.2.2).
    Star,
    /// The addresses, in order; at least one.
    List(SmallVec<[NameAddr<'a>; 1]>),
}

/// A view of one Via value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Via<'a> {
    /// The transport as written: "UDP", "TCP", "TLS", "WS", "WSS" or another token.
    pub transport: &'a str,
    /// The sent-by host; an IPv6 address is without brackets.
    pub host: &'a str,
    /// The sent-by port, if one is written.
    pub port: Option<u16>,
    /// The parameters, raw, from their first `;` on; "" if there are none.
    pub params: &'a str,
}

impl Via<'_> {
    /// The sent-by port, or where there is none that of the transport (RFC 3261 §18.1.1).
    pub fn sent_by_port(&self) -> u16 {
        let secure = ["TLS", "WSS"].iter().any(|secure| self.transport.eq_ignore_ascii_case(secure));
        self.port.unwrap_or(if secure { 5061 } else { 5060 })
    }

    /// Reads one value of a Via header; a header line may hold several, separated by commas.
    ///
    /// # Errors
    /// If the value does not fit the grammar or the protocol is not SIP/2.0.
    pub fn parse(value: &str) -> Result<Via<'_>, BadHeader> {
        Ok(Via::check(value)?.0)
    }

    /// As [`Via::parse`]. Beside it the `branch`, which may be "".
    pub(super) fn check(value: &str) -> Result<(Via<'_>, Option<&str>), BadHeader> {
        let value = trim(value);
        usual::via(value).map_or_else(|| Via::read(value), Ok)
    }

    /// Reads a trimmed value by the whole grammar.
    pub(super) fn read(value: &str) -> Result<(Via<'_>, Option<&str>), BadHeader> {
        let via = Via::split(value)?;
        let branch = check_params_for(via.params, "branch")?;
        Ok((via, branch))
    }

    /// Finds the parts of a trimmed value; the parameters are not checked.
    pub(super) fn split(value: &str) -> Result<Via<'_>, BadHeader> {
        let rest = match value.strip_prefix("SIP/2.0/") {
            Some(rest) => trim_start(rest),
            None => expect_protocol(value).ok_or(BadHeader::SentProtocol)?,
        };
        let (transport, rest) = rest.split_at(run(rest.as_bytes(), TOKEN));
        let sent_by = trim_start(rest);
        if transport.is_empty() || sent_by.len() == rest.len() {
            return Err(BadHeader::SentProtocol);
        }
        let (host, port, rest) = host_port(sent_by).ok_or(BadHeader::SentBy)?;
        let params = trim_start(rest);
        if !params.is_empty() && !params.starts_with(';') {
            return Err(BadHeader::SentBy);
        }
        Ok(Via { transport, host, port, params })
    }
}

/// Takes `SIP / 2.0 /` and the white space that may stand around it.
fn expect_protocol(value: &str) -> Option<&str> {
    let (name, rest) = value.split_once('/')?;
    let (version, rest) = rest.split_once('/')?;
    let fits = trim(name).eq_ignore_ascii_case("SIP") && trim(version) == "2.0";
    fits.then(|| trim_start(rest))
}

impl<'a> Via<'a> {
    /// The value of a parameter, by name without regard to case; "" for one without a value.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        param(self.params, name)
    }

    /// The `branch` parameter, if it is there and not empty.
    pub fn branch(&self) -> Option<&'a str> {
        self.param("branch").filter(|branch| !branch.is_empty())
    }

    /// The branch, if it names the transaction on its own: the magic cookie of RFC 3261 section 8.1.1.7 with something
    /// after it. The cookie alone (RFC 4475 section 3.2.1) is the same in every request of such a sender.
    pub fn unique_branch(&self) -> Option<&'a str> {
        self.branch().filter(|branch| is_unique(branch))
    }

    /// The `received` parameter: the address that the request came from; an IPv6 address is without brackets.
    pub fn received(&self) -> Option<&'a str> {
        let address = self.param("received")?;
        Some(address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address))
    }

    /// The `rport` parameter (RFC 3581): `None` if it is not there, `Some(None)` if it has no port, as in a request.
    pub fn rport(&self) -> Option<Option<u16>> {
        self.param("rport").map(|port| port.parse().ok())
    }
}

/// Whether a branch begins with the magic cookie and goes on.
pub(super) fn is_unique(branch: &str) -> bool {
    branch.strip_prefix("z9hG4bK").is_some_and(|rest| !rest.is_empty())
}

impl fmt::Display for Via<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} ", self.transport)?;
        write_host(f, self.host, true)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(self.params)
    }
}
