//! A dialog whose peer and call are the test.

use super::*;

pub(super) const SDP: &[u8] = b"v=0\r\n";
pub(super) const OURS: &str = "ours";
pub(super) const THEIRS: &str = "theirs";

pub(super) fn at(ms: u64) -> Now {
    Now { mono: Instant(ms * 1000), ..Now::default() }
}

pub(super) fn flow() -> Flow {
    Flow::to(ListenerId::default(), ([10, 0, 0, 2], 5060).into())
}

pub(super) fn local() -> Arc<LocalSide> {
    Arc::new(LocalSide {
        via: "SIP/2.0/UDP 10.0.0.1:5060".into(),
        contact: "<sip:10.0.0.1:5060>".into(),
        timers: Timers::default(),
        reinvite_delay: None,
        reinvite_delayed: false,
        replaces: false,
        session: SessionPolicy { interval: Duration::from_secs(1800), min_se: SHORTEST_INTERVAL },
    })
}

pub(super) fn parse(text: &str) -> Message {
    Message::parse(Bytes::from(text.to_owned()), &Limits::default()).unwrap()
}

/// A request of the peer in a dialog that his INVITE or ours has made.
pub(super) fn request(method: &str, cseq: u32, extra: &str, body: &str) -> Message {
    let to_tag = if method == "INVITE" && cseq == 1 { String::new() } else { format!(";tag={OURS}") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    parse(&format!(
        "{method} sip:10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK{method}{cseq}\r\n\
         From: <sip:peer@x>;tag={THEIRS}\r\nTo: <sip:us@x>{to_tag}\r\nCall-ID: id\r\nCSeq: {cseq} {method}\r\n\
         Max-Forwards: 70\r\n{extra}{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

pub(super) fn response(status: u16, method: &str, cseq: u32, tag: &str, extra: &str, body: &str) -> Message {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    parse(&format!(
        "SIP/2.0 {status} X\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKx\r\nFrom: <sip:us@x>;tag={OURS}\r\n\
         To: <sip:peer@x>;tag={tag}\r\nCall-ID: id\r\nCSeq: {cseq} {method}\r\n{extra}{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// A dialog and the outputs of its last input.
pub(super) struct Rig {
    pub(super) dialog: Dialog,
    pub(super) now: u64,
    pub(super) out: Vec<Output>,
    pub(super) transactions: u64,
}

impl Rig {
    pub(super) fn incoming(extra: &str) -> Rig {
        Rig::invited(extra, "v=0\r\n")
    }

    /// The peer's INVITE without an offer.
    pub(super) fn asked(extra: &str) -> Rig {
        Rig::invited(extra, "")
    }

    pub(super) fn invited(extra: &str, body: &str) -> Rig {
        let contact = format!("Contact: <sip:peer@10.0.0.2>\r\n{extra}");
        let invite = request("INVITE", 1, &contact, body);
        let id = ServerTransactionId(1);
        let dialog = Dialog::incoming(id, invite, flow(), OURS.into(), local(), Routing::Target);
        Rig { dialog, now: 0, out: Vec::new(), transactions: 1 }
    }

    pub(super) fn calling() -> Rig {
        Rig::inviting(SDP)
    }

    /// Our INVITE without an offer.
    pub(super) fn asking() -> Rig {
        Rig::inviting(b"")
    }

    pub(super) fn inviting(sdp: &'static [u8]) -> Rig {
        let mut out = Vec::new();
        let dialog = Dialog::calling(Rig::spec(sdp), local(), &mut out);
        Rig { dialog, now: 0, out, transactions: 0 }
    }

    /// Our INVITE, whose dialog was lost over `heard`.
    pub(super) fn lost_over(heard: &Message) -> Rig {
        let (mut out, last) = (Vec::new(), Some((1, "z9hG4bKours.1")));
        let dialog =
            Dialog::calling_after_fault(Rig::spec(SDP).into(), local(), last, Some(heard), at(0), &mut out);
        Rig { dialog, now: 0, out, transactions: 0 }
    }

    pub(super) fn spec(sdp: &'static [u8]) -> InviteSpec {
        InviteSpec {
            request_uri: "sip:peer@10.0.0.2:5060".into(),
            from: "<sip:us@x>".into(),
            to: "<sip:peer@x>".into(),
            call_id: "id".into(),
            local_tag: OURS.into(),
            flow: flow(),
            routing: Routing::Target,
            route: Vec::new(),
            sdp: Bytes::from_static(sdp),
            reliable: true,
            max_forwards: 69,
            headers: Vec::new(),
            timers: Timers::default(),
            credentials: Some(Credentials { username: "u".into(), password: "p".into() }),
            account: Some("carrier".into()),
            progress: None,
        }
    }

    /// The peer's INVITE, answered and acknowledged.
    pub(super) fn called() -> Rig {
        let mut rig = Rig::incoming("");
        rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
        rig.command(Command::SendAnswer);
        rig.ack(1);
        rig
    }

    /// Our INVITE, answered.
    pub(super) fn answered(extra: &str) -> Rig {
        let mut rig = Rig::calling();
        rig.respond(200, "INVITE", 1, &format!("Contact: <sip:peer@10.0.0.3:5062>\r\n{extra}"), "v=0\r\n");
        rig
    }

    pub(super) fn feed(&mut self, input: Input) {
        self.out.clear();
        self.dialog.handle(&input, at(self.now), &mut self.out);
    }

    pub(super) fn command(&mut self, command: Command) {
        self.feed(Input::Command(command));
    }

    pub(super) fn hang_up(&mut self) {
        self.command(Command::End { status: 480, reason: None });
    }

    pub(super) fn request(&mut self, method: &str, cseq: u32, extra: &str, body: &str) {
        self.transactions += 1;
        let transaction = Some(ServerTransactionId(self.transactions));
        let request = request(method, cseq, extra, body);
        self.feed(Input::Request { transaction, request, source: flow() });
    }

    /// The PRACK of our last reliable response.
    pub(super) fn prack(&mut self, cseq: u32) {
        let rack = format!("RAck: {} 1 INVITE\r\n", self.dialog.session.reliable.last());
        self.request("PRACK", cseq, &rack, "");
    }

    pub(super) fn ack(&mut self, cseq: u32) {
        let ack = request("ACK", cseq, "", "");
        self.feed(Input::Request { transaction: None, request: ack, source: flow() });
    }

    pub(super) fn respond(&mut self, status: u16, method: &str, cseq: u32, extra: &str, body: &str) {
        self.feed(Input::Response(response(status, method, cseq, THEIRS, extra, body)));
    }

    /// A response of the branch with this tag.
    pub(super) fn respond_as(
        &mut self,
        tag: &str,
        status: u16,
        method: &str,
        cseq: u32,
        extra: &str,
        body: &str,
    ) {
        self.feed(Input::Response(response(status, method, cseq, tag, extra, body)));
    }

    pub(super) fn timeout(&mut self, ms: u64) {
        self.now = ms;
        self.feed(Input::Timeout);
    }

    pub(super) fn events(&self) -> Vec<LegEvent> {
        let up = |output: &Output| match output {
            Output::Up(event) => Some(event.clone()),
            _ => None,
        };
        self.out.iter().filter_map(up).collect()
    }

    pub(super) fn ended(&self) -> Option<EndedBy> {
        self.events().into_iter().find_map(|event| match event {
            LegEvent::Ended { by } => Some(by),
            _ => None,
        })
    }

    pub(super) fn finished(&self) -> bool {
        self.out.iter().any(|output| matches!(output, Output::Finished))
    }

    pub(super) fn statuses(&self) -> Vec<u16> {
        let status = |output: &Output| match output {
            Output::Respond { status, .. } => Some(*status),
            _ => None,
        };
        self.out.iter().filter_map(status).collect()
    }

    /// The request that the last input sent, with its destination.
    pub(super) fn sent(&self, wanted: Method) -> Option<(Message, Flow)> {
        self.out.iter().find_map(|output| match output {
            Output::Request { message, method, to, .. } if *method == wanted => {
                Some((Message::parse(message.clone(), &Limits::default()).unwrap(), *to))
            }
            Output::Ack { message, to } if wanted == Method::Ack => {
                Some((Message::parse(message.clone(), &Limits::default()).unwrap(), *to))
            }
            _ => None,
        })
    }
}
