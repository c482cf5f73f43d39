//! Prints a session description in the order RFC 8866 §9 fixes.

use std::fmt;
use std::net::IpAddr;

use super::{
    Attribute, Bandwidth, Connection, MediaDescription, NetAddress, Origin, OtherLine, SessionDescription,
    Timing,
};

impl fmt::Display for NetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(ip)) => write!(f, "IN IP4 {ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "IN IP6 {ip}"),
            Self::Name { name, v6 } => write!(f, "IN {} {name}", if *v6 { "IP6" } else { "IP4" }),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.username, self.session_id, self.version, self.addr)
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.suffix {
            Some(suffix) => write!(f, "{}/{suffix}", self.addr),
            None => self.addr.fmt(f),
        }
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}:{value}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

fn others(f: &mut fmt::Formatter<'_>, lines: &[OtherLine], kinds: &str) -> fmt::Result {
    for kind in kinds.chars() {
        for line in lines.iter().filter(|l| l.kind == kind) {
            write!(f, "{kind}={}\r\n", line.value)?;
        }
    }
    Ok(())
}

fn all<T: fmt::Display>(f: &mut fmt::Formatter<'_>, kind: char, items: &[T]) -> fmt::Result {
    items.iter().try_for_each(|item| write!(f, "{kind}={item}\r\n"))
}

fn timing(f: &mut fmt::Formatter<'_>, time: &Timing) -> fmt::Result {
    write!(f, "t={} {}\r\n", time.start, time.stop)?;
    all(f, 'r', &time.repeats)
}

impl fmt::Display for MediaDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m={} {}", self.kind, self.port)?;
        if self.port_count > 1 {
            write!(f, "/{}", self.port_count)?;
        }
        write!(f, " {}", self.protocol)?;
        self.formats.iter().try_for_each(|format| write!(f, " {format}"))?;
        f.write_str("\r\n")?;
        others(f, &self.other, "i")?;
        all(f, 'c', self.connection.as_slice())?;
        all(f, 'b', &self.bandwidths)?;
        others(f, &self.other, "k")?;
        all(f, 'a', &self.attributes)
    }
}

impl fmt::Display for SessionDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v=0\r\no={}\r\ns={}\r\n", self.origin, self.session_name)?;
        others(f, &self.other, "iuep")?;
        all(f, 'c', self.connection.as_slice())?;
        all(f, 'b', &self.bandwidths)?;
        self.times.iter().try_for_each(|time| timing(f, time))?;
        others(f, &self.other, "zk")?;
        all(f, 'a', &self.attributes)?;
        self.media.iter().try_for_each(|media| media.fmt(f))
    }
}
