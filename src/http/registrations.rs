//! Our registrations at providers, as the API tells them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Given;
use serde_json::{Value, json};
use tandem_actors::config::Registration;
use tandem_actors::directory::{MemberStatus, RegistrationEntry};
use tandem_protocol::flow::ListenerId;
use tandem_protocol::time::UnixMillis;

use super::State;
use super::api::{now, rfc3339};

pub(super) async fn registration_groups(Given(state): Given<Arc<State>>) -> Json<Vec<Value>> {
    let shared = state.engine.shared();
    let now = now();
    let listener = |id: ListenerId| shared.config.listener(id).map(|l| l.name.clone());
    let group = |entry: &Arc<RegistrationEntry>| {
        let (config, status) = (&entry.config, entry.status());
        let each = config.registrations.iter().zip(&status.members).enumerate();
        let registrations: Vec<Value> = each
            .map(|(place, (config, member))| {
                let listener = listener(shared.config.listener_id(config.listener));
                let in_use = status.in_use == Some(place);
                registration(config, member, listener.as_deref(), in_use, now)
            })
            .collect();
        json!({
            "name": &*config.name,
            "registered": status.in_use.is_some(),
            "running": status.running,
            "in_use": status.in_use.and_then(|place| Some(&*config.registrations.get(place)?.label)),
            "registrations": registrations,
        })
    };
    Json(shared.directory.registrations().map(group).collect())
}

fn registration(
    config: &Registration,
    member: &MemberStatus,
    listener: Option<&str>,
    in_use: bool,
    now: UnixMillis,
) -> Value {
    let granted = member.granted.as_ref().filter(|granted| granted.until > now);
    let time = |at: UnixMillis| rfc3339(at.0);
    json!({
        "at": &*config.label,
        "trunk": config.trunk.as_deref(),
        "listener": listener,
        "registrar": granted.map(|granted| granted.at.to.to_string()),
        "domain": config.domain,
        "username": config.credentials.username,
        "state": member.state.as_str(),
        "registered": granted.is_some(),
        "in_use": in_use,
        "since": granted.map(|granted| time(granted.since)),
        "age_s": granted.map(|granted| now.0.saturating_sub(granted.since.0) / 1000),
        "expires": granted.map(|granted| time(granted.until)),
        "expires_in_s": granted.map(|granted| granted.until.0.saturating_sub(now.0).div_ceil(1000)),
        "service_route": granted.map(|granted| &granted.service_route),
        "last_failure": member.last_failure.as_ref().map(|(at, _)| time(*at)),
        "last_cause": member.last_failure.as_ref().map(|(_, cause)| cause),
    })
}
