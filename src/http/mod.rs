//! The HTTP surface: metrics and health without a token, `/api/v1` with one.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /healthz` | 200 while every shard answers within 1 s, else 503 naming the shards |
//! | `GET /readyz` | 200 while new calls are taken, else 503 |
//! | `GET /metrics` | Prometheus text |
//! | `GET /api/v1/calls` | every call |
//! | `GET /api/v1/calls/{id}` | one call |
//! | `DELETE /api/v1/calls/{id}` | 202: it is being ended; 409: it has ended |
//! | `GET /api/v1/calls/{id}/why?sip=true` | its events, its CDR, its SIP messages |
//! | `GET /api/v1/cdrs/{id}` | its record |
//! | `GET /api/v1/stations`, `/trunks` | with bindings; with the health of proxies |
//! | `POST /api/v1/stations?check=&remove=` | lines of JSON into the store, or the stations they name out of it: for the next reload or start |
//! | `GET /api/v1/registration_groups` | our registrations at providers: registrar, state, age, expiry, route, when and why one last failed |
//! | `GET /api/v1/tree` | the actors; ids as `chaos` takes them |
//! | `GET /api/v1/events?from=N&max=M` | numbered events from N on |
//! | `GET /api/v1/drain` | whether new calls are refused, and how many calls there are |
//! | `POST /api/v1/drain {"on": true, "exit": false, "limit_s": 60}` | new calls but emergency calls are refused, or no longer; with `exit` the process ends with its last call, or at the limit; answers as GET |
//! | `POST /api/v1/reload {"dry_run": false}` | reads the settings again: what changes, what waits for a restart; 422: they are wrong, and nothing has changed |
//! | `POST /api/v1/chaos {"actor": ID, "do": "panic\|stall\|panic_always", "ms": N}` | a fault on purpose, for so long if it is to stall; 404 unless `TANDEM_CHAOS=1` |
//!
//! Times are RFC 3339 in UTC. Every error is `application/problem+json` (RFC 9457).
//!
//! A connection is bounded in what it may hold and how long it may idle; what is no HTTP is answered 400 or dropped.

mod api;
mod ask;
mod auth;
mod drain;
mod import;
mod metrics;
mod problem;
mod registrations;
mod reload;
#[cfg(test)]
mod tests;
mod toll_alarms;
mod why;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ::metrics::Counter;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State as Given};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tandem_actors::engine::Engine;
use tandem_actors::metrics::Describe;
use tandem_actors::runtime::Clock;
use tandem_protocol::time::UnixMillis;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::drain::Drainer;
use crate::reload::Reloader;
use problem::Problem;

/// The connections at once; further ones wait in the listener's queue.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may take to send the head of a request, and may idle between two.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a request may take, its body included.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// After this a connection ends with its present request, so that none is held for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
/// What a request that is in progress gets when its connection must end.
const GRACE: Duration = Duration::from_secs(5);
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// The largest body of a request, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// The rest after a connection could not be accepted, of too few descriptors for example.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the surface shows and commands.
#[derive(Clone)]
pub struct State {
    /// The engine.
    pub engine: Engine,
    /// The clock of limits.
    pub clock: Clock,
    /// The settings in force, with the bearer tokens of the API, and what reads them again.
    pub reloader: Arc<Reloader>,
    /// What lets the process drain.
    pub drainer: Arc<Drainer>,
    /// Renders the metrics of the engine.
    pub prometheus: PrometheusHandle,
    /// True once calls are taken, and until the process stops.
    pub ready: Arc<AtomicBool>,
    /// Whether faults may be injected.
    pub chaos: bool,
    /// When the process started: SIP messages from before are gone.
    pub started_at: UnixMillis,
}

/// Serves `listener` until `shutdown` ends; requests in progress then get a few seconds more.
pub async fn serve(listener: TcpListener, state: State, shutdown: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(router(state));
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, service.clone(), stopping.clone()));
                }
                Err(why) => {
                    tracing::warn!(%why, "an HTTP connection could not be accepted");
                    if tokio::time::timeout(ACCEPT_REST, &mut shutdown).await.is_ok() {
                        break;
                    }
                }
            },
        }
    }
    drop(listener);
    // Each connection ends in its own grace.
    stop.send_replace(());
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    service: TowerToHyperService<Router>,
    mut stopping: watch::Receiver<()>,
) {
    // Without it an answer may wait for an acknowledgement; the connection works all the same.
    let _ = stream.set_nodelay(true);
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(MAX_HEAD);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        done = tokio::time::timeout(CONNECTION_LIFE, connection.as_mut()) => match done {
            Ok(Ok(())) => return,
            Ok(Err(why)) => {
                tracing::debug!(%why, "an HTTP connection ended badly");
                return;
            }
            Err(_) => {}
        },
        _ = stopping.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    if tokio::time::timeout(GRACE, connection).await.is_err() {
        tracing::debug!("an HTTP connection was cut off");
    }
}

fn router(state: State) -> Router {
    let answers = Answers::new(&state);
    let state = Arc::new(state);
    let api = Router::new()
        .route("/calls", get(api::calls))
        .route("/calls/{id}", get(api::call).delete(api::hang_up))
        .route("/calls/{id}/why", get(why::why))
        .route("/cdrs/{id}", get(api::cdr))
        .route("/stations", get(api::stations).post(import::stations))
        .route("/trunks", get(api::trunks))
        .route("/registration_groups", get(registrations::registration_groups))
        .route("/toll-alarms/{who}", delete(toll_alarms::clear))
        .route("/tree", get(api::tree))
        .route("/events", get(api::events))
        .route("/drain", get(drain::draining).post(drain::drain))
        .route("/reload", post(reload::reload))
        .route("/chaos", post(api::chaos))
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_that_method)
        .layer(middleware::from_fn_with_state(state.clone(), auth::require_token));
    Router::new()
        .route("/healthz", get(metrics::healthz))
        .route("/readyz", get(metrics::readyz))
        .route("/metrics", get(metrics::metrics))
        .nest("/api/v1", api)
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_that_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn_with_state(answers, counted))
        .with_state(state)
}

async fn nothing_here(request: Request) -> Problem {
    Problem::not_found(format!("there is nothing at {}", request.uri().path()))
}

async fn not_that_method(request: Request) -> Problem {
    let detail = format!("{} is not possible on {}", request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the request took too long").into_response(),
    }
}

/// Answers by the class of their status, from 1xx on.
#[derive(Clone)]
struct Answers([Counter; 5]);

impl Answers {
    fn new(state: &State) -> Answers {
        let name = "tandem_http_responses_total";
        let registry = state.engine.shared().metrics.registry();
        registry.describe(Describe::Counter, name, None, "Answers to HTTP requests by class of status");
        Answers(
            ["1xx", "2xx", "3xx", "4xx", "5xx"]
                .map(|class| registry.counter(name, &[("class", class.to_owned())])),
        )
    }
}

async fn counted(Given(answers): Given<Answers>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let class = usize::from(response.status().as_u16() / 100);
    if let Some(counter) = class.checked_sub(1).and_then(|place| answers.0.get(place)) {
        counter.increment(1);
    }
    response
}
