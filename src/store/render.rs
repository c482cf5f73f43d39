//! Events and CDRs as lines of JSON, times as RFC 3339 in UTC with milliseconds.

use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use tandem_actors::cdr::{Attempt, Cdr, LegMedia, Replacement};
use tandem_actors::events::{Event, Field};
use tandem_protocol::decimal::Decimal;
use tandem_protocol::time::UnixMillis;

/// The last millisecond of the year 9999, the last that RFC 3339 can write.
const LAST: u64 = 253_402_300_799_999;

/// A point in time that prints as RFC 3339 (`2026-07-01T12:00:00.000Z`).
pub(crate) struct Rfc3339(pub(crate) UnixMillis);

impl std::fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = UNIX_EPOCH + Duration::from_millis(self.0.0.min(LAST));
        humantime::format_rfc3339_millis(at).fmt(f)
    }
}

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// [`Cdr`] with the same fields in the same order; only its times differ.
#[derive(Serialize)]
struct CdrLine<'a> {
    call_id: &'a str,
    segment: u32,
    from: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_trunk: &'a Option<String>,
    to: &'a str,
    trunk: &'a Option<String>,
    proxy: &'a Option<String>,
    start: Rfc3339,
    answer: Option<Rfc3339>,
    end: Rfc3339,
    duration_s: f64,
    cause: &'a str,
    sip_status: u16,
    ended_by: &'a str,
    attempts: &'a [Attempt],
    legs: &'a [LegMedia],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<ReplacementLine<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unprotected: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    emergency: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    recording: &'a Option<String>,
}

/// [`Replacement`] in the same way.
#[derive(Serialize)]
struct ReplacementLine<'a> {
    side: &'a str,
    by: &'a str,
    from: &'a str,
    time: Rfc3339,
}

impl ReplacementLine<'_> {
    fn of(replacement: &Replacement) -> ReplacementLine<'_> {
        let Replacement { side, by, from, time } = replacement;
        ReplacementLine { side, by, from, time: Rfc3339(*time) }
    }
}

/// Appends the record as one line of JSON, without the line's end.
pub(super) fn cdr(out: &mut Vec<u8>, cdr: &Cdr) -> Result<(), serde_json::Error> {
    // Named field by field, so that a new field of the record does not compile until it is rendered.
    let Cdr {
        call_id,
        segment,
        from,
        from_trunk,
        to,
        trunk,
        proxy,
        start,
        answer,
        end,
        duration_s,
        cause,
        sip_status,
        ended_by,
        attempts,
        legs,
        replaced,
        unprotected,
        emergency,
        recording,
    } = cdr;
    let line = CdrLine {
        call_id,
        segment: *segment,
        from,
        from_trunk,
        to,
        trunk,
        proxy,
        start: Rfc3339(*start),
        answer: answer.map(Rfc3339),
        end: Rfc3339(*end),
        duration_s: *duration_s,
        cause,
        sip_status: *sip_status,
        ended_by,
        attempts,
        legs,
        replaced: replaced.iter().map(ReplacementLine::of).collect(),
        unprotected: *unprotected,
        emergency: *emergency,
        recording,
    };
    serde_json::to_writer(out, &line)
}

/// Renders events, remembering the last time it printed: the events of a call often share their millisecond.
#[derive(Default)]
pub(super) struct EventRenderer {
    last: Option<UnixMillis>,
    text: String,
}

impl EventRenderer {
    /// Appends event number `n` as one line of JSON, with the line's end.
    pub(super) fn line(&mut self, out: &mut Vec<u8>, n: u64, event: &Event) -> Result<(), serde_json::Error> {
        if self.last != Some(event.time) {
            self.text = Rfc3339(event.time).to_string();
            self.last = Some(event.time);
        }
        out.extend_from_slice(b"{\"n\":");
        out.extend_from_slice(Decimal::of(n).as_bytes());
        out.extend_from_slice(b",\"time\":\"");
        out.extend_from_slice(self.text.as_bytes());
        out.extend_from_slice(b"\",\"call_id\":");
        match &event.call_id {
            Some(call_id) => text(out, call_id)?,
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"type\":\"");
        out.extend_from_slice(event.kind.as_str().as_bytes());
        out.extend_from_slice(b"\",\"reason\":");
        text(out, &event.reason)?;
        out.extend_from_slice(b",\"data\":{");
        for (i, (name, value)) in event.data.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            text(out, name)?;
            out.push(b':');
            match value {
                Field::Text(value) => text(out, value)?,
                Field::Number(number) => {
                    write!(out, "{number}").map_err(serde_json::Error::io)?;
                }
            }
        }
        out.extend_from_slice(b"}}\n");
        Ok(())
    }
}

/// A string of JSON. Nearly none has a character that must be escaped, and to find that out takes an instruction for many of them.
fn text(out: &mut Vec<u8>, text: &str) -> Result<(), serde_json::Error> {
    let escape =
        text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == b'"') | (byte == b'\\'));
    if escape {
        return serde_json::to_writer(out, text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Ok(())
}

/// A rendering's error as one of the database, which is what its callers have.
pub(super) fn error(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// What stands before the type in each event of the call, from its `"call_id"` on. The text of a line can not hold
/// it elsewhere before that place, because number and time stand there.
pub(super) fn call_id_mark(call_id: &str) -> Result<String, serde_json::Error> {
    Ok(format!(",\"call_id\":{},\"type\":", serde_json::to_string(call_id)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tandem_actors::events::EventKind;

    use super::*;

    #[test]
    fn an_event_is_one_line_with_its_facts_in_order() {
        let id: Arc<str> = "a\"b".into();
        let event = Event::new(UnixMillis(1_767_225_600_123), EventKind::CallEnded, "line\nbreak")
            .of(&id)
            .with("status", 486)
            .with("by", "callee");
        let mut out = Vec::new();
        EventRenderer::default().line(&mut out, 7, &event).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"n\":7,\"time\":\"2026-01-01T00:00:00.123Z\",\"call_id\":\"a\\\"b\",\"type\":\"call.ended\",\
             \"reason\":\"line\\nbreak\",\"data\":{\"status\":486,\"by\":\"callee\"}}\n"
        );
    }

    #[test]
    fn an_event_without_a_call_has_a_null_call_id() {
        let mut out = Vec::new();
        let event = Event::new(UnixMillis(u64::MAX), EventKind::TrunkState, "x");
        EventRenderer::default().line(&mut out, 1, &event).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert!(line["call_id"].is_null());
        assert_eq!(line["time"], "9999-12-31T23:59:59.999Z");
        assert_eq!(line["data"], serde_json::json!({}));
    }

    #[test]
    fn a_cdr_differs_from_its_own_json_only_in_its_times() {
        let record = Cdr {
            call_id: "c1".into(),
            segment: 1,
            from: "1001".into(),
            from_trunk: Some("b".into()),
            to: "9555".into(),
            trunk: Some("a".into()),
            proxy: None,
            start: UnixMillis(1_767_225_600_000),
            answer: Some(UnixMillis(1_767_225_601_001)),
            end: UnixMillis(1_767_225_602_500),
            duration_s: 1.499,
            cause: "normal".into(),
            sip_status: 200,
            ended_by: "caller".into(),
            attempts: vec![Attempt {
                trunk: "a".into(),
                proxy: "127.0.0.1:5070".into(),
                cause: "answered".into(),
                ms: 12,
            }],
            legs: vec![LegMedia { codec: "PCMU".into(), tx: 1, rx: 2, lost: -1, jitter_ms: 0.5, mos: 4.5 }],
            replaced: vec![Replacement {
                side: "caller".into(),
                by: "trunk:pbx".into(),
                from: "7777".into(),
                time: UnixMillis(1_767_225_602_000),
            }],
            unprotected: true,
            emergency: true,
            recording: Some("r.wav".into()),
        };
        let mut out = Vec::new();
        cdr(&mut out, &record).unwrap();
        let got: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let mut want = serde_json::to_value(&record).unwrap();
        want["start"] = "2026-01-01T00:00:00.000Z".into();
        want["answer"] = "2026-01-01T00:00:01.001Z".into();
        want["replaced"][0]["time"] = "2026-01-01T00:00:02.000Z".into();
        want["end"] = "2026-01-01T00:00:02.500Z".into();
        assert_eq!(got, want);
    }
}
