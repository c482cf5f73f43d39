//! What trunks change of a call that crosses them, and what else they may ask for.

use std::sync::Arc;

use tandem_protocol::message::{Header, Message, Method};
use tandem_protocol::number_rules::{Direction, Party, apply};

use super::check;
use super::identify::Caller;
use super::refused::Refused;
use crate::directory::TrunkEntry;
use crate::metrics::Refusal;

/// A number of a call that comes by a trunk, as it is here.
pub(super) fn number_in(caller: &Caller, party: Party, number: String) -> String {
    match caller {
        Caller::Station(_) => number,
        Caller::Trunk(trunk) => apply(&trunk.config.rules.numbers, Direction::In, party, number),
    }
}

/// A number of a call that leaves by a trunk, as the far end wants it.
pub(super) fn number_out(trunk: &TrunkEntry, party: Party, number: String) -> String {
    apply(&trunk.config.rules.numbers, Direction::Out, party, number)
}

/// Adds what the rules of a trunk write for this INVITE. A header that two rules write has what the later one says.
pub(super) fn write_headers(
    trunk: &Arc<TrunkEntry>,
    direction: Direction,
    invite: &Message,
    headers: &mut Vec<(String, String)>,
) {
    let rules = trunk.config.rules.headers.iter().enumerate();
    for (place, rule) in rules.filter(|(_, rule)| rule.direction == direction) {
        match rule.value.fill(invite) {
            Ok(value) => {
                headers.retain(|(name, _)| !name.eq_ignore_ascii_case(&rule.header));
                headers.push((rule.header.clone(), value));
            }
            Err(why) => {
                trunk.metrics.header_rules_failed.increment(1);
                if trunk.is_first_failure(place) {
                    let (trunk, header) = (&*trunk.config.name, &rule.header);
                    tracing::warn!(trunk, header, %why, "a header rule has failed; its calls go on without the header. It is told once");
                }
            }
        }
    }
}

/// Whether a SUBSCRIBE is for presence (RFC 3856 §6.1).
fn is_for_presence(request: &Message) -> bool {
    let package = request.header(Header::Event).and_then(|event| event.split(';').next());
    package.is_some_and(|package| package.trim().eq_ignore_ascii_case("presence"))
}

/// What becomes of a request outside a dialog that is no call.
pub(crate) enum Besides {
    /// It is taken: 200.
    Taken,
    /// It is refused.
    Refused(Refused),
}

/// What a caller may ask for besides calls.
pub(crate) fn besides_calls(caller: &Caller, request: &Message) -> Besides {
    let Caller::Trunk(trunk) = caller else { return Besides::Refused(check::not_taken(request)) };
    let accept = trunk.config.rules.accept;
    let refused = match request.method() {
        Method::Subscribe if !accept.presence && is_for_presence(request) => {
            Refused::new(403, Refusal::NotAllowed)
        }
        Method::Refer if !accept.refer => {
            Refused::new(405, Refusal::NotAllowed).with(Header::Allow, check::ALLOW)
        }
        Method::Notify if !accept.unsolicited_notify => {
            Refused::new(489, Refusal::Unsupported).with(Header::AllowEvents, "")
        }
        Method::Notify => return Besides::Taken,
        Method::Subscribe
        | Method::Refer
        | Method::Invite
        | Method::Ack
        | Method::Bye
        | Method::Cancel
        | Method::Options
        | Method::Register
        | Method::Info
        | Method::Update
        | Method::Prack
        | Method::Message
        | Method::Publish
        | Method::Other => check::not_taken(request),
    };
    Besides::Refused(refused)
}
