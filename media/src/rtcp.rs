//! RTCP (RFC 3550 §6): validated reading of compound packets, and building our own.
//!
//! Reading allocates nothing: a [`Compound`] is a view of its datagram.

mod build;

use thiserror::Error;

pub use build::CompoundBuilder;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const APP: u8 = 204;
const CNAME: u8 = 1;
const REPORT_BLOCK_LEN: usize = 24;

/// Why a datagram is not a compound RTCP packet (RFC 3550 §6.1, A.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RtcpError {
    /// A packet is cut off, or its length field leads past the datagram.
    #[error("a packet of the compound is cut off")]
    Cut,
    /// The version of one of the packets is not 2.
    #[error("RTCP version {0} is not 2")]
    Version(u8),
    /// The first packet is not a sender or receiver report.
    #[error("the compound begins with packet type {0}, not with a report")]
    NotAReport(u8),
    /// A packet other than the last is padded, or the padding count does not fit.
    #[error("the padding is misplaced or does not fit")]
    Padding,
    /// The counts inside a packet contradict its length.
    #[error("packet type {0} is shorter than its own counts say")]
    Counts(u8),
}

/// The sender's half of a sender report (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// Wall-clock time of the report, 32.32 fixed point seconds since 1900.
    pub ntp: u64,
    /// The same instant in units of the RTP timestamp.
    pub rtp_timestamp: u32,
    /// RTP packets sent so far; wraps.
    pub packets: u32,
    /// Payload bytes sent so far; wraps.
    pub octets: u32,
}

/// What one receiver heard of one source (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source reported on.
    pub ssrc: u32,
    /// Loss since the previous report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning, 24 bits; negative when duplicates outnumber losses.
    pub cumulative_lost: i32,
    /// The highest sequence received, its roll-overs in the upper half.
    pub highest_sequence: u32,
    /// Interarrival jitter, in units of the RTP timestamp.
    pub jitter: u32,
    /// The middle 32 bits of the NTP time of the last sender report; 0 if there was none.
    pub last_sr: u32,
    /// Time since that report arrived, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    fn read(bytes: &[u8]) -> Option<ReportBlock> {
        let word = |at: usize| be32(bytes, at * 4);
        let loss = word(1)?;
        Some(ReportBlock {
            ssrc: word(0)?,
            fraction_lost: (loss >> 24) as u8,
            // Up and down again to spread the sign of 24 bits over 32.
            cumulative_lost: ((loss << 8) as i32) >> 8,
            highest_sequence: word(2)?,
            jitter: word(3)?,
            last_sr: word(4)?,
            delay_since_last_sr: word(5)?,
        })
    }

    /// The round-trip time that this block proves, in 1/65536 s, if it arrived at `ntp_middle` (the middle
    /// 32 bits of our NTP time). `None` if it answers no report of ours (RFC 3550 §6.4.1).
    pub fn round_trip(&self, ntp_middle: u32) -> Option<u32> {
        let spent = ntp_middle.wrapping_sub(self.last_sr).wrapping_sub(self.delay_since_last_sr);
        // More than half the range is a negative time: clocks stepped, or the peer's delay is nonsense.
        (self.last_sr != 0 && spent < 1 << 31).then_some(spent)
    }
}

/// One packet of a compound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcpPacket<'a> {
    /// SR (200).
    SenderReport {
        /// The reporter.
        ssrc: u32,
        /// What it sent.
        info: SenderInfo,
        /// What it heard.
        blocks: ReportBlocks<'a>,
    },
    /// RR (201).
    ReceiverReport {
        /// The reporter.
        ssrc: u32,
        /// What it heard.
        blocks: ReportBlocks<'a>,
    },
    /// SDES (202).
    SourceDescription(SourceDescription<'a>),
    /// BYE (203).
    Bye(Bye<'a>),
    /// APP (204).
    App {
        /// Application-dependent, 0 to 31.
        subtype: u8,
        /// The sender.
        ssrc: u32,
        /// Four ASCII characters.
        name: [u8; 4],
        /// Application-dependent, whole words.
        data: &'a [u8],
    },
    /// Any other type, for instance feedback (RFC 4585) or XR (RFC 3611).
    Unknown {
        /// 0 to 255.
        packet_type: u8,
        /// The five bits of the count or format.
        count: u8,
        /// What follows the common header.
        body: &'a [u8],
    },
}

/// The report blocks of an SR or RR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlocks<'a>(&'a [u8]);

impl<'a> ReportBlocks<'a> {
    /// The blocks in their order.
    pub fn iter(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        self.0.chunks_exact(REPORT_BLOCK_LEN).filter_map(ReportBlock::read)
    }
}

/// The chunks of an SDES packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceDescription<'a> {
    chunks: u8,
    body: &'a [u8],
}

/// One item of a source description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SdesItem<'a> {
    /// The source described.
    pub ssrc: u32,
    /// 1 is CNAME, 2 NAME, 3 EMAIL ... (RFC 3550 §12.2).
    pub item_type: u8,
    /// UTF-8 by rule, unchecked.
    pub text: &'a [u8],
}

impl<'a> SourceDescription<'a> {
    /// Every item of every chunk, in order.
    pub fn items(&self) -> impl Iterator<Item = SdesItem<'a>> + use<'a> {
        SdesItems { chunks: self.chunks, rest: self.body, at: 0, ssrc: None, broken: false }
    }

    /// The canonical name of a source, if it is told.
    pub fn cname(&self, ssrc: u32) -> Option<&'a [u8]> {
        self.items().find(|item| item.ssrc == ssrc && item.item_type == CNAME).map(|item| item.text)
    }
}

struct SdesItems<'a> {
    chunks: u8,
    rest: &'a [u8],
    at: usize,
    ssrc: Option<u32>,
    broken: bool,
}

impl<'a> SdesItems<'a> {
    fn step(&mut self) -> Result<Option<SdesItem<'a>>, RtcpError> {
        const CUT: RtcpError = RtcpError::Counts(SOURCE_DESCRIPTION);
        loop {
            let Some(ssrc) = self.ssrc else {
                if self.chunks == 0 {
                    return Ok(None);
                }
                self.chunks -= 1;
                self.ssrc = Some(be32(self.rest, self.at).ok_or(CUT)?);
                self.at += 4;
                continue;
            };
            let item_type = *self.rest.get(self.at).ok_or(CUT)?;
            if item_type == 0 {
                // A null item ends the chunk, which is then filled up to a whole word.
                self.at = (self.at + 4) & !3;
                self.ssrc = None;
                continue;
            }
            let length = usize::from(*self.rest.get(self.at + 1).ok_or(CUT)?);
            let text = self.rest.get(self.at + 2..self.at + 2 + length).ok_or(CUT)?;
            self.at += 2 + length;
            return Ok(Some(SdesItem { ssrc, item_type, text }));
        }
    }
}

impl<'a> Iterator for SdesItems<'a> {
    type Item = SdesItem<'a>;

    fn next(&mut self) -> Option<SdesItem<'a>> {
        if self.broken {
            return None;
        }
        let item = self.step();
        self.broken = item.is_err();
        item.ok().flatten()
    }
}

/// The sources that leave, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bye<'a> {
    sources: &'a [u8],
    reason: &'a [u8],
}

impl<'a> Bye<'a> {
    /// The sources that leave.
    pub fn sources(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.sources.chunks_exact(4).filter_map(|word| be32(word, 0))
    }

    /// The reason, empty if none is given; UTF-8 by rule, unchecked.
    pub fn reason(&self) -> &'a [u8] {
        self.reason
    }
}

/// A compound packet whose every length, count and version has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compound<'a>(&'a [u8]);

impl<'a> Compound<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    ///
    /// [`RtcpError`] if it fails the checks of RFC 3550 A.2, or a count inside contradicts its length.
    pub fn parse(datagram: &'a [u8]) -> Result<Compound<'a>, RtcpError> {
        let mut rest = datagram;
        let mut first = true;
        while first || !rest.is_empty() {
            let (packet, after) = split(rest)?;
            let packet_type = packet[1];
            if first && packet_type != SENDER_REPORT && packet_type != RECEIVER_REPORT {
                return Err(RtcpError::NotAReport(packet_type));
            }
            if packet[0] & 0x20 != 0 && !after.is_empty() {
                return Err(RtcpError::Padding);
            }
            let read = read(packet)?;
            if let RtcpPacket::SourceDescription(description) = read {
                check(&description)?;
            }
            first = false;
            rest = after;
        }
        Ok(Compound(datagram))
    }

    /// The packets in their order.
    pub fn packets(&self) -> impl Iterator<Item = RtcpPacket<'a>> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (packet, after) = split(rest).ok()?;
            rest = after;
            read(packet).ok()
        })
    }

    /// Who sent the compound: the SSRC of its first report.
    pub fn ssrc(&self) -> u32 {
        be32(self.0, 4).unwrap_or_default()
    }
}

fn check(description: &SourceDescription<'_>) -> Result<(), RtcpError> {
    let mut items =
        SdesItems { chunks: description.chunks, rest: description.body, at: 0, ssrc: None, broken: false };
    while items.step()?.is_some() {}
    Ok(())
}

/// Cuts the first packet off, by its length field.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), RtcpError> {
    let header = bytes.first_chunk::<4>().ok_or(RtcpError::Cut)?;
    if header[0] >> 6 != 2 {
        return Err(RtcpError::Version(header[0] >> 6));
    }
    let length = (usize::from(u16::from_be_bytes([header[2], header[3]])) + 1) * 4;
    bytes.split_at_checked(length).ok_or(RtcpError::Cut)
}

fn read(packet: &[u8]) -> Result<RtcpPacket<'_>, RtcpError> {
    let [first, packet_type, _, _] = *packet.first_chunk::<4>().ok_or(RtcpError::Cut)?;
    let count = first & 0x1f;
    let mut body = &packet[4..];
    if first & 0x20 != 0 {
        let padding = usize::from(*body.last().ok_or(RtcpError::Padding)?);
        let end = body.len().checked_sub(padding).filter(|_| padding != 0).ok_or(RtcpError::Padding)?;
        body = &body[..end];
    }
    let cut = RtcpError::Counts(packet_type);
    let word = |at: usize| be32(body, at * 4).ok_or(cut);
    let blocks = |from: usize| {
        let end = from + usize::from(count) * REPORT_BLOCK_LEN;
        body.get(from..end).map(ReportBlocks).ok_or(cut)
    };
    Ok(match packet_type {
        SENDER_REPORT => RtcpPacket::SenderReport {
            ssrc: word(0)?,
            info: SenderInfo {
                ntp: u64::from(word(1)?) << 32 | u64::from(word(2)?),
                rtp_timestamp: word(3)?,
                packets: word(4)?,
                octets: word(5)?,
            },
            blocks: blocks(24)?,
        },
        RECEIVER_REPORT => RtcpPacket::ReceiverReport { ssrc: word(0)?, blocks: blocks(4)? },
        SOURCE_DESCRIPTION => RtcpPacket::SourceDescription(SourceDescription { chunks: count, body }),
        BYE => {
            let (sources, rest) = body.split_at_checked(usize::from(count) * 4).ok_or(cut)?;
            let reason = match rest.split_first() {
                Some((length, text)) => text.get(..usize::from(*length)).ok_or(cut)?,
                None => &[],
            };
            RtcpPacket::Bye(Bye { sources, reason })
        }
        APP => RtcpPacket::App {
            subtype: count,
            ssrc: word(0)?,
            name: word(1)?.to_be_bytes(),
            data: body.get(8..).ok_or(cut)?,
        },
        packet_type => RtcpPacket::Unknown { packet_type, count, body },
    })
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|word| u32::from_be_bytes(*word))
}

#[cfg(test)]
#[path = "rtcp/tests.rs"]
mod tests;
