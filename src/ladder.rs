//! SIP messages as a ladder: one column a party, one arrow a message, time downwards.
//!
//! ```text
//!              10.0.0.1:5060                         tandem
//!     0.000          │─ INVITE sip:2002@127.0.0.1 SDP ─▶│
//!     0.001          │◀────── 100 Trying (INVITE) ──────│
//! ```
//!
//! [`draw`] draws what is known as a whole; [`Ladder`] draws line by line while messages come.

use std::collections::VecDeque;

/// The columns between two lifelines where nobody says otherwise.
const GAP: usize = 36;
/// The narrowest and the widest that [`draw`] makes the gap between two lifelines.
const GAPS: std::ops::RangeInclusive<usize> = 18..=48;
/// The columns of the time, and of what stands between it and the first lifeline.
const MARGIN: usize = 20;
/// The columns of the time alone.
const TIME: usize = 10;
/// The messages that a retransmission is looked for among.
const REMEMBERED: usize = 256;

/// One message between two parties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LadderMessage {
    /// When it was sent or received, in milliseconds since any fixed moment.
    pub at_ms: u64,
    /// Who sent it; the title of a column.
    pub from: String,
    /// Who it was for; the title of a column.
    pub to: String,
    /// The whole message, or only what shall stand on its arrow. A message that comes again whole is
    /// marked as a retransmission; a mere label never is, since new requests look alike.
    pub text: String,
}

/// A ladder that is drawn line by line.
#[derive(Clone, Debug)]
pub struct Ladder {
    columns: Vec<String>,
    gap: usize,
    start_ms: Option<u64>,
    seen: VecDeque<(LadderMessage, u32)>,
}

impl Ladder {
    /// A ladder with these parties, from left to right.
    pub fn new(columns: Vec<String>) -> Ladder {
        Ladder { columns, gap: GAP, start_ms: None, seen: VecDeque::new() }
    }

    /// The titles of the columns, without a line end.
    pub fn header(&self) -> String {
        let mut line = Canvas::default();
        for (place, title) in self.columns.iter().enumerate() {
            let title = shortened(title, self.gap - 2);
            let half = title.chars().count() / 2;
            line.put(self.lifeline(place).saturating_sub(half), &title);
        }
        line.finish()
    }

    /// One message as an arrow, without a line end. Times count from the first message that was drawn. A message
    /// whose party has no column, or that goes from a party to itself, is told in words.
    pub fn line(&mut self, message: &LadderMessage) -> String {
        let start = *self.start_ms.get_or_insert(message.at_ms);
        let again = self.again(message);
        let mut line = Canvas::default();
        line.put(0, &format!("{:>TIME$}", seconds(message.at_ms.saturating_sub(start))));
        for place in 0..self.columns.len() {
            line.put(self.lifeline(place), "│");
        }
        let place = |party: &str| self.columns.iter().position(|column| column == party);
        let label = label(&message.text);
        match place(&message.from).zip(place(&message.to)).filter(|(from, to)| from != to) {
            Some((from, to)) => self.arrow(&mut line, from, to, &label),
            None => line.append(&format!("  {} to {}: {label}", message.from, message.to)),
        }
        if again > 0 {
            line.append(&format!("  retransmission {again}"));
        }
        line.finish()
    }

    fn arrow(&self, line: &mut Canvas, from: usize, to: usize, label: &str) {
        let (left, right) = (self.lifeline(from.min(to)), self.lifeline(from.max(to)));
        let inside = right - left - 1;
        // A dash and a blank on either side, and the head.
        let label = shortened(label, inside.saturating_sub(5));
        let text = format!(" {label} ");
        let shaft = inside - 1 - text.chars().count();
        let (before, after) = (shaft / 2, shaft - shaft / 2);
        let (before, after) = ("─".repeat(before), "─".repeat(after));
        if from < to {
            line.put(left + 1, &format!("{before}{text}{after}▶"));
        } else {
            line.put(left + 1, &format!("◀{before}{text}{after}"));
        }
    }

    fn lifeline(&self, place: usize) -> usize {
        MARGIN + place * (self.gap + 1)
    }

    /// How often this whole message was drawn before.
    fn again(&mut self, message: &LadderMessage) -> u32 {
        if !message.text.contains('\n') {
            return 0;
        }
        let same = |known: &LadderMessage| {
            known.from == message.from && known.to == message.to && known.text == message.text
        };
        if let Some((_, times)) = self.seen.iter_mut().find(|(known, _)| same(known)) {
            *times += 1;
            return *times;
        }
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back((message.clone(), 0));
        0
    }
}

/// Draws messages that are known as a whole, each line with its line end; empty for no message. Columns stand in the
/// order in which the parties first appear, and are as wide as the arrows need, within reason.
pub fn draw(messages: &[LadderMessage]) -> String {
    let mut columns: Vec<String> = Vec::new();
    for party in messages.iter().flat_map(|message| [&message.from, &message.to]) {
        if !columns.contains(party) {
            columns.push(party.clone());
        }
    }
    let widest = messages.iter().map(|message| label(&message.text).chars().count() + 5);
    let titles = columns.iter().map(|title| title.chars().count() + 2);
    let gap = widest.chain(titles).max().unwrap_or(0).clamp(*GAPS.start(), *GAPS.end());
    let mut ladder = Ladder { gap, ..Ladder::new(columns) };
    let mut drawn = String::new();
    if !messages.is_empty() {
        drawn = ladder.header() + "\n";
    }
    for message in messages {
        drawn.push_str(&ladder.line(message));
        drawn.push('\n');
    }
    drawn
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// What stands on the arrow: the start line without the version; for a whole message also which method a response
/// answers, and whether SDP comes with it.
fn label(text: &str) -> String {
    let (head, body) = text.split_once("\r\n\r\n").or_else(|| text.split_once("\n\n")).unwrap_or((text, ""));
    let mut lines = head.lines();
    let first = printable(lines.next().unwrap_or("").trim());
    let method = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("cseq"))
        .and_then(|(_, value)| value.split_whitespace().nth(1));
    let sdp = if body.trim_start().starts_with("v=") { " SDP" } else { "" };
    match (first.strip_prefix("SIP/2.0 "), method) {
        (Some(status), Some(method)) => format!("{status} ({}){sdp}", printable(method)),
        (Some(status), None) => format!("{status}{sdp}"),
        (None, _) => format!("{}{sdp}", first.strip_suffix(" SIP/2.0").unwrap_or(&first)),
    }
}

/// Without anything that would steer a terminal: the text comes from strangers.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn shortened(text: &str, width: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= width {
        return text;
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// One line, written at any column.
#[derive(Default)]
struct Canvas(Vec<char>);

impl Canvas {
    fn put(&mut self, column: usize, text: &str) {
        let end = column + text.chars().count();
        if self.0.len() < end {
            self.0.resize(end, ' ');
        }
        for (cell, c) in self.0[column..].iter_mut().zip(text.chars()) {
            *cell = c;
        }
    }

    fn append(&mut self, text: &str) {
        self.0.extend(printable(text).chars());
    }

    fn finish(self) -> String {
        let line: String = self.0.into_iter().collect();
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:2002@127.0.0.1 SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\nv=0\r\n";

    fn message(at_ms: u64, from: &str, to: &str, text: &str) -> LadderMessage {
        LadderMessage { at_ms, from: from.into(), to: to.into(), text: text.into() }
    }

    #[test]
    fn a_call_is_drawn_from_the_caller_on_the_left() {
        let trying = "SIP/2.0 100 Trying\r\nCSeq: 1 INVITE\r\n\r\n";
        let messages = [
            message(1_000, "10.0.0.1:5060", "tandem", INVITE),
            message(1_001, "tandem", "10.0.0.1:5060", trying),
            message(1_012, "tandem", "10.0.0.2:5060", "INVITE"),
            message(2_500, "10.0.0.2:5060", "tandem", "SIP/2.0 180 Ringing"),
        ];
        let expected = [
            "              10.0.0.1:5060                         tandem                          10.0.0.2:5060",
            "     0.000          │─ INVITE sip:2002@127.0.0.1 SDP ─▶│                                  │",
            "     0.001          │◀────── 100 Trying (INVITE) ──────│                                  │",
            "     0.012          │                                  │──────────── INVITE ─────────────▶│",
            "     1.500          │                                  │◀────────── 180 Ringing ──────────│",
        ];
        assert_eq!(draw(&messages).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_whole_message_that_comes_again_is_marked() {
        let mut ladder = Ladder::new(vec!["a".into(), "tandem".into()]);
        let first = ladder.line(&message(0, "a", "tandem", INVITE));
        let second = ladder.line(&message(500, "a", "tandem", INVITE));
        let third = ladder.line(&message(1_500, "a", "tandem", INVITE));
        assert!(!first.contains("retransmission"), "{first}");
        assert!(second.ends_with("│  retransmission 1"), "{second}");
        assert!(third.ends_with("│  retransmission 2"), "{third}");
    }

    #[test]
    fn labels_alike_are_not_taken_for_retransmissions() {
        let mut ladder = Ladder::new(vec!["a".into(), "b".into()]);
        for at in 0..2 {
            assert!(!ladder.line(&message(at, "a", "b", "OPTIONS")).contains("retransmission"));
        }
    }

    #[test]
    fn every_line_has_its_lifelines_in_the_same_columns() {
        let messages = [
            message(0, "a", "tandem", "INVITE sip:a-very-long-user-name-that-fits-no-arrow@example.com"),
            message(1, "tandem", "b", "INVITE"),
            message(2, "a", "b", "crosses tandem's lifeline"),
            message(3, "b", "a", "and back"),
        ];
        let drawn = draw(&messages);
        let ends: Vec<(Option<usize>, Option<usize>)> = drawn
            .lines()
            .skip(1)
            .map(|line| {
                let chars: Vec<char> = line.chars().collect();
                let first = chars.iter().position(|c| *c == '│');
                (first, chars.iter().rposition(|c| *c == '│'))
            })
            .collect();
        assert_eq!(ends[0].0, Some(MARGIN));
        assert!(ends.iter().all(|end| *end == ends[0]), "{drawn}");
    }

    #[test]
    fn a_party_without_a_column_is_told_in_words() {
        let mut ladder = Ladder::new(vec!["a".into()]);
        let line = ladder.line(&message(0, "a", "stranger", "OPTIONS sip:a SIP/2.0"));
        assert!(line.ends_with("│  a to stranger: OPTIONS sip:a"), "{line}");
    }

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        let drawn = draw(&[message(0, "a", "b", "INVITE sip:\x1b[2J SIP/2.0")]);
        assert!(!drawn.contains('\x1b'));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(draw(&[]), "");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut ladder = Ladder::new(vec!["a".into(), "b".into()]);
        for n in 0..2 * REMEMBERED {
            ladder.line(&message(0, "a", "b", &format!("OPTIONS sip:{n} SIP/2.0\r\n\r\n")));
        }
        assert_eq!(ladder.seen.len(), REMEMBERED);
    }
}
