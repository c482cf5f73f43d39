//! A user agent on a plain socket: it says exactly what the test tells it to.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

mod transport;
mod uac;
mod uas;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::tls::Openssl;
use super::{Engine, Msg, SOON};
use transport::Socket;

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
        self.socket.local()
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

    /// Sends bytes as they are.
    pub(crate) fn send(&self, bytes: impl AsRef<[u8]>) {
        self.socket.send(bytes.as_ref(), self.server);
    }

    /// The next message that comes within `limit`; keep-alives are no messages.
    pub(crate) fn receive(&self, limit: Duration) -> Option<Msg> {
        let message = self.socket.take(Instant::now() + limit)?;
        self.seen.borrow_mut().insert(message.text.clone());
        Some(message)
    }

    /// The same, but copies of what has come before are passed over: whoever is late to answer gets them, as of any UDP. An ACK is
    /// never sent by itself, so two that are alike are two.
    pub(crate) fn fresh(&self, limit: Duration) -> Option<Msg> {
        let deadline = Instant::now() + limit;
        loop {
            let message = self.socket.take(deadline)?;
            if self.seen.borrow_mut().insert(message.text.clone()) || message.is("ACK") {
                return Some(message);
            }
        }
    }

    /// Whether a line end comes that only keeps the way open (RFC 5626 §4.4.1).
    pub(crate) fn is_kept_alive(&self, limit: Duration) -> bool {
        self.socket.is_kept_alive(limit)
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
            self.socket.transport(),
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
}
