//! A request to an account of ours: its Request-URI is the Contact that we have registered, with the token that names the
//! registration. So its trunk is known, and which of the many accounts that the trunk may have.
//!
//! The token proves little by itself: whoever reads a single message of such a call knows it. So the call must come from the provider too,
//! unless the settings say otherwise: else a token would be a free line to the outside for its finder.

use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Message, Uri};

use crate::directory::Account;
use crate::env::Env;

/// The parameter of our Contact that names the registration.
pub(crate) const LINE: &str = "line";

/// The account that a request is for, if it may come from here.
pub(super) fn called(env: &Env, request: &Message, source: Flow) -> Option<Account> {
    let account = named(env, request)?;
    if account.is_called_from(source, env.directory()) {
        return Some(account);
    }
    if account.is_first_from_elsewhere() {
        tracing::warn!(
            target: "tandem::security",
            peer = %source.remote,
            trunk = &*account.trunk.config.name,
            "a call to an account of ours comes from elsewhere than its registrar, and is a stranger's: \
             name the address in accept_from of the trunk if it is the provider's; told once"
        );
    }
    None
}

fn named(env: &Env, request: &Message) -> Option<Account> {
    // Asked of every INVITE: nearly none has a parameter there.
    let uri = Some(request.request_uri()).filter(|uri| uri.contains(';'))?;
    let uri = Uri::parse(uri).ok()?;
    env.directory().account_of_line(uri.param(LINE)?)
}

/// What the dial plan is asked for when a call is for an account: what the settings say; else whom To names, for the provider has put
/// our Contact in the place of the number that was dialled (RFC 3261 §16.5). `None`: the Request-URI says it itself.
pub(super) fn dialled(env: &Env, invite: &Message, source: Flow, uri: &Uri<'_>) -> Option<String> {
    let account = called(env, invite, source)?;
    let config = account.config()?;
    if uri.user_unescaped()? != config.credentials.username {
        return None;
    }
    let to = || invite.to().parsed_uri().ok()?.user_unescaped().map(|user| user.into_owned());
    config.number.clone().or_else(to)
}
