//! `/metrics`, `/healthz` and `/readyz`, for Prometheus and for whoever watches over the process. They need no token.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State as Given;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tandem_actors::shard::Ask;

use super::State;
use super::ask::each_shard;
use super::problem::Problem;

/// A shard that takes longer than this to answer is not healthy.
const PULSE: Duration = Duration::from_secs(1);

/// The text exposition format 0.0.4 of Prometheus.
pub(super) async fn metrics(Given(state): Given<Arc<State>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, state.prometheus.render()).into_response()
}

/// 200 while every shard answers.
pub(super) async fn healthz(Given(state): Given<Arc<State>>) -> Response {
    match each_shard(&state.engine, &Ask::Count, PULSE).await {
        Ok(_) => "ok\n".into_response(),
        Err(silent) => Problem::silent(&silent).into_response(),
    }
}

/// 200 while new calls are taken.
pub(super) async fn readyz(Given(state): Given<Arc<State>>) -> Response {
    let refused = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    if !state.ready.load(Ordering::Relaxed) {
        refused("starting or stopping")
    } else if state.engine.shared().current().directory.draining() {
        refused("draining: new calls are refused")
    } else {
        "ready\n".into_response()
    }
}
