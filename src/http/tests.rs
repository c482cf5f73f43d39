//! What the surface answers when shards or the store do not: with actors that never run, and a clock that tests move.
#![allow(clippy::disallowed_methods)]

use actix::{Addr, AsyncContext, Context};
use axum::body::Body;
use axum::http::{Method, Request};
use tandem_actors::directory::Directory;
use tandem_actors::env::Shared;
use tandem_actors::generation::Generations;
use tandem_actors::ids::Names;
use tandem_actors::metrics::Metrics;
use tandem_actors::shard::Shard;
use tandem_actors::store::{Batch, Bucket, Entry, Store, StoreFault};
use tandem_protocol::digest::{NonceSigner, NonceWindows};
use tower::ServiceExt as _;

use super::*;
use crate::reload::Source;
use crate::settings::{Secret, Settings};
use crate::{telemetry, wiring};

const CALL: &str = "c000123456789abcdef";

/// A disk that cannot be read.
struct Broken;

impl Broken {
    fn fault<T>() -> Result<T, StoreFault> {
        Err(StoreFault::Backend("the disk is gone".to_owned()))
    }
}

impl Store for Broken {
    fn submit(&self, _: Batch) {}
    fn scan(&self, _: Bucket) -> Result<Vec<Entry>, StoreFault> {
        Broken::fault()
    }
    fn events_from(&self, _: u64, _: usize) -> Result<Vec<String>, StoreFault> {
        Broken::fault()
    }
    fn events_of(&self, _: &str, _: u64) -> Result<Vec<String>, StoreFault> {
        Broken::fault()
    }
    fn cdr(&self, _: &str) -> Result<Option<String>, StoreFault> {
        Broken::fault()
    }
    fn flush(&self) {}
}

/// A state whose two shards have mailboxes that nobody reads, as long as the contexts live.
fn stuck(tokens: &[&str]) -> (State, Vec<Context<Shard>>) {
    let settings = Settings::load_from(Some(("test.toml", "[node]\nshards = 2\n")), []).unwrap().settings;
    let bound = ["127.0.0.1:5060".parse().unwrap()];
    let config = wiring::engine_config(&settings, &bound, true).unwrap();
    let (registry, prometheus) = telemetry::prometheus().unwrap();
    let metrics = Metrics::new(registry);
    let nonces = NonceSigner::new([7; 32], UnixMillis(0));
    let directory = Directory::new(&config, &metrics, nonces, NonceWindows::new(16, Duration::from_secs(60)));
    let shared = Arc::new(Shared {
        names: Names::new(&config.node),
        placement_key: 1,
        settings: Generations::new(config, directory),
        store: Arc::new(Broken),
        metrics,
        census: Default::default(),
    });
    let contexts: Vec<Context<Shard>> = (0..2).map(|_| Context::new()).collect();
    let shards: Vec<Addr<Shard>> = contexts.iter().map(AsyncContext::address).collect();
    let engine = Engine::new(shards, shared);
    let clock = Clock::default();
    let tokens = tokens.iter().map(|token| Secret::from((*token).to_owned())).collect();
    let reloader = Reloader::new(
        engine.clone(),
        clock,
        Source::Nowhere,
        (&settings, tokens),
        (Arc::default(), true),
        (Box::new(|_| Ok(None)), None),
    );
    let state = State {
        engine,
        clock,
        reloader: Arc::new(reloader),
        drainer: Arc::new(Drainer::idle()),
        prometheus,
        ready: Arc::new(AtomicBool::new(true)),
        chaos: true,
        started_at: UnixMillis(0),
    };
    (state, contexts)
}

async fn ask(state: &State, method: Method, path: &str, body: &str) -> (StatusCode, serde_json::Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", "Bearer t")
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap();
    let response = router(state.clone()).oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test(start_paused = true)]
async fn shards_that_do_not_answer_within_a_second_are_named() {
    let (state, _contexts) = stuck(&["t"]);
    let begun = tokio::time::Instant::now();
    let (status, problem) = ask(&state, Method::GET, "/healthz", "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(problem["detail"], "shard:0, shard:1 did not answer in time");
    assert_eq!(begun.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_has_died_is_unhealthy_at_once() {
    let (state, mut contexts) = stuck(&["t"]);
    drop(contexts.pop());
    let (_, problem) = ask(&state, Method::GET, "/healthz", "").await;
    assert_eq!(problem["detail"], "shard:0, shard:1 did not answer in time");
    drop(contexts);
    let begun = tokio::time::Instant::now();
    let (status, _) = ask(&state, Method::GET, "/healthz", "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(begun.elapsed() < Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn a_list_without_the_calls_of_a_stuck_shard_is_not_given() {
    let (state, _contexts) = stuck(&["t"]);
    let call = format!("/api/v1/calls/{CALL}");
    for (method, path) in
        [(Method::GET, "/api/v1/calls"), (Method::GET, "/api/v1/tree"), (Method::DELETE, call.as_str())]
    {
        let (status, problem) = ask(&state, method, path, "").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(problem["detail"].as_str().unwrap().contains("shard:0"), "{path}: {problem}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_needs_no_shard_is_answered_while_all_are_stuck() {
    let (state, _contexts) = stuck(&["t"]);
    for path in ["/api/v1/stations", "/api/v1/trunks"] {
        assert_eq!(ask(&state, Method::GET, path, "").await.0, StatusCode::OK, "{path}");
    }
    let (status, answer) = ask(&state, Method::POST, "/api/v1/drain", r#"{"on": true}"#).await;
    assert_eq!((status, &answer["draining"]), (StatusCode::OK, &serde_json::Value::Bool(true)));
    assert!(state.engine.shared().current().directory.draining());
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_a_problem_that_says_so() {
    let (state, _contexts) = stuck(&["t"]);
    for path in ["/api/v1/events".to_owned(), format!("/api/v1/cdrs/{CALL}")] {
        let (status, problem) = ask(&state, Method::GET, &path, "").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(problem["detail"], "the store could not commit: the disk is gone");
    }
}

#[tokio::test]
async fn without_a_token_in_the_settings_nobody_gets_in() {
    let (state, _contexts) = stuck(&[]);
    assert_eq!(ask(&state, Method::GET, "/api/v1/stations", "").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_does_not_hold_up_the_end() {
    let (state, _contexts) = stuck(&["t"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(serve(listener, state, async {
        // Either way it is the end.
        let _ = stopped.await;
    }));
    let silent = TcpStream::connect(address).await.unwrap();
    silent.writable().await.unwrap();
    silent.try_write(b"GET /metr").unwrap();
    // Connections are accepted in order: once this one is answered, the silent one is held.
    let other = TcpStream::connect(address).await.unwrap();
    other.writable().await.unwrap();
    other.try_write(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = [0; 512];
    other.readable().await.unwrap();
    let length = other.try_read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    drop(stop);
    let begun = tokio::time::Instant::now();
    served.await.unwrap();
    assert!(begun.elapsed() <= GRACE + Duration::from_millis(1), "{:?}", begun.elapsed());
}
