//! What stations are told to be.

use std::sync::Arc;

use tandem_actors::config::{self, StationRules};
use tandem_protocol::dial_plan;
use tandem_protocol::digest::{Algorithm, Secret};
use tandem_protocol::flow::Transport;

use super::{address_of, codecs, path, redirect, toll_fraud};
use crate::settings::{Credential, Settings, Station, Trunk};

/// Stations share their rules with one of so many kinds before them, or have their own.
const LOOKED_BACK: usize = 64;

/// Every station, in the order of the settings.
pub(super) fn stations(settings: &Settings) -> Vec<config::Station> {
    let mut kinds: Vec<Arc<StationRules>> = Vec::new();
    let mut shared = |rules: StationRules| {
        let known = kinds.iter().rev().take(LOOKED_BACK).find(|kind| ***kind == rules);
        known.cloned().unwrap_or_else(|| {
            kinds.push(Arc::new(rules));
            kinds[kinds.len() - 1].clone()
        })
    };
    let station = |station: &Station| config::Station {
        name: Arc::from(station.name.as_str()),
        extension: number_of(station).into_boxed_str(),
        secret: station.credential().and_then(secret),
        connection: connection(settings, station).map(Box::new),
        rules: shared(rules(settings, station)),
    };
    settings.station.iter().map(station).collect()
}

fn rules(settings: &Settings, station: &Station) -> StationRules {
    StationRules {
        calling_search_space: station.calling_search_space.clone(),
        media: path(station.media),
        codecs: codecs::codecs(settings, &[], station.location.as_ref()),
        record: station.record,
        redirect: redirect(station.redirect),
        ring_timeout: station.ring_timeout(),
        fork_timeout: station.fork_timeout(),
        identify_by_user_only: station.identify_by_user_only,
        outbound_ani: outbound_ani(settings, station).map(str::to_owned),
        external_number_mask: station.external_number_mask.clone(),
        max_contacts: station.max_contacts as usize,
        max_calls: settings.max_calls_of(station),
        toll: toll_fraud::of_station(settings, station),
    }
}

/// The settings have been checked: a hash has as many digits as it needs.
fn secret(credential: Credential<'_>) -> Option<Secret> {
    match credential {
        Credential::Password(password) => Some(Secret::Password(password.reveal().into())),
        Credential::Ha1Md5(ha1) => Secret::ha1_of_hex(Algorithm::Md5, ha1.reveal()),
        Credential::Ha1Sha256(ha1) => Secret::ha1_of_hex(Algorithm::Sha256, ha1.reveal()),
    }
}

/// The number that a station is shown by: its extension, or its name if the extension stands for several numbers.
pub fn number_of(station: &Station) -> String {
    let one = dial_plan::pattern_key(&station.extension).ok().and_then(|key| key.only_number());
    one.unwrap_or_else(|| station.name.clone())
}

/// What the user of a station shows outside.
pub fn outbound_ani<'a>(settings: &'a Settings, station: &Station) -> Option<&'a str> {
    let mut users = settings.user.iter().filter(|u| u.default_station.as_ref() == Some(&station.name));
    users.find_map(|user| user.outbound_ani.as_deref())
}

/// The trunk that completes a connection address without a host.
pub fn trunk_of_station<'a>(settings: &'a Settings, station: &Station) -> Option<&'a Trunk> {
    match &station.trunk {
        Some(name) => settings.trunk.iter().find(|trunk| trunk.name == *name),
        None => settings.trunk.first().filter(|_| settings.trunk.len() == 1),
    }
}

fn connection(settings: &Settings, station: &Station) -> Option<config::Connection> {
    let address = station.connection_address.as_ref()?;
    let at = match &address.host {
        Some(host) => config::ConnectedAt::Address(address_of(host, Transport::Udp)?),
        None => config::ConnectedAt::Trunk(Arc::from(trunk_of_station(settings, station)?.name.as_str())),
    };
    let user = address.user.clone().unwrap_or_else(|| number_of(station));
    Some(config::Connection { user, at })
}
