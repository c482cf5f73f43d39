//! DTMF as telephone events (RFC 4733): the payload, sending a digit, and hearing each digit once.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::rtp::RtpPacket;
use crate::{FRAME, SAMPLE_RATE, SAMPLES_PER_FRAME};

/// The digits by their event code (RFC 4733 §3.2); 16 is the hook flash, written `!`.
const DIGITS: &[u8; 17] = b"0123456789*#ABCD!";

/// How often the end of an event is sent, against loss (RFC 4733 §2.5.1.4).
const END_PACKETS: u8 = 3;

/// The event code of a digit: `0`-`9`, `*`, `#`, `A`-`D` in either case, `!` for the hook flash.
pub fn event_of(digit: char) -> Option<u8> {
    let digit = digit.to_ascii_uppercase();
    DIGITS.iter().position(|&known| char::from(known) == digit).map(|event| event as u8)
}

/// The digit of an event code, as in [`event_of`].
pub fn digit_of(event: u8) -> Option<char> {
    DIGITS.get(usize::from(event)).map(|&digit| char::from(digit))
}

/// Why a payload is not a telephone event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} bytes are not a telephone event of 4")]
pub struct EventError(pub usize);

/// The payload of a telephone-event packet (RFC 4733 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelephoneEvent {
    /// Event code; 0 to 15 are the DTMF digits.
    pub event: u8,
    /// Whether the event has ended; `duration` is then its full length.
    pub end: bool,
    /// Power below 0 dBm0, in dB, 0 to 63.
    pub volume: u8,
    /// Time since the event began, in units of the RTP timestamp.
    pub duration: u16,
}

impl TelephoneEvent {
    /// Reads a payload. Of several events packed into one payload (RFC 4733 §2.5.1.5) the first counts.
    ///
    /// # Errors
    ///
    /// [`EventError`] if the payload is shorter than four bytes.
    pub fn parse(payload: &[u8]) -> Result<TelephoneEvent, EventError> {
        let &[event, flags, high, low] = payload.first_chunk().ok_or(EventError(payload.len()))?;
        Ok(TelephoneEvent {
            event,
            end: flags & 0x80 != 0,
            volume: flags & 0x3f,
            duration: u16::from_be_bytes([high, low]),
        })
    }

    /// The four bytes of the payload; the reserved bit is zero.
    pub fn build(&self) -> [u8; 4] {
        let [high, low] = self.duration.to_be_bytes();
        [self.event, u8::from(self.end) << 7 | self.volume & 0x3f, high, low]
    }
}

/// One packet of a digit, in the order of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DtmfPacket {
    /// Set on the first packet of the digit.
    pub marker: bool,
    /// Of the stream that the digit interrupts.
    pub sequence: u16,
    /// When the digit began; the same in all its packets.
    pub timestamp: u32,
    /// The event.
    pub event: TelephoneEvent,
}

impl DtmfPacket {
    /// Appends the whole RTP packet to `out`.
    pub fn write(&self, payload_type: u8, ssrc: u32, out: &mut Vec<u8>) {
        let payload = self.event.build();
        let DtmfPacket { marker, sequence, timestamp, .. } = *self;
        RtpPacket { marker, payload_type, sequence, timestamp, ssrc, payload: &payload }.write(out);
    }
}

/// Yields the packets of one digit, of which one is to be sent each 20 ms.
///
/// When it is exhausted, audio goes on with [`DtmfSender::next_sequence`] and [`DtmfSender::next_timestamp`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DtmfSender {
    event: u8,
    volume: u8,
    timestamp: u32,
    sequence: u16,
    frames: u16,
    sent: u16,
    ends: u8,
}

impl DtmfSender {
    /// Prepares a digit that lasts `duration`, rounded up to 20 ms and held between 40 ms (the least that
    /// detectors must recognise, ITU-T Q.24) and 8 s (what one event can say). `sequence` and `timestamp`
    /// are those that the next audio packet of the stream would carry. `None` if it is not a digit.
    pub fn new(digit: char, duration: Duration, sequence: u16, timestamp: u32) -> Option<DtmfSender> {
        let frames = duration.as_millis().div_ceil(FRAME.as_millis()).clamp(2, 400) as u16;
        Some(DtmfSender {
            event: event_of(digit)?,
            volume: 10,
            timestamp,
            sequence,
            frames,
            sent: 0,
            ends: 0,
        })
    }

    /// The sequence of the first packet after the digit.
    pub fn next_sequence(&self) -> u16 {
        self.sequence
    }

    /// The timestamp of the first audio after the digit: the clock has run on while packets were sent.
    pub fn next_timestamp(&self) -> u32 {
        let frames = u32::from(self.sent) + u32::from(self.ends.saturating_sub(1));
        self.timestamp.wrapping_add(frames * SAMPLES_PER_FRAME as u32)
    }
}

impl Iterator for DtmfSender {
    type Item = DtmfPacket;

    fn next(&mut self) -> Option<DtmfPacket> {
        if self.ends == END_PACKETS {
            return None;
        }
        let marker = self.sent == 0;
        self.sent = self.frames.min(self.sent + 1);
        let end = self.sent == self.frames;
        self.ends += u8::from(end);
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let duration = self.sent * SAMPLES_PER_FRAME as u16;
        Some(DtmfPacket {
            marker,
            sequence,
            timestamp: self.timestamp,
            event: TelephoneEvent { event: self.event, end, volume: self.volume, duration },
        })
    }
}

/// Hears each digit once, however often its packets are repeated and in whatever order they come.
///
/// A digit is told at its first packet that arrives, so that it is neither late nor lost with its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DtmfReceiver {
    last: Option<Heard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Heard {
    ssrc: u32,
    timestamp: u32,
    event: u8,
    duration: u16,
    ended: bool,
}

impl DtmfReceiver {
    /// A receiver that has heard nothing.
    pub fn new() -> DtmfReceiver {
        DtmfReceiver::default()
    }

    /// Takes a packet of the telephone-event payload type (the caller knows which that is). Returns the digit
    /// if this is its first packet. Events that are no digits (fax and modem tones) are passed over.
    pub fn receive(&mut self, packet: &RtpPacket<'_>) -> Option<char> {
        let event = TelephoneEvent::parse(packet.payload).ok()?;
        let digit = digit_of(event.event)?;
        if let Some(last) = &mut self.last
            && last.ssrc == packet.ssrc
        {
            let ahead = packet.timestamp.wrapping_sub(last.timestamp);
            let stale = ahead > 1 << 31;
            if stale || last.continued_by(packet.marker, ahead, &event) {
                if !stale {
                    last.duration =
                        if ahead == 0 { last.duration.max(event.duration) } else { event.duration };
                    last.timestamp = packet.timestamp;
                    last.ended |= event.end;
                }
                return None;
            }
        }
        self.last = Some(Heard {
            ssrc: packet.ssrc,
            timestamp: packet.timestamp,
            event: event.event,
            duration: event.duration,
            ended: event.end,
        });
        Some(digit)
    }
}

impl Heard {
    /// Whether a packet whose timestamp is `ahead` units later still belongs to this digit.
    fn continued_by(&self, marker: bool, ahead: u32, event: &TelephoneEvent) -> bool {
        if ahead == 0 {
            return true;
        }
        if marker || self.event != event.event {
            return false;
        }
        // A digit cannot begin before the previous one is over; senders that move the timestamp within an
        // event are wrong, but they exist.
        let overlaps = ahead < u32::from(self.duration);
        let grows = !self.ended && event.duration > self.duration && ahead < SAMPLE_RATE;
        // A very long event goes on in a new segment when its duration is full (RFC 4733 §2.5.1.3).
        let segment = !self.ended && ahead == u32::from(u16::MAX);
        overlaps || grows || segment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(digits: &str) -> Vec<Vec<u8>> {
        let (mut sequence, mut timestamp) = (65_530, u32::MAX - 1000);
        let mut all = Vec::new();
        for digit in digits.chars() {
            let mut sender = DtmfSender::new(digit, Duration::from_millis(100), sequence, timestamp).unwrap();
            for packet in sender.by_ref() {
                let mut bytes = Vec::new();
                packet.write(101, 5, &mut bytes);
                all.push(bytes);
            }
            sequence = sender.next_sequence();
            timestamp = sender.next_timestamp();
        }
        all
    }

    fn hear<'a>(packets: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
        let mut receiver = DtmfReceiver::new();
        packets.into_iter().filter_map(|bytes| receiver.receive(&RtpPacket::parse(bytes).unwrap())).collect()
    }

    #[test]
    fn every_digit_has_the_event_code_of_rfc_4733() {
        for (event, digit) in (0..).zip("0123456789*#ABCD!".chars()) {
            assert_eq!(event_of(digit), Some(event));
            assert_eq!(event_of(digit.to_ascii_lowercase()), Some(event));
            assert_eq!(digit_of(event), Some(digit));
        }
        assert_eq!(event_of('x'), None);
        assert_eq!(digit_of(17), None);
        assert!(DtmfSender::new('x', FRAME, 0, 0).is_none());
    }

    #[test]
    fn the_payload_has_the_bits_of_rfc_4733() {
        let event = TelephoneEvent { event: 11, end: true, volume: 10, duration: 0x0320 };
        assert_eq!(event.build(), [11, 0x8a, 0x03, 0x20]);
        assert_eq!(TelephoneEvent::parse(&event.build()), Ok(event));
        assert_eq!(TelephoneEvent::parse(&[1, 0x40, 0, 1]).unwrap().volume, 0, "the reserved bit is ignored");
        assert_eq!(TelephoneEvent::parse(&[1, 2, 3]), Err(EventError(3)));
    }

    #[test]
    fn a_digit_of_60_ms_is_five_packets_three_of_them_its_end() {
        let mut sender = DtmfSender::new('5', Duration::from_millis(60), 9, 1000).unwrap();
        let sent: Vec<_> = sender.by_ref().collect();
        let seen: Vec<_> =
            sent.iter().map(|p| (p.marker, p.sequence, p.timestamp, p.event.end, p.event.duration)).collect();
        assert_eq!(
            seen,
            [
                (true, 9, 1000, false, 160),
                (false, 10, 1000, false, 320),
                (false, 11, 1000, true, 480),
                (false, 12, 1000, true, 480),
                (false, 13, 1000, true, 480),
            ]
        );
        assert_eq!((sender.next_sequence(), sender.next_timestamp()), (14, 1000 + 5 * 160));
    }

    #[test]
    fn every_digit_is_heard_once_and_repeated_digits_as_often_as_pressed() {
        assert_eq!(hear(&packets("1123##A")), "1123##A");
    }

    #[test]
    fn losing_any_packets_but_one_of_a_digit_loses_no_digit() {
        let all = packets("1123");
        let per_digit = all.len() / 4;
        for kept in 0..per_digit {
            assert_eq!(hear(all.iter().skip(kept).step_by(per_digit)), "1123", "packet {kept} of each");
        }
    }

    #[test]
    fn packets_repeated_or_late_double_no_digit() {
        let all = packets("12");
        let per_digit = all.len() / 2;
        let mut order: Vec<usize> = (0..all.len()).flat_map(|at| [at, at]).collect();
        // The first packet and the last end of the first digit arrive after the second digit.
        order.extend([0, per_digit - 1]);
        assert_eq!(hear(order.into_iter().map(|at| &all[at])), "12");
    }

    #[test]
    fn a_sender_that_moves_the_timestamp_within_a_digit_is_understood() {
        let mut receiver = DtmfReceiver::new();
        let mut heard = String::new();
        for step in 0..6u16 {
            let event =
                TelephoneEvent { event: 3, end: step >= 4, volume: 10, duration: (step.min(4) + 1) * 160 };
            let payload = event.build();
            let packet = RtpPacket {
                marker: step == 0,
                payload_type: 101,
                sequence: step,
                timestamp: u32::from(step) * 160,
                ssrc: 1,
                payload: &payload,
            };
            heard.extend(receiver.receive(&packet));
        }
        assert_eq!(heard, "3");
    }

    #[test]
    fn a_digit_held_longer_than_one_segment_is_one_digit() {
        let mut receiver = DtmfReceiver::new();
        let mut heard = String::new();
        for (marker, timestamp, duration, end) in [
            (true, 0, 160, false),
            (false, 0, 65_535, false),
            (false, 65_535, 160, false),
            (false, 65_535, 900, true),
        ] {
            let payload = TelephoneEvent { event: 9, end, volume: 10, duration }.build();
            heard.extend(receiver.receive(&RtpPacket {
                marker,
                payload_type: 101,
                sequence: 0,
                timestamp,
                ssrc: 1,
                payload: &payload,
            }));
        }
        assert_eq!(heard, "9");
    }
}
