//! Connections to the engine's SIP port, and those that it opens.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::engine::stations;
use super::{Engine, SOON, eventually};

/// UDP and TCP on the same port.
pub(crate) fn both(tcp: &str) -> String {
    format!(
        "[[listen]]\nname = \"udp\"\naddress = \"{{ip}}:5060\"\n\
         [[listen]]\nname = \"tcp\"\ntransport = \"tcp\"\naddress = \"{{ip}}:5060\"\n{tcp}\n{}",
        stations(&["1001", "1002"])
    )
}

/// An OPTIONS up to its last headers, which are `more`.
pub(crate) fn options(engine: &Engine, id: &str, more: &str) -> String {
    let ip = engine.sip.ip();
    format!(
        "OPTIONS sip:{ip} SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.9;branch=z9hG4bK{id};rport\r\n\
         From: <sip:x@{ip}>;tag=1\r\nTo: <sip:{ip}>\r\nCall-ID: {id}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n{more}"
    )
}

/// The end of a message without a body.
pub(crate) const EMPTY: &str = "Content-Length: 0\r\n\r\n";

/// Reads until the engine closes; what came.
#[track_caller]
pub(crate) fn until_closed(mut stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the engine did not close: {error}"),
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// The connection that the engine opens.
#[track_caller]
pub(crate) fn accepted(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("set");
    let (stream, _) = eventually("a new connection", || listener.accept().ok());
    stream.set_nonblocking(false).expect("set");
    stream
}

/// Ends a connection as a process that dies does.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
}

/// A port of TCP that answers nobody: the kernel drops what a full queue has no room for.
pub(crate) fn silent_port(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind(address).expect("the port");
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
    }
    (listener, waiting)
}
