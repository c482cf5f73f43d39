//! When the store is to hear of an established dialog again: a restart must neither know an older session than its peer, nor number its
//! requests below those that were sent.

use tandem_protocol::dialog::{Dialog, Input};
use tandem_protocol::message::Method;

/// How the checkpoint that the store has of a dialog compares with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It says the same of the session.
    #[default]
    Current,
    /// The peer has been told, or has told, something else since.
    Stale,
    /// It lacks only that our 2xx has been acknowledged: a restart would repeat it.
    Unacknowledged,
}

/// What the store has of one dialog.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stored {
    state: State,
    /// [`Dialog::requests_sent`] as it was then.
    sent: u32,
}

impl Stored {
    /// The dialog has taken an input.
    pub(super) fn follow(&mut self, input: &Input, dialog: &Dialog) {
        let asks = match input {
            Input::Request { transaction: Some(_), request, .. } => {
                matches!(request.method(), Method::Invite | Method::Update)
            }
            Input::Request { transaction: None, .. }
            | Input::Response(_)
            | Input::Unanswered { .. }
            | Input::Cancelled { .. }
            | Input::Credentials { .. }
            | Input::Command(_)
            | Input::Timeout => false,
        };
        // An exchange that has only begun is in no checkpoint: what it comes to is not known yet.
        if dialog.is_established() && (asks || dialog.is_negotiating()) {
            self.state = State::Stale;
        }
    }

    /// True if the dialog's checkpoint is to be stored now.
    pub(super) fn is_due(&mut self, dialog: &Dialog) -> bool {
        if !dialog.is_established() || dialog.is_negotiating() {
            return false;
        }
        let next = if dialog.rests() { State::Current } else { State::Unacknowledged };
        let due = match self.state {
            State::Current => dialog.has_outrun(self.sent),
            State::Stale => true,
            State::Unacknowledged => dialog.rests(),
        };
        if due {
            *self = Stored { state: next, sent: dialog.requests_sent() };
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use tandem_protocol::dialog::{
        Command, LocalSide, Output, Routing, SHORTEST_INTERVAL, ServerTransactionId, SessionPolicy,
    };
    use tandem_protocol::flow::{Flow, ListenerId};
    use tandem_protocol::message::{Limits, Message};
    use tandem_protocol::time::{Instant, Now};
    use tandem_protocol::transaction::Timers;

    use super::*;

    /// A dialog that its peer has begun, and what the store has of it.
    struct Rig {
        dialog: Dialog,
        stored: Stored,
        seconds: u64,
        transactions: u64,
    }

    fn flow() -> Flow {
        Flow::to(ListenerId::default(), ([10, 0, 0, 2], 5060).into())
    }

    fn request(method: &str, cseq: u32, body: &str) -> Message {
        let tag = if cseq == 1 && method == "INVITE" { "" } else { ";tag=ours" };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let timer = "Supported: timer\r\nSession-Expires: 180;refresher=uas\r\n";
        let text = format!(
            "{method} sip:10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK{method}{cseq}\r\n\
             From: <sip:peer@x>;tag=theirs\r\nTo: <sip:us@x>{tag}\r\nCall-ID: id\r\nCSeq: {cseq} {method}\r\n\
             Max-Forwards: 70\r\nContact: <sip:peer@10.0.0.2>\r\nAllow: UPDATE\r\n{timer}{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Message::parse(Bytes::from(text), &Limits::default()).unwrap()
    }

    fn sdp(version: u32) -> Bytes {
        format!("v=0\r\no=- 1 {version} IN IP4 10.0.0.1\r\ns=-\r\nm=audio 4000 RTP/AVP 0\r\n").into()
    }

    impl Rig {
        /// Answered and acknowledged.
        fn called() -> Rig {
            let local = Arc::new(LocalSide {
                via: "SIP/2.0/UDP 10.0.0.1:5060".into(),
                contact: "<sip:10.0.0.1:5060>".into(),
                timers: Timers::default(),
                reinvite_delay: None,
                reinvite_delayed: false,
                replaces: false,
                session: SessionPolicy { interval: Duration::from_secs(180), min_se: SHORTEST_INTERVAL },
            });
            let (id, invite) = (ServerTransactionId(1), request("INVITE", 1, "v=0\r\n"));
            let dialog = Dialog::incoming(id, invite, flow(), "ours".into(), local, Routing::Target);
            let mut rig = Rig { dialog, stored: Stored::default(), seconds: 0, transactions: 1 };
            let set_up = [Command::PrepareAnswer { sdp: sdp(1) }, Command::SendAnswer];
            assert!(!set_up.map(Input::Command).iter().any(|input| rig.feed(input)), "its call stores it");
            assert!(!rig.ack(1));
            rig
        }

        /// True if the store is to hear of the dialog after this input.
        fn feed(&mut self, input: &Input) -> bool {
            let mut out: Vec<Output> = Vec::new();
            let now = Now { mono: Instant(self.seconds * 1_000_000), ..Now::default() };
            self.dialog.handle(input, now, &mut out);
            self.stored.follow(input, &self.dialog);
            self.stored.is_due(&self.dialog)
        }

        fn command(&mut self, command: Command) -> bool {
            self.feed(&Input::Command(command))
        }

        fn request(&mut self, method: &str, cseq: u32, body: &str) -> bool {
            self.transactions += 1;
            let transaction = Some(ServerTransactionId(self.transactions));
            self.feed(&Input::Request { transaction, request: request(method, cseq, body), source: flow() })
        }

        fn ack(&mut self, cseq: u32) -> bool {
            self.feed(&Input::Request {
                transaction: None,
                request: request("ACK", cseq, ""),
                source: flow(),
            })
        }

        fn answer(&mut self, method: &str, cseq: u32, body: &str) -> bool {
            let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
            let text = format!(
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKx\r\nFrom: <sip:us@x>;tag=ours\r\n\
                 To: <sip:peer@x>;tag=theirs\r\nCall-ID: id\r\nCSeq: {cseq} {method}\r\n\
                 Contact: <sip:peer@10.0.0.2>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            self.feed(&Input::Response(Message::parse(Bytes::from(text), &Limits::default()).unwrap()))
        }
    }

    #[test]
    fn what_the_peer_is_told_after_a_while_is_stored_when_it_leaves_and_when_it_is_acknowledged() {
        let mut rig = Rig::called();
        assert!(!rig.request("INVITE", 2, "v=0\r\ns=hold\r\n"), "nobody knows the answer yet");
        rig.seconds = 5;
        assert!(!rig.feed(&Input::Timeout));
        assert!(rig.command(Command::AnswerReoffer { sdp: sdp(2) }));
        rig.seconds = 6;
        assert!(!rig.feed(&Input::Timeout), "the 200 is said again, and says nothing new");
        assert!(rig.ack(2), "a restart need not repeat the 200");
        assert!(!rig.feed(&Input::Timeout));
    }

    #[test]
    fn the_answer_in_our_own_ack_is_stored() {
        let mut rig = Rig::called();
        assert!(!rig.command(Command::Solicit));
        assert!(!rig.answer("INVITE", 1, "v=0\r\n"), "the peer's offer waits");
        assert!(rig.command(Command::Acknowledge { sdp: sdp(2) }));
    }

    #[test]
    fn a_refresh_of_either_side_is_stored() {
        let mut rig = Rig::called();
        assert!(rig.request("UPDATE", 2, ""));
        rig.seconds = 90;
        assert!(!rig.feed(&Input::Timeout), "ours leaves");
        assert!(rig.dialog.is_negotiating());
        assert!(rig.answer("UPDATE", 1, ""));
    }

    #[test]
    fn the_numbers_of_requests_that_change_nothing_are_stored_in_time() {
        let mut rig = Rig::called();
        let digit = || Command::Ask { id: 1, method: Method::Info, body: None };
        let due: Vec<u32> = (1..=110).filter(|_| rig.command(digit())).collect();
        assert_eq!(due, [50, 100], "a restart skips a hundred");
    }
}
