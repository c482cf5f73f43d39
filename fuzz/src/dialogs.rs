//! One dialog under any sequence of the peer's messages, the call's commands and times.
//!
//! What it sends is SIP; its CSeq grows; an offer waits for the end of the one before (RFC 3261 §14); each request of the
//! peer gets one final response; and once it is told to end it ends, once, whatever the peer does or does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arbitrary::Unstructured;
use bytes::Bytes;
use tandem_protocol::dialog::{
    Command, Credentials, Dialog, Input, InviteSpec, LegEvent, LocalSide, NoAnswer, Output, Routing,
    ServerTransactionId, SessionPolicy,
};
use tandem_protocol::flow::{Flow, ListenerId};
use tandem_protocol::message::{Limits, Message, Method};
use tandem_protocol::time::{Instant, Now};
use tandem_protocol::transaction::Timers;

use crate::transactions::restored;

const OURS: &str = "ours";
const THEIRS: &str = "theirs";
const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
const METHODS: [&str; 9] =
    ["INVITE", "BYE", "OPTIONS", "INFO", "UPDATE", "PRACK", "NOTIFY", "REFER", "GUESS"];
/// More steps than the end of any dialog takes.
const MOST_STEPS: usize = 200;

/// A request of ours that may still be answered.
#[derive(Clone, Debug)]
struct Open {
    method: Method,
    name: String,
    cseq: u32,
    /// A final response came: of an INVITE only another 2xx can follow.
    answered: bool,
}

struct World {
    dialog: Dialog,
    now: Instant,
    open: Vec<Open>,
    /// The last CSeq towards each tag of the peer's.
    cseq: BTreeMap<Option<String>, u32>,
    branches: BTreeSet<String>,
    /// The CSeq numbers of our INVITEs.
    invites: BTreeSet<u32>,
    /// The peer's requests, and the final response of each.
    requests: BTreeMap<ServerTransactionId, Option<Bytes>>,
    /// The peer's INVITE that is not answered yet.
    invited: Option<ServerTransactionId>,
    peer_cseq: u32,
    finished: bool,
}

pub(super) fn run(data: &[u8]) {
    // Too short a sequence ends the same way as a whole one.
    let _ = sequence(&mut Unstructured::new(data));
}

fn sequence(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mut world =
        World::begin(u.arbitrary()?, if u.arbitrary()? { Routing::Flow } else { Routing::Target });
    while !u.is_empty() {
        match u.int_in_range(0..=7)? {
            0 => {
                let command = command(u)?;
                world.feed(&Input::Command(command));
            }
            1 => world.request(u)?,
            2 => {
                let cseq = u.int_in_range(1..=world.peer_cseq)?;
                let request = request("ACK", cseq, u.arbitrary()?);
                world.feed(&Input::Request { transaction: None, request, source: flow() });
            }
            3 => world.response(u)?,
            4 => world.silence(u)?,
            5 => {
                let later = world.now + Duration::from_millis(u.int_in_range(0..=40_000)?);
                world.now = world
                    .dialog
                    .deadline()
                    .filter(|_| u.arbitrary().unwrap_or(false))
                    .unwrap_or(later)
                    .max(world.now);
                world.feed(&Input::Timeout);
            }
            6 => world.dialog = restored(&world.dialog),
            _ => {
                let other = ServerTransactionId(u.int_in_range(0..=7)?);
                let transaction = world.invited.filter(|_| u.ratio(3, 4).unwrap_or(true)).unwrap_or(other);
                world.feed(&Input::Cancelled { transaction, reason: None });
            }
        }
    }
    world.end();
    Ok(())
}

fn command(u: &mut Unstructured<'_>) -> arbitrary::Result<Command> {
    let sdp = Bytes::from_static(SDP.as_bytes());
    Ok(match u.int_in_range(0..=8)? {
        0 => Command::Progress {
            status: u.int_in_range(101..=199)?,
            sdp: u.arbitrary::<bool>()?.then_some(sdp),
        },
        1 => Command::PrepareAnswer { sdp },
        2 => Command::SendAnswer,
        3 | 4 => Command::Reoffer { sdp },
        5 => Command::AnswerReoffer { sdp },
        6 => Command::RefuseReoffer { status: u.int_in_range(400..=699)? },
        7 => Command::CancelReoffer { reason: None },
        _ => Command::End { status: u.int_in_range(400..=699)?, reason: None },
    })
}

fn flow() -> Flow {
    Flow::to(ListenerId::default(), ([10, 0, 0, 2], 5060).into())
}

fn local() -> Arc<LocalSide> {
    Arc::new(LocalSide {
        via: "SIP/2.0/UDP 10.0.0.1:5060".into(),
        contact: "<sip:10.0.0.1:5060>".into(),
        timers: Timers::default(),
        session: SessionPolicy::default(),
        reinvite_delay: None,
        reinvite_delayed: false,
        replaces: false,
    })
}

fn message(text: String) -> Message {
    Message::parse(Bytes::from(text), &Limits::default()).unwrap_or_else(|why| panic!("{why}"))
}

fn body(with_sdp: bool) -> String {
    let (kind, body) = if with_sdp { ("Content-Type: application/sdp\r\n", SDP) } else { ("", "") };
    format!("{kind}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A request of the peer; the first one makes the dialog.
fn request(method: &str, cseq: u32, with_sdp: bool) -> Message {
    let tag = if cseq == 1 && method == "INVITE" { String::new() } else { format!(";tag={OURS}") };
    message(format!(
        "{method} sip:10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK{method}{cseq}\r\n\
         From: <sip:peer@x>;tag={THEIRS}\r\nTo: <sip:us@x>{tag}\r\nCall-ID: id\r\nCSeq: {cseq} {method}\r\n\
         Max-Forwards: 70\r\nContact: <sip:peer@10.0.0.2>\r\n{}",
        body(with_sdp)
    ))
}

impl World {
    fn begin(incoming: bool, routing: Routing) -> World {
        let mut out = Vec::new();
        let (dialog, peer_cseq) = if incoming {
            let invite = request("INVITE", 1, true);
            (Dialog::incoming(ServerTransactionId(0), invite, flow(), OURS.into(), local(), routing), 1)
        } else {
            let spec = InviteSpec {
                request_uri: "sip:peer@10.0.0.2:5060".into(),
                from: "<sip:us@x>".into(),
                to: "<sip:peer@x>".into(),
                call_id: "id".into(),
                local_tag: OURS.into(),
                flow: flow(),
                routing,
                route: Vec::new(),
                sdp: Bytes::from_static(SDP.as_bytes()),
                reliable: false,
                max_forwards: 69,
                headers: Vec::new(),
                timers: Timers::default(),
                credentials: Some(Credentials { username: "u".into(), password: "p".into() }),
                account: Some("carrier".into()),
                progress: None,
            };
            (Dialog::calling(spec, local(), &mut out), 10)
        };
        let mut world = World {
            dialog,
            now: Instant(0),
            open: Vec::new(),
            cseq: BTreeMap::new(),
            branches: BTreeSet::new(),
            invites: BTreeSet::new(),
            requests: BTreeMap::new(),
            invited: None,
            peer_cseq,
            finished: false,
        };
        if incoming {
            world.invited = Some(ServerTransactionId(0));
            world.requests.insert(ServerTransactionId(0), None);
        }
        out.iter().for_each(|output| world.check(output));
        world
    }

    fn feed(&mut self, input: &Input) {
        let mut out = Vec::new();
        self.dialog.handle(input, Now { mono: self.now, ..Now::default() }, &mut out);
        out.iter().for_each(|output| self.check(output));
        assert_eq!(self.finished, self.dialog.is_over());
        let challenged = out.into_iter().find_map(|output| match output {
            Output::Challenged { account, response } => Some((account, response)),
            _ => None,
        });
        if let Some((account, challenge)) = challenged {
            assert_eq!(account, "carrier");
            let known = challenge.cseq() % 4 != 0;
            let credentials = known.then(|| Credentials { username: "u".into(), password: "p".into() });
            self.feed(&Input::Credentials { credentials, challenge });
        }
    }

    /// The peer's next request, or one that is late or comes again in another transaction.
    fn request(&mut self, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        let cseq = (self.peer_cseq + u.int_in_range(0..=3)?).saturating_sub(1).max(2);
        let method = *u.choose(&METHODS)?;
        self.peer_cseq = self.peer_cseq.max(cseq);
        let id = ServerTransactionId(self.requests.len() as u64);
        self.requests.insert(id, None);
        let was_invited = self.invited;
        if method == "INVITE" {
            self.invited = self.invited.or(Some(id));
        }
        let request = request(method, cseq, u.arbitrary()?);
        self.feed(&Input::Request { transaction: Some(id), request, source: flow() });
        assert!(
            was_invited.is_none() || method != "INVITE" || self.requests[&id].is_some(),
            "two offers are open"
        );
        Ok(())
    }

    /// A response that the transaction of one of our requests would pass on.
    fn response(&mut self, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let at = u.choose_index(self.open.len())?;
        let (status, other_branch): (u16, bool) = (
            *u.choose(&[
                100, 180, 183, 200, 202, 302, 401, 407, 408, 422, 481, 486, 487, 491, 500, 503, 603,
            ])?,
            u.ratio(1, 8)?,
        );
        let open = &mut self.open[at];
        let success = (200..300).contains(&status);
        if open.answered && !success {
            return Ok(());
        }
        let (name, cseq) = (open.name.clone(), open.cseq);
        open.answered |= status >= 200;
        if open.answered && !(open.method == Method::Invite && success) {
            self.open.remove(at);
        }
        let tag = if status == 100 {
            ""
        } else if other_branch {
            ";tag=other"
        } else {
            ";tag=theirs"
        };
        let challenge = match status {
            401 => "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n",
            407 => "Proxy-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n",
            _ => "",
        };
        let response = message(format!(
            "SIP/2.0 {status} X\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKx\r\nFrom: <sip:us@x>;tag={OURS}\r\n\
             To: <sip:peer@x>{tag}\r\nCall-ID: id\r\nCSeq: {cseq} {name}\r\nContact: <sip:peer@10.0.0.3:5062>\r\n\
             {challenge}{}",
            body(u.arbitrary()?)
        ));
        self.feed(&Input::Response(response));
        Ok(())
    }

    /// One of our requests is given up.
    fn silence(&mut self, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        let waiting: Vec<usize> = (0..self.open.len()).filter(|at| !self.open[*at].answered).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let why = if u.arbitrary()? { NoAnswer::Timeout } else { NoAnswer::Transport };
        self.unanswered(*u.choose(&waiting)?, why);
        Ok(())
    }

    fn unanswered(&mut self, at: usize, why: NoAnswer) {
        let Open { method, cseq, .. } = self.open.remove(at);
        self.feed(&Input::Unanswered { method, cseq, why });
    }

    /// The call is over; the peer says nothing any more.
    fn end(&mut self) {
        self.feed(&Input::Command(Command::End { status: 480, reason: None }));
        for _ in 0..MOST_STEPS {
            if self.finished {
                break;
            }
            if let Some(due) = self.dialog.deadline() {
                self.now = self.now.max(due);
                self.feed(&Input::Timeout);
                assert!(
                    self.dialog.deadline().is_none_or(|next| next > self.now),
                    "a deadline that does not move"
                );
            } else if let Some(at) = self.open.iter().position(|open| !open.answered) {
                self.unanswered(at, NoAnswer::Timeout);
            } else {
                break;
            }
        }
        assert!(self.finished, "it does not end: {:?}", self.dialog);
        assert_eq!(self.dialog.deadline(), None);
        assert!(
            self.requests.values().all(Option::is_some),
            "a request without an answer: {:?}",
            self.requests
        );
    }

    fn check(&mut self, output: &Output) {
        match output {
            Output::Request { message, method, branch, cseq, .. } => {
                self.sent(message, *method, branch, *cseq)
            }
            Output::Ack { message, .. } => {
                let ack = self::message(text(message));
                assert_eq!(ack.method(), Method::Ack);
                assert!(self.invites.contains(&ack.cseq()), "the ACK of no INVITE");
            }
            Output::Respond { transaction, status, message, .. } => {
                let response = self::message(text(message));
                assert_eq!(response.status(), *status);
                assert!(*status == 100 || response.to_tag() == Some(OURS));
                self.responded(*transaction, *status, message);
            }
            Output::Up(event) => {
                // A command that comes too late is refused, which is no news.
                let refusal = matches!(event, LegEvent::ReofferRefused { .. });
                assert!(!self.finished || refusal, "news of a dialog that is over: {event:?}");
                assert!(!matches!(event, LegEvent::Reoffer { .. }) || self.invited.is_some());
            }
            // Answered once what was done with it is done.
            Output::Challenged { .. } => {}
            Output::Finished => {
                assert!(!self.finished, "it ends twice");
                self.finished = true;
            }
        }
    }

    fn sent(&mut self, bytes: &Bytes, method: Method, branch: &str, cseq: u32) {
        let request = message(text(bytes));
        assert_eq!((request.method(), request.cseq()), (method, cseq));
        assert_eq!((request.via().branch(), request.from_tag()), (Some(branch), Some(OURS)));
        if method == Method::Cancel {
            let invite =
                self.open.iter().any(|o| o.method == Method::Invite && o.cseq == cseq && !o.answered);
            assert!(invite, "a CANCEL of nothing");
        } else {
            assert!(self.branches.insert(branch.to_owned()), "branch {branch} again");
            let last = self.cseq.insert(request.to_tag().map(str::to_owned), cseq);
            // A 2xx of another branch that comes again is answered by the same BYE again.
            let grows = last.is_none_or(|last| last < cseq);
            assert!(grows || (method == Method::Bye && last == Some(cseq)), "CSeq {cseq} after {last:?}");
        }
        if method == Method::Invite {
            let waiting = self.open.iter().any(|open| open.method == Method::Invite && !open.answered);
            assert!(!waiting && self.invited.is_none(), "two offers are open");
            self.invites.insert(cseq);
        }
        let name = request.method_name().to_owned();
        self.open.push(Open { method, name, cseq, answered: false });
    }

    fn responded(&mut self, id: ServerTransactionId, status: u16, message: &Bytes) {
        let known = self.requests.get_mut(&id).expect("a transaction of the peer's");
        if status < 200 {
            assert!(known.is_none(), "a provisional response after the final one");
            return;
        }
        if let Some(before) = known {
            assert!(status < 300 && before == message, "two final responses: {before:?} and {message:?}");
        }
        *known = Some(message.clone());
        if self.invited == Some(id) {
            self.invited = None;
        }
    }
}

fn text(message: &Bytes) -> String {
    String::from_utf8_lossy(message).into_owned()
}
