//! What the operations of a call cost by themselves, in time and allocations: parse, print, transaction, dialog, description.
//!
//! `cargo bench -p tandem-protocol --bench operations` prints a table and a line of JSON.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tandem_counting::{Counting, Report};
use tandem_protocol::dialog::{
    Command, Dialog, Input, InviteSpec, LocalSide, Output, Routing, ServerTransactionId, SessionPolicy,
};
use tandem_protocol::flow::{Flow, ListenerId};
use tandem_protocol::message::{Builder, Header, Limits, Message, reason_phrase, response_to};
use tandem_protocol::sdp::SessionDescription;
use tandem_protocol::time::{Instant, Now, UnixMillis};
use tandem_protocol::transaction::{InviteClient, InviteServer, NonInviteClient, NonInviteServer, Timers};

#[global_allocator]
static ALLOCATOR: Counting<std::alloc::System> = Counting(std::alloc::System);

/// Of a desk phone: 11 headers besides the session.
const SDP: &str = "v=0\r\no=1001 53655765 2353687637 IN IP4 192.0.2.11\r\ns=-\r\nc=IN IP4 192.0.2.11\r\nt=0 0\r\n\
    m=audio 36000 RTP/AVP 0 8 9 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:9 G722/8000\r\n\
    a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n";

fn now(ms: u64) -> Now {
    Now { mono: Instant(ms * 1000), wall: UnixMillis(1_800_000_000_000 + ms) }
}

fn peer() -> SocketAddr {
    ([192, 0, 2, 11], 5060).into()
}

/// A request of the peer. With a `to_tag` it is within the dialog.
fn request(method: &str, cseq: u32, to_tag: &str, body: &str) -> Bytes {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{method} sip:1002@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bK776asdhds{cseq};rport\r\n\
         Max-Forwards: 70\r\nFrom: \"Alice\" <sip:1001@192.0.2.1>;tag=1928301774\r\nTo: <sip:1002@192.0.2.1>{to_tag}\r\n\
         Call-ID: a84b4c76e66710@192.0.2.11\r\nCSeq: {cseq} {method}\r\nContact: <sip:1001@192.0.2.11:5060>\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO\r\nSupported: timer, replaces\r\n\
         User-Agent: desk phone 1.0\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into()
}

fn parsed(bytes: &Bytes) -> Message {
    Message::parse(bytes.clone(), &Limits::default()).unwrap()
}

fn local() -> Arc<LocalSide> {
    Arc::new(LocalSide {
        via: "SIP/2.0/UDP 192.0.2.1:5060".into(),
        contact: "<sip:192.0.2.1:5060>".into(),
        timers: Timers::default(),
        reinvite_delay: None,
        reinvite_delayed: false,
        replaces: false,
        session: SessionPolicy { interval: Duration::from_secs(1800), min_se: Duration::from_secs(90) },
    })
}

fn spec(local_tag: &str) -> InviteSpec {
    InviteSpec {
        request_uri: "sip:1002@192.0.2.12:5060".into(),
        from: "<sip:1001@192.0.2.1>".into(),
        to: "<sip:1002@192.0.2.1>".into(),
        call_id: "t1f3a00a84b4c76e66710b".into(),
        local_tag: local_tag.into(),
        flow: Flow::to(ListenerId::default(), peer()),
        routing: Routing::Target,
        route: Vec::new(),
        sdp: Bytes::from_static(SDP.as_bytes()),
        reliable: true,
        max_forwards: 69,
        headers: Vec::new(),
        timers: Timers::default(),
        account: None,
        progress: None,
        credentials: None,
    }
}

/// What the endpoint of the callee makes of a request of ours.
fn answered(request: &Bytes, status: u16, body: Option<(&str, &[u8])>) -> Message {
    let mut builder = response_to(&parsed(request), None, status, reason_phrase(status), Some("theirs"));
    builder.header(Header::Contact, "<sip:1002@192.0.2.12:5060>");
    parsed(&builder.finish(body))
}

fn messages(report: &mut Report) {
    let datagram = request("INVITE", 1, "", SDP);
    let invite = parsed(&datagram);
    report.measure("parse an INVITE", || Message::parse(datagram.clone(), &Limits::default()));
    report.measure("parse an INVITE and read what a call reads", || {
        let message = parsed(&datagram);
        let contact = message.contacts().is_ok();
        let user = message.to().parsed_uri().is_ok_and(|uri| !uri.host.is_empty());
        (contact, user, message.from_tag().map(str::len), message.max_forwards().is_some())
    });
    report.measure("print a 200 with its session", || {
        let mut builder = response_to(&invite, Some(peer()), 200, "OK", Some("t1f3a0000000000000001"));
        builder.header(Header::Contact, "<sip:192.0.2.1:5060>");
        builder.finish(Some(("application/sdp", SDP.as_bytes())))
    });
    report.measure("print an INVITE with its session", || {
        let mut builder = Builder::request("INVITE", "sip:1002@192.0.2.12:5060");
        builder.header(Header::Via, "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKt1f3a00b;rport");
        builder.header(Header::MaxForwards, 69).copy(&invite, Header::From).copy(&invite, Header::To);
        builder.header(Header::CallId, "t1f3a00a84b4c76e66710b").header(Header::CSeq, "1 INVITE");
        builder.header(Header::Contact, "<sip:192.0.2.1:5060>");
        builder.finish(Some(("application/sdp", SDP.as_bytes())))
    });
    let session = SessionDescription::parse(SDP.as_bytes()).unwrap();
    report.measure("parse a session description", || SessionDescription::parse(SDP.as_bytes()));
    report.measure("print a session description", || session.to_string());
}

fn transactions(report: &mut Report) {
    let (begin, timers) = (now(0).mono, Timers::default());
    report.measure("INVITE server transaction: 180, 200", || {
        let mut server = InviteServer::new(begin, timers, false);
        (server.respond(begin, 180), server.respond(begin, 200), server.deadline())
    });
    report.measure("INVITE client transaction: 180, 200", || {
        let mut client = InviteClient::new(begin, timers, false);
        (client.response(begin, 180), client.response(begin, 200), client.deadline())
    });
    report.measure("BYE transactions, both sides: 200", || {
        let mut server = NonInviteServer::new(begin, timers, false);
        let mut client = NonInviteClient::new(begin, timers, false);
        (server.respond(begin, 200), client.response(begin, 200), client.deadline())
    });
}

fn dialogs(report: &mut Report) {
    const OURS: &str = "t1f3a0000000000000001";
    let to_tag = format!(";tag={OURS}");
    let flow = Flow::to(ListenerId::default(), peer());
    let within = |method, cseq, transaction: Option<u64>| Input::Request {
        transaction: transaction.map(ServerTransactionId),
        request: parsed(&request(method, cseq, &to_tag, "")),
        source: flow,
    };
    let invite = parsed(&request("INVITE", 1, "", SDP));
    let (ack, bye, local) = (within("ACK", 1, None), within("BYE", 2, Some(2)), local());
    let prepare = Input::Command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP.as_bytes()) });
    let steps = [prepare, Input::Command(Command::SendAnswer), ack, bye];
    report.measure("dialog of a caller: INVITE, 200, ACK, BYE", || {
        let first = ServerTransactionId(1);
        let mut dialog =
            Dialog::incoming(first, invite.clone(), flow, OURS.into(), local.clone(), Routing::Target);
        let mut out = Vec::new();
        steps.iter().for_each(|step| dialog.handle(step, now(0), &mut out));
        assert!(dialog.is_over(), "{dialog:?}");
        out
    });
    let mut out = Vec::new();
    drop(Dialog::calling(spec(OURS), local.clone(), &mut out));
    let sent = out.iter().find_map(|output| match output {
        Output::Request { message, .. } => Some(message.clone()),
        Output::Ack { .. }
        | Output::Respond { .. }
        | Output::Challenged { .. }
        | Output::Up(_)
        | Output::Finished => None,
    });
    let sent = sent.unwrap();
    let ringing = Input::Response(answered(&sent, 180, None));
    let answer = Input::Response(answered(&sent, 200, Some(("application/sdp", SDP.as_bytes()))));
    let end = Input::Command(Command::End { status: 480, reason: None });
    let steps = [ringing, answer, end];
    report.measure("dialog of a callee: INVITE, 180, 200, BYE", || {
        let mut out = Vec::new();
        let mut dialog = Dialog::calling(spec(OURS), local.clone(), &mut out);
        steps.iter().for_each(|step| dialog.handle(step, now(0), &mut out));
        assert!(!dialog.is_established(), "{dialog:?}");
        out
    });
}

fn main() {
    let mut report = Report::new("operations");
    messages(&mut report);
    transactions(&mut report);
    dialogs(&mut report);
    println!("{report}");
}
