//! What a person needs to see of a call that went wrong.

use std::fmt::Write as _;

use tandem_protocol::message::framing::peek_call_id;

use crate::world::{Fate, Line, World};

/// A time, in seconds.
pub(crate) fn time(us: u64) -> String {
    format!("{:>4}.{:06}", us / 1_000_000, us % 1_000_000)
}

pub(crate) fn header<'a>(text: &'a str, names: [&str; 2]) -> &'a str {
    text.lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            names.iter().any(|n| n.eq_ignore_ascii_case(name.trim())).then(|| value.trim())
        })
        .unwrap_or("")
}

/// One line of a ladder.
pub(crate) fn render(line: &Line) -> String {
    let text = String::from_utf8_lossy(&line.bytes);
    let fate = match line.fate {
        Fate::Sent => "",
        Fate::Lost => "  (lost)",
        Fate::Doubled => "  (doubled)",
    };
    // Where its session description wants media.
    let media: String = text
        .lines()
        .filter(|l| l.starts_with("o=") || l.starts_with("c=") || l.starts_with("m="))
        .map(|l| match l.split(' ').nth(2).filter(|_| l.starts_with("o=")) {
            Some(version) => format!(" o= {version}"),
            None => format!(" {l}"),
        })
        .collect();
    // What is not the same in every message of its kind.
    let extras = ["RSeq", "RAck", "Session-Expires", "Min-SE", "Reason", "Require"];
    let extras: String = extras
        .iter()
        .map(|name| (name, header(&text, [name, name])))
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!(" {name}: {value}"))
        .collect();
    format!(
        "{} {:>14} -> {:<14} {:<44} {:<12} {}{fate}{extras}{media}",
        time(line.at),
        line.from.to_string(),
        line.to.to_string(),
        text.lines().next().unwrap_or_default(),
        header(&text, ["CSeq", "CSeq"]),
        header(&text, ["Call-ID", "i"]),
    )
}

/// The last `count` messages of a call.
pub(crate) fn of_call(world: &World, call_ids: &[String], count: usize) -> String {
    let ours = |line: &&Line| {
        peek_call_id(&line.bytes).is_some_and(|id| call_ids.iter().any(|wanted| wanted.as_bytes() == id))
    };
    world.with_lines(|lines| {
        let found: Vec<&Line> = lines.iter().filter(ours).collect();
        let skip = found.len().saturating_sub(count);
        let mut out = String::new();
        for line in &found[skip..] {
            let _ = writeln!(out, "    {}", render(line));
        }
        out
    })
}
