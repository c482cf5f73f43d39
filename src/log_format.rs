//! A line of the log as text, as `tracing-subscriber` writes it without colours, at a quarter of the cost: each call has one.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::fmt::{self, Debug, Write as _};
use std::time::SystemTime;

use tandem_protocol::decimal::Decimal;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Time, level, where it was logged, the message, the fields. Spans are not written: there are none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let about = event.metadata();
        write!(line, "{}", humantime::format_rfc3339_micros(SystemTime::now()))?;
        line.write_str(level(*about.level()))?;
        line.write_str(about.target())?;
        line.write_str(":")?;
        self.format_fields(line.by_ref(), event)?;
        line.write_str("\n")
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => " ERROR ",
        Level::WARN => "  WARN ",
        Level::INFO => "  INFO ",
        Level::DEBUG => " DEBUG ",
        Level::TRACE => " TRACE ",
    }
}

impl<'w> FormatFields<'w> for Plain {
    fn format_fields<R: RecordFields>(&self, line: Writer<'w>, fields: R) -> fmt::Result {
        let mut written = Fields { line, result: Ok(()) };
        fields.record(&mut written);
        written.result
    }
}

/// The message, which comes first, and the fields after it.
struct Fields<'w> {
    line: Writer<'w>,
    result: fmt::Result,
}

impl Fields<'_> {
    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.result.is_ok() {
            self.result = self.write(field.name(), value);
        }
    }

    fn write(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        self.begin(name)?;
        OneLine(&mut self.line).write_fmt(value)
    }

    /// The message has no name.
    fn begin(&mut self, name: &str) -> fmt::Result {
        self.line.write_str(" ")?;
        if name != "message" {
            self.line.write_str(name.strip_prefix("r#").unwrap_or(name))?;
            self.line.write_str("=")?;
        }
        Ok(())
    }

    /// Text that is written as it is.
    fn plain(&mut self, field: &Field, parts: &[&str]) {
        if self.result.is_ok() {
            self.result = self
                .begin(field.name())
                .and_then(|()| parts.iter().try_for_each(|part| self.line.write_str(part)));
        }
    }
}

/// True for text that stands in quotes as it is.
fn needs_no_escape(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'))
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.field(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.field(field, format_args!("{value}")),
            _ if needs_no_escape(value) => self.plain(field, &["\"", value, "\""]),
            _ => self.field(field, format_args!("{value:?}")),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, &[Decimal::of(value).as_str()]);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.field(field, format_args!("{value}"));
    }
}

/// Writes text with its control characters escaped: whatever somebody has sent neither ends the line nor commands a terminal.
struct OneLine<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // In UTF-8 the control characters beyond ASCII begin with 0xC2.
        if !text.bytes().any(|b| b.is_ascii_control() || b == 0xc2) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|c| match c {
            c if c.is_control() => write!(self.0, "{}", c.escape_default()),
            c => self.0.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Kept;
        fn make_writer(&self) -> Kept {
            self.clone()
        }
    }

    fn log_something() {
        let (name, r#type) = ("a \"b\"", 7);
        tracing::info!(call = %"c00", cause = name, status = 200, duration_s = 1.25, r#type, "call ended");
        tracing::warn!(target: "tandem::security", peer = %"192.0.2.1:5060", user = "x\ny", none = ?None::<u8>, "failed {}", 1);
        tracing::error!(error = &std::fmt::Error as &dyn Error, "what");
        tracing::debug!("é");
    }

    /// Each line from behind its time on, and how long the times are.
    fn lines(kept: &Kept) -> Vec<(usize, String)> {
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| line.split_once(' ').map(|(time, rest)| (time.len(), rest.to_owned())).unwrap())
            .collect()
    }

    #[test]
    fn a_line_is_the_one_that_the_library_writes() {
        let (theirs, ours) = (Kept::default(), Kept::default());
        let all = || tracing_subscriber::fmt().with_ansi(false).with_max_level(Level::TRACE);
        tracing::subscriber::with_default(all().with_writer(theirs.clone()).finish(), log_something);
        let plain = all().event_format(Plain).fmt_fields(Plain).with_writer(ours.clone()).finish();
        tracing::subscriber::with_default(plain, log_something);
        assert_eq!(lines(&ours), lines(&theirs));
        assert_eq!(lines(&ours).len(), 4);
    }

    #[test]
    fn what_somebody_has_sent_stays_within_its_line() {
        let kept = Kept::default();
        let log = tracing_subscriber::fmt()
            .event_format(Plain)
            .fmt_fields(Plain)
            .with_writer(kept.clone())
            .finish();
        tracing::subscriber::with_default(
            log,
            || tracing::info!(why = %"a\n\u{1b}[2J\u{9b}é", "got {}", "b\r\nc"),
        );
        let (_, line) = lines(&kept).pop().unwrap();
        assert!(line.ends_with(r"got b\r\nc why=a\n\u{1b}[2J\u{9b}é"), "{line}");
    }
}
