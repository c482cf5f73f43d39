//! What a request must have to be taken (RFC 3261 §8.2), in the RFC's order. It is looked at after its sender is known: a
//! stranger learns nothing of what is built here.

use tandem_protocol::dialog::is_supported;
use tandem_protocol::flow::Transport;
pub(crate) use tandem_protocol::message::ACCEPT;
use tandem_protocol::message::{Header, Message, Method, NameAddr, NotUnderstood, Uri, Via};

use super::refused::Refused;
use crate::config::EngineConfig;
use crate::metrics::Refusal;

/// The methods that are taken (§20.5).
pub(crate) const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, REGISTER";

/// Checks what is needed to judge a request at all, before anyone is asked who he is.
pub(crate) fn well_formed(request: &Message) -> Result<(), Refused> {
    if let Some(Err(_)) = request.max_forwards() {
        return Err(Refused::bad("Bad Max-Forwards"));
    }
    let opens = matches!(request.method(), Method::Invite | Method::Subscribe | Method::Refer);
    if opens && request.contacts().is_err() {
        return Err(Refused::bad("Bad Contact"));
    }
    if opens && request.values(Header::RecordRoute).any(|route| NameAddr::parse(route).is_err()) {
        return Err(Refused::bad("Bad Record-Route"));
    }
    Ok(())
}

/// Checks what every request outside dialogs must have that has come by `transport`. For a `sips` URI that is TLS: by another way its
/// promise is broken already.
pub(crate) fn acceptable(request: &Message, transport: Transport) -> Result<(), Refused> {
    let uri = Uri::parse(request.request_uri()).map_err(|_| Refused::bad("Bad Request-URI"))?;
    let speaks = matches!(uri.scheme, "sip" | "tel") || uri.is_sips() && transport.is_secure();
    if !speaks {
        return Err(Refused::new(416, Refusal::Unsupported));
    }
    if request.method() == Method::Invite {
        // It is to go on, one hop less; a request that ends here may have none left.
        if request.max_forwards() == Some(Ok(0)) {
            return Err(Refused::new(483, Refusal::Loop));
        }
    }
    if request.method() != Method::Invite && request.header(Header::Replaces).is_some() {
        // RFC 3891 §3.
        return Err(Refused::bad("Replaces Outside INVITE"));
    }
    // A registrar has extensions of its own, which it reads itself.
    if request.method() != Method::Register {
        extensions(request)?;
    }
    body(request)
}

/// Checks what a request within a dialog must have.
pub(crate) fn within_dialog(request: &Message) -> Result<(), Refused> {
    well_formed(request)?;
    extensions(request)?;
    if matches!(request.method(), Method::Invite) { body(request) } else { Ok(()) }
}

/// §8.2.2.3. Proxy-Require is for proxies: we are none.
fn extensions(request: &Message) -> Result<(), Refused> {
    if matches!(request.method(), Method::Ack | Method::Cancel) {
        return Ok(());
    }
    let unknown: Vec<&str> = request.values(Header::Require).filter(|tag| !is_supported(tag)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Refused::new(420, Refusal::Unsupported).with(Header::Unsupported, unknown.join(", ")))
}

/// §8.2.3. The header that is given says what is wrong: the type or the encoding.
fn body(request: &Message) -> Result<(), Refused> {
    if request.body().is_empty() || request.method() != Method::Invite {
        return Ok(());
    }
    request.understood().map_err(|why| match why {
        NotUnderstood::Type => Refused::new(415, Refusal::Media).with(Header::Accept, ACCEPT),
        NotUnderstood::Coding => Refused::new(415, Refusal::Media).with(Header::AcceptEncoding, "identity"),
        NotUnderstood::Malformed => Refused::bad("Bad Body Parts"),
    })
}

/// How a request is refused whose method is known and not taken outside dialogs. What is not built yet is refused plainly.
pub(crate) fn not_taken(request: &Message) -> Refused {
    match request.method() {
        // RFC 6665 §8.2.1 wants the packages that are known: there is none.
        Method::Subscribe | Method::Publish => {
            Refused::new(489, Refusal::Unsupported).with(Header::AllowEvents, "")
        }
        Method::Refer => Refused::new(603, Refusal::NotAllowed),
        // Requests of a dialog, and there is none.
        Method::Bye | Method::Info | Method::Update | Method::Prack | Method::Notify => {
            Refused::new(481, Refusal::NoDialog)
        }
        Method::Invite
        | Method::Ack
        | Method::Cancel
        | Method::Options
        | Method::Register
        | Method::Message
        | Method::Other => Refused::new(405, Refusal::NotAllowed).with(Header::Allow, ALLOW),
    }
}

/// Whether a request was sent by us and has come back by proxies that kept its Vias (§16.3 step 4).
pub(crate) fn has_been_here(config: &EngineConfig, request: &Message) -> bool {
    request.values(Header::Via).skip(1).filter_map(|value| Via::parse(value).ok()).any(|via| {
        let port = via.sent_by_port();
        config.listeners.iter().any(|l| l.external.port() == port && l.external.is_host(via.host))
    })
}
