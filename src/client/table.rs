//! Tables, times and durations for people.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// Rows under their titles, each column as wide as its widest cell.
pub(super) fn table<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([titles[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(titles);
    for row in rows {
        text.push_str(&line(std::array::from_fn(|column| row[column].as_str())));
    }
    text
}

/// A value as a cell: text as it is, nothing as `-`.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Without anything that would steer a terminal: much of it comes from strangers.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// When a time of the API was, in milliseconds since 1970.
pub(super) fn unix_ms(value: &Value) -> Option<i64> {
    Some(value.as_str()?.parse::<Timestamp>().ok()?.as_millisecond())
}

/// A time of the API as the clock on the wall shows it: RFC 3339 with its offset.
pub(super) fn local(value: &Value) -> String {
    in_zone(value, TimeZone::system())
}

fn in_zone(value: &Value, zone: TimeZone) -> String {
    match value.as_str().map(str::parse::<Timestamp>) {
        Some(Ok(at)) => at.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
        Some(Err(_)) | None => cell(value),
    }
}

/// Now, in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A duration: `4.2 s`, `3 min 05 s`, `2 h 03 min`.
pub(super) fn duration(ms: i64) -> String {
    let (seconds, tenths) = (ms.max(0) / 1000, ms.max(0) % 1000 / 100);
    match seconds {
        0..60 => format!("{seconds}.{tenths} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_stand_under_their_titles() {
        let rows = [["a".to_owned(), "long cell".to_owned()], ["longer".to_owned(), "é".to_owned()]];
        assert_eq!(table(["N", "WHAT"], &rows), "N       WHAT\na       long cell\nlonger  é\n");
    }

    #[test]
    fn times_carry_their_offset() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(
            in_zone(&json!("2026-07-01T12:00:00.123Z"), zone.clone()),
            "2026-07-01T14:00:00.123+02:00"
        );
        assert_eq!(in_zone(&json!(null), zone.clone()), "-");
        assert_eq!(in_zone(&json!("soon"), zone), "soon");
    }

    #[test]
    fn durations_are_as_precise_as_they_are_short() {
        let told = [0, 4_249, 59_999, 185_000, 7_380_000, -5].map(duration);
        assert_eq!(told, ["0.0 s", "4.2 s", "59.9 s", "3 min 05 s", "2 h 03 min", "0.0 s"]);
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[2J")), "a\u{fffd}[2J");
    }
}
