//! A user agent on a plain socket: it says exactly what the test tells it to.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::digest::Challenge;
use super::tls::Openssl;
use super::{Engine, Msg, SOON};

static UNIQUE: AtomicU64 = AtomicU64::new(1);

/// A token that no other message of this process has.
pub(crate) fn token() -> String {
    format!("{:x}x{:x}", std::process::id(), UNIQUE.fetch_add(1, Ordering::Relaxed))
}

/// A session description with one audio line.
pub(crate) fn sdp(media: SocketAddr, formats: &str) -> String {
    let ip = media.ip();
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    format!(
        "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\nm=audio {} RTP/AVP {formats}\r\n",
        media.port()
    )
}

/// What a user agent speaks by.
enum Socket {
    Udp(UdpSocket),
    /// A connection, and what has come by it and was not taken yet.
    Tcp(TcpStream, RefCell<Vec<u8>>),
    /// The same over TLS, and the address that it is known by.
    Tls(Openssl, SocketAddr, RefCell<Vec<u8>>),
}

/// One socket, one user.
pub(crate) struct Ua {
    socket: Socket,
    /// Its Contact, if that is not where its socket is.
    pub(crate) listens: Option<SocketAddr>,
    pub(crate) server: SocketAddr,
    pub(crate) user: String,
    pub(crate) password: String,
    /// What it has received: a copy of it is the same message again.
    seen: RefCell<BTreeSet<String>>,
}

/// The next message of a stream; line ends between messages are passed over.
fn receive_framed(
    mut stream: impl Read,
    limit: impl Fn(Option<Duration>) -> io::Result<()>,
    held: &RefCell<Vec<u8>>,
    deadline: Instant,
) -> Option<Msg> {
    let mut held = held.borrow_mut();
    loop {
        let begin = held.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(held.len());
        held.drain(..begin);
        let text = String::from_utf8_lossy(&held).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = Msg { text: format!("{head}\r\n\r\n") }.header("Content-Length").parse::<usize>();
            let whole = head.len() + 4 + length.expect("a length");
            if held.len() >= whole {
                let text = String::from_utf8(held.drain(..whole).collect()).expect("UTF-8");
                return Some(Msg { text });
            }
        }
        let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        limit(Some(left)).expect("a timeout");
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(length) => held.extend_from_slice(&buffer[..length]),
            // This process was stopped for a while: the deadline decides.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(_) => return None,
        }
    }
}

/// One dialog, or what is to become one, as this end sees it.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    pub(crate) call_id: String,
    /// Our From (To in what the peer sends), with tag.
    pub(crate) local: String,
    /// The peer's.
    pub(crate) remote: String,
    /// Where requests go: Request-URI.
    pub(crate) target: String,
    /// The route set: the proxies on the way there that asked to stay, nearest first (RFC 3261 §12.1).
    pub(crate) routes: Vec<String>,
    /// The CSeq of our last request.
    pub(crate) cseq: u32,
    /// The branch of our last INVITE.
    pub(crate) branch: String,
    /// The Request-URI of our last INVITE.
    pub(crate) invite_uri: String,
    /// Our last INVITE, to be sent again as it is.
    pub(crate) invite: String,
}

impl Ua {
    /// A phone of `engine`'s station `user`, whose password is `user` with "secret-" before it.
    pub(crate) fn new(engine: &Engine, user: &str) -> Ua {
        Ua::at(engine, user, engine.peer().into())
    }

    /// The same at another address.
    pub(crate) fn at(engine: &Engine, user: &str, ip: IpAddr) -> Ua {
        let socket = UdpSocket::bind((ip, 0)).expect("a port");
        Ua::by(Socket::Udp(socket), engine.sip, user)
    }

    fn by(socket: Socket, server: SocketAddr, user: &str) -> Ua {
        let (user, password) = (user.to_owned(), format!("secret-{user}"));
        Ua { socket, listens: None, server, user, password, seen: RefCell::default() }
    }

    /// The same by TCP, to the same port.
    pub(crate) fn tcp(engine: &Engine, user: &str) -> Ua {
        Ua::on_stream(TcpStream::connect(engine.sip).expect("a connection"), user)
    }

    /// By a connection that is there.
    pub(crate) fn on_stream(stream: TcpStream, user: &str) -> Ua {
        let server = stream.peer_addr().expect("an address");
        Ua::by(Socket::Tcp(stream, RefCell::default()), server, user)
    }

    /// By a connection over TLS that is there, to or from `server`; `local` is the address that it says is its own.
    pub(crate) fn on_tls(openssl: Openssl, local: SocketAddr, server: SocketAddr, user: &str) -> Ua {
        Ua::by(Socket::Tls(openssl, local, RefCell::default()), server, user)
    }

    /// The process that has its connection over TLS.
    #[track_caller]
    pub(crate) fn openssl(&self) -> &Openssl {
        match &self.socket {
            Socket::Tls(openssl, ..) => openssl,
            Socket::Udp(_) | Socket::Tcp(..) => panic!("{} does not speak TLS", self.user),
        }
    }

    /// From now on it hears only its server: it is behind a NAT that lets nothing else in.
    #[track_caller]
    pub(crate) fn behind_nat(&self) {
        match &self.socket {
            Socket::Udp(socket) => socket.connect(self.server).expect("connected"),
            Socket::Tcp(..) | Socket::Tls(..) => {}
        }
    }

    /// The connection that it speaks by.
    pub(crate) fn stream(&self) -> Option<TcpStream> {
        match &self.socket {
            Socket::Udp(_) | Socket::Tls(..) => None,
            Socket::Tcp(stream, _) => stream.try_clone().ok(),
        }
    }

    /// A server or phone on a given port.
    pub(crate) fn on(engine: &Engine, user: &str, address: SocketAddr) -> Ua {
        let socket = UdpSocket::bind(address).expect("the port");
        Ua::by(Socket::Udp(socket), engine.sip, user)
    }

    /// Its address.
    pub(crate) fn local(&self) -> SocketAddr {
        match &self.socket {
            Socket::Udp(socket) => socket.local_addr(),
            Socket::Tcp(stream, _) => stream.local_addr(),
            Socket::Tls(_, local, _) => Ok(*local),
        }
        .expect("an address")
    }

    /// Its SIP URI.
    pub(crate) fn contact(&self) -> String {
        let transport = match &self.socket {
            Socket::Udp(_) => "",
            Socket::Tcp(..) => ";transport=tcp",
            Socket::Tls(..) => ";transport=tls",
        };
        format!("sip:{}@{}{transport}", self.user, self.listens.unwrap_or_else(|| self.local()))
    }

    fn transport(&self) -> &'static str {
        match &self.socket {
            Socket::Udp(_) => "UDP",
            Socket::Tcp(..) => "TCP",
            Socket::Tls(..) => "TLS",
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&self, bytes: impl AsRef<[u8]>) {
        match &self.socket {
            Socket::Udp(socket) => drop(socket.send_to(bytes.as_ref(), self.server).expect("sent")),
            Socket::Tcp(stream, _) => (&*stream).write_all(bytes.as_ref()).expect("sent"),
            Socket::Tls(openssl, ..) => openssl.pipe().write_all(bytes.as_ref()).expect("sent"),
        }
    }

    /// The next message that comes within `limit`; keep-alives are no messages.
    pub(crate) fn receive(&self, limit: Duration) -> Option<Msg> {
        let message = self.take(Instant::now() + limit)?;
        self.seen.borrow_mut().insert(message.text.clone());
        Some(message)
    }

    /// The same, but copies of what has come before are passed over: whoever is late to answer gets them, as of any UDP. An ACK is
    /// never sent by itself, so two that are alike are two.
    pub(crate) fn fresh(&self, limit: Duration) -> Option<Msg> {
        let deadline = Instant::now() + limit;
        loop {
            let message = self.take(deadline)?;
            if self.seen.borrow_mut().insert(message.text.clone()) || message.is("ACK") {
                return Some(message);
            }
        }
    }

    fn take(&self, deadline: Instant) -> Option<Msg> {
        let mut buffer = vec![0; 65_535];
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            let socket = match &self.socket {
                Socket::Udp(socket) => socket,
                Socket::Tcp(stream, held) => {
                    return receive_framed(stream, |left| stream.set_read_timeout(left), held, deadline);
                }
                Socket::Tls(openssl, _, held) => {
                    let pipe = openssl.pipe();
                    return receive_framed(pipe, |left| pipe.set_read_timeout(left), held, deadline);
                }
            };
            socket.set_read_timeout(Some(left)).expect("a timeout");
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                // ECONNREFUSED of an engine that was killed; or this process was stopped for a while. The deadline decides.
                Err(_) => continue,
            };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if !text.trim().is_empty() {
                return Some(Msg { text });
            }
        }
    }

    /// Whether a line end comes that only keeps the way open (RFC 5626 §4.4.1).
    pub(crate) fn is_kept_alive(&self, limit: Duration) -> bool {
        let mut buffer = [0; 4];
        let read = match &self.socket {
            Socket::Udp(socket) => {
                socket.set_read_timeout(Some(limit)).expect("a timeout");
                socket.recv(&mut buffer)
            }
            Socket::Tcp(stream, _) => {
                stream.set_read_timeout(Some(limit)).expect("a timeout");
                (&*stream).read(&mut buffer)
            }
            Socket::Tls(openssl, ..) => {
                let mut pipe = openssl.pipe();
                pipe.set_read_timeout(Some(limit)).expect("a timeout");
                pipe.read(&mut buffer)
            }
        };
        read.is_ok_and(|length| buffer[..length] == *b"\r\n\r\n")
    }

    /// Waits for a message that `pick` accepts; others are dropped, and copies of earlier ones.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, pick: impl Fn(&Msg) -> bool) -> Msg {
        self.wait_by(what, pick, |left| self.fresh(left))
    }

    /// Waits for a message that `pick` accepts and that may be a copy of an earlier one.
    #[track_caller]
    pub(crate) fn again(&self, what: &str, pick: impl Fn(&Msg) -> bool) -> Msg {
        self.wait_by(what, pick, |left| self.receive(left))
    }

    #[track_caller]
    fn wait_by(
        &self,
        what: &str,
        pick: impl Fn(&Msg) -> bool,
        next: impl Fn(Duration) -> Option<Msg>,
    ) -> Msg {
        let deadline = Instant::now() + SOON;
        let mut seen = Vec::new();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match next(left) {
                Some(message) if pick(&message) => return message,
                Some(message) => seen.push(message.first_line().to_owned()),
                None => break,
            }
        }
        panic!("{} got no {what}; meanwhile: {seen:?}", self.user);
    }

    /// Waits for a request of this method.
    #[track_caller]
    pub(crate) fn request(&self, method: &str) -> Msg {
        self.wait(method, |message| message.is(method))
    }

    /// Waits for a response of this status to this method.
    #[track_caller]
    pub(crate) fn response(&self, method: &str, status: u16) -> Msg {
        self.wait(&format!("{status} to {method}"), |message| message.answers(method, status))
    }

    /// Waits for the final response to this method.
    #[track_caller]
    pub(crate) fn final_response(&self, method: &str) -> Msg {
        self.wait(&format!("final response to {method}"), |message| {
            message.status().is_some_and(|status| status >= 200) && message.method() == method
        })
    }

    /// Sends an OPTIONS until it is answered: all that was sent before it has been read.
    #[track_caller]
    pub(crate) fn ping(&self) {
        let mut leg = self.leg("ping");
        leg.cseq = 1;
        let branch = format!("z9hG4bK{}", token());
        let text = self.text(&leg, "OPTIONS", &leg.target, &branch, "", "");
        let deadline = Instant::now() + SOON;
        // By UDP it may be lost in a flood of the test's own; RFC 3261 section 17.1.2 repeats it too.
        while Instant::now() < deadline {
            self.send(&text);
            let again_at = Instant::now() + Duration::from_millis(500);
            while let Some(message) =
                again_at.checked_duration_since(Instant::now()).and_then(|d| self.fresh(d))
            {
                if message.answers("OPTIONS", 200) && message.header("Call-ID") == leg.call_id {
                    return;
                }
            }
        }
        panic!("{} got no answer to an OPTIONS", self.user);
    }

    /// A request as text. `headers` are whole lines, each with its line end.
    pub(crate) fn text(
        &self,
        leg: &Leg,
        method: &str,
        uri: &str,
        branch: &str,
        headers: &str,
        body: &str,
    ) -> String {
        let (local, length) = (self.local(), body.len());
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let routes: String = leg.routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{} {local};branch={branch};rport\r\nMax-Forwards: 70\r\n{routes}\
             From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} {method}\r\nContact: <{}>\r\n{headers}{kind}\
             Content-Length: {length}\r\n\r\n{body}",
            self.transport(),
            leg.local,
            leg.remote,
            leg.call_id,
            leg.cseq,
            self.contact()
        )
    }

    /// What a new call or registration begins with.
    pub(crate) fn leg(&self, number: &str) -> Leg {
        let domain = match self.server.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Leg {
            call_id: format!("{}@test", token()),
            local: format!("<sip:{}@{domain}>;tag={}", self.user, token()),
            remote: format!("<sip:{number}@{domain}>"),
            target: format!("sip:{number}@{domain}"),
            routes: Vec::new(),
            cseq: 0,
            branch: String::new(),
            invite_uri: String::new(),
            invite: String::new(),
        }
    }

    /// Sends the next request of a dialog.
    pub(crate) fn next(&self, leg: &mut Leg, method: &str, headers: &str, body: &str) {
        leg.cseq += 1;
        let branch = format!("z9hG4bK{}", token());
        let text = self.text(leg, method, &leg.target, &branch, headers, body);
        if method == "INVITE" {
            leg.branch = branch;
            leg.invite_uri = leg.target.clone();
            leg.invite = text.clone();
        }
        self.send(text);
    }

    /// Calls, and answers the challenge. The next message is the first response to the INVITE with credentials.
    #[track_caller]
    pub(crate) fn call(&self, number: &str, sdp: &str) -> Leg {
        self.call_with(number, "", sdp)
    }

    /// [`Ua::call`] with more headers.
    #[track_caller]
    pub(crate) fn call_with(&self, number: &str, headers: &str, sdp: &str) -> Leg {
        self.call_from(self.leg(number), headers, sdp)
    }

    /// [`Ua::call`] of whom this leg is for.
    #[track_caller]
    pub(crate) fn call_as(&self, leg: Leg, sdp: &str) -> Leg {
        self.call_from(leg, "", sdp)
    }

    #[track_caller]
    fn call_from(&self, mut leg: Leg, headers: &str, sdp: &str) -> Leg {
        self.next(&mut leg, "INVITE", headers, sdp);
        let challenge = self.response("INVITE", 401);
        self.ack(&leg, &challenge);
        let challenge = Challenge::parse(challenge.header("WWW-Authenticate"));
        let answer = challenge.answer(&self.user, &self.password, "INVITE", &leg.target, 1);
        self.next(&mut leg, "INVITE", &format!("{headers}Authorization: {answer}\r\n"), sdp);
        leg
    }

    /// Acknowledges a final response to our INVITE: within the transaction a refusal, on its own a 2xx.
    pub(crate) fn ack(&self, leg: &Leg, response: &Msg) {
        let mut ack = leg.clone();
        ack.cseq = response.cseq();
        ack.remote = response.header("To").to_owned();
        let text = if response.status().is_some_and(|status| status < 300) {
            self.text(&ack, "ACK", &response.contact(), &format!("z9hG4bK{}", token()), "", "")
        } else {
            self.text(&ack, "ACK", &leg.invite_uri, &leg.branch, "", "")
        };
        self.send(text);
    }

    /// Waits for the 200 to our INVITE, acknowledges it, and makes the leg a dialog.
    #[track_caller]
    pub(crate) fn established(&self, leg: &mut Leg) -> Msg {
        let answer = self.response("INVITE", 200);
        self.accept(leg, &answer);
        answer
    }

    /// Acknowledges a 200 to our INVITE and makes the leg a dialog.
    pub(crate) fn accept(&self, leg: &mut Leg, answer: &Msg) {
        if !leg.remote.contains(";tag=") {
            leg.routes = answer.record_routes();
            leg.routes.reverse();
        }
        self.ack(leg, answer);
        leg.remote = answer.header("To").to_owned();
        leg.target = answer.contact();
    }

    /// Waits for the refusal of our INVITE and acknowledges it.
    #[track_caller]
    pub(crate) fn refused(&self, leg: &Leg) -> Msg {
        let answer = self.final_response("INVITE");
        assert!(answer.status().is_some_and(|status| status >= 300), "{answer:?}");
        self.ack(leg, &answer);
        answer
    }

    /// Cancels our last INVITE.
    pub(crate) fn cancel(&self, leg: &Leg) {
        self.send(self.text(leg, "CANCEL", &leg.invite_uri, &leg.branch, "", ""));
    }

    /// Ends the dialog and waits for the 200.
    #[track_caller]
    pub(crate) fn hang_up(&self, leg: &mut Leg) {
        self.next(leg, "BYE", "", "");
        self.response("BYE", 200);
    }

    /// Registers `contacts` (Contact values; none is our own) and gives the final response.
    #[track_caller]
    pub(crate) fn register(&self, contacts: &[&str], headers: &str) -> Msg {
        let mut leg = self.registration();
        let first = self.register_once(&mut leg, contacts, headers);
        if first.status() != Some(401) {
            return first;
        }
        let challenge = Challenge::parse(first.header("WWW-Authenticate"));
        let answer = challenge.answer(&self.user, &self.password, "REGISTER", &leg.target, 1);
        self.register_once(&mut leg, contacts, &format!("{headers}Authorization: {answer}\r\n"))
    }

    /// A registration that has not begun.
    pub(crate) fn registration(&self) -> Leg {
        let mut leg = self.leg(&self.user);
        leg.target = leg.target.replacen(&format!("{}@", self.user), "", 1);
        leg
    }

    /// Sends one REGISTER and gives its final response.
    #[track_caller]
    pub(crate) fn register_once(&self, leg: &mut Leg, contacts: &[&str], headers: &str) -> Msg {
        leg.cseq += 1;
        let branch = format!("z9hG4bK{}", token());
        let text = self.text(leg, "REGISTER", &leg.target, &branch, headers, "");
        // The request of everything else has its own Contact; this one has those that are asked for.
        let own = format!("Contact: <{}>\r\n", self.contact());
        let asked: String = contacts.iter().map(|contact| format!("Contact: {contact}\r\n")).collect();
        self.send(if contacts.is_empty() { text } else { text.replacen(&own, &asked, 1) });
        self.final_response("REGISTER")
    }

    /// Registers its own contact for ten minutes.
    #[track_caller]
    pub(crate) fn registered(self) -> Ua {
        let answer = self.register(&[], "Expires: 600\r\n");
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        self
    }

    /// Answers a request. `tag` is our To tag, if it is to have one.
    pub(crate) fn respond(&self, request: &Msg, status: &str, tag: &str, headers: &str, body: &str) {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for via in request.headers("Via") {
            text += &format!("Via: {via}\r\n");
        }
        for route in request.headers("Record-Route") {
            text += &format!("Record-Route: {route}\r\n");
        }
        let to = request.header("To");
        let to =
            if tag.is_empty() || to.contains(";tag=") { to.to_owned() } else { format!("{to};tag={tag}") };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        text += &format!(
            "From: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\nContact: <{}>\r\n{headers}{kind}Content-Length: {}\r\n\r\n{body}",
            request.header("From"),
            request.header("Call-ID"),
            request.header("CSeq"),
            self.contact(),
            body.len()
        );
        self.send(text);
    }

    /// The leg that an INVITE to us makes.
    pub(crate) fn leg_of(&self, invite: &Msg, tag: &str) -> Leg {
        Leg {
            call_id: invite.header("Call-ID").to_owned(),
            local: format!("{};tag={tag}", invite.header("To")),
            remote: invite.header("From").to_owned(),
            target: invite.contact(),
            routes: invite.record_routes(),
            cseq: 100,
            branch: String::new(),
            invite_uri: String::new(),
            invite: String::new(),
        }
    }

    /// Answers an INVITE with 200 and waits for its ACK.
    #[track_caller]
    pub(crate) fn answer(&self, invite: &Msg, sdp: &str) -> Leg {
        let tag = token();
        self.respond(invite, "200 OK", &tag, "", sdp);
        self.request("ACK");
        self.leg_of(invite, &tag)
    }
}
