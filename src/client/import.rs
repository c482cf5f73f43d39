//! `tandem import`: the lines of a file, a piece at a time. All are checked before the first is stored.

use std::fs;

use serde_json::{Value, json};

use super::{Api, ClientError};
use crate::cli;

/// What one request carries, in bytes: less than the daemon takes.
const PIECE: usize = 48 * 1024;

pub(super) fn import(api: &Api, asked: &cli::Import) -> Result<Value, ClientError> {
    let text = fs::read_to_string(&asked.file)
        .map_err(|why| ClientError::Unreadable { file: asked.file.display().to_string(), why })?;
    let pieces = pieces(&text);
    send(api, &pieces, asked.remove, true)?;
    let stations = send(api, &pieces, asked.remove, false)?;
    Ok(json!({"stations": stations, "removed": asked.remove}))
}

/// Sends every piece; how many stations the daemon has counted.
fn send(api: &Api, pieces: &[&str], remove: bool, check: bool) -> Result<u64, ClientError> {
    let (mut lines_before, mut stations) = (0, 0);
    for piece in pieces {
        let path = format!("/api/v1/stations?check={check}&remove={remove}&lines_before={lines_before}");
        stations += api.post_text(&path, piece)?["stations"].as_u64().unwrap_or_default();
        lines_before += piece.lines().count();
    }
    Ok(stations)
}

/// Whole lines, as many together as fit; a longer line is a piece of its own, for the daemon to refuse.
fn pieces(text: &str) -> Vec<&str> {
    let (mut pieces, mut begin, mut end) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        if end > begin && end + line.len() - begin > PIECE {
            pieces.push(&text[begin..end]);
            begin = end;
        }
        end += line.len();
    }
    if end > begin {
        pieces.push(&text[begin..end]);
    }
    pieces
}

/// What was done, for people.
pub(super) fn done(answer: &Value) -> String {
    let what = if answer["removed"] == true { "removed from" } else { "put into" };
    let stations = answer["stations"].as_u64().unwrap_or_default();
    let plural = if stations == 1 { "station was" } else { "stations were" };
    format!("{stations} {plural} {what} the store; this takes effect with `tandem reload`\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_between_lines_and_nothing_is_lost() {
        let line = format!("{}\n", "x".repeat(20_000));
        let text = format!("{}{}last", line.repeat(5), "y".repeat(100_000) + "\n");
        let pieces = pieces(&text);
        assert_eq!(pieces.concat(), text);
        let lines: Vec<usize> = pieces.iter().map(|piece| piece.lines().count()).collect();
        assert_eq!(lines, [2, 2, 1, 1, 1]);
        assert!(pieces[..4].iter().all(|piece| piece.ends_with('\n')));
    }

    #[test]
    fn one_station_is_not_stations() {
        let told = done(&json!({"stations": 1, "removed": false}));
        assert_eq!(told, "1 station was put into the store; this takes effect with `tandem reload`\n");
    }
}
