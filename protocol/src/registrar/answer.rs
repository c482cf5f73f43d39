//! The 200 of a REGISTER (RFC 3261 §10.3 step 8, RFC 3327 §5.3, RFC 5626 §6).

use super::{Binding, Update};
use crate::decimal::Decimal;
use crate::message::{Header, Message};
use crate::time::UnixMillis;

/// A device that keeps a stream to us open must say something at least this often, in seconds (RFC 5626 §4.4).
const FLOW_TIMER: u32 = 120;

/// The headers of the 200 to `request`, which was read as `update`, when `bindings` are registered.
pub fn granted_headers(
    request: &Message,
    update: &Update,
    bindings: &[Binding],
    now: UnixMillis,
) -> Vec<(Header, String)> {
    let mut headers: Vec<(Header, String)> =
        bindings.iter().map(|binding| (Header::Contact, contact(binding, now))).collect();
    headers.push((Header::Supported, "path, outbound".to_owned()));
    headers.extend(update.path.iter().map(|route| (Header::Path, route.clone())));
    if update.outbound {
        headers.push((Header::Require, "outbound".to_owned()));
        // Only who is next to us keeps a flow to us. Over UDP that would be done by STUN, which we do not answer; there our own
        // keep-alives hold the way open.
        let next_to_us = request.values(Header::Via).nth(1).is_none();
        if next_to_us && !request.via().transport.eq_ignore_ascii_case("UDP") {
            headers.push((Header::FlowTimer, FLOW_TIMER.to_string()));
        }
    }
    headers
}

fn contact(binding: &Binding, now: UnixMillis) -> String {
    let expires = Decimal::of(binding.expires_in(now).into());
    let mut text = ["<", &binding.contact, ">;expires=", expires.as_str()].concat();
    if binding.q < 1_000 {
        text += &format!(";q=0.{:03}", binding.q);
    }
    if let Some(instance) = &binding.instance {
        text += &format!(";+sip.instance=\"{instance}\"");
    }
    if let Some(reg_id) = binding.reg_id {
        text += &format!(";reg-id={reg_id}");
    }
    text
}
