//! `/api/v1/toll-alarms`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State as Given};
use serde_json::{Value, json};
use tandem_actors::directory::Who;
use tandem_actors::ids::ShardId;
use tandem_actors::shard::Ask;

use super::State;
use super::ask::{self, PATIENCE};
use super::problem::Problem;

/// Ends the alarms of one, and with them its block: an operator has looked at its calls.
pub(super) async fn clear(
    Given(state): Given<Arc<State>>,
    Path(named): Path<String>,
) -> Result<Json<Value>, Problem> {
    let Some(who) = Who::parse(&named) else {
        return Err(Problem::unprocessable(format!("{named}: allowed: station:NAME or trunk:NAME")));
    };
    // Any shard can.
    let shard = ShardId(0);
    match ask::one(&state.engine, shard, Ask::ClearTollAlarms(who), PATIENCE).await {
        None => Err(Problem::silent(&[shard])),
        Some(Value::Null) => Err(Problem::not_found(format!("there is no {named}"))),
        Some(cleared) => {
            tracing::info!(target: "tandem::security", who = named, %cleared, "an operator clears toll alarms");
            Ok(Json(json!({"who": named, "cleared": cleared})))
        }
    }
}
