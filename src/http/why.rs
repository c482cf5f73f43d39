//! Why a call went as it did: its events, its record, its SIP messages.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Given};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tandem_actors::shard::Ask;

use super::State;
use super::api::{from_store, living, presented, rfc3339};
use super::ask::{self, PATIENCE};
use super::problem::Problem;

/// How many of the newest events are looked through.
const DEPTH: u64 = 1_000_000;

/// Whether the SIP messages are wanted too.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WhyQuery {
    sip: bool,
}

pub(super) async fn why(
    Given(state): Given<Arc<State>>,
    Path(id): Path<String>,
    query: Result<Query<WhyQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(WhyQuery { sip }) = query?;
    let mut notes = Vec::new();
    // Whoever asks why is in trouble already: what does not answer is noted, and the rest is told.
    let call = living(&state, &id).await.unwrap_or_else(|_| {
        notes.push("the shard of the call does not answer: whether it still exists is not known".to_owned());
        None
    });
    let asked = id.clone();
    let (events, cdr) =
        from_store(&state, move |store| Ok((store.events_of(&asked, DEPTH)?, store.cdr(&asked)?))).await?;
    let events: Vec<Value> = events.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let cdr: Option<Value> = cdr.and_then(|line| serde_json::from_str(&line).ok());
    if call.is_none() && events.is_empty() && cdr.is_none() {
        return Err(Problem::not_found(format!("nothing is known of a call {id}")));
    }
    let known = Known { call, events, cdr };
    if known.cdr.is_some() && known.events.is_empty() {
        notes.push("the events of this call are no longer among those that are looked through".to_owned());
    }
    let sip = if sip { Some(messages(&state, &known).await) } else { None };
    let mut answer = json!({
        "call_id": id,
        "call": known.call.map(presented),
        "events": known.events,
        "cdr": known.cdr,
        "notes": notes,
    });
    if let Some(sip) = sip {
        answer["sip"] = sip;
    }
    Ok(Json(answer).into_response())
}

/// What is known of a call before its messages are looked for.
struct Known {
    call: Option<Value>,
    events: Vec<Value>,
    cdr: Option<Value>,
}

impl Known {
    /// The SIP Call-IDs of its legs.
    fn sip_call_ids(&self) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        let living = self.call.iter().flat_map(|call| call["sip_call_ids"].as_array()).flatten();
        ids.extend(living.filter_map(Value::as_str).map(str::to_owned));
        for event in &self.events {
            let of_leg = event["data"]["sip_call_id"].as_str();
            let of_all = event["data"]["sip_call_ids"].as_str().unwrap_or_default();
            ids.extend(of_leg.into_iter().chain(of_all.split_whitespace()).map(str::to_owned));
        }
        ids
    }

    /// When it began, in milliseconds since 1970.
    fn start_ms(&self) -> Option<u64> {
        let living = self.call.as_ref().and_then(|call| call["start"].as_u64());
        let told = self.cdr.as_ref().map(|cdr| &cdr["start"]).or(self.events.first().map(|e| &e["time"]));
        living.or_else(|| unix_ms(told?.as_str()?))
    }
}

fn unix_ms(rfc3339: &str) -> Option<u64> {
    let at = humantime::parse_rfc3339(rfc3339).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(at.as_millis()).ok()
}

/// The messages of all shards in the order of time, and notes on what may be missing.
async fn messages(state: &State, known: &Known) -> Value {
    let ids: Vec<String> = known.sip_call_ids().into_iter().collect();
    let start = known.start_ms();
    let mut notes = Vec::new();
    if state.engine.shared().current().config.sip_trace_bytes == 0 {
        notes.push("node.sip_trace_mb is 0: no SIP messages are kept".to_owned());
    }
    if ids.is_empty() {
        notes.push("the SIP Call-IDs of this call are not known".to_owned());
    }
    if start.is_none_or(|start| start < state.started_at.0) {
        let since = rfc3339(state.started_at.0);
        notes.push(format!("the daemon started at {since}: messages from before are gone"));
    }
    let mut messages: Vec<Value> = Vec::new();
    for (shard, answer) in ask::each(&state.engine, &Ask::Trace(ids), PATIENCE).await {
        let Some(mut answer) = answer else {
            notes.push(format!("shard:{} did not answer: its messages are missing", shard.0));
            continue;
        };
        if let Some(dropped) = answer["whole_since"].as_u64()
            && start.is_none_or(|start| start <= dropped)
        {
            let until = rfc3339(dropped);
            notes.push(format!(
                "shard:{} has no room for more (node.sip_trace_mb): messages up to {until} are gone",
                shard.0
            ));
        }
        if let Value::Array(of_shard) = answer["messages"].take() {
            messages.extend(of_shard);
        }
    }
    messages.sort_by_key(|message| message["time"].as_u64());
    for message in &mut messages {
        let at = message["time"].as_u64().unwrap_or_default();
        message["time_ms"] = json!(at);
        message["time"] = json!(rfc3339(at));
    }
    json!({ "complete": notes.is_empty(), "notes": notes, "call_ids": known.sip_call_ids(), "messages": messages })
}
