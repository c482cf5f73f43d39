//! Calls for a `sips` URI: each hop of theirs goes by TLS, or they are not made (RFC 3261 §26.2.2, RFC 5630).

use tandem_protocol::dialog::LocalSide;
use tandem_protocol::message::{Contacts, Header, Message, NameAddr};
use tandem_protocol::registrar::Binding;

use super::refused::Refused;
use crate::config::Listener;
use crate::env::Env;
use crate::metrics::Refusal;

/// RFC 5630 §6.1: why a call to somebody was not made who cannot be reached so.
const SIPS_NOT_ALLOWED: &str = "380 tandem \"SIPS Not Allowed\"";

/// How our side appears on a listener of TLS to a peer that must have a `sips` Contact.
pub(crate) fn secure_side(listener: &Listener) -> Option<LocalSide> {
    let secure =
        || LocalSide { contact: format!("<sips:{}>", listener.external), ..super::local_side(listener) };
    listener.transport.is_secure().then(secure)
}

/// Whether this is a `sips` URI, of one that is known to be a URI.
pub(crate) fn is_sips(uri: &str) -> bool {
    uri.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:"))
}

/// Whether the Contact of whoever answers this INVITE must be a `sips` URI (RFC 3261 §12.1.1).
pub(crate) fn has_secure_contact(invite: &Message) -> bool {
    let sips = |value: &str| NameAddr::parse(value).is_ok_and(|address| is_sips(address.uri));
    let next = || match (invite.values(Header::RecordRoute).next(), invite.contacts()) {
        (Some(route), _) => sips(route),
        (None, Ok(Contacts::List(list))) => list.first().is_some_and(|contact| is_sips(contact.uri)),
        (None, Ok(Contacts::None | Contacts::Star) | Err(_)) => false,
    };
    is_sips(invite.request_uri()) || next()
}

/// Whether a call to this contact goes by TLS to its end: over the device's own connection, or because whoever is between promises it.
pub(super) fn goes_secure(env: &Env, binding: &Binding) -> bool {
    let direct = binding.path.is_empty();
    env.config().transport(binding.source.listener).is_secure() && (direct || is_sips(&binding.contact))
}

/// The refusal of a call that no way by TLS leads to.
pub(super) fn refused(why: &str) -> Refused {
    tracing::debug!(why, "a call for a sips URI was refused");
    Refused::new(480, Refusal::Insecure).with(Header::Warning, SIPS_NOT_ALLOWED)
}
