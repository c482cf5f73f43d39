//! A response to an INVITE of ours that no transaction waits for: a 2xx repeated because its ACK was lost, from a second branch, after
//! the call is over, or for an INVITE of the process before this one (RFC 3261 §13.2.2.4); or of a phone that rings on, though its
//! connection has ended and the call with it.

use std::time::Duration;

use tandem_protocol::dialog::{Input, Output, end_stray_response};
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Message, Method};
use tandem_protocol::time::Instant;

use super::Shard;
use crate::env::Tell;
use crate::sip::endpoint::Outgoing;

/// So many answers are ended at once, and one more for each [`STRAY_INTERVAL`]: a forged one must not make us a source of floods.
const STRAY_BURST: u32 = 50;
const STRAY_INTERVAL: Duration = Duration::from_millis(20);
/// A BYE that ends such an answer is repeated no longer than this.
const STRAY_PATIENCE: Duration = Duration::from_secs(4);

/// How many answers may still be ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StrayLimit {
    /// When every ended one will be forgotten.
    forgotten_at: Instant,
}

impl StrayLimit {
    fn allow(&mut self, now: Instant) -> bool {
        let at = self.forgotten_at.max(now) + STRAY_INTERVAL;
        let allowed = at.since(now) <= STRAY_INTERVAL * STRAY_BURST;
        if allowed {
            self.forgotten_at = at;
        }
        allowed
    }
}

impl Shard {
    /// A response to an INVITE that no transaction waits for.
    pub(super) fn unclaimed_answer(&mut self, response: Message, source: Flow) {
        let Some(tag) = response.from_tag() else { return };
        let is_answer = (200..300).contains(&response.status());
        if let Some(known) = self.dialogs.get(tag) {
            if is_answer {
                known.dialog.tell(Input::Response(response));
            }
            return;
        }
        let names = &self.env.shared().names;
        let ours = [response.call_id(), tag].iter().all(|name| names.shard_of(name.as_bytes()).is_some());
        if !ours {
            return;
        }
        // Only what was cancelled here is acknowledged: a refusal is acknowledged by its transaction, a forged one by nobody.
        let cancelled = || self.endpoint.sends(response.branch()?, Method::Cancel);
        if response.status() >= 300 && cancelled() != Some(response.cseq()) {
            return;
        }
        if self.may_be_restored(Some(tag), source) {
            // Its call may be about to come back: to end it now would be to hang up. It comes again.
            return;
        }
        let outputs = end_stray_response(&response, source, self.env.local_side(source.listener));
        if outputs.is_empty() {
            return;
        }
        if !self.strays.allow(self.env.now().mono) {
            self.env.metrics().stray_answers_dropped.increment(1);
            return;
        }
        let (peer, sip_call_id) = (source.remote, response.call_id());
        match response.status() {
            ..=199 => {
                self.env.metrics().stray_ringing_cancelled.increment(1);
                tracing::info!(%peer, sip_call_id, "a phone that rings for nobody is cancelled");
            }
            200..=299 => {
                self.env.metrics().stray_answers_ended.increment(1);
                tracing::info!(%peer, sip_call_id, "an answer nobody waits for is ended");
            }
            300.. => {}
        }
        for output in outputs {
            self.end_stray(output);
        }
    }

    fn end_stray(&mut self, output: Output) {
        match output {
            Output::Ack { message, to } => self.endpoint.send_ack(&message, to),
            Output::Request { message, method, branch, cseq, to, mut timers } => {
                // A repeated answer is acknowledged again; its BYE is on its way already.
                if self.endpoint.sends(&branch, method).is_none() {
                    timers.give_up = timers.give_up.min(STRAY_PATIENCE);
                    self.endpoint.send(Outgoing { message, method, branch, cseq, to, timers }, None);
                }
            }
            Output::Respond { .. } | Output::Challenged { .. } | Output::Up(_) | Output::Finished => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_stray_answers_is_ended_and_a_flood_is_not() {
        let mut limit = StrayLimit::default();
        let at = Instant(1_000_000);
        let ended = (0..200).filter(|_| limit.allow(at)).count();
        assert_eq!(ended, 50);
        let later = at + STRAY_INTERVAL * 10;
        assert_eq!((0..200).filter(|_| limit.allow(later)).count(), 10);
    }
}
