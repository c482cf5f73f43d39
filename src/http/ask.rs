//! Questions to shards, with a bound on how long an answer is waited for.

use std::time::Duration;

use serde_json::Value;
use tandem_actors::engine::Engine;
use tandem_actors::ids::ShardId;
use tandem_actors::shard::Ask;
use tokio::task::JoinSet;

use super::problem::Problem;

/// How long the API waits for a shard.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Asks each shard something that a living shard always answers; the answers in the order of the shards.
///
/// # Errors
/// The shards that are dead, or that did not answer within `patience`.
pub(super) async fn each_shard(
    engine: &Engine,
    ask: &Ask,
    patience: Duration,
) -> Result<Vec<Value>, Vec<ShardId>> {
    let answers = each(engine, ask, patience).await;
    let silent: Vec<ShardId> =
        answers.iter().filter(|(_, answer)| answer.is_none()).map(|(shard, _)| *shard).collect();
    if silent.is_empty() {
        Ok(answers.into_iter().filter_map(|(_, answer)| answer).collect())
    } else {
        Err(silent)
    }
}

/// The same, with the answers there are.
pub(super) async fn each(engine: &Engine, ask: &Ask, patience: Duration) -> Vec<(ShardId, Option<Value>)> {
    let shards = (0..engine.shared().current().directory.shards()).map(ShardId);
    let mut asked = JoinSet::new();
    for shard in shards.clone() {
        let (engine, ask) = (engine.clone(), ask.clone());
        asked.spawn(async move { (shard, one(&engine, shard, ask, patience).await) });
    }
    let mut answers: Vec<(ShardId, Option<Value>)> = shards.map(|shard| (shard, None)).collect();
    while let Some(done) = asked.join_next().await {
        if let Ok((shard, answer)) = done {
            answers[usize::from(shard.0)].1 = answer;
        }
    }
    answers
}

/// The first answer of one shard; `None`: it has none, or not within `patience`.
pub(super) async fn one(engine: &Engine, shard: ShardId, ask: Ask, patience: Duration) -> Option<Value> {
    let answers = tokio::time::timeout(patience, engine.ask(shard, ask)).await;
    answers.ok()?.into_iter().next()
}

/// Every call, the oldest first.
///
/// # Errors
/// A shard does not answer: a list that lacks its calls would mislead.
pub(super) async fn calls(engine: &Engine) -> Result<Vec<Value>, Problem> {
    // A dead shard has no calls to tell of; only this tells it from an idle one.
    each_shard(engine, &Ask::Count, PATIENCE).await.map_err(|silent| Problem::silent(&silent))?;
    let asked = tokio::time::timeout(PATIENCE, engine.ask_all(Ask::Calls)).await;
    let mut calls = asked.map_err(|_| {
        Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "a shard did not list its calls in time")
    })?;
    calls.sort_by_key(|call| (call["start"].as_u64(), call["call_id"].as_str().map(str::to_owned)));
    Ok(calls)
}
