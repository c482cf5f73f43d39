//! `tandem why ID [--sip]`: the decisions of a call in order, what it came to, and its ladder.

use std::fmt::Write as _;

use serde_json::Value;

use super::show::facts;
use super::table::{cell, duration, local, printable, table, unix_ms};
use crate::ladder::{self, LadderMessage};

/// How the engine is called in the ladder.
const ENGINE: &str = "tandem";

/// The whole answer for people.
pub(super) fn why(answer: &Value) -> String {
    let (call, cdr, events) = (&answer["call"], &answer["cdr"], list(&answer["events"]));
    let source = if cdr.is_null() { call } else { cdr };
    let first = events.first().map_or(&Value::Null, |event| &event["time"]);
    let start = if source["start"].is_null() { first } else { &source["start"] };
    let mut text = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        text,
        "call {}: {} to {}, {}",
        cell(&answer["call_id"]),
        cell(&source["from"]),
        cell(&source["to"]),
        outcome(call, cdr)
    );
    let _ = writeln!(text, "began {}", local(start));
    notes(&mut text, answer);
    text.push('\n');
    decisions(&mut text, events, unix_ms(start));
    record(&mut text, cdr);
    if !answer["sip"].is_null() {
        messages(&mut text, &answer["sip"]);
    }
    text
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn notes(text: &mut String, of: &Value) {
    for note in list(&of["notes"]) {
        let _ = writeln!(text, "note: {}", cell(note));
    }
}

fn outcome(call: &Value, cdr: &Value) -> String {
    if !cdr.is_null() {
        let talked = match cdr["duration_s"].as_f64() {
            Some(seconds) if !cdr["answer"].is_null() => {
                format!("after {}", duration((seconds * 1000.0) as i64))
            }
            Some(_) | None => "never answered".to_owned(),
        };
        format!(
            "ended by {}: {} (SIP {}), {talked}",
            cell(&cdr["ended_by"]),
            cell(&cdr["cause"]),
            cell(&cdr["sip_status"])
        )
    } else if !call.is_null() {
        format!("now {}", cell(&call["state"]))
    } else {
        "neither running nor recorded".to_owned()
    }
}

fn decisions(text: &mut String, events: &[Value], start: Option<i64>) {
    for event in events {
        let at = unix_ms(&event["time"])
            .zip(start)
            .map_or_else(|| "?".to_owned(), |(at, start)| relative(at - start));
        let line = format!(
            "{at:>10}  {:<16}  {}  {}",
            cell(&event["type"]),
            cell(&event["reason"]),
            facts(&event["data"])
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn relative(ms: i64) -> String {
    let sign = if ms < 0 { '-' } else { '+' };
    let ms = ms.unsigned_abs();
    format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
}

fn record(text: &mut String, cdr: &Value) {
    let attempts = list(&cdr["attempts"]);
    if !attempts.is_empty() {
        let _ = writeln!(text, "\nproxies tried on trunk {}:", cell(&cdr["trunk"]));
        for attempt in attempts {
            let ms = attempt["ms"].as_i64().unwrap_or_default();
            let _ = writeln!(
                text,
                "  {}  {} after {}",
                cell(&attempt["proxy"]),
                cell(&attempt["cause"]),
                duration(ms)
            );
        }
    }
    let number = |value: &Value| value.as_f64().map_or_else(|| cell(value), |number| format!("{number:.1}"));
    let rows: Vec<[String; 7]> = list(&cdr["legs"])
        .iter()
        .enumerate()
        .map(|(place, leg)| {
            [
                place.to_string(),
                cell(&leg["codec"]),
                cell(&leg["rx"]),
                cell(&leg["tx"]),
                cell(&leg["lost"]),
                number(&leg["jitter_ms"]),
                number(&leg["mos"]),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let titles = ["LEG", "CODEC", "RECEIVED", "SENT", "LOST", "JITTER ms", "MOS"];
        let _ = write!(text, "\n{}", table(titles, &rows));
    }
    if let Some(file) = cdr["recording"].as_str() {
        let _ = writeln!(text, "recording: {}", printable(file));
    }
}

fn messages(text: &mut String, sip: &Value) {
    text.push('\n');
    let messages: Vec<LadderMessage> = list(&sip["messages"]).iter().map(message).collect();
    text.push_str(&ladder::draw(&messages));
    if messages.is_empty() {
        text.push_str("no SIP messages are left of this call\n");
    }
    notes(text, sip);
}

fn message(traced: &Value) -> LadderMessage {
    let (peer, engine) = (cell(&traced["peer"]), ENGINE.to_owned());
    let (from, to) = if traced["direction"] == "in" { (peer, engine) } else { (engine, peer) };
    let text = traced["message"].as_str().unwrap_or_default().to_owned();
    LadderMessage { at_ms: traced["time_ms"].as_u64().unwrap_or_default(), from, to, text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Value {
        json!({
            "call_id": "c1", "call": null, "notes": [],
            "events": [
                {"time": "2026-07-01T12:00:00.000Z", "type": "call.started", "reason": "an INVITE was admitted",
                 "data": {"from": "1001", "to": "9555", "sip_call_id": "x"}},
                {"time": "2026-07-01T12:00:03.512Z", "type": "trunk.attempt", "reason": "timeout",
                 "data": {"trunk": "a", "ms": 3500}},
            ],
            "cdr": {"from": "1001", "to": "9555", "trunk": "a", "start": "2026-07-01T12:00:00.000Z",
                "answer": "2026-07-01T12:00:04.000Z", "duration_s": 12.34, "cause": "normal", "sip_status": 200,
                "ended_by": "caller", "attempts": [{"proxy": "10.0.0.1:5060", "cause": "timeout", "ms": 3500}],
                "legs": [{"codec": "PCMU", "rx": 600, "tx": 601, "lost": 0, "jitter_ms": 0.42, "mos": 4.41}]},
        })
    }

    #[test]
    fn decisions_are_told_in_order_with_times_from_the_start() {
        let shown = why(&answer());
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "call c1: 1001 to 9555, ended by caller: normal (SIP 200), after 12.3 s");
        assert!(
            lines[1].starts_with("began 2026-07-01T") || lines[1].starts_with("began 2026-06-30T"),
            "{shown}"
        );
        assert_eq!(lines[3], "    +0.000  call.started      an INVITE was admitted  from=1001 to=9555");
        assert_eq!(lines[4], "    +3.512  trunk.attempt     timeout  ms=3500 trunk=a");
        assert_eq!(lines[6..8], ["proxies tried on trunk a:", "  10.0.0.1:5060  timeout after 3.5 s"]);
        assert_eq!(lines[9], "LEG  CODEC  RECEIVED  SENT  LOST  JITTER ms  MOS");
        assert_eq!(lines[10], "0    PCMU   600       601   0     0.4        4.4");
    }

    #[test]
    fn the_ladder_says_when_messages_are_gone() {
        let mut answer = answer();
        let traced = |time_ms: u64, direction: &str, message: &str| json!({"time_ms": time_ms, "direction": direction, "peer": "10.0.0.9:5060", "message": message});
        let invite = "INVITE sip:9555@x SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n";
        answer["sip"] = json!({"complete": false, "notes": ["messages up to T are gone"],
            "messages": [traced(1000, "in", invite), traced(1500, "in", invite),
            traced(1501, "out", "SIP/2.0 100 Trying\r\nCSeq: 1 INVITE\r\n\r\n")]});
        let shown = why(&answer);
        assert!(shown.contains("INVITE sip:9555@x"), "{shown}");
        assert!(shown.contains("retransmission 1"), "{shown}");
        assert!(shown.contains("100 Trying (INVITE)"), "{shown}");
        assert!(shown.ends_with("note: messages up to T are gone\n"), "{shown}");
        answer["sip"]["messages"] = json!([]);
        assert!(why(&answer).contains("no SIP messages are left of this call\n"));
    }

    #[test]
    fn a_running_call_is_told_by_its_state() {
        let answer = json!({"call_id": "c1", "cdr": null, "events": [], "notes": ["n"],
            "call": {"from": "1001", "to": "*43", "state": "talking", "start": "2026-07-01T12:00:00.000Z"}});
        let shown = why(&answer);
        assert!(shown.starts_with("call c1: 1001 to *43, now talking\n"), "{shown}");
        assert!(shown.contains("\nnote: n\n"), "{shown}");
    }
}
