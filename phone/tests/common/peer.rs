//! A peer whose messages are written by hand, to show a phone what no phone would send.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tandem_phone::{AutoAnswer, CallHandle, Command, Event, Phone};

use super::{addr, config};

/// What the peer's SDP says, as the peer of [`Peer`].
pub(crate) fn sdp(version: u32, port: u16) -> String {
    format!(
        "v=0\r\no=- 9 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\n"
    )
}

/// A sent message, as text.
#[derive(Clone, Debug)]
pub(crate) struct Sent(pub(crate) String);

impl Sent {
    pub(crate) fn line(&self) -> &str {
        self.0.lines().next().unwrap_or_default()
    }

    /// Every value of a header, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let head = self.0.split("\r\n\r\n").next().unwrap_or_default();
        head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.all(name).first().copied().unwrap_or_default()
    }

    pub(crate) fn tag(&self, name: &str) -> &str {
        self.header(name).split_once(";tag=").map_or("", |(_, tag)| tag)
    }

    /// A response to this request, with more header lines and a body.
    pub(crate) fn reply(&self, status: &str, to_tag: &str, more: &[&str], body: &str) -> String {
        let mut out = format!("SIP/2.0 {status}\r\n");
        for via in self.all("Via") {
            out += &format!("Via: {via}\r\n");
        }
        let to = self.header("To");
        let tag =
            if to.contains(";tag=") || to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
        out += &format!("From: {}\r\nTo: {to}{tag}\r\n", self.header("From"));
        out += &format!("Call-ID: {}\r\nCSeq: {}\r\n", self.header("Call-ID"), self.header("CSeq"));
        finish(out, more, body)
    }
}

/// Ends a message: more header lines, Content-Length, the body.
pub(crate) fn finish(mut out: String, more: &[&str], body: &str) -> String {
    for line in more {
        out += line;
        out += "\r\n";
    }
    if !body.is_empty() {
        out += "Content-Type: application/sdp\r\n";
    }
    out + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
}

/// One phone, and the test at the other end.
pub(crate) struct Peer {
    pub(crate) phone: Phone,
    pub(crate) now: Duration,
    pub(crate) events: Vec<Event>,
    inbox: VecDeque<(SocketAddr, Sent)>,
    branch: u32,
}

/// The Contact of the peer.
pub(crate) const CONTACT: &str = "Contact: <sip:peer@127.0.0.1:5062>";

impl Peer {
    pub(crate) fn new(auto: AutoAnswer) -> Peer {
        Peer {
            phone: Phone::new(config(0, 1, auto)),
            now: Duration::from_secs(1),
            events: Vec::new(),
            inbox: VecDeque::new(),
            branch: 0,
        }
    }

    pub(crate) fn command(&mut self, command: Command) -> Option<CallHandle> {
        let handle = self.phone.command(self.now, command);
        self.collect();
        handle
    }

    pub(crate) fn give(&mut self, message: &str) {
        self.phone.receive(self.now, addr(1), message.as_bytes());
        self.collect();
    }

    fn collect(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.phone.poll_event()));
        while let Some((to, bytes)) = self.phone.poll_transmit() {
            self.inbox.push_back((to, Sent(String::from_utf8(bytes).expect("the phone sends text"))));
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.phone.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.phone.handle_timeout(self.now);
            self.collect();
        }
        self.now = until;
    }

    /// The next message that the phone sent; it must begin with `start`.
    pub(crate) fn take(&mut self, start: &str) -> Sent {
        let (_, sent) = self.inbox.pop_front().unwrap_or_else(|| panic!("nothing sent, {start} expected"));
        assert!(sent.0.starts_with(start), "{start} expected:\n{}", sent.0);
        sent
    }

    /// Where the next message goes.
    pub(crate) fn next_to(&self) -> Option<SocketAddr> {
        self.inbox.front().map(|(to, _)| *to)
    }

    pub(crate) fn nothing_sent(&self) {
        assert!(self.inbox.is_empty(), "{:#?}", self.inbox);
    }

    /// Whether the phone noticed a fault whose description contains `what`.
    pub(crate) fn noticed(&self, what: &str) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Protocol { what: w, .. } if w.contains(what)))
    }

    pub(crate) fn assert_clean(&self) {
        let fault = self.events.iter().find(|event| matches!(event, Event::Protocol { .. }));
        assert_eq!(fault, None);
    }

    /// A request to the phone. `to_tag` empty is outside a dialog.
    pub(crate) fn request(
        &mut self,
        method: &str,
        dialog: (&str, &str),
        cseq: u32,
        more: &[&str],
        body: &str,
    ) -> Sent {
        let (call_id, to_tag) = dialog;
        self.branch += 1;
        let tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
        let out = format!(
            "{method} sip:1000@127.0.0.1:5061 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKp{}\r\n\
             Max-Forwards: 70\r\nFrom: \"P. Eer\" <sip:p.eer@example.test>;tag=ptag\r\nTo: <sip:1000@example.test>{tag}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n",
            self.branch
        );
        let mut lines = vec![CONTACT];
        lines.extend_from_slice(more);
        let sent = Sent(finish(out, &lines, body));
        self.give(&sent.0);
        sent
    }

    /// The phone dials and the peer answers; gives the call, the INVITE and the ACK.
    pub(crate) fn answered(&mut self) -> (CallHandle, Sent, Sent) {
        let call = self.command(Command::Dial { number: "77".into() }).expect("a handle");
        let invite = self.take("INVITE ");
        self.give(&invite.reply("200 OK", "ptag", &[CONTACT], &sdp(1, 6000)));
        let ack = self.take("ACK ");
        (call, invite, ack)
    }

    /// The peer dials and the phone (with [`super::QUICK`]) answers; gives the phone's tag.
    pub(crate) fn called(&mut self) -> String {
        self.request("INVITE", ("cid", ""), 1, &[], &sdp(1, 6000));
        self.take("SIP/2.0 180");
        self.pass(Duration::from_secs(1));
        let ok = self.take("SIP/2.0 200");
        let tag = ok.tag("To").to_owned();
        self.request("ACK", ("cid", &tag), 1, &[], "");
        tag
    }
}
