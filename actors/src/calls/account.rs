//! A request to an account of ours: its Request-URI is the Contact that we have registered, with the token that names the
//! registration. So its trunk is known, whichever host of the provider it comes from.

use tandem_protocol::message::{Message, Uri};

use crate::directory::Account;
use crate::env::Env;

/// The parameter of our Contact that names the registration.
pub(crate) const LINE: &str = "line";

/// The account that a request is for.
pub(super) fn called(env: &Env, request: &Message) -> Option<Account> {
    // Asked of every INVITE: nearly none has a parameter there.
    let uri = Some(request.request_uri()).filter(|uri| uri.contains(';'))?;
    let uri = Uri::parse(uri).ok()?;
    env.directory().account_of_line(uri.param(LINE)?)
}

/// What the dial plan is asked for when a call is for an account: what the settings say; else whom To names, for the provider has put
/// our Contact in the place of the number that was dialled (RFC 3261 §16.5). `None`: the Request-URI says it itself.
pub(super) fn dialled(env: &Env, invite: &Message, uri: &Uri<'_>) -> Option<String> {
    let account = called(env, invite)?;
    let config = account.config()?;
    if uri.user_unescaped()? != config.credentials.username {
        return None;
    }
    let to = || invite.to().parsed_uri().ok()?.user_unescaped().map(|user| user.into_owned());
    config.number.clone().or_else(to)
}
