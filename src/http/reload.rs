//! `POST /api/v1/reload`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Given;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::State;
use super::problem::Problem;
use crate::reload::{Asker, ReloadError, Wish};

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reload {
    #[serde(default)]
    dry_run: bool,
    /// Route the calls of so many last hours again, and tell which would go elsewhere. Only with `dry_run`.
    #[serde(default)]
    against_cdrs_h: Option<u32>,
}

pub(super) async fn reload(
    Given(state): Given<Arc<State>>,
    body: Result<Json<Reload>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(Reload { dry_run, against_cdrs_h }) = body?;
    let wish = match (dry_run, against_cdrs_h) {
        (false, None) => Wish::Apply,
        (true, against_cdrs_h) => Wish::DryRun { against_cdrs_h },
        (false, Some(_)) => {
            return Err(Problem::unprocessable("against_cdrs_h: goes with \"dry_run\": true"));
        }
    };
    let report = state.reloader.reload(wish, Asker::Api).await.map_err(|why| problem(&why))?;
    let text = report.plan.to_string();
    let mut answer = json!(report);
    // The same for people, so that every client shows it alike.
    answer["text"] = text.into();
    if let Some(rerouted) = &report.rerouted {
        answer["rerouted"]["text"] = rerouted.to_string().into();
    }
    Ok(Json(answer).into_response())
}

fn problem(why: &ReloadError) -> Problem {
    let status = match why {
        ReloadError::Settings(_)
        | ReloadError::Unfit { .. }
        | ReloadError::Imported(_)
        | ReloadError::Wiring(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ReloadError::Nowhere | ReloadError::Listen { .. } => StatusCode::CONFLICT,
        ReloadError::Store(_) | ReloadError::Token(_) | ReloadError::Cdrs(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ReloadError::Fault => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, why.to_string())
}
