//! RTP by hand.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::SOON;

/// One end of a stream: a socket for RTP and, on the next port, one for RTCP.
pub(crate) struct RtpEnd {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    sequence: std::cell::Cell<u16>,
    ssrc: u32,
}

impl RtpEnd {
    /// A pair of ports at `ip`.
    pub(crate) fn new(ip: IpAddr) -> RtpEnd {
        for _ in 0..100 {
            let rtp = UdpSocket::bind((ip, 0)).expect("a port");
            let port = rtp.local_addr().expect("an address").port();
            if port.is_multiple_of(2)
                && let Ok(rtcp) = UdpSocket::bind((ip, port + 1))
            {
                return RtpEnd { rtp, rtcp, sequence: 1.into(), ssrc: u32::from(port) << 8 };
            }
        }
        panic!("no pair of ports at {ip}");
    }

    /// Where it takes RTP.
    pub(crate) fn local(&self) -> SocketAddr {
        self.rtp.local_addr().expect("an address")
    }

    /// Sends one packet of 20 ms of PCMU whose samples are all `fill`.
    pub(crate) fn say(&self, to: SocketAddr, fill: u8) {
        self.send(to, 0, false, &[fill; 160]);
    }

    /// Sends one packet.
    pub(crate) fn send(&self, to: SocketAddr, payload_type: u8, marker: bool, payload: &[u8]) {
        let sequence = self.sequence.get();
        self.sequence.set(sequence.wrapping_add(1));
        let mut packet = vec![0x80, payload_type | if marker { 0x80 } else { 0 }];
        packet.extend(sequence.to_be_bytes());
        packet.extend((u32::from(sequence) * 160).to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(payload);
        self.rtp.send_to(&packet, to).expect("sent");
    }

    /// Sends bytes to the RTCP port that belongs to an RTP address.
    pub(crate) fn send_rtcp(&self, to: SocketAddr, packet: &[u8]) {
        self.rtcp.send_to(packet, SocketAddr::new(to.ip(), to.port() + 1)).expect("sent");
    }

    /// Waits for an RTP packet that `pick` accepts: its payload type and payload.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, pick: impl Fn(u8, &[u8]) -> bool) -> Vec<u8> {
        receive(&self.rtp, what, |packet| packet.len() > 12 && pick(packet[1] & 0x7f, &packet[12..]))
    }

    /// Waits for an RTCP packet.
    #[track_caller]
    pub(crate) fn wait_rtcp(&self, what: &str, pick: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        receive(&self.rtcp, what, pick)
    }

    /// Sends `fill` each 20 ms until the other end hears it there; `None` if it never does.
    pub(crate) fn until_heard(&self, to: SocketAddr, fill: u8, other: &RtpEnd) -> Option<()> {
        self.until(to, fill, other, SOON)
    }

    /// [`RtpEnd::until_heard`] with a limit.
    pub(crate) fn until(&self, to: SocketAddr, fill: u8, other: &RtpEnd, limit: Duration) -> Option<()> {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 2_048];
        other.rtp.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        while Instant::now() < deadline {
            self.say(to, fill);
            while let Ok(length) = other.rtp.recv(&mut buffer) {
                if length == 172 && buffer[12..172].iter().all(|sample| *sample == fill) {
                    return Some(());
                }
            }
        }
        None
    }
}

#[track_caller]
fn receive(socket: &UdpSocket, what: &str, pick: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let deadline = Instant::now() + SOON;
    let mut buffer = [0; 2_048];
    let mut others = 0;
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left)).expect("a timeout");
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        if pick(&buffer[..length]) {
            return buffer[..length].to_vec();
        }
        others += 1;
    }
    panic!("no {what}, but {others} other packets");
}
