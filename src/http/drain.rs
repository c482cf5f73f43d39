//! `/api/v1/drain`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Given;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tandem_actors::metrics::ActorKind;
use tandem_actors::shard::Ask;
use tandem_protocol::time::{Now, UnixMillis};

use super::State;
use super::api::rfc3339;
use super::problem::Problem;
use crate::drain::Wish;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    on: bool,
    /// End the process with its last call.
    #[serde(default)]
    exit: bool,
    /// End it after so many seconds at the latest.
    #[serde(default)]
    limit_s: Option<u32>,
}

pub(super) async fn drain(
    Given(state): Given<Arc<State>>,
    body: Result<Json<Drain>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(Drain { on, exit, limit_s }) = body?;
    if exit && !state.drainer.may_exit() {
        return Err(Problem::unprocessable("exit: this engine is a part of another program, which ends it"));
    }
    if !on && exit {
        return Err(Problem::unprocessable("exit: only what drains exits with its last call"));
    }
    if limit_s.is_some() && !exit {
        return Err(Problem::unprocessable("limit_s: goes with \"exit\": true"));
    }
    let limit = limit_s.map(|seconds| {
        let (now, wait) = (state.clock.now(), Duration::from_secs(seconds.into()));
        Now { mono: now.mono + wait, wall: UnixMillis(now.wall.0 + u64::from(seconds) * 1000) }
    });
    state.drainer.drain(state.engine.shared(), on, Wish { exit, limit });
    // Whoever takes no calls is not to be called: providers send them elsewhere.
    state.engine.tell_all(&Ask::BeRegistered { registered: !on, stopping: false });
    Ok(draining(Given(state)).await.into_response())
}

pub(super) async fn draining(Given(state): Given<Arc<State>>) -> Json<Value> {
    let shared = state.engine.shared();
    let (calls, wish) = (shared.census.alive(ActorKind::Call), state.drainer.wish());
    Json(json!({
        "draining": shared.current().directory.draining(),
        "calls": calls,
        "exit": wish.exit,
        "limit": wish.limit.map(|limit| rfc3339(limit.wall.0)),
    }))
}
