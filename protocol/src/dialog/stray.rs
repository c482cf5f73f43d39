//! Responses to an INVITE that no dialog knows: it was given up because its connection ended, its dialog is long over, or ended with
//! the process that sent it. A phone that rings on is cancelled, an answer acknowledged and ended, a refusal acknowledged (RFC 3261
//! §9.1, §13.2.2.4, §17.1.1.3).

use std::sync::Arc;

use super::{Dialog, LocalSide, Output, Routing};
use crate::flow::Flow;
use crate::message::{Builder, Header, Message, Method, NameAddr, Via};

const NOBODY_WAITS: &str = "SIP;cause=481;text=\"nobody waits for this answer\"";

/// Ends what such a response tells of. Everything needed is in the response, whose copies all have the same end, byte for byte.
/// `local` is the side of the listener that it came to, and only a response to a request of that side counts: its only Via must be
/// ours, with the branch that [`Dialog`] makes of the From tag. Every request goes to `source`, never to an address that the response
/// names.
pub fn end_stray_response(response: &Message, source: Flow, local: Arc<LocalSide>) -> Vec<Output> {
    let Some(local_tag) = response.from_tag() else { return Vec::new() };
    let is_invites = response.method() == Method::Invite && response.cseq() <= u32::MAX / 4;
    if !is_invites || !is_of_ours(response, local_tag, &local) {
        return Vec::new();
    }
    match response.status() {
        101..=199 => cancel(response, source, &local).into_iter().collect(),
        200..=299 => end_answer(response, local_tag, source, local),
        300.. => acknowledge(response, source, &local).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// The CANCEL of a phone that rings on, or the ACK of its refusal, as far as they have the same headers.
fn of_transaction(method: &str, response: &Message, to: &str, local: &LocalSide) -> Option<Builder> {
    // The callee finds the INVITE by the branch (§9.2, §17.2.3), not by the Request-URI, of which the response says nothing.
    let mut message = Builder::request(method, NameAddr::parse(to).ok()?.uri);
    message.header(Header::Via, format_args!("{};branch={};rport", local.via, response.branch()?));
    message.header(Header::MaxForwards, 70);
    message.header(Header::From, response.header(Header::From)?);
    message.header(Header::To, to);
    message.header(Header::CallId, response.call_id());
    message.header(Header::CSeq, format_args!("{} {method}", response.cseq()));
    Some(message)
}

fn cancel(response: &Message, source: Flow, local: &LocalSide) -> Option<Output> {
    // As in the INVITE: without the tag of the callee.
    let to = response.header(Header::To)?;
    let to = to.split_once(";tag=").map_or(to, |(address, _)| address);
    let mut message = of_transaction("CANCEL", response, to, local)?;
    message.header(Header::Reason, NOBODY_WAITS);
    Some(Output::Request {
        message: message.finish(None),
        method: Method::Cancel,
        branch: response.branch()?.to_owned(),
        cseq: response.cseq(),
        to: source,
        timers: local.timers,
    })
}

fn acknowledge(response: &Message, source: Flow, local: &LocalSide) -> Option<Output> {
    let message = of_transaction("ACK", response, response.header(Header::To)?, local)?;
    Some(Output::Ack { message: message.finish(None), to: source })
}

fn end_answer(response: &Message, local_tag: &str, source: Flow, local: Arc<LocalSide>) -> Vec<Output> {
    let mut out = Vec::new();
    let Some(remote_tag) = response.to_tag() else { return out };
    let local_party = response.header(Header::From).unwrap_or_default().to_owned();
    let mut dialog = Dialog::new(local, Routing::Flow, source, response.call_id(), local_tag, local_party);
    // Above whatever PRACK or UPDATE has had in its early dialog.
    dialog.local_cseq = response.cseq() + super::RESTORED_CSEQ_GAP;
    // A branch of its own for each dialog, the same for each copy.
    dialog.sent =
        remote_tag.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193)) >> 1;
    // Without a Contact, which a 2xx must have, there is only the address in To.
    dialog.remote_target = NameAddr::parse(response.header(Header::To).unwrap_or_default())
        .map(|to| to.uri.to_owned())
        .unwrap_or_default();
    dialog.become_dialog_of(response);
    if dialog.remote_target.is_empty() {
        return out;
    }
    dialog.acknowledge(response.cseq(), &mut out);
    dialog.bye(Some(NOBODY_WAITS), &mut out);
    out
}

fn is_of_ours(response: &Message, local_tag: &str, local: &LocalSide) -> bool {
    let via = response.via();
    let Ok(ours) = Via::parse(&local.via) else { return false };
    let branch = via.branch().and_then(|branch| branch.strip_prefix("z9hG4bK")?.strip_prefix(local_tag));
    let count = response.values(Header::Via).count();
    count == 1 && (via.host, via.port) == (ours.host, ours.port) && branch.is_some_and(|n| n.starts_with('.'))
}
