//! UDP: one socket a shard and listener; the kernel spreads peers over them.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use actix::Addr;
use bytes::Bytes;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use smallvec::SmallVec;
use socket2::{Domain, Protocol, Socket, Type};
use tandem_protocol::flow::ListenerId;
use tandem_protocol::time::UnixMillis;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::icmp::{self, Undelivered};
use crate::env::{Datagram, Tell, Unsent};
use crate::seat::Seat;
use crate::shard::{Datagrams, NotDelivered, Overflowed, Shard};

/// Datagrams taken from a socket before the shard's actors get their turn.
const BATCH: usize = 32;
/// How often a datagram is handed to a socket that reports errors of earlier ones instead: each is reported once.
const SEND_TRIES: usize = 8;
/// The largest datagram UDP can carry.
const LARGEST_DATAGRAM: usize = 65_535;
/// Asked of the kernel for each SIP socket; it grants what it may: to others than root no more than `net.core.rmem_max`.
const SOCKET_BUFFER: usize = 4 << 20;

/// Binds a listener: one socket a shard on the same address. An IPv6 address hears IPv6 only.
///
/// # Errors
/// The address is in use, or not ours.
pub fn bind(address: SocketAddr, shards: u16) -> io::Result<(SocketAddr, Vec<StdUdpSocket>)> {
    // The first bind is exclusive: another process on the port is found even if it shares ports as we do.
    let probe = socket(address, false)?;
    let address = probe.local_addr()?;
    drop(probe);
    let sockets = (0..shards.max(1)).map(|_| socket(address, true)).collect::<io::Result<Vec<_>>>()?;
    Ok((address, sockets))
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<StdUdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // The kernel's bound may be lower; more room only helps in a burst.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)
        .map_err(io::Error::from)
        .or_else(|_| socket.set_recv_buffer_size(SOCKET_BUFFER));
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    let socket = socket.into();
    icmp::ask_for_errors(&socket, address.is_ipv6());
    if let Err(why) = setsockopt(&socket, sockopt::ReceiveTimestampns, &true) {
        tracing::warn!(%why, "the kernel does not say when datagrams came: overload is not noticed");
    }
    if let Err(why) = setsockopt(&socket, sockopt::RxqOvfl, &1) {
        tracing::warn!(%why, "the kernel does not say how many datagrams found no room: that is not counted");
    }
    Ok(socket)
}

/// What was taken from a socket besides the bytes.
struct Taken {
    length: usize,
    from: SocketAddr,
    /// When it came: it may have waited in the socket's buffer.
    arrived: Option<UnixMillis>,
    /// How many had found no room in the buffer by then, ever.
    overflowed: Option<u32>,
}

/// Takes a datagram with what the kernel says of it.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Taken> {
    let mut control = nix::cmsg_space!(libc::timespec, u32);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let taken = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let (mut arrived, mut overflowed) = (None, None);
    for message in taken.cmsgs()? {
        match message {
            ControlMessageOwned::ScmTimestampns(at) => {
                arrived = Some(UnixMillis(at.tv_sec() as u64 * 1000 + at.tv_nsec() as u64 / 1_000_000));
            }
            ControlMessageOwned::RxqOvfl(count) => overflowed = Some(count),
            _ => {}
        }
    }
    let from = taken.address.as_ref().and_then(icmp::address).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Taken { length: taken.bytes, from, arrived, overflowed })
}

/// Sends a datagram.
///
/// # Errors
/// The socket is full, or no way leads there.
pub(crate) fn send(socket: &StdUdpSocket, to: SocketAddr, datagram: &Bytes) -> Result<(), Unsent> {
    for _ in 0..SEND_TRIES {
        match socket.send_to(datagram, to) {
            Ok(_) => return Ok(()),
            Err(why) => match why.kind() {
                io::ErrorKind::WouldBlock => return Err(Unsent::Full),
                // Tells of an earlier datagram (ICMP), whosever it was, not of this one.
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::Interrupted => {}
                _ => return Err(Unsent::Unreachable),
            },
        }
    }
    Err(Unsent::Unreachable)
}

/// Hands the shard what the socket's queue of errors holds.
fn take_errors(socket: &UdpSocket, shard: &Addr<Shard>) {
    for _ in 0..BATCH {
        match socket.try_io(Interest::ERROR, || icmp::next_error(socket)) {
            Ok(Some(error)) => {
                let Undelivered { remote, .. } = &error;
                tracing::debug!(peer = %remote, "a datagram came to nobody");
                shard.tell(NotDelivered(error));
            }
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

/// What a socket is read by.
struct Reader {
    socket: UdpSocket,
    listener: ListenerId,
    buffer: Vec<u8>,
    /// How many datagrams had found no room when the kernel was last asked.
    overflowed: u32,
}

impl Reader {
    /// Takes what there is, but not too much at once, and how many have found no room since the last time.
    fn batch(&mut self) -> (SmallVec<[Datagram; 16]>, u32) {
        let (mut batch, mut overflowed) = (SmallVec::new(), self.overflowed);
        while batch.len() < BATCH {
            let Reader { socket, listener, buffer, .. } = self;
            // The first has waited longest.
            let taken = if batch.is_empty() {
                socket.try_io(Interest::READABLE, || receive(socket, buffer))
            } else {
                let taken = socket.try_recv_from(buffer);
                taken.map(|(length, from)| Taken { length, from, arrived: None, overflowed: None })
            };
            match taken {
                Ok(taken) => {
                    let bytes = Bytes::copy_from_slice(&buffer[..taken.length]);
                    let datagram = Datagram::new(*listener, taken.from, bytes);
                    batch.push(Datagram { arrived: taken.arrived, ..datagram });
                    overflowed = taken.overflowed.unwrap_or(overflowed);
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error of an earlier send, which the queue of errors tells more of.
                Err(why) => {
                    tracing::debug!(?listener, %why, "receive error");
                    break;
                }
            }
        }
        let more = overflowed.wrapping_sub(std::mem::replace(&mut self.overflowed, overflowed));
        (batch, more)
    }
}

/// Reads a listener's socket for ever.
pub(crate) async fn listen(socket: UdpSocket, listener: ListenerId, shard: Addr<Shard>, seat: Arc<Seat>) {
    let mut reader = Reader { socket, listener, buffer: vec![0; LARGEST_DATAGRAM], overflowed: 0 };
    // What has found no room before was for the shard that was stuck.
    let mut counts = seat.epoch() == 0;
    loop {
        let ready = reader.socket.ready(Interest::READABLE | Interest::ERROR).await;
        // What a shard that was fenced would take is lost.
        seat.halt_if_fenced();
        match ready {
            Ok(ready) if ready.is_error() => take_errors(&reader.socket, &shard),
            Ok(_) => {}
            Err(why) => {
                tracing::error!(?listener, %why, "a SIP socket has failed");
                return;
            }
        }
        let (batch, overflowed) = reader.batch();
        if overflowed > 0 && std::mem::replace(&mut counts, true) {
            shard.tell(Overflowed(overflowed));
        }
        if !batch.is_empty() {
            shard.tell(Datagrams(batch));
        }
        tokio::task::yield_now().await;
        if !shard.connected() {
            // A fault has ended its actor: what waits is for the next one.
            return;
        }
    }
}
