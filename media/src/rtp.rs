//! RTP packets (RFC 3550 §5.1) and the first look at a datagram (RFC 7983, RFC 5761).

use thiserror::Error;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 12;

/// One RTP packet, a view of the datagram it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpPacket<'a> {
    /// For audio: the first packet after a silence; for telephone-event: the first packet of an event.
    pub marker: bool,
    /// 0 to 127; what it means is agreed in the SDP.
    pub payload_type: u8,
    /// Grows by one a packet and wraps.
    pub sequence: u16,
    /// The sampling instant of the first sample, in units of the payload's clock; wraps.
    pub timestamp: u32,
    /// The synchronisation source: whose sequence and timestamps these are.
    pub ssrc: u32,
    /// What follows the header, its CSRC list and its extension, without the padding.
    pub payload: &'a [u8],
}

/// Why a datagram is not an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RtpError {
    /// The datagram is shorter than the fixed header.
    #[error("{0} bytes are too few for an RTP header")]
    TooShort(usize),
    /// The version is not 2.
    #[error("RTP version {0} is not 2")]
    Version(u8),
    /// The CSRC list runs over the end of the datagram.
    #[error("the CSRC list is cut off")]
    Csrc,
    /// The header extension runs over the end of the datagram.
    #[error("the header extension is cut off")]
    Extension,
    /// The padding count is zero or larger than what follows the header.
    #[error("the padding count does not fit")]
    Padding,
}

impl<'a> RtpPacket<'a> {
    /// Reads a datagram. CSRC list, header extension and padding are checked and left out.
    ///
    /// # Errors
    ///
    /// [`RtpError`] if any length in the packet contradicts the datagram, or the version is not 2.
    #[inline]
    pub fn parse(datagram: &'a [u8]) -> Result<RtpPacket<'a>, RtpError> {
        let (header, mut rest) =
            datagram.split_first_chunk::<HEADER_LEN>().ok_or(RtpError::TooShort(datagram.len()))?;
        if header[0] >> 6 != 2 {
            return Err(RtpError::Version(header[0] >> 6));
        }
        // One test sends the usual packet past all three rare parts.
        if header[0] & 0x3f != 0 {
            rest = strip(header[0], rest)?;
        }
        Ok(RtpPacket {
            marker: header[1] & 0x80 != 0,
            payload_type: header[1] & 0x7f,
            sequence: u16::from_be_bytes([header[2], header[3]]),
            timestamp: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            ssrc: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            payload: rest,
        })
    }

    /// Appends the packet to `out`: a fixed header without CSRC, extension or padding, then the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(HEADER_LEN + self.payload.len());
        out.push(0x80);
        out.push(u8::from(self.marker) << 7 | self.payload_type & 0x7f);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(self.payload);
    }
}

/// Leaves out what the first header byte announces around the payload.
fn strip(first: u8, mut rest: &[u8]) -> Result<&[u8], RtpError> {
    rest = rest.get(usize::from(first & 0x0f) * 4..).ok_or(RtpError::Csrc)?;
    if first & 0x10 != 0 {
        let (head, body) = rest.split_first_chunk::<4>().ok_or(RtpError::Extension)?;
        let words = usize::from(u16::from_be_bytes([head[2], head[3]]));
        rest = body.get(words * 4..).ok_or(RtpError::Extension)?;
    }
    if first & 0x20 != 0 {
        let count = usize::from(*rest.last().ok_or(RtpError::Padding)?);
        if count == 0 {
            return Err(RtpError::Padding);
        }
        rest = rest.len().checked_sub(count).and_then(|end| rest.get(..end)).ok_or(RtpError::Padding)?;
    }
    Ok(rest)
}

/// What a datagram on a media port is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// STUN (RFC 8489), used by ICE and for NAT keep-alive.
    Stun,
    /// DTLS, as in DTLS-SRTP (RFC 5764).
    Dtls,
    /// RTP or SRTP.
    Rtp,
    /// RTCP or SRTCP, told from RTP by RFC 5761 §4.
    Rtcp,
    /// ZRTP (RFC 6189).
    Zrtp,
    /// TURN ChannelData (RFC 8656).
    TurnChannel,
    /// None of these.
    Unknown,
}

/// Tells what a datagram is by the ranges of RFC 7983 §7 and, for RTP and RTCP on one port, RFC 5761 §4.
/// It looks at two bytes and validates nothing.
#[inline]
pub fn classify(datagram: &[u8]) -> PacketKind {
    match datagram {
        [128..=191, 192..=223, ..] => PacketKind::Rtcp,
        [128..=191, _, ..] => PacketKind::Rtp,
        [0..=3, ..] => PacketKind::Stun,
        [16..=19, ..] => PacketKind::Zrtp,
        [20..=63, ..] => PacketKind::Dtls,
        [64..=79, ..] => PacketKind::TurnChannel,
        [] | [_, ..] => PacketKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(first: u8) -> Vec<u8> {
        let mut bytes = vec![first, 0x80, 0x12, 0x34, 0, 0, 0, 160, 0xde, 0xad, 0xbe, 0xef];
        bytes.resize(HEADER_LEN, 0);
        bytes
    }

    #[test]
    fn a_plain_packet_is_read_field_by_field() {
        let mut bytes = header(0x80);
        bytes.extend([1, 2, 3]);
        let packet = RtpPacket::parse(&bytes).unwrap();
        assert_eq!(
            packet,
            RtpPacket {
                marker: true,
                payload_type: 0,
                sequence: 0x1234,
                timestamp: 160,
                ssrc: 0xdead_beef,
                payload: &[1, 2, 3]
            }
        );
    }

    #[test]
    fn csrc_list_extension_and_padding_are_left_out_of_the_payload() {
        let mut bytes = header(0x80 | 0x20 | 0x10 | 2);
        bytes.extend([0; 8]);
        bytes.extend([0xbe, 0xde, 0, 1, 9, 9, 9, 9]);
        bytes.extend([1, 2, 3, 0, 0, 3]);
        assert_eq!(RtpPacket::parse(&bytes).unwrap().payload, &[1, 2, 3]);
    }

    #[test]
    fn lengths_that_contradict_the_datagram_are_refused() {
        assert_eq!(RtpPacket::parse(&[0x80; 11]), Err(RtpError::TooShort(11)));
        assert_eq!(RtpPacket::parse(&header(0x40)), Err(RtpError::Version(1)));
        assert_eq!(RtpPacket::parse(&header(0x81)), Err(RtpError::Csrc));
        assert_eq!(RtpPacket::parse(&header(0x90)), Err(RtpError::Extension));
        let mut extension = header(0x90);
        extension.extend([0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(RtpPacket::parse(&extension), Err(RtpError::Extension));
        assert_eq!(RtpPacket::parse(&header(0xa0)), Err(RtpError::Padding));
        for count in [0, 5] {
            let mut padded = header(0xa0);
            padded.extend([1, 2, 3, count]);
            assert_eq!(RtpPacket::parse(&padded), Err(RtpError::Padding));
        }
    }

    #[test]
    fn datagrams_are_told_apart_by_their_first_bytes() {
        let kinds = [
            (&[0x00u8, 0x01][..], PacketKind::Stun),
            (&[16, 0], PacketKind::Zrtp),
            (&[22, 0xfe], PacketKind::Dtls),
            (&[64, 0], PacketKind::TurnChannel),
            (&[0x80, 0x00], PacketKind::Rtp),
            (&[0x80, 0x80 | 101], PacketKind::Rtp),
            (&[0x80, 191], PacketKind::Rtp),
            (&[0x80, 200], PacketKind::Rtcp),
            (&[0x81, 223], PacketKind::Rtcp),
            (&[0x81, 224], PacketKind::Rtp),
            (&[4, 0], PacketKind::Unknown),
            (&[80, 0], PacketKind::Unknown),
            (&[192, 0], PacketKind::Unknown),
            (&[0x80], PacketKind::Unknown),
            (&[], PacketKind::Unknown),
        ];
        for (bytes, kind) in kinds {
            assert_eq!(classify(bytes), kind, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80), first in 0x80u8..0xc0) {
            let _ = RtpPacket::parse(&bytes);
            let mut bytes = bytes;
            if let Some(byte) = bytes.first_mut() { *byte = first; }
            if let Ok(packet) = RtpPacket::parse(&bytes) {
                prop_assert!(packet.payload.len() + HEADER_LEN <= bytes.len());
            }
            let _ = classify(&bytes);
        }

        #[test]
        fn what_is_written_is_read_back(
            marker: bool, payload_type in 0u8..128, sequence: u16, timestamp: u32, ssrc: u32,
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let packet = RtpPacket { marker, payload_type, sequence, timestamp, ssrc, payload: &payload };
            let mut bytes = Vec::new();
            packet.write(&mut bytes);
            prop_assert_eq!(RtpPacket::parse(&bytes), Ok(packet));
        }
    }
}
