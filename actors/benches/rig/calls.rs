//! Calls from one trunk to another, several in step: INVITE, 180, 200, ACK, three seconds, BYE, 200. The messages are SIPp's of
//! `tests/sipp`.

use std::time::Duration;

use bytes::Bytes;
use tandem_protocol::message::{Header, Message, reason_phrase, response_to};

use super::{FAR, LISTENER, NEAR, Observer, Rig, TOGETHER};

/// One way through the network, and a moment's thought.
const MOMENT: Duration = Duration::from_millis(1);

fn session(who: &str, at: &str, port: u64) -> String {
    let ip = at.split(':').next().unwrap_or(at);
    format!(
        "v=0\r\no={who} 53655765 2353687637 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )
}

/// What begins every request of the caller.
fn request(call: u64, method: &str, cseq: u32, uri: &str, to_tag: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {NEAR};branch=z9hG4bK-{call}-{method}\r\n\
         From: sipp <sip:sipp@{NEAR}>;tag=1caller{call}\r\nTo: <sip:100@{LISTENER}>{to_tag}\r\n\
         Call-ID: {call}-1@10.0.0.2\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n"
    )
}

fn invite(call: u64) -> Bytes {
    let sdp = session("caller", NEAR, 36_000);
    let head = request(call, "INVITE", 1, &format!("sip:100@{LISTENER}"), "");
    let contact = format!("Contact: <sip:sipp@{NEAR}>\r\nContent-Type: application/sdp");
    format!("{head}{contact}\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len()).into()
}

/// A request of the caller within the dialog that `answer` has made.
fn within(call: u64, answer: &Message, method: &str, cseq: u32) -> Bytes {
    let contacts = answer.header(Header::Contact).unwrap();
    let uri = contacts.trim_start_matches('<').split('>').next().unwrap_or(contacts);
    let tag = format!(";tag={}", answer.to_tag().unwrap());
    format!("{}Content-Length: 0\r\n\r\n", request(call, method, cseq, uri, &tag)).into()
}

/// The same of several callers, those of the calls from this one on.
fn within_each(begun: u64, answered: &[Message], method: &str, cseq: u32) -> Vec<Bytes> {
    (begun..).zip(answered).map(|(call, answer)| within(call, answer, method, cseq)).collect()
}

/// An answer of the callee.
fn answer(request: &Message, status: u16, with_session: bool) -> Bytes {
    let tag = format!("1callee{}", request.call_id());
    let mut response = response_to(request, None, status, reason_phrase(status), Some(&tag));
    response.header(Header::Contact, format_args!("<sip:{FAR}>"));
    let sdp = session("callee", FAR, 46_000);
    response.finish(with_session.then_some(("application/sdp", sdp.as_bytes())))
}

fn answers(requests: &[Message], status: u16, with_session: bool) -> Vec<Bytes> {
    requests.iter().map(|request| answer(request, status, with_session)).collect()
}

impl Rig {
    /// Several calls, from their INVITEs until they are forgotten but for their transactions.
    pub(super) fn calls(&mut self, observer: &mut dyn Observer) {
        let begun = self.begun;
        let answered = self.set_up(observer);
        self.pass(observer, Duration::from_secs(3));
        self.hang_up(observer, begun, &answered);
        self.pass(observer, Duration::from_secs(1));
        self.commit(observer);
    }

    /// The callers of those that began with this one hang up.
    pub(super) fn hang_up(&mut self, observer: &mut dyn Observer, begun: u64, answered: &[Message]) {
        self.receive(observer, NEAR, within_each(begun, answered, "BYE", 2));
        self.sent(NEAR, "SIP/2.0 200 ");
        let byes = self.sent(FAR, "BYE ");
        self.pass(observer, MOMENT);
        self.receive(observer, FAR, answers(&byes, 200, false));
        self.commit(observer);
    }

    /// Several calls, from their INVITEs until both sides are connected; the answers that their callers got.
    pub(super) fn set_up(&mut self, observer: &mut dyn Observer) -> Vec<Message> {
        let calls = self.begun..self.begun + TOGETHER;
        self.receive(observer, NEAR, calls.map(invite).collect());
        let invites = self.sent(FAR, "INVITE ");
        self.pass(observer, MOMENT);
        self.receive(observer, FAR, answers(&invites, 180, false));
        self.sent(NEAR, "SIP/2.0 180 ");
        self.pass(observer, 10 * MOMENT);
        self.receive(observer, FAR, answers(&invites, 200, true));
        self.commit(observer);
        let answered = self.sent(NEAR, "SIP/2.0 200 ");
        self.pass(observer, MOMENT);
        self.receive(observer, NEAR, within_each(self.begun, &answered, "ACK", 1));
        self.sent(FAR, "ACK ");
        answered
    }
}
