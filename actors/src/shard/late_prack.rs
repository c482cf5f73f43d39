//! A PRACK whose INVITE has been refused meanwhile: whoever sent a response reliably must be prepared for its PRACK after any final
//! response, too (RFC 3262 §3).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tandem_protocol::dialog::AwaitedPrack;
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Message, reason_phrase, response_to};
use tandem_protocol::time::Instant;

/// 64*T1: so long it may be on its way.
const LIFE: Duration = Duration::from_secs(32);
/// More are not remembered: the oldest PRACK gets 481.
const MOST: usize = 1_024;

/// The PRACKs that may still come, by the tag of a dialog that is over; the oldest first.
#[derive(Default)]
pub(super) struct LatePracks(VecDeque<(Instant, Arc<str>, AwaitedPrack)>);

impl LatePracks {
    /// A dialog has ended with a reliable response that nobody has acknowledged.
    pub(super) fn expect(&mut self, tag: Arc<str>, prack: AwaitedPrack, now: Instant) {
        self.forget(now);
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((now + LIFE, tag, prack));
    }

    /// The 200 to a request that is one of them. It is the last of its dialog.
    pub(super) fn answer(&mut self, request: &Message, flow: Flow, now: Instant) -> Option<Bytes> {
        self.forget(now);
        let is_it = |(_, tag, open): &(Instant, Arc<str>, AwaitedPrack)| {
            Some(&**tag) == request.to_tag() && open.is(request)
        };
        let (_, _, awaited) = self.0.iter().position(is_it).and_then(|place| self.0.remove(place))?;
        let sdp = awaited.answer(request);
        let body = sdp.as_deref().map(|sdp| ("application/sdp", sdp));
        Some(response_to(request, Some(flow.remote), 200, reason_phrase(200), None).finish(body))
    }

    fn forget(&mut self, now: Instant) {
        while self.0.front().is_some_and(|(until, ..)| *until <= now) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use tandem_protocol::flow::ListenerId;
    use tandem_protocol::message::Limits;

    use super::*;

    const TOLD: &str = "v=0\r\no=- 7 3 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 20000 RTP/AVP 0\r\n";
    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0 8\r\n";

    fn prack(tag: &str, rack: &str, sdp: &str) -> Message {
        let kind = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "PRACK sip:x@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=a\r\nTo: <sip:b@h>;tag={tag}\r\n\
             Call-ID: c\r\nCSeq: 2 PRACK\r\nRAck: {rack}\r\n{kind}Content-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        );
        Message::parse(Bytes::from(text), &Limits::NONE).unwrap()
    }

    fn awaited(offered: bool) -> AwaitedPrack {
        let told = Some(Bytes::from_static(TOLD.as_bytes()));
        AwaitedPrack { call_id: "c".into(), remote_tag: Some("a".into()), rack: (7, 1), offered, told }
    }

    fn flow() -> Flow {
        Flow::to(ListenerId::default(), ([192, 0, 2, 9], 5060).into())
    }

    #[test]
    fn a_prack_that_is_late_is_known_once_and_not_for_ever() {
        let mut late = LatePracks::default();
        let at = Instant(1_000_000);
        let known = |late: &mut LatePracks, tag: &str, rack: &str, at| {
            late.answer(&prack(tag, rack, ""), flow(), at).is_some()
        };
        late.expect("t".into(), awaited(false), at);
        assert!(!known(&mut late, "t", "8 1 INVITE", at), "another response");
        assert!(!known(&mut late, "u", "7 1 INVITE", at), "another dialog");
        let mut of_another = prack("t", "7 1 INVITE", "").raw().to_vec();
        let call_id = of_another.windows(10).position(|ten| ten == b"Call-ID: c").unwrap();
        of_another[call_id + 9] = b'x';
        let of_another = Message::parse(of_another.into(), &Limits::NONE).unwrap();
        assert!(late.answer(&of_another, flow(), at).is_none(), "another Call-ID");
        assert!(known(&mut late, "t", "7 1 INVITE", at));
        assert!(!known(&mut late, "t", "7 1 INVITE", at), "again");
        late.expect("t".into(), awaited(false), at);
        assert!(!known(&mut late, "t", "7 1 INVITE", at + LIFE), "too late");
    }

    #[test]
    fn what_a_late_prack_offers_is_answered_without_a_stream_and_what_it_answers_is_not() {
        let answer = |offered, sdp| {
            let mut late = LatePracks::default();
            late.expect("t".into(), awaited(offered), Instant(0));
            let response = late.answer(&prack("t", "7 1 INVITE", sdp), flow(), Instant(0)).unwrap();
            Message::parse(response, &Limits::default()).unwrap()
        };
        let refusal = answer(false, OFFER);
        let sdp = String::from_utf8_lossy(refusal.body()).into_owned();
        assert_eq!((refusal.status(), refusal.to_tag()), (200, Some("t")));
        assert!(sdp.contains("o=- 7 4 IN IP4 192.0.2.1") && sdp.contains("m=audio 0 RTP/AVP"), "{sdp}");
        assert_eq!(answer(true, OFFER).body(), b"");
        assert_eq!(answer(false, "").body(), b"");
    }
}
