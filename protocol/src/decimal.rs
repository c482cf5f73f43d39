//! Numbers and addresses as text. They are in nearly every line of a message, where the formatting of the standard library,
//! which minds width, sign and padding, costs ten times as much.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The digits of 2^64 - 1.
const LONGEST: usize = 20;

/// A number in decimal digits.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: [u8; LONGEST],
    from: usize,
}

impl Decimal {
    /// The digits of `number`, without leading zeros.
    pub fn of(mut number: u64) -> Decimal {
        let mut decimal = Decimal { digits: [b'0'; LONGEST], from: LONGEST };
        while decimal.from == LONGEST || number > 0 {
            decimal.from -= 1;
            decimal.digits[decimal.from] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        decimal
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Digits are UTF-8.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.from..]
    }
}

const HEX: [u8; 16] = *b"0123456789abcdef";

/// Appends `number` in lower-case hexadecimal digits, with leading zeros up to `width`, at most 16.
pub fn push_hex(text: &mut String, number: u64, width: u32) {
    let least = 64 - number.leading_zeros();
    let digits = least.div_ceil(4).max(width).clamp(1, 16);
    let mut written = [0; 16];
    for (place, digit) in (0..digits).rev().zip(&mut written) {
        *digit = HEX[(number >> (4 * place)) as usize & 15];
    }
    // Digits are UTF-8.
    text.push_str(std::str::from_utf8(&written[..digits as usize]).unwrap_or_default());
}

/// Writes an address as its `Display` does.
///
/// # Errors
/// Those of `out`.
pub fn write_ip(out: &mut impl Write, ip: IpAddr) -> fmt::Result {
    match ip {
        IpAddr::V4(ip) => write_v4(out, ip, None),
        IpAddr::V6(ip) => write!(out, "{ip}"),
    }
}

/// The longest IPv4 address with its port.
const LONGEST_V4: usize = "255.255.255.255:65535".len();

/// Writes an address, and a port if there is one, in one piece.
fn write_v4(out: &mut impl Write, ip: Ipv4Addr, port: Option<u16>) -> fmt::Result {
    let (mut text, mut len) = ([0; LONGEST_V4], 0);
    let mut put = |byte| {
        text[len] = byte;
        len += 1;
    };
    for (place, octet) in ip.octets().into_iter().enumerate() {
        if place > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    if let Some(port) = port {
        put(b':');
        Decimal::of(port.into()).as_bytes().iter().copied().for_each(put);
    }
    // Digits are UTF-8.
    out.write_str(std::str::from_utf8(&text[..len]).unwrap_or_default())
}

/// An address with its port, as its `Display` writes it.
pub fn socket_addr(address: SocketAddr) -> String {
    let mut text = String::with_capacity("255.255.255.255:65535".len());
    push_socket_addr(&mut text, address);
    text
}

/// Appends an address with its port, as its `Display` writes it.
pub fn push_socket_addr(text: &mut String, address: SocketAddr) {
    // Writing to a string cannot fail.
    let _ = match address {
        SocketAddr::V4(v4) => write_v4(text, *v4.ip(), Some(v4.port())),
        SocketAddr::V6(v6) => write!(text, "{v6}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_the_standard_library_writes_them() {
        for number in [0, 7, 10, 99, 100, 5060, 65_535, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(Decimal::of(number).as_str(), number.to_string());
            let mut hex = String::new();
            push_hex(&mut hex, number, 0);
            push_hex(&mut hex, number, 16);
            assert_eq!(hex, format!("{number:x}{number:016x}"));
        }
        let mut hex = String::from("t");
        push_hex(&mut hex, 0xab, 4);
        assert_eq!(hex, "t00ab");
    }

    #[test]
    fn addresses_read_as_the_standard_library_writes_them() {
        for text in [
            "0.0.0.0:0",
            "192.0.2.1:5060",
            "255.255.255.255:65535",
            "[2001:db8::1]:5061",
            "[::ffff:1.2.3.4]:1",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(socket_addr(address), address.to_string());
            let mut ip = String::new();
            write_ip(&mut ip, address.ip()).unwrap();
            assert_eq!(ip, address.ip().to_string());
        }
    }
}
