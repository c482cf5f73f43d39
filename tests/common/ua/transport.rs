//! What a user agent speaks by: datagrams, or the messages of a stream (RFC 3261 §18.3).
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::super::Msg;
use super::super::tls::Openssl;

/// What a user agent speaks by.
pub(super) enum Socket {
    Udp(UdpSocket),
    /// A connection, and what has come by it and was not taken yet.
    Tcp(TcpStream, RefCell<Vec<u8>>),
    /// The same over TLS, and the address that it is known by.
    Tls(Openssl, SocketAddr, RefCell<Vec<u8>>),
}

impl Socket {
    /// The address of this end.
    pub(super) fn local(&self) -> SocketAddr {
        match self {
            Socket::Udp(socket) => socket.local_addr(),
            Socket::Tcp(stream, _) => stream.local_addr(),
            Socket::Tls(_, local, _) => Ok(*local),
        }
        .expect("an address")
    }

    /// Its name in Via.
    pub(super) fn transport(&self) -> &'static str {
        match self {
            Socket::Udp(_) => "UDP",
            Socket::Tcp(..) => "TCP",
            Socket::Tls(..) => "TLS",
        }
    }

    /// Sends bytes as they are, by UDP to this address.
    pub(super) fn send(&self, bytes: &[u8], to: SocketAddr) {
        match self {
            Socket::Udp(socket) => drop(socket.send_to(bytes, to).expect("sent")),
            Socket::Tcp(stream, _) => (&*stream).write_all(bytes).expect("sent"),
            Socket::Tls(openssl, ..) => openssl.pipe().write_all(bytes).expect("sent"),
        }
    }

    /// The next message that comes until then; keep-alives are no messages.
    pub(super) fn take(&self, deadline: Instant) -> Option<Msg> {
        let mut buffer = vec![0; 65_535];
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            let socket = match self {
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
    pub(super) fn is_kept_alive(&self, limit: Duration) -> bool {
        let mut buffer = [0; 4];
        let read = match self {
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
