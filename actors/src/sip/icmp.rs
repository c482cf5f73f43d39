//! ICMP errors of the datagrams that we sent (RFC 3261 §18.4): whom nobody listens for is known at once, not after 32 s.
//!
//! Linux queues them at the socket (`IP_RECVERR`) with where the datagram went and how it began. Only that beginning says which
//! request it was, and that the error is not made up: a Via branch of ours cannot be guessed.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket as StdUdpSocket};
use std::os::fd::AsRawFd;

use bytes::Bytes;
use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrLike, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use tandem_protocol::message::Method;

/// As much of a datagram as an error may quote (RFC 4443 §2.4: no packet of it is larger than 1280 bytes).
const LONGEST_QUOTE: usize = 1280;
/// `SO_EE_ORIGIN_ICMP` and `ICMP_DEST_UNREACH`; `SO_EE_ORIGIN_ICMP6` and `ICMPV6_DEST_UNREACH`. Other errors mean less: that a
/// packet was too large, or went round.
const UNREACHABLE: [(u8, u8); 2] = [(2, 3), (3, 1)];

/// A datagram of ours that could not be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// Where it went.
    pub remote: SocketAddr,
    /// How it began.
    pub quoted: Bytes,
}

impl Undelivered {
    /// The request that it was: the branch of its Via, and its method. `None` if too little is quoted.
    pub fn request(&self) -> Option<(&str, Method)> {
        let (line, rest) = split_at(&self.quoted, b"\r\nVia: ")?;
        let (_, rest) = split_at(rest, b";branch=")?;
        let end = rest.iter().position(|b| matches!(b, b';' | b',' | b' ' | b'\r'))?;
        let method = std::str::from_utf8(line).ok()?.split(' ').next()?;
        Some((std::str::from_utf8(&rest[..end]).ok()?, Method::parse(method)))
    }
}

fn split_at<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}

/// Asks the kernel to queue the errors of what this socket sends.
pub(super) fn ask_for_errors(socket: &StdUdpSocket, v6: bool) {
    // Without them a silent peer is found by its timer.
    let asked = if v6 {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)
    } else {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)
    };
    if let Err(why) = asked {
        tracing::warn!(%why, "ICMP errors are not heard: a peer that is gone is found by its silence");
    }
}

/// Takes the next error from the queue of a socket; `None` if it says nothing about whether its peer can be reached.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] once the queue is empty.
pub(super) fn next_error(socket: &impl AsRawFd) -> io::Result<Option<Undelivered>> {
    let mut quote = [0; LONGEST_QUOTE];
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let mut parts = [IoSliceMut::new(&mut quote)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let (remote, length) = {
        let error = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let says_so = error.cmsgs()?.any(|message| match message {
            ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
                UNREACHABLE.contains(&(error.ee_origin, error.ee_type))
            }
            _ => false,
        });
        (error.address.filter(|_| says_so).as_ref().and_then(address), error.bytes)
    };
    let quoted = Bytes::copy_from_slice(&quote[..length.min(LONGEST_QUOTE)]);
    Ok(remote.map(|remote| Undelivered { remote, quoted }))
}

pub(super) fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6))))
        .filter(|_| storage.family().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &'static str) -> Undelivered {
        Undelivered { remote: ([127, 0, 0, 1], 5060).into(), quoted: Bytes::from_static(text.as_bytes()) }
    }

    #[test]
    fn the_branch_of_our_via_names_the_request_and_what_the_uri_says_does_not() {
        let whole =
            "OPTIONS sip:a;branch=b@c SIP/2.0\r\nVia: SIP/2.0/UDP h:5060;branch=z9hG4bKx.1;rport\r\nMax-";
        assert_eq!(quoted(whole).request(), Some(("z9hG4bKx.1", Method::Options)));
        for short in ["", "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4", "\r\n\r\n"] {
            assert_eq!(quoted(short).request(), None, "{short}");
        }
    }

    #[test]
    fn a_datagram_to_a_port_that_nobody_has_comes_back_with_its_beginning() {
        for (address, v6) in [("127.0.0.1:0", false), ("[::1]:0", true)] {
            let socket = StdUdpSocket::bind(address).unwrap();
            ask_for_errors(&socket, v6);
            let gone = StdUdpSocket::bind(address).unwrap().local_addr().unwrap();
            socket.send_to(b"OPTIONS sip:x SIP/2.0\r\n", gone).unwrap();
            let error = (0..1000).find_map(|_| next_error(&socket).ok()).flatten().unwrap();
            assert_eq!((error.remote, &error.quoted[..]), (gone, &b"OPTIONS sip:x SIP/2.0\r\n"[..]));
            assert_eq!(next_error(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }
}
