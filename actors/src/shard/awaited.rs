//! Requests in dialogs that are about to come back: their shard was fenced, and they have come to the next one before the store has told of them.

use tandem_protocol::flow::Flow;
use tandem_protocol::message::Message;
use tandem_protocol::time::Instant;

use super::Shard;
use crate::calls::Refused;
use crate::metrics::Refusal;

/// More are not kept; what has come by UDP comes again.
const MOST: usize = 1024;

/// The requests, in the order they came.
#[derive(Default)]
pub(super) struct Awaited {
    requests: Vec<(Message, Flow)>,
    /// Until when.
    pub(super) until: Option<Instant>,
}

impl Shard {
    /// Keeps a request until its dialog is there.
    pub(super) fn await_dialog(&mut self, request: Message, flow: Flow) {
        let again = |(known, _): &(Message, Flow)| known.raw() == request.raw();
        if self.awaited.requests.len() < MOST && !self.awaited.requests.iter().any(again) {
            self.awaited.requests.push((request, flow));
            self.awaited.until = self.restoring_until;
            self.rearm();
        }
    }

    /// A dialog has come back.
    pub(super) fn dialog_is_back(&mut self, tag: &str) {
        let its = |(request, _): &mut (Message, Flow)| request.to_tag() == Some(tag);
        let requests: Vec<_> = self.awaited.requests.extract_if(.., its).collect();
        for (request, flow) in requests {
            self.in_dialog(request, flow);
        }
    }

    /// Answers those whose dialogs have not come back in time.
    pub(super) fn give_up_awaited(&mut self) {
        let now = self.env.now().mono;
        if self.awaited.until.is_none_or(|until| now < until) {
            return;
        }
        self.awaited.until =
            self.restoring_until.filter(|until| now < *until && !self.awaited.requests.is_empty());
        if self.awaited.until.is_none() {
            for (request, flow) in std::mem::take(&mut self.awaited.requests) {
                self.refuse(&request, flow, &Refused::new(481, Refusal::NoDialog));
            }
        }
    }
}
