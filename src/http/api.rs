//! `/api/v1`: what runs, and a few commands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State as Given};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tandem_actors::directory::{ProxyEntry, StationEntry, TrunkEntry, Watched};
use tandem_actors::ids::ShardId;
use tandem_actors::metrics::ActorKind;
use tandem_actors::runtime::Clock;
use tandem_actors::shard::{Ask, parse_call_id};
use tandem_actors::shell::Injection;
use tandem_actors::store::{Store, StoreFault};
use tandem_protocol::dns::{Located, Server, Trouble};
use tandem_protocol::flow::ListenerId;
use tandem_protocol::time::UnixMillis;
use tandem_protocol::toll_fraud::Measure;
use tandem_protocol::trunk_health;

use super::State;
use super::ask::{self, PATIENCE};
use super::problem::Problem;
use crate::store::Rfc3339;

/// The events of one answer, where the request names no number, and at most.
const EVENTS: usize = 1_000;
const MAX_EVENTS: usize = 10_000;
/// How long a stalled shard sleeps unless told otherwise, in milliseconds: long enough to be fenced, and to wake after that.
const STALL_MS: u64 = 3_000;

type Answer = Result<Response, Problem>;

/// What must not be done on a thread of the runtime.
pub(super) async fn from_store<T: Send + 'static>(
    state: &State,
    read: impl FnOnce(&dyn Store) -> Result<T, StoreFault> + Send + 'static,
) -> Result<T, Problem> {
    let store = state.engine.shared().store.clone();
    let done = tokio::task::spawn_blocking(move || read(store.as_ref())).await;
    let broken =
        |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "reading the store failed; the log tells why");
    Ok(done.map_err(broken)??)
}

pub(super) fn rfc3339(ms: u64) -> String {
    Rfc3339(UnixMillis(ms)).to_string()
}

/// A call as its actor tells it, with times for people and programs outside.
pub(super) fn presented(mut call: Value) -> Value {
    for name in ["start", "answer"] {
        if let Some(ms) = call[name].as_u64() {
            call[name] = Value::String(rfc3339(ms));
        }
    }
    call
}

pub(super) async fn calls(Given(state): Given<Arc<State>>) -> Answer {
    let calls = ask::calls(&state.engine).await?;
    Ok(Json(calls.into_iter().map(presented).collect::<Vec<Value>>()).into_response())
}

/// The call if it exists now.
///
/// # Errors
/// Its shard does not answer.
pub(super) async fn living(state: &State, id: &str) -> Result<Option<Value>, Problem> {
    let Some((shard, key)) = parse_call_id(id) else { return Ok(None) };
    if shard.0 >= state.engine.shared().current().directory.shards() {
        return Ok(None);
    }
    let asked = tokio::time::timeout(PATIENCE, state.engine.ask(shard, Ask::Call(key))).await;
    let answers = asked.map_err(|_| Problem::silent(&[shard]))?;
    Ok(answers.into_iter().next())
}

pub(super) async fn call(Given(state): Given<Arc<State>>, Path(id): Path<String>) -> Answer {
    match living(&state, &id).await? {
        Some(call) => Ok(Json(presented(call)).into_response()),
        None => Err(gone(&state, &id, StatusCode::NOT_FOUND).await?),
    }
}

pub(super) async fn hang_up(Given(state): Given<Arc<State>>, Path(id): Path<String>) -> Answer {
    let shards = state.engine.shared().current().directory.shards();
    if let Some((shard, key)) = parse_call_id(&id).filter(|(shard, _)| shard.0 < shards) {
        let answer = ask::one(&state.engine, shard, Ask::HangUp(key), PATIENCE).await;
        match answer {
            None => return Err(Problem::silent(&[shard])),
            Some(Value::Bool(true)) => {
                tracing::info!(call = id, "an operator ends a call");
                let accepted = Json(json!({"call_id": id, "state": "ending"}));
                return Ok((StatusCode::ACCEPTED, accepted).into_response());
            }
            Some(_) => {}
        }
    }
    Err(gone(&state, &id, StatusCode::CONFLICT).await?)
}

/// Why there is no such call: it has ended (`ended`), or it never was.
async fn gone(state: &State, id: &str, ended: StatusCode) -> Result<Problem, Problem> {
    let asked = id.to_owned();
    Ok(match from_store(state, move |store| store.cdr(&asked)).await? {
        Some(_) => Problem::new(ended, format!("call {id} has ended; /api/v1/cdrs/{id} is its record")),
        None => Problem::not_found(format!("there is no call {id}")),
    })
}

pub(super) async fn cdr(Given(state): Given<Arc<State>>, Path(id): Path<String>) -> Answer {
    let asked = id.clone();
    match from_store(&state, move |store| store.cdr(&asked)).await? {
        Some(line) => Ok(raw(line)),
        None => Err(Problem::not_found(format!("there is no record of a call {id}"))),
    }
}

/// JSON that is text already.
fn raw(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

pub(super) fn now() -> UnixMillis {
    Clock::default().now().wall
}

pub(super) async fn stations(Given(state): Given<Arc<State>>) -> Json<Vec<Value>> {
    let shared = state.engine.shared();
    let current = shared.current();
    let now = now();
    let listener = |id: ListenerId| current.config.listener(id).map(|l| l.name.as_str());
    Json(current.directory.stations().map(|entry| station(entry, now, listener)).collect())
}

fn station<'a>(
    entry: &StationEntry,
    now: UnixMillis,
    listener: impl Fn(ListenerId) -> Option<&'a str>,
) -> Value {
    let bindings = entry.bindings();
    let living = bindings.iter().filter(|binding| binding.expires_at > now);
    let bindings: Vec<Value> = living
        .map(|binding| {
            json!({
                "contact": binding.contact,
                "source": binding.source.remote.to_string(),
                "listener": listener(binding.source.listener),
                "expires": rfc3339(binding.expires_at.0),
                "expires_in_s": binding.expires_in(now),
                "q": f64::from(binding.q) / 1000.0,
                "path": binding.path,
                "user_agent": binding.user_agent,
            })
        })
        .collect();
    json!({
        "name": &*entry.config.name,
        "extension": entry.config.extension,
        "calling_search_space": entry.config.rules.calling_search_space,
        "calls": entry.calls(),
        "max_calls": entry.config.rules.max_calls,
        "max_new_calls_per_min": entry.config.rules.toll.max_new_calls_per_min,
        "international": entry.config.rules.toll.international,
        "toll_alarms": alarms(entry.watched()),
        "registered": !bindings.is_empty(),
        "bindings": bindings,
    })
}

/// Of what there is suddenly too much.
fn alarms(watched: Option<&Arc<Watched>>) -> Vec<&'static str> {
    watched.map(|watched| watched.sudden().map(Measure::as_str).collect()).unwrap_or_default()
}

fn proxy(entry: &ProxyEntry, hosts: &[(SocketAddr, String)]) -> Value {
    let status = entry.status();
    let host = hosts.iter().find(|(address, _)| *address == entry.proxy.address).map(|(_, host)| host);
    json!({
        "address": entry.proxy.address.to_string(),
        "name": host,
        "priority": entry.proxy.priority,
        "weight": entry.proxy.weight,
        "state": status.state.as_str(),
        "up": status.state != trunk_health::State::Down,
        "since": status.since.map(|at| rfc3339(at.0)),
        "cause": status.cause,
        "overload_percent": entry.restrained(),
    })
}

pub(super) async fn trunks(Given(state): Given<Arc<State>>) -> Json<Vec<Value>> {
    let shared = state.engine.shared();
    let current = shared.current();
    let listener = |id: ListenerId| current.config.listener(id).map(|l| l.name.as_str());
    let trunk = |entry: &Arc<TrunkEntry>| {
        let places = entry.places();
        let names: Vec<Value> = places.located().map(|(host, located)| name(host, located)).collect();
        let hosts = places.hosts();
        let proxies: Vec<Value> = entry.proxies().iter().map(|entry| proxy(entry, &hosts)).collect();
        json!({
            "name": &*entry.config.name,
            "listener": listener(current.config.listener_id(entry.config.listener)),
            "calls": entry.calls.taken(),
            "max_calls": entry.config.max_calls,
            "emergency_channels": entry.config.emergency_channels,
            "max_new_calls_per_s": entry.config.max_new_calls_per_s,
            "international": entry.config.rules.international,
            "toll_alarms": alarms(entry.toll.watched()),
            "proxies": proxies,
            "names": names,
        })
    };
    Json(current.directory.trunks().map(trunk).collect())
}

/// What DNS has found for a named proxy.
fn name(host: &str, located: Option<&Located>) -> Value {
    let server = |server: &Server| {
        let addresses: Vec<String> = server.addresses.iter().map(ToString::to_string).collect();
        json!({
            "name": &*server.name,
            "priority": server.priority,
            "weight": server.weight,
            "transport": server.transport.as_str(),
            "addresses": addresses,
        })
    };
    let state = located.map_or("unknown", |located| located.trouble().map_or("fresh", Trouble::as_str));
    let because = located.and_then(|located| located.because.as_ref());
    let servers: Vec<Value> = located.iter().flat_map(|located| &located.servers).map(server).collect();
    json!({"name": host, "state": state, "why": because.map(ToString::to_string), "servers": servers})
}

pub(super) async fn tree(Given(state): Given<Arc<State>>) -> Answer {
    let shared = state.engine.shared();
    let current = shared.current();
    let asked = ask::each_shard(&state.engine, &Ask::Tree, PATIENCE).await;
    let mut shards = asked.map_err(|silent| Problem::silent(&silent))?;
    let mut workers: Vec<Value> = (0..current.config.media.workers)
        .map(|worker| json!({"id": format!("media_worker:{worker}"), "media_sessions": []}))
        .collect();
    for shard in &mut shards {
        shard["calls"] = json!([]);
    }
    for mut call in ask::calls(&state.engine).await? {
        let place = call["shard"].as_u64().and_then(|n| usize::try_from(n).ok());
        let id = format!("call:{}", call["call_id"].as_str().unwrap_or_default());
        for session in call["media_sessions"].as_array().into_iter().flatten() {
            let worker = session["worker"].as_u64().and_then(|n| workers.get_mut(usize::try_from(n).ok()?));
            push(worker.map(|worker| &mut worker["media_sessions"]), session["id"].clone());
        }
        let node = json!({"id": id, "state": call["state"], "dialogs": call["dialogs"].take()});
        push(place.and_then(|n| shards.get_mut(n)).map(|shard| &mut shard["calls"]), node);
    }
    let kinds = ActorKind::ALL.map(|kind| {
        json!({"kind": kind.as_str(), "alive": shared.census.alive(kind), "restarts": shared.census.restarts(kind)})
    });
    let tree = json!({
        "id": "engine",
        "node": current.config.node,
        "kinds": kinds,
        "shards": shards,
        "media_workers": workers,
    });
    Ok(Json(tree).into_response())
}

fn push(list: Option<&mut Value>, value: Value) {
    if let Some(Value::Array(list)) = list {
        list.push(value);
    }
}

/// Which events are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EventsQuery {
    from: u64,
    max: Option<usize>,
}

pub(super) async fn events(
    Given(state): Given<Arc<State>>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Answer {
    let Query(EventsQuery { from, max }) = query?;
    let max = max.unwrap_or(EVENTS).min(MAX_EVENTS);
    let lines = from_store(&state, move |store| store.events_from(from, max)).await?;
    Ok(raw(format!("[{}]", lines.join(","))))
}

/// What is done to an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Fault {
    Panic,
    PanicAlways,
    Stall,
}

/// `POST /api/v1/chaos`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chaos {
    actor: String,
    #[serde(rename = "do")]
    fault: Fault,
    /// How long to stall.
    ms: Option<u64>,
}

pub(super) async fn chaos(
    Given(state): Given<Arc<State>>,
    body: Result<Json<Chaos>, JsonRejection>,
) -> Answer {
    if !state.chaos {
        return Err(Problem::not_found("chaos is off; it needs TANDEM_CHAOS=1"));
    }
    let Json(Chaos { actor, fault, ms }) = body?;
    if ms.is_some() && fault != Fault::Stall {
        return Err(Problem::unprocessable("ms: goes with \"do\": \"stall\""));
    }
    let shards = state.engine.shared().current().directory.shards();
    let shard = actor.strip_prefix("shard:").map(|n| n.parse().ok().filter(|n| *n < shards).map(ShardId));
    let injection = match (fault, shard) {
        (_, Some(None)) => return Err(no_actor(&actor)),
        (Fault::Stall, Some(Some(shard))) => return Ok(stall(&state, shard, &actor, ms).await),
        (Fault::Stall, None) => return Err(Problem::unprocessable("only a shard can be stalled")),
        (Fault::Panic, Some(Some(shard))) => {
            tracing::warn!(actor, ?fault, "chaos");
            ask::one(&state.engine, shard, Ask::Panic, Duration::ZERO).await;
            return Ok(accepted(&actor));
        }
        (Fault::PanicAlways, Some(Some(_))) => {
            return Err(Problem::unprocessable("a shard can be stalled, or made to panic once"));
        }
        (Fault::Panic, None) => Injection::Once,
        (Fault::PanicAlways, None) => Injection::Always,
    };
    for shard in (0..shards).map(ShardId) {
        // A trunk or a registration group is another one after a panic, and that one shall panic too until it is made to panic once.
        let poison = Ask::Poison(actor.clone(), injection == Injection::Always);
        let known = ask::one(&state.engine, shard, poison, PATIENCE).await == Some(Value::Bool(true));
        let told = known && injection == Injection::Always;
        let ask = Ask::Inject(actor.clone(), injection);
        // One that rests after a fault has nothing to panic with.
        if told || ask::one(&state.engine, shard, ask, PATIENCE).await == Some(Value::Bool(true)) || known {
            tracing::warn!(actor, ?fault, "chaos");
            return Ok(accepted(&actor));
        }
    }
    Err(no_actor(&actor))
}

fn no_actor(actor: &str) -> Problem {
    Problem::not_found(format!("there is no actor {actor}; `tandem tree` prints their ids"))
}

fn accepted(actor: &str) -> Response {
    (StatusCode::ACCEPTED, Json(json!({"actor": actor, "accepted": true}))).into_response()
}

/// The answer does not wait for the end of the stall, so that its effect can be watched.
async fn stall(state: &State, shard: ShardId, actor: &str, ms: Option<u64>) -> Response {
    let ms = ms.unwrap_or(STALL_MS);
    tracing::warn!(actor, stall_ms = ms, "chaos");
    ask::one(&state.engine, shard, Ask::Stall(ms), Duration::ZERO).await;
    accepted(actor)
}
