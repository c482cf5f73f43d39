//! The values of single keys that are more than a number, a switch or a text.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};
pub use tandem_protocol::dial_plan::{NumberMask, Target};

/// A password or token. Printing it, also with `{:?}`, shows nothing of it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

/// A text that is not what its key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("allowed: {allowed}")]
pub struct InvalidValue {
    /// What is allowed, in words.
    pub allowed: &'static str,
}

/// Reads a text through [`FromStr`], so that an error says what is allowed.
fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = InvalidValue>,
{
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|error: InvalidValue| de::Error::invalid_value(de::Unexpected::Str(&text), &error.allowed))
}

macro_rules! read_from_text {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                parsed(deserializer)
            }
        }
    )*};
}
read_from_text!(BindAddress, Ip, HostPort, Source, CodeRange, ConnectionAddress, Codec, DigestAlgorithm);

/// A local address and port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BindAddress(pub SocketAddr);

impl FromStr for BindAddress {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const ALLOWED: InvalidValue =
            InvalidValue { allowed: "an IP address and port, as \"0.0.0.0:5060\" or \"[::]:5060\"" };
        text.parse().map(Self).map_err(|_| ALLOWED)
    }
}

/// An IPv4 or IPv6 address without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ip(pub IpAddr);

impl FromStr for Ip {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const ALLOWED: InvalidValue =
            InvalidValue { allowed: "an IP address without a port, as \"192.0.2.10\" or \"2001:db8::10\"" };
        text.parse().map(Self).map_err(|_| ALLOWED)
    }
}

/// A host name or IP address, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// A name or an address; an IPv6 address has no brackets here.
    pub host: String,
    /// `None`: the default port of the transport, or what DNS says (RFC 3263).
    pub port: Option<u16>,
}

impl HostPort {
    /// The address, if the host is one and needs no DNS.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Whether `text` can be a host name (RFC 1123) or an IP address.
pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // Digits and dots only, yet no address: a mistyped address, not a name.
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse::<IpAddr>().is_ok() || (!numeric && text.len() <= 253 && text.split('.').all(label))
}

impl FromStr for HostPort {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const ALLOWED: InvalidValue = InvalidValue {
            allowed: "a host name or IP address with or without a port from 1 to 65535, \
                      as \"192.0.2.10:5060\", \"[2001:db8::10]:5060\" or \"sip.example.com\"",
        };
        let port = |text: &str| text.parse().ok().filter(|port| *port != 0).map(Some).ok_or(ALLOWED);
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or(ALLOWED)?;
            let inside: Option<std::net::Ipv6Addr> = host.parse().ok();
            inside.ok_or(ALLOWED)?;
            match after.strip_prefix(':') {
                Some(digits) => (host, port(digits)?),
                None if after.is_empty() => (host, None),
                None => return Err(ALLOWED),
            }
        } else {
            match text.split_once(':') {
                Some((host, digits)) if !digits.contains(':') => (host, port(digits)?),
                Some(_) | None => (text, None),
            }
        };
        if is_host(host) { Ok(Self { host: host.to_owned(), port }) } else { Err(ALLOWED) }
    }
}

/// Addresses a request may come from: a network, and a port if only one will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The addresses; a single address is a network of one.
    pub network: IpNet,
    /// `None`: from any port.
    pub port: Option<u16>,
}

impl Source {
    /// Whether a request that came from `from` is meant. An IPv4 address mapped into IPv6, as a
    /// dual-stack socket reports it, is taken as the IPv4 address it is.
    pub fn contains(&self, from: SocketAddr) -> bool {
        let port_fits = self.port.is_none_or(|port| port == from.port());
        port_fits && self.network.contains(&from.ip().to_canonical())
    }
}

impl FromStr for Source {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const ALLOWED: InvalidValue = InvalidValue {
            allowed: "an address or network with or without a port, \
                      as \"10.0.0.0/8\", \"192.0.2.10:5070\" or \"[2001:db8::/32]:5060\"",
        };
        let (network, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (network, after) = rest.split_once(']').ok_or(ALLOWED)?;
                (network, if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or(ALLOWED)?) })
            }
            None if text.matches(':').count() == 1 => {
                text.split_once(':').map(|(network, port)| (network, Some(port))).ok_or(ALLOWED)?
            }
            None => (text, None),
        };
        let port = match port {
            Some(digits) => Some(digits.parse().ok().filter(|port| *port != 0).ok_or(ALLOWED)?),
            None => None,
        };
        let single = || network.parse::<IpAddr>().map(IpNet::from);
        let network = network.parse().or_else(|_| single()).map_err(|_| ALLOWED)?;
        Ok(Self { network, port })
    }
}

/// SIP response codes from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRange {
    /// The lowest code.
    pub first: u16,
    /// The highest code.
    pub last: u16,
}

impl CodeRange {
    /// Whether `code` is one of them.
    pub fn contains(&self, code: u16) -> bool {
        (self.first..=self.last).contains(&code)
    }
}

impl FromStr for CodeRange {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const ALLOWED: InvalidValue = InvalidValue {
            allowed: "a final SIP code that is no success, or a range of them, from 300 to 699, \
                      as \"480\" or \"500-599\"",
        };
        let code = |digits: &str| {
            let plain = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
            let code = digits.parse().ok().filter(|code| plain && (300..=699).contains(code));
            code.ok_or(ALLOWED)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (code(first.trim())?, code(last.trim())?);
        if first <= last { Ok(Self { first, last }) } else { Err(ALLOWED) }
    }
}

/// Reads a target of the dial plan.
pub(super) fn target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Target, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &Target::FORMS))
}

/// Reads a mask of calling numbers.
pub(super) fn number_mask<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<NumberMask>, D::Error> {
    const ALLOWED: &str = "up to 32 digits, X, * and #, after + or not, as \"+4989555XXXX\"";
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &ALLOWED))
}

/// Where a device is reached that does not register: `[user@]host[:port]`, or a user alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionAddress {
    /// The user it is asked for; `None`: its extension.
    pub user: Option<String>,
    /// Where; `None`: the proxies of its trunk complete it.
    pub host: Option<HostPort>,
}

impl FromStr for ConnectionAddress {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const ALLOWED: InvalidValue = InvalidValue {
            allowed: "\"user\", \"user@host\", \"host:port\" or \"user@host:port\", as \"1001@192.0.2.10:5060\"",
        };
        let text = text.strip_prefix("sip:").unwrap_or(text);
        let user = |user: &str| {
            let bad = |c: char| c.is_whitespace() || c.is_control() || "<>\"@:;,?".contains(c);
            if user.is_empty() || user.contains(bad) { Err(ALLOWED) } else { Ok(user.to_owned()) }
        };
        let host = |host: &str| host.parse::<HostPort>().map_err(|_| ALLOWED);
        let (user, host) = match text.split_once('@') {
            Some((name, place)) => (Some(user(name)?), Some(host(place)?)),
            // A user may be a word or a number; a place has a port or is an address or a name with dots.
            None if text.contains([':', '.', '[']) => (None, Some(host(text)?)),
            None => (Some(user(text)?), None),
        };
        Ok(Self { user, host })
    }
}

/// An audio codec, by its encoding name in SDP (RFC 4855); case does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codec {
    /// G.711 mu-law, 64 kbit/s.
    Pcmu,
    /// G.711 A-law, 64 kbit/s.
    Pcma,
    /// G.722, wideband at 64 kbit/s.
    G722,
    /// G.729, 8 kbit/s.
    G729,
    /// Opus (RFC 6716).
    Opus,
    /// Uncompressed 16-bit samples.
    L16,
}

impl Codec {
    /// The encoding name in SDP.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::G729 => "G729",
            Self::Opus => "opus",
            Self::L16 => "L16",
        }
    }
}

impl FromStr for Codec {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const ALL: [Codec; 6] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::G729, Codec::Opus, Codec::L16];
        let same = ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(text));
        same.ok_or(InvalidValue { allowed: "\"PCMU\", \"PCMA\", \"G722\", \"G729\", \"opus\" or \"L16\"" })
    }
}

/// The hash of a digest challenge (RFC 7616, RFC 8760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DigestAlgorithm {
    /// Every phone knows it.
    Md5,
    /// Newer phones know it, some older ones give up at it.
    Sha256,
}

impl FromStr for DigestAlgorithm {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "MD5" => Ok(Self::Md5),
            "SHA-256" => Ok(Self::Sha256),
            _ => Err(InvalidValue { allowed: "\"MD5\" or \"SHA-256\"" }),
        }
    }
}

/// The UDP ports of media, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl PortRange {
    /// How many pairs of an RTP and an RTCP port there are (RFC 3550 §11).
    pub fn pairs(&self) -> u16 {
        let ports = u32::from(self.last.saturating_sub(self.first)) + u32::from(self.last >= self.first);
        u16::try_from(ports / 2).unwrap_or(u16::MAX)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ports = Vec::<u16>::deserialize(deserializer)?;
        match ports[..] {
            [first, last] => Ok(Self { first, last }),
            _ => Err(de::Error::invalid_length(ports.len(), &"two ports, as [20000, 39999]")),
        }
    }
}
