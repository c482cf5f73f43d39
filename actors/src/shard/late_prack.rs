//! A PRACK whose INVITE has been refused meanwhile: whoever sent a response reliably must be prepared for its PRACK after any final
//! response, too (RFC 3262 §3).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tandem_protocol::message::{Header, Message, Method};
use tandem_protocol::time::Instant;

/// 64*T1: so long it may be on its way.
const LIFE: Duration = Duration::from_secs(32);
/// More are not remembered: the oldest PRACK gets 481.
const MOST: usize = 1_024;

/// The PRACKs that may still come, by the tag of a dialog that is over; the oldest first.
#[derive(Default)]
pub(super) struct LatePracks(VecDeque<(Instant, Arc<str>, (u32, u32))>);

impl LatePracks {
    /// A dialog has ended with a reliable response, by RSeq and CSeq, that nobody has acknowledged.
    pub(super) fn expect(&mut self, tag: Arc<str>, rack: (u32, u32), now: Instant) {
        self.forget(now);
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((now + LIFE, tag, rack));
    }

    /// True if this is one of them. It is the last of its dialog.
    pub(super) fn take(&mut self, request: &Message, now: Instant) -> bool {
        self.forget(now);
        if request.method() != Method::Prack {
            return false;
        }
        let rack = request.header(Header::RAck).and_then(tandem_protocol::dialog::rack_of);
        let known =
            self.0.iter().position(|(_, tag, open)| Some(&**tag) == request.to_tag() && Some(*open) == rack);
        known.is_some_and(|place| self.0.remove(place).is_some())
    }

    fn forget(&mut self, now: Instant) {
        while self.0.front().is_some_and(|(until, ..)| *until <= now) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tandem_protocol::message::Limits;

    use super::*;

    fn prack(tag: &str, rack: &str) -> Message {
        let text = format!(
            "PRACK sip:x@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=a\r\nTo: <sip:b@h>;tag={tag}\r\n\
             Call-ID: c\r\nCSeq: 2 PRACK\r\nRAck: {rack}\r\nContent-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text), &Limits::NONE).unwrap()
    }

    #[test]
    fn a_prack_that_is_late_is_known_once_and_not_for_ever() {
        let mut late = LatePracks::default();
        let at = Instant(1_000_000);
        late.expect("t".into(), (7, 1), at);
        assert!(!late.take(&prack("t", "8 1 INVITE"), at), "another response");
        assert!(!late.take(&prack("u", "7 1 INVITE"), at), "another dialog");
        assert!(late.take(&prack("t", "7 1 INVITE"), at));
        assert!(!late.take(&prack("t", "7 1 INVITE"), at), "again");
        late.expect("t".into(), (7, 1), at);
        assert!(!late.take(&prack("t", "7 1 INVITE"), at + LIFE), "too late");
    }
}
