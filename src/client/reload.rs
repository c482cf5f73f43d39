//! `tandem reload`: what the daemon has made of its settings.

use serde_json::{Value, json};

use super::{Api, ClientError};
use crate::cli;

pub(super) fn reload(api: &Api, asked: &cli::Reload) -> Result<Value, ClientError> {
    let body = json!({"dry_run": asked.dry_run, "against_cdrs_h": asked.against_cdrs});
    api.post("/api/v1/reload", &body).map_err(|why| match why {
        // The settings that say how to reach it may be what has changed.
        ClientError::Refused { status: 401, detail } => ClientError::Refused {
            status: 401,
            detail: format!("{detail}; if http.tokens is what has changed, give one of before with --token, or send SIGHUP"),
        },
        why => why,
    })
}

/// What was done, for people.
pub(super) fn done(answer: &Value) -> String {
    let plan = answer["text"].as_str().unwrap_or_default();
    let changes = answer["changes"].as_array().map_or(0, Vec::len);
    let plural = if changes == 1 { "change" } else { "changes" };
    let took = answer["took_ms"].as_f64().unwrap_or_default();
    let last = match (answer["result"].as_str(), changes) {
        (Some("applied"), _) => format!("reloaded in {took:.0} ms: {changes} {plural} in force\n"),
        (Some("dry_run"), 0) => "dry run: nothing would change\n".to_owned(),
        (Some("dry_run"), _) => {
            format!("dry run: {changes} {plural} would come into force, nothing has changed\n")
        }
        _ => "nothing was different\n".to_owned(),
    };
    let silent = answer["silent"].as_array().map(|shards| {
        let names: Vec<&str> = shards.iter().filter_map(Value::as_str).collect();
        format!("warning: {} did not take it over in time\n", names.join(", "))
    });
    let rerouted = answer["rerouted"]["text"].as_str().unwrap_or_default();
    format!("{plan}{}{last}{rerouted}", silent.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_is_not_told_as_done() {
        let answer = json!({"result": "dry_run", "changes": [{}], "text": "+ trunk a\n", "took_ms": 3.2});
        assert_eq!(
            done(&answer),
            "+ trunk a\ndry run: 1 change would come into force, nothing has changed\n"
        );
        let answer = json!({"result": "applied", "changes": [{}, {}], "text": "+ trunk a\n- trunk b\n", "took_ms": 3.2});
        assert_eq!(done(&answer), "+ trunk a\n- trunk b\nreloaded in 3 ms: 2 changes in force\n");
        assert_eq!(
            done(&json!({"result": "unchanged", "changes": [], "text": ""})),
            "nothing was different\n"
        );
    }
}
