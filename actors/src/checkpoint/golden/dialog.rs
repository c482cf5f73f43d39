//! Dialogs: one that the peer's INVITE has made, at each step of its answer, and one of our own INVITE.

use std::sync::Arc;
use std::time::Duration;

use tandem_protocol::dialog::{
    Command, Credentials, Dialog, Input, InviteSpec, LocalSide, Output, Routing, ServerTransactionId,
    SessionPolicy,
};
use tandem_protocol::flow::{ConnectionId, Flow, ListenerId, Transport};
use tandem_protocol::message::{Header, Limits, Message, Method};
use tandem_protocol::transaction::Timers;

use super::*;

const OURS: &str = "ours";
const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
const ROUTES: &str = "Record-Route: <sip:near;lr>\r\nRecord-Route: <sip:far;lr>\r\n";

fn flow() -> Flow {
    let listener = ListenerId::new(Transport::Tcp, ([10, 0, 0, 1], 5060).into());
    let connection = Some(ConnectionId { shard: 1, generation: 300 });
    Flow { connection, ..Flow::to(listener, ([10, 0, 0, 2], 5062).into()) }
}

fn local() -> Arc<LocalSide> {
    Arc::new(LocalSide {
        via: "SIP/2.0/TCP 10.0.0.1:5060".into(),
        contact: "<sip:10.0.0.1:5060;transport=tcp>".into(),
        timers: Timers { t1: Duration::from_millis(400), ..Timers::default() },
        reinvite_delay: Some(Duration::from_millis(150)),
        reinvite_delayed: false,
        replaces: false,
        session: SessionPolicy { interval: Duration::from_secs(1800), min_se: Duration::from_secs(90) },
    })
}

fn parse(head: &str, body: &str) -> Message {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    let text = format!("{head}{kind}Content-Length: {}\r\n\r\n{body}", body.len());
    Message::parse(Bytes::from(text), &Limits::default()).unwrap()
}

fn request(method: &str, to_tag: &str, headers: &str, body: &str) -> Message {
    let head = format!(
        "{method} sip:10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.2;branch=z9hG4bK1\r\nFrom: <sip:peer@x>;tag=theirs\r\n\
         To: <sip:us@x>{to_tag}\r\nCall-ID: id\r\nCSeq: 70 {method}\r\nMax-Forwards: 70\r\n{headers}"
    );
    parse(&head, body)
}

fn response(status: u16, cseq: u32, tag: &str, headers: &str, body: &str) -> Input {
    let head = format!(
        "SIP/2.0 {status} X\r\nVia: SIP/2.0/TCP 10.0.0.1:5060;branch=z9hG4bKx\r\nFrom: <sip:us@x>;tag={OURS}\r\n\
         To: <sip:peer@x>;tag={tag}\r\nCall-ID: id\r\nCSeq: {cseq} INVITE\r\nContact: <sip:peer@10.0.0.2:5062>\r\n{headers}"
    );
    Input::Response(parse(&head, body))
}

fn feed(dialog: &mut Dialog, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    dialog.handle(&input, at(1), &mut out);
    out
}

fn command(dialog: &mut Dialog, command: Command) {
    feed(dialog, Input::Command(command));
}

/// The peer's INVITE; our 200 is ready and held.
fn answer_held() -> Dialog {
    let headers = format!(
        "Contact: <sip:peer@10.0.0.2:5062>\r\nAllow: INVITE, ACK, BYE, CANCEL, UPDATE\r\nSupported: timer\r\n\
         Session-Expires: 600;refresher=uas\r\n{ROUTES}"
    );
    let invite = request("INVITE", "", &headers, SDP);
    let transaction = ServerTransactionId(300);
    let dialog = Dialog::incoming(transaction, invite, flow(), OURS.into(), local(), Routing::Target);
    let mut dialog = dialog.with_account(Some("carrier".into()));
    command(&mut dialog, Command::PrepareAnswer { sdp: Bytes::from_static(SDP.as_bytes()) });
    dialog
}

/// The same once the 200 has left; its ACK has not come.
fn unacknowledged() -> Dialog {
    let mut dialog = answer_held();
    command(&mut dialog, Command::SendAnswer);
    dialog
}

/// The same at rest.
fn called() -> Dialog {
    let mut dialog = unacknowledged();
    acknowledge(&mut dialog);
    dialog
}

fn acknowledge(dialog: &mut Dialog) {
    let ack = request("ACK", &format!(";tag={OURS}"), "", "");
    feed(dialog, Input::Request { transaction: None, request: ack, source: flow() });
}

/// Our INVITE, challenged and then answered twice by branches of a fork; and a re-INVITE of ours that waits.
fn calling() -> Dialog {
    let spec = InviteSpec {
        request_uri: "sip:peer@10.0.0.2:5060".into(),
        from: "<sip:us@x>".into(),
        to: "<sip:peer@x>".into(),
        call_id: "id".into(),
        local_tag: OURS.into(),
        flow: flow(),
        routing: Routing::Target,
        route: Vec::new(),
        sdp: Bytes::from_static(SDP.as_bytes()),
        reliable: true,
        max_forwards: 69,
        headers: vec![("P-Asserted-Identity".into(), "<sip:us@x>".into())],
        timers: Timers::default(),
        credentials: Some(Credentials { username: "u".into(), password: "p".into() }),
        account: Some("carrier".into()),
        progress: Some(Duration::from_secs(5)),
    };
    let mut dialog = Dialog::calling(spec, local(), &mut Vec::new());
    let challenge = "Proxy-Authenticate: Digest realm=\"carrier\", nonce=\"abc\", qop=\"auth\"\r\n";
    feed(&mut dialog, response(407, 1, "proxy", challenge, ""));
    feed(&mut dialog, response(180, 2, "theirs", "", ""));
    let headers = format!("Session-Expires: 600;refresher=uac\r\nRequire: timer\r\n{ROUTES}");
    feed(&mut dialog, response(200, 2, "theirs", &headers, SDP));
    feed(&mut dialog, response(200, 2, "lost", "", SDP));
    let held = format!("{}a=sendonly\r\n", SDP.replace("1 1 IN", "1 2 IN"));
    command(&mut dialog, Command::Reoffer { sdp: held.into() });
    dialog
}

/// The BYE of a dialog after a restart.
fn bye(dialog: Dialog) -> Message {
    let mut dialog = Dialog::restore(dialog, at(60));
    if dialog.peers_invite().is_some() {
        acknowledge(&mut dialog);
    }
    let out = feed(&mut dialog, Input::Command(Command::End { status: 480, reason: None }));
    let bye = out.into_iter().find_map(|output| match output {
        Output::Request { message, method: Method::Bye, .. } => Some(message),
        _ => None,
    });
    Message::parse(bye.expect("a BYE"), &Limits::default()).unwrap()
}

fn holds(dialog: Dialog, routes: [&str; 2], last_cseq: u32) {
    assert_eq!((dialog.call_id(), dialog.local_tag(), dialog.flow()), ("id", OURS, flow()));
    assert!(dialog.is_kept());
    let bye = bye(dialog);
    assert_eq!(bye.request_uri(), "sip:peer@10.0.0.2:5062");
    assert!(bye.cseq() > last_cseq);
    assert_eq!(bye.values(Header::Route).collect::<Vec<_>>(), routes);
    let party = |header| bye.values(header).collect::<Vec<_>>();
    assert_eq!(party(Header::From), [format!("<sip:us@x>;tag={OURS}")]);
    assert_eq!(party(Header::To), ["<sip:peer@x>;tag=theirs"]);
    let via = party(Header::Via);
    assert!(via[0].starts_with("SIP/2.0/TCP 10.0.0.1:5060;branch="), "{via:?}");
}

fn holds_called(dialog: Dialog) {
    assert_eq!(dialog.peers_invite(), Some((Some("theirs"), 70)));
    holds(dialog, ["<sip:near;lr>", "<sip:far;lr>"], 0);
}

#[test]
fn a_dialog_whose_answer_is_held_is_restored_from_every_golden_checkpoint() {
    Golden::of_machine("dialog_answer_held", holds_called).check(&answer_held());
}

#[test]
fn a_dialog_whose_answer_is_not_acknowledged_is_restored_from_every_golden_checkpoint() {
    Golden::of_machine("dialog_unacknowledged", holds_called).check(&unacknowledged());
}

#[test]
fn a_dialog_of_the_peers_invite_is_restored_from_every_golden_checkpoint() {
    Golden::of_machine("dialog_called", holds_called).check(&called());
}

#[test]
fn a_dialog_of_our_invite_is_restored_from_every_golden_checkpoint() {
    let holds = |dialog: Dialog| {
        assert_eq!(dialog.peers_invite(), None);
        holds(dialog, ["<sip:far;lr>", "<sip:near;lr>"], 3);
    };
    Golden::of_machine("dialog_calling", holds).check(&calling());
}
