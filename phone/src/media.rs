//! The audio half of a phone: speaks into a call, and judges what it hears.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tandem_media::codec::Codec;
use tandem_media::rtp::RtpPacket;
use tandem_media::stats::{Arrival, ReceiveStats};
use tandem_media::tone::{
    Fingerprint, RMS_AT_0_DBM0, SILENCE_DBM0, ToneGenerator, TonePreset, fingerprint, level_dbm0,
};
use tandem_media::{FRAME, SAMPLE_RATE, SAMPLES_PER_FRAME};

use crate::rng::Rng;
use crate::sdp::Direction;

/// Samples that are compared with the expected voice at a time: two seconds, what a fingerprint needs.
const WINDOW: usize = 2 * SAMPLE_RATE as usize;
/// The shortest rest of a window that is judged: half a second.
const LEAST: usize = SAMPLE_RATE as usize / 2;
/// A sender further behind than this has been stopped, not delayed: it goes on from now.
const MOST_BEHIND: Duration = Duration::from_millis(200);

/// What one end says and whom it expects to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaConfig {
    /// The source of SSRC, first sequence number and first timestamp.
    pub seed: u64,
    /// What is sent.
    pub says: TonePreset,
    /// What the other end sends, if that is to be checked.
    pub expects: Option<TonePreset>,
}

/// What was heard since the start of the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// Distinct RTP packets of the agreed payload type.
    pub packets: u64,
    /// Packets that never came, as far as the sequence numbers tell.
    pub lost: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Interarrival jitter, milliseconds (RFC 3550 section 6.4.1).
    pub jitter_ms: f32,
    /// The longest time between two packets, milliseconds; a hold is not counted.
    pub longest_gap_ms: u64,
    /// The mean level of all that was heard, dBm0.
    pub level_dbm0: f32,
    /// The part of the sound in which the expected voice was recognised, 0 to 1, in steps of two seconds of
    /// sound; absent when nothing is expected, 0 when nothing was heard.
    pub recognised: Option<f32>,
    /// Packets from another address than the one in the peer's SDP; they are heard all the same.
    pub strangers: u64,
    /// Datagrams that are no RTP, or of a payload type that was not agreed.
    pub unusable: u64,
}

/// One end of an audio stream without socket and clock; it serves one call at a time.
///
/// Input: [`start`](MediaEnd::start), [`change`](MediaEnd::change), [`stop`](MediaEnd::stop),
/// [`receive`](MediaEnd::receive) and [`handle_timeout`](MediaEnd::handle_timeout), each with the time since
/// the caller's epoch. Output: [`poll_transmit`](MediaEnd::poll_transmit) and
/// [`poll_timeout`](MediaEnd::poll_timeout). [`heard`](MediaEnd::heard) is the judgement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MediaEnd {
    config: MediaConfig,
    voice: ToneGenerator,
    expected: Option<Fingerprint>,
    codec: Codec,
    remote: Option<SocketAddr>,
    direction: Direction,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    /// The first packet after a silence is marked, RFC 3551 section 4.1.
    marker: bool,
    /// When the next packet is due; absent while nothing is sent.
    due: Option<Duration>,
    /// When the last packet was due, to move the timestamp over a hold.
    rested_since: Option<Duration>,
    outbox: VecDeque<(SocketAddr, Vec<u8>)>,
    stats: ReceiveStats,
    power: f64,
    samples: u64,
    /// The window that was judged last, if any, and what was heard since.
    window: Vec<i16>,
    /// How much of it has been judged.
    behind: usize,
    /// Windows with sound, and those of them with the expected voice.
    judged: (u32, u32),
    strangers: u64,
    unusable: u64,
}

impl MediaEnd {
    /// An end that is silent until it is started.
    pub fn new(config: MediaConfig) -> MediaEnd {
        MediaEnd::silent(config, config.expects.map(print_of))
    }

    fn silent(config: MediaConfig, expected: Option<Fingerprint>) -> MediaEnd {
        let mut rng = Rng::new(config.seed);
        MediaEnd {
            config,
            voice: ToneGenerator::preset(config.says),
            expected,
            codec: Codec::Pcmu,
            remote: None,
            direction: Direction::Inactive,
            ssrc: rng.next() as u32,
            sequence: rng.next() as u16,
            timestamp: rng.next() as u32,
            marker: true,
            due: None,
            rested_since: None,
            outbox: VecDeque::new(),
            stats: ReceiveStats::new(SAMPLE_RATE),
            power: 0.0,
            samples: 0,
            window: Vec::new(),
            behind: 0,
            judged: (0, 0),
            strangers: 0,
            unusable: 0,
        }
    }

    /// A call is answered: speaks to `remote` from now on, and forgets what was heard before.
    ///
    /// A payload type other than those of PCMU and PCMA is sent as PCMU.
    pub fn start(&mut self, now: Duration, remote: SocketAddr, payload_type: u8) {
        let config = MediaConfig { seed: self.config.seed.wrapping_add(1), ..self.config };
        *self = MediaEnd::silent(config, self.expected.take());
        self.change(now, remote, payload_type, Direction::SendRecv);
    }

    /// The address, the codec or the direction changed: hold, retrieve, another media server.
    pub fn change(&mut self, now: Duration, remote: SocketAddr, payload_type: u8, direction: Direction) {
        self.codec = Codec::from_payload_type(payload_type).unwrap_or(Codec::Pcmu);
        self.remote = Some(remote);
        self.direction = direction;
        if !direction.receives() {
            self.stats.pause();
        }
        let sends = direction.sends() && remote.port() != 0;
        if sends && self.due.is_none() {
            if let Some(since) = self.rested_since.take() {
                let frames = now.saturating_sub(since).as_micros() / FRAME.as_micros();
                self.timestamp =
                    self.timestamp.wrapping_add((frames as u32).wrapping_mul(SAMPLES_PER_FRAME as u32));
            }
            self.marker = true;
            self.due = Some(now);
        } else if !sends {
            self.rested_since = self.due.take().or(self.rested_since);
        }
    }

    /// The call is over; [`heard`](MediaEnd::heard) stays until the next start.
    pub fn stop(&mut self) {
        self.remote = None;
        self.due = None;
        self.rested_since = None;
        self.outbox.clear();
    }

    /// Whether a call is on.
    pub fn is_active(&self) -> bool {
        self.remote.is_some()
    }

    /// Takes a datagram of the media socket.
    pub fn receive(&mut self, now: Duration, from: SocketAddr, datagram: &[u8]) {
        let Some(remote) = self.remote else { return };
        let packet = RtpPacket::parse(datagram).ok();
        let Some(packet) = packet.filter(|p| p.payload_type == self.codec.payload_type()) else {
            self.unusable += 1;
            return;
        };
        self.strangers += u64::from(from != remote);
        match self.stats.receive(now, packet.ssrc, packet.sequence, Some(packet.timestamp)) {
            Arrival::InOrder | Arrival::Reordered => self.listen(packet.payload),
            Arrival::Duplicate | Arrival::Suspect => {}
        }
    }

    /// Speaks if it is time to.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(due) = self.due.filter(|due| *due <= now) {
            self.speak();
            let next = due + FRAME;
            let stopped = now.saturating_sub(next) > MOST_BEHIND;
            self.due = Some(if stopped { now + FRAME } else { next });
        }
    }

    /// When the next packet is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.due
    }

    /// The next packet to send.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.outbox.pop_front()
    }

    /// [`Heard::packets`] alone, which costs nothing.
    pub fn packets_heard(&self) -> u64 {
        self.stats.received
    }

    /// What was heard in the present call, or in the last one. Judging an unfinished window costs some
    /// milliseconds.
    pub fn heard(&self) -> Heard {
        let (mut sounding, mut matching) = self.judged;
        if self.window.len() - self.behind >= LEAST {
            // With what was heard before it, as half a second of speech is too short to tell voices apart.
            let from = self.window.len().saturating_sub(WINDOW);
            let (sounds, matches) = self.judge(&self.window[from..]);
            sounding += u32::from(sounds);
            matching += u32::from(matches);
        }
        let share = if sounding == 0 { 0.0 } else { matching as f32 / sounding as f32 };
        Heard {
            packets: self.stats.received,
            lost: self.stats.lost(),
            duplicates: self.stats.duplicates,
            jitter_ms: self.stats.jitter_ms(),
            longest_gap_ms: u64::try_from(self.stats.max_gap.as_millis()).unwrap_or(u64::MAX),
            level_dbm0: self.level(),
            recognised: self.expected.as_ref().map(|_| share),
            strangers: self.strangers,
            unusable: self.unusable,
        }
    }

    fn speak(&mut self) {
        let Some(remote) = self.remote else { return };
        let mut samples = [0i16; SAMPLES_PER_FRAME];
        self.voice.next_frame(&mut samples);
        let mut payload = Vec::with_capacity(SAMPLES_PER_FRAME);
        self.codec.encode(&samples, &mut payload);
        let packet = RtpPacket {
            marker: std::mem::take(&mut self.marker),
            payload_type: self.codec.payload_type(),
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            payload: &payload,
        };
        let mut datagram = Vec::new();
        packet.write(&mut datagram);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(SAMPLES_PER_FRAME as u32);
        self.outbox.push_back((remote, datagram));
    }

    fn listen(&mut self, payload: &[u8]) {
        let start = self.window.len();
        self.codec.decode(payload, &mut self.window);
        self.power += self.window[start..].iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
        self.samples += (self.window.len() - start) as u64;
        if self.window.len() - self.behind >= WINDOW {
            let (sounds, matches) = self.judge(&self.window[self.behind..]);
            self.judged.0 += u32::from(sounds);
            self.judged.1 += u32::from(matches);
            self.window.drain(..self.behind);
            self.behind = self.window.len();
        }
    }

    /// Whether a window has sound, and whether that is the expected voice.
    fn judge(&self, window: &[i16]) -> (bool, bool) {
        let Some(expected) = &self.expected else { return (false, false) };
        // 15 dB under what the presets send; comfort noise and codec noise are lower.
        if level_dbm0(window) < -45.0 {
            return (false, false);
        }
        (true, fingerprint(window).similarity(expected) >= Fingerprint::SAME)
    }

    fn level(&self) -> f32 {
        if self.samples == 0 {
            return SILENCE_DBM0;
        }
        let mean = self.power / self.samples as f64;
        let reference = f64::from(RMS_AT_0_DBM0).powi(2);
        ((10.0 * (mean / reference).log10()) as f32).max(SILENCE_DBM0)
    }
}

/// The fingerprint of what a preset sounds like over ten seconds.
fn print_of(preset: TonePreset) -> Fingerprint {
    let mut samples = vec![0; 10 * SAMPLE_RATE as usize];
    ToneGenerator::preset(preset).next_frame(&mut samples);
    fingerprint(&samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ([u8; 4], u16) = ([127, 0, 0, 1], 4000);
    const THERE: ([u8; 4], u16) = ([127, 0, 0, 1], 4002);

    fn end(says: u64, expects: u64) -> MediaEnd {
        let speech = |seed| TonePreset::Speech { seed };
        MediaEnd::new(MediaConfig { seed: says, says: speech(says), expects: Some(speech(expects)) })
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Runs `a` to `b` for some time, each packet through `network`, which says when it arrives.
    fn talk(a: &mut MediaEnd, b: &mut MediaEnd, ms: std::ops::Range<u64>, network: fn(u64) -> Option<u64>) {
        for now in ms {
            a.handle_timeout(at(now));
            while let Some((to, datagram)) = a.poll_transmit() {
                assert_eq!(to, THERE.into());
                if let Some(delay) = network(now / 20) {
                    b.receive(at(now + delay), HERE.into(), &datagram);
                }
            }
        }
    }

    fn pair(says: u64, expects: u64) -> (MediaEnd, MediaEnd) {
        let (mut a, mut b) = (end(says, 9), end(9, expects));
        a.start(at(0), THERE.into(), 0);
        b.start(at(0), HERE.into(), 0);
        (a, b)
    }

    #[test]
    fn the_expected_voice_is_recognised_and_another_one_is_not() {
        let (mut a, mut b) = pair(1, 1);
        talk(&mut a, &mut b, 0..6000, |_| Some(5));
        let heard = b.heard();
        assert_eq!((heard.packets, heard.lost, heard.longest_gap_ms), (300, 0, 20));
        assert!(heard.level_dbm0 > -32.0 && heard.level_dbm0 < -15.0, "{heard:?}");
        assert_eq!(heard.recognised, Some(1.0));
        assert!(heard.jitter_ms < 1.0, "{heard:?}");

        let (mut a, mut b) = pair(2, 1);
        talk(&mut a, &mut b, 0..6000, |_| Some(5));
        assert_eq!(b.heard().recognised, Some(0.0));
    }

    #[test]
    fn a_short_rest_is_judged_with_what_came_before_it() {
        for seed in 1..40 {
            let (mut a, mut b) = pair(seed, seed);
            talk(&mut a, &mut b, 0..2500, |_| Some(5));
            let heard = b.heard();
            assert_eq!((heard.packets, heard.recognised), (125, Some(1.0)), "voice {seed}");
        }
    }

    #[test]
    fn loss_and_gaps_are_counted() {
        let (mut a, mut b) = pair(1, 1);
        talk(&mut a, &mut b, 0..2000, |n| (!(50..60).contains(&n)).then_some(5));
        let heard = b.heard();
        assert_eq!((heard.packets, heard.lost, heard.longest_gap_ms), (90, 10, 220));
    }

    #[test]
    fn a_hold_stops_the_voice_moves_the_timestamp_and_is_no_gap() {
        let (mut a, mut b) = pair(1, 1);
        talk(&mut a, &mut b, 0..1000, |_| Some(5));
        a.change(at(1000), THERE.into(), 0, Direction::RecvOnly);
        b.change(at(1000), HERE.into(), 0, Direction::SendOnly);
        talk(&mut a, &mut b, 1000..3000, |_| Some(5));
        assert_eq!(b.heard().packets, 50);
        a.change(at(3000), THERE.into(), 0, Direction::SendRecv);
        b.change(at(3000), HERE.into(), 0, Direction::SendRecv);
        talk(&mut a, &mut b, 3000..4000, |_| Some(5));
        let heard = b.heard();
        assert_eq!((heard.packets, heard.lost, heard.longest_gap_ms), (100, 0, 20));
        assert!(heard.jitter_ms < 1.0, "the timestamp follows the clock over the hold: {heard:?}");
    }

    #[test]
    fn nothing_heard_is_silence_and_recognises_nothing() {
        let (_, b) = pair(1, 1);
        let heard = b.heard();
        assert_eq!((heard.packets, heard.recognised), (0, Some(0.0)));
        assert_eq!(heard.level_dbm0, SILENCE_DBM0);
    }

    #[test]
    fn garbage_and_wrong_payload_types_are_counted_apart() {
        let (_, mut b) = pair(1, 1);
        b.receive(at(1), HERE.into(), b"\x80");
        let mut pcma = Vec::new();
        let payload = [0xd5; 160];
        RtpPacket { marker: false, payload_type: 8, sequence: 1, timestamp: 1, ssrc: 1, payload: &payload }
            .write(&mut pcma);
        b.receive(at(1), HERE.into(), &pcma);
        assert_eq!((b.heard().unusable, b.heard().packets), (2, 0));
    }

    #[test]
    fn a_sender_that_was_stopped_does_not_send_a_burst() {
        let (mut a, _) = pair(1, 1);
        a.handle_timeout(at(0));
        a.handle_timeout(at(10_000));
        assert_eq!(std::iter::from_fn(|| a.poll_transmit()).count(), 2);
        assert_eq!(a.poll_timeout(), Some(at(10_020)));
    }
}
