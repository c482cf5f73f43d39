//! An INVITE that is to take the place of a dialog of ours (RFC 3891): who may send one, and what it brings with it.

use std::sync::Arc;

use tandem_protocol::dialog::{LocalSide, Routing};
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Header, Message, Replaces};

use super::identify::Caller;
use super::refused::Refused;
use super::secure;
use crate::env::Env;
use crate::metrics::Refusal;

const REPLACES: &str = "replaces";

/// Who asks for the place of a dialog, in the shard that has it.
pub struct Asks {
    pub(crate) invite: Message,
    pub(crate) flow: Flow,
    /// Who has proved to be its sender.
    pub(crate) caller: Caller,
    pub(crate) replaces: Replaces,
}

/// How our side appears to a caller, and how he is reached.
pub(crate) struct Towards {
    pub(crate) routing: Routing,
    pub(crate) local: Arc<LocalSide>,
    /// The trunk he calls by, if it may ask who we are.
    pub(crate) account: Option<String>,
}

/// How our side appears to whoever sent this INVITE.
pub(crate) fn towards(env: &Env, invite: &Message, flow: Flow, caller: &Caller) -> Towards {
    let sips = env.config().transport(flow.listener).is_secure() && secure::has_secure_contact(invite);
    match caller {
        Caller::Station(station) => {
            // Who does not register says in Contact where he is.
            let routing = if station.config.secret.is_some() { Routing::Flow } else { Routing::Target };
            Towards { routing, local: env.local_side_for(flow.listener, sips), account: None }
        }
        Caller::Trunk(trunk) => {
            let account = trunk.config.credentials.as_ref().map(|_| trunk.config.name.to_string());
            let local = env.local_side_of(trunk, flow.listener, sips);
            Towards { routing: Routing::Target, local, account }
        }
    }
}

/// What an INVITE is to take the place of, if anything. A trunk that may not have it so gets 420, as whoever does not know the extension.
pub(crate) fn replaces(env: &Env, caller: &Caller, invite: &Message) -> Result<Option<Replaces>, Refused> {
    let may = match caller {
        Caller::Station(_) => true,
        Caller::Trunk(trunk) => trunk.config.rules.accept.replaces,
    };
    let asked = invite.header(Header::Replaces).is_some();
    if !may && (asked || invite.has_token(Header::Require, REPLACES)) {
        return Err(Refused::new(420, Refusal::Unsupported).with(Header::Unsupported, REPLACES));
    }
    if !asked {
        return Ok(None);
    }
    let replaces = Replaces::of(invite).map_err(|why| Refused::bad(why.phrase()))?;
    if let Some(replaces) = &replaces
        && env.shared().names.shard_of(replaces.to_tag.as_bytes()).is_none()
    {
        env.metrics().replaces.no_dialog.increment(1);
        return Err(Refused::new(481, Refusal::NoDialog));
    }
    Ok(replaces)
}
