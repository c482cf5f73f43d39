//! The topmost Via of a response: where its request came from (RFC 3261 §18.2.1, RFC 3581).

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

use super::Message;
use super::address::Via;
use super::syntax::{VALUE, name_and_value, run, split, trim};
use crate::decimal::{Decimal, write_ip};

/// What a stamp adds to a Via at most.
const MOST_STAMPED: usize = ";received=1234:5678:9abc:def0:1234:5678:9abc:def0;rport=65535".len();

/// The topmost Via of a request as its response must carry it: with `received` if the sent-by is not the source's address or
/// a port was asked for, and with `rport` filled in if it was (RFC 3261 section 18.2.1, RFC 3581 section 4).
pub fn stamp_via(request: &Message, source: SocketAddr) -> String {
    let line = request.top_via();
    let mut stamped = String::with_capacity(line.len() + MOST_STAMPED);
    // Writing to a string cannot fail.
    let _ = Stamped::of(request, line, source).write(&mut stamped);
    stamped
}

/// A Via line whose first value gets the parameters that tell where the request came from.
pub(super) struct Stamped<'a> {
    line: &'a str,
    /// The first value.
    top: &'a str,
    via: Via<'a>,
    source: SocketAddr,
}

impl<'a> Stamped<'a> {
    /// That of a request, whose first line of Vias it must be.
    pub(super) fn of(request: &'a Message, line: &'a str, source: SocketAddr) -> Stamped<'a> {
        Stamped { line, top: request.top_via(), via: request.via(), source }
    }

    /// A line of a request that could not be read; `None` if its first value cannot be, either.
    pub(super) fn unread(line: &'a str, source: SocketAddr) -> Option<Stamped<'a>> {
        let top = split(line, b',').find(|value| !value.is_empty())?;
        Some(Stamped { line, top, via: Via::parse(top).ok()?, source })
    }

    /// Not by `format_args`: it is in every response.
    pub(super) fn write(&self, out: &mut impl Write) -> fmt::Result {
        let Stamped { line, top, via, source } = *self;
        let address = source.ip().to_canonical();
        let told = &top[..top.len() - via.params.len()];
        if line.len() == top.len() && trim(told).len() == told.len() && names_neither(via.params) {
            // Nearly always: nothing to leave out, and no second value.
            out.write_str(line)?;
            return if via.host.parse() == Ok(address) { Ok(()) } else { write_received(out, address) };
        }
        // An IPv6 address has no ';' and no quote, so the text before the parameters is found by length.
        let (sent_by, raw_params) = top.split_at(top.len() - via.params.len());
        out.write_str(trim(sent_by))?;
        let mut asked = false;
        for item in split(raw_params, b';').filter(|item| !item.is_empty()) {
            let (name, value) = name_and_value(item);
            if name.eq_ignore_ascii_case("rport") {
                asked = true;
                continue;
            }
            if name.eq_ignore_ascii_case("received") {
                continue;
            }
            out.write_str(";")?;
            match value {
                // White space stands around the '='.
                Some(value) if name.len() + value.len() + 1 < item.len() => {
                    out.write_str(name)?;
                    out.write_str("=")?;
                    out.write_str(value)?;
                }
                Some(_) | None => out.write_str(item)?,
            }
        }
        if asked || via.host.parse() != Ok(address) {
            write_received(out, address)?;
        }
        if asked {
            out.write_str(";rport=")?;
            out.write_str(Decimal::of(source.port().into()).as_str())?;
        }
        // The first value is a part of the line, so the distance of their addresses is its place.
        out.write_str(&line[top.as_ptr().addr() - line.as_ptr().addr() + top.len()..])
    }
}

fn write_received(out: &mut impl Write, address: IpAddr) -> fmt::Result {
    out.write_str(";received=")?;
    write_ip(out, address)
}

/// True if these are the parameters of a Via as it leaves again: without white space and quotes, and with none that a stamp replaces.
fn names_neither(params: &str) -> bool {
    let bytes = params.as_bytes();
    let (mut at, mut plain) = (0, true);
    while plain && at < bytes.len() {
        // A parameter that begins with another letter is neither `rport` nor `received`.
        let first = bytes.get(at + 1).map_or(b' ', |b| b | 0x20);
        let len = run(&bytes[at + 1..], VALUE);
        plain = bytes[at] == b';' && len > 0 && first != b'r';
        at += 1 + len;
    }
    plain
}
