//! The 200 of a REGISTER (RFC 3261 §10.3 step 8, RFC 3327 §5.3, RFC 5626 §6).

use super::{Binding, Update};
use crate::decimal::Decimal;
use crate::message::{Builder, Header, Message};
use crate::time::UnixMillis;

/// A device that keeps a stream to us open must say something at least this often, in seconds (RFC 5626 §4.4).
const FLOW_TIMER: u32 = 120;

/// Writes what is the registrar's in the 200 to `request`, which was read as `update`, when `bindings` are registered.
pub fn grant(
    response: &mut Builder,
    request: &Message,
    update: &Update,
    bindings: &[Binding],
    now: UnixMillis,
) {
    for binding in bindings {
        contact(response, binding, now);
    }
    response.texts(Header::Supported, &["path, outbound"]);
    for route in &update.path {
        response.texts(Header::Path, &[route]);
    }
    if update.outbound {
        response.texts(Header::Require, &["outbound"]);
        // Only who is next to us keeps a flow to us. Over UDP that would be done by STUN, which we do not answer; there our own
        // keep-alives hold the way open.
        let next_to_us = request.values(Header::Via).nth(1).is_none();
        if next_to_us && !request.via().transport.eq_ignore_ascii_case("UDP") {
            response.texts(Header::FlowTimer, &[Decimal::of(FLOW_TIMER.into()).as_str()]);
        }
    }
}

fn contact(response: &mut Builder, binding: &Binding, now: UnixMillis) {
    let expires = Decimal::of(binding.expires_in(now).into());
    let q = if binding.q < 1_000 { format!(";q=0.{:03}", binding.q) } else { String::new() };
    let (start, instance, end) = match &binding.instance {
        Some(instance) => (";+sip.instance=\"", instance.as_str(), "\""),
        None => ("", "", ""),
    };
    let reg_id = binding.reg_id.map(|reg_id| Decimal::of(reg_id.into()));
    let (name, reg_id) = reg_id.as_ref().map_or(("", ""), |reg_id| (";reg-id=", reg_id.as_str()));
    let value =
        ["<", &binding.contact, ">;expires=", expires.as_str(), &q, start, instance, end, name, reg_id];
    response.texts(Header::Contact, &value);
}
