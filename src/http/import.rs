//! `POST /api/v1/stations`: stations into the store, or out of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{QueryRejection, StringRejection};
use axum::extract::{Query, State as Given};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tandem_actors::store::{Batch, Bucket, Store, Urgency, Write};

use super::State;
use super::api::from_store;
use super::problem::Problem;
use crate::settings::{BadLine, Settings, names_of_stations};

/// So many bad lines are told of.
const MOST_TOLD: usize = 20;

/// What is to be done with the lines.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ImportQuery {
    /// Only say whether they are right.
    check: bool,
    /// Take the stations they name out of the store.
    remove: bool,
    /// How many lines of the file came before.
    lines_before: usize,
}

pub(super) async fn stations(
    Given(state): Given<Arc<State>>,
    query: Result<Query<ImportQuery>, QueryRejection>,
    body: Result<String, StringRejection>,
) -> Result<Response, Problem> {
    let Query(asked) = query?;
    let text = body?;
    let settings = state.reloader.settings();
    let done = from_store(&state, move |store| Ok(import(store, &settings, asked, &text))).await?;
    let count = done.map_err(|bad| unprocessable(&bad, asked.lines_before))?;
    if !asked.check {
        tracing::info!(
            stations = count,
            remove = asked.remove,
            "an operator has changed the stations of the store"
        );
    }
    Ok(Json(json!({"stations": count, "stored": !asked.check})).into_response())
}

/// How many stations there are in the text; they are committed when this returns, unless they were only checked.
fn import(
    store: &dyn Store,
    settings: &Settings,
    asked: ImportQuery,
    text: &str,
) -> Result<usize, Vec<BadLine>> {
    let changes: Vec<(String, Option<String>)> = if asked.remove {
        names_of_stations(text)?.into_iter().map(|name| (name, None)).collect()
    } else {
        settings.read_stations(text)?.into_iter().map(|station| (station.name, Some(station.json))).collect()
    };
    let count = changes.len();
    if !asked.check {
        let mut batch = Batch::new(Urgency::Urgent);
        let write = |(key, json): (String, Option<String>)| Write {
            bucket: Bucket::Stations,
            key,
            value: json.map(Into::into),
            expect: None,
        };
        batch.writes = changes.into_iter().map(write).collect();
        store.submit(batch);
        store.flush();
    }
    Ok(count)
}

fn unprocessable(bad: &[BadLine], lines_before: usize) -> Problem {
    let mut told: Vec<String> = bad
        .iter()
        .take(MOST_TOLD)
        .map(|bad| BadLine { line: bad.line + lines_before, ..bad.clone() }.to_string())
        .collect();
    if bad.len() > MOST_TOLD {
        told.push(format!("and {} more", bad.len() - MOST_TOLD));
    }
    Problem::unprocessable(told.join("\n"))
}
