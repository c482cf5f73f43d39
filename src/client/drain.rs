//! `tandem drain`: no new calls, and the end of the daemon with the last one; if asked to, the wait for that.

use std::io::Write;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tandem_actors::runtime::Clock;

use super::{Api, ClientError};
use crate::cli;

/// The time between two looks.
const PERIOD: Duration = Duration::from_millis(250);

/// Begins to drain; with `--wait` returns the last answer, which has no call left.
pub(super) fn drain(api: &Api, asked: &cli::Drain, out: &mut dyn Write) -> Result<Value, ClientError> {
    let mut answer =
        api.post("/api/v1/drain", &json!({"on": true, "exit": !asked.stay, "limit_s": asked.limit}))?;
    if !asked.wait {
        return Ok(answer);
    }
    let clock = Clock::default();
    let deadline =
        asked.timeout.map(|seconds| (seconds, clock.now().mono + Duration::from_secs(seconds.into())));
    while calls(&answer) > 0 {
        if !asked.client.json {
            write!(out, "{}", left(&answer))?;
            out.flush()?;
        }
        let exits = answer["exit"] == true;
        answer = fewer(api, (calls(&answer), exits), || {
            deadline.filter(|(_, at)| clock.now().mono >= *at).map(|(seconds, _)| seconds)
        })?;
    }
    Ok(answer)
}

/// Waits until there are fewer calls than `before`. More, of emergencies, are no news. `over`: the wait was so long, in seconds.
fn fewer(
    api: &Api,
    (before, exits): (u64, bool),
    over: impl Fn() -> Option<u32>,
) -> Result<Value, ClientError> {
    loop {
        let answer = match api.get("/api/v1/drain") {
            // It has ended between two looks.
            Err(ClientError::Unreachable { .. }) if exits => {
                return Ok(json!({"draining": true, "calls": 0, "exit": true}));
            }
            answer => answer?,
        };
        if answer["draining"] != true {
            return Err(ClientError::TakesCalls);
        }
        let calls = calls(&answer);
        if calls < before {
            return Ok(answer);
        }
        if let Some(seconds) = over() {
            return Err(ClientError::CallsLeft { calls, seconds });
        }
        thread::park_timeout(PERIOD);
    }
}

fn calls(answer: &Value) -> u64 {
    answer["calls"].as_u64().unwrap_or_default()
}

/// How many calls there are, for people.
pub(super) fn left(answer: &Value) -> String {
    let end = match (answer["exit"] == true, answer["limit"].as_str(), calls(answer)) {
        (false, ..) => String::new(),
        (true, _, 0) => "; the daemon ends".to_owned(),
        (true, None, _) => ", and the daemon ends with the last one".to_owned(),
        (true, Some(limit), _) => format!(", and the daemon ends with the last one, or at {limit}"),
    };
    match calls(answer) {
        0 => format!("draining: new calls are refused; no call is left{end}\n"),
        1 => format!("draining: new calls are refused; 1 call is left{end}\n"),
        calls => format!("draining: new calls are refused; {calls} calls are left{end}\n"),
    }
}
