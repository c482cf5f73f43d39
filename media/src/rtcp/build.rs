//! Building compound packets.

use super::{APP, BYE, CNAME, RECEIVER_REPORT, ReportBlock, SENDER_REPORT, SOURCE_DESCRIPTION, SenderInfo};

/// The largest number the five-bit count field holds.
const MAX_COUNT: usize = 31;

/// Appends one compound packet to a buffer. It can only begin with a report, so what it builds is valid.
#[derive(Debug)]
pub struct CompoundBuilder<'a> {
    out: &'a mut Vec<u8>,
    ssrc: u32,
}

impl<'a> CompoundBuilder<'a> {
    /// Begins with a sender report. More than 31 blocks are cut.
    pub fn sender_report(
        out: &'a mut Vec<u8>,
        ssrc: u32,
        info: &SenderInfo,
        blocks: &[ReportBlock],
    ) -> CompoundBuilder<'a> {
        let blocks = &blocks[..blocks.len().min(MAX_COUNT)];
        let start = begin(out, SENDER_REPORT, blocks.len());
        out.extend(ssrc.to_be_bytes());
        out.extend(info.ntp.to_be_bytes());
        out.extend(info.rtp_timestamp.to_be_bytes());
        out.extend(info.packets.to_be_bytes());
        out.extend(info.octets.to_be_bytes());
        write_blocks(out, blocks);
        end(out, start);
        CompoundBuilder { out, ssrc }
    }

    /// Begins with a receiver report, possibly of no blocks. More than 31 blocks are cut.
    pub fn receiver_report(out: &'a mut Vec<u8>, ssrc: u32, blocks: &[ReportBlock]) -> CompoundBuilder<'a> {
        let blocks = &blocks[..blocks.len().min(MAX_COUNT)];
        let start = begin(out, RECEIVER_REPORT, blocks.len());
        out.extend(ssrc.to_be_bytes());
        write_blocks(out, blocks);
        end(out, start);
        CompoundBuilder { out, ssrc }
    }

    /// Adds our canonical name, at most 255 bytes of it. Every compound must carry it (RFC 3550 §6.1).
    pub fn cname(self, cname: &str) -> CompoundBuilder<'a> {
        let start = begin(self.out, SOURCE_DESCRIPTION, 1);
        self.out.extend(self.ssrc.to_be_bytes());
        self.out.push(CNAME);
        push_text(self.out, cname.as_bytes());
        // At least one null byte ends the chunk, then it is filled to a whole word.
        self.out.push(0);
        end(self.out, start);
        self
    }

    /// Adds a BYE for our own source; an empty reason is left out, a long one cut at 255 bytes.
    pub fn bye(self, reason: &str) -> CompoundBuilder<'a> {
        let start = begin(self.out, BYE, 1);
        self.out.extend(self.ssrc.to_be_bytes());
        if !reason.is_empty() {
            push_text(self.out, reason.as_bytes());
        }
        end(self.out, start);
        self
    }

    /// Adds an APP packet of our own source. Only the lower five bits of `subtype` count, and `data` is
    /// filled with zeros to a whole word.
    pub fn app(self, subtype: u8, name: [u8; 4], data: &[u8]) -> CompoundBuilder<'a> {
        let start = begin(self.out, APP, usize::from(subtype & 0x1f));
        self.out.extend(self.ssrc.to_be_bytes());
        self.out.extend(name);
        self.out.extend_from_slice(data);
        end(self.out, start);
        self
    }
}

fn begin(out: &mut Vec<u8>, packet_type: u8, count: usize) -> usize {
    let start = out.len();
    out.extend([0x80 | count as u8, packet_type, 0, 0]);
    start
}

fn end(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    out.resize(start + length.next_multiple_of(4), 0);
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(255)];
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}

fn write_blocks(out: &mut Vec<u8>, blocks: &[ReportBlock]) {
    for block in blocks {
        let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        out.extend(block.ssrc.to_be_bytes());
        out.extend((u32::from(block.fraction_lost) << 24 | lost).to_be_bytes());
        out.extend(block.highest_sequence.to_be_bytes());
        out.extend(block.jitter.to_be_bytes());
        out.extend(block.last_sr.to_be_bytes());
        out.extend(block.delay_since_last_sr.to_be_bytes());
    }
}
