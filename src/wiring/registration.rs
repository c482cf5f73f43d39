//! Registrations of ours at other servers.

use std::sync::Arc;

use tandem_actors::config::{self, Listener};
use tandem_protocol::dialog::Credentials;
use tandem_protocol::transaction::Timers;

use super::{credentials, proxies, servers};
use crate::settings::{CallsFrom, HostPort, Registration, RegistrationGroup, Settings, Trunk};

pub(super) fn group(
    settings: &Settings,
    group: &RegistrationGroup,
    listeners: &[Listener],
) -> config::RegistrationGroup {
    let (base_retry, max_retry) = group.retry();
    config::RegistrationGroup {
        name: Arc::from(group.name.as_str()),
        registrations: group.registrations.iter().map(|r| one(settings, group, r, listeners)).collect(),
        calls_from_anyone: group.calls_from == CallsFrom::Anyone,
        active: group.active as usize,
        return_after: group.return_after(),
        base_retry,
        max_retry,
        unregister_on_stop: group.unregister_on_stop,
    }
}

fn one(
    settings: &Settings,
    group: &RegistrationGroup,
    entry: &Registration,
    listeners: &[Listener],
) -> config::Registration {
    let trunk = settings.trunk_of_registration(entry);
    let listen = settings.listener_of_registration(entry);
    let place = listen.and_then(|listen| settings.listen.iter().position(|l| l.name == listen.name));
    let place = place.unwrap_or(0);
    let listener = listeners.get(place);
    let (proxies, named) = match trunk {
        Some(trunk) => proxies(trunk, listener),
        None => {
            let at = places(entry).into_iter().map(|place| (place, 1));
            servers(at, listener, entry.transport.is_some())
        }
    };
    let timers = match (trunk, listener) {
        (Some(trunk), _) => listen.map(|listen| {
            let values = trunk.timers(listen);
            Timers { connect: Some(values.connect_timeout), ..Timers::new(values.t1, values.t2) }
        }),
        (None, Some(listener)) => Some(listener.timers),
        (None, None) => None,
    };
    let username = entry.username.as_ref().or_else(|| trunk?.username.as_ref());
    let password = entry.password.as_ref().or_else(|| trunk?.password.as_ref());
    config::Registration {
        label: Arc::from(label(entry)),
        trunk: entry.trunk.as_ref().or(group.trunk.as_ref()).map(|name| Arc::from(name.as_str())),
        listener: place as u16,
        proxies,
        named,
        domain: domain(entry, trunk),
        // The settings have been checked: there is a user.
        credentials: credentials(username, password)
            .unwrap_or_else(|| Credentials { username: String::new(), password: String::new() }),
        expires: entry.expires(),
        number: entry.number.clone(),
        timers: timers.unwrap_or_default(),
    }
}

/// Where REGISTERs go that no trunk says it of.
fn places(entry: &Registration) -> Vec<HostPort> {
    let domain = entry.domain.as_ref().map(|domain| HostPort { host: domain.clone(), port: None });
    let first = entry.address.clone().or_else(|| entry.proxy.clone()).or(domain);
    first.into_iter().chain(entry.alternate_address.clone()).collect()
}

/// What a registration is called: by what it is at.
fn label(entry: &Registration) -> String {
    let server = |kind: &str, at: &Option<HostPort>| at.as_ref().map(|at| format!("{kind}:{at}"));
    let name = |kind: &str, at: &Option<String>| at.as_ref().map(|at| format!("{kind}:{at}"));
    name("trunk", &entry.trunk)
        .or_else(|| server("address", &entry.address))
        .or_else(|| server("proxy", &entry.proxy))
        .or_else(|| name("domain", &entry.domain))
        .unwrap_or_default()
}

/// The domain of the account, as the host of a URI.
fn domain(entry: &Registration, trunk: Option<&Trunk>) -> String {
    let of_trunk = || trunk.and_then(|t| t.domain.clone().or_else(|| Some(t.proxies.first()?.host.clone())));
    let server = || entry.address.as_ref().or(entry.proxy.as_ref()).map(|at| at.host.clone());
    let host =
        entry.account_domain.clone().or_else(|| entry.domain.clone()).or_else(of_trunk).or_else(server);
    super::uri_host(host.unwrap_or_default())
}

/// What answers the challenges of a trunk: what it has itself, else the account that its calls come and leave by.
pub(super) fn credentials_of(settings: &Settings, trunk: &Trunk) -> Option<Credentials> {
    let own = credentials(trunk.username.as_ref(), trunk.password.as_ref());
    own.or_else(|| {
        let accounts = settings.registration_group.iter().flat_map(|group| {
            let of_trunk = |r: &&Registration| {
                r.trunk.as_ref().or(group.trunk.as_ref()).is_some_and(|name| *name == trunk.name)
            };
            group.registrations.iter().filter(of_trunk)
        });
        accounts.into_iter().find_map(|r| credentials(r.username.as_ref(), r.password.as_ref()))
    })
}
