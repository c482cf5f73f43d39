//! Stations that never register: known by where their requests come from, as a trunk is.
//!
//! Only a station without credentials is known this way; who has a password must always prove that he knows it.

use std::net::IpAddr;
use std::sync::Arc;

use tandem_protocol::flow::Flow;
use tandem_protocol::message::Message;

use crate::config::ConnectedAt;
use crate::directory::StationEntry;
use crate::env::Env;

/// The unmanaged station that a request is from: From names its user, and it comes from the station's connection address, or from the
/// trunk it is reached by. The host of From must be that place or ours, unless the station is identified by its user only.
pub(super) fn station<'a>(env: &'a Env, request: &Message, flow: Flow) -> Option<&'a Arc<StationEntry>> {
    let directory = env.directory();
    if directory.unmanaged().is_empty() {
        return None;
    }
    let from = request.from().parsed_uri().ok()?;
    let user = from.user_unescaped()?;
    let host: Option<IpAddr> = from.host.trim_matches(['[', ']']).parse().ok();
    let trunk = directory.trunk_of_source(flow, env.config().transport(flow.listener));
    directory.unmanaged().iter().find(|station| {
        let config = &station.config;
        let Some(connection) = &config.connection else { return false };
        let named = user == connection.user || user == *config.extension || user == *config.name;
        let (comes_from_there, host_fits) = match &connection.at {
            ConnectedAt::Address(at) => (flow.remote == *at, host == Some(at.ip())),
            ConnectedAt::Trunk(name) => {
                let by_it = trunk.filter(|t| t.config.name == *name);
                let is_proxy =
                    by_it.is_some_and(|t| t.proxies().iter().any(|p| Some(p.proxy.address.ip()) == host));
                (by_it.is_some(), is_proxy)
            }
        };
        named
            && comes_from_there
            && (config.rules.identify_by_user_only || host_fits || directory.is_ours(from.host))
    })
}
