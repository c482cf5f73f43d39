//! What is told after the call.
// The demonstration is a program beside the engine, with a clock of its own.
#![allow(clippy::disallowed_methods)]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tandem_phone::media::Heard;
use tokio::time::{Instant, interval};

use super::DemoError;
use super::cast::{ALICE, BOB};
use crate::settings::token;

/// The most packets that may be lost, of a hundred.
const MOST_LOST: f64 = 2.0;
/// The least part of the sound in which the other's voice must be recognised.
const LEAST_RECOGNISED: f32 = 0.5;

/// What the two have heard of each other.
pub(super) struct Verdict {
    pub(super) alice: Heard,
    pub(super) bob: Heard,
}

impl Verdict {
    /// Whether both heard each other.
    pub(super) fn judge(&self) -> Result<(), DemoError> {
        let faults = [(ALICE.name, BOB.name, &self.alice), (BOB.name, ALICE.name, &self.bob)]
            .into_iter()
            .filter_map(|(who, whom, heard)| fault(who, whom, heard));
        let faults: Vec<String> = faults.collect();
        if faults.is_empty() { Ok(()) } else { Err(DemoError::NotHeard(faults.join("; "))) }
    }
}

fn fault(who: &str, whom: &str, heard: &Heard) -> Option<String> {
    let (recognised, lost) = (heard.recognised.unwrap_or_default(), lost_percent(heard));
    if heard.packets == 0 {
        Some(format!("{who} heard nothing of {whom}"))
    } else if recognised < LEAST_RECOGNISED {
        let percent = recognised * 100.0;
        Some(format!("{who} recognised the voice of {whom} in {percent:.0} % of the sound only"))
    } else if lost >= MOST_LOST {
        Some(format!("{who} lost {lost:.1} % of what {whom} said"))
    } else {
        None
    }
}

fn lost_percent(heard: &Heard) -> f64 {
    let sent = heard.packets + heard.lost;
    if sent == 0 { 100.0 } else { heard.lost as f64 * 100.0 / sent as f64 }
}

/// What each heard.
pub(super) fn heard(out: &mut dyn Write, verdict: &Verdict) -> io::Result<()> {
    writeln!(out, "\nWhat they heard:")?;
    for (who, whom, heard) in [(ALICE.name, BOB.name, &verdict.alice), (BOB.name, ALICE.name, &verdict.bob)] {
        writeln!(
            out,
            "  {who:<6} the voice of {whom:<6} recognised in {:.0} %, level {:.1} dBm0, {} packets, lost {} ({:.1} %), \
             jitter {:.1} ms",
            heard.recognised.unwrap_or_default() * 100.0,
            heard.level_dbm0,
            heard.packets,
            heard.lost,
            lost_percent(heard),
            heard.jitter_ms,
        )?;
    }
    Ok(())
}

/// The first CDR in `dir`, which is committed a moment after the call.
pub(super) async fn cdr(dir: &Path, patience: Duration) -> Option<String> {
    let file = dir.join("cdr.jsonl");
    let deadline = Instant::now() + patience;
    let mut looks = interval(Duration::from_millis(20));
    while Instant::now() < deadline {
        looks.tick().await;
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if let Some((line, _)) = text.split_once('\n') {
            return Some(line.to_owned());
        }
    }
    None
}

/// Where everything is.
pub(super) fn places(out: &mut dyn Write, dir: &Path, cdr: Option<&str>, http: SocketAddr) -> io::Result<()> {
    let record: Option<Value> = cdr.and_then(|line| serde_json::from_str(line).ok());
    let recording = record.as_ref().and_then(|record| record["recording"].as_str());
    writeln!(out, "\nWhere it is:")?;
    writeln!(out, "  recording  {}", recording.unwrap_or("none was made"))?;
    writeln!(out, "  CDR        {}", dir.join("cdr.jsonl").display())?;
    writeln!(out, "  metrics    http://{http}/metrics")?;
    writeln!(
        out,
        "  API        http://{http}/api/v1/calls  (token in {})",
        dir.join(token::FILE_NAME).display()
    )?;
    writeln!(out, "\nThe CDR:")?;
    match record {
        Some(record) => writeln!(out, "{record:#}"),
        None => writeln!(out, "  none was written"),
    }
}

/// How a visitor calls in.
pub(super) fn invitation(out: &mut dyn Write, server: SocketAddr) -> io::Result<()> {
    writeln!(
        out,
        "\nCall in with a softphone on this machine: server {server} over UDP, user 1003, password demo-guest.\n  \
         1001  alice answers and speaks\n  1002  bob does\n  *43   you hear yourself\n  *44   a tone\n\
         The ladder goes on while they talk. Ctrl-C ends.\n"
    )?;
    out.flush()
}
