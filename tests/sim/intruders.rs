//! Strangers who connect: what makes a stream unreadable, what never becomes whole, and what is asked properly by the wrong one.

use crate::nonsense::{Draft, Work, nothing, refusal};
use crate::verbs::Weighed;

/// More than a message by a stream may have.
const TOO_MUCH: usize = 70_000;

impl Draft {
    /// Says how long its body is; in the place of what it has said before.
    fn content_length(&mut self, value: Option<&str>) {
        self.lines.retain(|line| !line.starts_with("Content-Length"));
        self.lines.extend(value.map(|value| format!("Content-Length: {value}")));
    }

    /// As a stream wants it.
    fn framed(mut self) -> Vec<u8> {
        let length = self.body.len().to_string();
        self.content_length(Some(&length));
        self.print()
    }
}

impl Work<'_> {
    /// A request of a phone's to the engine, but of no call.
    fn request_of_no_call(&mut self) -> Option<Draft> {
        let wanted = |draft: &Draft, ours: bool| ours && draft.is_request() && draft.method() != "ACK";
        let mut draft = self.overheard(wanted)?;
        draft.rebranch(self.rng);
        draft.stray(self.rng);
        Some(draft)
    }

    /// The beginning of a message.
    fn fragment(&mut self) -> Option<Vec<u8>> {
        let mut bytes = self.request_of_no_call()?.framed();
        bytes.truncate(1 + self.rng.below(bytes.len() as u64 - 1) as usize);
        Some(bytes)
    }

    /// Methods that anybody may ask with, one after the other by one connection, with keep-alives between.
    fn ask_in_a_row(&mut self, methods: &[&str]) -> Option<Vec<Vec<u8>>> {
        let mut messages = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            let mut draft = self.request_of_no_call()?;
            draft.ask(self.rng.pick(methods), self.rng);
            let pings = "\r\n\r\n".repeat(self.rng.below(3) as usize);
            messages.push([pings.into_bytes(), draft.framed()].concat());
        }
        Some(messages)
    }
}

/// What strangers do by a connection of their own.
pub(crate) const INTRUSIONS: &[Weighed<fn(&mut Work<'_>)>] = &[
    (2, |work| {
        let bytes = (0..1 + work.rng.below(6_000)).map(|_| work.rng.next() as u8).collect();
        work.by_stream("garbage by a stream", vec![bytes], refusal);
    }),
    (1, |work| {
        let Some(mut draft) = work.request_of_no_call() else { return };
        let place = work.rng.pick(&[0, draft.lines.len()]);
        draft.lines.insert(place, format!("X-Filler: {}", "a".repeat(TOO_MUCH)));
        work.by_stream("a head of 70,000 bytes", vec![draft.framed()], |status| status == 513);
    }),
    (1, |work| {
        let Some(mut draft) = work.request_of_no_call() else { return };
        draft.body = "a".repeat(TOO_MUCH);
        work.by_stream("a body of 70,000 bytes", vec![draft.framed()], |status| status == 513);
    }),
    (2, |work| {
        let Some(mut draft) = work.request_of_no_call() else { return };
        let lengths = ["-1", "0x10", "five", "99999999999999999999", "1 2", ""];
        let length = work.rng.pick(&lengths);
        draft.content_length(Some(length));
        work.by_stream("a Content-Length that is no number", vec![draft.print()], refusal);
    }),
    (1, |work| {
        let Some(mut draft) = work.request_of_no_call() else { return };
        draft.content_length(None);
        work.by_stream("a message without Content-Length", vec![draft.print()], |status| status == 400);
    }),
    (1, |work| {
        let Some(mut draft) = work.request_of_no_call() else { return };
        draft.content_length(Some("7"));
        draft.lines.push("Content-Length: 8".to_owned());
        work.by_stream("two Content-Lengths", vec![draft.print()], |status| status == 400);
    }),
    // What is left over is taken for the beginning of the next message.
    (2, |work| {
        let Some(mut draft) = work.request_of_no_call() else { return };
        draft.ask("OPTIONS", work.rng);
        draft.body = "v=0 and so on".to_owned();
        let length = work.rng.below(draft.body.len() as u64).to_string();
        draft.content_length(Some(&length));
        let due = |status| refusal(status) || status == 200;
        work.by_stream("a body longer than its Content-Length", vec![draft.print()], due);
    }),
    (2, |work| {
        let Some(bytes) = work.fragment() else { return };
        work.by_stream("the beginning of a message, and then a reset", vec![bytes], nothing);
        work.leaves = Some(work.rng.below(4_000_000));
    }),
    (2, |work| {
        let Some(bytes) = work.fragment() else { return };
        work.by_stream("the beginning of a message, and nothing more", vec![bytes], nothing);
    }),
    (2, |work| {
        let Some(messages) = work.ask_in_a_row(&["OPTIONS"]) else { return };
        work.by_stream("OPTIONS by a stream", messages, |status| status == 200);
    }),
    (2, |work| {
        let methods = ["INVITE", "BYE", "MESSAGE", "SUBSCRIBE", "REGISTER", "INFO", "CANCEL"];
        let Some(messages) = work.ask_in_a_row(&methods) else { return };
        work.by_stream("requests without credentials by a stream", messages, refusal);
    }),
    // It asks, and does not wait for the answer.
    (1, |work| {
        let Some(messages) = work.ask_in_a_row(&["INVITE", "OPTIONS"]) else { return };
        work.by_stream("requests, and then a reset", messages, |status| refusal(status) || status == 200);
        work.leaves = Some(work.rng.below(4_000));
    }),
];
